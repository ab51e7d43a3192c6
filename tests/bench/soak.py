"""What is left of thousands of activations, replacements and crashes of one ``sockact run``.

    python -m tests.bench.soak [--activations 10000] [--replacements 1000] [--crashes 1000]

prints JSON, and returns 1 if something has grown: the supervisor's descriptors, its memory, or the
children that it has not waited for. All three happen in turn, in a hundred blocks; after each the
supervisor is looked at when it has come to rest.

An activation is a process started by a connection: nine of ten by Accept=yes, the others a service
that accepts one connection and ends. A replacement is ``sockact replace``. A crash is the SIGKILL of
a service's process, which Restart= brings back, or of a process of Accept=yes.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.faults.nursery import wait_for
from tests.faults.supervised import Supervisor, missing, replace
from tests.helpers import SECONDS, free_port
from tests.processes import anonymous, descendants, descriptors, living, zombies

AT_ONCE = 8
"""Connections that are open at the same time."""
FDS_MAY_GROW = 2
BYTES_MAY_GROW = 1 << 20

_SERVE = """\
import os, socket, sys
listener = socket.socket(fileno=3)
listener.setblocking(True)
if len(sys.argv) < 2:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1))
while True:
    client, _ = listener.accept()
    client.send(b"%d" % os.getpid())
    client.close()
    if len(sys.argv) > 1:
        break
"""

_UNLIMITED = "TriggerLimitIntervalSec=0\nPollLimitIntervalSec=0\nMaxConnections=1000\n"


@attrs.frozen
class Sample:
    """What the supervisor has at rest.

    Attributes:
        fds: How many descriptors are open.
        anonymous: Bytes of memory of its own, RssAnon of proc(5).
        zombies: Children that it has not waited for.
        processes: Processes below it that live.
    """

    fds: int
    anonymous: int
    zombies: int
    processes: int


@attrs.frozen
class Report:
    """What became of it.

    Attributes:
        samples: The supervisor, after each block.
        seconds: How long all of it took.
    """

    samples: Sequence[Sample]
    seconds: float

    def growth(self, what: str) -> float:
        """Return by how much the median of the last tenth exceeds that of the second.

        In the first tenth everything is used for the first time.
        """
        values: list[int] = [getattr(sample, what) for sample in self.samples]
        tenth = max(1, len(values) // 10)
        return statistics.median(values[-tenth:]) - statistics.median(values[tenth : 2 * tenth])

    def grown(self) -> list[str]:
        """Return what has grown."""
        limits = {"fds": FDS_MAY_GROW, "anonymous": BYTES_MAY_GROW, "zombies": 0, "processes": 0}
        return [what for what, limit in limits.items() if self.growth(what) > limit]

    def summary(self) -> dict[str, object]:
        """Return it as JSON takes it."""
        found: dict[str, object] = {"seconds": round(self.seconds, 1), "grown": self.grown()}
        for what in ("fds", "anonymous", "zombies", "processes"):
            values: list[int] = [getattr(sample, what) for sample in self.samples]
            step = max(1, len(values) // 10)
            found[what] = {
                "every_tenth": [*values[::step], values[-1]],
                "max": max(values),
                "growth": self.growth(what),
            }
        return found


def _write_units(directory: Path, port: int) -> list[str]:
    """Write the units; return the paths of those that are to be run."""
    serve = directory / "serve.py"
    serve.write_text(_SERVE, encoding="ascii")
    python = f"{sys.executable} -IS {serve}"
    inetd = "[Service]\nStandardInput=socket\nStandardOutput=socket\n"
    units = {
        "echo.socket": f"[Socket]\nListenStream=127.0.0.1:{port}\nAccept=yes\n{_UNLIMITED}",
        "echo@.service": f"{inetd}ExecStart=/bin/echo -n x\n",
        "crash.socket": f"[Socket]\nListenStream={directory}/crash\nAccept=yes\n{_UNLIMITED}",
        "crash@.service": f"{inetd}ExecStart=/bin/sh -c 'kill -KILL $$$$'\n",
        "once.socket": f"[Socket]\nListenStream={directory}/once\n{_UNLIMITED}",
        "once.service": "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=exec\n"
        f"ExecStart={python} once\n",
        "web.socket": f"[Socket]\nListenStream={directory}/web\n{_UNLIMITED}",
        "web.service": "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\n"
        f"Restart=always\nRestartSec=0\nExecStart={python}\n",
    }
    for name, text in units.items():
        (directory / name).write_text(text, encoding="ascii")
    return [str(directory / name) for name in units if name.endswith(".socket")]


def _ask(address: tuple[str, int] | str, count: int = 1) -> list[bytes]:
    """Make connections at the same time; return all that came from each.

    Raises:
        OSError: One has failed, or did not end in time.
    """
    socks = []
    try:
        for _ in range(count):
            sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
            socks.append(sock)
            sock.settimeout(SECONDS)
            sock.connect(address)
        answers = []
        for sock in socks:
            data = b""
            while part := sock.recv(100):
                data += part
            answers.append(data)
        return answers
    finally:
        for sock in socks:
            sock.close()


class _Soak:
    """What happens to one supervisor."""

    def __init__(self, supervisor: Supervisor, directory: Path, port: int) -> None:
        self.supervisor = supervisor
        self.path = directory / "r"
        self.port = port
        self.crash, self.once, self.web = (
            str(directory / name) for name in ("crash", "once", "web")
        )

    def activate(self, count: int) -> None:
        """Have so many processes started by connections."""
        services = count // 10
        for _ in range(services):
            (answer,) = _ask(self.once)
            assert answer.isdigit(), answer
        left = count - services
        while left:
            some = min(AT_ONCE, left)
            answers = _ask(("127.0.0.1", self.port), some)
            assert answers == [b"x"] * some, answers
            left -= some

    def replace(self) -> None:
        """Replace the service that runs."""
        (before,) = _ask(self.web)
        done = replace(self.path)
        assert not done.returncode, f"{done.stderr}\n{self.supervisor.said()}"
        (after,) = _ask(self.web)
        assert before != after, "it is still the old one"

    def kill_service(self) -> None:
        """Kill the service that runs, and wait until it runs again."""
        (answer,) = _ask(self.web)
        os.kill(int(answer), signal.SIGKILL)
        wait_for(lambda: not living([int(answer)]), "it is dead")
        (after,) = _ask(self.web)
        assert after.isdigit(), after
        assert after != answer

    def kill_instance(self) -> None:
        """Have a process of Accept=yes killed."""
        assert _ask(self.crash) == [b""]

    def rest(self) -> Sample:
        """Wait until nothing happens; return what the supervisor has then."""
        pid = self.supervisor.pid

        def at_rest() -> bool:
            return len(living(descendants(pid))) == 1 and not zombies(pid)

        deadline = time.monotonic() + 2.0
        while not at_rest() and time.monotonic() < deadline:
            time.sleep(0.01)
        found = living(descendants(pid))
        return Sample(descriptors(pid), anonymous(pid), len(zombies(pid)), len(found))


def run(
    directory: Path, activations: int, replacements: int, crashes: int, blocks: int = 100
) -> Report:
    """Have so many of each happen.

    Args:
        directory: For everything; short, and nothing must be in it.
        activations: Processes that connections start.
        replacements: Of a service.
        crashes: Of processes.
        blocks: How often the supervisor is looked at.

    Raises:
        AssertionError: Something did not happen as it should.
    """
    begin = time.monotonic()
    port = free_port()
    arguments = [f"--rendezvous={directory / 'r'}", *_write_units(directory, port)]
    samples: list[Sample] = []
    with Supervisor(directory, arguments) as supervisor:
        wait_for((directory / "web").exists, "it listens")
        soak = _Soak(supervisor, directory, port)
        _ask(soak.web)
        for block in range(blocks):
            soak.activate(_share(activations, block, blocks))
            for _ in range(_share(replacements, block, blocks)):
                soak.replace()
            for number in range(_share(crashes, block, blocks)):
                if (block + number) % 2:
                    soak.kill_service()
                else:
                    soak.kill_instance()
            samples.append(soak.rest())
    return Report(samples, time.monotonic() - begin)


def _share(total: int, block: int, blocks: int) -> int:
    """Return how many of them are for a block."""
    return total * (block + 1) // blocks - total * block // blocks


def main() -> int:
    """Print what became of it; return 1 if something has grown."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--activations", type=int, default=10_000)
    parser.add_argument("--replacements", type=int, default=1000)
    parser.add_argument("--crashes", type=int, default=1000)
    parser.add_argument("--blocks", type=int, default=100)
    options = parser.parse_args()
    if why := missing():
        print(why, file=sys.stderr)
        return 1
    directory = Path(tempfile.mkdtemp(prefix="sa-", dir="/tmp"))
    try:
        report = run(
            directory, options.activations, options.replacements, options.crashes, options.blocks
        )
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    counts = {name: getattr(options, name) for name in ("activations", "replacements", "crashes")}
    print(json.dumps({"bench": "soak", **counts, **report.summary()}, indent=2))
    return bool(report.grown())


if __name__ == "__main__":
    sys.exit(main())
