"""``sockact put``: leave a set of sockets with a holder."""

from typing import Any

import click

import sockact
from sockact.cli import definitions, output, rendezvous
from sockact.unitfile.values import fd_name

_HELP = """\
Open sockets, and leave them with the holder at PATH as one set with this NAME.

Sockets that were passed to sockact itself come first. This process keeps none of them.

\b
  sockact put /run/app.rdv web --listen tcp:8080 --allow-user www-data
"""


@click.command(
    help=_HELP,
    short_help="Leave a set of sockets with a holder.",
    epilog="Manual: sockact-put(1).",
)
@rendezvous.path_argument
@click.argument("name", shell_complete=rendezvous.complete_set)
@click.argument("units", nargs=-1, metavar="[UNIT.socket]...")
@definitions.options
@click.option("--replace", is_flag=True, help="Replace a set of that name.")
@rendezvous.allow_options
@rendezvous.options
def command(**given: Any) -> None:
    """Open everything, put it, and let go of it."""
    chosen = definitions.Definitions.out_of(given)
    rule = rendezvous.rule_out_of(given)
    trusted = rendezvous.uids(given["owners"])
    try:
        if not fd_name(given["name"]):
            raise click.UsageError("the name of the set is empty")
    except ValueError as error:
        raise click.UsageError(str(error).replace("an fd name", "a name for a set")) from None
    units = chosen.load("put")
    sockets = sockact.listen_fds()
    if not units and not len(sockets):
        raise click.UsageError("nothing to put; name a socket unit, or use --listen")
    sockets.extend(sockact.open_specs([unit.spec for unit in units], warn=output.warn))
    try:
        sockact.put(
            given["path"],
            given["name"],
            sockets,
            users=rule.uids,
            groups=rule.gids,
            replace=given["replace"],
            timeout=given["timeout"],
            trusted=trusted,
        )
        definitions.report(sockets, numbers=False)
    except BaseException:
        sockets.discard()
        raise
    sockets.leave()
