"""A definition as ``systemctl show`` prints it, so that the parsed values can be compared."""

from collections.abc import Callable

from sockact.directives import TABLE
from sockact.spec import (
    PROTOCOLS,
    Directive,
    InetAddress,
    ListenerSpec,
    Moment,
    NetlinkAddress,
    SocketSpec,
    Value,
)
from sockact.unitfile.address import NETLINK_FAMILIES
from sockact.unitfile.values import span

SYSTEMD = 252
"""The version whose properties are meant."""

# Where systemd's property is called otherwise than the directive.
_NAMES = {
    "KeepAliveTimeSec": "KeepAliveTimeUSec",
    "KeepAliveIntervalSec": "KeepAliveIntervalUSec",
    "DeferAcceptSec": "DeferAcceptUSec",
    "TriggerLimitIntervalSec": "TriggerLimitIntervalUSec",
    "TimeoutSec": "TimeoutUSec",
}
# What it does not show, or only as part of something else.
_HIDDEN = {"SELinuxContextFromNet", "Service", "NonBlocking", "X-TriggerLimitRecoverSec"}


def _address(listener: ListenerSpec) -> str:
    address = listener.address
    text = str(address)
    if isinstance(address, InetAddress) and not address.version:
        text = f"[::]:{address.port}"
    if isinstance(address, NetlinkAddress):
        names = {number: name for name, number in NETLINK_FAMILIES.items()}
        text = f"{names.get(address.protocol, address.family)} {address.group}"
    return f"{text} ({listener.kind.value})"


def _default(row: Directive[object], spec: SocketSpec) -> object:
    value = spec.get(row)
    if row.name == "TriggerLimitBurst" and value is None:
        return 200 if spec.get(TABLE["Accept"]) else 20
    if row.name == "FileDescriptorName" and not value:
        return spec.name
    return value


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _paths(value: object) -> str:
    assert isinstance(value, tuple)
    quoted = (item.replace("\\", "\\\\") for item in value)
    return " ".join(f'"{item}"' if {" ", "\\"} & set(item) else item for item in quoted)


_WRITERS: dict[Value, Callable[[object], str]] = {
    Value.MODE: lambda value: f"{value:04o}",
    Value.PATHS: _paths,
    Value.COMMANDS: lambda value: str(len(value)),  # type: ignore[arg-type]
    Value.PROTOCOL: lambda value: str(PROTOCOLS.get(str(value), 0)),
    Value.SPAN: str,
    Value.SPAN_OR_ZERO: str,
}


def expected(spec: SocketSpec) -> dict[str, str]:
    """Return the properties that systemd should show for `spec`."""
    found = {"Listen": "\n".join(_address(listener) for listener in spec.listeners)}
    for name, row in TABLE.items():
        if row.moment is Moment.LISTENER or row.since > SYSTEMD or name in _HIDDEN:
            continue
        write = _WRITERS.get(row.value, _text)
        found[_NAMES.get(name, name)] = write(_default(row, spec))
    return found


def shown(text: str) -> dict[str, str]:
    """Return what ``systemctl show`` printed of one unit, in the form of `expected`."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        found[name] = f"{found[name]}\n{value}" if name in found else value
    by_property = {_NAMES.get(name, name): row for name, row in TABLE.items()}
    for name, value in found.items():
        row = by_property.get(name)
        if row is None:
            continue
        if row.value in (Value.SPAN, Value.SPAN_OR_ZERO):
            found[name] = str(span(value))
        elif row.value is Value.COMMANDS:
            found[name] = str(value.count("{ path="))
        elif row.value is Value.TIMESTAMPING:
            found[name] = {"µs": "us"}.get(value, value)
    return found


def differing(spec: SocketSpec, text: str) -> dict[str, tuple[str, str]]:
    """Return the properties that differ: what systemd shows, and what `spec` says."""
    real = shown(text)
    # A list without elements is not shown at all.
    absent = {"ExecStartPre": "0", "ExecStartPost": "0", "ExecStopPre": "0", "ExecStopPost": "0"}
    return {
        name: (real.get(name, absent.get(name, "")), value)
        for name, value in expected(spec).items()
        if real.get(name, absent.get(name, "")) != value
    }
