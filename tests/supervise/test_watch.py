"""sockact.supervise.watch: real descriptors, and other processes that do things to them."""

import contextlib
import errno
import os
import select
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sockact.rendezvous.react import READ, Reactor
from sockact.supervise import watch as module
from sockact.supervise.watch import Event, Mode, Watch
from tests.helpers import SECONDS

LISTENERS = {
    "tcp": (socket.AF_INET, socket.SOCK_STREAM),
    "unix": (socket.AF_UNIX, socket.SOCK_STREAM),
    "seqpacket": (socket.AF_UNIX, socket.SOCK_SEQPACKET),
}
WATCHING = [Mode.HANGUP, Mode.READABLE, Mode.ACTIVITY]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """A watch of the system's own kind."""
    with contextlib.closing(Watch()) as made:
        yield made


def _listen(kind: str) -> socket.socket:
    sock = socket.socket(*LISTENERS[kind])
    sock.bind(("127.0.0.1", 0) if kind == "tcp" else f"\0sockact-watch-{uuid.uuid4()}")
    sock.listen()
    return sock


def _connect(listener: socket.socket) -> socket.socket:
    client = socket.socket(listener.family, listener.type)
    client.settimeout(SECONDS)
    client.connect(listener.getsockname())
    return client


def _elsewhere(act: Callable[[], object]) -> None:
    """Do something in another process, to its end."""
    pid = os.fork()
    if not pid:
        try:
            act()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _wait(watch: Watch) -> list[tuple[object, Event]]:
    """Return what is seen, once there is something."""
    assert select.select([watch], [], [], SECONDS)[0]
    return watch.dispatch()


def _is_silent(watch: Watch) -> bool:
    """Whether it would not wake anybody now; what was sent over loopback has arrived by now."""
    return not select.select([watch], [], [], 0)[0] and not watch.dispatch()


@pytest.mark.parametrize("kind", LISTENERS)
def test_readable(watch: Watch, kind: str) -> None:
    """A listener is readable as long as a connection waits in it."""
    with _listen(kind) as listener:
        watch.set(listener.fileno(), Mode.READABLE, kind)
        assert watch.mode(listener.fileno()) is Mode.READABLE
        assert _is_silent(watch)
        with _connect(listener):
            assert _wait(watch) == [(kind, Event.READABLE)]
            assert _wait(watch) == [(kind, Event.READABLE)]
            listener.accept()[0].close()
            assert _is_silent(watch)
        watch.remove(listener.fileno())


@pytest.mark.parametrize("kind", LISTENERS)
@pytest.mark.parametrize("mode", [Mode.OFF, Mode.HANGUP])
def test_connections_are_not_told(watch: Watch, kind: str, mode: Mode) -> None:
    """Who is not asking for connections is not woken by them."""
    with _listen(kind) as listener:
        watch.set(listener.fileno(), mode)
        with _connect(listener):
            assert select.select([listener], [], [], SECONDS)[0]
            assert _is_silent(watch)
            watch.set(listener.fileno(), Mode.READABLE)
            assert _wait(watch) == [(listener.fileno(), Event.READABLE)]
            watch.set(listener.fileno(), mode)
            assert _is_silent(watch)
            assert watch.mode(listener.fileno()) is mode


@pytest.mark.parametrize("mode", WATCHING)
@pytest.mark.parametrize("how", ["RD", "RDWR"])
@pytest.mark.parametrize("kind", LISTENERS)
def test_hangup(watch: Watch, kind: str, how: str, mode: Mode) -> None:
    """A listener that another process shuts down hangs up, which is told once."""
    with _listen(kind) as listener:
        watch.set(listener.fileno(), mode, kind)
        _elsewhere(lambda: listener.shutdown(getattr(socket, f"SHUT_{how}")))
        assert _wait(watch) == [(kind, Event.HANGUP)]
        assert _is_silent(watch)
        assert watch.mode(listener.fileno()) is Mode.OFF
        watch.set(listener.fileno(), mode)  # who looks again is told again
        assert _wait(watch) == [(kind, Event.HANGUP)]


@pytest.mark.parametrize("mode", WATCHING)
@pytest.mark.parametrize("kind", LISTENERS)
def test_shutdown_for_writing(watch: Watch, kind: str, mode: Mode) -> None:
    """A listener that is shut down for writing alone goes on, and nothing is told."""
    with _listen(kind) as listener:
        watch.set(listener.fileno(), mode)
        _elsewhere(lambda: listener.shutdown(socket.SHUT_WR))
        assert _is_silent(watch)
        with _connect(listener):
            assert select.select([listener], [], [], SECONDS)[0]


def test_hangup_that_was_there_before(watch: Watch) -> None:
    """A listener that was dead before it was watched is told."""
    with _listen("unix") as listener:
        listener.shutdown(socket.SHUT_RD)
        watch.set(listener.fileno(), Mode.HANGUP)
        assert _wait(watch) == [(listener.fileno(), Event.HANGUP)]


def test_listening_again(watch: Watch) -> None:
    """A TCP socket that listens again is as good as new."""
    with _listen("tcp") as listener:
        watch.set(listener.fileno(), Mode.HANGUP)
        listener.shutdown(socket.SHUT_RDWR)
        assert _wait(watch) == [(listener.fileno(), Event.HANGUP)]
        listener.listen()
        watch.set(listener.fileno(), Mode.READABLE)
        assert _is_silent(watch)
        with _connect(listener):
            assert _wait(watch) == [(listener.fileno(), Event.READABLE)]


@pytest.mark.parametrize("kind", LISTENERS)
@pytest.mark.parametrize("portable", [False, True])
def test_activity(kind: str, portable: bool) -> None:
    """A connection that another process takes at once is activity, told once in each pause."""
    with contextlib.closing(Watch(portable=portable)) as watch, _listen(kind) as listener:
        watch.set(listener.fileno(), Mode.ACTIVITY, kind)
        assert _is_silent(watch)
        assert watch.deadline() is None
        with _connect(listener):
            assert _wait(watch) == [(kind, Event.ACTIVITY)]
            _elsewhere(listener.accept)
        due = watch.deadline()
        assert due is not None
        assert 0 < due - time.monotonic() <= module.PAUSE
        for _ in range(5):
            with _connect(listener):
                _elsewhere(listener.accept)
        assert _is_silent(watch)
        watch.expire(due - 0.01)
        assert watch.deadline() == due
        watch.expire(due)
        assert watch.deadline() is None
        assert _is_silent(watch)
        with _connect(listener):
            assert _wait(watch) == [(kind, Event.ACTIVITY)]
            watch.set(listener.fileno(), Mode.HANGUP)
            assert watch.deadline() is None
        watch.remove(listener.fileno())


def test_activity_that_still_waits(watch: Watch) -> None:
    """A connection that nobody has taken is activity again after the pause."""
    with _listen("tcp") as listener, _connect(listener):
        watch.set(listener.fileno(), Mode.ACTIVITY)
        assert _wait(watch) == [(listener.fileno(), Event.ACTIVITY)]
        assert _is_silent(watch)
        watch.expire(time.monotonic() + module.PAUSE)
        assert _wait(watch) == [(listener.fileno(), Event.ACTIVITY)]


def test_hangup_in_the_pause(watch: Watch) -> None:
    """A hang-up is told while activity is not."""
    with _listen("tcp") as listener, _connect(listener):
        watch.set(listener.fileno(), Mode.ACTIVITY)
        assert _wait(watch) == [(listener.fileno(), Event.ACTIVITY)]
        listener.shutdown(socket.SHUT_RDWR)
        assert _wait(watch) == [(listener.fileno(), Event.HANGUP)]
        assert watch.deadline() is None


def test_cost_of_activity(watch: Watch) -> None:
    """However many connections come in a pause, they wake the watcher once."""
    woken = 0
    with _listen("unix") as listener:
        watch.set(listener.fileno(), Mode.ACTIVITY)
        for _ in range(200):
            with _connect(listener):
                assert select.select([listener], [], [], SECONDS)[0]
                woken += len(select.select([watch], [], [], 0)[0])
                watch.dispatch()
                listener.accept()[0].close()
    assert woken == 1


def test_others(watch: Watch, short_dir: Path) -> None:
    """Datagrams, FIFOs and netlink messages are readable; each has its own token."""
    fifo = short_dir / "fifo"
    os.mkfifo(fifo)
    pipe = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    try:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dgram,
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink,
        ):
            dgram.bind(str(short_dir / "d"))
            netlink.bind((0, 0))
            for token, fd in (("fifo", pipe), ("dgram", dgram.fileno()), ("nl", netlink.fileno())):
                watch.set(fd, Mode.READABLE, token)
            assert _is_silent(watch)
            os.write(pipe, b"x")
            assert _wait(watch) == [("fifo", Event.READABLE)]
            os.read(pipe, 1)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"x", str(short_dir / "d"))
            assert _wait(watch) == [("dgram", Event.READABLE)]
            dgram.recv(1)
            # struct nlmsghdr: RTM_GETLINK of all, to which the kernel answers at once
            netlink.send(b"\x11\0\0\0" + b"\x12\0\x01\x03" + b"\0" * 9)
            assert _wait(watch) == [("nl", Event.READABLE)]
    finally:
        os.close(pipe)


def test_message_queue(watch: Watch) -> None:
    """A message queue is readable when a message waits."""
    mqueue = pytest.importorskip("sockact.fd.mqueue")
    import ctypes

    name = f"/sockact-watch-{uuid.uuid4()}"
    try:
        fd, _ = mqueue.open_queue(name, 0o600, 2, 10)
    except OSError as error:
        pytest.skip(str(error))
    try:
        watch.set(fd, Mode.READABLE, "mq")
        assert _is_silent(watch)
        writer = ctypes.CDLL(None).mq_open(name.encode(), os.O_WRONLY)
        assert ctypes.CDLL(None).mq_send(writer, b"x", 1, 0) == 0
        os.close(writer)
        assert _wait(watch) == [("mq", Event.READABLE)]
    finally:
        watch.remove(fd)
        os.close(fd)
        mqueue.unlink_queue(name)


def test_lost_netlink_messages(watch: Watch) -> None:
    """That a netlink socket has lost something is no hang-up, and wakes nobody again and again."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.bind((0, 0))
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        watch.set(netlink.fileno(), Mode.HANGUP)
        with contextlib.suppress(OSError):
            for _ in range(100):
                netlink.send(b"\x11\0\0\0" + b"\x12\0\x01\0" + b"\0" * 9)  # answered with an error
        poll = select.poll()
        poll.register(netlink, 0)
        if not poll.poll(0):
            pytest.skip("nothing was lost")
        assert watch.dispatch() == []
        assert _is_silent(watch)
        watch.set(netlink.fileno(), Mode.READABLE)
        assert [event for _, event in _wait(watch)] == [Event.READABLE]


@pytest.mark.parametrize("portable", [False, True])
def test_files_that_are_always_ready(short_dir: Path, portable: bool) -> None:
    """A regular file or /dev/null cannot be waited for, and never hangs up."""
    (short_dir / "file").touch()
    with contextlib.closing(Watch(portable=portable)) as watch:
        for path in (short_dir / "file", Path("/dev/null")):
            with path.open("rb") as file:
                for mode in (Mode.READABLE, Mode.ACTIVITY):
                    with pytest.raises(PermissionError, match="cannot be waited for"):
                        watch.set(file.fileno(), mode)
                    assert watch.mode(file.fileno()) is Mode.OFF
                watch.set(file.fileno(), Mode.HANGUP)
                assert watch.mode(file.fileno()) is Mode.HANGUP
                assert _is_silent(watch)
                watch.set(file.fileno(), Mode.OFF)
                watch.remove(file.fileno())


def test_what_is_not_open(watch: Watch) -> None:
    """What is not open cannot be watched."""
    free = os.dup(0)
    os.close(free)
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        watch.set(free, Mode.READABLE)
    assert caught.value.errno == errno.EBADF
    assert watch.mode(free) is Mode.OFF


@pytest.mark.parametrize("portable", [False, True])
def test_remove_before_close(portable: bool) -> None:
    """Removed before it is closed, a listener that others still hold is heard of no more."""
    with contextlib.closing(Watch(portable=portable)) as watch, _listen("tcp") as listener:
        copy = os.dup(listener.fileno())
        watch.set(copy, Mode.READABLE)
        with _connect(listener):
            assert _wait(watch) == [(copy, Event.READABLE)]
            watch.remove(copy)
            watch.remove(copy)
            os.close(copy)
            assert _is_silent(watch)
            assert watch.mode(copy) is Mode.OFF


def test_token(watch: Watch) -> None:
    """A token stays until another is given."""
    with _listen("tcp") as listener, _connect(listener):
        watch.set(listener.fileno(), Mode.HANGUP, "first")
        watch.set(listener.fileno(), Mode.READABLE)
        assert _wait(watch) == [("first", Event.READABLE)]
        watch.set(listener.fileno(), Mode.READABLE, "second")
        assert _wait(watch) == [("second", Event.READABLE)]


def test_without_hangups() -> None:
    """Without epoll, connections are told, and nothing is watched for hang-ups alone."""
    with contextlib.closing(Watch(portable=True)) as watch, _listen("tcp") as listener:
        watch.set(listener.fileno(), Mode.HANGUP, "x")
        with _connect(listener):
            assert select.select([listener], [], [], SECONDS)[0]
            assert _is_silent(watch)
            watch.set(listener.fileno(), Mode.READABLE)
            assert _wait(watch) == [("x", Event.READABLE)]
            watch.set(listener.fileno(), Mode.HANGUP)
            assert _is_silent(watch)


def test_in_a_reactor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reactor waits for all listeners by one descriptor, and for the end of the pauses."""
    monkeypatch.setattr(module, "PAUSE", 0.05)
    seen: list[tuple[object, Event]] = []
    with (
        contextlib.closing(Reactor()) as reactor,
        contextlib.closing(Watch()) as watch,
        _listen("tcp") as first,
        _listen("unix") as second,
    ):
        reactor.watch(watch.fileno(), READ, lambda: seen.extend(watch.dispatch()))
        reactor.add(watch)
        watch.set(first.fileno(), Mode.READABLE, "first")
        watch.set(second.fileno(), Mode.ACTIVITY, "second")
        deadline = time.monotonic() + SECONDS
        with _connect(second):
            while not seen and time.monotonic() < deadline:
                reactor.step(None)
            second.accept()[0].close()
        while watch.deadline() is not None and time.monotonic() < deadline:
            reactor.step(None)
        with _connect(second), _connect(first):
            while len(seen) < 3 and time.monotonic() < deadline:
                reactor.step(None)
            assert seen[0] == ("second", Event.ACTIVITY)
            assert set(seen[1:]) == {("first", Event.READABLE), ("second", Event.ACTIVITY)}


def test_close(watch: Watch) -> None:
    """Closing closes nobody's listener, and removing afterwards is harmless."""
    with _listen("tcp") as listener:
        watch.set(listener.fileno(), Mode.READABLE)
        watch.close()
        watch.close()
        watch.remove(listener.fileno())
        assert watch.deadline() is None
        with _connect(listener):
            listener.accept()[0].close()
