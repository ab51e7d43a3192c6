"""What the real systemd makes of small units, and what `Life` and `UnitLife` make of them.

Each case is run twice: by systemd, with processes that do what the case says, and by the machine,
with processes that are simulated in a time of their own. The states that a unit goes through, the
commands that are run, the result and the number of restarts are the same.
"""

import collections
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from sockact.unitfile.load import load_service, load_spec
from tests.conformance.namespaces import Systemd, missing_systemd
from tests.helpers import SECONDS
from tests.supervise.simulated import Case, Seen, ServiceSimulation, SocketSimulation

ACTOR = Path(__file__).with_name("actor.py")
OUT = "/run/out"

_STOPS = "ExecStopPre=<exit 0>\nExecStopPost=<exit 0>\n"
_TAIL = "ExecStop=<exit 0>\nExecStopPost=<exit 0>\n"

SERVICES: dict[str, Case] = {
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
        "Type=oneshot\nTimeoutStartSec=2s\nExecStart=<sleep 0.5>\nExecStart=<forever>\n" + _TAIL,
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
        "TimeoutStartSec=4s\nExecStartPre=<sleep 2.1>\nExecStartPre=<sleep 2.1>\n"
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


_DEAF = "<on TERM nothing; forever>"

# Version 252 sends SIGKILL in stop-pre-sigterm; so nothing here listens for SIGTERM there.
SOCKETS: dict[str, Case] = {
    "plain": Case("", [("listening", "", "stop")]),
    "all": Case(
        "ExecStartPre=<exit 0>\nExecStartPre=<exit 0>\nExecStartPost=<exit 0>\n"
        "ExecStopPre=<exit 0>\nExecStopPre=<exit 0>\nExecStopPost=<exit 0>\n",
        [("listening", "", "stop")],
    ),
    "ignored": Case(
        "ExecStartPre=-<exit 1>\nExecStartPost=-<kill KILL>\nExecStopPre=-<exit 2>\n"
        "ExecStopPost=-<exit 3>\n",
        [("listening", "", "stop")],
    ),
    "pre-fails": Case("ExecStartPre=<exit 0>\nExecStartPre=<exit 4>\n" + _STOPS),
    "pre-late": Case("TimeoutSec=600ms\nExecStartPre=<forever>\n" + _STOPS),
    "pre-deaf": Case(f"TimeoutSec=1\nExecStartPre={_DEAF}\n" + _STOPS),
    "pre-stopped": Case(
        "ExecStartPre=<forever>\n" + _STOPS, [("start-pre", "ExecStartPre-0", "stop")]
    ),
    "pre-each-its-time": Case(
        "TimeoutSec=4s\nExecStartPre=<sleep 2.1>\nExecStartPre=<sleep 2.1>\n",
        [("listening", "", "stop")],
    ),
    "not-open": Case("ListenStream=192.0.2.1:9\nExecStartPost=<exit 0>\n" + _STOPS),
    "post-fails": Case("ExecStartPost=<exit 5>\nExecStartPost=<exit 0>\n" + _STOPS),
    # When it is late, systemd begins with ExecStopPre= beside it; see `sockact.supervise.unit`.
    "post-stopped": Case(
        "ExecStartPost=<forever>\n" + _STOPS, [("start-post", "ExecStartPost-0", "stop")]
    ),
    "stop-fails": Case(
        "ExecStopPre=<exit 6>\nExecStopPre=<exit 0>\nExecStopPost=<exit 7>\n",
        [("listening", "", "stop")],
    ),
    "stop-post-late": Case(
        "TimeoutSec=600ms\nExecStopPost=<forever>\n", [("listening", "", "stop")]
    ),
    "service": Case(
        "",
        [("listening", "", "start @"), ("running", "", "stop @"), ("listening", "", "start @"),
         ("running", "", "stop")],
    ),
}  # fmt: skip

CASES = {f"{name}.service": case for name, case in SERVICES.items()} | {
    f"{name}.socket": case for name, case in SOCKETS.items()
}

_PROGRAM = re.compile(r"(Exec\w+)=(-?)(<(.*)>|/.*)")


def _lines(name: str, case: Case) -> str:
    """Return the main section of a case; its programs put their marks into a directory."""
    counts: collections.Counter[str] = collections.Counter()
    lines = []
    for line in case.lines.splitlines():
        if match := _PROGRAM.fullmatch(line):
            directive, prefix, program, steps = match.groups()
            if steps is not None:
                mark = f"{OUT}/{name}.{directive}-{counts[directive]}"
                program = f'{sys.executable} -I -S {ACTOR} {mark} "{steps}"'
            counts[directive] += 1
            lines.append(f"{directive}={prefix}{program}\n")
        else:
            lines.append(f"{line}\n")
    return "".join(lines)


def _write(units: Path) -> None:
    """Write the unit files of all cases."""
    head = "[Unit]\nDefaultDependencies=no\n"
    (units / "test.target").write_text(head, encoding="ascii")
    for name, case in CASES.items():
        text = f"{head}{case.unit}"
        if name.endswith(".service"):
            text += "[Service]\nStandardError=null\n"
            text += "EnvironmentFile=/no/such/file\n" if case.unable else ""
        else:
            service = f"of-{name.removesuffix('.socket')}.service"
            (units / service).write_text(
                f"{head}[Service]\nExecStart=/bin/sleep 1000\n", encoding="ascii"
            )
            text += f"[Socket]\nListenStream=/run/t/{name}\nService={service}\n"
        (units / name).write_text(text + _lines(name, case), encoding="utf-8")


def _ours(units: Path) -> dict[str, Seen]:
    """Return what the machines do."""
    environ = {"SYSTEMD_UNIT_PATH": str(units)}
    return {
        name: (
            ServiceSimulation(load_service(name, environ=environ), case).run()
            if name.endswith(".service")
            else SocketSimulation(load_spec(name, environ=environ), case).run()
        )
        for name, case in CASES.items()
    }


# --- systemd --------------------------------------------------------------------------------------

_CHANGED = re.compile(r"([\w-]+\.\w+): Changed ([\w-]+) -> ([\w-]+)")
_RESULT = re.compile(r"([\w-]+\.\w+): (?:Failed with result|Skipped due to) '([\w-]+)'")
_RUNS = re.compile(r"([\w-]+\.\w+): About to execute (.*)")
_RESTARTS = re.compile(r"([\w-]+\.\w+): Scheduled restart job, restart counter is at (\d+)")


def _real(units: Path, ours: Mapping[str, Seen]) -> dict[str, Seen]:
    """Run all cases at once, until each stands where it stands in `ours`."""
    with Systemd(units) as machine:
        machine.run("systemctl", "log-level", "debug")
        machine.run("systemctl", "start", "--no-block", *CASES)
        todo = {name: list(case.does) for name, case in CASES.items()}
        deadline = time.monotonic() + SECONDS
        settled = 0
        while settled < 2 and time.monotonic() < deadline:
            states = _states(machine)
            told = _tell(machine, todo, states)
            done = not told and all(states[name] == seen.path[-1] for name, seen in ours.items())
            settled = settled + 1 if done else 0
    found = {name: Seen([], [], "success") for name in CASES}
    for line in machine.said.splitlines():
        for pattern in (_CHANGED, _RESULT, _RUNS, _RESTARTS):
            if (match := pattern.search(line)) and match[1] in found:
                found[match[1]] = _more(found[match[1]], pattern, match)
    return found


def _tell(
    machine: Systemd, todo: dict[str, list[tuple[str, str, str]]], states: Mapping[str, str]
) -> bool:
    """Tell systemctl what it is time for; return whether there was anything."""
    verbs: dict[str, list[str]] = {}
    for name, does in todo.items():
        if not does or states[name] != does[0][0]:
            continue
        _, mark, verb = does[0]
        if mark and not machine.path(f"{OUT}/{name}.{mark}").exists():
            continue
        target = f"of-{name.removesuffix('.socket')}.service" if "@" in verb else name
        verbs.setdefault(verb.removesuffix(" @"), []).append(target)
        del does[0]
    for verb, names in verbs.items():
        machine.run("systemctl", "--no-block", *verb.split(), *names)
    return bool(verbs)


def _states(machine: Systemd) -> dict[str, str]:
    """Return the states; of what has a job before it, that it has one."""
    done = machine.run("systemctl", "show", "--property=Id,SubState,Job", *CASES)
    blocks = (
        dict(line.split("=", 1) for line in block.split("\n"))
        for block in done.stdout.strip().split("\n\n")
    )
    return {
        block["Id"]: "has a job"
        if block.get("Job") and block["SubState"] in ("dead", "failed")
        else block["SubState"]
        for block in blocks
    }


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
    mark = re.search(rf"{OUT}/[\w.-]+\.(Exec\w+-\d)", command)
    return mark[1] if mark else command.partition(" ")[0]


# --- both -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Seen], dict[str, Seen]]:
    """What systemd makes of all cases, and what the machines do."""
    if reason := missing_systemd():
        pytest.skip(reason)
    units = tmp_path_factory.mktemp("units")
    _write(units)
    ours = _ours(units)
    return _real(units, ours), ours


@pytest.mark.parametrize("name", CASES)
def test_same_life(both: tuple[dict[str, Seen], dict[str, Seen]], name: str) -> None:
    """The machine goes the way that systemd goes."""
    real, ours = both
    assert ours[name] == real[name]
