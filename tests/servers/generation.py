"""A server for `tests.load`, one generation of it, with its drain or as it is: KIND [LOOP].

KIND is ``uvicorn``, ``aiohttp`` or ``asyncio``; with ``plain-`` before it is what a program has that
knows nothing of the drain. LOOP is ``asyncio`` or ``uvloop``. It takes the sockets that it is
activated with, and answers with the server id $GENERATION. A query ``wait=SECONDS`` has a request
take so long; $DRAIN_DELAY is that of the drain.
"""

import asyncio
import contextlib
import functools
import os
import signal
import sys
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import sockact

Message = MutableMapping[str, Any]
SERVER_ID = os.environ.get("GENERATION", str(os.getpid()))


DRAIN_DELAY = float(os.environ.get("DRAIN_DELAY", "0.5"))


def seconds(query: str) -> float:
    """Return how long a request is to take."""
    return float(urllib.parse.parse_qs(query).get("wait", ["0"])[0])


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
    query = scope["query_string"].decode()
    await asyncio.sleep(seconds(query))
    body = line(query)
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

    drained.run(asgi_app, loop=loop, log_level="warning", drain_delay=DRAIN_DELAY)


def aiohttp(loop: str) -> None:
    """Serve with aiohttp, and drain."""
    from sockact.servers import aiohttp as drained

    drained.run_app(
        aiohttp_app(),
        loop=new_loop(loop),
        print=None,
        access_log=None,
        drain_delay=DRAIN_DELAY,
    )


def aiohttp_by_itself(place: str, port: str = "") -> None:
    """Serve with aiohttp where it was not activated: at a host and port, or at a path."""
    from sockact.servers import aiohttp as drained

    where: dict[str, Any] = {"host": place, "port": int(port)} if port else {"path": place}
    drained.run_app(aiohttp_app(), **where, print=functools.partial(print, flush=True))


def plain_aiohttp(loop: str) -> None:
    """Serve with aiohttp alone."""
    from aiohttp import web

    socks = sockact.listen_fds().sockets()
    web.run_app(aiohttp_app(), sock=socks, loop=new_loop(loop), print=None, access_log=None)


def aiohttp_app() -> Any:
    """Return an application of aiohttp that answers the load."""
    from aiohttp import web

    async def get(request: web.Request) -> web.Response:
        await asyncio.sleep(seconds(request.query_string))
        return web.Response(body=line(request.query_string))

    app = web.Application()
    app.router.add_get("/", get)
    return app


def streams(loop: str) -> None:
    """Serve on streams, and drain."""
    from sockact.servers import asyncio as drained

    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        runner.run(drained.serve(answer, sockact.listen_fds(), drain_delay=DRAIN_DELAY))


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


KINDS: dict[str, Callable[..., None]] = {
    "uvicorn": uvicorn,
    "aiohttp": aiohttp,
    "asyncio": streams,
    "aiohttp-by-itself": aiohttp_by_itself,
    "plain-aiohttp": plain_aiohttp,
    "plain-asyncio": plain_streams,
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](*sys.argv[2:] or ("asyncio",))
