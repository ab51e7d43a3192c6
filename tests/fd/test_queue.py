"""sockact.fd.queue."""

import contextlib
import errno
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockact.fd.queue import Queue, _rqlen, handshakes, queue
from tests.helpers import ROOT, SECONDS

MPTCP = 262
BACKLOG = 7


@contextlib.contextmanager
def _listening(
    family: int, kind: int, protocol: int, address: object
) -> Iterator[tuple[socket.socket, contextlib.ExitStack]]:
    """Give a listener, and a stack that its clients are closed with."""
    try:
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        pytest.skip(f"no such socket here: {error}")
    with sock, contextlib.ExitStack() as clients:
        try:
            sock.bind(address)  # type: ignore[arg-type]
        except OSError as error:
            pytest.skip(f"no such address here: {error}")
        sock.listen(BACKLOG)
        yield sock, clients


def _connect(listener: socket.socket, clients: contextlib.ExitStack) -> socket.socket:
    client = clients.enter_context(socket.socket(listener.family, listener.type))
    client.settimeout(SECONDS)
    client.connect(listener.getsockname())
    return client


def _wait_for(sock: socket.socket, now: int) -> Queue | None:
    """Wait until so much is queued: a connection may be a moment later than its connect()."""
    deadline = time.monotonic() + SECONDS
    while (found := queue(sock.fileno())) is None or found.now != now:
        if time.monotonic() > deadline:
            break
        time.sleep(0.001)
    return found


@pytest.mark.parametrize(
    ("family", "kind", "protocol", "address"),
    [
        pytest.param(socket.AF_INET, socket.SOCK_STREAM, 0, ("127.0.0.1", 0), id="tcp4"),
        pytest.param(socket.AF_INET6, socket.SOCK_STREAM, 0, ("::1", 0), id="tcp6"),
        pytest.param(socket.AF_INET, socket.SOCK_STREAM, MPTCP, ("127.0.0.1", 0), id="mptcp"),
        pytest.param(socket.AF_UNIX, socket.SOCK_STREAM, 0, "{}/stream", id="unix"),
        pytest.param(socket.AF_UNIX, socket.SOCK_STREAM, 0, "\0sockact-queue-{}", id="abstract"),
        pytest.param(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, "{}/packet", id="seqpacket"),
    ],
)
def test_connections(
    short_dir: Path, family: int, kind: int, protocol: int, address: object
) -> None:
    """A listener counts what connected and was not accepted yet, and shows its backlog."""
    if isinstance(address, str):
        address = address.format(short_dir)
    with _listening(family, kind, protocol, address) as (sock, clients):
        assert queue(sock.fileno()) == Queue(0, BACKLOG, "connections")
        for _ in range(4):
            _connect(sock, clients)
        assert _wait_for(sock, 4) == Queue(4, BACKLOG, "connections")
        sock.accept()[0].close()
        assert _wait_for(sock, 3) == Queue(3, BACKLOG, "connections")
        with sock.dup() as copy:
            assert queue(copy.fileno()) == Queue(3, BACKLOG, "connections")
        sock.listen(BACKLOG + 1)
        assert queue(sock.fileno()) == Queue(3, BACKLOG + 1, "connections")


def test_full_queue(short_dir: Path) -> None:
    """A full queue holds one connection more than the limit."""
    with _listening(socket.AF_UNIX, socket.SOCK_STREAM, 0, str(short_dir / "s")) as (sock, clients):
        for _ in range(BACKLOG + 1):
            _connect(sock, clients)
        extra = clients.enter_context(socket.socket(socket.AF_UNIX))
        extra.setblocking(False)
        with pytest.raises(BlockingIOError):
            extra.connect(sock.getsockname())
        assert queue(sock.fileno()) == Queue(BACKLOG + 1, BACKLOG, "connections")


def test_each_listener_has_its_own(short_dir: Path) -> None:
    """Of several Unix listeners, each shows its own queue."""
    with contextlib.ExitStack() as stack:
        socks = []
        for count in range(3):
            sock, clients = stack.enter_context(
                _listening(socket.AF_UNIX, socket.SOCK_STREAM, 0, str(short_dir / f"{count}"))
            )
            for _ in range(count):
                _connect(sock, clients)
            socks.append(sock)
        found = [queue(sock.fileno()) for sock in socks]
    assert found == [Queue(count, BACKLOG, "connections") for count in range(3)]


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_udp(family: int, host: str) -> None:
    """A UDP socket shows the bytes that wait, with overhead, and its receive buffer."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock, sock.dup() as sender:
        try:
            sock.bind((host, 0))
        except OSError as error:
            pytest.skip(f"no such address here: {error}")
        limit = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert queue(sock.fileno()) == Queue(0, limit, "bytes")
        for _ in range(3):
            sender.sendto(b"x" * 1000, sock.getsockname())
        deadline = time.monotonic() + SECONDS
        while (found := queue(sock.fileno())) and found.now < 3000:
            assert time.monotonic() < deadline, found
        assert found
        assert (found.limit, found.unit) == (limit, "bytes")


def test_netlink() -> None:
    """A netlink socket shows the bytes of an answer that nobody has read."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        limit = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert queue(sock.fileno()) == Queue(0, limit, "bytes")
        dump_links = struct.pack("=IHHIIB3x", 20, 18, 0x301, 1, 0, 0)
        sock.sendto(dump_links, (0, 0))
        found = queue(sock.fileno())
    assert found
    assert found.now > 0
    assert (found.limit, found.unit) == (limit, "bytes")


def test_what_has_no_known_queue(short_dir: Path) -> None:
    """None: other sockets than listeners, Unix datagrams, and what is no socket."""
    node = str(short_dir / "dgram")
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        socket.socket() as fresh,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dgram,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        open("/dev/null", "rb") as null,
    ):
        dgram.bind(node)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", node)
        theirs.send(b"x")
        for each in (ours, fresh, unix, dgram, client, null):
            assert queue(each.fileno()) is None
        path = os.open(node, os.O_PATH)
        try:
            assert queue(path) is None
        finally:
            os.close(path)


def test_vsock() -> None:
    """None for a vsock listener: nothing tells its queue."""
    if not hasattr(socket, "AF_VSOCK"):
        pytest.skip("no vsock here")
    any_address = (socket.VMADDR_CID_ANY, 0xFFFFFFFF)
    with _listening(socket.AF_VSOCK, socket.SOCK_STREAM, 0, any_address) as (sock, _clients):
        assert queue(sock.fileno()) is None


def test_closed() -> None:
    """A descriptor that is not open is EBADF."""
    with socket.socket() as sock:
        fd = sock.fileno()
    for bad in (fd, -1):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - errno is checked
            queue(bad)
        assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("blocking", [True, False])
def test_asking_changes_nothing(short_dir: Path, blocking: bool) -> None:
    """The listener stays open, blocks as before, and its connection can be accepted."""
    with _listening(socket.AF_UNIX, socket.SOCK_STREAM, 0, str(short_dir / "s")) as (sock, clients):
        sock.setblocking(blocking)
        client = _connect(sock, clients)
        client.send(b"hello")
        for _ in range(3):
            assert queue(sock.fileno()) == Queue(1, BACKLOG, "connections")
        assert os.get_blocking(sock.fileno()) == blocking
        connection, _name = sock.accept()
        with connection:
            assert connection.recv(10) == b"hello"


def test_listener_of_another_namespace(short_dir: Path) -> None:
    """In another network namespace the answer for TCP is the same, and None for Unix."""
    unshare = shutil.which("unshare") or pytest.skip("unshare is not installed")
    if subprocess.run([unshare, "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a network namespace")
    code = (
        "import sys; from sockact.fd.queue import queue; print(*map(queue, map(int, sys.argv[1:])))"
    )
    with (
        _listening(socket.AF_UNIX, socket.SOCK_STREAM, 0, str(short_dir / "s")) as (unix, _),
        _listening(socket.AF_INET, socket.SOCK_STREAM, 0, ("127.0.0.1", 0)) as (tcp, _),
    ):
        fds = [unix.fileno(), tcp.fileno()]
        done = subprocess.run(
            [unshare, "-n", sys.executable, "-c", code, *map(str, fds)],
            pass_fds=fds,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
    assert done.stdout == f"None {Queue(0, BACKLOG, 'connections')}\n"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_agrees_with_ss(short_dir: Path, family: int) -> None:
    """ss(8) shows the same two numbers for a listener."""
    ss = shutil.which("ss") or pytest.skip("ss is not installed")
    address = str(short_dir / "s") if family == socket.AF_UNIX else ("127.0.0.1", 0)
    with _listening(family, socket.SOCK_STREAM, 0, address) as (sock, clients):
        for _ in range(5):
            _connect(sock, clients)
        found = _wait_for(sock, 5)
        name = sock.getsockname()
        options = ["-lxH", "src", name] if isinstance(name, str) else ["-ltH", f"sport = {name[1]}"]
        shown = subprocess.run(
            [ss, "-n", *options], capture_output=True, text=True, timeout=SECONDS, check=True
        ).stdout.split()
    state = shown.index("LISTEN")
    assert found == Queue(int(shown[state + 1]), int(shown[state + 2]), "connections")


# One answer of the kernel for inode 0x31fe: the attributes SHUTDOWN and RQLEN (1 of 5).
ANSWER = (
    struct.pack("=IHHII", 52, 20, 0, 1, 8323)
    + struct.pack("=BBBBIII", 1, 1, 10, 0, 0x31FE, 6, 0)
    + struct.pack("=HHB3x", 5, 6, 0)
    + struct.pack("=HHII", 12, 4, 1, 5)
)


def test_answer_is_read_within_its_bounds() -> None:
    """An answer that is cut, of another socket, or scrambled in any way is None or a queue."""
    assert _rqlen(ANSWER, 0x31FE) == Queue(1, 5, "connections")
    assert _rqlen(ANSWER, 0x31FF) is None
    assert all(_rqlen(ANSWER[:size], 0x31FE) is None for size in range(len(ANSWER)))
    for at in range(len(ANSWER)):
        for byte in range(256):
            _rqlen(ANSWER[:at] + bytes([byte]) + ANSWER[at + 1 :], 0x31FE)
    source = random.Random(1)
    for _ in range(2000):
        _rqlen(ANSWER[:32] + source.randbytes(20), 0x31FE)


def test_error_answer_is_none() -> None:
    """The kernel's ENOENT is no queue."""
    error = struct.pack("=IHHIIi", 76, 2, 0, 1, 8323, -errno.ENOENT) + ANSWER[:40] + bytes(16)
    assert _rqlen(error, 0x31FE) is None


@pytest.mark.parametrize(
    ("family", "host", "client"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
)
def test_handshakes(family: int, host: str, client: str) -> None:
    """A connection is being made until it is in the queue; each is told from the others."""
    with _listening(family, socket.SOCK_STREAM, 0, (host, 0)) as (sock, clients):
        # So one that says nothing is not in the queue, though its client believes so.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, int(SECONDS))
        assert handshakes(sock.fileno()) == frozenset()
        made = []
        seen = frozenset[bytes]()
        for count in (1, 2, 3):
            address = (client, sock.getsockname()[1])
            made.append(clients.enter_context(socket.create_connection(address, SECONDS)))
            before, seen = seen, handshakes(sock.fileno())
            assert len(seen) == count
            assert before < seen
        made[0].sendall(b"x")
        _wait_for(sock, 1)
        assert handshakes(sock.fileno()) < seen
        assert len(handshakes(sock.fileno())) == 2


def test_no_handshakes() -> None:
    """There are none for what is no TCP listener, nor for a file."""
    with socket.socket(socket.AF_UNIX) as sock:
        assert handshakes(sock.fileno()) == frozenset()
    reader, writer = os.pipe()
    try:
        assert handshakes(reader) == frozenset()
    finally:
        os.close(reader)
        os.close(writer)
