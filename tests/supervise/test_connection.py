"""sockact.supervise.connection."""

import socket

import pytest

from sockact.sockets.caller import Caller, End
from sockact.supervise import connection
from sockact.supervise.connection import Connections

VSOCK = 40
V4 = Caller(socket.AF_INET, End("127.0.0.1", 80), End("10.0.0.7", 4711), 42)
V6 = Caller(socket.AF_INET6, End("::1", 80), End("2001:db8::2", 4711), 42)
MAPPED = Caller(socket.AF_INET6, End("::ffff:127.0.0.1", 80), End("::ffff:10.0.0.7", 4711), 42)
LOCAL = Caller(socket.AF_INET6, End("fe80::1", 80, "eth0"), End("fe80::2", 4711, "eth0"), 42)
VM = Caller(VSOCK, End("2", 80), End("3", 4711), 42)
UNIX = Caller(socket.AF_UNIX, End("/run/x"), End(), 42, 12, 1000, 9876)
BOUND = Caller(socket.AF_UNIX, End("@x"), End("/run/a b\n\xe9\"'\\"), 42, 12, 1000)
ABSTRACT = Caller(socket.AF_UNIX, End("@x"), End("@me\0\x7f"), 42, 12, 1000)
OUTSIDE = Caller(socket.AF_UNIX, End("/run/x"), End(), 42, 0, 1000)
UNKNOWN = Caller(socket.AF_UNIX, End("/run/x"), End())


@pytest.mark.parametrize(
    ("caller", "name"),
    [
        (V4, "7-42-127.0.0.1:80-10.0.0.7:4711"),
        (V6, "7-42-::1:80-2001:db8::2:4711"),
        (MAPPED, "7-42-127.0.0.1:80-10.0.0.7:4711"),
        (LOCAL, "7-42-fe80::1:80-fe80::2:4711"),
        (VM, "7-42-2:80-3:4711"),
        (UNIX, "7-42-12_9876-1000"),
        (BOUND, "7-42-12-1000"),
        (OUTSIDE, "7-42-unknown"),
        (UNKNOWN, "7-unknown"),
        (Caller(socket.AF_INET, V4.local, V4.remote), "7-127.0.0.1:80-10.0.0.7:4711"),
    ],
)
def test_instance_name(caller: Caller, name: str) -> None:
    """The instance is named by number, cookie and both ends, as systemd names it."""
    assert connection.instance_name(caller, 7) == name


@pytest.mark.parametrize(
    ("caller", "variables"),
    [
        (V4, {"REMOTE_ADDR": "10.0.0.7", "REMOTE_PORT": "4711", "SO_COOKIE": "42"}),
        (V6, {"REMOTE_ADDR": "2001:db8::2", "REMOTE_PORT": "4711", "SO_COOKIE": "42"}),
        (MAPPED, {"REMOTE_ADDR": "10.0.0.7", "REMOTE_PORT": "4711", "SO_COOKIE": "42"}),
        (LOCAL, {"REMOTE_ADDR": "fe80::2%eth0", "REMOTE_PORT": "4711", "SO_COOKIE": "42"}),
        (VM, {"REMOTE_ADDR": "vsock:3", "REMOTE_PORT": "4711", "SO_COOKIE": "42"}),
        (UNIX, {"SO_COOKIE": "42"}),
        (BOUND, {"REMOTE_ADDR": r"/run/a b\n\303\251\"\'\\", "SO_COOKIE": "42"}),
        (ABSTRACT, {"REMOTE_ADDR": r"@me\000\177", "SO_COOKIE": "42"}),
        (UNKNOWN, {}),
    ],
)
def test_environment(caller: Caller, variables: dict[str, str]) -> None:
    """The instance is told who called, where that is known."""
    assert connection.environment(caller) == variables


@pytest.mark.parametrize(
    ("caller", "text"),
    [
        (V4, "10.0.0.7:4711"),
        (V6, "[2001:db8::2]:4711"),
        (MAPPED, "10.0.0.7:4711"),
        (LOCAL, "[fe80::2]:4711%eth0"),
        (VM, "vsock:3:4711"),
        (UNIX, "pid 12, uid 1000"),
        (OUTSIDE, "uid 1000"),
        (UNKNOWN, "unknown"),
    ],
)
def test_text(caller: Caller, text: str) -> None:
    """For people, an address reads as such, and a local caller as process and user."""
    assert connection.text(caller) == text


def test_source() -> None:
    """Callers count together by address without port and interface, by user, and by machine."""
    other_port = Caller(socket.AF_INET, V4.local, End("10.0.0.7", 1))
    assert connection.source(V4) == connection.source(other_port)
    other_link = Caller(socket.AF_INET6, LOCAL.local, End("fe80::2", 1, "eth1"))
    assert connection.source(LOCAL) == connection.source(other_link)
    assert connection.source(UNIX) == connection.source(OUTSIDE)
    known = [connection.source(caller) for caller in (V4, V6, MAPPED, LOCAL, VM, UNIX)]
    assert len(set(known)) == len(known)
    assert None not in known
    assert connection.source(UNKNOWN) is None
    assert connection.source(Caller(99, End(), End("x"))) is None


def test_total() -> None:
    """No more are admitted than MaxConnections=, and one that leaves makes room."""
    open_ones = Connections(2, 0)
    assert [open_ones.admit("a"), open_ones.admit("a")] == ["", ""]
    assert open_ones.admit("b") == "MaxConnections=2 are open"
    assert (len(open_ones), open_ones.of("a"), open_ones.of("b")) == (2, 2, 0)
    open_ones.leave("a")
    assert open_ones.refusal("b") == ""
    assert open_ones.admit("b") == ""
    open_ones.leave("a")
    open_ones.leave("b")
    assert (len(open_ones), open_ones.of("a"), open_ones.of("b")) == (0, 0, 0)


def test_per_source() -> None:
    """No more are admitted from one source than MaxConnectionsPerSource=; others are not hurt."""
    open_ones = Connections(10, 1)
    assert open_ones.admit("a") == ""
    assert open_ones.admit("a") == "MaxConnectionsPerSource=1 are open from there"
    assert open_ones.admit("b") == ""
    assert [open_ones.admit(None) for _ in range(3)] == ["", "", ""]
    assert len(open_ones) == 5
    open_ones.leave(None)
    open_ones.leave("a")
    assert open_ones.admit("a") == ""
    assert len(open_ones) == 4
