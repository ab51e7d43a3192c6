"""The fd store of systemd: what a holder keeps there, and what a killed one has left.

Source: systemd.service(5), FileDescriptorStoreMax=; sd_notify(3), FDSTORE=1.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence

import attrs

from sockact.activation import notify
from sockact.activation.receive import listen_fds
from sockact.errors import NotifyError
from sockact.fd.own import OwnedFd
from sockact.rendezvous.memory import Memory, read
from sockact.rendezvous.talk import close_all

STORED = "sockact-"
LISTENER = STORED + "rendezvous"
LOCK = STORED + "lock"
OTHER = STORED + "other"
STATES = (STORED + "state-a", STORED + "state-b")


class Store:
    """The fd store of the service manager, if there is one; else every call does nothing.

    It keeps a file description once, under the name that it had the first time; so each has a name
    of its own, however many sets it is in.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Begin with what is stored already."""
        limit = os.environ.get("FDSTORE", "")  # since systemd 254
        self._limit = int(limit) if limit.isdecimal() else None
        self.names = set(names)
        self.there = bool(os.environ.get("NOTIFY_SOCKET")) and self._limit != 0

    def add(self, named: Mapping[str, OwnedFd]) -> None:
        """Store descriptors that are not there yet, and return when they are.

        A manager before systemd 254 does not tell when it takes no more.

        Raises:
            OSError: The manager could not be told, or takes no more.
        """
        new = {name: handle for name, handle in named.items() if name not in self.names}
        if not self.there or not new:
            return
        if self._limit is not None and len(self.names) + len(new) > self._limit:
            raise NotifyError(0, f"the fd store takes {self._limit} (FileDescriptorStoreMax=)")
        self.names |= new.keys()
        for name, handle in new.items():
            # Whether a descriptor hangs up is for those who serve it to see.
            notify.notify(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", [handle.fileno()])
        notify.barrier()

    def remove(self, names: Iterable[str]) -> None:
        """Remove what is stored under these names."""
        for name in names:
            if name in self.names:
                self.names.remove(name)
                with contextlib.suppress(NotifyError):
                    notify.unstore(name)

    def clear(self) -> None:
        """Remove everything, because somebody else has it now."""
        # That one last: as long as there is anything else, the next start must know of it.
        self.remove(sorted(self.names, key=OTHER.__eq__))


@attrs.define
class Found:
    """What a killed holder has left in the fd store, and what else this process was given."""

    memory: Memory | None = None
    stored: dict[str, OwnedFd] = attrs.Factory(dict)
    passed: list[tuple[str, OwnedFd]] = attrs.Factory(list)
    names: set[str] = attrs.Factory(set)

    def forget(self, *names: str) -> None:
        """Close what was stored under these names, and remove it from the fd store."""
        close_all([self.stored.pop(name) for name in names if name in self.stored])
        Store(self.names & {*names}).clear()
        self.names -= {*names}

    def close(self) -> None:
        """Close everything that is still here."""
        close_all([*self.stored.values(), *(handle for _, handle in self.passed)])
        self.stored, self.passed = {}, []


def find() -> Found:
    """Sort what this process was started with."""
    found = Found()
    passed = listen_fds()
    names = passed.names
    for name, number in zip(names, passed.detach(), strict=True):
        if name.startswith(STORED) and name not in found.stored:
            found.stored[name] = OwnedFd(number)
        else:
            found.passed.append((name, OwnedFd(number)))
    found.names = set(found.stored)
    found.memory = newest([found.stored[name] for name in STATES if name in found.stored])
    return found


def newest(states: Sequence[OwnedFd]) -> Memory | None:
    """Return what was written last; the one that was being written may be broken."""
    memories = [read_memory(handle) for handle in states]
    return max(filter(None, memories), key=lambda memory: memory.serial, default=None)


def read_memory(handle: OwnedFd) -> Memory | None:
    """Return what a holder has remembered in a memfd; None if that cannot be read."""
    return read(os.pread(handle.fileno(), os.fstat(handle.fileno()).st_size, 0))
