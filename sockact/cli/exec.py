"""``sockact exec``: open sockets and become a program that inherits them."""

from typing import Any, NamedTuple

import click

import sockact
from sockact.cli import definitions, output, program, rendezvous
from sockact.cli.arguments import ActivationCommand

_HELP = """\
Open sockets and become a program that inherits them.

The sockets are those of socket units (UNIT.socket, a file or a name to look up) and of --listen
options. They are passed as systemd passes them: from descriptor 3 on, with LISTEN_FDS,
LISTEN_PID and LISTEN_FDNAMES. Sockets that were passed to sockact itself come first. Nothing of
sockact stays behind: the program has its process id. Only with --accept, or units with Accept=yes,
sockact stays, and runs the program once for each connection.

\b
  sockact exec --listen tcp:8080 -- gunicorn app:app
  sockact exec --listen web=tcp:8080 -- uvicorn --fd {fd:web} app:app
  sockact exec web.socket -- myapp
  sockact exec --from /run/app.rdv --listen web=tcp:8080 -- myapp

In COMMAND, {fd:NAME}, {port:NAME} and {address:NAME} stand for a socket's descriptor, port and
address.
"""


@click.command(
    cls=ActivationCommand,
    help=_HELP,
    short_help="Open sockets and become a program that inherits them.",
    epilog="Manual: sockact-exec(1).",
)
@definitions.options
@rendezvous.source_options
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
@click.option(
    "-a",
    "--accept",
    is_flag=True,
    help="Stay, and run the program once for each connection (Accept=yes).",
)
@program.options
@click.option(
    "--print", "print_only", is_flag=True, help="Show what would be opened, and open nothing."
)
@click.option("--json", "as_json", is_flag=True, help="With --print, as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Say what was opened.")
def command(
    *,
    source: str | None,
    timeout: float,
    owners: tuple[str, ...],
    replace: bool,
    lazy: bool,
    accept: bool,
    print_only: bool,
    as_json: bool,
    verbose: bool,
    **given: Any,
) -> None:
    """Check everything, open everything, become the program."""
    runs = program.Program.out_of(given)
    chosen = definitions.Definitions.out_of(given)
    if as_json and not print_only:
        raise click.UsageError("--json goes with --print")
    if print_only and source is not None:
        raise click.UsageError("--print does not look at --from; sockact list does")
    if owners and source is None:
        raise click.UsageError("--owner goes with --from")
    if not runs.command and not print_only:
        raise click.UsageError("no program to run; write it behind --")
    units = chosen.load("run" if accept else "exec")
    if print_only:
        _show(units, as_json=as_json)
        return
    if accept or any(unit.accepts for unit in units):
        _refuse_together(lazy=lazy, replace=replace)
        taken_from = {"source": source, "timeout": timeout, "owners": owners}
        _serve_each(chosen, runs, units, accept=accept, verbose=verbose, **taken_from)
        return
    prepared = runs.prepare()
    taken: _Source | None = None
    if source is not None:
        taken = _Source(source, timeout, rendezvous.uids(owners))
    if runs.inetd and (units or not taken):
        _check_one(runs, units)
    if lazy:
        _end_by_signal()
    sockets = _open(units, taken, replace=replace)
    try:
        runs.check_count(len(sockets))
        prepared.arguments(sockets)  # a field that fits nothing is said before any waiting
        definitions.report(sockets, everything=verbose)
        if lazy:
            sockact.notify.ready()
            sockact.wait_for_traffic(sockets)
    except BaseException:
        sockets.discard()
        raise
    sockact.execute(prepared, sockets)


def _refuse_together(*, lazy: bool, replace: bool) -> None:
    if lazy or replace:
        raise click.UsageError("one process for each connection excludes --lazy and --replace")


def _serve_each(
    chosen: definitions.Definitions,
    runs: program.Program,
    units: list[sockact.SocketUnit],
    **given: Any,
) -> None:
    """Run the program for each connection, until a signal ends that."""
    if not units and not sockact.listen_fds(unset_environment=False):
        raise click.UsageError("nothing to listen on; name a socket unit, or use --listen")
    runs.prepare()
    from sockact.cli.serving import serve  # noqa: PLC0415 - a supervisor takes time to import

    serve(chosen, runs, own_path=False, sessions=False, **given)


class _Source(NamedTuple):
    """Where --from takes sockets."""

    path: str
    timeout: float
    trusted: tuple[int, ...]


def _open(
    units: list[sockact.SocketUnit], source: _Source | None, *, replace: bool
) -> sockact.SocketSet:
    """Return what was inherited, then what the units say, or everything that `source` has."""
    inherited = sockact.listen_fds(unset_environment=False)
    if source is not None:
        opened = sockact.take_or_listen(
            source.path,
            *units,
            replace=replace,
            timeout=source.timeout,
            trusted=source.trusted,
            warn=output.warn,
        )
    elif units or len(inherited):
        specs = [unit.spec for unit in units]
        opened = sockact.open_specs(specs, replace=replace, warn=output.warn)
    else:
        raise click.UsageError("nothing to listen on; name a socket unit, or use --listen")
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


def _check_one(runs: program.Program, units: list[sockact.SocketUnit]) -> None:
    count = len(sockact.listen_fds(unset_environment=False))
    count += sum(len(unit.resolved().spec.listeners) for unit in units)
    runs.check_count(count)


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
