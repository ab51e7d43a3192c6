"""``sockact replace``: new processes in place of the old ones, without a gap."""

from typing import Any

import click

from sockact.cli import control

_HELP = """\
Replace the services of a running sockact run, without a gap.

It reads its definitions anew, opens what is new in them, and starts new processes beside the old
ones, on the same sockets. When all are ready, the old ones get their stop signal, and finish what
they have accepted. If anything fails before, nothing has changed, and this says why.

PATH is its rendezvous; without, that of the only sockact run of this user.

\b
  sockact replace
  sockact replace /run/app.rdv web.service
"""


@click.command(
    help=_HELP,
    short_help="Replace services of a running sockact run.",
    epilog="Manual: sockact-replace(1).",
)
@control.options
@click.option("--wait", is_flag=True, help="Wait until the old processes have ended, too.")
def command(*, words: tuple[str, ...], wait: bool, **given: Any) -> None:
    """Tell the supervisor, and wait for what comes of it."""
    control.tell("replace", words, given, wait=wait)
