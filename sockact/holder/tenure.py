"""A tenure that takes sets from others, and remembers them where they last."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Sequence

from sockact.errors import NotifyError
from sockact.fd.identity import identity, same_description
from sockact.fd.own import OwnedFd
from sockact.fd.peer import peer_pidfd
from sockact.holder.fdstore import (
    LISTENER,
    LOCK,
    OTHER,
    STATES,
    STORED,
    Store,
)
from sockact.rendezvous.arrive import STATE, Arrival
from sockact.rendezvous.inspect import manifest_of
from sockact.rendezvous.manifest import Manifest
from sockact.rendezvous.meet import SEQPACKET
from sockact.rendezvous.memory import Memory, Remembered, write
from sockact.rendezvous.policy import Rule, Who
from sockact.rendezvous.react import Reactor
from sockact.rendezvous.takeover import Tenure
from sockact.rendezvous.talk import close_all
from sockact.unitfile.values import fd_name

Say = Callable[[str], None]


class Holder(Tenure):
    """A tenure that takes sets, and remembers them where they last."""

    def __init__(
        self,
        reactor: Reactor,
        arrival: Arrival,
        *,
        path: str,
        say: Say,
        kind: int = SEQPACKET,
        serial: int = 0,
        stored: Iterable[str] = (),
    ) -> None:
        """Take over `arrival`, as a tenure does.

        Args:
            reactor: What drives it.
            arrival: What was found at the path.
            path: The path.
            say: Gets lines for people.
            kind: The type of the socket, where it has to be made.
            serial: Counts what is remembered.
            stored: What is in the fd store.
        """
        self._say = say
        self._path = path
        self._fd_store = Store(stored)
        numbers = [name.removeprefix(STORED) for name in self._fd_store.names]
        self._last = max((int(one) for one in numbers if one.isdecimal()), default=0)
        self._names: dict[int, str] = {}
        self._serial = serial
        self._states: tuple[OwnedFd, ...] = ()
        super().__init__(reactor, arrival, stores=True, kind=kind)

    # --- what it remembers ------------------------------------------------------------------------

    def settle(self, found: dict[str, OwnedFd]) -> None:
        """Put the rendezvous itself and everything remembered into the fd store.

        Args:
            found: What came from there; what is needed is taken out, and the rest removed there.

        Raises:
            OSError: It could not be stored.
        """
        for name in STATES:
            state = found.pop(name, None) or OwnedFd(_memfd())
            self._states = (*self._states, state)
            self.add_duty(STATE, state)
        self._remember()
        named: dict[str, OwnedFd] = {}
        # First: what follows is not to be taken for this process's own as long as that one lives.
        if self._asking and (owner := self._asking.talk.process):
            named[OTHER] = owner
        named |= zip(STATES, self._states, strict=True)
        # Before the sets: if there is no room for everything, it can be told what was lost.
        named[LISTENER] = self._duty("rendezvous")
        if self._place.lock:
            named[LOCK] = self._place.lock
        for held in self.estate.sets.values():
            named |= {self._names[handle.fileno()]: handle for handle in held.handles}
        self._fd_store.remove(self._fd_store.names - named.keys())
        self._fd_store.add(named)
        self._widen()

    def _duty(self, role: str) -> OwnedFd:
        manifest, handles = self.estate.duties
        return handles[manifest.column("role").index(role)]

    def _remember(self) -> None:
        """Write down what there is.

        Raises:
            OSError: It could not be written; what was written before holds.
        """
        sets = tuple(
            Remembered(
                held.name,
                held.rule,
                held.since,
                tuple(
                    (name, self._names[handle.fileno()])
                    for name, handle in zip(held.manifest.names, held.handles, strict=True)
                ),
            )
            for held in self.estate.sets.values()
        )
        line = write(Memory(self._path, self.estate.generation, self._serial + 1, sets))
        number = self._states[(self._serial + 1) % 2].fileno()
        os.ftruncate(number, 0)
        if os.pwrite(number, line, 0) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._serial += 1

    def _widen(self) -> None:
        if any(held.rule for held in self.estate.sets.values()):
            self._place.open_to_others()

    def _name(self, handles: Sequence[OwnedFd]) -> None:
        """Give descriptors the names that their descriptions have in the fd store."""
        known: dict[tuple[int, int], list[int]] = {}
        for number in self._names:
            known.setdefault(identity(number), []).append(number)
        for handle in handles:
            number = handle.fileno()
            alike = known.setdefault(identity(number), [])
            same = next((other for other in alike if same_description(number, other)), None)
            if same is None:
                self._last += 1
            self._names[number] = f"{STORED}{self._last}" if same is None else self._names[same]
            alike.append(number)

    def _forget(self, handles: Sequence[OwnedFd]) -> None:
        """Close descriptors, and remove from the fd store what is in no set any more."""
        names = {self._names.pop(handle.fileno(), "") for handle in handles}
        self._fd_store.remove(names - set(self._names.values()))
        close_all(handles)

    def add_new(
        self, name: str, manifest: Manifest, handles: Sequence[OwnedFd], rule: Rule, since: float
    ) -> None:
        """Take ownership of a set that is not in the fd store."""
        self._name(handles)
        self.add_set(name, manifest, handles, rule, since)

    def add_remembered(self, one: Remembered, found: dict[str, OwnedFd]) -> None:
        """Add a set that is in the fd store, or what is left of it.

        Args:
            one: What is remembered of it.
            found: What came from there, by its name there; what is used is taken out.
        """
        there: list[tuple[str, OwnedFd]] = []
        for name, stored in one.fds:
            if handle := found.pop(stored, None) or self._copy(stored):
                there.append((name, handle))
                self._names[handle.fileno()] = stored
            else:
                self._say(
                    f"warning: {one.name}: {name} is lost; the fd store has not kept it"
                    " (FileDescriptorStoreMax=)"
                )
        if there:
            manifest = manifest_of(there, one.name)
            self.add_set(one.name, manifest, [h for _, h in there], one.rule, one.since)

    def _copy(self, stored: str) -> OwnedFd | None:
        numbers = (number for number, name in self._names.items() if name == stored)
        number = next(numbers, None)
        return None if number is None else OwnedFd(os.dup(number))

    # --- sockact.rendezvous.offer.Keeper ----------------------------------------------------------

    def store(
        self, name: str, rule: Rule, manifest: Manifest, handles: tuple[OwnedFd, ...]
    ) -> None:
        """Keep a set; it is durable when this returns.

        Raises:
            OSError: It cannot be stored; nothing has changed.
            ValueError: A name in it is none.
        """
        old = self.estate.sets.get(name)
        try:
            names = [fd_name(one) for one in manifest.names]
            fd_name(name)
            # What they are, rather than what the client says.
            manifest = manifest_of(zip(names, handles, strict=True), name)
            self._name(handles)
            self._fd_store.add({self._names[handle.fileno()]: handle for handle in handles})
            self.add_set(name, manifest, handles, rule)
            self._widen()
            self._remember()
        except BaseException:
            if old:
                self.estate.sets[name] = old
            else:
                self.estate.sets.pop(name, None)
            self._forget(handles)
            raise
        if old:
            self._forget(old.handles)
        self._say(f"{name}: {counted(len(handles))} put")

    def drop(self, names: Sequence[str]) -> None:
        """Close sets."""
        for name in names:
            if held := self.estate.sets.pop(name, None):
                self._remember()
                self._forget(held.handles)
                self._say(f"{name}: {counted(len(held.handles))} dropped")

    def resume(self, why: str) -> None:
        """Hold again, and tell the administrator."""
        super().resume(why)
        self._say(f"goes on: {why}")

    def trouble(self, who: Who, text: str) -> None:
        """Tell the administrator."""
        self._say(f"{who}: {text}")

    def watch_takeover(self) -> None:
        """Have the other side of a takeover in the fd store as long as it lasts, as a pidfd.

        If this process is killed meanwhile, the next start has to know who may be in charge.
        """
        taker = self._owner.taker if self._owner and self._fd_store.there else None
        if taker is None:
            if self.owns:
                self._fd_store.remove([OTHER])
        elif OTHER not in self._fd_store.names and (pidfd := peer_pidfd(taker)) is not None:
            handle = OwnedFd(pidfd)
            with contextlib.suppress(NotifyError):
                self._fd_store.add({OTHER: handle})
            handle.close()

    # --- its end ----------------------------------------------------------------------------------

    def leave(self) -> None:
        """End, and leave everything to the fd store: the next start goes on."""
        self._place.keep()
        self.close("the holder is restarted")
        if self.was_succeeded:
            self.hand_over()
        else:
            self._fd_store.remove([OTHER])

    def hand_over(self) -> None:
        """Leave nothing in the fd store: it is the successor's."""
        self._fd_store.clear()

    @property
    def is_stored(self) -> bool:
        """Whether there is an fd store."""
        return self._fd_store.there


def counted(number: int) -> str:
    """Return a number of descriptors in words."""
    return f"{number} descriptor" + ("s" if number != 1 else "")


def _memfd() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("sockact-state", os.MFD_CLOEXEC)
    import tempfile  # noqa: PLC0415 - macOS

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
