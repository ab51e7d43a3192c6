"""A server on asyncio's streams, or on protocols, that can be replaced without a lost request."""

import asyncio
import contextlib
import ssl as _ssl
from collections.abc import Awaitable, Callable

from sockact.activation import notify
from sockact.servers.drain import (
    DRAIN_DELAY,
    Sockets,
    close,
    drain,
    limit_of,
    listeners,
    stop_signals,
)

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What asyncio.start_server() calls for each connection."""


async def serve(
    handler: Handler,
    sockets: Sockets,
    *,
    drain_delay: float = DRAIN_DELAY,
    shutdown_timeout: float | None = None,
    limit: int = 65536,
    ssl: _ssl.SSLContext | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, and until every handler has returned.

    READY=1 is said when every listener is served, STOPPING=1 after the signal.

    Args:
        handler: A coroutine function, called with reader and writer for each connection.
        sockets: Listeners, such as `sockact.activated_or_listen` returns; closed in the end. Each
            keeps the backlog that it has.
        drain_delay: As for `serve_until_drained`.
        shutdown_timeout: Seconds that handlers may need after that; then they are cancelled. None
            for as long as it takes, which the service manager limits, too.
        limit: As for asyncio.start_server().
        ssl: As for asyncio.start_server().

    Raises:
        OSError: One cannot be served.
        ValueError: One is no stream socket.
        NotifyError: There is a service manager, but it could not be told READY=1.
    """
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        handlers.add(task)
        try:
            await handler(reader, writer)
            if writer.is_closing():  # but perhaps not everything is sent
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        finally:
            handlers.discard(task)

    found = listeners(sockets)
    servers: list[asyncio.Server] = []
    try:
        for sock in found:
            server = await asyncio.start_server(
                handle, sock=sock, backlog=limit_of(sock), limit=limit, ssl=ssl, start_serving=False
            )
            servers.append(server)
        await serve_until_drained(*servers, drain_delay=drain_delay)
    finally:
        close(servers, found)
        try:
            if handlers:
                await asyncio.wait(handlers, timeout=shutdown_timeout)
        finally:
            for task in handlers:
                task.cancel()
            await asyncio.gather(*handlers, return_exceptions=True)


async def serve_until_drained(*servers: asyncio.Server, drain_delay: float = DRAIN_DELAY) -> None:
    """Have servers serve until SIGTERM or SIGINT, drain and close them.

    READY=1 is said when they accept, STOPPING=1 after the signal. On return they are closed, and
    each connection that they had accepted has got to its protocol or handler: wait for those next.

    Args:
        servers: What start_server(), create_server() and the like return, asyncio's or uvloop's.
        drain_delay: Seconds to go on with what was accepted, before the servers are closed.

    Raises:
        NotifyError: There is a service manager, but it could not be told READY=1.
    """
    try:
        with stop_signals() as stop:
            for server in servers:
                await server.start_serving()
            notify.ready()
            try:
                await stop.wait()
            finally:
                await drain(servers, drain_delay)
    finally:
        close(servers)
