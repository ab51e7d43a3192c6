"""Coming to a path: to take over from the owner there, or to find that there is none and lock it.

What comes of it is an `Arrival`: everything that was taken, verified and sorted, while the owner
goes on serving. Until it is used it can be abandoned as if nobody had asked.
"""

import errno
import socket as _socket
import time
from collections.abc import Iterable, Sequence

import attrs

from sockact.errors import (
    OwnerNotFoundError,
    PathInUseError,
    RefusedError,
    RendezvousError,
    TakeoverAbortedError,
)
from sockact.fd.own import OwnedFd
from sockact.fd.probe import borrowed
from sockact.rendezvous.manifest import STORED, STORED_KEPT, STORED_NO_MORE, Entry, Manifest
from sockact.rendezvous.meet import WAIT_SECONDS, Place, checked_path, connect
from sockact.rendezvous.messages import Op, Request
from sockact.rendezvous.react import Reactor
from sockact.rendezvous.take import Asking, NoRoomError
from sockact.rendezvous.talk import close_all

LISTENER, LOCK, OWNER, STATE = "rendezvous", "lock", "owner", "state"
TURN, ELDER = "turn", "elder"


@attrs.frozen(eq=False)
class Parked:
    """A descriptor that a service has stored with its supervisor (FDSTORE=1, sd_notify(3)).

    Attributes:
        service: The service.
        name: Its fd name.
        handle: The descriptor, owned by whoever has this.
        poll: Whether it leaves the store when it hangs up (FDPOLL=).
        removed: Whether it has left the store of the former owner after that was passed on.
    """

    service: str
    name: str
    handle: OwnedFd
    poll: bool = True
    removed: bool = False

    @classmethod
    def of(cls, entry: Entry, handle: OwnedFd) -> "Parked":
        """Take ownership of a descriptor that came with this entry."""
        role = entry.role
        return cls(entry.address, entry.name, handle, role == STORED, role == STORED_NO_MORE)


def close_parked(parked: Iterable[Parked]) -> None:
    """Close every descriptor."""
    close_all([one.handle for one in parked])


class Arrival:
    """What somebody has found at a path.

    Attributes:
        place: The path, with its lock.
        listener: The rendezvous listener; None if there was no owner.
        manifest: What was taken, duties left out.
        handles: The descriptors taken, in the same order.
        asking: The conversation with the owner; None if there was none.
        state: What a holder remembers of its sets; see `sockact.holder`.
        stored: What the services of a supervisor have stored with it.
        generation: The generation that the next owner will be.
    """

    def __init__(self, place: Place, asking: Asking | None = None) -> None:
        """Take ownership of everything."""
        self.place = place
        self.asking = asking
        self.listener: _socket.socket | None = None
        self.manifest = Manifest()
        self.handles: tuple[OwnedFd, ...] = ()
        self.state: list[OwnedFd] = []
        self.stored: list[Parked] = []
        self.turns: dict[str, OwnedFd] = {}
        self.generation = asking.side.generation + 1 if asking else 1

    def abandon(self, why: str) -> None:
        """Break off: close everything; the owner, if there is one, goes on."""
        if self.asking:
            self.asking.abandon(why)
        close_all(self.handles)
        close_all(self.state)
        close_parked(self.stored)
        close_all(list(self.turns.values()))
        self.handles = ()
        if self.listener:
            self.listener.close()
        elif not self.asking:
            self.place.leave()
        self.place.close()


def arrive(
    reactor: Reactor,
    path: str,
    *,
    timeout: float,
    patience: float,
    trusted: Sequence[int] = (),
    take: bool = True,
) -> Arrival:
    """Take over from the owner at `path`, or find that there is none and lock the path.

    Args:
        reactor: What drives the conversation, now and later.
        path: The rendezvous.
        timeout: Seconds to wait for an owner that is busy, starting or stopping.
        patience: Seconds that this process may need until it is ready.
        trusted: Users who may own the path besides root and this process's own user.
        take: Whether to take over at all; else a live owner is an error.

    Raises:
        PathInUseError: The path cannot be used, or it has an owner that was not to be disturbed.
        RefusedError: The owner said no.
        TakeoverAbortedError: The owner broke it off; it goes on serving.
        RendezvousError: It came to nothing in another way.
    """
    path = checked_path(path, trusted)
    deadline = time.monotonic() + timeout
    busy: RefusedError | None = None
    while True:
        try:
            return _try(reactor, path, deadline, patience, trusted, take=take)
        except RefusedError as error:
            final = error.reason not in ("busy", "limit") or isinstance(error, NoRoomError)
            if final or time.monotonic() >= deadline:
                raise
            busy = error
        except (OwnerNotFoundError, _OwnerDiedError) as error:
            if time.monotonic() >= deadline:
                raise PathInUseError(
                    f"{path}: {path}.lock is held, but nobody answers at the path;"
                    " somebody may be starting or stopping"
                ) from error
        except RendezvousError as error:
            if busy and time.monotonic() >= deadline:
                raise busy from error  # the last try only came too late to hear it again
            raise
        time.sleep(WAIT_SECONDS)


class _OwnerDiedError(Exception):
    """The owner died before everything was adopted: there may be none now."""


def _try(
    reactor: Reactor,
    path: str,
    deadline: float,
    patience: float,
    trusted: Sequence[int],
    *,
    take: bool,
) -> Arrival:
    request = Request(Op.TAKEOVER, patience=patience)
    try:
        return _taken(reactor, path, request, deadline, trusted, take=take)
    except OwnerNotFoundError:
        place = Place.occupy(path)
        if place is None:
            raise
    # The lock is ours, so nobody is about to publish; but somebody may have, just before.
    try:
        arrival = _taken(reactor, path, request, deadline, trusted, take=take)
    except OwnerNotFoundError:
        return Arrival(place)
    except BaseException:
        place.close()
        raise
    place.close()
    return arrival


def _taken(
    reactor: Reactor,
    path: str,
    request: Request,
    deadline: float,
    trusted: Sequence[int],
    *,
    take: bool,
) -> Arrival:
    if not take:
        connect(path, deadline, trusted=trusted).close()
        raise PathInUseError(
            f"{path}: has an owner; take over from it, or use another path", errno.EBUSY
        )
    asking = Asking(reactor, path, request, deadline, trusted=trusted)
    try:
        asking.run(reactor, deadline)
    except TakeoverAbortedError:
        asking.abandon("failed")
        if asking.lost:
            raise _OwnerDiedError from None
        raise
    except BaseException:
        asking.abandon("failed")
        raise
    arrival = Arrival(Place(path, None), asking)
    handles = asking.release()
    try:
        _sort(arrival, asking, handles)
    except BaseException as error:
        arrival.abandon(str(error))
        close_all(handles)
        if isinstance(error, OSError) and not isinstance(error, RendezvousError):
            text = f"{path}: the owner passed on what cannot be used: {error.strerror}"
            raise TakeoverAbortedError(text) from error
        raise
    return arrival


def _sort(arrival: Arrival, asking: Asking, handles: Sequence[OwnedFd]) -> None:
    """Separate the duties from the sets."""
    manifest = asking.manifest
    roles = manifest.column("role")
    sets = [i for i, role in enumerate(roles) if not role]
    for i, role in enumerate(roles):
        if role == LISTENER and arrival.listener is None:
            arrival.listener = borrowed(handles[i].fileno())
            handles[i].release()
            if not arrival.listener.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
                raise OSError(errno.EINVAL, "its rendezvous socket does not listen")
        elif role == LOCK and arrival.place.lock is None:
            arrival.place.lock = handles[i]
        elif role == OWNER and not asking.talk.process:
            asking.talk.watch_process(handles[i])
        elif role in (TURN, ELDER) and role not in arrival.turns:
            arrival.turns[role] = handles[i]
        elif role == STATE:
            arrival.state.append(handles[i])
        elif role in (STORED, STORED_KEPT):
            arrival.stored.append(Parked.of(manifest[i], handles[i]))
        elif role:
            handles[i].close()  # a newer owner's duty, which is none of ours
    arrival.manifest = manifest.select(sets)
    arrival.handles = tuple(handles[i] for i in sets)
    if arrival.listener is None:
        path = arrival.place.path
        raise TakeoverAbortedError(f"{path}: the owner did not pass its rendezvous listener on")
