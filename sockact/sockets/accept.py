"""Taking one connection from a listener, for the one process that it is then given to.

A listener that was opened for Accept=yes alone should be non-blocking: no program ever gets it, so
nobody's expectation is at stake. One that was inherited may block, and stays as it is.
"""

import errno
import os
import socket as _socket
import sys

from sockact.fd import nowait
from sockact.fd.own import OwnedFd
from sockact.fd.peer import peer_of, peer_pidfd
from sockact.fd.pidfd import pidfd_id
from sockact.fd.probe import borrowed
from sockact.sockets.caller import Caller, End
from sockact.sockets.options import set_late
from sockact.sockets.plan import Plan, make_plan
from sockact.sockets.task import Task, Warn
from sockact.spec import Kind, SocketSpec

_AF_VSOCK = 40
_SO_COOKIE = 57  # asm-generic/socket.h

_ABSENT = ("ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN",
           "ENETRESET", "ENETUNREACH", "ENONET", "ENOPROTOOPT", "ENOTCONN", "EPIPE", "EPROTO",
           "ESHUTDOWN", "ETIMEDOUT")  # fmt: skip
GONE = frozenset(number for name in _ABSENT if (number := getattr(errno, name, 0)))
"""Errors that mean that the peer, not this side, is at an end (systemd: ERRNO_IS_DISCONNECT)."""

TRANSIENT = GONE | {errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.EOPNOTSUPP}
"""Errors of accept(2) after which the listener is as good as before (ERRNO_IS_ACCEPT_AGAIN)."""


class Accepted:
    """A connection that was taken.

    Attributes:
        handle: The descriptor, close-on-exec; owned here until it is released.
        caller: Who is at the other end.
    """

    __slots__ = ("caller", "handle")

    def __init__(self, handle: OwnedFd, caller: Caller) -> None:
        """Take ownership of `handle`."""
        self.handle = handle
        self.caller = caller

    def close(self) -> None:
        """Close the connection, if it was not given away."""
        self.handle.close()


Plans = dict[tuple[Kind, int], Plan]
"""What is set on connections, by the kind and address family of the listener."""


class Acceptor:
    """Takes the connections of one listener, which it borrows, one at a time."""

    def __init__(
        self,
        fd: int,
        spec: SocketSpec,
        *,
        blocking: bool,
        warn: Warn,
        plans: Plans | None = None,
    ) -> None:
        """Look at the listener once.

        Args:
            fd: A listening socket, which stays the caller's, and open as long as this is used.
            spec: Its unit; what it sets after listen() is set on each connection too.
            blocking: Whether connections are to be blocking: not NonBlocking=yes.
            warn: Called with a line for each option that could not be set.
            plans: What is known already, to be shared by the acceptors of one unit.

        Raises:
            OSError: `fd` is no open socket.
        """
        self._fd = fd
        self._listener = sock = borrowed(fd)
        kind = Kind.SEQPACKET if sock.type == _socket.SOCK_SEQPACKET else Kind.STREAM
        self._family = int(sock.family)
        # Systemd tries every option on every family; a family of connections differs from
        # its listener's in nothing.
        known = {} if plans is None else plans
        if (kind, self._family) not in known:
            known[kind, self._family] = make_plan(spec, kind, self._family)
        self._plan = known[kind, self._family]
        self._blocking = blocking
        self._task = Task(spec, warn)

    def __del__(self) -> None:
        """Leave the listener to its owner."""
        if hasattr(self, "_listener"):
            self._listener.detach()

    def accept(self) -> Accepted | None:
        """Take a connection, if one waits; never wait for one.

        Returns:
            The connection, which the caller owns; None if there is none, or its client has given
            up already.

        Raises:
            OSError: The listener is no good any more (EINVAL after a shutdown(2), EBADF), or
                there is no room for a connection (EMFILE, ENFILE, ENOBUFS, ENOMEM).
        """
        try:
            if os.get_blocking(self._fd):
                sock = nowait.accept(self._fd)
            else:
                sock, _ = self._listener.accept()
        except OSError as error:
            if error.errno in TRANSIENT:
                return None
            raise
        try:
            set_late(sock, self._plan, self._task)
            if not self._blocking or sock.gettimeout() is not None:
                sock.setblocking(self._blocking)
            caller = _look(sock, self._family)
        except OSError as error:
            sock.close()
            if error.errno in GONE:
                return None
            raise
        except BaseException:
            sock.close()
            raise
        return Accepted(OwnedFd(sock.detach()), caller)


def _look(sock: _socket.socket, family: int) -> Caller:
    """Ask the kernel for all that it knows of a connection."""
    local, remote = _end(sock.getsockname()), _end(sock.getpeername())
    cookie = _cookie(sock, family)
    if family != _socket.AF_UNIX:
        return Caller(family, local, remote, cookie)
    peer = peer_of(sock)
    return Caller(family, local, remote, cookie, peer.pid, peer.uid, _pidfd_id(sock))


def _cookie(sock: _socket.socket, family: int) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        if family == _AF_VSOCK:
            # Python reads every option of a vsock socket as 64 bits, and no other way.
            return sock.getsockopt(_socket.SOL_SOCKET, _SO_COOKIE)
        return int.from_bytes(sock.getsockopt(_socket.SOL_SOCKET, _SO_COOKIE, 8), sys.byteorder)
    except OSError:  # before Linux 4.12
        return None


def _pidfd_id(sock: _socket.socket) -> int | None:
    fd = peer_pidfd(sock)
    if fd is None:
        return None
    try:
        return pidfd_id(fd)
    finally:
        os.close(fd)


def _end(name: object) -> End:
    """Return what getsockname() or getpeername() returned."""
    if isinstance(name, tuple):
        host, _, scope = str(name[0]).partition("%")
        return End(host, name[1], scope)
    path = os.fsdecode(name) if isinstance(name, bytes) else str(name or "")
    return End("@" + path[1:] if path.startswith("\0") else path)
