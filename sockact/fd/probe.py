"""What a descriptor is: the sd_is_* questions, and a description. Nothing here changes the fd."""

import contextlib
import os
import socket as _socket
import stat

import attrs

from sockact.spec import AsValue

_SO_ACCEPTCONN = _socket.SO_ACCEPTCONN


@attrs.frozen(eq=False, repr=False)
class Description(AsValue):
    """What an open descriptor turned out to be.

    Attributes:
        kind: ``Stream``, ``Datagram``, ``SequentialPacket``, ``Raw``, ``FIFO``, ``File``,
            ``Device``, ``MessageQueue`` or ``Other``.
        family: Address family (``AF_INET6``), or empty.
        address: The local address as text, or the path; empty if it has none.
        port: Port of an IP or vsock socket, else 0.
        listening: Whether it accepts connections.
    """

    kind: str
    family: str = ""
    address: str = ""
    port: int = 0
    listening: bool = False


_TYPES = {
    _socket.SOCK_STREAM: "Stream",
    _socket.SOCK_DGRAM: "Datagram",
    _socket.SOCK_SEQPACKET: "SequentialPacket",
    _socket.SOCK_RAW: "Raw",
}


def address_text(family: int, name: object) -> tuple[str, int]:
    """Return the text and the port of what getsockname() returned."""
    if isinstance(name, tuple) and len(name) >= 2:
        if family == _socket.AF_INET:
            return f"{name[0]}:{name[1]}", name[1]
        if family == _socket.AF_INET6:
            host, _, scope = str(name[0]).partition("%")
            return f"[{host}]:{name[1]}" + (f"%{scope}" if scope else ""), name[1]
        if family == getattr(_socket, "AF_VSOCK", -1):
            return f"vsock:{name[0]}:{name[1]}", name[1]
        return " ".join(str(part) for part in name), 0
    if isinstance(name, bytes):
        text = os.fsdecode(name)
        return ("@" + text[1:] if text.startswith("\0") else text), 0
    return str(name or ""), 0


def borrowed(fd: int) -> _socket.socket:
    """Return a socket object over `fd` that the caller must `detach`, never close.

    Raises:
        OSError: It is no open socket (EBADF, ENOTSOCK).
    """
    blocking = os.get_blocking(fd)
    sock = _socket.socket(fileno=fd)
    # A process-wide default timeout would have switched the shared O_NONBLOCK on; and without
    # this, the object would believe that a non-blocking descriptor blocks.
    if sock.gettimeout() is not None or not blocking:
        sock.setblocking(blocking)
    return sock


def describe(fd: int) -> Description:
    """Find out what `fd` is.

    Raises:
        OSError: It is not open.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        sock = borrowed(fd)
        try:
            address, port = address_text(sock.family, sock.getsockname())
            family = getattr(sock.family, "name", f"AF_{int(sock.family)}")
            listening = bool(sock.getsockopt(_socket.SOL_SOCKET, _SO_ACCEPTCONN))
            kind = _TYPES.get(sock.type, f"Type{int(sock.type)}")
            if family == "AF_NETLINK":
                kind, address = "Netlink", f"{sock.proto} {sock.getsockname()[1]}"
            return Description(kind, family, address, port, listening)
        finally:
            sock.detach()
    path = ""
    with contextlib.suppress(OSError):
        path = os.readlink(f"/proc/self/fd/{fd}")
    if stat.S_ISFIFO(mode):
        return Description("FIFO", "", path)
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return Description("Device", "", path)
    if is_mq(fd):
        return Description("MessageQueue", "", path)
    return Description("File" if stat.S_ISREG(mode) else "Other", "", path)


def _same_node(fd: int, path: str | None, check: int) -> bool:
    """Whether `path`, if given, is the node that `fd` is open on."""
    if path is None:
        return True
    mine = os.fstat(fd)
    try:
        other = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_IFMT(other.st_mode) != stat.S_IFMT(mine.st_mode):
        return False
    if check == stat.S_IFCHR:
        return other.st_rdev == mine.st_rdev
    return (other.st_dev, other.st_ino) == (mine.st_dev, mine.st_ino)


def is_fifo(fd: int, path: str | None = None) -> bool:
    """Whether `fd` is a FIFO or pipe, and the one at `path` if that is given (sd_is_fifo(3)).

    Raises:
        OSError: `fd` is not open.
    """
    return stat.S_ISFIFO(os.fstat(fd).st_mode) and _same_node(fd, path, stat.S_IFIFO)


def is_special(fd: int, path: str | None = None) -> bool:
    """Whether `fd` is a regular file or character device, and the one at `path` (sd_is_special(3)).

    Raises:
        OSError: `fd` is not open.
    """
    kind = stat.S_IFMT(os.fstat(fd).st_mode)
    return kind in (stat.S_IFREG, stat.S_IFCHR) and _same_node(fd, path, kind)


def is_socket(
    fd: int,
    family: int = 0,
    type: int = 0,  # noqa: A002
    listening: bool | None = None,
) -> bool:
    """Whether `fd` is a socket of that family (0: any), type (0: any) and state (sd_is_socket(3)).

    Raises:
        OSError: `fd` is not open.
    """
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    sock = borrowed(fd)
    try:
        accepts = bool(sock.getsockopt(_socket.SOL_SOCKET, _SO_ACCEPTCONN))
        return (
            (not type or sock.type == type)
            and (listening is None or accepts == listening)
            and (not family or sock.family == family)
        )
    finally:
        sock.detach()


def is_socket_inet(
    fd: int,
    family: int = 0,
    type: int = 0,  # noqa: A002
    listening: bool | None = None,
    port: int = 0,
) -> bool:
    """Whether `fd` is an IP socket, bound to `port` if that is not 0 (sd_is_socket_inet(3)).

    Raises:
        OSError: `fd` is not open.
        ValueError: `family` is neither 0, AF_INET nor AF_INET6.
    """
    if family not in (0, _socket.AF_INET, _socket.AF_INET6):
        raise ValueError(f"family {family} is not an IP family")
    if not is_socket(fd, family, type, listening):
        return False
    sock = borrowed(fd)
    try:
        if sock.family not in (_socket.AF_INET, _socket.AF_INET6):
            return False
        return not port or sock.getsockname()[1] == port
    finally:
        sock.detach()


def is_socket_unix(
    fd: int,
    type: int = 0,  # noqa: A002
    listening: bool | None = None,
    path: str | bytes | None = None,
) -> bool:
    """Whether `fd` is an AF_UNIX socket, bound to `path` if that is given (sd_is_socket_unix(3)).

    An empty `path` asks for an unnamed socket; one that begins with a NUL for an abstract name.

    Raises:
        OSError: `fd` is not open.
    """
    if not is_socket(fd, _socket.AF_UNIX, type, listening):
        return False
    if path is None:
        return True
    sock = borrowed(fd)
    try:
        name = sock.getsockname()
    finally:
        sock.detach()
    return os.fsencode(name) == os.fsencode(path)


def is_mq(fd: int, path: str | None = None) -> bool:
    """Whether `fd` is a POSIX message queue, and the one called `path` (sd_is_mq(3)).

    Raises:
        OSError: `fd` is not open.
        ValueError: `path` is not absolute.
    """
    if path is not None and not path.startswith("/"):
        raise ValueError(f"{path!r} is not the name of a message queue")
    mine = os.fstat(fd)
    if not stat.S_ISREG(mine.st_mode):
        return False
    from sockact.fd.mqueue import is_queue, same_queue  # noqa: PLC0415 - it loads ctypes

    return is_queue(fd) and (path is None or same_queue(fd, path))
