r"""An ASGI application under uvicorn, by descriptor or with all sockets of a unit.

    sockact exec --listen web=tcp:127.0.0.1:8080 -- \
        uvicorn --app-dir examples --fd {fd:web} asgi_app:app
    sockact exec --listen tcp:127.0.0.1:8080-8081 -- python examples/asgi_app.py

``uvicorn --fd`` takes one socket; a program of one's own gives it as many as it has.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

import sockact

Message = MutableMapping[str, Any]


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Answer every request with a line of text."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = f"Hello from uvicorn in process {os.getpid()}\n".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve every socket that was passed."""
    sockets = sockact.activated_or_listen("tcp:127.0.0.1:8080")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    asyncio.run(server.serve(sockets=sockets.sockets()))


if __name__ == "__main__":
    main()
