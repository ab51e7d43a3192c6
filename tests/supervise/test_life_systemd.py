"""What the real systemd makes of small services, and what `Life` makes of them.

Each case is run twice: by systemd, with processes that do what the case says, and by the machine,
with processes that are simulated in a time of their own. The states that a service goes through,
the commands that are run, the result and the number of restarts are the same.
"""

import collections
import heapq
import itertools
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
import pytest

from sockact import service_directives as d
from sockact.spec import ServiceSpec
from sockact.supervise.exit import Exit
from sockact.supervise.instance import Act, Entered, Kill, KillCommand, Life, Run
from sockact.supervise.limit import RateLimit
from sockact.supervise.restarts import delay, shall_restart
from sockact.supervise.serve import plan_of
from sockact.supervise.tables import INSTANCE, IS_OVER, Happens, Instance
from sockact.unitfile.load import load_service
from tests.conformance.namespaces import Systemd, missing_systemd
from tests.helpers import SECONDS

ACTOR = Path(__file__).with_name("actor.py")


@attrs.frozen
class Case:
    """A service.

    Attributes:
        lines: Of its [Service] section; what a program does stands between angle brackets, as
            `tests.supervise.actor` takes it.
        does: In which state, and when which of its programs listens, systemctl is told what.
        unit: Lines of its [Unit] section.
        unable: Whether no program can be started at all: EnvironmentFile= is not there.
    """

    lines: str
    does: Sequence[tuple[str, str, str]] = ()
    unit: str = ""
    unable: bool = False


_TAIL = "ExecStop=<exit 0>\nExecStopPost=<exit 0>\n"

CASES: dict[str, Case] = {
    # --- one shot ---
    "oneshot-chain": Case(
        "Type=oneshot\nExecStart=<exit 0>\nExecStart=<sleep 0.1>\nExecStart=<exit 0>\n" + _TAIL
    ),
    "oneshot-second-fails": Case(
        "Type=oneshot\nExecStart=<exit 0>\nExecStart=<exit 3>\nExecStart=<exit 0>\n" + _TAIL,
    ),
    "oneshot-ignored": Case(
        "Type=oneshot\nExecStart=-<exit 3>\nExecStart=<exit 0>\nExecStartPost=<exit 0>\n"
    ),
    "oneshot-remains": Case(
        "Type=oneshot\nRemainAfterExit=yes\nExecStart=<exit 0>\nExecReload=<exit 1>\n" + _TAIL,
        [("exited", "", "reload"), ("exited", "ExecReload-0", "stop")],
    ),
    "oneshot-without-program": Case(
        "Type=oneshot\nRemainAfterExit=yes\nExecStop=<exit 4>\n",
        [("exited", "", "stop")],
    ),
    "oneshot-signal": Case("Type=oneshot\nExecStart=<kill TERM>\n" + _TAIL),
    "oneshot-late": Case(
        "Type=oneshot\nTimeoutStartSec=1200ms\nExecStart=<sleep 0.5>\nExecStart=<forever>\n"
        + _TAIL,
    ),
    "oneshot-post-fails": Case(
        "Type=oneshot\nRemainAfterExit=yes\nExecStart=<exit 0>\nExecStartPost=<exit 1>\n" + _TAIL,
    ),
    # --- before the start ---
    "condition-false": Case(
        "ExecCondition=<exit 0>\nExecCondition=<exit 254>\nExecStart=<forever>\n" + _TAIL
    ),
    "condition-error": Case("ExecCondition=<exit 255>\nExecStart=<forever>\n" + _TAIL),
    "condition-signal": Case("ExecCondition=<kill INT>\nExecStart=<forever>\n"),
    "condition-ignored": Case("ExecCondition=-<exit 9>\nExecStart=<exit 0>\n"),
    "condition-restart": Case("Restart=always\nExecCondition=<exit 1>\nExecStart=<forever>\n"),
    "pre-fails": Case(
        "ExecStartPre=<exit 0>\nExecStartPre=<exit 9>\nExecStart=<forever>\n" + _TAIL
    ),
    "pre-ignored": Case("ExecStartPre=-<kill KILL>\nExecStart=<exit 0>\n"),
    "pre-success-status": Case(
        "SuccessExitStatus=7 USR1\nExecStartPre=<exit 7>\nExecStartPre=<kill USR1>\n"
        "ExecStart=<exit 7>\n"
    ),
    "pre-each-its-time": Case(
        "TimeoutStartSec=1500ms\nExecStartPre=<sleep 0.9>\nExecStartPre=<sleep 0.9>\n"
        "ExecStart=<exit 0>\n"
    ),
    "pre-late": Case("TimeoutStartSec=600ms\nExecStartPre=<forever>\nExecStart=<exit 0>\n" + _TAIL),
    "pre-stopped": Case(
        "ExecStartPre=<forever>\nExecStart=<exit 0>\n" + _TAIL,
        [("start-pre", "ExecStartPre-0", "stop")],
    ),
    "pre-stopped-cleanly": Case(
        "ExecStartPre=<on TERM exit 0; forever>\nExecStart=<exit 0>\n" + _TAIL,
        [("start-pre", "ExecStartPre-0", "stop")],
    ),
    # --- what cannot be run at all ---
    "unable-condition": Case("ExecCondition=<exit 0>\nExecStart=<exit 0>\n" + _TAIL, unable=True),
    "unable-pre": Case("ExecStartPre=-<exit 0>\nExecStart=<exit 0>\n" + _TAIL, unable=True),
    "unable-start": Case("ExecStart=-<exit 0>\n" + _TAIL, unable=True),
    # --- the main process ---
    "simple-ends": Case("ExecStart=<exit 0>\n" + _TAIL),
    "simple-fails": Case("ExecStart=<exit 3>\n" + _TAIL),
    "simple-term": Case("ExecStart=<kill TERM>\n" + _TAIL),
    "simple-killed": Case("ExecStart=<kill USR1>\n" + _TAIL),
    "simple-ignored": Case("ExecStart=-<exit 3>\n" + _TAIL),
    "simple-success-status": Case("SuccessExitStatus=3\nExecStart=<exit 3>\n" + _TAIL),
    "simple-remains": Case("RemainAfterExit=yes\nExecStart=<exit 0>\n" + _TAIL),
    "simple-remains-fails": Case("RemainAfterExit=yes\nExecStart=<exit 1>\n" + _TAIL),
    "exec-missing": Case("Type=exec\nExecStart=/no/such/program\n" + _TAIL),
    "exec-stays": Case(
        "Type=exec\nExecStart=<forever>\n" + _TAIL, [("running", "ExecStart-0", "stop")]
    ),
    "runtime": Case("RuntimeMaxSec=500ms\nExecStart=<on TERM exit 0; forever>\n" + _TAIL),
    # --- after the start ---
    "post-fails": Case(
        "ExecStart=<forever>\nExecStartPost=<exit 1>\nExecStartPost=<exit 0>\n" + _TAIL,
    ),
    "post-late": Case(
        "TimeoutStartSec=700ms\nExecStart=<forever>\nExecStartPost=<forever>\n" + _TAIL,
    ),
    "post-main-ends": Case("ExecStart=<exit 0>\nExecStartPost=<sleep 1>\n" + _TAIL),
    "post-main-fails": Case(
        "ExecStart=<exit 5>\nExecStartPost=<sleep 1>\nExecStartPost=<exit 0>\n" + _TAIL,
    ),
    "post-main-remains": Case("RemainAfterExit=yes\nExecStart=<exit 0>\nExecStartPost=<sleep 1>\n"),
    "post-main-ends-stopped": Case(
        "ExecStart=<exit 0>\nExecStartPost=<on TERM exit 0; forever>\n" + _TAIL,
        [("start-post", "ExecStartPost-0", "stop")],
    ),
    "post-stopped": Case(
        "ExecStart=<forever>\nExecStartPost=<forever>\n" + _TAIL,
        [("start-post", "ExecStartPost-0", "stop")],
    ),
    # --- it says so ---
    "notify-ends": Case("Type=notify\nExecStart=<say READY=1; sleep 0.3>\n" + _TAIL),
    "notify-never": Case("Type=notify\nExecStart=<exit 0>\n" + _TAIL),
    "notify-never-fails": Case("Type=notify\nExecStart=<exit 2>\n" + _TAIL),
    "notify-never-ignored": Case("Type=notify\nExecStart=-<exit 2>\n" + _TAIL),
    "notify-late": Case("Type=notify\nTimeoutStartSec=600ms\nExecStart=<forever>\n" + _TAIL),
    "notify-extends": Case(
        "Type=notify\nTimeoutStartSec=1500ms\n"
        "ExecStart=<say EXTEND_TIMEOUT_USEC=4000000; sleep 1.8; say READY=1; exit 0>\n" + _TAIL
    ),
    "notify-stopped": Case(
        "Type=notify\nExecStart=<on TERM exit 0; forever>\n" + _TAIL,
        [("start", "ExecStart-0", "stop")],
    ),
    "notify-stopping": Case(
        "Type=notify\nExecStart=<say READY=1; say STOPPING=1; sleep 0.4>\n" + _TAIL
    ),
    "notify-stopping-fails": Case(
        "Type=notify\nExecStart=<say READY=1; say STOPPING=1; sleep 0.4; exit 1>\n" + _TAIL,
    ),
    "notify-stopping-late": Case(
        "Type=notify\nTimeoutStopSec=500ms\nExecStart=<say READY=1; say STOPPING=1; forever>\n"
        + _TAIL,
    ),
    "notify-stopping-early": Case("Type=notify\nExecStart=<say STOPPING=1; sleep 0.3>\n" + _TAIL),
    "notify-stopping-in-post": Case(
        "Type=notify\nExecStart=<say READY=1; sleep 0.3; say STOPPING=1; sleep 1.4>\n"
        "ExecStartPost=<sleep 1>\n" + _TAIL
    ),
    "watchdog": Case(
        "Type=notify\nWatchdogSec=400ms\nExecStart=<on ABRT exit 0; say READY=1; forever>\n"
        + _TAIL,
    ),
    "watchdog-told": Case(
        "Type=notify\nWatchdogSec=1500ms\nExecStart=<say READY=1; sleep 0.9; say WATCHDOG=1; "
        "sleep 0.9; exit 0>\n" + _TAIL,
    ),
    "watchdog-later": Case(
        "Type=notify\nExecStart=<on ABRT exit 0; say READY=1; say WATCHDOG_USEC=300000; forever>\n",
    ),
    "watchdog-trigger": Case(
        "Type=notify\nExecStart=<on ABRT exit 0; say READY=1; say WATCHDOG=trigger; forever>\n"
        + _TAIL,
    ),
    "watchdog-trigger-in-start": Case(
        "Type=notify\nExecStart=<on ABRT exit 0; say WATCHDOG=trigger; forever>\n" + _TAIL,
    ),
    "watchdog-deaf": Case(
        "Type=notify\nWatchdogSec=300ms\nTimeoutAbortSec=300ms\n"
        "ExecStart=<on ABRT nothing; say READY=1; forever>\n" + _TAIL,
    ),
    "watchdog-stopped": Case(
        "Type=notify\nWatchdogSec=300ms\nTimeoutAbortSec=20s\n"
        "ExecStart=<on ABRT nothing; on TERM exit 0; say READY=1; forever>\n" + _TAIL,
        [("stop-watchdog", "", "stop")],
    ),
    # --- reload ---
    "reload": Case(
        "ExecStart=<forever>\nExecReload=<exit 0>\nExecReload=<sleep 0.2>\n" + _TAIL,
        [("running", "ExecStart-0", "reload"), ("running", "ExecReload-1", "stop")],
    ),
    "reload-fails": Case(
        "ExecStart=<forever>\nExecReload=<exit 1>\nExecReload=<exit 0>\n",
        [("running", "ExecStart-0", "reload")],
    ),
    "reload-late": Case(
        "TimeoutStartSec=1\nExecStart=<forever>\nExecReload=<on TERM nothing; forever>\n" + _TAIL,
        [("running", "ExecStart-0", "reload"), ("running", "ExecReload-0", "stop")],
    ),
    "reload-stopped": Case(
        "ExecStart=<forever>\nExecReload=<forever>\n" + _TAIL,
        [("running", "ExecStart-0", "reload"), ("reload", "ExecReload-0", "stop")],
    ),
    "reload-main-ends": Case(
        "ExecStart=<on HUP exit 0; forever>\nExecReload=/bin/kill -HUP $MAINPID\n"
        "ExecReload=<sleep 1>\n" + _TAIL,
        [("running", "ExecStart-0", "reload")],
    ),
    "reload-main-fails": Case(
        "ExecStart=<on HUP exit 6; forever>\nExecReload=/bin/kill -HUP $MAINPID\n"
        "ExecReload=<sleep 1>\n" + _TAIL,
        [("running", "ExecStart-0", "reload")],
    ),
    "reload-by-itself": Case(
        "Type=notify\nExecStart=<say READY=1; say RELOADING=1; sleep 0.4; say READY=1; sleep 0.3>\n"
        + _TAIL,
    ),
    "reload-by-itself-stopped": Case(
        "Type=notify\nExecStart=<on TERM exit 0; say READY=1; say RELOADING=1; forever>\n" + _TAIL,
        [("reload", "ExecStart-0", "stop")],
    ),
    "reload-by-itself-ends": Case(
        "Type=notify\nExecStart=<say READY=1; sleep 0.1; say RELOADING=1; sleep 0.3>\n" + _TAIL,
    ),
    "reload-by-itself-fails": Case(
        "Type=notify\nExecStart=<say READY=1; sleep 0.1; say RELOADING=1; sleep 0.3; exit 1>\n"
        + _TAIL,
    ),
    "reload-with-word": Case(
        "Type=notify\nExecStart=<on HUP say RELOADING=1; on USR1 say READY=1; on TERM exit 0; "
        "say READY=1; forever>\n"
        "ExecReload=/bin/kill -HUP $MAINPID\nExecReload=<sleep 0.3>\n" + _TAIL,
        [("running", "ExecStart-0", "reload"), ("reload", "ExecReload-1", "kill --signal=USR1")],
    ),
    # --- stop ---
    "stop-command-fails": Case(
        "ExecStart=<forever>\nExecStop=<exit 1>\nExecStop=<exit 0>\nExecStopPost=<exit 0>\n",
        [("running", "ExecStart-0", "stop")],
    ),
    "stop-command-ends-it": Case(
        "ExecStart=<on USR1 exit 0; forever>\nExecStop=/bin/kill -USR1 $MAINPID\n"
        "ExecStop=<sleep 0.3>\n",
        [("running", "ExecStart-0", "stop")],
    ),
    "stop-fails": Case(
        "ExecStart=<on TERM exit 1; forever>\n" + _TAIL,
        [("running", "ExecStart-0", "stop")],
    ),
    "stop-ignored": Case(
        "TimeoutStopSec=500ms\nExecStart=<on TERM nothing; forever>\n" + _TAIL,
        [("running", "ExecStart-0", "stop")],
    ),
    "stop-spared": Case(
        "SendSIGKILL=no\nTimeoutStopSec=400ms\nExecStart=<on TERM nothing; forever>\n" + _TAIL,
        [("running", "ExecStart-0", "stop")],
    ),
    "stop-hangs": Case(
        "TimeoutStopSec=600ms\nExecStart=<forever>\nExecStop=<forever>\nExecStopPost=<exit 0>\n",
        [("running", "ExecStart-0", "stop")],
    ),
    "stop-hangs-deaf": Case(
        "TimeoutStopSec=1\nExecStart=<forever>\nExecStop=<on TERM nothing; forever>\n",
        [("running", "ExecStart-0", "stop")],
    ),
    "stop-post-hangs": Case(
        "TimeoutStopSec=1\nExecStart=<forever>\nExecStopPost=<on TERM nothing; forever>\n",
        [("running", "ExecStart-0", "stop")],
    ),
    "stop-post-fails": Case("ExecStart=<exit 0>\nExecStopPost=<exit 2>\nExecStopPost=<exit 0>\n"),
    "stop-post-ignored": Case(
        "ExecStart=<exit 0>\nExecStopPost=-<exit 2>\nExecStopPost=<exit 0>\n"
    ),
    "first-failure-counts": Case(
        "ExecStart=<on TERM exit 1; say READY=1; forever>\nExecStop=<kill KILL>\n"
        "ExecStopPost=<exit 2>\nNotifyAccess=all\n",
        [("running", "ExecStart-0", "stop")],
    ),
    # --- restart ---
    **{
        f"restart-{rule}-{name}": Case(
            f"Restart={rule}\nRestartSec=10ms\nExecStart=<{steps}>\n",
            unit="StartLimitBurst=2\nStartLimitIntervalSec=60s\n",
        )
        for rule in ("always", "on-success", "on-failure", "on-abnormal", "on-abort")
        for name, steps in (("clean", "exit 0"), ("status", "exit 1"), ("signal", "kill USR1"))
    },
    "restart-prevented": Case("Restart=always\nRestartPreventExitStatus=4\nExecStart=<exit 4>\n"),
    "restart-forced": Case(
        "Restart=no\nRestartSec=10ms\nRestartForceExitStatus=USR1\nExecStart=<kill USR1>\n",
        unit="StartLimitBurst=2\nStartLimitIntervalSec=60s\n",
    ),
    "restart-watchdog": Case(
        "Type=notify\nRestart=on-watchdog\nRestartSec=10ms\nWatchdogSec=300ms\n"
        "ExecStart=<on ABRT exit 0; say READY=1; forever>\n",
        unit="StartLimitBurst=2\nStartLimitIntervalSec=60s\n",
    ),
    "restart-late": Case(
        "Type=notify\nRestart=on-abnormal\nRestartSec=10ms\nTimeoutStartSec=500ms\n"
        "ExecStart=<forever>\n",
        unit="StartLimitBurst=2\nStartLimitIntervalSec=60s\n",
    ),
    "restart-not-after-stop": Case(
        "Restart=always\nExecStart=<forever>\n", [("running", "ExecStart-0", "stop")]
    ),
}

_PROGRAM = re.compile(r"(Exec\w+)=(-?)(<(.*)>|/.*)")


def _unit(name: str, case: Case, marks: str) -> str:
    """Return the unit file of a case; its programs put their marks into a directory."""
    counts: collections.Counter[str] = collections.Counter()
    lines = ["[Unit]", "DefaultDependencies=no", *case.unit.split("\n"), "[Service]",
             "StandardError=null"]  # fmt: skip
    if case.unable:
        lines.append("EnvironmentFile=/no/such/file")
    for line in case.lines.split("\n"):
        if match := _PROGRAM.fullmatch(line):
            directive, prefix, program, steps = match.groups()
            mark = f"{marks}/{name}.{directive}-{counts[directive]}"
            counts[directive] += 1
            if steps is not None:
                program = f'{sys.executable} -I -S {ACTOR} {mark} "{steps}"'
            lines.append(f"{directive}={prefix}{program}")
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


@attrs.frozen
class Seen:
    """What became of a service.

    Attributes:
        path: The states it went through, except those that systemd 252 does not have.
        runs: The commands that were run.
        result: How it ended.
        restarts: How often it was started again.
    """

    path: list[str]
    runs: list[str]
    result: str
    restarts: int


# --- the machine ----------------------------------------------------------------------------------

_COMMANDS = {row.name: row for row in (
    d.EXEC_CONDITION, d.EXEC_START_PRE, d.EXEC_START, d.EXEC_START_POST, d.EXEC_RELOAD,
    d.EXEC_STOP, d.EXEC_STOP_POST,
)}  # fmt: skip
_SIGNALS = {row.name: row for row in (d.KILL_SIGNAL, d.FINAL_KILL_SIGNAL, d.WATCHDOG_SIGNAL)}


class Process:
    """A simulated process."""

    def __init__(self, steps: str, ended: Callable[[Exit], None]) -> None:
        self.steps = [step.strip() for step in steps.split(";")]
        self.ended = ended
        self.alive = True
        self.handlers = {
            words[1]: " ".join(words[2:])
            for words in map(str.split, self.steps)
            if words[0] == "on"
        }


class Simulation:
    """A service whose processes are simulated, from its start until nothing happens any more."""

    def __init__(self, spec: ServiceSpec, case: Case) -> None:
        self.spec, self.case = spec, case
        self.does = list(case.does)
        self.now = 0.0
        self.life = Life(plan_of(spec))
        self.path: list[str] = []
        self.runs: list[str] = []
        self.restarts = 0
        self.result = ""
        self._main: Process | None = None
        self._control: Process | None = None
        self._exit: Exit | None = None
        self._is_over = self._stopped = False
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._acts: collections.deque[Act] = collections.deque()
        self._acting = False
        self._limit = RateLimit(spec.get(d.START_LIMIT_INTERVAL), spec.get(d.START_LIMIT_BURST))

    def run(self) -> Seen:
        """Let everything happen."""
        self._start()
        while self.now < 300:
            if self.does and self._is_time(*self.does[0][:2]):
                verb = self.does.pop(0)[2]
                self._at(0.1, lambda verb=verb: self._told(verb))  # type: ignore[misc]
            due = self.life.deadline()
            if due is not None and (not self._later or due <= self._later[0][0]):
                self.now = due
                self._do(self.life.expire(due))
            elif self._later:
                self.now, _, what = heapq.heappop(self._later)
                what()
            else:
                break
        assert not self.does
        return Seen(self.path, self.runs, self.result or self.life.result, self.restarts)

    def _is_time(self, state: str, mark: str) -> bool:
        return _shown(self.life.state) == state and (not mark or mark in self.runs)

    def _at(self, delay: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._later, (self.now + delay, next(self._count), what))

    def _told(self, verb: str) -> None:
        if verb == "stop":
            self._stopped = True
            self._do(self.life.stop(self.now))
        elif verb == "reload":
            assert self.life.can_reload()
            self._do(self.life.reload(self.now))
        else:
            assert self._main
            self._signal(self._main, verb.partition("=")[2])

    def _start(self) -> None:
        if not self._limit.allow(self.now):
            self.path.append("failed")
            self.result = "start-limit-hit" if self.life.result == "success" else ""
            return
        self.life, self._is_over = Life(plan_of(self.spec)), False
        self._do(self.life.start(self.now))

    def _do(self, acts: Sequence[Act]) -> None:
        self._acts += acts
        if self._acting:
            return
        self._acting = True
        while True:
            while self._acts:
                self._carry_out(self._acts.popleft())
            if Happens.GONE not in INSTANCE[self.life.state] or self._main or self._control:
                break
            self._acts += self.life.gone(self.now)
        self._acting = False
        if self.life.state in IS_OVER and not self._is_over:
            self._is_over = True
            self._over()

    def _over(self) -> None:
        how = self._exit
        status = None
        if how is not None:
            status = ("signal", how.signal) if how.signal else ("exit", how.status)
        may = self.life.restarts and not self._stopped
        if may and shall_restart(self.spec, self.life.result, status):
            self._at(delay(self.spec, self.restarts), self._start)
            self.restarts += 1

    def _carry_out(self, act: Act) -> None:
        match act:
            case Run():
                self._run(act)
            case Kill():
                for process in (self._main, self._control):
                    if process:
                        self._signal(process, signal.Signals(self.spec.get(_SIGNALS[act.signal])))
            case KillCommand():
                assert self._control
                self._signal(self._control, signal.SIGKILL)
            case Entered():
                state = _shown(act.state)
                kills = Happens.GONE in INSTANCE[act.state] and not self._main and not self._control
                simple = state == "start" and self.life.plan.type == "simple"  # goes on at once
                if not kills and not simple and self.path[-1:] != [state]:
                    self.path.append(state)

    def _run(self, act: Run) -> None:
        is_main = act.directive == "ExecStart"
        ended = self._main_ended if is_main else self._control_ended
        if self.case.unable:
            tell = self.life.main_ended if is_main else self.life.command_ended
            if act.directive != "ExecStart":
                self.path.pop()  # systemd comes into a state when its process exists
            self._acts += tell("resources", self.now)
            return
        command = self.spec.get(_COMMANDS[act.directive])[act.index]
        actor = command.path == sys.executable
        self.runs.append(f"{act.directive}-{act.index}" if actor else command.path)
        steps = {"/bin/kill": "exit 0", "/no/such/program": "exit 203"}.get(command.path)
        process = Process(steps or command.argv[-1], ended)
        if command.path == "/bin/kill":
            assert self._main
            self._signal(self._main, command.argv[1].removeprefix("-"))
        if is_main:
            assert self._main is None
            self._main = process
            self._acts += self.life.forked(self.now)
            if steps is None:
                self._at(0, lambda: self._do(self.life.executed(self.now)))
        else:
            assert self._control is None
            self._control = process
        self._at(0.001, lambda: self._go_on(process))

    def _go_on(self, process: Process) -> None:
        while process.alive:
            step = process.steps.pop(0) if process.steps else "exit 0"
            if step.startswith("sleep"):
                self._at(float(step[6:]), lambda: self._go_on(process))
                return
            if step == "forever":
                return
            self._take(process, step)

    def _take(self, process: Process, step: str) -> None:
        verb, _, rest = step.partition(" ")
        if verb == "exit":
            self._end(process, Exit(int(rest)))
        elif verb == "kill":
            self._end(process, Exit(0, signal.Signals[f"SIG{rest}"]))
        elif verb == "say":
            self._hear(dict(word.split("=") for word in rest.split()))

    def _signal(self, process: Process, name: str | signal.Signals) -> None:
        number = signal.Signals[f"SIG{name}"] if isinstance(name, str) else name
        handler = process.handlers.get(number.name.removeprefix("SIG"))
        step = handler or f"kill {number.name.removeprefix('SIG')}"
        self._at(0.001, lambda: self._take(process, step) if process.alive else None)

    def _hear(self, said: Mapping[str, str]) -> None:
        life, now = self.life, self.now
        if said.get("WATCHDOG") == "1":
            life.said_alive(now)
        if "WATCHDOG_USEC" in said:
            life.set_watchdog(int(said["WATCHDOG_USEC"]) / 1e6, now)
        if "EXTEND_TIMEOUT_USEC" in said:
            life.extend(int(said["EXTEND_TIMEOUT_USEC"]) / 1e6, now)
        if said.get("WATCHDOG") == "trigger":
            self._do(life.said_broken(now))
        if "STOPPING" in said:
            self._do(life.said_stopping(now))
        if "RELOADING" in said:
            self._do(life.said_reloading(now))
        if "READY" in said:
            self._do(life.said_ready(now))

    def _end(self, process: Process, how: Exit) -> None:
        process.alive = False
        process.ended(how)

    def _judge(self, how: Exit, *, main: bool) -> str:
        success: frozenset[tuple[str, int]] = self.spec.get(d.SUCCESS_EXIT_STATUS)
        oneshot = not main or self.spec.get(d.TYPE) == "oneshot"
        if how.is_clean(success, oneshot=oneshot):
            return "success"
        return "signal" if how.signal else "exit-code"

    def _main_ended(self, how: Exit) -> None:
        self._main, self._exit = None, how
        self._do(self.life.main_ended(self._judge(how, main=True), self.now))

    def _control_ended(self, how: Exit) -> None:
        self._control = None
        result = self._judge(how, main=False)
        self._do(self.life.command_ended(result, self.now, status=how.status))


def _shown(state: Instance) -> str:
    """Return the state as systemd 252 has it."""
    return "reload" if state.value.startswith("reload") else state.value


# --- systemd --------------------------------------------------------------------------------------

_CHANGED = re.compile(r"([\w-]+)\.service: Changed ([\w-]+) -> ([\w-]+)")
_RESULT = re.compile(r"([\w-]+)\.service: (?:Failed with result|Skipped due to) '([\w-]+)'")
_RUNS = re.compile(r"([\w-]+)\.service: About to execute (.*)")
_RESTARTS = re.compile(r"([\w-]+)\.service: Scheduled restart job, restart counter is at (\d+)")


def _real(units: Path, ours: Mapping[str, Seen]) -> dict[str, Seen]:
    """Run all cases at once, until each stands where `ours` does."""
    (units / "test.target").write_text("[Unit]\nDefaultDependencies=no\n", encoding="ascii")
    with Systemd(units) as machine:
        machine.run("systemctl", "log-level", "debug")
        machine.run("systemctl", "start", "--no-block", *(f"{name}.service" for name in CASES))
        out = machine.path("/run/out")
        todo = {name: list(case.does) for name, case in CASES.items()}
        deadline = time.monotonic() + SECONDS
        settled = 0
        while settled < 2 and time.monotonic() < deadline:
            shown = _show(machine)
            tell: dict[str, list[str]] = {}
            for name, does in todo.items():
                if does and shown[name]["SubState"] == does[0][0]:
                    _, mark, verb = does[0]
                    if not mark or (out / f"{name}.{mark}").exists():
                        tell.setdefault(verb, []).append(f"{name}.service")
                        does.pop(0)
            for verb, units_told in tell.items():
                machine.run("systemctl", "--no-block", *verb.split(), *units_told)
            done = not tell and all(
                shown[name]["SubState"] == seen.path[-1] and not shown[name].get("Job")
                for name, seen in ours.items()
            )
            settled = settled + 1 if done else 0
    seen = {name: Seen([], [], "success", 0) for name in CASES}
    for line in machine.said.splitlines():
        for pattern in (_CHANGED, _RESULT, _RUNS, _RESTARTS):
            if (match := pattern.search(line)) and match[1] in CASES:
                seen[match[1]] = _more(seen[match[1]], pattern, match)
    return seen


def _more(seen: Seen, pattern: re.Pattern[str], match: re.Match[str]) -> Seen:
    """Add what a line of systemd's log says."""
    if pattern is _RESULT:
        return attrs.evolve(seen, result=match[2])
    if pattern is _RESTARTS:
        return attrs.evolve(seen, result="success", restarts=int(match[2]))
    if pattern is _RUNS:
        return attrs.evolve(seen, runs=[*seen.runs, _run_of(match[2])])
    if "auto-restart" in match.groups():
        return seen  # a detour
    return attrs.evolve(seen, path=[*seen.path, match[3]])


def _run_of(command: str) -> str:
    """Return which command of its unit a command is."""
    mark = re.search(r"/run/out/[\w-]+\.(Exec\w+-\d)", command)
    return mark[1] if mark else command.partition(" ")[0]


def _show(machine: Systemd) -> dict[str, dict[str, str]]:
    properties = "Id,SubState,Job"
    done = machine.run(
        "systemctl", "show", f"--property={properties}", *(f"{name}.service" for name in CASES)
    )
    blocks = (
        dict(line.split("=", 1) for line in block.split("\n"))
        for block in done.stdout.strip().split("\n\n")
    )
    return {block["Id"].removesuffix(".service"): block for block in blocks}


# --- both -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Seen], dict[str, Seen]]:
    """What systemd makes of all cases, and what the machine does."""
    if reason := missing_systemd():
        pytest.skip(reason)
    units = tmp_path_factory.mktemp("units")
    ours = {}
    for name, case in CASES.items():
        path = units / f"{name}.service"
        path.write_text(_unit(name, case, "/run/out"), encoding="utf-8")
        spec = load_service(f"{name}.service", environ={"SYSTEMD_UNIT_PATH": str(units)})
        ours[name] = Simulation(spec, case).run()
    return _real(units, ours), ours


@pytest.mark.parametrize("name", CASES)
def test_same_life(both: tuple[dict[str, Seen], dict[str, Seen]], name: str) -> None:
    """The machine goes the way that systemd goes."""
    real, ours = both
    assert ours[name] == real[name]
