"""Services that are replaced under load: `python -m tests.faults.replace` has many more."""

import shutil
from pathlib import Path

import pytest

from tests.faults import replace as faults
from tests.faults.supervised import missing
from tests.servers import apps

COUNT = 3

WHY = missing()
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY)


@pytest.mark.parametrize("way", faults.WAYS)
@pytest.mark.parametrize("name", faults.APPS)
def test_replacements_lose_nothing(short_dir: Path, name: str, way: str) -> None:
    """Replaced under load, by a command or by an independent successor, a server fails no request."""
    program = apps.APPS[name](short_dir, 1).program
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    report = faults.GOOD[way](short_dir, name, COUNT, 0.0)
    assert not report.lost, report.result
    assert len(report.result.by_server) > COUNT


@pytest.mark.parametrize("way", faults.WAYS)
@pytest.mark.parametrize("fault", faults.FAULTS)
def test_a_bad_release_loses_only_what_it_accepted(short_dir: Path, fault: str, way: str) -> None:
    """A release that crashes, hangs, or crashes once it is ready costs what it had accepted."""
    report = faults.BAD[way](short_dir, fault)
    assert not report.lost, report.result
    if fault in ("crash", "hang"):
        assert report.refusals[0], "it does not say why"


def test_a_killed_supervisor_with_a_holder_refuses_nobody(short_dir: Path) -> None:
    """With a holder behind it, a supervisor can be killed and started again: none is refused."""
    report = faults.killed(short_dir, 2)
    assert not report.result.refused, report.result
