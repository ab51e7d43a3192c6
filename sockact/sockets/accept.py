"""Taking one connection from a listener, for the one process that it is then given to.

A listener that was opened for Accept=yes alone should be non-blocking: no program ever gets it, so
nobody's expectation is at stake. One that was inherited may block, and as O_NONBLOCK belongs to
the shared description, whoever shares it may rely on that; so may SO_RCVTIMEO not be used, which
besides is inherited by the connections that arrive meanwhile. accept4(2) has no flag for "do not
wait", and to poll first is no promise: another holder may take the connection in between. So there
it is polled first, and a timer interrupts an accept that waits all the same.
"""

import contextlib
import errno
import os
import select
import signal
import socket as _socket
import sys
import threading

from sockact.fd.own import OwnedFd
from sockact.fd.peer import peer_of, peer_pidfd
from sockact.fd.pidfd import pidfd_id
from sockact.fd.probe import borrowed
from sockact.sockets.caller import Caller, End
from sockact.sockets.options import set_late
from sockact.sockets.plan import make_plan
from sockact.sockets.task import Task, Warn
from sockact.spec import Kind, SocketSpec

_AF_VSOCK = 40
_SO_COOKIE = 57  # asm-generic/socket.h
_INTERRUPT = 0.02  # seconds until an accept that waits is interrupted, and again

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


class Acceptor:
    """Takes the connections of one listener, which it borrows, one at a time."""

    def __init__(self, fd: int, spec: SocketSpec, *, blocking: bool, warn: Warn) -> None:
        """Look at the listener once.

        Args:
            fd: A listening socket, which stays the caller's, and open as long as this is used.
            spec: Its unit; what it sets after listen() is set on each connection too.
            blocking: Whether connections are to be blocking: not NonBlocking=yes.
            warn: Called with a line for each option that could not be set.

        Raises:
            OSError: `fd` is no open socket.
        """
        sock = borrowed(fd)
        try:
            kind = Kind.SEQPACKET if sock.type == _socket.SOCK_SEQPACKET else Kind.STREAM
            self._family = int(sock.family)
            # Systemd tries every option on every family; a family of connections differs from
            # its listener's in nothing.
            self._plan = make_plan(spec, kind, self._family)
        finally:
            sock.detach()
        self._fd = fd
        self._blocking = blocking
        self._task = Task(spec, warn)

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
            sock = _take(self._fd)
        except OSError as error:
            if error.errno in TRANSIENT:
                return None
            raise
        if sock is None:
            return None
        try:
            set_late(sock, self._plan, self._task)
            sock.setblocking(self._blocking)
            caller = _look(sock)
        except OSError as error:
            sock.close()
            if error.errno in GONE:
                return None
            raise
        except BaseException:
            sock.close()
            raise
        return Accepted(OwnedFd(sock.detach()), caller)


def _take(fd: int) -> _socket.socket | None:
    """Accept without waiting; None if what waited was gone."""
    if os.get_blocking(fd):
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(0):
            return None
        if sys.platform == "linux" and threading.current_thread() is threading.main_thread():
            return _socket.socket(fileno=_interrupted(fd))
    listener = borrowed(fd)
    try:
        return listener.accept()[0]
    finally:
        listener.detach()


def _interrupted(fd: int) -> int:
    """Call accept4(2) such that a signal ends it: EINTR (Python's own accept() would go on).

    SIGALRM keeps the handler, since one may still be on its way when this returns.
    """
    import ctypes  # noqa: PLC0415 - costs start-up time, and hardly any listener needs it

    accept4 = ctypes.CDLL(None, use_errno=True).accept4
    signal.signal(signal.SIGALRM, _wake)
    # It comes again and again, as the first may come before the call.
    before = signal.setitimer(signal.ITIMER_REAL, _INTERRUPT, _INTERRUPT)
    try:
        taken: int = accept4(fd, None, None, _socket.SOCK_CLOEXEC)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
    if taken < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return taken


def _wake(_number: int, _frame: object) -> None:
    """Do nothing: the signal has interrupted the call."""


def _look(sock: _socket.socket) -> Caller:
    """Ask the kernel for all that it knows of a connection."""
    family, cookie = int(sock.family), None
    local, remote = _end(sock.getsockname()), _end(sock.getpeername())
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # Linux 4.12
            cookie = _cookie(sock)
    if family != _socket.AF_UNIX:
        return Caller(family, local, remote, cookie)
    peer = peer_of(sock)
    return Caller(family, local, remote, cookie, peer.pid, peer.uid, _pidfd_id(sock))


def _cookie(sock: _socket.socket) -> int:
    if sock.family == _AF_VSOCK:
        # Python reads every option of a vsock socket as 64 bits, and no other way.
        return sock.getsockopt(_socket.SOL_SOCKET, _SO_COOKIE)
    return int.from_bytes(sock.getsockopt(_socket.SOL_SOCKET, _SO_COOKIE, 8), sys.byteorder)


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
