"""Opening: `SocketSpec` to `SocketSet`, all of it or nothing.

One opener for every kind of listener. The order of the system calls, and which failures are
fatal, are systemd's (``src/core/socket.c``), because a unit must behave here as it does there:
options that change what bind() means come before it, SO_REUSEADDR always, all others after
listen(), where a failure is a warning. Two things differ on purpose: a live socket at a path is
not replaced unless that is asked for, and O_NONBLOCK is set at birth as the unit wants it, since
nobody else has the description yet.

Any failure undoes everything, nodes and directories included, and is a `BindError`.
"""

import errno
import os
import socket as _socket
import stat
import warnings
from collections.abc import Callable, Iterable, Sequence

import attrs

from sockact import directives as d
from sockact.errors import BindError, SockactWarning
from sockact.fd.own import OwnedFd
from sockact.sockets.node import (
    DirectoryLock,
    Made,
    bind_with_mode,
    is_live,
    set_mode,
    symlink,
)
from sockact.sockets.resolve import resolve_spec
from sockact.sockets.socketset import NamedSocket, SocketSet
from sockact.spec import (
    ACCEPTING,
    HostAddress,
    InetAddress,
    Kind,
    ListenerSpec,
    NetlinkAddress,
    PathAddress,
    SocketSpec,
    SockOption,
    UnixAddress,
    VsockAddress,
)

Warn = Callable[[str], None]

_SOCK_TYPES = {
    Kind.STREAM: _socket.SOCK_STREAM,
    Kind.DATAGRAM: _socket.SOCK_DGRAM,
    Kind.SEQPACKET: _socket.SOCK_SEQPACKET,
    Kind.NETLINK: _socket.SOCK_RAW,
}
# Which SocketProtocol= fits which kind; elsewhere systemd leaves the protocol at 0.
_PROTOCOL_KINDS = {
    "sctp": (Kind.STREAM, Kind.SEQPACKET),
    "mptcp": (Kind.STREAM,),
    "udplite": (Kind.DATAGRAM,),
}
_AF_NETLINK = 16
_AF_VSOCK = 40
_SAME_PORT_TRIES = 32
_OTHER_FILES = 64
_NODE_KINDS = (*_SOCK_TYPES, Kind.FIFO, Kind.MQUEUE)


def warn_by_default(message: str) -> None:
    """Issue a `SockactWarning` that points at the caller of the library."""
    warnings.warn(message, SockactWarning, 4)


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
    try:
        for spec in specs:
            opener = _Opener(resolve_spec(spec), replace, warn)
            try:
                opener.open()
            finally:
                opened.extend(opener.set)
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


@attrs.frozen(eq=False, repr=False)
class _Plan:
    """What all sockets of one spec, kind and family have in common."""

    type: int
    protocol: int
    before: tuple[tuple[str, SockOption, bool], ...]
    late: tuple[tuple[str, SockOption], ...]
    backlog: int | None


class _Opener:
    """Opens the listeners of one spec into `set`."""

    def __init__(self, spec: SocketSpec, replace: bool, warn: Warn) -> None:
        self.spec = spec
        self.set = SocketSet()
        self._replace = replace
        self._warn = warn
        self._made = Made()
        self._planned: tuple[Kind | None, int] = None, 0
        self._shared = _Plan(0, 0, (), (), None)
        self._blocking = not spec.get(d.NON_BLOCKING)
        # A process-wide default timeout makes every new socket non-blocking.
        self._set_blocking = not self._blocking or _socket.getdefaulttimeout() is not None
        self._step = ""
        self.set.on_close(lambda: self._made.remove(directories=True), only_if_discarded=True)
        if spec.get(d.REMOVE_ON_STOP):
            self.set.on_close(lambda: self._made.remove(directories=False), only_if_discarded=False)

    def open(self) -> None:
        owner = self._owner()
        listeners = self.spec.listeners
        if len(listeners) + _OTHER_FILES > os.sysconf("SC_OPEN_MAX"):
            raise_limit()
        if len(listeners) > 1 and all(_wants_any_port(listener) for listener in listeners):
            self._open_same_port(listeners)
        else:
            for listener in listeners:
                self._add(listener, self._open(listener))
        for listener in listeners:
            if listener.kind in _NODE_KINDS and not isinstance(listener.address, InetAddress):
                self._finish(listener, owner)

    def _add(self, listener: ListenerSpec, fd: int) -> None:
        self.set.append(NamedSocket(listener.name, OwnedFd(fd), listener))

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
                    self._add(listener, fd.release())
                return

    def _open(self, listener: ListenerSpec) -> int:
        """Open one listener and return its descriptor."""
        try:
            return self._create(listener)
        except OSError as error:
            if error.errno == errno.EMFILE and raise_limit():
                return self._open(listener)
            raise _OpenError(listener, self._step, error) from None

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
            case PathAddress() if listener.kind is Kind.FIFO:
                return self._open_fifo(address.path)
            case PathAddress() if listener.kind is Kind.SPECIAL:
                return self._open_special(address.path)
            case PathAddress():
                return self._open_queue(address.path)
            case HostAddress():  # pragma: no cover - resolve_spec() has replaced it
                raise AssertionError(address)

    # --- sockets ----------------------------------------------------------------------------------

    def _plan(self, kind: Kind, family: int) -> _Plan:
        """Return the plan for sockets of one kind and family; listeners that follow share it."""
        if self._planned != (kind, family):
            spec = self.spec
            chosen = spec.get(d.SOCKET_PROTOCOL)
            fits = kind in _PROTOCOL_KINDS.get(chosen, ())
            protocol = d.PROTOCOLS[chosen] if fits else 0
            before: list[tuple[str, SockOption, bool]] = []
            if family in (_socket.AF_INET, _socket.AF_INET6):
                before += [
                    (row.name, option, row.fatal)
                    for row in d.BEFORE_BIND
                    if row.option and (option := row.option(spec.get(row), family, protocol))
                ]
            before.append(("SO_REUSEADDR", (_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1), True))
            late = [
                (row.name, option)
                for row in d.LATE
                if row.option and (option := row.option(spec.get(row), family, protocol))
            ]
            backlog = min(spec.get(d.BACKLOG), d.BACKLOG_MAX) if kind in ACCEPTING else None
            self._shared = _Plan(_SOCK_TYPES[kind], protocol, tuple(before), tuple(late), backlog)
            self._planned = kind, family
        return self._shared

    def _new_socket(self, plan: _Plan, family: int, protocol: int) -> _socket.socket:
        self._step = "socket"
        sock = _socket.socket(family, plan.type, protocol)
        try:
            if self._set_blocking:
                sock.setblocking(self._blocking)
            for name, option, fatal in plan.before:
                self._step = name
                try:
                    sock.setsockopt(*option)
                except OSError as error:
                    if fatal:
                        raise
                    self._warn(self._unset(name, error))
        except BaseException:
            sock.close()
            raise
        return sock

    def _start(self, sock: _socket.socket, plan: _Plan) -> None:
        if plan.backlog is not None:
            self._step = "listen"
            sock.listen(plan.backlog)
        for name, option in plan.late:
            try:
                if option[:2] in _BUFFERS:
                    self._set_buffer(sock, name, option)
                else:
                    sock.setsockopt(*option)
            except OSError as error:
                self._warn(self._unset(name, error))

    def _unset(self, name: str, error: OSError) -> str:
        setting = self.spec.settings.get(name)
        place = f"{setting.origin}: " if setting and setting.origin.line else ""
        row = d.TABLE.get(name)
        hint = ", which needs root" if error.errno in (errno.EPERM, errno.EACCES) else ""
        call = f" ({row.call})" if row else ""
        return f"{place}{name}={call} could not be set: {error.strerror}{hint}"

    def _set_buffer(self, sock: _socket.socket, name: str, option: SockOption) -> None:
        """Set a buffer size as systemd does: politely, then by force (the kernel doubles it)."""
        level, number, size = option
        assert isinstance(size, int)
        if sock.getsockopt(level, number) == 2 * size:
            return
        sock.setsockopt(level, number, size)
        if sock.getsockopt(level, number) == 2 * size:
            return
        try:
            sock.setsockopt(level, _BUFFERS[level, number], size)
        except PermissionError:
            got = sock.getsockopt(level, number) // 2
            self._warn(f"{name}={size}: limited to {got} bytes by the system; more needs root")

    def _open_plain(
        self, kind: Kind, family: int, name: tuple[object, ...], protocol: int | None = None
    ) -> int:
        plan = self._plan(kind, family)
        sock = self._new_socket(plan, family, plan.protocol if protocol is None else protocol)
        try:
            self._step = "bind"
            sock.bind(name)
            self._start(sock, plan)
        except BaseException:
            sock.close()
            raise
        return sock.detach()

    def _open_inet(self, kind: Kind, address: InetAddress) -> int:
        version = address.version or (6 if has_ipv6() else 4)
        if version == 4:
            return self._open_plain(kind, _socket.AF_INET, (address.host, address.port))
        scope = 0
        if address.scope:
            self._step = "if_nametoindex"
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
        mode = self.spec.get(d.SOCKET_MODE) & 0o777
        plan = self._plan(kind, _socket.AF_UNIX)
        sock = self._new_socket(plan, _socket.AF_UNIX, plan.protocol)
        try:
            self._made.parents(path, self.spec.get(d.DIRECTORY_MODE))
            self._step = "bind"
            self._bind_path(sock, path, mode)
            self._made.node(path)
            self._step = "chmod"
            set_mode(path, mode)
            self._start(sock, plan)
            self._step = "utime"
            os.utime(path)  # wakes those who watch the node by inotify, as systemd does
        except BaseException:
            sock.close()
            raise
        return sock.detach()

    def _bind_path(self, sock: _socket.socket, path: str, mode: int) -> None:
        try:
            bind_with_mode(sock, path, mode)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise
        else:
            return
        self._step = "lock"
        with DirectoryLock(path):
            self._step = "bind"
            try:
                live = is_live(path)
            except FileNotFoundError:
                pass  # whoever had it has just removed it
            else:
                if live and not self._replace:
                    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
                os.unlink(path)
            bind_with_mode(sock, path, mode)

    # --- nodes that are no sockets ----------------------------------------------------------------

    def _open_fifo(self, path: str) -> int:
        mode = self.spec.get(d.SOCKET_MODE) & 0o777
        self._made.parents(path, self.spec.get(d.DIRECTORY_MODE))
        self._step = "mkfifo"
        try:
            os.mkfifo(path, mode)
            made = True
            self._made.node(path)
        except FileExistsError:
            made = False
        self._step = "open"
        # O_RDWR: with a writer of its own the FIFO never shows end of file.
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW
        fd = OwnedFd(os.open(path, flags))
        try:
            info = os.fstat(fd.fileno())
            if not stat.S_ISFIFO(info.st_mode):
                raise OSError(errno.EEXIST, "something else than a FIFO is there")
            if made:
                os.fchmod(fd.fileno(), mode)
            elif info.st_mode & 0o777 != mode or not self._is_ours(info):
                raise OSError(errno.EEXIST, "the FIFO there has another mode or owner")
            self._set_pipe_size(fd.fileno())
            os.set_blocking(fd.fileno(), self._blocking)
        except BaseException:
            fd.close()
            raise
        return fd.release()

    def _is_ours(self, info: os.stat_result) -> bool:
        """Whether a leftover node has the owner that this unit gives, or had, its nodes."""
        uid, gid = self._owner()
        return info.st_uid in (os.geteuid(), uid) and info.st_gid in (os.getegid(), gid)

    def _set_pipe_size(self, fd: int) -> None:
        size = self.spec.get(d.PIPE_SIZE)
        if size:
            import fcntl  # noqa: PLC0415

            try:
                fcntl.fcntl(fd, 1031, size)  # F_SETPIPE_SZ
            except (OSError, OverflowError) as error:
                reason = error if isinstance(error, OSError) else OSError(0, "too large")
                self._warn(self._unset(d.PIPE_SIZE.name, reason))

    def _open_special(self, path: str) -> int:
        self._step = "open"
        access = os.O_RDWR if self.spec.get(d.WRITABLE) else os.O_RDONLY
        flags = access | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW
        fd = OwnedFd(os.open(path, flags))
        try:
            mode = os.fstat(fd.fileno()).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
                raise OSError(errno.EEXIST, "neither a regular file nor a character device")
            os.set_blocking(fd.fileno(), self._blocking)
        except BaseException:
            fd.close()
            raise
        return fd.release()

    def _open_queue(self, name: str) -> int:
        from sockact.fd.mqueue import open_queue  # noqa: PLC0415 - it loads ctypes

        spec = self.spec
        mode = spec.get(d.SOCKET_MODE) & 0o777
        limits = spec.get(d.MQUEUE_MAX_MESSAGES), spec.get(d.MQUEUE_MESSAGE_SIZE)
        self._step = "mq_open"
        number, made = open_queue(name, mode, *limits)
        fd = OwnedFd(number)
        try:
            info = os.fstat(fd.fileno())
            if made:
                self._made.queue(name)
                os.fchmod(fd.fileno(), mode)
            elif info.st_mode & 0o777 != mode or not self._is_ours(info):
                raise OSError(errno.EEXIST, "the queue there has another mode or owner")
            os.set_blocking(fd.fileno(), self._blocking)
        except BaseException:
            fd.close()
            raise
        return fd.release()

    # --- owner and links --------------------------------------------------------------------------

    def _owner(self) -> tuple[int, int]:
        """Return the uid and gid that nodes get, -1 for each that stays as it is.

        Raises:
            BindError: There is no such user or group.
        """
        user, group = self.spec.get(d.SOCKET_USER), self.spec.get(d.SOCKET_GROUP)
        if not user and not group:
            return -1, -1
        from sockact.errors import CredentialsError  # noqa: PLC0415
        from sockact.fd.account import group_id, user_ids  # noqa: PLC0415 - loads pwd and grp

        try:
            uid, gid = user_ids(user) if user else (-1, -1)
            return uid, group_id(group) if group else gid
        except CredentialsError as error:
            which = d.SOCKET_USER if user and user in str(error) else d.SOCKET_GROUP
            origin = self.spec.settings[which.name].origin
            raise BindError(str(origin), f"{which.name}=", 0, str(error)) from None

    def _finish(self, listener: ListenerSpec, owner: tuple[int, int]) -> None:
        address = listener.address
        is_path = isinstance(address, UnixAddress) and not address.abstract
        if not (is_path or listener.kind in (Kind.FIFO, Kind.MQUEUE)):
            return
        try:
            self._step = "chown"
            if owner != (-1, -1):
                if listener.kind is Kind.MQUEUE:
                    os.chown(self._fd_of(listener), *owner)
                else:
                    os.chown(str(address), *owner, follow_symlinks=False)
        except OSError as error:
            raise _OpenError(listener, self._step, error) from None
        if listener.kind is Kind.MQUEUE:
            return
        for link in self.spec.get(d.SYMLINKS):
            self._made.parents(link, self.spec.get(d.DIRECTORY_MODE))
            try:
                if symlink(str(address), link, replace=self.spec.get(d.REMOVE_ON_STOP)):
                    self._made.node(link)
            except OSError as error:
                origin = self.spec.settings[d.SYMLINKS.name].origin
                self._warn(f"{origin}: Symlinks=: cannot link {link}: {error.strerror}")

    def _fd_of(self, listener: ListenerSpec) -> int:
        return next(e.fileno() for e in self.set if e.listener is listener)


_BUFFERS = {
    (_socket.SOL_SOCKET, _socket.SO_RCVBUF): d.SO_RCVBUFFORCE,
    (_socket.SOL_SOCKET, _socket.SO_SNDBUF): d.SO_SNDBUFFORCE,
}


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
