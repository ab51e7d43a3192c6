"""aiohttp's server, such that it can be replaced without a lost request."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from sockact.activation import notify
from sockact.library import activated_or_listen
from sockact.servers.drain import (
    DRAIN_DELAY,
    Sockets,
    close,
    definition,
    drain,
    limit_of,
    listeners,
    stop_signals,
    urls,
)

_REPLACED = frozenset(("handle_signals", "reuse_address", "reuse_port", "sock"))


async def serve(
    runner: web.BaseRunner,
    sockets: Sockets,
    *,
    drain_delay: float = DRAIN_DELAY,
    ssl_context: ssl.SSLContext | None = None,
) -> None:
    """Set a runner up, serve until SIGTERM or SIGINT, drain, and clean it up.

    READY=1 is said when every listener is served, STOPPING=1 after the signal. From then on each
    answer says ``Connection: close``.

    Args:
        runner: An aiohttp.web.AppRunner or ServerRunner that was not set up.
        sockets: Listeners, such as `sockact.activated_or_listen` returns; closed in the end. Each
            keeps the backlog that it has.
        drain_delay: Seconds to go on with what was accepted, before aiohttp's shutdown begins.
        ssl_context: For HTTPS.

    Raises:
        OSError: One cannot be served.
        ValueError: One is no stream socket.
        NotifyError: There is a service manager, but it could not be told READY=1.
    """
    stopping = False

    async def announce_close(_: web.Request, response: web.StreamResponse) -> None:
        if stopping and response.status != HTTPStatus.SWITCHING_PROTOCOLS:
            response.headers["Connection"] = "close"
            response.force_close()

    if isinstance(runner, web.AppRunner):
        runner.app.on_response_prepare.append(announce_close)
    loop = asyncio.get_running_loop()
    found = listeners(sockets)
    servers: list[asyncio.Server] = []
    with stop_signals() as stop:
        try:
            await runner.setup()
            assert runner.server
            for sock in found:
                server = await loop.create_server(
                    runner.server, sock=sock, ssl=ssl_context, backlog=limit_of(sock)
                )
                servers.append(server)
            notify.ready()
            try:
                await stop.wait()
            finally:
                stopping = True
                await drain(servers, drain_delay)
        finally:
            close(servers, found)
            await runner.cleanup()


def run_app(
    app: web.Application | Awaitable[web.Application],
    *,
    sockets: Sockets | None = None,
    drain_delay: float = DRAIN_DELAY,
    host: str | None = None,
    port: int | None = None,
    path: str | None = None,
    backlog: int = 128,
    ssl_context: ssl.SSLContext | None = None,
    print: Callable[[str], object] | None = print,  # noqa: A002 - as aiohttp calls it
    loop: asyncio.AbstractEventLoop | None = None,
    **options: Any,
) -> None:
    """Serve an application until SIGTERM or SIGINT; as aiohttp.web.run_app().

    Args:
        app: The application, or what gives it when it is awaited.
        sockets: Listeners, closed in the end; by default all that the process was activated with,
            or if it was not, one at `path`, or at `host` and `port`. Each keeps the backlog that it
            has.
        drain_delay: Seconds to go on with what was accepted, before aiohttp's shutdown begins.
        host: See `sockets`; None for all addresses.
        port: See `sockets`; by default 8080, or 8443 with `ssl_context`.
        path: See `sockets`. The path stays when the server ends: another process may serve there.
        backlog: That of the listener that is opened here.
        ssl_context: For HTTPS.
        print: Called with a line at the start; None for silence.
        loop: The loop to use, and to close in the end; by default a new one of asyncio.
        options: What else aiohttp.web.AppRunner() takes, such as ``shutdown_timeout``.

    Raises:
        TypeError: An option says otherwise how to listen or to stop.
        EnvironError: LISTEN_* are malformed.
        BindError: The listener could not be opened.
        NotifyError: There is a service manager, but it could not be told READY=1.
    """
    if given := _REPLACED.intersection(options):
        raise TypeError(f"not with this run_app(): {', '.join(sorted(given))}")
    if sockets is None:
        if port is None:
            port = 8443 if ssl_context else 8080
        sockets = activated_or_listen(definition(host, port, path, backlog))
    found = listeners(sockets)

    async def main() -> None:
        runner = web.AppRunner(app if isinstance(app, web.Application) else await app, **options)
        if print:
            scheme = "https" if ssl_context else "http"
            print(f"======== Running on {', '.join(urls(found, scheme))} ========")
        await serve(runner, found, drain_delay=drain_delay, ssl_context=ssl_context)

    with (
        contextlib.suppress(web.GracefulExit, KeyboardInterrupt),
        asyncio.Runner(loop_factory=(lambda: loop) if loop else None) as running,
    ):
        running.run(main())
