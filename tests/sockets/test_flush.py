"""sockact.sockets.flush."""

import ctypes
import os
import select
import signal
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockact.fd import mqueue
from sockact.sockets.flush import flush
from tests.helpers import SECONDS

BLOCKING = pytest.mark.parametrize("blocking", [True, False])


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Put SIGALRM back as it was."""
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.signal(signal.SIGALRM, before)


def _is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


@BLOCKING
@pytest.mark.parametrize(
    ("family", "kind"),
    [
        (socket.AF_INET, socket.SOCK_STREAM),
        (socket.AF_UNIX, socket.SOCK_STREAM),
        (socket.AF_UNIX, socket.SOCK_SEQPACKET),
    ],
)
def test_connections(family: int, kind: int, blocking: bool) -> None:
    """Connections are accepted and closed; those that come later wait as before."""
    with socket.socket(family, kind) as listener:
        listener.bind(
            ("127.0.0.1", 0) if family == socket.AF_INET else f"\0sockact-flush-{uuid.uuid4()}"
        )
        listener.listen(10)
        listener.setblocking(blocking)
        assert flush(listener.fileno()) == 0
        clients = [socket.socket(family, kind) for _ in range(5)]
        try:
            for client in clients:
                client.settimeout(SECONDS)
                client.connect(listener.getsockname())
                client.send(b"x")
            assert select.select([listener], [], [], SECONDS)[0]
            flushed = flush(listener.fileno())
            while flushed < 5:  # the last ones may have arrived a moment later
                assert select.select([listener], [], [], SECONDS)[0]
                flushed += flush(listener.fileno())
            assert flushed == 5
            assert not _is_readable(listener.fileno())
            assert os.get_blocking(listener.fileno()) == blocking
            for client in clients:
                with pytest.raises(ConnectionResetError):
                    assert client.recv(1) == b"x"
            clients.append(socket.socket(family, kind))
            clients[-1].connect(listener.getsockname())
            assert select.select([listener], [], [], SECONDS)[0]
        finally:
            for client in clients:
                client.close()


def test_too_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more connections are taken than systemd would take."""
    monkeypatch.setattr("sockact.sockets.flush._CONNECTIONS", 2)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0sockact-flush-{uuid.uuid4()}")
        listener.listen(10)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client in clients:
            client.connect(listener.getsockname())
        assert [flush(listener.fileno()) for _ in range(3)] == [2, 1, 0]
        for client in clients:
            client.close()


@BLOCKING
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_datagrams(family: int, blocking: bool) -> None:
    """Datagrams are read, empty ones and long ones too."""
    with socket.socket(family, socket.SOCK_DGRAM) as receiver:
        receiver.bind(
            ("127.0.0.1", 0) if family == socket.AF_INET else f"\0sockact-flush-{uuid.uuid4()}"
        )
        receiver.setblocking(blocking)
        assert flush(receiver.fileno()) == 0
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            for data in (b"a", b"", b"x" * 30000, b"b"):
                sender.sendto(data, receiver.getsockname())
        assert _is_readable(receiver.fileno())
        assert flush(receiver.fileno()) == 4
        assert not _is_readable(receiver.fileno())
        assert os.get_blocking(receiver.fileno()) == blocking


def test_descriptors_in_datagrams() -> None:
    """Descriptors that were sent along are closed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0sockact-flush-{uuid.uuid4()}")
        reader, writer = os.pipe()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(receiver.getsockname())
            socket.send_fds(sender, [b"x"], [writer])
        os.close(writer)
        assert flush(receiver.fileno()) == 1
        assert os.read(reader, 1) == b""
        os.close(reader)


def test_socket_that_was_shut_down() -> None:
    """What is at its end for ever is not read for ever."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0sockact-flush-{uuid.uuid4()}")
        receiver.shutdown(socket.SHUT_RD)
        assert flush(receiver.fileno()) == 0
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0sockact-flush-{uuid.uuid4()}")
        listener.listen()
        listener.shutdown(socket.SHUT_RDWR)
        flush(listener.fileno())


def test_errors() -> None:
    """An error that waits is taken, too."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            sock.connect(other.getsockname())
        sock.send(b"to nobody")
        assert _is_readable(sock.fileno())
        assert flush(sock.fileno()) == 0
        assert not _is_readable(sock.fileno())


@BLOCKING
def test_fifo(short_dir: Path, blocking: bool) -> None:
    """A FIFO is read until it is empty."""
    path = short_dir / "fifo"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.set_blocking(fd, blocking)
        assert flush(fd) == 0
        os.write(fd, b"x" * 5000)
        assert flush(fd) == 2
        assert not _is_readable(fd)
        assert os.get_blocking(fd) == blocking
    finally:
        os.close(fd)


@BLOCKING
def test_message_queue(blocking: bool) -> None:
    """The messages of a queue are taken."""
    name = f"/sockact-flush-{uuid.uuid4()}"
    try:
        fd, _ = mqueue.open_queue(name, 0o600, 5, 100)
    except OSError as error:
        pytest.skip(str(error))
    try:
        os.set_blocking(fd, blocking)
        assert flush(fd) == 0
        libc = ctypes.CDLL(None)
        writer = libc.mq_open(name.encode(), os.O_WRONLY)
        for text in (b"a", b"x" * 100, b"b"):
            assert libc.mq_send(writer, text, len(text), 0) == 0
        os.close(writer)
        assert _is_readable(fd)
        assert flush(fd) == 3
        assert not _is_readable(fd)
        assert os.get_blocking(fd) == blocking
    finally:
        os.close(fd)
        mqueue.unlink_queue(name)


def test_netlink() -> None:
    """Netlink messages are read."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.bind((0, 0))
        netlink.send(b"\x11\0\0\0" + b"\x12\0\x01\x03" + b"\0" * 9)  # RTM_GETLINK of all
        assert _is_readable(netlink.fileno())
        assert flush(netlink.fileno()) > 0
        assert not _is_readable(netlink.fileno())


def test_endless_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is never empty is not read for ever; a file is not read at all."""
    monkeypatch.setattr("sockact.sockets.flush._READS", 10)
    with open("/dev/zero", "rb", buffering=0) as zero:
        assert flush(zero.fileno()) == 10
    with open(__file__, "rb", buffering=0) as file:
        assert flush(file.fileno()) == 0
        assert file.tell() == 0


def test_what_is_not_open() -> None:
    """What is not open has nothing to throw away."""
    fd = os.dup(0)
    os.close(fd)
    assert flush(fd) == 0
