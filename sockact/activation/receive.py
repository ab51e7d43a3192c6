"""Adopting what this process was activated with, once for the whole process."""

import os
import threading
from collections.abc import MutableMapping

from sockact.activation.environ import FIRST_FD, LISTEN_PID, VARIABLES, decode
from sockact.errors import EnvironError
from sockact.fd.pidfd import pidfd_id
from sockact.sockets.socketset import NamedSocket, SocketSet

_lock = threading.Lock()
_received: SocketSet | None = None
_failure: EnvironError | None = None


def own_pidfd_id(pid: int | None = None) -> int | None:
    """Return the number that identifies a process for ever, or None where there is no pidfs.

    Args:
        pid: The process; this one by default.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        fd = os.pidfd_open(os.getpid() if pid is None else pid)
    except OSError:
        return None
    try:
        return pidfd_id(fd)
    except OSError:
        return None
    finally:
        os.close(fd)


def receive(environ: MutableMapping[str, str], pid: int, *, unset: bool) -> SocketSet:
    """Adopt the descriptors that LISTEN_* pass to process `pid`.

    They become close-on-exec and are owned by the set; O_NONBLOCK is not touched.

    Args:
        environ: The environment.
        pid: The process that the variables must name.
        unset: Remove LISTEN_* from `environ`, whatever comes of it.

    Returns:
        The set; empty, with the reason, if nothing was passed to that process.

    Raises:
        EnvironError: A variable is malformed, or a descriptor that it promises is not open.
            Nothing is adopted.
    """
    try:
        passed = decode(environ, pid, lambda: own_pidfd_id(pid))
    finally:
        if unset:
            for variable in VARIABLES:
                environ.pop(variable, None)
    numbers = range(FIRST_FD, FIRST_FD + len(passed.names))
    for fd in numbers:
        try:
            os.get_inheritable(fd)
        except OSError as error:
            raise EnvironError(
                "LISTEN_FDS", f"descriptor {fd} was promised but: {error.strerror}", fd
            ) from None
    for fd in numbers:
        os.set_inheritable(fd, False)
    return SocketSet(
        [NamedSocket(name, FIRST_FD + i) for i, name in enumerate(passed.names)],
        passed.reason,
    )


def listen_fds(*, pid: int | None = None, unset_environment: bool = True) -> SocketSet:
    """Return what this process was socket-activated with, adopted at the first call.

    Every call in a process returns the same set, and so does every call in a child forked
    afterwards, with its own copies of the descriptors. The process owns the set: close it, or
    single sockets, to stop serving. Safe to call from any thread.

    Args:
        pid: Whose claim to accept. By default only this process's own. A worker that was forked
            by the process that was activated, before anybody there called this, passes
            ``os.getppid()``.
        unset_environment: Remove LISTEN_PID, LISTEN_PIDFDID, LISTEN_FDS and LISTEN_FDNAMES, so
            that programs started from here do not read them.

    Raises:
        EnvironError: A variable is malformed, or a descriptor is not open.

    Source: sd_listen_fds(3).
    """
    global _received, _failure  # noqa: PLW0603 - descriptors 3 and up are the process's, too
    with _lock:
        if _failure is not None and LISTEN_PID not in os.environ:
            # The variables are gone, but this must not pass for having been started by hand.
            raise _failure
        if _received is None or (not len(_received) and pid is not None):
            try:
                found = receive(
                    os.environ, os.getpid() if pid is None else pid, unset=unset_environment
                )
            except EnvironError as error:
                _failure = error
                raise
            if not len(found):
                # Remembered only if there was something: a later call may ask for another pid.
                return found
            _received = found
        return _received


def _new_lock() -> None:
    """Replace a lock that another thread may have held at the moment of the fork."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)
