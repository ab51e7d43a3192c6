"""Starting a program as a child process, with descriptors, as an `Execution` says.

Where nothing but the program itself can fail, it is started in this process's memory: that takes a
tenth of the time of a fork, however large this process is. posix_spawn(3) does that for a program
that need not know its own process id, `sockact.activation.vfork` for one that must. For all others,
and to find out what failed, there is a fork. What it fails at comes back over a pipe that execve
closes: an end of file means success.

This is for a process with one thread. Its children must not be reaped behind its back: neither is
SIGCHLD ignored, nor does anybody wait for any child. Every descriptor from 3 on that is open here
becomes close-on-exec.
"""

import errno
import fcntl
import os
import resource
import signal
import struct
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NoReturn

from sockact.activation.birth import (
    SIGNALS,
    STREAMS,
    Action,
    Failure,
    actions,
    carry_out,
    get_signal,
    image_of,
    preparations,
)
from sockact.activation.environ import FIRST_FD, LISTEN_FDNAMES
from sockact.activation.execution import Execution, Step, StreamFile
from sockact.activation.image import Image
from sockact.activation.layout import Layout
from sockact.activation.libc import clone, close_all_on_exec
from sockact.activation.program import explain
from sockact.activation.vfork import Call, chain
from sockact.errors import LaunchError, WorkingDirectoryError
from sockact.fd.own import OwnedFd

_REPORT = struct.Struct("=iii")
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Child:
    """A process that has been started, or is about to be.

    Whoever has it waits for the process (waitpid(2)), and closes this.

    Attributes:
        pid: Its process id, which is nobody else's before it has been waited for.
        report: Becomes readable once it is known whether the program runs, for `started`; None if
            it is known already that it does.
    """

    __slots__ = ("_execution", "pid", "report")

    def __init__(self, execution: Execution, pid: int, report: OwnedFd | None) -> None:
        """Take ownership of `report`."""
        self._execution = execution
        self.pid = pid
        self.report = report

    def started(self) -> LaunchError | None:
        """Return why the program does not run, or None if it does; closes `report`.

        The process of one that does not run ends with `LaunchError.status`.

        Raises:
            BlockingIOError: That is not known yet.
        """
        if self.report is None:
            return None
        told = os.read(self.report.fileno(), _REPORT.size)
        self.report.close()
        self.report = None
        if not told:
            return None
        step, number, which = _REPORT.unpack(told)
        return _failure(self._execution, Failure(Step(step), number, which))

    def wait_started(self) -> LaunchError | None:
        """Wait until it is known, then return as `started`."""
        if self.report is not None:
            os.set_blocking(self.report.fileno(), True)
        return self.started()

    def close(self) -> None:
        """Close the descriptor; the process is left alone."""
        if self.report is not None:
            self.report.close()
            self.report = None


class Starter:
    """Starts one program, as often as it is wanted; what is the same each time is worked out once.

    Attributes:
        execution: The program, and how it is started.
    """

    def __init__(self, execution: Execution) -> None:
        """Do nothing yet."""
        self.execution = execution
        self._image: Image | None = None
        self._seen: object = None
        self._calls: tuple[Call, ...] = ()

    def start(self, fds: Sequence[int] = (), told: Mapping[str, str] = _NOTHING) -> Child:
        """Start it.

        Args:
            fds: Descriptors, which the caller goes on owning. The first ``len(execution.names)``
                are placed at 3, 4, 5 …; a `Stdio` that is a number means one of these or of those
                behind.
            told: Variables that this one process gets, none of which it has in the `Execution`.

        Raises:
            LaunchError: There can be no process now (EAGAIN, ENOMEM), or no descriptor (EMFILE),
                or a string holds a NUL (EINVAL). Everything else is told by `Child.started`.
        """
        assert len(fds) >= len(self.execution.names)
        close_all_on_exec(FIRST_FD)
        try:
            layout = Layout(self.execution, fds)
            try:
                return self._borrow(layout, told) or self._fork(layout, told)
            finally:
                layout.close()
        except OSError as error:
            number = error.errno or errno.EINVAL
        except ValueError:
            number = errno.EINVAL
        step = Step.DESCRIPTORS if number in (errno.EMFILE, errno.ENFILE) else Step.EXEC
        raise _failure(self.execution, Failure(step, number, 0))

    def _told(self, variables: Mapping[str, str]) -> Image:
        """Return what the process is to become.

        Raises:
            ValueError: A string holds a NUL.
        """
        image = self._image = self._image or image_of(self.execution)
        image.tell(variables)
        return image

    def _borrow(self, layout: Layout, told: Mapping[str, str]) -> Child | None:
        """Start it in our memory; return None if that cannot be, for whatever reason."""
        execution = self.execution
        if not _is_simple(execution, layout):
            return None
        # It inherits from us what only the new process itself could change otherwise.
        umask = None if execution.umask is None else os.umask(execution.umask)
        here = -1
        try:
            if execution.directory is not None:
                here = os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)
                os.chdir(execution.directory)
            if _knows_itself(execution):
                pid = self._call(layout, told)
            else:
                pid = _posix_spawn(execution, layout, told)
        except (OSError, ValueError):
            return None
        finally:
            if here >= 0:
                os.fchdir(here)
                os.close(here)
            if umask is not None:
                os.umask(umask)
        return Child(execution, pid, None) if pid else None

    def _call(self, layout: Layout, told: Mapping[str, str]) -> int:
        """Start it by calls of libc; return its process id, or 0."""
        contexts = chain() if threading.active_count() == 1 else None
        if contexts is None or layout.end >= resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            return 0
        for number in {*layout.sources}:
            os.get_inheritable(number)  # raises OSError if it is not open
        image = self._told(told)  # which has what its calls have the addresses of
        handlers = [*map(get_signal, SIGNALS)]
        seen = image.address, handlers, layout.moves, layout.kept, layout.openings
        if seen != self._seen:
            calls = image.calls(contexts.pid, layout.end)
            prepared = preparations(self.execution, layout, handlers)
            self._calls = (*prepared, *calls) if calls else ()
            self._seen = seen
        return contexts.run(self._calls) if self._calls else 0

    def _fork(self, layout: Layout, told: Mapping[str, str]) -> Child:
        """Start it in a fork.

        Raises:
            OSError: There can be no process, or no descriptor.
            ValueError: A string holds a NUL.
        """
        todo = actions(self.execution, layout, self._told(told))
        reader, writer = _pipe(layout.end)
        try:
            pid = _divide(todo, reader, writer)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return Child(self.execution, pid, OwnedFd(reader))


def spawn(execution: Execution, fds: Sequence[int] = ()) -> Child:
    """Start a program once, as `Starter.start` does."""
    return Starter(execution).start(fds)


def _is_simple(execution: Execution, layout: Layout) -> bool:
    """Whether another process than the new one can do everything, without ever waiting.

    To open a file may take for ever (a FIFO), so that is left to the new one.
    """
    return not (
        execution.death_signal
        or execution.limits
        or execution.nice is not None
        or execution.oom_score_adjust is not None
        or execution.who is not None
        or layout.opens_files
        or (execution.ignore_sigpipe and get_signal(signal.SIGPIPE) != signal.SIG_IGN)
    )


def _knows_itself(execution: Execution) -> bool:
    """Whether the program is told its own process id."""
    return bool(execution.pid_variables or (execution.listen and execution.names))


def _posix_spawn(execution: Execution, layout: Layout, told: Mapping[str, str]) -> int:
    """Start a program by posix_spawn(3); return its process id, or 0."""
    if not hasattr(os, "posix_spawn"):
        return 0
    dup2 = os.POSIX_SPAWN_DUP2
    moves = [(dup2, *move) for move in layout.moves]
    moves += [(dup2, number, number) for number in layout.kept]
    moves += [(dup2, opening.other, opening.number) for opening in layout.openings]
    return os.posix_spawn(
        execution.path,
        execution.argv,
        {**execution.environ, **told},
        file_actions=moves,
        setsid=execution.session,
        setsigmask=(),
        # glibc leaves two signals ignored that it keeps for itself.
        setsigdef=_WITHOUT_SIGPIPE if execution.ignore_sigpipe else SIGNALS,
    )


_WITHOUT_SIGPIPE = [number for number in SIGNALS if number != signal.SIGPIPE]


def _pipe(first: int) -> tuple[int, int]:
    """Return a pipe whose read end is non-blocking, and whose write end is at `first` or above."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(reader, False)
        if writer < first:
            low, writer = writer, -1
            try:
                writer = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, first)
            finally:
                os.close(low)
    except BaseException as error:
        os.close(reader)
        if isinstance(error, OSError) and error.errno == errno.EINVAL:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from None
        raise
    return reader, writer


def _divide(todo: Sequence[Action], reader: int, writer: int) -> int:
    """Fork, and return the child's process id.

    No handler of this process runs in the child. Signals that have one are blocked until they have
    their default action there; those that came before are handled here, before the fork.

    Raises:
        OSError: There can be no process.
    """
    handled = [number for number in SIGNALS if callable(get_signal(number))]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    try:
        pid = clone() if threading.active_count() == 1 else None
        if pid is None:
            pid = os.fork()
            if not pid:
                for number in handled:
                    signal.signal(number, signal.SIG_DFL)
        if not pid:
            os.close(reader)  # it may need the number
            _live(todo, writer)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _live(todo: Sequence[Action], writer: int) -> NoReturn:
    """Be the new process."""
    step = Step.EXEC
    try:
        step, number, which = carry_out(todo)
        os.write(writer, _REPORT.pack(step.value, number, which))
    finally:
        os._exit(step.value)


def _failure(execution: Execution, failure: Failure) -> LaunchError:
    """Return what a start failed at, as an error."""
    step, number, which = failure
    if step is Step.DIRECTORY:
        return WorkingDirectoryError(execution.directory or "", number, os.strerror(number))
    program = execution.argv[0] if execution.argv else execution.path
    if step is Step.EXEC:
        path = os.path.join(execution.directory or "", execution.path)
        names = ":".join(execution.names) if execution.listen else ""
        return explain(program, path, number, {LISTEN_FDNAMES: names})
    reason = f"{_what(execution, step, which)}: {os.strerror(number)}"
    return LaunchError(program, number, reason, step.name.lower(), step.value)


def _what(execution: Execution, step: Step, which: int) -> str:
    if step in STREAMS:
        number = STREAMS.index(step)
        name = ("standard input", "standard output", "standard error")[number]
        stream = (execution.stdin, execution.stdout, execution.stderr)[number]
        return f"{name} {stream.path}" if isinstance(stream, StreamFile) else name
    if step is Step.LIMITS:
        return f"Limit{execution.limits[which].resource}"
    if step is Step.USER and execution.who:
        return f"uid {execution.who.uid}"
    if step is Step.GROUP and execution.who:
        return f"gid {execution.who.gid}"
    return step.name.lower().replace("_", " ")
