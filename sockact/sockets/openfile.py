"""Opening what is no socket: FIFOs, special files and message queues.

Modes are exactly those of the unit: unlike systemd, whose umask is 0, this process has one that it
neither obeys here nor touches.
"""

import errno
import os
import stat

from sockact import directives as d
from sockact.fd.own import OwnedFd
from sockact.sockets.task import Task


def open_fifo(task: Task, path: str) -> int:
    """Make a FIFO if it is missing, and open it.

    Returns:
        A new descriptor, owned by the caller.

    Raises:
        OSError: `task.step` failed, or something else is in the way.
    """
    mode = task.spec.get(d.SOCKET_MODE)
    task.made.parents(path, task.spec.get(d.DIRECTORY_MODE))
    task.step = "mkfifo"
    _check_mode(mode)
    try:
        os.mkfifo(path, mode)
        made = True
        task.made.node(path)
    except FileExistsError:
        made = False
    task.step = "open"
    # O_RDWR: with a writer of its own the FIFO never shows end of file.
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW
    fd = OwnedFd(os.open(path, flags))
    try:
        info = os.fstat(fd.fileno())
        if not stat.S_ISFIFO(info.st_mode):
            raise OSError(errno.EEXIST, "something else than a FIFO is there")
        if made:
            os.fchmod(fd.fileno(), mode)
        elif stat.S_IMODE(info.st_mode) != mode or not task.is_ours(info):
            raise OSError(errno.EEXIST, "the FIFO there has another mode or owner")
        _set_pipe_size(task, fd.fileno())
        os.set_blocking(fd.fileno(), task.blocking)
    except BaseException:
        fd.close()
        raise
    return fd.release()


def _check_mode(mode: int) -> None:
    """Refuse what makes systemd fail: it takes the node it has just made for another's."""
    if mode > 0o777:
        raise OSError(errno.EINVAL, f"SocketMode={mode:04o} is for sockets only; at most 0777 here")


def _set_pipe_size(task: Task, fd: int) -> None:
    size = task.spec.get(d.PIPE_SIZE)
    if size:
        import fcntl  # noqa: PLC0415

        try:
            fcntl.fcntl(fd, 1031, size)  # F_SETPIPE_SZ
        except (OSError, OverflowError) as error:
            reason = error if isinstance(error, OSError) else OSError(0, "too large")
            task.warn(task.unset(d.PIPE_SIZE.name, reason))


def open_special(task: Task, path: str) -> int:
    """Open a character device or regular file; see `open_fifo`."""
    task.step = "open"
    access = os.O_RDWR if task.spec.get(d.WRITABLE) else os.O_RDONLY
    flags = access | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW
    fd = OwnedFd(os.open(path, flags))
    try:
        mode = os.fstat(fd.fileno()).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
            raise OSError(errno.EEXIST, "neither a regular file nor a character device")
        os.set_blocking(fd.fileno(), task.blocking)
    except BaseException:
        fd.close()
        raise
    return fd.release()


def open_queue(task: Task, name: str) -> int:
    """Make a message queue if it is missing, and open it; see `open_fifo`."""
    from sockact.fd.mqueue import open_queue as mq_open  # noqa: PLC0415 - it loads ctypes

    spec = task.spec
    mode = spec.get(d.SOCKET_MODE)
    limits = spec.get(d.MQUEUE_MAX_MESSAGES), spec.get(d.MQUEUE_MESSAGE_SIZE)
    task.step = "mq_open"
    _check_mode(mode)
    number, made = mq_open(name, mode, *limits)
    fd = OwnedFd(number)
    try:
        info = os.fstat(fd.fileno())
        if made:
            task.made.queue(name)
            os.fchmod(fd.fileno(), mode)
        elif info.st_mode & 0o777 != mode or not task.is_ours(info):
            raise OSError(errno.EEXIST, "the queue there has another mode or owner")
        os.set_blocking(fd.fileno(), task.blocking)
    except BaseException:
        fd.close()
        raise
    return fd.release()
