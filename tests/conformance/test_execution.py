"""What the processes of services see under the real systemd, and under ``sockact run``.

Both sides run once, each in namespaces of its own, and all services at once; then every process is a
test.
"""

import concurrent.futures
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import compare, execution, listed, namespaces
from tests.conformance.namespaces import Bare, Systemd

DIFFERENCES = listed.load("execution")
PROBES = execution.probes()

Sides = Mapping[str, Mapping[str, execution.Report | None]]
Found = dict[str, tuple[object, object]]


@pytest.fixture(scope="session")
def executions(tmp_path_factory: pytest.TempPathFactory) -> Sides:
    """What all processes saw on both sides."""
    if reason := namespaces.missing_systemd():
        pytest.skip(reason)
    place = tmp_path_factory.mktemp("execution")
    for directory in (place, *place.parents):
        if directory.owner() != "root" or directory == Path("/tmp"):
            break
        directory.chmod(0o755)
    units = place / "units"
    execution.install(units)

    def run(which: str) -> dict[str, execution.Report | None]:
        with Systemd(units) if which == "real" else Bare(place) as machine:
            done = machine.run(sys.executable, execution.__file__, which, str(units))
        assert done.returncode == 0, done.stderr + machine.said
        found: dict[str, execution.Report | None] = json.loads(done.stdout)
        return found

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return dict(zip(("real", "ours"), pool.map(run, ("real", "ours")), strict=True))


def _fields(report: execution.Report) -> dict[str, object]:
    found: dict[str, Any] = compare.in_order(report) if "names" in report else report
    found.pop("nodes", None)  # those of all others
    return dict(compare.flat("", found))


def _differing(executions: Sides, name: str) -> Found:
    real, ours = (executions[side][name] for side in ("real", "ours"))
    if real is None or ours is None:
        return {} if real is ours else {"runs": (real is not None, ours is not None)}
    theirs, own = _fields(real), _fields(ours)
    return {
        field: (theirs.get(field), own.get(field))
        for field in sorted({*theirs, *own})
        if theirs.get(field) != own.get(field)
    }


@pytest.mark.parametrize("name", PROBES)
def test_process(name: str, executions: Sides) -> None:
    """A process sees the same, or is not run on either side, but for what is listed."""
    differing = _differing(executions, name)
    allowed = {field for _, field in listed.allowed(DIFFERENCES, name, "", differing)}
    assert {field: values for field, values in differing.items() if field not in allowed} == {}


@pytest.mark.parametrize("one", DIFFERENCES, ids=str)
def test_difference_exists(one: listed.Difference, executions: Sides) -> None:
    """Each listed difference is one: of every process and every field that it names."""
    everything = {name: _differing(executions, name) for name in PROBES}
    assert not list(listed.unused(one, "", everything))


@pytest.mark.parametrize("one", DIFFERENCES, ids=str)
def test_difference_is_in_the_manual(one: listed.Difference) -> None:
    """Users are told of each difference, under the tag that the list names."""
    assert one.is_in_the_manual()


def test_most_of_them_run(executions: Sides) -> None:
    """What agrees does not do so because nothing was run."""
    assert len([name for name in PROBES if executions["real"][name]]) > len(PROBES) * 0.8
