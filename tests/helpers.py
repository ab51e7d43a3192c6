"""Running sockact as a person does, and talking to what it started."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOCKACT = (sys.executable, "-m", "sockact")
SECONDS = 20.0
"""How long any step may take on a busy machine; nothing waits that long when all is well."""


def clean_environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without what would make a child think it was activated."""
    environ = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("LISTEN_", "SOCKACT_")) and key != "NOTIFY_SOCKET"
    }
    return environ | dict(extra or {})


def run(
    *arguments: str, environ: Mapping[str, str] | None = None, **more: object
) -> subprocess.CompletedProcess[str]:
    """Run ``sockact ARGUMENTS`` to its end and return what it said."""
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [*SOCKACT, *arguments],
        env=clean_environ(environ),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        **more,
    )


@contextlib.contextmanager
def running(
    command: Sequence[str], *, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a command in the background, in a process group of its own, and end the whole group."""
    process = subprocess.Popen(
        list(command),
        env=clean_environ(environ),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def get(address: tuple[str, int] | str, path: str = "/") -> tuple[int, str]:
    """Make one HTTP request to a port or a Unix socket; return status and body.

    An inherited listener takes connections before the server runs, so no request is repeated:
    the first one must be answered.
    """
    if isinstance(address, str):
        connection = http.client.HTTPConnection("localhost", timeout=SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(SECONDS)
        connection.sock.connect(address)
    else:
        connection = http.client.HTTPConnection(*address, timeout=SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


def wait_until_accepting(address: tuple[str, int] | str) -> None:
    """Wait until a launcher has opened a listener; the server behind it need not run yet."""
    deadline = time.monotonic() + SECONDS
    while True:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        with socket.socket(family) as sock:
            sock.settimeout(SECONDS)
            if not sock.connect_ex(address):
                return
        assert time.monotonic() < deadline, f"nothing listens on {address}"
        time.sleep(0.02)
