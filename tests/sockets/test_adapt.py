"""A listener that stays open while its definition changes."""

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

import pytest

import sockact
from sockact.fd.queue import queue
from sockact.sockets.adapt import Adapter, note
from sockact.sockets.node import Made
from sockact.sockets.socketset import SocketSet
from sockact.spec import SocketSpec


def _spec(text: str) -> SocketSpec:
    return sockact.definition(text).spec


def _tcp(options: str) -> str:
    return "tcp:127.0.0.1:0" + (f"?{options}" if options else "")


def _adapt(sockets: SocketSet, old: str, new: str) -> tuple[list[str], Made]:
    """Adapt the only entry of a set, and return what was said without its origin."""
    said: list[str] = []
    spec = _spec(new)
    fd = sockets.entry().fileno()
    made = Adapter(_spec(old), spec, said.append).adapt(fd, spec.listeners[0]) or Made()
    return [line.removeprefix(f"{new}: ").removeprefix(f"{old}: ") for line in said], made


SET = [
    ("KeepAlive=no", "KeepAlive=yes", socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ("KeepAlive=yes", "KeepAlive=no", socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0),
    ("KeepAliveProbes=3", "KeepAliveProbes=4", socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    ("", "Priority=5", socket.SOL_SOCKET, socket.SO_PRIORITY, 5),
    ("IPTTL=7", "IPTTL=9", socket.IPPROTO_IP, socket.IP_TTL, 9),
    ("", "ReceiveBuffer=8K", socket.SOL_SOCKET, socket.SO_RCVBUF, 16384),
    ("SendBuffer=8K", "SendBuffer=16K", socket.SOL_SOCKET, socket.SO_SNDBUF, 32768),
]


@pytest.mark.parametrize(("old", "new", "level", "option", "value"), SET)
def test_options_are_set(old: str, new: str, level: int, option: int, value: int) -> None:
    """Whatever may be set after listen() can be set as well while the socket serves."""
    with sockact.listen(_tcp(old)) as sockets:
        said, _ = _adapt(sockets, _tcp(old), _tcp(new))
        assert said == []
        assert sockets.socket().getsockopt(level, option) == value


def test_a_default_is_brought_back() -> None:
    """An option that is on or off needs no value to be what it was at first."""
    with sockact.listen(_tcp("NoDelay=yes")) as sockets:
        assert _adapt(sockets, _tcp("NoDelay=yes"), _tcp(""))[0] == []
        assert sockets.socket().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    option = socket.SOL_SOCKET, 83  # SO_PASSRIGHTS, since Linux 6.16
    text = f"unix:@sockact-test-adapt-{os.getpid()}"
    with sockact.listen(text) as sockets:
        try:
            assert sockets.socket().getsockopt(*option) == 1
        except OSError:
            pytest.skip("the kernel has no SO_PASSRIGHTS")
        assert _adapt(sockets, text, f"{text}?AcceptFileDescriptors=no")[0] == []
        assert sockets.socket().getsockopt(*option) == 0
        assert _adapt(sockets, f"{text}?AcceptFileDescriptors=no", text)[0] == []
        assert sockets.socket().getsockopt(*option) == 1


def test_only_what_has_changed_is_set() -> None:
    """A program may have set something itself since, which its unit does not speak of anew."""
    text = "tcp:127.0.0.1:0?KeepAlive=no&IPTTL="
    with sockact.listen(text + "7") as sockets:
        sock = sockets.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert _adapt(sockets, text + "7", text + "8")[0] == []
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == 8


def test_the_backlog_is_changed() -> None:
    """listen(2) may be called again; connections that wait go on to do so."""
    with sockact.listen("tcp:127.0.0.1:0?Backlog=3") as sockets:
        sock = sockets.socket()
        with socket.create_connection(sock.getsockname()):
            _adapt(sockets, "tcp:127.0.0.1:0?Backlog=3", "tcp:127.0.0.1:0?Backlog=5")
            found = queue(sock.fileno())
            assert found
            assert (found.now, found.limit) == (1, 5)


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("FreeBind=no", "FreeBind=yes", "FreeBind"),
        ("ReusePort=yes", "ReusePort=no", "ReusePort"),
        ("", "NonBlocking=yes", "NonBlocking"),
        ("", "SocketProtocol=mptcp", "SocketProtocol"),
        ("IPTTL=7", "", "IPTTL"),
        ("Priority=3", "", "Priority"),
    ],
)
def test_what_cannot_be_changed_is_told(old: str, new: str, name: str) -> None:
    """What a socket has from its birth, and what has no value any more to set."""
    with sockact.listen(_tcp(old), warn=lambda _: None) as sockets:
        said, _ = _adapt(sockets, _tcp(old), _tcp(new))
        assert said == [f"{name}= of 127.0.0.1:0, which is open, stays as it was"]


def test_an_option_that_the_kernel_refuses_is_told() -> None:
    """The rest is set all the same."""
    with sockact.listen(_tcp("")) as sockets:
        said, _ = _adapt(sockets, _tcp(""), _tcp("TCPCongestion=no-such&Priority=2"))
        assert len(said) == 1
        assert "could not be set" in said[0]
        assert sockets.socket().getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == 2


@pytest.mark.parametrize("scheme", ["unix", "fifo"])
def test_the_node_gets_its_mode_and_owner(short_dir: Path, scheme: str) -> None:
    """As if it were made anew."""
    text = f"{scheme}:{short_dir}/n?SocketMode="
    with sockact.listen(text + "0600") as sockets:
        assert _adapt(sockets, text + "0600", text + "0640")[0] == []
        assert stat.S_IMODE(os.stat(short_dir / "n").st_mode) == 0o640
        if os.getuid() == 0:
            said, _ = _adapt(sockets, text + "0640", text + "0640&SocketUser=nobody")
            assert said == []
            assert os.stat(short_dir / "n").st_uid == 65534
    assert (short_dir / "n").exists()


def test_a_node_that_is_gone_is_told(short_dir: Path) -> None:
    """Nothing else fails for it."""
    text = f"unix:{short_dir}/n?SocketMode="
    with sockact.listen(text + "0600") as sockets:
        os.unlink(short_dir / "n")
        said, _ = _adapt(sockets, text + "0600", text + "0640")
        assert os.strerror(errno.ENOENT) in said[0]
        said, _ = _adapt(sockets, text + "0600", text + "0600&RemoveOnStop=yes")
        assert said == []


def test_links_are_made(short_dir: Path) -> None:
    """Those that are new; all are removed with the listener if it is to leave nothing behind."""
    text = f"unix:{short_dir}/n?Symlinks={short_dir}/one"
    more = f"{text} {short_dir}/sub/two {short_dir}/n&RemoveOnStop=yes"
    with sockact.listen(text) as sockets:
        said, made = _adapt(sockets, text, more)
        assert len(said) == 1  # a socket stands there
        assert "Symlinks=" in said[0]
        assert os.readlink(short_dir / "sub" / "two") == f"{short_dir}/n"
        made.remove(directories=True)
        assert not os.listdir(short_dir)


def test_what_is_no_socket(short_dir: Path) -> None:
    """A FIFO gets its size; what a file or a queue has from its birth stays, and that is told."""
    text = f"fifo:{short_dir}/f?PipeSize="
    with sockact.listen(text + "4096") as sockets:
        assert _adapt(sockets, text + "4096", text + "16384")[0] == []
        assert fcntl.fcntl(sockets.entry().fileno(), fcntl.F_GETPIPE_SZ) == 16384
        said, _ = _adapt(sockets, text + "4096", text + "99999999999")
        assert "PipeSize=" in said[0]
    (short_dir / "s").touch()
    text = f"special:{short_dir}/s"
    with sockact.listen(text) as sockets:
        said, _ = _adapt(sockets, text, text + "?Writable=yes")
        assert said == [f"Writable= of {short_dir}/s, which is open, stays as it was"]


def test_what_goes_with_it(short_dir: Path) -> None:
    """A node and the links to it are noted, whoever has made them; a file is nobody's to remove."""
    made = Made()
    text = f"unix:{short_dir}/n?Symlinks={short_dir}/one {short_dir}/other"
    (short_dir / "other").symlink_to("elsewhere")
    (short_dir / "s").touch()
    with sockact.listen(f"unix:{short_dir}/n?Symlinks={short_dir}/one"):
        for spec in (_spec(text), _spec(f"special:{short_dir}/s"), _spec("tcp:127.0.0.1:1")):
            note(made, spec, spec.listeners[0])
        made.remove(directories=False)
    assert sorted(os.listdir(short_dir)) == ["other", "s"]


def test_nothing_has_changed(short_dir: Path) -> None:
    """Then nothing is said, and nothing is to be removed."""
    text = f"unix:{short_dir}/n?RemoveOnStop=yes&Symlinks={short_dir}/one"
    with sockact.listen(text) as sockets:
        said, made = _adapt(sockets, text, text)
        assert said == []
        made.remove(directories=True)
        assert (short_dir / "n").exists()
        assert (short_dir / "one").exists()
