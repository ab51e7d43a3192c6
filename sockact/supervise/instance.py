"""One run of a service, from its start to its end, as a machine without processes. Pure.

It is told what happens, and says what is to be done: which command to run, whom to signal. It
never waits and reads no clock; `deadline` says when `expire` wants to be called.

Source: src/core/service.c in systemd.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs

from sockact.spec import AsValue
from sockact.supervise.tables import (
    COMMANDS,
    INSTANCE,
    IS_OVER,
    IS_STARTING,
    Happens,
    Instance,
)

SUCCESS = "success"
TIMEOUT = "timeout"
PROTOCOL = "protocol"
WATCHDOG = "watchdog"
SKIPPED = "exec-condition"

_NONE: Mapping[str, tuple[bool, ...]] = MappingProxyType({})


@attrs.frozen(eq=False, repr=False)
class Plan(AsValue):
    """What a service's definition means for its life; times are in seconds, None is no limit.

    Attributes:
        type: The value of Type=.
        commands: For each Exec directive, whether a failure of each of its commands is ignored.
        start: TimeoutStartSec=.
        stop: TimeoutStopSec=.
        abort: TimeoutAbortSec=.
        runtime: RuntimeMaxSec=.
        watchdog: WatchdogSec=.
        kills: SendSIGKILL=.
        remains: RemainAfterExit=.
    """

    type: str = "simple"
    commands: Mapping[str, tuple[bool, ...]] = _NONE
    start: float | None = 90.0
    stop: float | None = 90.0
    abort: float | None = 90.0
    runtime: float | None = None
    watchdog: float | None = None
    kills: bool = True
    remains: bool = False


@attrs.frozen(eq=False, repr=False)
class Run(AsValue):
    """Run a command, in a directive's list the one at `index`."""

    directive: str
    index: int


@attrs.frozen(eq=False, repr=False)
class Kill(AsValue):
    """Signal its processes: with what is named by the directive `signal`."""

    signal: str


@attrs.frozen(eq=False, repr=False)
class Entered(AsValue):
    """It has come into another state."""

    state: Instance


Act = Run | Kill | Entered

_S, _H = Instance, Happens

_SIGNALS = {
    _S.STOP_WATCHDOG: "WatchdogSignal",
    _S.STOP_SIGTERM: "KillSignal",
    _S.STOP_SIGKILL: "FinalKillSignal",
    _S.FINAL_SIGTERM: "KillSignal",
    _S.FINAL_SIGKILL: "FinalKillSignal",
    _S.RELOAD_SIGNAL: "ReloadSignal",
}

_NOTIFIES = ("notify", "notify-reload")
_GUARDED = (_S.START_POST, _S.RUNNING, _S.RELOAD, _S.RELOAD_SIGNAL, _S.RELOAD_NOTIFY)


class Life:
    """The life of one instance.

    Attributes:
        state: Where it stands.
        result: How it has ended, in systemd's words; ``success`` until something goes wrong.
        main: Whether its main process lives.
        control: Whether one of its other commands runs.
        ready: Whether it has come up at some time.
        said: Whether it has said READY=1.
    """

    def __init__(self, plan: Plan) -> None:
        """Begin dead."""
        self.plan = plan
        self.state = _S.DEAD
        self.result = SUCCESS
        self.main = False
        self.control = False
        self.ready = False
        self._index = 0
        self.said = False
        self._until: float | None = None
        self._guard: float | None = None
        self._watchdog = plan.watchdog
        self._acts: list[Act] = []

    # --- what it is told --------------------------------------------------------------------------

    def start(self, now: float) -> Sequence[Act]:
        """Start it."""
        return self._happens(_H.START, now)

    def stop(self, now: float) -> Sequence[Act]:
        """Stop it; without effect on one that stops already."""
        return self._happens(_H.STOP, now)

    def reload(self, now: float) -> Sequence[Act]:
        """Have it read its configuration again, as far as it can (`can_reload`)."""
        return self._happens(_H.RELOAD, now)

    def can_reload(self) -> bool:
        """Whether there is a way to reload it, and it is up."""
        way = self.plan.type == "notify-reload" or bool(self.plan.commands.get("ExecReload"))
        return way and _H.RELOAD in INSTANCE[self.state]

    def forked(self, now: float) -> Sequence[Act]:
        """Hear that the main process exists."""
        self.main = True
        return self._happens(_H.EXECUTED, now) if self.plan.type == "simple" else ()

    def executed(self, now: float) -> Sequence[Act]:
        """Hear that the main process has become its program."""
        return self._happens(_H.EXECUTED, now) if self.plan.type == "exec" else ()

    def main_ended(self, result: str, now: float) -> Sequence[Act]:
        """Hear of the end of the main process.

        Args:
            result: ``success`` for a clean end, else why it is none: ``exit-code``, ``signal``,
                ``core-dump``, ``resources``.
            now: The time.
        """
        self.main = False
        self._guard = None
        ignored = self._ignores("ExecStart")
        if result != SUCCESS and not ignored:
            self._note(result)
        clean = result == SUCCESS or ignored
        if self.state is _S.START and self.plan.type == "oneshot" and clean:
            return self._next(now)
        if self.state is _S.START and clean:
            self._note(PROTOCOL if self.plan.type in _NOTIFIES else SUCCESS)
        if self.state in (_S.RUNNING, _S.START_POST) and clean and self.plan.remains:
            if self.state is _S.RUNNING:
                self._enter(_S.EXITED, now)
            return self._flush()
        if not clean and _H.EXITED in INSTANCE[self.state] and self._is_up():
            self._enter(_S.STOP_SIGTERM, now)
            return self._flush()
        return self._happens(_H.EXITED, now)

    def command_ended(self, result: str, now: float) -> Sequence[Act]:
        """Hear of the end of a command other than the main process; as `main_ended`."""
        self.control = False
        directive = COMMANDS.get(self.state, "")
        if result == SUCCESS or self._ignores(directive):
            return self._next(now)
        if self.state is _S.CONDITION and result == "exit-code":
            result = SKIPPED
        if self.state is not _S.RELOAD:
            self._note(result)
        return self._happens(_H.BROKEN, now)

    def gone(self, now: float) -> Sequence[Act]:
        """Hear that none of its processes is left."""
        return self._happens(_H.GONE, now)

    def said_ready(self, now: float) -> Sequence[Act]:
        """Hear ``READY=1``."""
        self.said = True
        waits = self.state is _S.START and self.plan.type in _NOTIFIES
        if waits or self.state is _S.RELOAD_NOTIFY:
            return self._happens(_H.READY, now)
        return ()

    def said_reloading(self, now: float) -> Sequence[Act]:
        """Hear ``RELOADING=1``."""
        return self._happens(_H.RELOADING, now)

    def said_stopping(self, now: float) -> Sequence[Act]:
        """Hear ``STOPPING=1``: it ends by itself, and gets no signal as long as it is in time."""
        if _H.STOPPING not in INSTANCE[self.state]:
            return ()
        self._enter(_S.STOP_SIGTERM, now, quiet=True)
        return self._flush()

    def said_alive(self, now: float) -> None:
        """Hear ``WATCHDOG=1``."""
        if self._guard is not None and self._watchdog:
            self._guard = now + self._watchdog

    def said_broken(self, now: float) -> Sequence[Act]:
        """Hear ``WATCHDOG=trigger``."""
        self._note(WATCHDOG)
        return self._happens(_H.SILENT, now)

    def set_watchdog(self, seconds: float, now: float) -> None:
        """Hear ``WATCHDOG_USEC=``."""
        self._watchdog = seconds or None
        if self.state in _GUARDED:
            self._guard = now + seconds if seconds else None

    def extend(self, seconds: float, now: float) -> None:
        """Hear ``EXTEND_TIMEOUT_USEC=``: the time of this state ends so much from now."""
        if self._until is not None:
            self._until = max(self._until, now + seconds)

    def deadline(self) -> float | None:
        """Return when `expire` wants to be called; None for never."""
        times = [one for one in (self._until, self._guard) if one is not None]
        return min(times) if times else None

    def expire(self, now: float) -> Sequence[Act]:
        """Do what is due."""
        if self._guard is not None and self._guard <= now:
            self._guard = None
            self._note(WATCHDOG)
            return self._happens(_H.SILENT, now)
        if self._until is None or self._until > now:
            return ()
        self._until = None
        if self.state not in (_S.RELOAD, _S.RELOAD_SIGNAL, _S.RELOAD_NOTIFY):
            self._note(TIMEOUT)
        return self._happens(_H.LATE, now)

    # --- how it moves -----------------------------------------------------------------------------

    def _is_up(self) -> bool:
        return (
            _H.EXITED in INSTANCE[self.state]
            and self.state not in IS_STARTING
            and (INSTANCE[self.state][_H.EXITED] is _S.STOP and self.state is not _S.STOP)
        )

    def _note(self, result: str) -> None:
        if self.result == SUCCESS:
            self.result = result

    def _ignores(self, directive: str) -> bool:
        flags = self.plan.commands.get(directive, ())
        return self._index < len(flags) and flags[self._index]

    def _flush(self) -> Sequence[Act]:
        acts, self._acts = self._acts, []
        return acts

    def _happens(self, event: Happens, now: float) -> Sequence[Act]:
        target = INSTANCE[self.state].get(event)
        if target is not None and target is not self.state:
            self._enter(target, now)
        return self._flush()

    def _next(self, now: float) -> Sequence[Act]:
        """Run the next command of this state, or leave it."""
        self._index += 1
        if not self._run():
            self._enter(INSTANCE[self.state][_H.DONE], now)
        return self._flush()

    def _run(self) -> bool:
        directive = COMMANDS[self.state]
        if self._index >= len(self.plan.commands.get(directive, ())):
            return False
        self._acts.append(Run(directive, self._index))
        self.control = self.control or self.state is not _S.START
        return True

    def _enter(self, state: Instance, now: float, *, quiet: bool = False) -> None:
        if state is _S.DEAD and self.result not in (SUCCESS, SKIPPED):
            state = _S.FAILED
        if state is _S.RUNNING and not self.main:
            # It ended while its ExecStartPost= or ExecReload= commands ran.
            state = _S.EXITED if self.plan.remains and self.result == SUCCESS else _S.STOP
            if self.result != SUCCESS:
                state = _S.STOP_SIGTERM
        if state is _S.RELOAD and self.plan.type == "notify-reload":
            state = _S.RELOAD_SIGNAL
        if state is _S.CONDITION:
            self.result, self.ready, self.said = SUCCESS, False, False
        before, self.state, self._index = self.state, state, 0
        self._time(before, now)
        self.ready = self.ready or state in (_S.RUNNING, _S.EXITED)
        self._acts.append(Entered(state))
        if state in _SIGNALS and not quiet:
            self._acts.append(Kill(_SIGNALS[state]))
        if state in COMMANDS and not self._run():
            self._enter(self._without_commands(), now)

    def _without_commands(self) -> Instance:
        return INSTANCE[self.state][_H.DONE]

    def _time(self, before: Instance, now: float) -> None:
        plan = self.plan
        if self.state is _S.STOP_SIGKILL and not plan.kills:
            limit: float | None = 0.0
        elif self.state is _S.RUNNING:
            limit = plan.runtime
        elif self.state is _S.STOP_WATCHDOG:
            limit = plan.abort
        elif self.state in IS_STARTING or self.state.value.startswith("reload"):
            limit = plan.start
        elif self.state in IS_OVER or self.state is _S.EXITED:
            limit = None
        else:
            limit = plan.stop
        self._until = None if limit is None else now + limit
        if self.state in _GUARDED:
            if before not in _GUARDED:
                self._guard = now + self._watchdog if self._watchdog else None
        else:
            self._guard = None
