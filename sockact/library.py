"""What a program calls: definitions, opening and activation joined in one line each."""

import os
import socket as _socket
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from sockact import directives
from sockact.activation.receive import listen_fds
from sockact.errors import UnitError, UnitNotFoundError
from sockact.sockets.bind import open_specs, warn_by_default
from sockact.sockets.resolve import resolve_spec
from sockact.sockets.socketset import SocketSet
from sockact.sockets.task import Warn
from sockact.spec import Diagnostic, Kind, Origin, Setting, SocketSpec
from sockact.unitfile.listen import parse_listen

if TYPE_CHECKING:
    from sockact.rendezvous.take import Holding
    from sockact.rendezvous.thread import Rendezvous
    from sockact.sockets.holder import Process
    from sockact.unitfile.check import Finding, Line


@attrs.frozen
class SocketUnit:
    """A definition that can be opened: a ``.socket`` file, or a ``--listen`` text.

    Attributes:
        spec: What it says.
    """

    spec: SocketSpec

    @property
    def name(self) -> str:
        """The unit's full name, or the ``--listen`` text."""
        return self.spec.name

    def open(self, *, replace: bool = False, warn: Warn = warn_by_default) -> SocketSet:
        """Open every listener, or none.

        Args:
            replace: Take over the path of a Unix socket even if some process listens there.
            warn: Called with a line for each option that could not be set.

        Returns:
            The set, owned by the caller.

        Raises:
            BindError: One could not be opened; nothing stays open, and no node behind.
        """
        return open_specs([self.spec], replace=replace, warn=warn)

    @property
    def accepts(self) -> bool:
        """Whether it wants one process for each connection (Accept=yes)."""
        return self.spec.get(directives.ACCEPT)

    def without_supervisor(self, command: str = "exec") -> list[Diagnostic]:
        """Return what it says in vain where nobody supervises the program, and why.

        Args:
            command: The command of sockact that opens it.
        """
        if not self.spec.settings:
            return []
        from sockact.unitfile.explain import unsupervised  # noqa: PLC0415

        return unsupervised(self.spec, command)

    def settings_text(self) -> dict[str, str]:
        """Return the directives that were set, as text."""
        from sockact.unitfile.values import write  # noqa: PLC0415

        texts = {}
        for name, setting in self.spec.settings.items():
            items = setting.value if isinstance(setting.value, tuple) else (setting.value,)
            texts[name] = " ".join(write(directives.TABLE[name].value, item) for item in items)
        return texts

    def lines(self, *, defaults: bool = False) -> "list[Line]":
        """Return what it says, after drop-ins and specifiers, line by line.

        Args:
            defaults: Whether directives that were not set are among them.
        """
        from sockact.unitfile.check import lines  # noqa: PLC0415

        return lines(self.spec, defaults=defaults)

    def resolved(self) -> "SocketUnit":
        """Return it with every host name replaced by all its addresses.

        Raises:
            BindError: A name has no address.
        """
        return SocketUnit(resolve_spec(self.spec))

    def renamed(self, names: Sequence[str]) -> "SocketUnit":
        """Return it with these fd names for its listeners, one for each.

        Raises:
            ValueError: One is no fd name, or there is another number of them.
        """
        from sockact.unitfile.values import fd_name  # noqa: PLC0415

        if not all(names):
            raise ValueError("an fd name is empty")
        pairs = zip(self.spec.listeners, map(fd_name, names), strict=True)
        listeners = tuple(attrs.evolve(listener, name=name) for listener, name in pairs)
        return SocketUnit(attrs.evolve(self.spec, listeners=listeners))

    def override(self, changes: Iterable[str], *, supervised: bool = False) -> "SocketUnit":
        """Return this unit as if ``Directive=Value`` lines stood at its end, without specifiers.

        Args:
            changes: The lines.
            supervised: Whether there is a supervisor, for whom some directives are.

        Raises:
            DirectiveError: The unit would be refused with them.
            ValueError: There is no such directive, or its value is wrong.
        """
        from sockact.unitfile.unit import override, read_setting  # noqa: PLC0415

        settings: dict[str, Setting] = {}
        for text in changes:
            name, equals, value = text.partition("=")
            if not equals:
                raise ValueError(f"{text!r} is not Directive=Value")
            row, setting = read_setting(
                name, value, Origin(f"--property {text}"), supervised=supervised
            )
            old = settings.get(row.name) or self.spec.settings.get(row.name)
            if old and isinstance(setting.value, tuple) and value:
                setting = Setting((*old.value, *setting.value), setting.origin)  # type: ignore[misc]
            settings[row.name] = setting
        return SocketUnit(override(self.spec, settings))

    def to_text(self) -> str:
        """Write it as a unit file.

        Raises:
            ValueError: It says what a unit file cannot say, such as a host name.
        """
        from sockact.unitfile.unit import write  # noqa: PLC0415

        return write(self.spec)


def load(
    unit: str,
    *,
    user: bool = False,
    unit_path: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    warn: Warn = warn_by_default,
) -> SocketUnit:
    """Load a socket unit with its drop-ins, as systemd does.

    Args:
        unit: A name (``web.socket``, ``web@1.socket``), looked up on the search path; or a path,
            which a name that exists in the working directory is, too.
        user: Look it up as ``systemctl --user`` does.
        unit_path: Directories to search first.
        environ: Where $SYSTEMD_UNIT_PATH and the XDG variables come from; os.environ by default.
        warn: Called with ``file:line:column: what`` for everything that is ignored; by default a
            `SockactWarning` is issued.

    Raises:
        UnitNotFoundError: There is none, it is masked, or it cannot be read.
        UnitError: systemd would refuse it.

    Source: systemd.unit(5), systemd.socket(5).
    """
    from sockact.unitfile.load import load_spec  # noqa: PLC0415 - not for --listen

    said: Iterable[str] = ()
    try:
        found = load_spec(
            unit, environ=os.environ if environ is None else environ, user=user, extra=unit_path
        )
        said = map(str, found.diagnostics)
    except UnitError as error:
        said = map(str, error.diagnostics)
        raise
    finally:
        for line in said:
            warn(line)
    return SocketUnit(found)


def check(
    unit: str,
    *,
    user: bool = False,
    unit_path: Sequence[str] = (),
    systemd: int = 0,
    environ: Mapping[str, str] | None = None,
) -> "list[Finding]":
    """Return what is worth saying of a socket or service unit, refused or not; nothing is opened.

    Args:
        unit: As for `load`; a name that ends in ``.service`` is a service unit.
        user: As for `load`.
        unit_path: As for `load`.
        systemd: The version of systemd that the unit must work with; 0 for the newest.
        environ: As for `load`.

    Raises:
        UnitNotFoundError: There is none, it is masked, or it cannot be read.
    """
    from sockact.unitfile.check import Finding, Severity, findings, refusal  # noqa: PLC0415
    from sockact.unitfile.load import (  # noqa: PLC0415
        load_service,
        load_spec,
        search_path,
        strangers,
    )

    variables = os.environ if environ is None else environ
    try:
        if unit.endswith(".service"):
            from sockact.unitfile.check_service import service_findings  # noqa: PLC0415

            service = load_service(unit, environ=variables, user=user, extra=unit_path)
            files, found = service.files, service_findings(service, systemd=systemd)
        else:
            spec = load_spec(unit, environ=variables, user=user, extra=unit_path)
            files, found = spec.files, findings(spec, systemd=systemd)
    except UnitNotFoundError:
        raise
    except UnitError as error:
        return refusal(error)
    directories = search_path(variables, user=user, extra=unit_path)
    linked = [
        Finding(
            Severity.WARNING,
            Origin(file),
            f"is a link to {real}, which is outside of the directories that are searched",
        )
        for file, real in strangers(files, directories)
    ]
    return linked + found


def definition(
    text: str,
    *,
    bare: Kind = Kind.STREAM,
    supervised: bool = False,
    warn: Warn = warn_by_default,
) -> SocketUnit:
    """Read a ``--listen`` text: ``[NAME=]SCHEME:ADDRESS[?Directive=Value&…]``.

    Args:
        text: The text.
        bare: What an address without a scheme is.
        supervised: Whether there is a supervisor, for whom some directives are.
        warn: Called with a line for each directive that has no effect on such a listener.

    Raises:
        ListenTextError: It is wrong; the message says which part.
    """
    spec = parse_listen(text, bare=bare, supervised=supervised)
    for diagnostic in spec.diagnostics:
        warn(str(diagnostic))
    return SocketUnit(spec)


def listen(*definitions: str, replace: bool = False, warn: Warn = warn_by_default) -> SocketSet:
    """Open listeners here and now: ``sockact.listen("web=tcp:8080?Backlog=512")``.

    Args:
        definitions: ``--listen`` texts.
        replace: Take over the path of a Unix socket even if some process listens there.
        warn: Called with a line for each option that could not be set.

    Returns:
        The set, owned by the caller: use it as a context manager, or close it.

    Raises:
        ListenTextError: A text is wrong.
        BindError: A listener could not be opened; nothing stays open.
    """
    specs = [definition(text, warn=warn).spec for text in definitions]
    return open_specs(specs, replace=replace, warn=warn)


def activated_or_listen(
    *definitions: str, replace: bool = False, warn: Warn = warn_by_default
) -> SocketSet:
    """Return the sockets this process was activated with; open `definitions` if there are none.

    So the same program runs under systemd, under ``sockact exec``, and by itself. If exactly one
    socket was passed and exactly one is defined, it goes by the name of the definition, whatever
    the unit called it.

    Args:
        definitions: ``--listen`` texts.
        replace: Take over the path of a Unix socket even if some process listens there.
        warn: Called with a line for each option that could not be set.

    Raises:
        EnvironError: LISTEN_* are malformed.
        ListenTextError: A text is wrong.
        BindError: A listener could not be opened; nothing stays open.
    """
    specs = [definition(text, warn=warn).spec for text in definitions]
    passed = listen_fds()
    if not len(passed):
        return open_specs(specs, replace=replace, warn=warn)
    wanted = [listener.name for spec in specs for listener in spec.listeners]
    if len(passed) == 1 and len(wanted) == 1:
        passed.entry().name = wanted[0]
    return passed


def socket(name: str | None = None) -> _socket.socket:
    """Return the one activated socket of that fd name; without a name, the only one.

    The same object each time. It belongs to the process-wide set of `listen_fds`; close it to
    stop serving.

    Raises:
        SocketLookupError: There is none, or there are several; the message says what there is,
            or why there is nothing.
        EnvironError: LISTEN_* are malformed.
        OSError: It is no socket (ENOTSOCK).
    """
    return listen_fds().socket(name)


def takeover(
    path: str,
    *definitions: str,
    timeout: float = 30.0,
    patience: float = 60.0,
    drain: float = 0.0,
    trusted: Sequence[int] = (),
    stream: bool = False,
    warn: Warn = warn_by_default,
) -> "Rendezvous":
    """Take the sockets over from the process that owns `path`, or open them if there is none.

    Sockets are matched by fd name, kind and address. What the definitions add is opened; what they
    leave out is closed when the former owner is gone. Nothing changes for the former owner, or for
    anybody's clients, before `Rendezvous.ready`.

    Args:
        path: The rendezvous: the path of a Unix socket, or an abstract name with a leading ``@``.
        definitions: ``--listen`` texts; none to take everything as it is.
        timeout: Seconds to wait for an owner that is busy, starting or stopping.
        patience: Seconds that this process may need until it is ready.
        drain: Seconds that its own drain may last, once it has a successor; 0 for ever.
        trusted: Users who may own the path besides root and this process's own user.
        stream: Whether to publish the path with SOCK_STREAM, as where there is no SOCK_SEQPACKET.
        warn: Called with a line for each option that could not be set.

    Raises:
        ListenTextError: A text is wrong.
        PathInUseError: The path cannot be used.
        UntrustedOwnerError: The owner is not to be trusted.
        RefusedError: The owner said no.
        TakeoverAbortedError: The owner broke it off; it goes on serving.
        BindError: A listener that is new could not be opened; the owner goes on serving.
    """
    from sockact.rendezvous.furnish import Options, come  # noqa: PLC0415 - most start without
    from sockact.rendezvous.thread import Rendezvous  # noqa: PLC0415

    specs = [definition(text, warn=warn).spec for text in definitions]
    options = Options(timeout, patience, drain, tuple(trusted), stream)
    return Rendezvous(*come(path, specs, options, warn))


def offer(
    path: str,
    sockets: SocketSet,
    *,
    timeout: float = 5.0,
    drain: float = 0.0,
    stream: bool = False,
) -> "Rendezvous":
    """Own `path`, and offer copies of `sockets` to whoever may have them.

    Args:
        path: The rendezvous: the path of a Unix socket, or an abstract name with a leading ``@``.
        sockets: The set, which belongs to the rendezvous from now on.
        timeout: Seconds to wait for an owner that is starting or stopping.
        drain: Seconds that the drain may last, once there is a successor; 0 for ever.
        stream: Whether to publish the path with SOCK_STREAM, as where there is no SOCK_SEQPACKET.

    Raises:
        PathInUseError: The path has an owner, or cannot be used; `sockets` stays the caller's.
    """
    from sockact.rendezvous.furnish import Options, offer_set  # noqa: PLC0415
    from sockact.rendezvous.thread import Rendezvous  # noqa: PLC0415

    options = Options(timeout=timeout, drain=drain, stream=stream)
    return Rendezvous(*offer_set(path, sockets, options), sockets)


def take_or_listen(
    path: str,
    *definitions: str | SocketUnit,
    replace: bool = False,
    timeout: float = 30.0,
    trusted: Sequence[int] = (),
    warn: Warn = warn_by_default,
) -> SocketSet:
    """Get a copy of what the owner of `path` has for each definition; open the others.

    Sockets are matched by fd name, kind and address. What is opened here is this process's alone:
    the owner does not learn of it. That nobody answers is an error, because two processes that
    start at the same time would else open the same address.

    Args:
        path: The rendezvous.
        definitions: ``--listen`` texts and units; none for everything that the owner has.
        replace: Take over the path of a Unix socket that is opened even if some process listens
            there.
        timeout: Seconds that it may take to get them.
        trusted: Users who may own the path besides root and this process's own user.
        warn: Called with a line for each option that could not be set.

    Returns:
        The set, owned by the caller, in the order of the definitions.

    Raises:
        ListenTextError: A text is wrong.
        OwnerNotFoundError: Nobody answers there.
        UntrustedOwnerError: The one who does is not to be trusted.
        RendezvousError: It came to nothing in another way.
        BindError: What is missing could not be opened; nothing stays open.
    """
    from sockact.rendezvous.furnish import take_for  # noqa: PLC0415 - most start without
    from sockact.rendezvous.take import take  # noqa: PLC0415

    if not definitions:
        return take(path, timeout=timeout, trusted=trusted)
    units = [
        one if isinstance(one, SocketUnit) else definition(one, warn=warn) for one in definitions
    ]
    specs = [unit.spec for unit in units]
    return take_for(path, specs, replace=replace, timeout=timeout, trusted=trusted, warn=warn)


def held_by(found: "Sequence[Holding]") -> "list[list[Process]]":
    """Return for each holding the processes that have it open, from one look at all processes.

    Only processes that this one may look into can be seen: its own user's, or all for root, in
    its own pid namespace. Where there is no /proc, none is.

    Args:
        found: What `holdings` returned.

    Source: proc(5), ``/proc/PID/fd``.
    """
    from sockact.sockets.holder import holders_by_link  # noqa: PLC0415 - only for lists

    links = [
        f"socket:[{one.entry.inode}]" if one.entry.family else one.entry.address for one in found
    ]
    processes = holders_by_link(links)
    return [processes[link] for link in links]
