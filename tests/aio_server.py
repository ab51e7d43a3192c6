"""A server on asyncio for `tests.load`, one generation of it: PATH ADDRESS [HOLD].

It says on standard output where it stands. With HOLD its drain lasts as long as its successor; if
that is ``never``, it is never ready.
"""

import asyncio
import contextlib
import os
import sys

import sockact

clients: set["asyncio.Future[None]"] = set()


def say(text: str) -> None:
    """Tell the test."""
    print(text, flush=True)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request of the load."""
    clients.add(done := asyncio.get_running_loop().create_future())
    try:
        with contextlib.suppress(OSError):
            nonce = (await reader.readline()).removeprefix(b"GET ").strip()
            writer.write(b"%s %d\n" % (nonce, os.getpid()))
            writer.close()
            await writer.wait_closed()
    finally:
        clients.discard(done)
        done.set_result(None)


async def main(path: str, address: str, hold: str = "") -> None:
    """Serve until a successor does."""
    async with sockact.aio.takeover(path, address, timeout=20) as t:
        server = await asyncio.start_server(
            serve, sock=t.sockets["web"], backlog=4096, start_serving=False
        )
        t.on_drain(lambda: sockact.aio.stop_accepting(server))
        t.on_resume(lambda: sockact.aio.resume_accepting(server))
        t.on_resume(lambda: say("resumed"))
        say(f"pending {t.generation}")
        if hold == "never":
            await asyncio.Event().wait()
        await t.ready()
        await server.start_serving()
        say("serving")
        succeeded = False
        while not succeeded:
            await t.wait_successor()
            say("draining")
            if clients:
                await asyncio.wait(clients)
            while hold and await t.wait_successor(0):
                await asyncio.sleep(0.02)
            succeeded = await t.wait_successor(0)
        server.close()
    say("gone")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
