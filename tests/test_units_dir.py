"""The sample units load without a word, here and in systemd."""

import shutil
import subprocess

import pytest

import sockact
from tests.helpers import ROOT, clean_environ

UNITS = ROOT / "units"
SOCKETS = sorted(UNITS.glob("*.socket"))


@pytest.mark.parametrize("path", SOCKETS, ids=lambda path: path.name)
def test_loads_without_warning(path: object) -> None:
    """A sample that is warned about is no sample."""
    said: list[str] = []
    unit = sockact.load(str(path), warn=said.append, environ={"SYSTEMD_UNIT_PATH": str(UNITS)})
    assert unit.spec.listeners
    assert said == []
    assert unit.without_supervisor() == []


@pytest.mark.parametrize("path", SOCKETS, ids=lambda path: path.name)
def test_has_a_service(path: object) -> None:
    """Each socket unit has the service that systemd starts for it."""
    assert (UNITS / str(path).rpartition("/")[2].replace(".socket", ".service")).exists()


@pytest.mark.parametrize("path", sorted(UNITS.iterdir()), ids=lambda path: path.name)
def test_systemd_agrees(path: object) -> None:
    """systemd-analyze has nothing to say about the samples' own lines."""
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", str(path)],
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    own = [line for line in done.stderr.splitlines() if str(UNITS) in line]
    assert own == []
