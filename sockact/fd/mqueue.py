"""POSIX message queues, which Python's standard library lacks (mq_overview(7)).

Three calls of the C library by ctypes; imported only where a queue is asked for.
"""

import ctypes
import errno
import os


class _Attributes(ctypes.Structure):
    """``struct mq_attr`` of mq_getattr(3)."""

    _fields_ = [
        ("mq_flags", ctypes.c_long),
        ("mq_maxmsg", ctypes.c_long),
        ("mq_msgsize", ctypes.c_long),
        ("mq_curmsgs", ctypes.c_long),
        ("__reserved", ctypes.c_long * 4),
    ]


def _function(name: str) -> "ctypes._NamedFuncPointer":
    """Return a function of the C library, or of librt where that has it (glibc before 2.34).

    Raises:
        OSError: ENOSYS, this system has no message queues.
    """
    for library in (None, "librt.so.1"):
        try:
            return getattr(ctypes.CDLL(library, use_errno=True), name)  # type: ignore[no-any-return]
        except (AttributeError, OSError):
            continue
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def open_queue(name: str, mode: int, max_messages: int, message_size: int) -> tuple[int, bool]:
    """Open a queue for reading, non-blocking and close-on-exec; make it if it is missing.

    Args:
        name: ``/name``.
        mode: Access mode of a new queue; the process's umask applies.
        max_messages: Messages it holds; used only if `message_size` is positive too.
        message_size: Bytes in a message.

    Returns:
        A new descriptor, owned by the caller, and whether the queue was made for it.

    Raises:
        OSError: mq_open(3) failed.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    limits = None
    if max_messages > 0 and message_size > 0:
        limits = ctypes.byref(_Attributes(mq_maxmsg=max_messages, mq_msgsize=message_size))
    call, path = _function("mq_open"), os.fsencode(name)
    try:
        new = flags | os.O_CREAT | os.O_EXCL
        return _checked(call(path, new, ctypes.c_uint(mode), limits)), True
    except FileExistsError:
        return _checked(call(path, flags)), False


def same_queue(fd: int, name: str) -> bool:
    """Whether `fd` is open on the queue of that name, as far as it may be opened."""
    mine, other = os.fstat(fd), _look(name)
    return other is not None and (mine.st_dev, mine.st_ino) == (other.st_dev, other.st_ino)


def _look(name: str) -> os.stat_result | None:
    """Open a queue for a moment: /dev/mqueue need not be mounted."""
    try:
        fd = _checked(_function("mq_open")(os.fsencode(name), os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


class _Time(ctypes.Structure):
    """``struct timespec``."""

    _fields_ = [("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long)]


def discard(fd: int) -> bool:
    """Take a message from a queue and throw it away, without waiting, though it may block.

    Returns:
        Whether there was one.

    Raises:
        OSError: mq_timedreceive(3) failed for another reason.
    """
    attributes = _Attributes()
    _checked(_function("mq_getattr")(fd, ctypes.byref(attributes)))
    size = attributes.mq_msgsize
    past = ctypes.byref(_Time(0, 0))
    buffer = ctypes.create_string_buffer(size)
    try:
        receive = _function("mq_timedreceive")
        _checked(receive(fd, buffer, ctypes.c_size_t(size), None, past))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.ETIMEDOUT, errno.EINTR):
            return False
        raise
    return True


def unlink_queue(name: str) -> None:
    """Remove a queue's name.

    Raises:
        OSError: mq_unlink(3) failed.
    """
    _checked(_function("mq_unlink")(os.fsencode(name)))


def is_queue(fd: int) -> bool:
    """Whether `fd` is open on a message queue."""
    try:
        attributes = _Attributes()
        return bool(_function("mq_getattr")(fd, ctypes.byref(attributes)) == 0)
    except OSError:
        return False
