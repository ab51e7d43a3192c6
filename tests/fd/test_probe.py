"""sockact.fd.probe."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockact.fd import probe
from sockact.fd.mqueue import open_queue, unlink_queue


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Give a listening IPv4 socket."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def queue() -> Iterator[tuple[int, str]]:
    """Give a message queue, where the system has them."""
    name = f"/sockact-test-{os.getpid()}"
    try:
        fd, _made = open_queue(name, 0o600, 0, 0)
    except OSError as error:
        pytest.skip(f"no message queues here: {error}")
    yield fd, name
    os.close(fd)
    unlink_queue(name)


def test_describe_tcp(listener: socket.socket) -> None:
    """A listening TCP socket shows family, address, port and that it listens."""
    port = listener.getsockname()[1]
    assert probe.describe(listener.fileno()) == probe.Description(
        "Stream", "AF_INET", f"127.0.0.1:{port}", port, listening=True
    )


def test_describe_ipv6() -> None:
    """An IPv6 address stands in brackets."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        port = sock.getsockname()[1]
        assert probe.describe(sock.fileno()).address == f"[::1]:{port}"


@pytest.mark.parametrize(
    ("name", "shown"), [("path", "path"), ("\0abstract-sockact", "@abstract-sockact")]
)
def test_describe_unix(short_dir: Path, name: str, shown: str) -> None:
    """A Unix socket shows its path, or its abstract name with an @."""
    address = name if name.startswith("\0") else str(short_dir / name)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(address)
        found = probe.describe(sock.fileno())
    assert found.family == "AF_UNIX"
    assert found.address == (shown if name.startswith("\0") else str(short_dir / shown))
    assert not found.listening


def test_describe_others(short_dir: Path) -> None:
    """FIFOs, files and devices are told apart."""
    os.mkfifo(short_dir / "fifo")
    (short_dir / "file").write_text("x", encoding="ascii")
    for path, kind in (
        (short_dir / "fifo", "FIFO"),
        (short_dir / "file", "File"),
        (Path("/dev/null"), "Device"),
        (short_dir, "Other"),
    ):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        assert probe.describe(fd).kind == kind
        os.close(fd)


def test_message_queue(queue: tuple[int, str]) -> None:
    """A message queue is recognized, also by its name, and other files are not."""
    fd, name = queue
    assert probe.is_mq(fd)
    assert probe.is_mq(fd, name)
    assert probe.describe(fd).kind == "MessageQueue"
    with open(__file__, "rb") as file:
        assert not probe.is_mq(file.fileno())
    with pytest.raises(ValueError, match="not the name"):
        probe.is_mq(fd, "relative")


def test_is_fifo(short_dir: Path) -> None:
    """A FIFO is recognized with and without its path, and another path is a no."""
    path = short_dir / "fifo"
    os.mkfifo(path)
    os.mkfifo(short_dir / "other")
    fd = os.open(path, os.O_RDWR)
    assert probe.is_fifo(fd)
    assert probe.is_fifo(fd, str(path))
    assert not probe.is_fifo(fd, str(short_dir / "other"))
    assert not probe.is_fifo(fd, str(short_dir / "missing"))
    assert not probe.is_fifo(fd, "/dev/null")
    os.close(fd)


def test_is_special() -> None:
    """A device is recognized by number, a file by inode, and a directory is neither."""
    null, here = os.open("/dev/null", os.O_RDONLY), os.open("/", os.O_RDONLY)
    assert probe.is_special(null, "/dev/null")
    assert not probe.is_special(null, "/dev/zero")
    assert not probe.is_special(here)
    with open(__file__, "rb") as file:
        assert probe.is_special(file.fileno(), __file__)
        assert not probe.is_special(file.fileno(), "/dev/null")
    os.close(null)
    os.close(here)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, True),
        ({"family": socket.AF_INET}, True),
        ({"family": socket.AF_UNIX}, False),
        ({"type": socket.SOCK_STREAM}, True),
        ({"type": socket.SOCK_DGRAM}, False),
        ({"listening": True}, True),
        ({"listening": False}, False),
    ],
)
def test_is_socket(listener: socket.socket, arguments: dict[str, int], expected: bool) -> None:
    """Family, type and state are compared if they are given."""
    assert probe.is_socket(listener.fileno(), **arguments) == expected  # type: ignore[arg-type]
    assert not probe.is_socket(0, **arguments)  # type: ignore[arg-type]


def test_is_socket_inet(listener: socket.socket) -> None:
    """The port is compared if it is given; a family that is no IP family is an error."""
    port = listener.getsockname()[1]
    assert probe.is_socket_inet(listener.fileno(), port=port)
    assert not probe.is_socket_inet(listener.fileno(), port=1)
    with pytest.raises(ValueError, match="not an IP family"):
        probe.is_socket_inet(listener.fileno(), socket.AF_UNIX)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        assert not probe.is_socket_inet(sock.fileno())


def test_is_socket_unix(short_dir: Path) -> None:
    """A path, an abstract name and no name are told apart."""
    path = str(short_dir / "s")
    with socket.socket(socket.AF_UNIX) as sock:
        assert probe.is_socket_unix(sock.fileno(), path="")
        sock.bind(path)
        assert probe.is_socket_unix(sock.fileno(), socket.SOCK_STREAM, False, path)
        assert probe.is_socket_unix(sock.fileno(), path=os.fsencode(path))
        assert not probe.is_socket_unix(sock.fileno(), path=path + "x")
        assert not probe.is_socket_unix(sock.fileno(), path="")


def test_probing_changes_nothing() -> None:
    """Neither O_NONBLOCK nor FD_CLOEXEC changes, not even under a process-wide default timeout."""
    left, right = socket.socketpair()
    with left, right:
        os.set_blocking(right.fileno(), False)
        socket.setdefaulttimeout(3)
        try:
            for sock in (left, right):
                probe.describe(sock.fileno())
                probe.is_socket(sock.fileno())
        finally:
            socket.setdefaulttimeout(None)
        assert os.get_blocking(left.fileno())
        assert not os.get_blocking(right.fileno())
        assert not os.get_inheritable(left.fileno())


def test_closed_descriptor_is_an_os_error() -> None:
    """Asking about a number that is not open says so."""
    fd = os.open("/", os.O_RDONLY)
    os.close(fd)
    for question in (probe.describe, probe.is_fifo, probe.is_special, probe.is_socket, probe.is_mq):
        with pytest.raises(OSError, match="Bad file descriptor"):
            question(fd)
