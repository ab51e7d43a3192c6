"""The holder: an owner that serves no traffic and keeps sets of sockets for others.

What it has must outlive it. Under systemd, with an fd store, every descriptor is in the store
before the one who put it hears of success, and so are the rendezvous listener, the lock, and a
memfd that says which descriptor belongs to which set; so a holder that is killed finds everything
again, and who connects meanwhile waits in the listener's backlog. It is replaced by a newer holder
as any owner is: by a takeover.
"""

import contextlib
import errno
import os
import signal
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from sockact.activation import notify
from sockact.activation.receive import listen_fds
from sockact.errors import NotifyError, RefusedError, RendezvousError, TakeoverAbortedError
from sockact.fd.identity import identity, same_description
from sockact.fd.own import OwnedFd
from sockact.fd.peer import is_dead, peer_pidfd
from sockact.fd.probe import borrowed
from sockact.rendezvous.furnish import Options
from sockact.rendezvous.inspect import elsewhere, manifest_of
from sockact.rendezvous.manifest import Manifest
from sockact.rendezvous.meet import SEQPACKET, STREAM, WAIT_SECONDS, Place, checked_path
from sockact.rendezvous.memory import Memory, Remembered, read, write
from sockact.rendezvous.messages import Op, Request
from sockact.rendezvous.policy import Rule, Who
from sockact.rendezvous.react import READ, Reactor
from sockact.rendezvous.take import Asking
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
_OTHER = _STORED + "other"
_STATES = (_STORED + "state-a", _STORED + "state-b")
_OTHER_SECONDS = 60.0

Say = Callable[[str], None]


class _Store:
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
        self.remove(sorted(self.names, key=_OTHER.__eq__))


@attrs.define
class _Found:
    """What a killed holder has left in the fd store, and what else this process was given."""

    memory: Memory | None = None
    stored: dict[str, OwnedFd] = attrs.Factory(dict)
    passed: list[tuple[str, OwnedFd]] = attrs.Factory(list)
    names: set[str] = attrs.Factory(set)

    def forget(self, *names: str) -> None:
        """Close what was stored under these names, and remove it from the fd store."""
        close_all([self.stored.pop(name) for name in names if name in self.stored])
        _Store(self.names & {*names}).clear()
        self.names -= {*names}

    def close(self) -> None:
        """Close everything that is still here."""
        close_all([*self.stored.values(), *(handle for _, handle in self.passed)])
        self.stored, self.passed = {}, []


def _find() -> _Found:
    """Sort what this process was started with."""
    found = _Found()
    passed = listen_fds()
    names = passed.names
    for name, number in zip(names, passed.detach(), strict=True):
        if name.startswith(_STORED) and name not in found.stored:
            found.stored[name] = OwnedFd(number)
        else:
            found.passed.append((name, OwnedFd(number)))
    found.names = set(found.stored)
    found.memory = _newest([found.stored[name] for name in _STATES if name in found.stored])
    return found


def _newest(states: Sequence[OwnedFd]) -> Memory | None:
    """Return what was written last; the one that was being written may be broken."""
    memories = [_read(handle) for handle in states]
    return max(filter(None, memories), key=lambda memory: memory.serial, default=None)


def _read(handle: OwnedFd) -> Memory | None:
    return read(os.pread(handle.fileno(), os.fstat(handle.fileno()).st_size, 0))


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
        self._fd_store = _Store(stored)
        numbers = [name.removeprefix(_STORED) for name in self._fd_store.names]
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
        for name in _STATES:
            state = found.pop(name, None) or OwnedFd(_memfd())
            self._states = (*self._states, state)
            self.add_duty(STATE, state)
        self._remember()
        named: dict[str, OwnedFd] = {}
        # First: what follows is not to be taken for this process's own as long as that one lives.
        if self._asking and (owner := self._asking.talk.process):
            named[_OTHER] = owner
        named |= zip(_STATES, self._states, strict=True)
        # Before the sets: if there is no room for everything, it can be told what was lost.
        named[_LISTENER] = self._duty("rendezvous")
        if self._place.lock:
            named[_LOCK] = self._place.lock
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
            self._names[number] = f"{_STORED}{self._last}" if same is None else self._names[same]
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

    def add_stored(self, one: Remembered, found: dict[str, OwnedFd]) -> None:
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
        self._say(f"{name}: {_count(len(handles))} put")

    def drop(self, names: Sequence[str]) -> None:
        """Close sets."""
        for name in names:
            if held := self.estate.sets.pop(name, None):
                self._remember()
                self._forget(held.handles)
                self._say(f"{name}: {_count(len(held.handles))} dropped")

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
                self._fd_store.remove([_OTHER])
        elif _OTHER not in self._fd_store.names and (pidfd := peer_pidfd(taker)) is not None:
            handle = OwnedFd(pidfd)
            with contextlib.suppress(NotifyError):
                self._fd_store.add({_OTHER: handle})
            handle.close()

    # --- its end ----------------------------------------------------------------------------------

    def leave(self) -> None:
        """End, and leave everything to the fd store: the next start goes on."""
        self._place.keep()
        self.close("the holder is restarted")
        if self.was_succeeded:
            self.hand_over()
        else:
            self._fd_store.remove([_OTHER])

    def hand_over(self) -> None:
        """Leave nothing in the fd store: it is the successor's."""
        self._fd_store.clear()

    @property
    def is_stored(self) -> bool:
        """Whether there is an fd store."""
        return self._fd_store.there


def _count(number: int) -> str:
    return f"{number} descriptor" + ("s" if number != 1 else "")


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
    if memory is None:
        if found.stored:
            say(
                f"warning: {_count(len(found.stored))} of the fd store are closed, because it has"
                " not kept what they are (FileDescriptorStoreMax=)"
            )
        found.forget(*found.stored)
        return None
    if memory.path != path:
        if lock := found.stored.get(_LOCK):
            Place(memory.path, OwnedFd(os.dup(lock.fileno()))).vacate()
        found.forget(_LISTENER, _LOCK)
        return None
    lock = found.stored.pop(_LOCK, None)
    place = Place(path, lock) if lock or path.startswith("@") else Place.occupy(path)
    if place is None:
        found.forget(_LISTENER)
        return None
    arrival = Arrival(place)
    arrival.generation = memory.generation + 1
    if _LISTENER not in found.stored:
        say(f"warning: {path}: is made again; the fd store has not kept its listener")
    elif _is_at(path):
        arrival.listener = borrowed(found.stored.pop(_LISTENER).release())
    else:
        say(f"{path}: was removed, and is made again")
        found.forget(_LISTENER)
    return arrival


def _is_elsewhere(reactor: Reactor, found: _Found, path: str, say: Say) -> bool:
    """Whether somebody else is in charge, because of a takeover during which a holder was killed.

    Whoever was at its other side, as taker or as former owner, has everything, and answers at the
    path if it is the owner now, or as soon as it is ready. If it is dead, or does not answer, it
    is for this process to go on.
    """
    other = found.stored.pop(_OTHER, None)
    if other is None:
        return False
    say(f"{path}: a takeover was under way when the holder was killed")
    deadline = time.monotonic() + _OTHER_SECONDS
    reactor.watch(other.fileno(), READ, lambda: None)
    try:
        while time.monotonic() < deadline and not is_dead(other.fileno()):
            if _is_answered(reactor, path, other, deadline):
                return True
    finally:
        reactor.unwatch(other.fileno())
        other.close()
        found.forget(_OTHER)
    return False


def _is_answered(reactor: Reactor, path: str, other: OwnedFd, deadline: float) -> bool:
    try:
        asking = Asking(reactor, path, Request(Op.LIST), deadline)
    except RendezvousError:
        time.sleep(WAIT_SECONDS)
        return False
    try:
        while not asking.finished and not is_dead(other.fileno()):
            if (left := deadline - time.monotonic()) <= 0:
                return False
            reactor.step(left)
        asking.check()
    except RefusedError:
        return True
    except RendezvousError:
        return False
    else:
        return asking.finished
    finally:
        asking.abandon("this was a question only")


def _is_at(path: str) -> bool:
    if path.startswith("@"):
        return True
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _add_taken(
    holder: Holder, manifest: Manifest, handles: Sequence[OwnedFd], memory: Memory | None
) -> None:
    """Add what was taken from another owner, set by set."""
    remembered = {one.name: one for one in memory.sets} if memory else {}
    indices: dict[str, list[int]] = {}
    for index, entry in enumerate(manifest):
        indices.setdefault(entry.set, []).append(index)
    for name, chosen in indices.items():
        one = remembered.get(name)
        holder.add_new(
            name,
            manifest.select(chosen),
            [handles[i] for i in chosen],
            one.rule if one else Rule(),
            one.since if one else time.time(),
        )


def _add_opened(
    holder: Holder, specs: Sequence[SocketSpec], rule: Rule, warn: Warn, say: Say
) -> SocketSet:
    """Open what the definitions add, and return what undoes that."""
    new, there = [], set(holder.estate.sets)
    for spec in specs:
        listeners = tuple(one for one in spec.listeners if one.name not in there)
        for name in sorted(there & {one.name for one in spec.listeners}):
            say(f"{name}: is there already, and stays as it is")
        if listeners:
            new.append(attrs.evolve(spec, listeners=listeners))
    opened = open_specs(new, warn=warn)
    for entry in opened:
        if entry.listener and getattr(entry.listener.address, "port", None) == 0:
            say(f"{entry.name}: {entry.describe().kind} {entry.describe().address}")
    _add_named(holder, [(entry.name, entry) for entry in opened], rule)
    opened.forget()
    return opened


def _add_named(holder: Holder, named: Sequence[tuple[str, OwnedFd]], rule: Rule) -> None:
    """Take ownership of descriptors: all of one fd name are a set of that name.

    One that is there already stays as it is.
    """
    sets: dict[str, list[OwnedFd]] = {}
    for name, handle in named:
        sets.setdefault(name, []).append(handle)
    for name, handles in sets.items():
        if name in holder.estate.sets:
            # From the socket unit, as at each start of the service; what was put since counts.
            close_all(handles)
            continue
        manifest = manifest_of([(name, handle) for handle in handles], name)
        holder.add_new(name, manifest, handles, rule, time.time())


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
    if _is_elsewhere(reactor, found, path, say):
        found.memory = None
        found.forget(*found.stored)
    restored = _restored(found, path, say)
    was_there = not path.startswith("@") and _is_at(path)
    arrival = restored or arrive(
        reactor,
        path,
        timeout=options.timeout,
        patience=options.patience,
        trusted=options.trusted,
        take=take,
    )
    if was_there and not restored and not arrival.asking:
        say(f"{path}: its owner has died, and what that alone held is lost")
    try:
        # What the former owner remembers, if it is a holder; else what this one did.
        told = _newest(arrival.state)
        close_all(arrival.state)
        memory = None if arrival.asking else found.memory
        latest = memory or told
        for line in elsewhere(arrival.manifest):
            warn(f"{path}: {line}")
        holder = Holder(
            reactor,
            arrival,
            path=path,
            say=say,
            kind=STREAM if options.stream else SEQPACKET,
            serial=latest.serial if latest else 0,
            stored=found.names,
        )
    except BaseException as error:
        arrival.abandon(str(error))
        raise
    opened = SocketSet()
    try:
        handles, arrival.handles = arrival.handles, ()
        _add_taken(holder, arrival.manifest, handles, told)
        for one in memory.sets if memory else ():
            holder.add_stored(one, found.stored)
        passed, found.passed = found.passed, []
        _add_named(holder, passed, rule)
        opened = _add_opened(holder, specs, rule, warn, say)
        holder.settle(found.stored)
    except BaseException as error:
        if restored:
            holder.leave()
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
    path = checked_path(path, trusted)
    reactor = Reactor()
    found = _Found()
    holder: Holder | None = None
    ended: list[int] = []
    before: dict[int, Any] = {}

    def end(number: int, _frame: object) -> None:
        ended.append(number)
        reactor.post(lambda: None)

    try:
        for one in _SIGNALS:
            before[one] = signal.signal(one, end)
        found = _find()
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
    while not ended and not _is_over(holder):
        if holder.owns and not told:
            told = True
            count = sum(len(held.handles) for held in holder.estate.sets.values())
            sets = len(holder.estate.sets)
            summary = f"{sets} set{'s' if sets != 1 else ''}, {_count(count)}"
            say(f"generation {holder.estate.generation}: {summary}")
            with contextlib.suppress(NotifyError):
                notify.ready(f"generation {holder.estate.generation}: {summary}")
        reactor.step(None)
        holder.watch_takeover()
    if holder.phase is Phase.FAILED:
        holder.hand_over()
        raise TakeoverAbortedError(holder.failure)
    if holder.phase is Phase.DRAINING:
        say(f"{holder.successor} has taken over")


def _is_over(holder: Holder) -> bool:
    if holder.phase is Phase.DRAINING:
        holder.resolve()  # a successor that is dead by now has nothing
    return holder.phase in (Phase.DRAINING, Phase.FAILED)


def _end(holder: Holder, opened: SocketSet) -> None:
    with contextlib.suppress(NotifyError):
        notify.stopping()
    if holder.is_stored and holder.phase is not Phase.DRAINING:
        holder.leave()
        return
    holder.hand_over()
    holder.close()
    if not holder.was_succeeded:
        opened.close()
