"""Closing what somebody else has opened, and may have opened such that it is trouble to close."""

import contextlib
import os
import socket as _socket
import stat
import struct

from sockact.fd.own import OwnedFd
from sockact.fd.probe import borrowed

_LINGER = struct.Struct("ii")


def close_foreign(handle: OwnedFd) -> None:
    """Close a descriptor that somebody has sent us; it neither fails nor waits for a network.

    A socket that is closed last by us might wait, non-blocking or not, until its peer has read the
    rest, or for as long as SO_LINGER says (socket(7)). That is switched off before; what is to be
    sent is sent by the kernel all the same. An error is somebody's late write error: the descriptor
    is closed even then.
    """
    with contextlib.suppress(OSError):
        _linger_not(handle.fileno())
    with contextlib.suppress(OSError):
        handle.close()


def _linger_not(fd: int) -> None:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return
    sock = borrowed(fd)
    try:
        asked = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _LINGER.size)
        if all(_LINGER.unpack(asked)):  # on, and not for no time, which resets the connection
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _LINGER.pack(0, 0))
    finally:
        sock.detach()
