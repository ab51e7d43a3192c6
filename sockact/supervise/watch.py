"""Watching listeners: for connections, for the death of the listener, or for signs of life.

All listeners of a supervisor are in one epoll instance, which is itself a descriptor to wait for.
One that a server may be accepting from can be watched too: without waking up for each connection,
and nothing is ever taken from it.

No kernel tells for certain that a connection came which somebody else has taken by the time one
looks (epoll looks again before it returns). Of those that a C program accepted at once, half to
nine in ten were seen as activity, of those that asyncio accepted, nearly all. So activity is a
sign of use, and its absence proves nothing; count the open connections too.
"""

import enum
import errno
import os
import select
import selectors
import time
from typing import Protocol

PAUSE = 1.0
"""Seconds for which a descriptor is not watched for activity once it has shown some."""


class Mode(enum.Enum):
    """What a descriptor is watched for."""

    OFF = "nothing"
    HANGUP = "hang-up"
    READABLE = "something to take, or a hang-up"
    ACTIVITY = "something new, though others take it, or a hang-up"


class Event(enum.Enum):
    """What has been seen.

    A hang-up is told once: a socket was shut down for reading by whoever shares it, and will not
    accept or receive any more. A TCP socket that then listens again can be watched anew.
    """

    READABLE = "readable"
    ACTIVITY = "activity"
    HANGUP = "hang-up"


_SEEN = {Mode.READABLE: Event.READABLE, Mode.ACTIVITY: Event.ACTIVITY}


class _Poller(Protocol):
    """What a kernel's way of waiting for many descriptors has to do."""

    def fileno(self) -> int:
        """Return the descriptor that is readable while `ready` has something to tell."""

    def arm(self, fd: int, mode: Mode, *, known: bool) -> None:
        """Watch `fd`, which is armed already if it is `known`, for something else than nothing."""

    def disarm(self, fd: int) -> None:
        """Forget `fd`."""

    def ready(self, most: int) -> list[tuple[int, bool]]:
        """Return which descriptors have something, and whether that is a hang-up."""

    def close(self) -> None:
        """Close what it has opened."""


class _Epoll:
    """Linux, where every hang-up is told: of Unix sockets shut down for reading only, too.

    An error by itself is none (of netlink: that something was lost), and is always told. Edge
    triggered it is told once, and no connection wakes anybody who asks for hang-ups.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        gone = select.EPOLLRDHUP
        self._gone = gone | select.EPOLLHUP
        self._events = {
            Mode.HANGUP: gone | select.EPOLLET,
            Mode.READABLE: gone | select.EPOLLIN,
            Mode.ACTIVITY: gone | select.EPOLLIN | select.EPOLLET,
        }

    def fileno(self) -> int:
        return self._epoll.fileno()

    def arm(self, fd: int, mode: Mode, *, known: bool) -> None:
        (self._epoll.modify if known else self._epoll.register)(fd, self._events[mode])

    def disarm(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def ready(self, most: int) -> list[tuple[int, bool]]:
        return [(fd, bool(seen & self._gone)) for fd, seen in self._epoll.poll(0, most)]

    def close(self) -> None:
        self._epoll.close()


class _Portable:
    """Whatever the system has: it tells no hang-up, and a backlog is always activity."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def fileno(self) -> int:
        return self._selector.fileno()

    def arm(self, fd: int, mode: Mode, *, known: bool) -> None:
        if known:
            self.disarm(fd)
        if mode is not Mode.HANGUP:
            self._selector.register(fd, selectors.EVENT_READ)

    def disarm(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def ready(self, most: int) -> list[tuple[int, bool]]:
        return [(key.fd, False) for key, _ in self._selector.select(0)[:most]]

    def close(self) -> None:
        self._selector.close()


class _Item:
    """One descriptor: what it stands for, and what it is, and is really, watched for."""

    __slots__ = ("armed", "mode", "token")

    def __init__(self, token: object) -> None:
        self.token = token
        self.mode = Mode.OFF
        self.armed = Mode.OFF


class Watch:
    """Descriptors, which it borrows, each watched in one `Mode`.

    It is for a `Reactor`: `watch(watch.fileno(), READ, ...)` with a callback that handles what
    `dispatch` returns, and `add(watch)`, as activity is looked for again after a `PAUSE`.
    """

    def __init__(self, *, portable: bool = not hasattr(select, "epoll")) -> None:
        """Begin with none.

        Args:
            portable: Do without epoll, and so without hang-ups.
        """
        self._poller: _Poller = _Portable() if portable else _Epoll()
        self._items: dict[int, _Item] = {}
        self._resting: dict[int, float] = {}
        self._closed = False

    def fileno(self) -> int:
        """Return the descriptor that is readable while `dispatch` has something to tell."""
        return self._poller.fileno()

    def mode(self, fd: int) -> Mode:
        """Return what `fd` is watched for."""
        item = self._items.get(fd)
        return item.mode if item else Mode.OFF

    def set(self, fd: int, mode: Mode, token: object = None) -> None:
        """Watch `fd` for something else than before, or begin to watch it.

        Args:
            fd: An open descriptor; `remove` it before it is closed, or the kernel goes on watching
                what others hold of it (epoll(7), Q6).
            mode: What for. A file that is always ready, such as a regular one or ``/dev/null``,
                never hangs up.
            token: What `dispatch` returns for it; None keeps the one that it has.

        Raises:
            OSError: EPERM, READABLE or ACTIVITY for a file that cannot be waited for, which is
                what systemd fails such a unit with; EBADF, ENOSPC, ENOMEM. It is watched as before.
        """
        item = self._items.get(fd)
        if item is None:
            item = _Item(fd if token is None else token)
        if mode is not item.armed:
            self._arm(fd, item, mode)
        self._items[fd] = item
        self._resting.pop(fd, None)
        item.mode = mode
        if token is not None:
            item.token = token

    def _arm(self, fd: int, item: _Item, mode: Mode) -> None:
        """Have the kernel watch `fd` for what `mode` says."""
        if mode is Mode.OFF:
            if item.armed is not Mode.OFF:
                self._poller.disarm(fd)
        else:
            try:
                self._poller.arm(fd, mode, known=item.armed is not Mode.OFF)
            except PermissionError as error:
                if mode is not Mode.HANGUP:
                    reason = f"{os.strerror(errno.EPERM)}: such a file cannot be waited for"
                    raise OSError(error.errno, reason) from None
                return
        item.armed = mode

    def remove(self, fd: int) -> None:
        """Forget `fd`; does nothing if it is not known. To be called before it is closed."""
        item = self._items.pop(fd, None)
        self._resting.pop(fd, None)
        if item is not None and not self._closed:
            self._arm(fd, item, Mode.OFF)

    def dispatch(self) -> list[tuple[object, Event]]:
        """Return what has been seen, as token and event, without waiting.

        READABLE comes back each time until the mode is changed or what waits is taken. After a
        HANGUP the descriptor is OFF.
        """
        found: list[tuple[object, Event]] = []
        for fd, gone in self._poller.ready(max(1, len(self._items))):
            item = self._items[fd]
            if gone:
                self.set(fd, Mode.OFF)
                found.append((item.token, Event.HANGUP))
            elif item.armed in _SEEN:
                found.append((item.token, _SEEN[item.armed]))
                if item.armed is Mode.ACTIVITY:
                    self._arm(fd, item, Mode.HANGUP)
                    self._resting[fd] = time.monotonic() + PAUSE
        return found

    def deadline(self) -> float | None:
        """Return when a descriptor is to be watched for activity again; None if none is."""
        return min(self._resting.values()) if self._resting else None

    def expire(self, now: float) -> None:
        """Watch those for activity again whose pause is over."""
        for fd in [fd for fd, until in self._resting.items() if until <= now]:
            del self._resting[fd]
            self._arm(fd, self._items[fd], Mode.ACTIVITY)

    def close(self) -> None:
        """Close its own descriptor, nobody else's; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self._items.clear()
            self._resting.clear()
            self._poller.close()
