"""A web server of plain sockets and threads that a second copy of itself replaces.

    python examples/takeover_plain.py /tmp/hello.rv web=tcp:127.0.0.1:8080

Run the same command again while it runs: the second one serves as soon as it is ready, and the
first one ends when it has answered all that it had accepted. No request is lost.
"""

import contextlib
import os
import select
import socket
import sys
import threading

import sockact

turn = threading.Lock()  # who holds it may accept; nobody may before this process is the owner
turn.acquire()
requests: set[threading.Thread] = set()


def answer(connection: socket.socket) -> None:
    """Answer one request."""
    with connection, contextlib.suppress(OSError):
        connection.settimeout(10)
        request = b""
        while b"\r\n\r\n" not in request and (data := connection.recv(65536)):
            request += data
        body = b"Hello from process %d\n" % os.getpid()
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    requests.discard(threading.current_thread())


def serve(listener: socket.socket) -> None:
    """Accept connections, whenever it may."""
    while True:
        select.select([listener], [], [])
        with turn, contextlib.suppress(BlockingIOError):  # the other generation was faster
            connection, _ = listener.accept()
            thread = threading.Thread(target=answer, args=(connection,))
            requests.add(thread)
            thread.start()


def main(path: str, *definitions: str) -> None:
    """Serve until a successor does."""
    with sockact.takeover(path, *definitions) as t:
        t.on_drain(lambda: turn.acquire() and None)
        t.on_resume(turn.release)
        threading.Thread(target=serve, args=(t.sockets["web"],), daemon=True).start()
        t.ready()
        turn.release()
        print(f"process {os.getpid()} serves, generation {t.generation}", flush=True)
        while t.wait_successor():
            for thread in list(requests):
                thread.join()
            if t.wait_successor(0):  # or it has died meanwhile
                break
    print(f"process {os.getpid()} has finished", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
