"""Which of several listeners with one address (SO_REUSEPORT) get new connections. Linux alone.

They are a group in the kernel, whoever has them: all with the same address, port and user. Its
members are numbered in the order in which they began to listen; when one is closed, the last gets
its number. A connection goes to a member by a hash of its addresses, or to that whose number a
classic BPF program returns, or by the hash if there is no such number (socket(7); Linux 4.6;
net/core/sock_reuseport.c). A handshake that has begun stays with its member.
"""

import os
import socket as _socket
import stat
import struct
import sys

from sockact.fd.probe import borrowed

_ATTACH = 51  # SO_ATTACH_REUSEPORT_CBPF, asm-generic/socket.h
_MPTCP = 262
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter, linux/filter.h
_PROGRAM = struct.Struct("@HP")  # struct sock_fprog
_LOAD, _MODULO, _RETURN, _RETURN_LOADED = 0x20, 0x94, 0x06, 0x16  # linux/bpf_common.h
_RANDOM = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM
_NOBODY = 0xFFFFFFFF

Group = tuple[int, int, object]
"""What the members of a group have in common."""


def group(fd: int) -> Group | None:
    """Return which group a descriptor is in; None for what is no TCP listener with SO_REUSEPORT.

    Raises:
        OSError: `fd` is not open (EBADF).
    """
    if sys.platform != "linux" or not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return None
    sock = borrowed(fd)
    try:
        if (
            sock.family not in (_socket.AF_INET, _socket.AF_INET6)
            or sock.proto not in (_socket.IPPROTO_TCP, _MPTCP)
            or not sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEPORT)
            or not sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN)
        ):
            return None
        return sock.family, sock.proto, sock.getsockname()
    finally:
        sock.detach()


def steer(fd: int, count: int) -> None:
    """Have new connections go to the first so many members of the group of `fd` alone, by chance.

    That holds for the whole group, also for members that come later, until it is said otherwise.

    Raises:
        OSError: The kernel cannot (ENOPROTOOPT; EOPNOTSUPP for MPTCP).
    """
    _attach(fd, [(_LOAD, _RANDOM), (_MODULO, count), (_RETURN_LOADED, 0)])


def spread(fd: int) -> None:
    """Have new connections go to all members of the group of `fd`, as the kernel does by itself.

    Raises:
        OSError: As `steer`.
    """
    _attach(fd, [(_RETURN, _NOBODY)])  # to detach takes Linux 5.3


def _attach(fd: int, instructions: list[tuple[int, int]]) -> None:
    import ctypes  # noqa: PLC0415 - hardly ever needed

    code = b"".join(_INSTRUCTION.pack(what, 0, 0, value) for what, value in instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    sock = borrowed(fd)
    try:
        program = _PROGRAM.pack(len(instructions), ctypes.addressof(buffer))
        sock.setsockopt(_socket.SOL_SOCKET, _ATTACH, program)
    finally:
        sock.detach()
