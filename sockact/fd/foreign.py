"""Closing what somebody else has opened, and may have opened such that it is trouble to close."""

import contextlib
import os
import signal
import socket as _socket
import stat
import struct
import threading

from sockact.fd.own import OwnedFd
from sockact.fd.probe import borrowed

_LINGER = struct.Struct("ii")


def close_foreign(handle: OwnedFd) -> None:
    """Close a descriptor that somebody has sent us; it neither fails nor waits for a network.

    A socket that is closed last by us may wait, non-blocking or not, until its peer has read the
    rest, or for as long as SO_LINGER says (socket(7)). A thread does that wait, for the option
    belongs to whoever else has the socket. An error is somebody's late write error: the descriptor
    is closed even then.
    """
    lingers = False
    with contextlib.suppress(OSError):
        lingers = _lingers(handle.fileno())
    if lingers:
        with contextlib.suppress(RuntimeError):  # no thread can be had
            _close_beside(handle)
            return
    _close(handle)


def _lingers(fd: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    sock = borrowed(fd)
    try:
        asked = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _LINGER.size)
    finally:
        sock.detach()
    return all(_LINGER.unpack(asked))  # on, and not for no time, which resets the connection


def _close_beside(handle: OwnedFd) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        threading.Thread(target=_close, args=(handle,), daemon=True).start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _close(handle: OwnedFd) -> None:
    with contextlib.suppress(OSError):
        handle.close()
