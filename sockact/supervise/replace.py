"""Replacing what runs, all of it or nothing: definitions, sockets, and the processes.

First everything new is opened and started beside what serves. Only when all of it is ready does it
take its place, and what served before steps down. If anything fails before, nothing has happened.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial

from sockact.rendezvous.change import Change, change
from sockact.rendezvous.takeover import Tenure
from sockact.sockets.socketset import NamedSocket, SocketSet
from sockact.spec import ServiceSpec
from sockact.supervise.definitions import Definitions
from sockact.supervise.given import Given, joined
from sockact.supervise.house import log
from sockact.supervise.listen import part
from sockact.supervise.manage import Manager
from sockact.supervise.open import Opening, listening
from sockact.supervise.renew import Service
from sockact.supervise.start import Gives
from sockact.supervise.supply import Supply

Done = Callable[[str], None]


class Replacement:
    """One replacement, from its beginning to its commit.

    Attributes:
        definitions: What is to run.
        waiting: Names of the services that are not ready yet.
    """

    def __init__(
        self, manager: Manager, definitions: Definitions, names: Sequence[str], done: Done
    ) -> None:
        """Prepare it.

        Args:
            manager: What runs.
            definitions: What is to run.
            names: The services whose processes are replaced.
            done: Called once all are ready, with nothing; or with why it came to nothing.
        """
        self.definitions = definitions
        self.waiting: set[str] = set()
        self._manager = manager
        self._names = names
        self._done = done
        self._change: Change | None = None
        self._opening: Opening | None = None
        self._tried: list[Service] = []
        self._over = False
        self._ready = False

    def open(self, supply: Supply) -> None:
        """Open what the definitions add.

        Raises:
            BindError: Something could not be opened; nothing has changed.
        """
        present = [(spec, sockets) for spec, sockets in self._manager.sockets()]
        flat = SocketSet(entry for _, sockets in present for entry in sockets)
        old = [supply.resolved(spec) for spec, _ in present]
        new = [listening(unit.spec) for unit in self.definitions.units]
        self._warn = supply.warn
        self._opening = Opening(supply.open)
        try:
            self._change = change(
                flat, old, new, supply.options(), supply.warn, open=self._opening.open
            )
        except BaseException:
            self._opening.discard()
            raise
        finally:
            flat.forget()

    def begin(self) -> None:
        """Start what is new."""
        known = self._manager.services
        services = [known[name] for name in self._names if name in known]
        chosen: list[Service] = []
        for service in services:
            # One that waits for its next start may wait for just this.
            if self._change is None or service.is_active or service.is_waiting:
                service.give_up_trial("another replacement has begun")
                chosen.append(service)
            else:
                log(logging.INFO, service.name, "does not run; its next start is a new one")
        self.waiting = {one.name for one in chosen}
        self._tried = chosen
        for service in chosen:
            if self._over:
                return
            name = service.name
            spec = self.definitions.services[name]
            service.try_new(spec, self._gives(service, spec), partial(self._heard, name))
        self._look()

    def _gives(self, service: Service, spec: ServiceSpec) -> Gives:
        if self._change is None:
            return service.gives
        units = self._units(service.name, spec)
        manager = self._manager

        def gives(slot: int) -> Given:
            if self._over:  # committed: whatever there is then
                return manager.given(service.name, slot)
            sockets = [part(found, copies, slot, names) for found, names, copies in units]
            return joined([*sockets, *manager.beside_sockets(service.name, spec)])

        return gives

    def _units(
        self, name: str, spec: ServiceSpec
    ) -> list[tuple[list[NamedSocket], list[str], int]]:
        """Return the sockets that a service gets by the new definitions, unit by unit."""
        assert self._change is not None
        entries = iter(self._change.entries)
        found: list[tuple[list[NamedSocket], list[str], int]] = []
        for unit, spec_ in zip(self.definitions.units, self._change.specs, strict=True):
            own = [next(entries) for _ in spec_.listeners]
            if self._manager.gets(name, spec, unit):
                found.append((own, [one.name for one in spec_.listeners], unit.copies))
        return found

    def _heard(self, name: str, why: str) -> None:
        if why:
            self.give_up(f"{name}: {why}")
            return
        self.waiting.discard(name)
        self._look()

    def _look(self) -> None:
        if not self.waiting and not self._over and not self._ready:
            self._ready = True
            self._done("")

    def give_up(self, why: str) -> None:
        """Undo everything, and say why; without effect after the end."""
        if self._over:
            return
        self._over = True
        for service in self._tried:
            service.give_up_trial(why)
        if self._change is not None:
            self._change.undo()
        if self._opening is not None:
            self._opening.discard()
        self._done(why)

    def commit(self, tenure: Tenure | None = None) -> None:
        """Let the new take its place.

        Raises:
            RefusedError: Somebody is taking over; nothing has changed.
            OSError: No more descriptors can be had; nothing has changed.
        """
        manager = self._manager
        dropped = self._commit_sockets(tenure)
        self._over = True
        manager.definitions = self.definitions
        manager.add_services(self.definitions)
        for service in self._tried:
            service.follow()
        for name, spec in self.definitions.services.items():
            if manager.services[name] not in self._tried:
                manager.services[name].set_spec(spec)
        manager.drop_services(self.definitions)
        manager.close_after_drain(dropped)
        manager.rewatch()

    def _commit_sockets(self, tenure: Tenure | None) -> SocketSet:
        if self._change is None or self._opening is None:
            return SocketSet()
        specs = self._change.specs
        whole, dropped = self._change.commit(tenure, warn=self._warn)
        parts = self._opening.divide(specs, whole)
        self._manager.set_units(self.definitions, parts)
        self._manager.keep(whole)
        return dropped
