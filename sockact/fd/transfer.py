"""One message with descriptors over a Unix socket: SCM_RIGHTS (unix(7))."""

import array
import contextlib
import errno
import os
import socket as _socket
import sys
from collections.abc import Iterable, Sequence

import attrs

from sockact.errors import TruncatedError
from sockact.spec import AsValue

FDS_MAX = 253
"""The most descriptors in one message (SCM_MAX_FD in Linux's include/net/scm.h)."""

_SCM_CREDENTIALS = 2
_SCM_PIDFD = 4
# macOS has neither flag; Python ignores SIGPIPE there as well, unless told otherwise.
_CLOEXEC = getattr(_socket, "MSG_CMSG_CLOEXEC", 0x40000000 if sys.platform == "linux" else 0)
_NOSIGNAL = getattr(_socket, "MSG_NOSIGNAL", 0)
# 253 descriptors take 1032 bytes, credentials 32, a pidfd 24: with room for all, whatever is
# missing is missing for another reason.
_CONTROL_SIZE = 2048


@attrs.frozen(eq=False, repr=False)
class Received(AsValue):
    """What one read brought.

    Attributes:
        data: The bytes; empty at the end of the connection.
        fds: Descriptors that came along, close-on-exec, in the order in which they were sent.
            Whoever gets this value owns them. At the end of the connection there are none.
    """

    data: bytes
    fds: tuple[int, ...] = ()


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
    rights = _rights(fds)
    if pid:
        who = array.array("i", (pid, os.getuid(), os.getgid())).tobytes()
        with contextlib.suppress(PermissionError, ProcessLookupError):
            _send(sock, payload, [*rights, (_socket.SOL_SOCKET, _SCM_CREDENTIALS, who)])
            return
    _send(sock, payload, rights)


def send_some(sock: _socket.socket, payload: bytes, fds: Sequence[int] = ()) -> int:
    """Send one message, or its beginning on a stream; waits only as the socket is set to.

    The caller goes on owning the descriptors. They go with the first byte, so whoever sends the
    rest of a payload must not attach them again.

    Args:
        sock: A connected Unix socket, usually non-blocking.
        payload: At least one byte: on a stream no bytes carry no descriptors, and elsewhere an
            empty message looks like the end of the connection.
        fds: What to send along.

    Returns:
        How many bytes of `payload` were sent: at least 1, and all of them except on a stream.

    Raises:
        ValueError: `payload` is empty.
        BlockingIOError: The peer's queue is full.
        OSError: E2BIG for more than `FDS_MAX` descriptors, EPIPE when the peer is gone, EPERM when
            it refuses descriptors, ETOOMANYREFS when this user has too many in flight
            (unix(7)), ENOBUFS when the system's net.core.optmem_max is less than they take.
            Nothing has been sent then.
    """
    if not payload:
        raise ValueError("a message has at least one byte")
    return sock.sendmsg([payload], _rights(fds), _NOSIGNAL)


def receive_message(sock: _socket.socket, size: int) -> Received:
    """Read once: one message, or on a stream what is there of at most one message with descriptors.

    It waits only as the socket is set to. An empty message is taken for the end, since they look
    alike; descriptors in it are closed.

    Args:
        sock: A connected Unix socket.
        size: The most bytes to take, at least 1; a longer message is an error, except on a
            stream, where the rest is for the next read.

    Raises:
        TruncatedError: The message was longer than `size`, or fewer descriptors came than were
            sent, which is how Linux reports RLIMIT_NOFILE, or something came that nobody asked
            for. What was read is gone, and every descriptor that came with it has been closed.
        BlockingIOError: Nothing is there.
        ConnectionResetError: The peer closed without reading everything. On SOCK_SEQPACKET what it
            had sent can still be read, and then comes the end: read on.
        OSError: What else recvmsg(2) says.
    """
    data, control, flags, _ = sock.recvmsg(size, _CONTROL_SIZE, _CLOEXEC)
    fds: list[int] = []
    unwanted: list[int] = []
    foreign = False
    for level, kind, value in control:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds += _numbers(value)
        elif level == _socket.SOL_SOCKET and kind == _SCM_PIDFD and sys.platform == "linux":
            # Where no pidfd could be made there is a negated errno (net/core/scm.c).
            unwanted += [fd for fd in _numbers(value) if fd >= 0]
            foreign = True
        elif (level, kind) != (_socket.SOL_SOCKET, _SCM_CREDENTIALS):
            foreign = True
    problem = _problem(flags, size, len(fds), foreign=foreign)
    if problem or not data:
        _close_all([*fds, *unwanted])
        fds.clear()
    if problem:
        raise TruncatedError(problem)
    if not _CLOEXEC:
        for fd in fds:
            os.set_inheritable(fd, False)
    return Received(data, tuple(fds))


def _problem(flags: int, size: int, count: int, *, foreign: bool) -> str:
    """Return what is wrong with a message, or nothing."""
    if flags & _socket.MSG_CTRUNC:
        return (
            f"a message lost descriptors on its way, {count} came;"
            " probably this process may not open as many (RLIMIT_NOFILE)"
        )
    if flags & _socket.MSG_TRUNC:
        return f"a message is longer than {size} bytes"
    return "a message has control data that was not asked for" if foreign else ""


def _numbers(value: bytes) -> list[int]:
    numbers = array.array("i")
    numbers.frombytes(value[: len(value) - len(value) % numbers.itemsize])
    return numbers.tolist()


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        # Linux has closed it even then: a late write error of somebody else's file.
        with contextlib.suppress(OSError):
            os.close(fd)


def _rights(fds: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """Return the control data for `fds`, or raise E2BIG."""
    if len(fds) > FDS_MAX:
        raise OSError(errno.E2BIG, f"{len(fds)} descriptors; one message takes {FDS_MAX}")
    if not fds:
        return []
    return [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds).tobytes())]


def _send(sock: _socket.socket, payload: bytes, rights: list[tuple[int, int, bytes]]) -> None:
    if sock.sendmsg([payload], rights, _NOSIGNAL) != len(payload):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
