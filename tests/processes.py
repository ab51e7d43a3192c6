"""Looking at other processes through proc(5), and ending whatever was started.

A program that calls `adopt_orphans` inherits each process whose parent has died, so that all that
began below it stays below it: daemons, new masters, what a supervisor left behind.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from tests.helpers import SECONDS

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of all descendants whose parent dies (PR_SET_CHILD_SUBREAPER of prctl(2)).

    Raises:
        OSError: The kernel does not know it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def children(pid: int) -> set[int]:
    """Return the children of all threads of a process, zombies included; none if it is gone.

    The kernel may skip one if another ends just then (fs/proc/array.c): so it is asked twice.
    """
    return _children(pid) | _children(pid)


def _children(pid: int) -> set[int]:
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="ascii")
                found.update(map(int, text.split()))
    return found


def descendants(pid: int) -> set[int]:
    """Return all children and children's children of a process, zombies included."""
    found: set[int] = set()
    new = children(pid)
    while new:
        found |= new
        new = {child for one in new for child in children(one)} - found
    return found


def state(pid: int) -> str:
    """Return the letter of a process's state as ps(1) shows it, or "" if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]


def living(pids: Iterable[int]) -> set[int]:
    """Return those that have not ended. A zombie has."""
    return {pid for pid in pids if state(pid) not in ("", "Z", "X")}


def zombies(pid: int) -> set[int]:
    """Return the children of a process that have ended and were not waited for."""
    return {child for child in children(pid) if state(child) == "Z"}


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def anonymous(pid: int) -> int:
    """Return the bytes of memory that a process has for itself, RssAnon of proc(5)."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    line = next(line for line in text.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def end_all(keep: Collection[int] = ()) -> None:
    """Kill all descendants of this process, and wait for those that are its children.

    Args:
        keep: Children that are to live, with their descendants.

    Raises:
        AssertionError: One does not end.
    """
    deadline = time.monotonic() + SECONDS
    me = os.getpid()
    while mine := children(me) - set(keep):
        assert time.monotonic() < deadline, f"these do not end: {mine}"
        for pid in mine | {one for child in mine for one in descendants(child)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in mine:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.005)
