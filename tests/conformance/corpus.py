"""Every socket unit below a directory: does sockact read it as the real systemd does?

    python -m tests.conformance.corpus DIR

Verdict (loads or is refused), whether a line of it is warned about, and every parsed value are
compared; that a key is newer than the systemd here is no difference. Prints JSON: how many were read, how many agree, and where the others differ. Needs root
and systemd; the units themselves are not started.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import sockact
from sockact.directives import TABLE
from sockact.errors import UnitError
from tests.conformance import compare, namespaces, properties

_AT_ONCE = 50
# Known since a later systemd than the one that is compared with: no fault of the unit's.
_NEWER = {
    "UpheldBy",
    *(name for name, row in TABLE.items() if row.since > properties.SYSTEMD),
}
_IGNORED = ("has no effect", "conditions are not evaluated")


def collect(source: Path, target: Path) -> dict[str, str]:
    """Copy the units below `source`, with their drop-ins, into the unit directory `target`.

    Returns:
        The name to load of each, and where it came from. Of several units with one name and
        another text, the later ones get a number in front.
    """
    names: dict[str, str] = {}
    target.mkdir()
    for path in sorted(source.rglob("*.socket")):
        if not path.is_file():
            continue  # an alias or a mask of another system's
        name, number = path.name, 0
        while (target / name).exists() and (target / name).read_bytes() != path.read_bytes():
            number += 1
            name = f"n{number}-{path.name}"
        if (target / name).exists():
            continue
        shutil.copy(path, target / name)
        drop_ins = path.with_name(f"{path.name}.d")
        if drop_ins.is_dir():
            shutil.copytree(drop_ins, target / f"{name}.d")
        service = name.removesuffix(".socket") + ".service"
        for one in {
            service,
            service.replace(".service", "@.service") if "@" not in name else service,
        }:
            (target / one).write_text("[Service]\nExecStart=/bin/true\n", encoding="ascii")
        names[name.replace("@.", "@instance.")] = str(path)
    return names


def _real(units: Path, names: list[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return what ``systemctl show`` says of each unit, and what systemd warned of."""
    blocks: dict[str, str] = {}
    with namespaces.Systemd(units) as machine:
        for start in range(0, len(names), _AT_ONCE):
            part = names[start : start + _AT_ONCE]
            done = machine.run("systemctl", "show", "--all", *part)
            blocks.update(zip(part, done.stdout.strip().split("\n\n"), strict=True))
    return blocks, compare.warnings_in(machine.said)


def compare_all(source: Path) -> dict[str, object]:
    """Compare every unit below `source`, and return the report."""
    with tempfile.TemporaryDirectory(prefix="corpus-") as directory:
        place = Path(directory)
        place.chmod(0o755)
        units = place / "units"
        names = collect(source, units)
        (units / "test.target").write_text("[Unit]\nDefaultDependencies=no\n", encoding="ascii")
        blocks, warned = _real(units, list(names))
        differing = {}
        for name, origin in names.items():
            found = _one(name, units, blocks[name], warned)
            if found:
                differing[name] = {"from": origin, **found}
    return {
        "read": len(names),
        "agreed": len(names) - len(differing),
        "differing": differing,
    }


def _one(
    name: str, units: Path, block: str, warned: dict[str, list[str]]
) -> dict[str, tuple[object, object]]:
    """Return where systemd and sockact differ on one unit."""
    state = properties.shown(block).get("LoadState")
    said: list[str] = []
    try:
        unit = sockact.load(name, environ={"SYSTEMD_UNIT_PATH": str(units)}, warn=said.append)
    except UnitError as error:
        return {} if state != "loaded" else {"verdict": (state, str(error))}
    if state != "loaded":
        return {"verdict": (state, "loaded")}
    found: dict[str, tuple[object, object]] = dict(properties.differing(unit.spec, block))
    file = name.replace("@instance.", "@.")
    ours = [line for line in said if not any(text in line for text in _IGNORED)]
    theirs = warned.get(name, []) + (warned.get(file, []) if file != name else [])
    theirs = [line for line in theirs if not any(f"key '{key}' in" in line for key in _NEWER)]
    if bool(ours) != bool(theirs):
        found["warnings"] = (theirs, ours)
    return found


def main() -> None:
    """Compare, and print the report."""
    if reason := namespaces.missing_systemd():
        raise SystemExit(f"cannot compare: {reason}")
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise SystemExit(__doc__)
    report = compare_all(Path(sys.argv[1]))
    print(json.dumps(report, indent=2, ensure_ascii=False))
    raise SystemExit(1 if report["differing"] else 0)


if __name__ == "__main__":
    main()
