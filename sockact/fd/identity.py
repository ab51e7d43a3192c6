"""Whether two descriptors are one and the same open socket, and where it lives.

Duplicates of a socket, in whatever process, share all three answers. Nothing here changes the fd.
"""

import contextlib
import fcntl
import os
import socket as _socket
import stat
import sys

from sockact.fd.probe import borrowed

# asm-generic/socket.h; Python does not name them.
_F_DUPFD_QUERY = 1024 + 3  # uapi/linux/fcntl.h
_SO_COOKIE = 57
_SO_NETNS_COOKIE = 71


def identity(fd: int) -> tuple[int, int]:
    """Return device and inode number, the same for every duplicate of `fd` (fstat(2)).

    One call, so that it can be asked of thousands. Of two sockets that are open at the same time
    it is different, but the number of a closed one may come back; a cookie does not.

    Raises:
        OSError: `fd` is not open (EBADF).
    """
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def socket_cookie(fd: int) -> int | None:
    """Return the number that the kernel gave this socket, the same for every duplicate.

    Returns:
        64 bits, given to no other socket until the next boot (SO_COOKIE: Linux 4.12,
        net/core/sock_diag.c; kernels before 2019 count in each network namespace anew); None if
        `fd` is no socket, or the system has no cookies.

    Raises:
        OSError: `fd` is not open (EBADF).
    """
    return _number(fd, _SO_COOKIE)


def namespace_cookie(fd: int) -> int | None:
    """Return the number of the network namespace that this socket was made in.

    Returns:
        64 bits (SO_NETNS_COOKIE: Linux 5.14, net/core/sock.c); None if `fd` is no socket, or the
        system has no such cookies.

    Raises:
        OSError: `fd` is not open (EBADF).
    """
    return _number(fd, _SO_NETNS_COOKIE)


def same_description(fd: int, other: int) -> bool:
    """Whether two descriptors of this process are duplicates: one and the same file description.

    F_DUPFD_QUERY (fcntl(2), since Linux 6.10). Before, of a socket the inode decides, which no
    other description has; of a FIFO, file or device, two that were opened alike pass for one.

    Raises:
        OSError: One is not open (EBADF).
    """
    if identity(fd) != identity(other):
        return False
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        return True
    try:
        return fcntl.fcntl(fd, _F_DUPFD_QUERY, other) == 1
    except OSError:
        return fcntl.fcntl(fd, fcntl.F_GETFL) == fcntl.fcntl(other, fcntl.F_GETFL)


def _number(fd: int, option: int) -> int | None:
    """Read a socket option of 64 bits, or return None where it cannot be read."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode) or sys.platform != "linux":
        return None
    # An O_PATH descriptor of a socket's node looks like a socket and is none.
    with contextlib.suppress(OSError):
        sock = borrowed(fd)
        try:
            if sock.family == _socket.AF_VSOCK:
                # Python reads every option of a vsock socket as 64 bits, and no other way.
                return sock.getsockopt(_socket.SOL_SOCKET, option)
            return int.from_bytes(sock.getsockopt(_socket.SOL_SOCKET, option, 8), sys.byteorder)
        finally:
            sock.detach()
    return None
