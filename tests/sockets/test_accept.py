"""sockact.sockets.accept: real connections."""

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockact.activation.receive import own_pidfd_id
from sockact.sockets.accept import Accepted, Acceptor
from sockact.sockets.caller import End
from sockact.spec import ListenerSpec, Origin, Setting, SocketSpec
from tests.helpers import SECONDS

NOTHING: tuple[ListenerSpec, ...] = ()
PLAIN = SocketSpec("test.socket", NOTHING)


def _spec(**settings: object) -> SocketSpec:
    origin = Origin("test.socket", 1)
    return SocketSpec(
        "test.socket", NOTHING, {name: Setting(value, origin) for name, value in settings.items()}
    )


def _no_warning(line: str) -> None:
    pytest.fail(line)


def _acceptor(
    listener: socket.socket, spec: SocketSpec = PLAIN, *, blocking: bool = True
) -> Acceptor:
    return Acceptor(listener.fileno(), spec, blocking=blocking, warn=_no_warning)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A non-blocking TCP listener."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def alarm() -> Iterator[None]:
    """Put SIGALRM back as it was: an acceptor of a blocking listener leaves its handler."""
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.signal(signal.SIGALRM, before)


def _connect(listener: socket.socket, name: str = "") -> socket.socket:
    client = socket.socket(listener.family, listener.type)
    client.settimeout(SECONDS)
    if name:
        client.bind(name)
    client.connect(listener.getsockname())
    return client


def _accept(acceptor: Acceptor, listener: socket.socket) -> Accepted:
    """Accept what has been connected: it may arrive a moment later."""
    assert select.select([listener], [], [], SECONDS)[0]
    accepted = acceptor.accept()
    assert accepted is not None
    return accepted


@pytest.mark.parametrize("blocking", [True, False])
def test_connection(listener: socket.socket, blocking: bool) -> None:
    """A connection is close-on-exec, blocks as asked, and is the client's."""
    acceptor = _acceptor(listener, blocking=blocking)
    assert acceptor.accept() is None
    with _connect(listener) as client, contextlib.closing(_accept(acceptor, listener)) as accepted:
        fd = accepted.handle.fileno()
        assert not os.get_inheritable(fd)
        assert os.get_blocking(fd) == blocking
        assert not os.get_blocking(listener.fileno())
        caller = accepted.caller
        assert caller.family == socket.AF_INET
        assert caller.local == End(*listener.getsockname())
        assert caller.remote == End(*client.getsockname())
        assert caller.cookie
        assert (caller.pid, caller.uid, caller.pidfd_id) == (0, None, None)
        client.send(b"x")
        assert os.read(fd, 1) == b"x"


@pytest.mark.parametrize("default", [None, 5.0])
def test_default_timeout(listener: socket.socket, default: float | None) -> None:
    """A process-wide default timeout changes nothing of a connection."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(default)
    try:
        acceptor = _acceptor(listener)
        with _connect(listener), contextlib.closing(_accept(acceptor, listener)) as accepted:
            assert os.get_blocking(accepted.handle.fileno())
    finally:
        socket.setdefaulttimeout(before)


def test_ipv6() -> None:
    """An IPv6 connection has its ends without brackets, and an IPv4 one to it is mapped."""
    try:
        listener = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except (OSError, ValueError) as error:
        pytest.skip(str(error))
    with listener:
        listener.setblocking(False)
        acceptor = _acceptor(listener)
        port = listener.getsockname()[1]
        for address, host in (("::1", "::1"), ("127.0.0.1", "::ffff:127.0.0.1")):
            with (
                socket.create_connection((address, port), SECONDS) as client,
                contextlib.closing(_accept(acceptor, listener)) as accepted,
            ):
                assert accepted.caller.local == End(host, port)
                assert accepted.caller.remote == End(host, client.getsockname()[1])


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("bound", ["", "path", "abstract"])
def test_unix(short_dir: Path, kind: int, bound: str) -> None:
    """Of a Unix socket the process and user at the other end are known, and its name if any."""
    name = {"": "", "path": str(short_dir / "me"), "abstract": "\0me-" + short_dir.name}[bound]
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(str(short_dir / "s"))
        listener.listen()
        listener.setblocking(False)
        acceptor = _acceptor(listener)
        with (
            _connect(listener, name),
            contextlib.closing(_accept(acceptor, listener)) as accepted,
        ):
            caller = accepted.caller
            assert caller.local == End(str(short_dir / "s"))
            assert caller.remote == End(name.replace("\0", "@"))
            assert (caller.pid, caller.uid) == (os.getpid(), os.geteuid())
            assert caller.pidfd_id == own_pidfd_id()
            assert caller.cookie


def test_unix_peer_that_is_gone(short_dir: Path) -> None:
    """A client that has exited already is known all the same."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_dir / "s"))
        listener.listen()
        listener.setblocking(False)
        code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
        client = subprocess.Popen([sys.executable, "-c", code, str(short_dir / "s")])
        client.wait(SECONDS)
        with contextlib.closing(_accept(_acceptor(listener), listener)) as accepted:
            assert (accepted.caller.pid, accepted.caller.uid) == (client.pid, os.geteuid())


def test_options(listener: socket.socket) -> None:
    """What a unit sets after listen() is set on each connection, and what fails is a warning."""
    warnings: list[str] = []
    spec = _spec(KeepAlive=True, NoDelay=True, ReceiveBuffer=2**40, SendBuffer=20000)
    acceptor = Acceptor(listener.fileno(), spec, blocking=True, warn=warnings.append)
    with _connect(listener), contextlib.closing(_accept(acceptor, listener)) as accepted:
        connection = socket.socket(fileno=accepted.handle.release())
        with connection:
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 40000
    assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    (warning,) = warnings
    assert warning.startswith("test.socket:1: ReceiveBuffer= (")


def test_client_that_has_given_up(listener: socket.socket) -> None:
    """A connection that was reset before it was taken is none, and those behind it are."""
    acceptor = _acceptor(listener)
    gone = _connect(listener)
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.close()
    with _connect(listener):
        assert select.select([listener], [], [], SECONDS)[0]
        assert acceptor.accept() is None
        with contextlib.closing(_accept(acceptor, listener)):
            pass
    assert acceptor.accept() is None


def test_client_that_has_finished(listener: socket.socket) -> None:
    """A client that sent all that it had and closed is served."""
    acceptor = _acceptor(listener)
    with _connect(listener) as client:
        client.sendall(b"that is all")
    with contextlib.closing(_accept(acceptor, listener)) as accepted:
        assert os.read(accepted.handle.fileno(), 100) == b"that is all"


def test_listener_that_was_shut_down(listener: socket.socket) -> None:
    """A listener that is none any more is an error, not an empty queue."""
    acceptor = _acceptor(listener)
    listener.shutdown(socket.SHUT_RDWR)
    with pytest.raises(OSError, match="Invalid argument"):
        acceptor.accept()


def test_no_descriptors_left(listener: socket.socket) -> None:
    """Where there is no room for a connection, that is an error, and the connection waits."""
    import resource

    acceptor = _acceptor(listener)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with _connect(listener):
        assert select.select([listener], [], [], SECONDS)[0]
        free = os.dup(listener.fileno())
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                acceptor.accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with contextlib.closing(_accept(acceptor, listener)):
            pass


def test_no_socket() -> None:
    """What is no socket is refused at once."""
    with open("/dev/null", "rb") as file, pytest.raises(OSError, match="non-socket"):
        Acceptor(file.fileno(), PLAIN, blocking=True, warn=_no_warning)


# --- listeners that block -------------------------------------------------------------------------


@pytest.mark.usefixtures("alarm")
def test_blocking_listener(listener: socket.socket) -> None:
    """From a listener that blocks a connection is taken, and none is waited for; it stays so."""
    listener.setblocking(True)
    acceptor = _acceptor(listener, blocking=False)
    assert acceptor.accept() is None
    with _connect(listener), contextlib.closing(_accept(acceptor, listener)) as accepted:
        assert not os.get_inheritable(accepted.handle.fileno())
        assert not os.get_blocking(accepted.handle.fileno())
    assert acceptor.accept() is None
    assert os.get_blocking(listener.fileno())
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.usefixtures("alarm")
def test_somebody_else_was_faster(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another holder takes the connection in the last moment, the accept does not hang."""
    listener.setblocking(True)
    acceptor = _acceptor(listener)

    class Poll:
        """A poll after which somebody else accepts at once."""

        def register(self, fd: int, events: int) -> None:
            self._poll = real()
            self._poll.register(fd, events)

        def poll(self, timeout: int) -> list[tuple[int, int]]:
            found = self._poll.poll(timeout)
            listener.accept()[0].close()
            return found

    real = select.poll
    with _connect(listener):
        assert select.select([listener], [], [], SECONDS)[0]
        monkeypatch.setattr(select, "poll", Poll)
        began = time.monotonic()
        assert acceptor.accept() is None
        assert time.monotonic() - began < SECONDS
    monkeypatch.undo()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with _connect(listener), contextlib.closing(_accept(acceptor, listener)):
        pass


def test_blocking_listener_in_a_thread(listener: socket.socket) -> None:
    """In another thread than the main one a connection that waits is taken, too."""
    listener.setblocking(True)
    acceptor = _acceptor(listener)
    taken: list[Accepted | None] = []
    with _connect(listener):
        assert select.select([listener], [], [], SECONDS)[0]
        thread = threading.Thread(
            target=lambda: taken.extend([acceptor.accept(), acceptor.accept()])
        )
        thread.start()
        thread.join(SECONDS)
        accepted, none = taken
        assert accepted is not None
        assert none is None
        accepted.close()
