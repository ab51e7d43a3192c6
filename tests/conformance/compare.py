"""All sides' reports on the units of a directory, and where they differ.

The sides are systemd, ``sockact exec`` and ``sockact run``.

A unit's header may hold ``# test:`` lines for what cannot be told from its name:

``# test: instance a-b``
    For a template: the instance to start.
``# test: with other.socket``
    Another socket unit of the same service, which has ``Service=``; that says ``# test: part``.
``# test: load``
    Only load it: to start it would take what there is not on such a machine.
``# test: connect 127.0.0.1:80``
    Of a unit with Accept=yes: where to connect to. A path, ``@name``, ``seqpacket:/path``, too.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.conformance.driver import Job, Report, out_of, probe_command
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


def jobs(units: Path = UNITS) -> list[Job]:
    """Return the services to start, and the socket units of each."""
    found: list[Job] = []
    for path in sorted(units.glob("*.socket")):
        said = header(path)
        if "part" in said:
            continue
        name = path.name
        if "@." in name:
            name = name.replace("@.", f"@{said['instance']}.")
        sockets = [name, *said.get("with", "").split()]
        service = name.removesuffix(".socket") + ".service"
        found.append(Job(service, sockets, "load" not in said, said.get("connect", "")))
    return found


def install(target: Path, todo: Sequence[Job]) -> None:
    """Copy the units to the unit directory `target`, and add the services."""
    shutil.copytree(UNITS, target, symlinks=True)
    everywhere = target / "socket.d"
    everywhere.mkdir()
    (everywhere / "00-alone.conf").write_text("[Unit]\nDefaultDependencies=no\n", encoding="ascii")
    (target / "test.target").write_text("[Unit]\nDefaultDependencies=no\n", encoding="ascii")
    for job in todo:
        command = probe_command(out_of(job.service)).replace("%", "%%").replace('"', '\\"')
        names = " ".join(job.sockets)
        unit = f"Requires={names}\nAfter={names}\n"
        service = f"Sockets={names}\n"
        name = job.service
        if job.connect:
            unit = service = ""
            name = job.service.removesuffix(".service").partition("@")[0] + "@.service"
        (target / name).write_text(
            f"[Unit]\nDefaultDependencies=no\n{unit}"
            "[Service]\nType=oneshot\nStandardOutput=null\nStandardError=null\n"
            f'{service}ExecStart=/bin/sh -c "{command}"\n',
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


def side(name: str, units: Path, todo: Sequence[Job], jobs_file: Path) -> dict[str, Report]:
    """Do all jobs on one side, in a machine of its own."""
    script = str(ROOT / "tests" / "conformance" / "driver.py")
    with Systemd(units) if name == "real" else Bare(units) as machine:
        done = machine.run(sys.executable, script, name, str(jobs_file))
    if done.returncode:
        raise RuntimeError(f"the driver failed: {done.stderr}\n{machine.said[-2000:]}")
    reports: dict[str, Report] = json.loads(done.stdout)
    by_unit = warnings_in(machine.said)
    for job in todo:
        if (report := reports.get(job.service)) is None:
            continue
        if name != "real":
            by_unit = warnings_in(str(report["said"]))
        names = {*job.sockets, *(re.sub("@.*[.]", "@.", socket) for socket in job.sockets)}
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


def in_order(probe: dict[str, Any]) -> dict[str, object]:
    """Sort by name: of several units of one service, systemd's order is that of a hash table."""
    if len(probe["names"]) != len(probe["fds"]):
        return dict(probe)
    order = sorted(range(len(probe["names"])), key=lambda index: str(probe["names"][index]))
    names, fds = ([probe[key][index] for index in order] for key in ("names", "fds"))
    environ = dict(probe["environ"])
    if "LISTEN_FDNAMES" in environ:
        environ["LISTEN_FDNAMES"] = ":".join(names)
    return {**probe, "names": names, "fds": fds, "environ": environ}


# Of what a program sees, what ``sockact exec`` decides; everything else stays what it was.
_OF_EXEC = re.compile(
    r"(loads|warns|starts|names|pid_is_ours|extra|directory|ids|umask|blocked|ignored)$"
    r"|(fds|nodes|after)\.|environ\.(LISTEN|REMOTE)_"
)


def verdict(report: Report) -> Iterator[tuple[str, object]]:
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
        yield from flat("", in_order(probe))


def differences(
    real: Report, ours: Report, *, only_exec: bool = False
) -> dict[str, tuple[object, object]]:
    """Return where two reports differ: path to what systemd has, and what sockact has.

    Args:
        real: systemd's.
        ours: sockact's.
        only_exec: Look only at what ``sockact exec`` decides.
    """
    theirs, own = dict(verdict(real)), dict(verdict(ours))
    if theirs.get("starts") != own.get("starts"):
        # Of that follows everything else.
        return {"starts": (theirs.get("starts", "refused"), own.get("starts", "refused"))}
    return {
        path: (theirs.get(path), own.get(path))
        for path in sorted({*theirs, *own})
        if theirs.get(path) != own.get(path) and (not only_exec or _OF_EXEC.match(path))
    }
