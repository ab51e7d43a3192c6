"""Opening what a supervisor hands out: sockets unit by unit, and the files of OpenFile=."""

import contextlib
import errno
import os
import socket as _socket
import stat
from collections.abc import Callable, Sequence

import attrs

from sockact import directives, service_directives
from sockact.sockets.socketset import NamedSocket, SocketSet
from sockact.spec import Origin, Setting, SocketSpec

_MODES = {
    "": os.O_RDWR | os.O_CREAT,
    "read-only": os.O_RDONLY,
    "append": os.O_RDWR | os.O_CREAT | os.O_APPEND,
    "truncate": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
}


def listening(spec: SocketSpec) -> SocketSpec:
    """Return a definition as it is opened: nobody but us accepts from a unit with Accept=yes."""
    if not spec.get(directives.ACCEPT):
        return spec
    name = directives.NON_BLOCKING.name
    return attrs.evolve(spec, settings={**spec.settings, name: Setting(True, Origin("Accept=yes"))})


class Opening:
    """Opens several units as one set, and remembers what undoes the opening of each."""

    def __init__(self, open_: Callable[[SocketSpec], SocketSet]) -> None:
        """Begin with nothing.

        Args:
            open_: Opens one unit.
        """
        self._open = open_
        self._undo: dict[str, SocketSet] = {}

    def open(self, specs: Sequence[SocketSpec]) -> SocketSet:
        """Open every listener of the units in their order, or none.

        Raises:
            BindError: One could not be opened.
        """
        entries: list[NamedSocket] = []
        try:
            for spec in specs:
                found = self._open(spec)
                entries += list(found)
                found.forget()
                self._undo[spec.name] = found
        except BaseException:
            for entry in entries:
                entry.close()
            self.discard()
            raise
        return SocketSet(entries)

    def divide(self, specs: Sequence[SocketSpec], sockets: SocketSet) -> dict[str, SocketSet]:
        """Return the sockets unit by unit, each set owning its own and what undoes it.

        Args:
            specs: The units, resolved.
            sockets: All their sockets in order; it is empty afterwards but for what undoes it.
        """
        entries = iter(list(sockets))
        sockets.forget()
        found: dict[str, SocketSet] = {}
        for spec in specs:
            found[spec.name] = SocketSet([next(entries) for _ in spec.listeners])
            if (undo := self._undo.pop(spec.name, None)) is not None:
                found[spec.name].extend(undo)
        return found

    def discard(self) -> None:
        """Remove every node that was made, if `divide` was not called."""
        undo, self._undo = self._undo, {}
        for found in undo.values():
            found.discard()


def open_file(spec: service_directives.OpenFileSpec) -> int:
    """Open a file, or connect to a Unix socket, for a service; the caller owns the descriptor.

    Raises:
        OSError: It cannot be opened.

    Source: systemd.service(5), OpenFile=; src/core/execute.c, acquire_open_file() in systemd.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(spec.path).st_mode):
            return _connect(spec)
    return os.open(spec.path, _MODES[spec.mode] | os.O_CLOEXEC | os.O_NOCTTY, 0o777)


def _connect(spec: service_directives.OpenFileSpec) -> int:
    last = OSError(errno.EPROTOTYPE, os.strerror(errno.EPROTOTYPE))
    for kind in (_socket.SOCK_DGRAM, _socket.SOCK_STREAM, _socket.SOCK_SEQPACKET):
        sock = _socket.socket(_socket.AF_UNIX, kind)
        try:
            sock.connect(spec.path)
            if spec.mode == "read-only":
                sock.shutdown(_socket.SHUT_WR)
        except OSError as error:
            sock.close()
            last = error
            if error.errno != errno.EPROTOTYPE:
                break
        else:
            return sock.detach()
    raise last
