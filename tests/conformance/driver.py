"""Goes through the units on one side, inside a machine: ``python driver.py SIDE UNITS JOBS``.

For each job, which is a service and the socket units that it is activated by, it makes a clean
place, starts the service, lets the probe report, stops the sockets, and looks at what stays behind.
Prints a JSON object: service to what was found.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.conformance.probe import nodes

ROOTS = ("/run/t", "/run/mqueue")
OUT = Path("/run/out")
PROBE = Path(__file__).with_name("probe.py")

Job = tuple[str, list[str], bool]
"""A service, its socket units, and whether it is to be started, not only loaded."""
Report = dict[str, object]


def probe_command(service: str) -> str:
    """Return the shell command that saves the state of the process and becomes the probe."""
    out = _out(service)
    return f"cat /proc/self/status > '{out}.status'; exec {sys.executable} -I -S {PROBE} '{out}'"


def _out(service: str) -> Path:
    return OUT / f"{service.replace(chr(92), '_')}.json"


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


def _probed(service: str) -> object:
    path = _out(service)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemctl", *arguments], capture_output=True, text=True, timeout=20, check=False
    )


def real(jobs: list[Job]) -> dict[str, Report]:
    """Let systemd, which is process 1 here, do the jobs."""
    reports: dict[str, Report] = {}
    for service, sockets, start in jobs:
        _clean()
        started = _systemctl("start", service) if start else None
        reports[service] = {
            "said": started.stderr if started else "", "probe": _probed(service)
        }  # fmt: skip
        if started:
            _systemctl("stop", *sockets)
        reports[service]["after"] = nodes(*ROOTS)
    names = [name for _, sockets, _ in jobs for name in sockets]
    shown = _systemctl("show", "--property=Id,LoadState,Result", *names)
    states = {}
    for block in shown.stdout.strip().split("\n\n"):
        fields = dict(line.partition("=")[::2] for line in block.splitlines())
        states[fields["Id"]] = fields
    for service, sockets, _ in jobs:
        found = [states.get(name, {}) for name in sockets]
        reports[service]["loads"] = all(one.get("LoadState") == "loaded" for one in found)
        reports[service]["result"] = [one.get("Result", "") for one in found]
    return reports


def _in_child(work: Callable[[], None], out: Path) -> int:
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)
        os.chdir("/")
        work()
    except SystemExit as ended:
        os._exit(ended.code if isinstance(ended.code, int) else 70)
    finally:
        os._exit(70)


def _open_and_close(sockets: list[str]) -> None:
    import sockact

    for name in sockets:
        sockact.load(name, warn=lambda _text: None).open(warn=lambda _text: None).close()
    os._exit(0)


def ours(jobs: list[Job]) -> dict[str, Report]:
    """Let sockact do the jobs."""
    import sockact.cli
    import sockact.cli.exec

    reports: dict[str, Report] = {}
    for service, sockets, start in jobs:
        _clean()

        def execute(
            service: str = service, sockets: list[str] = sockets, start: bool = start
        ) -> None:
            show = [] if start else ["--print"]
            command = ["/bin/sh", "-c", probe_command(service)] if start else ["true"]
            sys.argv = ["sockact", "exec", *show, *sockets, "--", *command]
            sockact.cli.main()

        said = _out(service).with_suffix(".said")
        status = _in_child(execute, said)
        text = said.read_text(encoding="utf-8")
        _clean()
        if start:
            _in_child(functools.partial(_open_and_close, sockets), OUT / "null")
        reports[service] = {
            "said": text, "probe": _probed(service), "status": status,
            "loads": status not in (66, 78), "after": nodes(*ROOTS),
        }  # fmt: skip
    return reports


def main() -> None:
    """Do the jobs of one side."""
    side, jobs = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    os.umask(0o022)
    print(json.dumps((real if side == "real" else ours)(jobs)))


if __name__ == "__main__":
    main()
