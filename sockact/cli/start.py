"""``sockact start``: start services, or socket units, of a running sockact run."""

from typing import Any

import click

from sockact.cli import control

_HELP = """\
Start services, or socket units; without a name, every service.

\b
  sockact start web.service
  sockact start /run/app.rdv web.service
"""


@click.command(
    help=_HELP,
    short_help="Start services of a running sockact run.",
    epilog="Manual: sockact-start(1).",
)
@control.options
def command(*, words: tuple[str, ...], **given: Any) -> None:
    """Tell the supervisor."""
    control.tell("start", words, given)
