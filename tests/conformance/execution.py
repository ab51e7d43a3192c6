"""What the processes of a service see, on one side: ``python execution.py real|ours UNITS``.

Each case of `CASES` is a socket unit, if there is one, and a service whose commands are probes. All
are run at once, by systemd or by one ``sockact run`` of a directory. Run inside a machine of
`tests.conformance.namespaces`; UNITS is a directory that `install` has filled. Prints a JSON object:
probe to its report, or null if that command was never run.
"""

import ast
import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.conformance import started
from tests.conformance.driver import OUT, install_probe, probe_command

SECONDS = 20.0
RENDEZVOUS = "/run/it.rdv"
_ALONE = "[Unit]\nDefaultDependencies=no\n"
_PROBE = re.compile(r"<([\w-]+)>")
# The interpreter may be where only root gets to, and its library beside it.
_HERE = Path("/run/python")
_PYTHON = (
    f"env LD_LIBRARY_PATH={_HERE}/lib"
    f" {_HERE / Path(sys.executable).resolve().relative_to(Path(sys.base_prefix).resolve())}"
)
_CHANGING = ("INVOCATION_ID", "SYSTEMD_EXEC_PID", "LC_CTYPE")

Report = dict[str, Any]

# Every command of a service.
_ALL = "".join(
    f"{directive}=<{directive}>\n"
    for directive in ("ExecCondition", "ExecStartPre", "ExecStart", "ExecStartPost", "ExecStop",
                      "ExecStopPost")
)  # fmt: skip
_TWO = "ListenStream=/run/t/%N\nListenDatagram=/run/t/%N.d\n"
_ONE = "ListenStream=/run/t/%N\n"

# Lines of [Socket], and of [Service]; <x> is a probe. Without Type= it is oneshot.
CASES: dict[str, tuple[str, str]] = {
    "plain": ("", "ExecStart=<start>"),
    "simple": ("", "Type=simple\nExecStart=<start>"),
    "exec": ("", "Type=exec\nExecStart=<start>"),
    "several": ("", "ExecStart=<one>\nExecStart=<two>"),
    # Who it is.
    "user": ("", "User=nobody\n" + _ALL),
    "user-number": ("", "User=65534\nExecStart=<start>"),
    "user-and-group": ("", "User=games\nGroup=adm\nSupplementaryGroups=daemon 4\nExecStart=<start>"),
    "user-in-groups": ("", "User=games\nSupplementaryGroups=adm daemon\nExecStart=<start>"),
    "root": ("", "User=root\nExecStart=<start>"),
    "group": ("", "Group=daemon\nExecStart=<start>"),
    "group-number": ("", "Group=1\nExecStart=<start>"),
    "groups": ("", "SupplementaryGroups=daemon games\nExecStart=<start>"),
    "privileged": ("", "User=nobody\nUMask=077\nWorkingDirectory=/run/t\nNice=3\n"
                   "ExecStartPre=+<pre>\nExecStart=<start>\nExecStartPost=!<post>"),
    "privileged-main": ("", "User=nobody\nLimitNPROC=300\nExecStart=+<start>"),
    "same-user-main": ("", "User=nobody\nSupplementaryGroups=daemon\nExecStart=!<start>"),
    "user-unknown": ("", "User=no-such-user\nExecStart=<start>"),
    "group-unknown": ("", "Group=no-such-group\nExecStart=<start>"),
    "user-without-entry": ("", "User=4242\nExecStart=<start>"),
    # Where it is, and what it may do.
    "directory": ("", "WorkingDirectory=/run/t\n" + _ALL),
    "directory-home": ("", "User=games\nWorkingDirectory=~\nExecStart=<start>"),
    "directory-of-root": ("", "WorkingDirectory=~\nExecStart=<start>"),
    "directory-missing": ("", "WorkingDirectory=/run/none\nExecStart=<start>"),
    "directory-optional": ("", "WorkingDirectory=-/run/none\nExecStart=<start>"),
    "directory-no-home": ("", "User=nobody\nWorkingDirectory=~\nExecStart=<start>"),
    "directory-not-ours": ("", "User=nobody\nWorkingDirectory=/run/private\nExecStart=<start>"),
    "umask": ("", "UMask=0137\n" + _ALL),
    "limits": ("", "LimitCPU=1000\nLimitFSIZE=1G\nLimitDATA=2G\nLimitSTACK=4M:8M\nLimitCORE=0:1M\n"
               "LimitRSS=3G\nLimitNOFILE=200:300\nLimitAS=4G\nLimitNPROC=5000\nLimitMEMLOCK=64K\n"
               "LimitLOCKS=50\nLimitSIGPENDING=60\nLimitMSGQUEUE=70000\nLimitNICE=+1\n"
               "LimitRTPRIO=5\nLimitRTTIME=1s\n" + _ALL),
    "limits-infinite": ("", "LimitCORE=infinity\nLimitCPU=infinity\nLimitMEMLOCK=infinity\n"
                        "LimitNOFILE=128:infinity\nExecStart=<start>"),
    "limits-of-a-user": ("", "User=nobody\nLimitNOFILE=100:200\nLimitCORE=0\nExecStart=<start>"),
    "nice": ("", "Nice=7\nOOMScoreAdjust=100\n" + _ALL),
    "nice-negative": ("", "Nice=-5\nOOMScoreAdjust=-100\nUser=nobody\nExecStart=<start>"),
    "sigpipe": ("", "IgnoreSIGPIPE=no\n" + _ALL),
    # Its variables.
    "environment": ("", "Environment=A=1 B=2\nUnsetEnvironment=PATH A\nPassEnvironment=LANG\n" + _ALL),
    "environment-over": ("", "User=games\nEnvironment=HOME=/x USER=y LOGNAME=z SHELL=/w PATH=/p\n"
                         "Environment=INVOCATION_ID=i LANG=l TERM=t\nExecStart=<start>"),
    "environment-over-ours": (_ONE, "NotifyAccess=all\nWatchdogSec=1min\nFileDescriptorStoreMax=2\n"
                              "Environment=NOTIFY_SOCKET=/n WATCHDOG_USEC=5 FDSTORE=7\n"
                              "Environment=LISTEN_FDNAMES=other\nExecStart=<start>"),
    "environment-over-count": (_TWO, "Environment=LISTEN_FDS=1\nExecStart=<start>"),
    "environment-over-pids": (_ONE, "WatchdogSec=1min\nType=simple\n"
                              "Environment=LISTEN_PID=x WATCHDOG_PID=y SYSTEMD_EXEC_PID=z\n"
                              "ExecStart=<start>"),
    "environment-unset": (_ONE, "User=games\nWatchdogSec=1min\nType=simple\nUnsetEnvironment=HOME "
                          "LISTEN_FDNAMES LISTEN_PID LISTEN_PIDFDID WATCHDOG_PID INVOCATION_ID\n"
                          "ExecStart=<start>"),
    "environment-unset-value": (_ONE, "UnsetEnvironment=LISTEN_FDNAMES=x PATH=/nothing\n"
                                "ExecStart=<start>"),
    # What it is told, and whom it may tell.
    "notify": ("", "Type=notify\n" + _ALL),
    "notify-access": ("", "NotifyAccess=exec\n" + _ALL),
    "notify-access-all": ("", "NotifyAccess=all\n" + _ALL),
    "watchdog": ("", "Type=simple\nWatchdogSec=20\n" + _ALL),
    "store": ("", "FileDescriptorStoreMax=3\n" + _ALL),
    "commands": (_TWO, _ALL),
    "stopped": (_ONE, "Type=simple\nExecStart=/bin/sleep 1000\nExecStop=<stop>\n"
                "ExecStopPost=<stop-post>"),
    "failed": (_ONE, "Type=simple\nExecStart=/bin/sh -c 'exit 3'\nExecStop=<stop>\n"
               "ExecStopPost=<stop-post>"),
    "killed": (_ONE, "Type=simple\nExecStart=/bin/sh -c 'kill -KILL $$$$'\n"
               "ExecStopPost=<stop-post>"),
    "no-condition": (_ONE, "ExecCondition=/bin/false\nExecStart=<start>\nExecStopPost=<stop-post>"),
    "pre-fails": (_ONE, "ExecStartPre=/bin/false\nExecStart=<start>\nExecStopPost=<stop-post>"),
    # Its sockets.
    "sockets": (_TWO, "ExecStart=<start>"),
    "sockets-non-blocking": (_TWO, "NonBlocking=yes\nExecStart=<start>"),
    "sockets-blocking": (_TWO, "NonBlocking=no\nExecStart=<start>"),
    "sockets-named": (_TWO + "FileDescriptorName=name", "ExecStart=<start>"),
    "sockets-of-others": ("", "Sockets=sockets.socket sockets-named.socket\nExecStart=<start>"),
    "sockets-and-others": (_ONE, "Sockets=sockets-named.socket\nExecStart=<start>"),
    "sockets-user": (_ONE + "SocketUser=games\nSocketMode=0600", "User=games\nExecStart=<start>"),
    "sockets-many": (_ONE + "".join(f"ListenFIFO=/run/t/%N.{n}\n" for n in range(20)),
                     "ExecStart=<start>"),
    "sockets-privileged": (_ONE, "User=nobody\nExecStart=+<start>"),
    "other-service": (_ONE + "Service=started-by-other.service", ""),
    "started-by-other": ("", "ExecStart=<start>"),
    # Its standard streams.
    "streams": ("", "StandardOutput=null\n" + _ALL),
    "streams-null": ("", "StandardOutput=null\nStandardError=null\nExecStart=<start>"),
    "streams-default": ("", "ExecStart=<start>"),
    "streams-inherit": ("", "StandardOutput=inherit\nExecStart=<start>"),
    "streams-file": ("", "StandardInput=file:/run/t/plain\nStandardOutput=file:/run/out/%N.o\n"
                     "StandardError=file:/run/out/%N.e\nExecStart=<start>"),
    "streams-one-file": ("", "StandardInput=file:/run/out/%N.o\nStandardOutput=file:/run/out/%N.o\n"
                         "StandardError=file:/run/out/%N.o\nExecStart=<start>"),
    "streams-append": ("", "StandardOutput=append:/run/out/%N.o\n"
                       "StandardError=append:/run/out/%N.o\n" + _ALL),
    "streams-truncate": ("", "StandardOutput=truncate:/run/out/%N.o\n"
                         "StandardError=truncate:/run/out/%N.e\nExecStart=<start>"),
    "streams-of-a-user": ("", "User=nobody\nUMask=027\nStandardOutput=append:/run/out/%N.o\n"
                          "StandardError=inherit\nExecStart=<start>"),
    "streams-error-only": ("", "StandardOutput=null\nStandardError=inherit\nExecStart=<start>"),
    "streams-missing": ("", "StandardInput=file:/run/none\nExecStart=<start>"),
    "streams-no-directory": ("", "StandardOutput=append:/run/none/x\nExecStart=<start>"),
    "streams-input-inherited": ("", "StandardInput=file:/run/t/plain\nStandardOutput=inherit\n"
                                "StandardError=inherit\nExecStart=<start>"),
    "streams-socket": (_ONE, "StandardInput=socket\nExecStart=<start>"),
    "streams-socket-all": (_ONE, "StandardInput=socket\nStandardOutput=socket\nStandardError=socket\n"
                           "ExecStart=<start>"),
    "streams-socket-output": (_ONE, "StandardOutput=socket\nStandardError=null\nExecStart=<start>"),
    "streams-socket-null": (_ONE, "StandardInput=socket\nStandardOutput=null\nExecStart=<start>"),
    "streams-socket-commands": (_ONE, "StandardInput=socket\nStandardError=null\n" + _ALL),
    "streams-socket-non-blocking": (_ONE, "StandardInput=socket\nNonBlocking=yes\nExecStart=<start>"),
    "streams-socket-two": (_TWO, "StandardInput=socket\nExecStart=<start>"),
    "streams-socket-none": ("", "StandardInput=socket\nExecStart=<start>"),
    "streams-fd": (_TWO + "FileDescriptorName=stdin", "StandardInput=fd\nExecStart=<start>"),
    "streams-fd-named": (_TWO + "FileDescriptorName=x", "StandardInput=fd:x\nStandardOutput=fd:x\n"
                         "StandardError=null\nExecStart=<start>"),
    "streams-fd-commands": (_ONE + "FileDescriptorName=x", "StandardInput=fd:x\n"
                            "StandardOutput=null\n" + _ALL),
    "streams-fd-unknown": (_ONE, "StandardInput=fd:nothing\nExecStart=<start>"),
    # A process for each connection.
    "accept": (_ONE + "Accept=yes", "ExecStart=<start>"),
    "accept-all": (_ONE + "Accept=yes", "User=games\nNotifyAccess=all\n" + _ALL),
    "accept-non-blocking": (_ONE + "Accept=yes", "NonBlocking=yes\nExecStart=<start>"),
    "accept-inetd": (_ONE + "Accept=yes", "StandardInput=socket\nStandardError=null\n" + _ALL),
    "accept-output": (_ONE + "Accept=yes", "StandardOutput=socket\nExecStart=<start>"),
    "accept-name": (_ONE + "Accept=yes", "Environment=NAME=%p WHAT=%n\nUnsetEnvironment=WHAT\n"
                    "WorkingDirectory=/run/t\nUMask=027\nNice=1\nExecStart=<start>"),
}  # fmt: skip


def probes() -> dict[str, list[str]]:
    """Return the names of the probes of each case."""
    found = {}
    for name, (_, service) in CASES.items():
        found[name] = [f"{name}.{tag}" for tag in dict.fromkeys(_PROBE.findall(service))]
    return found


def _accepts(case: str) -> bool:
    return "Accept=yes" in CASES[case][0]


def _service(case: str) -> str:
    def command(match: re.Match[str]) -> str:
        text = probe_command(OUT / f"{case}.{match[1]}", _PYTHON).replace('"', '\\"')
        return f'/bin/sh -c "{text}"'

    lines = CASES[case][1]
    kind = "" if "Type=" in lines else "Type=oneshot\n"
    return f"[Service]\n{kind}{_PROBE.sub(command, lines)}\n"


def install(units: Path) -> None:
    """Write all units into a directory, which is made, with what the real systemd needs."""
    units.mkdir()
    (units / "test.target").write_text(_ALONE, encoding="ascii")
    for kind in ("socket", "service"):
        (units / f"{kind}.d").mkdir()
        (units / f"{kind}.d" / "00-alone.conf").write_text(_ALONE, encoding="ascii")
    for case, (lines, service) in CASES.items():
        if lines:
            (units / f"{case}.socket").write_text(f"[Socket]\n{lines}\n", encoding="utf-8")
        if service:
            template = "@" if _accepts(case) else ""
            text = _service(case)
            (units / f"{case}{template}.service").write_text(text, encoding="utf-8")
    files = units / "files"
    files.mkdir()
    for name, data in started.FILES.items():
        (files / name).write_bytes(data)
    for case in started.STARTED:
        text = started.text(case, files, OUT).replace(str(OUT / case), str(OUT / f"started-{case}"))
        (units / f"started-{case}.service").write_text(text, encoding="utf-8")


# --- the sides ------------------------------------------------------------------------------------

_TRIGGERED = {case for case, (lines, _) in CASES.items() if lines} | {"started-by-other"}
_OVER = frozenset(["dead", "failed", "inactive"])
_STAYS = "stopped.service"


class _Real:
    """systemd, which is process 1 here."""

    def _systemctl(self, *words: str) -> str:
        return subprocess.run(
            ["systemctl", *words], capture_output=True, text=True, timeout=60, check=False
        ).stdout

    def begin(self, _units: Path, sockets: Iterable[str], services: Iterable[str]) -> None:
        self._systemctl("start", *sockets)
        self._systemctl("start", "--no-block", *services)

    def states(self, services: Iterable[str]) -> dict[str, str]:
        shown = self._systemctl("show", "--property=Id,SubState", *services)
        blocks = (dict(line.split("=", 1) for line in b.splitlines()) for b in shown.split("\n\n"))
        return {block["Id"]: block["SubState"] for block in blocks}

    def stop(self, *services: str) -> None:
        self._systemctl("stop", *services)

    def end(self) -> None:
        pass


class _Ours:
    """One ``sockact run`` of all units."""

    def begin(self, units: Path, _sockets: Iterable[str], services: Iterable[str]) -> None:
        with open("/run/out/said", "wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sockact", "run", "--log-format=text", "--rendezvous",
                 RENDEZVOUS, str(units)],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                cwd="/run/out", env={**os.environ, "PYTHONPATH": sys.path[0]},
                preexec_fn=_limit_files,  # noqa: PLW1509 - there are no threads
            )  # fmt: skip
        deadline = time.monotonic() + SECONDS
        while "sockets open" not in Path("/run/out/said").read_text(encoding="utf-8"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(Path("/run/out/said").read_text(encoding="utf-8"))
            time.sleep(0.01)
        # Those that no socket unit starts run already.
        started = [name for name in services if name.removesuffix(".service") in _TRIGGERED]
        self._control("start", *started)

    def _control(self, command: str, *names: str) -> Mapping[str, Any]:
        import sockact

        return sockact.control(RENDEZVOUS, command, {"units": names})

    def states(self, services: Iterable[str]) -> dict[str, str]:
        report = self._control("status", *services)["report"]
        return {one["name"]: one["state"] for one in report["services"]}

    def stop(self, *services: str) -> None:
        self._control("stop", *services)

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(SECONDS)


def _limit_files() -> None:
    """Have a limit that is not systemd's."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (700, hard))


def _connect(path: str) -> None:
    """Connect, and wait until that connection has been served."""
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        client.settimeout(SECONDS)
        client.connect(path)
        client.recv(1)


def _until_over(side: _Real | _Ours, services: Iterable[str]) -> None:
    deadline = time.monotonic() + SECONDS
    while left := [n for n, state in side.states(services).items() if state not in _OVER]:
        if time.monotonic() > deadline:
            raise SystemExit(f"these do not end: {' '.join(left)}")
        time.sleep(0.05)


def main() -> None:
    """Run all cases of one side."""
    which, units = sys.argv[1], Path(sys.argv[2])
    os.umask(0o022)
    install_probe()
    _HERE.mkdir()
    subprocess.run(["mount", "--bind", sys.base_prefix, str(_HERE)], check=True)
    OUT.chmod(0o1777)
    Path("/run/t/plain").write_text("plain\n", encoding="ascii")
    Path("/run/private").mkdir(mode=0o700)
    sockets = [f"{case}.socket" for case, (lines, _) in CASES.items() if lines]
    services = [f"{case}.service" for case, (_, lines) in CASES.items() if lines and not _accepts(case)]
    services += [f"started-{case}.service" for case in started.STARTED]
    side = {"real": _Real, "ours": _Ours}[which]()
    side.begin(units, sockets, services)
    for case in filter(_accepts, CASES):
        _connect(f"/run/t/{case}")
    _until_over(side, [name for name in services if name != _STAYS])
    side.stop(_STAYS)
    _until_over(side, [_STAYS])
    side.end()
    found: dict[str, object] = {}
    for names in probes().values():
        for name in names:
            path = OUT / name
            found[name] = ast.literal_eval(path.read_text("ascii")) if path.exists() else None
    for case in started.STARTED:
        path = OUT / f"started-{case}"
        if path.exists():
            report = json.loads(path.read_text("utf-8"))
            environ: dict[str, str] = report["environ"]
            report["environ"] = {
                name: "set" if name in _CHANGING else value for name, value in environ.items()
            }
            found[path.name] = report
        else:
            found[path.name] = None
    print(json.dumps(found))


if __name__ == "__main__":
    main()
