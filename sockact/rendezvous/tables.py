"""The states of both ends of a connection, and every move between them, as data. Pure.

Two laws hold. Every move stands in these tables: what is not there is an error, the peer's if a
message caused it and ours if we did. And `CLOSED` and the other final states are final.

An event is a message that came, something that the driver did, or the end of the connection or of
patience. Where what follows depends on more than the kind of a message (is it the last chunk?),
there are several events for it; sockact-rendezvous(7) draws these tables.
"""

import enum
from collections.abc import Mapping


class Event(enum.Enum):
    """What can happen to an end of a connection."""

    HELLO = "hello"
    WELCOME = "welcome"
    WELCOME_PUT = "welcome, where a set is to be put"
    WELCOME_CONTROL = "welcome, where a command is to be given"
    ASK_GET = "request get"
    ASK_TAKEOVER = "request takeover"
    ASK_PUT = "request put"
    ASK_LIST = "request list"
    ASK_DROP = "request drop"
    ASK_CONTROL = "request control"
    OFFER_PART = "offer, more to come"
    OFFER = "offer, the last part"
    ACCEPT = "accept"
    REFUSE = "refuse"
    FDS_PART = "fds, more to come"
    FDS = "fds, the last chunk"
    FDS_ALL = "fds, the last chunk of a takeover"
    ACK_PART = "ack, more to come"
    ACK = "ack of everything"
    ADOPTED = "adopted"
    ADOPTED_ALL = "adopted, of a takeover"
    READY = "ready"
    COMMIT = "commit"
    COMMITTED = "committed"
    DRAIN = "drain"
    GONE = "gone"
    RELEASE = "release"
    DONE = "done"
    LIST_PART = "listing, more to come"
    LISTING = "listing, the last part"
    ANSWER_PART = "answer, more to come"
    ANSWER = "answer, the last part"
    ABORT = "abort"
    # What the driver does.
    DO_ACCEPT = "room was found"
    DO_REFUSE = "refused here"
    DO_ANSWER = "answered here"
    DO_READY = "ready here"
    DO_DRAINED = "drained here"
    DO_CANCEL = "given up here"
    # What happens to the connection.
    BROKEN = "the peer broke the protocol"
    LOST = "the peer's end is closed"
    LOST_DEAD = "the peer is dead"
    EXPIRED = "the time is over"


class OwnerState(enum.Enum):
    """Where the owner's end of a connection stands."""

    GREETING = "waits for hello"
    IDLE = "waits for a request"
    OFFERED = "waits for accept"
    SENDING = "waits for an ack"
    SENT = "waits for adopted"
    PREPARED = "waits for ready; goes on serving"
    COMMITTING = "has stopped accepting; waits for committed"
    DRAINING = "finishes what it accepted; holds its copies in reserve"
    RELEASED = "finishes what it accepted; has closed its copies"
    REPORTING = "collects the list"
    EXPECTING = "waits for the offer of a put"
    CONSIDERING = "looks whether there is room"
    RECEIVING = "waits for descriptors of a put"
    STORING = "puts a set where it will last"
    DROPPING = "drops sets"
    OBEYING = "carries out a command"
    DONE = "finished"
    CLOSED = "broken off"


class ClientState(enum.Enum):
    """Where the client's end of a connection stands."""

    GREETING = "waits for welcome"
    ASKING = "waits for the answer to its request"
    CONSIDERING = "looks whether there is room"
    RECEIVING = "waits for descriptors"
    ADOPTED = "has everything; gets ready"
    HEIR = "has everything, and the owner is dead; gets ready"
    VOTED = "is ready; waits for commit"
    COMMITTED = "waits for the owner's drain"
    PRESUMING = "serves; the owner has not said drain"
    LEADING = "serves; the former owner drains"
    ALONE = "serves; the former owner is gone"
    OFFERED = "has offered a set; waits for accept"
    SENDING = "waits for an ack"
    SENT = "waits for adopted"
    COMMANDED = "has given a command; waits for the answer"
    DONE = "finished"
    CLOSED = "broken off"


_O, _C, _E = OwnerState, ClientState, Event

OWNER: Mapping[OwnerState, Mapping[Event, OwnerState]] = {
    _O.GREETING: {_E.HELLO: _O.IDLE},
    _O.IDLE: {
        _E.ASK_GET: _O.OFFERED,
        _E.ASK_TAKEOVER: _O.OFFERED,
        _E.ASK_PUT: _O.EXPECTING,
        _E.ASK_LIST: _O.REPORTING,
        _E.ASK_DROP: _O.DROPPING,
        _E.ASK_CONTROL: _O.OBEYING,
    },
    _O.OFFERED: {_E.ACCEPT: _O.SENDING, _E.REFUSE: _O.CLOSED},
    _O.SENDING: {_E.ACK_PART: _O.SENDING, _E.ACK: _O.SENT},
    _O.SENT: {_E.ADOPTED: _O.DONE, _E.ADOPTED_ALL: _O.PREPARED},
    _O.PREPARED: {_E.READY: _O.COMMITTING},
    _O.COMMITTING: {_E.COMMITTED: _O.DRAINING},
    _O.DRAINING: {_E.RELEASE: _O.RELEASED, _E.DO_DRAINED: _O.DONE},
    _O.RELEASED: {_E.DO_DRAINED: _O.DONE},
    _O.REPORTING: {_E.DO_ANSWER: _O.DONE},
    _O.EXPECTING: {_E.OFFER_PART: _O.EXPECTING, _E.OFFER: _O.CONSIDERING},
    _O.CONSIDERING: {_E.DO_ACCEPT: _O.RECEIVING},
    _O.RECEIVING: {_E.FDS_PART: _O.RECEIVING, _E.FDS: _O.STORING},
    _O.STORING: {_E.DO_ANSWER: _O.DONE},
    _O.DROPPING: {_E.DO_ANSWER: _O.DONE},
    _O.OBEYING: {_E.DO_ANSWER: _O.DONE},
    _O.DONE: {},
    _O.CLOSED: {},
}
"""The owner's moves. What `ENDINGS` lists ends every other state."""

CLIENT: Mapping[ClientState, Mapping[Event, ClientState]] = {
    _C.GREETING: {
        _E.WELCOME: _C.ASKING,
        _E.WELCOME_PUT: _C.OFFERED,
        _E.WELCOME_CONTROL: _C.COMMANDED,
    },
    _C.ASKING: {
        _E.OFFER_PART: _C.ASKING,
        _E.OFFER: _C.CONSIDERING,
        _E.LIST_PART: _C.ASKING,
        _E.LISTING: _C.DONE,
        _E.DONE: _C.DONE,
    },
    _C.CONSIDERING: {_E.DO_ACCEPT: _C.RECEIVING},
    _C.RECEIVING: {_E.FDS_PART: _C.RECEIVING, _E.FDS: _C.DONE, _E.FDS_ALL: _C.ADOPTED},
    _C.ADOPTED: {_E.DO_READY: _C.VOTED, _E.LOST_DEAD: _C.HEIR},
    _C.HEIR: {_E.DO_READY: _C.ALONE, _E.DO_CANCEL: _C.CLOSED},
    _C.VOTED: {_E.COMMIT: _C.COMMITTED, _E.LOST_DEAD: _C.ALONE},
    _C.COMMITTED: {
        _E.DRAIN: _C.LEADING,
        _E.LOST_DEAD: _C.ALONE,
        _E.BROKEN: _C.ALONE,
        _E.EXPIRED: _C.PRESUMING,
    },
    _C.PRESUMING: {_E.DRAIN: _C.LEADING, _E.LOST_DEAD: _C.ALONE, _E.BROKEN: _C.ALONE},
    _C.LEADING: {
        _E.GONE: _C.ALONE,
        _E.BROKEN: _C.ALONE,
        _E.REFUSE: _C.ALONE,
        _E.LOST: _C.ALONE,
        _E.LOST_DEAD: _C.ALONE,
        _E.ABORT: _C.ALONE,
    },
    _C.ALONE: {},
    _C.OFFERED: {_E.ACCEPT: _C.SENDING},
    _C.SENDING: {_E.ACK_PART: _C.SENDING, _E.ACK: _C.SENT},
    _C.SENT: {_E.ADOPTED: _C.DONE},
    _C.COMMANDED: {_E.ANSWER_PART: _C.COMMANDED, _E.ANSWER: _C.DONE},
    _C.DONE: {},
    _C.CLOSED: {},
}
"""The client's moves. What `ENDINGS` lists ends every other state."""

ENDINGS = {
    _E.REFUSE, _E.ABORT, _E.BROKEN, _E.LOST, _E.LOST_DEAD, _E.EXPIRED, _E.DO_REFUSE, _E.DO_CANCEL,
}  # fmt: skip
"""Where a table has no move for one of these, the state that follows is CLOSED."""

FINAL: set[OwnerState | ClientState] = {_O.DONE, _O.CLOSED, _C.DONE, _C.CLOSED, _C.ALONE}

CUT: set[OwnerState | ClientState] = {*FINAL, _C.HEIR}
"""The states in which the connection is closed: whatever seems to come from it means nothing."""

OWNER_SECONDS: Mapping[OwnerState, float] = {
    _O.GREETING: 5.0,
    _O.IDLE: 5.0,
    _O.OFFERED: 10.0,
    _O.SENDING: 10.0,
    _O.SENT: 10.0,
    _O.COMMITTING: 5.0,
    _O.EXPECTING: 10.0,
    _O.RECEIVING: 10.0,
}
"""How long the owner waits in a state; PREPARED lasts as long as the request's patience, and
OBEYING as long as the command."""

CLIENT_SECONDS: Mapping[ClientState, float] = {
    _C.GREETING: 10.0,
    _C.ASKING: 10.0,
    _C.RECEIVING: 10.0,
    _C.VOTED: 20.0,
    _C.COMMITTED: 2.0,
    _C.OFFERED: 10.0,
    _C.SENDING: 10.0,
    _C.SENT: 30.0,
}
"""How long the client waits in a state; ADOPTED and COMMANDED last as long as the caller's
patience."""

TRANSFER_SECONDS = 60.0
"""How long a connection may take until its transfer is over, however busy it keeps its owner."""

PATIENCE_MAX = 3600.0
"""The most seconds that a taker gets to become ready."""

ALIVE_SECONDS = 5.0
"""How often each side says Alive where the other waits for it."""

SILENCE_SECONDS = 20.0
"""How long the other side may say nothing there."""

AWAITED: set[OwnerState | ClientState] = {
    _O.PREPARED, _O.COMMITTING, _O.OBEYING, _C.ADOPTED, _C.VOTED, _C.COMMITTED, _C.COMMANDED,
}  # fmt: skip
"""The states in which each side says Alive, and silence is a failure."""

UNCAPPED: set[OwnerState | ClientState] = {
    _O.PREPARED, _O.COMMITTING, _O.OBEYING, _C.VOTED, _C.COMMITTED, _C.COMMANDED,
}  # fmt: skip
"""The states behind the transfer, which `TRANSFER_SECONDS` does not bound."""
