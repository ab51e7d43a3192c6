"""Throwing away what waits in a descriptor: FlushPending=.

As systemd does it (``flush_ports()`` in its ``src/core/socket.c``): connections are accepted and
closed, datagrams, messages and bytes are read. Nothing that is shared is changed, and nothing is
waited for, however the descriptor blocks.
"""

import contextlib
import os
import select
import socket as _socket
import stat

from sockact.fd import nowait
from sockact.fd.probe import borrowed, is_mq
from sockact.sockets.accept import TRANSIENT

_CONNECTIONS = 1024  # systemd: MAX_FLUSH_ITERATIONS
_READS = 16384  # systemd goes on for ever; more than any queue holds, and over in a moment
_BYTES = 4096
_ERRORS = 8


def flush(fd: int) -> int:
    """Throw away what waits in a listener, so that it is not readable any more.

    At most 1024 connections, or 16384 datagrams, messages or reads of 4 KiB; what still waits then
    is left. An error is no reason to fail: it ends this, and shows itself to whoever serves next.

    Args:
        fd: Any descriptor that a socket unit can have.

    Returns:
        How many connections, datagrams, messages or reads it were.
    """
    with contextlib.suppress(OSError):
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            sock = borrowed(fd)
            try:
                if sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
                    return _flush_connections(fd)
                return _flush_datagrams(sock)
            finally:
                sock.detach()
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            return _flush_bytes(fd)
        if is_mq(fd):
            return _flush_queue(fd)
    return 0


def _flush_connections(fd: int) -> int:
    count = 0
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while count < _CONNECTIONS and poll.poll(0):
        try:
            nowait.accept(fd).close()
        except OSError as error:
            if error.errno not in TRANSIENT:
                break
        count += 1
    return count


def _flush_datagrams(sock: _socket.socket) -> int:
    count = errors = 0
    while count < _READS and errors < _ERRORS:
        try:
            data = sock.recv(_BYTES, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        except OSError:  # that one is taken now: a lost message, or what ICMP said
            errors += 1
            continue
        if not data and _is_at_end(sock):
            break
        count += 1
    return count


def _is_at_end(sock: _socket.socket) -> bool:
    """Whether an empty message was none: nothing will ever be received any more."""
    poll = select.poll()
    poll.register(sock, getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))


def _flush_queue(fd: int) -> int:
    from sockact.fd.mqueue import discard  # noqa: PLC0415 - it loads ctypes

    count = 0
    while count < _READS and discard(fd):
        count += 1
    return count


def _flush_bytes(fd: int) -> int:
    count = 0
    with contextlib.suppress(OSError):
        while count < _READS and nowait.read(fd, _BYTES):
            count += 1
    return count
