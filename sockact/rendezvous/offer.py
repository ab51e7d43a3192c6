"""The owner at work: it answers at the rendezvous, within limits that a peer cannot move.

Whatever a peer does costs at most one connection's memory and time; the limits stand here and in
`sockact.rendezvous.tables`. Who may not do anything here is told so and sent away before it has
said a word.
"""

import contextlib
import json
import os
import resource
import socket as _socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from sockact.fd.own import OwnedFd
from sockact.fd.peer import allow_descriptors, peer_pidfd
from sockact.rendezvous.actions import (
    Action,
    CloseReserve,
    Command,
    Consider,
    DropSets,
    Failed,
    Park,
    Report,
    Resume,
    StopAccepting,
    Store,
    Yielded,
)
from sockact.rendezvous.estate import Estate, Phase
from sockact.rendezvous.manifest import Entry, Manifest
from sockact.rendezvous.meet import who_is
from sockact.rendezvous.messages import FDS_MAX, Listing, Reason, Refuse
from sockact.rendezvous.owner import OwnerSide
from sockact.rendezvous.policy import Rule, Who, nameless
from sockact.rendezvous.react import READ, Reactor
from sockact.rendezvous.tables import OWNER, Event, OwnerState
from sockact.rendezvous.talk import Connection, Talk, identify

CONNECTIONS_MAX = 128
"""Connections at a time; further ones wait in the backlog."""

CONNECTIONS_KEPT = 32
"""How many of them are for root and the owner's own user: others together cannot keep them out."""

CONNECTIONS_EACH = 16
"""Connections of one user at a time, root and the owner's own included; commands under way are
not counted, for they may take long, and a takeover is not to wait for them."""

COMMANDS_MAX = 32
"""Commands under way at a time."""

_ACCEPTS = 16
_PAUSE_SECONDS = 0.1
_SPARE_FDS = 32
_LISTED_ROWS = 100


Reply = Callable[[Mapping[str, object]], None]
"""Gets the answer to a command, in values of JSON; once, at any time, by the reactor's thread."""


class Keeper(Protocol):
    """What an owner does with its sets; the program's side of an `Owner`."""

    def stop_accepting(self) -> None:
        """Accept no more, at once: the sockets are about to be the successor's."""

    def yielded(self) -> None:
        """Begin to drain: the successor serves."""

    def close_reserve(self) -> None:
        """Close the copies of all that was handed over."""

    def may_resume(self) -> bool:
        """Whether nobody else has inherited from the successor."""

    def resume(self, why: str) -> None:
        """Accept again: the successor is gone."""

    def store(
        self, name: str, rule: Rule, manifest: Manifest, handles: tuple[OwnedFd, ...]
    ) -> None:
        """Keep a set, taking ownership of its handles; raise OSError or ValueError if not."""

    def park(self, manifest: Manifest, handles: tuple[OwnedFd, ...]) -> None:
        """Keep what a service has stored, as `store` does a set."""

    def drop(self, names: Sequence[str]) -> None:
        """Close sets."""

    def control(
        self, who: Who, command: str, arguments: Mapping[str, object], answer: Reply
    ) -> None:
        """Begin to carry out a command; `answer` tells what came of it, now or later.

        If the client goes away meanwhile, the command goes on, and its answer is thrown away.
        """

    def trouble(self, who: Who, text: str) -> None:
        """Hear of a conversation that came to nothing."""


def room_for(count: int) -> str:
    """Return why this process cannot take so many more descriptors; nothing if it can.

    The soft limit is raised to the hard one if need be.
    """
    have = _open_count()
    need = have + count + _SPARE_FDS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or need <= soft:
        return ""
    if hard == resource.RLIM_INFINITY or need <= hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            return ""
    return (
        f"{count} descriptors are too many: {have} are open, and the limit is {hard}"
        " (RLIMIT_NOFILE, LimitNOFILE=)"
    )


def _open_count() -> int:
    """Return how many descriptors this process has open."""
    directory = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    # Linux 6.2 and later tell the number as the size; to list thousands takes a millisecond.
    return os.stat(directory).st_size or len(os.listdir(directory))


def _most_for_others() -> int:
    """Return how many descriptors may be under way at a time to one who may only get some.

    All that this user has sent and nobody has read yet may not be more than RLIMIT_NOFILE (unix(7),
    ETOOMANYREFS). Others, who need not read, get half of that together, so that they cannot keep
    a takeover from its descriptors.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return FDS_MAX
    return max(1, min(FDS_MAX, soft // 2 // (CONNECTIONS_MAX - CONNECTIONS_KEPT)))


def _who(talk: Talk) -> Who | None:
    return talk.side.who if isinstance(talk.side, OwnerSide) else None


def _gives(talk: Talk) -> bool:
    return isinstance(talk.side, OwnerSide) and talk.side.gives


def _obeys(talk: Talk) -> bool:
    return talk.side.state is OwnerState.OBEYING


def _farewell(talk: Talk, why: str) -> list[Action]:
    """Break off; who has not got far is to ask again, whoever the owner is then."""
    now = time.monotonic()
    if talk.side.state in (OwnerState.PREPARED, OwnerState.OBEYING):
        return talk.side.cancel(why, now)
    return talk.side.refuse(Reason.BUSY, why, now)


class Owner:
    """Answers at a rendezvous as long as it is watched by a reactor.

    The listener stays the caller's. `close` ends every conversation.
    """

    def __init__(
        self,
        reactor: Reactor,
        listener: _socket.socket,
        estate: Estate[OwnedFd],
        keeper: Keeper,
        drain: float = 0.0,
    ) -> None:
        """Begin to answer."""
        self._reactor = reactor
        self._listener = listener
        self._estate = estate
        self._keeper = keeper
        self._drain = drain
        self._talks: dict[Talk, int] = {}
        self._successor: Talk | None = None
        self._when_idle: list[Callable[[], None]] = []
        self._listening = False
        self._closed = False
        self._paused_until: float | None = None
        reactor.add(self)
        self._listen()

    def _listen(self) -> None:
        wanted = (
            not self._closed
            and self._successor is None
            and self._paused_until is None
            and len(self._talks) < CONNECTIONS_MAX
        )
        if wanted and not self._listening:
            self._reactor.watch(self._listener.fileno(), READ, self._accept)
        elif self._listening and not wanted:
            self._reactor.unwatch(self._listener.fileno())
        self._listening = wanted

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            if not self._listening:
                return
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                # EMFILE above all: the connection waits in the backlog, but poll goes on reporting.
                self._paused_until = time.monotonic() + _PAUSE_SECONDS
                self._listen()
                return
            self._begin(sock)

    def _begin(self, sock: _socket.socket) -> None:
        try:
            who = who_is(sock)
            refusal = self._refusal(who)
            connection = Connection(sock)
            if refusal:
                with contextlib.suppress(OSError):
                    connection.send(refusal)
                connection.close()
                self._keeper.trouble(who, refusal.text)
                return
        except OSError:
            sock.close()
            return
        side = OwnerSide(
            self._estate,
            who,
            time.monotonic(),
            identify=identify,
            drain=self._drain,
            most=FDS_MAX if self._estate.policy.may_manage(who) else _most_for_others(),
        )
        talk = Talk(
            self._reactor,
            connection,
            side,
            lambda action: self._act(talk, side, action),
            lambda: self._forget(talk),
        )
        self._talks[talk] = who.uid
        self._listen()

    def _refusal(self, who: Who) -> Refuse | None:
        policy = self._estate.policy
        if not policy.may_connect(who, self._estate.rules()):
            nobody = nameless(who, policy.overflow_uid)
            comma = "," if nobody else ""
            return Refuse(Reason.DENIED, f"uid {who.uid}{nobody}{comma} may do nothing here")
        counted = [uid for talk, uid in self._talks.items() if not _obeys(talk)]
        if counted.count(who.uid) >= CONNECTIONS_EACH:
            return Refuse(Reason.LIMIT, f"uid {who.uid} has too many connections here")
        others = CONNECTIONS_MAX - CONNECTIONS_KEPT
        if len(self._talks) >= others and not self._estate.policy.may_manage(who):
            return Refuse(Reason.LIMIT, "there are too many connections here")
        return None

    def _forget(self, talk: Talk) -> None:
        self._talks.pop(talk, None)
        self._listen()
        self._run_when_idle()

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Call `callback` as soon as nobody is being given anything, or may be given it again."""
        self._when_idle.append(callback)
        self._run_when_idle()

    def _run_when_idle(self) -> None:
        while self._when_idle and not any(map(_gives, self._talks)):
            self._when_idle.pop()()

    # For the reactor.

    def deadline(self) -> float | None:
        """Return when to accept again, after there were no descriptors left to do it with."""
        return self._paused_until

    def expire(self, now: float) -> None:
        """Accept again."""
        del now
        self._paused_until = None
        self._listen()

    def _act(self, talk: Talk, side: OwnerSide[OwnedFd], action: Action) -> None:
        keeper = self._keeper
        match action:
            case Consider() | Store() | Park() | DropSets() | Report():
                talk.perform(self._answer(talk, side, action))
            case Command():
                self._obey(talk, side, action)
            case StopAccepting():
                self._successor = talk
                self._listen()
                self._watch(talk)
                keeper.stop_accepting()
            case Yielded():
                keeper.yielded()
            case CloseReserve():
                keeper.close_reserve()
            case Resume() if not keeper.may_resume():
                # The successor had one of its own, which serves.
                self._estate.phase = Phase.RELEASED
                keeper.close_reserve()
            case Resume():
                self._successor = None
                self._listen()
                keeper.resume(action.why)
            case Failed():
                keeper.trouble(side.who, action.text)

    def _obey(self, talk: Talk, side: OwnerSide[OwnedFd], command: Command) -> None:
        """Have a command carried out, whose answer may come at once, or in minutes, or never."""
        if sum(map(_obeys, self._talks)) > COMMANDS_MAX:
            text = f"{COMMANDS_MAX} commands are under way here"
            talk.perform(side.refuse(Reason.LIMIT, text, time.monotonic()))
            return

        def answer(found: Mapping[str, object]) -> None:
            if not _obeys(talk):
                return  # its client has gone
            try:
                text = json.dumps(found, separators=(",", ":"), allow_nan=False)
            except BaseException:
                talk.perform(side.failed("the answer is no JSON", time.monotonic()))
                raise
            talk.perform(side.answered(text, time.monotonic()))

        try:
            self._keeper.control(side.who, command.name, json.loads(command.arguments), answer)
        except Exception as error:
            import logging  # noqa: PLC0415 - nothing is to be logged as a rule

            logging.getLogger("sockact").exception("a command failed: %s", command.name)
            if _obeys(talk):
                talk.perform(side.failed(f"the command failed: {error}", time.monotonic()))

    def _watch(self, talk: Talk) -> None:
        """Hear of a successor's death though a child of its own keeps the connection open."""
        with contextlib.suppress(OSError):
            if (pidfd := peer_pidfd(talk.socket)) is not None:
                talk.watch_process(OwnedFd(pidfd))

    def _answer(
        self,
        talk: Talk,
        side: OwnerSide[OwnedFd],
        action: Consider | Store[OwnedFd] | Park[OwnedFd] | DropSets | Report,
    ) -> list[Action]:
        """Do what a client asks for, and return what follows."""
        now, keeper = time.monotonic(), self._keeper
        match action:
            case Consider():
                if why := room_for(action.count):
                    return side.refuse(Reason.LIMIT, why, now)
                allow_descriptors(talk.socket)
                return side.accept(now)
            case Store() | Park():
                try:
                    if isinstance(action, Park):
                        keeper.park(action.manifest, action.handles)
                    else:
                        keeper.store(action.name, action.rule, action.manifest, action.handles)
                except (OSError, ValueError) as error:
                    text = getattr(error, "strerror", None) or str(error)
                    return side.refuse(Reason.FAILED, text, now)
                return side.stored(now)
            case DropSets():
                keeper.drop(action.names)
                return side.dropped(now)
            case Report():
                return side.listed(self._listing(action.names), now)

    def _listing(self, names: Sequence[str]) -> list[Listing]:
        from sockact.fd.queue import queue  # noqa: PLC0415 - only for a list

        parts: list[Listing] = []
        for name in names:
            held = self._estate.sets[name]
            first = 0
            for part in held.manifest.parts():
                # What a part has beside its manifest has to fit in, too.
                for begin in range(0, len(part), _LISTED_ROWS):
                    rows = part.select(range(len(part))[begin : begin + _LISTED_ROWS])
                    queues = [queue(h.fileno()) for h in held.handles[first : first + len(rows)]]
                    first += len(rows)
                    parts.append(
                        Listing(
                            rows,
                            more=True,
                            since=(held.since,) * len(rows),
                            now=tuple(-1 if q is None else q.now for q in queues),
                            limit=tuple(-1 if q is None else q.limit for q in queues),
                            unit=tuple("" if q is None else q.unit for q in queues),
                        )
                    )
        return [*parts, Listing(Manifest())]

    @property
    def given(self) -> dict[OwnedFd, Entry]:
        """What the successor has been given."""
        side = self._successor.side if self._successor else None
        return side.given if isinstance(side, OwnerSide) else {}

    def catch_up(self) -> None:
        """Read what the successor has said already: perhaps its end."""
        if self._successor:
            self._successor.catch_up()

    @property
    def has_prepared(self) -> bool:
        """Whether a taker has adopted everything, and is not ready yet."""
        return any(talk.side.state is OwnerState.PREPARED for talk in self._talks)

    @property
    def in_doubt(self) -> bool:
        """Whether the successor may be dead."""
        return self._successor is not None and self._successor.in_doubt

    @property
    def taker(self) -> _socket.socket | None:
        """The connection of whoever is taking over at this moment; None if nobody is."""
        who = self._estate.successor
        return next((t.socket for t in self._talks if who and _who(t) is who), None)

    def drained(self) -> None:
        """Tell the successor that everything accepted is finished."""
        talk = self._successor
        if talk and isinstance(talk.side, OwnerSide) and Event.DO_DRAINED in OWNER[talk.side.state]:
            talk.perform(talk.side.drained(time.monotonic()))

    def close_copies(self) -> None:
        """In a forked child: close what belongs to the parent, who goes on with it."""
        for talk in self._talks:
            talk.close_copies()

    def close(self, why: str = "the owner ends") -> None:
        """Break off every conversation, and answer no more; a second time does nothing."""
        self._closed = True
        self._listen()
        self._reactor.remove(self)
        for talk in list(self._talks):
            if talk is not self._successor:
                talk.perform(_farewell(talk, why))
            talk.close()
