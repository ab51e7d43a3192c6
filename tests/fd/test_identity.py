"""sockact.fd.identity."""

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sockact.fd.identity import identity, namespace_cookie, same_description, socket_cookie
from tests.helpers import ROOT, SECONDS

ALL = (identity, socket_cookie, namespace_cookie)
KINDS = [
    (socket.AF_INET, socket.SOCK_STREAM, 0),
    (socket.AF_INET6, socket.SOCK_STREAM, 0),
    (socket.AF_INET, socket.SOCK_STREAM, 262),  # IPPROTO_MPTCP
    (socket.AF_INET, socket.SOCK_DGRAM, 0),
    (socket.AF_UNIX, socket.SOCK_STREAM, 0),
    (socket.AF_UNIX, socket.SOCK_DGRAM, 0),
    (socket.AF_UNIX, socket.SOCK_SEQPACKET, 0),
    (getattr(socket, "AF_NETLINK", 16), socket.SOCK_RAW, 0),
    (getattr(socket, "AF_VSOCK", 40), socket.SOCK_STREAM, 0),
]
# Takes a socket from the Unix socket that it inherited, and says what it is.
RECEIVER = """
import socket, sys
from sockact.fd.identity import *
with socket.socket(fileno=int(sys.argv[1])) as channel:
    _, (fd,), _, _ = socket.recv_fds(channel, 1, 1)
print(*identity(fd), socket_cookie(fd), namespace_cookie(fd))
"""


def _open(family: int, kind: int, protocol: int) -> socket.socket:
    try:
        return socket.socket(family, kind, protocol)
    except OSError as error:
        pytest.skip(f"no such socket here: {error}")


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(str(int(part)) for part in kind))
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give two sockets of one kind."""
    with _open(*request.param) as one, _open(*request.param) as other:
        yield one, other


def _needs(number: int | None) -> int:
    """Return the cookie; skip where the kernel has none."""
    if number is None:
        pytest.skip("no such cookie here")
    return number


@pytest.mark.parametrize("ask", ALL)
def test_duplicates_agree(
    pair: tuple[socket.socket, socket.socket], ask: Callable[[int], object]
) -> None:
    """A duplicate of a socket answers as the socket does."""
    with pair[0].dup() as copy:
        assert ask(copy.fileno()) == ask(pair[0].fileno())


def test_two_sockets_differ(pair: tuple[socket.socket, socket.socket]) -> None:
    """Two sockets have two identities and two cookies, in one namespace."""
    one, other = (sock.fileno() for sock in pair)
    assert identity(one) != identity(other)
    assert namespace_cookie(one) == namespace_cookie(other)
    assert _needs(socket_cookie(one)) != _needs(socket_cookie(other))


def test_passed_copy_agrees(pair: tuple[socket.socket, socket.socket]) -> None:
    """A copy that another process received answers there as the socket does here."""
    fd = pair[0].fileno()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [fd])
        told = _python(RECEIVER, theirs.fileno())
    assert told == [*map(str, identity(fd)), str(socket_cookie(fd)), str(namespace_cookie(fd))]


def test_cookie_is_never_reused() -> None:
    """Sockets that are opened one after the other, with one fd number, have different cookies."""
    seen = set()
    for _ in range(50):
        with socket.socket() as sock:
            seen.add(_needs(socket_cookie(sock.fileno())))
    assert len(seen) == 50


def test_other_namespace_differs() -> None:
    """A socket that is made in another network namespace has another namespace cookie."""
    code = (
        "import socket, sys\n"
        "from sockact.fd.identity import *\n"
        "with socket.socket() as fresh:\n"
        "    print(namespace_cookie(int(sys.argv[1])), namespace_cookie(fresh.fileno()))"
    )
    with socket.socket() as sock:
        mine = str(_needs(namespace_cookie(sock.fileno())))
        inherited, fresh = _python(code, sock.fileno(), *_unshare())
    assert inherited == mine != fresh


def test_what_is_no_socket_has_no_cookie(short_dir: Path) -> None:
    """A pipe, a file and an O_PATH descriptor of a socket's node have an identity, no cookie."""
    node = str(short_dir / "node")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(node)
    fds = [*os.pipe(), os.open("/", os.O_RDONLY), os.open(node, os.O_PATH)]
    try:
        for fd in fds:
            status = os.fstat(fd)
            assert identity(fd) == (status.st_dev, status.st_ino)
            assert socket_cookie(fd) is namespace_cookie(fd) is None
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize("ask", ALL)
def test_closed(ask: Callable[[int], object]) -> None:
    """A descriptor that is not open is EBADF, for every question."""
    with socket.socket() as sock:
        fd = sock.fileno()
    for bad in (fd, -1):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - errno is checked
            ask(bad)
        assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("timeout", [None, 0.0, 5.0])
def test_asking_changes_nothing(timeout: float | None) -> None:
    """The socket stays open, and blocks as before."""
    with socket.socket() as sock:
        sock.settimeout(timeout)
        blocking = os.get_blocking(sock.fileno())
        for ask in ALL:
            ask(sock.fileno())
        assert os.get_blocking(sock.fileno()) == blocking
        assert not os.get_inheritable(sock.fileno())


def _unshare() -> list[str]:
    """Return the command that runs another one in a network namespace of its own."""
    command = [shutil.which("unshare") or pytest.skip("unshare is not installed"), "-n"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a network namespace")
    return command


def _python(code: str, fd: int, *prefix: str) -> list[str]:
    """Run code with one inherited descriptor, and return the words it printed."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code, str(fd)],
        pass_fds=[fd],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    return done.stdout.split()


def test_a_description_is_the_same_only_for_duplicates(tmp_path: Path) -> None:
    """Two descriptions of one FIFO, or the ends of a pipe, share an inode and nothing else."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fds = [os.open(fifo, os.O_RDWR), os.open(fifo, os.O_RDWR | os.O_NONBLOCK), *os.pipe()]
    try:
        with socket.socket() as one, socket.socket() as other:
            fds += [os.dup(one.fileno()), os.dup(fds[0])]
            assert same_description(one.fileno(), fds[4])
            assert same_description(fds[0], fds[5])
            assert not same_description(one.fileno(), other.fileno())
            assert not same_description(fds[0], fds[1])
            assert not same_description(fds[2], fds[3])
            assert not same_description(fds[0], fds[2])
    finally:
        for fd in fds:
            os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        same_description(fds[0], fds[0])
