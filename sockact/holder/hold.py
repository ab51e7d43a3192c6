"""Being a holder: from what was left, taken, passed and defined to the last signal."""

import contextlib
import os
import signal
import stat
import time
from collections.abc import Sequence
from typing import Any

import attrs

from sockact.activation import notify
from sockact.errors import NotifyError, RefusedError, RendezvousError, TakeoverAbortedError
from sockact.fd.own import OwnedFd
from sockact.fd.peer import is_dead
from sockact.fd.probe import borrowed
from sockact.holder.fdstore import (
    LISTENER,
    LOCK,
    OTHER,
    Found,
    find,
    newest,
)
from sockact.holder.tenure import Holder, Say, counted
from sockact.rendezvous.arrive import Arrival, arrive
from sockact.rendezvous.furnish import Options
from sockact.rendezvous.inspect import elsewhere, manifest_of
from sockact.rendezvous.manifest import Manifest
from sockact.rendezvous.meet import SEQPACKET, STREAM, WAIT_SECONDS, Place, checked_path
from sockact.rendezvous.memory import Memory
from sockact.rendezvous.messages import Op, Request
from sockact.rendezvous.policy import Rule
from sockact.rendezvous.react import READ, Reactor
from sockact.rendezvous.take import Asking
from sockact.rendezvous.takeover import Phase
from sockact.rendezvous.talk import close_all
from sockact.sockets.bind import open_specs
from sockact.sockets.socketset import SocketSet
from sockact.sockets.task import Warn
from sockact.spec import SocketSpec

_OTHER_SECONDS = 60.0


def _restored(found: Found, path: str, say: Say) -> Arrival | None:
    """Return the place as a killed holder has left it in the fd store; None if it has not."""
    memory = found.memory
    if memory is None:
        if found.stored:
            say(
                f"warning: {counted(len(found.stored))} of the fd store are closed, because it has"
                " not kept what they are (FileDescriptorStoreMax=)"
            )
        found.forget(*found.stored)
        return None
    if memory.path != path:
        if lock := found.stored.get(LOCK):
            Place(memory.path, OwnedFd(os.dup(lock.fileno()))).vacate()
        found.forget(LISTENER, LOCK)
        return None
    lock = found.stored.pop(LOCK, None)
    place = Place(path, lock) if lock or path.startswith("@") else Place.occupy(path)
    if place is None:
        found.forget(LISTENER)
        return None
    arrival = Arrival(place)
    arrival.generation = memory.generation + 1
    if LISTENER not in found.stored:
        say(f"warning: {path}: is made again; the fd store has not kept its listener")
    elif _is_at(path):
        arrival.listener = borrowed(found.stored.pop(LISTENER).release())
    else:
        say(f"{path}: was removed, and is made again")
        found.forget(LISTENER)
    return arrival


def _is_elsewhere(reactor: Reactor, found: Found, path: str, say: Say) -> bool:
    """Whether somebody else is in charge, because of a takeover during which a holder was killed.

    Whoever was at its other side, as taker or as former owner, has everything, and answers at the
    path if it is the owner now, or as soon as it is ready. If it is dead, or does not answer, it
    is for this process to go on.
    """
    other = found.stored.pop(OTHER, None)
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
        found.forget(OTHER)
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
    found: Found,
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
        told = newest(arrival.state)
        close_all(arrival.state)
        memory = None if arrival.asking else found.memory
        latest = memory or told
        for line in elsewhere(arrival.manifest):
            warn(f"{path}: {line}")
        if arrival.stored:
            say(
                f"warning: {counted(len(arrival.stored))} that services had stored with the former"
                " owner are closed; only a supervisor keeps them"
            )
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
            holder.add_remembered(one, found.stored)
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
    found = Found()
    holder: Holder | None = None
    ended: list[int] = []
    before: dict[int, Any] = {}

    def end(number: int, _frame: object) -> None:
        ended.append(number)
        reactor.post(lambda: None)

    try:
        for one in _SIGNALS:
            before[one] = signal.signal(one, end)
        found = find()
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
            summary = f"{sets} set{'s' if sets != 1 else ''}, {counted(count)}"
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
