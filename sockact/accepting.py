"""Stopping a server of asyncio from accepting, and no more than that."""

import asyncio


def stop_accepting(server: asyncio.Server) -> None:
    """Have a server of asyncio accept no more, at once, and leave its connections alone.

    Server.close() is no way to stop: its listeners are gone for good, and a connection that was
    accepted in the same turn of the loop is dropped unheard, because the task that sets it up finds
    the server closed. This only takes the listeners out of the loop. Close the server when what it
    has accepted is finished, at the earliest after `Rendezvous.wait_successor`.

    Args:
        server: What start_server() and the like return. Its loop must run in this thread.

    Raises:
        TypeError: It is no server of asyncio's own, such as one of uvloop, whose listeners cannot
            be taken out: close() that, which drops nothing there, and start another to resume.

    Source: asyncio/base_events.py, asyncio/selector_events.py (3.11 to 3.13).
    """
    loop = _own(server).get_loop()
    for sock in server.sockets:
        loop.remove_reader(sock.fileno())
    server._serving = False  # type: ignore[attr-defined] # noqa: SLF001 - start_serving() looks there


def resume_accepting(server: asyncio.Server) -> None:
    """Undo `stop_accepting`, at once; asyncio also calls listen(2) again, as at the start.

    Raises:
        RuntimeError: The server was closed.
        TypeError: It is no server of asyncio's own.
    """
    if not _own(server).sockets:
        raise RuntimeError("a server that was closed cannot accept again")
    server._start_serving()  # type: ignore[attr-defined] # noqa: SLF001 - start_serving() would not be at once


def _own(server: asyncio.Server) -> asyncio.Server:
    if not isinstance(server, asyncio.Server):
        raise TypeError(f"{type(server).__module__}.{type(server).__name__} is no asyncio.Server")
    return server
