"""``sockact check``: what is wrong, idle or not portable in units."""

import os

import click

import sockact
from sockact.cli import exits, output
from sockact.directives import TABLE, nearest
from sockact.errors import UnitNotFoundError

_HELP = """\
Say what is wrong, has no effect, or is not portable in socket and service units.

A UNIT is a file or a name to look up; of a directory every .socket and .service file in it is
checked, a template with the instance "instance". Each finding is a line on standard output: file,
line, column, severity, and what to do. Nothing is opened or run.

\b
  sockact check web.socket web.service
  sockact check --systemd 252 units/
  sockact check --explain Backlog
"""

_SUFFIXES = (".socket", ".service")
_EPILOG = "Exit status: 0 nothing but notes, 1 warnings, 78 refused, 66 not found."


@click.command(help=_HELP, short_help="Find faults in units.", epilog=_EPILOG)
@click.argument("units", nargs=-1, metavar="[UNIT|DIR]...")
@click.option("--unit-path", multiple=True, metavar="DIR", help="Look for units here first.")
@click.option("--user-units", is_flag=True, help="Look for units where systemctl --user does.")
@click.option(
    "--systemd",
    type=click.IntRange(min=1),
    metavar="VERSION",
    help="Warn of what this version of systemd does not know.",
)
@click.option("--explain", metavar="DIRECTIVE", help="Say what a directive does, and how.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    units: tuple[str, ...],
    unit_path: tuple[str, ...],
    user_units: bool,
    systemd: int | None,
    explain: str | None,
    as_json: bool,
) -> int:
    """Check every unit, or explain one directive."""
    if explain is not None:
        if units:
            raise click.UsageError("--explain takes no units")
        _explain(explain, as_json=as_json)
        return exits.OK
    if not units:
        raise click.UsageError("no units; name some, or a directory of them")
    found: list[sockact.Finding] = []
    missing = False
    for unit in _units(units):
        try:
            found += sockact.check(unit, user=user_units, unit_path=unit_path, systemd=systemd or 0)
        except UnitNotFoundError as error:
            output.fail(str(error))
            missing = True
    if as_json:
        output.json([_as_json(one) for one in found])
    else:
        for one in found:
            output.line(str(one))
    return _status(found, missing=missing)


def _units(given: tuple[str, ...]) -> list[str]:
    units: list[str] = []
    for unit in given:
        if not os.path.isdir(unit):
            units.append(unit)
            continue
        try:
            names = sorted(name for name in os.listdir(unit) if name.endswith(_SUFFIXES))
        except OSError as error:
            raise UnitNotFoundError(f"cannot read it: {error.strerror}", unit) from None
        if not names:
            raise UnitNotFoundError("no .socket or .service file in this directory", unit)
        units += [os.path.join(unit, name.replace("@.", "@instance.")) for name in names]
    return units


def _status(found: list[sockact.Finding], *, missing: bool) -> int:
    severities = {one.severity for one in found}
    if missing:
        return exits.NO_INPUT
    if sockact.Severity.ERROR in severities:
        return exits.CONFIG
    return exits.FAILURE if sockact.Severity.WARNING in severities else exits.OK


def _as_json(one: sockact.Finding) -> dict[str, object]:
    return {
        "path": one.origin.source,
        "line": one.origin.line,
        "column": one.origin.column,
        "severity": one.severity.value,
        "message": one.message,
    }


def _explain(name: str, *, as_json: bool) -> None:
    from sockact import service_directives  # noqa: PLC0415 - only for --explain
    from sockact.unitfile.check_service import service_facts  # noqa: PLC0415
    from sockact.unitfile.explain import facts  # noqa: PLC0415

    name = name.removesuffix("=")
    found = [facts(TABLE[name])] if name in TABLE else []
    if name in service_directives.TABLE and not (found and "section" in found[0]):
        found.append(service_facts(service_directives.TABLE[name]))
    if not found:
        near = nearest(name, [*TABLE, *service_directives.TABLE])
        meant = f"; did you mean {near}?" if near else ""
        raise click.UsageError(f"there is no directive {name}{meant}")
    if as_json:
        first, *second = found
        in_services = {"in service units": second[0]} if second else {}
        output.json({"name": name, **first, **in_services})
        return
    for known in found:
        output.line(f"{name}=")
        output.line(f"  {known.pop('summary')}")
        for label, text in known.items():
            output.line(f"  {label + ':':14}{text}")
