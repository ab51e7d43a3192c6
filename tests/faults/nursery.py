"""Servers that start at once: forked by a process that has imported everything already.

A Python start-up beside the server that is measured would take its processor away. The servers are
not related to each other, and have nothing open that the nursery has.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import sockact.fd
import sockact.rendezvous
import sockact.sockets
import sockact.unitfile
from tests.faults import page as states
from tests.faults.page import Page
from tests.helpers import ROOT, SECONDS, clean_environ

_POLL_SECONDS = 0.002


def wait_for(
    condition: Callable[[], bool], what: str | Callable[[], str], seconds: float = SECONDS
) -> None:
    """Wait until something is true that can only be looked at.

    Args:
        condition: Whether it is true.
        what: What that is, for a person; called when it has not come true.
        seconds: How long.

    Raises:
        AssertionError: It does not become true.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            text = what if isinstance(what, str) else what()
            raise AssertionError(f"it did not happen in time: {text}")
        time.sleep(_POLL_SECONDS)


class Child:
    """A server that the nursery has forked.

    Attributes:
        name: Its id.
        pid: Its process id.
        page: What it tells.
    """

    def __init__(self, name: str, pid: int, page: Page) -> None:
        """Watch it. The page, and the pidfd that is opened here, are owned."""
        self.name = name
        self.pid = pid
        self.page = page
        self._pidfd = os.pidfd_open(pid)
        self.status: int | None = None

    @property
    def is_dead(self) -> bool:
        """Whether it has ended."""
        return bool(select.select([self._pidfd], [], [], 0)[0])

    @property
    def is_stopped(self) -> bool:
        """Whether it has been stopped by a signal."""
        return self._stat() == "T"

    def _stat(self) -> str:
        text = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii")
        return text.rpartition(")")[2].split()[0]

    def signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def wait(self, state: int, seconds: float = SECONDS) -> None:
        """Wait until it has come to a state."""
        what = f"{self.name} is {states.STATES[state]}"

        def came() -> bool:
            assert self.page.state == state or not self.is_dead, f"{self.name} died before: {what}"
            return self.page.state == state

        wait_for(came, what, seconds)

    def wait_dead(self, seconds: float = SECONDS) -> None:
        """Wait until it has ended."""
        assert select.select([self._pidfd], [], [], seconds)[0], f"{self.name} does not end"

    def close(self) -> None:
        """Close what is owned."""
        os.close(self._pidfd)
        self.page.close()


class Nursery:
    """The process that forks, for the duration of a ``with`` block; then all of them are killed.

    It must be forked from a place that holds nothing: it is a program of its own.
    """

    def __enter__(self) -> Self:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=clean_environ(),
            text=True,
        )
        self._children: dict[int, Child] = {}
        return self

    def __exit__(self, *exc: object) -> None:
        for child in list(self._children.values()):
            self._bury(child)
        with self._process:
            assert self._process.stdin
            self._process.stdin.close()

    def start(self, name: str, path: Path, port: int, **options: object) -> Child:
        """Start a server; see `tests.faults.server` for the options."""
        page = Page(path.parent / f"{name}.page")
        words = {"id": name, "path": path, "port": port, "page": page.file} | options
        arguments = [f"--{key}={value}" for key, value in words.items() if value is not None]
        answer = self._ask({"fork": arguments, "log": str(path.parent / "log")})
        child = Child(name, answer, page)
        self._children[child.pid] = child
        return child

    def status(self, child: Child) -> int:
        """Wait until it has ended, and return its status: negative for a signal."""
        child.wait_dead()
        return self._bury(child)

    def _bury(self, child: Child) -> int:
        if child.status is None:
            child.signal(signal.SIGKILL)
            child.wait_dead()
            child.status = os.waitstatus_to_exitcode(self._ask({"wait": child.pid}))
            del self._children[child.pid]
            child.close()
            child.page.file.unlink()
        return child.status

    def kill_all(self) -> None:
        """Kill all servers."""
        for child in list(self._children.values()):
            self._bury(child)

    def _ask(self, question: dict[str, object]) -> int:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the nursery is dead"
        return int(line)


# --- in the nursery -------------------------------------------------------------------------------


def _be_server(arguments: list[str], log: str) -> None:
    """Run the server in a process that was just forked, which ends with it."""
    status = 70
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 1)
        os.dup2(1, 2)
        os.closerange(3, 256)
        from tests.faults.server import main as serve

        status = serve(arguments)
    except BaseException:
        import traceback

        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Fork whenever the test says so."""
    for package in (sockact.fd, sockact.sockets, sockact.unitfile, sockact.rendezvous):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
    importlib.import_module("tests.faults.server")
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            _, status = os.waitpid(question["wait"], 0)
            print(status, flush=True)
            continue
        pid = os.fork()
        if not pid:
            _be_server(question["fork"], question["log"])
        print(pid, flush=True)


if __name__ == "__main__":
    main()
