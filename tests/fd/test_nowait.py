"""sockact.fd.nowait."""

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sockact.fd import nowait
from tests.helpers import SECONDS


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Put SIGALRM back as it was."""
    before = signal.getsignal(signal.SIGALRM)
    yield
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A TCP listener."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def _connected(listener: socket.socket) -> socket.socket:
    client = socket.create_connection(listener.getsockname(), SECONDS)
    assert select.select([listener], [], [], SECONDS)[0]
    return client


class Thief:
    """A poll(2) after which another holder takes what was there."""

    def __init__(self, take: Callable[[], object]) -> None:
        self._take = take
        self._real = select.poll

    def __call__(self) -> "Thief":
        """Make the real one."""
        self._poll = self._real()
        return self

    def register(self, fd: int, events: int) -> None:
        """Register with the real one."""
        self._poll.register(fd, events)

    def poll(self, timeout: int) -> list[tuple[int, int]]:
        """Ask the real one."""
        found = self._poll.poll(timeout)
        self._take()
        return found


@pytest.mark.parametrize("blocking", [True, False])
def test_accept(listener: socket.socket, blocking: bool) -> None:
    """A connection that waits is taken, none is waited for, and the listener stays as it was."""
    listener.setblocking(blocking)
    with pytest.raises(BlockingIOError):
        nowait.accept(listener.fileno())
    with _connected(listener) as client, nowait.accept(listener.fileno()) as connection:
        assert not os.get_inheritable(connection.fileno())
        assert connection.getpeername() == client.getsockname()
    assert os.get_blocking(listener.fileno()) == blocking


@pytest.mark.parametrize("blocking", [True, False])
def test_accept_in_a_thread(listener: socket.socket, blocking: bool) -> None:
    """In another thread than the main one it is the same, but for the timer."""
    listener.setblocking(blocking)
    taken: list[object] = []

    def take() -> None:
        for _ in range(2):
            try:
                nowait.accept(listener.fileno()).close()
                taken.append("connection")
            except OSError as error:
                taken.append(type(error))

    with _connected(listener):
        thread = threading.Thread(target=take)
        thread.start()
        thread.join(SECONDS)
    assert taken == ["connection", BlockingIOError]


def test_accept_after_another(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that another holder took in the last moment is not waited for."""
    listener.setblocking(True)
    with _connected(listener):

        def take() -> None:
            listener.accept()[0].close()

        monkeypatch.setattr(select, "poll", Thief(take))
        began = time.monotonic()
        with pytest.raises(InterruptedError):
            nowait.accept(listener.fileno())
        assert time.monotonic() - began < SECONDS
        monkeypatch.undo()


@pytest.mark.parametrize("blocking", [True, False])
def test_read(blocking: bool) -> None:
    """What waits in a pipe is read, nothing is waited for, and the end is told."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(reader, blocking)
        with pytest.raises(BlockingIOError):
            nowait.read(reader, 10)
        os.write(writer, b"x" * 12)
        assert nowait.read(reader, 10) == 10
        assert nowait.read(reader, 10) == 2
        os.close(writer)
        writer = -1
        assert nowait.read(reader, 10) == 0
        assert os.get_blocking(reader) == blocking
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def test_read_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another reader took in the last moment is not waited for."""
    reader, writer = os.pipe()
    try:
        os.write(writer, b"x")
        monkeypatch.setattr(select, "poll", Thief(lambda: os.read(reader, 10)))
        with pytest.raises(InterruptedError):
            nowait.read(reader, 10)
        monkeypatch.undo()
    finally:
        os.close(reader)
        os.close(writer)


def test_timer_of_others(listener: socket.socket) -> None:
    """A timer that was running goes on."""
    signal.setitimer(signal.ITIMER_REAL, 1000.0, 500.0)
    try:
        with _connected(listener):
            nowait.accept(listener.fileno()).close()
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        assert 0 < left <= 1000.0
        assert interval == 500.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
