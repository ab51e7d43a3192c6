"""The drain itself: a connection is either handled here or left to whoever else has the listener."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

import sockact
from sockact import aio
from sockact.servers.drain import definition, drain, limit_of, stop_signals, urls
from tests.helpers import SECONDS

TURNS = 12


def go(main: Callable[[], Coroutine[Any, Any, None]], loop: str = "asyncio") -> None:
    """Run a test in a loop of its own, and not for ever."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if loop == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(main(), SECONDS))


@pytest.fixture(scope="module", autouse=True)
def _process_wide() -> None:
    """Have uvloop make the pipe for signals that stays open in a process for ever."""
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.new_event_loop().close()


@pytest.fixture(name="listener")
def _listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


def _queued(listener: socket.socket) -> int:
    """Take what waits in the queue of a listener, as its other holder would."""
    found = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            found += 1
    return found


async def _served(
    listener: socket.socket, turns: int, end: Callable[[asyncio.Server], Coroutine[Any, Any, None]]
) -> tuple[int, int]:
    """Send a request, let the loop turn, end; return who has the request then: it, or another."""
    handled = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handled.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(handle, sock=listener.dup())
    with socket.create_connection(listener.getsockname(), SECONDS) as client:
        client.sendall(b"GET\n")
        for _ in range(turns):
            await asyncio.sleep(0)
        await end(server)
        found = len(handled), _queued(listener)
        server.close()
        for _ in range(TURNS):
            await asyncio.sleep(0)
    return found


async def _drain(server: asyncio.Server) -> None:
    await drain([server], 0.0)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_connection_falls_between(listener: socket.socket, loop: str) -> None:
    """Whenever the drain begins, a connection is handled or still in the queue."""

    async def main() -> None:
        found = [await _served(listener, turns, _drain) for turns in range(TURNS)]
        assert {sum(pair) for pair in found} == {1}, found
        assert {(0, 1), (1, 0)} == set(found), "both must have occurred"

    go(main, loop)


def test_a_loop_that_is_blocked(listener: socket.socket) -> None:
    """If one turn of the loop takes longer than the delay, what was accepted is handled as well."""

    async def end(server: asyncio.Server) -> None:
        def block() -> None:
            time.sleep(0.02)
            if not ended:
                asyncio.get_running_loop().call_soon(block)

        ended: list[bool] = []
        block()
        await drain([server], 0.01)
        ended.append(True)

    async def main() -> None:
        found = [await _served(listener, turns, end) for turns in range(4)]
        assert {sum(pair) for pair in found} == {1}, found

    go(main)


def test_accepting_that_was_resumed_meanwhile_ends(listener: socket.socket) -> None:
    """Asyncio accepts again by itself a second after it ran out of descriptors; not for long."""

    async def main() -> None:
        server = await asyncio.start_server(lambda *_: None, sock=listener.dup())
        asyncio.get_running_loop().call_later(0.01, aio.resume_accepting, server)
        await drain([server], 0.05)
        sock = server.sockets[0]
        assert not asyncio.get_running_loop().remove_reader(sock.fileno())
        server.close()

    go(main)


@pytest.mark.parametrize(
    ("host", "port", "path", "text"),
    [
        ("127.0.0.1", 8000, None, "tcp:127.0.0.1:8000?Backlog=7"),
        ("::1", 8000, None, "tcp:[::1]:8000?Backlog=7"),
        ("localhost", 0, None, "tcp:localhost:0?Backlog=7"),
        (None, 80, None, "tcp:*:80?Backlog=7"),
        ("", 80, None, "tcp:*:80?Backlog=7"),
        ("127.0.0.1", 80, "/run/s", "unix:/run/s?Backlog=7"),
    ],
)
def test_definition(host: str | None, port: int, path: str | None, text: str) -> None:
    """Where a server would listen by itself becomes a text that sockact takes."""
    assert definition(host, port, path, 7) == text
    sockact.definition(text)


def test_a_relative_path_is_made_absolute() -> None:
    """As servers take it, a path may be relative."""
    assert definition(None, 0, "s", 7) == f"unix:{os.getcwd()}/s?Backlog=7"


def test_backlog(listener: socket.socket) -> None:
    """What is to be given to listen(2) is what is in force, but never nothing."""
    for asked, expected in ((5, 5), (0, 1)):
        listener.listen(asked)
        assert limit_of(listener) == expected
    with socket.socket() as unbound:
        assert limit_of(unbound) > 0


def test_urls() -> None:
    """Each kind of address is written as people write it."""
    with contextlib.ExitStack() as stack:
        inet, inet6, unix = (
            stack.enter_context(socket.socket(family))
            for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        )
        inet.bind(("127.0.0.1", 0))
        inet6.bind(("::1", 0))
        unix.bind(f"\0sockact-{os.getpid()}")
        assert urls([inet, inet6, unix], "http") == [
            f"http://127.0.0.1:{inet.getsockname()[1]}",
            f"http://[::1]:{inet6.getsockname()[1]}",
            f"http://unix:@sockact-{os.getpid()}",
        ]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_signals(loop: str) -> None:
    """SIGTERM and SIGINT are noticed; of the second ones only SIGINT interrupts."""

    async def wait(number: signal.Signals, *, interrupts: bool) -> None:
        with stop_signals() as stop:
            os.kill(os.getpid(), number)
            await stop.wait()
            handler = signal.getsignal(signal.SIGINT)
            assert (handler is signal.default_int_handler) == interrupts
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.01)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    async def main() -> None:
        await wait(signal.SIGTERM, interrupts=False)
        await wait(signal.SIGINT, interrupts=True)

    go(main, loop)
