"""sockact.fd.connections: real connections, accepted and not."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sockact.fd import sockdiag
from sockact.fd.connections import connections
from sockact.fd.identity import namespace_cookie
from tests.helpers import ROOT, SECONDS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
MPTCP = 262

CASES: dict[str, tuple[int, int, int, tuple[str, int] | str]] = {
    "tcp4": (socket.AF_INET, socket.SOCK_STREAM, 0, ("127.0.0.1", 0)),
    "tcp4-any": (socket.AF_INET, socket.SOCK_STREAM, 0, ("", 0)),
    "tcp6": (socket.AF_INET6, socket.SOCK_STREAM, 0, ("::1", 0)),
    "tcp6-any": (socket.AF_INET6, socket.SOCK_STREAM, 0, ("::", 0)),
    "mptcp": (socket.AF_INET, socket.SOCK_STREAM, MPTCP, ("127.0.0.1", 0)),
    "unix": (socket.AF_UNIX, socket.SOCK_STREAM, 0, "path"),
    "abstract": (socket.AF_UNIX, socket.SOCK_STREAM, 0, "abstract"),
    "seqpacket": (socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, "path"),
}


class Server:
    """A listener, its clients and the connections that it has accepted."""

    def __init__(self, stack: contextlib.ExitStack, case: str, directory: Path) -> None:
        family, kind, protocol, address = CASES[case]
        if isinstance(address, str):
            name = uuid.uuid4().hex
            address = str(directory / name) if address == "path" else f"\0sockact-{name}"
        self._stack = stack
        try:
            self.listener = stack.enter_context(socket.socket(family, kind, protocol))
            self.listener.bind(address)
        except OSError as error:
            pytest.skip(f"not here: {error}")
        self.listener.listen()
        self.accepted: list[socket.socket] = []
        self.clients: list[socket.socket] = []

    def connect(self, family: int = 0) -> None:
        """Connect one more client."""
        client = socket.socket(family or self.listener.family, self.listener.type)
        self._stack.enter_context(client)
        client.settimeout(SECONDS)
        address = self.listener.getsockname()
        if family == socket.AF_INET:
            address = ("127.0.0.1", address[1])
        client.connect(address)
        self.clients.append(client)

    def accept(self) -> None:
        """Accept one more."""
        self.accepted.append(self._stack.enter_context(self.listener.accept()[0]))

    def count(self) -> int | None:
        """Ask."""
        return connections(self.listener.fileno())


@pytest.fixture
def server(short_dir: Path) -> Iterator[Callable[[str], Server]]:
    """Make servers, and close all of each in the end."""
    with contextlib.ExitStack() as stack:
        yield lambda case: Server(stack, case, short_dir)


def _until(ask: Callable[[], int | None], wanted: int) -> None:
    """Wait for a number: the other end of a TCP connection takes a moment."""
    deadline = time.monotonic() + SECONDS
    while (found := ask()) != wanted and time.monotonic() < deadline:
        time.sleep(0.001)
    assert found == wanted


@pytest.mark.parametrize("case", CASES)
def test_accepted(server: Callable[[str], Server], case: str) -> None:
    """What was accepted counts until it is closed; what waits does not."""
    one = server(case)
    assert one.count() == 0
    for _ in range(4):
        one.connect()
    assert one.count() == 0
    for wanted in (1, 2, 3):
        one.accept()
        assert one.count() == wanted
    assert connections(one.listener.fileno(), 2) == 2
    assert connections(one.listener.fileno(), 1) == 1
    one.accepted[0].close()
    assert one.count() == 2
    one.clients[1].close()
    one.clients[2].shutdown(socket.SHUT_WR)
    assert one.count() == 2  # the server has still to read the end
    one.accepted[1].close()
    one.accepted[2].close()
    assert one.count() == 0


def test_mapped(server: Callable[[str], Server]) -> None:
    """An IPv6 listener counts its IPv4 connections too."""
    one = server("tcp6-any")
    try:
        one.connect(socket.AF_INET)
    except OSError as error:
        pytest.skip(f"it takes IPv6 alone: {error}")
    one.accept()
    assert one.count() == 1


def test_others_do_not_count(server: Callable[[str], Server]) -> None:
    """Each listener has its own connections."""
    servers = [server(case) for case in ("tcp4", "tcp4", "unix", "unix", "abstract", "abstract")]
    for number, one in enumerate(servers):
        for _ in range(number):
            one.connect()
            one.accept()
    assert [one.count() for one in servers] == [0, 1, 2, 3, 4, 5]


def test_other_address_of_the_port() -> None:
    """A listener for one address does not count what came to another of the same port."""
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(socket.socket()) for _ in range(2))
        first.bind(("127.0.0.1", 0))
        try:
            second.bind(("127.0.0.2", first.getsockname()[1]))
        except OSError as error:
            pytest.skip(str(error))
        for listener in (first, second):
            listener.listen()
        for _ in range(3):
            stack.enter_context(socket.create_connection(second.getsockname(), SECONDS))
            stack.enter_context(second.accept()[0])
        assert connections(first.fileno()) == 0
        assert connections(second.fileno()) == 3


def test_replaced_path(short_dir: Path) -> None:
    """A listener with a node does not count the connections of one that had the path before."""
    path = str(short_dir / "s")
    with contextlib.ExitStack() as stack:
        found = []
        for count in (2, 1):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(path)
            listener.listen()
            for _ in range(count):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.connect(path)
                stack.enter_context(listener.accept()[0])
            os.rename(path, str(short_dir / f"old-{count}"))
            found.append(listener)
        assert [connections(listener.fileno()) for listener in found] == [2, 1]


@pytest.mark.parametrize("case", ["tcp4", "tcp6", "unix"])
def test_other_processes(server: Callable[[str], Server], case: str) -> None:
    """A connection counts as long as any process has it open."""
    one = server(case)
    one.connect()
    one.accept()
    code = "import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, pass_fds=[one.accepted[0].fileno()]
    ) as child:
        one.accepted[0].close()
        assert one.count() == 1
        child.communicate(timeout=SECONDS)
    assert one.count() == 0


@pytest.mark.parametrize("case", [case for case in CASES if case != "mptcp"])
def test_without_netlink(
    server: Callable[[str], Server], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no asking, the kernel's lists tell the same."""

    def refuse(*_arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(sockdiag, "_sent", refuse)
    one = server(case)
    for _ in range(3):
        one.connect()
    assert one.count() == 0
    one.accept()
    one.accept()
    assert one.count() == 2
    one.accepted[0].close()
    assert one.count() == 1


def test_time_wait(server: Callable[[str], Server]) -> None:
    """What a server has closed does not count, whatever the kernel still has to do."""
    one = server("tcp4")
    for _ in range(20):
        one.connect()
        one.accept()
    assert one.count() == 20
    for connection in one.accepted[:10]:
        connection.close()
    for client in one.clients[:5]:
        client.close()
    assert one.count() == 10


def test_reset_connection(server: Callable[[str], Server]) -> None:
    """A connection that the client has reset is none any more, though it is not closed yet."""
    one = server("tcp4")
    one.connect()
    one.accept()
    one.clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    one.clients[0].close()
    _until(one.count, 0)


def test_unknown(short_dir: Path) -> None:
    """What accepts no connections has none to tell of."""
    reader, writer = os.pipe()
    os.close(writer)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, reader)
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        tcp = stack.enter_context(socket.socket())
        pair = [stack.enter_context(sock) for sock in socket.socketpair()]
        file = stack.enter_context(open("/dev/null", "rb"))
        node = stack.enter_context(socket.socket(socket.AF_UNIX))
        node.bind(str(short_dir / "s"))
        node.listen()
        path = os.open(short_dir / "s", os.O_PATH)
        stack.callback(os.close, path)
        for fd in (reader, udp.fileno(), tcp.fileno(), pair[0].fileno(), file.fileno(), path):
            assert connections(fd) is None


def test_what_is_not_open() -> None:
    """What is not open is an error."""
    fd = os.dup(0)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        connections(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("case", ["tcp4", "abstract"])
def test_other_namespace(server: Callable[[str], Server], case: str) -> None:
    """Of a listener of another network namespace nothing is known."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed")
    one = server(case)
    one.connect()
    one.accept()
    if namespace_cookie(one.listener.fileno()) is None:
        pytest.skip("this kernel does not tell the namespace of a socket")
    fd = one.listener.fileno()
    code = f"from sockact.fd.connections import connections; print(connections({fd}))"
    result = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", code],
        cwd=ROOT, pass_fds=[fd], capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    if "unshare" in result.stderr:
        pytest.skip(result.stderr)
    assert result.stdout == "None\n", result.stderr


def test_many(server: Callable[[str], Server]) -> None:
    """To ask whether there is any costs the same, however many there are."""
    import resource

    one = server("abstract")
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    for _ in range(min(3000, (room - 200) // 2)):
        one.connect()
        one.accept()
    assert one.count() == len(one.accepted)

    def seconds(enough: int) -> float:
        began = time.process_time()
        for _ in range(5):
            connections(one.listener.fileno(), enough)
        return time.process_time() - began

    assert min(seconds(1) for _ in range(3)) * 3 < min(seconds(10**9) for _ in range(3))
