"""The processes of a service where there is no control group to ask.

What a service has started stays among this process's descendants: as a "child subreaper" it gets
the orphans that a daemon leaves by forking twice, as PID 1 it gets them anyhow. A process is the
service's if it descends from its main process, or if it was adopted and is of its session or has
its INVOCATION_ID in the environment that it was executed with. What leaves all three, an orphan
that called setsid(2) and executes something with an emptied environment, is not found.

Source: prctl(2), PR_SET_CHILD_SUBREAPER; proc(5); ``unit_kill_context()`` in systemd's
src/core/unit.c.
"""

import contextlib
import errno
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple, TypeVar

import attrs

from sockact.fd.own import OwnedFd
from sockact.spec import AsValue
from sockact.supervise.exit import Exit

CONTROL_GROUP: Final = "control-group"
MIXED: Final = "mixed"
PROCESS: Final = "process"
NONE: Final = "none"

_T = TypeVar("_T")

_PR_SET_CHILD_SUBREAPER = 36  # include/uapi/linux/prctl.h
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ROUNDS = 10  # how often a family that forks while it is killed is looked at again
_ENVIRON_MAX = 4 << 20  # bytes: more than ARG_MAX/4 cannot be an environment by default


@functools.cache
def _is_linux() -> bool:
    return sys.platform == "linux" and os.path.exists("/proc/self/stat")


def become_subreaper() -> bool:
    """Have orphaned descendants become this process's children, from now on.

    Returns:
        Whether they do: always as PID 1; never on systems other than Linux.
    """
    if os.getpid() == 1:
        return True
    if sys.platform != "linux":
        return False
    import ctypes  # noqa: PLC0415 - slow to import

    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return prctl is not None and prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


# --- room to look ---------------------------------------------------------------------------------


class _Spare:
    """A descriptor that is given up where there is no other to look with (EMFILE).

    Else a process that cannot be looked at would be taken for dead.
    """

    handle: OwnedFd | None = None

    def keep(self) -> None:
        if self.handle is None:
            with contextlib.suppress(OSError):
                self.handle = OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def give_up(self) -> None:
        handle, self.handle = self.handle, None
        if handle is not None:
            handle.close()


_spare = _Spare()


def keep_room() -> None:
    """Keep a descriptor, so that processes can be looked at whatever else is open."""
    _spare.keep()


def give_up_room() -> None:
    """Close it."""
    _spare.give_up()


def _look(look: Callable[[str], _T], path: str) -> _T:
    """Look at a file or directory of /proc, if need be with the spare descriptor."""
    try:
        return look(path)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE) or _spare.handle is None:
            raise
    _spare.give_up()
    try:
        return look(path)
    finally:
        _spare.keep()


# --- who is there ---------------------------------------------------------------------------------


class _Stat(NamedTuple):
    """What /proc/PID/stat says that matters here."""

    parent: int
    session: int
    start: int
    alive: bool


def _read(path: str, limit: int) -> bytes:
    """Return a file of /proc, or nothing if the process is gone or somebody else's."""

    def read(path: str) -> bytes:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        found = b""
        try:
            while len(found) < limit and (piece := os.read(fd, 65536)):
                found += piece
        finally:
            os.close(fd)
        return found

    try:
        return _look(read, path)
    except OSError:
        return b""


def _stat(pid: int) -> _Stat | None:
    text = _read(f"/proc/{pid}/stat", 1)
    fields = text[text.rfind(b")") + 2 :].split()
    if len(fields) < 20:
        return None
    # The first thread may have ended while others live on: then it looks like a zombie.
    alive = fields[0] not in (b"Z", b"X") or int(fields[17]) > 1
    return _Stat(int(fields[1]), int(fields[3]), int(fields[19]), alive)


def _children_once(pid: int) -> list[int]:
    found: list[int] = []
    try:
        threads = _look(os.listdir, f"/proc/{pid}/task")
    except OSError:
        return []
    for thread in threads:
        found += map(int, _read(f"/proc/{pid}/task/{thread}/children", 1 << 30).split())
    return found


def _children(pid: int) -> list[int]:
    """Return the children of all threads of a process, zombies included.

    The kernel may skip one if another ends while it lists them (fs/proc/array.c,
    get_children_pid()); what ended then shows as a difference to the next list.
    """
    found = _children_once(pid)
    for _ in range(_ROUNDS):
        if not found or (again := _children_once(pid)) == found:
            break
        found = again
    return found


class OwnChildren:
    """The children of this process, zombies included, for whoever looks often.

    None leaves the list before this process has reaped it, so one look tells the truth.
    """

    def __init__(self) -> None:
        """Open the list; owns a descriptor until `close`."""
        self._file: OwnedFd | None = None
        with contextlib.suppress(OSError):
            path = f"/proc/self/task/{os.getpid()}/children"
            self._file = OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def pids(self) -> list[int] | None:
        """Return them.

        None if the system does not tell (CONFIG_PROC_CHILDREN), or not for all threads at once.
        """
        if self._file is None or threading.active_count() > 1:
            return None
        found, number = b"", self._file.fileno()
        while piece := os.pread(number, _PAGE, len(found)):
            found += piece
            if len(piece) < _PAGE // 2:
                break  # it gives a page at a time, as full as it can be (fs/seq_file.c)
        return [*map(int, found.split())]

    def close(self) -> None:
        """Close the list."""
        if self._file is not None:
            self._file.close()
            self._file = None


@functools.cache
def _has_children_file() -> bool:
    """Whether the kernel lists children (CONFIG_PROC_CHILDREN)."""
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def _tree() -> dict[int, list[int]]:
    """Return everybody's children from a look at all processes."""
    found: dict[int, list[int]] = {}
    for name in _look(os.listdir, "/proc"):
        if name.isdecimal() and (stat := _stat(int(name))) is not None:
            found.setdefault(stat.parent, []).append(int(name))
    return found


def _has_id(pid: int, invocation_id: str) -> bool:
    if not invocation_id:
        return False
    environ = b"\0" + _read(f"/proc/{pid}/environ", _ENVIRON_MAX)
    return b"\0INVOCATION_ID=" + invocation_id.encode() + b"\0" in environ


@attrs.frozen(eq=False, repr=False)
class Family(AsValue):
    """What tells the processes of a service.

    Attributes:
        invocation_id: The INVOCATION_ID that its processes were started with; may be empty.
        main: Its main process; 0 if it has none. It must not have been reaped.
        session: The session that the main process was given, also when that is gone; 0 for none.
        control: The process of ExecReload= or the like that runs just now; 0 for none.
        others: Children of this process that are known to be somebody else's, such as the main
            processes of other services: it saves looking at them.
    """

    invocation_id: str
    main: int
    session: int
    control: int = 0
    others: AbstractSet[int] = frozenset()

    def members(self) -> set[int]:
        """Return its processes that are alive; zombies are not.

        Reads /proc: some 25 microseconds for each of them, and for each child of this process that
        is not among the others. Where there is no /proc, only the main and control process are
        known.
        """
        if not _is_linux():
            return {pid for pid in (self.main, self.control) if pid and _exists(pid)}
        return {pid for pid, one in _scan(self).items() if one.stat.alive}

    def has(self, pid: int) -> bool:
        """Whether a process is one of them, or was, and has not been waited for."""
        return pid in (_scan(self) if _is_linux() else self.members())


class _Found(NamedTuple):
    """A member: its stat, and whether it is this process's own child, which only we can reap."""

    stat: _Stat
    ours: bool


def _scan(family: Family) -> dict[int, _Found]:
    """Find the members, dead ones that were not reaped included."""
    me = os.getpid()
    tree = None if _has_children_file() else _tree()
    found: dict[int, _Found] = {}
    named, others = {family.main, family.control}, family.others
    seen: set[int] = set()

    def children(pid: int) -> list[int]:
        return _children(pid) if tree is None else tree.get(pid, [])

    def own_children() -> list[int]:
        return [pid for pid in children(me) if pid not in others or pid in named]

    def belongs(pid: int) -> bool:
        if pid in named:
            return True
        stat = _stat(pid)
        if stat is None or not stat.alive:
            return False
        in_session = family.session and stat.session == family.session and not _is_strange(family)
        return bool(in_session) or _has_id(pid, family.invocation_id)

    # An orphan whose parent ends meanwhile comes to us behind our back: until nobody new has come.
    # Each member descends from one that is our child by now, so if nobody is there, nobody comes.
    while fresh := [pid for pid in own_children() if pid not in seen]:
        seen.update(fresh)
        todo = [(pid, True) for pid in fresh if belongs(pid)]
        while todo:
            pid, ours = todo.pop()
            stat = None if pid in found else _stat(pid)
            if stat is not None:
                found[pid] = _Found(stat, ours)
                todo += [(child, False) for child in children(pid)]
    return found


def _is_strange(family: Family) -> bool:
    """Whether the number of its session has become another process's, and perhaps session's.

    The kernel gives it away only when the session has ended (kernel/pid.c).
    """
    leader = family.session
    if not leader or leader == family.main:
        return False
    stat = _stat(leader)
    return stat is not None and stat.alive and not _has_id(leader, family.invocation_id)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


# --- telling them ---------------------------------------------------------------------------------


class Told(NamedTuple):
    """Who was sent a signal.

    Attributes:
        pids: They were; some of them may have ended already.
        refused: They were not, because they are somebody's whom we may not signal (EPERM).
    """

    pids: set[int]
    refused: set[int]


def kill(
    mode: str, family: Family, number: int, *, final: bool = False, hang_up: bool = False
) -> Told:
    """Send a signal to the processes of a service that KillMode= names.

    SIGCONT follows, so that what is stopped gets it too, except after SIGKILL and SIGCONT itself.
    Who forks meanwhile is looked for again until nobody new is there.

    Args:
        mode: KillMode=: `CONTROL_GROUP`, all of them; `MIXED`, the main and control process, but
            all if `final`; `PROCESS`, these two; `NONE`, nobody.
        family: Whose.
        number: The signal.
        final: Whether this is FinalKillSignal=, after TimeoutStopSec=.
        hang_up: SendSIGHUP=: SIGHUP follows as well, unless `final`.

    Returns:
        Who was told. Nobody, if nobody is alive.

    Raises:
        ValueError: There is no such mode.
    """
    if mode not in (CONTROL_GROUP, MIXED, PROCESS, NONE):
        raise ValueError(f"{mode!r} is no KillMode=")
    told = Told(set(), set())
    numbers = [number]
    if number not in (signal.SIGKILL, signal.SIGCONT):
        numbers.append(signal.SIGCONT)
    if hang_up and not final and number != signal.SIGHUP:
        numbers.append(signal.SIGHUP)
    if mode == NONE:
        return told
    for pid in (family.main, family.control):
        if pid:
            _tell(told, pid, numbers)
    if mode == CONTROL_GROUP or (mode == MIXED and final):
        if _is_linux():
            _tell_all(told, family, numbers)
        elif family.session:
            for each in numbers:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(family.session, each)
    return told


def _tell_all(told: Told, family: Family, numbers: Sequence[int]) -> None:
    for _ in range(_ROUNDS):
        found = {
            pid: one
            for pid, one in _scan(family).items()
            if one.stat.alive and pid not in told.pids and pid not in told.refused
        }
        for pid, one in found.items():
            if one.ours:
                _tell(told, pid, numbers)  # its number stays its own until we reap it
            else:
                _tell_stranger(told, pid, one.stat.start, numbers)
        if not found:
            return


def _tell(told: Told, pid: int, numbers: Sequence[int]) -> None:
    try:
        for number in numbers:
            os.kill(pid, number)
        told.pids.add(pid)
    except ProcessLookupError:
        return
    except PermissionError:
        told.refused.add(pid)


def _tell_stranger(told: Told, pid: int, start: int, numbers: Sequence[int]) -> None:
    """Signal a process that somebody else may reap, and whose number may be given away then."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError:
        _tell(told, pid, numbers)  # Linux before 5.3, or a sandbox
        return
    try:
        # What the descriptor is of is settled; now, whether it is the one that was found.
        stat = _stat(pid)
        if stat is None or stat.start != start:
            return
        for number in numbers:
            signal.pidfd_send_signal(fd, number)
        told.pids.add(pid)
    except ProcessLookupError:
        return
    except PermissionError:
        told.refused.add(pid)
    finally:
        os.close(fd)


# --- taking leave of them -------------------------------------------------------------------------


def reap() -> Iterator[tuple[int, Exit]]:
    """Take the status of each child that has ended, orphans that came to us included.

    The number of a process may be given away once it has been yielded. Ends when no child is dead.
    """
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, Exit.of(status)
