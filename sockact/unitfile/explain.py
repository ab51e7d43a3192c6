"""What the rows of the directive table mean, in words for a person. Pure."""

from sockact.directives import ACCEPT, FILE_DESCRIPTOR_NAME, REMOVE_ON_STOP, TABLE
from sockact.spec import (
    ACCEPTING,
    Diagnostic,
    Directive,
    HostAddress,
    InetAddress,
    Kind,
    ListenerSpec,
    Moment,
    NetlinkAddress,
    PathAddress,
    Reach,
    SocketSpec,
    UnixAddress,
    Value,
)
from sockact.unitfile.values import LISTS, write

_NUMBERS = frozenset({
    Value.UNSIGNED, Value.INTEGER, Value.LONG, Value.SIZE, Value.SPAN, Value.TOS
})  # fmt: skip
_BY_HAND = frozenset({Moment.MANAGER, Moment.NEVER})
_NOT_OPENED = _BY_HAND | {Moment.LISTENER}


def reaches(reach: Reach, listener: ListenerSpec) -> bool:
    """Whether a directive of that reach has an effect on `listener`."""
    kind, address = listener.kind, listener.address
    inet = isinstance(address, InetAddress | HostAddress)
    version = address.version if isinstance(address, InetAddress | HostAddress) else -1
    unix = isinstance(address, UnixAddress)
    path = (unix and not str(address).startswith("@")) or kind is Kind.FIFO
    netlink = isinstance(address, NetlinkAddress)
    return {
        Reach.ALL: True,
        Reach.SOCKETS: not isinstance(address, PathAddress),
        Reach.INET: inet,
        Reach.INET4: inet and version in (0, 4),
        Reach.INET6: inet and version in (0, 6),
        Reach.TCP: inet and kind is Kind.STREAM,
        Reach.TCP_SCTP: inet and kind in ACCEPTING,
        Reach.DATAGRAM: kind is Kind.DATAGRAM,
        Reach.ACCEPTING: kind in ACCEPTING,
        Reach.UNIX: unix,
        Reach.UNIX_NETLINK: unix or netlink,
        Reach.INET_NETLINK: inet or netlink,
        Reach.PATHS: path,
        Reach.NODES: path or kind is Kind.MQUEUE,
        Reach.FIFO: kind is Kind.FIFO,
        Reach.SPECIAL: kind is Kind.SPECIAL,
        Reach.MQUEUE: kind is Kind.MQUEUE,
    }[reach]


def idle_settings(spec: SocketSpec) -> list[Diagnostic]:
    """Return the directives of `spec` that have no effect on any of its listeners."""
    found = []
    for name, setting in spec.settings.items():
        row = TABLE[name]
        if setting.value == row.default or any(reaches(row.applies, li) for li in spec.listeners):
            continue
        message = f"{name}= has no effect: it is for {row.applies.value}, and there is none here"
        found.append(Diagnostic(setting.origin, message))
    return found


def unsupervised(spec: SocketSpec, command: str = "exec") -> list[Diagnostic]:
    """Return what `spec` says in vain where nobody supervises the program, and why.

    With Accept=yes that is nothing under exec, which stays then.

    Args:
        spec: The definition.
        command: The command that opens it.
    """
    said: list[Diagnostic] = []
    if command == "exec" and spec.get(ACCEPT):
        return said
    for name, setting in spec.settings.items():
        row = TABLE[name]
        if row.moment is Moment.MANAGER and setting.value != row.default:
            why = row.without_manager if command == "exec" else "it only passes the sockets on"
            if "sockact run" not in why:
                why += "; sockact run honours it"
            said.append(Diagnostic(setting.origin, f"{name}= has no effect under {command}: {why}"))
    if command != "hold" and spec.get(REMOVE_ON_STOP):  # a holder is left
        setting = spec.settings[REMOVE_ON_STOP.name]
        message = (
            f"RemoveOnStop= has no effect under {command}: nobody is left to remove the node;"
            " sockact run honours it"
        )
        said.append(Diagnostic(setting.origin, message))
    return said


def default_text(row: Directive[object]) -> str:
    """Return what holds where the directive is not set."""
    if row.default is None:
        return "depends on Accept="
    if row.name == FILE_DESCRIPTOR_NAME.name:
        return "the unit's full name"
    if row.default in ("", ()):
        return "not set"
    if row.value in _NUMBERS and row.moment not in _BY_HAND and row.default in (0, -1):
        return "the kernel's"
    return write(row.value, row.default)


def _empty_text(row: Directive[object]) -> str:
    if row.moment is Moment.LISTENER:
        return "drops every listener that was set before"
    if row.value in LISTS:
        return "drops every value that was set before"
    return "brings back the default" if row.resets else "is ignored with a warning"


def _failure_text(row: Directive[object]) -> str:
    if row.without_manager or row.moment is Moment.EXPORT:
        return ""
    return "the listener is not opened" if row.fatal else "a warning; the listener is used without"


def _exec_text(row: Directive[object]) -> str:
    if row.name == ACCEPT.name:
        return "honoured: sockact stays, and runs the program for each connection"
    return f"no effect: {row.without_manager}" if row.without_manager else ""


def facts(row: Directive[object]) -> dict[str, str]:
    """Return what there is to know of a directive, label to text, in the order to show it."""
    found = {
        "summary": row.summary,
        "value": row.value.value,
        "default": "" if row.moment is Moment.LISTENER else default_text(row),
        "acts": "" if row.moment is Moment.LISTENER else row.moment.value,
        "call": row.call,
        "applies to": "" if row.moment in _NOT_OPENED else row.applies.value,
        "if it fails": _failure_text(row),
        "under exec": _exec_text(row),
        "empty value": _empty_text(row),
        "specifiers": "are expanded" if row.specifiers else "",
        "since": f"systemd {row.since}" if row.since else "",
        "section": "" if row.section == "Socket" else f"[{row.section}]",
    }
    return {label: text for label, text in found.items() if text}
