"""sockact.daemon: the names and behaviour of python-systemd's module."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sockact import daemon
from tests.helpers import clean_environ


def test_names() -> None:
    """Every name of systemd.daemon is there."""
    assert set(daemon.__all__) == {
        "LISTEN_FDS_START", "booted", "is_fifo", "is_mq", "is_socket", "is_socket_inet",
        "is_socket_sockaddr", "is_socket_unix", "listen_fds", "listen_fds_with_names", "notify",
    }  # fmt: skip
    assert daemon.LISTEN_FDS_START == 3


def test_listen_fds() -> None:
    """Numbers and names arrive, in the forms of python-systemd, and the caller owns them."""
    code = (
        "from sockact import daemon as d;"
        " print(d.listen_fds(False), d.listen_fds_with_names(), d.listen_fds())"
    )
    shown = subprocess.check_output(
        [sys.executable, "-m", "sockact", "exec", "-l", "a=tcp:127.0.0.1:0", "-l", "b=udp:0", "--",
         sys.executable, "-c", code],
        env=clean_environ(), stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert shown == "[3, 4] {3: 'a', 4: 'b'} []\n"


def test_listen_fds_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Malformed variables are EINVAL, missing descriptors EBADF."""
    for count, number in (("0", "Invalid argument"), ("500", "Bad file descriptor")):
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", count)
        with pytest.raises(OSError, match=number):
            daemon.listen_fds()
        assert "LISTEN_FDS" not in os.environ
    monkeypatch.undo()


def test_probes_take_files_and_numbers(short_dir: Path) -> None:
    """A socket object is as good as its number."""
    path = str(short_dir / "s")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        for fileobj in (sock, sock.fileno()):
            assert daemon.is_socket(fileobj, socket.AF_UNIX, socket.SOCK_STREAM, 1)
            assert not daemon.is_socket(fileobj, listening=0)
            assert daemon.is_socket_unix(fileobj, path=path)
            assert not daemon.is_socket_inet(fileobj)
            assert not daemon.is_fifo(fileobj)
            assert not daemon.is_mq(fileobj)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:{port}", True),
        ("127.0.0.1:1", False),
        ("127.0.0.2", False),
        ("[::1]:{port}", False),
        ("[::1]", False),
    ],
)
def test_is_socket_sockaddr(address: str, expected: bool) -> None:
    """The address is compared, and the port if it is given."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        text = address.format(port=sock.getsockname()[1])
        assert daemon.is_socket_sockaddr(sock, text) == expected


@pytest.mark.parametrize(
    "address", ["localhost", "127.0.0.1:x", "127.0.0.1:70000", "[::1", "[::1]x"]
)
def test_is_socket_sockaddr_errors(address: str) -> None:
    """What is no numeric address is a ValueError."""
    with (
        socket.create_server(("127.0.0.1", 0)) as sock,
        pytest.raises(ValueError, match=r"127|::|loc"),
    ):
        daemon.is_socket_sockaddr(sock, address)


def test_notify(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message arrives; NOTIFY_SOCKET goes if that is asked for; nobody to tell is False."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short_dir / "n"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(short_dir / "n"))
        assert daemon.notify("READY=1", pid=os.getpid())
        assert manager.recv(100) == b"READY=1"
        assert daemon.notify("STOPPING=1", unset_environment=True)
        assert manager.recv(100) == b"STOPPING=1"
    assert not daemon.notify("READY=1")
    monkeypatch.undo()


def test_booted() -> None:
    """It tells whether systemd's runtime directory is there."""
    assert daemon.booted() == Path("/run/systemd/system").is_dir()
