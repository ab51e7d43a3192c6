"""sockact.rendezvous.memory: what a holder remembers, written and read."""

import json

import pytest

from sockact.rendezvous.memory import Memory, Remembered, read, write
from sockact.rendezvous.policy import Rule

MEMORY = Memory("/run/r", 3, 7, (Remembered("web", Rule((1,), (2,)), 5.5, (("a", "sockact-1"),)),))


def test_what_is_written_is_read() -> None:
    """All of it comes back."""
    assert read(write(MEMORY)) == MEMORY


def test_the_last_whole_line_counts() -> None:
    """A line that was being written when its holder was killed is passed over."""
    assert read(write(MEMORY) + write(MEMORY)[:-1]) == MEMORY
    assert read(write(MEMORY)[:-1]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"generation": float("inf")},
        {"serial": None},
        {"sets": 3},
        {"sets": [3]},
        {"sets": [{}]},
        {"sets": [{"name": "a", "uids": [], "gids": [], "since": 1, "fds": 3}]},
        {"sets": [{"name": "a", "uids": 3, "gids": [], "since": 1, "fds": []}]},
        {"sets": [{"name": "a", "uids": [], "gids": [], "since": "x", "fds": []}]},
        {"sets": [{"name": "a", "uids": [], "gids": [], "since": 1, "fds": [["a"]]}]},
    ],
)
def test_what_makes_no_sense_is_no_memory(change: dict[str, object]) -> None:
    """It may come from another owner: nothing in it is an error of this process."""
    broken = {**json.loads(write(MEMORY)), **change}
    assert read(json.dumps(broken).encode() + b"\n") is None
