"""One message with descriptors over a Unix socket: SCM_RIGHTS (unix(7))."""

import array
import contextlib
import errno
import os
import socket as _socket
from collections.abc import Sequence

FDS_MAX = 253
"""The most descriptors in one message (SCM_MAX_FD in Linux's include/net/scm.h)."""


_SCM_CREDENTIALS = 2


def send_message(
    sock: _socket.socket, payload: bytes, fds: Sequence[int] = (), pid: int = 0
) -> None:
    """Send one message; the caller goes on owning the descriptors, the receiver gets duplicates.

    Args:
        sock: A connected Unix socket.
        payload: At least one byte.
        fds: What to send along.
        pid: Speak for this process instead of for this one, if the kernel lets us (root only).

    Raises:
        OSError: E2BIG for more than `FDS_MAX` descriptors, EIO for a message sent in part, or
            what sendmsg(2) says. Nothing has been sent then, except with EIO.
    """
    if len(fds) > FDS_MAX:
        raise OSError(errno.E2BIG, f"{len(fds)} descriptors; one message takes {FDS_MAX}")
    rights: list[tuple[int, int, bytes]] = []
    if fds:
        rights.append((_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds).tobytes()))
    if pid:
        who = array.array("i", (pid, os.getuid(), os.getgid())).tobytes()
        with contextlib.suppress(PermissionError, ProcessLookupError):
            _send(sock, payload, [*rights, (_socket.SOL_SOCKET, _SCM_CREDENTIALS, who)])
            return
    _send(sock, payload, rights)


def _send(sock: _socket.socket, payload: bytes, rights: list[tuple[int, int, bytes]]) -> None:
    if sock.sendmsg([payload], rights, _socket.MSG_NOSIGNAL) != len(payload):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
