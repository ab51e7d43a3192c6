"""``sockact stop``: stop services, or socket units, of a running sockact run."""

from typing import Any

import click

from sockact.cli import control

_HELP = """\
Stop services, socket units, or instances, and wait until they have ended.

The sockets of a service stay open when it is stopped: the next connection starts it again. To stop
listening, stop the socket unit.

\b
  sockact stop web.service
  sockact stop web.socket web.service
"""


@click.command(
    help=_HELP,
    short_help="Stop services of a running sockact run.",
    epilog="Manual: sockact-stop(1).",
)
@control.options
def command(*, words: tuple[str, ...], **given: Any) -> None:
    """Tell the supervisor."""
    control.tell("stop", words, given)
