"""Options that say what to open, shared by the commands that open something."""

from collections.abc import Callable
from typing import Any, Self, TypeVar

import click

import sockact
from sockact.cli import output
from sockact.errors import DirectiveError, UnitError

_C = TypeVar("_C", bound=Callable[..., object])

_OPTIONS = (
    click.option(
        "-l",
        "--listen",
        "listens",
        metavar="[NAME=]SCHEME:ADDRESS[?Directive=Value&...]",
        multiple=True,
        help="A listener. Schemes: tcp, tcp4, tcp6, udp, udp4, udp6, unix, unix-dgram,"
        " unix-seqpacket, fifo, special, netlink, mqueue, vsock; without one, an address as in"
        " ListenStream=.",
    ),
    click.option(
        "-p",
        "--property",
        "properties",
        metavar="DIRECTIVE=VALUE",
        multiple=True,
        help="Set a directive for every listener, as if it stood last in every definition.",
    ),
    click.option("--unit-path", metavar="DIR", multiple=True, help="Look for units here first."),
    click.option("--user-units", is_flag=True, help="Look for units where systemctl --user does."),
    click.option(
        "--fdname",
        "fdnames",
        metavar="NAME[:NAME...]",
        multiple=True,
        help="Names for the listeners of --listen, in order; one name serves for all.",
    ),
    click.option(
        "-d", "--datagram", is_flag=True, help="Addresses without a scheme are datagram sockets."
    ),
    click.option(
        "--seqpacket",
        is_flag=True,
        help="Addresses without a scheme are sequential packet sockets.",
    ),
)

_PASSED_ON = {
    "hold": "a holder passes the listening socket on; leave Accept= out",
    "put": "a holder passes the listening socket on; leave Accept= out",
}


def options(command: _C) -> _C:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


class Definitions:
    """What these options say, beside the units."""

    def __init__(
        self,
        *,
        units: tuple[str, ...],
        listens: tuple[str, ...],
        properties: tuple[str, ...],
        unit_path: tuple[str, ...],
        user_units: bool,
        fdnames: tuple[str, ...],
        datagram: bool,
        seqpacket: bool,
    ) -> None:
        """Keep the options.

        Raises:
            UsageError: They make no sense together.
        """
        if datagram and seqpacket:
            raise click.UsageError("--datagram and --seqpacket exclude each other")
        self.units = units
        self.listens = listens
        self.properties = properties
        self.unit_path = unit_path
        self.user_units = user_units
        self.fdnames = [name for names in fdnames for name in names.split(":")]
        self.bare = (
            sockact.Kind.DATAGRAM
            if datagram
            else sockact.Kind.SEQPACKET
            if seqpacket
            else sockact.Kind.STREAM
        )

    @classmethod
    def out_of(cls, given: dict[str, Any]) -> Self:
        """Take its own out of what click gives a command."""
        names = ("units", "listens", "properties", "unit_path", "user_units", "fdnames")
        return cls(**{name: given.pop(name) for name in (*names, "datagram", "seqpacket")})

    def load(self, command: str = "exec") -> list[sockact.SocketUnit]:
        """Read every definition: units first, then --listen, each in the order given.

        Args:
            command: The command that opens them, for its warnings.
        """
        units = [
            sockact.load(unit, user=self.user_units, unit_path=self.unit_path, warn=output.warn)
            for unit in self.units
        ]
        for unit in units:
            if unit.accepts and command in _PASSED_ON:
                place = unit.spec.settings["Accept"].origin
                raise DirectiveError(
                    f"Accept=yes wants a process for each connection, but {_PASSED_ON[command]}",
                    place.source,
                    place.line,
                    place.column,
                )
        supervised = command == "run"
        units += self._named(
            [
                sockact.definition(text, bare=self.bare, supervised=supervised, warn=output.warn)
                for text in self.listens
            ]
        )
        units = self.change(units, supervised=supervised)
        for unit in units:
            for diagnostic in () if supervised else unit.without_supervisor(command):
                output.warn(str(diagnostic))
        return units

    def change(
        self, units: list[sockact.SocketUnit], *, supervised: bool
    ) -> list[sockact.SocketUnit]:
        """Return units with what --property says of them.

        Raises:
            UsageError: It is wrong.
        """
        if not self.properties:
            return units
        if not units:
            raise click.UsageError("--property changes definitions, and there is none")
        try:
            return [unit.override(self.properties, supervised=supervised) for unit in units]
        except UnitError:
            raise
        except ValueError as error:
            raise click.UsageError(f"--property: {error}") from None

    def _named(self, units: list[sockact.SocketUnit]) -> list[sockact.SocketUnit]:
        if not self.fdnames:
            return units
        counts = [len(unit.spec.listeners) for unit in units]
        names = self.fdnames * sum(counts) if len(self.fdnames) == 1 else self.fdnames
        if len(names) != sum(counts):
            raise click.UsageError(
                f"--fdname gives {len(names)} names for {sum(counts)} listeners of --listen"
            )
        rest = iter(names)
        try:
            return [
                unit.renamed([next(rest) for _ in range(count)])
                for unit, count in zip(units, counts, strict=True)
            ]
        except ValueError as error:
            raise click.UsageError(f"--fdname: {error}") from None


def report(sockets: sockact.SocketSet, *, everything: bool = False, numbers: bool = True) -> None:
    """Say which port the kernel chose, or what was opened.

    Args:
        sockets: What was opened.
        everything: Whether to say it of all, not only of those with a port of the kernel's choice.
        numbers: Whether to say which descriptor it will be.
    """
    for number, entry in enumerate(sockets, 3):
        address = entry.listener.address if entry.listener else None
        chosen = getattr(address, "port", None) == 0
        if everything or chosen:
            what = entry.describe()
            text = f"{entry.name}: {what.kind} {what.address}"
            output.say(f"{text} is descriptor {number}" if numbers else text)
