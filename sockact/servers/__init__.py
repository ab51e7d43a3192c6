"""Servers that can be replaced without a lost request: uvicorn, aiohttp and plain asyncio.

Whoever replaces a process starts a new one on the same listening sockets, and sends SIGTERM to the
old one as soon as the new one is ready. These three then drop connections that they have accepted
but not yet begun to answer, and nobody can help that from outside. Each module here runs one of
them with a drain at its end: accept no more, go on with what was accepted, and only after a moment
begin the server's own shutdown.

    sockact.servers.uvicorn.run("app:app")
    sockact.servers.aiohttp.run_app(app)
    asyncio.run(sockact.servers.asyncio.serve(answer, sockact.activated_or_listen("tcp:8080")))

They take the sockets that the process was activated with, say READY=1 when they accept and
STOPPING=1 when they cease to. Each serves in one process, its own: for more of them, start as many
on the same sockets. A module imports the server of its name, which sockact does not depend on.
"""
