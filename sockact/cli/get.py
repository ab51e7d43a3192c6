"""``sockact get``: become a program that inherits sockets from a rendezvous."""

from typing import Any

import click

import sockact
from sockact.cli import program, rendezvous
from sockact.cli.arguments import NamesCommand

_HELP = """\
Get sockets from the owner or holder at PATH, and become a program that inherits them.

A NAME is that of a set, or an fd name; without one, everything is taken. The owner keeps its own
copies. The sockets are passed as sockact exec passes them, and the same fields are replaced in
COMMAND.

\b
  sockact get /run/app.rdv web -- gunicorn app:app
  sockact get /run/app.rdv -- uvicorn --fd {fd:web} app:app
"""


@click.command(
    cls=NamesCommand,
    help=_HELP,
    short_help="Become a program that inherits sockets from a rendezvous.",
    epilog="Manual: sockact-get(1).",
)
@rendezvous.path_argument
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=rendezvous.complete_name)
@program.options
@rendezvous.options
def command(**given: Any) -> None:
    """Check everything, take everything, become the program."""
    runs = program.Program.out_of(given)
    trusted = rendezvous.uids(given["owners"])
    prepared = runs.prepare()
    sockets = sockact.listen_fds(unset_environment=False)
    taken = sockact.take(given["path"], *given["names"], timeout=given["timeout"], trusted=trusted)
    sockets.extend(taken)
    try:
        runs.check_count(len(sockets))
    except BaseException:
        sockets.close()
        raise
    sockact.execute(prepared, sockets)
