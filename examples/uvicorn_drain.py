r"""An ASGI application under uvicorn that is replaced without a lost request.

    sockact exec --listen web=tcp:127.0.0.1:8080 -- python examples/uvicorn_drain.py

or without a program of one's own

    sockact exec --listen web=tcp:127.0.0.1:8080 -- \
        python -m sockact.servers.uvicorn --app-dir examples uvicorn_drain:app

It says READY=1 when it serves. At SIGTERM it accepts no more, answers what it had accepted, and
only then shuts down, so that a launcher may start the next one on the same socket and stop this one
as soon as the next one is ready.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from sockact.servers import uvicorn

Message = MutableMapping[str, Any]


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Answer every request with a line of text, after a moment."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await asyncio.sleep(0.01)
    body = b"Hello from process %d\n" % os.getpid()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(app, port=8080, log_level="warning")
