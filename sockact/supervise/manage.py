"""Socket units and services together: who starts whom, and how all are replaced at once."""

import contextlib
import errno
import logging
import os
import select
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from sockact import directives
from sockact import service_directives as d
from sockact.errors import SockactError
from sockact.fd.connections import connections
from sockact.fd.own import OwnedFd
from sockact.fd.reuseport import group
from sockact.rendezvous.react import READ
from sockact.sockets.accept import Accepted
from sockact.sockets.socketset import NamedSocket, SocketSet
from sockact.spec import InetAddress, ServiceSpec, SocketSpec
from sockact.supervise import connection
from sockact.supervise.aside import Aside
from sockact.supervise.definitions import Definitions, UnitDefinition
from sockact.supervise.given import Given, joined
from sockact.supervise.house import House, log
from sockact.supervise.listen import SocketUnit
from sockact.supervise.open import open_file
from sockact.supervise.renew import Service
from sockact.supervise.serve import Recipe, Running, seconds
from sockact.supervise.steer import Steering
from sockact.supervise.supply import Found, Supply
from sockact.supervise.tables import Unit
from sockact.supervise.watch import Watch

_OVER = (Unit.DEAD, Unit.FAILED)

_LOOKS = 8
"""How often listeners are looked at in a row: it saves a tenth of the time of many connections."""

SETTLE_SECONDS = 5.0
"""How long a former owner that is gone may take until all its sockets are closed."""

IDLE_CHECK_SECONDS = 1.0
"""How often a service that has connections is looked at again, to stop it when it is idle."""


class Ground(Protocol):
    """Where sockets come from, and whoever else has to know of them."""

    supply: Supply

    def changed(self) -> None:
        """Hear that units have other sockets than before."""


class Manager:
    """All units of one supervisor.

    Attributes:
        units: The socket units by name, in order.
        services: The services by name.
        instances: The instances of Accept=yes by name.
        definitions: What is run.
        steering: Which of several sockets with one address get new connections.
        given_up: Tells which sockets of a former owner are served no more.
        changing: Whether a replacement is under way that says where new connections go.
    """

    def __init__(self, house: House, definitions: Definitions, ground: Ground) -> None:
        """Begin with everything dead."""
        self.house = house
        self.definitions = definitions
        self.units: dict[str, SocketUnit] = {}
        self.services: dict[str, Service] = {}
        self.instances: dict[str, Running] = {}
        self.changed: Callable[[], None] = lambda: None
        self.steering = Steering()
        self.given_up: Callable[[], Sequence[OwnedFd]] = lambda: ()
        self.changing = False
        self._ground = ground
        self._watch = Watch()
        self.gathering = False
        self._opened: dict[str, SocketSet] = {}
        self._looking: dict[SocketUnit, Aside[Found]] = {}
        self._leaving: list[Service] = []
        self._leaving_units: list[SocketUnit] = []
        self._setting = self._told = False
        self._kept = SocketSet()
        self._draining: list[SocketSet] = []
        self._recipes: dict[str, Recipe] = {}
        self._idle_due: dict[str, float] = {}
        self._settle_due: float | None = None
        for one in definitions.units:
            self._add_unit(one)
        for spec in definitions.services.values():
            self._add_service(spec)
        house.reactor.watch(self._watch.fileno(), READ, self._dispatch)
        house.reactor.add(self._watch)
        house.reactor.add(self)

    def _add_unit(self, one: UnitDefinition) -> SocketUnit:
        unit = SocketUnit(self.house, self._watch, one.spec, one.service, self)
        unit.copies = one.copies
        self.units[one.spec.name] = unit
        return unit

    def _add_service(self, spec: ServiceSpec) -> Service:
        service = Service(self.house, spec, lambda slot: self.given(spec.name, slot))
        service.watch(self._service_changed)
        self.services[spec.name] = service
        self._set_idle(service)
        return service

    def _set_idle(self, service: Service) -> None:
        limit = seconds(service.spec.get(d.X_IDLE_STOP))
        for unit in self.units.values():
            if unit.service == service.name:
                unit.watches_activity = limit is not None

    def _dispatch(self) -> None:
        """Handle what comes, and what has come meanwhile; then it is the others' turn."""
        for _ in range(_LOOKS):
            found = self._watch.dispatch()
            for token, event in found:
                assert isinstance(token, tuple)
                unit, number = token
                unit.seen(number, event)
            if not found:
                break

    def busy_service(self, unit: SocketUnit) -> str:
        """Return the service of a unit if it runs, which keeps the unit from being started."""
        service = self.services.get(unit.service)
        return service.name if service is not None and service.is_busy else ""

    # --- what services get ------------------------------------------------------------------------

    def units_of(self, service: str) -> list[SocketUnit]:
        """Return the socket units whose sockets a service gets, in order."""
        spec = self.services[service].spec if service in self.services else None
        wanted = spec.get(d.SOCKETS) if spec else ()
        return [
            unit
            for name, unit in self.units.items()
            if (unit.service == service or name in wanted) and not unit.accepts
        ]

    def gets(self, service: str, spec: ServiceSpec, unit: UnitDefinition) -> bool:
        """Whether a service of this definition gets the sockets of a unit of that one."""
        return not unit.spec.get(directives.ACCEPT) and (
            unit.service == service or unit.spec.name in spec.get(d.SOCKETS)
        )

    def given(self, service: str, slot: int = 0) -> Given:
        """Return the descriptors for a process of a service, the one in a slot.

        Raises:
            OSError: A file of OpenFile= cannot be opened.
        """
        parts = [unit.given(slot) for unit in self.units_of(service)]
        return joined([*parts, *self.beside_sockets(service)])

    def beside_sockets(self, service: str, spec: ServiceSpec | None = None) -> list[Given]:
        """Return what a process of a service gets behind its sockets."""
        found = self.services.get(service)
        if found is None:
            return []
        stored = found.store.entries()
        store = Given(tuple(one.name for one in stored), tuple(one.fileno() for one in stored))
        files: tuple[d.OpenFileSpec, ...] = (spec or found.spec).get(d.OPEN_FILE)
        return [store, *_open_files(files)]

    # --- listen.Trigger ---------------------------------------------------------------------------

    def trigger(self, unit: SocketUnit) -> None:
        """Start the service of a unit."""
        now = self.house.now()
        service = self.services[unit.service]
        if not service.is_busy and (others := self._conflicting(service)):
            defers = unit.spec.get(directives.DEFER_TRIGGER)
            ending = [one for one in others if not one.is_active]
            if defers == "patient" or (defers == "yes" and len(ending) == len(others)):
                unit.do(unit.life.deferred(now))
                return
            if defers != "no":
                names = ", ".join(one.name for one in others)
                unit.problem = f"{service.name} conflicts with {names}"
                unit.do(unit.life.refused("resources", now))
                return
            for one in others:
                log(logging.INFO, one.name, f"stopped: it conflicts with {service.name}")
                one.stop()
        if not service.is_active and service.deadline() is not None:
            unit.do(unit.life.has_triggered(now))  # traffic does not shorten RestartSec=
            return
        if not service.is_active:
            log(logging.INFO, service.name, f"started by traffic on {unit.name}")
        why = service.start()
        if why:
            unit.do(unit.life.refused(why, now))
            return
        unit.do(unit.life.has_triggered(now))
        self._follow_service(unit)  # its program may not even have begun

    def _conflicting(self, service: Service) -> list[Service]:
        return [
            one
            for one in self.services.values()
            if one is not service
            and one.is_busy
            and (
                one.name in service.spec.get(d.CONFLICTS)
                or service.name in one.spec.get(d.CONFLICTS)
            )
        ]

    def accept(self, unit: SocketUnit, accepted: Accepted) -> None:
        """Start an instance for a connection."""
        caller = accepted.caller
        key = connection.source(caller)
        prefix, _, suffix = unit.service.partition("@")
        name = f"{prefix}@{connection.instance_name(caller, unit.accepted)}{suffix}"
        handle = accepted.handle
        fd_name = directives.FILE_DESCRIPTOR_NAME.name
        names = (unit.sockets.names[0],) if fd_name in unit.spec.settings else ("connection",)

        def changed(one: Running) -> None:
            if one.is_over and self.instances.pop(name, None) is not None:
                handle.close()
                unit.connections.leave(key)
                if not self.instances:
                    self.changed()

        try:
            spec = self.definitions.templates[unit.service](name)
        except SockactError as error:
            accepted.close()
            unit.connections.leave(key)
            unit.fail(str(error))
            return
        unit.accepted += 1
        recipe = self._recipes.get(unit.service)
        if recipe is None or recipe.spec is not spec:
            recipe = self._recipes[unit.service] = Recipe(self.house, spec)
        # It is closed here once the only command has it; else when the instance is over.
        owned = (handle,) if recipe.is_single else ()

        def given() -> Given:
            return Given(names, (handle.fileno(),), 1, owned)

        one = Running(
            self.house,
            recipe,
            name=name,
            generation=1,
            given=given,
            variables=connection.environment(caller),
            brief=True,
            changed=changed,
        )
        self.instances[name] = one
        one.start()

    def open(self, unit: SocketUnit) -> None:
        """Give a unit its sockets."""
        if self.gathering:
            return
        if (sockets := self._opened.pop(unit.name, None)) is not None:
            unit.opened(sockets)
            self._sockets_changed()
            return
        supply = self._ground.supply
        find = partial(supply.find, [unit.spec], ())
        found = partial(self._found, unit)
        if supply.may_wait(unit.spec):
            self._looking[unit] = Aside(self.house.reactor, find, found, discard=Found.close)
        else:
            found(find)

    def _found(self, unit: SocketUnit, outcome: Callable[[], Found]) -> None:
        """Open a unit with what was looked up for it."""
        self._looking.pop(unit, None)
        try:
            with contextlib.closing(outcome()) as found:
                sockets = found.open(found.specs[0])
        except SockactError as error:
            unit.fail(str(error))
            return
        unit.opened(sockets)
        self._sockets_changed()

    def _look_no_more(self, unit: SocketUnit) -> None:
        if (looking := self._looking.pop(unit, None)) is not None:
            looking.cancel()

    def closed(self, unit: SocketUnit) -> None:
        """Hear that a unit's sockets were closed."""
        if unit not in self._leaving_units:
            self._sockets_changed()

    def unit_changed(self, unit: SocketUnit) -> None:
        """Hear that a unit is in another state."""
        if unit.life.state is not Unit.START_OPEN:
            self._look_no_more(unit)
        if unit.life.state in _OVER:
            self._unit_is_over(unit)
        service = self.services.get(unit.service)
        if unit.life.state is Unit.LISTENING and service is not None and service.is_busy:
            unit.service_changed(active=True, hit_limit=False)
        self.changed()

    def _unit_is_over(self, unit: SocketUnit) -> None:
        if unit in self._leaving_units:
            self._leaving_units.remove(unit)
            unit.close()
        elif (sockets := self._opened.pop(unit.name, None)) is not None:
            sockets.close()  # it could not even begin
            self._sockets_changed()

    def _sockets_changed(self) -> None:
        """Tell that others are open than before; once, when all are what they are to be."""
        self._told = self._told or self._setting
        if not self._setting:
            self._ground.changed()

    def hung_up(self, unit: SocketUnit, number: int) -> None:
        """Bring a listener back that was shut down, unless somebody else serves there."""
        if not self.house.polls:
            return
        index = unit.sockets.filenos().index(number)
        entry = list(unit.sockets)[index]
        what = str(entry.listener) if entry.listener else entry.name
        if unit.accepts:
            unit.fail(f"{what} was shut down")
            return
        from sockact.supervise.revive import revive  # noqa: PLC0415 - hardly ever needed

        try:
            same = revive(unit, index)
        except (SockactError, OSError) as error:
            unit.fail(f"{what} was shut down by a program that serves it; {error}")
            return
        how = "listens again" if same else "was opened anew"
        log(
            logging.WARNING,
            unit.name,
            f"{what} was shut down by a program that serves it (shutdown(2)); it {how}",
        )
        if same:
            return
        self._ground.changed()
        for service in self.services.values():
            if unit in self.units_of(service.name) and service.is_active:
                # The present processes have the dead one, and so have those of a trial.
                service.give_up_trial("another listener was shut down")
                service.try_new(service.spec, service.gives, _follow(service, what))

    # --- services ---------------------------------------------------------------------------------

    def _service_changed(self, service: Service) -> None:
        for unit in self.units.values():
            if unit.service == service.name:
                self._follow_service(unit)
        if not service.is_busy:
            self._look_deferred()
        self._look_idle(service)
        self._look_leaving()
        self.changed()

    def _look_deferred(self) -> None:
        """Start what has waited for the end of something else."""
        if not self.house.polls:
            return
        for unit in [one for one in self.units.values() if one.life.state is Unit.DEFERRED]:
            if not self._conflicting(self.services[unit.service]):
                self.trigger(unit)

    def _follow_service(self, unit: SocketUnit) -> None:
        """Have a unit know how its service stands."""
        service = self.services.get(unit.service)
        if service is not None:
            unit.service_changed(active=service.is_busy, hit_limit=service.hit_limit)

    def child_ended(self) -> None:
        """Hear that children of this process have ended."""
        self.house.children.reap()
        for one in list(self.house.ending_ones):
            one.child_ended()

    # --- idle services ----------------------------------------------------------------------------

    def _look_idle(self, service: Service) -> None:
        limit = seconds(service.spec.get(d.X_IDLE_STOP))
        ready = service.current is not None and service.current.ready
        if limit is None or not service.is_active or not ready or service.trial:
            self._idle_due.pop(service.name, None)
        elif service.name not in self._idle_due:
            self._idle_due[service.name] = self.house.now() + limit

    def deadline(self) -> float | None:
        """Return when something is to be looked at; for the reactor."""
        when = min(self._idle_due.values()) if self._idle_due else None
        if self._settle_due is None:
            return when
        return self._settle_due if when is None else min(when, self._settle_due)

    def expire(self, now: float) -> None:
        """Stop the services that have had no connection for long enough, and the like."""
        if self._settle_due is not None and self._settle_due <= now:
            self._settle_due = None
            self.settle()
        for name in [name for name, when in self._idle_due.items() if when <= now]:
            service = self.services[name]
            limit = seconds(service.spec.get(d.X_IDLE_STOP))
            units = [unit for unit in self.units.values() if unit.service == name]
            if limit is None or not units:
                del self._idle_due[name]
                continue
            last = max(unit.active_since for unit in units)
            if any(_is_used(unit) for unit in units):
                self._idle_due[name] = now + min(limit, IDLE_CHECK_SECONDS)
                for unit in units:
                    unit.active_since = now
            elif last + limit > now:
                self._idle_due[name] = last + limit
            else:
                del self._idle_due[name]
                log(logging.INFO, name, f"stopped: no connection for {limit:g} s")
                service.rest()

    # --- other definitions ------------------------------------------------------------------------

    def set_units(self, definitions: Definitions, parts: dict[str, SocketSet]) -> None:
        """Run other socket units from now on.

        Args:
            definitions: What they are.
            parts: The sockets of each, which are owned here from now on.
        """
        retired: list[tuple[SocketUnit, SocketSet]] = []
        before, self.units, self._setting = self.units, {}, True
        for one in definitions.units:
            name = one.spec.name
            unit = before.pop(name, None)
            if (
                unit is not None
                and unit.life.is_open
                and unit.accepts == one.spec.get(directives.ACCEPT)
            ):
                unit.service, unit.copies = one.service, one.copies
                unit.set_spec(one.spec)
                old = unit.change_sockets(parts[name])
                old.forget()
                unit.sockets.extend(old)
                self.units[name] = unit
                continue
            if unit is not None:
                retired.append((unit, parts[name]))
            self._opened[name] = parts[name]
            self._add_unit(one)
        # Another unit may have some of their sockets now.
        retired += [(unit, self._kept) for unit in before.values()]
        for unit, heir in retired:
            self._retire(unit, heir)
        for name in list(self._opened):
            self.units[name].start()
        self._setting = False
        if self._told:
            self._told = False
            self._ground.changed()

    def _retire(self, unit: SocketUnit, heir: SocketSet) -> None:
        """Stop a unit whose sockets are somebody else's now, with what undoes their opening."""
        sockets = unit.change_sockets(SocketSet())
        sockets.forget()
        if all(isinstance(one.address, InetAddress) for one in unit.spec.listeners):
            sockets.leave()  # there is nothing to undo
        heir.extend(sockets)
        self._leaving_units.append(unit)
        unit.stop()
        if unit.life.state in _OVER and unit in self._leaving_units:
            self._unit_is_over(unit)

    def add_services(self, definitions: Definitions) -> None:
        """Add the services that are new."""
        for name, spec in definitions.services.items():
            if name not in self.services:
                self._add_service(spec)
                if name in definitions.eager:
                    self.services[name].start()

    def drop_services(self, definitions: Definitions) -> None:
        """Stop the services that are none any more."""
        for name in [name for name in self.services if name not in definitions.services]:
            service = self.services.pop(name)
            self._leaving.append(service)
            service.stop()
        self._look_leaving()

    def _look_leaving(self) -> None:
        for service in [one for one in self._leaving if one.is_over]:
            self._leaving.remove(service)
            service.store.clear()
            service.close()
        if self._draining and not any(one.former for one in self.all_services()):
            draining, self._draining = self._draining, []
            for sockets in draining:
                sockets.close()
            self.settle()

    def all_services(self) -> list[Service]:
        """Return all services, those included that are on their way to their end."""
        return [*self.services.values(), *self._leaving]

    def close_after_drain(self, sockets: SocketSet) -> None:
        """Take ownership of sockets that nobody wants, and close them when the drain is over."""
        self._draining.append(sockets)
        self._look_leaving()

    def reclaim(self) -> SocketSet:
        """Give away the siblings that wait for the end of the drain: they may be wanted again.

        To open others would change the order of their group when these are closed. What is not
        wanted comes back by `close_after_drain`.
        """
        found = SocketSet()
        for sockets in self._draining:
            entries = list(sockets)
            sockets.forget()
            for entry in entries:
                (sockets if group(entry.fileno()) is None else found).append(entry)
        return found

    def settle(self) -> None:
        """Have new connections go to all sockets that are served, and to no others."""
        # Else somebody else does that, or it is to be done later.
        if self.house.polls and self._settle_due is None and not self.changing:
            idle = [*self.given_up(), *(one for sockets in self._draining for one in sockets)]
            self.steering.confine([*self._entries(), *idle], idle)

    def settle_later(self) -> None:
        """Do so when a former owner that is gone has surely closed what it had."""
        self._settle_due = self.house.now() + SETTLE_SECONDS

    def _entries(self) -> list[NamedSocket]:
        return [entry for _, sockets in self.sockets() for entry in sockets]

    def keep(self, rest: SocketSet) -> None:
        """Take ownership of what undoes the opening of sockets, whoever has the sockets."""
        self._kept.extend(rest)

    def rewatch(self) -> None:
        """Watch every unit for what matters now."""
        for service in self.services.values():
            self._set_idle(service)
        for unit in self.units.values():
            self._follow_service(unit)  # it may be another than before
            unit.rewatch()

    # --- all of them ------------------------------------------------------------------------------

    def start_units(self) -> None:
        """Start every socket unit."""
        for unit in list(self.units.values()):
            unit.start()

    def start_eager(self) -> None:
        """Start the services that are started at once."""
        for name in self.definitions.eager:
            self.services[name].start()

    def pause(self) -> None:
        """Start nothing more for traffic: a successor does."""
        for unit in self.units.values():
            unit.pause()

    def resume(self) -> None:
        """Listen again."""
        self.settle()
        for unit in self.units.values():
            unit.rewatch()
        self._look_deferred()

    def stop_services(self, *, instances: bool) -> None:
        """Stop every service; and the instances of Accept=yes, or let them finish."""
        for service in self.services.values():
            service.stop()
        if instances:
            for one in list(self.instances.values()):
                one.stop()

    def stop_units(self) -> None:
        """Stop every socket unit."""
        for unit in list(self.units.values()):
            unit.stop()

    def kill(self) -> None:
        """End by force whatever is left."""
        for service in self.all_services():
            for generation in service.all():
                for one in generation.slots:
                    one.kill()
        for one in list(self.instances.values()):
            one.kill()
        for unit in self._all_units():
            unit.kill()

    def _all_units(self) -> list[SocketUnit]:
        return [*self.units.values(), *self._leaving_units]

    @property
    def is_quiet(self) -> bool:
        """Whether no process is left."""
        return all(one.is_over for one in self.all_services()) and not self.instances

    @property
    def is_dead(self) -> bool:
        """Whether nothing runs, nothing can start anything any more, and nobody wanted that."""
        states = {unit.life.state for unit in self.units.values()}
        if states:
            return self.is_quiet and Unit.FAILED in states and states <= {Unit.DEAD, Unit.FAILED}
        return self.is_quiet and not all(one.stopping for one in self.services.values())

    def sockets(self) -> Iterator[tuple[SocketSpec, SocketSet]]:
        """Give the sockets that are open, unit by unit."""
        for unit in self.units.values():
            if unit.life.is_open or unit.life.state is Unit.START_OPEN:
                yield unit.spec, unit.sockets

    @property
    def has_sockets(self) -> bool:
        """Whether a socket unit has not come to its end."""
        return any(unit.life.state not in _OVER for unit in self._all_units())

    def close(self, let_go: Callable[[SocketSet], None] = SocketSet.close) -> None:
        """Close everything, sockets by one of the methods that do; services are left alone."""
        self.house.reactor.unwatch(self._watch.fileno())
        self.house.reactor.remove(self._watch)
        self.house.reactor.remove(self)
        for unit in self._all_units():
            self._look_no_more(unit)
            unit.close(let_go)
        for sockets in [self._kept, *self._draining, *self._opened.values()]:
            let_go(sockets)
        for service in self.all_services():
            service.close()
        self._watch.close()


def _follow(service: Service, what: str) -> Callable[[str], None]:
    def done(why: str) -> None:
        if why:
            text = f"nobody serves {what}: {why}; restart the service"
            log(logging.ERROR, service.name, text)
            service.last_failure = text
        else:
            service.follow()

    return done


def _is_used(unit: SocketUnit) -> bool:
    """Whether anybody is served there, or waits for it: the service may be slow to begin."""
    waiting = select.poll()
    for number in unit.sockets.filenos():
        waiting.register(number, select.POLLIN)
    if any(found & select.POLLIN for _, found in waiting.poll(0)):
        return True
    return any(connections(number, enough=1) for number in unit.sockets.filenos())


def _open_files(specs: Sequence[d.OpenFileSpec]) -> Iterator[Given]:
    opened: list[OwnedFd] = []
    try:
        for spec in specs:
            try:
                opened.append(OwnedFd(open_file(spec)))
            except OSError as error:
                if spec.graceful and error.errno == errno.ENOENT:
                    continue
                reason = os.strerror(error.errno or 0)
                raise OSError(error.errno, f"OpenFile={spec.path}: {reason}") from None
            yield Given((spec.name,), (opened[-1].fileno(),), 0, (opened[-1],))
    except BaseException:
        for handle in opened:
            handle.close()
        raise
