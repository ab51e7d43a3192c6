"""The addresses of ``Listen*=`` lines: text to value.

The order in which forms are tried is systemd's: a path or abstract name, ``vsock:``, a bare port,
then ``[v6]:port%scope`` and ``a.b.c.d:port``. Host names, service names, port 0 and port ranges
are no part of this grammar; `sockact.unitfile.listen` adds them for ``--listen``.

Source: systemd.socket(5), and ``socket_address_parse()`` in systemd's src/shared/socket-netlink.c.
"""

import re
import socket as _socket

from sockact.spec import (
    Address,
    InetAddress,
    Kind,
    NetlinkAddress,
    PathAddress,
    UnixAddress,
    VsockAddress,
)
from sockact.unitfile.values import absolute_path, integer

UNIX_PATH_MAX = 107
"""Bytes in a socket path, or in an abstract name with its ``@`` (unix(7): 108 with the NUL)."""

NETLINK_FAMILIES = {
    "route": 0, "firewall": 3, "inet-diag": 4, "nflog": 5, "xfrm": 6, "selinux": 7, "iscsi": 8,
    "audit": 9, "fib-lookup": 10, "connector": 11, "netfilter": 12, "ip6-fw": 13, "dnrtmsg": 14,
    "kobject-uevent": 15, "generic": 16, "scsitransport": 18, "ecryptfs": 19, "rdma": 20,
}  # fmt: skip

_CIDS = {
    "": 0xFFFFFFFF,
    "any": 0xFFFFFFFF,
    "-1": 0xFFFFFFFF,
    "hypervisor": 0,
    "local": 1,
    "host": 2,
}
_BARE_PORT = r"\+?[0-9][0-9a-zA-Z]*"
_V6 = r"\[([^\]]*)\](?::([^%]*)(?:%(.*))?)?"


def port(text: str) -> int:
    """Read a port number, 1 to 65535.

    Raises:
        ValueError: It is not one.
    """
    try:
        return integer(text, 1, 65535)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a port from 1 to 65535") from None


def numeric_host(text: str) -> tuple[int, str] | None:
    """Return the IP version and the usual spelling of a numeric address, or None."""
    for version, family in ((4, _socket.AF_INET), (6, _socket.AF_INET6)):
        try:
            return version, _socket.inet_ntop(family, _socket.inet_pton(family, text))
        except (OSError, ValueError):
            continue
    return None


def unix(text: str) -> UnixAddress:
    """Read a socket path, or an abstract name that begins with ``@``.

    Raises:
        ValueError: It is neither, or too long for the kernel.
    """
    if not text.startswith(("/", "@")):
        raise ValueError(f"{text[:80]!r} is neither an absolute path nor an @abstract name")
    if "\0" in text:
        raise ValueError("a socket path cannot hold a NUL")
    length = len(text.encode("utf-8", "surrogateescape"))
    if length < 2:
        raise ValueError(f"{text!r} is too short for a socket path")
    if length > UNIX_PATH_MAX:
        raise ValueError(f"socket path has {length} bytes; the kernel takes {UNIX_PATH_MAX}")
    return UnixAddress(text)


def vsock(text: str) -> VsockAddress:
    """Read ``CID:PORT``, without a prefix.

    Raises:
        ValueError: It is not that, or the port is 4294967295.
    """
    cid, colon, number = text.partition(":")
    if not colon:
        raise ValueError(f"{text[:80]!r} is not CID:PORT")
    try:
        context = _CIDS[cid] if cid in _CIDS else integer(cid, 0, 0xFFFFFFFF)
        return VsockAddress(context, integer(number, 0, 0xFFFFFFFE))
    except ValueError as error:
        raise ValueError(f"vsock address {text[:80]!r}: {error}") from None


def netlink(text: str) -> NetlinkAddress:
    """Read ``FAMILY [GROUP]``.

    Raises:
        ValueError: The family or the group is unknown.
    """
    match = re.fullmatch(r"([^ \t\n\r]+)(?:[ \t\n\r]+(.*))?", text)
    if not match:
        raise ValueError("a netlink family is missing")
    family, group = match[1], match[2]
    if family in NETLINK_FAMILIES:
        protocol = NETLINK_FAMILIES[family]
    else:
        try:
            protocol = integer(family, 0, 2**31 - 1)
        except ValueError:
            raise ValueError(f"{family[:40]!r} is not a netlink family") from None
    if group is None:
        return NetlinkAddress(family, protocol)
    try:
        return NetlinkAddress(family, protocol, integer(group, 0, 0xFFFFFFFF))
    except ValueError:
        raise ValueError(f"{group[:40]!r} is not a netlink group mask") from None


def queue(text: str) -> PathAddress:
    """Read the name of a message queue, ``/name``; that it fits, the kernel finds out.

    Raises:
        ValueError: It does not begin with a slash.
    """
    return PathAddress(absolute_path(text))


def _inet(text: str) -> InetAddress:
    if text.startswith("["):
        match = re.compile(_V6).fullmatch(text)
        number = numeric_host(match[1]) if match else None
        if not match or not number or number[0] != 6:
            raise ValueError(f"{text[:80]!r} is not [IPv6]:PORT")
        if match[2] is None:
            raise ValueError(f"{text[:80]!r} has no port")
        if match[3] == "":
            raise ValueError(f"{text[:80]!r} ends in an empty scope")
        return InetAddress(6, number[1], port(match[2]), match[3] or "")
    # systemd takes, and checks, an interface behind an IPv4 address, but makes no use of it.
    text, percent, scope = text.partition("%")
    host, colon, rest = text.partition(":")
    number = numeric_host(host)
    if not number or number[0] != 4:
        raise ValueError(
            f"{text[:80]!r} is not a port, IPv4:PORT, [IPv6]:PORT, /path, @name or vsock:CID:PORT"
        )
    if not colon:
        raise ValueError(f"{text[:80]!r} has no port")
    if percent and not scope:
        raise ValueError(f"{text[:80]!r} ends in an empty scope")
    return InetAddress(4, number[1], port(rest), scope)


def socket_address(text: str) -> Address:
    """Read the address of a ListenStream=, ListenDatagram= or ListenSequentialPacket= line.

    Raises:
        ValueError: systemd would not take it either.
    """
    if text.startswith(("/", "@")):
        return unix(text)
    for prefix in ("vsock:", "vsock-stream:", "vsock-dgram:", "vsock-seqpacket:"):
        if text.startswith(prefix):
            return vsock(text[len(prefix) :])
    if re.compile(_BARE_PORT).fullmatch(text):
        return InetAddress(0, "", port(text))
    return _inet(text)


def check_kind(kind: Kind, address: Address) -> None:
    """Check that a socket of this kind can have this address.

    Raises:
        ValueError: It cannot: SEQPACKET is for AF_UNIX.
    """
    if kind is Kind.SEQPACKET and not isinstance(address, UnixAddress):
        raise ValueError(f"sequential packet sockets are AF_UNIX only, not {address}")


def listen_address(kind: Kind, text: str) -> Address:
    """Read the address of any ``Listen*=`` line.

    Raises:
        ValueError: It is not an address of that kind.
    """
    match kind:
        case Kind.STREAM | Kind.DATAGRAM | Kind.SEQPACKET:
            address = socket_address(_leave_var_run(text))
            check_kind(kind, address)
            return address
        case Kind.NETLINK:
            return netlink(text)
        case Kind.MQUEUE:
            return queue(text)
        case _:
            return PathAddress(absolute_path(text))


def _leave_var_run(path: str) -> str:
    """Rewrite the legacy ``/var/run/`` to ``/run/``, as systemd does."""
    return "/run/" + path[len("/var/run/") :] if path.startswith("/var/run/") else path
