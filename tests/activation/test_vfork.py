"""sockact.activation.vfork: processes that are calls of libc alone."""

import errno
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

from sockact.activation import vfork
from sockact.activation.libc import address_of
from sockact.activation.vfork import At, Call, Chain, Late, chain
from tests.helpers import SECONDS


@pytest.fixture(name="contexts")
def _contexts() -> Chain:
    found = chain()
    if found is None:
        pytest.skip("this libc has no contexts")
    return found


@pytest.fixture(name="afresh")
def _afresh() -> Iterator[None]:
    """Look again whether there are contexts, before and after."""
    chain.cache_clear()
    yield
    chain.cache_clear()


class Strings:
    """Strings and vectors that stay where they are."""

    def __init__(self) -> None:
        self._kept: list[bytearray] = []

    def at(self, text: bytes) -> int:
        """Return the address of a string."""
        self._kept.append(bytearray(text + b"\0"))
        return address_of(self._kept[-1])

    def vector(self, texts: Sequence[bytes]) -> int:
        """Return the address of a vector of strings."""
        pointers = [*map(self.at, texts), 0]
        self._kept.append(bytearray(struct.pack(f"{len(pointers)}P", *pointers)))
        return address_of(self._kept[-1])

    def program(self, *argv: bytes) -> Call:
        """Return the call that executes a program without an environment."""
        return "execve", self.at(argv[0]), self.vector(argv), self.vector([])


def _status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_calls_are_made_in_order(contexts: Chain) -> None:
    """Each is made with its arguments, in a process of its own; its memory is ours."""
    strings, out = Strings(), bytearray(64)
    at, form = address_of(out), strings.at(b"%d %d %s")
    steps: list[Call] = [
        ("setsid",),
        ("sprintf", at, form, 1, 2, strings.at(b"three")),
        ("strcat", at, strings.at(b", four")),
        ("_exit", 5),
    ]
    pid = contexts.run(steps)
    assert pid != os.getpid()
    assert _status(pid) == 5
    assert out.partition(b"\0")[0] == b"1 2 three, four"


def test_a_number_that_is_known_only_then(contexts: Chain) -> None:
    """An argument can be the process id, and whatever a call before has written."""
    form, out = Strings().at(b"%lu"), bytearray(64)
    strings = Strings()
    form, at = strings.at(b"%lu"), address_of(out)
    copy = bytearray(8)
    steps: list[Call] = [
        ("memcpy", address_of(copy), contexts.pid.address, 8),
        Late(("sprintf", at, form, At(address_of(copy)))),
        ("_exit", 0),
    ]
    for _ in range(3):
        pid = contexts.run(steps)
        assert _status(pid) == 0
        assert out.partition(b"\0")[0] == b"%d" % pid


def test_the_program_has_what_was_made_for_it(contexts: Chain) -> None:
    """It is executed with its arguments, without our handlers, and with no signal blocked."""
    strings = Strings()
    script = b"trap 'exit 7' TERM; kill -TERM $$; exit 1"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        pid = contexts.run([strings.program(b"/bin/sh", b"-c", script)])
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert _status(pid) == 7
    assert blocked == {signal.SIGTERM}


def test_when_it_returns_the_program_runs(contexts: Chain) -> None:
    """This process waits until then, and no longer."""
    strings = Strings()
    pid = contexts.run([strings.program(b"/bin/sleep", b"1000")])
    try:
        assert os.path.samefile(f"/proc/{pid}/exe", "/bin/sleep")
    finally:
        os.kill(pid, signal.SIGKILL)
    assert _status(pid) == -signal.SIGKILL


def test_a_program_that_cannot_be_executed(contexts: Chain) -> None:
    """Then there is no process any more, and the next one is started as ever."""
    strings = Strings()
    assert contexts.run([strings.program(b"/no/such/program")]) == 0
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert _status(contexts.run([strings.program(b"/bin/true")])) == 0


def test_too_many_calls(contexts: Chain) -> None:
    """There is room for a number of calls only; nothing is begun of more."""
    room: list[Call] = [("getpid",)] * 37
    assert _status(contexts.run([*room, ("_exit", 4)])) == 4
    with pytest.raises(ValueError, match="too many calls"):
        contexts.run([*room, ("getpid",), ("_exit", 4)])
    assert _status(contexts.run([("_exit", 6)])) == 6


def test_a_fork_has_contexts_of_its_own(contexts: Chain) -> None:
    """A process that was forked does not disturb this one."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            for n in range(50):
                assert _status(contexts.run([("getpid",), ("_exit", n)])) == n
            status = 0
        finally:
            os._exit(status)
    for n in range(50, 100):
        assert _status(contexts.run([("_exit", n)])) == n
    assert _status(pid) == 0


def test_many(contexts: Chain) -> None:
    """Thousands of processes leave nothing behind in memory."""
    strings = Strings()
    call = strings.program(b"/no/such/program")

    def memory() -> int:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0])

    for _ in range(100):
        contexts.run([("dup2", 0, 0), call])
    before = memory()
    deadline = time.monotonic() + SECONDS
    for n in range(2000):
        contexts.run([("dup2", 0, 0), ("memset", strings.at(b"?") if n < 3 else 0, 0, 0), call])
        assert time.monotonic() < deadline
    assert memory() - before < 64


@pytest.mark.usefixtures("afresh")
class TestWithout:
    """Systems where this is not to be had."""

    def test_other_systems(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No libc that can be called, another order of bytes, shadow stacks."""
        monkeypatch.setattr(vfork, "libc", lambda: None)
        assert chain() is None
        chain.cache_clear()
        monkeypatch.undo()
        monkeypatch.setattr(sys, "byteorder", "big")
        assert chain() is None
        chain.cache_clear()
        monkeypatch.undo()
        monkeypatch.setattr(vfork, "_has_shadow_stack", lambda: True)
        assert chain() is None

    def test_what_does_not_work_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A chain is tried before it is used."""
        monkeypatch.setattr(Chain, "works", lambda _: False)
        assert chain() is None

    def test_a_libc_without_contexts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As musl."""

        class Musl:
            def __getitem__(self, name: str) -> object:
                raise AttributeError(name)

        monkeypatch.setattr(vfork, "libc", Musl)
        assert chain() is None

    @pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
    def test_a_filter_that_forbids_it(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        """As seccomp(2) does."""

        def refuse(*_: object) -> int:
            raise OSError(number, "refused")

        monkeypatch.setattr(Chain, "run", refuse)
        assert chain() is None

    def test_another_time(self, contexts: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
        """That there can be no process now says nothing about the system."""
        chain.cache_clear()

        def refuse(*_: object) -> int:
            raise OSError(errno.EAGAIN, "refused")

        with monkeypatch.context() as patch:
            patch.setattr(Chain, "run", refuse)
            with pytest.raises(BlockingIOError):
                chain()
        assert type(chain()) is type(contexts)
