"""A client at work: one request to an owner, and what comes of it."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import cast

import attrs

from sockact.errors import RefusedError, RendezvousError, TakeoverAbortedError
from sockact.fd.own import OwnedFd
from sockact.rendezvous.actions import (
    Action,
    Adopt,
    Answered,
    Consider,
    Failed,
    Listed,
    Succeeded,
)
from sockact.rendezvous.client import ClientSide
from sockact.rendezvous.inspect import manifest_of
from sockact.rendezvous.manifest import Entry, Manifest
from sockact.rendezvous.meet import WAIT_SECONDS, checked_path, connect
from sockact.rendezvous.messages import VERSION, Hello, Op, Reason, Request
from sockact.rendezvous.offer import room_for
from sockact.rendezvous.react import Reactor
from sockact.rendezvous.talk import Connection, Talk, close_all, identify
from sockact.sockets.socketset import NamedSocket, SocketSet

TIMEOUT = 30.0
"""Seconds that a request may take, if its caller does not say otherwise."""

AGAIN = {Reason.BUSY.value, Reason.LIMIT.value}
"""Why an owner says no that may say yes a moment later."""


@attrs.frozen
class Holding:
    """One descriptor at a rendezvous, as `holdings` tells of it.

    Attributes:
        entry: What it is.
        since: When its set came there, in seconds since 1970.
        queued: How much is in its queue; None where that is not known.
        limit: How much its queue takes; None where that is not known.
        unit: What these count: ``connections`` or ``bytes``.
        generation: The generation of the owner.
    """

    entry: Entry
    since: float
    queued: int | None
    limit: int | None
    unit: str
    generation: int


class NoRoomError(RefusedError):
    """It was this process that said no, and it would say so again."""


class Asking:
    """A request under way.

    Attributes:
        side: The end of the protocol.
        talk: The connection.
        finished: Whether it has come to an end, or a takeover to its `Adopted`.
        manifest: What was received.
        handles: The descriptors received, owned here until `release`.
        holdings: What was listed.
        answer: The answer to a command, in parts.
        then: Gets every action from `finished` on.
        on_close: Called when the connection is closed.
    """

    def __init__(
        self,
        reactor: Reactor,
        path: str,
        request: Request,
        deadline: float,
        *,
        give: tuple[Manifest, tuple[OwnedFd, ...]] | None = None,
        trusted: Sequence[int] = (),
    ) -> None:
        """Connect, and say Hello.

        Raises:
            RendezvousError: There is no owner, or none to be trusted.
        """
        self.finished = False
        self.manifest = Manifest()
        self.handles: tuple[OwnedFd, ...] = ()
        self.holdings: list[Holding] = []
        self.answer: list[str] = []
        self.then: Callable[[Action], None] | None = None
        self.on_close: Callable[[], None] = lambda: None
        self._failure: Failed | None = None
        self._no_room = False
        self._path = path
        self._takes_over = request.op is Op.TAKEOVER
        program = os.path.basename("".join(sys.argv[:1]))[:100]
        hello = Hello(1, VERSION, pid=os.getpid(), program=program)
        connection = Connection(connect(path, deadline, trusted=trusted))
        self.side: ClientSide[OwnedFd] = ClientSide(
            request, time.monotonic(), identify=identify, give=give, hello=hello
        )
        self.talk = Talk(reactor, connection, self.side, self._act, self._closed)
        try:
            self.talk.perform(self.side.start())
        except BaseException:
            self.talk.close()
            raise

    def _act(self, action: Action) -> None:
        if self.finished and self.then:
            self.then(action)
            return
        match action:
            case Consider():
                now = time.monotonic()
                if why := room_for(action.count):
                    self._no_room = True
                    self.talk.perform(self.side.refuse(Reason.LIMIT, why, now))
                else:
                    self.talk.perform(self.side.accept(now))
            case Adopt():
                self.manifest, self.handles = action.manifest, action.handles
                self.finished = self._takes_over
            case Listed():
                listing = action.listing
                rows = zip(
                    listing.entries, listing.since, listing.now, listing.limit, listing.unit,
                    strict=False,
                )  # fmt: skip
                self.holdings += [
                    Holding(
                        entry,
                        since,
                        None if now_ < 0 else now_,
                        None if limit < 0 else limit,
                        unit,
                        self.side.generation,
                    )
                    for entry, since, now_, limit, unit in rows
                ]
            case Answered():
                self.answer.append(action.text)
            case Succeeded():
                self.finished = True
            case Failed():
                self._failure = action
                self.finished = True

    def _closed(self) -> None:
        self.finished = True
        self.on_close()

    def run(self, reactor: Reactor, deadline: float) -> None:
        """Drive it until it is finished.

        Raises:
            RefusedError: The answer is no.
            TakeoverAbortedError: A takeover was broken off.
            RendezvousError: It came to nothing in another way.
        """
        try:
            while not self.finished:
                left = deadline - time.monotonic()
                if left <= 0:
                    text = "the owner does not answer in time"
                    self.talk.perform(self.side.cancel(text, time.monotonic()))
                    break
                reactor.step(left)
        except BaseException:
            self.abandon("interrupted")
            raise
        self.check()

    def check(self) -> None:
        """Raise what `run` raises, if it has failed."""
        if failure := self._failure:
            if failure.refused or self._no_room:
                refused = NoRoomError if self._no_room else RefusedError
                raise refused(f"{self._path}: {failure.text}", failure.reason.value)
            kind = TakeoverAbortedError if self._takes_over else RendezvousError
            raise kind(f"{self._path}: {failure.text}")

    @property
    def lost(self) -> bool:
        """Whether the owner was lost without a word."""
        return self._failure is not None and self._failure.lost

    def release(self) -> tuple[OwnedFd, ...]:
        """Give the descriptors to the caller."""
        handles, self.handles = self.handles, ()
        return handles

    def abandon(self, text: str) -> None:
        """Break it off, and close what came; a second time does nothing."""
        if not self.talk.closed:
            self.talk.perform(self.side.cancel(text, time.monotonic()))
        self.talk.close()
        close_all(self.release())


def ask(
    path: str,
    request: Request,
    timeout: float,
    trusted: Sequence[int],
    give: tuple[Manifest, tuple[OwnedFd, ...]] | None = None,
) -> Asking:
    """Make a request, again and again while the owner is busy, and return it when it is done."""
    deadline = time.monotonic() + timeout
    path = checked_path(path, trusted)
    reactor = Reactor()
    busy: RefusedError | None = None
    try:
        while True:
            asking = Asking(reactor, path, request, deadline, give=give, trusted=trusted)
            try:
                asking.run(reactor, deadline)
            except RefusedError as error:
                asking.talk.close()
                final = error.reason not in AGAIN or isinstance(error, NoRoomError)
                if final or time.monotonic() + WAIT_SECONDS > deadline:
                    raise
                busy = error
                time.sleep(WAIT_SECONDS)
            except RendezvousError as error:
                if busy and time.monotonic() >= deadline:
                    raise busy from error
                raise
            else:
                try:
                    while not asking.talk.closed and time.monotonic() < deadline:
                        reactor.step(deadline - time.monotonic())
                except BaseException:
                    close_all(asking.release())
                    raise
                return asking
            finally:
                asking.talk.close()
    finally:
        reactor.close()


def take(
    path: str, *names: str, timeout: float = TIMEOUT, trusted: Sequence[int] = ()
) -> SocketSet:
    """Get copies of what an owner or a holder has; it keeps its own.

    Args:
        path: The rendezvous.
        names: Sets, or fd names, in the order in which they are wanted; none for everything.
        timeout: Seconds that it may take.
        trusted: Users who may own the path besides root and this process's own user.

    Returns:
        The set, owned by the caller: whole, and each descriptor verified to be the one meant.

    Raises:
        OwnerNotFoundError: Nobody answers there.
        PathInUseError: Others may write to a directory of the path, or no socket stands there.
        UntrustedOwnerError: The one who does is not to be trusted.
        RefusedError: There is no such name, or not for us; or there is no room for so many.
        RendezvousError: It came to nothing in another way. Nothing stays open.

    Source: sockact-rendezvous(7).
    """
    asking = ask(path, Request(Op.GET, names), timeout, trusted)
    return as_set(asking.manifest.names, asking.release())


def as_set(names: Sequence[str], handles: Sequence[OwnedFd]) -> SocketSet:
    """Return handles as a socket set, which takes them over."""
    entries = cast("Sequence[NamedSocket]", handles)  # so they came: no new object for thousands
    for name, entry in zip(names, entries, strict=True):
        entry.name = name
    return SocketSet(entries)


def put(
    path: str,
    name: str,
    sockets: SocketSet,
    *,
    users: Sequence[int] = (),
    groups: Sequence[int] = (),
    replace: bool = False,
    timeout: float = TIMEOUT,
    trusted: Sequence[int] = (),
) -> None:
    """Give copies of a set to a holder, under a name; the caller's own stay the caller's.

    Args:
        path: The rendezvous.
        name: The name of the set.
        sockets: The set; fd names go along.
        users: Users who may get it, besides root and the holder's own.
        groups: Groups that may.
        replace: Whether a set of that name may be replaced.
        timeout: Seconds that it may take.
        trusted: Users who may own the path besides root and this process's own user.

    Raises:
        OwnerNotFoundError: Nobody answers there.
        PathInUseError: Others may write to a directory of the path, or no socket stands there.
        UntrustedOwnerError: The one who does is not to be trusted.
        RefusedError: It is no holder, the name is in use, or it has no room.
        RendezvousError: It came to nothing in another way. The holder has nothing of it, unless
            only its answer was lost, or late.
    """
    manifest = manifest_of([(entry.name, entry) for entry in sockets], name)
    request = Request(Op.PUT, (name,), uids=tuple(users), gids=tuple(groups), replace=replace)
    ask(path, request, timeout, trusted, (manifest, tuple(sockets)))


def drop(path: str, *names: str, timeout: float = TIMEOUT, trusted: Sequence[int] = ()) -> None:
    """Make a holder close sets.

    Args:
        path: The rendezvous.
        names: The sets; at least one.
        timeout: Seconds that it may take.
        trusted: Users who may own the path besides root and this process's own user.

    Raises:
        OwnerNotFoundError: Nobody answers there.
        PathInUseError: Others may write to a directory of the path, or no socket stands there.
        UntrustedOwnerError: The one who does is not to be trusted.
        RefusedError: It is no holder, or has no such set; then none is dropped.
        RendezvousError: It came to nothing in another way.
    """
    if names:
        ask(path, Request(Op.DROP, names), timeout, trusted)


def holdings(path: str, *, timeout: float = TIMEOUT, trusted: Sequence[int] = ()) -> list[Holding]:
    """Return what there is at a rendezvous for this process to get.

    Args:
        path: The rendezvous.
        timeout: Seconds that it may take.
        trusted: Users who may own the path besides root and this process's own user.

    Raises:
        OwnerNotFoundError: Nobody answers there.
        PathInUseError: Others may write to a directory of the path, or no socket stands there.
        UntrustedOwnerError: The one who does is not to be trusted.
        RendezvousError: It came to nothing in another way.
    """
    return ask(path, Request(Op.LIST), timeout, trusted).holdings
