"""The processes that were started here, from their start until they are reaped."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType

from sockact.activation.spawn import Child, Starter
from sockact.errors import LaunchError
from sockact.fd.own import OwnedFd
from sockact.rendezvous.react import READ, Reactor
from sockact.supervise.exit import Exit
from sockact.supervise.family import OwnChildren, reap

Executed = Callable[[LaunchError | None], None]
Ended = Callable[[Exit], None]
Followed = Callable[[int, Exit | None], None]
"""Gets the number of a process that has ended, and how, if it was a child of this one."""


class Process:
    """A child of this process.

    Attributes:
        pid: Its process id, which is nobody else's until `Children.reap` has told of its end.
        failure: Why it could not become its program.
    """

    def __init__(self, child: Child, executed: Executed, ended: Ended) -> None:
        """Own `child`."""
        self.pid = child.pid
        self.failure: LaunchError | None = None
        self._child = child
        self._executed = executed
        self._told = child.report is None
        self.ended = ended

    @property
    def report(self) -> int | None:
        """The descriptor on which the child tells what became of execve(2), until it has.

        None from the beginning where it is known that it runs its program.
        """
        return None if self._child.report is None else self._child.report.fileno()

    def hear(self, reactor: Reactor) -> None:
        """Read what the child tells, once."""
        if self._told:
            return
        self._told = True
        if self.report is not None:
            reactor.unwatch(self.report)
        self.failure = self._child.started()
        self._executed(self.failure)

    def forget(self, reactor: Reactor) -> None:
        """Close what is ours."""
        if self.report is not None:
            reactor.unwatch(self.report)
        self._child.close()


class Children:
    """All of them; whatever else turns out to be a child of this process is reaped, too."""

    def __init__(self, reactor: Reactor) -> None:
        """Begin without any."""
        self._reactor = reactor
        self._processes: dict[int, Process] = {}
        self._adopted: dict[int, tuple[Followed, OwnedFd | None]] = {}
        self._own: OwnChildren | None = None

    def start(
        self,
        starter: Starter,
        fds: Sequence[int],
        executed: Executed,
        ended: Ended,
        told: Mapping[str, str] = MappingProxyType({}),
    ) -> Process:
        """Start a program.

        Args:
            starter: What to start.
            fds: What it gets; they stay the caller's.
            executed: Called when it has become its program, or could not; not if `Process.report`
                says that it has already.
            ended: Called when it has ended, after `executed`.
            told: Variables for this process alone.

        Raises:
            LaunchError: There is no process: fork(2) failed.
        """
        process = Process(starter.start(fds, told), executed, ended)
        self._processes[process.pid] = process
        if process.report is not None:
            self._reactor.watch(process.report, READ, lambda: process.hear(self._reactor))
        return process

    def adopt(self, pid: int, ended: Followed) -> bool:
        """Call `ended` at the end of a process that somebody else forked, until `forget`.

        Returns:
            Whether that can be: not of one that was started here or is followed by somebody else,
            nor of one that is gone.

        Source: MAINPID= of sd_notify(3); an orphan becomes a child of a subreaper (prctl(2)).
        """
        if pid in self._adopted:
            return self._adopted[pid][0] == ended
        if pid in self._processes:
            return False
        pidfd = _pidfd(pid)
        if pidfd is None and not is_child(pid):
            return False
        self._adopted[pid] = ended, pidfd
        if pidfd is not None:
            self._reactor.watch(pidfd.fileno(), READ, lambda: self._has_ended(pid))
        return True

    def _has_ended(self, pid: int) -> None:
        """Tell of the end of a process that was adopted, unless `reap` is about to."""
        ended, pidfd = self._adopted[pid]
        if is_child(pid):
            self._unwatch(pidfd)
            return
        self.forget(pid)
        ended(pid, None)

    def _unwatch(self, pidfd: OwnedFd | None) -> None:
        if pidfd is not None and not pidfd.closed:
            self._reactor.unwatch(pidfd.fileno())
            pidfd.close()

    def forget(self, pid: int) -> None:
        """Tell nobody of the end of a process that was adopted."""
        if pid in self._adopted:
            self._unwatch(self._adopted.pop(pid)[1])

    def others(self, own: AbstractSet[int]) -> AbstractSet[int]:
        """Return the processes that were started here, less some."""
        return self._processes.keys() - own if own else self._processes.keys()

    def has_strangers(self) -> bool:
        """Whether there may be children that were not started here, such as orphans."""
        if self._own is None:
            self._own = OwnChildren()
        pids = self._own.pids()
        return pids is None or not self._processes.keys() >= set(pids)

    def reap(self) -> None:
        """Collect every child that has ended."""
        for pid, how in reap():
            process, adopted = self._processes.pop(pid, None), self._adopted.get(pid)
            if process is not None:
                process.hear(self._reactor)
                process.forget(self._reactor)
                process.ended(how)
            elif adopted is not None:
                self.forget(pid)
                adopted[0](pid, how)

    def __len__(self) -> int:
        return len(self._processes)

    def close(self) -> None:
        """Let go of those that live; nothing can be started afterwards."""
        for process in self._processes.values():
            process.forget(self._reactor)
        self._processes = {}
        for pid in list(self._adopted):
            self.forget(pid)
        if self._own is not None:
            self._own.close()


def _pidfd(pid: int) -> OwnedFd | None:
    """Return a pidfd of a process; None if there is no such process, or no descriptor for it."""
    with contextlib.suppress(OSError, AttributeError):  # Linux before 5.3, and other systems
        return OwnedFd(os.pidfd_open(pid))
    return None


def is_child(pid: int) -> bool:
    """Whether a process is a child of this one."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
