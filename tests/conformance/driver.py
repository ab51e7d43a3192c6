"""Goes through the units on one side, inside a machine: ``python driver.py SIDE JOBS``.

For each job, which is a service and the socket units that it is activated by, it makes a clean
place, starts the service, or connects to its socket, lets the probe report, stops the sockets, and
looks at what stays behind. Prints a JSON object: service to what was found.
"""

import ast
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import py_compile
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.conformance.probe import nodes

ROOTS = ("/run/t", "/run/mqueue")
OUT = Path("/run/out")
PROBE = OUT / "probe.pyc"
"""The probe, compiled, since it is run a thousand times; `install_probe` puts it there."""
_SECONDS = 20.0
_FIRST_PORT = 5000
_FILES = 700


class Job(NamedTuple):
    """What is done with one unit.

    Attributes:
        service: The service that its sockets are for.
        sockets: It, and other socket units of that service.
        starts: Whether it is to be started, not only loaded.
        connect: Where to connect to, if that is what starts the service.
    """

    service: str
    sockets: Sequence[str]
    starts: bool = True
    connect: str = ""


Report = dict[str, object]


def probe_command(out: Path, python: str = sys.executable) -> str:
    """Return the shell command that saves the state of the process and becomes the probe."""
    return f"/bin/cat /proc/self/status > '{out}.status'; exec {python} -I -S {PROBE} '{out}'"


def install_probe() -> None:
    """Compile the probe, in this machine."""
    source = Path(__file__).with_name("probe.py")
    py_compile.compile(str(source), str(PROBE), doraise=True)


def out_of(service: str) -> Path:
    """Return where the probe of a service reports."""
    return OUT / service.replace("\\", "_")


def probed(out: Path) -> dict[str, Any] | None:
    """Return what a probe has reported, if it has."""
    try:
        found: dict[str, Any] = ast.literal_eval(out.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    return found


def _clean() -> None:
    """Remove every node, and make what the units expect to find."""
    for root in ROOTS:
        for directory, names, files in os.walk(root, topdown=False):
            for name in files:
                os.unlink(os.path.join(directory, name))
            for name in names:
                path = os.path.join(directory, name)
                os.unlink(path) if os.path.islink(path) else os.rmdir(path)
    Path("/run/t/plain").write_text("plain\n", encoding="ascii")
    Path("/run/t/plain").chmod(0o644)
    Path("/run/t/link").symlink_to("plain")
    Path("/run/t/directory").mkdir(mode=0o755)


# --- a client -------------------------------------------------------------------------------------


def _connect(where: str, port: int) -> socket.socket:
    """Connect to ``[seqpacket:]/path``, ``@name`` or ``host:port``, from a port of that number."""
    path = where.removeprefix("seqpacket:")
    if path[0] in "/@":
        kind = socket.SOCK_STREAM if path == where else socket.SOCK_SEQPACKET
        client = socket.socket(socket.AF_UNIX, kind)
        address: Any = path.replace("@", "\0", 1)
    else:
        host, _, number = where.rpartition(":")
        host = host.strip("[]")
        client = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((host, port))
        address = (host, int(number))
    try:
        client.settimeout(_SECONDS)
        client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


def _be_served(where: str, port: int) -> None:
    """Connect, and wait until that connection has been served."""
    with contextlib.suppress(OSError), _connect(where, port) as client:
        client.recv(1)


# --- systemd --------------------------------------------------------------------------------------


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemctl", *arguments], capture_output=True, text=True, timeout=20, check=False
    )


def real(jobs: Sequence[Job]) -> dict[str, Report]:
    """Let systemd, which is process 1 here, do the jobs."""
    reports: dict[str, Report] = {}
    for port, job in enumerate(jobs, _FIRST_PORT):
        out = out_of(job.service)
        _clean()
        said = ""
        if job.connect:
            done = _systemctl("start", *job.sockets)
            said = done.stderr
            if not done.returncode:
                _be_served(job.connect, port)
        elif job.starts:
            said = _systemctl("start", job.service).stderr
        reports[job.service] = {"said": said, "probe": probed(out)}
        if job.starts:
            _systemctl("stop", *job.sockets)
        reports[job.service]["after"] = nodes(*ROOTS)
    names = [name for job in jobs for name in job.sockets]
    shown = _systemctl("show", "--property=Id,LoadState,Result", *names)
    states = {}
    for block in shown.stdout.strip().split("\n\n"):
        fields = dict(line.partition("=")[::2] for line in block.splitlines())
        states[fields["Id"]] = fields
    for job in jobs:
        found = [states.get(name, {}) for name in job.sockets]
        reports[job.service]["loads"] = all(one.get("LoadState") == "loaded" for one in found)
        reports[job.service]["result"] = [one.get("Result", "") for one in found]
    return reports


# --- sockact --------------------------------------------------------------------------------------


class _Child:
    """A fork of this process that runs a command of sockact, and may say when it is ready."""

    def __init__(self, arguments: Sequence[str], said: Path, *, notifies: bool) -> None:
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.bind("")  # the kernel chooses an abstract name
        address = self._ear.getsockname().decode().replace("\0", "@", 1)
        environ = {"NOTIFY_SOCKET": address} if notifies else {}
        self._pid = os.fork()
        if self._pid:
            self._pidfd = os.pidfd_open(self._pid)
            return
        import sockact.cli

        try:
            file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.close(file)
            os.chdir("/")
            os.environ |= environ
            sys.argv = ["sockact", *arguments]
            sockact.cli.main()
        except SystemExit as ended:
            os._exit(ended.code if isinstance(ended.code, int) else 70)
        finally:
            os._exit(70)

    @property
    def path(self) -> str:
        """Where it takes commands, if it does."""
        return f"/run/sockact/run-{self._pid}.rdv"

    def is_ready(self) -> bool:
        """Wait until it says that it is ready, or ends; return whether it is."""
        ear = self._ear.fileno()
        return ear in select.select([ear, self._pidfd], [], [], _SECONDS)[0]

    def ends(self, number: int = 0) -> int:
        """Wait for its end, which a signal may bring about; return its exit status."""
        if number:
            signal.pidfd_send_signal(self._pidfd, number)
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        os.close(self._pidfd)
        self._ear.close()
        return status


def _prepare() -> None:
    """Import what every fork would import for itself, and have a limit that is not systemd's."""
    import sockact

    for found in pkgutil.walk_packages(sockact.__path__, "sockact."):
        if not found.name.startswith("sockact.servers.") and "__main__" not in found.name:
            importlib.import_module(found.name)
    gc.freeze()  # a collection in a fork would copy everything
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, hard))


def _open_and_close(sockets: Sequence[str]) -> None:
    import sockact
    from sockact.errors import SockactError

    for name in sockets:
        with contextlib.suppress(SockactError):
            sockact.load(name, warn=lambda _text: None).open(warn=lambda _text: None).close()


def execs(jobs: Sequence[Job]) -> dict[str, Report]:
    """Let ``sockact exec`` do the jobs."""
    _prepare()
    reports: dict[str, Report] = {}
    for port, job in enumerate(jobs, _FIRST_PORT):
        _clean()
        out = out_of(job.service)
        show = [] if job.starts else ["--print"]
        command = ["/bin/sh", "-c", probe_command(out)] if job.starts else ["true"]
        said = out.with_suffix(".said")
        child = _Child(
            ["exec", *show, *job.sockets, "--", *command], said, notifies=bool(job.connect)
        )
        if job.connect and child.is_ready():
            _be_served(job.connect, port)
        status = child.ends(signal.SIGTERM if job.connect else 0)
        _clean()
        if job.starts:
            _open_and_close(job.sockets)
        reports[job.service] = {
            "said": said.read_text(encoding="utf-8"), "probe": probed(out), "status": status,
            "loads": status not in (66, 78), "after": nodes(*ROOTS),
        }  # fmt: skip
    return reports


def runs(jobs: Sequence[Job]) -> dict[str, Report]:
    """Let ``sockact run`` do the jobs, each by a supervisor of its own."""
    _prepare()
    reports: dict[str, Report] = {}
    for port, job in enumerate(jobs, _FIRST_PORT):
        if not job.starts:
            continue
        _clean()
        out = out_of(job.service)
        said = out.with_suffix(".said")
        arguments = ["run", "--lazy", "--log-format=text", *job.sockets]
        child = _Child(arguments, said, notifies=True)
        after = _supervised(job, port, child.path) if child.is_ready() else {}
        status = child.ends(signal.SIGTERM)
        reports[job.service] = {
            "said": said.read_text(encoding="utf-8"), "probe": probed(out), "status": status,
            "loads": status not in (66, 78), "after": after,
        }  # fmt: skip
    return reports


def _supervised(job: Job, port: int, path: str) -> dict[str, object]:
    """Do a job with a supervisor that is ready; return the nodes that its sockets leave behind."""
    import sockact
    from sockact.errors import SockactError

    def control(command: str, *names: str) -> Any:
        try:
            return sockact.control(path, command, {"units": names})
        except SockactError as error:  # it has ended
            return {"error": str(error)}

    def is_over() -> bool:
        report = control("status").get("report", {"services": []})
        return all(one["state"] in ("dead", "failed") for one in report["services"])

    if job.connect:
        _be_served(job.connect, port)
    elif "error" not in control("start", job.service):
        now = time.monotonic()
        look, until = now + 0.2, now + _SECONDS
        while not out_of(job.service).exists() and now < until and not (now > look and is_over()):
            time.sleep(0.002)
            now = time.monotonic()
    control("stop", *job.sockets)
    return nodes(*ROOTS)


SIDES = {"real": real, "exec": execs, "run": runs}


def main() -> None:
    """Do the jobs of one side."""
    side, file = sys.argv[1:]
    jobs = [Job(*one) for one in json.loads(Path(file).read_text(encoding="utf-8"))]
    os.umask(0o022)
    install_probe()
    print(json.dumps(SIDES[side](jobs)))


if __name__ == "__main__":
    main()
