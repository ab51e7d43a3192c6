"""What is lost when a launcher replaces a server on the same listener, by signal, under load.

In each handover the next process is started on the listener that the former one serves; when it has
answered once, the former one gets its signal for a graceful stop, and its end is waited for. All the
while clients make requests, each on a new connection. The same is done to uvicorn, aiohttp and
asyncio with the drain of `sockact.servers` and without, and to other servers where they are
installed. It is a race: where a handover lost nothing, another may.

    python -m tests.bench.handover [--handovers N] [--clients N] [--only NAME ...]
"""

import argparse
import contextlib
import importlib.util
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from tests.bench.measure import show
from tests.helpers import SECONDS
from tests.load import Load
from tests.servers.succession import Succession

PYTHON = sys.executable
APP = "tests.servers.generation"
_BACKLOG = 4096

_NODE = """
const http = require("http");
const server = http.createServer((request, response) => {
  const n = new URL(request.url, "http://localhost").searchParams.get("n");
  response.end(`${n} ${process.env.GENERATION}\\n`);
});
server.listen({fd: 3});
process.on("SIGTERM", () => server.close());
"""

_NGINX = """
daemon off;
error_log stderr;
pid {directory}/nginx-{number}.pid;
events {{}}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen {host}:{port};
    location / {{ return 200 "$arg_n {number}\\n"; }}
  }}
}}
"""


@attrs.frozen
class Peer:
    """A server to be replaced.

    Attributes:
        command: What starts one, given its number, the address and a directory.
        stop: The signal for a graceful stop.
        http: Whether it speaks HTTP.
        needs: Modules that it needs.
        program: A program that it needs.
    """

    command: Callable[[int, tuple[str, int], Path], Sequence[str]]
    stop: signal.Signals = signal.SIGTERM
    http: bool = True
    needs: tuple[str, ...] = ()
    program: str = ""

    def installed(self) -> bool:
        """Return whether it can be run here."""
        found = self.program == "" or _program(self.program) is not None
        return found and all(importlib.util.find_spec(module) for module in self.needs)


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def _python(*words: str, needs: tuple[str, ...] = (), http: bool = True) -> Peer:
    return Peer(lambda *_: [PYTHON, "-m", *words], needs=needs, http=http)


def _generation(kind: str, loop: str, *needs: str) -> Peer:
    loops = ("uvloop",) if loop == "uvloop" else ()
    return _python(APP, kind, loop, needs=(*needs, *loops), http="asyncio" not in kind)


def _uvicorn(loop: str) -> Peer:
    loops = ("uvloop",) if loop == "uvloop" else ()
    options = ("--fd", "3", "--loop", loop, "--log-level", "warning")
    return _python("uvicorn", *options, f"{APP}:asgi_app", needs=("uvicorn", *loops))


def _gunicorn(*options: str, app: str = "wsgi_app") -> Peer:
    return _python("gunicorn", *options, f"{APP}:{app}", needs=("gunicorn",))


def _nginx(number: int, address: tuple[str, int], directory: Path) -> Sequence[str]:
    host, port = address
    file = directory / f"nginx-{number}.conf"
    text = _NGINX.format(number=number, host=host, port=port, directory=directory)
    file.write_text(text, encoding="ascii")
    return ["env", "NGINX=3;", _program("nginx") or "nginx", "-c", str(file)]


def _node(*_: object) -> Sequence[str]:
    return ["node", "-e", _NODE]


PEERS = {
    "uvicorn on uvloop, with the drain": _generation("uvicorn", "uvloop", "uvicorn"),
    "uvicorn on uvloop": _uvicorn("uvloop"),
    "uvicorn on asyncio, with the drain": _generation("uvicorn", "asyncio", "uvicorn"),
    "uvicorn on asyncio": _uvicorn("asyncio"),
    "aiohttp, with the drain": _generation("aiohttp", "asyncio", "aiohttp"),
    "aiohttp": _generation("plain-aiohttp", "asyncio", "aiohttp"),
    "asyncio streams, with the drain": _generation("asyncio", "asyncio"),
    "asyncio streams": _generation("plain-asyncio", "asyncio"),
    "gunicorn, sync": _gunicorn(),
    "gunicorn, gthread": _gunicorn("--threads", "4"),
    "gunicorn, asgi": _gunicorn("-k", "asgi", app="asgi_app"),
    "hypercorn": _python("hypercorn", "-b", "fd://3", f"{APP}:asgi_app", needs=("hypercorn",)),
    "nginx": Peer(_nginx, signal.SIGQUIT, program="nginx"),
    "node": Peer(_node, program="node"),
}


def _answers(address: tuple[str, int], number: int, *, http: bool) -> None:
    """Return when a request was answered by that generation, among those that may answer.

    Raises:
        TimeoutError: None was.
    """
    request = b"GET /?n=x HTTP/1.0\r\n\r\n" if http else b"GET x\n"
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        data = b""
        with contextlib.suppress(OSError), socket.create_connection(address, SECONDS) as sock:
            sock.sendall(request)
            while more := sock.recv(4096):
                data += more
        if data.endswith(b"x %d\n" % number):
            return
        time.sleep(0.005)
    raise TimeoutError


@contextlib.contextmanager
def _listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as sock:
        sock.setblocking(False)
        yield sock


def _measure(peer: Peer, handovers: int, clients: int) -> dict[str, object]:
    """Replace a server so many times; return what was lost."""
    lossy = lost = requests = 0
    failures: list[str] = []
    with _listener() as listener, tempfile.TemporaryDirectory() as name:
        address, directory = listener.getsockname(), Path(name)
        directory.chmod(0o755)  # for nginx's worker
        with Succession(
            listener,
            lambda number: peer.command(number, address, directory),
            directory,
            peer.stop,
            lambda number: _answers(address, number, http=peer.http),
        ) as servers:
            for _ in range(handovers):
                with Load(address, clients=clients, http=peer.http) as load:
                    servers.hand_over()
                    servers.statuses()
                    result = load.stop()
                lossy += result.failed > 0
                lost += result.failed
                requests += result.requests
                failures += [text.partition(" ")[2] for text in result.first_failures]
    return {
        "handovers_with_a_loss": lossy,
        "lost": lost,
        "requests": requests,
        "how": dict(sorted((text, failures.count(text)) for text in set(failures))),
    }


def main() -> None:
    """Replace each server; print what was lost as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.handover", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--handovers", type=int, default=20, help="of each server (20)")
    parser.add_argument("--clients", type=int, default=4, help="connections at once (4)")
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS), metavar="NAME")
    options = parser.parse_args()
    results: dict[str, object] = {}
    for name in options.only:
        peer = PEERS[name]
        if peer.installed():
            results[name] = _measure(peer, options.handovers, options.clients)
        else:
            results[name] = "not installed"
    show({"handovers": options.handovers, "clients": options.clients, "servers": results})


if __name__ == "__main__":
    main()
