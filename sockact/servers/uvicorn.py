"""uvicorn, such that it can be replaced without a lost request.

    python -m sockact.servers.uvicorn app:app

takes uvicorn's options, but for those of several processes; `run` takes uvicorn.run()'s arguments.
"""

import asyncio
import contextlib
import logging
import socket as _socket
import sys
from typing import Any

import click
import uvicorn
from uvicorn.main import main as _uvicorn_command

from sockact.activation import notify
from sockact.errors import SockactError
from sockact.library import activated_or_listen
from sockact.servers.drain import (
    DRAIN_DELAY,
    Sockets,
    definition,
    drain,
    limit_of,
    listeners,
    urls,
)

_log = logging.getLogger("uvicorn.error")
_STARTUP_FAILURE = 3  # as in uvicorn/main.py
_LOOK_SECONDS = 0.1


class Server(uvicorn.Server):
    """uvicorn's server, with the drain before its shutdown.

    It says READY=1 when it accepts, and STOPPING=1 when it is about to cease to. From then on each
    answer says ``Connection: close``.
    """

    def __init__(self, config: uvicorn.Config, *, drain_delay: float = DRAIN_DELAY) -> None:
        """Begin nothing yet.

        Args:
            config: uvicorn's configuration.
            drain_delay: Seconds to go on with what was accepted, before the shutdown begins.
        """
        super().__init__(config)
        self._drain_delay = drain_delay

    async def startup(self, sockets: list[_socket.socket] | None = None) -> None:
        """Begin to accept, and leave the backlog of `sockets` as it is.

        Raises:
            NotifyError: There is a service manager, but it could not be told READY=1.
        """
        backlogs = [(sock, limit_of(sock)) for sock in sockets or ()]
        await super().startup(sockets)
        if not self.started:  # older versions return when the application has failed to start
            return
        for sock, limit in backlogs:
            sock.listen(limit)
        if sockets:
            places = ", ".join(urls(sockets, "https" if self.config.ssl else "http"))
            _log.info("Uvicorn running on %s (Press CTRL+C to quit)", places)
        notify.ready()

    async def shutdown(self, sockets: list[_socket.socket] | None = None) -> None:
        """Drain, and shut down; after a second SIGINT without more ado."""
        state = self.server_state
        state.default_headers = [*state.default_headers, (b"connection", b"close")]
        draining = asyncio.create_task(drain(self.servers, self._drain_delay))
        while not draining.done() and not self.force_exit:
            await asyncio.wait([draining], timeout=_LOOK_SECONDS)
        draining.cancel()
        await super().shutdown(sockets)


def run(
    app: Any,
    *,
    sockets: Sockets | None = None,
    drain_delay: float = DRAIN_DELAY,
    host: str = "127.0.0.1",
    port: int = 8000,
    uds: str | None = None,
    app_dir: str | None = None,
    **config: Any,
) -> None:
    """Serve an ASGI application until SIGTERM or SIGINT; as uvicorn.run(), in this one process.

    As with uvicorn.run() SIGTERM ends the process by that signal, after everything is done.

    Args:
        app: The application, or ``module:attribute``.
        sockets: Listeners, closed in the end; by default all that the process was activated with,
            or if it was not, one at `uds`, or at `host` and `port`. Each keeps the backlog that it
            has; uvicorn's option for it is for the one that is opened here.
        drain_delay: Seconds to go on with what was accepted, before uvicorn's shutdown begins.
        host: See `sockets`.
        port: See `sockets`.
        uds: See `sockets`. The path stays when the server ends: another process may serve there.
        app_dir: A directory to import the application from.
        config: What else uvicorn.Config() takes.

    Raises:
        ValueError: More than one process is wanted, or a descriptor by number.
        EnvironError: LISTEN_* are malformed.
        BindError: The listener could not be opened.
        NotifyError: There is a service manager, but it could not be told READY=1.
    """
    if app_dir is not None:
        sys.path.insert(0, app_dir)
    settings = uvicorn.Config(app, **config)
    if settings.reload or settings.workers > 1:
        raise ValueError("this serves in one process: no reload, no workers, no $WEB_CONCURRENCY")
    if settings.fd is not None:
        raise ValueError("not by number: give sockets, or none for those of the activation")
    if sockets is None:
        sockets = activated_or_listen(definition(host, port, uds, settings.backlog))
    server = Server(settings, drain_delay=drain_delay)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(listeners(sockets))
    if not server.started:
        sys.exit(_STARTUP_FAILURE)


_ONE_PROCESS = ("fd", "workers", "timeout_worker_healthcheck")


def _command() -> click.Command:
    """Return uvicorn's own command with what `run` takes, no more and no less."""
    params = [
        param
        for param in _uvicorn_command.params
        if param.name not in _ONE_PROCESS and not str(param.name).startswith("reload")
    ]
    params.append(
        click.Option(
            ["--drain-delay"],
            type=click.FloatRange(0),
            default=DRAIN_DELAY,
            show_default=True,
            help="Seconds to go on with what was accepted, before the shutdown begins.",
        )
    )
    return click.Command(
        "python -m sockact.servers.uvicorn",
        callback=_main,
        params=params,
        context_settings=_uvicorn_command.context_settings,
        help="Serve APP on the sockets that were passed, or at --uds, or at --host and --port.",
    )


def _main(headers: list[str], log_config: str | None, **options: Any) -> None:
    if log_config is not None:
        options["log_config"] = log_config
    try:
        run(headers=[tuple(header.split(":", 1)) for header in headers], **options)
    except SockactError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    _command()()
