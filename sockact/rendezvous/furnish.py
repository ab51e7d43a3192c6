"""Definitions and what was taken, put together: what is missing is opened, the rest is told.

All or nothing: if something cannot be opened, what was opened is undone, and whoever served before
goes on as if nobody had asked.
"""

import os
from collections.abc import Callable, Sequence

import attrs

from sockact import directives
from sockact.fd.own import OwnedFd
from sockact.rendezvous.arrive import Arrival, Parked, arrive, close_parked
from sockact.rendezvous.inspect import elsewhere, manifest_of
from sockact.rendezvous.manifest import Manifest
from sockact.rendezvous.match import pair
from sockact.rendezvous.meet import SEQPACKET, STREAM
from sockact.rendezvous.react import Reactor
from sockact.rendezvous.take import as_set, holdings, take
from sockact.rendezvous.takeover import Tenure
from sockact.rendezvous.talk import close_all
from sockact.sockets.adapt import note
from sockact.sockets.bind import has_ipv6, open_specs
from sockact.sockets.node import Made
from sockact.sockets.resolve import resolve_spec
from sockact.sockets.socketset import NamedSocket, SocketSet
from sockact.sockets.task import Warn
from sockact.spec import ListenerSpec, Origin, Setting, SocketSpec


@attrs.frozen
class Options:
    """How to come to a rendezvous, and how long things may take there.

    Attributes:
        timeout: Seconds to wait for an owner that is busy, starting or stopping.
        patience: Seconds that this process may need until it is ready.
        drain: Seconds that its own drain may last, once it has a successor; 0 for ever.
        trusted: Users who may own the path besides root and this process's own user.
        stream: Whether to publish a path with SOCK_STREAM, as where there is no SOCK_SEQPACKET.
        blocking: Whether what is opened blocks, unless its definition says otherwise.
    """

    timeout: float = 30.0
    patience: float = 60.0
    drain: float = 0.0
    trusted: tuple[int, ...] = ()
    stream: bool = False
    blocking: bool = False


Open = Callable[[Sequence[SocketSpec]], SocketSet]
"""Opens every listener of the definitions in their order, or none; `open_specs` does."""

Beside = Callable[[Sequence[OwnedFd]], object]
"""Hears of what was taken before anything is opened beside it."""


def non_blocking(spec: SocketSpec) -> SocketSpec:
    """Return a spec whose listeners are non-blocking, unless it says something of that itself.

    O_NONBLOCK belongs to the description, which two processes share during a takeover: a blocking
    accept() would hang in the one that loses the race.
    """
    name = directives.NON_BLOCKING.name
    if name in spec.settings:
        return spec
    return attrs.evolve(spec, settings={**spec.settings, name: Setting(True, Origin("takeover"))})


class _Furnished:
    """The program's sockets, and what is known of each."""

    def __init__(self) -> None:
        self.sockets = SocketSet()
        self.rows = Manifest()
        self.dropped: list[OwnedFd] = []
        self.removed: list[tuple[SocketSpec, ListenerSpec]] = []

    def remove_on_stop(self, tenure: Tenure) -> None:
        """Remove the nodes of units with RemoveOnStop=yes, taken ones too, when nobody follows."""
        if not self.removed:
            return
        made = Made()
        for spec, listener in self.removed:
            note(made, spec, listener)

        def remove() -> None:
            if tenure.has_led and not tenure.failure:
                made.remove(directories=False)

        self.sockets.on_close(remove, only_if_discarded=False)


def _furnish(
    manifest: Manifest,
    handles: Sequence[OwnedFd],
    specs: Sequence[SocketSpec],
    open_: Open,
    beside: Beside = lambda _taken: None,
) -> _Furnished:
    """Give each listener of the definitions, resolved, what was taken for it, or open it.

    Takes ownership of the handles, and closes them if it fails.
    """
    wanted = [(spec, listener) for spec in specs for listener in spec.listeners]
    found, unwanted = pair([one for _, one in wanted], list(manifest), any_version())
    to_open = missing_of(specs, found)
    opened = SocketSet()
    furnished = _Furnished()
    try:
        if to_open:
            beside(handles)
        opened = open_(to_open)
        new = iter(list(opened))
        rows = []
        for (_, listener), index in zip(wanted, found, strict=True):
            if index is None:
                entry = next(new)
                rows.append(manifest_of([(entry.name, entry)], entry.name))
            else:
                entry = NamedSocket(listener.name, handles[index].release(), listener)
                rows.append(manifest.select([index]))
            furnished.sockets.append(entry)
    except BaseException:
        opened.discard()
        furnished.sockets.close()
        close_all(handles)
        raise
    # What undoes the opening goes along; the order is that of the definitions.
    opened.forget()
    furnished.sockets.extend(opened)
    furnished.rows = Manifest.joined(rows or [Manifest()])
    furnished.dropped = [handles[index] for index in unwanted]
    furnished.removed = [
        (spec, listener)
        for (spec, listener), index in zip(wanted, found, strict=True)
        if index is not None and spec.get(directives.REMOVE_ON_STOP)
    ]
    return furnished


def missing_of(specs: Sequence[SocketSpec], found: Sequence[int | None]) -> list[SocketSpec]:
    """Return the definitions with those listeners alone that are None in `found`, which has all."""
    places = iter(found)
    parts = [(spec, [one for one in spec.listeners if next(places) is None]) for spec in specs]
    return [attrs.evolve(spec, listeners=tuple(left)) for spec, left in parts if left]


def any_version() -> int:
    """Return the IP version of "every address of this machine"."""
    return 6 if has_ipv6() else 4


def keep(tenure: Tenure, sockets: SocketSet, rows: Manifest) -> None:
    """Have copies of the program's sockets passed on: all of one fd name are a set of that name."""
    names: dict[str, list[int]] = {}
    for index, name in enumerate(sockets.names):
        names.setdefault(name, []).append(index)
    numbers = sockets.filenos()
    for name, indices in names.items():
        copies: list[OwnedFd] = []
        try:
            copies += [OwnedFd(os.dup(numbers[index])) for index in indices]
        except BaseException:
            close_all(copies)
            raise
        tenure.add_set(name, rows.select(indices), copies)


def come(
    path: str,
    specs: Sequence[SocketSpec],
    options: Options,
    warn: Warn,
    *,
    open: Open | None = None,  # noqa: A002 - as the method of a unit is called
    beside: Beside = lambda _taken: None,
    reactor: Reactor | None = None,
    stored: list[Parked] | None = None,
) -> tuple[Reactor, Tenure, SocketSet]:
    """Take over from the owner at `path`, or be the first; open what the definitions add.

    Without definitions everything is taken as it is.

    Args:
        path: The rendezvous.
        specs: The definitions.
        options: How to come there.
        warn: Called with a line for each option that could not be set, and the like.
        open: What opens what the definitions add, resolved; by default `open_specs`.
        beside: Called with what was taken, before anything is opened that may share its addresses.
        reactor: What is to drive it, which stays the caller's; by default a new one.
        stored: Gets what the services of the former owner had stored, owned by the caller, once
            nothing can fail any more; by default that is closed.

    Returns:
        What drives it, the tenure, and the program's sockets, all owned by the caller.

    Raises:
        RendezvousError: As `arrive` says.
        BindError: A listener that is new could not be opened; the owner goes on.
    """
    opener = open or (lambda missing: open_specs(missing, warn=warn))
    drive = reactor or Reactor()
    arrival: Arrival | None = None
    tenure: Tenure | None = None
    parked: list[Parked] = []
    sockets = SocketSet()
    try:
        arrival = arrive(
            drive,
            path,
            timeout=options.timeout,
            patience=options.patience,
            trusted=options.trusted,
        )
        parked, arrival.stored = arrival.stored, []
        for line in elsewhere(arrival.manifest):
            warn(f"{path}: {line}")
        if specs:
            specs = [resolved(spec, options) for spec in specs]
            handles, arrival.handles = arrival.handles, ()
            furnished = _furnish(arrival.manifest, handles, specs, opener, beside)
        else:
            furnished = _Furnished()
            furnished.rows = arrival.manifest
            handles, arrival.handles = arrival.handles, ()
            furnished.sockets = as_set(arrival.manifest.names, handles)
        sockets = furnished.sockets
        tenure = Tenure(
            drive, arrival, drain=options.drain, kind=STREAM if options.stream else SEQPACKET
        )
        arrival = None
        keep(tenure, sockets, furnished.rows)
        tenure.drop_after_drain(furnished.dropped)
        furnished.remove_on_stop(tenure)
    except BaseException as error:
        sockets.discard()
        if tenure:
            tenure.close(str(error))
        elif arrival:
            arrival.abandon(str(error))
        close_parked(parked)
        if reactor is None:
            drive.close()
        raise
    if stored is None:
        close_parked(parked)
    else:
        stored += parked
    return drive, tenure, sockets


def resolved(spec: SocketSpec, options: Options) -> SocketSpec:
    """Return a definition as `come` uses it."""
    return resolve_spec(spec if options.blocking else non_blocking(spec))


def take_for(
    path: str,
    specs: Sequence[SocketSpec],
    *,
    replace: bool,
    timeout: float,
    trusted: Sequence[int],
    warn: Warn,
) -> SocketSet:
    """Get copies of what the owner of `path` has for the definitions, and open the rest.

    Only sets of which something is wanted are taken.

    Raises:
        RendezvousError: As `sockact.take`, but nothing at all is no error.
        BindError: What is missing could not be opened; nothing stays open.
    """
    specs = [resolve_spec(spec) for spec in specs]
    manifest, taken = ask_for(path, specs, timeout=timeout, trusted=trusted, warn=warn)
    handles = list(taken)
    taken.forget()
    furnished = _furnish(
        manifest, handles, specs, lambda missing: open_specs(missing, replace=replace, warn=warn)
    )
    close_all(furnished.dropped)
    return furnished.sockets


def ask_for(
    path: str,
    specs: Sequence[SocketSpec],
    *,
    timeout: float,
    trusted: Sequence[int],
    warn: Warn,
) -> tuple[Manifest, SocketSet]:
    """Get copies of what the owner of `path` has for definitions, resolved: of whole sets.

    Returns:
        What they are, and the set, which the caller owns.

    Raises:
        RendezvousError: As `sockact.take`, but nothing at all is no error.
    """
    listeners = [listener for spec in specs for listener in spec.listeners]
    entries = [one.entry for one in holdings(path, timeout=timeout, trusted=trusted)]
    found, _ = pair(listeners, entries, any_version())
    sets = dict.fromkeys(entries[index].set for index in found if index is not None)
    taken = take(path, *sets, timeout=timeout, trusted=trusted) if sets else SocketSet()
    try:
        manifest = manifest_of([(entry.name, entry) for entry in taken], "")
    except BaseException:
        taken.close()
        raise
    for line in elsewhere(manifest):
        warn(f"{path}: {line}")
    return manifest, taken


def offer_set(path: str, sockets: SocketSet, options: Options) -> tuple[Reactor, Tenure]:
    """Be the owner at `path`, with copies of `sockets`, which stay the caller's.

    Raises:
        PathInUseError: The path has an owner, or cannot be used.
    """
    reactor = Reactor()
    tenure: Tenure | None = None
    try:
        arrival = arrive(reactor, path, timeout=options.timeout, patience=0.0, take=False)
        tenure = Tenure(
            reactor, arrival, drain=options.drain, kind=STREAM if options.stream else SEQPACKET
        )
        rows = [manifest_of([(entry.name, entry)], entry.name) for entry in sockets]
        keep(tenure, sockets, Manifest.joined(rows or [Manifest()]))
        tenure.ready()
    except BaseException:
        if tenure:
            tenure.close()
        reactor.close()
        raise
    return reactor, tenure
