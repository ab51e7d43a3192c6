"""The command line: the group, and the one place where an error becomes a line and a status."""

import importlib
import os
import sys
from typing import NoReturn

import click

from sockact import __version__
from sockact.cli import exits, output
from sockact.errors import SockactError

_COMMANDS = {
    "exec": "Open sockets and become a program that inherits them.",
    "run": "Supervise services: on demand, and replaced without a gap.",
    "status": "Show what a running sockact run runs.",
    "replace": "Replace services of a running sockact run.",
    "start": "Start services of a running sockact run.",
    "stop": "Stop services of a running sockact run.",
    "restart": "Stop and start services of a running sockact run.",
    "reload": "Have services read their configuration again.",
    "hold": "Keep sets of sockets for other processes.",
    "put": "Leave a set of sockets with a holder.",
    "get": "Become a program that inherits sockets from a rendezvous.",
    "list": "List what there is at a rendezvous.",
    "drop": "Have a holder close sets.",
    "check": "Find faults in units.",
    "show": "Show what units say, and where.",
}


class _Commands(click.Group):
    """Imports a command's module only when that command is run."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return [*_COMMANDS]  # `list` is the module of a command here, once that is imported

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"sockact.cli.{name}")
        command: click.Command = module.command
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*_COMMANDS.items()])


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Manual: sockact(1), sockact-COMMAND(1), sockact.socket(5), sockact.service(5),"
    " sockact(3).",
)
@click.version_option(
    __version__, "-V", "--version", prog_name="sockact", message="%(prog)s %(version)s"
)
def group() -> None:
    """systemd-style socket activation, with and without systemd."""


def main() -> NoReturn:
    """Run the command line and exit, whatever happens, without a traceback."""
    try:
        status = group.main(prog_name="sockact", standalone_mode=False)
        if sys.stdout:
            sys.stdout.flush()
        sys.exit(status if isinstance(status, int) else exits.OK)
    except SockactError as error:
        output.fail(str(error))
        sys.exit(exits.status_of(error))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(exits.USAGE)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "sockact"
        message = " ".join(error.format_message().split())
        output.fail(f"{message.rstrip('.')} (see {where} --help)")
        sys.exit(exits.USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(exits.INTERRUPTED)
    except OSError as error:
        # Whoever read our output is gone, or the disk is full: no more output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            where = f"{error.filename}: " if error.filename else ""
            output.fail(f"{where}{error.strerror or error}")
        sys.exit(exits.FAILURE)
    except Exception as error:
        if os.environ.get("SOCKACT_DEBUG"):
            raise
        output.fail(f"internal error, {type(error).__name__}: {error}; SOCKACT_DEBUG=1 shows where")
        sys.exit(exits.SOFTWARE)
