"""A small web server on the standard library that does not care who opened its socket.

    sockact exec --listen web=tcp:127.0.0.1:8080 -- python examples/http_hello.py
    python examples/http_hello.py

Started by sockact or by systemd it serves the socket that it inherits; started alone it opens its
own. SIGTERM and Ctrl-C stop it after the requests under way.
"""

import os
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import sockact


class Hello(BaseHTTPRequestHandler):
    """Greets."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with a line of text."""
        body = f"Hello from process {os.getpid()}, path {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        """Name the peer; one on a Unix socket has no address."""
        return str(*self.client_address[:1]) or "unix"


class Server(ThreadingHTTPServer):
    """Serves a socket that is listening already."""

    daemon_threads = False  # so that closing waits for requests under way

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(("", 0), Hello, bind_and_activate=False)
        self.socket.close()  # the one that the base class has made
        self.socket = sock
        self.server_address = sock.getsockname()


def main() -> None:
    """Serve until a signal."""
    sockets = sockact.activated_or_listen("web=tcp:127.0.0.1:8080")
    server = Server(sockets["web"])
    for number in (signal.SIGTERM, signal.SIGINT):
        # shutdown() waits for the loop that the handler has interrupted, so it needs a thread.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"serving {sockets.entry('web').describe().address}", flush=True)
    sockact.notify.ready()
    server.serve_forever()
    sockact.notify.stopping()
    server.server_close()


if __name__ == "__main__":
    main()
