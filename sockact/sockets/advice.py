"""What to do about a listener that cannot be opened: the last half of a `BindError`."""

import errno
import os
import stat

from sockact.sockets.holder import Process, inet_holders, unix_holders
from sockact.spec import InetAddress, Kind, ListenerSpec, PathAddress, UnixAddress


def advise(listener: ListenerSpec, step: str, number: int) -> str:
    """Return what a person can do, with who is in the way where that can be told; or nothing."""
    address = listener.address
    if number == errno.EMFILE:
        return f"this process may open {_soft_limit()} files; raise the hard limit (ulimit -Hn)"
    if number == errno.ENFILE:
        return "the system's file table is full (fs.file-max)"
    if isinstance(address, InetAddress):
        return _inet_advice(address, listener.kind, step, number)
    if isinstance(address, UnixAddress) and not address.abstract:
        return _path_advice(address.path, step, number)
    if isinstance(address, UnixAddress) and number == errno.EADDRINUSE:
        return _held(unix_holders(address.path), f"the name {address}")
    if isinstance(address, PathAddress):
        return _file_advice(address.path, listener.kind, number)
    if number == errno.EAFNOSUPPORT:
        return "this kernel does not have that address family"
    return ""


def _held(holders: list[Process], what: str) -> str:
    if not holders:
        return f"{what} is in use, by a process that cannot be seen from here"
    if any(holder.pid == os.getpid() for holder in holders):
        return f"{what} is in use by this very process (pid {os.getpid()}): is it listed twice?"
    return f"{what} is in use by " + ", ".join(str(holder) for holder in holders[:3])


def _inet_advice(address: InetAddress, kind: Kind, step: str, number: int) -> str:
    match number:
        case errno.EADDRINUSE:
            protocol = "udp" if kind is Kind.DATAGRAM else "tcp"
            host = "" if address.version == 0 else address.host
            held = _held(inet_holders(protocol, host, address.port), f"port {address.port}")
            return f"{held}; stop that, or choose another port"
        case errno.EADDRNOTAVAIL:
            return f"no interface here has {address.host}; see 'ip address', or set FreeBind=yes"
        case errno.EACCES | errno.EPERM if step == "bind" and address.port < 1024:
            return "ports below 1024 need root, CAP_NET_BIND_SERVICE or ip_unprivileged_port_start"
        case errno.EACCES | errno.EPERM:
            return "this needs root"
        case errno.EAFNOSUPPORT | errno.EPROTONOSUPPORT:
            return "this kernel does not have that protocol"
        case errno.ENODEV:
            return "there is no such network interface"
        case errno.EINVAL if address.host.startswith("fe80:") and not address.scope:
            return f"a link-local address needs its interface: {address}%eth0"
    return ""


def _path_advice(path: str, step: str, number: int) -> str:
    directory = os.path.dirname(path)
    if number == errno.EADDRINUSE:
        try:
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                return "something that is no socket is there; remove it, or choose another path"
        except OSError:
            return ""
        return _held(unix_holders(path), path) + "; stop that, or take the path over with --replace"
    if number == errno.ENOENT and not os.path.isdir(directory):
        return f"the directory {directory} is missing and could not be made"
    if number == errno.ETIMEDOUT:
        return "it replaces a stale node there; try again, or remove the node yourself"
    if number in (errno.EACCES, errno.EPERM):
        if step == "connect":
            return "so it cannot be told whether some process listens there; --replace does not ask"
        if step == "chown":
            return "SocketUser= and SocketGroup= need root"
        return f"{_user()} may not write to {directory}"
    return ""


def _file_advice(path: str, kind: Kind, number: int) -> str:
    match number:
        case errno.EACCES | errno.ENOENT if kind is Kind.MQUEUE and "/" in (path[1:] or "/"):
            return "the name of a queue is a slash, and then something without slashes"
        case errno.EEXIST:
            return f"remove {path}, or choose another path" if kind is not Kind.MQUEUE else ""
        case errno.ENOENT if kind is Kind.SPECIAL:
            return "ListenSpecial= does not make files"
        case errno.ELOOP:
            return "symbolic links are not followed; name the file itself"
        case errno.EACCES | errno.EPERM:
            return f"{_user()} may not open it"
        case errno.EINVAL if kind is Kind.MQUEUE:
            return "see /proc/sys/fs/mqueue/msg_max and msgsize_max"
    return ""


def _user() -> str:
    return f"uid {os.geteuid()}"


def _soft_limit() -> int:
    return os.sysconf("SC_OPEN_MAX")
