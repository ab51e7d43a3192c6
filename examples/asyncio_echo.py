"""An echo server on asyncio that says when it is ready and finishes what it has begun.

    sockact exec --listen echo=tcp:127.0.0.1:7007 -- python examples/asyncio_echo.py

At SIGTERM it first stops watching the listener, so that no connection is accepted and dropped, and
then waits for its clients, for ten seconds at most.
"""

import asyncio
import signal

import sockact

clients: set[asyncio.Task[None]] = set()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes in."""
    task = asyncio.current_task()
    assert task
    clients.add(task)
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        clients.discard(task)
        writer.close()


async def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    sock = sockact.activated_or_listen("echo=tcp:127.0.0.1:7007")["echo"]
    server = await asyncio.start_server(echo, sock=sock)
    sockact.notify.ready()
    await stop.wait()
    sockact.notify.stopping()
    loop.remove_reader(sock.fileno())
    await asyncio.sleep(0)
    server.close()
    if clients:
        await asyncio.wait(clients, timeout=10)


if __name__ == "__main__":
    asyncio.run(main())
