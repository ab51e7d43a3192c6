"""Work beside the loop."""

import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from sockact.rendezvous.react import Reactor
from sockact.supervise.aside import Aside
from tests.helpers import SECONDS


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    """Give a reactor."""
    found = Reactor()
    yield found
    found.close()


class Done:
    """Takes outcomes."""

    def __init__(self) -> None:
        self.results: list[object] = []
        self.threads: list[threading.Thread] = []

    def __call__(self, outcome: Callable[[], object]) -> None:
        """Take one."""
        self.threads = [one for one in threading.enumerate() if one.name == "sockact-aside"]
        try:
            self.results.append(outcome())
        except OSError as error:
            self.results.append(error)


def test_the_outcome_comes_in_a_step(reactor: Reactor) -> None:
    """Not before, and by the thread of the loop; that of the work is gone."""
    done, begun = Done(), threading.Event()

    def work() -> str:
        begun.set()
        return threading.current_thread().name

    Aside(reactor, work, done)
    assert begun.wait(SECONDS)
    assert done.results == []
    reactor.step(SECONDS)
    assert done.results == ["sockact-aside"]
    assert done.threads == []


def test_a_failure_is_raised_where_it_is_waited_for(reactor: Reactor) -> None:
    """Whatever it is."""
    done, error = Done(), OSError(5, "broken")

    def work() -> None:
        raise error

    Aside(reactor, work, done)
    reactor.step(SECONDS)
    assert done.results == [error]


def test_without_a_thread(reactor: Reactor) -> None:
    """If there can be none, the work is done all the same, and the outcome comes in a step."""
    done = Done()
    before = threading.stack_size(1 << 46)  # more than any machine has
    try:
        Aside(reactor, threading.current_thread, done)
    finally:
        threading.stack_size(before)
    assert done.results == []
    reactor.step(SECONDS)
    assert done.results == [threading.main_thread()]


def test_what_nobody_wants_is_discarded(reactor: Reactor) -> None:
    """A result that comes after `cancel`; nobody is called for it, nor for a failure."""
    done, go = Done(), threading.Event()
    gone: list[int] = []

    def work() -> int:
        go.wait(SECONDS)
        return 7

    def fail() -> int:
        raise OSError(5, "broken")

    one = Aside(reactor, work, done, discard=gone.append)
    other = Aside(reactor, fail, done, discard=gone.append)
    one.cancel()
    other.cancel()
    go.set()
    while not gone:
        reactor.step(SECONDS)
    while threading.active_count() > 1:
        reactor.step(SECONDS)
    assert (gone, done.results) == ([7], [])
    one.cancel()


def test_signals_are_for_others(reactor: Reactor) -> None:
    """All are blocked in the thread, and the caller's mask is as it was."""
    done = Done()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    Aside(reactor, lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()), done)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    reactor.step(SECONDS)
    (blocked,) = done.results
    assert {signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP} <= blocked  # type: ignore[operator]
