"""Calls of Linux's C library that Python has no name for, or makes at too high a price.

In a child that was forked each page that is written to is copied, and Python writes to the pages of
every object it looks at. A call into libc, prepared before the fork, touches next to nothing.
"""

import errno
import functools
import os
import signal
import struct
from typing import Any

from sockact.fd.place import close_on_exec_from

# The same on all architectures but alpha and mips, which answer ENOSYS (asm-generic/unistd.h).
PIDFD_OPEN = 434
_CLONE3 = 435
CLOSE_RANGE = 436

# uapi/linux/sched.h
_CLONE_CLEAR_SIGHAND = 0x100000000
_CLONE_ARGS = struct.pack("=8Q", _CLONE_CLEAR_SIGHAND, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)

_CLOSE_RANGE_CLOEXEC = 4  # uapi/linux/close_range.h
_PR_SET_PDEATHSIG = 1  # uapi/linux/prctl.h
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

_USED = ("chdir", "dup2", "fcntl", "getpid", "prctl", "setsid", "sigprocmask", "syscall", "umask")

MISSING = (errno.ENOSYS, errno.EINVAL, errno.EPERM)
"""How a kernel, or a filter before it, says that it does not have a system call or a flag."""


@functools.cache
def libc() -> Any:
    """Return libc, whose functions return -1 and leave `last_error`; None where there is none.

    The lock of the interpreter is held during calls: were it given up around a fork, the child
    might wait for it for ever.
    """
    if not hasattr(os, "pidfd_open"):
        return None  # not Linux
    try:
        import ctypes  # noqa: PLC0415 - slow to import
    except ImportError:
        return None
    library = ctypes.PyDLL(None, use_errno=True)
    number, text, pointer = ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p
    try:
        library.execve.argtypes = [pointer, pointer, pointer]
        library.signal.argtypes = [number, pointer]
        library.sprintf.argtypes = [pointer, text]
        library.statx.argtypes = [number, text, number, number, pointer]
        for name in _USED:
            getattr(library, name)
    except AttributeError:
        return None
    return library


def last_error() -> OSError:
    """Return why the last call of `libc` failed."""
    import ctypes  # noqa: PLC0415

    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def address_of(block: bytearray) -> int:
    """Return where in memory a block is, which may not be resized any more."""
    import ctypes  # noqa: PLC0415

    return ctypes.addressof(ctypes.c_char.from_buffer(block))


def number_in(block: bytearray, offset: int) -> Any:
    """Return an argument for calls of `libc`: the 64-bit number that is in a block by then."""
    import ctypes  # noqa: PLC0415

    return ctypes.c_ulonglong.from_buffer(block, offset)


def die_with_parent(number: int, parent: int) -> None:
    """Have the kernel send this process a signal when the thread that forked it ends.

    Args:
        number: The signal.
        parent: The parent's process id as that knows it: if it is another by now, it has ended.

    Source: prctl(2), PR_SET_PDEATHSIG. A change of the user clears it.
    """
    library = libc()
    if library is not None:
        library.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), number)


def clear_ambient_capabilities() -> None:
    """Clear this process's ambient capabilities (capabilities(7))."""
    library = libc()
    if library is not None:
        library.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def close_all_on_exec(first: int) -> None:
    """Set FD_CLOEXEC on every open descriptor from `first` on, in one call where there is one."""
    library = libc()
    if library is None or library.syscall(CLOSE_RANGE, first, -1, _CLOSE_RANGE_CLOEXEC):
        close_on_exec_from(first)


def clone() -> int | None:
    """Fork, without what Python and libc do around a fork.

    In a process with several threads that would be wanting. In one without it is wasted on a child
    that is about to execute a program, and touches so much that it takes longer than the fork.

    Returns:
        The child's process id; in the child, which has the default action for every signal that
        had a handler, 0. None if the system does not have this; then nothing has happened.

    Raises:
        OSError: There can be no process (EAGAIN, ENOMEM).

    Source: clone(2), clone3().
    """
    library = libc()
    if library is None:
        return None
    pid: int = library.syscall(_CLONE3, _CLONE_ARGS, len(_CLONE_ARGS))
    if pid < 0 and (error := last_error()).errno not in MISSING:
        raise error
    return None if pid < 0 else pid
