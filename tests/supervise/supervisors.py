"""Running ``sockact run`` in tests, and asking it how it stands."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.helpers import ROOT, SECONDS, SOCKACT, clean_environ

SERVER = str(Path(__file__).with_name("server.py"))


class Running:
    """A supervisor in the background.

    Attributes:
        process: Its process.
        path: Its rendezvous.
        log: The file that its standard error goes to.
    """

    def __init__(self, process: subprocess.Popen[bytes], path: Path, log: Path) -> None:
        self.process = process
        self.path = path
        self.log = log

    def ask(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of sockact on it."""
        return subprocess.run(
            [*SOCKACT, command, str(self.path), *words],
            env=clean_environ(),
            capture_output=True,
            text=True,
            timeout=SECONDS * 3,
            check=False,
        )

    def report(self) -> dict[str, Any]:
        """Return what ``sockact status --json`` says."""
        done = self.ask("status", "--json")
        assert done.returncode == 0, done.stderr + self.text()
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def unit(self, name: str) -> dict[str, Any]:
        """Return what is reported of one socket unit."""
        return next(one for one in self.report()["units"] if one["name"] == name)

    def service(self, name: str) -> dict[str, Any]:
        """Return what is reported of one service."""
        return next(one for one in self.report()["services"] if one["name"] == name)

    def pids(self, name: str) -> list[int]:
        """Return the main processes of one service."""
        return [one["pid"] for one in self.service(name)["instances"] if one["pid"]]

    def text(self) -> str:
        """Return its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def until(self, holds: Callable[[], object], seconds: float = SECONDS) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.02)

    def state_becomes(self, name: str, state: str) -> None:
        """Wait until a service or a socket unit is in a state."""
        kind = self.service if name.endswith(".service") else self.unit
        self.until(lambda: kind(name)["state"] == state)

    def logged(self, text: str) -> None:
        """Wait until the log has a text in it."""
        self.until(lambda: text in self.text())

    def ends(self, seconds: float = SECONDS) -> int:
        """Wait until it has ended; return its exit status."""
        return self.process.wait(seconds)

    def end(self) -> int:
        """End it by SIGTERM; return its exit status."""
        self.process.terminate()
        return self.ends()


@contextlib.contextmanager
def supervisor(
    directory: Path,
    *arguments: str,
    name: str = "run",
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    wait: bool = True,
    cwd: Path | None = None,
    within: Sequence[str] = (),
) -> Iterator[Running]:
    """Run ``sockact run --rendezvous PATH ARGUMENTS``, and end it and what it started.

    Args:
        directory: Where its log and its rendezvous are.
        arguments: Options, units, and the command.
        name: What its log is called.
        path: The rendezvous; one in `directory` by default.
        environ: More variables.
        wait: Whether to wait until it answers.
        cwd: Its working directory.
        within: What is put before its command line.
    """
    path = path or directory / "run.rdv"
    log = directory / f"{name}.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*within, *SOCKACT, "run", "--rendezvous", str(path), *arguments],
            env=clean_environ({"PYTHONPATH": str(ROOT), **(environ or {})}),
            stdout=stderr,
            stderr=stderr,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=cwd,
        )
    running = Running(process, path, log)
    try:
        if wait:
            running.until(lambda: process.poll() is not None or "open" in running.text())
            assert process.poll() is None, running.text()
        yield running
    finally:
        descendants = _descendants(process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        for pid in descendants:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        for child in map(int, text.split()):
            found += [child, *_descendants(child)]
    return found


def server(*arguments: str) -> Sequence[str]:
    """Return the command of a small server that serves descriptor 3, and more, over HTTP."""
    return (sys.executable, SERVER, *arguments)
