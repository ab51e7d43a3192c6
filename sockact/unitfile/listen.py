"""``--listen`` texts: ``[NAME=]SCHEME:ADDRESS[?Directive=Value&…]`` to `SocketSpec`.

``tcp:8080`` means what ``ListenStream=8080`` means. Beyond that there are things that unit files
cannot say: host and service names, port 0, ranges of ports, and a name and directives of its own
for each listener. Pure: names are looked up when the listener is opened.
"""

import re
from types import MappingProxyType

import attrs

from sockact import directives as d
from sockact.errors import DirectiveError, ListenTextError
from sockact.spec import (
    Address,
    HostAddress,
    InetAddress,
    Kind,
    ListenerSpec,
    Origin,
    PathAddress,
    Setting,
    SocketSpec,
    UnixAddress,
    VsockAddress,
)
from sockact.unitfile import address as addresses
from sockact.unitfile import values

SCHEMES: dict[str, tuple[Kind, int]] = {
    "tcp": (Kind.STREAM, 0),
    "tcp4": (Kind.STREAM, 4),
    "tcp6": (Kind.STREAM, 6),
    "udp": (Kind.DATAGRAM, 0),
    "udp4": (Kind.DATAGRAM, 4),
    "udp6": (Kind.DATAGRAM, 6),
    "unix": (Kind.STREAM, 0),
    "unix-dgram": (Kind.DATAGRAM, 0),
    "unix-seqpacket": (Kind.SEQPACKET, 0),
    "fifo": (Kind.FIFO, 0),
    "special": (Kind.SPECIAL, 0),
    "netlink": (Kind.NETLINK, 0),
    "mqueue": (Kind.MQUEUE, 0),
    "vsock": (Kind.STREAM, 0),
}
"""Each scheme's kind of listener, and IP version (0: any, or not IP)."""

_WILDCARD = {4: "0.0.0.0", 6: "::"}
_NAME = r"[^:=?]*="


class _Text:
    """A ``--listen`` text, for errors that point at a part of it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def wrong(self, message: str, start: int, end: int) -> ListenTextError:
        return ListenTextError(message, self.text, start, end)


def _ports(text: str, service: str) -> list[int] | None:
    """Return the port numbers that `service` names, or None if it is the name of a service."""
    if service == "0":
        return [0]
    if re.fullmatch(r"[0-9]+-[0-9]+", service):
        first, last = (addresses.port(part) for part in service.split("-"))
        if last < first:
            raise ValueError(f"port range {service} runs backwards")
        return list(range(first, last + 1))
    if re.fullmatch(r"0[0-9]+", service):
        raise ValueError(f"port {service!r} has a leading zero, which is octal in a unit file")
    if re.match(r"[+0-9]", service):
        return [addresses.port(service)]
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+./-]*", service):
        raise ValueError(f"{service!r} in {text!r} is neither a port, a range nor a service name")
    return None


def _inet(text: str, version: int) -> list[Address]:
    scope = ""
    if text.startswith("["):
        match = re.fullmatch(r"\[([^\]]*)\]:([^%]*)(?:%(.+))?", text)
        if not match:
            raise ValueError(f"{text!r} is not [IPv6]:PORT")
        host, service, scope = match[1], match[2], match[3] or ""
        if not (addresses.numeric_host(host) or (0,))[0] == 6:
            raise ValueError(f"{host!r} is not an IPv6 address")
    else:
        host, _, service = text.rpartition(":")
        if ":" in host:
            raise ValueError(f"write an IPv6 address in brackets: [{host}]:{service}")
        host = "" if host == "*" else host
    ports = _ports(text, service)
    number = addresses.numeric_host(host) if host else None
    if number and version and number[0] != version:
        raise ValueError(f"{host} is not an IPv{version} address")
    if (
        host
        and not number
        and not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?", host)
    ):
        raise ValueError(f"{host!r} is neither an IP address nor a host name")
    if ports is None or (host and not number):
        services = [service] if ports is None else [str(port) for port in ports]
        return [HostAddress(number[1] if number else host, name, version) for name in services]
    if number:
        return [InetAddress(number[0], number[1], port, scope) for port in ports]
    return [InetAddress(version, _WILDCARD.get(version, ""), port) for port in ports]


def _addresses(scheme: str, text: str) -> list[Address]:
    kind, version = SCHEMES[scheme]
    if not text:
        raise ValueError(f"nothing to listen on; write {scheme}:ADDRESS")
    if scheme.startswith(("tcp", "udp")):
        return _inet(text, version)
    if scheme.startswith("unix"):
        return [addresses.unix(text)]
    if scheme == "vsock":
        return [addresses.vsock(text)]
    if scheme == "netlink":
        return [addresses.netlink(text.replace(":", " ", 1))]
    return [addresses.listen_address(kind, text)]


def _default_name(scheme: str, address: Address) -> str:
    """Name a listener that was given no name after what can be told apart by looking at it."""
    if isinstance(address, InetAddress | VsockAddress):
        return f"{scheme}-{address.port}"
    match address:
        case HostAddress(service=service):
            name = f"{scheme}-{service}"
        case UnixAddress(path=path) | PathAddress(path=path):
            name = path.rstrip("/").rpartition("/")[2]
        case _:
            name = f"{scheme}-{address.family}"
    return re.sub(r"[^\x20-\x39\x3b-\x7e]", "_", name)[:255]


def _unquote(value: str) -> str:
    if "%" not in value:
        return value
    from urllib.parse import unquote  # noqa: PLC0415 - rare, and slow to import

    return unquote(value)


def _settings(text: _Text, query: str, start: int, *, supervised: bool) -> dict[str, Setting]:
    from sockact.unitfile.unit import read_setting  # noqa: PLC0415 - only where there is a query

    settings: dict[str, Setting] = {}
    for part in query.split("&"):
        end = start + len(part)
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise text.wrong("a directive is written Name=Value", start, end)
        try:
            row, setting = read_setting(
                name, _unquote(value), Origin(text.text), supervised=supervised
            )
        except ValueError as error:
            raise text.wrong(str(error), start, end) from None
        if row.value in values.LISTS and (old := settings.get(name)):
            setting = Setting(old.value + setting.value, setting.origin)  # type: ignore[operator]
        elif name in settings:
            raise text.wrong(f"{name}= is given twice", start, end)
        settings[name] = setting
        start = end + 1
    return settings


def _systemd_address(text: _Text, start: int, body: str, kind: Kind) -> list[Address]:
    """Read an address without a scheme, as systemd-socket-activate takes it."""
    try:
        return [addresses.listen_address(kind, body)]
    except ValueError as error:
        scheme, colon, rest = body.partition(":")
        near = d.nearest(scheme, SCHEMES) if colon else ""
        if near:
            message = f"unknown scheme {scheme!r}; did you mean {near}:{rest}?"
        elif re.fullmatch(r"[A-Za-z0-9.*-]+:[A-Za-z0-9-]+", body):
            message = f"no scheme; for a host or service name write tcp:{body} or udp:{body}"
        else:
            message = f"{error}; or put a scheme in front: {', '.join(SCHEMES)}"
        raise text.wrong(message, start, start + len(body)) from None


def parse_listen(text: str, *, bare: Kind = Kind.STREAM, supervised: bool = False) -> SocketSpec:
    """Read the text of one ``--listen`` option.

    Args:
        text: ``[NAME=]SCHEME:ADDRESS[?Directive=Value&…]``, or an address as
            ``ListenStream=`` takes it, without a scheme.
        bare: What an address without a scheme is.
        supervised: Whether there is a supervisor, for whom some directives are.

    Raises:
        ListenTextError: It is wrong; the message says which part.
    """
    whole = _Text(text)
    name_match = re.match(_NAME, text)
    name = name_match[0][:-1] if name_match else ""
    start = name_match.end() if name_match else 0
    body, mark, query = text[start:].partition("?")
    end = start + len(body)
    try:
        values.fd_name(name)
        if name_match and not name:
            raise ValueError("the name is empty")
    except ValueError as error:
        raise whole.wrong(str(error), 0, max(start, 1)) from None
    settings = _settings(whole, query, end + 1, supervised=supervised) if mark else {}
    scheme, colon, rest = body.partition(":")
    if colon and scheme in SCHEMES:
        kind, version = SCHEMES[scheme]
        try:
            found = _addresses(scheme, rest)
        except ValueError as error:
            raise whole.wrong(str(error), start + len(scheme) + 1, end) from None
        if version == 6:
            # Beside tcp4:8080, tcp6:8080 must not claim the IPv4 port as well.
            settings.setdefault(d.BIND_IPV6_ONLY.name, Setting("ipv6-only", Origin(text)))
    else:
        kind, scheme = bare, "tcp" if bare is Kind.STREAM else "udp"
        found = _systemd_address(whole, start, body, kind)
        if isinstance(found[0], VsockAddress):
            scheme = "vsock"
    given = settings.get(d.FILE_DESCRIPTOR_NAME.name)
    if given and name:
        raise whole.wrong("both NAME= and FileDescriptorName= are given", end + 1, len(text))
    chosen = str(given.value) if given else name
    origin = Origin(text)
    listeners = tuple(
        ListenerSpec(kind, address, chosen or _default_name(scheme, address), origin)
        for address in found
    )
    spec = SocketSpec(text, listeners, MappingProxyType(settings))
    if mark:
        from sockact.unitfile.explain import idle_settings  # noqa: PLC0415 - rarely needed

        _verify(whole, spec, end)
        spec = attrs.evolve(spec, diagnostics=tuple(idle_settings(spec)))
    return spec


def _verify(text: _Text, spec: SocketSpec, start: int) -> None:
    from sockact.unitfile.unit import verify  # noqa: PLC0415 - only where there is a query

    try:
        verify(spec)
    except DirectiveError as error:
        raise text.wrong(error.message, start, len(text.text)) from None
