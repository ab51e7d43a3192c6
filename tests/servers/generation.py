"""A server for `tests.load`, one generation of it, with its drain or as it is: KIND [LOOP].

KIND is ``uvicorn``, ``aiohttp`` or ``asyncio``, and with ``plain-`` before that the same as a
program has it that knows nothing of sockact. LOOP is ``asyncio`` or ``uvloop``. It takes the sockets
it is activated with. Each answer has the server id $GENERATION.
"""

import asyncio
import contextlib
import os
import signal
import sys
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import sockact

Message = MutableMapping[str, Any]
SERVER_ID = os.environ.get("GENERATION", str(os.getpid()))


def line(query: str) -> bytes:
    """Return the answer to a query string."""
    return f"{urllib.parse.parse_qs(query)['n'][0]} {SERVER_ID}\n".encode()


async def asgi_app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Answer the load in ASGI."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = line(scope["query_string"].decode())
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def wsgi_app(environ: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
    """Answer the load in WSGI."""
    body = line(environ["QUERY_STRING"])
    start("200 OK", [("Content-Length", str(len(body)))])
    return [body]


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the load, which does not speak HTTP here."""
    with contextlib.suppress(OSError):
        nonce = (await reader.readline()).removeprefix(b"GET ").strip()
        writer.write(b"%s %s\n" % (nonce, SERVER_ID.encode()))
        writer.close()
        await writer.wait_closed()


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """Return a loop of that kind."""
    if name == "asyncio":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


def uvicorn(loop: str) -> None:
    """Serve with uvicorn, and drain."""
    from sockact.servers import uvicorn as drained

    drained.run(asgi_app, loop=loop, log_level="warning")


def aiohttp(loop: str) -> None:
    """Serve with aiohttp, and drain."""
    from sockact.servers import aiohttp as drained

    drained.run_app(aiohttp_app(), loop=new_loop(loop), print=None, access_log=None)


def plain_aiohttp(loop: str) -> None:
    """Serve with aiohttp alone."""
    from aiohttp import web

    socks = sockact.listen_fds().sockets()
    web.run_app(aiohttp_app(), sock=socks, loop=new_loop(loop), print=None, access_log=None)


def aiohttp_app() -> Any:
    """Return an application of aiohttp that answers the load."""
    from aiohttp import web

    async def get(request: web.Request) -> web.Response:
        return web.Response(body=line(request.query_string))

    app = web.Application()
    app.router.add_get("/", get)
    return app


def streams(loop: str) -> None:
    """Serve on streams, and drain."""
    from sockact.servers import asyncio as drained

    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        runner.run(drained.serve(answer, sockact.listen_fds()))


def plain_streams(loop: str) -> None:
    """Serve on streams alone: close the server at SIGTERM, and wait for the handlers."""
    tasks: set[asyncio.Task[None]] = set()

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            await answer(reader, writer)
        finally:
            tasks.discard(task)

    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        server = await asyncio.start_server(count, sock=sockact.socket())
        await stop.wait()
        server.close()
        await asyncio.sleep(0)
        if tasks:
            await asyncio.wait(tasks)

    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        runner.run(main())


KINDS = {
    "uvicorn": uvicorn,
    "aiohttp": aiohttp,
    "asyncio": streams,
    "plain-aiohttp": plain_aiohttp,
    "plain-asyncio": plain_streams,
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](*sys.argv[2:] or ("asyncio",))
