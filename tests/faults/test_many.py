"""Takeover after takeover."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.many import run

TAKEOVERS = 30


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give a directory that nobody else can write to, with a short path."""
    path = Path(tempfile.mkdtemp(prefix="sa-"))
    yield path
    shutil.rmtree(path)


def test_many_takeovers_lose_nothing_and_leave_nothing(directory: Path) -> None:
    """Thirty takeovers under load fail no request, and what is passed on does not grow."""
    report = run(directory, TAKEOVERS, interval=0.1, quiet=0.5)
    assert not report.result.failed, report.result
    assert len(set(report.result.by_server)) >= TAKEOVERS // 2
    assert not report.growth("fds")
    assert not report.growth("sockets")
    assert report.growth("anonymous") < 1 << 20
