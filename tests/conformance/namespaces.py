"""A small machine of its own: namespaces for pids, mounts, cgroups, IPC and network.

``Machine`` starts a command as process 1 of fresh namespaces and runs others beside it. Its /run is
empty, its loopback interface is all the network there is, and all that it does with cgroups
happens below one that is removed in the end.
"""

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

SYSTEMD = "/lib/systemd/systemd"
_UNSHARE = ("--pid", "--fork", "--mount", "--cgroup", "--ipc", "--net", "--mount-proc")
_SECONDS = 20.0

# The environment of both sides, and PATH above all, is the same.
ENVIRON = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}

_PREPARE = """
set -e
umask 022
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/mqueue
mount -t mqueue mqueue /run/mqueue
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /run/t /run/out
[ -z "$CONSOLE" ] || mount --bind "$CONSOLE" /dev/console
exec "$@"
"""


def missing() -> str:
    """Return why there can be no such machine here, or an empty string."""
    if sys.platform != "linux":
        return "needs Linux"
    if os.geteuid():
        return "needs root"
    for program in ("unshare", "nsenter", "mount"):
        if not shutil.which(program):
            return f"{program} is not installed"
    if not _cgroup2():
        return "needs a cgroup2 file system"
    probe = ["unshare", *_UNSHARE, "mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        return "namespaces cannot be made here"
    return ""


def missing_systemd() -> str:
    """Return why systemd cannot be started here, or an empty string."""
    if not os.access(SYSTEMD, os.X_OK) or not shutil.which("systemctl"):
        return "systemd is not installed"
    return missing()


def _cgroup2() -> Path | None:
    """Return the directory of this process's cgroup in the version 2 hierarchy."""
    own = "/"
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        if line.startswith("0::"):
            own = line[3:]
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if fields[2] == "cgroup2":
            return Path(fields[1] + own)
    return None


def _remove_cgroup(path: Path) -> None:
    for directory, _, _ in os.walk(path, topdown=False):
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                os.rmdir(directory)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)  # its last processes are still on their way out
            else:
                break


class _Console:
    """A terminal that collects what is written to it."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        self.name = os.ttyname(slave)
        self._slave = slave
        self.text = b""
        self._thread = threading.Thread(target=self._collect)
        self._thread.start()

    def _collect(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return  # EIO: nobody has the other end open any more
            if not data:
                return
            self.text += data

    def close(self) -> str:
        os.close(self._slave)
        self._thread.join()
        os.close(self._master)
        return self.text.decode("utf-8", "replace").replace("\r\n", "\n")


class Machine:
    """Process 1 of fresh namespaces, from construction until `close`.

    Attributes:
        pid: Its process id, as seen from here.
        said: What it has written to its console; once it is closed.
    """

    said = ""

    def __init__(
        self, init: Sequence[str], environ: Mapping[str, str], *, console: str = ""
    ) -> None:
        """Start `init`; a terminal given as `console` is its /dev/console."""
        parent = _cgroup2()
        assert parent
        self._environ = {**ENVIRON, **environ}
        self._cgroup = parent / f"sockact-test-{os.getpid()}-{id(self):x}"
        self._cgroup.mkdir()
        # Among other things, unshare complains of being killed.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        enter = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
        self._unshare = subprocess.Popen(
            ["sh", "-c", enter, str(self._cgroup), "unshare", *_UNSHARE, "--kill-child=KILL",
             "sh", "-c", _PREPARE, "machine", *init],
            env={**self._environ, "CONSOLE": console},
            stdin=subprocess.DEVNULL, stderr=self._said, start_new_session=True,
        )  # fmt: skip
        try:
            self.pid = self._first_process()
        except BaseException:
            self.close()
            raise

    def _first_process(self) -> int:
        """Return the pid, as seen from here, of the namespaces' process 1."""
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline and self._unshare.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                pid = int(children.read_text(encoding="ascii"))
                # Ready when the last step before the exec of init was made.
                if Path(f"/proc/{pid}/root/run/out").is_dir():
                    return pid
            time.sleep(0.002)
        self._said.seek(0)
        raise RuntimeError(f"the namespaces did not come up: {self._said.read().decode()}")

    def path(self, inside: str) -> Path:
        """Return a path by which a file inside can be reached from here."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs `arguments` inside."""
        return ["nsenter", f"--target={self.pid}", "--pid", "--mount", "--cgroup", "--ipc", "--net",
                "--wd=/", *arguments]  # fmt: skip

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end."""
        return subprocess.run(
            self.command(*arguments), env=self._environ, capture_output=True, text=True,
            timeout=_SECONDS * 9, check=False,
        )  # fmt: skip

    def close(self) -> None:
        """End process 1, and with it everything inside, and remove what is left."""
        if self._unshare.poll() is None:
            with contextlib.suppress(AttributeError, ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._unshare.wait(_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._unshare.pid, signal.SIGKILL)
        self._unshare.wait()
        self._said.close()
        _remove_cgroup(self._cgroup)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _unit_environ(units: Path) -> dict[str, str]:
    return {"SYSTEMD_UNIT_PATH": str(units), "container": "conformance"}


class Bare(Machine):
    """A machine with a process 1 that does nothing."""

    def __init__(self, units: Path) -> None:
        """Start it; `units` is the directory in which units are looked up."""
        init = ["sh", "-c", "trap : TERM; ip link set lo up; sleep 1000 & wait"]
        super().__init__(init, _unit_environ(units))


class Systemd(Machine):
    """A machine with systemd, and nothing that it would start but ``test.target``."""

    def __init__(self, units: Path) -> None:
        """Start it, and wait until it takes commands; `units` is its only unit directory."""
        self._console = _Console()
        init = [SYSTEMD, "--system", "--unit=test.target", "--log-target=console",
                "--log-level=info", "--show-status=no", "--log-color=no"]  # fmt: skip
        try:
            super().__init__(init, _unit_environ(units), console=self._console.name)
        except BaseException:
            self._console.close()
            raise
        deadline = time.monotonic() + _SECONDS
        while not self.path("/run/systemd/private").exists():
            if time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"systemd did not come up: {self.said}")
            time.sleep(0.005)

    def close(self) -> None:
        """End systemd, and keep what it said."""
        super().close()
        if not self.said:
            self.said = self._console.close()
