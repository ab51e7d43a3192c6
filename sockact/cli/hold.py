"""``sockact hold``: keep sets of sockets for other processes."""

import errno
import gc
from typing import Any

import click

import sockact
from sockact.cli import definitions, output, rendezvous
from sockact.errors import PathInUseError

_HELP = """\
Hold sets of sockets at PATH, for processes that come and go.

What is named here is opened, and everything of one fd name is a set of that name; sockets that
were passed to sockact itself are held too. Further sets are put by sockact put. Stays in the
foreground until SIGTERM, SIGINT or SIGHUP, or until another one takes over.

\b
  sockact hold /run/app.rdv --listen web=tcp:8080
  sockact hold /run/app.rdv --takeover
"""


@click.command(
    help=_HELP,
    short_help="Keep sets of sockets for other processes.",
    epilog="Manual: sockact-hold(1).",
)
@rendezvous.path_argument
@click.argument("units", nargs=-1, metavar="[UNIT.socket]...")
@definitions.options
@click.option(
    "--takeover", is_flag=True, help="Take over from a live owner, with everything it has."
)
@rendezvous.allow_options
@rendezvous.options
def command(**given: Any) -> None:
    """Hold until the end."""
    chosen = definitions.Definitions.out_of(given)
    rule = rendezvous.rule_out_of(given)
    trusted = rendezvous.uids(given["owners"])
    units = chosen.load("hold")
    gc.enable()  # a launcher lives without a collector, but a holder lives for years
    try:
        sockact.hold(
            given["path"],
            [unit.spec for unit in units],
            take=given["takeover"],
            rule=rule,
            timeout=given["timeout"],
            trusted=trusted,
            warn=output.warn,
            say=output.say,
        )
    except PathInUseError as error:
        if error.errno != errno.EBUSY:
            raise
        text = f"{given['path']}: has an owner; --takeover takes over from it, with all it has"
        raise PathInUseError(text, errno.EBUSY) from None
