"""The drain that servers on asyncio need before they shut down, and what else they share."""

import asyncio
import contextlib
import os
import signal
import socket as _socket
from collections.abc import Iterable, Iterator

from sockact.accepting import stop_accepting
from sockact.activation import notify
from sockact.errors import NotifyError
from sockact.fd.queue import queue
from sockact.sockets.socketset import SocketSet

DRAIN_DELAY = 0.5
"""Seconds between the last accept and the beginning of the server's own shutdown."""

Sockets = SocketSet | Iterable[_socket.socket]
"""Listeners to serve."""

_TURNS = 8
_BACKLOG = 2048


async def drain(servers: Iterable[asyncio.AbstractServer], delay: float = DRAIN_DELAY) -> None:
    """Stop accepting, at once; return when what was accepted has got to its handlers.

    In between STOPPING=1 is said. The caller closes the servers next; their connections are left
    alone.

    Args:
        servers: Servers of the running loop, asyncio's or uvloop's.
        delay: Seconds to wait. A client that takes longer to send its request, or the next one on
            a connection that is kept, may find the connection closed.
    """
    servers = list(servers)
    _stop_accepting(servers)
    with contextlib.suppress(NotifyError):  # what was accepted matters more
        notify.stopping()
    await asyncio.sleep(delay)
    # asyncio pauses for a second when it is out of descriptors, and then accepts again, stopped or
    # not (_accept_connection() in asyncio/selector_events.py).
    _stop_accepting(servers)
    # From accept(2) to the first byte in the handler it takes some turns of the loop, and if
    # somebody blocks it, all of the delay may have passed in a single one.
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def _stop_accepting(servers: list[asyncio.AbstractServer]) -> None:
    for server in servers:
        if isinstance(server, asyncio.Server):
            stop_accepting(server)
        else:
            server.close()  # uvloop sets a connection up when it accepts it, and drops none here


def close(
    servers: Iterable[asyncio.AbstractServer], sockets: Iterable[_socket.socket] = ()
) -> None:
    """Close servers, and listeners, which may not have got to a server."""
    for server in servers:
        server.close()
    for sock in sockets:
        sock.close()


def listeners(sockets: Sockets) -> list[_socket.socket]:
    """Return the sockets of a set, or those that were given.

    Raises:
        OSError: One is no socket (ENOTSOCK).
    """
    return sockets.sockets() if isinstance(sockets, SocketSet) else list(sockets)


def definition(host: str | None, port: int, path: str | None, backlog: int) -> str:
    """Return the ``--listen`` text for where a server would listen by itself.

    Args:
        host: An address or a name; None or empty for all addresses.
        port: The port.
        path: The path of a Unix socket, which counts before `host` and `port`.
        backlog: The backlog.
    """
    if path is not None:
        return f"unix:{os.path.abspath(path)}?Backlog={backlog}"
    return f"tcp:{f'[{host}]' if host and ':' in host else host or '*'}:{port}?Backlog={backlog}"


def urls(sockets: Iterable[_socket.socket], scheme: str) -> list[str]:
    """Return for each listener where a client finds it."""
    found = []
    for sock in sockets:
        name = sock.getsockname()
        if isinstance(name, tuple):
            host, port = name[:2]
            found.append(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        else:
            found.append(f"{scheme}://unix:{os.fsdecode(name)}".replace("\0", "@"))
    return found


def limit_of(sock: _socket.socket) -> int:
    """Return the backlog that a listener has, for those who call listen(2) again.

    The last call counts for everybody who has the socket, and asyncio makes one. It also accepts
    that many connections in a row, so that there must be one at least.
    """
    found = queue(sock.fileno())
    return max(1, found.limit) if found and found.unit == "connections" else _BACKLOG


@contextlib.contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """Give an event that SIGTERM and SIGINT set; only in the main thread.

    A second SIGTERM does nothing more, because some launchers send two; a second SIGINT, from a
    person who does not want to wait, is a KeyboardInterrupt.
    """
    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    def interrupt() -> None:
        event.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGTERM, event.set)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield event
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        loop.remove_signal_handler(signal.SIGINT)
