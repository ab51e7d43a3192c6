"""Who is at the other end of a Unix socket, and whether it still lives.

What the kernel tells of a peer is what held when the connection was made: of a client when it
called connect(2), of a server when it last called listen(2) (unix(7), SO_PEERCRED). The uid is
therefore the authority that the peer had then; the pid may be another process's by now, so it is
for messages to people, never for kill(2). A pidfd stays with its process.
"""

import contextlib
import errno
import functools
import os
import select
import socket as _socket
import struct
import sys

import attrs

from sockact.spec import AsValue

# Linux's include/uapi/asm-generic/socket.h; Python has no names for these.
_SO_PEERGROUPS = 59
_SO_PEERPIDFD = 77
_SO_PASSRIGHTS = 83
_NOBODY = 2**32 - 1  # (uid_t)-1: no process has ever been at the other end

# macOS's sys/un.h and sys/ucred.h
_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_LOCAL_PEERPID = 2
_XUCRED = struct.Struct("=IIhxx16I")

_GETSOCKOPT_MAX = 1024  # bytes that Python's getsockopt takes at most
_GROUPS_MAX = 65536  # NGROUPS_MAX of Linux's limits.h

_MISSING = (
    errno.ENOSYS,
    errno.ENOPROTOOPT,
    errno.EOPNOTSUPP,
    errno.EINVAL,
    errno.ENODEV,
    errno.ENODATA,
    errno.ESRCH,
    errno.EPERM,
    errno.EACCES,
)
"""How a kernel, or a filter before it, says that it does not have or not know something."""


@attrs.frozen(eq=False, repr=False)
class Peer(AsValue):
    """The process at the other end, as it was when it connected or listened.

    Attributes:
        pid: Its process id as seen from here; 0 if it is outside of our pid namespace.
        uid: Its effective user id as seen from here; `overflow_uid` if our user namespace has no
            name for it, which is then any of many users.
        gid: Its effective group id, likewise.
        groups: Its supplementary groups, likewise, as getgroups(2) would give them there: `gid` may
            be among them or not. Empty also where the kernel does not tell.
    """

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def peer_of(sock: _socket.socket) -> Peer:
    """Return who is at the other end of a connected Unix socket.

    SO_PEERCRED and SO_PEERGROUPS (unix(7), socket(7)); on macOS LOCAL_PEERCRED and LOCAL_PEERPID.

    Raises:
        OSError: ENOTCONN if there is nobody, or what getsockopt(2) says.
    """
    if sys.platform == "darwin":
        pid = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID)
        return _from_xucred(pid, sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size))
    credentials = struct.Struct("=iII")
    option = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, credentials.size)
    pid, uid, gid = credentials.unpack(option)
    if uid == _NOBODY:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
    return Peer(pid, uid, gid, _groups(sock))


def _groups(sock: _socket.socket) -> tuple[int, ...]:
    try:
        option = sock.getsockopt(_socket.SOL_SOCKET, _SO_PEERGROUPS, _GETSOCKOPT_MAX)
    except OSError as error:
        if error.errno == errno.ERANGE:
            option = _many_groups(sock)
        elif error.errno in _MISSING:
            return ()
        else:
            raise
    return struct.unpack(f"={len(option) // 4}I", option)


def _many_groups(sock: _socket.socket) -> bytes:
    """Ask for more groups than Python's getsockopt has room for."""
    import ctypes  # noqa: PLC0415 - costs start-up time, and hardly anyone is in 257 groups

    buffer = ctypes.create_string_buffer(_GROUPS_MAX * 4)
    size = ctypes.c_uint32(len(buffer))
    getsockopt = ctypes.CDLL(None, use_errno=True).getsockopt
    if getsockopt(sock.fileno(), _socket.SOL_SOCKET, _SO_PEERGROUPS, buffer, ctypes.byref(size)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw[: size.value]


def _from_xucred(pid: int, option: bytes) -> Peer:
    """Read a struct xucred, whose first group is the effective one."""
    version, uid, count, *groups = _XUCRED.unpack(option)
    if version != 0 or count < 1:
        raise OSError(errno.EINVAL, "the kernel describes the peer in an unknown way")
    return Peer(pid, uid, groups[0], tuple(groups[1:count]))


@functools.cache
def overflow_uid() -> int:
    """Return the uid that stands for every user without a name in our user namespace.

    It is nobody's in particular: two processes that both have it need not be the same user
    (user_namespaces(7)). Read once from /proc/sys/kernel/overflowuid; 65534 where that is missing.
    """
    with contextlib.suppress(OSError), open("/proc/sys/kernel/overflowuid", "rb") as file:
        return int(file.read())
    return 65534


def refuse_descriptors(sock: _socket.socket) -> bool:
    """Have the kernel refuse descriptors sent to this Unix socket: the sender gets EPERM.

    Set on a listener it holds for the connections that are made to it from then on.
    SO_PASSRIGHTS, since Linux 6.16.

    Returns:
        Whether the kernel does so; where not, they arrive, and must be closed.
    """
    if sys.platform != "linux":
        return False
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
    except OSError as error:
        if error.errno in _MISSING:
            return False
        raise
    return True


def peer_pidfd(sock: _socket.socket) -> int | None:
    """Return a pidfd of the process at the other end of a connected Unix socket.

    Of the process that `peer_of` describes. SO_PEERPIDFD, since Linux 6.5; of a process that
    has been waited for, only newer kernels have one.

    Returns:
        A close-on-exec descriptor that the caller owns, or None where there is none to be had.

    Raises:
        OSError: EMFILE and the like.
    """
    if sys.platform != "linux":
        return None
    try:
        return sock.getsockopt(_socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise


def own_pidfd() -> int | None:
    """Return a pidfd of this process (pidfd_open(2)).

    Returns:
        A close-on-exec descriptor that the caller owns, or None where there is none to be had.

    Raises:
        OSError: EMFILE and the like.
    """
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(os.getpid())
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise


def is_dead(pidfd: int) -> bool:
    """Whether the process of a pidfd has ended, waited for or not; returns at once.

    Raises:
        OSError: EBADF if the descriptor is not open.
    """
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    events = sum(found for _, found in poll.poll(0))
    if events & select.POLLNVAL:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return bool(events & select.POLLIN)


def allow_descriptors(sock: _socket.socket) -> None:
    """Let the peer send descriptors, where `refuse_descriptors` had forbidden it."""
    with contextlib.suppress(OSError):
        sock.setsockopt(_socket.SOL_SOCKET, _SO_PASSRIGHTS, 1)
