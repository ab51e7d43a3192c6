"""One process a connection: connections a second, and the time from connect() to the end.

The same trivial child is started for each connection by ``sockact exec --accept``, in both its forms,
and by those that have done so for decades, one at a time and fifty at once. The child is either a
static program of one write(2), whose byte must arrive, or /bin/true. All servers run all the time,
and are measured in turn, so that a machine whose speed drifts is the same for all.

Servers of our own tell what the figures are worth: the client alone, with one that starts no process;
the floor, vfork(2) and execve(2) and nothing else in C; and the same in Python, posix_spawn(3) in a
loop. ncat and tcpsvd are shown, but are no part of the bar.

    python -m tests.bench.accept [--rounds N] [--count N] [--peers NAME,...] [--children byte,true]
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from tests.bench.measure import show
from tests.helpers import SECONDS, SOCKACT, free_port

BAR = 1.5
AT_ONCE = (1, 50)
ENVIRON = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "LANG": "C.UTF-8"}
"""The environment of all: each copies it into the child's."""

TRUE = shutil.which("true") or "/bin/true"
_PYTHON_FLOOR = """
import os, signal, socket, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096)
environ = dict(os.environ)
while True:
    number, _ = listener._accept()
    actions = [(os.POSIX_SPAWN_DUP2, number, 0), (os.POSIX_SPAWN_DUP2, number, 1)]
    os.posix_spawn(sys.argv[2], sys.argv[2:], environ, file_actions=actions)
    os.close(number)
"""
_BYTE = """
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) { return argc < 2 || write(atoi(argv[1]), "x", 1) != 1; }
"""

Command = Sequence[str]


@attrs.frozen
class Tools:
    """What was compiled.

    Attributes:
        directory: Where there is room for a configuration.
        accept: The program of ``accept.c``.
        byte: The child that writes a byte to the descriptor that is its argument.
    """

    directory: Path
    accept: str
    byte: str

    def child(self, name: str, number: int) -> tuple[list[str], int]:
        """Return the command of a child whose connection is descriptor `number`, and its bytes."""
        return ([self.byte, str(number)], 1) if name == "byte" else ([TRUE], 0)


@attrs.frozen
class Peer:
    """One that starts a process a connection.

    Attributes:
        program: What it takes; "" if that is always there.
        number: The descriptor at which a child finds its connection.
        command: The command for a port and a child's command.
        ours: Whether it is to be compared with the others.
        peer: Whether it is one of the others, for the bar.
    """

    program: str
    number: int
    command: Callable[[Tools, int, list[str]], Command]
    ours: bool = False
    peer: bool = True


def _xinetd(tools: Tools, port: int, child: list[str]) -> Command:
    config = tools.directory / f"xinetd-{port}"
    config.write_text(
        "service bench\n{\n type = UNLISTED\n socket_type = stream\n protocol = tcp\n wait = no\n"
        f" bind = 127.0.0.1\n port = {port}\n user = {os.geteuid()}\n server = {child[0]}\n"
        f" server_args = {' '.join(child[1:])}\n instances = UNLIMITED\n per_source = UNLIMITED\n"
        " cps = 1000000 1\n flags = NOLIBWRAP\n log_type = FILE /dev/null\n log_on_success =\n"
        " log_on_failure =\n disable = no\n}\n",
        encoding="ascii",
    )
    return ["xinetd", "-dontfork", "-stayalive", "-f", str(config), "-pidfile", f"{config}.pid"]


def _launcher() -> list[str]:
    script = Path(sys.executable).with_name("sockact")
    return [str(script)] if script.exists() else list(SOCKACT)


_UNLIMITED = ("MaxConnections=1000", "TriggerLimitIntervalSec=0", "PollLimitIntervalSec=0")
"""Those of systemd's limits that are hit, lifted."""


def _exec(*options: str) -> Callable[[Tools, int, list[str]], Command]:
    lifted = [word for one in _UNLIMITED for word in ("-p", one)]
    return lambda _tools, port, child: [
        *_launcher(), "exec", "--accept", *options, *lifted, "--listen", f"tcp:127.0.0.1:{port}",
        "--", *child
    ]  # fmt: skip


def _run(settings: str = "") -> Callable[[Tools, int, list[str]], Command]:
    """Return what makes the command for units."""

    def command(tools: Tools, port: int, child: list[str]) -> Command:
        unit = tools.directory / f"bench-{port}.socket"
        unit.write_text(
            "\n".join(
                ["[Socket]", f"ListenStream=127.0.0.1:{port}", "Accept=yes", *_UNLIMITED, ""]
            ),
            encoding="ascii",
        )
        service = tools.directory / f"bench-{port}@.service"
        text = f"[Service]\n{settings}ExecStart={' '.join(child)}\n"
        service.write_text(text, encoding="ascii")
        return [*_launcher(), "run", str(unit)]

    return command


PEERS = {
    "sockact exec --accept": Peer("", 3, _exec(), ours=True, peer=False),
    "sockact exec --accept --inetd": Peer("", 1, _exec("--inetd"), ours=True, peer=False),
    "sockact run": Peer("", 3, _run(), ours=True, peer=False),
    "sockact run + StandardInput=socket": Peer(
        "", 1, _run("StandardInput=socket\n"), ours=True, peer=False
    ),
    "systemd-socket-activate -a": Peer(
        "systemd-socket-activate", 3,
        lambda _, port, child: ["systemd-socket-activate", "-a", "-l", f"127.0.0.1:{port}", *child],
    ),
    "systemd-socket-activate -a --inetd": Peer(
        "systemd-socket-activate", 1,
        lambda _, port, child: ["systemd-socket-activate", "-a", "--inetd", "-l",
                                f"127.0.0.1:{port}", *child],
    ),
    # Neither of these two is to ask for names, or for the client's user.
    "tcpserver": Peer(
        "tcpserver", 1,
        lambda _, port, child: ["tcpserver", "-HRl0", "-c1000", "-b4096", "127.0.0.1", str(port),
                                *child],
    ),
    "tcpsvd": Peer(
        "tcpsvd", 1,
        lambda _, port, child: ["tcpsvd", "-l0", "-c1000", "-b4096", "127.0.0.1", str(port), *child],
        peer=False,
    ),
    "xinetd": Peer("xinetd", 1, _xinetd),
    "ncat": Peer(
        "ncat", 1,
        lambda _, port, child: ["ncat", "-lk", "-m1000", "127.0.0.1", str(port), "--exec",
                                " ".join(child)],
        peer=False,
    ),
    "floor": Peer(
        "", 1, lambda tools, port, child: [tools.accept, "spawn", str(port), *child], peer=False
    ),
    "floor in Python": Peer(
        "", 1,
        lambda _, port, child: [sys.executable, "-ISc", _PYTHON_FLOOR, str(port), *child],
        peer=False,
    ),
}  # fmt: skip


# --- one server -----------------------------------------------------------------------------------


@attrs.define
class Server:
    """A server that runs, and what was measured of it.

    Attributes:
        port: Where it listens.
        expected: How many bytes each connection is to bring.
        process: It.
        rates: Connections a second of each turn, for each number of clients at once.
        latencies: Microseconds of all connections, for each number of clients at once.
        failed: How many connections brought something else.
        seconds: Processor time of the server's own process; children's is not in it.
        connections: In all turns.
    """

    port: int
    expected: int
    process: subprocess.Popen[bytes]
    rates: dict[int, list[float]] = attrs.field(factory=lambda: {n: [] for n in AT_ONCE})
    latencies: dict[int, list[float]] = attrs.field(factory=lambda: {n: [] for n in AT_ONCE})
    failed: int = 0
    seconds: float = 0.0
    connections: int = 0

    def turn(self, accept: str, clients: int, count: int, *, counts: bool = True) -> float:
        """Make connections; return the client's share of processor time in the turn's time.

        Raises:
            RuntimeError: One has failed, and it does not count.
        """
        begin = self.own_seconds()
        command = [accept, "client", str(self.port), str(clients), str(count), str(self.expected)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        head, latencies = out.splitlines()
        spent, own, _, wrong = map(float, head.split())
        if wrong and not counts:
            raise RuntimeError(f"{wrong:.0f} of {count} connections failed, with {clients} at once")
        if counts:
            self.rates[clients].append(count / spent)
            self.latencies[clients] += map(float, latencies.split())
            self.failed += int(wrong)
            self.seconds += self.own_seconds() - begin
            self.connections += count
        return own / spent

    def own_seconds(self) -> float:
        """Return the processor time that all threads of the process have used."""
        times = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(file.read_text(encoding="ascii").split()[0]) for file in times) / 1e9

    def anonymous(self) -> int:
        """Return the KiB of memory of its own, RssAnon of proc(5)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(next(x for x in status.splitlines() if x.startswith("RssAnon")).split()[1])


@contextlib.contextmanager
def _running(command: Command, port: int, expected: int) -> Iterator[Server]:
    """Run a server until the end of the block.

    Raises:
        RuntimeError: It does not come up.
    """
    process = subprocess.Popen(
        command, env=ENVIRON, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + SECONDS
        while not _answers(port, expected):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(_why(command))
            time.sleep(0.02)
        yield Server(port, expected, process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int, expected: int) -> bool:
    data = b""
    with socket.socket() as sock, contextlib.suppress(OSError):
        sock.settimeout(1)
        sock.connect(("127.0.0.1", port))
        while part := sock.recv(100):
            data += part
        return len(data) == expected
    return False


def _why(command: Command) -> str:
    """Return the last words of a server that did not come up."""
    try:
        done = subprocess.run(
            command, env=ENVIRON, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, timeout=2, start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "it runs, but does not answer as the child would"
    said = (done.stderr or done.stdout).strip().splitlines()
    return f"status {done.returncode}: {said[-1] if said else ''}"


# --- the run --------------------------------------------------------------------------------------


def _compile(directory: Path) -> Tools:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise RuntimeError("a C compiler is needed")
    accept, byte = str(directory / "accept"), str(directory / "byte")
    source = directory / "byte.c"
    source.write_text(_BYTE, encoding="ascii")
    here = Path(__file__).with_suffix(".c")
    subprocess.run([compiler, "-O2", "-o", accept, str(here)], check=True)
    # Without a loader the child's share of the time is small.
    subprocess.run([compiler, "-O2", "-static", "-o", byte, str(source)], check=True)
    return Tools(directory, accept, byte)


def _percentile(values: Sequence[float], p: float) -> float | None:
    """Return a percentile of microseconds in milliseconds."""
    chosen = sorted(values)
    return round(chosen[int((len(chosen) - 1) * p / 100)] / 1e3, 3) if chosen else None


def _report(servers: dict[str, Server], clients: int) -> dict[str, object]:
    """Return the figures for a number of clients; the ratio is to the best of the peers."""
    rates = {name: server.rates[clients] for name, server in servers.items()}
    peers = {name: statistics.median(rates[name]) for name in rates if PEERS[name].peer}
    found: dict[str, object] = {}
    best = max(peers, key=lambda name: peers[name], default=None)
    for name, server in servers.items():
        latencies = server.latencies[clients]
        figures = found[name] = {
            "per_second": round(statistics.median(rates[name]), 1),
            "p50_ms": _percentile(latencies, 50),
            "p99_ms": _percentile(latencies, 99),
        }
        if best:
            figures["times_the_best"] = round(_times(rates[best], rates[name]), 3)
    found["best"] = best
    for name in (name for name in servers if PEERS[name].ours):
        if not best:
            break
        behind = [
            one for one in peers if one != best and _times(rates[one], rates[name]) > 1
        ]  # fmt: skip
        within = _times(rates[best], rates[name]) <= BAR
        found[f"{name}: in the bar"] = within and not behind
        found[f"{name}: behind"] = behind
    return found


def _times(these: Sequence[float], those: Sequence[float]) -> float:
    """Return the median of the ratios of the same turns."""
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


def _measure(
    tools: Tools, child: str, names: Sequence[str], rounds: int, count: int
) -> dict[str, object]:
    servers: dict[str, Server] = {}
    left_out: dict[str, str] = {}
    shares: list[float] = []
    with contextlib.ExitStack() as stack:
        for name in names:
            peer = PEERS[name]
            if peer.program and not shutil.which(peer.program):
                left_out[name] = f"{peer.program} is not installed"
                continue
            port = free_port()
            command, expected = tools.child(child, peer.number)
            try:
                running = _running(peer.command(tools, port, command), port, expected)
                server = stack.enter_context(running)
                for clients in AT_ONCE:
                    server.turn(tools.accept, clients, count, counts=False)
                servers[name] = server
            except RuntimeError as error:
                left_out[name] = str(error)
        order = list(servers.values())
        for _ in range(rounds):
            for clients in AT_ONCE:
                shares += [server.turn(tools.accept, clients, count) for server in order]
            order = order[1:] + order[:1]  # nobody is always behind the same one
        result: dict[str, object] = {f"{n} at once": _report(servers, n) for n in AT_ONCE}
        each = {name: server.seconds / server.connections for name, server in servers.items()}
        result["failed"] = {name: server.failed for name, server in servers.items()}
        result["server_us_each"] = {name: round(each[name] * 1e6) for name in servers}
        result["anonymous_kib"] = {name: servers[name].anonymous() for name in servers}
        result["client_share_max"] = round(max(shares), 3)
        result["left_out"] = left_out
    return result


def _client(tools: Tools, count: int) -> dict[str, float]:
    """Return how many connections a second the client makes if no process is started."""
    port = free_port()
    with _running([tools.accept, "answer", str(port)], port, 1) as server:
        for _ in range(5):
            for clients in AT_ONCE:
                server.turn(tools.accept, clients, count)
        return {f"{n} at once": round(statistics.median(server.rates[n])) for n in AT_ONCE}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.accept", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=300, help="connections in a turn")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--children", default="byte,true")
    arguments = parser.parse_args()
    result: dict[str, object] = {
        "bench": "accept",
        "rounds": arguments.rounds,
        "connections_a_turn": arguments.count,
        "bar": f"at most {BAR} times the best of the peers, and ahead of every other",
    }
    with tempfile.TemporaryDirectory(prefix="sa-") as text:
        tools = _compile(Path(text))
        result["the client alone"] = _client(tools, arguments.count)
        for child in arguments.children.split(","):
            result[child] = _measure(
                tools, child, arguments.peers.split(","), arguments.rounds, arguments.count
            )
    show(result)


if __name__ == "__main__":
    main()
