"""Options that say how to run a program, shared by the commands that become one."""

import os
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

import click

import sockact
from sockact.activation.environ import VARIABLES

_C = TypeVar("_C", bound=Callable[..., object])

_KEPT = ("TERM", "COLORTERM", "NO_COLOR", "PATH", "USER", "HOME")

_OPTIONS = (
    click.option("--inetd", is_flag=True, help="Pass the one socket as standard input and output."),
    click.option(
        "-E",
        "--setenv",
        "--environment",
        "setenv",
        metavar="NAME[=VALUE]",
        multiple=True,
        help="Set a variable for the program; without a value, pass it on or leave it out.",
    ),
    click.option(
        "--clean-env",
        is_flag=True,
        help=f"Pass on only {', '.join(_KEPT)} and what --setenv names.",
    ),
    click.option("--chdir", metavar="DIR", help="Change to this directory."),
    click.option("-u", "--user", metavar="USER", help="Run the program as this user."),
    click.option("-g", "--group", metavar="GROUP", help="Run the program as this group."),
)


def options(command: _C) -> _C:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


class Program:
    """What these options say, beside the command."""

    def __init__(
        self,
        *,
        command: tuple[str, ...],
        inetd: bool,
        setenv: tuple[str, ...],
        clean_env: bool,
        chdir: str | None,
        user: str | None,
        group: str | None,
    ) -> None:
        """Keep the options.

        Raises:
            UsageError: --setenv is wrong.
        """
        self.command = command
        self.inetd = inetd
        self._setenv = setenv
        self.clean_env = clean_env
        self.chdir = chdir
        self.user = user
        self.group = group
        for assignment in setenv:
            if not assignment.partition("=")[0] or "\0" in assignment:
                raise click.UsageError(f"--setenv {assignment!r} is not NAME or NAME=VALUE")
            if assignment.partition("=")[0] in VARIABLES:
                raise click.UsageError(f"--setenv {assignment}: sockact itself sets that variable")

    @classmethod
    def out_of(cls, given: dict[str, Any]) -> Self:
        """Take its own out of what click gives a command."""
        names = ("command", "inetd", "setenv", "clean_env", "chdir", "user", "group")
        return cls(**{name: given.pop(name) for name in names})

    def prepare(self) -> sockact.Prepared:
        """Check what can be checked before there is a socket for it.

        Raises:
            UsageError: There is no command.
            LaunchError: As `sockact.prepare`, and so are CredentialsError, WorkingDirectoryError.
        """
        if not self.command:
            raise click.UsageError("no program to run; write it behind --")
        return sockact.prepare(
            self.command,
            environ=self.environ(os.environ),
            setenv=self.variables(),
            directory=self.chdir,
            user=self.user,
            group=self.group,
            inetd=self.inetd,
        )

    def check_count(self, count: int) -> None:
        """Refuse --inetd for another number of sockets than one."""
        if self.inetd and count != 1:
            raise click.UsageError(f"--inetd passes exactly one socket, not {count}")

    def environ(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return what of an environment is passed on."""
        passed_on = {name for name in self._setenv if "=" not in name}
        return {k: v for k, v in base.items() if not self.clean_env or k in _KEPT or k in passed_on}

    def variables(self) -> dict[str, str]:
        """Return what --setenv sets."""
        pairs = (assignment.partition("=") for assignment in self._setenv)
        return {
            name: value if equals else os.environ[name]
            for name, equals, value in pairs
            if equals or name in os.environ
        }
