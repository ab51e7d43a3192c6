"""``sockact exec``: open sockets and become a program that inherits them."""

import os
from collections.abc import Mapping

import click

import sockact
from sockact.activation.environ import VARIABLES
from sockact.cli import output
from sockact.cli.arguments import ActivationCommand
from sockact.errors import DirectiveError, UnitError

_KEPT = ("TERM", "COLORTERM", "NO_COLOR", "PATH", "USER", "HOME")

_HELP = """\
Open sockets and become a program that inherits them.

The sockets are those of socket units (UNIT.socket, a file or a name to look up) and of --listen
options. They are passed as systemd passes them: from descriptor 3 on, with LISTEN_FDS,
LISTEN_PID and LISTEN_FDNAMES. Sockets that were passed to sockact itself come first. Nothing of
sockact stays behind: the program has its process id.

\b
  sockact exec --listen tcp:8080 -- gunicorn app:app
  sockact exec --listen web=tcp:8080 -- uvicorn --fd {fd:web} app:app
  sockact exec web.socket -- myapp

In COMMAND, {fd:NAME}, {port:NAME} and {address:NAME} stand for a socket's descriptor, port and
address.
"""


@click.command(
    cls=ActivationCommand,
    help=_HELP,
    short_help="Open sockets and become a program that inherits them.",
    epilog="Manual: sockact-exec(1).",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "-l",
    "--listen",
    "listens",
    metavar="[NAME=]SCHEME:ADDRESS[?Directive=Value&...]",
    multiple=True,
    help="A listener. Schemes: tcp, tcp4, tcp6, udp, udp4, udp6, unix, unix-dgram,"
    " unix-seqpacket, fifo, special, netlink, mqueue, vsock; without one, an address as in"
    " ListenStream=.",
)
@click.option(
    "-p",
    "--property",
    "properties",
    metavar="DIRECTIVE=VALUE",
    multiple=True,
    help="Set a directive for every listener, as if it stood last in every definition.",
)
@click.option("--unit-path", metavar="DIR", multiple=True, help="Look for units here first.")
@click.option("--user-units", is_flag=True, help="Look for units where systemctl --user does.")
@click.option(
    "--fdname",
    "fdnames",
    metavar="NAME[:NAME...]",
    multiple=True,
    help="Names for the listeners of --listen, in order; one name serves for all.",
)
@click.option(
    "-d", "--datagram", is_flag=True, help="Addresses without a scheme are datagram sockets."
)
@click.option(
    "--seqpacket", is_flag=True, help="Addresses without a scheme are sequential packet sockets."
)
@click.option(
    "--replace",
    is_flag=True,
    help="Take over the path of a Unix socket though some process listens there.",
)
@click.option(
    "--lazy/--now",
    default=False,
    help="Start the program when there is traffic, or at once (the default).",
)
@click.option("--inetd", is_flag=True, help="Pass the one socket as standard input and output.")
@click.option(
    "-E",
    "--setenv",
    "--environment",
    "setenv",
    metavar="NAME[=VALUE]",
    multiple=True,
    help="Set a variable for the program; without a value, pass it on or leave it out.",
)
@click.option(
    "--clean-env", is_flag=True, help=f"Pass on only {', '.join(_KEPT)} and what --setenv names."
)
@click.option("--chdir", metavar="DIR", help="Change to this directory.")
@click.option("-u", "--user", metavar="USER", help="Run the program as this user.")
@click.option("-g", "--group", metavar="GROUP", help="Run the program as this group.")
@click.option(
    "--print", "print_only", is_flag=True, help="Show what would be opened, and open nothing."
)
@click.option("--json", "as_json", is_flag=True, help="With --print, as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Say what was opened.")
def command(**options: object) -> None:
    """Check everything, open everything, become the program."""
    choices = _Choices(**options)  # type: ignore[arg-type]
    choices.check()
    units = choices.load()
    for unit in units:
        for diagnostic in unit.without_supervisor():
            output.warn(str(diagnostic))
    if choices.print_only:
        _show(units, as_json=choices.as_json)
        return
    prepared = sockact.prepare(
        choices.command,
        environ=choices.environ(os.environ),
        setenv=choices.variables(),
        directory=choices.chdir,
        user=choices.user,
        group=choices.group,
        inetd=choices.inetd,
    )
    if choices.inetd:
        _check_one(units)
    if choices.lazy:
        _end_by_signal()
    sockets = _open(units, replace=choices.replace)
    try:
        prepared.arguments(sockets)  # a field that fits nothing is said before any waiting
        _report(sockets, everything=choices.verbose)
        if choices.lazy:
            sockact.notify.ready()
            sockact.wait_for_traffic(sockets)
    except BaseException:
        sockets.discard()
        raise
    sockact.execute(prepared, sockets)


class _Choices:
    """The options, as click gives them."""

    def __init__(
        self,
        *,
        units: tuple[str, ...],
        command: tuple[str, ...],
        listens: tuple[str, ...],
        properties: tuple[str, ...],
        unit_path: tuple[str, ...],
        user_units: bool,
        fdnames: tuple[str, ...],
        datagram: bool,
        seqpacket: bool,
        replace: bool,
        lazy: bool,
        inetd: bool,
        setenv: tuple[str, ...],
        clean_env: bool,
        chdir: str | None,
        user: str | None,
        group: str | None,
        print_only: bool,
        as_json: bool,
        verbose: bool,
    ) -> None:
        self.units = units
        self.command = command
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
        self.datagram = datagram
        self.seqpacket = seqpacket
        self.replace = replace
        self.lazy = lazy
        self.inetd = inetd
        self.setenv = setenv
        self.clean_env = clean_env
        self.chdir = chdir
        self.user = user
        self.group = group
        self.print_only = print_only
        self.as_json = as_json
        self.verbose = verbose

    def check(self) -> None:
        """Refuse what makes no sense together, before anything is looked at."""
        if self.datagram and self.seqpacket:
            raise click.UsageError("--datagram and --seqpacket exclude each other")
        if self.as_json and not self.print_only:
            raise click.UsageError("--json goes with --print")
        if not self.command and not self.print_only:
            raise click.UsageError("no program to run; write it behind --")
        for assignment in self.setenv:
            if not assignment.partition("=")[0] or "\0" in assignment:
                raise click.UsageError(f"--setenv {assignment!r} is not NAME or NAME=VALUE")
            if assignment.partition("=")[0] in VARIABLES:
                raise click.UsageError(f"--setenv {assignment}: sockact itself sets that variable")

    def load(self) -> list[sockact.SocketUnit]:
        """Read every definition: units first, then --listen, each in the order given."""
        units = [
            sockact.load(unit, user=self.user_units, unit_path=self.unit_path, warn=output.warn)
            for unit in self.units
        ]
        for unit in units:
            if unit.accepts:
                place = unit.spec.settings["Accept"].origin
                raise DirectiveError(
                    "Accept=yes wants a process for each connection, but exec runs one program"
                    " with the listening socket; leave Accept= out, or start it by systemd",
                    place.source,
                    place.line,
                    place.column,
                )
        units += self._named(
            [sockact.definition(text, bare=self.bare, warn=output.warn) for text in self.listens]
        )
        if not self.properties:
            return units
        if not units:
            raise click.UsageError("--property changes definitions, and there is none")
        try:
            return [unit.override(self.properties) for unit in units]
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

    def environ(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the program's environment, but for what sockact adds."""
        passed_on = {name for name in self.setenv if "=" not in name}
        return {k: v for k, v in base.items() if not self.clean_env or k in _KEPT or k in passed_on}

    def variables(self) -> dict[str, str]:
        """Return what --setenv sets."""
        pairs = (assignment.partition("=") for assignment in self.setenv)
        return {
            name: value if equals else os.environ[name]
            for name, equals, value in pairs
            if equals or name in os.environ
        }


def _open(units: list[sockact.SocketUnit], *, replace: bool) -> sockact.SocketSet:
    """Return what was inherited, then what the units say."""
    inherited = sockact.listen_fds(unset_environment=False)
    if not units and not len(inherited):
        raise click.UsageError("nothing to listen on; name a socket unit, or use --listen")
    opened = sockact.open_specs([unit.spec for unit in units], replace=replace, warn=output.warn)
    inherited.extend(opened)
    return inherited


def _end_by_signal() -> None:
    """Let what ends this process by default end it with its nodes removed."""
    import signal  # noqa: PLC0415 - only for --lazy

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)


def _check_one(units: list[sockact.SocketUnit]) -> None:
    count = len(sockact.listen_fds(unset_environment=False))
    count += sum(len(unit.resolved().spec.listeners) for unit in units)
    if count != 1:
        raise click.UsageError(f"--inetd passes exactly one socket, not {count}")


def _report(sockets: sockact.SocketSet, *, everything: bool) -> None:
    """Say which port the kernel chose, or with --verbose what was opened."""
    for number, entry in enumerate(sockets, 3):
        address = entry.listener.address if entry.listener else None
        chosen = getattr(address, "port", None) == 0
        if everything or chosen:
            what = entry.describe()
            output.say(f"{entry.name}: {what.kind} {what.address} is descriptor {number}")


def _show(units: list[sockact.SocketUnit], *, as_json: bool) -> None:
    """Print what would be opened."""
    rows: list[tuple[str, str, str, dict[str, str], str]] = []
    for entry in sockact.listen_fds(unset_environment=False):
        what = entry.describe()
        rows.append((entry.name, what.kind, what.address, {}, "inherited"))
    for unit in units:
        spec = unit.resolved().spec
        texts = unit.settings_text()
        rows += [
            (one.name, one.kind.value, str(one.address), texts, str(one.origin))
            for one in spec.listeners
        ]
    if as_json:
        keys = ("name", "kind", "address", "directives", "origin")
        output.json(
            [{"fd": fd, **dict(zip(keys, row, strict=True))} for fd, row in enumerate(rows, 3)]
        )
        return
    output.table(
        ("FD", "NAME", "KIND", "ADDRESS", "DIRECTIVES", "FROM"),
        [
            (
                str(fd),
                name,
                kind,
                address,
                " ".join(f"{k}={v}" for k, v in texts.items()) or "-",
                origin,
            )
            for fd, (name, kind, address, texts, origin) in enumerate(rows, 3)
        ],
    )
