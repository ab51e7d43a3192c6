"""How many connections of a listener are open, on this machine's side. Linux tells.

A connection counts from the moment that it was accepted until the last descriptor of it is closed,
in whatever process: only then it has an inode number. What waits to be accepted has none yet (that
is `sockact.fd.queue`), and what the kernel goes on sending by itself, or TIME_WAIT, none any more.
"""

import contextlib
import errno
import os
import socket as _socket
import stat
import struct
import sys
from collections.abc import Iterator

from sockact.fd import sockdiag
from sockact.fd.identity import namespace_cookie
from sockact.fd.probe import borrowed

_MPTCP = 262
_ALIVE = 0xFFF & ~(1 << sockdiag.LISTEN | 1 << sockdiag.TIME_WAIT)
_INET = struct.Struct("=8x16s44xI")  # struct inet_diag_msg: source address, inode
_UNIX = struct.Struct("=4xI")  # struct unix_diag_msg: inode


def connections(fd: int, enough: int = sys.maxsize) -> int | None:
    """Return how many accepted connections of a listening socket are open.

    It takes about 1.5 us for each connection of a TCP listener, besides the 2 ms in which the
    kernel walks its table; and 0.7 us for each Unix socket in use, whosever it is, since the
    kernel cannot be asked for some of those.

    Args:
        fd: The listener, TCP (MPTCP too) or Unix.
        enough: Stop counting there: to ask whether there is any, 1 is enough.

    Returns:
        The number. TCP listeners share it with those that have the same address and port
        (SO_REUSEPORT), and one for every address counts those of other addresses too. None for
        what else a descriptor can be, and where the kernel does not tell: vsock and SCTP; a
        listener of another network namespace than this process's; systems other than Linux.

    Raises:
        OSError: `fd` is not open (EBADF).
    """
    status = os.fstat(fd)
    if not stat.S_ISSOCK(status.st_mode) or sys.platform != "linux":
        return None
    # An O_PATH descriptor of a socket's node looks like a socket and is none. An old kernel, or a
    # sandbox, may refuse any of the questions.
    with contextlib.suppress(OSError):
        sock = borrowed(fd)
        try:
            if not sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
                return None
            if not _is_here(sock):
                return None
            if sock.family == _socket.AF_UNIX:
                found = _unix(sock, status.st_ino)
            elif sock.proto in (_socket.IPPROTO_TCP, _MPTCP):
                found = _tcp(sock)
            else:
                return None
            return _count(found, enough)
        finally:
            sock.detach()
    return None


def _count(inodes: Iterator[int], enough: int) -> int:
    """Count different connections: MPTCP has one inode for several TCP sockets."""
    seen: set[int] = set()
    for inode in inodes:
        seen.add(inode)
        if len(seen) >= enough:
            break
    return len(seen)


def _is_here(listener: _socket.socket) -> bool:
    """Whether a listener is in the network namespace that this process's questions are about."""
    theirs = namespace_cookie(listener.fileno())
    if theirs is None:
        return True  # Linux before 5.14
    with _socket.socket(_socket.AF_UNIX) as mine:
        return namespace_cookie(mine.fileno()) == theirs


# --- TCP ------------------------------------------------------------------------------------------


def _tcp(listener: _socket.socket) -> Iterator[int]:
    """Yield the inode numbers of a TCP listener's connections."""
    host, port = listener.getsockname()[:2]
    address = _socket.inet_pton(listener.family, host.partition("%")[0])
    every = not any(address)
    try:
        request = sockdiag.tcp_request(listener.family, port, _ALIVE)
        for data, at in sockdiag.ask_all(request):
            source, inode = _INET.unpack_from(data, at + sockdiag.HEADER.size)
            if inode and (every or source.startswith(address)):
                yield inode
    except OSError:
        yield from _listed_tcp(listener.family, address, port)


def _listed_tcp(family: int, address: bytes, port: int) -> Iterator[int]:
    """Yield the same from the kernel's list, which is slower, and has all ports (proc(5))."""
    words = [word[::-1] if sys.byteorder == "little" else word for word in _words(address)]
    suffix = f":{port:04X}"
    wanted = suffix if not any(address) else b"".join(words).hex().upper() + suffix
    name = "tcp" if family == _socket.AF_INET else "tcp6"
    with open(f"/proc/self/net/{name}", encoding="ascii") as file:
        next(file)
        for line in file:
            fields = line.split()
            if fields[1].endswith(wanted) and 1 << int(fields[3], 16) & _ALIVE and fields[9] != "0":
                yield int(fields[9])


def _words(address: bytes) -> Iterator[bytes]:
    for at in range(0, len(address), 4):
        yield address[at : at + 4]


# --- Unix -----------------------------------------------------------------------------------------


def _unix(listener: _socket.socket, inode: int) -> Iterator[int]:
    """Yield the inode numbers of a Unix listener's connections.

    They have its name; and of a listener with a node they have that, which tells them from those
    of another listener that had the same path before, or has it now.
    """
    name = listener.getsockname()
    try:
        show, kind = (
            (sockdiag.SHOW_VFS, sockdiag.UNIX_VFS)
            if isinstance(name, str) and name
            else (sockdiag.SHOW_NAME, sockdiag.UNIX_NAME)
        )
        own = sockdiag.unix_listener(
            sockdiag.ask(sockdiag.unix_request(show, inode=inode)), inode, kind
        )
        if own is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        wanted = sockdiag.ATTRIBUTE.pack(sockdiag.ATTRIBUTE.size + len(own), kind) + own
        request = sockdiag.unix_request(show, states=0xFFFFFFFF & ~(1 << sockdiag.LISTEN))
        first = sockdiag.HEADER.size + sockdiag.UNIX.size  # what was asked for comes first
        for data, at in sockdiag.ask_all(request):
            if data.startswith(wanted, at + first):
                yield _UNIX.unpack_from(data, at + sockdiag.HEADER.size)[0]
    except OSError:
        yield from _listed_unix(name)


_ACCEPTCON = 1 << 16  # linux/net.h: a listener


def _listed_unix(name: str | bytes) -> Iterator[int]:
    """Yield the same from the kernel's list, by name alone (proc(5))."""
    wanted = os.fsencode(name).replace(b"\0", b"@")
    with open("/proc/self/net/unix", "rb") as file:
        next(file)
        for line in file:
            fields = line.rstrip(b"\n").split(None, 7)
            if fields[7:] == [wanted] and not int(fields[3], 16) & _ACCEPTCON and fields[6] != b"0":
                yield int(fields[6])
