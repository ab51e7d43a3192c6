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

from sockact.activation.libc import (
    CLOSE_RANGE,
    PIDFD_OPEN,
    address_of,
    last_error,
    libc,
    number_in,
)
from sockact.activation.program import become
from sockact.activation.receive import own_pidfd_id
from sockact.activation.vfork import At, Call, Late

_AT_EMPTY_PATH, _STATX_INO = 0x1000, 0x100  # uapi/linux/fcntl.h, stat.h
_STATX_SIZE, _STATX_INO_AT = 256, 32
_DIGITS = 20
"""How many a process id or an inode number has at most."""
_FORMS = 3
"""The first strings of a block are no arguments or variables."""
_POINTER = struct.calcsize("P")


class Image(Protocol):
    """What a process can become."""

    def become(self) -> NoReturn:
        """Become the program.

        Raises:
            OSError: That cannot be.
        """

    def calls(self, pid: At, free: int) -> Sequence[Call]:
        """Return what does the same, shell scripts excepted, as calls of libc; none if none can.

        Args:
            pid: The process id of the new process.
            free: The first number that is free for a descriptor in it.
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

    def calls(self, _pid: At, _free: int) -> Sequence[Call]:
        return ()


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
        variables = {**environ, **dict.fromkeys(numbered, " " * _DIGITS)}
        texts = [f"{name}={value}" for name, value in variables.items()]
        packed = os.fsencode("\0".join([path, "%d", "%llu", *argv, *texts, ""]))
        parts = packed.split(b"\0")
        end = _FORMS + len(argv)
        if len(parts) != end + len(texts) + 1:
            raise ValueError("embedded null character")
        # One block: what statx() tells, the two vectors, the strings.
        size = (len(argv) + len(texts) + 2) * _POINTER
        self._block = bytearray(_STATX_SIZE + size) + packed
        self._statx = address_of(self._block)
        self._argv = self._statx + _STATX_SIZE
        self._environ = self._argv + (len(argv) + 1) * _POINTER
        lengths = [len(part) + 1 for part in parts]
        at = list(itertools.accumulate(lengths, initial=self._argv + size))
        self._path, self._number, self._inode_number = at[:_FORMS]
        arguments = at[_FORMS:end]
        vectors = struct.pack(f"{size // _POINTER}P", *arguments, 0, *at[end:-2], 0)
        self._block[_STATX_SIZE : _STATX_SIZE + size] = vectors
        names = [*variables]
        self._slots = [at[end + names.index(name) + 1] - 1 - _DIGITS for name in numbered]
        self._inode_slot = 0 if pidfd_id is None else self._slots.pop()
        self._script: bytearray | None = None
        if shell:
            self._sh = bytearray(b"/bin/sh\0")
            script = [address_of(self._sh), self._path, *arguments[1:], 0]
            self._script = bytearray(struct.pack(f"{len(script)}P", *script))
        self._libc: Any = libc()

    def become(self) -> NoReturn:
        c = self._libc
        pid = c.getpid()
        for slot in self._slots:
            c.sprintf(slot, b"%d", pid)
        if self._inode_slot:
            pidfd = c.syscall(PIDFD_OPEN, pid, 0)
            if pidfd < 0 or c.statx(pidfd, b"", _AT_EMPTY_PATH, _STATX_INO, self._statx):
                raise last_error()
            c.sprintf(self._inode_slot, b"%llu", number_in(self._block, _STATX_INO_AT))
        c.execve(self._path, self._argv, self._environ)
        error = last_error()
        if error.errno == errno.ENOEXEC and self._script is not None:
            c.execve(b"/bin/sh", address_of(self._script), self._environ)
            error = last_error()
        raise error

    def calls(self, pid: At, free: int) -> Sequence[Call]:
        found: list[Call] = [Late(("sprintf", slot, self._number, pid)) for slot in self._slots]
        if self._inode_slot:
            nothing = self._number + len("%d")
            inode = At(self._statx + _STATX_INO_AT)
            found += [
                ("syscall", CLOSE_RANGE, free, -1, 0),  # so that it is free indeed
                Late(("syscall", PIDFD_OPEN, pid, 0)),
                ("statx", free, nothing, _AT_EMPTY_PATH, _STATX_INO, self._statx),
                Late(("sprintf", self._inode_slot, self._inode_number, inode)),
            ]
        return [*found, ("execve", self._path, self._argv, self._environ)]
