"""A socket unit from its start to its end, as a machine without sockets. Pure.

At most one of its commands runs at a time: one that takes too long is ended before another begins.

Source: src/core/socket.c in systemd, which begins with ExecStopPre= beside an ExecStartPost= that
has taken too long; here ExecStopPre= is left out then, as both do where the unit is stopped
meanwhile. X-TriggerLimitRecoverSec= is ours: it lets a unit that was triggered too often rest,
with its sockets open, and then listen again.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs

from sockact.spec import AsValue
from sockact.supervise.instance import SUCCESS, Kill, Run
from sockact.supervise.limit import RateLimit
from sockact.supervise.tables import IS_OPEN, UNIT, UNIT_COMMANDS, Occurs, Unit

TIMEOUT = "timeout"
RESOURCES = "resources"
START_LIMIT_HIT = "service-start-limit-hit"
LIMIT_HIT = "trigger-limit-hit"

_NONE: Mapping[str, tuple[bool, ...]] = MappingProxyType({})


@attrs.frozen(eq=False, repr=False)
class Rules(AsValue):
    """What a socket unit's definition means for its life; times are in seconds, None is no limit.

    Attributes:
        accepts: Accept=.
        commands: For each Exec directive, whether a failure of each of its commands is ignored.
        trigger: TriggerLimitIntervalSec= and TriggerLimitBurst=, in microseconds and events.
        recovers: X-TriggerLimitRecoverSec=; None if a limit ends the unit.
        timeout: TimeoutSec=.
        flushes: FlushPending=.
        patience: DeferTriggerMaxSec=.
    """

    accepts: bool = False
    commands: Mapping[str, tuple[bool, ...]] = _NONE
    trigger: tuple[int, int] = (2_000_000, 20)
    recovers: float | None = None
    timeout: float | None = 90.0
    flushes: bool = False
    patience: float | None = None


@attrs.frozen(eq=False, repr=False)
class Open(AsValue):
    """Open the sockets."""


@attrs.frozen(eq=False, repr=False)
class Close(AsValue):
    """Close the sockets."""


@attrs.frozen(eq=False, repr=False)
class Flush(AsValue):
    """Throw away what waits in the sockets."""


@attrs.frozen(eq=False, repr=False)
class Entered(AsValue):
    """It has come into another state."""

    state: Unit


Act = Open | Close | Flush | Run | Kill | Entered

_U, _O = Unit, Occurs

_SIGNALS = {
    _U.STOP_PRE_SIGTERM: "KillSignal",
    _U.STOP_PRE_SIGKILL: "FinalKillSignal",
    _U.FINAL_SIGTERM: "KillSignal",
    _U.FINAL_SIGKILL: "FinalKillSignal",
}


class UnitLife:
    """The life of one socket unit.

    Attributes:
        state: Where it stands.
        result: Why it has failed, in systemd's words; ``success`` until then.
        control: Whether one of its commands runs.
        triggered: How often it has started its service.
    """

    def __init__(self, rules: Rules) -> None:
        """Begin dead."""
        self.rules = rules
        self.state = _U.DEAD
        self.result = SUCCESS
        self.control = False
        self.triggered = 0
        self._command = Run("", 0)
        self._until: float | None = None
        self._limit = RateLimit(*rules.trigger)
        self._acts: list[Act] = []

    @property
    def is_open(self) -> bool:
        """Whether its sockets are open."""
        return self.state in IS_OPEN

    @property
    def polls(self) -> bool:
        """Whether traffic is waited for."""
        return self.state is _U.LISTENING

    def set_rules(self, rules: Rules, now: float) -> None:
        """Follow other rules from now on.

        If its trigger limit has changed, triggers are counted anew, and a rest is over.
        """
        before, self.rules = self.rules, rules
        if (before.trigger, before.recovers) != (rules.trigger, rules.recovers):
            self._limit = RateLimit(*rules.trigger)
            if self.state is _U.LIMITED:
                self._until = now

    def start(self, now: float) -> Sequence[Act]:
        """Start it; without effect as long as one of its commands could not be ended."""
        return () if self.control else self._occurs(_O.START, now)

    def stop(self, now: float) -> Sequence[Act]:
        """Stop it; without effect on one that stops already."""
        return self._occurs(_O.STOP, now)

    def opened(self, now: float) -> Sequence[Act]:
        """Hear that the sockets are open."""
        return self._occurs(_O.DONE, now) if self.state is _U.START_OPEN else ()

    def broken(self, result: str, now: float) -> Sequence[Act]:
        """Hear of a failure: a socket that could not be opened, or cannot be used any more."""
        return self._fails(result, _O.BROKEN, now)

    def command_ended(self, result: str, now: float) -> Sequence[Act]:
        """Hear of the end of a command.

        Args:
            result: ``success``, or why it is none: ``exit-code``, ``signal``, ``core-dump``; or
                `RESOURCES`, it could not be run.
            now: The time.
        """
        command, self.control = self._command, False
        flags = self.rules.commands.get(command.directive, ())
        if result != RESOURCES and command.index < len(flags) and flags[command.index]:
            result = SUCCESS
        self._note(result)
        if self.state not in UNIT_COMMANDS:
            return self._occurs(_O.ENDED, now)
        if result != SUCCESS:
            return self._occurs(_O.UNDONE, now)
        if not self._has_commands(self.state, command.index + 1):
            return self._occurs(_O.DONE, now)
        self._run(command.index + 1, now)
        return self._flush()

    def allows(self, now: float) -> bool:
        """Whether one more trigger, which is counted, is within the limit."""
        return self._limit.allow(now)

    def limit_hit(self, now: float) -> Sequence[Act]:
        """Hear that it was triggered too often."""
        if self.rules.recovers is not None and self.polls:
            return self._occurs(_O.TIRED, now)
        return self._fails(LIMIT_HIT, _O.LIMIT, now)

    def has_triggered(self, now: float) -> Sequence[Act]:
        """Hear that its service was started for it."""
        self.triggered += 1
        return self._occurs(_O.TRIGGERED, now)

    def deferred(self, now: float) -> Sequence[Act]:
        """Hear that its service has to wait."""
        return self._occurs(_O.DEFERRED, now)

    def refused(self, result: str, now: float) -> Sequence[Act]:
        """Hear that its service cannot be started, or has been started too often."""
        if result == START_LIMIT_HIT and self.rules.recovers is not None:
            return self._occurs(_O.TIRED, now)
        return self._fails(result, _O.REFUSED, now)

    def active(self, now: float) -> Sequence[Act]:
        """Hear that its service runs."""
        return () if self.rules.accepts else self._occurs(_O.ACTIVE, now)

    def inactive(self, now: float) -> Sequence[Act]:
        """Hear that its service has stopped."""
        return self._occurs(_O.INACTIVE, now)

    def deadline(self) -> float | None:
        """Return when `expire` wants to be called; None for never."""
        return self._until

    def expire(self, now: float) -> Sequence[Act]:
        """Do what is due."""
        if self._until is None or self._until > now:
            return ()
        if self.state is _U.LIMITED:
            self._limit = RateLimit(*self.rules.trigger)
            return self._occurs(_O.LATE, now)
        return self._fails(TIMEOUT, _O.LATE, now)

    # --- how it moves -----------------------------------------------------------------------------

    def _note(self, result: str) -> None:
        if self.result == SUCCESS:
            self.result = result

    def _flush(self) -> Sequence[Act]:
        acts, self._acts = self._acts, []
        return acts

    def _fails(self, result: str, event: Occurs, now: float) -> Sequence[Act]:
        if event in UNIT[self.state]:
            self._note(result)
        return self._occurs(event, now)

    def _occurs(self, event: Occurs, now: float) -> Sequence[Act]:
        target = UNIT[self.state].get(event)
        if target is not None:
            self._enter(target, now)
        return self._flush()

    def _has_commands(self, state: Unit, done: int = 0) -> bool:
        return len(self.rules.commands.get(UNIT_COMMANDS[state], ())) > done

    def _run(self, index: int, now: float) -> None:
        """Run a command of this state; each has the whole time."""
        self._command = Run(UNIT_COMMANDS[self.state], index)
        self.control = True
        self._acts.append(self._command)
        self._arm(self.rules.timeout, now)

    def _enter(self, state: Unit, now: float) -> None:
        if state is _U.START_PRE:
            self.result, self._limit = SUCCESS, RateLimit(*self.rules.trigger)
        while state in UNIT_COMMANDS and not self._has_commands(state):
            state = UNIT[state][_O.DONE]
        if state is _U.DEAD and self.result != SUCCESS:
            state = _U.FAILED
        closes = self.is_open and state not in IS_OPEN
        self.state = state
        self._acts.append(Entered(state))
        self._arm(self._limit_of(state), now)
        if closes:
            self._acts.append(Close())
        if state is _U.START_OPEN:
            self._acts.append(Open())
        elif state is _U.LISTENING and self.rules.flushes and not self.rules.accepts:
            self._acts.append(Flush())
        elif state in _SIGNALS:
            self._acts.append(Kill(_SIGNALS[state]))
        elif state in UNIT_COMMANDS:
            self._run(0, now)

    def _limit_of(self, state: Unit) -> float | None:
        if state is _U.LIMITED:
            return self.rules.recovers
        if state is _U.DEFERRED:
            return self.rules.patience
        return self.rules.timeout if state in _SIGNALS else None

    def _arm(self, limit: float | None, now: float) -> None:
        self._until = None if limit is None else now + limit
