"""sockact.supervise.exit, with processes that end in every way."""

import os
import resource
import signal
from collections.abc import Callable

import pytest

from sockact.supervise.exit import Exit


def _ended(how: Callable[[], None]) -> Exit:
    pid = os.fork()
    if not pid:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        how()
        os._exit(99)
    return Exit.of(os.waitpid(pid, 0)[1])


def _by(number: int) -> Callable[[], None]:
    def die() -> None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    return die


def test_a_status_is_read() -> None:
    """The value of exit(3) is the status."""
    assert _ended(lambda: os._exit(0)) == Exit(0)
    assert _ended(lambda: os._exit(255)) == Exit(255)


def test_a_signal_is_read() -> None:
    """The signal that killed it is told, and no status."""
    assert _ended(_by(signal.SIGTERM)) == Exit(0, signal.SIGTERM)


def test_a_core_dump_is_read() -> None:
    """The core bit of wait(2) is told apart from the signal."""
    assert Exit.of(signal.SIGABRT | 0x80) == Exit(0, signal.SIGABRT, core=True)


@pytest.mark.parametrize(
    ("end", "text", "status"),
    [
        (Exit(0), "code=exited, status=0/SUCCESS", 0),
        (Exit(1), "code=exited, status=1/FAILURE", 1),
        (Exit(3), "code=exited, status=3/NOTIMPLEMENTED", 3),
        (Exit(42), "code=exited, status=42", 42),
        (Exit(75), "code=exited, status=75/TEMPFAIL", 75),
        (Exit(203), "code=exited, status=203/EXEC", 203),
        (Exit(217), "code=exited, status=217/USER", 217),
        (Exit(0, 15), "code=killed, signal=TERM", 143),
        (Exit(0, 11, core=True), "code=dumped, signal=SEGV", 139),
        (Exit(0, signal.SIGRTMIN + 3), "code=killed, signal=RTMIN+3", 128 + signal.SIGRTMIN + 3),
        (Exit(0, 99), "code=killed, signal=", 227),
    ],
)
def test_people_read_what_systemctl_shows(end: Exit, text: str, status: int) -> None:
    """The words are those of ``systemctl status``; a shell makes 128 and the number of a signal."""
    assert str(end).startswith(text)
    assert end.shell_status == status


@pytest.mark.parametrize(
    ("end", "code", "status"),
    [
        (Exit(2), "exited", "2"),
        (Exit(0, 9), "killed", "KILL"),
        (Exit(0, 6, core=True), "dumped", "ABRT"),
    ],
)
def test_exit_code_and_exit_status(end: Exit, code: str, status: str) -> None:
    """$EXIT_CODE and $EXIT_STATUS are those of systemd.exec(5)."""
    assert (end.code, end.status_text) == (code, status)


_SET = frozenset({("exit", 75), ("signal", int(signal.SIGKILL))})


@pytest.mark.parametrize(
    ("end", "success", "oneshot", "clean"),
    [
        (Exit(0), (), False, True),
        (Exit(0), (), True, True),
        (Exit(1), (), False, False),
        (Exit(75), _SET, False, True),
        (Exit(75), _SET, True, True),
        (Exit(0, signal.SIGTERM), (), False, True),
        (Exit(0, signal.SIGHUP), (), False, True),
        (Exit(0, signal.SIGINT), (), False, True),
        (Exit(0, signal.SIGPIPE), (), False, True),
        (Exit(0, signal.SIGTERM), (), True, False),
        (Exit(0, signal.SIGKILL), (), False, False),
        (Exit(0, signal.SIGKILL), _SET, True, True),
        (Exit(0, signal.SIGUSR1), (), False, False),
        (Exit(9), _SET, False, False),
        (Exit(0, signal.SIGKILL, core=True), _SET, False, False),
        (Exit(0, signal.SIGTERM, core=True), (), False, False),
    ],
)
def test_what_is_clean(
    end: Exit, success: frozenset[tuple[str, int]], oneshot: bool, clean: bool
) -> None:
    """The cases of systemd's is_clean_exit()."""
    assert end.is_clean(success, oneshot=oneshot) is clean
