"""A web server of plain sockets and threads that a second copy of itself replaces.

    python examples/takeover_plain.py /tmp/hello.rdv web=tcp:127.0.0.1:8080

Run it again: the second copy serves as soon as it is ready, and the first ends when it is through.
"""

import contextlib
import os
import select
import socket
import sys
import threading

import sockact

turn = threading.Lock()  # accept() is called by whoever holds it
requests: set[threading.Thread] = set()


def answer(connection: socket.socket) -> None:
    """Answer one request."""
    connection.settimeout(10)
    with connection, contextlib.suppress(OSError):
        connection.recv(65536)  # such a short request comes at once
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nHello from process %d\n" % os.getpid())
    requests.discard(threading.current_thread())


def serve(listener: socket.socket) -> None:
    """Accept connections, whenever it may."""
    while True:
        select.select([listener], [], [])
        with turn, contextlib.suppress(BlockingIOError):  # the other generation was faster
            connection, _ = listener.accept()
            requests.add(thread := threading.Thread(target=answer, args=(connection,)))
            thread.start()


def main(path: str, *definitions: str) -> None:
    """Serve until a successor does."""
    turn.acquire()
    with sockact.takeover(path, *definitions) as t:

        @t.on_drain
        def stop() -> None:
            turn.acquire()

        t.on_resume(turn.release)
        threading.Thread(target=serve, args=(t.sockets["web"],), daemon=True).start()
        t.ready()
        print(f"process {os.getpid()} serves, generation {t.generation}", flush=True)
        turn.release()
        while t.wait_successor():
            for thread in list(requests):
                thread.join()
            if t.wait_successor(0):  # else it has died meanwhile
                break
    print(f"process {os.getpid()} has finished", flush=True)


if __name__ == "__main__":
    if not sys.argv[2:]:
        sys.exit(__doc__)
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
