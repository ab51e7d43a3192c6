"""At each message of a takeover one of both processes is killed or stopped: nothing is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.crash_points import Case, Fault, cases, run
from tests.faults.nursery import Nursery

KILLED = [case for case in cases() if case.fault is Fault.KILL and case.side != "middle"]
# Each costs a second or more: `python -m tests.faults.crash_points` pauses both at every point.
PAUSED = [
    case
    for case in cases()
    if case.fault is Fault.PAUSE
    and case.point in ("receive:ack", "receive:fds", "send:commit", "send:committed", "send:drain")
]
# From when the last one has everything until the first one hears Release, the death of the one
# between them is for both a reason to serve.
MIDDLE = [case for case in cases() if case.side == "middle"]
HANGING = [case for case in cases() if case.fault is Fault.HANG]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Give one nursery to all."""
    with Nursery() as found:
        yield found


@pytest.mark.parametrize("case", KILLED, ids=str)
def test_a_kill_at_any_message_loses_only_what_the_killed_one_had_accepted(
    nursery: Nursery, short_dir: Path, case: Case
) -> None:
    """A kill loses no request that the killed process had not accepted, and one leads afterwards.

    Exempt is the death of the only process that has the sockets, as with any server without a
    takeover: of the owner before its taker has received them (up to ``send:fds``), and of the
    taker when the owner is gone (``receive:gone``). There the clients in the queue are reset, and
    refused until the next one has opened the sockets again. What is shown for these points is that
    it does, that it serves, and that nobody times out or gets a wrong answer.
    """
    run(nursery, short_dir, case).check(case)


@pytest.mark.parametrize("case", PAUSED, ids=str)
def test_a_pause_at_any_message_loses_nothing(
    nursery: Nursery, short_dir: Path, case: Case
) -> None:
    """Whoever stands still for a second goes on, and every request is answered."""
    run(nursery, short_dir, case).check(case)


@pytest.mark.parametrize("case", HANGING, ids=str)
def test_one_that_hangs_loses_nothing(nursery: Nursery, short_dir: Path, case: Case) -> None:
    """The other one serves on, or when the time is over; one that wakes up disturbs nobody.

    A taker that hangs after it has said Committed is the server, and hangs as one; so does an owner
    before that.
    """
    run(nursery, short_dir, case).check(case)


@pytest.mark.parametrize("case", MIDDLE)
def test_the_death_of_one_between_two_others_leaves_one_leader(
    nursery: Nursery, short_dir: Path, case: Case
) -> None:
    """An owner dies while its predecessor drains and its successor comes: exactly one serves."""
    run(nursery, short_dir, case).check(case)
