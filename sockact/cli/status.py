"""``sockact status``: what a running ``sockact run`` runs, and how it stands."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from sockact.cli import control, output

_HELP = """\
Show what a running sockact run runs: its sockets, services and processes.

PATH is its rendezvous; without, every sockact run of this user is shown.

\b
  sockact status
  sockact status --json /run/app.rdv
  sockact status --watch /run/app.rdv web.service
"""

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@click.command(
    help=_HELP,
    short_help="Show what a running sockact run runs.",
    epilog="Manual: sockact-status(1).",
)
@control.options
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch, a line each time.")
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
def command(*, words: tuple[str, ...], as_json: bool, watch: bool, **given: Any) -> None:
    """Ask, and print."""
    path, units = control.split(words)
    while True:
        if path is None:
            found = control.reports(units, given)
        else:
            found = [(path, control.ask(path, "status", units, given))]
        if watch and not as_json:
            click.clear()
        _print(found, as_json=as_json, one=path is not None, line=watch)
        if not watch:
            return
        time.sleep(1)


def _print(
    found: Sequence[tuple[str, Mapping[str, object]]], *, as_json: bool, one: bool, line: bool
) -> None:
    reports = [report for _, answer in found if isinstance(report := answer.get("report"), dict)]
    if as_json:
        value: object = reports[0] if one and reports else reports
        output.json_line(value) if line else output.json(value)
        return
    if not reports:
        output.line("no sockact run of this user is to be found")
    for report in reports:
        _show(report)


def _show(report: Mapping[str, Any]) -> None:
    replacing = ", replacing" if report["replacing"] else ""
    generation = f", generation {report['generation']}" if report["generation"] else ""
    output.line(
        f"{report['path'] or 'sockact run'}: pid {report['pid']}, {report['place']}{replacing}"
        f"{generation}, up {span(report['uptime'])}"
    )
    if report["units"]:
        output.table(
            ("SOCKET UNIT", "STATE", "NAME", "KIND", "ADDRESS", "QUEUE", "TRIGGERS", "CONNECTIONS"),
            [row for unit in report["units"] for row in _unit(unit)],
        )
    processes = [row for service in report["services"] for row in _service(service)]
    processes += [_instance(one) for one in report["instances"]]
    if processes:
        output.table(("SERVICE", "STATE", "PID", "GENERATION", "UP", "READY", "STATUS"), processes)
    for one in (*report["units"], *report["services"]):
        problem = one.get("problem") or one.get("last_failure")
        if problem:
            output.line(f"{one['name']}: last failure: {problem}")


def _unit(unit: Mapping[str, Any]) -> list[tuple[str, ...]]:
    counts = "-"
    if unit["accept"]:
        counts = f"{unit['connections']} open, {unit['accepted']} accepted"
        counts += f", {unit['refused']} refused" if unit["refused"] else ""
    rows = []
    for index, one in enumerate(unit["listeners"] or [None]):
        first = (unit["name"], _state(unit)) if not index else ("", "")
        last = (unit["triggers"], counts) if not index else ("", "")
        queue = one and one["queue"]
        middle = ("-", "-", "-", "-")
        if one:
            amount = f"{queue['now']}/{queue['limit']}" if queue else "-"
            middle = (one["name"], one["kind"], one["address"] or "-", amount)
        rows.append((*first, *middle, *last))
    return rows


def _state(one: Mapping[str, Any]) -> str:
    return f"{one['state']} ({one['result']})" if one["state"] == "failed" else str(one["state"])


def _service(service: Mapping[str, Any]) -> list[tuple[str, ...]]:
    alive = [one for one in service["instances"] if one["pid"]]
    if not alive:
        restarts = f"restarted {service['restarts']} times" if service["restarts"] else "-"
        return [(service["name"], _state(service), "-", "-", "-", "-", restarts)]
    rows: list[tuple[str, ...]] = []
    for index, one in enumerate(alive):
        role = "" if one["role"] == "current" else f" ({one['role']})"
        ready = "yes" if one["ready"] else "no"
        rows.append(
            (
                service["name"] if not index else "",
                one["state"] + role,
                str(one["pid"]),
                str(one["generation"]),
                span(one["uptime"]),
                ready,
                one["status"] or "-",
            )
        )
    return rows


def _instance(one: Mapping[str, Any]) -> tuple[str, ...]:
    pid = str(one["pid"] or "-")
    return (one["name"], one["state"], pid, "-", span(one["uptime"]), "-", one["status"] or "-")


def span(seconds: float) -> str:
    """Return a time for people: its two largest units."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}min {whole % _MINUTE}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE}min"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR}h"
