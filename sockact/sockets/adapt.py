"""A listener that stays open while its definition changes: what can be set on it is set."""

import contextlib
import os
import socket as _socket
import stat
from collections.abc import Iterable
from typing import Any

import attrs

from sockact import directives as d
from sockact.fd.probe import borrowed
from sockact.sockets.node import Made, set_mode, symlink
from sockact.sockets.options import set_late, set_option
from sockact.sockets.plan import Plan, make_plan
from sockact.sockets.task import Task, Warn
from sockact.spec import Directive, Kind, ListenerSpec, SocketSpec, SockOption, UnixAddress

_SOCKETS = (Kind.STREAM, Kind.DATAGRAM, Kind.SEQPACKET, Kind.NETLINK)
_F_SETPIPE_SZ = 1031
_AT_BIRTH: dict[Kind, tuple[Directive[Any], ...]] = {
    Kind.SPECIAL: (d.WRITABLE,),
    Kind.MQUEUE: (d.MQUEUE_MAX_MESSAGES, d.MQUEUE_MESSAGE_SIZE),
}


class Adapter:
    """Makes open descriptors what another definition says of them, as far as that can be done.

    Options of the socket are set, and so are its backlog and the mode, owner and links of its node.
    What a socket has from its birth stays, and so does the value of an option that the definition
    does not name any more, unless it is one that is on or off.
    """

    def __init__(self, old: SocketSpec, new: SocketSpec, warn: Warn) -> None:
        """Compare two definitions.

        Args:
            old: What the descriptors were opened, or last adapted, from.
            new: What they are to be. User and group exist.
            warn: Called with a line for each thing that stays, or that could not be set.
        """
        self.old = old
        self.new = new
        self.task = Task(new, warn)
        before, after = (
            {name: setting.value for name, setting in spec.settings.items()} for spec in (old, new)
        )
        self._differs = before != after
        self._plans: dict[tuple[Kind, int], tuple[Plan, Plan]] = {}

    def adapt(self, fd: int, listener: ListenerSpec) -> Made | None:
        """Adapt one.

        Args:
            fd: The descriptor, which stays the caller's.
            listener: What it is, by the new definition.

        Returns:
            The node and its links, if they are to be removed with the listener (RemoveOnStop=) and
            were not before.
        """
        if not self._differs:
            return None
        adapted = _Adapted(self, fd, listener)
        if listener.kind in _SOCKETS:
            adapted.socket()
        adapted.file()
        adapted.node()
        return adapted.made

    def plans(self, kind: Kind, family: int) -> tuple[Plan, Plan]:
        """Return what is done to every such socket by the old definition, and by the new one."""
        found = self._plans.get((kind, family))
        if found is None:
            found = make_plan(self.old, kind, family), make_plan(self.new, kind, family)
            self._plans[kind, family] = found
        return found


class _Adapted:
    def __init__(self, adapter: Adapter, fd: int, listener: ListenerSpec) -> None:
        self.made = Made()
        self._fd = fd
        self._listener = listener
        self._old, self._new, self._task = adapter.old, adapter.new, adapter.task
        self._plans = adapter.plans

    def _stays(self, names: Iterable[str]) -> None:
        for name in dict.fromkeys(names):
            setting = self._new.settings.get(name) or self._old.settings.get(name)
            place = f"{setting.origin}: " if setting else ""
            self._task.warn(
                f"{place}{name}= of {self._listener.address}, which is open, stays as it was"
            )

    def _has_changed(self, row: Directive[Any]) -> bool:
        return bool(self._old.get(row) != self._new.get(row))

    def socket(self) -> None:
        sock = borrowed(self._fd)
        try:
            before, after = self._plans(self._listener.kind, sock.family)
            if before.protocol != after.protocol:
                self._stays([d.SOCKET_PROTOCOL.name])
            self._stays(name for name, *_ in set(before.before) ^ set(after.before))
            if after.backlog is not None and before.backlog != after.backlog:
                try:
                    sock.listen(after.backlog)
                except OSError as error:
                    self._task.warn(self._task.unset(d.BACKLOG.name, error))
            late = tuple(item for item in after.late if item not in before.late)
            set_late(sock, attrs.evolve(after, late=late), self._task)
            named = {name for name, _ in after.late}
            self._end(sock, {name: option for name, option in before.late if name not in named})
        finally:
            sock.detach()

    def _end(self, sock: _socket.SocketType, ended: dict[str, SockOption]) -> None:
        """Give options that are on or off their default; what others were, nobody knows."""
        for name, (level, number, _) in ended.items():
            value = self._new.get(d.TABLE[name])
            if not isinstance(value, bool):
                self._stays([name])
                continue
            try:
                set_option(sock, (level, number, int(value)))
            except OSError as error:
                self._task.warn(self._task.unset(name, error))

    def file(self) -> None:
        rows: tuple[Directive[Any], ...] = (d.NON_BLOCKING, *_AT_BIRTH.get(self._listener.kind, ()))
        self._stays(row.name for row in rows if self._has_changed(row))
        size = self._new.get(d.PIPE_SIZE)
        if self._listener.kind is Kind.FIFO and size and self._has_changed(d.PIPE_SIZE):
            import fcntl  # noqa: PLC0415 - only for a FIFO

            try:
                fcntl.fcntl(self._fd, _F_SETPIPE_SZ, size)
            except (OSError, OverflowError) as error:
                reason = error if isinstance(error, OSError) else OSError(0, "too large")
                self._task.warn(self._task.unset(d.PIPE_SIZE.name, reason))

    def node(self) -> None:
        address = self._listener.address
        is_socket = isinstance(address, UnixAddress) and not address.abstract
        if not (is_socket or self._listener.kind in (Kind.FIFO, Kind.MQUEUE)):
            return
        step = d.SOCKET_MODE.name
        try:
            if self._has_changed(d.SOCKET_MODE):
                mode = self._new.get(d.SOCKET_MODE) & 0o777
                if is_socket:
                    set_mode(str(address), mode)
                else:
                    os.fchmod(self._fd, mode)
            step = d.SOCKET_USER.name
            if self._has_changed(d.SOCKET_USER) or self._has_changed(d.SOCKET_GROUP):
                self._own()
        except OSError as error:
            self._task.warn(self._task.unset(step, error))
        if self._listener.kind is not Kind.MQUEUE:
            self._link()

    def _own(self) -> None:
        owner = self._task.owner()
        if isinstance(self._listener.address, UnixAddress):
            os.chown(str(self._listener.address), *owner, follow_symlinks=False)
        else:
            os.chown(self._fd, *owner)

    def _link(self) -> None:
        address, removes = str(self._listener.address), self._new.get(d.REMOVE_ON_STOP)
        had = self._old.get(d.REMOVE_ON_STOP)
        for link in self._new.get(d.SYMLINKS):
            if link in self._old.get(d.SYMLINKS):
                continue
            self.made.parents(link, self._new.get(d.DIRECTORY_MODE))
            try:
                if symlink(address, link, replace=removes) and removes:
                    self.made.node(link)
            except OSError as error:
                self._task.warn(self._task.unset(d.SYMLINKS.name, error))
        if had and not removes:
            self._stays([d.REMOVE_ON_STOP.name])
        elif removes and not had:
            note(self.made, self._new, self._listener)


def note(made: Made, spec: SocketSpec, listener: ListenerSpec) -> None:
    """Remember what goes with a listener though others have made it: its node, and links to it."""
    path, address = str(listener.address), listener.address
    if listener.kind is Kind.MQUEUE:
        made.queue(path)
    elif listener.kind is Kind.FIFO or (isinstance(address, UnixAddress) and not address.abstract):
        for one in (path, *spec.get(d.SYMLINKS)):
            with contextlib.suppress(OSError):
                mode = os.lstat(one).st_mode
                if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode) or os.readlink(one) == path:
                    made.node(one)
