"""What the adapters of sockact.servers do besides losing nothing under load."""

import asyncio
import contextlib
import http.client
import inspect
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import sockact
from sockact.errors import NotifyError
from sockact.fd.queue import queue
from sockact.servers import asyncio as streams
from tests.helpers import (
    ROOT,
    SECONDS,
    SOCKACT,
    clean_environ,
    free_port,
    get,
    running,
    wait_until_accepting,
)
from tests.servers.succession import Succession

PYTHON = sys.executable
KINDS = [
    (kind, loop) for kind in ("uvicorn", "aiohttp", "asyncio") for loop in ("asyncio", "uvloop")
]
LONG = "1"
"""Seconds that a drain lasts where a test has to do something meanwhile."""


@pytest.fixture(name="listener")
def _listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=77) as sock:
        sock.setblocking(False)
        yield sock


def command(kind: str, loop: str = "asyncio") -> list[str]:
    """Return how a generation is started; without what it needs, skip."""
    for module in {kind, loop}:
        pytest.importorskip(module)
    return [PYTHON, "-m", "tests.servers.generation", kind, loop]


def request(kind: str, query: str) -> bytes:
    """Return a request as a server of that kind takes it."""
    if kind == "asyncio":
        return f"GET {query.removeprefix('n=')}\n".encode()
    return f"GET /?{query} HTTP/1.0\r\n\r\n".encode()


def answer(client: socket.socket) -> bytes:
    """Return the last line of what comes until the end of a connection."""
    client.settimeout(SECONDS)
    with client.makefile("rb") as file:
        return file.read().rpartition(b"\r\n")[2]


def until_accepted(listener: socket.socket) -> None:
    """Wait until the queue of a listener is empty."""
    deadline = time.monotonic() + SECONDS
    while (found := queue(listener.fileno())) and found.now:
        assert time.monotonic() < deadline
        time.sleep(0.002)


# --- the drain ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "loop"), KINDS)
def test_an_accepted_connection_is_heard(
    kind: str, loop: str, listener: socket.socket, tmp_path: Path
) -> None:
    """A request that arrives after SIGTERM, on a connection from before it, is answered."""
    words = command(kind, loop)
    with Succession(listener, lambda _: words, tmp_path, DRAIN_DELAY=LONG) as servers:
        with socket.create_connection(listener.getsockname(), SECONDS) as client:
            until_accepted(listener)
            servers.stop()
            assert servers.hear() == b"STOPPING=1"
            client.sendall(request(kind, "n=x"))
            assert answer(client) == b"x 1\n"
        servers.generations[-1].wait()


@pytest.mark.parametrize(("kind", "loop"), KINDS)
def test_nothing_is_accepted_any_more(
    kind: str, loop: str, listener: socket.socket, tmp_path: Path
) -> None:
    """A connection made after STOPPING=1 stays in the queue for the next generation."""
    words = command(kind, loop)
    with Succession(listener, lambda _: words, tmp_path, DRAIN_DELAY="0.2") as servers:
        servers.stop()
        assert servers.hear() == b"STOPPING=1"
        with socket.create_connection(listener.getsockname(), SECONDS) as client:
            client.sendall(request(kind, "n=x"))
            servers.generations[-1].wait()
            found = queue(listener.fileno())
            assert found
            assert found.now == 1
            servers.hand_over()
            assert answer(client) == b"x 2\n"


@pytest.mark.parametrize(("kind", "loop"), [kind for kind in KINDS if kind[0] != "asyncio"])
def test_a_request_under_way_is_finished(
    kind: str, loop: str, listener: socket.socket, tmp_path: Path
) -> None:
    """One that takes longer than the drain ends well."""
    words = command(kind, loop)
    with Succession(listener, lambda _: words, tmp_path, DRAIN_DELAY="0") as servers:
        with socket.create_connection(listener.getsockname(), SECONDS) as client:
            client.sendall(request(kind, "n=x&wait=0.5"))
            until_accepted(listener)
            time.sleep(0.1)
            servers.stop()
            assert answer(client) == b"x 1\n"
        servers.generations[-1].wait()


@pytest.mark.parametrize(("kind", "loop"), KINDS)
def test_a_second_interrupt_is_obeyed_at_once(
    kind: str, loop: str, listener: socket.socket, tmp_path: Path
) -> None:
    """Who presses Ctrl-C twice does not wait for the drain; two SIGTERMs are as good as one."""
    words = command(kind, loop)
    with Succession(
        listener, lambda _: words, tmp_path, signal.SIGINT, DRAIN_DELAY="1000"
    ) as servers:
        servers.stop()
        assert servers.hear() == b"STOPPING=1"
        servers.generations[-1].signal(signal.SIGTERM)
        with pytest.raises(TimeoutError):
            servers.generations[-1].wait(0.3)
        servers.stop()
        servers.generations[-1].wait()


# --- sockets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "loop"), KINDS)
def test_the_backlog_stays(kind: str, loop: str, listener: socket.socket, tmp_path: Path) -> None:
    """A server that calls listen(2) again does it with what its launcher has asked for."""
    words = command(kind, loop)
    with Succession(listener, lambda _: words, tmp_path):
        found = queue(listener.fileno())
        assert found
        assert found.limit == 77


@pytest.mark.parametrize("kind", ["uvicorn", "aiohttp"])
def test_serves_every_socket(kind: str, short_dir: Path) -> None:
    """All that the process was activated with is served, as sockact exec passes it."""
    port = free_port()
    sockets = ["-l", f"a=tcp:127.0.0.1:{port}", "-l", f"b=unix:{short_dir}/s"]
    with running([*SOCKACT, "exec", *sockets, "--", *command(kind)], cwd=ROOT) as process:
        for address in (("127.0.0.1", port), f"{short_dir}/s"):
            wait_until_accepting(address)
            assert get(address, "/?n=x") == (200, f"x {process.pid}\n")


UVICORN = [PYTHON, "-m", "sockact.servers.uvicorn", "tests.servers.generation:asgi_app"]
AIOHTTP = [PYTHON, "-m", "tests.servers.generation", "aiohttp-by-itself"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
@pytest.mark.parametrize("kind", ["uvicorn", "aiohttp"])
def test_by_itself_at_an_address(kind: str, host: str) -> None:
    """What was not activated listens where it is told."""
    pytest.importorskip(kind)
    port = free_port()
    words = [*UVICORN, "--host", host, "--port", str(port)]
    if kind == "aiohttp":
        words = [*AIOHTTP, host, str(port)]
    with running(words, cwd=ROOT) as process:
        url = f"http://{f'[{host}]' if ':' in host else '127.0.0.1'}:{port}"
        stream = process.stderr if kind == "uvicorn" else process.stdout
        assert stream
        while f"{url} " not in (line := stream.readline()) and f"{url}," not in line:
            assert line, process.communicate()
        connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/?n=x")
            assert connection.getresponse().read() == f"x {process.pid}\n".encode()


@pytest.mark.parametrize("kind", ["uvicorn", "aiohttp"])
def test_by_itself_at_a_path(kind: str, short_dir: Path) -> None:
    """The same with a Unix socket, whose path stays."""
    pytest.importorskip(kind)
    path = f"{short_dir}/s"
    words = [*AIOHTTP, path]
    if kind == "uvicorn":
        words = [*UVICORN, "--uds", path, "--backlog", "33", "--log-level", "warning"]
    with running(words, cwd=ROOT) as process:
        deadline = time.monotonic() + SECONDS
        while not Path(path).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert get(path, "/?n=x") == (200, f"x {process.pid}\n")
        process.terminate()
        process.wait(SECONDS)
    assert Path(path).is_socket()


# --- the service manager --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uvicorn", "aiohttp", "asyncio"])
def test_a_manager_that_went_away_does_not_matter(
    kind: str, listener: socket.socket, tmp_path: Path
) -> None:
    """If STOPPING=1 cannot be said, the drain takes place all the same."""
    words = command(kind)
    with Succession(listener, lambda _: words, tmp_path, DRAIN_DELAY=LONG) as servers:
        with socket.create_connection(listener.getsockname(), SECONDS) as client:
            until_accepted(listener)
            (tmp_path / "notify").unlink()
            servers.stop()
            time.sleep(0.3)
            client.sendall(request(kind, "n=x"))
            assert answer(client) == b"x 1\n"
        servers.generations[-1].wait()
        assert "Traceback" not in servers.log.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["uvicorn", "aiohttp", "asyncio"])
def test_a_manager_that_is_not_there(kind: str, tmp_path: Path) -> None:
    """If READY=1 cannot be said, the server does not go on unheard."""
    words = [*SOCKACT, "exec", "-l", "tcp:127.0.0.1:0", "--", *command(kind)]
    done = subprocess.run(
        words,
        env=clean_environ({"NOTIFY_SOCKET": f"{tmp_path}/none"}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode
    assert "cannot notify" in done.stderr


# --- uvicorn --------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{"workers": 2}, {"reload": True}, {"fd": 3}])
def test_uvicorn_refuses_what_it_cannot_do(config: dict[str, Any]) -> None:
    """Several processes, and descriptors by number, are errors and not ignored."""
    pytest.importorskip("uvicorn")
    from sockact.servers import uvicorn

    with pytest.raises(ValueError, match=r"one process|by number"):
        uvicorn.run("app:app", log_config=None, sockets=[], **config)


def test_uvicorn_that_has_not_started_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, short_dir: Path
) -> None:
    """Older versions return from the start of an application that has failed, and end then."""
    uvicorn = pytest.importorskip("uvicorn")
    from sockact.servers.uvicorn import Server

    async def startup(server: Any, sockets: object = None) -> None:
        del sockets
        server.should_exit = True  # as uvicorn 0.30

    monkeypatch.setattr(uvicorn.Server, "startup", startup)
    monkeypatch.setenv("NOTIFY_SOCKET", str(short_dir / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short_dir / "notify"))
        manager.setblocking(False)
        asyncio.run(Server(uvicorn.Config("app:app", log_config=None)).startup([]))
        with pytest.raises(BlockingIOError):
            manager.recv(100)


def test_uvicorn_refuses_workers_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """So are workers that $WEB_CONCURRENCY asks for."""
    pytest.importorskip("uvicorn")
    from sockact.servers import uvicorn

    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    with pytest.raises(ValueError, match="WEB_CONCURRENCY"):
        uvicorn.run("app:app", log_config=None, sockets=[])


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, "-m", "sockact.servers.uvicorn", *arguments],
        env=clean_environ(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_uvicorn_command() -> None:
    """The command has uvicorn's options but for several processes, and one more."""
    pytest.importorskip("uvicorn")
    done = _run("--help")
    assert done.returncode == 0
    for option in ("--drain-delay", "--host", "--ssl-keyfile", "--header"):
        assert option in done.stdout
    for option in ("--workers", "--reload", "--fd"):
        assert option not in done.stdout


def test_uvicorn_command_says_what_is_wrong(listener: socket.socket) -> None:
    """An address that is taken is one line, and so is an application that does not exist."""
    pytest.importorskip("uvicorn")
    app = "tests.servers.generation:asgi_app"
    done = _run(app, "--port", str(listener.getsockname()[1]))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    done = _run("tests.servers.generation:none", "--port", "0")
    assert done.returncode
    assert 'Attribute "none" not found' in done.stderr
    assert "Traceback" not in done.stderr


def test_uvicorn_takes_headers(listener: socket.socket, tmp_path: Path) -> None:
    """An option that uvicorn's command translates arrives as from there."""
    pytest.importorskip("uvicorn")
    words = [*UVICORN, "--header", "X-One:1"]
    with Succession(listener, lambda _: words, tmp_path):
        host, port = listener.getsockname()
        connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/?n=x")
            assert connection.getresponse().headers["X-One"] == "1"


# --- aiohttp --------------------------------------------------------------------------------------


def test_aiohttp_refuses_what_it_cannot_do() -> None:
    """Options that would be another way to listen are errors and not ignored."""
    pytest.importorskip("aiohttp")
    from sockact.servers import aiohttp
    from tests.servers.generation import aiohttp_app

    with pytest.raises(TypeError, match="reuse_port, sock"):
        aiohttp.run_app(aiohttp_app(), sock=None, reuse_port=True)


def test_aiohttp_cleans_up(listener: socket.socket) -> None:
    """The application's signals are called in their order, also if it is given as a coroutine."""
    pytest.importorskip("aiohttp")
    from aiohttp import web

    from sockact.servers import aiohttp

    called: list[str] = []

    def note(name: str) -> Callable[[web.Application], Awaitable[None]]:
        async def call(_: web.Application) -> None:
            called.append(name)
            if name == "startup":
                os.kill(os.getpid(), signal.SIGTERM)  # which is not too early

        return call

    async def make() -> web.Application:
        app = web.Application()
        app.on_startup.append(note("startup"))
        app.on_shutdown.append(note("shutdown"))
        app.on_cleanup.append(note("cleanup"))
        return app

    sock = listener.dup()
    aiohttp.run_app(make(), sockets=[sock], print=called.append, drain_delay=0)
    port = listener.getsockname()[1]
    assert called == [
        f"======== Running on http://127.0.0.1:{port} ========",
        *("startup", "shutdown", "cleanup"),
    ]
    assert sock.fileno() == -1


# --- asyncio --------------------------------------------------------------------------------------


def go(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test in a loop of its own, and not for ever."""
    asyncio.run(asyncio.wait_for(main(), SECONDS))


def stop() -> None:
    """Tell this process to stop."""
    os.kill(os.getpid(), signal.SIGTERM)


def test_streams_send_all_before_the_end(listener: socket.socket) -> None:
    """A handler that has closed its writer is done only when everything is sent."""
    size = 8 << 20

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(size))
        writer.close()

    async def main() -> None:
        sock = listener.dup()
        serving = asyncio.create_task(streams.serve(handle, [sock], drain_delay=0))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        assert await reader.read(1)
        stop()
        await asyncio.sleep(0.1)
        assert not serving.done()
        assert len(await reader.read()) == size - 1
        await serving
        assert sock.fileno() == -1
        writer.close()

    go(main)


def test_streams_are_cancelled_in_the_end(listener: socket.socket) -> None:
    """Handlers that do not return in time are cancelled."""
    ends: list[type[BaseException]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except asyncio.CancelledError as error:
            ends.append(type(error))
            raise
        finally:
            writer.close()

    async def main() -> None:
        sock = listener.dup()
        serving = asyncio.create_task(
            streams.serve(handle, [sock], drain_delay=0, shutdown_timeout=0.05)
        )
        _, writer = await asyncio.open_connection(*listener.getsockname())
        await asyncio.sleep(0.05)
        stop()
        await serving
        writer.close()

    go(main)
    assert ends == [asyncio.CancelledError]


def test_streams_drain_when_cancelled(listener: socket.socket) -> None:
    """Whoever ends it by cancelling its task loses nothing either."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async def main() -> None:
        serving = asyncio.create_task(streams.serve(handle, [listener.dup()], drain_delay=0.2))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        await asyncio.sleep(0.05)
        serving.cancel()
        await asyncio.sleep(0)
        writer.write(b"x\n")
        assert await reader.read() == b"x\n"
        with pytest.raises(asyncio.CancelledError):
            await serving
        writer.close()

    go(main)


def test_protocols_are_drained(listener: socket.socket) -> None:
    """A server of one's own, not serving yet, serves until the signal, and is closed."""
    made: list[bytes] = []

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            made.append(data)
            self.transport.close()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, sock=listener.dup(), start_serving=False)
        with socket.create_connection(listener.getsockname(), SECONDS) as client:
            client.sendall(b"x")
            loop.call_later(0.05, stop)
            await streams.serve_until_drained(server, drain_delay=0.01)
        assert made == [b"x"]
        assert not server.sockets

    go(main)


def test_streams_take_a_set(short_dir: Path) -> None:
    """All sockets of a set are served and closed; what is no stream is refused."""

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")
        writer.close()

    async def main() -> None:
        with sockact.listen("tcp:127.0.0.1:0", f"unix:{short_dir}/s") as sockets:
            names = [sock.getsockname() for sock in sockets.sockets()]
            serving = asyncio.create_task(streams.serve(handle, sockets, drain_delay=0))
            for family, name in zip((socket.AF_INET, socket.AF_UNIX), names, strict=True):
                with socket.socket(family) as client:
                    client.setblocking(False)
                    await asyncio.get_running_loop().sock_connect(client, name)
                    assert await asyncio.get_running_loop().sock_recv(client, 10) == b"x"
            stop()
            await serving
            assert all(entry.closed for entry in sockets)
        with sockact.listen("tcp:127.0.0.1:0", "udp:127.0.0.1:0") as sockets:
            with pytest.raises(ValueError, match="Stream"):
                await streams.serve(handle, sockets, drain_delay=0)
            assert all(entry.closed for entry in sockets)

    go(main)


def test_ready_is_an_error_if_it_cannot_be_said(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a manager, but it does not listen: nothing is served in vain."""

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def main() -> None:
        monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent")
        with pytest.raises(NotifyError):
            await streams.serve(handle, [listener.dup()], drain_delay=0)
        monkeypatch.delenv("NOTIFY_SOCKET")

    go(main)


# --- imports --------------------------------------------------------------------------------------


def test_imports_are_lazy() -> None:
    """Who imports sockact gets none of it."""
    text = "import sockact, sys; print({'asyncio', 'uvicorn', 'aiohttp'} & set(sys.modules))"
    assert subprocess.check_output([PYTHON, "-c", text], text=True, cwd=ROOT) == "set()\n"


# --- documentation --------------------------------------------------------------------------------


def test_the_manual_shows_each_function() -> None:
    """sockact(3) has each function with its arguments in their order."""
    for module in ("uvicorn", "aiohttp"):
        pytest.importorskip(module)
    from sockact.servers import aiohttp, uvicorn

    page = (ROOT / "man" / "sockact.3").read_text(encoding="utf-8").replace("\\\n", "")
    functions: list[Callable[..., object]] = [
        *(uvicorn.run, aiohttp.run_app, aiohttp.serve, streams.serve, streams.serve_until_drained)
    ]
    for function in functions:
        parameters = inspect.signature(function).parameters.values()
        # A parameter as text is "*name: type = value".
        words = " ".join(f'"{str(one).partition(":")[0].partition("=")[0]}"' for one in parameters)
        name = f"{function.__module__.removeprefix('sockact.')}.{function.__name__}"
        assert f".It Fn {name} {words}\n" in page
