"""Both sides' reports on the units of a directory, and where they differ.

A unit's header may hold ``# test:`` lines for what cannot be told from its name:

``# test: instance a-b``
    For a template: the instance to start.
``# test: with other.socket``
    Another socket unit of the same service, which has ``Service=``; that says ``# test: part``.
``# test: load``
    Only load it: to start it would take what there is not on such a machine.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conformance import driver
from tests.conformance.namespaces import Bare, Systemd
from tests.helpers import ROOT

UNITS = Path(__file__).with_name("units")
_HEADER = re.compile(r"^# test: (\w+) ?(.*)$", re.MULTILINE)
_WARNING = re.compile(r"^/.*?/([^/]+\.socket)(?:\.d/[^/]+)?:\d+(?::\d+)?: ")
# What systemd says of an option that could not be set, which it does not blame on a line.
_CALL_FAILED = re.compile(
    r"^([^/:]+\.socket): (?:[A-Z0-9_/]+ failed|Setting pipe size failed"
    r"|Failed to create symlink|Failed to enable packet info)"
)


def header(path: Path) -> dict[str, str]:
    """Return the ``# test:`` lines of a unit."""
    text = path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""
    return dict(_HEADER.findall(text))


def jobs(units: Path = UNITS) -> list[driver.Job]:
    """Return the services to start, and the socket units of each."""
    found: list[driver.Job] = []
    for path in sorted(units.glob("*.socket")):
        said = header(path)
        if "part" in said:
            continue
        name = path.name
        if "@." in name:
            name = name.replace("@.", f"@{said['instance']}.")
        sockets = [name, *said.get("with", "").split()]
        found.append((name.removesuffix(".socket") + ".service", sockets, "load" not in said))
    return found


def install(target: Path, todo: list[driver.Job]) -> None:
    """Copy the units to the unit directory `target`, and add the services."""
    shutil.copytree(UNITS, target, symlinks=True)
    everywhere = target / "socket.d"
    everywhere.mkdir()
    (everywhere / "00-alone.conf").write_text("[Unit]\nDefaultDependencies=no\n", encoding="ascii")
    (target / "test.target").write_text("[Unit]\nDefaultDependencies=no\n", encoding="ascii")
    for service, sockets, _ in todo:
        command = driver.probe_command(service).replace("%", "%%").replace('"', '\\"')
        (target / service).write_text(
            "[Unit]\nDefaultDependencies=no\n"
            f"Requires={' '.join(sockets)}\nAfter={' '.join(sockets)}\n"
            "[Service]\nType=oneshot\nStandardOutput=null\nStandardError=null\n"
            f"Sockets={' '.join(sockets)}\n"
            f'ExecStart=/bin/sh -c "{command}"\n',
            encoding="utf-8",
        )


def warnings_in(text: str) -> dict[str, list[str]]:
    """Return the lines that speak of a place in a unit, by unit."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        line = line.removeprefix("sockact: warning: ").removeprefix("sockact: error: ")  # noqa: PLW2901
        if " has no effect under exec: " in line:
            continue  # that is about exec, not about the unit
        if match := _WARNING.match(line) or _CALL_FAILED.match(line):
            found.setdefault(match[1], []).append(line.rpartition("/")[2])
    return found


def side(
    name: str, units: Path, todo: list[driver.Job], jobs_file: Path
) -> dict[str, driver.Report]:
    """Do all jobs on one side, in a machine of its own."""
    script = str(ROOT / "tests" / "conformance" / "driver.py")
    with Systemd(units) if name == "real" else Bare(units) as machine:
        done = machine.run(sys.executable, script, name, str(jobs_file))
    if done.returncode:
        raise RuntimeError(f"the driver failed: {done.stderr}\n{machine.said[-2000:]}")
    reports: dict[str, driver.Report] = json.loads(done.stdout)
    by_unit = warnings_in(machine.said)
    for service, sockets, _ in todo:
        report = reports[service]
        if name == "ours":
            by_unit = warnings_in(str(report["said"]))
        names = {*sockets, *(re.sub("@.*[.]", "@.", socket) for socket in sockets)}
        report["warnings"] = [line for unit in sorted(names) for line in by_unit.get(unit, [])]
    return reports


def flat(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    """Give every leaf of nested objects with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(f"{prefix}.{key}" if prefix else str(key), item)
    elif isinstance(value, list) and prefix.endswith("fds"):
        yield f"{prefix}.count", len(value)
        for index, item in enumerate(value):
            yield from flat(f"{prefix}.{index}", item)
    else:
        yield prefix, value


def _in_order(probe: dict[str, Any]) -> dict[str, object]:
    """Sort by name: of several units of one service, systemd's order is that of a hash table."""
    if len(probe["names"]) != len(probe["fds"]):
        return dict(probe)
    order = sorted(range(len(probe["names"])), key=lambda index: str(probe["names"][index]))
    return {**probe, **{key: [probe[key][index] for index in order] for key in ("names", "fds")}}


def verdict(report: driver.Report) -> Iterator[tuple[str, object]]:
    """Give what is compared of a report, as path and value."""
    loads = bool(report["loads"])
    yield "loads", loads
    if loads:
        # A refused unit is one line for a person; how many more a side adds does not matter.
        yield "warns", bool(report["warnings"])
        yield "starts", report["probe"] is not None
    if report["probe"] is not None:
        yield from flat("after", report["after"])
        probe: Any = report["probe"]
        yield from flat("", _in_order(probe))


def differences(real: driver.Report, ours: driver.Report) -> dict[str, tuple[object, object]]:
    """Return where two reports differ: path to what systemd has, and what sockact has."""
    theirs, own = dict(verdict(real)), dict(verdict(ours))
    if theirs.get("starts") != own.get("starts"):
        # Of that follows everything else.
        return {"starts": (theirs.get("starts", "refused"), own.get("starts", "refused"))}
    return {
        path: (theirs.get(path), own.get(path))
        for path in sorted({*theirs, *own})
        if theirs.get(path) != own.get(path)
    }
