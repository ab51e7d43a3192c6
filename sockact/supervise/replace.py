"""Replacing what runs, all of it or nothing: definitions, sockets, and the processes.

First everything new is opened and started beside what serves. Only when all of it is ready does it
take its place, and what served before steps down. If anything fails before, nothing has happened.
"""

import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial

import attrs

from sockact.errors import SockactError
from sockact.fd.own import OwnedFd
from sockact.rendezvous.change import Change, change
from sockact.rendezvous.takeover import Tenure
from sockact.sockets.socketset import NamedSocket, SocketSet
from sockact.spec import ServiceSpec, SocketSpec
from sockact.supervise.aside import Aside
from sockact.supervise.definitions import Definitions
from sockact.supervise.given import Given, joined
from sockact.supervise.house import log, logger
from sockact.supervise.listen import part
from sockact.supervise.manage import Manager
from sockact.supervise.open import Opening
from sockact.supervise.renew import Service
from sockact.supervise.start import Gives
from sockact.supervise.steer import Ebb, siblings
from sockact.supervise.supply import Found, Supply

Done = Callable[[str], None]


class Missing(str):
    """Why there was no replacement: one of the services that were named is not defined."""

    __slots__ = ()


class Replacement:
    """One replacement, from its beginning to its commit.

    Attributes:
        definitions: What is to run; once it has begun.
        waiting: Names of the services that are not ready yet.
    """

    def __init__(self, manager: Manager, names: Sequence[str] | None, done: Done) -> None:
        """Prepare it.

        Args:
            manager: What runs.
            names: The services whose processes are replaced; None for all.
            done: Called once all are ready, with nothing; or with why it came to nothing.
        """
        self.definitions = manager.definitions
        self.waiting: set[str] = set()
        self._manager = manager
        self._names = names
        self._done = done
        self._looking: Aside[tuple[Definitions, Found]] | None = None
        self._change: Change | None = None
        self._opening: Opening | None = None
        self._tried: list[Service] = []
        self._given_up: Sequence[OwnedFd] = ()
        self._all: list[OwnedFd] = []
        self._reclaimed = SocketSet()
        self._ebb: Ebb | None = None
        self._over = False
        self._ready = False

    def prepare(self, load: Callable[[], Definitions], supply: Supply) -> None:
        """Read the definitions anew and look up what they need, beside the loop; then begin.

        Args:
            load: Reads them.
            supply: Opens what they add.
        """
        self._warn = supply.warn
        sets = [sockets for _, sockets in self._manager.sockets()]
        present = [entry.listener for sockets in sets for entry in sockets]

        def look() -> tuple[Definitions, Found]:
            definitions = load()
            return definitions, supply.find((one.spec for one in definitions.units), present)

        self._looking = Aside(
            self._manager.house.reactor,
            look,
            partial(self._looked_up, supply),
            discard=lambda both: both[1].close(),
        )

    @property
    def is_looking(self) -> bool:
        """Whether nothing has been opened yet."""
        return self._looking is not None

    def _looked_up(self, supply: Supply, outcome: Callable[[], tuple[Definitions, Found]]) -> None:
        self._looking = None
        try:
            self.definitions, found = outcome()
            with contextlib.closing(found):
                for name in self._names or ():
                    if name not in self.definitions.services:
                        self.give_up(Missing(f"there is no service {name}"))
                        return
                self._open(supply, found)
        except (SockactError, OSError) as error:
            self.give_up(str(error))
        except BaseException as error:
            self.give_up(f"internal error, {type(error).__name__}: {error}")
            raise
        else:
            self.begin()

    def _open(self, supply: Supply, found: Found) -> None:
        """Open what the definitions add.

        Raises:
            BindError: Something could not be opened; nothing has changed.
        """
        manager = self._manager
        present = list(manager.sockets())
        manager.changing = True
        self._reclaimed = manager.reclaim()
        reclaimed = list(self._reclaimed)
        flat = SocketSet([*(entry for _, sockets in present for entry in sockets), *reclaimed])
        self._all = list(flat)
        self._opening = opening = Opening(found.open)

        def open_(missing: Sequence[SocketSpec]) -> SocketSet:
            names = {spec.name for spec in missing}
            beside = [one for spec, sockets in present if spec.name in names for one in sockets]
            manager.steering.confine(beside, more=True)
            return opening.open(missing)

        try:
            # By the addresses that names had when they were opened.
            old = [supply.resolved(_as_opened(spec, sockets)) for spec, sockets in present]
            self._change = change(flat, old, found.specs, supply.options(), supply.warn, open=open_)
        except BaseException:
            opening.discard()
            raise
        finally:
            flat.forget()
        self._given_up = [one for one in self._change.dropped if one not in reclaimed]

    def give_up_others(self, handles: Sequence[OwnedFd]) -> None:
        """Have what a former owner has beside the present sockets given up, too."""
        self._all = [entry for _, sockets in self._manager.sockets() for entry in sockets]
        self._all += handles
        self._given_up = handles

    def begin(self) -> None:
        """Start what is new."""
        known = self._manager.services
        names = dict.fromkeys(self.definitions.services if self._names is None else self._names)
        names |= dict.fromkeys(self._multiplied())
        services = [known[name] for name in names if name in known]
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

    def _multiplied(self) -> list[str]:
        """Return the services that have siblings for another number of processes than before."""
        before = {name: unit.copies for name, unit in self._manager.units.items()}
        return [
            one.service
            for one in self.definitions.units
            if before.get(one.spec.name, one.copies) != one.copies
        ]

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
            self._empty()

    def _empty(self) -> None:
        """Have what waits in siblings that are given up accepted by those who serve them still."""
        reclaimed = list(self._reclaimed)
        served = [one for one in self._all if one not in reclaimed]
        given_up = siblings(served, self._given_up)
        if not given_up:
            self._done("")
            return
        self._manager.steering.confine(self._all, [*self._given_up, *reclaimed])
        house = self._manager.house
        self._ebb = Ebb(house.reactor, given_up, house.now(), self._emptied)

    def _emptied(self, left: int) -> None:
        if left:
            text = "nobody accepts %d connections to processes that are given up: they are lost"
            logger.warning(text, left)
        self._done("")

    def give_up(self, why: str) -> None:
        """Undo everything, and say why; without effect after the end."""
        if self._over:
            return
        self._over = True
        if self._looking is not None:
            self._looking.cancel()
        if self._ebb is not None:
            self._ebb.cancel()
        for service in self._tried:
            service.give_up_trial(why)
        if self._change is not None:
            # Processes that are told to stop have them still.
            opened = self._change.opened
            self._reclaimed.extend(self._change.undo(siblings([*self._all, *opened], opened)))
        if self._opening is not None:
            self._opening.discard()
            self._restore()
        self._done(why)

    def _restore(self) -> None:
        """Have connections go where they went before."""
        self._manager.changing = False
        self._manager.close_after_drain(self._reclaimed)
        self._manager.settle()

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
        manager.changing = False
        manager.settle()
        manager.rewatch()

    def _commit_sockets(self, tenure: Tenure | None) -> SocketSet:
        if self._change is None or self._opening is None:
            return SocketSet()
        specs = self._change.specs
        whole, dropped = self._change.commit(tenure, warn=self._warn)
        self._reclaimed.forget()  # they are among either
        parts = self._opening.divide(specs, whole)
        self._manager.set_units(self.definitions, parts)
        self._manager.keep(whole)
        return dropped


def _as_opened(spec: SocketSpec, sockets: SocketSet) -> SocketSpec:
    """Return the definition of a unit with the listeners that its sockets were opened from."""
    listeners = tuple(entry.listener for entry in sockets if entry.listener is not None)
    return attrs.evolve(spec, listeners=listeners)
