"""A socket unit from its start to its end, as a machine without sockets. Pure.

Source: src/core/socket.c in systemd; what is ours is X-TriggerLimitRecoverSec=, which lets a unit
that was triggered too often rest, with its sockets open, and then listen again.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs

from sockact.spec import AsValue
from sockact.supervise.limit import RateLimit
from sockact.supervise.tables import IS_OPEN, UNIT, UNIT_COMMANDS, Occurs, Unit

SUCCESS = "success"
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
class Run(AsValue):
    """Run a command, in a directive's list the one at `index`."""

    directive: str
    index: int


@attrs.frozen(eq=False, repr=False)
class Entered(AsValue):
    """It has come into another state."""

    state: Unit


Act = Open | Close | Flush | Run | Entered


class UnitLife:
    """The life of one socket unit.

    Attributes:
        state: Where it stands.
        result: Why it has failed, in systemd's words; ``success`` until then.
        triggered: How often it has started its service.
    """

    def __init__(self, rules: Rules) -> None:
        """Begin dead."""
        self.rules = rules
        self.state = Unit.DEAD
        self.result = SUCCESS
        self.triggered = 0
        self._index = 0
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
        return self.state is Unit.LISTENING

    def start(self, now: float) -> Sequence[Act]:
        """Start it."""
        return self._occurs(Occurs.START, now)

    def stop(self, now: float) -> Sequence[Act]:
        """Stop it."""
        return self._occurs(Occurs.STOP, now)

    def opened(self, now: float) -> Sequence[Act]:
        """Hear that the sockets are open."""
        return self._occurs(Occurs.DONE, now) if self.state is Unit.START_OPEN else ()

    def broken(self, result: str, now: float) -> Sequence[Act]:
        """Hear of a failure: a socket that could not be opened, or cannot be used."""
        self._note(result)
        return self._occurs(Occurs.BROKEN, now)

    def command_ended(self, result: str, now: float) -> Sequence[Act]:
        """Hear of the end of a command."""
        directive = UNIT_COMMANDS.get(self.state, "")
        flags = self.rules.commands.get(directive, ())
        if result == SUCCESS or (self._index < len(flags) and flags[self._index]):
            self._index += 1
            if not self._run():
                self._enter(UNIT[self.state][Occurs.DONE], now)
            return self._flush()
        return self.broken(result, now)

    def allows(self, now: float) -> bool:
        """Whether one more trigger, which is counted, is within the limit."""
        return self._limit.allow(now)

    def limit_hit(self, now: float) -> Sequence[Act]:
        """Hear that it was triggered too often."""
        if self.rules.recovers is not None and self.state is Unit.LISTENING:
            self._enter(Unit.LIMITED, now)
            return self._flush()
        self._note(LIMIT_HIT)
        return self._occurs(Occurs.LIMIT, now)

    def has_triggered(self, now: float) -> Sequence[Act]:
        """Hear that its service was started for it."""
        self.triggered += 1
        return self._occurs(Occurs.TRIGGERED, now)

    def deferred(self, now: float) -> Sequence[Act]:
        """Hear that its service has to wait."""
        return self._occurs(Occurs.DEFERRED, now)

    def refused(self, result: str, now: float) -> Sequence[Act]:
        """Hear that its service cannot be started, or has been started too often."""
        if Occurs.REFUSED in UNIT[self.state]:
            self._note(result)
        return self._occurs(Occurs.REFUSED, now)

    def active(self, now: float) -> Sequence[Act]:
        """Hear that its service runs."""
        return () if self.rules.accepts else self._occurs(Occurs.ACTIVE, now)

    def inactive(self, now: float) -> Sequence[Act]:
        """Hear that its service has stopped."""
        return self._occurs(Occurs.INACTIVE, now)

    def deadline(self) -> float | None:
        """Return when `expire` wants to be called; None for never."""
        return self._until

    def expire(self, now: float) -> Sequence[Act]:
        """Do what is due."""
        if self._until is None or self._until > now:
            return ()
        self._until = None
        if self.state is Unit.LIMITED:
            self._limit = RateLimit(*self.rules.trigger)
            return self._occurs(Occurs.RECOVERED, now)
        return self.broken("timeout", now)

    # --- how it moves -----------------------------------------------------------------------------

    def _note(self, result: str) -> None:
        if self.result == SUCCESS:
            self.result = result

    def _flush(self) -> Sequence[Act]:
        acts, self._acts = self._acts, []
        return acts

    def _occurs(self, event: Occurs, now: float) -> Sequence[Act]:
        target = UNIT[self.state].get(event)
        if target is not None:
            self._enter(target, now)
        return self._flush()

    def _run(self) -> bool:
        directive = UNIT_COMMANDS[self.state]
        if self._index >= len(self.rules.commands.get(directive, ())):
            return False
        self._acts.append(Run(directive, self._index))
        return True

    def _enter(self, state: Unit, now: float) -> None:
        if state is Unit.DEAD and self.result != SUCCESS:
            state = Unit.FAILED
        if state is Unit.START_PRE:
            self.result, self._limit = SUCCESS, RateLimit(*self.rules.trigger)
        self.state, self._index = state, 0
        self._time(now)
        self._acts.append(Entered(state))
        if state is Unit.START_OPEN:
            self._acts.append(Open())
        elif state is Unit.STOP_POST:
            self._acts.append(Close())
        elif state is Unit.LISTENING and self.rules.flushes and not self.rules.accepts:
            self._acts.append(Flush())
        if state in UNIT_COMMANDS and not self._run():
            self._enter(UNIT[state][Occurs.DONE], now)

    def _time(self, now: float) -> None:
        if self.state is Unit.LIMITED:
            limit = self.rules.recovers
        elif self.state is Unit.DEFERRED:
            limit = self.rules.patience
        elif self.state in UNIT_COMMANDS:
            limit = self.rules.timeout
        else:
            limit = None
        self._until = None if limit is None else now + limit
