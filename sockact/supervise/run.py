"""A supervisor: it opens sockets, runs services for them, and hands all on when its time has come.

It stands in one of five places. It boots: what units run before their sockets are open, the
sockets, and at a rendezvous the former owner's. It tries: the services of a successor are started,
while the former owner serves. It serves. It drains, once it has a successor of its own. It ends.
"""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from sockact import service_directives as d
from sockact.activation import notify
from sockact.activation.launch import chosen_ports
from sockact.errors import NotifyError, RefusedError, RendezvousError, SockactError
from sockact.rendezvous.arrive import Parked
from sockact.rendezvous.change import pass_on
from sockact.rendezvous.command import control
from sockact.rendezvous.furnish import come
from sockact.rendezvous.react import Reactor
from sockact.rendezvous.takeover import Phase, Tenure
from sockact.sockets.socketset import SocketSet
from sockact.sockets.task import Warn
from sockact.supervise.carry import Stores
from sockact.supervise.definitions import Definitions
from sockact.supervise.family import become_subreaper, give_up_room, keep_room, reap
from sockact.supervise.house import House, log, logger
from sockact.supervise.inherit import Inheritance
from sockact.supervise.manage import Manager
from sockact.supervise.open import Opening
from sockact.supervise.relay import Signals
from sockact.supervise.replace import Replacement
from sockact.supervise.respond import Responder
from sockact.supervise.serve import seconds
from sockact.supervise.settings import Place, Settings
from sockact.supervise.supply import Supply
from sockact.supervise.tables import Unit

_FAULTS_MAX = 100
_ASK_SECONDS = 5.0
_LONGEST, _MARGIN = 3600.0, 10.0
_ENDS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
_BEGUN = (Unit.START_OPEN, Unit.DEAD, Unit.FAILED)
FORWARDED = ("SIGUSR1", "SIGUSR2", "SIGWINCH")

Load = Callable[[], Definitions]


class _EndedError(Exception):
    """This process is to end, while it waits for the owner that it wants to take over from."""


class Supervisor:
    """One supervisor.

    Attributes:
        place: Where it stands.
        manager: Its units.
        tenure: Its time at the rendezvous; None without one.
        failure: Why it has to end.
        since: When it began, in seconds since the epoch.
    """

    def __init__(
        self,
        definitions: Definitions,
        load: Load,
        settings: Settings,
        warn: Warn,
        inheritance: Inheritance | None = None,
    ) -> None:
        """Prepare it.

        Args:
            definitions: What is to run.
            load: Reads them anew, each time.
            settings: How it runs.
            warn: Called with a line for each option that could not be set.
            inheritance: Sockets that were passed to this process, to be used for units; what no
                unit wants is closed. Owned here from the start of `run` on.
        """
        self.settings = settings
        self.place = Place.BOOTING
        self.tenure: Tenure | None = None
        self.failure = ""
        self.since = time.time()
        self.replacement: Replacement | None = None
        self._load = load
        self.supply = Supply(settings, inheritance or Inheritance(SocketSet()), warn)
        self._rest = SocketSet()
        self._told_ready = False
        self._wants_end = self._waits_for_owner = False
        self._has_failed = False
        self._out_of_step = False
        self._is_hung_up = False
        self._has_changed = True
        self._faults = 0
        self.reactor = Reactor()
        self.signals: Signals | None = None
        try:
            self.house = House(
                self.reactor,
                settings.environ,
                settings.whole_environ,
                search=settings.search,
                death_signal=settings.death_signal,
                sessions=settings.sessions,
            )
            self.manager = Manager(self.house, definitions, self)
        except BaseException:
            self.reactor.close()
            raise
        self.manager.changed = self._look
        self._stores = Stores(self.manager.services)

    @property
    def is_replacing(self) -> bool:
        """Whether a replacement is under way."""
        return self.replacement is not None

    # --- from beginning to end --------------------------------------------------------------------

    def run(self) -> int:
        """Run until the end; return the exit status.

        Raises:
            BindError: A listener could not be opened.
            RendezvousError: The rendezvous came to nothing.
            SockactError: Something else kept it from beginning.
        """
        try:
            self._catch_signals()
            become_subreaper()
            keep_room()
            parked = self._boot()
            if self._has_failed:
                return 1
            self._begin(parked)
            while not self._is_finished():
                self._has_changed = False
                while not self._has_changed:
                    self._step()
            status = self._status()
        finally:
            self._close()
            give_up_room()
        if self.settings.stays and self.place is Place.DRAINING and not self._wants_end:
            logger.info("has handed everything over; waits for a signal to end")
            _wait_for_signal()
        return status

    def _step(self) -> None:
        """Wait for the next event; a fault of ours does not end what is served."""
        try:
            self.reactor.step(None)
        except Exception as error:
            self._faults += 1
            if os.environ.get("SOCKACT_DEBUG") or self._faults > _FAULTS_MAX:
                raise
            text = "internal error, %s: %s; SOCKACT_DEBUG=1 shows where"
            logger.error(text, type(error).__name__, error)

    def _catch_signals(self) -> None:
        signals = Signals(self.reactor)
        self.signals = signals
        signals.on(signal.SIGCHLD, lambda _: self.manager.child_ended())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signals.on(number, self.end)
        signals.on(signal.SIGHUP, lambda _: self.replace_by_signal())
        for name in FORWARDED:
            if found := getattr(signal, name, None):
                signals.on(found, self._forward)

    def _forward(self, number: int) -> None:
        for service in self.manager.services.values():
            service.forward(number)

    def _boot(self) -> list[Parked]:
        """Open everything, or take it; return what the services had stored with a former owner."""
        manager = self.manager
        manager.gathering = True
        manager.start_units()
        while not all(unit.life.state in _BEGUN for unit in manager.units.values()):
            self.reactor.step(None)
            if self._wants_end:
                return []
        for unit in manager.units.values():
            if unit.life.state is not Unit.START_OPEN:
                self._has_failed = True  # it has said why
                return []
        manager.gathering = False
        units = list(manager.units.values())
        opening = Opening(self.supply.open_first)
        parked: list[Parked] = []
        specs = [self.supply.resolved(unit.spec) for unit in units]
        if self.settings.path is None:
            sockets = opening.open(specs)
        else:
            self._waits_for_owner = True
            try:
                _, self.tenure, sockets = come(
                    self.settings.path,
                    specs,
                    self.supply.options(self._patience()),
                    self.supply.warn,
                    open=opening.open,
                    beside=lambda taken: manager.steering.confine(taken, more=True),
                    reactor=self.reactor,
                    stored=parked,
                )
            except _EndedError:
                opening.discard()
                return []
            except BaseException:
                opening.discard()
                raise
            finally:
                self._waits_for_owner = False
        parts = opening.divide(specs, sockets)
        self.supply.close()
        self._rest = sockets
        self.house.polls = self.tenure is None or not self.tenure.predecessor_drains
        for unit in units:
            unit.opened(parts[unit.name])
        return parked

    def _patience(self) -> float:
        """Return the seconds that the services may need until they are ready, and a bit more."""
        spans = [seconds(one.spec.get(d.TIMEOUT_START)) for one in self.manager.services.values()]
        longest = max((_LONGEST if one is None else one for one in spans), default=0.0)
        return min(longest, _LONGEST) + _MARGIN

    def _begin(self, parked: list[Parked]) -> None:
        self._stores.restore(parked)
        tenure = self.tenure
        if tenure is not None:
            tenure.commands = Responder(self).command
            tenure.on_stored = self._stores.restore
            self._stores.mirror(tenure)
            tenure.watch(self._phase_changed)
            tenure.on_alone.append(self.manager.settle_later)
            self.manager.given_up = lambda: tenure.dropped
            if not tenure.predecessor_drains:
                tenure.ready()
        if self.place is Place.BOOTING and tenure is not None and tenure.predecessor_drains:
            self._try()
        elif self.place is Place.BOOTING:
            self.manager.start_eager()
            self._serve()
        self._look()

    def _serve(self) -> None:
        self.place = Place.SERVING
        self.house.polls = True
        self.manager.resume()
        if self._out_of_step:
            self.changed()
        count = sum(len(unit.sockets) for unit in self.manager.units.values())
        generation = f"generation {self.tenure.estate.generation}, " if self.tenure else ""
        logger.info("%s%s", generation, f"{count} socket{'s' if count != 1 else ''} open")
        for unit in self.manager.units.values():
            for name, ports in chosen_ports(unit.sockets).items():
                log(logging.INFO, unit.name, f"the kernel chose: {name}={ports}")

    def _try(self) -> None:
        """Start everything beside the former owner, and vote when it is ready."""
        self.place = Place.TRYING
        manager = self.manager
        logger.info("takes over from the owner of %s", self.settings.path)
        before = self._running_before()
        names = [name for name in manager.services if self._is_wanted(name, before)]
        self.replacement = Replacement(manager, names, self._tried)
        assert self.tenure is not None
        self.replacement.give_up_others(self.tenure.dropped)
        self.replacement.begin()

    def _is_wanted(self, name: str, before: Collection[str] | None) -> bool:
        """Whether a service is to run from the takeover on, and not only on demand."""
        definitions = self.manager.definitions
        if name in definitions.eager:
            return True
        return bool(definitions.triggering(name)) and (before is None or name in before)

    def _running_before(self) -> set[str] | None:
        """Return which services the former owner runs; None if it does not tell."""
        assert self.settings.path is not None
        try:
            answer = control(
                self.settings.path, "status", timeout=_ASK_SECONDS, trusted=self.settings.trusted
            )
            report: Any = answer["report"]
            return {
                one["name"] for one in report["services"] if one["state"] not in ("dead", "failed")
            }
        except (RendezvousError, KeyError, TypeError):
            return None  # no supervisor, or another version of one

    def _tried(self, why: str) -> None:
        """Hear whether all services are ready, and vote.

        From then on they are ours, whatever comes: one that ends while the vote is counted is
        started again like any other.
        """
        tenure, replacement = self.tenure, self.replacement
        if tenure is None or replacement is None or self.place is not Place.TRYING:
            return
        if why:
            self.failure = why
            self.end()
            return
        replacement.commit()
        self.replacement = None
        tenure.ready()

    # --- the rendezvous ---------------------------------------------------------------------------

    def _phase_changed(self) -> None:
        tenure = self.tenure
        assert tenure is not None
        match tenure.phase:
            case Phase.LEADING if self.place is Place.TRYING:
                self._serve()
            case Phase.LEADING if self.place is Place.DRAINING:
                self._take_back()
            case Phase.LEADING if self.place is Place.SERVING:
                if self._out_of_step:
                    self.changed()
                self.house.polls = True
                self.manager.resume()
            case Phase.STOPPED:
                self.house.polls = False
                self.manager.pause()
                if self.replacement is not None:
                    self.replacement.give_up("a successor takes over")
            case Phase.DRAINING if self.place is not Place.ENDING:
                self._drain()
            case Phase.FAILED:
                why = f": {tenure.failure}" if tenure.failure else ""
                self.failure = f"the takeover came to nothing{why}"
                self.end()
        self._look()

    def _drain(self) -> None:
        assert self.tenure is not None
        self.place = Place.DRAINING
        logger.info("%s has taken over; draining", self.tenure.successor)
        with contextlib.suppress(NotifyError):
            notify.stopping()
        self._were_active = [
            name
            for name, service in self.manager.services.items()
            if service.is_active or service.is_waiting
        ]
        self.house.ending = True
        self.manager.stop_services(instances=False)
        self.reactor.add(self)

    def _take_back(self) -> None:
        logger.warning("the successor is gone; serves again")
        self.house.ending = False
        self.reactor.remove(self)
        self._serve()
        for name in self._were_active:
            self.manager.services[name].resume()

    def deadline(self) -> float | None:
        """Return when the drain must be over; for the reactor."""
        return self.tenure.drain_until if self.tenure else None

    def expire(self, now: float) -> None:
        """End what drains still."""
        del now
        if self.tenure is not None:
            self.tenure.drain_until = None
        logger.warning("the drain has taken too long; stopping what is left")
        self.manager.stop_services(instances=True)

    # --- manage.Ground ----------------------------------------------------------------------------

    def changed(self) -> None:
        """Have other sockets passed on from now on."""
        replacement = self.replacement
        if replacement and not replacement.is_looking and self.place is Place.SERVING:
            replacement.give_up("other sockets are open than when it began")
        if self.tenure is None or self.place is not Place.SERVING:
            self._out_of_step = True
            return
        entries = [entry for _, sockets in self.manager.sockets() for entry in sockets]
        try:
            pass_on(self.tenure, entries, [(entry.name, entry) for entry in entries])
            self._out_of_step = False
        except (SockactError, OSError) as error:
            self._out_of_step = True  # until nobody takes over any more
            logger.warning("what has changed is not passed on yet: %s", error)
            if isinstance(error, RefusedError):
                self.tenure.call_when_idle(lambda: self.reactor.post(self._catch_up))

    def _catch_up(self) -> None:
        if self._out_of_step:
            self.changed()

    # --- replacing --------------------------------------------------------------------------------

    def replace_by_signal(self) -> None:
        """Replace everything (SIGHUP); as soon as it can be done, for nobody hears a refusal."""
        self._is_hung_up = self.place is not Place.SERVING or self.is_replacing
        if self._is_hung_up:
            return
        with contextlib.suppress(NotifyError):
            notify.reloading()

        def done(why: str) -> None:
            if why:
                logger.error("not replaced: %s", why)
            with contextlib.suppress(NotifyError):
                notify.ready(why)

        self.replace((), done)

    def replace(self, names: Sequence[str], done: Callable[[str], None]) -> None:
        """Read the definitions anew, and replace services.

        Args:
            names: Which services; none for all.
            done: Called with nothing when the new ones serve, else with why they do not.
        """
        if self.place is not Place.SERVING:
            done(f"the supervisor is {self.place.value}")
            return
        if self.replacement is not None:
            done("a replacement is under way")
            return
        self.replacement = Replacement(
            self.manager, names or None, lambda why: self._replaced(why, done)
        )
        self.replacement.prepare(self._load, self.supply)

    def _replaced(self, why: str, done: Callable[[str], None]) -> None:
        replacement, self.replacement = self.replacement, None
        if not why and replacement is not None:
            try:
                replacement.commit(self.tenure)
            except (SockactError, OSError) as error:
                replacement.give_up(str(error))  # which tells us again
                return
            else:
                if self.tenure is not None:
                    self._stores.mirror(self.tenure)
                logger.info("replaced")
        done(why)
        self._look()

    # --- the end ----------------------------------------------------------------------------------

    def end(self, number: int = 0) -> None:
        """Stop everything; a second time, by force."""
        if number and self._wants_end and self.place in (Place.ENDING, Place.DRAINING):
            self.manager.kill()
            return
        if self.place is Place.DRAINING:
            self._wants_end = True
            self.manager.stop_services(instances=True)
            return
        self._wants_end = True
        if self.tenure is not None:
            self.tenure.stay_for_taker()
        self._look()
        if self._waits_for_owner:
            raise _EndedError

    def _look(self) -> None:
        """Look whether something is due that depends on everything together."""
        self._has_changed = True
        undecided = self.tenure is not None and self.tenure.undecided
        if self._wants_end and not undecided and self.place not in (Place.ENDING, Place.DRAINING):
            self._stop_all()
        if self._is_hung_up and self.place is Place.SERVING and not self.is_replacing:
            self._is_hung_up = False
            self.reactor.post(self.replace_by_signal)
        if not self._told_ready and self.place is Place.SERVING:
            services = self.manager.services
            eager = [services[name] for name in self.manager.definitions.eager]
            if all(one.has_come_up for one in eager):
                self._told_ready = True
                with contextlib.suppress(NotifyError):
                    notify.ready(f"{len(self.manager.units)} socket units")

    def _stop_all(self) -> None:
        self.place = Place.ENDING
        with contextlib.suppress(NotifyError):
            notify.stopping()
        if self.replacement is not None:
            self.replacement.give_up("the supervisor ends")
            self.replacement = None
        self.house.ending = True
        self.house.polls = False
        self.manager.stop_services(instances=True)
        self.manager.pause()

    def _is_finished(self) -> bool:
        if self.place in (Place.ENDING, Place.DRAINING) and self.manager.is_quiet:
            if self.place is Place.DRAINING and self.tenure is not None:
                self.tenure.resolve()  # a successor that is dead by now has nothing
                return self.place is Place.DRAINING
            return True
        if self.place is not Place.SERVING or self.replacement is not None:
            return False
        if self.settings.passes_status and self.manager.is_quiet and not self.manager.units:
            return True
        if self.manager.is_dead:
            units = self.manager.units.values()
            problems = [unit.problem for unit in units if unit.problem]
            problems += [s.last_failure for s in self.manager.services.values() if s.last_failure]
            problems += [f"{unit.name}: {unit.life.result}" for unit in units]
            self.failure = problems[0] if problems else ""
            return True
        return False

    def _status(self) -> int:
        if self.failure:
            logger.error("%s", self.failure)
            return 1
        if self.place is Place.SERVING and self.settings.passes_status:
            (service,) = self.manager.services.values()
            return service.exit.shell_status if service.exit else 1
        return 0

    def _close(self) -> None:
        self.house.polls = False
        self.house.ending = True
        self.supply.close()
        if self.tenure is not None:
            self.tenure.commands = None
            if not self.tenure.has_led:
                self.manager.steering.confine(self.tenure.dropped)  # the owner serves them still
            self.tenure.close(self.failure or "the supervisor ends")
        let_go = self._let_go()
        if let_go is SocketSet.close:
            self._stop_units()
        self.manager.close(let_go)
        let_go(self._rest)
        self.house.children.close()
        if self.signals is not None:
            # What comes now changes nothing any more, and above all not the exit status.
            signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
            self.signals.close()
        self.reactor.close()

    def _let_go(self) -> Callable[[SocketSet], None]:
        """Return what becomes of the sockets: they are somebody else's, or were, or ours."""
        tenure = self.tenure
        if tenure is not None and tenure.was_succeeded:
            return SocketSet.leave
        if self.settings.path is not None and (tenure is None or not tenure.has_led):
            return SocketSet.discard
        return SocketSet.close

    def _stop_units(self) -> None:
        """Run what is to be run when sockets are closed."""
        self._wants_end, self.place = True, Place.ENDING
        self.manager.stop_units()
        while self.manager.has_sockets:
            self.reactor.step(None)


def _wait_for_signal() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while signal.sigwait({*_ENDS, signal.SIGCHLD}) == signal.SIGCHLD:
        for _ in reap():
            pass
