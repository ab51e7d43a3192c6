"""A server as a user of the library would write it, which can be told when to be killed.

It answers the load's protocol (`tests.load`) in one thread around one poll(2): ``GET <nonce>`` with
``<nonce> <server-id>``, and closes. It takes the listener over from whoever owns the rendezvous, or
opens it; when a successor is ready it stops to accept, finishes what it has accepted, and exits
with 0. If it has not become, or is not any more, the one who serves, it exits with 3.

The fault is no part of the library: the program wraps the two functions that every message goes
through, and sends itself a signal before it sends, or after it has received, a certain message.
In a takeover each message occurs once and in one direction, so its name says which one it is.
"""

import argparse
import collections
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sockact
from sockact.errors import TakeoverAbortedError
from sockact.rendezvous import tables
from sockact.rendezvous.messages import Message
from sockact.rendezvous.talk import Connection
from sockact.rendezvous.thread import Rendezvous
from tests.faults import page as states
from tests.faults.page import Page

if TYPE_CHECKING:
    import socket

ABORTED = 3
_ACCEPTS = 16
_REQUEST_MAX = 512
_LOOK_AGAIN_MS = 5


def arm(fault: str) -> None:
    """Have this process send itself a signal at a message.

    Args:
        fault: ``send:TYPE=SIGNAL`` for the moment before such a message is sent, or
            ``receive:TYPE=SIGNAL`` for the one after it was received; once.
    """
    point, _, name = fault.partition("=")
    moment, _, kind = point.partition(":")
    number = signal.Signals[f"SIG{name}"]
    due = [True]

    def strike(message: Message) -> None:
        if due and kind == message.TYPE:
            due.clear()
            # To this thread: another one might get it, and this one go on for a moment.
            signal.pthread_kill(threading.get_ident(), number)

    original: Callable[..., Any] = getattr(Connection, moment)

    def send(self: Connection, message: Message, *rest: Any) -> None:
        strike(message)
        original(self, message, *rest)

    def receive(self: Connection) -> Any:
        found = original(self)
        if found:
            strike(found[0])
        return found

    setattr(Connection, moment, {"send": send, "receive": receive}[moment])


def hasten(seconds: float) -> None:
    """Have this process wait at most so long in any state of an owner."""
    table = tables.OWNER_SECONDS
    assert isinstance(table, dict)
    table.update({state: min(seconds, usual) for state, usual in table.items()})


class Server:
    """The one thread that serves."""

    def __init__(
        self, name: str, page: Page, rendezvous: Rendezvous, linger: float, work: float
    ) -> None:
        """Serve the socket ``web`` of a rendezvous, which stays the caller's.

        Args:
            name: The id in every answer.
            page: Where to note what happens.
            rendezvous: The rendezvous.
            linger: Seconds that a drain lasts at least.
            work: Seconds that an answer takes.
        """
        self._name = name.encode()
        self._page = page
        self._rendezvous = rendezvous
        self._linger = linger
        self._work = work
        self._listener = rendezvous.sockets["web"]
        self._poll = select.poll()
        self._woken, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._woken, select.POLLIN)
        self._open: dict[int, tuple[socket.socket, bytes]] = {}
        self._due: collections.deque[tuple[float, int]] = collections.deque()
        self._accepting = False
        self._may_accept = True
        self._stopped = threading.Event()
        rendezvous.on_drain(self._stop)
        rendezvous.on_resume(self._resume)

    # In the thread of the rendezvous.

    def _stop(self) -> None:
        self._may_accept = False
        os.write(self._waker, b"x")
        self._stopped.wait()

    def _resume(self) -> None:
        self._page.note_resumed()
        self._may_accept = True
        os.write(self._waker, b"x")

    # In the thread that serves.

    def run(self) -> None:
        """Serve until a successor does, and everything that was accepted is finished.

        Raises:
            TakeoverAbortedError: The former owner has taken back.
        """
        self._page.state = states.LEADING
        self._look()
        drained_at: float | None = None
        while True:
            for fd, _ in self._poll.poll(self._timeout()):
                if fd == self._woken:
                    os.read(fd, 4096)
                elif fd == self._listener.fileno():
                    self._accept()
                else:
                    self._read(fd)
            self._answer_due()
            self._look()
            if self._accepting or not self._rendezvous.wait_successor(0):
                drained_at = None
                continue
            self._page.state = states.DRAINING
            now = time.monotonic()
            drained_at = now + self._linger if drained_at is None else drained_at
            if not self._open and now >= drained_at:
                return

    def _timeout(self) -> float | None:
        """Return how many milliseconds there are until something is to be done by the clock."""
        if self._due:
            return max(0.0, (self._due[0][0] - time.monotonic()) * 1000)
        return None if self._accepting else _LOOK_AGAIN_MS

    def _look(self) -> None:
        """Begin or cease to accept, as the rendezvous wants it."""
        if not self._may_accept:
            if self._accepting:
                self._accepting = False
                self._poll.unregister(self._listener)
                self._page.state = states.STOPPED
            self._stopped.set()
        elif not self._accepting:
            self._stopped.clear()
            self._accepting = True
            self._poll.register(self._listener, select.POLLIN)
            self._page.state = states.LEADING

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            if not self._may_accept:
                return
            self._page.begin_accept()
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                self._page.end_accept(found=False)
                return
            self._page.end_accept(found=True)
            sock.setblocking(False)
            self._open[sock.fileno()] = sock, b""
            self._poll.register(sock, select.POLLIN)
            self._read(sock.fileno())

    def _read(self, fd: int) -> None:
        sock, request = self._open[fd]
        try:
            data = sock.recv(_REQUEST_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._open[fd] = sock, request + data
        if not data:
            self._finish(fd)  # a client that went away
        elif data.endswith(b"\n"):
            self._poll.unregister(fd)
            self._due.append((time.monotonic() + self._work, fd))
            self._answer_due()

    def _answer_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            _, fd = self._due.popleft()
            sock, request = self._open[fd]
            with contextlib.suppress(OSError):
                sock.send(request.removeprefix(b"GET ").strip() + b" " + self._name + b"\n")
            self._finish(fd)

    def _finish(self, fd: int) -> None:
        sock, _ = self._open.pop(fd)
        with contextlib.suppress(KeyError):
            self._poll.unregister(fd)
        sock.close()
        self._page.note_finished()

    def close(self) -> None:
        """Close what is its own; nothing waits for it to stop any more."""
        self._may_accept = False
        self._stopped.set()
        os.close(self._woken)
        os.close(self._waker)


def _usual_priority() -> None:
    """Undo the nice value with which it has started, if it may."""
    with contextlib.suppress(PermissionError):
        for task in os.listdir("/proc/self/task"):
            os.setpriority(os.PRIO_PROCESS, int(task), 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.server", description=__doc__)
    parser.add_argument("--id", required=True)
    parser.add_argument("--path", required=True, help="the rendezvous")
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--page", required=True, type=Path, help="where to note what happens")
    parser.add_argument("--fault", help="send:TYPE=SIGNAL or receive:TYPE=SIGNAL")
    parser.add_argument("--hasten", type=float, help="seconds that an owner waits at most")
    parser.add_argument("--patience", type=float, default=60.0)
    parser.add_argument("--linger", type=float, default=0.0)
    parser.add_argument("--work", type=float, default=0.0, help="seconds that an answer takes")
    parser.add_argument("--nice", type=int, default=0, help="until it is ready")
    options = parser.parse_args(arguments)
    if options.nice:
        os.nice(options.nice)
    if options.hasten:
        hasten(options.hasten)
    if options.fault:
        arm(options.fault)
    page = Page(options.page)
    try:
        definition = f"web=tcp:127.0.0.1:{options.port}"
        with sockact.takeover(options.path, definition, patience=options.patience) as rendezvous:
            page.generation = rendezvous.generation
            page.state = states.ARRIVED
            server = Server(options.id, page, rendezvous, options.linger, options.work)
            with contextlib.closing(server):
                if options.nice:
                    _usual_priority()
                rendezvous.ready()
                server.run()
    except TakeoverAbortedError as error:
        print(f"{options.id}: {error}", file=sys.stderr, flush=True)
        page.state = states.ABORTED
        return ABORTED
    page.state = states.OVER
    return 0


if __name__ == "__main__":
    sys.exit(main())
