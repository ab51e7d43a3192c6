"""The same small application for several servers as they are; it answers `tests.load` in HTTP.

The server id is the process id of the one that answers. Each is written to a directory, together
with a socket unit and a service unit that start it on an inherited socket.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

HOST = "127.0.0.1"
WORKERS = 2

_WSGI = """\
import os
from pathlib import Path

# Whoever restarts this by hand wants to know when it can answer.
(Path(__file__).parent / f"booted-{os.getpid()}").touch()


def app(environ, start_response):
    body = f"{environ['QUERY_STRING'].removeprefix('n=')} {os.getpid()}\\n".encode()
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]
"""

_NODE = """\
const http = require('http');
const server = http.createServer((request, response) => {
  const nonce = new URL(request.url, 'http://localhost').searchParams.get('n');
  response.end(`${nonce} ${process.pid}\\n`);
});
process.on('SIGTERM', () => server.close());
server.listen({fd: 3});
"""

_NGINX = """\
daemon DAEMON;
worker_processes WORKERS;
pid DIRECTORY/nginx.pid;
error_log DIRECTORY/error.log notice;
events {}
http {
    access_log off;
    client_body_temp_path DIRECTORY/body;
    proxy_temp_path DIRECTORY/proxy;
    fastcgi_temp_path DIRECTORY/fastcgi;
    uwsgi_temp_path DIRECTORY/uwsgi;
    scgi_temp_path DIRECTORY/scgi;
    server {
        listen ADDRESS;
        location / { return 200 "$arg_n $pid\\n"; }
    }
}
"""

_HAPROXY = """\
global
    stats socket DIRECTORY/stats mode 600 level admin expose-fd listeners
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 10s
frontend web
    bind ADDRESS
    http-request return status 200 content-type text/plain lf-string "%[url_param(n)] %pid\\n"
"""


@attrs.frozen
class App:
    """A server that inherits its listener as descriptor 3.

    Attributes:
        command: What starts it; in a unit no word of it needs quoting.
        program: The program it takes, to be looked for.
        ready: When it is ready, as X-Ready= has it.
        stop: The signal that ends it gracefully.
        environ: Further variables.
    """

    command: Sequence[str]
    program: str
    ready: str = "notify"
    stop: str = "SIGTERM"
    environ: Mapping[str, str] = attrs.field(factory=dict)


def gunicorn_command(directory: Path, *options: str) -> list[str]:
    """Write the application; return the command of gunicorn for it, which lacks a socket."""
    (directory / "app.py").write_text(_WSGI, encoding="utf-8")
    return [sys.executable, "-m", "gunicorn", f"--workers={WORKERS}", f"--chdir={directory}",
            "--worker-tmp-dir=/dev/shm", *options, "app:app"]  # fmt: skip


def nginx_command(directory: Path, port: int, *, daemon: bool = False) -> list[str]:
    """Write nginx's configuration; return its command."""
    config = directory / "nginx.conf"
    text = _NGINX.replace("DIRECTORY", str(directory)).replace("ADDRESS", f"{HOST}:{port}")
    text = text.replace("DAEMON", "on" if daemon else "off").replace("WORKERS", str(WORKERS))
    config.write_text(text, encoding="utf-8")
    # It executes itself by the name it was started with, and does not look at PATH.
    return [shutil.which("nginx") or "nginx", "-p", str(directory), "-c", str(config),
            "-e", str(directory / "error.log")]  # fmt: skip


def haproxy_command(directory: Path, address: str) -> list[str]:
    """Write HAProxy's configuration; return its command."""
    config = directory / "haproxy.cfg"
    text = _HAPROXY.replace("DIRECTORY", str(directory)).replace("ADDRESS", address)
    config.write_text(text, encoding="utf-8")
    return ["haproxy", "-W", "-f", str(config)]


def gunicorn(directory: Path, port: int) -> App:  # noqa: ARG001 - one shape for all
    """Gunicorn takes LISTEN_FDS by itself, and says when it is ready."""
    return App(gunicorn_command(directory), sys.executable)


def nginx(directory: Path, port: int) -> App:
    """Nginx inherits by its own variable, and says nothing."""
    return App(
        nginx_command(directory, port), "nginx", "delay:300ms", "SIGQUIT", {"NGINX": "3;"}
    )  # fmt: skip


def node(directory: Path, port: int) -> App:  # noqa: ARG001
    """Node listens on the descriptor it is told, and says nothing."""
    source = directory / "app.js"
    source.write_text(_NODE, encoding="utf-8")
    return App(["node", str(source)], "node", "delay:300ms")


def haproxy(directory: Path, port: int) -> App:  # noqa: ARG001
    """HAProxy binds to the descriptor it is told, and says READY=1 only to systemd's libraries."""
    return App(haproxy_command(directory, "fd@3"), "haproxy", "delay:300ms", "SIGUSR1")


APPS = {"gunicorn": gunicorn, "nginx": nginx, "node": node, "haproxy": haproxy}


def write_units(directory: Path, app: App, port: int, *, systemd: bool = False) -> Path:
    """Write ``web.socket`` and ``web.service``; return the path of the former.

    Args:
        directory: Where to.
        app: What the service is.
        port: Where the socket is to be.
        systemd: For systemd itself, which does not look at PATH for our programs.
    """
    socket = directory / "web.socket"
    socket.write_text(
        f"[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream={HOST}:{port}\n"
        "FileDescriptorName=web\n",
        encoding="utf-8",
    )
    lines = [
        f"Type={'notify' if app.ready == 'notify' else 'exec'}",
        f"ExecStart={' '.join(app.command)}",
        f"KillSignal={app.stop}",
        "KillMode=mixed",
        "NonBlocking=yes",
        "TimeoutStopSec=20s",
        *(f"Environment={name}={value}" for name, value in app.environ.items()),
    ]
    if not systemd:
        lines.append(f"X-Ready={app.ready}")
    head = ["[Unit]", "StartLimitIntervalSec=0", *(["DefaultDependencies=no"] if systemd else [])]
    text = "\n".join([*head, "[Service]", *lines, ""])
    (directory / "web.service").write_text(text, encoding="utf-8")
    return socket
