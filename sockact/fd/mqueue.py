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


def open_queue(name: str, mode: int, max_messages: int, message_size: int) -> int:
    """Open a queue for reading, non-blocking and close-on-exec; make it if it is missing.

    Args:
        name: ``/name``.
        mode: Access mode of a new queue; the process's umask applies.
        max_messages: Messages it holds; used only if `message_size` is positive too.
        message_size: Bytes in a message.

    Returns:
        A new descriptor, owned by the caller.

    Raises:
        OSError: mq_open(3) failed.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_CREAT
    limits = None
    if max_messages > 0 and message_size > 0:
        limits = ctypes.byref(_Attributes(mq_maxmsg=max_messages, mq_msgsize=message_size))
    call = _function("mq_open")
    return _checked(call(os.fsencode(name), flags, ctypes.c_uint(mode), limits))


def queue_exists(name: str) -> bool:
    """Whether there is a queue of that name."""
    fd = _function("mq_open")(os.fsencode(name), os.O_RDONLY | os.O_CLOEXEC)
    if fd >= 0:
        os.close(fd)
        return True
    return ctypes.get_errno() != errno.ENOENT


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
