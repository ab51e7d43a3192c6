"""sockact.supervise.steer, with real listeners and the real loop."""

import contextlib
import logging
import socket
import time
from collections.abc import Iterator

import pytest

from sockact.fd.own import OwnedFd
from sockact.rendezvous.react import Reactor
from sockact.supervise import steer
from sockact.supervise.steer import Ebb, Steering, siblings
from tests.helpers import SECONDS

MPTCP = 262
Handles = list[OwnedFd]


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """Give what closes everything in the end."""
    with contextlib.ExitStack() as stack:
        yield stack


def _listen(
    stack: contextlib.ExitStack,
    count: int,
    port: int = 0,
    *,
    shared: bool = True,
    protocol: int = 0,
) -> Handles:
    found: Handles = []
    for _ in range(count):
        sock = socket.socket(proto=protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        sock.bind(("127.0.0.1", port))
        sock.listen(1000)
        sock.setblocking(False)
        port = sock.getsockname()[1]
        handle = OwnedFd(sock.detach())
        stack.callback(handle.close)
        found.append(handle)
    return found


def _port(handle: OwnedFd) -> int:
    with contextlib.closing(socket.socket(fileno=socket.dup(handle.fileno()))) as sock:
        return int(sock.getsockname()[1])


def _connect(stack: contextlib.ExitStack, handle: OwnedFd) -> socket.socket:
    address = ("127.0.0.1", _port(handle))
    return stack.enter_context(socket.create_connection(address, SECONDS))


def _accept(handle: OwnedFd) -> int:
    """Take everything from a queue; return how much that was."""
    count = 0
    with (
        contextlib.closing(socket.socket(fileno=socket.dup(handle.fileno()))) as sock,
        contextlib.suppress(BlockingIOError),
    ):
        while True:
            sock.accept()[0].close()
            count += 1
    return count


def _reached(handles: Handles) -> list[bool]:
    with contextlib.ExitStack() as clients:
        for _ in range(60):
            _connect(clients, handles[0])
        return [bool(_accept(one)) for one in handles]


class TestSteering:
    def test_idle_ones_get_nothing(self, stack: contextlib.ExitStack) -> None:
        """Those that are given up get nothing, until they are served again."""
        handles = _listen(stack, 4)
        steering = Steering()
        steering.confine(handles, handles[2:])
        assert _reached(handles) == [True, True, False, False]
        steering.confine(handles)
        assert _reached(handles) == [True] * 4

    def test_more_get_nothing(self, stack: contextlib.ExitStack) -> None:
        """Those that come get nothing, until they are served."""
        handles = _listen(stack, 1)
        steering = Steering()
        steering.confine(handles, more=True)
        handles += _listen(stack, 2, _port(handles[0]))
        assert _reached(handles) == [True, False, False]
        steering.confine(handles)
        assert _reached(handles) == [True] * 3

    def test_those_that_come_meanwhile(self, stack: contextlib.ExitStack) -> None:
        """As long as some are idle, later ones get nothing, wherever they are named."""
        handles = _listen(stack, 4)
        steering = Steering()
        steering.confine(handles, handles[2:])
        new = _listen(stack, 2, _port(handles[0]))
        steering.confine([*handles[:2], *new, *handles[2:]], handles[2:])
        assert _reached([*handles, *new]) == [True, True, False, False, False, False]
        for one in handles[2:]:
            one.close()
        steering.confine([*handles[:2], *new])
        assert _reached([*handles[:2], *new]) == [True] * 4

    def test_others_are_left_alone(self, stack: contextlib.ExitStack) -> None:
        """A listener without siblings is given up as ever; closed ones and others do not matter."""
        handles = [*_listen(stack, 1), *_listen(stack, 1, shared=False), *_listen(stack, 1)]
        handles[2].close()
        steering = Steering()
        steering.confine(handles, handles)
        assert _reached(handles[:1]) == [True]
        assert _reached(handles[1:2]) == [True]
        assert siblings(handles, handles) == []

    def test_siblings(self, stack: contextlib.ExitStack) -> None:
        """What is given up has a sibling if one stays with its address."""
        one, two, other = _listen(stack, 3), _listen(stack, 2), _listen(stack, 1, shared=False)
        assert siblings([*one, *two, *other], [one[1], *two, *other]) == [one[1]]

    def test_what_cannot_be_steered(
        self, stack: contextlib.ExitStack, caplog: pytest.LogCaptureFixture
    ) -> None:
        """MPTCP listeners cannot be steered, which is told once."""
        try:
            handles = _listen(stack, 2, protocol=MPTCP)
        except OSError as error:
            pytest.skip(f"no MPTCP here: {error}")
        steering = Steering()
        with caplog.at_level(logging.WARNING, "sockact.run"):
            steering.confine(handles, handles[1:])
            steering.confine(handles, more=True)
        (record,) = caplog.records
        assert "cannot be steered" in record.getMessage()
        assert _reached(handles) == [True, True]


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    """Give a loop."""
    reactor = Reactor()
    yield reactor
    reactor.close()


class TestEbb:
    def _begin(self, reactor: Reactor, handles: Handles) -> list[int]:
        done: list[int] = []
        self.ebb = Ebb(reactor, handles, time.monotonic(), done.append)
        return done

    def _wait(self, reactor: Reactor, done: list[int]) -> int:
        deadline = time.monotonic() + SECONDS
        while not done:
            assert time.monotonic() < deadline
            reactor.step(0.1)
        (left,) = done
        assert reactor.timeout() is None
        return left

    def test_empty(self, reactor: Reactor, stack: contextlib.ExitStack) -> None:
        """Nothing is left where nothing was, or what is closed."""
        handles = _listen(stack, 2)
        handles[1].close()
        assert self._wait(reactor, self._begin(reactor, handles)) == 0

    def test_queue(self, reactor: Reactor, stack: contextlib.ExitStack) -> None:
        """What waits to be accepted is waited for."""
        (handle,) = _listen(stack, 1)
        _connect(stack, handle)
        done = self._begin(reactor, [handle])
        for _ in range(5):
            reactor.step(0.1)
        assert not done
        assert _accept(handle) == 1
        assert self._wait(reactor, done) == 0

    def test_handshake(self, reactor: Reactor, stack: contextlib.ExitStack) -> None:
        """So is a handshake that has begun; one that begins later is for others."""
        (handle,) = _listen(stack, 1)
        with contextlib.closing(socket.socket(fileno=socket.dup(handle.fileno()))) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, int(SECONDS))
        first = _connect(stack, handle)
        done = self._begin(reactor, [handle])
        for _ in range(5):
            reactor.step(0.1)
        assert not done
        _connect(stack, handle)
        first.sendall(b"x")
        deadline = time.monotonic() + SECONDS
        while not _accept(handle):
            assert time.monotonic() < deadline
        assert self._wait(reactor, done) == 0

    def test_not_for_ever(
        self,
        reactor: Reactor,
        stack: contextlib.ExitStack,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """What nobody accepts is waited for no longer than it may take, and counted."""
        monkeypatch.setattr(steer, "EBB_SECONDS", 0.1)
        (handle,) = _listen(stack, 1)
        for _ in range(3):
            _connect(stack, handle)
        assert self._wait(reactor, self._begin(reactor, [handle])) == 3

    def test_cancel(self, reactor: Reactor, stack: contextlib.ExitStack) -> None:
        """It can be given up."""
        done = self._begin(reactor, _listen(stack, 1))
        self.ebb.cancel()
        assert reactor.timeout() is None
        assert not done
