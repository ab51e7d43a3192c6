"""A server for `tests.load` that leaves its listeners open when it is told to end: [--never-ready].

With the option it gets nowhere, and does not end by itself.

Until SIGTERM it accepts, takes its time for each request, and answers. Then it accepts no more,
and stays for a while, as one that has to finish something does.
"""

import os
import select
import signal
import socket
import sys
import time

REQUEST_SECONDS = 0.005
STAY_SECONDS = float(os.environ.get("STAY_SECONDS", "0.3"))


def main() -> None:
    """Serve until SIGTERM."""
    if "--never-ready" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)
    reader, writer = os.pipe2(os.O_NONBLOCK)
    signal.signal(signal.SIGTERM, lambda *_: os.write(writer, b"x"))
    count = int(os.environ["LISTEN_FDS"])
    listeners = {fd: socket.socket(fileno=fd) for fd in range(3, 3 + count)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
    while True:
        ready, _, _ = select.select([reader, *listeners], [], [])
        if reader in ready:
            break
        for fd in ready:
            serve(listeners[fd])
    time.sleep(STAY_SECONDS)


def serve(listener: socket.socket) -> None:
    """Answer one connection, unless another process has got it."""
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return
    with connection:
        connection.setblocking(True)
        nonce = connection.recv(512).split()[1]
        time.sleep(REQUEST_SECONDS)
        connection.sendall(nonce + b" %d\n" % os.getpid())


if __name__ == "__main__":
    main()
