"""The processes that were started here, from their start until they are reaped."""

import os
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from sockact.activation.execution import Execution
from sockact.activation.spawn import Child, spawn
from sockact.errors import LaunchError
from sockact.rendezvous.react import READ, Reactor
from sockact.supervise.exit import Exit
from sockact.supervise.family import OwnChildren, reap

Executed = Callable[[LaunchError | None], None]
Ended = Callable[[Exit], None]


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
        self._adopted: dict[int, Ended] = {}
        self._own: OwnChildren | None = None

    def start(
        self, execution: Execution, fds: Sequence[int], executed: Executed, ended: Ended
    ) -> Process:
        """Start a program.

        Args:
            execution: What to start.
            fds: What it gets; they stay the caller's.
            executed: Called when it has become its program, or could not; not if `Process.report`
                says that it has already.
            ended: Called when it has ended, after `executed`.

        Raises:
            LaunchError: There is no process: fork(2) failed.
        """
        process = Process(spawn(execution, fds), executed, ended)
        self._processes[process.pid] = process
        if process.report is not None:
            self._reactor.watch(process.report, READ, lambda: process.hear(self._reactor))
        return process

    def adopt(self, pid: int, ended: Ended) -> bool:
        """Call `ended` at the end of a child that somebody else forked; return whether it is ours.

        Source: MAINPID= of sd_notify(3); an orphan becomes a child of a subreaper (prctl(2)).
        """
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        self._adopted[pid] = ended
        return True

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
            process, adopted = self._processes.pop(pid, None), self._adopted.pop(pid, None)
            if process is not None:
                process.hear(self._reactor)
                process.forget(self._reactor)
                process.ended(how)
            elif adopted is not None:
                adopted(how)

    def __len__(self) -> int:
        return len(self._processes)

    def close(self) -> None:
        """Let go of those that live; nothing can be started afterwards."""
        for process in self._processes.values():
            process.forget(self._reactor)
        self._processes = {}
        if self._own is not None:
            self._own.close()
