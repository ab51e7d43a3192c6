"""What is said at a rendezvous: every message, its fields, and the limits. Pure.

A client (a taker, or somebody who puts, lists or drops) speaks first; then one side answers the
other. sockact-rendezvous(7) is the specification. Fields have defaults where an older peer may
leave them out; `sockact.rendezvous.wire` reads and writes them by name, so a class here is all
there is to a message.
"""

import enum
from typing import ClassVar, NewType

import attrs

from sockact.rendezvous.manifest import Manifest
from sockact.spec import AsValue

VERSION = 1
"""The newest version of the protocol spoken here; every older one is spoken too."""

FDS_MAX = 250
"""Descriptors in one message; the kernel takes 253 (SCM_MAX_FD)."""

BYTES_MAX = 65536
"""Bytes in one message, header included; far below what a Unix socket takes (kernel: SO_SNDBUF)."""

ENTRIES_MAX = 65536
"""Descriptors in one set of sets."""

NAME_MAX = 255
"""Characters in a set's name or an fd name, as in systemd's fd names."""

TEXT_MAX = 4096
"""Characters in an address or an explanation."""

DEPTH_MAX = 32
"""How deep the arguments of a command may be nested."""

PART_MAX = 30_000
"""Characters in one part of an answer, as written here: in JSON each may take two bytes."""

ANSWER_MAX = 2**24
"""Characters in an answer, in all its parts."""

Part = NewType("Part", str)
"""A part of a text that may be long: no longer than a message."""


class Json(str):
    """The text of a JSON object, in ASCII; a message has the object itself."""

    __slots__ = ()


_NOTHING = Json("{}")


class Op(enum.Enum):
    """What a client asks for."""

    GET = "get"
    TAKEOVER = "takeover"
    PUT = "put"
    LIST = "list"
    DROP = "drop"
    CONTROL = "control"


class Reason(enum.Enum):
    """Why something was refused or broken off; programs look at it, people read the text."""

    BUSY = "busy"
    DENIED = "denied"
    UNKNOWN_NAME = "unknown-name"
    EXISTS = "exists"
    VERSION = "version"
    CAPABILITY = "capability"
    UNSUPPORTED = "unsupported"
    LIMIT = "limit"
    PROTOCOL = "protocol"
    MISMATCH = "mismatch"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    FAILED = "failed"


@attrs.frozen(eq=False, repr=False)
class Message(AsValue):
    """The root of all messages; `TYPE` is what the wire calls it."""

    TYPE: ClassVar[str] = ""


@attrs.frozen(eq=False, repr=False)
class Hello(Message):
    """The client's first message.

    Attributes:
        oldest: The oldest version of the protocol that it speaks.
        newest: The newest one.
        requires: Capabilities without which it can do nothing.
        offers: Capabilities that it has.
        fds: The most descriptors that it takes in one message.
        pid: Its process id in its own namespace; for people.
        program: Its name; for people.
    """

    TYPE: ClassVar[str] = "hello"
    oldest: int
    newest: int
    requires: tuple[str, ...] = ()
    offers: tuple[str, ...] = ()
    fds: int = FDS_MAX
    pid: int = 0
    program: str = ""


@attrs.frozen(eq=False, repr=False)
class Welcome(Message):
    """The owner's answer to Hello.

    Attributes:
        version: The version that is spoken from here on.
        offers: Capabilities that the owner has: ``store`` is a holder's (put and drop), ``control``
            is that of one that takes commands, ``fdstore`` of one that keeps what services store.
        generation: Its generation.
        fds: The most descriptors that it takes in one message.
        pid: Its process id in its own namespace; for people.
    """

    TYPE: ClassVar[str] = "welcome"
    version: int
    offers: tuple[str, ...] = ()
    generation: int = 1
    fds: int = FDS_MAX
    pid: int = 0


@attrs.frozen(eq=False, repr=False)
class Request(Message):
    """What the client wants.

    Attributes:
        op: Which operation.
        names: GET, DROP: sets or fd names, none for all; PUT: the one name of the new set.
        patience: TAKEOVER: seconds that the taker may need until it is ready.
        uids: PUT: users who may get the set, besides root and the owner's own.
        gids: PUT: groups that may.
        replace: PUT: whether a set of that name may be replaced.
        role: PUT: the role of what is put: ``fdstore`` for what a service has stored; empty for a
            set.
        command: CONTROL: what the owner is to do; which commands there are is its own matter.
        arguments: CONTROL: what the command needs to know.
    """

    TYPE: ClassVar[str] = "request"
    op: Op
    names: tuple[str, ...] = ()
    patience: float = 60.0
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    replace: bool = False
    role: str = ""
    command: str = ""
    arguments: Json = _NOTHING


@attrs.frozen(eq=False, repr=False)
class Offer(Message):
    """A part of the manifest of what is to be passed, before any descriptor moves.

    Attributes:
        count: How many descriptors in all; the same in every part.
        more: Whether another part follows.
        entries: The entries of this part, in order.
    """

    TYPE: ClassVar[str] = "offer"
    count: int
    entries: Manifest
    more: bool = False


@attrs.frozen(eq=False, repr=False)
class Accept(Message):
    """The receiver has looked at the whole manifest and has room for all of it."""

    TYPE: ClassVar[str] = "accept"


@attrs.frozen(eq=False, repr=False)
class Refuse(Message):
    """No, and nothing has changed; the connection ends.

    Attributes:
        reason: Why.
        text: Why, for a person.
    """

    TYPE: ClassVar[str] = "refuse"
    reason: Reason
    text: str = ""


@attrs.frozen(eq=False, repr=False)
class Fds(Message):
    """Carries the descriptors of `count` entries of the manifest, from the one at `first` on."""

    TYPE: ClassVar[str] = "fds"
    first: int
    count: int


@attrs.frozen(eq=False, repr=False)
class Ack(Message):
    """`count` descriptors have arrived, in all."""

    TYPE: ClassVar[str] = "ack"
    count: int


@attrs.frozen(eq=False, repr=False)
class Adopted(Message):
    """Everything has arrived, and each descriptor is the one that the manifest names."""

    TYPE: ClassVar[str] = "adopted"


@attrs.frozen(eq=False, repr=False)
class Done(Message):
    """What was asked for is done; the connection ends."""

    TYPE: ClassVar[str] = "done"


@attrs.frozen(eq=False, repr=False)
class Ready(Message):
    """The taker could serve now: its vote for the commit."""

    TYPE: ClassVar[str] = "ready"


@attrs.frozen(eq=False, repr=False)
class Commit(Message):
    """The owner has stopped accepting; the sockets are the taker's as soon as it says Committed."""

    TYPE: ClassVar[str] = "commit"


@attrs.frozen(eq=False, repr=False)
class Committed(Message):
    """The taker is the owner now."""

    TYPE: ClassVar[str] = "committed"


@attrs.frozen(eq=False, repr=False)
class Drain(Message):
    """The former owner has understood Committed, and finishes what it had accepted.

    Attributes:
        seconds: How long that may take at most; 0 if there is no limit.
    """

    TYPE: ClassVar[str] = "drain"
    seconds: float = 0.0


@attrs.frozen(eq=False, repr=False)
class Gone(Message):
    """The former owner has finished and has closed its copies; the connection ends."""

    TYPE: ClassVar[str] = "gone"


@attrs.frozen(eq=False, repr=False)
class Release(Message):
    """The new owner needs no reserve any more: the former one is to close its copies now."""

    TYPE: ClassVar[str] = "release"


@attrs.frozen(eq=False, repr=False)
class Abort(Message):
    """It is broken off; whoever had the sockets before still has them.

    Attributes:
        reason: Why.
        text: Why, for a person.
    """

    TYPE: ClassVar[str] = "abort"
    reason: Reason
    text: str = ""


@attrs.frozen(eq=False, repr=False)
class Alive(Message):
    """Nothing new, but the sender is alive."""

    TYPE: ClassVar[str] = "alive"


@attrs.frozen(eq=False, repr=False)
class Listing(Message):
    """A part of the answer to LIST.

    Attributes:
        entries: What there is, in order.
        more: Whether another part follows.
        since: For each entry, when its set came here; seconds since 1970.
        now: For each entry, how much is in its queue; -1 where that is not known.
        limit: For each entry, how much its queue takes; -1 where that is not known.
        unit: For each entry, what `now` and `limit` count: connections or bytes.
    """

    TYPE: ClassVar[str] = "listing"
    entries: Manifest
    more: bool = False
    since: tuple[float, ...] = ()
    now: tuple[int, ...] = ()
    limit: tuple[int, ...] = ()
    unit: tuple[str, ...] = ()


@attrs.frozen(eq=False, repr=False)
class Answer(Message):
    """A part of the answer to CONTROL.

    Attributes:
        text: All parts together are the text of one JSON object, which is the answer.
        more: Whether another part follows.
    """

    TYPE: ClassVar[str] = "answer"
    text: Part
    more: bool = False


MESSAGES: dict[str, type[Message]] = {
    kind.TYPE: kind
    for kind in (
        Hello, Welcome, Request, Offer, Accept, Refuse, Fds, Ack, Adopted, Done, Ready, Commit,
        Committed, Drain, Gone, Release, Abort, Alive, Listing, Answer,
    )
}  # fmt: skip
