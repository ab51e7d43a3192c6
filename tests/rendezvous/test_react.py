"""sockact.rendezvous.react, with real descriptors."""

import contextlib
import os
import select
import threading
import time
from collections.abc import Iterator

import pytest

from sockact.rendezvous.react import READ, WRITE, Reactor
from tests.helpers import SECONDS


@pytest.fixture(name="reactor")
def _reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    yield reactor
    reactor.close()


@pytest.fixture(name="pipe")
def _pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for number in (read, write):
        with contextlib.suppress(OSError):
            os.close(number)


class Alarm:
    """Something timed that notes when it is called."""

    def __init__(self, when: float | None, said: list[str]) -> None:
        self.when = when
        self.said = said

    def deadline(self) -> float | None:
        """Return the time."""
        return self.when

    def expire(self, now: float) -> None:
        """Note it."""
        assert self.when is not None
        assert now >= self.when
        self.when = None
        self.said.append("time")


def test_a_callback_is_called_while_there_is_something(
    reactor: Reactor, pipe: tuple[int, int]
) -> None:
    """Level-triggered, until it is forgotten; a second `watch` replaces the first."""
    said: list[str] = []
    reactor.watch(pipe[0], READ, lambda: said.append("first"))
    reactor.step(0)
    os.write(pipe[1], b"x")
    reactor.step(0)
    reactor.watch(pipe[0], READ, lambda: said.append("second"))
    reactor.step(0)
    reactor.step(0)
    reactor.unwatch(pipe[0])
    reactor.unwatch(pipe[0])
    reactor.step(0)
    assert said == ["first", "second", "second"]


def test_it_is_a_descriptor_itself(reactor: Reactor, pipe: tuple[int, int]) -> None:
    """Another event loop sees when there is something to do."""

    def read() -> None:
        os.read(pipe[0], 1)

    reactor.watch(pipe[0], READ, read)
    assert not select.select([reactor.fileno()], [], [], 0)[0]
    os.write(pipe[1], b"x")
    assert select.select([reactor.fileno()], [], [], SECONDS)[0]
    reactor.step()
    assert not select.select([reactor.fileno()], [], [], 0)[0]


def test_what_descriptors_bring_comes_before_what_time_brings(
    reactor: Reactor, pipe: tuple[int, int]
) -> None:
    """A word that has arrived counts, however late it is read."""
    said: list[str] = []
    alarm = Alarm(time.monotonic() - 1, said)
    reactor.add(alarm)
    reactor.watch(pipe[1], WRITE, lambda: said.append("descriptor"))
    reactor.step(None)
    assert said == ["descriptor", "time"]
    assert reactor.timeout() is None
    reactor.remove(alarm)
    reactor.remove(alarm)


def test_it_waits_for_what_is_due_first(reactor: Reactor) -> None:
    """Not longer than it is told, and not longer than until something is due."""
    said: list[str] = []
    reactor.add(Alarm(time.monotonic() + 3600, said))
    reactor.step(0.01)
    assert said == []
    reactor.add(Alarm(time.monotonic() + 0.01, said))
    until = time.monotonic() + SECONDS
    while not said and time.monotonic() < until:
        reactor.step(None)
    assert said == ["time"]


def test_it_waits_for_what_is_due_in_years(reactor: Reactor, pipe: tuple[int, int]) -> None:
    """That is more than the kernel can be told in one call; what comes before is not missed."""
    said: list[str] = []
    reactor.add(Alarm(time.monotonic() + 1e9, said))
    reactor.watch(pipe[1], WRITE, lambda: said.append("descriptor"))
    reactor.step(None)
    reactor.step(1e9)
    assert said == ["descriptor"] * 2


def test_an_event_of_what_was_forgotten_meanwhile_is_dropped(
    reactor: Reactor, pipe: tuple[int, int]
) -> None:
    """Of two that are ready together, the first one may end the second one, and reuse its number."""
    said: list[str] = []
    copies = [os.dup(pipe[1]), os.dup(pipe[1])]

    def end(mine: int) -> None:
        said.append("one")
        other = copies[1 - mine]
        reactor.unwatch(other)
        os.close(other)
        assert os.dup(pipe[0]) == other
        reactor.watch(other, READ, lambda: said.append("wrong"))

    for mine in (0, 1):
        reactor.watch(copies[mine], WRITE, lambda mine=mine: end(mine))  # type: ignore[misc]
    reactor.step(0)
    assert said == ["one"]
    for number in copies:
        reactor.unwatch(number)
        os.close(number)


def test_another_thread_wakes_it(reactor: Reactor) -> None:
    """A callback posted from there is run by whoever drives the reactor."""
    ran: list[int] = []
    thread = threading.Thread(
        target=lambda: reactor.post(lambda: ran.append(threading.get_ident()))
    )
    thread.start()
    until = time.monotonic() + SECONDS
    while not ran and time.monotonic() < until:
        reactor.step(SECONDS)
    thread.join()
    assert ran == [threading.get_ident()]


def test_what_was_posted_behind_one_that_fails_is_run(reactor: Reactor) -> None:
    """At the next step, which need not wait for anybody to post again."""
    ran: list[int] = []

    def fail() -> None:
        raise ValueError

    reactor.post(fail)
    reactor.post(lambda: ran.append(1))
    with pytest.raises(ValueError, match=r"^$"):
        reactor.step(SECONDS)
    reactor.step(SECONDS)
    assert ran == [1]


def test_more_is_posted_than_its_pipe_takes(reactor: Reactor) -> None:
    """Everything is run, in order."""
    ran: list[int] = []
    for i in range(100_000):
        reactor.post(lambda i=i: ran.append(i))  # type: ignore[misc]
    while len(ran) < 100_000:
        reactor.step(SECONDS)
    assert ran == list(range(100_000))


def test_a_callback_may_drive_it_further(reactor: Reactor, pipe: tuple[int, int]) -> None:
    """Also where it thereby runs what the outer step was about to run."""
    said: list[str] = []

    def outer() -> None:
        if not said:
            said.append("outer")
            os.read(pipe[0], 1)
            reactor.post(lambda: said.append("posted"))
            reactor.step(0)

    os.write(pipe[1], b"x")
    reactor.watch(pipe[0], READ, outer)
    reactor.post(lambda: said.append("before"))
    for _ in range(3):
        reactor.step(0)
    assert sorted(said) == ["before", "outer", "posted"]


def test_nothing_happens_after_the_end(pipe: tuple[int, int]) -> None:
    """A late `post` writes to no descriptor, whosoever it is by now."""
    reactor = Reactor()
    number = reactor._waker
    reactor.close()
    reactor.close()
    os.dup2(pipe[1], number)
    reactor.post(lambda: None)
    os.set_blocking(pipe[0], False)
    with pytest.raises(BlockingIOError):
        os.read(pipe[0], 1)
    os.close(number)


def test_a_callback_may_close_it(pipe: tuple[int, int]) -> None:
    """What else was ready in that step is left alone."""
    reactor = Reactor()
    said: list[str] = []
    copy = os.dup(pipe[1])

    def end() -> None:
        said.append("one")
        reactor.close()

    for number in (pipe[1], copy):
        reactor.watch(number, WRITE, end)
    reactor.step(0)
    assert said == ["one"]
    os.close(copy)
