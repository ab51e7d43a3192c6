"""``sockact show``: what a unit says after drop-ins and specifiers, and where it says it."""

import click

import sockact
from sockact.cli import output

_HELP = """\
Show what socket units say, after drop-ins and specifiers, and where each value comes from.

Nothing is opened or run.

\b
  sockact show web.socket
  sockact show --all ./web.socket
"""


@click.command(help=_HELP, short_help="Show what socket units say, and where.")
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
    loaded = [
        sockact.load(unit, user=user_units, unit_path=unit_path, warn=output.warn) for unit in units
    ]
    if as_json:
        output.json([_as_json(unit, everything=everything) for unit in loaded])
        return
    rows = [
        (unit.name, f"{line.name}={line.value}", str(line.origin or "default"))
        for unit in loaded
        for line in unit.lines(defaults=everything)
    ]
    output.table(("UNIT", "SETTING", "FROM"), rows)


def _as_json(unit: sockact.SocketUnit, *, everything: bool) -> dict[str, object]:
    return {
        "unit": unit.name,
        "path": unit.spec.path,
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
            for line in unit.lines(defaults=everything)
        ],
    }
