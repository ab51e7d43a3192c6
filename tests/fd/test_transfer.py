"""sockact.fd.transfer: every descriptor arrives, or is closed, or is refused."""

import array
import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from sockact.errors import RendezvousError, SockactError, TruncatedError
from sockact.fd.transfer import FDS_MAX, Received, receive_message, send_message, send_some
from tests.helpers import ROOT, SECONDS

T = TypeVar("T")

_SO_PASSPIDFD = 76

TYPES = pytest.mark.parametrize(
    "kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET], ids=["stream", "seqpacket"]
)


@contextlib.contextmanager
def _pair(kind: int = socket.SOCK_SEQPACKET) -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.settimeout(SECONDS)
    theirs.settimeout(SECONDS)
    with ours, theirs:
        yield ours, theirs


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """Give both ends of a pipe; the caller may close the writing one."""
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
        with contextlib.suppress(OSError):
            os.close(writer)


def _close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def _child(code: str, sock: socket.socket) -> str:
    """Run Python code that finds a socket as `sock`; return what it printed."""
    before = "import os, resource, socket, sys\nsock = socket.socket(fileno=int(sys.argv[1]))\n"
    result = subprocess.run(
        [sys.executable, "-c", before + code, str(sock.fileno())],
        cwd=ROOT,
        pass_fds=[sock.fileno()],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@TYPES
@pytest.mark.parametrize("count", [0, 1, 3, FDS_MAX])
def test_all_descriptors_arrive_in_order(kind: int, count: int) -> None:
    """As many as one message takes arrive in their order, close-on-exec, open on the same."""
    with _pair(kind) as (ours, theirs), _pipe() as (reader, writer):
        sent = [reader if i % 3 else writer for i in range(count)]
        for fd in sent:
            os.set_inheritable(fd, True)
        assert send_some(theirs, b"hello", sent) == 5
        got = receive_message(ours, 100)
        try:
            assert got.data == b"hello"
            assert [os.fstat(fd) for fd in got.fds] == [os.fstat(fd) for fd in sent]
            flags = [os.get_inheritable(fd) for fd in got.fds]
            assert flags == [False] * count
        finally:
            _close(got.fds)


@pytest.mark.parametrize("send", [send_message, send_some])
def test_too_many_descriptors_are_not_sent(send: object) -> None:
    """More than the kernel takes are refused here, and nothing is sent."""
    with _pair() as (ours, theirs):
        with pytest.raises(OSError, match="254 descriptors") as caught:
            send(theirs, b"x", [0] * 254)  # type: ignore[operator]
        assert caught.value.errno == errno.E2BIG
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            receive_message(ours, 10)


def test_closed_descriptor_is_not_sent() -> None:
    """With a number in it that is not open nothing is sent."""
    with _pair() as (ours, theirs), _pipe() as (reader, writer):
        os.close(writer)
        with pytest.raises(OSError, match="Bad file descriptor"):
            send_some(theirs, b"x", [reader, writer])
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            receive_message(ours, 10)


def test_empty_payload_is_refused() -> None:
    """An empty message is not sent: on a stream its descriptors would vanish."""
    with _pair() as (_, theirs), pytest.raises(ValueError, match="at least one byte"):
        send_some(theirs, b"", [0])


@TYPES
def test_end_of_connection_is_no_bytes(kind: int) -> None:
    """What was sent before a close arrives, and then the end, again and again."""
    with _pair(kind) as (ours, theirs), _pipe() as (reader, _):
        send_some(theirs, b"last", [reader])
        theirs.close()
        got = receive_message(ours, 100)
        assert got.data == b"last"
        assert len(got.fds) == 1
        _close(got.fds)
        assert receive_message(ours, 100) == Received(b"", ())
        assert receive_message(ours, 100) == Received(b"", ())


def test_empty_message_is_the_end_and_its_descriptors_are_closed() -> None:
    """Descriptors in an empty message are closed: nobody looks for any at the end."""
    with _pair() as (ours, theirs), _pipe() as (reader, writer):
        theirs.sendmsg([b""], [_rights([writer])])
        os.close(writer)
        assert receive_message(ours, 100) == Received(b"", ())
        assert os.read(reader, 1) == b""


def _rights(fds: list[int]) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes()


def test_several_control_messages_are_one() -> None:
    """Descriptors that were sent as two arrays arrive as one."""
    with _pair() as (ours, theirs), _pipe() as (reader, writer):
        theirs.sendmsg([b"x"], [_rights([reader]), _rights([writer, reader])])
        got = receive_message(ours, 100)
        assert len(got.fds) == 3
        _close(got.fds)


def test_message_longer_than_room_is_an_error() -> None:
    """A message that is cut off is an error, and its descriptors are closed; the next is whole."""
    with _pair() as (ours, theirs), _pipe() as (reader, writer):
        send_some(theirs, b"12345", [writer])
        send_some(theirs, b"1234")
        os.close(writer)
        with pytest.raises(TruncatedError, match="longer than 4 bytes"):
            receive_message(ours, 4)
        assert os.read(reader, 1) == b""
        assert receive_message(ours, 4) == Received(b"1234")


def test_truncated_error_is_an_os_error() -> None:
    """The exception is sockact's, the rendezvous's and an OSError, and says its message plainly."""
    error = TruncatedError("it is cut off", errno.EMSGSIZE)
    assert isinstance(error, SockactError | RendezvousError)
    assert isinstance(error, OSError)
    assert (str(error), error.errno) == ("it is cut off", errno.EMSGSIZE)
    assert RendezvousError("no").errno == 0


def test_stream_hands_descriptors_over_with_the_first_bytes() -> None:
    """On a stream a short read has all descriptors, and the rest of the bytes comes without."""
    with _pair(socket.SOCK_STREAM) as (ours, theirs), _pipe() as (reader, writer):
        send_some(theirs, b"12345678", [reader, writer])
        got = receive_message(ours, 3)
        assert (got.data, len(got.fds)) == (b"123", 2)
        _close(got.fds)
        assert receive_message(ours, 100) == Received(b"45678")


def test_stream_stops_behind_a_message_with_descriptors() -> None:
    """On a stream the descriptors of two messages never come in one read."""
    with _pair(socket.SOCK_STREAM) as (ours, theirs), _pipe() as (reader, writer):
        send_some(theirs, b"aa", [reader])
        send_some(theirs, b"bb", [writer])
        for data in (b"aa", b"bb"):
            got = receive_message(ours, 100)
            assert (got.data, len(got.fds)) == (data, 1)
            _close(got.fds)


def test_partly_sent_payload_takes_its_descriptors_along() -> None:
    """A stream may take the beginning only; the descriptors went with it, and arrive once."""
    payload = bytes(4_000_000)
    with _pair(socket.SOCK_STREAM) as (ours, theirs), _pipe() as (reader, _):
        theirs.setblocking(False)
        sent = send_some(theirs, payload, [reader])
        assert 0 < sent < len(payload)
        with pytest.raises(BlockingIOError):
            send_some(theirs, payload[sent:])
        fds: tuple[int, ...] = ()
        count = 0
        while count < sent:
            got = receive_message(ours, 65536)
            count += len(got.data)
            fds += got.fds
        assert (count, len(fds)) == (sent, 1)
        _close(fds)


def _until_it_blocks(act: Callable[[], T]) -> Iterator[T]:
    while True:
        try:
            yield act()
        except BlockingIOError:
            return


@TYPES
def test_full_queue_does_not_block(kind: int) -> None:
    """A full queue is a BlockingIOError, and the message that met it has not been sent."""
    with _pair(kind) as (ours, theirs):
        ours.setblocking(False)
        theirs.setblocking(False)
        sent = sum(_until_it_blocks(lambda: send_some(theirs, bytes(1000), [0])))
        assert sent
        got = list(_until_it_blocks(lambda: receive_message(ours, 1000)))
        _close(tuple(fd for message in got for fd in message.fds))
        assert sum(len(message.data) for message in got) == sent


@TYPES
def test_unread_descriptors_die_with_the_queue(kind: int) -> None:
    """What nobody reads is closed when the receiver closes."""
    with _pair(kind) as (ours, theirs), _pipe() as (reader, writer):
        send_some(theirs, b"x", [writer])
        os.close(writer)
        ours.close()
        assert os.read(reader, 1) == b""


def test_reset_comes_before_what_was_sent_last() -> None:
    """A reset passes through, and the last message, its descriptors and the end come behind it."""
    with _pair() as (ours, theirs), _pipe() as (reader, _):
        send_some(ours, b"never read")
        send_some(theirs, b"last", [reader])
        theirs.close()
        with pytest.raises(ConnectionResetError):
            receive_message(ours, 100)
        got = receive_message(ours, 100)
        assert (got.data, len(got.fds)) == (b"last", 1)
        _close(got.fds)
        assert receive_message(ours, 100) == Received(b"")


@TYPES
def test_sending_to_a_closed_peer_raises_no_signal(kind: int) -> None:
    """It is EPIPE also where SIGPIPE would end the process."""
    with _pair(kind) as (ours, theirs):
        ours.close()
        said = _child(
            "import signal\n"
            "from sockact.fd.transfer import send_some\n"
            "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
            "try: send_some(sock, b'x', [0])\n"
            "except BrokenPipeError: print('EPIPE')\n",
            theirs,
        )
    assert said == "EPIPE"


@TYPES
@pytest.mark.parametrize(("room", "came"), [(0, 0), (1, 1), (3, 3), (9, 9)])
def test_receiver_at_its_limit_keeps_nothing(kind: int, room: int, came: int) -> None:
    """Where not all descriptors fit below RLIMIT_NOFILE it is an error, and those that did are closed.

    The next message is whole again.
    """
    code = f"""
from sockact.errors import TruncatedError
from sockact.fd.transfer import receive_message
def count():
    return len(os.listdir("/proc/self/fd"))
os.dup2(sock.detach(), 200)
sock = socket.socket(fileno=200)
os.closerange(3, 200)
lowest = os.dup(0)
os.close(lowest)
before = count()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + {room}, hard))
try:
    print(receive_message(sock, 100))
except TruncatedError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
assert count() == before, (count(), before)
got = receive_message(sock, 100)
print(got.data, len(got.fds))
"""
    with _pair(kind) as (ours, theirs), _pipe() as (reader, writer):
        send_some(theirs, b"hello", [writer] * 10)
        send_some(theirs, b"again", [reader] * 10)
        os.close(writer)
        first, second = _child(code, ours).splitlines()
        assert f"{came} came" in first
        assert "RLIMIT_NOFILE" in first
        assert second == "b'again' 10"
        assert os.read(reader, 1) == b""


def test_credentials_are_left_aside() -> None:
    """Credentials that the socket was told to bring take no room from the descriptors."""
    with _pair() as (ours, theirs):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        send_some(theirs, b"x", [0] * FDS_MAX)
        got = receive_message(ours, 100)
        _close(got.fds)
        assert len(got.fds) == FDS_MAX


@pytest.mark.parametrize("count", [0, 2, FDS_MAX])
def test_unexpected_pidfd_is_closed(count: int) -> None:
    """A pidfd that comes with a message is closed, with all else in it, and is an error."""
    with _pair() as (ours, theirs):
        try:
            ours.setsockopt(socket.SOL_SOCKET, _SO_PASSPIDFD, 1)
        except OSError as error:
            pytest.skip(f"SO_PASSPIDFD: {error}")
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        send_some(theirs, b"x", [0] * count)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(TruncatedError, match="not asked for"):
            receive_message(ours, 100)
        assert len(os.listdir("/proc/self/fd")) == before


def test_pidfd_that_could_not_be_made_is_no_descriptor() -> None:
    """Where a pidfd has no room left, its place holds an error number, which is not closed."""
    code = """
from sockact.errors import TruncatedError
from sockact.fd.transfer import receive_message
lowest = os.dup(0)
os.close(lowest)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
try:
    print(receive_message(sock, 100))
except TruncatedError as error:
    print("truncated")
"""
    with _pair() as (ours, theirs):
        try:
            ours.setsockopt(socket.SOL_SOCKET, _SO_PASSPIDFD, 1)
        except OSError as error:
            pytest.skip(f"SO_PASSPIDFD: {error}")
        send_some(theirs, b"x")
        assert _child(code, ours) == "truncated"


def test_user_with_too_many_in_flight_is_told() -> None:
    """An ordinary user is held to a number of descriptors that nobody has read (unix(7))."""
    if os.getuid():
        pytest.skip("needs root, to be a user without descriptors in flight")
    code = """
from sockact.fd.transfer import send_some
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
os.setresuid(12345, 12345, 12345)
import errno
sent = 0
try:
    while True:
        sent += send_some(sock, b"x", [0] * 10)
except OSError as error:
    print(sent, errno.errorcode[error.errno])
"""
    with _pair() as (_, theirs):
        sent, name = _child(code, theirs).split()
    assert name == "ETOOMANYREFS"
    assert 0 < int(sent) <= 10
