"""What the real systemd makes of small services, and what `Life` makes of them.

Each case is run twice: by systemd, with processes that do what the case says, and by the machine,
with processes that are simulated in a time of their own. The states that a service goes through,
the commands that are run, the result and the number of restarts are the same.
"""

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
        unable: The directives whose programs cannot be started.
        ends: The state that it ends in.
    """

    lines: str
    does: Sequence[tuple[str, str, str]] = ()
    unit: str = ""
    unable: Sequence[str] = ()
    ends: str = "dead"


_TAIL = "ExecStop=<exit 0>\nExecStopPost=<exit 0>\n"

CASES: dict[str, Case] = {
    # --- one shot ---
    "oneshot-chain": Case(
        "Type=oneshot\nExecStart=<exit 0>\nExecStart=<sleep 0.1>\nExecStart=<exit 0>\n" + _TAIL
    ),
    "oneshot-second-fails": Case(
        "Type=oneshot\nExecStart=<exit 0>\nExecStart=<exit 3>\nExecStart=<exit 0>\n" + _TAIL,
        ends="failed",
    ),
    "oneshot-ignored": Case(
        "Type=oneshot\nExecStart=-<exit 3>\nExecStart=<exit 0>\nExecStartPost=<exit 0>\n"
    ),
    "oneshot-remains": Case(
        "Type=oneshot\nRemainAfterExit=yes\nExecStart=<exit 0>\nExecReload=<exit 1>\n" + _TAIL,
        [("exited", "", "reload"), ("exited", "", "stop")],
    ),
    "oneshot-without-program": Case(
        "Type=oneshot\nRemainAfterExit=yes\nExecStop=<exit 4>\n",
        [("exited", "", "stop")],
        ends="failed",
    ),
    "oneshot-signal": Case("Type=oneshot\nExecStart=<kill TERM>\n" + _TAIL, ends="failed"),
    "oneshot-late": Case(
        "Type=oneshot\nTimeoutStartSec=700ms\nExecStart=<sleep 0.4>\nExecStart=<forever>\n" + _TAIL,
        ends="failed",
    ),
    "oneshot-post-fails": Case(
        "Type=oneshot\nRemainAfterExit=yes\nExecStart=<exit 0>\nExecStartPost=<exit 1>\n" + _TAIL,
        ends="failed",
    ),
    # --- before the start ---
    "condition-false": Case(
        "ExecCondition=<exit 0>\nExecCondition=<exit 254>\nExecStart=<forever>\n" + _TAIL
    ),
    "condition-error": Case(
        "ExecCondition=<exit 255>\nExecStart=<forever>\n" + _TAIL, ends="failed"
    ),
    "condition-signal": Case("ExecCondition=<kill INT>\nExecStart=<forever>\n", ends="failed"),
    "condition-ignored": Case("ExecCondition=-<exit 9>\nExecStart=<exit 0>\n"),
    "condition-restart": Case("Restart=always\nExecCondition=<exit 1>\nExecStart=<forever>\n"),
    "pre-fails": Case(
        "ExecStartPre=<exit 0>\nExecStartPre=<exit 9>\nExecStart=<forever>\n" + _TAIL, ends="failed"
    ),
    "pre-ignored": Case("ExecStartPre=-<kill KILL>\nExecStart=<exit 0>\n"),
    "pre-success-status": Case(
        "SuccessExitStatus=7 USR1\nExecStartPre=<exit 7>\nExecStartPre=<kill USR1>\n"
        "ExecStart=<exit 7>\n"
    ),
    "pre-each-its-time": Case(
        "TimeoutStartSec=900ms\nExecStartPre=<sleep 0.5>\nExecStartPre=<sleep 0.5>\n"
        "ExecStartPre=<sleep 0.5>\nExecStart=<exit 0>\n"
    ),
    "pre-late": Case(
        "TimeoutStartSec=600ms\nExecStartPre=<forever>\nExecStart=<exit 0>\n" + _TAIL, ends="failed"
    ),
    "pre-stopped": Case(
        "ExecStartPre=<forever>\nExecStart=<exit 0>\n" + _TAIL,
        [("start-pre", "ExecStartPre-0", "stop")],
        ends="failed",
    ),
    "pre-stopped-cleanly": Case(
        "ExecStartPre=<on TERM exit 0; forever>\nExecStart=<exit 0>\n" + _TAIL,
        [("start-pre", "ExecStartPre-0", "stop")],
    ),
    # --- what cannot be run at all ---
    "unable-condition": Case(
        "ExecCondition=<exit 0>\nExecStart=<exit 0>\n" + _TAIL, unable=["all"], ends="failed"
    ),
    "unable-pre": Case(
        "ExecStartPre=-<exit 0>\nExecStart=<exit 0>\n" + _TAIL, unable=["all"], ends="failed"
    ),
    "unable-start": Case("ExecStart=-<exit 0>\n" + _TAIL, unable=["all"], ends="failed"),
    # --- the main process ---
    "simple-ends": Case("ExecStart=<exit 0>\n" + _TAIL),
    "simple-fails": Case("ExecStart=<exit 3>\n" + _TAIL, ends="failed"),
    "simple-term": Case("ExecStart=<kill TERM>\n" + _TAIL),
    "simple-killed": Case("ExecStart=<kill USR1>\n" + _TAIL, ends="failed"),
    "simple-ignored": Case("ExecStart=-<exit 3>\n" + _TAIL),
    "simple-success-status": Case("SuccessExitStatus=3\nExecStart=<exit 3>\n" + _TAIL),
    "simple-remains": Case("RemainAfterExit=yes\nExecStart=<exit 0>\n" + _TAIL, ends="exited"),
    "simple-remains-fails": Case(
        "RemainAfterExit=yes\nExecStart=<exit 1>\n" + _TAIL, ends="failed"
    ),
    "exec-missing": Case("Type=exec\nExecStart=/no/such/program\n" + _TAIL, ends="failed"),
    "exec-stays": Case(
        "Type=exec\nExecStart=<forever>\n" + _TAIL, [("running", "ExecStart-0", "stop")]
    ),
    "runtime": Case(
        "RuntimeMaxSec=500ms\nExecStart=<on TERM exit 0; forever>\n" + _TAIL, ends="failed"
    ),
    "runtime-over-reload": Case(
        "RuntimeMaxSec=2s\nExecStart=<on TERM exit 0; forever>\nExecReload=<sleep 1.5>\n" + _TAIL,
        [("running", "ExecStart-0", "reload")],
        ends="failed",
    ),
    # --- after the start ---
    "post-fails": Case(
        "ExecStart=<forever>\nExecStartPost=<exit 1>\nExecStartPost=<exit 0>\n" + _TAIL,
        ends="failed",
    ),
    "post-late": Case(
        "TimeoutStartSec=700ms\nExecStart=<forever>\nExecStartPost=<forever>\n" + _TAIL,
        ends="failed",
    ),
    "post-main-ends": Case("ExecStart=<exit 0>\nExecStartPost=<sleep 0.5>\n" + _TAIL),
    "post-main-fails": Case(
        "ExecStart=<exit 5>\nExecStartPost=<sleep 0.5>\nExecStartPost=<exit 0>\n" + _TAIL,
        ends="failed",
    ),
    "post-main-remains": Case(
        "RemainAfterExit=yes\nExecStart=<exit 0>\nExecStartPost=<sleep 0.5>\n", ends="exited"
    ),
    "post-main-ends-stopped": Case(
        "ExecStart=<exit 0>\nExecStartPost=<on TERM exit 0; forever>\n" + _TAIL,
        [("start-post", "ExecStartPost-0", "stop")],
    ),
    "post-stopped": Case(
        "ExecStart=<forever>\nExecStartPost=<forever>\n" + _TAIL,
        [("start-post", "ExecStartPost-0", "stop")],
        ends="failed",
    ),
    # --- it says so ---
    "notify-ends": Case("Type=notify\nExecStart=<say READY=1; sleep 0.3>\n" + _TAIL),
    "notify-never": Case("Type=notify\nExecStart=<exit 0>\n" + _TAIL, ends="failed"),
    "notify-never-fails": Case("Type=notify\nExecStart=<exit 2>\n" + _TAIL, ends="failed"),
    "notify-never-ignored": Case("Type=notify\nExecStart=-<exit 2>\n" + _TAIL, ends="failed"),
    "notify-late": Case(
        "Type=notify\nTimeoutStartSec=600ms\nExecStart=<forever>\n" + _TAIL, ends="failed"
    ),
    "notify-extends": Case(
        "Type=notify\nTimeoutStartSec=800ms\n"
        "ExecStart=<say EXTEND_TIMEOUT_USEC=3000000; sleep 1.2; say READY=1; exit 0>\n" + _TAIL
    ),
    "notify-stopped": Case(
        "Type=notify\nExecStart=<on TERM exit 0; forever>\n" + _TAIL,
        [("start", "ExecStart-0", "stop")],
        ends="failed",
    ),
    "notify-stopping": Case(
        "Type=notify\nExecStart=<say READY=1; say STOPPING=1; sleep 0.4>\n" + _TAIL
    ),
    "notify-stopping-fails": Case(
        "Type=notify\nExecStart=<say READY=1; say STOPPING=1; sleep 0.4; exit 1>\n" + _TAIL,
        ends="failed",
    ),
    "notify-stopping-late": Case(
        "Type=notify\nTimeoutStopSec=500ms\nExecStart=<say READY=1; say STOPPING=1; forever>\n"
        + _TAIL,
        ends="failed",
    ),
    "notify-stopping-early": Case(
        "Type=notify\nExecStart=<say STOPPING=1; sleep 0.3>\n" + _TAIL, ends="failed"
    ),
    "notify-stopping-in-post": Case(
        "Type=notify\nExecStart=<say READY=1; sleep 0.3; say STOPPING=1; sleep 0.6>\n"
        "ExecStartPost=<sleep 0.6>\n" + _TAIL
    ),
    "watchdog": Case(
        "Type=notify\nWatchdogSec=400ms\nExecStart=<on ABRT exit 0; say READY=1; forever>\n"
        + _TAIL,
        ends="failed",
    ),
    "watchdog-told": Case(
        "Type=notify\nWatchdogSec=700ms\nExecStart=<say READY=1; sleep 0.4; say WATCHDOG=1; "
        "sleep 0.4; say WATCHDOG=1; sleep 0.4; exit 0>\n" + _TAIL,
    ),
    "watchdog-later": Case(
        "Type=notify\nExecStart=<on ABRT exit 0; say READY=1; say WATCHDOG_USEC=300000; forever>\n",
        ends="failed",
    ),
    "watchdog-trigger": Case(
        "Type=notify\nExecStart=<on ABRT exit 0; say READY=1; say WATCHDOG=trigger; forever>\n"
        + _TAIL,
        ends="failed",
    ),
    "watchdog-trigger-in-start": Case(
        "Type=notify\nExecStart=<on ABRT exit 0; say WATCHDOG=trigger; forever>\n" + _TAIL,
        ends="failed",
    ),
    "watchdog-deaf": Case(
        "Type=notify\nWatchdogSec=300ms\nTimeoutAbortSec=300ms\n"
        "ExecStart=<on ABRT nothing; say READY=1; forever>\n" + _TAIL,
        ends="failed",
    ),
    "watchdog-stopped": Case(
        "Type=notify\nWatchdogSec=300ms\nTimeoutAbortSec=20s\n"
        "ExecStart=<on ABRT nothing; on TERM exit 0; say READY=1; forever>\n" + _TAIL,
        [("stop-watchdog", "", "stop")],
        ends="failed",
    ),
    # --- reload ---
    "reload": Case(
        "ExecStart=<forever>\nExecReload=<exit 0>\nExecReload=<sleep 0.2>\n" + _TAIL,
        [("running", "ExecStart-0", "reload"), ("running", "ExecReload-1", "stop")],
    ),
    "reload-fails": Case(
        "ExecStart=<forever>\nExecReload=<exit 1>\nExecReload=<exit 0>\n",
        [("running", "ExecStart-0", "reload")],
        ends="running",
    ),
    "reload-late": Case(
        "TimeoutStartSec=500ms\nExecStart=<forever>\nExecReload=<on TERM nothing; forever>\n"
        + _TAIL,
        [("running", "ExecStart-0", "reload"), ("running", "ExecReload-0", "stop")],
    ),
    "reload-stopped": Case(
        "ExecStart=<forever>\nExecReload=<forever>\n" + _TAIL,
        [("running", "ExecStart-0", "reload"), ("reload", "ExecReload-0", "stop")],
        ends="failed",
    ),
    "reload-main-ends": Case(
        "ExecStart=<on HUP exit 0; forever>\nExecReload=/bin/kill -HUP $MAINPID\n"
        "ExecReload=<sleep 0.5>\n" + _TAIL,
        [("running", "ExecStart-0", "reload")],
    ),
    "reload-main-fails": Case(
        "ExecStart=<on HUP exit 6; forever>\nExecReload=/bin/kill -HUP $MAINPID\n"
        "ExecReload=<sleep 0.5>\n" + _TAIL,
        [("running", "ExecStart-0", "reload")],
        ends="failed",
    ),
    "reload-by-itself": Case(
        "Type=notify\nExecStart=<say READY=1; say RELOADING=1; sleep 0.4; say READY=1; sleep 0.3>\n"
        + _TAIL,
    ),
    "reload-by-itself-late": Case(
        "Type=notify\nTimeoutStartSec=700ms\n"
        "ExecStart=<say READY=1; sleep 0.1; say RELOADING=1; sleep 1>\n" + _TAIL,
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
        ends="failed",
    ),
    "reload-with-word": Case(
        "Type=notify\nExecStart=<on HUP say RELOADING=1; on USR1 say READY=1; on TERM exit 0; "
        "say READY=1; forever>\n"
        "ExecReload=/bin/kill -HUP $MAINPID\nExecReload=<sleep 0.3>\n" + _TAIL,
        [("running", "ExecStart-0", "reload"), ("reload", "ExecReload-1", "kill --signal=USR1")],
        ends="running",
    ),
    # --- stop ---
    "stop-command-fails": Case(
        "ExecStart=<forever>\nExecStop=<exit 1>\nExecStop=<exit 0>\nExecStopPost=<exit 0>\n",
        [("running", "ExecStart-0", "stop")],
        ends="failed",
    ),
    "stop-command-ends-it": Case(
        "ExecStart=<on USR1 exit 0; forever>\nExecStop=/bin/kill -USR1 $MAINPID\n"
        "ExecStop=<sleep 0.3>\n",
        [("running", "ExecStart-0", "stop")],
    ),
    "stop-fails": Case(
        "ExecStart=<on TERM exit 1; forever>\n" + _TAIL,
        [("running", "ExecStart-0", "stop")],
        ends="failed",
    ),
    "stop-ignored": Case(
        "TimeoutStopSec=500ms\nExecStart=<on TERM nothing; forever>\n" + _TAIL,
        [("running", "ExecStart-0", "stop")],
        ends="failed",
    ),
    "stop-spared": Case(
        "SendSIGKILL=no\nTimeoutStopSec=400ms\nExecStart=<on TERM nothing; forever>\n" + _TAIL,
        [("running", "ExecStart-0", "stop")],
        ends="failed",
    ),
    "stop-hangs": Case(
        "TimeoutStopSec=600ms\nExecStart=<forever>\nExecStop=<forever>\nExecStopPost=<exit 0>\n",
        [("running", "ExecStart-0", "stop")],
        ends="failed",
    ),
    "stop-hangs-deaf": Case(
        "TimeoutStopSec=500ms\nExecStart=<forever>\nExecStop=<on TERM nothing; forever>\n",
        [("running", "ExecStart-0", "stop")],
        ends="failed",
    ),
    "stop-post-hangs": Case(
        "TimeoutStopSec=600ms\nExecStart=<forever>\nExecStopPost=<on TERM nothing; forever>\n",
        [("running", "ExecStart-0", "stop")],
        ends="failed",
    ),
    "stop-post-fails": Case(
        "ExecStart=<exit 0>\nExecStopPost=<exit 2>\nExecStopPost=<exit 0>\n", ends="failed"
    ),
    "stop-post-ignored": Case(
        "ExecStart=<exit 0>\nExecStopPost=-<exit 2>\nExecStopPost=<exit 0>\n"
    ),
    "first-failure-counts": Case(
        "ExecStart=<on TERM exit 1; say READY=1; forever>\nExecStop=<kill KILL>\n"
        "ExecStopPost=<exit 2>\nNotifyAccess=all\n",
        [("running", "ExecStart-0", "stop")],
        ends="failed",
    ),
    # --- restart ---
    **{
        f"restart-{rule}-{name}": Case(
            f"Restart={rule}\nRestartSec=10ms\nExecStart=<{steps}>\n",
            unit="StartLimitBurst=2\nStartLimitIntervalSec=60s\n",
            ends="?",
        )
        for rule in ("always", "on-success", "on-failure", "on-abnormal", "on-abort")
        for name, steps in (("clean", "exit 0"), ("status", "exit 1"), ("signal", "kill USR1"))
    },
    "restart-prevented": Case(
        "Restart=always\nRestartPreventExitStatus=4\nExecStart=<exit 4>\n", ends="failed"
    ),
    "restart-forced": Case(
        "Restart=no\nRestartSec=10ms\nRestartForceExitStatus=USR1\nExecStart=<kill USR1>\n",
        unit="StartLimitBurst=2\nStartLimitIntervalSec=60s\n",
        ends="failed",
    ),
    "restart-watchdog": Case(
        "Type=notify\nRestart=on-watchdog\nRestartSec=10ms\nWatchdogSec=300ms\n"
        "ExecStart=<on ABRT exit 0; say READY=1; forever>\n",
        unit="StartLimitBurst=2\nStartLimitIntervalSec=60s\n",
        ends="failed",
    ),
    "restart-late": Case(
        "Type=notify\nRestart=on-abnormal\nRestartSec=10ms\nTimeoutStartSec=500ms\n"
        "ExecStart=<forever>\n",
        unit="StartLimitBurst=2\nStartLimitIntervalSec=60s\n",
        ends="failed",
    ),
    "restart-not-after-stop": Case(
        "Restart=always\nExecStart=<forever>\n", [("running", "ExecStart-0", "stop")]
    ),
}

_PROGRAM = re.compile(r"^(Exec\w+)=(-?)<(.*)>$", re.MULTILINE)


def _unit(name: str, case: Case, marks: str) -> str:
    """Return the unit file of a case."""
    counts: dict[str, itertools.count[int]] = {}

    def program(match: re.Match[str]) -> str:
        directive, prefix, steps = match.groups()
        index = next(counts.setdefault(directive, itertools.count()))
        mark = f"{marks}/{name}.{directive}-{index}"
        return f'{directive}={prefix}{sys.executable} -I -S {ACTOR} {mark} "{steps}"'

    file = "EnvironmentFile=/no/such/file\n" if case.unable else ""
    lines = re.sub(
        r"^(Exec\w+)=(?=/)",
        lambda match: (next(counts.setdefault(match[1], itertools.count())), match[0])[1],
        case.lines,
        flags=re.MULTILINE,
    )
    return (
        f"[Unit]\nDefaultDependencies=no\n{case.unit}[Service]\nStandardError=null\n{file}"
        + _PROGRAM.sub(program, lines)
    )
