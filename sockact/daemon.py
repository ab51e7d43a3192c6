"""A drop-in for ``systemd.daemon`` of python-systemd: ``from sockact import daemon``.

Same names, arguments and results, without the C library. Bare integers are the interface here, as
there: what `listen_fds` returns is owned by the caller. Programs that start fresh have a better
time with ``sockact.listen_fds()``.

Source: python-systemd's ``systemd.daemon``; sd-daemon(3).
"""

import os
import socket as _socket
from collections.abc import Sequence
from typing import Protocol

from sockact.activation import notify as _notify
from sockact.activation import receive as _receive
from sockact.activation.environ import FIRST_FD as LISTEN_FDS_START
from sockact.errors import NotifyError
from sockact.fd import probe as _probe

__all__ = [
    "LISTEN_FDS_START",
    "booted",
    "is_fifo",
    "is_mq",
    "is_socket",
    "is_socket_inet",
    "is_socket_sockaddr",
    "is_socket_unix",
    "listen_fds",
    "listen_fds_with_names",
    "notify",
]


class HasFileno(Protocol):
    """A file or socket object."""

    def fileno(self) -> int:
        """Return the descriptor's number."""


FileOrFd = int | HasFileno


def _number(fileobj: FileOrFd) -> int:
    return fileobj if isinstance(fileobj, int) else fileobj.fileno()


def _tristate(listening: int) -> bool | None:
    return None if listening < 0 else bool(listening)


def booted() -> bool:
    """Whether systemd is the init system (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system/")


def listen_fds(unset_environment: bool = True) -> list[int]:
    """Return the numbers of the descriptors this process was activated with (sd_listen_fds(3)).

    Raises:
        OSError: LISTEN_* are malformed, or a descriptor is not open.
    """
    return list(_listen(unset_environment)[0])


def listen_fds_with_names(unset_environment: bool = True) -> dict[int, str]:
    """Return the descriptors and their fd names (sd_listen_fds_with_names(3)).

    Raises:
        OSError: LISTEN_* are malformed, or a descriptor is not open.
    """
    return dict(zip(*_listen(unset_environment), strict=True))


def _listen(unset: bool) -> tuple[list[int], list[str]]:
    import errno  # noqa: PLC0415

    from sockact.errors import EnvironError  # noqa: PLC0415

    try:
        found = _receive.receive(os.environ, os.getpid(), unset=unset)
    except EnvironError as error:
        number = errno.EINVAL if error.fd < 0 else errno.EBADF
        raise OSError(number, f"{os.strerror(number)}: {error}") from None
    names = list(found.names)
    return found.detach(), names


def notify(
    status: str,
    unset_environment: bool = False,
    pid: int = 0,
    fds: Sequence[int] | None = None,
) -> bool:
    """Send a message to the service manager (sd_pid_notify_with_fds(3)).

    Args:
        status: Lines of ``KEY=VALUE``.
        unset_environment: Remove NOTIFY_SOCKET, so that this is the last message.
        pid: Speak for this process, if the kernel allows it; 0 is the calling one.
        fds: Descriptors to send along.

    Returns:
        Whether there was a manager to tell.

    Raises:
        OSError: It could not be told.
        OverflowError: `pid` is negative.
    """
    if pid < 0:
        raise OverflowError(f"{pid} is not a process id")
    speaker = 0 if pid == os.getpid() else pid
    try:
        return _notify.notify(status, [] if fds is None else list(fds), pid=speaker)
    except NotifyError as error:
        # As OSError the number decides on the class, such as ConnectionRefusedError.
        raise OSError(error.errno, str(error)) from None
    finally:
        if unset_environment:
            os.environ.pop("NOTIFY_SOCKET", None)


def is_fifo(fileobj: FileOrFd, path: str | None = None) -> bool:
    """Whether it is a FIFO, and the one at `path` (sd_is_fifo(3)).

    Raises:
        OSError: It is not open.
    """
    return _probe.is_fifo(_number(fileobj), path)


def is_socket(
    fileobj: FileOrFd,
    family: int = _socket.AF_UNSPEC,
    type: int = 0,  # noqa: A002
    listening: int = -1,
) -> bool:
    """Whether it is a socket of that family and type, and listens or not (sd_is_socket(3)).

    Raises:
        OSError: It is not open.
    """
    return _probe.is_socket(_number(fileobj), family, type, _tristate(listening))


def is_socket_inet(
    fileobj: FileOrFd,
    family: int = _socket.AF_UNSPEC,
    type: int = 0,  # noqa: A002
    listening: int = -1,
    port: int = 0,
) -> bool:
    """Whether it is an IP socket, bound to `port` (sd_is_socket_inet(3)).

    Raises:
        OSError: It is not open.
        ValueError: The family is no IP family.
    """
    return _probe.is_socket_inet(_number(fileobj), family, type, _tristate(listening), port)


def is_socket_sockaddr(
    fileobj: FileOrFd,
    address: str,
    type: int = 0,  # noqa: A002
    flowinfo: int = 0,
    listening: int = -1,
) -> bool:
    """Whether it is an IP socket bound to `address`: ``1.2.3.4[:port]`` or ``[v6][:port]``.

    Raises:
        OSError: It is not open.
        ValueError: The address does not parse, or an IPv4 address is to have flow information.
    """
    host, port = _split_address(address)
    if flowinfo and ":" not in host:
        raise ValueError("an IPv4 address has no flow information")
    fd = _number(fileobj)
    if not _probe.is_socket_inet(fd, 0, type, _tristate(listening), port):
        return False
    sock = _probe.borrowed(fd)
    try:
        name = sock.getsockname()
        family = sock.family
    finally:
        sock.detach()
    wanted = _socket.AF_INET6 if ":" in host else _socket.AF_INET
    if family != wanted or (flowinfo and (family != _socket.AF_INET6 or name[2] != flowinfo)):
        return False
    own = _socket.inet_pton(family, str(name[0]).partition("%")[0])
    return own == _socket.inet_pton(family, host)


def _split_address(address: str) -> tuple[str, int]:
    host, port = address, "0"
    if address.startswith("["):
        host, bracket, rest = address[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{address!r} is not [address]:port")
        port = rest[1:] or "0"
    elif address.count(":") == 1:
        host, _, port = address.partition(":")
    try:
        _socket.inet_pton(_socket.AF_INET6 if ":" in host else _socket.AF_INET, host)
    except OSError:
        raise ValueError(f"{address!r} is not a numeric address") from None
    if not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r} has no valid port")
    return host, int(port)


def is_socket_unix(
    fileobj: FileOrFd,
    type: int = 0,  # noqa: A002
    listening: int = -1,
    path: str | bytes | None = None,
) -> bool:
    """Whether it is a Unix socket, bound to `path` (sd_is_socket_unix(3)).

    Raises:
        OSError: It is not open.
    """
    return _probe.is_socket_unix(_number(fileobj), type, _tristate(listening), path)


def is_mq(fileobj: FileOrFd, path: str | None = None) -> bool:
    """Whether it is a message queue, and the one called `path` (sd_is_mq(3)).

    Raises:
        OSError: It is not open.
        ValueError: `path` is not absolute.
    """
    return _probe.is_mq(_number(fileobj), path)


def _listen_fds(unset_environment: bool = True) -> int:
    """Return how many descriptors this process was activated with."""
    return len(_listen(unset_environment)[0])


def _listen_fds_with_names(unset_environment: bool = True) -> tuple[int | str, ...]:
    """Return how many there are, and their fd names."""
    numbers, names = _listen(unset_environment)
    return (len(numbers), *names)


# What python-systemd's module calls the layer below: some programs import that.
_is_fifo, _is_mq, _is_socket, _is_socket_inet = is_fifo, is_mq, is_socket, is_socket_inet
_is_socket_unix, _is_socket_sockaddr = is_socket_unix, is_socket_sockaddr
