"""Host and service names to addresses: the one step of opening that asks the resolver."""

import socket as _socket

import attrs

from sockact.errors import BindError
from sockact.spec import HostAddress, InetAddress, Kind, ListenerSpec, SocketSpec


def resolve_spec(spec: SocketSpec) -> SocketSpec:
    """Return `spec` with every host name replaced by all its addresses, in the resolver's order.

    Raises:
        BindError: A name has no address.
    """
    if not any(isinstance(listener.address, HostAddress) for listener in spec.listeners):
        return spec
    listeners: list[ListenerSpec] = []
    for listener in spec.listeners:
        address = listener.address
        if isinstance(address, HostAddress):
            listeners += [attrs.evolve(listener, address=a) for a in _look_up(listener, address)]
        else:
            listeners.append(listener)
    return attrs.evolve(spec, listeners=tuple(listeners))


def _look_up(listener: ListenerSpec, address: HostAddress) -> list[InetAddress]:
    kind = _socket.SOCK_DGRAM if listener.kind is Kind.DATAGRAM else _socket.SOCK_STREAM
    family = {0: _socket.AF_UNSPEC, 4: _socket.AF_INET, 6: _socket.AF_INET6}[address.version]
    try:
        if not address.host:
            protocol = "udp" if kind == _socket.SOCK_DGRAM else "tcp"
            wildcard = {0: "", 4: "0.0.0.0", 6: "::"}[address.version]
            port = _socket.getservbyname(address.service, protocol)
            return [InetAddress(address.version, wildcard, port)]
        found = _socket.getaddrinfo(
            address.host, address.service, family, kind, 0, _socket.AI_PASSIVE
        )
    except _socket.gaierror as error:
        raise BindError(
            str(listener.origin),
            "getaddrinfo",
            0,
            f"{address}: {error.strerror}",
            "check the name, or write the numeric address",
        ) from None
    except UnicodeError:
        raise BindError(
            str(listener.origin), "getaddrinfo", 0, f"{address.host!r} is no host name"
        ) from None
    except OSError:
        raise BindError(
            str(listener.origin),
            "getservbyname",
            0,
            f"no service is called {address.service!r}",
            "write the port number; services(5) lists the names",
        ) from None
    return list(dict.fromkeys(_address(*entry[::4]) for entry in found))


def _address(family: int, name: tuple[object, ...]) -> InetAddress:
    port = name[1]
    assert isinstance(port, int)
    host, _, scope = str(name[0]).partition("%")
    version = 6 if family == _socket.AF_INET6 else 4
    index = name[3] if version == 6 else 0
    return InetAddress(version, host, port, scope or (str(index) if index else ""))
