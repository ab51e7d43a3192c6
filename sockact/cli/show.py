"""``sockact show``: what a unit says after drop-ins and specifiers, and where it says it."""

import os
from typing import TYPE_CHECKING

import attrs
import click

import sockact
from sockact.cli import output

if TYPE_CHECKING:
    from sockact.unitfile.check import Line

_HELP = """\
Show what units say, after drop-ins and specifiers, and where each value comes from.

Nothing is opened or run.

\b
  sockact show web.socket web.service
  sockact show --all ./web.socket
"""


@click.command(help=_HELP, short_help="Show what units say, and where.")
@click.argument("units", nargs=-1, required=True, metavar="UNIT...")
@click.option("--unit-path", multiple=True, metavar="DIR", help="Look for units here first.")
@click.option("--user-units", is_flag=True, help="Look for units where systemctl --user does.")
@click.option("-a", "--all", "everything", is_flag=True, help="Show defaults, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    units: tuple[str, ...],
    unit_path: tuple[str, ...],
    user_units: bool,
    everything: bool,
    as_json: bool,
) -> None:
    """Load every unit, then print."""
    shown = [
        _load(unit, user=user_units, unit_path=unit_path, everything=everything) for unit in units
    ]
    if as_json:
        output.json([_as_json(unit) for unit in shown])
        return
    rows = [
        (unit.name, f"{line.name}={line.value}", str(line.origin or "default"))
        for unit in shown
        for line in unit.lines
    ]
    output.table(("UNIT", "SETTING", "FROM"), rows)


@attrs.frozen
class _Shown:
    """A unit as it is shown."""

    name: str
    path: str
    lines: "list[Line]"


def _load(unit: str, *, user: bool, unit_path: tuple[str, ...], everything: bool) -> _Shown:
    if not unit.endswith(".service"):
        found = sockact.load(unit, user=user, unit_path=unit_path, warn=output.warn)
        return _Shown(found.name, found.spec.path, found.lines(defaults=everything))
    from sockact.unitfile.check_service import service_lines  # noqa: PLC0415 - only for these
    from sockact.unitfile.load import load_service  # noqa: PLC0415

    spec = load_service(unit, environ=os.environ, user=user, extra=unit_path)
    for diagnostic in spec.diagnostics:
        output.warn(str(diagnostic))
    return _Shown(spec.name, spec.path, service_lines(spec, defaults=everything))


def _as_json(unit: _Shown) -> dict[str, object]:
    return {
        "unit": unit.name,
        "path": unit.path,
        "settings": [
            {
                "name": line.name,
                "value": line.value,
                "from": {
                    "path": line.origin.source,
                    "line": line.origin.line,
                    "column": line.origin.column,
                }
                if line.origin
                else None,
            }
            for line in unit.lines
        ],
    }
