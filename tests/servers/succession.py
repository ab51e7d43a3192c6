"""Replacing a process by another on the same listener, as a launcher does."""

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from tests.helpers import ROOT, SECONDS, clean_environ

# LISTEN_PID must name the process that reads it, which only that one knows before it runs.
_AS_ACTIVATED = ("/bin/sh", "-c", 'cd "$0" && LISTEN_PID=$$ exec "$@"', str(ROOT))


class Generation:
    """One process, started on a listener; its end is waited for by `wait`."""

    def __init__(
        self,
        number: int,
        listener: socket.socket,
        command: Sequence[str],
        log: Path,
        **variables: str,
    ) -> None:
        """Start `command` with the listener as its descriptor 3.

        Args:
            number: Its server id, as $GENERATION.
            listener: The listener, which stays the caller's.
            command: What to run, in the root directory of the project.
            log: Where its output goes.
            variables: More of its environment.
        """
        self.number = number
        environ = clean_environ({"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web", **variables})
        environ["GENERATION"] = str(number)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [
            (os.POSIX_SPAWN_DUP2, listener.fileno(), 3),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        words = [*_AS_ACTIVATED, *command]
        self.pid = os.posix_spawn(words[0], words, environ, file_actions=actions, setsid=True)
        self.status: int | None = None

    def signal(self, number: int) -> None:
        """Send a signal to the process, unless it has ended."""
        if self.status is None:
            os.kill(self.pid, number)

    def wait(self, seconds: float = SECONDS) -> int:
        """Return its exit status, negative for a signal.

        Raises:
            TimeoutError: It has not ended in time.
        """
        if self.status is None:
            fd = os.pidfd_open(self.pid)
            try:
                if not select.select([fd], [], [], seconds)[0]:
                    raise TimeoutError(f"generation {self.number} does not end")
            finally:
                os.close(fd)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def kill(self) -> None:
        """End it and its children, whatever it does."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.wait()


class Succession:
    """Generations of a server on one listener, each of which replaces the one before.

    Args:
        listener: The listener, which stays the caller's.
        command: What each generation runs, given its number.
        directory: Where their output and the manager's socket go.
        stop: The signal that ends one.
        is_ready: Called with the number of a generation; returns when it serves. By default it is
            awaited that it says READY=1.
        variables: More of their environment.

    Attributes:
        generations: All, in order.
        heard: What they have said to the service manager, as far as it was listened to.
        log: Where their output is.
    """

    def __init__(
        self,
        listener: socket.socket,
        command: Callable[[int], Sequence[str]],
        directory: Path,
        stop: signal.Signals = signal.SIGTERM,
        is_ready: Callable[[int], None] | None = None,
        **variables: str,
    ) -> None:
        self._listener = listener
        self._command = command
        self.log = directory / "log"
        self._variables = variables
        self._address = str(directory / "notify")
        self._stop = stop
        self._is_ready = is_ready or self._hear_ready
        if not is_ready:  # or nobody would listen, and who tells a manager waits for it
            self._variables["NOTIFY_SOCKET"] = self._address
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.settimeout(SECONDS)
        self.generations: list[Generation] = []
        self.heard: list[bytes] = []

    def __enter__(self) -> Self:
        """Start the first generation, and wait until it is ready."""
        try:
            self._manager.bind(self._address)
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def _end(self) -> None:
        for generation in self.generations:
            generation.kill()
        self._manager.close()

    def _start(self) -> None:
        number = len(self.generations) + 1
        words = self._command(number)
        new = Generation(number, self._listener, words, self.log, **self._variables)
        self.generations.append(new)
        try:
            self._is_ready(number)
        except TimeoutError:
            text = self.log.read_text(encoding="utf-8", errors="replace")
            raise TimeoutError(f"generation {number} is not ready; it said: {text}") from None

    def _hear_ready(self, _: int) -> None:
        while self.hear() != b"READY=1":
            pass

    def hear(self) -> bytes:
        """Return the next message to the service manager.

        Raises:
            TimeoutError: There is none.
        """
        self.heard.append(self._manager.recv(4096))
        return self.heard[-1]

    def hand_over(self) -> None:
        """Start the next generation, and when it is ready, tell the one before to stop.

        The end of that is not waited for.
        """
        self._start()
        self.generations[-2].signal(self._stop)

    def stop(self) -> None:
        """Tell the last generation to stop."""
        self.generations[-1].signal(self._stop)

    def statuses(self) -> list[int]:
        """Wait for the end of all generations but the last; return their exit statuses."""
        return [generation.wait() for generation in self.generations[:-1]]
