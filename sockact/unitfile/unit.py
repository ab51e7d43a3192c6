"""Assignments to `SocketSpec`, and `SocketSpec` to text: the meaning of a unit file.

What systemd does with a fault decides what happens here: a bad value is a warning and the old
value stays; a bad Exec line or account name, and a combination that cannot work, refuse the unit.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import attrs

from sockact import directives as d
from sockact.errors import DirectiveError
from sockact.spec import (
    ACCEPTING,
    INFINITY,
    Diagnostic,
    Directive,
    HostAddress,
    InetAddress,
    Kind,
    ListenerSpec,
    Moment,
    Origin,
    Setting,
    SocketSpec,
    UnixAddress,
    Value,
)
from sockact.unitfile import values
from sockact.unitfile.address import listen_address
from sockact.unitfile.builder import Builder, Surroundings
from sockact.unitfile.grammar import Assignment
from sockact.unitfile.specifiers import expand

LISTEN_KINDS = {
    d.LISTEN_STREAM.name: Kind.STREAM,
    d.LISTEN_DATAGRAM.name: Kind.DATAGRAM,
    d.LISTEN_SEQPACKET.name: Kind.SEQPACKET,
    d.LISTEN_FIFO.name: Kind.FIFO,
    d.LISTEN_SPECIAL.name: Kind.SPECIAL,
    d.LISTEN_NETLINK.name: Kind.NETLINK,
    d.LISTEN_MQUEUE.name: Kind.MQUEUE,
    d.LISTEN_USB.name: Kind.USB,
}
"""The kind of listener that each Listen directive makes."""

_PATH_LIMIT = 4095


_LIMITS = {
    d.TRIGGER_LIMIT_INTERVAL.name,
    d.TRIGGER_LIMIT_BURST.name,
    d.POLL_LIMIT_INTERVAL.name,
    d.POLL_LIMIT_BURST.name,
}


class _Builder(Builder):
    def __init__(self, name: str, path: str, surroundings: Surroundings) -> None:
        super().__init__(name, path, surroundings)
        self.listeners: list[tuple[Kind, object, Origin]] = []

    def assign(self, item: Assignment) -> None:
        if self.is_abandoned(item):
            return
        if item.section != "Socket":
            self._outside(item)
            return
        row = d.TABLE.get(item.key)
        if row is None or row.section != "Socket":
            self._unknown(item, row)
        elif row.value is Value.LISTEN:
            self._listen(item, row)
        else:
            self.set(item, row)

    def _outside(self, item: Assignment) -> None:
        from sockact.unitfile.foreign import unit_section  # noqa: PLC0415 - most units need it not

        if message := unit_section(item.section, item.key):
            self.warn(item.origin, message)

    def _unknown(self, item: Assignment, row: Directive[object] | None) -> None:
        if item.key.startswith("X-"):
            return
        from sockact.unitfile.foreign import foreign_key  # noqa: PLC0415 - only where one stands

        if row is not None:
            self.warn(item.origin, f"{item.key}= belongs to [{row.section}]; ignored")
        else:
            self.warn(item.origin, foreign_key(item.key))

    def _listen(self, item: Assignment, row: Directive[object]) -> None:
        if not item.value:
            self.listeners.clear()
            return
        kind = LISTEN_KINDS[row.name]
        if kind is Kind.USB:
            self.warn(item.origin, f"{row.name}= has no effect: {row.without_manager}")
            return
        try:
            text = expand(item.value, self.surroundings.resolve, _PATH_LIMIT)
            address = listen_address(kind, text)
            if isinstance(address, InetAddress):
                self._reachable(address)
        except ValueError as error:
            self.warn(item.value_origin, f"{row.name}=: {error}; this listener is ignored")
            return
        self.listeners.append((kind, address, item.origin))

    def _reachable(self, address: InetAddress) -> None:
        if address.version == 6 and not self.surroundings.ipv6:
            raise ValueError("this kernel has no IPv6")
        if address.scope and not self.surroundings.interface(address.scope):
            raise ValueError(f"there is no network interface {address.scope!r}")

    def keep(self, item: Assignment, row: Directive[object], value: object) -> None:
        unset = INFINITY if row.value is Value.SPAN else 2**32 - 1
        if row.name in _LIMITS and value == unset:
            # systemd takes it for its mark of "not set".
            self.reset(row)
            return
        super().keep(item, row, value)
        if row.moment is Moment.NEVER:
            self.warn(item.origin, f"{row.name}= has no effect: {row.without_manager}")

    def build(self) -> SocketSpec:
        settings = self.finished()
        name = spec_name(settings) or self.name
        spec = SocketSpec(
            self.name,
            tuple(
                ListenerSpec(kind, address, name, origin)  # type: ignore[arg-type]
                for kind, address, origin in self.listeners
            ),
            settings,
            tuple(self.diagnostics),
            self.path,
        )
        verify(spec)
        for listener in spec.listeners:
            if isinstance(listener.address, UnixAddress) and "/../" in f"{listener.address}/":
                place = listener.origin
                message = f"{listener.address}: a path with .. in it; write it without"
                raise DirectiveError(message, place.source, place.line, place.column)
        return spec


def verify(spec: SocketSpec) -> None:
    """Check what no single directive can tell.

    Raises:
        DirectiveError: systemd would refuse the unit: no listener, or directives that exclude
            each other.

    Source: ``socket_verify()`` in systemd's src/core/socket.c.
    """

    def refuse(row: Directive[object] | None, message: str) -> None:
        setting = spec.settings.get(row.name) if row else None
        place = setting.origin if setting else Origin(spec.path or spec.name)
        raise DirectiveError(message, place.source, place.line, place.column)

    if not spec.listeners:
        refuse(None, "no listener left; write at least one ListenStream= or other Listen line")
    if not spec.get(d.MAX_CONNECTIONS):
        refuse(d.TABLE[d.MAX_CONNECTIONS.name], "MaxConnections=0 would refuse every connection")
    if spec.get(d.ACCEPT):
        accept = d.TABLE[d.ACCEPT.name]
        for listener in spec.listeners:
            if listener.kind not in ACCEPTING:
                refuse(accept, f"Accept=yes, but nothing can be accepted on {listener}")
        if spec.get(d.SERVICE):
            refuse(d.TABLE[d.SERVICE.name], "Service= excludes Accept=yes")
        if spec.get(d.DEFER_TRIGGER) != "no":
            refuse(d.TABLE[d.DEFER_TRIGGER.name], "DeferTrigger= excludes Accept=yes")
    if spec.get(d.SYMLINKS) and len(path_nodes(spec)) != 1:
        refuse(
            d.TABLE[d.SYMLINKS.name],
            f"Symlinks= needs exactly one AF_UNIX path or FIFO, here are {len(path_nodes(spec))}",
        )


def path_nodes(spec: SocketSpec) -> list[ListenerSpec]:
    """Return the listeners that make a node in the file system: AF_UNIX paths and FIFOs."""
    return [
        listener
        for listener in spec.listeners
        if listener.kind is Kind.FIFO
        or (isinstance(listener.address, UnixAddress) and not listener.address.abstract)
    ]


def interpret(
    name: str,
    assignments: Iterable[Assignment],
    surroundings: Surroundings,
    path: str = "",
    diagnostics: Iterable[Diagnostic] = (),
) -> SocketSpec:
    """Give the assignments of a unit file and its drop-ins, in order, their meaning.

    Args:
        name: The unit's full name; without FileDescriptorName= also its fd name.
        assignments: What the files say.
        surroundings: What specifiers and addresses take from the machine.
        path: The main file.
        diagnostics: What was ignored before.

    Raises:
        DirectiveError: systemd would refuse the unit.
    """
    builder = _Builder(name, path, surroundings)
    builder.diagnostics.extend(diagnostics)
    try:
        for item in assignments:
            builder.assign(item)
        return builder.build()
    except DirectiveError as error:
        error.diagnostics = tuple(builder.diagnostics)
        raise


def read_setting(
    name: str, text: str, origin: Origin, *, supervised: bool = False
) -> tuple[Directive[object], Setting]:
    """Read ``Name=text`` as said outside a unit file, for one listener or for all.

    Args:
        name: The directive.
        text: Its value.
        origin: Where it was said.
        supervised: Whether there is a supervisor, for whom some directives are.

    Raises:
        ValueError: There is no such directive, it cannot be said there, or its value is wrong.
    """
    row = d.TABLE.get(name)
    if row is None:
        near = d.nearest(name, d.TABLE)
        raise ValueError(f"unknown directive {name}" + (f"; did you mean {near}?" if near else ""))
    if row.moment in (Moment.LISTENER, Moment.NEVER) or (
        row.moment is Moment.MANAGER and not supervised
    ):
        why = row.without_manager or "a listener is written as SCHEME:ADDRESS"
        raise ValueError(f"{name}= has no effect here: {why}")
    if not text and (row.resets or row.value in values.LISTS):
        return row, Setting(row.default, origin)
    try:
        if row.value is Value.COMMANDS:
            return row, Setting(_commands(text, origin), origin)
        return row, Setting(values.READERS[row.value](text), origin)
    except ValueError as error:
        raise ValueError(f"{name}=: {error}") from None


def _commands(text: str, origin: Origin) -> object:
    from sockact.unitfile.command import parse_commands  # noqa: PLC0415 - few say some

    def complain(message: str) -> None:
        raise ValueError(message)

    return parse_commands(text.replace("%", "%%"), origin=origin, warn=complain)


def override(spec: SocketSpec, changes: Mapping[str, Setting]) -> SocketSpec:
    """Return `spec` as if `changes` stood at its end.

    Raises:
        DirectiveError: The combination is refused.
    """
    settings = {**spec.settings, **changes}
    listeners = spec.listeners
    if name := spec_name(changes):
        listeners = tuple(attrs.evolve(listener, name=name) for listener in listeners)
    changed = attrs.evolve(spec, settings=MappingProxyType(settings), listeners=listeners)
    verify(changed)
    return changed


def spec_name(settings: Mapping[str, Setting]) -> str:
    """Return the fd name that `settings` give to every listener, or an empty string."""
    given = settings.get(d.FILE_DESCRIPTOR_NAME.name)
    return str(given.value) if given else ""


def write(spec: SocketSpec) -> str:
    """Write `spec` as the text of a unit file that means the same.

    Raises:
        ValueError: It holds something that systemd's grammar cannot say: a host name, port 0,
            different fd names, a directive of another section, a value with a line end.
    """
    keys = {kind: key for key, kind in LISTEN_KINDS.items()}
    lines = ["[Socket]"]
    names = {listener.name for listener in spec.listeners}
    if len(names) > 1:
        raise ValueError(f"a unit file gives one fd name, not {', '.join(sorted(names))}")
    for listener in spec.listeners:
        address = listener.address
        if isinstance(address, HostAddress) or (
            isinstance(address, InetAddress) and not address.port
        ):
            raise ValueError(f"a unit file cannot say {address}")
        lines.append(f"{keys[listener.kind]}={_escape_percent(str(address))}")
    for name, setting in spec.settings.items():
        row = d.TABLE[name]
        if row.section != "Socket":
            raise ValueError(f"{name}= does not belong into a socket unit")
        items = setting.value if isinstance(setting.value, tuple) else (setting.value,)
        for item in items:
            text = values.write(row.value, item)
            lines.append(f"{name}={_escape_percent(text) if row.specifiers else text}")
    if not spec_name(spec.settings) and names != {spec.name}:
        lines += [f"{d.FILE_DESCRIPTOR_NAME.name}={_escape_percent(name)}" for name in names]
    if any(end in line for line in lines for end in "\r\n\0"):
        raise ValueError("a value with a line end in it does not fit into a unit file")
    return "\n".join(lines) + "\n"


def _escape_percent(text: str) -> str:
    return text.replace("%", "%%")
