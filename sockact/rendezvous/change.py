"""New definitions for sockets that this process has open, and owns a rendezvous for.

What stays is the very same descriptor, which loses no client; what is new is opened before
anything that is not wanted any more is let go.
"""

import os
from collections.abc import Sequence
from functools import partial

from sockact import directives
from sockact.fd.identity import identity
from sockact.fd.own import OwnedFd
from sockact.rendezvous.furnish import Open, Options, any_version, missing_of, resolved
from sockact.rendezvous.inspect import inspect
from sockact.rendezvous.manifest import Manifest
from sockact.rendezvous.match import pair
from sockact.rendezvous.takeover import Tenure
from sockact.rendezvous.talk import close_all
from sockact.sockets.adapt import adapt, note
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
        self._old_of = {one: spec for spec in old for one in spec.listeners}
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

    def undo(self) -> None:
        """Close what was opened: nothing has changed; after `commit` this does nothing."""
        new, self._new = self._new, None
        if new is not None:
            new.discard()

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
        cleanups: list[Made] = []
        for row, number, index in zip(self._rows(), numbers, self._found, strict=True):
            spec, listener, entry = row
            whole.append(entry)
            if index is not None:
                old = self._old(entry)
                if old is not None and (made := adapt(number, listener, old, spec, warn)):
                    cleanups.append(made)
                entry.name, entry.listener = listener.name, listener
        # What undoes the opening of either goes along.
        for source in (self._sockets, new):
            source.forget()
            whole.extend(source)
        for made in cleanups:
            whole.on_close(partial(made.remove, directories=False), only_if_discarded=False)
        return whole, dropped

    def _old(self, entry: NamedSocket) -> SocketSpec | None:
        return self._old_of.get(entry.listener) if entry.listener else None

    def _rows(self) -> list[tuple[SocketSpec, ListenerSpec, NamedSocket]]:
        specs = [spec for spec in self.specs for _ in spec.listeners]
        return list(zip(specs, self.listeners, self.entries, strict=True))

    def _let_go(self) -> SocketSet:
        """Return what is wanted no more; with it go the nodes that are to go (RemoveOnStop=)."""
        dropped, made = SocketSet(self.dropped), Made()
        for entry in self.dropped:
            spec = self._old(entry)
            if entry.listener and spec is not None and spec.get(directives.REMOVE_ON_STOP):
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
    have = _copies(tenure, present)
    rows = [inspect(entry.fileno(), name, name) for name, entry in wanted]
    made: list[OwnedFd] = []
    sets: dict[str, tuple[list[int], list[OwnedFd]]] = {}
    try:
        for index, (name, entry) in enumerate(wanted):
            copy = have.get(entry)
            if copy is None:
                copy = OwnedFd(os.dup(entry.fileno()))
                made.append(copy)
            indices, copies = sets.setdefault(name, ([], []))
            indices.append(index)
            copies.append(copy)
        whole = Manifest(rows)
        tenure.replace_sets(
            {name: (whole.select(indices), copies) for name, (indices, copies) in sets.items()}
        )
    except BaseException:
        close_all(made)
        raise


def _copies(tenure: Tenure, entries: Sequence[NamedSocket]) -> dict[NamedSocket, OwnedFd]:
    """Return the copies that the tenure has of entries, as far as it has any."""
    found: dict[NamedSocket, OwnedFd] = {}
    places: dict[str, int] = {}
    for entry in entries:
        place = places.get(entry.name, 0)
        places[entry.name] = place + 1
        held = tenure.estate.sets.get(entry.name)
        if held and place < len(held.handles):
            copy = held.handles[place]
            if identity(copy.fileno()) == identity(entry.fileno()):
                found[entry] = copy
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
    rows = [inspect(entry.fileno(), entry.name, entry.name) for entry in sockets]
    listeners = [listener for spec in specs for listener in spec.listeners]
    found, _ = pair(listeners, rows, any_version(), renamed=True)
    return Change(
        sockets, old, specs, found, open or (lambda missing: open_specs(missing, warn=warn))
    )
