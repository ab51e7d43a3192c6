"""The same units under the real systemd and under sockact: verdicts and everything a program sees.

All sides run once, each in namespaces of its own; then every unit is a test, for ``sockact exec``
and for ``sockact run``.
"""

import concurrent.futures
import fnmatch
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import compare, corpus, namespaces
from tests.conformance.driver import Report
from tests.helpers import ROOT

JOBS = {job.service: job for job in compare.jobs()}
DIFFERENCES: list[dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("differences.toml").read_text(encoding="utf-8")
)["difference"]
OURS = ("exec", "run")
SECTIONS = {
    "sockact.socket.5": "DIFFERENCES FROM SYSTEMD",
    "sockact.service.5": "DIFFERENCES FROM SYSTEMD",
    "sockact-run.1": "CAVEATS",
}
"""The pages that list differences, and where in them."""

All = Mapping[str, Mapping[str, Report]]
Found = dict[str, tuple[object, object]]


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> All:
    """What all sides saw of all units."""
    if reason := namespaces.missing_systemd():
        pytest.skip(reason)
    place = tmp_path_factory.mktemp("conformance")
    for directory in (place, *place.parents):
        if directory.owner() != "root" or directory == Path("/tmp"):
            break
        directory.chmod(0o755)
    jobs = list(JOBS.values())
    compare.install(place / "units", jobs)
    (place / "jobs").write_text(json.dumps(jobs), encoding="utf-8")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        sides = {
            side: pool.submit(compare.side, side, place / "units", jobs, place / "jobs")
            for side in ("real", *OURS)
        }
        return {side: reports.result() for side, reports in sides.items()}


def name_of(service: str) -> str:
    """A unit's name as the list of differences has it: without suffix and instance."""
    return service.removesuffix(".service").partition("@")[0]


_CACHE: dict[tuple[str, str], Found] = {}


def found(reports: All, service: str, by: str) -> Found:
    """Where sockact differs on a unit."""
    key = service, by
    if key not in _CACHE:
        real, ours = reports["real"][service], reports[by][service]
        _CACHE[key] = compare.differences(real, ours, only_exec=by == "exec")
    return _CACHE[key]


def expected(service: str, by: str, differing: Found) -> Iterator[tuple[int, str]]:
    """Which entries of the list, by index, allow which of the fields that differ."""
    for index, entry in enumerate(DIFFERENCES):
        if entry.get("by", by) == by and any(
            fnmatch.fnmatchcase(name_of(service), pattern) for pattern in entry["units"]
        ):
            for field in differing:
                if any(fnmatch.fnmatchcase(field, pattern) for pattern in entry["fields"]):
                    yield index, field


@pytest.mark.parametrize("service", JOBS, ids=name_of)
@pytest.mark.parametrize("by", OURS)
def test_unit(by: str, service: str, reports: All) -> None:
    """Systemd and sockact agree on the unit, but for what is listed."""
    if by == "run" and not JOBS[service].starts:
        pytest.skip("it is only loaded")
    differing = found(reports, service, by)
    allowed = {field for _, field in expected(service, by, differing)}
    real, ours = reports["real"][service], reports[by][service]
    assert {field: values for field, values in differing.items() if field not in allowed} == {}, (
        f"systemd said {real['warnings']} {real['said']!r}, sockact {ours['said']!r}"
    )


@pytest.mark.parametrize(
    ("index", "entry"),
    list(enumerate(DIFFERENCES)),
    ids=[f"{entry['units'][0]}-{entry['fields'][0]}" for entry in DIFFERENCES],
)
@pytest.mark.parametrize("by", OURS)
def test_difference_exists(by: str, index: int, entry: dict[str, Any], reports: All) -> None:
    """Each listed difference is one: on every unit and every field that it names."""
    if entry.get("by", by) != by:
        pytest.skip("it is one of the other command's")
    fields = set()
    for pattern in entry["units"]:
        matching = [one for one in reports[by] if fnmatch.fnmatchcase(name_of(one), pattern)]
        assert matching, f"there is no unit {pattern}"
        for service in matching:
            listed = expected(service, by, found(reports, service, by))
            differing = {field for number, field in listed if number == index}
            assert differing or pattern == "*", f"{service} does not differ"
            fields |= differing
    for field in entry["fields"]:
        assert fnmatch.filter(fields, field), f"{field} differs nowhere"


@pytest.mark.parametrize(
    "entry",
    DIFFERENCES,
    ids=[f"{entry['units'][0]}-{entry['fields'][0]}" for entry in DIFFERENCES],
)
def test_difference_is_in_the_manual(entry: dict[str, str]) -> None:
    """Users are told of each difference, under the tag that the list names."""
    page = entry.get("page", "sockact.socket.5")
    manual = (ROOT / "man" / page).read_text(encoding="utf-8")
    section = manual.partition(f".Sh {SECTIONS[page]}\n")[2].partition(".Sh ")[0]
    assert f".It {entry['manual']}\n" in section
    assert entry["reason"]


# What `sockact check` and systemd read otherwise, all of it listed in differences.toml.
READ_OTHERWISE = {
    "MaxConnections-zero", "SocketProtocol-datagram-mptcp", "SocketProtocol-mptcp", "address-usb",
    "address-usb-alone",
}  # fmt: skip


@pytest.mark.skipif(bool(namespaces.missing_systemd()), reason=namespaces.missing_systemd())
def test_parsed_values() -> None:
    """Every value that systemd shows of a unit is the value that sockact reads."""
    report = corpus.compare_all(compare.UNITS)
    assert report["read"] == len(list(compare.UNITS.glob("*.socket")))
    differing = report["differing"]
    assert isinstance(differing, dict)
    found = {name.removesuffix(".socket"): what for name, what in differing.items()}
    assert {name: what for name, what in found.items() if name not in READ_OTHERWISE} == {}
    assert found.keys() == READ_OTHERWISE


def test_there_are_many() -> None:
    """Every directive of [Socket] that systemd 252 knows has units of its own."""
    from sockact.directives import TABLE

    names = {name_of(service).partition("-")[0] for service in JOBS}
    newer = {name for name, row in TABLE.items() if row.since > 252}
    listeners = {name for name in TABLE if name.startswith("Listen")}
    ours = {name for name in TABLE if name.startswith("X-")}
    missing = set(TABLE) - names - newer - listeners - ours - {"NonBlocking", "ExecStopPost"}
    assert missing == set()
    assert len(JOBS) >= 150
