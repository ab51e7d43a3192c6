"""Running ``sockact run`` with a small application, and ending all that it started."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from sockact.fd.own import Closing
from tests.faults.nursery import wait_for
from tests.helpers import SECONDS, SOCKACT, clean_environ, get, run
from tests.processes import descendants, living
from tests.servers import apps


def missing() -> str:
    """Return why there can be no supervisor, or an empty string."""
    absent = [command for command in ("run", "replace") if run(command, "--help").returncode]
    return f"sockact has no command {absent[0]}" if absent else ""


class Supervisor(Closing):
    """One ``sockact run``, from construction until `close`.

    Attributes:
        process: It.
        log: What it and its children wrote.
    """

    _count = 0

    def __init__(self, directory: Path, arguments: Sequence[str]) -> None:
        """Start ``sockact run ARGUMENTS``; its log is kept in the directory."""
        Supervisor._count += 1
        self.log = directory / f"log-{Supervisor._count}"
        self._known: set[int] = set()
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [*SOCKACT, "run", *arguments], env=clean_environ(), stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def processes(self) -> set[int]:
        """Return all processes below it that have not ended."""
        found = living(descendants(self.pid))
        self._known |= found
        return found

    def said(self) -> str:
        """Return the end of the log."""
        return self.log.read_text(errors="replace")[-3000:]

    def wait_answer(self, port: int) -> None:
        """Wait until a request to a port is answered."""

        def answered() -> bool:
            assert self.process.poll() is None, f"the supervisor has ended: {self.said()}"
            with contextlib.suppress(OSError):
                return get((apps.HOST, port), "/?n=x")[0] == 200
            return False

        wait_for(answered, lambda: f"an answer; it said: {self.said()}")

    def wait_gone(self, pids: set[int], seconds: float = SECONDS) -> None:
        """Wait until processes have ended."""
        wait_for(lambda: not living(pids), lambda: f"{living(pids)} end; {self.said()}", seconds)

    def wait_end(self, seconds: float = SECONDS) -> int:
        """Wait until it has ended by itself; return its exit status."""
        self.processes()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end; it said: {self.said()}") from None

    def kill(self) -> None:
        """Kill the supervisor, and nothing else."""
        self.processes()
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Kill it and all that it has started, as far as it was ever seen here."""
        deadline = time.monotonic() + SECONDS
        while True:
            left = self.processes() | living(self._known)
            if self.process.poll() is None:
                left.add(self.pid)
            if not left:
                break
            assert time.monotonic() < deadline, f"these do not end: {left}"
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.process.wait()


def replace(path: Path, seconds: float = SECONDS * 2) -> subprocess.CompletedProcess[str]:
    """Run ``sockact replace PATH``."""
    return subprocess.run(
        [*SOCKACT, "replace", str(path)], env=clean_environ(), capture_output=True, text=True,
        check=False, timeout=seconds,
    )  # fmt: skip
