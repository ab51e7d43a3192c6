"""sockact.fd.reuseport."""

import contextlib
import socket
import sys
from collections.abc import Iterator, Sequence

import pytest

from sockact.fd.reuseport import group, spread, steer
from tests.helpers import SECONDS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such groups")

ADDRESSES = [
    (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    (socket.AF_INET, "0.0.0.0", "127.0.0.1"),
    (socket.AF_INET6, "::1", "::1"),
    (socket.AF_INET6, "::", "::1"),
    (socket.AF_INET6, "::", "127.0.0.1"),
]


class Members:
    """A group.

    Attributes:
        all: Its members in the order in which they began to listen.
    """

    def __init__(self, stack: contextlib.ExitStack, family: int, host: str) -> None:
        self.all: list[socket.socket] = []
        self._stack = stack
        self._family = family
        self._address = (host, 0)

    def add(self, count: int) -> None:
        """Have more members listen."""
        for _ in range(count):
            sock = self._stack.enter_context(socket.socket(self._family))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(self._address)
            sock.listen(1000)
            sock.setblocking(False)
            self._address = sock.getsockname()[:2]
            self.all.append(sock)

    def drop(self) -> None:
        """Close the last one."""
        self.all.pop().close()

    def got(self, host: str, count: int = 60) -> Sequence[bool]:
        """Connect so often; return which members got some of it."""
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                address = (host, self._address[1])
                stack.enter_context(socket.create_connection(address, SECONDS))
            counts = [sum(1 for _ in _accepted(one)) for one in self.all]
        assert sum(counts) == count
        return [bool(one) for one in counts]


def _accepted(listener: socket.socket) -> Iterator[None]:
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            yield


@pytest.mark.parametrize(("family", "host", "to"), ADDRESSES)
def test_steer(family: int, host: str, to: str) -> None:
    """New connections go to the first members alone, also when others come and go; then to all."""
    with contextlib.ExitStack() as stack:
        members = Members(stack, family, host)
        try:
            members.add(4)
        except OSError as error:
            pytest.skip(f"no such address here: {error}")
        assert members.got(to) == [True] * 4
        steer(members.all[-1].fileno(), 2)
        assert members.got(to) == [True, True, False, False]
        members.drop()
        members.drop()
        members.add(1)
        assert members.got(to) == [True, True, False]
        steer(members.all[0].fileno(), 1)
        assert members.got(to) == [True, False, False]
        spread(members.all[0].fileno())
        assert members.got(to) == [True] * 3


def test_fewer_members_than_steered_to() -> None:
    """If there is no member with a number, a connection goes to one that there is."""
    with contextlib.ExitStack() as stack:
        members = Members(stack, socket.AF_INET, "127.0.0.1")
        members.add(1)
        steer(members.all[0].fileno(), 5)
        assert members.got("127.0.0.1") == [True]


def test_group() -> None:
    """Members of a group have the same key, and nothing else has one."""
    with contextlib.ExitStack() as stack:
        members = Members(stack, socket.AF_INET, "127.0.0.1")
        members.add(2)
        others = Members(stack, socket.AF_INET, "127.0.0.1")
        others.add(1)
        keys = [group(one.fileno()) for one in (*members.all, *others.all)]
        assert None not in keys
        assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("family", "kind", "shared", "listens"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, False, True),
        (socket.AF_INET, socket.SOCK_STREAM, True, False),
        (socket.AF_INET, socket.SOCK_DGRAM, True, False),
        (socket.AF_UNIX, socket.SOCK_STREAM, False, True),
    ],
)
def test_no_group(family: int, kind: int, shared: bool, listens: bool) -> None:
    """What is no TCP listener with SO_REUSEPORT is in no group."""
    with socket.socket(family, kind) as sock:
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0) if family == socket.AF_INET else "")
        if listens:
            sock.listen()
        assert group(sock.fileno()) is None


def test_no_group_to_steer() -> None:
    """A socket without SO_REUSEPORT cannot be steered."""
    with socket.create_server(("127.0.0.1", 0)) as sock, pytest.raises(OSError, match="Invalid"):
        steer(sock.fileno(), 1)
