"""A takeover under load, and at each of its messages one of both processes is killed or stopped.

An owner serves, a taker takes over, and at one point one of them gets a signal. Then whoever is
left serves, or a fresh start recovers; and a further process takes over, to show that nothing is
left behind. Meanwhile a load opens a new connection for every request, at a fixed rate.

    python -m tests.faults.crash_points [--times 20] [--only WORD]

runs every case so many times and prints what became of the requests as JSON.
"""

import argparse
import collections
import enum
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from tests.faults import page as states
from tests.faults.nursery import Child, Nursery, wait_for
from tests.faults.server import ABORTED
from tests.helpers import SECONDS, free_port
from tests.load import KINDS, Load, Result

RATE = 300.0
CLIENTS = 4
TIMEOUT = 10.0
STOPPED_SECONDS = 1.0
LINGER_SECONDS = 0.2
"""A drain lasts at least so long: the former owner is there when its successor dies just then."""

LONG_LINGER_SECONDS = 1.5
"""The same for one that is to see its successor succeeded."""

WORK_SECONDS = 0.005
"""How long an answer takes, so that there is nearly always one that is not finished."""

SHORT_SECONDS = 1.0
"""How long an owner waits for a taker that does not come back; usually up to 20 s."""

REQUESTS_AFTER = 20
"""How many requests the last one has to answer."""

TAKER_SAYS = ("hello", "request", "accept", "ack", "adopted", "ready", "committed")
OWNER_SAYS = ("welcome", "offer", "fds", "commit", "drain", "gone")


class Fault(enum.Enum):
    """What happens at a point."""

    KILL = "SIGKILL"
    PAUSE = "SIGSTOP, after a second SIGCONT"
    HANG = "SIGSTOP, and SIGCONT only when another one has taken over"


@attrs.frozen
class Case:
    """One point of a takeover, and what happens there.

    Attributes:
        side: Whom it happens to: owner; taker; or middle, an owner whose own predecessor has not
            finished yet when its successor comes.
        point: ``send:TYPE``, just before a message is sent, or ``receive:TYPE``, just after one
            was received.
        fault: What happens.
    """

    side: str
    point: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.fault.name} {self.side} {self.point}"

    @property
    def kills_only_holder(self) -> bool:
        """Whether the one who is killed is the only process that has the sockets.

        The kernel resets what is queued then, and refuses what comes before the next start.
        """
        if self.fault is not Fault.KILL:
            return False
        if self.side != "owner":
            return self.side == "taker" and self.point == "receive:gone"
        return self.point in {
            "receive:hello", "send:welcome", "receive:request", "send:offer", "receive:accept",
            "send:fds",
        }  # fmt: skip


def _points(says: Sequence[str], hears: Sequence[str]) -> Iterator[str]:
    yield from (f"send:{kind}" for kind in says)
    yield from (f"receive:{kind}" for kind in hears)


def cases() -> list[Case]:
    """Return every case.

    A taker that hangs when it has said Committed, and an owner that hangs before it has heard that,
    is a server that hangs: no takeover has anything to do with it. An owner that hangs then is
    waited for no longer than two seconds.
    """
    found = []
    for fault in (Fault.KILL, Fault.PAUSE):
        found += [Case("taker", point, fault) for point in _points(TAKER_SAYS, OWNER_SAYS)]
        found += [Case("owner", point, fault) for point in _points(OWNER_SAYS, TAKER_SAYS)]
    found += [
        Case("taker", point, Fault.HANG)
        for point in _points(TAKER_SAYS, OWNER_SAYS)
        if point not in ("receive:drain", "receive:gone")
    ]
    found += [Case("owner", point, Fault.HANG) for point in ("receive:committed", "send:drain")]
    middle = (*_points(OWNER_SAYS, TAKER_SAYS), "send:release")
    return found + [Case("middle", point, Fault.KILL) for point in middle]


@attrs.frozen
class Outcome:
    """What became of a case.

    Attributes:
        result: The requests.
        died: How many of them the killed process had accepted and not finished, at most.
        recovered: Whether nobody was left, and a fresh start was needed.
        resumed: How often the owner has taken back.
    """

    result: Result
    died: int
    recovered: bool
    resumed: int

    def check(self, case: Case) -> None:
        """Raise AssertionError if a request was lost that should not have been."""
        found = self.result
        assert not found.timed_out + found.wrong + found.other, (case, found)
        assert self.died <= CLIENTS, (case, self.died)
        if case.kills_only_holder:
            return
        assert not found.refused, (case, found)
        assert found.failed <= self.died, (case, self.died, found)
        assert not self.recovered, case
        back = ("receive:commit", "send:committed", "receive:drain")
        if case.side == "taker" and case.point in back and case.fault is not Fault.PAUSE:
            assert self.resumed, case


def _lives(child: Child) -> bool:
    return not child.is_dead


def _leads(child: Child) -> bool:
    return _lives(child) and child.page.state == states.LEADING


def _settle(children: Sequence[Child], what: str) -> Child | None:
    """Wait until one leads and the others have ended; return that one, or None if none lives.

    Raises:
        AssertionError: It does not come to that, or two lead at once.
    """

    def settled() -> bool:
        leaders = [child for child in children if _leads(child)]
        # Between two looks one may have handed over to the other.
        twice = len(leaders) > 1 and all(map(_leads, leaders))
        assert not twice, f"two lead at once: {_describe(children)}"
        alive = [child for child in children if _lives(child)]
        return not alive or (len(alive) == 1 and alive == leaders)

    wait_for(settled, lambda: f"{what}: {_describe(children)}", SECONDS + TIMEOUT)
    return next(filter(_lives, children), None)


def _describe(children: Sequence[Child]) -> str:
    return ", ".join(f"{child.name} {states.STATES[child.page.state]}" for child in children)


def run(nursery: Nursery, directory: Path, case: Case) -> Outcome:
    """Have a case happen, and see that one process leads in the end.

    Args:
        nursery: Where servers are born; all that are left are killed in the end.
        directory: For the rendezvous; short, and nothing must be in it.
        case: The case.

    Raises:
        AssertionError: There is no way on, or there is more than one leader.
    """
    happen = _run_three if case.side == "middle" else _run
    try:
        return happen(nursery, directory / "r", free_port(), case)
    finally:
        nursery.kill_all()


def _run(nursery: Nursery, path: Path, port: int, case: Case) -> Outcome:
    name = "KILL" if case.fault is Fault.KILL else "STOP"
    faults = {case.side: f"{case.point}={name}"}
    hangs = case.fault is Fault.HANG
    owner = nursery.start(
        "a", path, port, linger=LINGER_SECONDS, work=WORK_SECONDS, fault=faults.get("owner"),
        hasten=SHORT_SECONDS if hangs else None,
    )  # fmt: skip
    owner.wait(states.LEADING)
    with Load(("127.0.0.1", port), clients=CLIENTS, rate=RATE, timeout=TIMEOUT) as load:
        taker = nursery.start(
            "b", path, port, linger=LINGER_SECONDS, work=WORK_SECONDS, fault=faults.get("taker"),
            patience=SHORT_SECONDS if hangs else None,
        )  # fmt: skip
        victim = owner if case.side == "owner" else taker
        if case.fault is Fault.KILL:
            victim.wait_dead()
        else:
            wait_for(lambda: victim.is_stopped, f"{victim.name} is stopped")
            if not hangs:
                time.sleep(STOPPED_SECONDS)  # how long it is stopped is the case itself
                victim.signal(signal.SIGCONT)
        died = victim.page.unfinished if case.fault is Fault.KILL else 0
        known = [child for child in (owner, taker) if not hangs or child is not victim]
        leader = _settle(known, "one is left")
        if recovered := leader is None:
            known.append(nursery.start("c", path, port))
            known[-1].wait(states.LEADING)
        known.append(nursery.start("d", path, port))
        known[-1].wait(states.LEADING)
        if hangs:
            known.append(victim)
            victim.signal(signal.SIGCONT)
        leader = _settle(known, "the last one has taken over")
        assert leader
        assert hangs or leader.name == "d", _describe(known)
        before = leader.page.finished
        wait_for(lambda: leader.page.finished >= before + REQUESTS_AFTER, "the last one serves")
        resumed = owner.page.resumed
        result = load.stop()
    for child in known:
        if child is victim and case.fault is Fault.KILL:
            assert nursery.status(child) == -signal.SIGKILL
        elif child is not leader:
            assert nursery.status(child) == 0 or (child is taker and hangs), child.name
    return Outcome(result, died, recovered, resumed)


def _run_three(nursery: Nursery, path: Path, port: int, case: Case) -> Outcome:
    first = nursery.start("a", path, port, linger=LONG_LINGER_SECONDS, work=WORK_SECONDS)
    first.wait(states.LEADING)
    with Load(("127.0.0.1", port), clients=CLIENTS, rate=RATE, timeout=TIMEOUT) as load:
        middle = nursery.start(
            "b", path, port, linger=LINGER_SECONDS, work=WORK_SECONDS, fault=f"{case.point}=KILL"
        )
        middle.wait(states.LEADING)
        first.wait(states.DRAINING)
        last = nursery.start("c", path, port, work=WORK_SECONDS)
        middle.wait_dead()
        died = middle.page.unfinished
        known = [first, last]
        if _settle(known, "one is left") is not last:
            known.append(nursery.start("d", path, port))
        last = known[-1]
        last.wait(states.LEADING)
        assert _settle(known, "the last one has taken over") is last
        before = last.page.finished
        wait_for(lambda: last.page.finished >= before + REQUESTS_AFTER, "the last one serves")
        resumed = first.page.resumed
        result = load.stop()
    assert nursery.status(middle) == -signal.SIGKILL
    # If the first one has taken back, the successor of the one that died has come for nothing.
    assert [nursery.status(child) for child in known[:-1]] in ([0], [0, ABORTED])
    return Outcome(result, died, recovered=False, resumed=resumed)


def main() -> int:
    """Run every case, and print the counts; return 1 if one has failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.crash_points")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--only", default="", help="a part of the names of the cases")
    options = parser.parse_args()
    counts: dict[str, collections.Counter[str]] = {}
    problems: list[str] = []
    directory = Path(tempfile.mkdtemp(prefix="sa-"))
    begin = time.monotonic()
    try:
        with Nursery() as nursery:
            for case in [case for case in cases() if options.only in str(case)] * options.times:
                count = counts.setdefault(str(case), collections.Counter())
                count["runs"] += 1
                try:
                    outcome = run(nursery, directory, case)
                    count.update({kind: getattr(outcome.result, kind) for kind in KINDS})
                    count["requests"] += outcome.result.requests
                    count["failures_allowed"] += outcome.died
                    count["recovered_by_a_fresh_start"] += outcome.recovered
                    count["owner_took_back"] += outcome.resumed
                    outcome.check(case)
                except AssertionError as error:
                    count["problems"] += 1
                    problems.append(f"{case}: {error}")
                    print(problems[-1], file=sys.stderr, flush=True)
        log = directory / "log"
        told = log.read_text(encoding="utf-8") if problems and log.exists() else ""
    finally:
        shutil.rmtree(directory)
    total = sum(counts.values(), collections.Counter())
    report = {"seconds": round(time.monotonic() - begin), "total": total, "cases": counts}
    print(json.dumps(report | {"problems": problems}, indent=2))
    print(told, file=sys.stderr)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
