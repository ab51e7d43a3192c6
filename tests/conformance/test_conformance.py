"""The same units under the real systemd and under sockact: verdicts and everything a program sees.

Both sides run once, each in namespaces of its own; then every unit is a test.
"""

import concurrent.futures
import fnmatch
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import compare, corpus, namespaces
from tests.conformance.driver import Report
from tests.helpers import ROOT

JOBS = compare.jobs()
DIFFERENCES = tomllib.loads(
    Path(__file__).with_name("differences.toml").read_text(encoding="utf-8")
)["difference"]

Both = tuple[dict[str, Report], dict[str, Report]]


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """What both sides saw of all units."""
    if reason := namespaces.missing_systemd():
        pytest.skip(reason)
    place = tmp_path_factory.mktemp("conformance")
    for directory in (place, *place.parents):
        if directory.owner() != "root" or directory == Path("/tmp"):
            break
        directory.chmod(0o755)
    compare.install(place / "units", JOBS)
    (place / "jobs").write_text(json.dumps(JOBS), encoding="utf-8")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        real, ours = (
            pool.submit(compare.side, side, place / "units", JOBS, place / "jobs")
            for side in ("real", "ours")
        )
        return real.result(), ours.result()


def name_of(service: str) -> str:
    """A unit's name as the list of differences has it: without suffix and instance."""
    return service.removesuffix(".service").partition("@")[0]


def expected(service: str, found: dict[str, tuple[object, object]]) -> Iterator[tuple[int, str]]:
    """Which entries of the list, by index, allow which of the fields that differ."""
    for index, entry in enumerate(DIFFERENCES):
        if any(fnmatch.fnmatch(name_of(service), pattern) for pattern in entry["units"]):
            for field in found:
                if any(fnmatch.fnmatch(field, pattern) for pattern in entry["fields"]):
                    yield index, field


@pytest.mark.parametrize("service", [job[0] for job in JOBS], ids=name_of)
def test_unit(service: str, reports: Both) -> None:
    """Systemd and sockact agree on the unit, but for what is listed."""
    real, ours = (side[service] for side in reports)
    found = compare.differences(real, ours)
    allowed = {field for _, field in expected(service, found)}
    assert {field: values for field, values in found.items() if field not in allowed} == {}, (
        f"systemd said {real['warnings']} {real['said']!r}, sockact {ours['said']!r}"
    )


@pytest.mark.parametrize(
    ("index", "entry"),
    list(enumerate(DIFFERENCES)),
    ids=[entry["units"][0] for entry in DIFFERENCES],
)
def test_difference_exists(index: int, entry: dict[str, list[str]], reports: Both) -> None:
    """Each listed difference is one: on every unit and every field that it names."""
    services = {
        pattern: [s for s, _, _ in JOBS if fnmatch.fnmatch(name_of(s), pattern)]
        for pattern in entry["units"]
    }
    for pattern, matching in services.items():
        assert matching, f"there is no unit {pattern}"
        if pattern == "*":
            continue
        for service in matching:
            found = compare.differences(reports[0][service], reports[1][service])
            assert index in {number for number, _ in expected(service, found)}, service
    fields = {
        field
        for matching in services.values()
        for service in matching
        for number, field in expected(
            service, compare.differences(reports[0][service], reports[1][service])
        )
        if number == index
    }
    for field in entry["fields"]:
        assert fnmatch.filter(fields, field), f"{field} differs nowhere"


@pytest.mark.parametrize("entry", DIFFERENCES, ids=[entry["units"][0] for entry in DIFFERENCES])
def test_difference_is_in_the_manual(entry: dict[str, str]) -> None:
    """Users are told of each difference, under the tag that the list names."""
    manual = (ROOT / "man" / "sockact.socket.5").read_text(encoding="utf-8")
    section = manual.partition(".Sh DIFFERENCES FROM SYSTEMD")[2].partition(".Sh ")[0]
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

    names = {name_of(service).partition("-")[0] for service, _, _ in JOBS}
    newer = {name for name, row in TABLE.items() if row.since > 252}
    listeners = {name for name in TABLE if name.startswith("Listen")}
    ours = {name for name in TABLE if name.startswith("X-")}
    missing = set(TABLE) - names - newer - listeners - ours - {"NonBlocking", "ExecStopPost"}
    assert missing == set()
    assert len(JOBS) >= 150
