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
_ROOM = 1024
"""Bytes for what is told; more is made where that is not enough."""
_POINTER = struct.calcsize("P")


class Image(Protocol):
    """What a process can become, again and again, told something else each time."""

    def tell(self, variables: Mapping[str, str]) -> None:
        """Add variables to the environment in place of those that were told before.

        Args:
            variables: Others than those that it has anyhow.

        Raises:
            ValueError: Something holds a NUL.
        """

    def become(self) -> NoReturn:
        """Become the program.

        Raises:
            OSError: That cannot be.
        """

    @property
    def address(self) -> int:
        """Where in memory it is: as long as that is the same, so are the calls."""

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
        self._told: Mapping[str, str] = {}
        self.address = 0

    def tell(self, variables: Mapping[str, str]) -> None:
        _pack([*variables, *variables.values()])
        self._told = variables

    def become(self) -> NoReturn:
        pid = os.getpid()
        environ = {**self._environ, **self._told, **dict.fromkeys(self._pids, str(pid))}
        if self._pidfd_id is not None:
            environ[self._pidfd_id] = str(own_pidfd_id(pid))
        become(self._path, self._argv, environ, shell=self._shell)

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
        names = [*pids, *([] if pidfd_id is None else [pidfd_id])]
        numbered = dict.fromkeys(names, " " * _DIGITS)
        texts = [f"{name}={value}" for name, value in {**numbered, **environ, **numbered}.items()]
        self._packed = _pack([path, "%d", "%llu", *argv, *texts])
        self._arguments, self._numbered = len(argv), len(numbered)
        self._has_pidfd_id = pidfd_id is not None
        self._shell = shell
        self._libc: Any = libc()
        self._lay(_ROOM)

    def _lay(self, room: int) -> None:
        """Make the block, with so many bytes for what is told.

        It has what statx() tells; the vector of arguments; the strings; the vector of variables,
        with those at its end that are told, and then these.
        """
        lengths = [len(part) + 1 for part in self._packed.split(b"\0")[:-1]]
        vector = (self._arguments + 1) * _POINTER
        strings = _STATX_SIZE + vector
        variables = -(-(strings + len(self._packed)) // _POINTER) * _POINTER
        end = _FORMS + self._arguments
        self._told = variables + (len(lengths) - end) * _POINTER
        self._room = room
        self._block = bytearray(self._told + room)
        self.address = self._statx = address_of(self._block)
        self._argv, self._environ = self.address + _STATX_SIZE, self.address + variables
        at = list(itertools.accumulate(lengths, initial=self.address + strings))
        self._path, self._number, self._inode_number = at[:_FORMS]
        arguments = at[_FORMS:end]
        self._block[strings : strings + len(self._packed)] = self._packed
        _pack_pointers(self._block, _STATX_SIZE, [*arguments, 0])
        _pack_pointers(self._block, variables, [*at[end:-1], 0])
        self._slots = [at[end + n + 1] - 1 - _DIGITS for n in range(self._numbered)]
        self._inode_slot = self._slots.pop() if self._has_pidfd_id else 0
        self._script: bytearray | None = None
        if self._shell:
            self._sh = bytearray(b"/bin/sh\0")
            script = [address_of(self._sh), self._path, *arguments[1:], 0]
            self._script = bytearray(len(script) * _POINTER)
            _pack_pointers(self._script, 0, script)

    def tell(self, variables: Mapping[str, str]) -> None:
        texts = _pack([f"{name}={value}" for name, value in variables.items()])
        vector = (len(variables) + 1) * _POINTER
        if vector + len(texts) > self._room:
            self._lay(2 * (vector + len(texts)))
        start = self._told + vector
        lengths = [len(part) + 1 for part in texts.split(b"\0")[:-1]]
        at = [*itertools.accumulate(lengths, initial=self.address + start)]
        _pack_pointers(self._block, self._told, [*at[:-1], 0])
        self._block[start : start + len(texts)] = texts

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


def _pack(texts: Sequence[str]) -> bytes:
    """Return strings, each with its NUL.

    Raises:
        ValueError: One holds another.
    """
    packed = os.fsencode("\0".join([*texts, ""]))
    if packed.count(0) != len(texts):
        raise ValueError("embedded null character")
    return packed


def _pack_pointers(block: bytearray, offset: int, pointers: Sequence[int]) -> None:
    struct.pack_into(f"{len(pointers)}P", block, offset, *pointers)
