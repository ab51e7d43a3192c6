"""Many takeovers in a row under load: no request fails, none waits for long, nothing grows.

    python -m tests.faults.many [--takeovers 1000] [--interval 0.5] [--quiet 4]

prints JSON. Latencies are those of requests at fixed times (an open loop), counted from when they
were due: of the seconds around the takeovers, and of quiet seconds in between.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

import sockact
from tests.faults import page as states
from tests.faults.nursery import Child, Nursery
from tests.helpers import free_port
from tests.load import Load, Result

BAR = 1.2
RATE = 200.0
BATCH = 50
"""Takeovers between two quiet times."""

HALF_SECOND = 0.5
_NICE = 10

Span = tuple[float, float]


@attrs.frozen
class Sample:
    """What one generation has.

    Attributes:
        fds: How many descriptors are open.
        anonymous: Bytes of memory of its own, RssAnon of proc(5).
        sockets: How many sockets are passed on.
    """

    fds: int
    anonymous: int
    sockets: int


@attrs.frozen
class Report:
    """What became of it.

    Attributes:
        result: The requests.
        samples: Of each generation, when it serves alone.
        around: The seconds around takeovers, merged.
        quiet: The quiet times.
        seconds: Of each takeover, from the start of the new process until it leads.
    """

    result: Result
    samples: Sequence[Sample]
    around: Sequence[Span]
    quiet: Sequence[Span]
    seconds: Sequence[float]

    def growth(self, what: str) -> float:
        """Return by how much the median of the last tenth of generations exceeds the first's."""
        values: list[int] = [getattr(sample, what) for sample in self.samples]
        tenth = max(1, len(values) // 10)
        return statistics.median(values[-tenth:]) - statistics.median(values[:tenth])

    def summary(self) -> dict[str, object]:
        """Return it as JSON takes it."""
        found: dict[str, object] = {"takeovers": len(self.seconds), "bar": BAR}
        for name, p in (("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)):
            around = self.result.percentile(p, self.around)
            quiet = self.result.percentile(p, self.quiet)
            if around is None or quiet is None:
                continue
            found[name] = {
                "around_ms": round(around * 1e3, 3),
                "quiet_ms": round(quiet * 1e3, 3),
                "ratio": round(around / quiet, 3),
            }
        found["takeover_ms"] = {
            "median": round(statistics.median(self.seconds) * 1e3, 1),
            "max": round(max(self.seconds) * 1e3, 1),
        }
        for what in ("fds", "anonymous", "sockets"):
            values = [getattr(sample, what) for sample in self.samples]
            found[what] = {
                "every_100": values[::100],
                "max": max(values),
                "growth": self.growth(what),
            }
        load = self.result.summary()
        del load["by_server"]
        return found | {"load": load}


def _sample(child: Child, path: Path) -> Sample:
    status = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    fds = len(list(Path(f"/proc/{child.pid}/fd").iterdir()))
    return Sample(fds, int(line.split()[1]) * 1024, len(sockact.holdings(str(path))))


def _merged(moments: Sequence[float]) -> list[Span]:
    """Return the seconds around moments, which are in order."""
    spans: list[Span] = []
    for moment in moments:
        begin, end = moment - HALF_SECOND, moment + HALF_SECOND
        if spans and begin <= spans[-1][1]:
            spans[-1] = spans[-1][0], end
        else:
            spans.append((begin, end))
    return spans


def run(directory: Path, takeovers: int, *, interval: float, quiet: float) -> Report:
    """Have so many takeovers happen.

    Args:
        directory: For the rendezvous; short, and nothing must be in it.
        takeovers: How many.
        interval: Seconds from the beginning of one to that of the next.
        quiet: Seconds without any, before, after, and after each batch.

    Raises:
        AssertionError: One has failed.
    """
    path, port = directory / "r", free_port()
    moments: list[float] = []
    calm: list[Span] = []
    samples: list[Sample] = []
    seconds: list[float] = []

    def be_quiet() -> None:
        # The seconds around the takeovers before and after do not count.
        time.sleep(HALF_SECOND)
        begin = time.monotonic()
        time.sleep(quiet)
        calm.append((begin, time.monotonic()))
        time.sleep(HALF_SECOND)

    with Nursery() as nursery:
        leader = nursery.start("g0", path, port)
        leader.wait(states.LEADING)
        with Load(("127.0.0.1", port), rate=RATE) as load:
            for number in range(takeovers):
                if number % BATCH == 0:
                    be_quiet()
                begin = time.monotonic()
                successor = nursery.start(f"g{number + 1}", path, port, nice=_NICE)
                successor.wait(states.LEADING)
                moments.append(time.monotonic())
                seconds.append(moments[-1] - begin)
                status = nursery.status(leader)
                assert not status, f"generation {number + 1} ended with status {status}"
                leader = successor
                assert leader.page.generation == number + 2
                time.sleep(max(0.0, begin + interval - time.monotonic()))
                samples.append(_sample(leader, path))
            be_quiet()
            result = load.stop()
    return Report(result, samples, _merged(moments), calm, seconds)


def main() -> int:
    """Print what became of it; return 1 if a request has failed, or something has grown."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.many")
    parser.add_argument("--takeovers", type=int, default=1000)
    parser.add_argument("--interval", type=float, default=0.5)
    parser.add_argument("--quiet", type=float, default=4.0)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="sa-"))
    try:
        report = run(directory, options.takeovers, interval=options.interval, quiet=options.quiet)
    finally:
        shutil.rmtree(directory)
    print(json.dumps(report.summary(), indent=2))
    return bool(report.result.failed or report.growth("fds") >= 5 or report.growth("sockets"))


if __name__ == "__main__":
    sys.exit(main())
