"""``sockact list``: what there is at a rendezvous, how busy it is, and who has it open."""

import time
from collections.abc import Sequence

import click

import sockact
from sockact.cli import output, rendezvous

_HELP = """\
List what the owner or holder at PATH has: as far as it is ours to get.

QUEUE is what waits to be accepted or read, and how much may. HELD BY are the processes that have
the socket open, as far as this user may look into them.

\b
  sockact list /run/app.rdv
  sockact list --json /run/app.rdv
"""

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@click.command(
    help=_HELP, short_help="List what there is at a rendezvous.", epilog="Manual: sockact-list(1)."
)
@rendezvous.path_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@rendezvous.options
def command(*, path: str, as_json: bool, timeout: float, owners: tuple[str, ...]) -> None:
    """Ask, look around, and print."""
    found = sockact.holdings(path, timeout=timeout, trusted=rendezvous.uids(owners))
    if not found and not as_json:
        output.line(f"{path}: nothing is held")
        return
    held_by = sockact.held_by(found)
    if as_json:
        output.json([_as_json(*pair) for pair in zip(found, held_by, strict=True)])
        return
    now = time.time()
    sets = len({one.entry.set for one in found})
    output.line(
        f"{path}: generation {found[0].generation}, {_count(sets, 'set')},"
        f" {_count(len(found), 'descriptor')}"
    )
    output.table(
        ("SET", "NAME", "KIND", "ADDRESS", "QUEUE", "SINCE", "HELD BY"),
        [
            (
                one.entry.set,
                one.entry.name,
                one.entry.kind,
                one.entry.address or "-",
                _queue(one),
                _ago(now - one.since),
                ", ".join(map(str, holders)) or "-",
            )
            for one, holders in zip(found, held_by, strict=True)
        ],
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")


def _queue(one: sockact.Holding) -> str:
    if one.queued is None:
        return "-"
    unit = "" if one.unit == "connections" else f" {one.unit}"
    return f"{one.queued}/{'?' if one.limit is None else one.limit}{unit}"


def _ago(seconds: float) -> str:
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole}s ago"
    if whole < _HOUR:
        return f"{whole // _MINUTE}min ago"
    if whole < _DAY:
        return f"{whole // _HOUR}h ago"
    return f"{_count(whole // _DAY, 'day')} ago"


def _as_json(one: sockact.Holding, holders: Sequence[sockact.Process]) -> dict[str, object]:
    entry = one.entry
    queue = {"now": one.queued, "limit": one.limit, "unit": one.unit}
    return {
        "set": entry.set,
        "name": entry.name,
        "kind": entry.kind,
        "family": entry.family or None,
        "address": entry.address,
        "protocol": entry.protocol,
        "listening": entry.listening,
        "device": entry.device,
        "inode": entry.inode,
        "cookie": entry.cookie,
        "namespace": entry.namespace,
        "queue": None if one.queued is None else queue,
        "since": one.since,
        "generation": one.generation,
        "held_by": [{"pid": holder.pid, "program": holder.program} for holder in holders],
    }
