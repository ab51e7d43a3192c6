"""``sockact drop``: have a holder close sets."""

import click

import sockact
from sockact.cli import rendezvous

_HELP = """\
Have the holder at PATH close the sets with these NAMEs, all of them or none.

Whoever has got copies keeps them.

\b
  sockact drop /run/app.rdv web
"""


@click.command(
    help=_HELP, short_help="Have a holder close sets.", epilog="Manual: sockact-drop(1)."
)
@rendezvous.path_argument
@click.argument(
    "names", nargs=-1, required=True, metavar="NAME...", shell_complete=rendezvous.complete_set
)
@rendezvous.options
def command(*, path: str, names: tuple[str, ...], timeout: float, owners: tuple[str, ...]) -> None:
    """Drop them."""
    sockact.drop(path, *names, timeout=timeout, trusted=rendezvous.uids(owners))
