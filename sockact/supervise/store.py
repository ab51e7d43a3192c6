"""The fd store: where a service parks descriptors that are to outlive its processes.

Source: systemd.service(5), FileDescriptorStoreMax=; sd_notify(3), FDSTORE=1; systemd's
src/core/service.c, service_add_fd_store().
"""

import contextlib
import errno
import os
import select
from collections.abc import Callable, Iterable, Sequence

from sockact.fd.foreign import close_foreign
from sockact.fd.identity import identity, same_description
from sockact.fd.own import Closing, OwnedFd
from sockact.rendezvous.react import READ, Reactor

NAME = "stored"
"""The fd name of what was stored without a valid one."""


class Stored:
    """A descriptor in a store, which owns it.

    Attributes:
        name: Its fd name.
        handle: The descriptor.
        poll: Whether it leaves the store when it hangs up.
        identity: Device and inode, as of `sockact.fd.identity.identity`.
    """

    __slots__ = ("handle", "identity", "name", "poll")

    def __init__(self, name: str, handle: OwnedFd, *, poll: bool) -> None:
        """Take ownership of `handle`."""
        self.name = name
        self.handle = handle
        self.poll = poll
        self.identity = identity(handle.fileno())

    def fileno(self) -> int:
        """Return the number, which stays owned here."""
        return self.handle.fileno()


def _ignore(_: Stored) -> None:
    pass


class FdStore(Closing):
    """The descriptors that one service has stored.

    Each file description is in it once, under the name that it had the first time. It has a
    descriptor of its own from the first one on that is to leave when it hangs up.

    Attributes:
        maximum: How many descriptors it takes; with fewer than it has, it takes no more.
        added: Called with each entry that has come; whoever adds them one by one in this order to
            another store has the same there.
        removed: Called with each entry that has left by `remove`, `sweep` or `clear`, before it is
            closed.
    """

    def __init__(
        self,
        maximum: int,
        reactor: Reactor | None = None,
        *,
        added: Callable[[Stored], None] = _ignore,
        removed: Callable[[Stored], None] = _ignore,
    ) -> None:
        """Begin empty.

        Args:
            maximum: How many descriptors it takes.
            reactor: What calls `sweep` when something hangs up; without one the caller does.
            added: Called with each entry that has come.
            removed: Called with each entry that has left.
        """
        self.maximum = maximum
        self.added = added
        self.removed = removed
        self._reactor = reactor
        self._entries: list[Stored] = []
        self._epoll: select.epoll | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> Sequence[Stored]:
        """Return what is stored, in the order in which LISTEN_FDS has it: newest first.

        Those of one message are in the order in which they were sent; systemd has them in any.
        """
        return tuple(self._entries)

    def add(self, name: str | None, handles: Iterable[OwnedFd], *, poll: bool = True) -> list[str]:
        """Store descriptors, whose owner this is from the call on, whatever comes of it.

        What is here already is closed. To fill a store with the `entries` of another one, add them
        one by one and in reverse.

        Args:
            name: Their fd name; None is `NAME`.
            handles: The descriptors.
            poll: Whether they leave when they report a hang-up or an error. Those that cannot
                (regular files) never do.

        Returns:
            Why each one was refused that was; those are closed.
        """
        waiting = list(handles)
        refused: list[str] = []
        came: list[Stored] = []
        try:
            while waiting:
                entry = self._enter(NAME if name is None else name, waiting.pop(0), poll, refused)
                if entry:
                    self._entries.insert(len(came), entry)
                    came.append(entry)
        finally:
            _close_all(waiting)
        for entry in reversed(came):
            self.added(entry)
        return refused

    def _enter(self, name: str, handle: OwnedFd, poll: bool, refused: list[str]) -> Stored | None:
        """Return an entry for a descriptor; or close it, and say why if not for being here."""
        with contextlib.ExitStack() as stack:
            stack.callback(close_foreign, handle)
            try:
                entry = Stored(name, handle, poll=poll)
                if self._has(entry):
                    return None
                if len(self._entries) >= self.maximum:
                    refused.append(f"the fd store takes {self.maximum} (FileDescriptorStoreMax=)")
                    return None
                if poll:
                    self._watch(entry)
            except OSError as error:
                refused.append(f"a descriptor cannot be stored: {error.strerror}")
                return None
            stack.pop_all()
        return entry

    def _has(self, entry: Stored) -> bool:
        return any(
            each.identity == entry.identity and same_description(each.fileno(), entry.fileno())
            for each in self._entries
        )

    def remove(self, name: str, same: OwnedFd | None = None) -> int:
        """Close what is stored under this fd name; return how many descriptors that were.

        Args:
            name: The fd name.
            same: Only what this is a duplicate of; it stays the caller's.
        """
        return self._remove(
            [
                entry
                for entry in self._entries
                if entry.name == name
                and (same is None or same_description(entry.fileno(), same.fileno()))
            ]
        )

    def clear(self) -> int:
        """Close everything; return how many descriptors that were."""
        return self._remove(self._entries)

    def sweep(self) -> int:
        """Close what has hung up or reports an error; return how many descriptors that were."""
        hung = self._hung()
        return self._remove([entry for entry in self._entries if entry.fileno() in hung])

    def _remove(self, entries: Iterable[Stored]) -> int:
        count = 0
        for entry in list(entries):
            if entry in self._entries:  # else what was called back has removed it
                self._entries.remove(entry)
                self._forget(entry)
                count += 1
                try:
                    self.removed(entry)
                finally:
                    close_foreign(entry.handle)
        return count

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to `sweep`.

        Raises:
            OSError: ENOSYS where the system has no epoll(7): call `sweep` now and then.
        """
        if self._epoll is None:
            if not hasattr(select, "epoll"):
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
            self._epoll = select.epoll()
            if self._reactor is not None:
                self._reactor.watch(self._epoll.fileno(), READ, self._swept)
        return self._epoll.fileno()

    def _swept(self) -> None:
        self.sweep()

    def _watch(self, entry: Stored) -> None:
        if hasattr(select, "epoll"):
            self.fileno()
            assert self._epoll is not None
            with contextlib.suppress(PermissionError):  # it is a file, which never hangs up
                self._epoll.register(entry.fileno(), 0)

    def _forget(self, entry: Stored) -> None:
        # Before it is closed: others have this description open, and epoll would go on about it.
        if self._epoll is not None and entry.poll:
            with contextlib.suppress(OSError):
                self._epoll.unregister(entry.fileno())

    def _hung(self) -> set[int]:
        if self._epoll is not None:
            return {fd for fd, _ in self._epoll.poll(0, max(1, len(self._entries)))}
        if hasattr(select, "epoll"):
            return set()
        poll = select.poll()
        for entry in self._entries:
            if entry.poll:
                poll.register(entry.fileno(), 0)
        return {fd for fd, events in poll.poll(0) if events & (select.POLLHUP | select.POLLERR)}

    def close(self) -> None:
        """Close everything and call nobody back; a second time does nothing."""
        entries, self._entries = self._entries, []
        if self._epoll is not None:
            if self._reactor is not None:
                self._reactor.unwatch(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
        _close_all(entry.handle for entry in entries)


def _close_all(handles: Iterable[OwnedFd]) -> None:
    for handle in handles:
        close_foreign(handle)
