"""sockact.supervise.family, with real daemons, orphans and zombies.

Each test runs in a process of its own, which becomes a subreaper, so that orphans come to it and
not to the test runner.
"""

import contextlib
import functools
import os
import signal
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from sockact.supervise import family as module
from sockact.supervise.exit import Exit
from sockact.supervise.family import (
    CONTROL_GROUP,
    MIXED,
    NONE,
    PROCESS,
    Family,
    become_subreaper,
    kill,
    reap,
)
from tests.helpers import SECONDS

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")


def apart(test: Callable[[], None]) -> Callable[[], None]:
    """Run a test in a child that is a subreaper, and end whatever it has left."""

    @functools.wraps(test)
    def run() -> None:
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                os.close(read)
                assert become_subreaper()
                test()
                status = 0
            except BaseException:  # noqa: BLE001 - told to the parent
                os.write(write, traceback.format_exc().encode()[-60000:])
            finally:
                _end_all()
                os._exit(status)
        os.close(write)
        with open(read, "rb") as file:
            said = file.read().decode()
        assert os.waitpid(pid, 0)[1] == 0, said

    return run


def _end_all() -> None:
    while pids := module._children(os.getpid()):
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _start(
    script: str | Sequence[str], environ: Mapping[str, str] | None = None, *, setsid: bool = True
) -> int:
    """Start a shell script, or a command, as a service would be, and return its pid."""
    argv = ["/bin/sh", "-c", script] if isinstance(script, str) else list(script)
    pid = os.fork()
    if not pid:
        try:
            if setsid:
                os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDWR), 2)
            os.execvpe(argv[0], argv, {"PATH": os.environ["PATH"], **(environ or {})})
        finally:
            os._exit(127)
    return pid


def _service(script: str | Sequence[str]) -> Family:
    invocation_id = uuid.uuid4().hex
    pid = _start(script, {"INVOCATION_ID": invocation_id})
    return Family(invocation_id, pid, pid)


def _until(condition: Callable[[], object], what: str = "") -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what or "it took too long"
        time.sleep(0.005)


def _names(pids: set[int]) -> list[str]:
    """Return the commands of processes, with their last argument, in order."""
    found = []
    for pid in pids:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
        found.append(b" ".join([os.path.basename(words[0]), *words[-1:]]).decode())
    return sorted(found)


def _has(family: Family, *names: str) -> None:
    """Wait until exactly these are members."""
    _until(lambda: _calm(family) == sorted(names), f"{names}")


def _calm(family: Family) -> list[str] | None:
    """Return the commands of the members, or None while one ends or has not executed yet."""
    with contextlib.suppress(OSError, IndexError):
        return _names(family.members())
    return None


@apart
def test_descendants_are_members() -> None:
    """Children and grandchildren of the main process are; the children of others are not."""
    one = _service("sh -c 'sleep 1001 & sleep 1002 & wait' & sleep 1003 & wait")
    two = _service("sleep 2001 & exec sleep 2002")
    _until(lambda: len(one.members()) == 5)
    _has(two, "sleep 2001", "sleep 2002")
    assert not one.members() & two.members()


@apart
def test_a_daemon_that_forks_twice_is_found_by_its_session() -> None:
    """An orphan that has stayed in the session is a member, whatever its environment."""
    one = _service("(env -i sleep 1001 &); exec sleep 1002")
    two = _service("exec sleep 2001")
    _has(one, "sleep 1001", "sleep 1002")
    _has(two, "sleep 2001")


@apart
def test_a_daemon_with_a_session_of_its_own_is_found_by_its_invocation_id() -> None:
    """An orphan that called setsid(2) is a member by its environment."""
    one = _service("(setsid sleep 1001 &); exec sleep 1002")
    two = _service("exec sleep 2001")
    _has(one, "sleep 1001", "sleep 1002")
    _has(two, "sleep 2001")


@apart
def test_what_hides_is_found_while_its_parent_lives() -> None:
    """Without session and environment a descendant is a member, but as an orphan it is lost."""
    one = _service("sh -c 'setsid env -i sleep 1001 & wait' & wait")
    _until(lambda: "sleep 1001" in (_calm(one) or ()))
    os.kill(one.main, signal.SIGKILL)
    _until(lambda: len(one.members()) == 2)  # a zombie by now
    shell = next(pid for pid in one.members() if _names({pid})[0].startswith("sh "))
    os.kill(shell, signal.SIGKILL)
    _until(lambda: not one.members())


@apart
def test_the_dead_are_no_members() -> None:
    """A zombie is none, whoever is to reap it, but what it has left behind is one."""
    one = _service("sleep 1001 & sleep 1002 & exit 3")
    _has(one, "sleep 1001", "sleep 1002")
    assert dict(reap())[one.main] == Exit(3)
    gone = Family(one.invocation_id, 0, one.session)
    _has(gone, "sleep 1001", "sleep 1002")
    for pid in gone.members():
        os.kill(pid, signal.SIGKILL)
    _until(lambda: not gone.members())  # not reaped yet
    assert len(dict(reap())) == 2


@apart
def test_a_service_without_a_session_and_an_id() -> None:
    """Then only what descends from the main process is known."""
    pid = _start("sleep 1001 & wait", setsid=False)
    _until(lambda: len(Family("", pid, 0).members()) == 2)
    assert not Family("", 0, 0).members()


@apart
def test_the_number_of_a_session_that_was_given_away() -> None:
    """The session of a service that ended long ago is not taken for the one that has its number."""
    two = _service("sleep 2001 & wait")
    _until(lambda: len(two.members()) == 2)
    one = Family(uuid.uuid4().hex, 0, two.session)
    assert not one.members()
    assert len(Family(two.invocation_id, 0, two.session).members()) == 2


@apart
def test_others_are_not_looked_at() -> None:
    """A child that is said to be somebody else's is none, nor are its children."""
    one = _service("exec sleep 1001")
    same = _start("sleep 2001 & wait", {"INVOCATION_ID": one.invocation_id})
    _until(lambda: len(one.members()) == 3)
    _has(Family(one.invocation_id, one.main, one.session, others={same}), "sleep 1001")


@apart
def test_own_children() -> None:
    """They are listed, zombies and orphans too; not while there are several threads."""
    with contextlib.closing(module.OwnChildren()) as own:
        assert own.pids() == []
        one = _start("sleep 1001 & exec sleep 1002")
        _until(lambda: own.pids() == [one] and len(module._children(one)) == 1)
        os.kill(one, signal.SIGKILL)
        _until(lambda: len(own.pids() or ()) == 2)
        os.waitpid(one, 0)
        many = [_start(["true"]) for _ in range(600)]
        assert own.pids() == [*(own.pids() or ())[:1], *many]
        done = threading.Event()
        thread = threading.Thread(target=done.wait)
        thread.start()
        assert own.pids() is None
        done.set()
        thread.join()


@apart
def test_the_control_process_is_a_member() -> None:
    """So are its children; it has its own session."""
    main, control = _start("exec sleep 1001"), _start("sleep 1002 & exec sleep 1003")
    both = Family("", main, main, control)
    _has(both, "sleep 1001", "sleep 1002", "sleep 1003")
    _has(Family("", 0, 0, control), "sleep 1002", "sleep 1003")


_THREADS = """
import ctypes, os, sys, threading, time
def run():
    if not os.fork():
        os.execvp("sleep", ["sleep", "1001"])
    time.sleep(1000)
threading.Thread(target=run).start()
if sys.argv[1] == "headless":
    ctypes.CDLL(None).pthread_exit(None)
time.sleep(1000)
"""


@apart
def test_children_of_a_thread_are_members() -> None:
    """The kernel lists them with the thread that made them."""
    one = _service([sys.executable, "-W", "ignore", "-c", _THREADS, "whole"])
    _until(lambda: "sleep 1001" in (_calm(one) or ()))
    assert len(one.members()) == 2


@apart
def test_a_process_without_its_first_thread_is_alive() -> None:
    """It looks like a zombie, but its other threads live."""
    one = _service([sys.executable, "-W", "ignore", "-c", _THREADS, "headless"])
    state = Path(f"/proc/{one.main}/stat")
    _until(lambda: state.read_text().rpartition(")")[2].split()[0] == "Z")
    assert one.main in one.members()
    _until(lambda: len(one.members()) == 2)


@apart
def test_without_the_children_file() -> None:
    """Where the kernel lists no children, a look at all processes finds the same."""
    one = _service("(setsid sleep 1001 &); (env -i sleep 1002 &); sleep 1003 & wait")
    _until(lambda: len(one.members()) == 4)
    found = one.members()
    module._has_children_file.cache_clear()
    vars(module)["_has_children_file"] = lambda: False
    assert one.members() == found


@apart
def test_without_proc() -> None:
    """Elsewhere than on Linux the main process and its process group are told."""
    one = _service("sleep 1001 & exec sleep 1002")
    _has(one, "sleep 1001", "sleep 1002")
    vars(module)["_is_linux"] = lambda: False
    assert one.members() == {one.main}
    assert kill(CONTROL_GROUP, one, signal.SIGTERM).pids == {one.main}
    _until(lambda: not _alive(one.main) and len(module._children(os.getpid())) == 2)
    assert {end.signal for end in _reap_all(2).values()} == {signal.SIGTERM}
    assert not one.members()


def _alive(pid: int) -> bool:
    stat = module._stat(pid)
    return stat is not None and stat.alive


def _reap_all(count: int) -> dict[int, Exit]:
    found: dict[int, Exit] = {}

    def look() -> bool:
        found.update(reap())
        return len(found) >= count

    _until(look)
    return found


# --- kill -----------------------------------------------------------------------------------------

_ALL = ("sleep 1001", "sleep 1002", "sleep 1003")
_SCRIPT = "(setsid sleep 1001 &); sleep 1002 & exec sleep 1003"
_REST = _ALL[:2]


def _survivors(mode: str, *, final: bool) -> Callable[[], None]:
    expected = {
        (CONTROL_GROUP, False): (),
        (CONTROL_GROUP, True): (),
        (MIXED, False): _REST,
        (MIXED, True): (),
        (PROCESS, False): _REST,
        (PROCESS, True): _REST,
        (NONE, False): _ALL,
        (NONE, True): _ALL,
    }[mode, final]

    def test() -> None:
        one = _service(_SCRIPT)
        two = _service("exec sleep 2001")
        _has(one, *_ALL)
        before = one.members()
        told = kill(mode, one, signal.SIGKILL if final else signal.SIGTERM, final=final)
        _has(one, *expected)
        assert told.pids == before - one.members()
        assert not told.refused
        _has(two, "sleep 2001")

    return test


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("mode", [CONTROL_GROUP, MIXED, PROCESS, NONE])
def test_who_is_told(mode: str, final: bool) -> None:
    """The table of KillMode= in systemd.kill(5)."""
    apart(_survivors(mode, final=final))()


@apart
def test_the_rest_is_told_after_the_main_process_has_gone() -> None:
    """With no main process, control-group and a final mixed reach what is left; process nobody."""
    one = _service(_SCRIPT)
    _has(one, *_ALL)
    os.kill(one.main, signal.SIGKILL)
    _until(lambda: one.main in dict(reap()))
    gone = Family(one.invocation_id, 0, one.session)
    assert not kill(PROCESS, gone, signal.SIGKILL, final=True).pids
    assert not kill(MIXED, gone, signal.SIGTERM).pids
    _has(gone, *_REST)
    assert len(kill(MIXED, gone, signal.SIGKILL, final=True).pids) == 2
    _until(lambda: not gone.members())


@apart
def test_the_control_process_is_told_too() -> None:
    """Also in the modes that leave the rest alone."""
    one = _service(_SCRIPT)
    control = _start("exec sleep 1004")
    both = Family(one.invocation_id, one.main, one.session, control)
    _has(both, *_ALL, "sleep 1004")
    assert kill(PROCESS, both, signal.SIGTERM).pids == {one.main, control}
    _has(both, *_REST)


@apart
def test_what_is_stopped_is_told() -> None:
    """SIGCONT follows, so that a stopped process gets SIGTERM."""
    one = _service(_SCRIPT)
    _has(one, *_ALL)
    kill(CONTROL_GROUP, one, signal.SIGSTOP)  # and continues them at once
    for pid in one.members():
        os.kill(pid, signal.SIGSTOP)
    kill(CONTROL_GROUP, one, signal.SIGTERM)
    _until(lambda: not one.members())


_TRAPS = "trap '' TERM; trap 'echo HUP; exit 0' HUP; echo; while :; do sleep 0.01; done"


@apart
def test_send_sighup() -> None:
    """SIGHUP follows if asked for, but not the last signal, and not itself."""
    read, write = os.pipe()
    os.dup2(write, 1)
    os.close(write)
    one = _service(_TRAPS)
    assert os.read(read, 100) == b"\n"
    kill(PROCESS, one, signal.SIGTERM)
    kill(PROCESS, one, signal.SIGTERM, final=True, hang_up=True)
    os.set_blocking(read, False)
    with contextlib.suppress(BlockingIOError):
        pytest.fail(f"it was told {os.read(read, 100)!r}")
    os.set_blocking(read, True)
    kill(PROCESS, one, signal.SIGTERM, hang_up=True)
    assert os.read(read, 100) == b"HUP\n"


@apart
def test_a_family_that_grows_while_it_is_killed() -> None:
    """Who is forked meanwhile is killed too."""
    one = _service("while :; do sleep 1001 & sleep 1002 & done")
    _until(lambda: len(one.members()) > 50)
    told = kill(CONTROL_GROUP, one, signal.SIGKILL, final=True)
    assert len(told.pids) > 50
    _until(lambda: not one.members())


@apart
def test_another_process_with_the_number_of_a_member_is_spared() -> None:
    """Who was found is signalled, not who has its number now."""
    one = _service("exec sleep 1001")
    _has(one, "sleep 1001")
    stat = module._stat(one.main)
    assert stat is not None
    told = module.Told(set(), set())
    module._tell_stranger(told, one.main, stat.start + 1, [signal.SIGKILL])
    assert not told.pids
    assert _alive(one.main)
    module._tell_stranger(told, one.main, stat.start, [signal.SIGKILL])
    assert told.pids == {one.main}


@apart
def test_nobody_is_told_when_nobody_is_there() -> None:
    """A family that has ended is no error."""
    one = _service("exit 0")
    _until(lambda: one.main in dict(reap()))
    assert not kill(CONTROL_GROUP, Family(one.invocation_id, 0, one.session), signal.SIGTERM).pids
    with pytest.raises(ValueError, match="KillMode"):
        kill("everybody", one, signal.SIGTERM)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@apart
def test_whom_we_may_not_signal() -> None:
    """They are told of as refused."""
    one = _service(_SCRIPT)
    _has(one, *_ALL)
    os.setresuid(65534, 65534, 0)
    told = kill(CONTROL_GROUP, one, signal.SIGTERM)
    os.setresuid(0, 0, 0)
    assert not told.pids
    assert one.main in told.refused


# --- reap and subreaper ---------------------------------------------------------------------------


@apart
def test_orphans_are_reaped() -> None:
    """An orphan comes to the subreaper, and its end is told like any child's."""
    read, write = os.pipe()
    os.dup2(write, 1)
    one = _service("(setsid sh -c 'echo $$; exit 7' &); exit 5")
    os.close(write)
    os.close(1)
    with open(read, "rb") as file:
        orphan = int(file.read())
    found = _reap_all(2)
    assert found[one.main] == Exit(5)
    assert found[orphan] == Exit(7)
    assert not list(reap())


@apart
def test_reaping_takes_all_that_are_dead_and_waits_for_nobody() -> None:
    """One call takes many; who lives is left."""
    living = _start("exec sleep 1001")
    dead = {_start(["true"]) for _ in range(100)}
    assert set(_reap_all(100)) == dead
    assert not list(reap())
    assert _alive(living)


def test_reaping_without_children() -> None:
    """Nothing to take is no error."""
    assert not list(_quiet(reap()))


def _quiet(found: Iterator[tuple[int, Exit]]) -> Iterator[tuple[int, Exit]]:
    yield from found
