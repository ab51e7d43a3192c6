"""`SocketSet`: an ordered set of named descriptors with one owner.

Every stage of sockact takes and gives one of these, wherever the descriptors came from.
"""

import os
import socket as _socket
import threading
from collections.abc import Callable, Iterable, Iterator

from sockact.errors import FdStateError, SocketLookupError
from sockact.fd.own import Closing, OwnedFd
from sockact.fd.place import place
from sockact.fd.probe import Description, borrowed, describe
from sockact.spec import ListenerSpec

_lock = threading.Lock()


def _new_lock() -> None:
    """Replace a lock that another thread may have held at the moment of the fork."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)


class NamedSocket(OwnedFd):
    """One descriptor of a set: its fd name, and how it came about.

    Attributes:
        name: The fd name; not unique in a set.
        listener: What it was opened from, or None if it was inherited.
    """

    __slots__ = ("_socket", "listener", "name")

    def __init__(self, name: str, fd: int, listener: ListenerSpec | None = None) -> None:
        """Take ownership of `fd`."""
        self._fd = fd
        self._socket: _socket.socket | None = None
        self.name = name
        self.listener = listener

    def fileno(self) -> int:
        """Return the descriptor's number, which stays owned here.

        Raises:
            FdStateError: It was closed or given away.
        """
        number = self._fd if self._socket is None else self._socket.fileno()
        if number < 0:
            raise FdStateError(f"{self.name}: the descriptor was closed or given away")
        return number

    @property
    def closed(self) -> bool:
        """Whether it was closed or given away."""
        return (self._fd if self._socket is None else self._socket.fileno()) < 0

    @property
    def socket(self) -> _socket.socket:
        """The descriptor as a socket object, the same one each time.

        The object owns the descriptor from the first use on, so it stays open for whoever keeps
        the object, and closing either the object or the set closes it. It is non-blocking if the
        descriptor is; nothing about the shared descriptor changes.

        Raises:
            FdStateError: It was closed or given away.
            OSError: It is no socket (ENOTSOCK): a FIFO, a file, a message queue.
        """
        if self._socket is None:
            with _lock:
                if self._socket is None:
                    number = self.fileno()
                    self._socket, self._fd = borrowed(number), -1
        return self._socket

    def describe(self) -> Description:
        """Ask the kernel what this descriptor is.

        Raises:
            FdStateError: It was closed or given away.
        """
        return describe(self.fileno())

    def release(self) -> int:
        """Give the descriptor's number away; the caller closes it.

        Raises:
            FdStateError: It was closed or given away before.
        """
        number = self.fileno()
        if self._socket is not None:
            self._socket.detach()
        self._fd = -1
        return number

    def close(self) -> None:
        """Close the descriptor; a second time does nothing."""
        if self._socket is not None:
            self._socket.close()
        else:
            super().close()

    def __repr__(self) -> str:
        return f"<NamedSocket {self.name!r} {'closed' if self.closed else self.fileno()}>"


class SocketSet(Closing):
    """Named descriptors in order, owned together.

    Use it as a context manager, or call `close`. ``set["web"]`` is the one socket called ``web``;
    iterating gives every `NamedSocket`.
    """

    def __init__(self, entries: Iterable[NamedSocket] = (), reason: str = "") -> None:
        """Take ownership of `entries`.

        Args:
            entries: The descriptors.
            reason: Why there are none, for error messages.
        """
        self._entries = list(entries)
        self._cleanups: list[tuple[Callable[[], None], bool]] = []
        self._reason = reason

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[NamedSocket]:
        return iter(self._entries)

    def __getitem__(self, name: str) -> _socket.socket:
        """Return the one socket with that fd name; see `socket`."""
        return self.socket(name)

    def __repr__(self) -> str:
        return f"<SocketSet {self._entries!r}>"

    @property
    def names(self) -> tuple[str, ...]:
        """The fd names, in order; a name may occur more than once."""
        return tuple(entry.name for entry in self._entries)

    def filenos(self) -> list[int]:
        """Return the numbers of all descriptors, which stay owned here."""
        return [entry.fileno() for entry in self._entries]

    def entry(self, name: str | None = None) -> NamedSocket:
        """Return the one entry with that fd name; without a name, the only one of the set.

        Raises:
            SocketLookupError: There is none, or there are several.
        """
        found = [entry for entry in self._entries if name is None or entry.name == name]
        if len(found) == 1:
            return found[0]
        wanted = "a socket" if name is None else f"a socket named {name!r}"
        if not self._entries:
            raise SocketLookupError(f"no {wanted[2:]}: {self._reason or 'the set is empty'}")
        if not found:
            raise SocketLookupError(
                f"no {wanted[2:]}; there are: {', '.join(sorted(set(self.names)))}"
            )
        raise SocketLookupError(
            f"{len(found)} sockets match; ask for one by name, or use sockets()"
        )

    def socket(self, name: str | None = None) -> _socket.socket:
        """Return the one socket with that fd name; without a name, the only one of the set.

        The set goes on owning it: closing the set closes the socket. A socket that is to outlive
        the set is taken out by ``detach()``.

        Raises:
            SocketLookupError: There is none, or there are several.
            OSError: It is no socket (ENOTSOCK).
        """
        return self.entry(name).socket

    def sockets(self, name: str | None = None) -> list[_socket.socket]:
        """Return every socket, or every one with that fd name; the set goes on owning them.

        Raises:
            OSError: One is no socket (ENOTSOCK).
        """
        return [entry.socket for entry in self._entries if name is None or entry.name == name]

    def append(self, entry: NamedSocket) -> None:
        """Take ownership of one more descriptor."""
        self._entries.append(entry)

    def extend(self, other: "SocketSet") -> None:
        """Move everything from `other` to the end of this set; `other` is empty afterwards."""
        self._entries += other._entries  # noqa: SLF001 - of the same class
        self._cleanups += other._cleanups  # noqa: SLF001
        other._entries, other._cleanups = [], []  # noqa: SLF001

    def place(self, first: int) -> None:
        """Move the descriptors to the numbers `first`, `first` + 1 … and make them inheritable.

        Whatever else was open there is closed: this is for a process about to become another.

        Raises:
            OSError: A number is over the limit of open files.
        """
        numbers = self.filenos()
        place(numbers, first)
        taken = range(first, first + len(numbers))
        moved = [
            (index, entry.release())
            for index, entry in enumerate(self._entries)
            if numbers[index] != first + index
        ]
        for index, number in moved:
            if number not in taken:
                os.close(number)
            old = self._entries[index]
            self._entries[index] = NamedSocket(old.name, first + index, old.listener)

    def on_close(self, cleanup: Callable[[], None], *, only_if_discarded: bool) -> None:
        """Run `cleanup` after the descriptors were closed, or only by `discard`."""
        self._cleanups.append((cleanup, only_if_discarded))

    def detach(self) -> list[int]:
        """Give all numbers away, in order; the caller closes them. Nodes stay in place."""
        numbers = [entry.release() for entry in self._entries]
        self._entries, self._cleanups = [], []
        return numbers

    def forget(self) -> None:
        """Let go of the entries, which somebody else owns now; what undoes their opening stays."""
        self._entries = []

    def leave(self) -> None:
        """Close everything, and leave every node in place: another process serves there."""
        self._cleanups = []
        self.close()

    def close(self) -> None:
        """Close everything, and remove the nodes of units with RemoveOnStop=yes.

        A second time does nothing.
        """
        self._close(discard=False)

    def discard(self) -> None:
        """Close everything, and remove every node that opening the set has made."""
        self._close(discard=True)

    def _close(self, *, discard: bool) -> None:
        for entry in self._entries:
            entry.close()
        cleanups, self._cleanups = self._cleanups, []
        for cleanup, only_if_discarded in reversed(cleanups):
            if discard or not only_if_discarded:
                cleanup()
