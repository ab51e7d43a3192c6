"""One run of a service, from its start to its end, as a machine without processes. Pure.

It is told what happens, and says what is to be done: which command to run, whom to signal. It
never waits and reads no clock; `deadline` says when `expire` wants to be called.

There are two kinds of processes: the *main* one, of ExecStart=, and the *control* process, of any
other command. There is at most one of each at a time: a command whose turn has come while the one
before is still there, because it could not be ended in time, is run when that has ended.

Source: src/core/service.c in systemd. Where that continues with the next command of a list
although the service is being stopped, this does not. The order of a reload, first ExecReload= and
then ReloadSignal=, is that of version 258.
"""

import math
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
RESOURCES = "resources"

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
        stays: The states in which it stays, because there is something to do or to wait for.
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
    stays: frozenset[Instance] = attrs.field(init=False)

    @stays.default
    def _find_stays(self) -> frozenset[Instance]:
        return frozenset(
            state
            for state in Instance
            if state not in COMMANDS or self.commands.get(COMMANDS[state])
        )


@attrs.frozen(eq=False, repr=False)
class Run(AsValue):
    """Run a command, in a directive's list the one at `index`."""

    directive: str
    index: int


@attrs.frozen(eq=False, repr=False)
class Kill(AsValue):
    """Signal its processes, or the command that runs: with what the directive `signal` names."""

    signal: str


@attrs.frozen(eq=False, repr=False)
class KillCommand(AsValue):
    """End the control process, and it alone, with SIGKILL: a reload has taken too long."""


@attrs.frozen(eq=False, repr=False)
class Entered(AsValue):
    """It has come into another state."""

    state: Instance


Act = Run | Kill | KillCommand | Entered

_S, _H = Instance, Happens

_ENTERED = {state: Entered(state) for state in Instance}
_KILLS = {
    _S.STOP_WATCHDOG: Kill("WatchdogSignal"),
    _S.STOP_SIGTERM: Kill("KillSignal"),
    _S.STOP_SIGKILL: Kill("FinalKillSignal"),
    _S.FINAL_SIGTERM: Kill("KillSignal"),
    _S.FINAL_SIGKILL: Kill("FinalKillSignal"),
    _S.RELOAD_SIGNAL: Kill("ReloadSignal"),
}

_NOTIFIES = ("notify", "notify-reload")
_GUARDED = frozenset([_S.START_POST, _S.RUNNING, _S.RELOAD, _S.RELOAD_SIGNAL, _S.RELOAD_NOTIFY])
_RELOADS = frozenset([_S.RELOAD, _S.RELOAD_SIGNAL, _S.RELOAD_NOTIFY])


class Life:
    """The life of one instance.

    Attributes:
        state: Where it stands.
        result: How it has ended, in systemd's words; ``success`` until something goes wrong.
        reload_result: The same of the last reload.
        main: Whether its main process lives.
        control: Whether one of its other commands runs.
        ready: Whether it has come up at some time.
        said: Whether it has said READY=1.
        restarts: Whether Restart= counts at its end; it does not where processes were left that
            may not be killed (SendSIGKILL=no).
    """

    def __init__(self, plan: Plan) -> None:
        """Begin dead."""
        self.plan = plan
        self.state = _S.DEAD
        self.result = self.reload_result = SUCCESS
        self.main = self.control = self._alone = False
        self.ready = self.said = False
        self.restarts = True
        self._index = 0
        self._main_index = 0
        # The control process: what it is, and whether nobody waits for it any more.
        self._command = Run("", 0)
        self._forgotten = False
        self._last_word = ""
        self._until: float | None = None
        self._guard: float | None = None
        self._watchdog = plan.watchdog
        self._up_since = self._reload_began = 0.0
        self._acts: list[Act] = []

    # --- what it is told --------------------------------------------------------------------------

    def start(self, now: float) -> Sequence[Act]:
        """Start it; without effect as long as one of its processes could not be ended."""
        return () if self.main or self.control else self._happens(_H.START, now)

    def stop(self, now: float) -> Sequence[Act]:
        """Stop it; without effect on one that stops already."""
        return self._happens(_H.STOP, now)

    def reload(self, now: float) -> Sequence[Act]:
        """Have it read its configuration again, as far as it can (`can_reload`)."""
        if not self.can_reload():
            return ()
        self.reload_result, self._reload_began = SUCCESS, now
        if self._last_word in ("reloading", "reloaded"):
            self._last_word = ""
        return self._happens(_H.RELOAD, now)

    def can_reload(self) -> bool:
        """Whether there is a way to reload it, and it is up."""
        by_signal = self.plan.type == "notify-reload" and self.main
        way = by_signal or bool(self.plan.commands.get("ExecReload"))
        return way and _H.RELOAD in INSTANCE[self.state]

    def forked(self, now: float) -> Sequence[Act]:
        """Hear that the main process exists."""
        self.main = True
        return self._happens(_H.EXECUTED, now) if self.plan.type == "simple" else ()

    def executed(self, now: float) -> Sequence[Act]:
        """Hear that the main process has become its program."""
        return self._happens(_H.EXECUTED, now) if self.plan.type == "exec" else ()

    def main_ended(self, result: str, now: float, *, alone: bool = False) -> Sequence[Act]:
        """Hear of the end of the main process.

        Args:
            result: ``success`` for a clean end, else why it is none: ``exit-code``, ``signal``,
                ``core-dump``; or `RESOURCES`, there never was one.
            now: The time.
            alone: Whether no other process is left: then it does not come into states in which the
                end of processes would be waited for.
        """
        self.main = False
        if self.state in IS_OVER:
            return ()
        self._alone = alone
        if self._ignores(Run("ExecStart", self._main_index), result):
            result = SUCCESS
        self._note(result)
        if self.state is _S.START:
            if self.plan.type == "oneshot" and result == SUCCESS:
                return self._next(now)
            if self.plan.type in _NOTIFIES:
                self._note(PROTOCOL)
        return self._happens(_H.EXITED, now)

    def command_ended(self, result: str, now: float, *, status: int = 1) -> Sequence[Act]:
        """Hear of the end of the control process.

        Args:
            result: As for `main_ended`.
            now: The time.
            status: What it gave exit(3), if `result` is ``exit-code``.
        """
        command, self.control = self._command, False
        forgotten, self._forgotten = self._forgotten, False
        if self.state in IS_OVER:
            return ()
        if forgotten:
            if self.state in COMMANDS:
                self._run(now)  # what had to wait for it
            return self._flush()
        if self._ignores(command, result):
            result = SUCCESS
        if self.state is _S.CONDITION and result == "exit-code" and status < 255:
            result = SKIPPED
        if self.state is _S.RELOAD:
            self._reloaded(result)
        else:
            self._note(result)
        if COMMANDS.get(self.state) != command.directive:
            return ()  # it was told to end with everything else
        if result == SUCCESS:
            return self._next(now)
        unable = result == RESOURCES and not command.index and _H.UNABLE in INSTANCE[self.state]
        return self._happens(_H.UNABLE if unable else _H.BROKEN, now)

    def gone(self, now: float) -> Sequence[Act]:
        """Hear that none of its processes is left."""
        return self._happens(_H.GONE, now)

    def said_ready(self, now: float) -> Sequence[Act]:
        """Hear ``READY=1``."""
        if self._last_word == "stopping":
            return ()
        self.said = True
        self._last_word = "reloaded" if self._last_word == "reloading" else "ready"
        if self.state is _S.START and self.plan.type not in _NOTIFIES:
            return ()
        return self._happens(_H.READY, now)

    def said_reloading(self, now: float, *, began: float | None = math.inf) -> Sequence[Act]:
        """Hear ``RELOADING=1``.

        Args:
            now: The time.
            began: ``MONOTONIC_USEC=`` in seconds; None if it was not said. It tells whether this
                is the reload that was asked for, or one before.
        """
        if self._last_word == "stopping":
            return ()
        self._last_word = "reloading"
        if self.state is _S.RELOAD:
            return ()
        if self.state is _S.RELOAD_SIGNAL and (began is None or began < self._reload_began):
            return ()
        return self._happens(_H.RELOADING, now)

    def said_stopping(self, now: float) -> Sequence[Act]:
        """Hear ``STOPPING=1``: it ends by itself, and gets no signal as long as it is in time."""
        self._last_word = "stopping"
        return self._happens(_H.STOPPING, now)

    def said_alive(self, now: float) -> None:
        """Hear ``WATCHDOG=1``."""
        if self._guard is not None:
            self._watch(now)

    def said_broken(self, now: float) -> Sequence[Act]:
        """Hear ``WATCHDOG=trigger``."""
        return self._fails(WATCHDOG, _H.SILENT, now)

    def set_watchdog(self, seconds: float, now: float) -> None:
        """Hear ``WATCHDOG_USEC=``."""
        self._watchdog = seconds
        if self.state in _GUARDED:
            self._watch(now)

    def extend(self, seconds: float, now: float) -> None:
        """Hear ``EXTEND_TIMEOUT_USEC=``: what ends in less time from now ends then."""
        if self._until is not None:
            self._until = max(self._until, now + seconds)
        if self._guard is not None:
            self._guard = max(self._guard, now + seconds)

    def deadline(self) -> float | None:
        """Return when `expire` wants to be called; None for never."""
        until, guard = self._until, self._guard
        if guard is not None and (until is None or guard < until):
            until = guard
        return None if until == math.inf else until

    def expire(self, now: float) -> Sequence[Act]:
        """Do what is due."""
        if self._guard is not None and self._guard <= now:
            return self._fails(WATCHDOG, _H.SILENT, now)
        if self._until is None or self._until > now:
            return ()
        if self.state in _RELOADS:
            self._reloaded(TIMEOUT)
            if self.control:
                self._forgotten = True
                self._acts.append(KillCommand())
            return self._happens(_H.LATE, now)
        spares = not self.plan.kills and _H.SPARED in INSTANCE[self.state]
        if spares and self.state is _S.FINAL_SIGTERM:
            self.restarts = False
        return self._fails(TIMEOUT, _H.SPARED if spares else _H.LATE, now)

    # --- how it moves -----------------------------------------------------------------------------

    def _note(self, result: str) -> None:
        if self.result == SUCCESS:
            self.result = result

    def _reloaded(self, result: str) -> None:
        self.reload_result = result
        if result != SUCCESS and self._last_word == "reloading":
            self._last_word = ""

    def _ignores(self, command: Run, result: str) -> bool:
        flags = self.plan.commands.get(command.directive, ())
        return result != RESOURCES and command.index < len(flags) and flags[command.index]

    def _flush(self) -> Sequence[Act]:
        self._alone = False
        acts, self._acts = self._acts, []
        return acts

    def _fails(self, result: str, event: Happens, now: float) -> Sequence[Act]:
        if event in INSTANCE[self.state]:
            self._note(result)
        return self._happens(event, now)

    def _happens(self, event: Happens, now: float) -> Sequence[Act]:
        target = INSTANCE[self.state].get(event)
        if target is not None:
            self._enter(target, now, quiet=event is _H.STOPPING)
        return self._flush()

    def _next(self, now: float) -> Sequence[Act]:
        """Run the next command of this state, or leave it."""
        self._index += 1
        if self._index >= len(self.plan.commands.get(COMMANDS[self.state], ())):
            return self._happens(self._done(self.state), now)
        self._run(now)
        return self._flush()

    def _done(self, state: Instance) -> Happens:
        """Return what it means that all commands of a state have been run."""
        if state is not _S.RELOAD or not self.main:
            return _H.DONE
        if self._last_word == "reloading":
            return _H.RELOADING
        signals = self.plan.type == "notify-reload" and self._last_word != "reloaded"
        return _H.SIGNALLED if signals else _H.DONE

    def _run(self, now: float) -> None:
        """Run the command whose turn it is; each has the whole time."""
        self._arm(now)
        run = Run(COMMANDS[self.state], self._index)
        if self.state is _S.START:
            self._main_index = self._index
        elif self.control:
            self._forgotten = True
            return
        else:
            self.control, self._command = True, run
        self._acts.append(run)

    def _enter(self, state: Instance, now: float, *, quiet: bool) -> None:
        before = self.state
        state, quiet = self._pass(state, now, quiet=quiet)
        self.state, self._index = state, 0
        self._acts.append(_ENTERED[state])
        if state not in _GUARDED:
            self._guard = None
        if state is not _S.RELOAD_NOTIFY or before not in _RELOADS:
            self._arm(now)  # else a reload goes on in the time that it had
        if state in _KILLS and not quiet:
            self._acts.append(_KILLS[state])
        if state in COMMANDS:
            self._run(now)

    def _pass(self, state: Instance, now: float, *, quiet: bool) -> tuple[Instance, bool]:
        """Pass through states in which there is nothing to do.

        Returns:
            The state that it comes into, and whether it stops by itself.
        """
        while True:
            if state is _S.CONDITION:
                self._begin()
            elif state is _S.START_POST:
                self._watch(now)
            elif state is _S.RUNNING:
                state, quiet = self._up(now)
            elif state is _S.DEAD and self.result not in (SUCCESS, SKIPPED):
                state = _S.FAILED
            if self._alone and _H.GONE in INSTANCE[state]:
                state = INSTANCE[state][_H.GONE]
            elif state in self.plan.stays:
                return state, quiet
            else:
                if state is _S.START:
                    self._acts.append(_ENTERED[state])  # whoever looks on sees it start
                state = INSTANCE[state][self._done(state)]

    def _begin(self) -> None:
        self.result = self.reload_result = SUCCESS
        self.ready = self.said = False
        self.restarts = True
        self._last_word = ""
        self._watchdog = self.plan.watchdog

    def _up(self, now: float) -> tuple[Instance, bool]:
        """Return what it is when it has started, and whether it stops by itself."""
        if self.result != SUCCESS:
            return _S.STOP_SIGTERM, False
        if not self.ready:
            self.ready, self._up_since = True, now
        if not self.main:
            return (_S.EXITED if self.plan.remains else _S.STOP), False
        if self._last_word == "stopping":
            return _S.STOP_SIGTERM, True
        return (_S.RELOAD_NOTIFY if self._last_word == "reloading" else _S.RUNNING), False

    def _watch(self, now: float) -> None:
        self._guard = now + self._watchdog if self._watchdog else None

    def _arm(self, now: float) -> None:
        """Set the time that this state may take."""
        plan, begins, limit = self.plan, now, self.plan.stop
        if self.state is _S.RUNNING:
            begins, limit = self._up_since, plan.runtime
        elif self.state is _S.STOP_WATCHDOG:
            limit = plan.abort
        elif self.state in IS_STARTING or self.state in _RELOADS:
            limit = plan.start
        elif self.state in IS_OVER or self.state is _S.EXITED:
            limit = None
        self._until = None if limit is None else begins + limit
