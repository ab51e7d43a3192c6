"""The load itself: what goes right is right, and each thing that can go wrong is counted as such."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.helpers import ROOT, SECONDS, clean_environ
from tests.load import KEPT_FAILURES, KINDS, Address, Load, Result

# A real server, one connection after the other on the inherited listener. It goes through its list of
# manners, one a connection, and says which it used, so that the load's counts can be held against it.
SERVER = r"""
import os, socket, struct, sys, time
listener = socket.socket(fileno=int(sys.argv[1]))
manners, held, number = sys.argv[2].split(), [], 0
while True:
    client, _ = listener.accept()
    manner = manners[number % len(manners)]
    number += 1
    nonce = b""
    if manner != "rude":
        nonce = client.recv(4096).split()[1]
    os.write(1, manner.encode() + b" ")  # before the load can be done with it
    if manner == "slow":
        time.sleep(0.005)
    client.send({
        "right": nonce + b" one\n", "other": nonce + b" two\n", "slow": nonce + b" one\n",
        "nonce": b"x" + nonce + b" one\n", "nobody": nonce + b" \n", "nameless": nonce + b"\n",
        "words": nonce + b" one two\n", "half": nonce + b" on", "only-nonce": nonce,
        "twice": nonce + b" one\n" + nonce + b" one\n", "wrong-reset": b"?",
        "late-reset": nonce + b" one\n", "open": nonce + b" one\n",
    }.get(manner, b""))
    if "reset" in manner:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if manner in ("hang", "open"):
        held.append(client)
    else:
        if manner == "rude":
            while not client.recv(1, socket.MSG_PEEK):
                pass
        client.close()
"""

MEANT = {
    "right": "ok",
    "other": "ok",
    "slow": "ok",
    "empty": "empty",
    "reset": "reset",
    "late-reset": "reset",
    "rude": "reset",
    "nonce": "wrong",
    "nobody": "wrong",
    "nameless": "wrong",
    "words": "wrong",
    "half": "wrong",
    "only-nonce": "wrong",
    "twice": "wrong",
    "wrong-reset": "wrong",
    "hang": "timed_out",
    "open": "timed_out",
}
"""What each manner of the server is to be counted as."""


@attrs.define
class Server:
    """A server in a child process."""

    address: Address
    process: subprocess.Popen[str]

    told: str = ""

    def until(self, connections: int) -> None:
        """Wait until it had so many connections."""
        assert self.process.stdout
        deadline = time.monotonic() + SECONDS
        while self.told.count(" ") < connections:
            assert time.monotonic() < deadline
            self.told += os.read(self.process.stdout.fileno(), 65536).decode()

    def end(self) -> Counter[str]:
        """Kill it, and with it the listener; return how often it used which manner."""
        if self.process.returncode is None:
            self.process.kill()
            self.told += self.process.communicate()[0]
        return Counter(self.told.split())


@contextlib.contextmanager
def serving(address: Address, manners: str = "right", backlog: int = 100) -> Iterator[Server]:
    """Run `SERVER`; the listener is open already, and only the child has it."""
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as listener:
        listener.bind(address)
        listener.listen(backlog)
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(listener.fileno()), manners],
            pass_fds=[listener.fileno()],
            env=clean_environ(),
            stdout=subprocess.PIPE,
            text=True,
        )
        name = listener.getsockname()
    server = Server(name, process)
    try:
        yield server
    finally:
        server.end()


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, short_dir: Path) -> Address:
    """Give an address to listen on, of each kind."""
    return ("127.0.0.1", 0) if request.param == "tcp" else str(short_dir / "socket")


def _counts(result: Result) -> dict[str, int]:
    return {kind: getattr(result, kind) for kind in KINDS if getattr(result, kind)}


def _adds_up(result: Result) -> None:
    assert result.requests == sum(getattr(result, kind) for kind in KINDS)
    assert result.failed == result.requests - result.ok
    assert result.ok == len(result.latencies) == sum(result.by_server.values())
    texts = sum(
        min(KEPT_FAILURES, count) for kind, count in _counts(result).items() if kind != "ok"
    )
    assert len(result.first_failures) == texts


@pytest.mark.parametrize("rate", [0, 500])
def test_all_right(address: Address, rate: float) -> None:
    """Each connection that a right server took is counted as right, for the server that it was."""
    with serving(address, "right other") as server:
        with Load(server.address, rate=rate) as load:
            server.until(200)
            result = load.stop()
        manners = server.end()
    assert result.failed == 0
    assert result.by_server == {"one": manners["right"], "two": manners["other"]}
    assert min(result.by_server.values()) >= 100
    _adds_up(result)
    for begin, seconds, _ in result.latencies:
        assert result.began <= begin
        assert 0 < seconds <= result.ended - begin


@pytest.mark.parametrize("manner", MEANT)
def test_each_manner(address: Address, manner: str) -> None:
    """Each thing that a server can do wrong is counted, and as what it is."""
    if isinstance(address, str) and manner in ("reset", "late-reset"):
        pytest.skip("SO_LINGER resets no Unix socket; what was left unread does (manner rude)")
    timeout = 0.4 if MEANT[manner] == "timed_out" else SECONDS
    with serving(address, f"right {manner}") as server:
        with Load(server.address, clients=2, timeout=timeout) as load:
            server.until(10)
            result = load.stop()
        manners = server.end()
    meant = Counter(MEANT[name] for name in manners.elements())
    assert manners[manner] >= 5
    assert _counts(result) == meant, result
    _adds_up(result)


HTTP = {
    "HTTP/1.0 200 OK\r\nA: b\r\n\r\n{} one\n": "ok",
    "HTTP/1.1 200\r\n\r\n{} one\n": "ok",
    "HTTP/1.1 200 OK\r\n\r\n{} one": "wrong",
    "HTTP/1.1 200 OK\r\n\r\n": "wrong",
    "HTTP/1.1 200 OK\r\nX: {} one\n": "wrong",
    "HTTP/1.1 200 OK\r\n\r\n{}0 one\n": "wrong",
    "HTTP/1.1 503 Service Unavailable\r\n\r\n{} one\n": "wrong",
    "{} one\n": "wrong",
    "": "empty",
}


@pytest.mark.parametrize("answer", HTTP)
def test_http(answer: str) -> None:
    """In HTTP the same line as the body of an answer with status 200 is right, and nothing else."""
    server = (
        "import socket, sys\n"
        "listener = socket.socket(fileno=int(sys.argv[1]))\n"
        "while True:\n"
        "    client, _ = listener.accept()\n"
        "    with client:\n"
        "        asked = client.recv(4096).decode()\n"
        "        assert asked.endswith(' HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n'), asked\n"
        "        answer = sys.argv[2].format(asked.removeprefix('GET /?n=').split()[0])\n"
        "        client.send(answer[:20].encode())\n"
        "        client.send(answer[20:].encode())\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-c", server, str(listener.fileno()), answer]
        process = subprocess.Popen(
            command, pass_fds=[listener.fileno()], env=clean_environ(), stderr=subprocess.DEVNULL
        )
        name = listener.getsockname()
    try:
        with Load(name, clients=2, http=True, prefix=["env"]) as load:
            result = load.stop()
    finally:
        process.kill()
        process.wait()
    _adds_up(result)
    assert _counts(result) == {HTTP[answer]: result.requests}


def test_killed_server(address: Address) -> None:
    """All that was due after the last holder of the listener died is refused."""
    with serving(address) as server, Load(server.address, rate=500) as load:
        server.until(10)
        server.end()
        load.mark("gone")
        time.sleep(0.1)  # in which 50 requests are due
        result = load.stop()
    assert result.ok >= 9  # the tenth may have been killed at
    assert result.refused >= 49, result
    # What was under way is reset, or ended without an answer.
    assert result.failed - result.refused <= 4, result
    gone = dict(result.marks)["gone"]
    assert all(begin < gone for begin, _, _ in result.latencies)
    _adds_up(result)


@pytest.mark.parametrize("node", ["none", "closed", "tcp"])
def test_nobody_listens(short_dir: Path, node: str) -> None:
    """Without a listener, or even a path, every request is refused, and the load comes up still."""
    family = socket.AF_INET if node == "tcp" else socket.AF_UNIX
    with socket.socket(family) as bound:
        if node != "none":
            bound.bind(("127.0.0.1", 0) if node == "tcp" else str(short_dir / "socket"))
        name = bound.getsockname() if node == "tcp" else str(short_dir / "socket")
        with Load(name) as load:
            result = load.stop()
    assert _counts(result) == {"refused": result.requests}
    assert result.percentile(50) is None
    _adds_up(result)


def test_full_backlog_is_a_delay(short_dir: Path) -> None:
    """Clients of a Unix listener whose backlog is full wait for their turn, as blocking ones do."""
    with serving(str(short_dir / "socket"), "slow", backlog=0) as server:
        with Load(server.address, clients=8) as load:
            server.until(50)
            result = load.stop()
        manners = server.end()
    assert _counts(result) == {"ok": manners["slow"]}, result


def test_full_backlog_for_ever(short_dir: Path) -> None:
    """A connection that never gets into the backlog is timed out, as is one that is never taken."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_dir / "socket"))
        listener.listen(0)
        with Load(listener.getsockname(), clients=4, timeout=0.1) as load:
            result = load.stop()
    assert _counts(result) == {"timed_out": result.requests}, result
    assert any("the backlog is full" in text for text in result.first_failures)
    assert any("before an answer" in text for text in result.first_failures)


def test_latency_counts_from_when_it_was_due(address: Address) -> None:
    """While the server stands still, requests go on to be due, and each one's wait is counted."""
    with serving(address) as server, Load(server.address, clients=2, rate=200) as load:
        server.until(10)
        server.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, server.process.pid, os.WSTOPPED | os.WNOWAIT)
        load.mark("still")
        time.sleep(0.2)
        load.mark("on")
        server.process.send_signal(signal.SIGCONT)
        result = load.stop()
    assert result.failed == 0, result
    times = dict(result.marks)
    still, on = times["still"], times["on"]
    due = [(begin, seconds) for begin, seconds, _ in result.latencies if still <= begin < on]
    assert abs(len(due) - 200 * (on - still)) <= 1
    assert all(begin + seconds >= on for begin, seconds in due)
    whole = result.percentile(100, [(still, on)])
    assert whole
    assert whole >= (on - still) - 1 / 200


def test_due_but_never_made(short_dir: Path) -> None:
    """Requests for which no client was free in time are failures, not left out."""
    path = str(short_dir / "socket")
    with serving(path, "hang"), Load(path, clients=1, rate=100, timeout=0.1) as load:
        result = load.stop()
    assert result.timed_out
    assert result.other
    assert result.failed == result.requests
    # Begun with the first, one each 10 ms, and the first alone took 100 ms.
    assert result.requests >= 10
    _adds_up(result)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only 127.0.0.1 is there")
def test_loopback_sources_in_turn() -> None:
    """Over loopback each connection comes from the next address, and none from the server's."""
    with socket.create_server(("127.0.0.3", 0), backlog=100) as listener:
        with Load(listener.getsockname(), timeout=0.1) as load:
            result = load.stop()
        hosts = []
        for _ in range(result.requests):
            client, (host, _) = listener.accept()
            client.close()
            hosts.append(host)
    assert _counts(result) == {"timed_out": result.requests}
    assert len(set(hosts)) == len(hosts) >= 4
    assert hosts[:3] == ["127.0.0.2", "127.0.0.4", "127.0.0.5"]


def test_percentiles() -> None:
    """A percentile is the nearest rank of those under way in a window, and none of none."""
    latencies = [
        (float(second), 0.5 if second == 3 else second / 1000, "one") for second in range(10)
    ]
    result = Result(10, 10, 0, 0, 0, 0, 0, 0, (), {"one": 10}, latencies)
    assert result.percentile(0) == 0
    assert result.percentile(50) == 0.005
    assert result.percentile(90) == 0.009
    assert result.percentile(91) == result.percentile(100) == 0.5
    assert result.percentile(100, [(4, 6), (8, 9)]) == 0.008
    assert result.percentile(100, [(3.4, 4)]) == 0.5  # begun before, and held up in it
    assert result.percentile(100, [(3.6, 4)]) is None


def test_stop_twice_and_after_the_end(address: Address) -> None:
    """The result stays; a load that was not stopped has none; one that died says so."""
    with serving(address) as server:
        with Load(server.address) as load:
            result = load.stop()
            assert load.stop() is result
        assert load.stop() is result
        with Load(server.address) as load:
            pass
        with pytest.raises(RuntimeError, match="does not run"):
            load.stop()
        with Load(server.address) as load:
            assert load._process
            load._process.kill()
            with pytest.raises(RuntimeError, match="status -9"):
                load.stop()


def test_no_load(short_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A load that cannot run says so and leaves nothing; one that makes no sense is not started."""
    with pytest.raises(RuntimeError, match="the load ended"):
        Load(str(short_dir / ("x" * 108))).__enter__()
    assert "too long" in capfd.readouterr().err
    senseless: list[dict[str, Any]] = [{"clients": 0}, {"rate": -1}, {"timeout": 0}]
    for wrong in senseless:
        with pytest.raises(ValueError, match="needed"):
            Load("/x", **wrong)


def test_by_hand(address: Address) -> None:
    """From the command line it shows the counts as JSON."""
    with serving(address, "right other nonce") as server:
        text = address if isinstance(address, str) else "{}:{}".format(*server.address)
        shown = subprocess.run(
            [sys.executable, "-m", "tests.load", text, "--seconds", "0.2", "--rate", "100"],
            cwd=ROOT,
            env=clean_environ(),
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS,
        )
        manners = server.end()
    summary = json.loads(shown.stdout)
    assert summary["requests"] == manners.total() == 21  # at 0, 10, ... 200 ms
    assert summary["failed"] == summary["wrong"] == manners["nonce"]
    assert summary["by_server"] == {"one": manners["right"], "two": manners["other"]}
    assert 0 < summary["p50_ms"] <= summary["p99_ms"] <= summary["max_ms"]
