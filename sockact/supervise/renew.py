"""A service: its generations, how one follows the other, and when it is started again.

A generation is one or several processes of the same definition, side by side. The present one
serves. A new one is tried beside it, on the same sockets, and follows it only when it is ready;
what it follows has *stepped down*: it was told to stop, and finishes what it has accepted.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sockact import service_directives as d
from sockact.rendezvous.react import Reactor
from sockact.spec import ServiceSpec
from sockact.supervise.given import Given
from sockact.supervise.house import House, log
from sockact.supervise.instance import SKIPPED, SUCCESS
from sockact.supervise.limit import RateLimit
from sockact.supervise.restarts import delay, shall_restart
from sockact.supervise.serve import Running, seconds
from sockact.supervise.start import Generation, Gives
from sockact.supervise.store import FdStore
from sockact.supervise.tables import IS_FINAL
from sockact.unitfile.readiness import Delay, Readiness

if TYPE_CHECKING:
    from sockact.supervise.exit import Exit

_ANEW = -1
"""In place of a slot: all of it is started again, as soon as nothing of it is left."""

_TOO_OFTEN = "started too often (StartLimitBurst=)"

REPLACE_DELAY = Delay(1.0)
"""What a new generation has to prove that says nothing of itself: that it lives so long.

READY=1 does not shorten that: gunicorn says it before its workers have loaded the application.
"""


class Trial:
    """A new generation that is being tried: as long as it is, it may fail though it was ready.

    Attributes:
        generation: Which.
        done: Called with nothing when it is ready, and with why when it has come to nothing.
    """

    def __init__(
        self, reactor: Reactor, generation: Generation, patience: float | None, now: float
    ) -> None:
        """Wait for it, so many seconds at most."""
        self.generation = generation
        self.done: Callable[[str], None] = lambda _why: None
        self._reactor = reactor
        self._told = False
        self._until = math.inf if patience is None else now + patience
        reactor.add(self)

    def deadline(self) -> float | None:
        """Return until when it has to be ready."""
        return None if self._until == math.inf else self._until

    def expire(self, now: float) -> None:
        """Give up."""
        del now
        self._fail(f"not ready in time: {self.generation.why_not()}")

    def look(self) -> None:
        """Look what has become of it; with several processes, one that fails is enough."""
        generation = self.generation
        if not generation.begun:
            return
        if generation.futile or not generation.is_whole:
            before = "" if generation.ready else " before it was ready"
            self._fail(generation.problem or f"it has ended{before}")
        elif generation.ready and not self._told:
            self._told, self._until = True, math.inf
            self.done("")

    def cancel(self) -> None:
        """Wait no more."""
        self._reactor.remove(self)
        self.done = lambda _why: None

    def _fail(self, why: str) -> None:
        done = self.done
        self.cancel()
        done(why)


class Service:
    """One service.

    Attributes:
        spec: The definition that the next start uses.
        current: The generation that serves.
        former: Generations that have stepped down and are not over yet.
        trial: The one that is tried.
        store: Its fd store.
        restarts: How often it was started again by itself since it was started otherwise.
        result: How it has ended last, in systemd's words.
        hit_limit: Whether it has come to its end just now for being started too often.
        last_failure: What went wrong last, for people.
    """

    def __init__(self, house: House, spec: ServiceSpec, gives: Gives) -> None:
        """Begin dead.

        Args:
            house: Its surroundings.
            spec: The definition.
            gives: Asked for the sockets of the process in a slot.
        """
        self.spec = spec
        self.name = spec.name
        self.current: Generation | None = None
        self.former: list[Generation] = []
        self.trial: Trial | None = None
        self.restarts = 0
        self.result = SUCCESS
        self.hit_limit = False
        self.last_failure = ""
        self.generations = 0
        self.gives = gives
        self.exit: Exit | None = None
        self.stopping = False
        self._house = house
        self._limit = self._new_limit()
        self._due: dict[int, float] = {}
        self._changed: list[Callable[[Service], None]] = []
        self.store = FdStore(spec.get(d.FD_STORE_MAX), house.reactor)
        house.reactor.add(self)

    def _new_limit(self) -> RateLimit:
        get = self.spec.get
        return RateLimit(get(d.START_LIMIT_INTERVAL), get(d.START_LIMIT_BURST))

    def watch(self, changed: Callable[["Service"], None]) -> None:
        """Call `changed` whenever something has changed."""
        self._changed.append(changed)

    def unwatch(self, changed: Callable[["Service"], None]) -> None:
        """Call `changed` no more."""
        self._changed = [one for one in self._changed if one != changed]

    def set_spec(self, spec: ServiceSpec) -> None:
        """Use another definition from the next start on."""
        self.spec = spec
        self._limit = self._new_limit()
        self.store.maximum = spec.get(d.FD_STORE_MAX)

    # --- what it is -------------------------------------------------------------------------------

    @property
    def is_active(self) -> bool:
        """Whether it serves, or is about to."""
        return self.current is not None and self.current.is_active

    @property
    def is_up(self) -> bool:
        """Whether all its processes have started."""
        return self.current is not None and self.current.is_up

    @property
    def is_starting(self) -> bool:
        """Whether any of its processes is about to start, or comes to its end before it has."""
        slots = self.current.slots if self.current else ()
        return any(not (one.is_up or one.is_over) for one in slots)

    @property
    def is_restarting(self) -> bool:
        """Whether it is stopped, to be started again."""
        return _ANEW in self._due

    @property
    def has_come_up(self) -> bool:
        """Whether it is ready; or is over already, by itself."""
        return self.current.ready if self.current else self.generations > 0

    @property
    def is_busy(self) -> bool:
        """Whether a socket unit takes it for running: it is active, or not yet far in its end."""
        if self.current is None:
            return False
        return any(one.life.state not in IS_FINAL for one in self.current.slots)

    @property
    def is_waiting(self) -> bool:
        """Whether it will be started again by itself."""
        return bool(self._due)

    @property
    def is_over(self) -> bool:
        """Whether no process of it is left, and none is to come by itself."""
        return self.current is None and not self.former and not self.trial and not self._due

    @property
    def state(self) -> str:
        """Where it stands, in systemd's words."""
        if self.current is None or self.current.is_over:
            if self._due:
                return "auto-restart"
            return "dead" if self.result in (SUCCESS, SKIPPED) else "failed"
        lives = [one for one in self.current.slots if not one.is_over] or self.current.slots
        return lives[0].life.state.value

    # --- what it is told --------------------------------------------------------------------------

    def start(self) -> str:
        """Start it, if it is not active; return why it cannot be started, if so."""
        if self.is_active:
            return ""
        if self._house.ending:
            return "resources"
        if not self._is_allowed(self._house.now()):
            if self.current is not None:
                self._settle(self.current)
            self._tell()
            return "service-start-limit-hit"
        self.result = SUCCESS
        waits = bool(self._due.keys() - {_ANEW})
        self._due.clear()
        self.stopping = False
        if waits and self.current is not None:
            self._start_again([one.slot for one in self.current.slots if one.is_over])
            return ""
        self.restarts = 0
        if self.current is not None and not self.current.is_over:
            self.former.append(self.current)  # on its way to its end: its place is taken
        self.current = self._new_generation(self._readiness(replacing=False))
        self.current.start()
        return ""

    def stop(self) -> None:
        """Stop it; it is not started again by itself."""
        self._due.clear()
        self.stopping = True
        if self.trial is not None:
            self.trial.generation.problem = "the service is stopped"
            self.trial.generation.stop()
        if self.current is not None:
            self.current.stop()
        for one in self.former:
            one.stop()
        for one in self.all():  # it may have been over, and only waited for its next start
            self._settle(one)
        self._tell()

    def rest(self) -> None:
        """Stop it because nobody needs it now; how often that happens is no sign of trouble."""
        self._limit.reset()
        self.stop()

    def resume(self) -> None:
        """Start it again though somebody else was to serve; how often is no sign of trouble."""
        self._limit.reset()
        self.start()

    def restart(self) -> None:
        """Stop it, and start it as soon as nothing of it is left."""
        if self.current is None:
            self.start()
            return
        self._due = {_ANEW: math.inf}
        self.stopping = False
        self.current.stop(restarting=True)
        if self.current is not None:  # it may have been over, and only waited for its next start
            self._settle(self.current)

    def reload(self) -> bool:
        """Have it read its configuration again; return whether it can."""
        able = [one for one in self.current.slots if one.life.can_reload()] if self.current else []
        for one in able:
            one.reload()
        return bool(able)

    def forward(self, number: int) -> None:
        """Pass a signal on to its main processes."""
        for one in self.current.slots if self.current else ():
            one.forward(number)

    def try_new(self, spec: ServiceSpec, gives: Gives, done: Callable[[str], None]) -> None:
        """Start a new generation beside the present one, and tell when it is ready.

        Args:
            spec: Its definition.
            gives: Asked for its sockets.
            done: Called with nothing when it is ready; `follow` is to be called then. With why
                when it fails, before or after that, and then it has been told to stop.
        """
        assert self.trial is None, "one at a time"
        generation = self._new_generation(self._readiness(replacing=True, spec=spec), spec, gives)
        patience = seconds(spec.get(d.TIMEOUT_START))
        if patience is not None and generation.readiness is REPLACE_DELAY:
            patience += REPLACE_DELAY.seconds
        trial = Trial(self._house.reactor, generation, patience, self._house.now())

        def finished(why: str) -> None:
            if why:
                self.trial = None
                self.former.append(generation)
                generation.stop()
                self.last_failure = why
                self._settle(generation)
            done(why)

        trial.done = finished
        self.trial = trial
        generation.start()
        trial.look()

    def follow(self) -> None:
        """Let the generation that was tried serve, and the present one step down."""
        assert self.trial is not None
        trial, self.trial = self.trial, None
        trial.cancel()
        before, self.current = self.current, trial.generation
        self._due.clear()
        self.stopping = False
        self.restarts = 0
        self.set_spec(trial.generation.spec)
        self.gives = trial.generation._gives  # noqa: SLF001
        if before is not None:
            self.former.append(before)
            before.stop()
            self._settle(before)
        for one in self.current.slots:
            if one.is_over:  # it had only one thing to do
                self._ended(one)
        self._settle(self.current)
        self._tell()

    def give_up_trial(self, why: str) -> None:
        """Stop the generation that is tried."""
        if self.trial is None:
            return
        trial, self.trial = self.trial, None
        trial.cancel()
        trial.generation.problem = why
        self.former.append(trial.generation)
        trial.generation.stop()
        self._settle(trial.generation)

    # --- what happens -----------------------------------------------------------------------------

    def _readiness(self, *, replacing: bool, spec: ServiceSpec | None = None) -> Readiness | None:
        spec = spec or self.spec
        if d.X_READY.name in spec.settings:
            return spec.get(d.X_READY)
        says_so = spec.get(d.TYPE) in ("notify", "notify-reload", "oneshot")
        return REPLACE_DELAY if replacing and not says_so else None

    def _new_generation(
        self,
        readiness: Readiness | None,
        spec: ServiceSpec | None = None,
        gives: Gives | None = None,
    ) -> Generation:
        self.generations += 1
        return Generation(
            self._house,
            spec or self.spec,
            self.generations,
            gives or self._gives,
            store=self.store,
            readiness=readiness,
            changed=self._heard,
        )

    def _gives(self, slot: int) -> Given:
        return self.gives(slot)

    def _heard(self, generation: Generation, one: Running) -> None:
        if one.is_well and generation is self.current:
            one.is_well = False
            self.restarts = 0
        if one.is_over and generation is self.current:
            self._ended(one)
        if self.trial is not None and generation is self.trial.generation:
            self.trial.look()
        self._settle(generation)
        self._tell()

    def _ended(self, one: Running) -> None:
        """One of the processes that serve has come to its end."""
        self.exit, self.result = one.exit, one.life.result
        if self.result != SUCCESS:
            self.last_failure = one.problem or self.result
        if self.stopping or self._house.ending or _ANEW in self._due:
            return
        how = one.exit
        status = (
            None if how is None else ("signal", how.signal) if how.signal else ("exit", how.status)
        )
        if one.life.restarts and shall_restart(self.spec, one.life.result, status):
            self._due[one.slot] = self._house.now() + delay(self.spec, self.restarts)

    def _settle(self, generation: Generation) -> None:
        """Forget what is over."""
        if generation in self.former and generation.is_over:
            self.former.remove(generation)
        if generation is self.current and generation.is_over:
            if set(self._due) <= {_ANEW}:
                self.current = None
                self._due = dict.fromkeys(self._due, 0.0)
            self._keep_store()

    def _keep_store(self) -> None:
        if self._house.ending:
            return  # it is closed in the end, or needed if the successor dies
        match self.spec.get(d.FD_STORE_PRESERVE):
            case "yes":
                return
            case "restart" if self._due:
                return
            case "on-success" if self._due or self.result == SUCCESS:
                return
        self.store.clear()

    def deadline(self) -> float | None:
        """Return when it is started again; for the reactor."""
        times = [when for when in self._due.values() if when != math.inf]
        return min(times) if times else None

    def expire(self, now: float) -> None:
        """Start what is due."""
        for slot in [slot for slot, when in self._due.items() if when <= now]:
            self._due.pop(slot, None)
            if slot == _ANEW:
                self.start()
            elif self._house.ending or not self._is_allowed(now):
                break
            else:
                self._start_again([slot])
        if self.current is not None:
            self._settle(self.current)
        self._tell()

    def _is_allowed(self, now: float) -> bool:
        """Whether one more start, which is counted, is within the limit."""
        if self._limit.allow(now):
            return True
        self._due.clear()
        self.result = "start-limit-hit"
        self.hit_limit = not self.is_busy
        if not self.last_failure.startswith(_TOO_OFTEN):
            before = f"; {self.last_failure}" if self.last_failure else ""
            self.last_failure = _TOO_OFTEN + before
        log(logging.ERROR, self.name, self.last_failure)
        return False

    def _start_again(self, slots: Sequence[int]) -> None:
        self.result = SUCCESS
        self.restarts += 1
        log(logging.INFO, self.name, f"started again, for the {ordinal(self.restarts)} time")
        for slot in slots:
            if self.current is not None:
                self.current.again(slot)

    def all(self) -> Sequence[Generation]:
        """Return all its generations."""
        trial = [self.trial.generation] if self.trial else []
        return [*([self.current] if self.current else []), *trial, *self.former]

    def _tell(self) -> None:
        for changed in list(self._changed):
            changed(self)
        self.hit_limit = False

    def close(self) -> None:
        """Close the fd store, and call nobody any more."""
        self._house.reactor.remove(self)
        self.store.close()


def ordinal(number: int) -> str:
    """Return ``1st``, ``2nd``, ``3rd``, ``4th`` …."""
    ends: Mapping[int, str] = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if 10 <= number % 100 <= 20 else ends.get(number % 10, 'th')}"
