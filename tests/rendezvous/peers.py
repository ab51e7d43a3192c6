"""Processes of their own that tests tell what to do, and raw ends of the protocol."""

import array
import contextlib
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sockact
from sockact.fd.identity import socket_cookie
from sockact.fd.transfer import receive_message, send_message
from sockact.rendezvous.messages import BYTES_MAX, VERSION, Hello, Message, Op, Request
from sockact.rendezvous.wire import Framer, decode, encode
from tests.helpers import ROOT, SECONDS, clean_environ

ANOTHER_UID = 12345

_ACTOR = """
import json, os, sys
import sockact
import sockact.rendezvous.thread, sockact.rendezvous.furnish
from tests.rendezvous.peers import *
names = globals()
exec(sys.argv[2], names)
uid = int(sys.argv[1])
if uid:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
for line in sys.stdin:
    how, code = json.loads(line)
    try:
        answer = ["", eval(code, names) if how == "ask" else exec(code, names)]
    except BaseException as error:
        answer = [type(error).__name__, str(error)]
    print(json.dumps(answer), flush=True)
"""


class ActorError(Exception):
    """What an actor did raised an exception.

    Attributes:
        kind: The name of its class.
    """

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(f"{kind}: {text}")


class Actor:
    """A process that runs the Python code that it is sent, with `sockact` and this module."""

    def __init__(self, uid: int = 0, before: str = "") -> None:
        """Start it.

        Args:
            uid: Whom to become; 0 to stay what this process is.
            before: What to run before that: another user may not be able to read a module.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ACTOR, str(uid), before],
            cwd=ROOT,
            env=clean_environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def begin(self, code: str, how: str = "do") -> None:
        """Have it begin to run code."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([how, code]) + "\n")
        self._process.stdin.flush()

    def is_done(self, seconds: float = 0.0) -> bool:
        """Whether it has an answer for `end`, after waiting at most so long."""
        assert self._process.stdout
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def end(self, seconds: float = SECONDS) -> object:
        """Return what comes of what was begun.

        Raises:
            ActorError: It raised.
        """
        assert self._process.stdout
        assert self.is_done(seconds), "the process does not answer"
        line = self._process.stdout.readline()
        assert line, "the process is gone"
        kind, value = json.loads(line)
        if kind:
            raise ActorError(kind, value)
        return value

    def do(self, code: str) -> None:
        """Run statements."""
        self.begin(code)
        self.end()

    def ask(self, code: str) -> object:
        """Return the value of an expression, as JSON has it."""
        self.begin(code, "ask")
        return self.end()

    def number(self, code: str) -> int:
        """Return the value of an expression that is a number."""
        value = self.ask(code)
        assert isinstance(value, int)
        return value

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it by SIGKILL, and wait for its end."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill it, if it is still there, and close the pipes."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


def leading(path: str, *definitions: str, **options: Any) -> sockact.Rendezvous:
    """Begin at a rendezvous, and be ready at once."""
    rendezvous = sockact.takeover(path, *definitions, **options)
    try:
        rendezvous.ready()
    except BaseException:
        rendezvous.close()
        raise
    return rendezvous


@contextlib.contextmanager
def actors(*uids: int, before: str = "") -> Iterator[list[Actor]]:
    """Start an actor for each user id, 0 for this process's own; kill them at the end."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Actor(uid, before))) for uid in uids]


def until(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    """Wait until a condition holds that no descriptor tells of."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come about that {what}"
        time.sleep(0.01)


def cookies(sockets: Sequence[object]) -> list[int]:
    """Return which socket each descriptor of a set is; of what is no socket, the inode."""
    numbers = [entry.fileno() for entry in sockets]  # type: ignore[attr-defined]
    return [socket_cookie(number) or os.fstat(number).st_ino for number in numbers]


def count_fds() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def resident_kib() -> int:
    """Return how much memory of this process is resident, in KiB."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


# Raw ends of the protocol.


def dial(path: str) -> socket.socket:
    """Connect to a rendezvous in the way that it wants."""
    address = "\0" + path[1:] if path.startswith("@") else path
    kind = socket.SOCK_SEQPACKET
    deadline = time.monotonic() + SECONDS
    while True:
        sock = socket.socket(socket.AF_UNIX, kind)
        sock.settimeout(SECONDS)
        error = sock.connect_ex(address)
        if not error:
            return sock
        sock.close()
        if error == errno.EAGAIN and time.monotonic() < deadline:  # the backlog is full
            time.sleep(0.01)
        elif kind == socket.SOCK_SEQPACKET and error in (errno.EPROTOTYPE, errno.ECONNREFUSED):
            kind = socket.SOCK_STREAM
        else:
            raise OSError(error, os.strerror(error))


def say(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send a message."""
    send_message(sock, encode(message, len(fds)), fds)


def hear(sock: socket.socket) -> tuple[Message, tuple[int, ...]]:
    """Return the next message, and the descriptors that came with it, of a SOCK_SEQPACKET socket.

    Raises:
        EOFError: The connection has ended.
    """
    while True:
        try:
            got = receive_message(sock, BYTES_MAX)
        except ConnectionResetError:
            continue
        if not got.data:
            raise EOFError
        return decode(got.data, len(got.fds)), got.fds


class Wire:
    """A raw end of a connection of either kind, which keeps what comes too early."""

    def __init__(self, path: str) -> None:
        """Connect."""
        self.sock = dial(path)
        self._framer: Framer[int] = Framer()

    def say(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a message."""
        say(self.sock, message, fds)

    def hear(self) -> tuple[Message, tuple[int, ...]]:
        """Return the next message."""
        if self.sock.type == socket.SOCK_SEQPACKET:
            return hear(self.sock)
        while not (found := self._framer.next()):
            try:
                got = receive_message(self.sock, BYTES_MAX)
            except ConnectionResetError:
                continue
            if not got.data:
                raise EOFError
            self._framer.feed(got.data, got.fds)
        return found

    def ask(self, op: Op, **more: object) -> Message:
        """Say Hello and a request, and return what is answered to the latter."""
        self.say(Hello(1, VERSION))
        self.hear()
        self.say(Request(op, **more))  # type: ignore[arg-type]
        return self.hear()[0]

    def close(self) -> None:
        """Close it."""
        self.sock.close()


def rights(*fds: int) -> list[tuple[int, int, bytes]]:
    """Return control data with descriptors."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())]
