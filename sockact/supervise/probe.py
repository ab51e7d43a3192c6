"""Trying again and again whether a service is ready.

A probe is callbacks on a reactor and never blocks. A host name is looked up once, before the first
attempt, and beside the loop. Addresses, and this machine by its port alone, are not looked up.
"""

import errno
import os
import re
import socket as _socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias

from sockact.errors import SockactError
from sockact.rendezvous.react import READ, WRITE, Reactor
from sockact.spec import HostAddress, InetAddress, UnixAddress
from sockact.supervise.aside import Aside
from sockact.supervise.exit import Exit
from sockact.unitfile.readiness import Command, Delay, Http, Target, Tcp, Tried

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 0.5
"""How long a probe waits after its first failure, and how long at most; each wait is half as long
again as the one before."""
ATTEMPT_SECONDS = 5.0
"""How long one attempt to connect, or to get an answer, may take before it counts as failed."""
COMMAND_SECONDS = 30.0
"""How long a command may take."""

_ANSWER_MAX = 65536  # bytes of an answer that are read; the status line is all that counts
_LINE_MAX = 4096
_NOSIGNAL = getattr(_socket, "MSG_NOSIGNAL", 0)
_LINGER = 0.1  # seconds that a server has to finish its answer, so that it logs no broken pipe

Place: TypeAlias = tuple[int, object]
"""An address family and what connect(2) takes with it."""


class Running(Protocol):
    """A command that runs beside a service."""

    def kill(self) -> None:
        """End it, with SIGKILL if need be; its callback is not to be called any more."""


Run: TypeAlias = Callable[[str, Callable[[Exit], None]], Running]
"""Starts a command's text; calls back, later, with how it has ended. May raise OSError."""


def resolve(target: Target) -> list[Place]:
    """Return where to connect to, in the order to try; looks a host name up, which may take long.

    Raises:
        OSError: socket.gaierror: there is no such host.
    """
    match target:
        case UnixAddress(path=path):
            name = b"\0" + os.fsencode(path[1:]) if target.abstract else os.fsencode(path)
            return [(_socket.AF_UNIX, name)]
        case InetAddress():
            host: str | None = target.host + (f"%{target.scope}" if target.scope else "")
            service = str(target.port)
        case _:
            # Without a host, and without AI_PASSIVE, getaddrinfo(3) gives the loopback addresses.
            host, service = target.host or None, target.service
    found = _socket.getaddrinfo(host, service, type=_socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


class Probe:
    """Tries until a service is ready, and then calls back once.

    Owns a socket or a command while it tries. Ends by its callback, or by `cancel`.

    Attributes:
        reason: Why the last attempt failed, for whoever has lost patience; empty before.
    """

    def __init__(
        self,
        reactor: Reactor,
        readiness: Tried,
        done: Callable[[str | None], None],
        *,
        run: Run | None = None,
        first: float = FIRST_SECONDS,
        longest: float = LONGEST_SECONDS,
        attempt: float | None = None,
    ) -> None:
        """Begin with the reactor's next step.

        Args:
            reactor: Who calls.
            readiness: What to try.
            done: Called once, in a step: with None when the service is ready, else with what
                makes it useless to go on: a host name that does not exist.
            run: Starts the command of a `Command`.
            first: Seconds until the second attempt.
            longest: Seconds between attempts at most.
            attempt: Seconds that one attempt may take; `ATTEMPT_SECONDS` or `COMMAND_SECONDS` by
                default.
        """
        self.reason = ""
        self._reactor = reactor
        self._readiness = readiness
        self._done = done
        self._run = run
        self._places: list[Place] | None = None
        self._looking: Aside[list[Place]] | None = None
        self._wait, self._longest = first, longest
        usual = COMMAND_SECONDS if isinstance(readiness, Command) else ATTEMPT_SECONDS
        self._patience = usual if attempt is None else attempt
        self._attempt: _Attempt | None = None
        self._over = False
        now = time.monotonic()
        self._when: float | None = now
        if isinstance(readiness, Delay):
            self._when = now + readiness.seconds
        reactor.add(self)

    def cancel(self) -> None:
        """Stop, close the socket, end the command; `done` is not called. Repeatable."""
        self._over = True
        if self._looking is not None:
            self._looking.cancel()
        self._reactor.remove(self)
        self._close_attempt()

    def _close_attempt(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.close()

    def deadline(self) -> float | None:
        """Return when the next attempt is due, or the present one is to be given up."""
        return self._when

    def expire(self, now: float) -> None:
        """Begin an attempt, or end the one that has taken too long."""
        if self._attempt is not None:
            self._ended(self._attempt.verdict)
        elif isinstance(self._readiness, Delay):
            self._finish(None)
        else:
            self._begin(self._readiness, now)

    def _begin(self, readiness: Tcp | Http | Command, now: float) -> None:
        if not isinstance(readiness, Command) and self._places is None:
            self._look_up(readiness)
            return
        self._when = now + self._patience
        late = f"no answer within {self._patience:g} s"
        try:
            if isinstance(readiness, Command):
                assert self._run is not None, "a command needs somebody to run it"
                self._attempt = _Run(late, self._run(readiness.text, self._exited))
            else:
                request = _request(readiness) if isinstance(readiness, Http) else b""
                places = self._places or []
                self._attempt = _Connection(late, self._reactor, places, request, self)
                self._attempt.begin()
        except OSError as error:
            self._ended(_reason(error))

    def _look_up(self, readiness: Tcp | Http) -> None:
        target = readiness.target
        find = partial(resolve, target)
        if isinstance(target, HostAddress) and target.host:
            self._when = None
            self.reason = f"{readiness}: the host name is being looked up"
            self._looking = Aside(self._reactor, find, self._looked_up)
        else:
            self._looked_up(find)

    def _looked_up(self, outcome: Callable[[], list[Place]]) -> None:
        self.reason = ""
        try:
            self._places = outcome()
        except (OSError, UnicodeError) as error:
            self._finish(f"{self._readiness}: {getattr(error, 'strerror', None) or error}")
        else:
            self.expire(time.monotonic())

    def _exited(self, exit_: Exit) -> None:
        self._ended(None if exit_ == Exit(0) else str(exit_))

    def attempt_ended(self, error: str | None) -> None:
        """Take the outcome of the attempt to connect; for that alone."""
        self._ended(error)

    def attempt_lingers(self) -> None:
        """Give the attempt, whose outcome is known, a moment to end in peace; for that alone."""
        soon = time.monotonic() + _LINGER
        self._when = soon if self._when is None else min(self._when, soon)

    def _ended(self, error: str | None) -> None:
        self._close_attempt()
        if self._over:
            return
        if error is None:
            self._finish(None)
            return
        self.reason = f"{self._readiness}: {error}"
        self._when = time.monotonic() + self._wait
        self._wait = min(self._wait * 1.5, self._longest)

    def _finish(self, error: str | None) -> None:
        self.cancel()
        self.reason = error or ""
        self._done(error)


def _reason(error: OSError) -> str:
    if isinstance(error, SockactError):
        return str(error)
    if error.errno == errno.EAGAIN:
        return "its queue is full"  # of a Unix listener (unix(7): EAGAIN)
    return error.strerror or str(error)


def _request(readiness: Http) -> bytes:
    # HTTP/1.0: the server ends the answer by closing, and no server refuses it.
    lines = (
        f"GET {readiness.path} HTTP/1.0",
        f"Host: {readiness.host}",
        "User-Agent: sockact",
        "Accept: */*",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


class _Attempt(Protocol):
    @property
    def verdict(self) -> str | None:
        """What holds if time runs out now: None for ready."""

    def close(self) -> None:
        """Give up what it owns."""


class _Run:
    """An attempt by a command."""

    def __init__(self, late: str, running: Running) -> None:
        self.verdict: str | None = late
        self._running = running

    def close(self) -> None:
        self._running.kill()


class _Listener(Protocol):
    def attempt_ended(self, error: str | None) -> None: ...
    def attempt_lingers(self) -> None: ...


class _Connection:
    """An attempt by a connection: to one place after the other, until one is taken."""

    def __init__(
        self,
        late: str,
        reactor: Reactor,
        places: Sequence[Place],
        request: bytes,
        listener: _Listener,
    ) -> None:
        self.verdict: str | None = late
        self._reactor = reactor
        self._places = list(places)
        self._request, self._to_send = request, request
        self._answer = bytearray()
        self._judged = False
        self._size = 0
        self._listener = listener
        self._errors: dict[str, None] = {}
        self._sock: _socket.socket | None = None

    def close(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._reactor.unwatch(sock.fileno())
            sock.close()

    def begin(self) -> None:
        """Connect to the next place; end if there is none."""
        self.close()
        while self._places:
            family, address = self._places.pop(0)
            sock: _socket.socket | None = None
            try:
                sock = _socket.socket(family, _socket.SOCK_STREAM)
                sock.setblocking(False)
                number = sock.connect_ex(address)  # type: ignore[arg-type]
                if number not in (0, errno.EINPROGRESS):
                    raise OSError(number, os.strerror(number))
            except OSError as error:
                if sock is not None:
                    sock.close()
                self._errors[_reason(error)] = None
                continue
            self._sock = sock
            self._reactor.watch(sock.fileno(), WRITE, self._connected)
            return
        self._listener.attempt_ended(", ".join(self._errors))

    def _connected(self) -> None:
        assert self._sock is not None
        number = self._sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if number == 0 and self._is_itself():
            number = errno.ECONNREFUSED
        if number:
            self._errors[os.strerror(number)] = None
            self.begin()
        elif self._request:
            self._reactor.watch(self._sock.fileno(), WRITE, self._send)
        else:
            self._listener.attempt_ended(None)

    def _is_itself(self) -> bool:
        """Whether a TCP socket was given, as its own port, the one it connects to.

        With a port that the kernel also gives away that happens sooner or later, and the two ends
        of that one socket are connected with nobody listening (RFC 9293, simultaneous open).
        """
        assert self._sock is not None
        if self._sock.family == _socket.AF_UNIX:
            return False
        try:
            return bool(self._sock.getsockname() == self._sock.getpeername())
        except OSError:
            return False  # it is gone already; it was somebody

    def _send(self) -> None:
        assert self._sock is not None
        try:
            sent = self._sock.send(self._to_send, _NOSIGNAL)
        except BlockingIOError:
            return
        except OSError as error:
            self._listener.attempt_ended(_reason(error))
            return
        self._to_send = self._to_send[sent:]
        if not self._to_send:
            self._reactor.watch(self._sock.fileno(), READ, self._receive)

    def _receive(self) -> None:
        assert self._sock is not None
        try:
            piece = self._sock.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self._listener.attempt_ended(self.verdict if self._judged else _reason(error))
            return
        self._size += len(piece)
        if not self._judged:
            self._answer += piece
            self._judge(ended=not piece)
        if not piece or self._size >= _ANSWER_MAX:
            self._listener.attempt_ended(self.verdict)

    def _judge(self, *, ended: bool) -> None:
        line, newline, _ = bytes(self._answer).partition(b"\n")
        if not newline and not ended and len(line) < _LINE_MAX:
            return
        match = re.match(rb"HTTP/[0-9.]+ ([0-9]{3})(?: ([ -~]*))?\r?$", line)
        if not self._answer:
            self.verdict = "closed without an answer"
        elif match is None:
            self.verdict = "the answer is not HTTP"
        elif match[1][:1] in b"23":
            self.verdict = None
        else:
            self.verdict = "answered " + b" ".join(filter(None, match.groups())).decode("ascii")
        self._judged = True
        self._listener.attempt_lingers()
