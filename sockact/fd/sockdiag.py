"""Asking Linux about sockets, by netlink (sock_diag(7)).

The kernel tells of the sockets of the network namespace that the asker is in, whoever owns them.
Layouts: linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h, linux/inet_diag.h.
"""

import contextlib
import errno
import os
import socket as _socket
import struct
from collections.abc import Iterator

HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""

BY_FAMILY = 20
"""The type of questions and answers: SOCK_DIAG_BY_FAMILY."""

SYN_RECV, TIME_WAIT, LISTEN = 3, 6, 10
"""States of a socket (net/tcp_states.h), of Unix ones too; a mask has one bit for each."""

UNIX = struct.Struct("=BBBxIII")
"""struct unix_diag_msg: family, type, state, inode, cookie."""

ATTRIBUTE = struct.Struct("=HH")
"""struct nlattr: length, type."""

SHOW_NAME, SHOW_VFS, SHOW_RQLEN = 0x01, 0x02, 0x10
"""What may be asked of Unix sockets."""

UNIX_NAME, UNIX_VFS, UNIX_RQLEN = 0, 1, 4
"""The types of the attributes that answer it."""

_UNIX_REQUEST = struct.Struct("=BBxxIIIII")  # family, protocol, states, inode, show, cookie
_INET_REQUEST = struct.Struct("=BBBxI")  # family, protocol, extensions, states
_INET_ID = struct.Struct("!HH32xI8s")  # ports, addresses, interface, cookie
_START = struct.Struct("=IH")  # of struct nlmsghdr
_NUMBER = struct.Struct("=i")  # the errno of struct nlmsgerr, negative
_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP = 0x1, 0x300
_ANY = 0xFFFFFFFF
_BUFFER = 65536  # the kernel sends at most 32 KiB at a time


def unix_request(show: int, *, inode: int = 0, states: int = _ANY) -> bytes:
    """Return the question for one Unix socket, or for all that are in one of these states."""
    return _UNIX_REQUEST.pack(_socket.AF_UNIX, 0, states, inode, show, _ANY, _ANY)


def tcp_request(family: int, port: int, states: int) -> bytes:
    """Return the question for all TCP sockets of a family with that local port."""
    head = _INET_REQUEST.pack(family, _socket.IPPROTO_TCP, 0, states)
    return head + _INET_ID.pack(port, 0, 0, b"\xff" * 8)


def ask(body: bytes) -> bytes:
    """Return the kernel's answer about one socket, header included; it may be an error.

    Raises:
        OSError: There is no asking here.
    """
    with _sent(body, _REQUEST) as netlink:
        # The kernel has answered by now, from within the call.
        answer, sender = netlink.recvfrom(_BUFFER, _socket.MSG_DONTWAIT)
    if sender[0]:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    return answer


def ask_all(body: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the kernel's answers about many sockets, each as a buffer and where it begins there.

    An answer begins with its header, and is complete. Sockets that come and go meanwhile may be
    missed.

    Raises:
        OSError: There is no asking here, or not about that kind of sockets (ENOENT).
    """
    start = _START.unpack_from
    with _sent(body, _REQUEST | _DUMP) as netlink:
        while True:
            # It answers from within the call: there is no waiting.
            data = netlink.recv(_BUFFER, _socket.MSG_DONTWAIT)
            at, end = 0, len(data)
            while at < end:
                length, kind = start(data, at)
                if kind == BY_FAMILY:
                    yield data, at
                elif kind == _DONE:
                    return
                elif kind == _ERROR:
                    number = -_NUMBER.unpack_from(data, at + HEADER.size)[0]
                    raise OSError(number, os.strerror(number))
                at += (length + 3) & ~3 or end


def unix_listener(answer: bytes, inode: int, wanted: int) -> bytes | None:
    """Find an attribute of the listening Unix socket `inode` in the answer about it.

    Returns:
        The attribute's value; None in an error or a mess, or if it is not there.
    """
    at = HEADER.size + UNIX.size
    if len(answer) < at:
        return None
    length, kind, *_rest = HEADER.unpack_from(answer)
    if kind != BY_FAMILY or not at <= length <= len(answer):
        return None
    _family, _type, state, found, *_cookie = UNIX.unpack_from(answer, HEADER.size)
    if found != inode or state != LISTEN:
        return None
    while length - at >= ATTRIBUTE.size:
        size, attribute = ATTRIBUTE.unpack_from(answer, at)
        if not ATTRIBUTE.size <= size <= length - at:
            return None
        if attribute == wanted:
            return answer[at + ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3
    return None


@contextlib.contextmanager
def _sent(body: bytes, flags: int) -> Iterator[_socket.socket]:
    with _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, _SOCK_DIAG) as netlink:
        head = HEADER.pack(HEADER.size + len(body), BY_FAMILY, flags, 1, 0)
        netlink.sendto(head + body, (0, 0))
        yield netlink
