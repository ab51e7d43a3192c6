"""What is done to every socket of one spec, kind and family, worked out once. Pure."""

import socket as _socket

import attrs

from sockact import directives as d
from sockact.spec import ACCEPTING, PROTOCOLS, Kind, SocketSpec, SockOption

_SOCK_TYPES = {
    Kind.STREAM: _socket.SOCK_STREAM,
    Kind.DATAGRAM: _socket.SOCK_DGRAM,
    Kind.SEQPACKET: _socket.SOCK_SEQPACKET,
    Kind.NETLINK: _socket.SOCK_RAW,
}
# Which SocketProtocol= fits which kind; elsewhere systemd leaves the protocol at 0.
_PROTOCOL_KINDS = {
    "sctp": (Kind.STREAM, Kind.SEQPACKET),
    "mptcp": (Kind.STREAM,),
    "udplite": (Kind.DATAGRAM,),
}

FORCED_BUFFERS = {
    (_socket.SOL_SOCKET, _socket.SO_RCVBUF): d.SO_RCVBUFFORCE,
    (_socket.SOL_SOCKET, _socket.SO_SNDBUF): d.SO_SNDBUFFORCE,
}
"""The buffer sizes, and the options that set them beyond the system's limit."""


@attrs.frozen(eq=False, repr=False)
class Plan:
    """The arguments of the calls from socket() on.

    Attributes:
        type: For socket().
        protocol: For socket().
        before: Options before bind(): directive, arguments, whether a failure is fatal.
        late: Options after listen(): directive, arguments.
        backlog: For listen(); None if it does not listen.
    """

    type: int
    protocol: int
    before: tuple[tuple[str, SockOption, bool], ...]
    late: tuple[tuple[str, SockOption], ...]
    backlog: int | None


def make_plan(spec: SocketSpec, kind: Kind, family: int) -> Plan:
    """Work out the plan for sockets of `spec` of one kind and address family."""
    chosen = spec.get(d.SOCKET_PROTOCOL)
    protocol = PROTOCOLS[chosen] if kind in _PROTOCOL_KINDS.get(chosen, ()) else 0
    before: list[tuple[str, SockOption, bool]] = []
    if family in (_socket.AF_INET, _socket.AF_INET6):
        before += [
            (row.name, option, row.fatal)
            for row in d.BEFORE_BIND
            if row.option and (option := row.option(spec.get(row), family, protocol))
        ]
    before.append(("SO_REUSEADDR", (_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1), True))
    late = [
        (row.name, option)
        for row in d.LATE
        if row.option and (option := row.option(spec.get(row), family, protocol))
    ]
    backlog = min(spec.get(d.BACKLOG), d.BACKLOG_MAX) if kind in ACCEPTING else None
    return Plan(_SOCK_TYPES[kind], protocol, tuple(before), tuple(late), backlog)
