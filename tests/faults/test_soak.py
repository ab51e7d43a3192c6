"""One percent of the soak: `python -m tests.bench.soak` is all of it."""

from pathlib import Path

import pytest

from tests.bench.soak import run
from tests.faults.supervised import missing

WHY = missing()


@pytest.mark.skipif(bool(WHY), reason=WHY)
def test_nothing_grows(short_dir: Path) -> None:
    """After activations, replacements and crashes a supervisor has what it had before."""
    report = run(short_dir, activations=100, replacements=10, crashes=10, blocks=10)
    assert not report.grown(), report.summary()
