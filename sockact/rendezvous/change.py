"""New definitions for sockets that this process has open, and owns a rendezvous for.

What stays is the very same descriptor, which loses no client; what is new is opened before
anything that is not wanted any more is let go.
"""

import os
from collections.abc import Collection, Sequence
from functools import partial

import attrs

from sockact import directives
from sockact.fd.identity import identity
from sockact.fd.own import OwnedFd
from sockact.rendezvous.estate import HeldSet
from sockact.rendezvous.furnish import Open, Options, any_version, missing_of, resolved
from sockact.rendezvous.inspect import inspect
from sockact.rendezvous.manifest import Entry, Manifest
from sockact.rendezvous.match import pair, pair_opened
from sockact.rendezvous.takeover import Tenure
from sockact.rendezvous.talk import close_all
from sockact.sockets.adapt import Adapter, note
from sockact.sockets.bind import open_specs, warn_by_default
from sockact.sockets.node import Made
from sockact.sockets.socketset import NamedSocket, SocketSet
from sockact.sockets.task import Task, Warn
from sockact.spec import ListenerSpec, SocketSpec


class Change:
    """A change that is prepared: everything new is open, and nothing else has happened.

    `commit` or `undo` ends it.

    Attributes:
        specs: The new definitions, with host names resolved.
        entries: What there is to be, in the order of the definitions' listeners. What stays is the
            entry that is there.
        opened: What of this is new.
        dropped: What is there, and is wanted no more.
    """

    def __init__(
        self,
        sockets: SocketSet,
        old: Sequence[SocketSpec],
        specs: Sequence[SocketSpec],
        found: Sequence[int | None],
        open_: Open,
    ) -> None:
        """Open what `found` has no entry for; `sockets` stays the caller's."""
        self.specs = list(specs)
        self._sockets = sockets
        self._old = list(old)
        self._old_of = {one: place for place, spec in enumerate(old) for one in spec.listeners}
        self._found = found
        self._new: SocketSet | None = open_(missing_of(specs, found))
        self._present = present = list(sockets)
        self.opened = list(self._new)
        fresh = iter(self.opened)
        self.entries = [next(fresh) if index is None else present[index] for index in found]
        kept = {index for index in found if index is not None}
        self.dropped = [entry for i, entry in enumerate(present) if i not in kept]

    @property
    def listeners(self) -> list[ListenerSpec]:
        """The definition of each entry."""
        return [listener for spec in self.specs for listener in spec.listeners]

    def undo(self, keep: Collection[OwnedFd] = ()) -> SocketSet:
        """Close what was opened: nothing has changed; after `commit` this does nothing.

        Args:
            keep: What of it is not to be closed yet.

        Returns:
            That, owned by the caller.
        """
        new, self._new = self._new, None
        kept = SocketSet()
        if new is not None:
            entries = list(new)
            new.forget()
            for entry in entries:
                (kept if entry in keep else new).append(entry)
            new.discard()
        return kept

    def commit(
        self, tenure: Tenure | None = None, *, warn: Warn = warn_by_default
    ) -> tuple[SocketSet, SocketSet]:
        """Make it so: what stays gets the names and options that it is to have.

        Args:
            tenure: Who passes on what there is, from now on what there is to be.
            warn: Called with a line for each option that could not be set, or stays as it was.

        Returns:
            The new set, which takes the place of the present one, and what is wanted no more; both
            owned by the caller. The present set is empty.

        Raises:
            RefusedError: Somebody is taking over: what they were offered is fixed. As with every
                exception here, nothing has changed, and it can be tried again, or undone.
            OSError: No more descriptors can be had.
            FdStateError: What is to stay was closed.
        """
        new = self._new
        if new is None:
            raise RuntimeError("the change has been made, or undone")
        numbers = [entry.fileno() for entry in self.entries]
        if tenure:
            names = [listener.name for listener in self.listeners]
            pass_on(tenure, self._present, list(zip(names, self.entries, strict=True)))
        self._new = None
        whole, dropped = SocketSet(), self._let_go()
        adapters: dict[tuple[int, int], Adapter] = {}
        cleanups: list[Made] = []
        for row, number, index in zip(self._rows(), numbers, self._found, strict=True):
            place, listener, entry = row
            whole.append(entry)
            if index is not None:
                if (old := self._old_place(entry)) is not None:
                    if (old, place) not in adapters:
                        adapters[old, place] = Adapter(self._old[old], self.specs[place], warn)
                    if made := adapters[old, place].adapt(number, listener):
                        cleanups.append(made)
                entry.name, entry.listener = listener.name, listener
        # What undoes the opening of either goes along.
        for source in (self._sockets, new):
            source.forget()
            whole.extend(source)
        for made in cleanups:
            whole.on_close(partial(made.remove, directories=False), only_if_discarded=False)
        return whole, dropped

    def _old_place(self, entry: NamedSocket) -> int | None:
        """Return which of the former definitions an entry is of, if that is known."""
        return self._old_of.get(entry.listener) if entry.listener else None

    def _rows(self) -> list[tuple[int, ListenerSpec, NamedSocket]]:
        """Return for each entry which of the definitions it is of, and which listener there."""
        places = [place for place, spec in enumerate(self.specs) for _ in spec.listeners]
        return list(zip(places, self.listeners, self.entries, strict=True))

    def _let_go(self) -> SocketSet:
        """Return what is wanted no more; with it go the nodes that are to go (RemoveOnStop=)."""
        dropped, made = SocketSet(self.dropped), Made()
        for entry in self.dropped:
            place = self._old_place(entry)
            if entry.listener and place is not None:
                spec = self._old[place]
                if spec.get(directives.REMOVE_ON_STOP):
                    note(made, spec, entry.listener)
        dropped.on_close(partial(made.remove, directories=False), only_if_discarded=False)
        return dropped


def pass_on(
    tenure: Tenure, present: Sequence[NamedSocket], wanted: Sequence[tuple[str, NamedSocket]]
) -> None:
    """Have a tenure pass on copies of other sockets from now on; it has those of what stays.

    Args:
        tenure: Who passes them on.
        present: What it has passed on until now.
        wanted: What there is to be, with the name of the set that it is of.

    Raises:
        RefusedError: Somebody is taking over: what they were offered is fixed. As with every
            exception here, nothing has changed.
        OSError: No more descriptors can be had.
        FdStateError: One of them was closed.
    """
    tenure.check_unchanging()
    held = tenure.estate.sets
    places = _places(tenure, present)
    named: dict[str, list[NamedSocket]] = {}
    for name, entry in wanted:
        named.setdefault(name, []).append(entry)
    made: list[OwnedFd] = []
    sets: dict[str, tuple[Manifest, Sequence[OwnedFd]]] = {}
    try:
        for name, entries in named.items():
            found = [places.get(entry) for entry in entries]
            if name in held and found == _all_of(held[name]):
                sets[name] = held[name].manifest, held[name].handles
                continue
            rows: list[Entry] = []
            copies: list[OwnedFd] = []
            for entry, place in zip(entries, found, strict=True):
                if place is None:
                    rows.append(inspect(entry.fileno(), name, name))
                    made.append(OwnedFd(os.dup(entry.fileno())))
                    copies.append(made[-1])
                else:
                    have, index = held[place[0]], place[1]
                    rows.append(attrs.evolve(have.manifest[index], set=name, name=name))
                    copies.append(have.handles[index])
            sets[name] = Manifest(rows), copies
        tenure.replace_sets(sets)
    except BaseException:
        close_all(made)
        raise


_Place = tuple[str, int]
"""Where a tenure has a copy: the name of the set, and the index in it."""


def _all_of(held: HeldSet[OwnedFd]) -> list[_Place] | None:
    """Return the places of a set whose sockets are all called as it is."""
    if {*held.manifest.names, *held.manifest.column("set")} - {held.name}:
        return None
    return [(held.name, index) for index in range(len(held.handles))]


def _places(tenure: Tenure, entries: Sequence[NamedSocket]) -> dict[NamedSocket, _Place]:
    """Return where the tenure has copies of entries, as far as it has any."""
    found: dict[NamedSocket, _Place] = {}
    counts: dict[str, int] = {}
    for entry in entries:
        index = counts.get(entry.name, 0)
        counts[entry.name] = index + 1
        held = tenure.estate.sets.get(entry.name)
        if held and index < len(held.handles):
            copy = held.handles[index]
            if identity(copy.fileno()) == identity(entry.fileno()):
                found[entry] = entry.name, index
    return found


def change(
    sockets: SocketSet,
    old: Sequence[SocketSpec],
    new: Sequence[SocketSpec],
    options: Options,
    warn: Warn,
    *,
    open: Open | None = None,  # noqa: A002 - as in `come`
) -> Change:
    """Prepare new definitions for `sockets`: open what they add, and nothing else.

    What has the kind and the address of a listener stays, even if its name or its options change:
    see `sockact.sockets.adapt` for what becomes of those.

    Args:
        sockets: What is open; stays the caller's until the change is committed.
        old: What it was opened from, with host names resolved: the `specs` of the last change.
        new: The new definitions.
        options: As at the arrival; only `blocking` is looked at.
        warn: Called with a line for each option that could not be set on what is opened.
        open: What opens what is added; by default `open_specs`.

    Raises:
        BindError: A host name, user or group does not exist, or something could not be opened;
            nothing is left of it.
        FdStateError: One of `sockets` was closed.
    """
    specs = [resolved(spec, options) for spec in new]
    for spec in specs:
        Task(spec, warn).owner()
    listeners = [listener for spec in specs for listener in spec.listeners]
    return Change(
        sockets,
        old,
        specs,
        _present(listeners, sockets),
        open or (lambda missing: open_specs(missing, warn=warn)),
    )


def _present(listeners: Sequence[ListenerSpec], sockets: SocketSet) -> list[int | None]:
    """Return for each listener which of the sockets is the one that it means, or None.

    Raises:
        FdStateError: One of `sockets` was closed.
    """
    numbers = sockets.filenos()
    found = pair_opened(listeners, [entry.listener for entry in sockets])
    kept = set(found)
    lacking = [place for place, index in enumerate(found) if index is None]
    left = [index for index in range(len(numbers)) if index not in kept]
    names = sockets.names
    rows = [inspect(numbers[index], names[index], names[index]) for index in left]
    chosen, _ = pair([listeners[one] for one in lacking], rows, any_version(), renamed=True)
    for place, row in zip(lacking, chosen, strict=True):
        found[place] = None if row is None else left[row]
    return found
