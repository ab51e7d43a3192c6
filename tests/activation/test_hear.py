"""sockact.activation.hear: the manager's end of NOTIFY_SOCKET, with all kinds of senders."""

import contextlib
import ctypes.util
import fcntl
import itertools
import os
import resource
import select
import shutil
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
import sdnotify

import sockact
from sockact import notify
from sockact.activation.hear import Ear, Heard
from sockact.fd.own import OwnedFd
from sockact.rendezvous.react import READ, Reactor
from tests.conformance.namespaces import missing
from tests.helpers import ROOT, SECONDS, clean_environ

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


class Notes:
    """Writes down what is heard."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.complaints: list[str] = []
        self.fds: list[OwnedFd] = []

    def handle(self, heard: Heard) -> None:
        """Keep the message, not its descriptors."""
        self.heard.append(heard)

    def keep(self, heard: Heard) -> None:
        """Keep the message and its descriptors."""
        self.fds += heard.take()
        self.heard.append(heard)

    @property
    def lines(self) -> list[tuple[str, ...]]:
        """What was said."""
        return [heard.message.lines for heard in self.heard]


@pytest.fixture
def notes() -> Iterator[Notes]:
    """Give something to write down in, and close what was kept."""
    found = Notes()
    yield found
    for fd in found.fds:
        fd.close()


@pytest.fixture(params=["abstract", "path"])
def ear(
    request: pytest.FixtureRequest, notes: Notes, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ear]:
    """Open an ear, and be one of its service's processes."""
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("needs Linux")
    directory = str(short_dir) if request.param == "path" else None
    with Ear(directory=directory, complain=notes.complaints.append) as found:
        monkeypatch.setenv("NOTIFY_SOCKET", found.address)
        yield found
        monkeypatch.undo()


@contextlib.contextmanager
def sender(ear: Ear) -> Iterator[socket.socket]:
    """Connect a bare socket to an ear."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(ear.address.replace("@", "\0", 1))
        yield sock


def send(ear: Ear, payload: bytes, *fds: int) -> None:
    """Send a message as it is."""
    with sender(ear) as sock:
        socket.send_fds(sock, [payload], fds)


def hung_up(fd: int) -> bool:
    """Whether nobody has the other end of a pipe open."""
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


@pytest.fixture
def pipe() -> Iterator[tuple[int, OwnedFd]]:
    """Give the reading end of a pipe, and the writing one to be sent and closed."""
    reader, writer = os.pipe()
    owned = OwnedFd(writer)
    yield reader, owned
    owned.close()
    os.close(reader)


def hear_until(ear: Ear, handle: Callable[[Heard], None], process: subprocess.Popen[str]) -> str:
    """Hear until a process ends well, and return what it printed."""
    deadline = time.monotonic() + SECONDS
    with process:
        assert process.stdout
        while True:
            waiting: list[Ear | IO[str]] = [ear, process.stdout]
            ready, _, _ = select.select(waiting, [], [], SECONDS)
            assert ready
            assert time.monotonic() < deadline
            ear.hear(handle)
            if process.stdout in ready:
                break
        text = process.stdout.read()
        assert process.wait(SECONDS) == 0
    ear.hear(handle, None)
    return text


def start(*command: str) -> subprocess.Popen[str]:
    """Start a program as one of the service's processes."""
    environ = clean_environ() | {"NOTIFY_SOCKET": os.environ["NOTIFY_SOCKET"]}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ, cwd=ROOT)


def start_python(source: str) -> subprocess.Popen[str]:
    """Start some Python as one of the service's processes."""
    return start(sys.executable, "-c", textwrap.dedent(source))


def test_own_library(ear: Ear, notes: Notes) -> None:
    """What sockact.notify says arrives in order, with who said it."""
    notify.ready("up")
    notify.status("grün")
    notify.reloading()
    notify.watchdog()
    notify.stopping()
    assert ear.hear(notes.handle) == 5
    ready, status, reloading, watchdog, stopping = [heard.message for heard in notes.heard]
    assert ready.ready
    assert ready.status == "up"
    assert status.status == "grün"
    assert reloading.reloading
    assert (reloading.monotonic_usec or 0) > 0
    assert watchdog.watchdog_ping
    assert stopping.stopping
    who = {(heard.pid, heard.uid, heard.gid) for heard in notes.heard}
    assert who == {(os.getpid() if sys.platform == "linux" else 0, os.getuid(), os.getgid())}
    assert notes.complaints == []


def test_sdnotify(ear: Ear, notes: Notes) -> None:
    """The sdnotify package is understood."""
    notifier = sdnotify.SystemdNotifier(debug=True)
    notifier.notify("STATUS=Count is 1")
    notifier.socket.close()
    ear.hear(notes.handle)
    assert notes.lines == [("STATUS=Count is 1",)]


@pytest.mark.skipif(not shutil.which("systemd-notify"), reason="systemd-notify is not installed")
def test_systemd_notify(ear: Ear, notes: Notes) -> None:
    """Systemd's own command is understood, and its barrier answered."""
    command = ("systemd-notify", "--ready", "--status=up and running", f"--pid={os.getpid()}")
    hear_until(ear, notes.handle, start(*command))
    assert len(notes.heard) == 1
    message = notes.heard[0].message
    assert message.ready
    assert message.status == "up and running"
    assert message.mainpid == os.getpid()
    assert notes.complaints == []


@pytest.mark.skipif(not ctypes.util.find_library("systemd"), reason="libsystemd is not installed")
def test_libsystemd(ear: Ear, notes: Notes) -> None:
    """Systemd's library is understood: for another pid, with descriptors, and with a barrier."""
    process = start_python(
        """
        import ctypes, os
        library = ctypes.CDLL("libsystemd.so.0")
        fds = (ctypes.c_int * 3)(*os.pipe(), 0)
        state = b"FDSTORE=1\\nFDNAME=some"
        assert library.sd_pid_notify_with_fds(os.getppid(), 0, state, fds, 2) == 1
        assert library.sd_notifyf(0, b"STATUS=%s %i", b"done", 7) == 1
        assert library.sd_notify_barrier(0, ctypes.c_uint64(20000000)) == 1
        assert library.sd_notify(0, b"READY=1") == 1
        print(os.getpid())
        """
    )
    pid = int(hear_until(ear, notes.keep, process))
    assert [heard.message.lines[0] for heard in notes.heard] == [
        "FDSTORE=1", "STATUS=done 7", "READY=1"
    ]  # fmt: skip
    assert notes.heard[0].message.fdname == "some"
    assert len(notes.fds) == 2
    os.write(notes.fds[1].fileno(), b"x")
    assert os.read(notes.fds[0].fileno(), 1) == b"x"
    # Only root may speak for another.
    first = os.getpid() if os.geteuid() == 0 else pid
    assert [heard.pid for heard in notes.heard] == [first, pid, pid]
    assert notes.complaints == []


def test_descriptors(ear: Ear, notes: Notes) -> None:
    """Descriptors come in their order, close-on-exec, and belong to whoever takes them."""
    with sockact.listen("a=tcp:127.0.0.1:0", "a=udp:127.0.0.1:0") as found:
        notify.store(found, poll=False)
        ear.hear(notes.keep)
        message = notes.heard[0].message
        assert (message.fdstore, message.fdname, message.fdpoll) == (True, "a", False)
        assert notes.heard[0].count == 0
        for fd, number in zip(notes.fds, found.filenos(), strict=True):
            assert os.path.sameopenfile(fd.fileno(), number)
            assert fcntl.fcntl(fd.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert notes.complaints == []


def test_most_descriptors(ear: Ear, notes: Notes) -> None:
    """As many descriptors as fit into one message all come."""
    with open(os.devnull, "rb") as file:
        send(ear, b"FDSTORE=1", *[file.fileno()] * 253)
    ear.hear(notes.keep)
    assert len(notes.fds) == 253


def test_descriptors_that_nobody_takes(ear: Ear, notes: Notes, pipe: tuple[int, OwnedFd]) -> None:
    """They are closed when the message has been handled, and not before; that is said."""
    reader, writer = pipe
    send(ear, b"STATUS=x", writer.fileno())
    writer.close()

    def handle(heard: Heard) -> None:
        assert heard.count == 1
        assert not hung_up(reader)

    ear.hear(handle)
    assert hung_up(reader)
    assert notes.complaints == [f"process {os.getpid()} sent 1 descriptors for nothing"]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [(b"x" * 4097, "longer than 4096"), (b"A\0B", "NUL"), (b"BARRIER=1\nREADY=1", "alone")],
)
def test_dropped(
    ear: Ear, notes: Notes, pipe: tuple[int, OwnedFd], payload: bytes, reason: str
) -> None:
    """A message that breaks the rules is dropped with its descriptors; the next one is heard."""
    reader, writer = pipe
    send(ear, payload, writer.fileno())
    writer.close()
    notify.ready()
    assert ear.hear(notes.handle) == 2
    assert notes.lines == [("READY=1",)]
    assert hung_up(reader)
    assert len(notes.complaints) == 1
    assert reason in notes.complaints[0]


def test_longest(ear: Ear, notes: Notes) -> None:
    """4096 bytes are not too many."""
    send(ear, b"X=" + b"x" * 4094)
    ear.hear(notes.handle)
    assert len(notes.lines[0][0]) == 4096


@on_linux
def test_no_room_for_descriptors(ear: Ear, notes: Notes, pipe: tuple[int, OwnedFd]) -> None:
    """A message that lost descriptors is dropped, and those that came with it are closed."""
    reader, writer = pipe
    send(ear, b"FDSTORE=1", *[writer.fileno()] * 100)
    writer.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = (number for number in itertools.count() if not os.path.exists(f"/proc/self/fd/{number}"))
    limit = next(itertools.islice(free, 10, None))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        assert ear.hear(notes.handle) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert notes.heard == []
    assert hung_up(reader)
    assert "RLIMIT_NOFILE" in notes.complaints[0]


def test_barrier(ear: Ear, notes: Notes, pipe: tuple[int, OwnedFd]) -> None:
    """It is answered when what was sent before has been handled, and before what comes after."""
    reader, writer = pipe
    notify.status("before")
    send(ear, b"BARRIER=1", writer.fileno())
    writer.close()
    notify.status("after")

    def handle(heard: Heard) -> None:
        assert hung_up(reader) == (heard.message.status == "after")
        notes.handle(heard)

    assert ear.hear(handle, limit=1) == 1
    assert not hung_up(reader)
    assert ear.hear(handle) == 2
    assert notes.lines == [("STATUS=before",), ("STATUS=after",)]
    assert notes.complaints == []


def test_barrier_of_the_library(ear: Ear, notes: Notes) -> None:
    """A process that waits at sockact's barrier goes on when it was heard."""
    process = start_python("from sockact import notify; print(notify.barrier(20))")
    assert hear_until(ear, notes.handle, process) == "True\n"
    assert notes.heard == []


@pytest.mark.parametrize("count", [0, 2])
def test_odd_barrier(ear: Ear, notes: Notes, pipe: tuple[int, OwnedFd], count: int) -> None:
    """One without a descriptor, or with two, is for nobody to handle, and closed too."""
    reader, writer = pipe
    send(ear, b"BARRIER=1", *[writer.fileno()] * count)
    writer.close()
    assert ear.hear(notes.handle) == 1
    assert notes.heard == []
    assert hung_up(reader)
    assert notes.complaints == [f"process {os.getpid()} sent BARRIER=1 with {count} descriptors"]


def test_last_words(ear: Ear, notes: Notes) -> None:
    """What a process said that has ended, and been waited for, is heard as its own."""
    process = start_python("from sockact import notify; notify.stopping(); notify.status('bye')")
    with process:
        assert process.wait(SECONDS) == 0
    assert ear.hear(notes.handle, None) == 2
    assert {heard.pid for heard in notes.heard} == {process.pid}
    assert notes.lines == [("STOPPING=1",), ("STATUS=bye",)]


@as_root
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_another_user(notes: Notes, monkeypatch: pytest.MonkeyPatch, short_dir: Path) -> None:
    """A service that runs as another user can speak, and its ids are seen."""
    for directory in [None, str(short_dir)]:
        with Ear(directory=directory, user=12345) as ear:
            monkeypatch.setenv("NOTIFY_SOCKET", ear.address)
            pid = os.fork()
            if not pid:
                with contextlib.suppress(BaseException):
                    os.setgroups([])
                    os.setgid(54321)
                    os.setuid(12345)
                    notify.ready()
                os._exit(0)
            os.waitpid(pid, 0)
            ear.hear(notes.handle)
        monkeypatch.undo()
    assert [(heard.uid, heard.gid) for heard in notes.heard] == [(12345, 54321)] * 2


_INSIDE = """
import select
from sockact.activation.hear import Ear
ear = Ear(complain=lambda text: print(text, flush=True))
print(ear.address, flush=True)
select.select([ear], [], [])
print(ear.hear(print))
"""


@on_linux
def test_sender_outside_of_the_pid_namespace(ear: Ear) -> None:
    """Somebody without a pid here is not heard."""
    if reason := missing():
        pytest.skip(reason)
    inside = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child=KILL", sys.executable, "-c",
         _INSIDE],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with inside:
        assert inside.stdout
        address = inside.stdout.readline().strip()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect("\0" + address[1:])
            sock.send(b"READY=1")
        said = inside.stdout.read()
    assert "the kernel does not tell who sent it" in said
    assert said.endswith("\n1\n")
    assert ear.hear(print) == 0


def test_limit(ear: Ear, notes: Notes) -> None:
    """One call reads no more than it may, and what is left makes the ear readable."""
    for number in range(5):
        notify.status(str(number))
    assert ear.hear(notes.handle, 2) == 2
    assert select.select([ear], [], [], 0)[0]
    assert ear.hear(notes.handle) == 3
    assert not select.select([ear], [], [], 0)[0]
    assert ear.hear(notes.handle) == 0
    assert [heard.message.status for heard in notes.heard] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("limit", [64, None])
def test_flood(ear: Ear, notes: Notes, limit: int | None) -> None:
    """A sender that never stops keeps no call from returning; what had waited was heard."""
    for number in range(8):
        notify.status(str(number))

    def handle(heard: Heard) -> None:
        notes.handle(heard)
        notify.status("again")

    count = ear.hear(handle, limit)
    assert count >= 64
    if limit is None and sys.platform == "linux":
        assert count > int(Path("/proc/sys/net/unix/max_dgram_qlen").read_bytes())
    said = [heard.message.status for heard in notes.heard]
    assert said == [*map(str, range(8)), *["again"] * (count - 8)]


def test_handler_fails(ear: Ear, notes: Notes, pipe: tuple[int, OwnedFd]) -> None:
    """Its error comes out, the message's descriptors are closed, and the next message waits."""
    reader, writer = pipe
    send(ear, b"FDSTORE=1", writer.fileno())
    writer.close()
    notify.ready()

    def fail(_: Heard) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        ear.hear(fail)
    assert hung_up(reader)
    assert ear.hear(notes.handle) == 1
    assert notes.lines == [("READY=1",)]


def test_hearing_while_handling(ear: Ear, notes: Notes, pipe: tuple[int, OwnedFd]) -> None:
    """A handler that hears reads nothing, so that no barrier passes the message before it."""
    reader, writer = pipe
    notify.ready()
    send(ear, b"BARRIER=1", writer.fileno())
    writer.close()

    def handle(heard: Heard) -> None:
        assert ear.hear(handle) == 0
        assert not hung_up(reader)
        notes.handle(heard)

    assert ear.hear(handle) == 2
    assert hung_up(reader)
    assert notes.lines == [("READY=1",)]


def test_closing_while_handling(ear: Ear, notes: Notes) -> None:
    """A handler may close the ear; what had not been heard is gone."""
    notify.ready()
    notify.stopping()

    def handle(heard: Heard) -> None:
        notes.handle(heard)
        ear.close()

    assert ear.hear(handle) == 1
    assert notes.lines == [("READY=1",)]
    assert ear.hear(handle) == 0


def test_closing_closes_what_waits(ear: Ear, pipe: tuple[int, OwnedFd]) -> None:
    """Descriptors that have not been read are closed with the ear; nobody can send any more."""
    reader, writer = pipe
    send(ear, b"FDSTORE=1", writer.fileno())
    writer.close()
    ear.close()
    ear.close()
    assert hung_up(reader)
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)), sender(ear):
        pass


def test_on_a_reactor(ear: Ear, notes: Notes) -> None:
    """It is a descriptor to wait for like any other."""

    def listen() -> None:
        ear.hear(notes.handle)

    with contextlib.closing(Reactor()) as reactor:
        reactor.watch(ear.fileno(), READ, listen)
        notify.ready()
        reactor.step(SECONDS)
        reactor.unwatch(ear.fileno())
    assert notes.lines == [("READY=1",)]


def test_path_is_private(short_dir: Path) -> None:
    """Only its user can reach a socket with a path, and closing leaves nothing behind."""
    with Ear(directory=str(short_dir)) as ear:
        place = Path(ear.address).parent
        assert place.parent == short_dir
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert stat.S_ISSOCK(Path(ear.address).stat().st_mode)
    assert list(short_dir.iterdir()) == []


def test_failure_leaves_nothing(short_dir: Path) -> None:
    """An ear that cannot be opened leaves neither descriptor nor directory."""
    place = short_dir / ("d" * 100)
    place.mkdir()
    with pytest.raises(OSError, match="too long"):
        Ear(directory=str(place))
    assert list(place.iterdir()) == []


@on_linux
def test_abstract_names_cannot_be_guessed() -> None:
    """No two names are alike, and a person sees what they are for."""
    with Ear() as one, Ear() as other:
        assert one.address != other.address
        assert one.address.startswith("@sockact/notify/")
        assert len(one.address) == len("@sockact/notify/") + 32


@on_linux
def test_descriptor_flags() -> None:
    """The descriptor is close-on-exec and does not block."""
    with Ear() as ear:
        assert fcntl.fcntl(ear.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        assert not os.get_blocking(ear.fileno())
