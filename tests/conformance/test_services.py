"""Service units as the real systemd reads and runs them, and as sockact reads them."""

import glob
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockact import service_directives as d
from sockact.errors import UnitError
from sockact.spec import ServiceSpec
from sockact.unitfile.envfile import parse_env_file
from sockact.unitfile.load import load_service
from tests.conformance import namespaces, services, started

pytestmark = pytest.mark.skipif(
    bool(namespaces.missing_systemd()), reason=namespaces.missing_systemd() or "-"
)

# What sockact says of what it does not do; systemd has nothing to say of that.
_OURS = ("has no effect", "is not done here")
_LINE = re.compile(r"/([\w-]+)\.service:(\d+): ")

Real = tuple[dict[str, str], dict[str, set[int]]]


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with all units."""
    place = tmp_path_factory.mktemp("services")
    for directory in (place, *place.parents):
        if directory.owner() != "root" or directory == Path("/tmp"):
            break
        directory.chmod(0o755)
    (place / "test.target").write_text("[Unit]\nDefaultDependencies=no\n", encoding="ascii")
    for case in services.CASES:
        (place / f"{case}.service").write_bytes(services.text(case).encode())
    (place / "files").mkdir()
    for name, data in started.FILES.items():
        (place / "files" / name).write_bytes(data)
    (place / "out").mkdir()
    for case in started.STARTED:
        unit = started.text(case, place / "files", place / "out")
        (place / f"started-{case}.service").write_text(unit, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def real(units: Path) -> Real:
    """What systemd shows of each unit, and the lines that it warned of."""
    names = list(services.CASES)
    blocks: dict[str, str] = {}
    with namespaces.Systemd(units) as machine:
        for start in range(0, len(names), 30):
            part = names[start : start + 30]
            done = machine.run("systemctl", "show", "--all", *(f"{name}.service" for name in part))
            blocks.update(zip(part, done.stdout.strip().split("\n\n"), strict=True))
        machine.run("systemctl", "start", *(f"started-{case}" for case in started.STARTED))
    warned: dict[str, set[int]] = {}
    for line in machine.said.splitlines():
        if match := _LINE.search(line):
            warned.setdefault(match[1], set()).add(int(match[2]))
    return blocks, warned


def _load(units: Path, case: str) -> ServiceSpec:
    return load_service(f"{case}.service", environ={"SYSTEMD_UNIT_PATH": str(units)})


def _warned(spec: ServiceSpec) -> Iterator[int]:
    for one in spec.diagnostics:
        if not any(text in one.message for text in _OURS):
            yield one.origin.line


@pytest.mark.parametrize("case", services.CASES)
def test_unit(case: str, units: Path, real: Real) -> None:
    """Systemd and sockact agree: whether it loads, what each directive is, which lines are wrong."""
    blocks, warned = real
    state = services.shown(blocks[case])["LoadState"]
    try:
        spec = _load(units, case)
    except UnitError as error:
        assert state == "bad-setting", str(error)
        return
    assert state == "loaded"
    assert services.differing(spec, blocks[case]) == {}
    assert set(_warned(spec)) == warned.get(case, set())


def _environ(spec: ServiceSpec, warn: list[str]) -> dict[str, str]:
    """The variables that a unit gives to its program.

    Raises:
        OSError: A file of variables is missing.
        ValueError: One is refused.
    """
    manager = {"LANG": "C.UTF-8", **namespaces.ENVIRON}
    environ = {n: manager[n] for n in spec.get(d.PASS_ENVIRONMENT) if n in manager}
    said: tuple[tuple[str, str], ...] = spec.get(d.ENVIRONMENT)
    environ |= dict(said)
    for entry in spec.get(d.ENVIRONMENT_FILE):
        try:
            paths = sorted(glob.glob(entry.path)) or [entry.path]
            for path in paths:
                environ |= dict(parse_env_file(Path(path).read_bytes(), warn.append))
        except (OSError, ValueError):
            if not entry.optional:
                raise
    for unset in spec.get(d.UNSET_ENVIRONMENT):
        name, equals, value = unset.partition("=")
        if name in environ and (not equals or environ[name] == value):
            del environ[name]
    return environ


# What systemd gives every service.
_GIVEN = {"PATH", "LANG", "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "LC_CTYPE", "HOME",
          "USER", "LOGNAME", "SHELL"}  # fmt: skip


@pytest.mark.parametrize("case", started.STARTED)
def test_started(case: str, units: Path, real: Real) -> None:
    """The program gets the arguments, variables and limits that sockact reads."""
    assert real
    spec = _load(units, f"started-{case}")
    report = units / "out" / case
    try:
        environ = _environ(spec, [])
    except (OSError, ValueError) as error:
        assert not report.exists(), str(error)
        return
    found = json.loads(report.read_text(encoding="utf-8"))
    (command,) = spec.get(d.EXEC_START)
    assert found["arguments"] == command.arguments(environ)
    assert {n: v for n, v in found["environ"].items() if n not in _GIVEN} == {
        n: v for n, v in environ.items() if n not in _GIVEN
    }
    assert found["umask"] == spec.get(d.UMASK)
    for name, limit in d.LIMITS.items():
        if pair := spec.get(limit):
            assert tuple(found["limits"][name]) == pair
    where = spec.get(d.WORKING_DIRECTORY)
    home = found["environ"].get("HOME", "/root")
    wanted = home if where and where.path == "~" else where.path if where else "/"
    assert found["directory"] == (wanted if Path(wanted).is_dir() else "/")
