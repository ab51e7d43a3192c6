"""The holder: an owner that serves no traffic and keeps sets of sockets for others.

What it has must outlive it. Under systemd, with an fd store, every descriptor is in the store
before the one who put it hears of success, and so are the rendezvous listener, the lock, and a
memfd that says which descriptor belongs to which set; so a holder that is killed finds everything
again, and who connects meanwhile waits in the listener's backlog. It is replaced by a newer holder
as any owner is: by a takeover.
"""

import contextlib
import os
import signal
import stat
from collections.abc import Callable, Sequence

import attrs

from sockact.activation import notify
from sockact.activation.receive import listen_fds
from sockact.errors import NotifyError
from sockact.fd.identity import identity
from sockact.fd.own import OwnedFd
from sockact.fd.probe import borrowed
from sockact.fd.transfer import FDS_MAX
from sockact.rendezvous.furnish import Options
from sockact.rendezvous.inspect import manifest_of
from sockact.rendezvous.manifest import Manifest
from sockact.rendezvous.meet import SEQPACKET, STREAM, Place, checked_path
from sockact.rendezvous.memory import Memory, Remembered, read, write
from sockact.rendezvous.policy import Rule, Who
from sockact.rendezvous.react import Reactor
from sockact.rendezvous.takeover import STATE, Arrival, Phase, Tenure, arrive
from sockact.rendezvous.talk import close_all
from sockact.sockets.bind import open_specs
from sockact.sockets.socketset import SocketSet
from sockact.sockets.task import Warn
from sockact.spec import SocketSpec
from sockact.unitfile.values import fd_name

_STORED = "sockact-"
_LISTENER = _STORED + "rendezvous"
_LOCK = _STORED + "lock"
_STATE_NAMES = (_STORED + "state-a", _STORED + "state-b")
_STATE_MAX = 1 << 20

Say = Callable[[str], None]


class _Store:
    """The fd store of the service manager, if there is one; else every call does nothing."""

    def __init__(self) -> None:
        limit = os.environ.get("FDSTORE", "")
        self._limit = int(limit) if limit.isdecimal() else None
        self._count = 0
        self.there = bool(os.environ.get("NOTIFY_SOCKET")) and self._limit != 0

    def add(self, name: str, handles: Sequence[OwnedFd]) -> None:
        """Store descriptors, and return when they are there.

        Raises:
            OSError: The manager could not be told, or takes no more.
        """
        if not self.there:
            return
        if self._limit is not None and self._count + len(handles) > self._limit:
            raise NotifyError(0, f"the fd store takes {self._limit} (FileDescriptorStoreMax=)")
        numbers = [handle.fileno() for handle in handles]
        for first in range(0, len(numbers), FDS_MAX):
            # Whether a descriptor hangs up is for those who serve it to see.
            state = f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0"
            notify.notify(state, numbers[first : first + FDS_MAX])
        notify.barrier()
        self._count += len(numbers)

    def remove(self, name: str, count: int) -> None:
        """Remove what is stored under a name."""
        if self.there:
            self._count -= count
            with contextlib.suppress(NotifyError):
                notify.unstore(name)


@attrs.define
class _Found:
    """What a killed holder has left in the fd store, and what else this process was given."""

    memory: Memory | None = None
    listener: OwnedFd | None = None
    lock: OwnedFd | None = None
    state: list[tuple[str, OwnedFd]] = attrs.Factory(list)
    stored: list[tuple[str, OwnedFd]] = attrs.Factory(list)
    passed: list[tuple[str, OwnedFd]] = attrs.Factory(list)

    def close(self) -> None:
        """Close everything that is still here."""
        close_all([one for one in (self.listener, self.lock) if one])
        close_all([handle for _, handle in (*self.state, *self.stored, *self.passed)])


def _find() -> _Found:
    """Sort what this process was started with."""
    found = _Found()
    passed = listen_fds()
    names = passed.names
    for name, number in zip(names, passed.detach(), strict=True):
        handle = OwnedFd(number)
        if name == _LISTENER and found.listener is None:
            found.listener = handle
        elif name == _LOCK and found.lock is None:
            found.lock = handle
        elif name in _STATE_NAMES:
            found.state.append((name, handle))
        elif name.startswith(_STORED):
            found.stored.append((name, handle))
        else:
            found.passed.append((name, handle))
    memories = [memory for _, handle in found.state if (memory := _read(handle))]
    found.memory = max(memories, key=lambda memory: memory.serial, default=None)
    return found


def _read(handle: OwnedFd) -> Memory | None:
    return read(os.pread(handle.fileno(), 2 * _STATE_MAX, 0))


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
    ) -> None:
        """Take over `arrival`, as a tenure does; `say` gets lines for people."""
        self._say = say
        self._path = path
        self._store_of: dict[str, str] = {}
        self._fd_store = _Store()
        self._serial = serial
        self._state_name = _STATE_NAMES[0]
        self._state: OwnedFd | None = None
        super().__init__(reactor, arrival, stores=True, kind=kind)

    # --- what it remembers ------------------------------------------------------------------------

    def settle(self) -> None:
        """Put the rendezvous itself and everything remembered into the fd store.

        Raises:
            OSError: It could not be stored.
        """
        self._fd_store.add(_LISTENER, [self._duty("rendezvous")])
        if self._place.lock:
            self._fd_store.add(_LOCK, [self._place.lock])
        for name, held in self.estate.sets.items():
            self._fd_store.add(self._store_name(name), held.handles)
        self._remember()
        self._widen()

    def _duty(self, role: str) -> OwnedFd:
        manifest, handles = self.estate.duties
        return handles[manifest.column("role").index(role)]

    def _store_name(self, name: str) -> str:
        if name not in self._store_of:
            self._store_of[name] = self._free_name()
        return self._store_of[name]

    def _free_name(self) -> str:
        taken = set(self._store_of.values())
        number = next(n for n in range(len(taken) + 1) if f"{_STORED}set-{n}" not in taken)
        return f"{_STORED}set-{number}"

    def _remember(self) -> None:
        """Write down what there is.

        Raises:
            OSError: It could not be stored.
        """
        self._serial += 1
        sets = tuple(
            Remembered(
                held.name,
                held.rule,
                held.since,
                self._store_name(held.name),
                tuple(zip(held.manifest.names, held.manifest.identities, strict=True)),
            )
            for held in self.estate.sets.values()
        )
        line = write(Memory(self._path, self.estate.generation, self._serial, sets))
        if self._state and os.fstat(self._state.fileno()).st_size + len(line) <= _STATE_MAX:
            _append(self._state, line)
            return
        before = self._state_name if self._state else ""
        state = OwnedFd(_memfd())
        try:
            _append(state, line)
            self._state_name = _STATE_NAMES[before == _STATE_NAMES[0]]
            self._fd_store.add(self._state_name, [state])
        except BaseException:
            state.close()
            raise
        if before:
            self._fd_store.remove(before, 1)
            self.remove_duty(STATE)
        self._state = state
        self.add_duty(STATE, state)

    def _widen(self) -> None:
        if any(held.rule for held in self.estate.sets.values()):
            self._place.open_to_others()

    # --- sockact.rendezvous.offer.Keeper ----------------------------------------------------------

    def store(
        self, name: str, rule: Rule, manifest: Manifest, handles: tuple[OwnedFd, ...]
    ) -> None:
        """Keep a set; it is durable when this returns.

        Raises:
            OSError: It cannot be stored; nothing has changed.
            ValueError: A name in it is none.
        """
        try:
            names = [fd_name(one) for one in manifest.names]
            fd_name(name)
            # What they are, rather than what the client says.
            manifest = manifest_of(zip(names, handles, strict=True), name)
        except BaseException:
            close_all(handles)
            raise
        old, old_store = self.estate.sets.get(name), self._store_of.get(name, "")
        # Under a name of its own, so that a set that is replaced stays until this one is there.
        new_store, stored = self._free_name(), 0
        try:
            self._fd_store.add(new_store, handles)
            stored = len(handles)
            self._store_of[name] = new_store
            self.add_set(name, manifest, handles, rule)
            self._remember()
        except BaseException:
            self._fd_store.remove(new_store, stored)
            self._store_of.pop(name, None)
            self.estate.sets.pop(name, None)
            if old:
                self._store_of[name], self.estate.sets[name] = old_store, old
            close_all(handles)
            raise
        if old:
            self._fd_store.remove(old_store, len(old.handles))
            close_all(old.handles)
        self._widen()
        self._say(f"{name}: {_count(len(handles))} put")

    def drop(self, names: Sequence[str]) -> None:
        """Close sets."""
        for name in names:
            if held := self.estate.sets.pop(name, None):
                self._remember()
                self._fd_store.remove(self._store_of.pop(name), len(held.handles))
                close_all(held.handles)
                self._say(f"{name}: {_count(len(held.handles))} dropped")

    def trouble(self, who: Who, text: str) -> None:
        """Tell the administrator."""
        self._say(f"{who}: {text}")

    # --- its end ----------------------------------------------------------------------------------

    def leave(self) -> None:
        """End, and leave everything to the fd store: the next start goes on."""
        self._place.keep()
        self.close("the holder is restarted")

    @property
    def is_stored(self) -> bool:
        """Whether there is an fd store."""
        return self._fd_store.there


def _count(number: int) -> str:
    return f"{number} descriptor" + ("s" if number != 1 else "")


def _append(file: OwnedFd, line: bytes) -> None:
    end = os.fstat(file.fileno()).st_size
    if os.pwrite(file.fileno(), line, end) != len(line):
        raise OSError("short write")


def _memfd() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("sockact-state", os.MFD_CLOEXEC)
    import tempfile  # noqa: PLC0415 - macOS

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


# --- how it begins --------------------------------------------------------------------------------


def _restored(found: _Found, path: str, say: Say) -> Arrival | None:
    """Return the place as a killed holder has left it in the fd store; None if it has not."""
    memory = found.memory
    if memory is None or memory.path != path:
        return None
    lock, found.lock = found.lock, None
    arrival = Arrival(Place(path, lock))
    arrival.generation = memory.generation + 1
    if found.listener and _is_at(path):
        arrival.listener = borrowed(found.listener.fileno())
        found.listener.release()
        found.listener = None
    else:
        say(f"{path}: was removed, and is made again")
    return arrival


def _is_at(path: str) -> bool:
    if path.startswith("@"):
        return True
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _add_remembered(
    holder: Holder, memory: Memory, handles: Sequence[OwnedFd], say: Say
) -> list[OwnedFd]:
    """Add the sets that are remembered, and return the descriptors that belong to none."""
    free: dict[tuple[int, int], list[OwnedFd]] = {}
    for handle in handles:
        free.setdefault(identity(handle.fileno()), []).append(handle)
    spare: set[int] = {id(handle) for handle in handles}
    for one in memory.sets:
        there: list[tuple[str, OwnedFd]] = []
        for name, which in one.fds:
            candidates = free.get(which)
            if not candidates:
                say(f"{one.name}: {name} was lost; the fd store has not kept it")
                continue
            # The fd store keeps a description once, however often it was put.
            used = candidates.pop() if len(candidates) > 1 else candidates[0]
            if id(used) in spare:
                spare.remove(id(used))
                there.append((name, used))
            else:
                there.append((name, OwnedFd(os.dup(used.fileno()))))
        if there:
            manifest = manifest_of(there, one.name)
            holder.add_set(one.name, manifest, [h for _, h in there], one.rule, one.since)
    return [handle for handle in handles if id(handle) in spare]


def _add_taken(holder: Holder, manifest: Manifest, handles: Sequence[OwnedFd]) -> None:
    """Add what was taken from an owner that is no holder, set by set."""
    indices: dict[str, list[int]] = {}
    for index, entry in enumerate(manifest):
        indices.setdefault(entry.set, []).append(index)
    for name, chosen in indices.items():
        holder.add_set(name, manifest.select(chosen), [handles[i] for i in chosen])


def _add_opened(
    holder: Holder, specs: Sequence[SocketSpec], rule: Rule, warn: Warn, say: Say
) -> SocketSet:
    """Open what the definitions add, and return what undoes that."""
    new = []
    for spec in specs:
        names = {listener.name for listener in spec.listeners}
        if names <= set(holder.estate.sets):
            say(f"{', '.join(sorted(names))}: is there already, and stays as it is")
        else:
            new.append(spec)
    opened = open_specs(new, warn=warn)
    _add_named(holder, [(entry.name, entry) for entry in opened], rule)
    opened.forget()
    return opened


def _add_named(holder: Holder, named: Sequence[tuple[str, OwnedFd]], rule: Rule) -> None:
    """Take ownership of descriptors: all of one fd name are a set of that name."""
    sets: dict[str, list[OwnedFd]] = {}
    for name, handle in named:
        sets.setdefault(name, []).append(handle)
    for name, handles in sets.items():
        manifest = manifest_of([(name, handle) for handle in handles], name)
        holder.add_set(name, manifest, handles, rule)


def _begin(
    reactor: Reactor,
    found: _Found,
    path: str,
    specs: Sequence[SocketSpec],
    *,
    options: Options,
    rule: Rule,
    warn: Warn,
    say: Say,
    take: bool,
) -> tuple[Holder, SocketSet]:
    arrival = _restored(found, path, say)
    restored = arrival is not None
    if arrival is None:
        arrival = arrive(
            reactor,
            path,
            timeout=options.timeout,
            patience=options.patience,
            trusted=options.trusted,
            take=take,
        )
    state, arrival.state = arrival.state, []
    memory = found.memory if restored else _read(state[0]) if state else None
    close_all(state)
    manifest, handles, arrival.handles = arrival.manifest, arrival.handles, ()
    try:
        holder = Holder(
            reactor,
            arrival,
            path=path,
            say=say,
            kind=STREAM if options.stream else SEQPACKET,
            serial=memory.serial if memory else 0,
        )
    except BaseException:
        close_all(handles)
        raise
    opened = SocketSet()
    try:
        if restored:
            handles = tuple(handle for _, handle in found.stored)
            found.stored = []
        if memory:
            close_all(_add_remembered(holder, memory, handles, say))
        else:
            _add_taken(holder, manifest, handles)
        passed, found.passed = found.passed, []
        _add_named(holder, passed, rule)
        opened = _add_opened(holder, specs, rule, warn, say)
        holder.settle()
    except BaseException as error:
        holder.close(str(error))
        opened.discard()
        raise
    return holder, opened


def hold(
    path: str,
    specs: Sequence[SocketSpec] = (),
    *,
    take: bool = False,
    rule: Rule | None = None,
    timeout: float = 30.0,
    trusted: Sequence[int] = (),
    stream: bool = False,
    warn: Warn,
    say: Say,
) -> None:
    """Be a holder, until a successor takes over or a signal ends it: SIGTERM, SIGINT or SIGHUP.

    Args:
        path: The rendezvous.
        specs: What to open at the start, each fd name a set of its own.
        take: Whether to take over from a live owner.
        rule: Who may get what is opened, besides root and this process's own user.
        timeout: Seconds to wait for an owner that is busy, starting or stopping.
        trusted: Users who may own the path besides root and this process's own user.
        stream: Whether to publish the path with SOCK_STREAM, as where there is no SOCK_SEQPACKET.
        warn: Called with a line for each option that could not be set.
        say: Called with a line for each thing that happens.

    Raises:
        PathInUseError: The path has an owner that is not to be taken over from, or is no place for
            a rendezvous.
        BindError: A listener could not be opened; a former owner goes on.
        RendezvousError: As `sockact.takeover`.
    """
    path = checked_path(path)
    reactor = Reactor()
    found = _find()
    holder: Holder | None = None
    ended: list[int] = []

    def end(number: int, _frame: object) -> None:
        ended.append(number)
        reactor.post(lambda: None)

    before = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        options = Options(timeout=timeout, trusted=tuple(trusted), stream=stream)
        holder, opened = _begin(
            reactor,
            found,
            path,
            specs,
            options=options,
            rule=rule or Rule(),
            warn=warn,
            say=say,
            take=take,
        )
        found.close()
        _serve(reactor, holder, ended, say)
        _end(holder, opened)
    finally:
        found.close()
        if holder is not None:
            holder.close()
        for number, handler in before.items():
            signal.signal(number, handler)
        reactor.close()


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _serve(reactor: Reactor, holder: Holder, ended: Sequence[int], say: Say) -> None:
    holder.ready()
    told = False
    while not ended and holder.phase not in (Phase.DRAINING, Phase.FAILED):
        if holder.owns and not told:
            told = True
            count = sum(len(held.handles) for held in holder.estate.sets.values())
            sets = len(holder.estate.sets)
            summary = f"{sets} set{'s' if sets != 1 else ''}, {_count(count)}"
            say(f"generation {holder.estate.generation}: {summary}")
            with contextlib.suppress(NotifyError):
                notify.ready(f"generation {holder.estate.generation}: {summary}")
        reactor.step(None)
    if holder.phase is Phase.FAILED:
        from sockact.errors import TakeoverAbortedError  # noqa: PLC0415

        raise TakeoverAbortedError(holder.failure)
    if holder.phase is Phase.DRAINING:
        say(f"{holder.successor} has taken over")


def _end(holder: Holder, opened: SocketSet) -> None:
    with contextlib.suppress(NotifyError):
        notify.stopping()
    if holder.is_stored and holder.phase is not Phase.DRAINING:
        holder.leave()
        return
    holder.close()
    if not holder.was_succeeded:
        opened.close()
