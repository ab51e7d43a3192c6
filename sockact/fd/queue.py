"""How full the queue of a socket is, and what is on its way there.

Nothing here changes the fd or takes from the queue.
"""

import contextlib
import os
import socket as _socket
import stat
import struct
import sys
from typing import Literal

import attrs

from sockact.fd import sockdiag
from sockact.fd.probe import borrowed
from sockact.spec import AsValue


@attrs.frozen(eq=False, repr=False)
class Queue(AsValue):
    """What waits in a socket to be accepted or received, and how much may.

    Attributes:
        now: What waits. Linux lets `limit` + 1 connections wait (net/sock.h: sk_acceptq_is_full),
            and the datagram that reaches `limit` may pass it.
        limit: The backlog of listen(2), or the size of the receive buffer.
        unit: ``connections``, or ``bytes`` as the kernel accounts them, overhead included.
    """

    now: int
    limit: int
    unit: Literal["connections", "bytes"]


def queue(fd: int) -> Queue | None:
    """Return how full the queue of a listening or datagram socket is.

    Connections for a listening TCP (MPTCP too) or Unix socket, bytes for UDP and netlink.

    Returns:
        None for what else a descriptor can be, and where the kernel does not tell: vsock; Unix
        datagrams, which are accounted to their sender alone (net/unix/af_unix.c); a Unix listener
        of another network namespace than this process's; systems other than Linux.

    Raises:
        OSError: `fd` is not open (EBADF).
    """
    status = os.fstat(fd)
    if not stat.S_ISSOCK(status.st_mode) or sys.platform != "linux":
        return None
    # An O_PATH descriptor of a socket's node looks like a socket and is none. An old kernel, or
    # a sandbox, may refuse any of the questions.
    with contextlib.suppress(OSError):
        sock = borrowed(fd)
        try:
            inet = sock.family in (_socket.AF_INET, _socket.AF_INET6)
            if sock.family == _socket.AF_NETLINK or (inet and sock.type == _socket.SOCK_DGRAM):
                return _received(sock)
            if not sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
                return None
            if inet:
                return _tcp_backlog(sock)
            if sock.family == _socket.AF_UNIX:
                return _unix_backlog(status.st_ino)
        finally:
            sock.detach()
    return None


_SO_MEMINFO = 55  # asm-generic/socket.h, Linux 4.12
_MEMINFO = struct.Struct("=II")  # linux/sock_diag.h: RMEM_ALLOC, RCVBUF, and more


def _received(sock: _socket.socket) -> Queue | None:
    """Return what the receive buffer holds."""
    raw = sock.getsockopt(_socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    if len(raw) != _MEMINFO.size:
        return None
    now, limit = _MEMINFO.unpack(raw)
    return Queue(now, limit, "bytes")


_TCP_INFO = struct.Struct("=B23xII")  # linux/tcp.h: tcpi_state, tcpi_unacked, tcpi_sacked


def _tcp_backlog(sock: _socket.socket) -> Queue | None:
    """Return the accept queue: a listener's tcp_info shows it in two fields (net/ipv4/tcp.c)."""
    raw = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _TCP_INFO.size)
    if len(raw) != _TCP_INFO.size:
        return None
    state, now, limit = _TCP_INFO.unpack(raw)
    return Queue(now, limit, "connections") if state == sockdiag.LISTEN else None


_RQLEN = struct.Struct("=II")  # linux/unix_diag.h: unix_diag_rqlen: rqueue, wqueue


def _unix_backlog(inode: int) -> Queue | None:
    """Ask for one Unix listener (sock_diag(7)); this process's namespace may not have it."""
    if inode > 0xFFFFFFFF:
        return None
    return _rqlen(sockdiag.ask(sockdiag.unix_request(sockdiag.SHOW_RQLEN, inode=inode)), inode)


def _rqlen(answer: bytes, inode: int) -> Queue | None:
    """Find the queue of the listener `inode` in a netlink message; None in an error or a mess."""
    found = sockdiag.unix_listener(answer, inode, sockdiag.UNIX_RQLEN)
    if found is None or len(found) != _RQLEN.size:
        return None
    now, limit = _RQLEN.unpack(found)
    return Queue(now, limit, "connections")


_PEER = struct.Struct("=6x2s16x16s4x8s")  # struct inet_diag_msg: port, address, cookie


def handshakes(fd: int) -> frozenset[bytes]:
    """Return the connections that clients are just making to the port of a TCP listener.

    They are not in its queue yet. The kernel does not tell them by listener, so those to others
    with that port are among them.

    Returns:
        What tells each from all others. Nothing for other descriptors, and where the kernel does
        not tell: see `sockact.fd.connections`.
    """
    with contextlib.suppress(OSError):
        sock = borrowed(fd)
        try:
            if sock.family not in (_socket.AF_INET, _socket.AF_INET6):
                return frozenset()
            port = sock.getsockname()[1]
        finally:
            sock.detach()
        request = sockdiag.tcp_request(sock.family, port, 1 << sockdiag.SYN_RECV)
        return frozenset(
            b"".join(_PEER.unpack_from(data, at + sockdiag.HEADER.size))
            for data, at in sockdiag.ask_all(request)
        )
    return frozenset()
