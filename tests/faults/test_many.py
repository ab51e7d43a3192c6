"""Takeover after takeover."""

from pathlib import Path

from tests.faults.many import run

TAKEOVERS = 30


def test_many_takeovers_lose_nothing_and_leave_nothing(short_dir: Path) -> None:
    """Thirty takeovers under load fail no request, and what is passed on does not grow."""
    report = run(short_dir, TAKEOVERS, interval=0.1, quiet=0.5)
    assert not report.result.failed, report.result
    assert len(set(report.result.by_server)) >= TAKEOVERS // 2
    # A generation whose predecessor has just gone may have some open for a moment yet.
    assert report.growth("fds") < 5
    assert not report.growth("sockets")
    assert report.growth("anonymous") < 1 << 20
