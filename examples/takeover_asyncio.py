"""A web server on asyncio that a second copy of itself replaces without a lost request.

    python examples/takeover_asyncio.py /tmp/hello.rdv web=tcp:127.0.0.1:8080

Run the same command again while it runs: the second one serves as soon as it is ready, and the
first one ends when it has answered all that it had accepted. If the second one dies before that,
the first one serves again.
"""

import asyncio
import contextlib
import os
import sys

import sockact

clients: set[asyncio.Future[None]] = set()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request."""
    clients.add(done := asyncio.get_running_loop().create_future())
    try:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            body = b"Hello from process %d\n" % os.getpid()
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            writer.close()
            await writer.wait_closed()
    finally:
        writer.close()
        clients.discard(done)
        done.set_result(None)


async def main(path: str, *definitions: str) -> None:
    """Serve until a successor does."""
    async with sockact.aio.takeover(path, *definitions) as t:
        # start_server() calls listen(2), which sets the backlog of all who have the socket.
        server = await asyncio.start_server(
            answer, sock=t.sockets["web"], backlog=4096, start_serving=False
        )
        t.on_drain(lambda: sockact.aio.stop_accepting(server))
        t.on_resume(lambda: sockact.aio.resume_accepting(server))
        await t.ready()
        await server.start_serving()
        print(f"process {os.getpid()} serves, generation {t.generation}", flush=True)
        succeeded = False
        while not succeeded:
            await t.wait_successor()
            if clients:
                await asyncio.wait(clients, timeout=30)
            succeeded = await t.wait_successor(0)  # or it has died meanwhile
        server.close()
    print(f"process {os.getpid()} has finished", flush=True)


if __name__ == "__main__":
    if not sys.argv[2:]:
        sys.exit(__doc__)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
