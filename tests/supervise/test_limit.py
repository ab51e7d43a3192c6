"""sockact.supervise.limit."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockact.spec import INFINITY
from sockact.supervise.limit import RateLimit

SECOND = 1_000_000


def test_burst() -> None:
    """In a window the burst is allowed, and nothing more, however long one goes on asking."""
    limit = RateLimit(2 * SECOND, 3)
    assert [limit.allow(at) for at in (10.0, 10.5, 11.0, 11.5, 12.0)] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert limit.count == 5


def test_window() -> None:
    """The window is fixed: it opens with an event, and a later one after its end opens the next."""
    limit = RateLimit(2 * SECOND, 1)
    assert limit.ends(5.0) == 5.0
    assert limit.allow(10.0)
    assert limit.ends(10.0) == limit.ends(11.5) == 12.0
    assert not limit.allow(12.0)  # its last moment belongs to it
    assert limit.allow(12.1)
    assert limit.ends(12.1) == 14.1
    assert limit.ends(20.0) == 20.0


def test_two_bursts_at_a_boundary() -> None:
    """Across the boundary of two windows twice the burst is possible, as with systemd."""
    limit = RateLimit(2 * SECOND, 2)
    assert [limit.allow(at) for at in (0.0, 1.9, 2.1, 2.2, 2.3)] == [True, True, True, True, False]


@pytest.mark.parametrize(("interval", "burst"), [(0, 5), (SECOND, 0), (0, 0)])
def test_off(interval: int, burst: int) -> None:
    """Without an interval or a burst there is no limit."""
    limit = RateLimit(interval, burst)
    assert not limit
    assert all(limit.allow(0.0) for _ in range(1000))
    assert limit.ends(7.0) == 7.0


def test_infinite_interval() -> None:
    """A window without end is never followed by another."""
    limit = RateLimit(INFINITY, 1)
    assert limit.allow(0.0)
    assert not limit.allow(1e12)
    assert limit.ends(1.0) == float("inf")


def test_reset() -> None:
    """After a reset the next event opens a new window."""
    limit = RateLimit(SECOND, 1)
    assert limit
    assert limit.allow(0.0)
    limit.reset()
    assert limit.began is None
    assert limit.allow(0.5)
    assert limit.ends(0.5) == 1.5


@given(
    st.integers(1, 5 * SECOND),
    st.integers(1, 5),
    st.lists(st.floats(0, 3), max_size=60),
)
def test_never_more_than_the_burst_in_a_window(
    interval: int, burst: int, gaps: list[float]
) -> None:
    """Whatever comes, from the first event of a window on no more than the burst is allowed."""
    limit, now, allowed = RateLimit(interval, burst), 100.0, dict[float, int]()
    for gap in gaps:
        now += gap
        if limit.allow(now):
            assert limit.began is not None
            allowed[limit.began] = allowed.get(limit.began, 0) + 1
    assert all(count <= burst for count in allowed.values())
    starts = sorted(allowed)
    assert all(b - a > interval / SECOND for a, b in itertools.pairwise(starts))
