"""``sockact reload``: have services of a running sockact run read their configuration."""

from typing import Any

import click

from sockact.cli import control

_HELP = """\
Have services read their configuration again: by ExecReload=, or Type=notify-reload.

The processes stay. sockact replace starts new ones.

\b
  sockact reload web.service
"""


@click.command(
    help=_HELP,
    short_help="Have services read their configuration again.",
    epilog="Manual: sockact-reload(1).",
)
@control.options
def command(*, words: tuple[str, ...], **given: Any) -> None:
    """Tell the supervisor."""
    control.tell("reload", words, given)
