"""Replacing a server by SIGTERM, under load, when its successor is ready: nothing may be lost."""

import asyncio
import contextlib
import random
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.load import Address, Load
from tests.servers.succession import Succession

HANDOVERS = 20
KINDS = [("uvicorn", "uvloop"), ("uvicorn", "asyncio"), ("aiohttp", "asyncio"), ("asyncio", "asyncio")]  # fmt: skip
FEWER_HANDOVERS = 5
OTHER_KINDS = [("aiohttp", "uvloop"), ("asyncio", "uvloop")]
KEPT = 8
THINK_SECONDS = 0.002


@pytest.fixture(params=["tcp", "unix"])
def listener(request: pytest.FixtureRequest, short_dir: Path) -> Iterator[socket.socket]:
    """Give a listener that outlives every server."""
    family = socket.AF_UNIX if request.param == "unix" else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind(f"{short_dir}/s" if request.param == "unix" else ("127.0.0.1", 0))
        sock.listen(512)
        sock.setblocking(False)
        yield sock


def command(kind: str, loop: str) -> list[str]:
    """Return how a generation is started; without uvloop, skip."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    if kind != "asyncio":
        pytest.importorskip(kind)
    return [sys.executable, "-m", "tests.servers.generation", kind, loop]


def place(listener: socket.socket) -> Address:
    """Return where a client finds a listener."""
    address: Address = listener.getsockname()
    return address


def lose_nothing(kind: str, loop: str, handovers: int, listener: socket.socket, log: Path) -> None:
    """Hand over under load so many times, and look at what became of the requests."""
    words = command(kind, loop)
    with Succession(listener, lambda _: words, log) as servers:
        with Load(place(listener), http=kind != "asyncio") as load:
            for _ in range(handovers):
                servers.hand_over()
            statuses = servers.statuses()
            result = load.stop()
        assert not result.failed, (result, servers.log.read_text(encoding="utf-8"))
        assert len(result.by_server) > handovers / 2, "the test is void"
        # uvicorn ends itself by the signal, when everything is done.
        assert set(statuses) == {-signal.SIGTERM if kind == "uvicorn" else 0}
        assert servers.log.read_text(encoding="utf-8") == ""


@pytest.mark.parametrize("listener", ["tcp"], indirect=True)
@pytest.mark.parametrize(("kind", "loop"), KINDS)
def test_no_request_is_lost(kind: str, loop: str, listener: socket.socket, tmp_path: Path) -> None:
    """A launcher that sends SIGTERM when the next one is ready loses not one request."""
    lose_nothing(kind, loop, HANDOVERS, listener, tmp_path)


@pytest.mark.parametrize("listener", ["tcp"], indirect=True)
@pytest.mark.parametrize(("kind", "loop"), OTHER_KINDS)
def test_no_request_is_lost_on_another_loop(
    kind: str, loop: str, listener: socket.socket, tmp_path: Path
) -> None:
    """The same where the other loop is the unusual one."""
    lose_nothing(kind, loop, FEWER_HANDOVERS, listener, tmp_path)


@pytest.mark.parametrize("listener", ["unix"], indirect=True)
@pytest.mark.parametrize("kind", ["uvicorn", "aiohttp", "asyncio"])
def test_no_request_is_lost_on_a_unix_socket(
    kind: str, listener: socket.socket, tmp_path: Path
) -> None:
    """The same, and the path stays."""
    lose_nothing(kind, "asyncio", FEWER_HANDOVERS, listener, tmp_path)
    assert Path(str(place(listener))).is_socket()


async def _keep(address: Address, stop: asyncio.Event, counts: dict[str, int]) -> None:
    """Make requests on one connection as long as it lasts, then on another."""
    assert not isinstance(address, str)
    while not stop.is_set():
        reader, writer = await asyncio.open_connection(*address)
        with contextlib.closing(writer):
            while not stop.is_set():
                if reader.at_eof():
                    counts["closed when idle"] += 1
                    break
                writer.write(b"GET /?n=x HTTP/1.1\r\nHost: localhost\r\n\r\n")
                try:
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                    assert (await reader.readexactly(size)).startswith(b"x ")
                except (OSError, asyncio.IncompleteReadError):
                    counts["lost"] += 1
                    break
                if b"connection: close" in head:
                    counts["told to close"] += 1
                    break
                await asyncio.sleep(random.uniform(0, THINK_SECONDS))


@pytest.mark.parametrize("listener", ["tcp"], indirect=True)
@pytest.mark.parametrize("kind", ["uvicorn", "aiohttp"])
def test_kept_connections_are_closed_between_requests(
    kind: str, listener: socket.socket, tmp_path: Path
) -> None:
    """A client that goes on with its connection is told to leave, and loses no request by it."""
    words = command(kind, "asyncio")
    counts = dict.fromkeys(("lost", "told to close", "closed when idle"), 0)

    async def main() -> None:
        stop = asyncio.Event()
        with Succession(listener, lambda _: words, tmp_path) as servers:
            async with asyncio.TaskGroup() as group:
                for _ in range(KEPT):
                    group.create_task(_keep(place(listener), stop, counts))
                for _ in range(FEWER_HANDOVERS):
                    await asyncio.to_thread(servers.hand_over)
                    await asyncio.to_thread(servers.statuses)
                stop.set()

    asyncio.run(main())
    assert counts["lost"] == 0
    assert counts["told to close"] >= FEWER_HANDOVERS


@pytest.mark.parametrize("listener", ["tcp"], indirect=True)
@pytest.mark.parametrize("kind", ["uvicorn", "aiohttp", "asyncio"])
def test_says_when_it_serves_and_when_it_stops(
    kind: str, listener: socket.socket, tmp_path: Path
) -> None:
    """The service manager hears READY=1 and STOPPING=1, of each generation once."""
    words = command(kind, "asyncio")
    with Succession(listener, lambda _: words, tmp_path) as servers:
        servers.hand_over()
        assert servers.hear() == b"STOPPING=1"
        servers.statuses()
        assert servers.heard == [b"READY=1", b"READY=1", b"STOPPING=1"]
