"""Opening: `SocketSpec` to `SocketSet`, all of it or nothing.

One opener for every kind of listener. The order of the system calls, and which failures are
fatal, are systemd's (``src/core/socket.c``), because a unit must behave here as it does there:
options that change what bind() means come before it, SO_REUSEADDR always, all others after
listen(), where a failure is a warning. Two things differ on purpose: a live socket at a path is
not replaced unless that is asked for, and O_NONBLOCK is set at birth as the unit wants it, since
nobody else has the description yet.

Any failure undoes everything, nodes and directories included, and is a `BindError`.
"""

import contextlib
import errno
import os
import socket as _socket
import sys
import warnings
from collections.abc import Iterable, Sequence

import attrs

from sockact import directives as d
from sockact.errors import BindError, SockactWarning
from sockact.fd.own import OwnedFd
from sockact.sockets.node import (
    DirectoryLock,
    bind_with_mode,
    is_live,
    is_socket_node,
    set_mode,
    symlink,
)
from sockact.sockets.openfile import open_fifo, open_queue, open_special
from sockact.sockets.options import set_late, set_option
from sockact.sockets.plan import Plan, make_plan
from sockact.sockets.resolve import resolve_spec
from sockact.sockets.socketset import NamedSocket, SocketSet
from sockact.sockets.task import Task, Warn
from sockact.spec import (
    HostAddress,
    InetAddress,
    Kind,
    ListenerSpec,
    NetlinkAddress,
    PathAddress,
    SocketSpec,
    UnixAddress,
    VsockAddress,
)

_AF_NETLINK = 16
_AF_VSOCK = 40
_SAME_PORT_TRIES = 32
_OTHER_FILES = 64
_FILE_OPENERS = {Kind.FIFO: open_fifo, Kind.SPECIAL: open_special, Kind.MQUEUE: open_queue}


def warn_by_default(message: str) -> None:
    """Issue a `SockactWarning` that points at the caller of the library."""
    package = __name__.partition(".")[0]
    frame, level = sys._getframe(1), 2  # noqa: SLF001 - as the warnings module itself does
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, SockactWarning, level)


def open_specs(
    specs: Iterable[SocketSpec], *, replace: bool = False, warn: Warn = warn_by_default
) -> SocketSet:
    """Open every listener of every spec, in order.

    Args:
        specs: What to open.
        replace: Take over the path of a Unix socket even if some process still listens there;
            that process keeps its socket, but no client finds it any more.
        warn: Called with one line for each option that could not be set.

    Returns:
        The set, which owns the descriptors; they are close-on-exec.

    Raises:
        BindError: A listener could not be opened. Everything opened by this call has been closed
            and removed again.
    """
    opened = SocketSet()
    tasks = []
    try:
        for spec in specs:
            tasks.append(Task(resolve_spec(spec), warn))
            opener = _Opener(tasks[-1], replace=replace)
            try:
                opener.open()
            finally:
                opened.extend(opener.set)
        for task in tasks:
            task.made.settle()
    except _OpenError as failed:
        if failed.error.errno in (errno.EMFILE, errno.ENFILE):
            opened.discard()  # to explain it takes descriptors
        explained = failed.explain()
        opened.discard()
        raise explained from None
    except BaseException:
        opened.discard()
        raise
    return opened


def has_ipv6() -> bool:
    """Whether this machine has IPv6, as systemd decides it on Linux."""
    if os.path.isdir("/proc/net"):
        return os.path.exists("/proc/net/if_inet6")
    return _socket.has_ipv6


class _OpenError(Exception):
    """A listener could not be opened; becomes a `BindError`."""

    def __init__(self, listener: ListenerSpec, step: str, error: OSError) -> None:
        super().__init__(listener, step, error)
        self.listener = listener
        self.step = step
        self.error = error

    def explain(self) -> BindError:
        """Return the error for a person, with advice."""
        from sockact.sockets.advice import advise  # noqa: PLC0415 - only when something failed

        listener, error = self.listener, self.error
        number = error.errno or 0
        reason = os.strerror(number) if number else str(error)
        if error.strerror and error.filename is None:
            reason = error.strerror
        origin = listener.origin
        written = f"{listener.address} ({origin})" if origin.line else str(origin)
        return BindError(written, self.step, number, reason, advise(listener, self.step, number))


class _Opener:
    """Opens the listeners of one spec into `set`."""

    def __init__(self, task: Task, *, replace: bool) -> None:
        self.task = task
        self.set = SocketSet()
        self._replace = replace
        self._planned: tuple[Kind | None, int] = None, 0
        self._shared = Plan(0, 0, (), (), None)
        self._any = 0
        # A process-wide default timeout makes every new socket non-blocking.
        self._set_blocking = not task.blocking or _socket.getdefaulttimeout() is not None
        made = task.made
        self.set.on_close(lambda: made.remove(directories=True), only_if_discarded=True)
        if task.spec.get(d.REMOVE_ON_STOP):
            self.set.on_close(lambda: made.remove(directories=False), only_if_discarded=False)

    def open(self) -> None:
        owner = self.task.owner()
        listeners = self.task.spec.listeners
        if len(listeners) + _OTHER_FILES > os.sysconf("SC_OPEN_MAX"):
            raise_limit()
        if len(listeners) > 1 and all(_wants_any_port(listener) for listener in listeners):
            self._open_same_port(listeners)
        else:
            for listener in listeners:
                self.set.append(NamedSocket(listener.name, self._open(listener), listener))
        for listener in listeners:
            if not isinstance(listener.address, InetAddress):
                self._finish(listener, owner)

    def _open_same_port(self, group: Sequence[ListenerSpec]) -> None:
        """Open all addresses of a host name on one port, which the kernel chooses for the first."""
        for attempt in range(_SAME_PORT_TRIES):
            fds = [OwnedFd(self._open(group[0]))]
            try:
                port = _port_of(fds[0].fileno())
                for listener in group[1:]:
                    assert isinstance(listener.address, InetAddress)
                    address = attrs.evolve(listener.address, port=port)
                    fds.append(OwnedFd(self._open(attrs.evolve(listener, address=address))))
            except _OpenError as failed:
                for fd in fds:
                    fd.close()
                if failed.error.errno != errno.EADDRINUSE or attempt == _SAME_PORT_TRIES - 1:
                    raise
            else:
                for listener, fd in zip(group, fds, strict=True):
                    self.set.append(NamedSocket(listener.name, fd.release(), listener))
                return

    def _open(self, listener: ListenerSpec) -> int:
        """Open one listener and return its descriptor."""
        try:
            return self._create(listener)
        except OSError as error:
            if error.errno == errno.EMFILE and raise_limit():
                return self._open(listener)
            raise _OpenError(listener, self.task.step, error) from None

    def _create(self, listener: ListenerSpec) -> int:
        address = listener.address
        match address:
            case InetAddress():
                return self._open_inet(listener.kind, address)
            case UnixAddress():
                return self._open_unix(listener.kind, address)
            case NetlinkAddress():
                return self._open_plain(
                    listener.kind, _AF_NETLINK, (0, address.group), address.protocol
                )
            case VsockAddress():
                return self._open_plain(listener.kind, _AF_VSOCK, (address.cid, address.port))
            case PathAddress():
                return _FILE_OPENERS[listener.kind](self.task, address.path)
            case HostAddress():  # pragma: no cover - resolve_spec() has replaced it
                raise AssertionError(address)

    # --- sockets ----------------------------------------------------------------------------------

    def _plan(self, kind: Kind, family: int) -> Plan:
        """Return the plan for sockets of one kind and family; listeners that follow share it."""
        if self._planned != (kind, family):
            self._shared = make_plan(self.task.spec, kind, family)
            self._planned = kind, family
        return self._shared

    def _new_socket(self, plan: Plan, family: int, protocol: int) -> _socket.SocketType:
        task = self.task
        task.step = "socket"
        # The class beneath socket.socket: nobody reads from it here, and it is made in less time.
        sock = _socket.SocketType(family, plan.type, protocol)
        try:
            if self._set_blocking:
                sock.setblocking(task.blocking)
            for name, option, fatal in plan.before:
                task.step = name
                try:
                    set_option(sock, option)
                except OSError as error:
                    if fatal:
                        raise
                    task.warn(task.unset(name, error))
        except BaseException:
            sock.close()
            raise
        return sock

    def _start(self, sock: _socket.SocketType, plan: Plan) -> None:
        if plan.backlog is not None:
            self.task.step = "listen"
            sock.listen(plan.backlog)
        set_late(sock, plan, self.task)

    def _open_plain(
        self, kind: Kind, family: int, name: tuple[object, ...], protocol: int | None = None
    ) -> int:
        plan = self._plan(kind, family)
        sock = self._new_socket(plan, family, plan.protocol if protocol is None else protocol)
        try:
            self.task.step = "bind"
            sock.bind(name)
            self._start(sock, plan)
        except BaseException:
            sock.close()
            raise
        return sock.detach()

    def _any_version(self) -> int:
        """Return the IP version of "every address", asking the machine once."""
        if not self._any:
            self._any = 6 if has_ipv6() else 4
        return self._any

    def _open_inet(self, kind: Kind, address: InetAddress) -> int:
        if (address.version or self._any_version()) == 4:
            return self._open_plain(kind, _socket.AF_INET, (address.host, address.port))
        scope = 0
        if address.scope:
            self.task.step = "if_nametoindex"
            scope = (
                int(address.scope)
                if address.scope.isdecimal()
                else _socket.if_nametoindex(address.scope)
            )
        return self._open_plain(
            kind, _socket.AF_INET6, (address.host or "::", address.port, 0, scope)
        )

    def _open_unix(self, kind: Kind, address: UnixAddress) -> int:
        if address.abstract:
            name = b"\0" + os.fsencode(address.path[1:])
            return self._open_plain(kind, _socket.AF_UNIX, name)  # type: ignore[arg-type]
        path = address.path
        mode = self.task.spec.get(d.SOCKET_MODE) & 0o777
        plan = self._plan(kind, _socket.AF_UNIX)
        sock = self._new_socket(plan, _socket.AF_UNIX, plan.protocol)
        try:
            self.task.made.parents(path, self.task.spec.get(d.DIRECTORY_MODE))
            self.task.step = "bind"
            self._bind_path(sock, path, mode)
            self.task.made.node(path)
            self.task.step = "chmod"
            set_mode(path, mode)
            self._start(sock, plan)
            with contextlib.suppress(OSError):
                os.utime(path)  # wakes those who watch the node by inotify, as systemd does
        except BaseException:
            sock.close()
            raise
        return sock.detach()

    def _bind_path(self, sock: _socket.SocketType, path: str, mode: int) -> None:
        try:
            bind_with_mode(sock, path, mode)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not is_socket_node(path):
                raise
        else:
            return
        task = self.task
        task.step = "lock"
        with DirectoryLock(path):
            task.step = "connect"
            if not self._replace and is_live(path):
                task.step = "bind"
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            if self._replace:
                task.step = "link"
                with contextlib.suppress(FileNotFoundError):
                    task.made.set_aside(path)
            task.step = "unlink"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            task.step = "bind"
            bind_with_mode(sock, path, mode)

    # --- owner and links --------------------------------------------------------------------------

    def _finish(self, listener: ListenerSpec, owner: tuple[int, int]) -> None:
        address = listener.address
        is_path = isinstance(address, UnixAddress) and not address.abstract
        if not (is_path or listener.kind in (Kind.FIFO, Kind.MQUEUE)):
            return
        try:
            self.task.step = "chown"
            if owner != (-1, -1):
                if listener.kind is Kind.MQUEUE:
                    os.chown(self._fd_of(listener), *owner)
                else:
                    os.chown(str(address), *owner, follow_symlinks=False)
        except OSError as error:
            raise _OpenError(listener, self.task.step, error) from None
        if listener.kind is Kind.MQUEUE:
            return
        for link in self.task.spec.get(d.SYMLINKS):
            self.task.made.parents(link, self.task.spec.get(d.DIRECTORY_MODE))
            try:
                if symlink(str(address), link, replace=self.task.spec.get(d.REMOVE_ON_STOP)):
                    self.task.made.node(link)
            except OSError as error:
                origin = self.task.spec.settings[d.SYMLINKS.name].origin
                self.task.warn(f"{origin}: Symlinks=: cannot link {link}: {error.strerror}")

    def _fd_of(self, listener: ListenerSpec) -> int:
        return next(e.fileno() for e in self.set if e.listener is listener)


def _wants_any_port(listener: ListenerSpec) -> bool:
    return isinstance(listener.address, InetAddress) and listener.address.port == 0


def _port_of(fd: int) -> int:
    from sockact.fd.probe import describe  # noqa: PLC0415 - only for port 0 of a host name

    return describe(fd).port


def raise_limit() -> bool:
    """Raise the soft limit of open files to the hard one; return whether that changed it."""
    try:
        import resource  # noqa: PLC0415 - only where the limit matters

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == hard:
            return False
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ImportError, OSError, ValueError):
        return False  # to import it takes a descriptor, too
    return True
