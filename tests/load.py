r"""A client load that opens a new connection for every request and counts all that goes wrong.

It runs as a process of its own, so that it shares no interpreter lock with what it measures, and
in that process as one thread around one epoll: no client waits for another's turn at the lock, and
a request costs half a dozen system calls.

The protocol: a client connects and sends ``GET <nonce>\n``; the server answers
``<nonce> <server-id>\n`` and closes. An answer is right when the nonce is the client's own, a server
id without white space is there, and the end of the stream follows.

In HTTP the client asks for ``GET /?n=<nonce>``, in version 1.0, which keeps no connection and has no
chunks. The body of the answer, whose status must be 200, is the line above.

Two things a client on one machine has to take care of:

- The kernel refuses a nonblocking connect() to a Unix listener whose backlog is full with EAGAIN
  (connect(2)), where a blocking one would wait. It is tried again each millisecond until the
  timeout, so that a full backlog is a delay here as it is for a blocking client.
- A TCP client in 127.0.0.0/8 connects from 127.0.0.2, 127.0.0.3 ... in turn, with
  IP_BIND_ADDRESS_NO_PORT (ip(7)) so that the port is chosen at connect(). One source address has
  some 28,000 ports, and a pair of addresses and ports stays in TIME_WAIT for a minute; 250 addresses
  last for 7 million connections a minute. SO_LINGER would avoid TIME_WAIT, but by a reset.

By hand, with the counts as JSON:

    python -m tests.load 127.0.0.1:8080 [--clients 4] [--rate 0] [--timeout 10] [--seconds 5] [--http]
"""

import argparse
import contextlib
import errno
import gc
import ipaddress
import json
import math
import os
import re
import select
import socket
import subprocess
import sys
import time
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import attrs

from sockact.spec import AsValue

Address = tuple[str, int] | str
"""A TCP host and port, or a Unix socket path."""

KINDS = ("ok", "refused", "reset", "timed_out", "empty", "wrong", "other")
KEPT_FAILURES = 5
"""How many failures of each kind are kept as text: a flood of one does not hide another."""

_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; Python has no name for it
_CONNECT_RETRY = 0.001
_FAILURE_PAUSE = 0.001
_ANSWER_MAX = 512
_HEAD_MAX = 4096
_END_OF_HEAD = b"\r\n\r\n"
_OK = re.compile(rb"HTTP/1\.[01] 200\b")
_KIND_OF_ERRNO = MappingProxyType(
    {
        errno.ECONNREFUSED: "refused",
        errno.ENOENT: "refused",
        errno.ECONNRESET: "reset",
        errno.EPIPE: "reset",
        errno.ETIMEDOUT: "timed_out",
    }
)


# --- what comes out -------------------------------------------------------------------------------


@attrs.frozen(eq=False, repr=False)
class Result(AsValue):
    """What became of all requests. Every request is in exactly one of the counts of `KINDS`.

    Times are those of ``time.monotonic()``, which all processes of a machine share.

    Attributes:
        requests: All that were made, and with a rate also those that were due and could not be
            made in time; the latter are in `other`.
        ok: Answered rightly.
        refused: ECONNREFUSED, or no such path.
        reset: ECONNRESET or EPIPE, at any moment before the end of a right answer.
        timed_out: Not connected, answered and closed in time.
        empty: The server closed without one byte.
        wrong: Bytes that no right answer has, whatever followed, or half an answer.
        other: Any other error.
        first_failures: The first failures of each kind as text: time, kind, what happened.
        by_server: How many right answers came from each server id.
        latencies: Of each right answer the time it was due (with a rate) or started (without), the
            seconds from then to the end of the stream, and the server id; in order of completion.
        marks: Label and time of each `Load.mark`.
        began: When the first request could start.
        ended: When the last request had ended.
    """

    requests: int
    ok: int
    refused: int
    reset: int
    timed_out: int
    empty: int
    wrong: int
    other: int
    first_failures: tuple[str, ...]
    by_server: dict[str, int]
    latencies: Sequence[tuple[float, float, str]]
    marks: tuple[tuple[str, float], ...] = ()
    began: float = 0.0
    ended: float = 0.0

    def __repr__(self) -> str:
        # A failed assertion shows this: what went wrong, not each of 100,000 latencies.
        counts = ", ".join(f"{kind}={getattr(self, kind)}" for kind in ("requests", *KINDS))
        return f"Result({counts}, by_server={self.by_server}, {self.first_failures})"

    @property
    def failed(self) -> int:
        """How many requests were not answered rightly."""
        return self.requests - self.ok

    def percentile(
        self, p: float, windows: Sequence[tuple[float, float]] | None = None
    ) -> float | None:
        """Return the latency in seconds that p percent of the right answers did not exceed.

        Args:
            p: 0 to 100; 100 is the maximum (nearest rank: always a latency that occurred).
            windows: Count only requests that were under way, from due or start to the end, at some
                moment of one of these spans ``begin <= t < end``. So a request that began just
                before a takeover and was held up by it belongs to the takeover.

        Returns:
            Seconds, or None if there was no such answer.
        """
        chosen = sorted(
            seconds
            for begin, seconds, _ in self.latencies
            if windows is None or any(begin < e and begin + seconds >= b for b, e in windows)
        )
        return chosen[max(0, math.ceil(len(chosen) * p / 100) - 1)] if chosen else None

    def summary(self) -> dict[str, object]:
        """Return the counts and a few figures as JSON takes them; latencies in milliseconds."""
        seconds = self.ended - self.began
        figures: dict[str, object] = {"requests": self.requests, "failed": self.failed}
        figures |= {kind: getattr(self, kind) for kind in KINDS}
        figures |= {"seconds": round(seconds, 3), "per_second": round(self.requests / seconds, 1)}
        for name, p in (("p50", 50.0), ("p99", 99.0), ("max", 100.0)):
            value = self.percentile(p)
            figures[f"{name}_ms"] = None if value is None else round(value * 1000, 3)
        return figures | {"by_server": self.by_server, "first_failures": self.first_failures}


def _result(
    head: Mapping[str, Any], columns: bytes, marks: tuple[tuple[str, float], ...]
) -> Result:
    """Put together what `_Clients.write` wrote."""
    values = dict(head)
    servers = tuple(values["by_server"])
    begins, seconds, indices = array("d"), array("d"), array("I")
    size, taken = values["ok"], 0
    for column in (begins, seconds, indices):
        column.frombytes(columns[taken : taken + size * column.itemsize])
        taken += size * column.itemsize
    if taken != len(columns):
        raise RuntimeError(f"the load wrote {len(columns)} bytes of latencies, not {taken}")
    values["latencies"] = tuple(
        (begin, took, servers[index])
        for begin, took, index in zip(begins, seconds, indices, strict=True)
    )
    values["first_failures"] = tuple(values["first_failures"])
    return Result(**values, marks=marks)


# --- in the test ----------------------------------------------------------------------------------


class Load:
    """The load as a child process, for the duration of a ``with`` block.

    Args:
        address: TCP host and port, or Unix socket path.
        clients: How many connections there are at most at once.
        rate: Requests a second of all clients together, due at fixed times whatever the server
            does (open loop). One that finds all clients busy starts late, and its latency counts
            from when it was due all the same. 0 is a closed loop: each client as fast as it can,
            with a millisecond's pause after a failure.
        timeout: Seconds from the start of a request to the end of its answer.
        http: Whether the server speaks HTTP.
        prefix: A command that runs the child's, such as ``nsenter`` with options.

    Raises:
        RuntimeError: On entry or `stop`: the child died or gave no sign. It is gone then.
    """

    def __init__(
        self,
        address: Address,
        *,
        clients: int = 4,
        rate: float = 0.0,
        timeout: float = 10.0,
        http: bool = False,
        prefix: Sequence[str] = (),
    ) -> None:
        if clients < 1 or rate < 0 or timeout <= 0:
            raise ValueError("clients from 1, a rate from 0 and a timeout above 0 are needed")
        # The child runs in another directory.
        self._address = os.path.abspath(address) if isinstance(address, str) else address
        self._options = [f"--clients={clients}", f"--rate={rate}", f"--timeout={timeout}"]
        if http:
            self._options.append("--http")
        self._prefix = prefix
        self._timeout = timeout
        self._marks: list[tuple[str, float]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._result: Result | None = None

    def __enter__(self) -> Self:
        """Start the load and wait until its first request has ended, well or not."""
        from tests.helpers import ROOT, SECONDS, clean_environ

        text = self._address if isinstance(self._address, str) else "[{}]:{}".format(*self._address)
        command = [sys.executable, "-m", "tests.load", text, *self._options, "--controlled"]
        self._process = subprocess.Popen(
            [*self._prefix, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=ROOT,
            env=clean_environ(),
            start_new_session=True,
        )
        try:
            assert self._process.stdout
            readable, _, _ = select.select([self._process.stdout], [], [], self._timeout + SECONDS)
            if not readable or self._process.stdout.read(1) != b"\n":
                raise RuntimeError("the load ended, or did not end a request in time")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._process:
            self._process.kill()
            with self._process:  # closes the pipes and waits
                self._process = None

    def mark(self, label: str) -> None:
        """Record this moment in the result. The load is not woken for it."""
        self._marks.append((label, time.monotonic()))

    def stop(self) -> Result:
        """End the load and return what became of it; once more returns the same.

        Requests under way are completed, and with a rate also those that were due before and wait
        for a free client, but for no longer than the timeout.
        """
        from tests.helpers import SECONDS

        if self._result:
            return self._result
        if not self._process:
            raise RuntimeError("the load does not run")
        try:
            # Closes the child's stdin, which is the sign to stop; pending requests take one
            # timeout to start and one more to end.
            out, _ = self._process.communicate(timeout=2 * self._timeout + SECONDS)
        except subprocess.TimeoutExpired as error:
            self._end()
            raise RuntimeError("the load did not stop") from error
        head, newline, columns = out.partition(b"\n")
        if self._process.returncode or not newline:
            raise RuntimeError(f"the load ended with status {self._process.returncode}")
        self._result = _result(json.loads(head), columns, tuple(self._marks))
        return self._result


# --- in the child ---------------------------------------------------------------------------------


class _Request:
    """One connection from its start to its verdict. It owns its socket."""

    __slots__ = ("connecting", "data", "deadline", "due", "expected", "fd", "sock", "unsent")

    def __init__(self, sock: socket.socket, nonce: bytes, due: float, deadline: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.due = due
        self.deadline = deadline
        self.unsent = b"GET " + nonce + b"\n"
        self.expected = nonce + b" "
        self.data = b""
        self.connecting = True

    def may_become_right(self) -> bool:
        """Return whether what was received so far is the beginning of a right answer."""
        return self._line_may_become_right(self.data)

    def _line_may_become_right(self, line: bytes) -> bool:
        if not self.expected.startswith(line[: len(self.expected)]):
            return False
        server, newline, more = line[len(self.expected) :].partition(b"\n")
        if not server:
            return not newline
        return not more and server.split() == [server] and len(server) < _ANSWER_MAX

    def is_right(self) -> bool:
        """Return whether this is the whole of a right answer, given that `may_become_right`."""
        return self.data.endswith(b"\n")

    def server(self) -> str:
        """Return the server id in a right answer."""
        line = self.data[self.data.rindex(self.expected) + len(self.expected) : -1]
        return line.decode("ascii", "backslashreplace")

    def state(self) -> str:
        """Return how far it came, for the text of a failure."""
        if self.connecting:
            return "the backlog is full"
        if self.unsent:
            return "while connecting"
        return f"after {self.data!r}" if self.data else "before an answer"


class _HttpRequest(_Request):
    """The same in HTTP."""

    __slots__ = ()

    def __init__(self, sock: socket.socket, nonce: bytes, due: float, deadline: float) -> None:
        super().__init__(sock, nonce, due, deadline)
        self.unsent = b"GET /?n=" + nonce + b" HTTP/1.0\r\nHost: localhost\r\n\r\n"

    def may_become_right(self) -> bool:
        head, end, line = self.data.partition(_END_OF_HEAD)
        if not end:
            return len(head) < _HEAD_MAX
        return bool(_OK.match(head)) and self._line_may_become_right(line)

    def is_right(self) -> bool:
        # A head that never ends may end with a newline.
        return _END_OF_HEAD + self.expected in self.data and self.data.endswith(b"\n")


def _resolve(address: Address) -> tuple[socket.AddressFamily, tuple[object, ...] | str]:
    """Look a host up, once: a name server has no part in what is measured."""
    if isinstance(address, str):
        return socket.AF_UNIX, address
    found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
    return found[0], found[4]


def _sources(address: tuple[object, ...] | str) -> list[str]:
    """Return the addresses to connect from in turn, or none where the kernel is to choose."""
    if isinstance(address, str) or sys.platform != "linux":
        return []
    host = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if host not in ipaddress.ip_network("127.0.0.0/8"):
        return []
    # Never the server's own: connecting to a closed port from itself can meet itself (RFC 9293 3.5).
    return [source for x in range(2, 255) if (source := f"127.0.0.{x}") != str(host)]


class _Clients:
    """All clients, as one epoll loop.

    Args:
        address: Where the server listens.
        clients: As in `Load`.
        rate: As in `Load`.
        timeout: As in `Load`.
        http: As in `Load`.
        seconds: How long requests are started; infinity until `control` ends.
        control: A descriptor (borrowed) whose end says stop, or -1.
        announce: A descriptor (borrowed) that gets a newline when a request has ended, or -1.
    """

    def __init__(
        self,
        address: Address,
        *,
        clients: int,
        rate: float,
        timeout: float,
        http: bool = False,
        seconds: float = math.inf,
        control: int = -1,
        announce: int = -1,
    ) -> None:
        self._family, self._address = _resolve(address)
        self._sources = _sources(self._address)
        self._rate, self._timeout = rate, timeout
        self._kind = _HttpRequest if http else _Request
        self._control, self._announce = control, announce
        self._nonce = os.urandom(4).hex()
        self._epoll = select.epoll()
        if control >= 0:
            self._epoll.register(control, select.EPOLLIN)
        self._active: dict[int, _Request] = {}  # in order of start, and so of deadline
        self._retrying: list[_Request] = []
        # When each free client may start; those that wait out a failure are at the right end.
        self._free = deque([0.0] * clients)
        self._counts = dict.fromkeys(("requests", *KINDS), 0)
        self._failures: list[str] = []
        self._servers: dict[str, int] = {}
        self._by_server: dict[str, int] = {}
        self._begins, self._seconds, self._indices = array("d"), array("d"), array("I")
        self._began = self._ended = time.monotonic()
        self._stop = self._began + seconds

    def run(self) -> None:
        """Make requests until it is time to stop, and end those that are under way."""
        try:
            self._loop()
        finally:
            self._ended = time.monotonic()
        while self._next_due() <= self._stop:
            self._count("other", "was due, but no client was free", self._next_due())

    def _loop(self) -> None:
        while True:
            now = time.monotonic()
            self._expire(now)
            self._start_due(now)
            if now >= self._stop and not self._active and not self._waiting(now):
                break
            for fd, events in self._wait(now):
                if fd == self._control:
                    self._epoll.unregister(fd)
                    self._stop = time.monotonic()
                else:
                    self._proceed(self._active[fd], events)
            retrying, self._retrying = self._retrying, []
            for request in retrying:
                self._connect(request)

    def close(self) -> None:
        """Close all that is open, whatever became of it."""
        for request in self._active.values():
            request.sock.close()
        self._epoll.close()

    def head(self) -> dict[str, object]:
        """Return all fields of a `Result` but latencies and marks."""
        return self._counts | {
            "first_failures": self._failures,
            "by_server": self._by_server,
            "began": self._began,
            "ended": self._ended,
        }

    def columns(self) -> bytes:
        """Return the latencies: all times due, then all durations, then all server numbers."""
        return b"".join(column.tobytes() for column in (self._begins, self._seconds, self._indices))

    # When ...

    def _next_due(self) -> float:
        """Return when the next request is due; never in a closed loop, which has no such times."""
        return self._began + self._started() / self._rate if self._rate else math.inf

    def _started(self) -> int:
        return self._counts["requests"] + len(self._active)

    def _waiting(self, now: float) -> bool:
        """Return whether requests that were due before the stop are still to be started."""
        overdue = self._next_due() <= self._stop and now < self._stop + self._timeout
        return self._rate > 0 and overdue

    def _start_due(self, now: float) -> None:
        while self._free and self._free[0] <= now:
            if not self._rate:
                if now >= self._stop:
                    return
                due = now = time.monotonic()
            else:
                due = self._next_due()
                if due > min(now, self._stop) or now >= self._stop + self._timeout:
                    return
            self._free.popleft()
            self._start(due)

    def _wait(self, now: float) -> list[tuple[int, int]]:
        """Return what happened, at the latest when something is to be done by the clock."""
        until, fine = self._stop if now < self._stop else math.inf, math.inf
        if self._active:
            until = min(until, next(iter(self._active.values())).deadline)
        if self._retrying:
            fine = now + _CONNECT_RETRY
        if self._free and self._waiting(now):
            fine = min(fine, self._next_due())
        elif self._free and not self._rate and now < self._stop:
            fine = min(fine, self._free[0])
        if fine == math.inf:
            return self._epoll.poll(None if until == math.inf else max(0.0, until - now))
        # epoll_wait counts in milliseconds, select in microseconds.
        events = self._epoll.poll(0)
        left = min(fine, until) - time.monotonic()
        if events or left <= 0:
            return events
        select.select([self._epoll], [], [], left)
        return self._epoll.poll(0)

    def _expire(self, now: float) -> None:
        while self._active:
            request = next(iter(self._active.values()))
            if request.deadline > now:
                return
            # The answer may be there, and it is this process that was kept from its processor.
            if not request.connecting and not request.unsent:
                self._read(request)
            if request.fd in self._active:
                self._finish(request, "timed_out", request.state())

    # ... what: each of these leaves the request either under way or finished.

    def _start(self, due: float) -> None:
        number = self._started()
        try:
            sock = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self._count("other", f"no socket: {error}", time.monotonic())
            self._free.append(time.monotonic() + _FAILURE_PAUSE)
            return
        nonce = f"{self._nonce}-{number}".encode()
        request = self._kind(sock, nonce, due, time.monotonic() + self._timeout)
        self._active[request.fd] = request
        try:
            if self._sources:
                sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
                sock.bind((self._sources[number % len(self._sources)], 0))
        except OSError as error:
            request.connecting = False
            self._fail(request, error)
        else:
            self._connect(request)

    def _connect(self, request: _Request) -> None:
        number = request.sock.connect_ex(self._address)
        if number == errno.EAGAIN and self._family == socket.AF_UNIX:
            self._retrying.append(request)
            return
        request.connecting = False
        if number not in (0, errno.EINPROGRESS):
            self._fail(request, OSError(number, os.strerror(number)))
            return
        # On one machine the handshake is done when connect() returns, or nearly so.
        self._send(request)
        if request.fd in self._active:
            wanted = select.EPOLLIN | (select.EPOLLOUT if request.unsent else 0)
            self._epoll.register(request.fd, wanted)

    def _proceed(self, request: _Request, events: int) -> None:
        if request.unsent:
            self._send(request)
            if request.fd not in self._active:
                return
            if not request.unsent:
                self._epoll.modify(request.fd, select.EPOLLIN)
        if events & ~select.EPOLLOUT:
            self._read(request)

    def _send(self, request: _Request) -> None:
        try:
            request.unsent = request.unsent[request.sock.send(request.unsent) :]
        except BlockingIOError:
            return
        except OSError as error:
            # What it said before it hung up decides first.
            with contextlib.suppress(OSError):
                request.data += request.sock.recv(_ANSWER_MAX)
            if request.may_become_right():
                self._fail(request, error)
            else:
                self._finish(request, "wrong", f"{request.data!r}, {error.strerror}")

    def _read(self, request: _Request) -> None:
        while True:
            try:
                data = request.sock.recv(_ANSWER_MAX)
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(request, error)
                return
            if not data:
                self._end_of_stream(request)
                return
            request.data += data
            if not request.may_become_right():
                self._finish(request, "wrong", repr(request.data))
                return

    def _end_of_stream(self, request: _Request) -> None:
        if not request.data:
            self._finish(request, "empty", "closed without an answer")
        elif request.is_right():
            self._finish(request, "ok")
        else:
            self._finish(request, "wrong", f"{request.data!r} and no more")

    def _fail(self, request: _Request, error: OSError) -> None:
        kind = _KIND_OF_ERRNO.get(error.errno or 0, "other")
        self._finish(request, kind, f"{error.strerror} {request.state()}")

    def _finish(self, request: _Request, kind: str, text: str = "") -> None:
        now = time.monotonic()
        del self._active[request.fd]
        request.sock.close()  # and with it its place in the epoll
        if request.connecting:
            self._retrying.remove(request)
        self._count(kind, text, now)
        if kind != "ok":
            self._free.append(0.0 if self._rate else now + _FAILURE_PAUSE)
            return
        self._free.appendleft(0.0)
        server = request.server()
        self._by_server[server] = self._by_server.get(server, 0) + 1
        self._begins.append(request.due)
        self._seconds.append(now - request.due)
        self._indices.append(self._servers.setdefault(server, len(self._servers)))

    def _count(self, kind: str, text: str, now: float) -> None:
        self._counts["requests"] += 1
        self._counts[kind] += 1
        if kind != "ok" and self._counts[kind] <= KEPT_FAILURES:
            self._failures.append(f"{now:.6f} {kind}: {text}")
        if self._counts["requests"] == 1 and self._announce >= 0:
            os.write(self._announce, b"\n")


def _address(text: str) -> Address:
    """Read ``host:port``, ``[host]:port``, or a path, which has a slash."""
    if "/" in text:
        return text
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither HOST:PORT nor a path with a slash")
    return host.removeprefix("[").removesuffix("]"), int(port)


def main() -> None:
    """Make requests; print what became of them as JSON, or as `Load` reads it."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("address", type=_address, help="HOST:PORT or PATH")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--timeout", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--http", action="store_true", help="the server speaks HTTP")
    parser.add_argument("--controlled", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    # A collection would be a latency of its own, and nothing here is a cycle. As for the slack of
    # timers, 50 us unless set (proc(5)), it would be added to each latency of an open loop.
    gc.disable()
    with contextlib.suppress(OSError):
        Path("/proc/self/timerslack_ns").write_text("1000", encoding="ascii")
    clients = _Clients(
        options.address,
        clients=options.clients,
        rate=options.rate,
        timeout=options.timeout,
        http=options.http,
        seconds=math.inf if options.controlled else options.seconds,
        control=0 if options.controlled else -1,
        announce=1 if options.controlled else -1,
    )
    with contextlib.closing(clients):
        with contextlib.suppress(KeyboardInterrupt):
            clients.run()
        head, columns = clients.head(), clients.columns()
    if options.controlled:
        with open(1, "wb", closefd=False) as out:
            out.write(json.dumps(head).encode() + b"\n" + columns)
    else:
        print(json.dumps(_result(head, columns, ()).summary(), indent=2))


if __name__ == "__main__":
    main()
