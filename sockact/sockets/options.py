"""Setting socket options as systemd does, on listeners and on connections alike."""

import errno
import socket as _socket

from sockact.sockets.plan import FORCED_BUFFERS, Plan
from sockact.sockets.task import Task
from sockact.spec import SockOption

_INT_MAX = 2**31 - 1


def set_option(sock: _socket.SocketType, option: SockOption) -> None:
    """Set one option.

    Raises:
        OSError: setsockopt(2) failed; ERANGE for a value that is no C int.
    """
    value = option[2]
    if isinstance(value, int) and value > _INT_MAX:
        raise OSError(errno.ERANGE, f"{value} is more than the kernel takes")
    sock.setsockopt(*option)


def set_late(sock: _socket.SocketType, plan: Plan, task: Task) -> None:
    """Set what is set after listen(), and again on every accepted connection.

    What cannot be set is a warning of `task`.
    """
    for name, option in plan.late:
        try:
            if option[:2] in FORCED_BUFFERS:
                _set_buffer(sock, name, option, task)
            else:
                set_option(sock, option)
        except OSError as error:
            task.warn(task.unset(name, error))


def _set_buffer(sock: _socket.SocketType, name: str, option: SockOption, task: Task) -> None:
    """Set a buffer size as systemd does: politely, then by force (the kernel doubles it)."""
    level, number, size = option
    assert isinstance(size, int)
    if size > _INT_MAX:
        raise OSError(errno.ERANGE, f"{size} is more than the kernel takes")
    if sock.getsockopt(level, number) == 2 * size:
        return
    sock.setsockopt(level, number, size)
    if sock.getsockopt(level, number) == 2 * size:
        return
    try:
        sock.setsockopt(level, FORCED_BUFFERS[level, number], size)
    except PermissionError:
        got = sock.getsockopt(level, number) // 2
        task.warn(f"{name}={size}: limited to {got} bytes by the system; more needs root")
