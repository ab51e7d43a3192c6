"""Taking from a shared descriptor without ever waiting, though it may block.

O_NONBLOCK belongs to the open file description: whoever shares it may rely on it as it is, so it is
not changed here. SO_RCVTIMEO is shared as well, and connections that arrive meanwhile inherit it.
accept4(2) and read(2) have no flag for "do not wait", and to poll before is no promise: another
holder may take what was there. So such a descriptor is polled, and a timer interrupts the call that
waits all the same.
"""

import errno
import os
import select
import signal
import socket as _socket
import sys
import threading

from sockact.fd.probe import borrowed

_INTERRUPT = 0.02  # seconds until a call that waits is interrupted, and again


def accept(fd: int) -> _socket.socket:
    """Take a connection from a listener.

    In a process with a default timeout the socket object is not blocking, else it is.

    Returns:
        A close-on-exec socket, which the caller owns.

    Raises:
        OSError: What accept(2) says; EAGAIN or EINTR if there is none.
    """
    if not os.get_blocking(fd):
        return _accept(fd)
    _check(fd)
    if not _can_interrupt():
        return _accept(fd)
    return _socket.socket(fileno=_interrupted("accept4", fd, None, None, _socket.SOCK_CLOEXEC))


def _accept(fd: int) -> _socket.socket:
    listener = borrowed(fd)
    try:
        return listener.accept()[0]
    finally:
        listener.detach()


def read(fd: int, size: int) -> int:
    """Read from anything, and throw away what was read.

    Returns:
        How many bytes; 0 at the end of the file.

    Raises:
        OSError: What read(2) says; EAGAIN or EINTR if there is nothing.
    """
    if not os.get_blocking(fd):
        return len(os.read(fd, size))
    _check(fd)
    if not _can_interrupt():
        return len(os.read(fd, size))
    import ctypes  # noqa: PLC0415 - costs start-up time, and hardly any descriptor needs it

    return _interrupted("read", fd, ctypes.create_string_buffer(size), ctypes.c_size_t(size))


def _check(fd: int) -> None:
    """Raise BlockingIOError if there is nothing to take."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(0):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _can_interrupt() -> bool:
    return sys.platform == "linux" and threading.current_thread() is threading.main_thread()


def _interrupted(name: str, *arguments: object) -> int:
    """Call a function of the C library such that a signal ends it: EINTR.

    Python's own calls would go on. SIGALRM keeps the handler, as one may still be on its way.
    """
    import ctypes  # noqa: PLC0415 - as above

    call = getattr(ctypes.CDLL(None, use_errno=True), name)
    signal.signal(signal.SIGALRM, _wake)
    # It comes again and again, as the first may come before the call.
    before = signal.setitimer(signal.ITIMER_REAL, _INTERRUPT, _INTERRUPT)
    try:
        result: int = call(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _wake(_number: int, _frame: object) -> None:
    """Do nothing: the signal has interrupted the call."""
