"""sockact.supervise.relay, with real signals."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from sockact.rendezvous.react import Reactor
from sockact.supervise.relay import Signals
from tests.helpers import ROOT, SECONDS


@pytest.fixture(name="reactor")
def _reactor() -> Iterator[Reactor]:
    with contextlib.closing(Reactor()) as reactor:
        yield reactor


@pytest.fixture(name="signals")
def _signals(reactor: Reactor) -> Iterator[Signals]:
    with contextlib.closing(Signals(reactor)) as signals:
        yield signals


def _until(reactor: Reactor, said: list[int], count: int) -> None:
    deadline = time.monotonic() + SECONDS
    while len(said) < count:
        assert time.monotonic() < deadline
        reactor.step(SECONDS)


def test_a_signal_is_a_callback(reactor: Reactor, signals: Signals) -> None:
    """The callback runs in a step, with the number, not in the handler."""
    said: list[int] = []
    signals.on(signal.SIGUSR1, said.append)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert not said
    _until(reactor, said, 1)
    assert said == [signal.SIGUSR1]


def test_a_signal_that_was_blocked(reactor: Reactor) -> None:
    """Whoever started this process may have blocked it: it is received, and blocked again then."""
    numbers = {signal.SIGUSR1, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        with contextlib.closing(Signals(reactor)) as signals:
            said: list[int] = []
            signals.on(signal.SIGUSR1, said.append)
            os.kill(os.getpid(), signal.SIGUSR1)
            _until(reactor, said, 1)
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) & numbers == {signal.SIGUSR2}
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= numbers
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_step_that_waits_is_woken(reactor: Reactor, signals: Signals) -> None:
    """A signal that comes while the reactor waits ends the wait, and its callback is run."""
    said: list[int] = []
    signals.on(signal.SIGALRM, said.append)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    began = time.monotonic()
    _until(reactor, said, 1)
    assert time.monotonic() - began < SECONDS


def test_different_signals_are_all_told(reactor: Reactor, signals: Signals) -> None:
    """Each number is told once, however often it came before it could be told."""
    said: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGCHLD):
        signals.on(number, said.append)
    for _ in range(50):
        os.kill(os.getpid(), signal.SIGUSR1)
    for number in (signal.SIGUSR2, signal.SIGHUP):
        os.kill(os.getpid(), number)
    _until(reactor, said, 3)
    reactor.step(0)
    assert sorted(said) == sorted((signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP))


def test_none_is_lost_in_a_full_pipe(reactor: Reactor, signals: Signals) -> None:
    """More signals than a pipe holds bytes hide no other one."""
    said: list[int] = []
    signals.on(signal.SIGUSR1, said.append)
    signals.on(signal.SIGTERM, said.append)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(signals._waker, b"x" * 4096)
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    _until(reactor, said, 2)
    assert sorted(said) == sorted((signal.SIGUSR1, signal.SIGTERM))


def test_a_callback_that_fails_keeps_nobody_from_hearing(
    reactor: Reactor, signals: Signals
) -> None:
    """The callbacks of other signals that have come are run in a later step."""
    said: list[int] = []

    def fail(number: int) -> None:
        said.append(number)
        raise ZeroDivisionError

    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signals.on(number, fail)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            reactor.step(SECONDS)
    assert sorted(said) == sorted((signal.SIGUSR1, signal.SIGUSR2))


def test_a_second_call_replaces_the_callback(reactor: Reactor, signals: Signals) -> None:
    """Only the last callback of a number is called."""
    first: list[int] = []
    second: list[int] = []
    signals.on(signal.SIGUSR1, first.append)
    signals.on(signal.SIGUSR1, second.append)
    os.kill(os.getpid(), signal.SIGUSR1)
    _until(reactor, second, 1)
    assert not first


def test_closing_puts_everything_back(reactor: Reactor) -> None:
    """Handlers and the wake-up descriptor are what they were; what has not been told is dropped."""
    before = signal.getsignal(signal.SIGUSR1)
    read, write = os.pipe()
    os.set_blocking(write, False)
    outer = signal.set_wakeup_fd(write)
    try:
        said: list[int] = []
        signals = Signals(reactor)
        signals.on(signal.SIGUSR1, said.append)
        os.kill(os.getpid(), signal.SIGUSR1)
        signals.close()
        signals.close()
        reactor.step(0)
        assert not said
        assert signal.getsignal(signal.SIGUSR1) == before
        assert signal.set_wakeup_fd(write) == write
    finally:
        signal.set_wakeup_fd(outer)
        os.close(read)
        os.close(write)


def test_kill_cannot_be_handled(signals: Signals) -> None:
    """SIGKILL is refused, and nothing is left behind."""
    with pytest.raises(OSError, match="Invalid argument"):
        signals.on(signal.SIGKILL, lambda _: None)


def test_only_the_main_thread(reactor: Reactor) -> None:
    """Elsewhere Python sets no handlers; no descriptor is left open."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            Signals(reactor)
        except ValueError as error:
            failed.append(error)

    threads = len(os.listdir("/proc/self/task"))
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert failed
    while len(os.listdir("/proc/self/task")) > threads:  # it may still be about to go
        time.sleep(0.001)


_INIT = """
import os
from signal import *
from sockact.rendezvous.react import Reactor
from sockact.supervise.relay import Signals
assert os.getpid() == 1
numbers = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGPWR, SIGWINCH]
reactor, said = Reactor(), []
signals = Signals(reactor)
for number in numbers:
    signals.on(number, said.append)
child = os.fork()
if not child:
    for number in numbers:
        os.kill(1, number)
    os._exit(0)
while len(said) < len(numbers):
    reactor.step(10)
os.waitpid(child, 0)
print(sorted(said) == sorted(numbers))
"""


def test_pid_1_hears_what_it_would_ignore() -> None:
    """As PID 1 of a pid namespace it gets each signal that a handler was set for."""
    command = ["unshare", "--pid", "--fork", "--user", "--map-root-user"]
    if os.geteuid() == 0:
        command = ["unshare", "--pid", "--fork"]
    probe = subprocess.run([*command, "true"], check=False, capture_output=True)
    if probe.returncode:
        pytest.skip(f"no pid namespaces: {probe.stderr.decode().strip()}")
    done = subprocess.run(
        [*command, sys.executable, "-c", _INIT],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.stdout == "True\n", done.stderr
