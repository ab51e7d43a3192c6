"""``sockact restart``: stop services of a running sockact run, and start them."""

from typing import Any

import click

from sockact.cli import control

_HELP = """\
Stop services, and start them as soon as nothing of them is left; without a name, every service.

Nobody serves in between; connections wait. sockact replace leaves no such gap.

\b
  sockact restart web.service
"""


@click.command(
    help=_HELP,
    short_help="Stop and start services of a running sockact run.",
    epilog="Manual: sockact-restart(1).",
)
@control.options
def command(*, words: tuple[str, ...], **given: Any) -> None:
    """Tell the supervisor."""
    control.tell("restart", words, given)
