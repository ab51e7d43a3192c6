"""The rendezvous under asyncio: between real processes, and what cancellation leaves behind."""

import asyncio
import contextlib
import http.client
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import sockact
from sockact.errors import (
    BindError,
    ListenTextError,
    OwnerNotFoundError,
    PathInUseError,
    RefusedError,
    RendezvousError,
    TakeoverAbortedError,
)
from tests.helpers import ROOT, SECONDS, free_port, get, running
from tests.load import Load
from tests.rendezvous.peers import count_fds, leading, until

if TYPE_CHECKING:
    import subprocess

PYTHON = sys.executable
WEB = "web=tcp:127.0.0.1:0"


def go(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test in a loop of its own, and not for ever."""
    asyncio.run(asyncio.wait_for(main(), SECONDS))


@pytest.fixture(name="path")
def _path(short_dir: Path) -> str:
    return str(short_dir / "r")


@contextlib.contextmanager
def server(path: str, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a generation of the server on asyncio."""
    with running([PYTHON, "-m", "tests.aio_server", path, *words], cwd=ROOT) as process:
        yield process


def hear(process: "subprocess.Popen[str]", text: str) -> None:
    """Wait until a server has said this and nothing else."""
    assert process.stdout
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    try:
        line = process.stdout.readline().strip()
    finally:
        timer.cancel()
        timer.join()
    assert line == text


@pytest.mark.parametrize("rate", [0.0, 300.0], ids=["closed loop", "open loop"])
def test_three_generations_lose_no_request(path: str, rate: float) -> None:
    """Servers that replace each other under load answer every request, each of them some."""
    port = free_port()
    address = f"web=tcp:127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(server(path, address))
        hear(first, "pending 1")
        hear(first, "serving")
        load = stack.enter_context(Load(("127.0.0.1", port), rate=rate))
        family = [first]
        for generation in (2, 3):
            time.sleep(0.2)  # some requests for each
            family.append(stack.enter_context(server(path, address)))
            hear(family[-1], f"pending {generation}")
            hear(family[-1], "serving")
            hear(family[-2], "draining")
            hear(family[-2], "gone")
            assert family[-2].wait(SECONDS) == 0
        time.sleep(0.2)
        result = load.stop()
        assert not result.failed, result
        assert set(result.by_server) == {str(process.pid) for process in family}


def test_one_that_dies_before_it_is_ready_changes_nothing(path: str) -> None:
    """The owner goes on serving as if nobody had asked, and can still be succeeded."""
    port = free_port()
    address = f"web=tcp:127.0.0.1:{port}"
    with server(path, address) as first:
        hear(first, "pending 1")
        hear(first, "serving")
        with Load(("127.0.0.1", port), rate=300.0) as load:
            with server(path, address, "never") as second:
                hear(second, "pending 2")
            time.sleep(0.1)
            result = load.stop()
        assert not result.failed, result
        assert set(result.by_server) == {str(first.pid)}
        with server(path, address) as third:
            hear(third, "pending 2")
            hear(third, "serving")
            hear(first, "draining")
            hear(first, "gone")


def test_a_successor_that_dies_during_the_drain_is_replaced_by_the_former_owner(path: str) -> None:
    """It is told to resume, serves again, and is succeeded by a third."""
    port = free_port()
    address = f"web=tcp:127.0.0.1:{port}"
    with server(path, address, "hold") as first:
        hear(first, "pending 1")
        hear(first, "serving")
        with server(path, address) as second:
            hear(second, "pending 2")
            hear(second, "serving")
            hear(first, "draining")
        hear(first, "resumed")
        with Load(("127.0.0.1", port)) as load:
            time.sleep(0.1)
            result = load.stop()
        assert not result.failed, result
        assert set(result.by_server) == {str(first.pid)}
        with server(path, address) as third:
            hear(third, "pending 2")
            hear(third, "serving")
            hear(first, "draining")


def test_abort_before_ready(path: str) -> None:
    """Leaving the block before ready() leaves the owner in charge, and its sockets alone."""

    async def main() -> None:
        async with sockact.aio.takeover(path, WEB) as owner:
            await owner.ready()
            await owner.ready()
            async with sockact.aio.takeover(path) as taker:
                assert (owner.generation, taker.generation) == (1, 2)
            assert not await owner.wait_successor(0.05)
            assert owner.phase == "is the owner"
            with socket.create_connection(owner.sockets["web"].getsockname(), SECONDS):
                pass
        assert os.listdir(os.path.dirname(path)) == []

    go(main)


def test_owner_and_taker_in_one_loop(path: str) -> None:
    """Both ends may run in one loop; the former owner's close says that its drain is over."""

    async def main() -> None:
        owner = await sockact.aio.takeover(path, WEB)
        await owner.ready()
        stopped: list[str] = []
        owner.on_drain(lambda: stopped.append(owner.phase))
        async with sockact.aio.takeover(path, drain=3.0) as taker:
            await asyncio.gather(taker.ready(), owner.wait_successor())
            assert stopped == ["has stopped accepting for its successor"]
            await owner.close()
            await owner.close()
            assert taker.phase == "is the owner"
            with pytest.raises(BlockingIOError):
                taker.sockets["web"].accept()

    go(main)


def test_close_waits_for_a_commit_under_way_even_if_cancelled(path: str) -> None:
    """A close() between the stop and the successor's word does not block the loop, and succeeds."""

    async def main() -> None:
        owner = await sockact.aio.takeover(path, WEB)
        await owner.ready()
        closing: list[asyncio.Task[None]] = []

        def stop() -> None:
            closing.append(asyncio.ensure_future(owner.close()))
            asyncio.get_running_loop().call_soon(closing[0].cancel)

        owner.on_drain(stop)
        async with sockact.aio.takeover(path) as taker:
            await taker.ready()
            await asyncio.wait(closing)
            assert closing[0].cancelled()
            assert owner.phase == "is over"
            assert taker.phase == "is the owner"
            assert os.path.exists(path)

    go(main)


def test_a_thread_is_succeeded_by_a_loop_and_the_other_way_round(path: str) -> None:
    """Owners and takers of both kinds mix."""

    async def main() -> None:
        with await asyncio.to_thread(leading, path, WEB) as first:
            address = first.sockets["web"].getsockname()
            async with sockact.aio.takeover(path, WEB) as second:
                await second.ready()
                assert await asyncio.to_thread(first.wait_successor, SECONDS)
                first.close()
                assert second.sockets["web"].getsockname() == address
                with await asyncio.to_thread(sockact.takeover, path) as third:
                    await asyncio.to_thread(third.ready)
                    assert await second.wait_successor(SECONDS)
                    await second.close()
                    assert third.generation == 3
                    assert third.sockets["web"].getsockname() == address

    go(main)


def test_ready_fails_if_the_owner_does_not_answer(path: str) -> None:
    """After its timeout everything is closed."""

    async def main() -> None:
        async with sockact.aio.takeover(path, WEB) as owner:
            await owner.ready()
            release = threading.Event()
            owner.on_drain(lambda: None)
            async with sockact.aio.takeover(path) as taker:
                with pytest.raises(TakeoverAbortedError, match="did not commit in time"):
                    await taker.ready(timeout=0)
                assert taker.phase == "is over"
                assert taker.sockets.entry("web").closed
            release.set()

    go(main)


def test_a_forked_child_closes_its_copies_alone(path: str) -> None:
    """Its close() leaves the loop and the path of its parent alone."""

    async def main() -> None:
        async with sockact.aio.takeover(path, WEB) as owner:
            await owner.ready()
            pid = os.fork()
            if not pid:
                with contextlib.suppress(BaseException):
                    await owner.close()
                    os._exit(0 if owner.sockets.entry("web").closed else 2)
                os._exit(1)
            assert os.waitpid(pid, 0)[1] == 0
            async with sockact.aio.takeover(path, WEB) as taker:
                await taker.ready()
                assert await owner.wait_successor(SECONDS)

    go(main)


def test_cancelled_while_the_owner_is_busy(path: str) -> None:
    """The wait ends at once; what its thread takes later is given back."""

    async def main() -> None:
        async with sockact.aio.takeover(path, WEB) as owner:
            await owner.ready()
            async with sockact.aio.takeover(path):
                before = count_fds()
                waiting = asyncio.ensure_future(_arrive(path))
                await asyncio.sleep(0.1)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            await _calm(lambda: count_fds() <= before)
            await _calm(lambda: not _errands())
            assert owner.phase == "is the owner"
            async with sockact.aio.takeover(path) as taker:
                await taker.ready()

    go(main)


@pytest.mark.parametrize("turns", range(0, 12, 2))
def test_cancelled_at_any_moment_of_the_arrival(path: str, turns: int) -> None:
    """Nothing stays open, and neither path nor lock stay behind."""

    async def main() -> None:
        before = count_fds()
        waiting = asyncio.ensure_future(_arrive(path))
        await asyncio.sleep(turns / 1000)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await waiting).close()
        await _calm(lambda: not _errands() and count_fds() == before)
        assert os.listdir(os.path.dirname(path)) == []

    go(main)


def test_a_result_that_comes_when_its_task_is_cancelled_is_undone(path: str) -> None:
    """The cancellation and the result in the same turn of the loop lose no descriptor."""

    async def main() -> None:
        before = count_fds()
        waiting = asyncio.ensure_future(_arrive(path))
        await asyncio.sleep(0)
        while _errands():
            time.sleep(0.01)  # the loop does not turn, so the result is there, unfetched
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert count_fds() == before
        assert os.listdir(os.path.dirname(path)) == []

    go(main)


def test_a_loop_that_is_closed_before_the_thread_is_done(path: str) -> None:
    """A loop that has ended without its tasks leaves nothing open either."""
    with leading(path, WEB):
        before = count_fds()
        with sockact.takeover(path):
            loop = asyncio.new_event_loop()
            task = loop.create_task(_arrive(path))
            loop.run_until_complete(asyncio.sleep(0.05))
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
            loop.close()
        until(lambda: not _errands() and count_fds() == before, "everything is closed")


async def _arrive(path: str) -> "sockact.aio.Rendezvous":
    return await sockact.aio.takeover(path, WEB)


def _errands() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "sockact-errand"]


async def _calm(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_arrival_errors(path: str) -> None:
    """They are those of the calls that block."""

    async def main() -> None:
        with pytest.raises(ListenTextError):
            sockact.aio.takeover(path, "nonsense:1")
        with pytest.raises(PathInUseError):
            await sockact.aio.takeover(os.path.dirname(path) + "/missing/r", WEB)
        with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(BindError):
            await sockact.aio.takeover(path, f"tcp:127.0.0.1:{other.getsockname()[1]}")
        assert os.listdir(os.path.dirname(path)) == []

    go(main)


def test_offer_take_and_holdings(path: str) -> None:
    """A set is offered, listed and taken; who is no holder refuses put and drop."""

    async def main() -> None:
        sockets = sockact.listen(WEB)
        async with sockact.aio.offer(path, sockets) as t:
            assert t.sockets is sockets
            assert [one.entry.name for one in await sockact.aio.holdings(path)] == ["web"]
            with await sockact.aio.take(path, "web") as taken:
                assert taken["web"].getsockname() == sockets["web"].getsockname()
            with pytest.raises(RefusedError):
                await sockact.aio.take(path, "dns")
            with pytest.raises(RendezvousError, match="only a holder"):
                await sockact.aio.put(path, "more", sockets)
            with pytest.raises(RefusedError):
                await sockact.aio.drop(path, "web")
            with sockact.listen(WEB) as mine:
                with pytest.raises(PathInUseError):
                    await sockact.aio.offer(path, mine, timeout=0)
                assert not mine.entry("web").closed
        assert sockets.entry("web").closed
        with pytest.raises(OwnerNotFoundError):
            await sockact.aio.take(path)

    go(main)


def test_a_stopped_server_leaves_connections_in_the_queue_and_its_own_alone() -> None:
    """What was accepted is answered; what comes later waits until the server accepts again."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async def main() -> None:
        served = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = served.sockets[0].getsockname()
        old_reader, old_writer = await asyncio.open_connection(*address)
        await asyncio.sleep(0.05)
        sockact.aio.stop_accepting(served)
        assert not served.is_serving()
        new_reader, new_writer = await asyncio.open_connection(*address)
        for writer in (old_writer, new_writer):
            writer.write(b"x\n")
        assert await old_reader.read() == b"x\n"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(new_reader.read(), 0.1)
        sockact.aio.resume_accepting(served)
        assert await new_reader.read() == b"x\n"
        for writer in (old_writer, new_writer):
            writer.close()
            await writer.wait_closed()
        served.close()
        await served.wait_closed()
        sockact.aio.stop_accepting(served)
        with pytest.raises(RuntimeError, match="closed"):
            sockact.aio.resume_accepting(served)
        with pytest.raises(TypeError, match=r"no asyncio\.Server"):
            sockact.aio.stop_accepting(object())  # type: ignore[arg-type]

    go(main)


def test_what_was_accepted_in_the_turn_of_the_stop_is_answered(path: str) -> None:
    """A connection that accept(2) has just returned has its handler when wait_successor returns."""

    async def main() -> None:
        begun: list[int] = []

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            begun.append(1)
            writer.close()

        async with contextlib.AsyncExitStack() as stack:
            owner = await stack.enter_async_context(sockact.aio.takeover(path, WEB))
            await owner.ready()
            taker = await stack.enter_async_context(sockact.aio.takeover(path))
            served = await asyncio.start_server(serve, sock=owner.sockets["web"])
            owner.on_drain(lambda: sockact.aio.stop_accepting(served))
            address = owner.sockets["web"].getsockname()
            for _ in range(20):
                with socket.create_connection(address):
                    pass
            # Not awaited before: the ready is read in the same turn as the connections.
            await asyncio.gather(taker.ready(), owner.wait_successor())
            accepted = 20 - _left(taker.sockets["web"])
            assert len(begun) == accepted
            served.close()

    go(main)


def _left(listener: socket.socket) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


@pytest.mark.parametrize("second", ["asyncio", "plain"])
@pytest.mark.parametrize("first", ["asyncio", "plain"])
def test_examples_replace_each_other(path: str, first: str, second: str) -> None:
    """A second copy of takeover_asyncio.py or takeover_plain.py replaces the first."""
    port = free_port()
    commands = [
        [PYTHON, f"examples/takeover_{name}.py", path, f"web=tcp:127.0.0.1:{port}"]
        for name in (first, second)
    ]
    answers: list[str] = []
    failures: list[Exception] = []
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            try:
                answers.append(get(("127.0.0.1", port))[1])
            except (OSError, http.client.HTTPException) as error:
                failures.append(error)

    with running(commands[0], cwd=ROOT) as old:
        hear(old, f"process {old.pid} serves, generation 1")
        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        try:
            with running(commands[1], cwd=ROOT) as new:
                hear(new, f"process {new.pid} serves, generation 2")
                hear(old, f"process {old.pid} has finished")
                assert old.wait(SECONDS) == 0
                answers.append(get(("127.0.0.1", port))[1])
                enough.set()
                for thread in asking:
                    thread.join()
        finally:
            enough.set()
            for thread in asking:
                thread.join()
    assert not failures
    assert answers[-1] == f"Hello from process {new.pid}\n"
    assert set(answers) == {f"Hello from process {pid}\n" for pid in (old.pid, new.pid)}


def test_a_command_is_awaited(path: str) -> None:
    """The loop goes on meanwhile; cancelling it leaves nothing open, and the command goes on."""
    heard: list[str] = []

    async def main() -> None:
        def obey(
            _who: object, command: str, arguments: object, answer: Callable[..., None]
        ) -> None:
            heard.append(command)
            if command == "echo":
                answer({"arguments": arguments})

        with leading(path, WEB) as owner:
            owner._tenure.commands = obey
            found = await sockact.aio.control(path, "echo", {"a": 1})
            assert found == {"arguments": {"a": 1}}
            waiting = asyncio.create_task(sockact.aio.control(path, "wait", timeout=1.0))
            while len(heard) < 2:
                await asyncio.sleep(0.01)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
            assert owner.phase == "is the owner"

    before = count_fds()
    go(main)
    until(lambda: count_fds() <= before, "everything is closed")
