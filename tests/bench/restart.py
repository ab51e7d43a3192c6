"""What clients notice of a restart: failed requests, and latencies around it.

Each way to restart a server is put under the same load, a new connection for each request at fixed
times, and restarted again and again. Latencies count from when a request was due: of two seconds from
a restart's beginning on, or until its end if that is later, and of quiet times in between. All with the
same server run the same application. They are measured in turn, a few restarts each. What is
compared is the typical p99: the median of those of all restarts, to which a machine that was busy
with something else for a while does not matter.

    python -m tests.bench.restart [--restarts 20] [--rounds 2] [--rate 200] [--peers NAME,...]
"""

import argparse
import contextlib
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.bench.measure import show
from tests.bench.restarting import PEERS, running
from tests.helpers import free_port
from tests.load import KINDS, Load, Result

AROUND = 2.0
"""How many seconds from its beginning on belong to a restart that does not take longer; so that one
that takes its time has no better percentiles for that."""
QUIET = 1.0
CLIENTS = 50
TIMEOUT = 10.0

Span = tuple[float, float]


@attrs.define
class Latencies:
    """Those of the requests that were under way in some spans of time, span by span."""

    spans: list[list[float]] = attrs.field(factory=list)

    def add(self, result: Result, spans: Sequence[Span]) -> None:
        """Add spans of one load."""
        for begin, end in spans:
            self.spans.append(
                [took for due, took, _ in result.latencies if due < end and due + took >= begin]
            )

    def typical(self) -> float:
        """Return the median of the spans' p99, in seconds."""
        return statistics.median(_percentile(span, 99) for span in self.spans)

    def summary(self) -> dict[str, float]:
        """Return milliseconds."""
        every = [took for span in self.spans for took in span]
        figures = {
            "typical_p99_ms": self.typical(),
            "p50_ms": _percentile(every, 50),
            "p99_ms": _percentile(every, 99),
            "max_ms": max(every),
        }
        return {name: round(seconds * 1e3, 2) for name, seconds in figures.items()}


@attrs.define
class Figures:
    """What was measured of one peer, in all its turns."""

    seconds: list[float] = attrs.field(factory=list)
    counts: Counter[str] = attrs.field(factory=Counter)
    around: Latencies = attrs.field(factory=Latencies)
    quiet: Latencies = attrs.field(factory=Latencies)
    first_failures: list[str] = attrs.field(factory=list)
    servers: int = 0

    def add(self, result: Result, restarts: Sequence[Span], quiet: Sequence[Span]) -> None:
        """Add what became of one load."""
        self.seconds += [end - begin for begin, end in restarts]
        self.counts += Counter({kind: getattr(result, kind) for kind in ("requests", *KINDS)})
        self.around.add(result, [(begin, max(end, begin + AROUND)) for begin, end in restarts])
        self.quiet.add(result, quiet)
        self.first_failures += result.first_failures
        self.servers += len(result.by_server)

    def summary(self) -> dict[str, object]:
        """Return it as JSON takes it."""
        failed = {kind: self.counts[kind] for kind in KINDS[1:] if self.counts[kind]}
        found: dict[str, object] = {
            "restarts": len(self.seconds),
            "requests": self.counts["requests"],
            "failed": failed,
            "failed_in_all": sum(failed.values()),
            "servers_seen": self.servers,
            "restart_ms": {
                "median": round(statistics.median(self.seconds) * 1e3),
                "max": round(max(self.seconds) * 1e3),
            },
            "quiet": self.quiet.summary(),
            "around": self.around.summary(),
        }
        if self.first_failures:
            found["first_failures"] = self.first_failures[:5]
        return found


def _percentile(values: Sequence[float], p: float) -> float:
    """Return a percentile; a span without one right answer has none that is finite."""
    if not values:
        return math.inf
    return sorted(values)[max(0, math.ceil(len(values) * p / 100) - 1)]


def measure(name: str, figures: Figures, restarts: int, rate: float) -> None:
    """Restart one peer a few times under load, and add to its figures.

    Raises:
        AssertionError: It does not do as it should.
        RuntimeError: So says a program.
    """
    done: list[Span] = []
    quiet: list[Span] = []
    directory = Path(tempfile.mkdtemp(prefix="sa-"))
    directory.chmod(0o755)
    port = free_port()
    try:
        with (
            running(name, directory, port) as peer,
            Load(
                ("127.0.0.1", port), clients=CLIENTS, rate=rate, timeout=TIMEOUT, http=True,
                prefix=peer.prefix,
            ) as load,
        ):  # fmt: skip
            time.sleep(AROUND / 2)
            for number in range(restarts + 1):
                begin = time.monotonic()
                time.sleep(QUIET)
                quiet.append((begin, time.monotonic()))
                if number < restarts:
                    begin = time.monotonic()
                    peer.restart()
                    done.append((begin, time.monotonic()))
                    time.sleep(max(0.0, begin + AROUND - time.monotonic()))
            result = load.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    figures.add(result, done, quiet)


def _bars(all_figures: dict[str, Figures]) -> dict[str, object]:
    """Return for each of ours who of those with the same server is better in which column."""
    found: dict[str, object] = {}
    for name, figures in all_figures.items():
        if not PEERS[name].ours or not figures.seconds:
            continue
        better: dict[str, list[str]] = {"failed": [], "p99": []}
        for other, those in all_figures.items():
            same = PEERS[other].server == PEERS[name].server and not PEERS[other].ours
            if not same or not those.seconds:
                continue
            if _failed(those) < _failed(figures):
                better["failed"].append(other)
            if those.around.typical() < figures.around.typical():
                better["p99"].append(other)
        found[name] = better
    return found


def _failed(figures: Figures) -> int:
    return figures.counts["requests"] - figures.counts["ok"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.restart", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--peers", default=",".join(PEERS))
    arguments = parser.parse_args()
    names = arguments.peers.split(",")
    figures = {name: Figures() for name in names}
    left_out: dict[str, str] = {}
    for name in names:
        if why := PEERS[name](Path(), 0).missing():
            left_out[name] = why
    for number in range(arguments.rounds):
        share = arguments.restarts // arguments.rounds
        share += number < arguments.restarts % arguments.rounds
        for name in names:
            if name in left_out:
                continue
            begin = time.monotonic()
            try:
                measure(name, figures[name], share, arguments.rate)
            except (AssertionError, RuntimeError, OSError) as error:
                left_out[name] = f"failed: {error}"
            spent = time.monotonic() - begin
            with contextlib.suppress(OSError):
                print(f"{name}: {share} restarts, {spent:.0f} s", file=sys.stderr)
    show(
        {
            "bench": "restart",
            "rate": arguments.rate,
            "bar": "of those with the same server nobody is better in failed requests or in the typical p99",
            "better_than_ours": _bars(figures),
            **{name: figures[name].summary() for name in names if figures[name].seconds},
            "left_out": left_out,
        }
    )


if __name__ == "__main__":
    main()
