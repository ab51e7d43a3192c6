"""A program's arguments and environment, ready for execve(2) in a process that is yet to be born.

Some variables hold the number of the process that executes the program, which only that process
knows. Everything else is put together before it exists.
"""

import errno
import itertools
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol

from sockact.activation.libc import PIDFD_OPEN, address_of, last_error, libc, number_in
from sockact.activation.program import become
from sockact.activation.receive import own_pidfd_id

_AT_EMPTY_PATH, _STATX_INO = 0x1000, 0x100  # uapi/linux/fcntl.h, stat.h
_STATX_SIZE, _STATX_INO_AT = 256, 32
_DIGITS = 20
"""How many a process id or an inode number has at most."""


class Image(Protocol):
    """What a process can become."""

    def become(self) -> NoReturn:
        """Become the program.

        Raises:
            OSError: That cannot be.
        """


def image(
    path: str,
    argv: Sequence[str],
    environ: Mapping[str, str],
    pids: Sequence[str],
    pidfd_id: str | None,
    *,
    shell: bool,
) -> Image:
    """Prepare an execve().

    Args:
        path: The program's file.
        argv: Its arguments, the first its name.
        environ: Its environment.
        pids: Variables whose value is to be the process id.
        pidfd_id: A variable whose value is to be the inode number of a pidfd.
        shell: Run what the kernel does not recognise as a shell script, as execvp(3) does.

    Raises:
        ValueError: Something holds a NUL.
    """
    kind = _Plain if libc() is None else _Packed
    return kind(path, argv, environ, pids, pidfd_id, shell=shell)


class _Plain:
    """For systems whose libc we cannot call."""

    def __init__(
        self,
        path: str,
        argv: Sequence[str],
        environ: Mapping[str, str],
        pids: Sequence[str],
        pidfd_id: str | None,
        *,
        shell: bool,
    ) -> None:
        self._path = path
        self._argv = tuple(argv)
        self._environ = dict(environ)
        self._pids = pids
        self._pidfd_id = pidfd_id
        self._shell = shell

    def become(self) -> NoReturn:
        pid = os.getpid()
        for name in self._pids:
            self._environ[name] = str(pid)
        if self._pidfd_id is not None:
            self._environ[self._pidfd_id] = str(own_pidfd_id(pid))
        become(self._path, self._argv, self._environ, shell=self._shell)


class _Packed:
    """The strings and the vectors of pointers to them, as execve() takes them."""

    def __init__(
        self,
        path: str,
        argv: Sequence[str],
        environ: Mapping[str, str],
        pids: Sequence[str],
        pidfd_id: str | None,
        *,
        shell: bool,
    ) -> None:
        numbered = [*pids, *([] if pidfd_id is None else [pidfd_id])]
        strings = [*(f"{name}={' ' * _DIGITS}" for name in numbered), *argv]
        for name, value in environ.items():
            if name not in numbered:
                strings.append(f"{name}={value}")
        packed = os.fsencode("\0".join([*strings, ""]))
        parts = packed.split(b"\0")
        if len(parts) != len(strings) + 1 or "\0" in path:
            raise ValueError("embedded null character")
        self._block = bytearray(packed)
        start = address_of(self._block)
        at = list(itertools.accumulate((len(part) + 1 for part in parts[:-1]), initial=start))
        first = len(numbered)
        arguments, end = at[first : first + len(argv)], first + len(argv)
        self._path = os.fsencode(path)
        self._argv = _vector(arguments)
        self._environ = _vector([*at[:first], *at[end:-1]])
        slots = [where + len(parts[index]) - _DIGITS for index, where in enumerate(at[:first])]
        self._inode_slot = 0 if pidfd_id is None else slots.pop()
        self._slots = slots
        self._statx = bytearray(_STATX_SIZE)
        self._statx_at = address_of(self._statx)
        self._inode = number_in(self._statx, _STATX_INO_AT)
        self._script: bytes | None = None
        if shell:
            self._sh = bytearray(b"/bin/sh\0" + self._path + b"\0")
            sh = address_of(self._sh)
            self._script = _vector([sh, sh + len(b"/bin/sh\0"), *arguments[1:]])
        self._libc: Any = libc()

    def become(self) -> NoReturn:
        c = self._libc
        pid = c.getpid()
        for slot in self._slots:
            c.sprintf(slot, b"%d", pid)
        if self._inode_slot:
            pidfd = c.syscall(PIDFD_OPEN, pid, 0)
            if pidfd < 0 or c.statx(pidfd, b"", _AT_EMPTY_PATH, _STATX_INO, self._statx_at):
                raise last_error()
            c.sprintf(self._inode_slot, b"%llu", self._inode)
        c.execve(self._path, self._argv, self._environ)
        error = last_error()
        if error.errno == errno.ENOEXEC and self._script is not None:
            c.execve(b"/bin/sh", self._script, self._environ)
            error = last_error()
        raise error


def _vector(pointers: Sequence[int]) -> bytes:
    return struct.pack(f"{len(pointers) + 1}P", *pointers, 0)
