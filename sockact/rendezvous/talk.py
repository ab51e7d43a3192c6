"""One connection: frames in and out of a socket, and an end of the protocol that is driven by them.

Received descriptors are owned from the moment they arrive. Those that are sent stay with their
owner; only if the kernel cannot take a message at once does the queue hold duplicates of its own.
"""

import collections
import errno
import os
import socket as _socket
import time
from collections.abc import Callable, Sequence

from sockact.errors import RemoteProtocolError, TruncatedError
from sockact.fd.own import OwnedFd
from sockact.fd.peer import is_dead
from sockact.fd.transfer import receive_message, send_some
from sockact.rendezvous.actions import Action, Close, CloseHandles, Send
from sockact.rendezvous.client import ClientSide
from sockact.rendezvous.manifest import Identity
from sockact.rendezvous.messages import BYTES_MAX, Message
from sockact.rendezvous.owner import OwnerSide
from sockact.rendezvous.react import READ, WRITE, Reactor
from sockact.rendezvous.wire import Framer, decode, encode
from sockact.sockets.socketset import NamedSocket

RETRY_SECONDS = 0.02
"""How long to wait when this user has too many descriptors in flight (ETOOMANYREFS)."""

DEATH_SECONDS = 2.0
"""How long to wait, after the end of a connection, for word that the peer is dead."""

LINGER_SECONDS = 5.0
"""How long the last words of a finished conversation wait for a peer that does not read."""

_QUEUE_MAX = 2048
"""Messages that may wait for a peer that does not read: more than the longest manifest has."""

_READS = 64
"""Messages that are read at a time, so that nobody who never stops keeps others waiting."""

_READS_BEFORE_JUDGING = 1024
"""Messages that are read before time is up: more than a socket's queue has room for."""


def identify(handles: Sequence[OwnedFd]) -> list[Identity]:
    """Return which file description each handle is."""
    # As `sockact.fd.identity.identity`, without a call for each of thousands.
    found = map(os.fstat, [handle.fileno() for handle in handles])
    return [(info.st_dev, info.st_ino) for info in found]


def close_all(handles: Sequence[OwnedFd]) -> None:
    """Close every handle."""
    for handle in handles:
        handle.close()


class Connection:
    """Frames over a connected Unix socket, which it owns; never blocks.

    Attributes:
        sock: The socket.
        crowded: Whether what waits to be sent waits for other descriptors in flight to arrive
            (ETOOMANYREFS), which no poll() tells of, rather than for room in the peer's queue.
    """

    def __init__(self, sock: _socket.socket) -> None:
        """Take ownership of `sock`."""
        sock.setblocking(False)
        self.sock = sock
        self._framer: Framer[OwnedFd] | None = (
            Framer() if sock.type == _socket.SOCK_STREAM else None
        )
        self._out: collections.deque[tuple[bytes, list[OwnedFd]]] = collections.deque()
        self.crowded = False

    def fileno(self) -> int:
        """Return the socket's number."""
        return self.sock.fileno()

    @property
    def pending(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._out)

    def send(self, message: Message, handles: Sequence[OwnedFd] = ()) -> None:
        """Send a message, or queue it.

        Raises:
            OSError: The kernel will not take it: ENOBUFS for its size, EPIPE without a peer; or
                EMSGSIZE, the peer reads so little that too much is queued.
            FdStateError: A handle was closed.
        """
        payload = encode(message, len(handles))
        numbers = [handle.fileno() for handle in handles]
        if not self._out:
            try:
                sent = send_some(self.sock, payload, numbers)
            except OSError as error:
                if not self._may_pass(error):
                    raise
                sent = 0
            if sent == len(payload):
                return
            payload, numbers = payload[sent:], [] if sent else numbers
        if len(self._out) >= _QUEUE_MAX:
            raise OSError(errno.EMSGSIZE, "the peer does not read what it is sent")
        copies: list[OwnedFd] = []
        try:
            copies.extend(OwnedFd(os.dup(number)) for number in numbers)
        except BaseException:
            close_all(copies)
            raise
        self._out.append((payload, copies))

    def flush(self) -> None:
        """Send what is queued, as far as the kernel takes it.

        Raises:
            OSError: As for `send`.
        """
        while self._out:
            payload, copies = self._out[0]
            try:
                sent = send_some(self.sock, payload, [copy.fileno() for copy in copies])
            except OSError as error:
                if not self._may_pass(error):
                    raise
                return
            self.crowded = False
            close_all(copies)
            self._out.popleft()
            if sent < len(payload):
                self._out.appendleft((payload[sent:], []))

    def receive(self) -> tuple[Message, tuple[OwnedFd, ...]] | None:
        """Return the next message and its handles, which are the caller's; None if there is none.

        Raises:
            EOFError: The connection has ended.
            RemoteProtocolError: What came is no message.
            TruncatedError: Descriptors were lost on the way.
        """
        while True:
            if self._framer and (found := self._framer.next()):
                return found
            try:
                got = receive_message(self.sock, BYTES_MAX)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                continue  # what the peer had sent before comes now, and then the end
            handles = tuple([NamedSocket("", fd) for fd in got.fds])
            if not got.data:
                raise EOFError
            if self._framer:
                self._framer.feed(got.data, handles)
                continue
            try:
                return decode(got.data, len(handles)), handles
            except RemoteProtocolError:
                close_all(handles)
                raise

    def _may_pass(self, error: OSError) -> bool:
        """Whether the kernel may take the message later."""
        self.crowded = error.errno == errno.ETOOMANYREFS
        return self.crowded or error.errno == errno.EAGAIN

    def close_queue(self) -> None:
        """Give up what waits to be sent."""
        for _, copies in self._out:
            close_all(copies)
        self._out.clear()

    def close(self) -> None:
        """Close the socket, and everything that waits in queues; a second time does nothing."""
        self.close_queue()
        if self._framer:
            close_all(self._framer.abandon())
        self.sock.close()


class Talk:
    """An end of the protocol at work: reads, acts, and keeps its times.

    Attributes:
        side: The end.
        closed: Whether the connection is closed.
    """

    def __init__(
        self,
        reactor: Reactor,
        connection: Connection,
        side: OwnerSide[OwnedFd] | ClientSide[OwnedFd],
        act: Callable[[Action], None],
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """Take ownership of `connection`, and begin to listen to it.

        Args:
            reactor: What drives it.
            connection: The connection.
            side: The end of the protocol that this process is.
            act: Gets every action but those about messages.
            on_close: Called once, when the connection is closed.
        """
        self.side = side
        self.closed = False
        self._reactor = reactor
        self._connection = connection
        self._act = act
        self._on_close = on_close
        self._pidfd: OwnedFd | None = None
        self._ending = False
        self._lost_at: float | None = None
        self._retry_at: float | None = None
        self._linger_until: float | None = None
        self._posted = False
        reactor.watch(connection.fileno(), READ, self._readable)
        reactor.add(self)

    @property
    def socket(self) -> _socket.socket:
        """The connection's socket."""
        return self._connection.sock

    @property
    def in_doubt(self) -> bool:
        """Whether the connection has ended, and it is not known yet whether the peer is dead."""
        return self._lost_at is not None and not self.closed

    @property
    def process(self) -> OwnedFd | None:
        """The pidfd of the peer, if there is one; owned here."""
        return self._pidfd

    def watch_process(self, pidfd: OwnedFd) -> None:
        """Take a pidfd of the peer, which tells whether it is dead."""
        self._pidfd = pidfd
        self._reactor.watch(pidfd.fileno(), READ, self._died)

    def perform(self, actions: Sequence[Action]) -> None:
        """Carry out actions in their order."""
        for action in actions:
            match action:
                case Send():
                    self._send(action)
                case CloseHandles():
                    close_all(action.handles)
                case Close():
                    self._ending = True
                case _:
                    self._act(action)
        self._settle()

    def _send(self, action: Send[OwnedFd]) -> None:
        if self.closed:
            return
        try:
            self._connection.send(action.message, action.handles)
        except OSError as error:
            if error.errno == errno.ENOBUFS and (smaller := self.side.smaller_chunk()):
                self.perform(smaller)
            elif error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                self._fail(f"cannot send: {error.strerror}")
        except RuntimeError as error:  # FdStateError: dropped while it was being given
            self._fail(str(error))

    def _fail(self, text: str) -> None:
        # Not at once: an action may be under way, and the rest of it comes first.
        self._reactor.post(lambda: self.perform(self.side.cancel(text, time.monotonic())))

    def _settle(self) -> None:
        """Close what is finished, or wait for what remains to be sent."""
        if self.closed:
            return
        pending = self._connection.pending
        if self._ending and not pending:
            self.close()
            return
        now = time.monotonic()
        if self._ending and self._linger_until is None:
            self._linger_until = now + LINGER_SECONDS
        crowded = pending and self._connection.crowded
        if crowded and self._retry_at is None:
            self._retry_at = now + RETRY_SECONDS
        if self._lost_at is None:
            # What still comes at the end has no meaning; were it read, it could come for ever.
            events = (0 if self._ending else READ) | (WRITE if pending and not crowded else 0)
            if events:
                self._reactor.watch(self._connection.fileno(), events, self._readable)
            else:
                self._reactor.unwatch(self._connection.fileno())

    def _guarded(self, do: Callable[[], None]) -> None:
        """Whatever goes wrong with one conversation ends that one, and no other."""
        try:
            do()
        except Exception:
            import logging  # noqa: PLC0415 - nothing is to be logged as a rule

            logging.getLogger("sockact").exception("a conversation at a rendezvous failed")
            if not self.closed:
                try:
                    self._lose(time.monotonic(), dead=False)
                finally:
                    self.close()

    def _readable(self) -> None:
        self._guarded(self._wake)

    def _wake(self) -> None:
        if self._connection.pending:
            self._flush()
        if self._read(_READS) and not self._posted:
            # More may wait in the framer, of which no poll() tells.
            self._posted = True
            self._reactor.post(self._go_on)

    def _go_on(self) -> None:
        self._posted = False
        self._readable()

    def catch_up(self) -> None:
        """Read what has come already."""
        self._guarded(self._catch_up)

    def _catch_up(self) -> None:
        self._read(_READS_BEFORE_JUDGING)

    def _read(self, most: int) -> bool:
        """Read at most so many messages; return whether there may be more."""
        for _ in range(most):
            if self.closed or self._ending or self._lost_at is not None:
                return False
            now = time.monotonic()
            try:
                got = self._connection.receive()
            except EOFError:
                self._ended(now)
                return False
            except (RemoteProtocolError, TruncatedError, OSError) as error:
                self.perform(self.side.broken(str(error), now))
                return False
            if got is None:
                return False
            self.perform(self.side.receive(*got, now))
        return True

    def _flush(self) -> None:
        self._retry_at = None
        try:
            self._connection.flush()
        except OSError:
            self._connection.close_queue()
        self._settle()

    def _ended(self, now: float) -> None:
        if self._pidfd is None or self._ending or is_dead(self._pidfd.fileno()):
            self._lose(now, dead=True)
            return
        # A dying process closes its descriptors before its pidfd says so.
        self._lost_at = now + DEATH_SECONDS
        self._reactor.unwatch(self._connection.fileno())

    def _died(self) -> None:
        self._guarded(self._bury)

    def _bury(self) -> None:
        """The peer is dead; what it had said comes first, and a child of it may keep the line."""
        assert self._pidfd
        self._reactor.unwatch(self._pidfd.fileno())
        if self._lost_at is None:
            self._catch_up()
        if not self.closed:
            self._lose(time.monotonic(), dead=True)

    def _lose(self, now: float, *, dead: bool) -> None:
        self._lost_at = None
        actions = self.side.lost(now, dead=dead)
        self.perform(actions)
        self.close()

    # For the reactor.

    def deadline(self) -> float | None:
        """Return when `expire` is due."""
        if self._lost_at is not None:
            return self._lost_at
        moments = (self.side.deadline(), self._retry_at, self._linger_until)
        return min((moment for moment in moments if moment is not None), default=None)

    def expire(self, now: float) -> None:
        """Do what is due; what has come is read before."""
        self._guarded(lambda: self._expire(now))

    def _expire(self, now: float) -> None:
        if self._lost_at is not None:
            if now >= self._lost_at:
                self._lose(now, dead=False)
            return
        if self._retry_at is not None and now >= self._retry_at:
            self._flush()
        if self._linger_until is not None and now >= self._linger_until:
            self.close()
        self._catch_up()
        if not self.closed and self._lost_at is None:
            self.perform(self.side.expire(now))

    def close_copies(self) -> None:
        """In a forked child: close what belongs to the parent, who goes on with it."""
        self.closed = True
        self._connection.close()
        if self._pidfd:
            self._pidfd.close()

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        if self.closed:
            return
        self.closed = True
        self._reactor.remove(self)
        self._reactor.unwatch(self._connection.fileno())
        self._connection.close()
        if self._pidfd:
            self._reactor.unwatch(self._pidfd.fileno())
            self._pidfd.close()
        self._on_close()
