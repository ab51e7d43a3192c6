"""The same units under the real systemd and under sockact: verdicts and everything a program sees.

All sides run once, each in namespaces of its own; then every unit is a test, for ``sockact exec``
and for ``sockact run``.
"""

import concurrent.futures
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conformance import compare, corpus, listed, namespaces
from tests.conformance.driver import Report

JOBS = {job.service: job for job in compare.jobs()}
DIFFERENCES = listed.load("difference")
OURS = ("exec", "run")

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


@pytest.mark.parametrize("service", JOBS, ids=name_of)
@pytest.mark.parametrize("by", OURS)
def test_unit(by: str, service: str, reports: All) -> None:
    """Systemd and sockact agree on the unit, but for what is listed."""
    if service not in reports[by]:
        pytest.skip("it is only loaded")
    differing = found(reports, service, by)
    allowed = {field for _, field in listed.allowed(DIFFERENCES, name_of(service), by, differing)}
    real, ours = reports["real"][service], reports[by][service]
    assert {field: values for field, values in differing.items() if field not in allowed} == {}, (
        f"systemd said {real['warnings']} {real['said']!r}, sockact {ours['said']!r}"
    )


@pytest.mark.parametrize("one", DIFFERENCES, ids=str)
@pytest.mark.parametrize("by", OURS)
def test_difference_exists(by: str, one: listed.Difference, reports: All) -> None:
    """Each listed difference is one: on every unit and every field that it names."""
    if one.by not in ("", by):
        pytest.skip("it is one of the other command's")
    everything = {name_of(service): found(reports, service, by) for service in reports[by]}
    assert not list(listed.unused(one, by, everything))


@pytest.mark.parametrize("one", DIFFERENCES, ids=str)
def test_difference_is_in_the_manual(one: listed.Difference) -> None:
    """Users are told of each difference, under the tag that the list names."""
    assert one.is_in_the_manual()


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
