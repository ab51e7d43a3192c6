"""A small HTTP server on inherited sockets, which does as its arguments say.

``--notify`` says READY=1, ``--delay SECONDS`` comes before that, ``--fail STATUS`` exits at once,
``--store NAME,…`` stores memfds, and SIGUSR1 removes them. ``GET /pid`` answers its process id,
``/environ`` its environment, ``/fds`` how many descriptors it was given, ``/exit/N`` ends it with
that status, ``/slow/SECONDS`` takes its time, ``/stored`` names the descriptors that it got back.
"""

import http.server
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers."""

    def do_GET(self) -> None:
        """Answer a request."""
        word, _, rest = self.path.strip("/").partition("/")
        body = ""
        match word:
            case "" | "pid":
                body = str(os.getpid())
            case "environ":
                body = json.dumps(dict(os.environ))
            case "fds":
                body = os.environ.get("LISTEN_FDS", "0")
            case "names" | "stored":
                body = os.environ.get("LISTEN_FDNAMES", "")
            case "slow":
                time.sleep(float(rest))
                body = str(os.getpid())
            case "exit":
                os._exit(int(rest))
        data = body.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        """Return a name for a peer that may have none."""
        return "-"


class Server(http.server.ThreadingHTTPServer):
    """Serves an inherited socket, and finishes every request."""

    daemon_threads = False

    def __init__(self, fd: int) -> None:
        """Serve `fd`."""
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=fd)
        self.socket.setblocking(False)

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept, and have the connection block."""
        connection, address = self.socket.accept()
        connection.setblocking(True)
        return connection, address or ("-", 0)


def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    if "--fail" in options:
        sys.exit(int(options["--fail"]))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    stores = options["--store"].split(",") if "--store" in options else []
    servers = [
        Server(fd) for fd, name in enumerate(names, 3) if name not in stores and name != "stored"
    ]

    def stop(*_: object) -> None:
        for one in servers:
            threading.Thread(target=one.shutdown).start()

    def remove(*_: object) -> None:
        for name in stores:
            _notify(f"FDSTOREREMOVE=1,FDNAME={name}")

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGUSR1, remove)
    time.sleep(float(options.get("--delay", "0")))
    _store(*(name for name in stores if name not in names))
    if options.get("--notify"):
        _notify(options["--notify"])
    if "--then" in options:
        os._exit(int(options["--then"]))
    threads = [threading.Thread(target=one.serve_forever, args=(0.05,)) for one in servers]
    for thread in threads:
        thread.start()
    for thread, one in zip(threads, servers, strict=True):
        while thread.is_alive():
            thread.join(0.05)  # so that signals are handled
        one.server_close()


def _notify(text: str) -> None:
    from sockact import notify

    notify.notify(text.replace(",", "\n"))


def _store(*names: str) -> None:
    from sockact import notify

    for name in names:
        fd = os.memfd_create("stored")
        os.write(fd, b"kept")
        notify.notify(f"FDSTORE=1\nFDNAME={name}", [fd])
        notify.barrier()
        os.close(fd)


if __name__ == "__main__":
    main(sys.argv[1:])
