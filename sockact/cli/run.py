"""``sockact run``: supervise services, start them on demand, replace them without a gap."""

import os
from typing import Any

import click

from sockact.cli import definitions, program, rendezvous
from sockact.cli.arguments import ActivationCommand

_HELP = """\
Open sockets, and run services for them: on demand, watched, and replaced without a gap.

Either units: each UNIT.socket with the service that it starts, a UNIT.service, or all units of a
DIRECTORY. Or one COMMAND for all sockets, which is started at once. SIGHUP, or sockact replace,
reads the definitions anew and starts new processes on the same sockets; when they are ready, the
old ones get their stop signal. With --rendezvous, another sockact run at the same PATH takes
everything over.

\b
  sockact run --listen web=tcp:8080 -- gunicorn app:app
  sockact run --rendezvous /run/app.rdv --listen tcp:8080 --ready http://127.0.0.1:9000/ -- ./app
  sockact run web.socket api.socket
  sockact run /etc/sockact/
"""

_SUFFIXES = (".socket", ".service")


class _RunCommand(ActivationCommand):
    """A command with ``[OPTIONS] [UNIT|DIRECTORY]... [--] [COMMAND [ARGS]...]``."""

    usage = ("[UNIT|DIRECTORY]...", "[--]", "[COMMAND]...")

    def is_word(self, text: str) -> bool:
        """Whether it is a unit, or a directory of units."""
        return text.endswith(_SUFFIXES) or os.path.isdir(text)


@click.command(
    cls=_RunCommand,
    help=_HELP,
    short_help="Supervise services: on demand, and replaced without a gap.",
    epilog="Manual: sockact-run(1).",
)
@definitions.options
@click.option(
    "--rendezvous",
    "path",
    type=click.Path(readable=False),
    metavar="PATH",
    help="Take over from the owner at PATH, and be the owner there, to be taken over from.",
)
@rendezvous.source_options
@click.option("--lazy/--now", default=None, help="Start services on demand, or at once.")
@click.option(
    "--ready",
    metavar="HOW",
    help="When a new process can serve: none, exec, notify, delay:SPAN, tcp:ADDRESS, http:URL or"
    " cmd:COMMAND.",
)
@click.option(
    "--drain",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SEC",
    help="How long connections of Accept=yes may go on after a takeover; 0 for ever.",
)
@click.option(
    "--stay",
    is_flag=True,
    help="After a takeover by somebody else, wait for a signal instead of ending.",
)
@click.option(
    "--accept",
    is_flag=True,
    help="One process for each connection of --listen (Accept=yes).",
)
@click.option(
    "--instances", type=click.IntRange(min=1), default=1, metavar="N", help="So many processes."
)
@click.option("--restart", metavar="WHEN", help="As Restart=; on-failure by default.")
@click.option(
    "-S",
    "--service-property",
    "service_properties",
    metavar="DIRECTIVE=VALUE",
    multiple=True,
    help="Set a directive of [Service] for every service.",
)
@program.options
@click.option(
    "--log-format",
    type=click.Choice(["auto", "text", "json"]),
    default="auto",
    help="The log on standard error: text, or JSON where nobody reads it.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every change of state.")
def command(**given: Any) -> None:
    """Load, open, and run until the end."""
    runs = program.Program.out_of(given)
    chosen = definitions.Definitions.out_of(given)
    if chosen.units and chosen.listens and not runs.command:
        raise click.UsageError("--listen needs a command; write it behind --")
    if not chosen.units and not runs.command:
        raise click.UsageError("nothing to run; name units, or write a command behind --")
    if given["owners"] and given["path"] is None and given["source"] is None:
        raise click.UsageError("--owner goes with --rendezvous or --from")
    from sockact.cli.serving import serve  # noqa: PLC0415 - not for --help

    serve(chosen, runs, **given)
