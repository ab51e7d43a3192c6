"""The life cycle of socket units under the real systemd and under ``sockact run``.

Both sides run once, each in namespaces of its own; then every case is a test.
"""

import concurrent.futures
import fnmatch
import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import lifecycle, namespaces
from tests.conformance.lifecycle import CASES, Case
from tests.conformance.namespaces import Bare, Systemd

Notes = dict[str, Any]


def _side(side: str, work: Path) -> dict[str, Notes]:
    """Run all cases on one side."""
    real = side == "real"
    lifecycle.install(work, together=real)
    (work / "none").mkdir()
    with Systemd(work / "all") if real else Bare(work / "none") as machine:
        # A systemd that is too old for a case would only be waited for.
        names = [name for name, one in CASES.items() if not real or one.since <= _version()]
        done = machine.run(sys.executable, lifecycle.__file__, side, str(work), *names)
    assert done.returncode == 0, done.stderr
    notes: dict[str, Notes] = json.loads(done.stdout)
    return notes


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Notes], dict[str, Notes]]:
    """What was seen of all cases, of systemd and of sockact."""
    if reason := namespaces.missing_systemd():
        pytest.skip(reason)
    place = tmp_path_factory.mktemp("lifecycle")
    for directory in (place, *place.parents):
        if directory.owner() != "root" or directory == Path("/tmp"):
            break
        directory.chmod(0o755)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        real, ours = (pool.submit(_side, side, place / side) for side in ("real", "ours"))
        return real.result(), ours.result()


@functools.cache
def _version() -> int:
    """Return the version of the systemd that is compared with."""
    said = subprocess.run(
        [namespaces.SYSTEMD, "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"systemd (\d+)", said)
    assert found, said
    return int(found[1])


def _different(real: Notes, ours: Notes) -> set[str]:
    return {key for key in real.keys() | ours.keys() if real.get(key) != ours.get(key)}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, notes: tuple[dict[str, Notes], dict[str, Notes]]) -> None:
    """Systemd and sockact do the same, but for what is listed; and what is listed differs."""
    real, ours = notes[0].get(name, {}), notes[1][name]
    one = CASES[name]
    assert {key: ours.get(key) for key in one.expected} == dict(one.expected)
    if _version() < one.since:
        assert "error" not in ours
        return
    found = _different(real, ours)
    allowed = {key for key in found for pattern in one.differs if fnmatch.fnmatch(key, pattern)}
    assert {key: (real.get(key), ours.get(key)) for key in found - allowed} == {}
    unused = [pattern for pattern in one.differs if not fnmatch.filter(found, pattern)]
    assert not unused, f"it does not differ in {unused}"


def test_expectations(notes: tuple[dict[str, Notes], dict[str, Notes]]) -> None:
    """What a new enough systemd is expected to do, it does."""
    version = _version()
    cases: dict[str, Case] = {name: one for name, one in CASES.items() if one.since <= version}
    for name, one in cases.items():
        assert {key: notes[0][name].get(key) for key in one.expected} == dict(one.expected)


@pytest.mark.parametrize("name", CASES)
def test_systemd_did_all(name: str, notes: tuple[dict[str, Notes], dict[str, Notes]]) -> None:
    """The real systemd did what each script waits for: what differs is not the script's fault."""
    if _version() < CASES[name].since:
        pytest.skip(f"systemd {CASES[name].since} is needed")
    odd = {key for key in notes[0][name] if key == "error" or key.startswith("never")}
    assert not odd
