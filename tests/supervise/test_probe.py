"""sockact.supervise.probe, with real servers and real commands."""

import contextlib
import http.server
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sockact.errors import LaunchError
from sockact.rendezvous.react import READ, Reactor
from sockact.supervise.exit import Exit
from sockact.supervise.probe import ATTEMPT_SECONDS, Probe, Running, resolve
from sockact.unitfile.readiness import Tried, parse_readiness
from tests.helpers import ROOT, SECONDS, free_port


@pytest.fixture(name="reactor")
def _reactor() -> Iterator[Reactor]:
    with contextlib.closing(Reactor()) as reactor:
        yield reactor


class Trial:
    """A probe, and what it has said."""

    def __init__(self, reactor: Reactor, text: str, **options: Any) -> None:
        self.reactor = reactor
        self.said: list[str | None] = []
        readiness = parse_readiness(text)
        assert isinstance(readiness, Tried)
        self.probe = Probe(
            reactor, readiness, self.said.append, first=0.01, longest=0.02, **options
        )

    def until(self, condition: Callable[[], object]) -> None:
        """Drive it until that is so."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.probe.reason
            self.reactor.step(0.05)

    def fails(self, reason: str) -> None:
        """Drive it until an attempt has failed so."""
        self.until(lambda: reason in self.probe.reason)
        assert not self.said
        assert self.probe.reason.count("\n") == 0

    def succeeds(self) -> None:
        """Drive it until it is ready, which it says once."""
        self.until(lambda: self.said)
        assert self.said == [None]
        assert self.reactor.timeout() is None
        assert not self.probe.reason


@contextlib.contextmanager
def _trial(reactor: Reactor, text: str, **options: Any) -> Iterator[Trial]:
    trial = Trial(reactor, text, **options)
    try:
        yield trial
    finally:
        trial.probe.cancel()
        trial.probe.cancel()


# --- delay ----------------------------------------------------------------------------------------


def test_delay_is_ready_in_time(reactor: Reactor) -> None:
    """Not before, and then by itself."""
    with _trial(reactor, "delay:50ms") as trial:
        began = time.monotonic()
        trial.succeeds()
        assert time.monotonic() - began > 0.04


def test_a_cancelled_probe_says_nothing(reactor: Reactor) -> None:
    """Its time may come, but nobody is told."""
    with _trial(reactor, "delay:0") as trial:
        trial.probe.cancel()
        reactor.step(0.01)
        assert not trial.said


# --- tcp ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
def test_tcp_waits_for_the_listener(reactor: Reactor, host: str) -> None:
    """Refused until somebody listens; a port alone is this machine's loopback."""
    port = free_port()
    with _trial(reactor, f"tcp:{host}:{port}") as trial:
        trial.fails(f"tcp:{host}:{port}: Connection refused")
        with socket.create_server(("127.0.0.1", port)):
            trial.succeeds()


def test_tcp_tries_ipv6_too(reactor: Reactor) -> None:
    """A listener on [::1] alone is found by the port alone."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6: {error}")
    with server, _trial(reactor, f"tcp:{server.getsockname()[1]}") as trial:
        trial.succeeds()


@pytest.mark.parametrize("abstract", [False, True])
def test_a_unix_socket(reactor: Reactor, short_dir: Path, *, abstract: bool) -> None:
    """A path, or an abstract name, is tried alike."""
    path = f"@{short_dir.name}" if abstract else f"{short_dir}/s"
    with _trial(reactor, f"tcp:{path}") as trial:
        trial.fails("Connection refused" if abstract else "No such file or directory")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.replace("@", "\0"))
            trial.fails("Connection refused")
            server.listen()
            trial.succeeds()


def test_a_unix_socket_whose_queue_is_full(reactor: Reactor, short_dir: Path) -> None:
    """The kernel says EAGAIN at once; it is tried again."""
    with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as stack:
        server.bind(f"{short_dir}/s")
        server.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(f"{short_dir}/s")
        with _trial(reactor, f"tcp:{short_dir}/s") as trial:
            trial.fails("its queue is full")
            server.accept()[0].close()
            trial.succeeds()


def test_an_attempt_takes_its_time_at_most(reactor: Reactor) -> None:
    """A connection that hangs counts as failed, and is tried again."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        contextlib.ExitStack() as all_,
    ):
        for _ in range(8):  # more than the queue takes: the kernel drops what comes then
            client = all_.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        port = server.getsockname()[1]
        with _trial(reactor, f"tcp:127.0.0.1:{port}", attempt=0.05) as trial:
            trial.fails("no answer within 0.05 s")


_SELF = """
import socket, struct
from sockact.rendezvous.react import Reactor
from sockact.supervise.probe import Probe
from sockact.unitfile.readiness import parse_readiness
with socket.socket() as sock:  # this is what happens
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.connect(("127.0.0.1", 32768))
    print(sock.getsockname() == sock.getpeername())
reactor, done = Reactor(), []
probe = Probe(reactor, parse_readiness("tcp:127.0.0.1:32768"), done.append)
while not probe.reason and not done:
    reactor.step(10)
print(probe.reason or done)
"""


def test_a_connection_to_itself_is_none() -> None:
    """With its target as its own port a socket connects to itself; nobody is ready then."""
    # What elsewhere happens once in 28,000 times: the kernel has only this port to choose from.
    script = (
        "ip link set lo up && echo '32768 32768' >/proc/sys/net/ipv4/ip_local_port_range"
        ' && exec "$0" -c "$1"'
    )
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", "--net", *user, "sh", "-c", script, sys.executable, _SELF]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip(f"no network namespace: {done.stderr.strip()}")
    assert done.stdout == "True\ntcp:127.0.0.1:32768: Connection refused\n", done.stderr


def test_a_host_that_does_not_exist(reactor: Reactor) -> None:
    """To try again would be useless: it says so, once."""
    with _trial(reactor, "tcp:no-such-host.invalid:80") as trial:
        trial.until(lambda: trial.said)
        assert trial.said[0] is not None
        assert trial.said[0].startswith("tcp:no-such-host.invalid:80: ")
        assert trial.probe.reason == trial.said[0]


def test_resolve() -> None:
    """A port alone is the loopback of each IP version that there is."""
    readiness = parse_readiness("tcp:81")
    found = resolve(readiness.target)  # type: ignore[union-attr]
    assert (socket.AF_INET, ("127.0.0.1", 81)) in found
    assert all(family in (socket.AF_INET, socket.AF_INET6) for family, _ in found)


def test_without_a_descriptor_to_spare(reactor: Reactor) -> None:
    """EMFILE is a failed attempt like any other."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with _trial(reactor, f"tcp:127.0.0.1:{server.getsockname()[1]}") as trial:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                trial.fails("Too many open files")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            trial.succeeds()


# --- http -----------------------------------------------------------------------------------------


class _Server:
    """Answers each connection with the next of its answers, the last one for ever."""

    def __init__(
        self, reactor: Reactor, *answers: bytes, path: str = "", closes: bool = True
    ) -> None:
        self.reactor = reactor
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.closes = closes
        self.connections: list[socket.socket] = []
        self.sock = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self.sock.bind(path or ("127.0.0.1", 0))
        self.sock.listen()
        reactor.watch(self.sock.fileno(), READ, self._accept)

    @property
    def port(self) -> int:
        """Its port."""
        port: int = self.sock.getsockname()[1]
        return port

    def _accept(self) -> None:
        connection = self.sock.accept()[0]
        self.connections.append(connection)
        self.reactor.watch(connection.fileno(), READ, lambda: self._answer(connection))

    def _answer(self, connection: socket.socket) -> None:
        self.reactor.unwatch(connection.fileno())
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += connection.recv(65536)
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        connection.sendall(answer)
        if self.closes:
            connection.close()

    def close(self) -> None:
        """Close everything."""
        for sock in [self.sock, *self.connections]:
            if sock.fileno() >= 0:
                self.reactor.unwatch(sock.fileno())
                sock.close()


@contextlib.contextmanager
def _server(
    reactor: Reactor, *answers: bytes, path: str = "", closes: bool = True
) -> Iterator[_Server]:
    with contextlib.closing(_Server(reactor, *answers, path=path, closes=closes)) as server:
        yield server


def _ask(reactor: Reactor, server: _Server) -> contextlib.AbstractContextManager[Trial]:
    return _trial(reactor, f"http://127.0.0.1:{server.port}/")


_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nno", "answered 503 Service Unavailable"),
        (b"HTTP/1.1 404 \r\n\r\n", "answered 404"),
        (b"HTTP/1.0 500\n", "answered 500"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "answered 100 Continue"),
        (b"", "closed without an answer"),
        (b"SSH-2.0-OpenSSH\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 2000 OK\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200", None),
        (b"x" * 100_000, "the answer is not HTTP"),
    ],
)  # fmt: skip
def test_http_waits_for_success(reactor: Reactor, answer: bytes, reason: str | None) -> None:
    """Whatever else is answered is the reason, until 200 is."""
    with _server(reactor, answer, _OK) as server, _ask(reactor, server) as trial:
        if reason is not None:
            trial.fails(reason)
        trial.succeeds()
        assert len(server.requests) == (1 if reason is None else 2)


@pytest.mark.parametrize("status", [b"200 OK", b"204", b"301 Moved Permanently", b"399 X"])
def test_http_success(reactor: Reactor, status: bytes) -> None:
    """2xx and 3xx are."""
    answer = b"HTTP/1.1 " + status + b"\r\n\r\n"
    with _server(reactor, answer) as server, _ask(reactor, server) as trial:
        trial.succeeds()
        assert len(server.requests) == 1


def test_what_http_asks(reactor: Reactor) -> None:
    """A GET of the path and query, with the host, over a connection for it alone."""
    with _server(reactor, _OK) as server:
        with _trial(reactor, f"http://127.0.0.1:{server.port}/health?x=1") as trial:
            trial.succeeds()
        lines = server.requests[0].decode().split("\r\n")
        assert lines[0] == "GET /health?x=1 HTTP/1.0"
        assert f"Host: 127.0.0.1:{server.port}" in lines
        assert "Connection: close" in lines


def test_http_over_a_unix_socket(reactor: Reactor, short_dir: Path) -> None:
    """The same, at a path."""
    with _server(reactor, _OK, path=f"{short_dir}/s") as server:
        with _trial(reactor, f"http://unix:{short_dir}/s:/health") as trial:
            trial.succeeds()
        assert server.requests[0].startswith(b"GET /health HTTP/1.0\r\nHost: localhost\r\n")


def test_a_server_that_keeps_the_connection(reactor: Reactor) -> None:
    """It need not close: what its status line says counts after a moment."""
    with _server(reactor, _OK, closes=False) as server, _ask(reactor, server) as trial:
        began = time.monotonic()
        trial.succeeds()
        assert time.monotonic() - began < ATTEMPT_SECONDS


def test_a_server_that_is_silent(reactor: Reactor) -> None:
    """An attempt without an answer is given up, its connection closed, and another one made."""
    with _server(reactor, b"HTTP/1.1 2", closes=False) as server:
        with _trial(reactor, f"http://127.0.0.1:{server.port}/", attempt=0.05) as trial:
            trial.fails("no answer within 0.05 s")
            trial.until(lambda: len(server.requests) > 1)
        assert server.connections[0].recv(1) == b""


def test_a_real_server_finishes_its_answer(reactor: Reactor) -> None:
    """The server sees no reset although only the status line was of interest."""
    errors: list[object] = []

    class Server(http.server.HTTPServer):
        def handle_error(self, *args: object) -> None:
            errors.append(args)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            for _ in range(10):
                time.sleep(0.001)
                self.wfile.write(b"x" * 1000)

        def log_message(self, *args: object) -> None:
            del args

    with Server(("127.0.0.1", 0), Handler) as server:
        threads = len(os.listdir("/proc/self/task"))
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with _trial(reactor, f"http://127.0.0.1:{server.server_port}/") as trial:
            trial.succeeds()
        thread.join()
        while len(os.listdir("/proc/self/task")) > threads:  # it may still be about to go
            time.sleep(0.001)
    assert not errors


# --- cmd ------------------------------------------------------------------------------------------


class _Runner:
    """Runs commands for a probe, as a supervisor would."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.killed = 0
        self.commands: list[str] = []

    def __call__(self, command: str, exited: Callable[[Exit], None]) -> Running:
        self.commands.append(command)
        return _Process(self, command, exited)


class _Process:
    def __init__(self, runner: _Runner, command: str, exited: Callable[[Exit], None]) -> None:
        self.runner, self.exited = runner, exited
        self.process = subprocess.Popen(["/bin/sh", "-c", command])
        self.pidfd = os.pidfd_open(self.process.pid)
        runner.reactor.watch(self.pidfd, READ, self._ended)

    def _close(self) -> None:
        if self.pidfd >= 0:
            self.runner.reactor.unwatch(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1

    def _ended(self) -> None:
        self._close()
        status = self.process.wait()
        self.exited(Exit(0, -status) if status < 0 else Exit(status))

    def kill(self) -> None:
        """End it."""
        if self.pidfd >= 0:
            self.runner.killed += 1
            self._close()
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def test_a_command_waits_for_success(reactor: Reactor, short_dir: Path) -> None:
    """It is run again until it exits with 0; how it ended is the reason."""
    run = _Runner(reactor)
    with _trial(reactor, f"cmd:test -e {short_dir}/x", run=run) as trial:
        trial.fails(f"cmd:test -e {short_dir}/x: code=exited, status=1/FAILURE")
        (short_dir / "x").touch()
        trial.succeeds()
    assert not run.killed
    assert set(run.commands) == {f"test -e {short_dir}/x"}


def test_a_command_that_is_killed(reactor: Reactor) -> None:
    """Also by a signal that would be a clean end of a service."""
    with _trial(reactor, "cmd:kill -TERM $$", run=_Runner(reactor)) as trial:
        trial.fails("code=killed, signal=TERM")


def test_a_command_that_hangs(reactor: Reactor) -> None:
    """It is killed when its time is over, and run again."""
    run = _Runner(reactor)
    with _trial(reactor, "cmd:exec sleep 1000", run=run, attempt=0.05) as trial:
        trial.fails("no answer within 0.05 s")
        trial.until(lambda: len(run.commands) > 1)
    assert run.killed == 2


def test_cancelling_ends_the_command(reactor: Reactor) -> None:
    """Nobody is told of its end."""
    run = _Runner(reactor)
    with _trial(reactor, "cmd:exec sleep 1000", run=run) as trial:
        trial.until(lambda: run.commands)
        trial.probe.cancel()
        assert run.killed == 1
        reactor.step(0.01)
        assert not trial.said


def test_a_command_that_cannot_be_run(reactor: Reactor) -> None:
    """Why is the reason, and it is tried again."""

    def run(command: str, exited: Callable[[Exit], None]) -> Running:
        del exited
        raise LaunchError(command, 2, "no such program")

    with _trial(reactor, "cmd:nothing", run=run) as trial:
        trial.fails("cmd:nothing: cannot run nothing: no such program")


# --- patience -------------------------------------------------------------------------------------


def test_the_waits_grow(reactor: Reactor) -> None:
    """From the first to the longest, and no further."""
    waits: list[float] = []
    now = time.monotonic()
    with _trial(reactor, f"tcp:127.0.0.1:{free_port()}") as trial:
        trial.probe._wait, trial.probe._longest = 0.1, 0.5
        for _ in range(8):
            trial.probe.expire(now)
            while not (trial.probe.reason and trial.probe._attempt is None):
                reactor.step(0.001)
            waits.append(trial.probe._wait)
    assert waits[0] == pytest.approx(0.15)
    assert waits == sorted(waits)
    assert waits[-1] == 0.5


def test_done_may_cancel_and_begin_anew(reactor: Reactor) -> None:
    """Whoever is called back may do anything with the probe."""
    said: list[str | None] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        readiness = parse_readiness(f"tcp:127.0.0.1:{server.getsockname()[1]}")
        assert isinstance(readiness, Tried)

        def again(error: str | None) -> None:
            said.append(error)
            first.cancel()
            probes.append(Probe(reactor, readiness, said.append))

        probes: list[Probe] = []
        first = Probe(reactor, readiness, again)
        deadline = time.monotonic() + SECONDS
        while len(said) < 2:
            assert time.monotonic() < deadline
            reactor.step(0.05)
    assert said == [None, None]
