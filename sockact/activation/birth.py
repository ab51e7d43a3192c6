"""What a forked process does until it is the program that it was forked for.

All of it is worked out before: the new process goes through a list of calls. Those that every start
needs are calls into libc, where there is one, since Python would touch a hundred pages for them.
"""

import contextlib
import errno
import fcntl
import functools
import os
import resource
import signal
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sockact.activation.environ import LISTEN_PID, LISTEN_PIDFDID, encode
from sockact.activation.execution import Execution, Limit, Step
from sockact.activation.image import Image, image
from sockact.activation.layout import Layout, Opening
from sockact.activation.libc import die_with_parent, last_error, libc
from sockact.activation.program import take_groups, take_user
from sockact.activation.receive import own_pidfd_id
from sockact.activation.vfork import Call

SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
"""Every signal whose action can be chosen."""

get_signal: Callable[[int], object] = getattr(signal, "_signal", signal).getsignal
"""signal.getsignal() with numbers in place of enumerations: in a twentieth of the time."""

STREAMS = (Step.STDIN, Step.STDOUT, Step.STDERR)

Action = tuple[Step, int, Callable[..., object], tuple[object, ...]]
"""A step, which one of several, and a call: one that raises OSError, or a function of `libc`."""

# The functions of libc that Python has under the same names, for systems where it cannot be called.
_PLAIN: Any = types.SimpleNamespace(
    chdir=os.chdir,
    dup2=os.dup2,
    fcntl=fcntl.fcntl,
    setsid=os.setsid,
    signal=signal.signal,
    sigprocmask=lambda how, _none, _old: signal.pthread_sigmask(how, ()),
    umask=os.umask,
)

_NO_SIGNALS = bytes(128)
"""An empty sigset_t."""


class Failure(NamedTuple):
    """At what a new process has failed."""

    step: Step
    errno: int
    which: int


def actions(execution: Execution, layout: Layout, image: Image) -> list[Action]:
    """Return what the new process does, in the order of systemd's exec_invoke().

    The last action does not return.
    """
    return [
        *_descriptors(execution, layout),
        *_signals(execution),
        *_streams(layout),
        *_limits(execution),
        *_person(execution),
        (Step.EXEC, 0, image.become, ()),
    ]


def carry_out(actions: Sequence[Action]) -> Failure:
    """Become the program; return why that was not possible."""
    step, which = Step.EXEC, 0
    try:
        for step, which, call, arguments in actions:  # noqa: B007 - looked at when a call fails
            result = call(*arguments)
            if isinstance(result, int) and result < 0:
                raise last_error()
    except OSError as error:
        return Failure(step, error.errno or errno.EINVAL, which)
    except MemoryError:
        return Failure(step, errno.ENOMEM, which)
    except BaseException:  # noqa: BLE001 - whatever it is, the child must not live on
        return Failure(step, errno.EINVAL, which)
    return Failure(step, errno.EINVAL, which)


def preparations(execution: Execution, layout: Layout, handlers: Sequence[object]) -> list[Call]:
    """Return what a process of `sockact.activation.vfork` does before it becomes the program.

    Args:
        execution: One without anything that can fail, but for the program.
        layout: One without files to open.
        handlers: Of each of `SIGNALS`, what `get_signal` returns.
    """
    default = int(signal.SIG_DFL)
    stays = signal.SIGPIPE if execution.ignore_sigpipe else 0
    found: list[Call] = [
        ("signal", int(number), default)
        for number, handler in zip(SIGNALS, handlers, strict=True)
        if handler != default and number != stays
    ]
    if execution.session:
        found.append(("setsid",))
    found += [("dup2", *move) for move in layout.moves]
    found += [("fcntl", number, fcntl.F_SETFD, 0) for number in layout.kept]
    found += [("dup2", opening.other, opening.number) for opening in layout.openings]
    return found


def _descriptors(execution: Execution, layout: Layout) -> Iterator[Action]:
    c = libc() or _PLAIN
    if execution.umask is not None:
        yield Step.DESCRIPTORS, 0, c.umask, (execution.umask,)
    for move in layout.moves:
        yield Step.DESCRIPTORS, 0, c.dup2, move
    for number in layout.kept:
        yield Step.DESCRIPTORS, 0, c.fcntl, (number, fcntl.F_SETFD, 0)


def _signals(execution: Execution) -> Iterator[Action]:
    """Give every ignored signal its default action, and then block none.

    execve() gives it to those with a handler; until then, whoever has forked has seen to them.
    """
    c = libc() or _PLAIN
    for number in SIGNALS:
        stays = number == signal.SIGPIPE and execution.ignore_sigpipe
        if get_signal(number) == signal.SIG_IGN and not stays:
            yield Step.SIGNALS, 0, c.signal, (int(number), int(signal.SIG_DFL))
    if execution.ignore_sigpipe:
        yield Step.SIGNALS, 0, c.signal, (int(signal.SIGPIPE), int(signal.SIG_IGN))
    yield Step.SIGNALS, 0, c.sigprocmask, (int(signal.SIG_SETMASK), _NO_SIGNALS, None)
    if execution.session:
        yield Step.SESSION, 0, c.setsid, ()


def _streams(layout: Layout) -> Iterator[Action]:
    for opening in layout.openings:
        yield STREAMS[opening.number], 0, _open_stream, (opening,)


def _limits(execution: Execution) -> Iterator[Action]:
    if execution.oom_score_adjust is not None:
        yield Step.OOM_SCORE, 0, _set_oom_score, (execution.oom_score_adjust,)
    if execution.nice is not None:
        yield Step.NICE, 0, _set_nice, (execution.nice,)
    for index, limit in enumerate(execution.limits):
        yield Step.LIMITS, index, _set_limit, (limit,)


def _person(execution: Execution) -> Iterator[Action]:
    """Give who it is and where: the directory is entered with that user's authority."""
    if execution.who is not None:
        yield Step.GROUP, 0, take_groups, (execution.who,)
        yield Step.USER, 0, take_user, (execution.who,)
    if execution.death_signal:
        # A change of the user would clear it.
        yield Step.SIGNALS, 0, die_with_parent, (execution.death_signal, os.getpid())
    if execution.directory is not None and execution.directory_optional:
        yield Step.DIRECTORY, 0, _try_to_enter, (execution.directory,)
    elif execution.directory is not None:
        c = libc() or _PLAIN
        yield Step.DIRECTORY, 0, c.chdir, (os.fsencode(execution.directory),)


def image_of(execution: Execution) -> Image:
    """Return the program that a process is to become.

    Raises:
        ValueError: A string holds a NUL.
    """
    environ = dict(execution.environ)
    pids = [*execution.pid_variables]
    pidfd_id = None
    if execution.listen and execution.names:
        environ |= encode(execution.names, 0, None)
        pids.append(LISTEN_PID)
        pidfd_id = LISTEN_PIDFDID if _has_pidfd_ids() else None
    for name in execution.withheld:
        environ.pop(name, None)
        if name in execution.environ:
            environ[name] = execution.environ[name]
        pids = [one for one in pids if one != name]
        pidfd_id = None if pidfd_id == name else pidfd_id
    return image(execution.path, execution.argv, environ, pids, pidfd_id, shell=execution.shell)


@functools.cache
def _has_pidfd_ids() -> bool:
    return own_pidfd_id() is not None


def _open_stream(opening: Opening) -> None:
    """Open a standard stream, or make it a duplicate of another."""
    number = opening.number
    if not opening.path:
        os.dup2(opening.other, number)
        return
    opened = _open(opening.path, opening.flags)
    if opened == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(opened, number)
        os.close(opened)


def _open(path: str, flags: int) -> int:
    """Open a file, or connect to a Unix socket, as systemd's acquire_path() does."""
    try:
        return os.open(path, flags | os.O_NOCTTY, 0o666)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    import socket as _socket  # noqa: PLC0415 - hardly ever

    with _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM) as sock:
        try:
            sock.connect(path)
        except OSError as error:
            if error.errno in (errno.ENOTSOCK, errno.EINVAL):
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO)) from None
            raise
        access = flags & os.O_ACCMODE
        if access != os.O_RDWR:
            sock.shutdown(_socket.SHUT_WR if access == os.O_RDONLY else _socket.SHUT_RD)
        return sock.detach()


def _try_to_enter(directory: str) -> None:
    try:
        os.chdir(directory)
    except OSError:
        os.chdir("/")


def _set_oom_score(value: int) -> None:
    with contextlib.suppress(PermissionError):  # as in user namespaces
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)


def _set_nice(level: int) -> None:
    """Set the nice level, or come as close as we may (systemd's setpriority_closest())."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, level)
    except PermissionError:
        current = os.getpriority(os.PRIO_PROCESS, 0)
        if level > current:
            raise
        allowed = 20 - min(resource.getrlimit(resource.RLIMIT_NICE)[0], 40)
        if current > allowed:
            os.setpriority(os.PRIO_PROCESS, 0, allowed)


_LIMITS = {"LOCKS": 10, "RTTIME": 15}
"""Those that Python has no name for (asm-generic/resource.h)."""


def _set_limit(limit: Limit) -> None:
    """Set a resource limit, or come as close as we may (systemd's setrlimit_closest())."""
    name = f"RLIMIT_{limit.resource}"
    number = getattr(resource, name, _LIMITS.get(limit.resource, -1))
    try:
        resource.setrlimit(number, (limit.soft, limit.hard))
    except ValueError:  # EPERM, or EINVAL
        highest = resource.getrlimit(number)[1]
        if not _size(limit.soft) <= _size(limit.hard):
            raise
        if _size(limit.hard) <= _size(highest):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from None
        soft = min(limit.soft, highest, key=_size)
        resource.setrlimit(number, (soft, highest))


def _size(limit: int) -> float:
    return float("inf") if limit == resource.RLIM_INFINITY else limit
