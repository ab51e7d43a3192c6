"""What the processes of a service see, on one side: ``python execution.py real|ours UNITS``.

Each case of `CASES` is a socket unit, if there is one, and a service whose commands are probes. All
are run at once, by systemd or by one ``sockact run`` of a directory. Run inside a machine of
`tests.conformance.namespaces`; UNITS is a directory that `install` has filled. Prints a JSON object:
probe to its report, or null if that command was never run.
"""

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
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.conformance import started
from tests.conformance.driver import OUT, install_probe, probe_command, probed

SECONDS = 20.0
RENDEZVOUS = "/run/it.rdv"
_ALONE = "[Unit]\nDefaultDependencies=no\n"
_PROBE = re.compile(r"<([\w-]+)>")
# The interpreter may be where only root gets to, and its library beside it.
_HERE = Path("/run/python")
_PYTHON = str(_HERE / Path(sys.executable).resolve().relative_to(Path(sys.base_prefix).resolve()))
_CHANGING = ("INVOCATION_ID", "SYSTEMD_EXEC_PID", "LC_CTYPE")

Report = dict[str, Any]

# Every command of a service.
_ALL = [
    f"{directive}=<{directive}>"
    for directive in ("ExecCondition", "ExecStartPre", "ExecStart", "ExecStartPost", "ExecStop",
                      "ExecStopPost")
]  # fmt: skip
_ONE = "ListenStream=/run/t/%N"
_TWO = [_ONE, "ListenDatagram=/run/t/%N.d"]

CASES: dict[str, tuple[str, str]] = {}
"""The lines of [Socket], and of [Service], in which ``<x>`` is a probe."""


def _case(name: str, *lines: str, socket: Iterable[str] = (), as_is: bool = False) -> None:
    """Make a case of lines of [Service] and of [Socket].

    Args:
        name: What it is called.
        lines: Those of [Service].
        socket: Those of [Socket].
        as_is: Leave out what other cases have, unless they say otherwise: they are oneshot, have no
            standard streams and blocking sockets.
    """
    more = []
    if lines and not as_is:
        for directive, line in (
            ("Type=", "Type=oneshot"),
            ("Standard", "StandardOutput=null\nStandardError=null"),
            ("NonBlocking=", "NonBlocking=no"),
        ):
            if not any(one.startswith(directive) for one in lines):
                more.append(line)
    CASES[name] = ("\n".join(socket), "\n".join([*more, *lines]))


_case("plain", "ExecStart=<start>", as_is=True)
_case("oneshot", "ExecStart=<start>")
_case("simple", "Type=simple", "ExecStart=<start>")
_case("exec", "Type=exec", "ExecStart=<start>")
_case("several", "ExecStart=<one>", "ExecStart=<two>")

# Who it is.
_case("user", "User=nobody", *_ALL)
_case("user-number", "User=65534", "ExecStart=<start>")
_case(
    "user-and-group", "User=games", "Group=adm", "SupplementaryGroups=daemon 4", "ExecStart=<start>"
)
_case("user-in-groups", "User=games", "SupplementaryGroups=adm daemon", "ExecStart=<start>")
_case("root", "User=root", "ExecStart=<start>")
_case("group", "Group=daemon", "ExecStart=<start>")
_case("group-number", "Group=1", "ExecStart=<start>")
_case("groups", "SupplementaryGroups=daemon games", "ExecStart=<start>")
_case(
    "privileged",
    "User=nobody",
    "UMask=077",
    "WorkingDirectory=/run/t",
    "Nice=3",
    "ExecStartPre=+<pre>",
    "ExecStart=<start>",
    "ExecStartPost=!<post>",
)
_case("privileged-main", "User=nobody", "LimitNPROC=300", "ExecStart=+<start>")
_case("same-user-main", "User=nobody", "SupplementaryGroups=daemon", "ExecStart=!<start>")
_case("user-unknown", "User=no-such-user", "ExecStart=<start>")
_case("group-unknown", "Group=no-such-group", "ExecStart=<start>")
_case("user-without-entry", "User=4242", "ExecStart=<start>")

# Where it is, and what it may do.
_case("directory", "WorkingDirectory=/run/t", *_ALL)
_case("directory-home", "User=games", "WorkingDirectory=~", "ExecStart=<start>")
_case("directory-of-root", "WorkingDirectory=~", "ExecStart=<start>")
_case("directory-missing", "WorkingDirectory=/run/none", "ExecStart=<start>")
_case("directory-optional", "WorkingDirectory=-/run/none", "ExecStart=<start>")
_case("directory-no-home", "User=nobody", "WorkingDirectory=~", "ExecStart=<start>")
_case("directory-not-ours", "User=nobody", "WorkingDirectory=/run/private", "ExecStart=<start>")
_case("umask", "UMask=0137", *_ALL)
_case(
    "limits",
    "LimitCPU=1000",
    "LimitFSIZE=1G",
    "LimitDATA=2G",
    "LimitSTACK=4M:8M",
    "LimitCORE=0:1M",
    "LimitRSS=3G",
    "LimitNOFILE=200:300",
    "LimitAS=4G",
    "LimitNPROC=5000",
    "LimitMEMLOCK=64K",
    "LimitLOCKS=50",
    "LimitSIGPENDING=60",
    "LimitMSGQUEUE=70000",
    "LimitNICE=+1",
    "LimitRTPRIO=5",
    "LimitRTTIME=1s",
    *_ALL,
)
_case(
    "limits-infinite",
    "LimitCORE=infinity",
    "LimitCPU=infinity",
    "LimitMEMLOCK=infinity",
    "LimitNOFILE=128:infinity",
    "ExecStart=<start>",
)
_case("limits-of-a-user", "User=nobody", "LimitNOFILE=100:200", "LimitCORE=0", "ExecStart=<start>")
_case("nice", "Nice=7", "OOMScoreAdjust=100", *_ALL)
_case("nice-negative", "Nice=-5", "OOMScoreAdjust=-100", "User=nobody", "ExecStart=<start>")
_case("sigpipe", "IgnoreSIGPIPE=no", *_ALL)

# Its variables.
_case(
    "environment", "Environment=A=1 B=2", "UnsetEnvironment=PATH A", "PassEnvironment=LANG", *_ALL
)
_case(
    "environment-over",
    "User=games",
    "Environment=HOME=/x USER=y LOGNAME=z SHELL=/w PATH=/p",
    "Environment=INVOCATION_ID=i LANG=l TERM=t",
    "ExecStart=<start>",
)
_case(
    "environment-over-ours",
    "NotifyAccess=all",
    "WatchdogSec=1min",
    "FileDescriptorStoreMax=2",
    "Environment=NOTIFY_SOCKET=/n WATCHDOG_USEC=5 FDSTORE=7",
    "Environment=LISTEN_FDNAMES=other",
    "ExecStart=<start>",
    socket=[_ONE],
)
_case("environment-over-count", "Environment=LISTEN_FDS=1", "ExecStart=<start>", socket=_TWO)
_case(
    "environment-over-pids",
    "WatchdogSec=1min",
    "Type=simple",
    "Environment=LISTEN_PID=x WATCHDOG_PID=y SYSTEMD_EXEC_PID=z",
    "ExecStart=<start>",
    socket=[_ONE],
)
_case(
    "environment-unset",
    "User=games",
    "WatchdogSec=1min",
    "Type=simple",
    "UnsetEnvironment=HOME LISTEN_FDNAMES LISTEN_PID LISTEN_PIDFDID WATCHDOG_PID INVOCATION_ID",
    "ExecStart=<start>",
    socket=[_ONE],
)
_case(
    "environment-unset-value",
    "UnsetEnvironment=LISTEN_FDNAMES=x PATH=/nothing",
    "ExecStart=<start>",
    socket=[_ONE],
)

# What it is told, and whom it may tell.
_case("notify", "Type=notify", *_ALL)
_case("notify-access", "NotifyAccess=exec", *_ALL)
_case("notify-access-all", "NotifyAccess=all", *_ALL)
_case("watchdog", "Type=simple", "WatchdogSec=20", *_ALL)
_case("store", "FileDescriptorStoreMax=3", *_ALL)
_case("commands", *_ALL, socket=_TWO)
_case(
    "stopped",
    "Type=simple",
    "ExecStart=/bin/sleep 1000",
    "ExecReload=<reload>",
    "ExecStop=<stop>",
    "ExecStopPost=<stop-post>",
    socket=[_ONE],
)
_case(
    "failed",
    "Type=simple",
    "ExecStart=/bin/sh -c 'exit 3'",
    "ExecStop=<stop>",
    "ExecStopPost=<stop-post>",
    socket=[_ONE],
)
_case(
    "killed",
    "Type=simple",
    "ExecStart=/bin/sh -c 'kill -KILL $$$$'",
    "ExecStopPost=<stop-post>",
    socket=[_ONE],
)
_case(
    "no-condition",
    "ExecCondition=/bin/false",
    "ExecStart=<start>",
    "ExecStopPost=<stop-post>",
    socket=[_ONE],
)
_case(
    "pre-fails",
    "ExecStartPre=/bin/false",
    "ExecStart=<start>",
    "ExecStopPost=<stop-post>",
    socket=[_ONE],
)

# Its sockets.
_case("sockets", "Type=oneshot", "ExecStart=<start>", socket=_TWO, as_is=True)
_case("sockets-non-blocking", "NonBlocking=yes", "ExecStart=<start>", socket=_TWO)
_case("sockets-blocking", "NonBlocking=no", "ExecStart=<start>", socket=_TWO)
_case("sockets-named", "ExecStart=<start>", socket=[*_TWO, "FileDescriptorName=name"])
_case("sockets-of-others", "Sockets=sockets.socket sockets-named.socket", "ExecStart=<start>")
_case("sockets-and-others", "Sockets=sockets-named.socket", "ExecStart=<start>", socket=[_ONE])
_case(
    "sockets-user",
    "User=games",
    "ExecStart=<start>",
    socket=[_ONE, "SocketUser=games", "SocketMode=0600"],
)
_case(
    "sockets-many",
    "ExecStart=<start>",
    socket=[_ONE, *(f"ListenFIFO=/run/t/%N.{number}" for number in range(20))],
)
_case("sockets-privileged", "User=nobody", "ExecStart=+<start>", socket=[_ONE])
_case("other-service", socket=[_ONE, "Service=started-by-other.service"])
_case("started-by-other", "ExecStart=<start>")

# Its standard streams.
_case("streams", "StandardOutput=null", *_ALL)
_case("streams-null", "StandardOutput=null", "StandardError=null", "ExecStart=<start>")
_case("streams-inherit", "StandardOutput=inherit", "ExecStart=<start>")
_case(
    "streams-file",
    "StandardInput=file:/run/t/plain",
    "StandardOutput=file:/run/out/%N.o",
    "StandardError=file:/run/out/%N.e",
    "ExecStart=<start>",
)
_case(
    "streams-one-file",
    "StandardInput=file:/run/out/%N.o",
    "StandardOutput=file:/run/out/%N.o",
    "StandardError=file:/run/out/%N.o",
    "ExecStart=<start>",
)
_case(
    "streams-append",
    "StandardOutput=append:/run/out/%N.o",
    "StandardError=append:/run/out/%N.o",
    *_ALL,
)
_case(
    "streams-truncate",
    "StandardOutput=truncate:/run/out/%N.o",
    "StandardError=truncate:/run/out/%N.e",
    "ExecStart=<start>",
)
_case(
    "streams-of-a-user",
    "User=nobody",
    "UMask=027",
    "StandardOutput=append:/run/out/%N.o",
    "StandardError=inherit",
    "ExecStart=<start>",
)
_case("streams-error-only", "StandardOutput=null", "StandardError=inherit", "ExecStart=<start>")
_case("streams-missing", "StandardInput=file:/run/none", "ExecStart=<start>")
_case("streams-no-directory", "StandardOutput=append:/run/none/x", "ExecStart=<start>")
_case(
    "streams-input-inherited",
    "StandardInput=file:/run/t/plain",
    "StandardOutput=inherit",
    "StandardError=inherit",
    "ExecStart=<start>",
)
_case(
    "streams-socket-default",
    "Type=oneshot",
    "StandardInput=socket",
    "ExecStart=<start>",
    socket=[_ONE],
    as_is=True,
)
_case("streams-socket", "StandardInput=socket", "ExecStart=<start>", socket=[_ONE])
_case(
    "streams-socket-all",
    "StandardInput=socket",
    "StandardOutput=socket",
    "StandardError=socket",
    "ExecStart=<start>",
    socket=[_ONE],
)
_case(
    "streams-socket-output",
    "StandardOutput=socket",
    "StandardError=null",
    "ExecStart=<start>",
    socket=[_ONE],
)
_case(
    "streams-socket-null",
    "StandardInput=socket",
    "StandardOutput=null",
    "ExecStart=<start>",
    socket=[_ONE],
)
_case("streams-socket-commands", "StandardInput=socket", "StandardError=null", *_ALL, socket=[_ONE])
_case(
    "streams-socket-non-blocking",
    "StandardInput=socket",
    "NonBlocking=yes",
    "ExecStart=<start>",
    socket=[_ONE],
)
_case("streams-socket-two", "StandardInput=socket", "ExecStart=<start>", socket=_TWO)
_case("streams-socket-none", "StandardInput=socket", "ExecStart=<start>")
_case(
    "streams-fd",
    "StandardInput=fd",
    "ExecStart=<start>",
    socket=[*_TWO, "FileDescriptorName=stdin"],
)
_case(
    "streams-fd-named",
    "StandardInput=fd:x",
    "StandardOutput=fd:x",
    "StandardError=null",
    "ExecStart=<start>",
    socket=[*_TWO, "FileDescriptorName=x"],
)
_case(
    "streams-fd-commands",
    "StandardInput=fd:x",
    "StandardOutput=null",
    *_ALL,
    socket=[_ONE, "FileDescriptorName=x"],
)
_case(
    "streams-fd-shared",
    "StandardInput=fd:x",
    "StandardOutput=fd:x",
    "StandardError=null",
    "ExecStart=<start>",
    socket=[_ONE, "FileDescriptorName=x"],
)
_case("streams-fd-unknown", "StandardInput=fd:nothing", "ExecStart=<start>", socket=[_ONE])

# A process for each connection.
_case("accept", "ExecStart=<start>", socket=[_ONE, "Accept=yes"])
_case("accept-several", "ExecStart=<one>", "ExecStart=<two>", socket=[_ONE, "Accept=yes"])
_case("accept-all", "User=games", "NotifyAccess=all", *_ALL, socket=[_ONE, "Accept=yes"])
_case("accept-non-blocking", "NonBlocking=yes", "ExecStart=<start>", socket=[_ONE, "Accept=yes"])
_case(
    "accept-inetd", "StandardInput=socket", "StandardError=null", *_ALL, socket=[_ONE, "Accept=yes"]
)
_case("accept-output", "StandardOutput=socket", "ExecStart=<start>", socket=[_ONE, "Accept=yes"])
_case(
    "accept-name",
    "Environment=NAME=%p WHAT=%n",
    "UnsetEnvironment=WHAT",
    "WorkingDirectory=/run/t",
    "UMask=027",
    "Nice=1",
    "ExecStart=<start>",
    socket=[_ONE, "Accept=yes"],
)


def probes() -> list[str]:
    """Return the names of all probes."""
    found = []
    for name, (_, service) in CASES.items():
        found += [f"{name}.{tag}" for tag in dict.fromkeys(_PROBE.findall(service))]
    return [*found, *(f"started-{case}" for case in started.STARTED)]


def _accepts(case: str) -> bool:
    return "Accept=yes" in CASES[case][0]


def _service(case: str) -> str:
    def command(match: re.Match[str]) -> str:
        text = probe_command(OUT / f"{case}.{match[1]}", _PYTHON).replace('"', '\\"')
        return f'/bin/sh -c "export LD_LIBRARY_PATH={_HERE}/lib; {text}"'

    return f"[Service]\n{_PROBE.sub(command, CASES[case][1])}\n"


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

    def command(self, command: str, service: str) -> None:
        self._systemctl(command, service)

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

    def command(self, command: str, service: str) -> None:
        self._control(command, service)

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


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"never {what}")
        time.sleep(0.05)


def _until_over(side: _Real | _Ours, services: Iterable[str]) -> None:
    _until(lambda: {*side.states(services).values()} <= _OVER, f"over: {services}")


def _report(path: Path) -> Report | None:
    if not path.exists() or path.name.removeprefix("started-") not in started.STARTED:
        return probed(path)
    report: Report = json.loads(path.read_text("utf-8"))
    environ: dict[str, str] = report["environ"]
    report["environ"] = {
        name: "set" if name in _CHANGING else value for name, value in environ.items()
    }
    return report


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
    services = [
        f"{case}.service" for case, (_, lines) in CASES.items() if lines and not _accepts(case)
    ]
    services += [f"started-{case}.service" for case in started.STARTED]
    side = _Real() if which == "real" else _Ours()
    side.begin(units, sockets, services)
    for case in filter(_accepts, CASES):
        _connect(f"/run/t/{case}")
    _until_over(side, [name for name in services if name != _STAYS])
    side.command("reload", _STAYS)
    _until(lambda: side.states([_STAYS])[_STAYS] == "running", "reloaded")
    side.command("stop", _STAYS)
    _until_over(side, [_STAYS])
    side.end()
    print(json.dumps({name: _report(OUT / name) for name in probes()}))


if __name__ == "__main__":
    main()
