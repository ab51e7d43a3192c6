"""sockact.activation.spawn: programs started as children, and what they find."""

import contextlib
import errno
import gc
import json
import os
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from sockact.activation import birth, image, libc, spawn
from sockact.activation.execution import Execution, How, Limit, Step, Stream, StreamFile
from sockact.activation.program import Identity, identity
from sockact.activation.receive import own_pidfd_id
from sockact.errors import CredentialsError, LaunchError, WorkingDirectoryError
from tests.helpers import SECONDS, clean_environ

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

# What a program finds, as JSON on descriptor 1.
REPORT = """
import json, os, resource, stat, sys
fds = {}
for name in os.listdir("/proc/self/fd"):
    try: fds[int(name)] = [os.fstat(int(name)).st_ino, os.readlink(f"/proc/self/fd/{name}")]
    except OSError: pass
status = dict(l.split(":", 1) for l in open("/proc/self/status") if ":" in l)
ids = [os.getresuid(), os.getresgid(), sorted(os.getgroups())]
try: pidfd = os.fstat(os.pidfd_open(os.getpid())).st_ino
except (OSError, AttributeError): pidfd = None
umask = os.umask(0)
death = None
if "death" in sys.argv:
    import ctypes
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0)
    death = number.value
json.dump({
    "argv": sys.argv[1:], "pid": os.getpid(), "ppid": os.getppid(), "sid": os.getsid(0),
    "cwd": os.getcwd(), "environ": dict(os.environ), "fds": fds, "ids": ids, "umask": umask,
    "ignored": int(status["SigIgn"], 16), "blocked": int(status["SigBlk"], 16),
    "ambient": int(status.get("CapAmb", "0"), 16), "death": death, "pidfd": pidfd,
    "nice": os.nice(0), "oom": int(open("/proc/self/oom_score_adj").read()),
    "limits": {name[7:]: resource.getrlimit(getattr(resource, name))
               for name in dir(resource) if name.startswith("RLIMIT_")},
}, sys.stdout)
"""

pytestmark = pytest.mark.alone

EVERY_WAY = pytest.mark.usefixtures("way")
Way = Literal["chosen", "calls", "clone", "fork"]


@pytest.fixture(params=["chosen", "calls", "clone", "fork"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Way:
    """Start programs as the module chooses to, or by one of its other ways."""
    chosen: Way = request.param
    if chosen == "calls":
        monkeypatch.setattr(spawn, "_knows_itself", lambda _: True)
    elif chosen != "chosen":
        monkeypatch.setattr(spawn, "_is_simple", lambda *_: False)
    if chosen == "fork":
        monkeypatch.setattr(spawn, "clone", lambda: None)
        monkeypatch.setattr(birth, "libc", lambda: None)
        monkeypatch.setattr(image, "libc", lambda: None)
    return chosen


def _execution(program: str = "/bin/sh", *arguments: str, **more: Any) -> Execution:
    environ = more.pop("environ", {"PATH": os.environ["PATH"]})
    return Execution(program, (program, *arguments), environ, **more)


def _status(child: spawn.Child) -> int:
    """Wait for the end of a child and return how it ended, as a shell says it."""
    if hasattr(os, "pidfd_open"):
        pidfd = os.pidfd_open(child.pid)
        if not select.select([pidfd], [], [], SECONDS)[0]:
            os.kill(child.pid, signal.SIGKILL)
        os.close(pidfd)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
    finally:
        child.close()


def _run(execution: Execution, fds: Sequence[int] = ()) -> int:
    """Run a program to its end; raise what it could not start for."""
    child = spawn.spawn(execution, fds)
    failure = child.wait_started()
    status = _status(child)
    if failure is not None:
        assert status == failure.status
        raise failure
    return status


def _seen(fds: Sequence[int] = (), arguments: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    """Start a program that reports what it finds, on its standard output."""
    python = sys.executable if more.get("who") is None else "/usr/bin/python3"
    with _memory() as file:
        more.setdefault("stdout", len(fds))
        execution = _execution(python, "-I", "-S", "-c", REPORT, *arguments, **more)
        assert _run(execution, [*fds, file]) == 0
        os.lseek(file, 0, os.SEEK_SET)
        found: dict[str, Any] = json.loads(os.read(file, 1 << 24))
    return found


@contextlib.contextmanager
def _memory() -> Iterator[int]:
    fd = os.memfd_create("output")
    try:
        yield fd
    finally:
        os.close(fd)


def _output(script: str, **more: Any) -> str:
    """Run a shell script and return what it writes."""
    with _memory() as file:
        execution = _execution("/bin/sh", "-c", script, stdout=0, listen=False, **more)
        assert _run(execution, [file]) == 0
        return os.pread(file, 1 << 20, 0).decode()


def _failure(execution: Execution, fds: Sequence[int] = ()) -> LaunchError:
    with pytest.raises(LaunchError) as caught:
        _run(execution, fds)
    return caught.value


# --- descriptors ----------------------------------------------------------------------------------


@EVERY_WAY
def test_descriptors_and_their_variables() -> None:
    """Descriptors stand from 3 on in order, and LISTEN_* tell of them."""
    with socket.socket() as one, socket.socket() as other:
        fds = [one.fileno(), other.fileno()]
        seen = _seen(fds, names=("web", "api"))
        inodes = [os.fstat(fd).st_ino for fd in fds]
    assert [seen["fds"][number][0] for number in ("3", "4")] == inodes
    assert seen["environ"]["LISTEN_FDS"] == "2"
    assert seen["environ"]["LISTEN_FDNAMES"] == "web:api"
    assert seen["environ"]["LISTEN_PID"] == str(seen["pid"])
    assert seen["ppid"] == os.getpid()


@EVERY_WAY
def test_pidfd_id() -> None:
    """LISTEN_PIDFDID is the number of the program's own pidfd, where there are such numbers."""
    seen = _seen([0], names=("a",))
    expected = None if own_pidfd_id() is None else str(seen["pidfd"])
    assert seen["environ"].get("LISTEN_PIDFDID") == expected


@EVERY_WAY
def test_nothing_else_is_inherited() -> None:
    """Whatever is open here stays here: inheritable or not, and the pipe that reports, too."""
    kept = [os.open("/", os.O_RDONLY) for _ in range(50)]
    try:
        os.set_inheritable(kept[20], True)
        os.set_inheritable(os.dup2(kept[0], 500), True)
        kept.append(500)
        seen = _seen([kept[40], kept[3]], names=("a", "b"))
        assert set(seen["fds"]) == {"0", "1", "2", "3", "4"}
        alone = _seen(listen=False)
        assert set(alone["fds"]) == {"0", "1", "2"}
    finally:
        for fd in kept:
            os.close(fd)


@EVERY_WAY
def test_no_variables_without_listen() -> None:
    """Descriptors may be passed without a word; the environment is exactly what was given."""
    seen = _seen([0], names=("a",), listen=False, environ={"A": "1", "LISTEN_PID": "7"})
    assert set(seen["fds"]) == {"0", "1", "2", "3"}
    environ = {k: v for k, v in seen["environ"].items() if k != "LC_CTYPE"}  # Python sets that
    assert environ == {"A": "1", "LISTEN_PID": "7"}


@EVERY_WAY
def test_variables_of_the_process_id() -> None:
    """Some variables hold the process id of the program, whatever the environment says of them."""
    seen = _seen(
        [0], names=("a",), pid_variables=("WATCHDOG_PID", "SYSTEMD_EXEC_PID"),
        environ={"WATCHDOG_PID": "1", "LISTEN_PID": "1", "LISTEN_FDS": "9", "B": "ä\udcff="},
    )  # fmt: skip
    for name in ("WATCHDOG_PID", "SYSTEMD_EXEC_PID", "LISTEN_PID"):
        assert seen["environ"][name] == str(seen["pid"])
    assert seen["environ"]["LISTEN_FDS"] == "1"
    assert seen["environ"]["B"] == "ä\udcff="


@EVERY_WAY
def test_withheld_variables() -> None:
    """Of some variables the environment has the last word, also that there are none."""
    seen = _seen(
        [0, 0], names=("a", "b"), pid_variables=("WATCHDOG_PID", "SYSTEMD_EXEC_PID"),
        environ={"WATCHDOG_PID": "x", "LISTEN_FDNAMES": "y"},
        withheld=("WATCHDOG_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "SYSTEMD_EXEC_PID", "NONE"),
    )  # fmt: skip
    environ = {name: value for name, value in seen["environ"].items() if name != "LC_CTYPE"}
    assert environ == {
        "WATCHDOG_PID": "x", "LISTEN_FDNAMES": "y", "LISTEN_FDS": "2",
        "LISTEN_PID": str(seen["pid"]),
    }  # fmt: skip


def test_descriptors_that_are_in_each_others_place(way: Way) -> None:
    """Numbers that are wanted for other descriptors, cycles and duplicates, come out right."""
    files = {number: os.memfd_create(str(number)) for number in range(6)}
    taken: list[int] = []
    try:
        top = max(files.values())
        for number, file in files.items():
            taken.append(os.dup2(file, top + 1 + number, inheritable=False))
        base = top + 1
        # In a child of ours the numbers from 3 on are free to be used up to where the files stand.
        script = textwrap.dedent(f"""
            import os, sys
            sys.path[:0] = {sys.path!r}
            from sockact.activation import birth, image, spawn
            from sockact.activation.execution import Execution
            if {way!r} != "chosen": spawn._is_simple = lambda *_: False
            if {way!r} == "fork":
                spawn.clone = birth.libc = image.libc = lambda: None
            for number in range(6):
                os.dup2({base} + number, 3 + number, inheritable=False)
            for order in ([4, 3, 5], [5, 3, 4, 6], [3, 4, 5], [6, 6, 3, 3], [8, 7, 6, 5, 4, 3],
                          [4, 5, 6, 7, 8, 3], [3, 3, 3], [4, 3, 6, 5, 8, 7]):
                names = tuple("n" for _ in order)
                for listen in (False, True):
                    check = "readlink /proc/self/fd/* | grep memfd"
                    child = spawn.spawn(
                        Execution("/bin/sh", ("sh", "-c", check), dict(os.environ), names,
                                  listen=listen), order)
                    failure = child.wait_started()
                    assert failure is None, failure
                    sys.stdout.flush()
                    os.waitpid(child.pid, 0)
                    print("".join(str(n - 3) for n in order), flush=True)
        """)
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True,
            pass_fds=taken, env=clean_environ(),
        )  # fmt: skip
    finally:
        for fd in (*files.values(), *taken):
            os.close(fd)
    lines = done.stdout.split("\n")[:-1]
    found = ""
    orders = 0
    for line in lines:
        if line.startswith("/memfd:"):
            found += line.removeprefix("/memfd:").split()[0]
        else:
            assert found == line
            found, orders = "", orders + 1
    assert orders == 16


@EVERY_WAY
def test_a_thousand_descriptors() -> None:
    """A thousand descriptors are passed in order."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2100:
        pytest.skip("may not open so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2100, hard))
    files: list[int] = []
    try:
        for _ in range(1000):
            files.insert(0, os.eventfd(0))
        with socket.socket() as sock:
            given = [*files[:999], sock.fileno()]
            seen = _seen(given, names=tuple(f"n{i}" for i in range(1000)))
            assert seen["fds"]["1002"][0] == os.fstat(sock.fileno()).st_ino
        assert set(map(int, seen["fds"])) == set(range(1003))
        assert seen["environ"]["LISTEN_FDS"] == "1000"
        assert seen["environ"]["LISTEN_FDNAMES"].split(":")[999] == "n999"
        silent = _seen(files, names=tuple("n" for _ in files), listen=False)
        assert set(map(int, silent["fds"])) == set(range(1003))
    finally:
        for fd in files:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@EVERY_WAY
def test_no_number_left() -> None:
    """Where no number is left for what a start needs that is said, and nothing leaks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    execution = _execution("/bin/true", names=("a",), stdin=Stream.NULL)
    assert _run(execution, [0]) == 0
    files: list[int] = []
    failures = 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                files.append(os.eventfd(0))
        while True:
            try:
                child = spawn.spawn(execution, [0])
            except LaunchError as error:
                assert str(error) == "cannot run /bin/true: descriptors: Too many open files"
                assert (error.errno, error.status) == (errno.EMFILE, Step.DESCRIPTORS.value)
                failures += 1
                os.close(files.pop())
            else:
                assert child.wait_started() is None
                assert _status(child) == 0
                break
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in files:
            os.close(fd)
    assert 0 < failures < 6


@EVERY_WAY
def test_descriptor_that_is_not_open() -> None:
    """A number that is not open is an error that says at which step."""
    failure = _failure(_execution("/bin/true", names=("a",), listen=False), [999])
    assert (failure.errno, failure.step, failure.status) == (errno.EBADF, "descriptors", 202)


# --- standard streams -----------------------------------------------------------------------------


@EVERY_WAY
def test_connection_as_standard_streams() -> None:
    """A connection can be standard input and output, as of inetd."""
    here, there = socket.socketpair()
    with here, there:
        here.sendall(b"hello\n")
        execution = _execution("/bin/sh", "-c", "read x; echo got $x", stdin=0, stdout=0)
        child = spawn.spawn(execution, [there.fileno()])
        assert child.wait_started() is None
        there.close()
        assert here.recv(100) == b"got hello\n"
        assert _status(child) == 0
        assert here.recv(100) == b""


@EVERY_WAY
def test_null_and_inherit() -> None:
    """/dev/null is opened for what it is used for; what is inherited is ours."""
    links = "readlink /proc/self/fd/0 /proc/self/fd/2; grep flags /proc/self/fdinfo/0 /proc/self/fdinfo/2"
    said = _output(links, stdin=Stream.NULL, stderr=Stream.NULL).split()
    assert said[:2] == ["/dev/null", "/dev/null"]
    assert said[3].endswith("0")  # O_RDONLY
    assert said[5].endswith("1")  # O_WRONLY
    assert _output("readlink /proc/self/fd/0").strip() == os.readlink("/proc/self/fd/0")


@EVERY_WAY
def test_same_stream() -> None:
    """Standard error can be what standard output is, and output what input is."""
    assert _output("echo problem >&2", stderr=Stream.SAME) == "problem\n"
    here, there = socket.socketpair()
    with here, there:
        script = "echo out; echo err >&2"
        execution = _execution(
            "/bin/sh", "-c", script, stdin=0, stdout=Stream.SAME, stderr=Stream.SAME
        )
        assert _run(execution, [there.fileno()]) == 0
        assert here.recv(100) == b"out\nerr\n"


@EVERY_WAY
def test_output_to_files(tmp_path: Path) -> None:
    """Files are appended to, truncated, or written over from their beginning."""
    path = tmp_path / "out"
    for how, expected in (
        (How.APPEND, "0123456789ab\n"),
        (How.TRUNCATE, "ab\n"),
        (How.WRITE, "ab\n3456789"),
    ):
        path.write_text("0123456789", encoding="ascii")
        assert _run(_execution("/bin/echo", "ab", stdout=StreamFile(str(path), how))) == 0
        assert path.read_text(encoding="ascii") == expected


@EVERY_WAY
def test_new_file_obeys_the_umask(tmp_path: Path) -> None:
    """A file that is created has mode 0666 less the program's umask."""
    path = tmp_path / "out"
    file = StreamFile(str(path), How.APPEND)
    assert _run(_execution("/bin/echo", stdout=file, umask=0o027)) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@EVERY_WAY
def test_output_and_error_in_one_file(tmp_path: Path) -> None:
    """A file that is both output and error is opened once, so neither overwrites the other."""
    file = StreamFile(str(tmp_path / "out"), How.TRUNCATE)
    script = "echo out; echo err >&2; echo out"
    assert _run(_execution("/bin/sh", "-c", script, stdout=file, stderr=file)) == 0
    assert (tmp_path / "out").read_text(encoding="ascii") == "out\nerr\nout\n"


@EVERY_WAY
def test_input_from_a_file(tmp_path: Path) -> None:
    """Standard input is read from a file, which is opened for both if it is written to as well."""
    path = tmp_path / "in"
    path.write_text("line\n", encoding="ascii")
    assert _output("cat", stdin=StreamFile(str(path), How.READ)) == "line\n"
    both = {
        "stdin": StreamFile(str(path), How.READ),
        "stdout": StreamFile(str(path), How.WRITE),
    }
    assert _run(_execution("/bin/sh", "-c", "read x; echo more", **both)) == 0
    assert path.read_text(encoding="ascii") == "line\nmore\n"


@EVERY_WAY
def test_socket_as_output(short_dir: Path) -> None:
    """The path of a Unix socket as a file is connected to, for one direction only."""
    path = str(short_dir / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert _run(_execution("/bin/echo", "ab", stdout=StreamFile(path, How.APPEND))) == 0
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100) == b"ab\n"
            assert connection.recv(100) == b""
    failure = _failure(_execution("/bin/echo", stdout=StreamFile(path, How.APPEND)))
    assert (failure.errno, failure.step) == (errno.ECONNREFUSED, "stdout")


@EVERY_WAY
@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_file_that_cannot_be_opened(stream: str) -> None:
    """A file that cannot be opened is named with the stream that it was for."""
    how = How.READ if stream == "stdin" else How.APPEND
    failure = _failure(_execution("/bin/true", **{stream: StreamFile("/no/such/file", how)}))
    words = {"stdin": "input", "stdout": "output", "stderr": "error"}[stream]
    expected = f"cannot run /bin/true: standard {words} /no/such/file: No such file or directory"
    assert str(failure) == expected
    assert failure.errno == errno.ENOENT
    assert (failure.step, failure.status) == (
        stream,
        {"stdin": 208, "stdout": 209}.get(stream, 222),
    )


@EVERY_WAY
def test_waiting_for_a_fifo_holds_nobody_up(short_dir: Path) -> None:
    """A file whose opening takes time is opened by the new process; others do not get its pipe."""
    path = short_dir / "fifo"
    os.mkfifo(path)
    file = StreamFile(str(path), How.READ)
    waiting = spawn.spawn(_execution("/bin/cat", stdin=file, stdout=Stream.NULL))
    with pytest.raises(BlockingIOError):
        waiting.started()
    assert set(_seen(listen=False)["fds"]) == {"0", "1", "2"}
    with open(path, "wb"):
        assert waiting.wait_started() is None
    assert _status(waiting) == 0


# --- the process ----------------------------------------------------------------------------------


@EVERY_WAY
def test_signals() -> None:
    """Nothing is ignored or blocked in the program, whatever is here."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR2,))
    try:
        assert _ignored_and_blocked() == (0, 0)
        ignored, blocked = _ignored_and_blocked(ignore_sigpipe=True)
    finally:
        signal.signal(signal.SIGUSR1, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert (ignored, blocked) == (1 << signal.SIGPIPE - 1, 0)


def _ignored_and_blocked(**more: Any) -> tuple[int, int]:
    """Return the sets of signals that a program finds ignored and blocked.

    Without the two that glibc keeps for itself, and that its posix_spawn() leaves ignored.
    """
    blocked, ignored = _output("grep -E 'Sig(Ign|Blk)' /proc/self/status", **more).split()[1::2]
    return int(ignored, 16) & ~(3 << 31), int(blocked, 16)


@EVERY_WAY
def test_sigpipe_where_it_is_not_ignored_here() -> None:
    """The program ignores SIGPIPE if it is to, though this process does not."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        ignored, _ = _ignored_and_blocked(ignore_sigpipe=True)
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert ignored == 1 << signal.SIGPIPE - 1


@EVERY_WAY
def test_handlers_do_not_run_in_the_child(short_dir: Path) -> None:
    """A signal that comes before execve has its default action, and no handler of ours sees it."""
    os.mkfifo(short_dir / "fifo")
    caught: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: caught.append(number))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    woken = signal.set_wakeup_fd(writer)
    try:
        child = spawn.spawn(
            _execution("/bin/cat", stdin=StreamFile(str(short_dir / "fifo"), How.READ))
        )
        os.kill(child.pid, signal.SIGTERM)
        assert _status(child) == -signal.SIGTERM
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    finally:
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGTERM, before)
        os.close(reader)
        os.close(writer)
    assert not caught


@EVERY_WAY
def test_signals_that_come_all_the_time() -> None:
    """However close to the fork a signal comes, its handler runs here, and only here."""
    here = os.getpid()
    caught: list[int] = []

    def handle(number: int, _frame: object) -> None:
        if os.getpid() != here:
            os._exit(99)
        caught.append(number)

    before = signal.signal(signal.SIGALRM, handle)
    execution = _execution("/bin/true", names=("a",))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
        for _ in range(50):
            assert _run(execution, [0]) == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caught


@EVERY_WAY
def test_signal_mask_here_is_left_alone() -> None:
    """The signal mask, the umask and the directory of this process are what they were before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert _run(_execution("/bin/true", umask=0o777, directory="/", session=True)) == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before  # and see conftest.py


@EVERY_WAY
def test_session() -> None:
    """The program leads a session of its own, or is in ours."""
    seen = _seen(session=True)
    assert seen["sid"] == seen["pid"]
    assert _seen()["sid"] == os.getsid(0)


@EVERY_WAY
def test_umask_and_directory(tmp_path: Path) -> None:
    """Umask and working directory are as asked, or ours."""
    seen = _seen(umask=0o137, directory=str(tmp_path))
    assert (seen["umask"], seen["cwd"]) == (0o137, str(tmp_path))
    assert _seen()["cwd"] == os.getcwd()


@EVERY_WAY
def test_optional_directory() -> None:
    """A directory that may be missing does not stop the program."""
    seen = _seen(directory="/no/such/directory", directory_optional=True)
    assert seen["cwd"] == "/"


@EVERY_WAY
def test_missing_directory() -> None:
    """A directory that is missing stops it, with the status of that step."""
    failure = _failure(_execution("/bin/true", directory="/no/such/directory"))
    assert isinstance(failure, WorkingDirectoryError)
    assert (failure.errno, failure.step, failure.status) == (errno.ENOENT, "directory", 200)
    assert "/no/such/directory" in str(failure)


@EVERY_WAY
def test_limits() -> None:
    """Resource limits are set, one number or two, and infinity."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = (Limit("NOFILE", 50, hard), Limit("CORE", 0, 0), Limit("CPU", -1, -1))
    seen = _seen(limits=limits)["limits"]
    assert seen["NOFILE"] == [50, hard]
    assert seen["CORE"] == [0, 0]
    assert seen["CPU"] == [-1, -1]


@EVERY_WAY
@LINUX
def test_limits_without_a_name_in_python() -> None:
    """Linux's RLIMIT_RTTIME and RLIMIT_LOCKS are known, too."""
    limits = (Limit("RTTIME", 1000, 2000), Limit("LOCKS", 7, 8))
    text = _output("cat /proc/self/limits", limits=limits)
    rows = {line[:26].strip(): line[26:].split() for line in text.splitlines()}
    assert rows["Max realtime timeout"][:2] == ["1000", "2000"]
    assert rows["Max file locks"][:2] == ["7", "8"]


@EVERY_WAY
@pytest.mark.parametrize("limit", [Limit("NOFILE", 200, 100), Limit("NOSUCH", 1, 1)])
def test_impossible_limit(limit: Limit) -> None:
    """A limit that cannot be is named."""
    failure = _failure(_execution("/bin/true", limits=(Limit("CORE", 0, -1), limit)))
    assert (failure.errno, failure.step, failure.status) == (errno.EINVAL, "limits", 205)
    assert f"Limit{limit.resource}: " in str(failure)


@ROOT_ONLY
def test_limit_that_may_not_be_raised(way: Way) -> None:
    """Without the right to raise a hard limit the program gets as much as is allowed."""
    script = f"""
        import os, resource, sys
        sys.path[:0] = {sys.path!r}
        from sockact.activation import birth, image, spawn
        from sockact.activation.execution import Execution, Limit
        if {way!r} == "fork":
            spawn.clone = birth.libc = image.libc = lambda: None
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
        os.setuid(54321)
        for soft, hard in ((250, 1000), (-1, -1), (400, 1000), (100, 300)):
            child = spawn.spawn(Execution("/bin/sh", ("sh", "-c", "ulimit -Sn; ulimit -Hn"),
                                dict(os.environ), limits=(Limit("NOFILE", soft, hard),)))
            assert child.wait_started() is None
            os.waitpid(child.pid, 0)
        child = spawn.spawn(Execution("/bin/sh", ("sh", "-c", "nice"), dict(os.environ), nice=-5))
        assert child.wait_started() is None
        os.waitpid(child.pid, 0)
    """
    said = _script(script).split()
    assert said == ["250", "300", "300", "300", "300", "300", "100", "300", "0"]


def _script(text: str) -> str:
    """Run Python code in a process of its own and return what it and its children write."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        capture_output=True, text=True, check=False, env=clean_environ(), timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@EVERY_WAY
def test_nice_and_oom_score() -> None:
    """Nice level and OOM score are set."""
    here = os.getpriority(os.PRIO_PROCESS, 0)
    seen = _seen(nice=min(here + 3, 19), oom_score_adjust=500)
    assert (seen["nice"], seen["oom"]) == (min(here + 3, 19), 500)
    failure = _failure(_execution("/bin/true", oom_score_adjust=5000))
    assert (failure.errno, failure.step, failure.status) == (errno.EINVAL, "oom_score", 206)


@ROOT_ONLY
@EVERY_WAY
def test_user() -> None:
    """The program runs as its user with all groups, and has no way back."""
    who = identity("54321", "54322", ["54323", "54322"])
    assert who
    seen = _seen(who=who, directory="/")
    assert seen["ids"] == [[54321] * 3, [54322] * 3, [54322, 54323]]
    assert seen["ambient"] == 0


@EVERY_WAY
@ROOT_ONLY
def test_directory_is_entered_as_the_user(short_dir: Path) -> None:
    """A directory that only root may enter is none for another user's program."""
    short_dir.chmod(0o700)
    who = Identity(54321, 54321, (54321,), None)
    failure = _failure(_execution("/bin/true", directory=str(short_dir), who=who))
    assert (failure.errno, failure.status) == (errno.EACCES, 200)
    assert _run(_execution("/bin/true", directory=str(short_dir))) == 0


@ROOT_ONLY
def test_user_that_may_not_be(way: Way) -> None:
    """Without root no other user or group can be had; being who one is can."""
    script = f"""
        import os, sys
        sys.path[:0] = {sys.path!r}
        from sockact.activation import birth, image, spawn
        from sockact.activation.execution import Execution
        from sockact.activation.program import Identity
        if {way!r} == "fork":
            spawn.clone = birth.libc = image.libc = lambda: None
        os.setgroups([])
        os.setresgid(54321, 54321, 54321)
        os.setresuid(54321, 54321, 54321)
        for uid, gid, more in ((54321, 54321, ()), (54322, 54321, ()), (54321, 54322, ()),
                               (54321, 54321, (54323,))):
            who = Identity(uid, gid, (gid, *more), None, more)
            child = spawn.spawn(Execution("/bin/true", ("true",), dict(os.environ), who=who))
            failure = child.wait_started()
            status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
            print(failure and (failure.errno, failure.step), status, failure)
    """
    one, two, three, four = _script(script).splitlines()
    assert one == "None 0 None"
    assert two == "(1, 'user') 217 cannot run true: uid 54322: Operation not permitted"
    assert three == "(1, 'group') 216 cannot run true: gid 54322: Operation not permitted"
    assert four.startswith("(1, 'group') 216 ")


def test_groups_besides_those_of_the_user() -> None:
    """Supplementary groups are looked up and added, once each."""
    who = identity(None, "daemon", ["daemon", "sys"])
    assert who
    assert len(who.groups) == 2
    mine = identity(None, None, ["sys"])
    assert mine
    assert (mine.uid, mine.gid, mine.environ) == (os.geteuid(), os.getegid(), None)
    assert {*os.getgroups(), who.groups[1]} == set(mine.groups)
    with pytest.raises(CredentialsError, match="no-such-group"):
        identity(None, None, ["no-such-group"])


@EVERY_WAY
@LINUX
def test_death_signal() -> None:
    """The program is told when the process that started it ends, also as another user."""
    seen = _seen(arguments=["death"], death_signal=signal.SIGUSR1)
    assert seen["death"] == signal.SIGUSR1
    if os.geteuid() == 0:
        who = Identity(54321, 54321, (), None)
        seen = _seen(arguments=["death"], death_signal=signal.SIGUSR1, who=who, directory="/")
        assert seen["death"] == signal.SIGUSR1


@LINUX
def test_death_before_it_was_asked_for() -> None:
    """If the parent has ended before the child asks for it, the child still gets the signal."""
    pid = os.fork()
    if not pid:
        libc.die_with_parent(signal.SIGKILL, os.getpid())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


# --- failures -------------------------------------------------------------------------------------


@EVERY_WAY
@pytest.mark.parametrize(
    ("program", "number", "message"),
    [
        ("/no/such/program", errno.ENOENT, "No such file or directory"),
        ("/etc/passwd", errno.EACCES, "Permission denied"),
        ("/etc", errno.EACCES, "Permission denied"),
    ],
)
def test_program_that_cannot_be_executed(program: str, number: int, message: str) -> None:
    """What execve() says comes back."""
    for names in ((), ("a",)):
        failure = _failure(_execution(program, names=names), [0])
        assert (failure.errno, failure.step, failure.status) == (number, "exec", 203)
        assert str(failure) == f"cannot run {program}: {message}"


@EVERY_WAY
def test_missing_interpreter(tmp_path: Path) -> None:
    """A script whose interpreter is missing is said to be that, also in another directory."""
    path = tmp_path / "script"
    path.write_text("#!/no/such/interpreter\n", encoding="ascii")
    path.chmod(0o755)
    failure = _failure(_execution("./script", directory=str(tmp_path)))
    assert (failure.errno, failure.status) == (errno.ENOEXEC, 203)
    assert "interpreter" in str(failure)


@EVERY_WAY
def test_script_without_an_interpreter(tmp_path: Path) -> None:
    """What the kernel does not know is an error, or a shell script if so wanted."""
    path = tmp_path / "script"
    path.write_text('echo "$0 $1 $LISTEN_FDS"\n', encoding="ascii")
    path.chmod(0o755)
    assert _failure(_execution(str(path))).errno == errno.ENOEXEC
    with _memory() as file:
        execution = _execution(str(path), "one", names=("a",), shell=True, stdout=1)
        assert _run(execution, [0, file]) == 0
        assert os.pread(file, 1000, 0).decode() == f"{path} one 1\n"


@EVERY_WAY
def test_too_long_an_argument() -> None:
    """E2BIG comes back, with a hint if descriptors have long names."""
    failure = _failure(_execution("/bin/true", "x" * (1 << 18)))
    assert failure.errno == errno.E2BIG
    failure = _failure(_execution("/bin/true", names=("x" * (1 << 18),)), [0])
    assert "LISTEN_FDNAMES alone has 262144 bytes" in str(failure)


@EVERY_WAY
@pytest.mark.parametrize(
    "more", [{"environ": {"A": "b\0c"}}, {"names": ("a\0b",)}, {"environ": {"A\0": "b"}}]
)
def test_nul_in_a_string(more: dict[str, Any]) -> None:
    """A string with a NUL is an error, never a string cut short."""
    before = set(os.listdir("/proc/self/fd"))
    try:
        failure = _failure(_execution("/bin/true", **more), [0])
    except LaunchError as error:
        failure = error
    assert failure.errno == errno.EINVAL
    assert set(os.listdir("/proc/self/fd")) == before


@ROOT_ONLY
def test_no_more_processes(way: Way) -> None:
    """If there can be no process that is said at once, and nothing leaks."""
    script = f"""
        import os, resource, sys
        sys.path[:0] = {sys.path!r}
        from sockact.activation import birth, image, spawn
        from sockact.activation.execution import Execution, Stream
        from sockact.errors import LaunchError
        if {way!r} != "chosen": spawn._is_simple = lambda *_: False
        if {way!r} == "fork":
            spawn.clone = birth.libc = image.libc = lambda: None
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        os.setresgid(65432, 65432, 65432)
        os.setresuid(65432, 65432, 65432)
        before = os.listdir("/proc/self/fd")
        for names in ((), ("a",)):
            try:
                spawn.spawn(Execution("/bin/true", ("true",), dict(os.environ), names,
                                      stdin=Stream.NULL), [1])
            except LaunchError as error:
                print(error.errno, error)
        print(os.listdir("/proc/self/fd") == before)
    """
    line = f"{errno.EAGAIN} cannot run true: Resource temporarily unavailable"
    assert _script(script).splitlines() == [line, line, "True"]


def test_fork_in_a_process_with_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """With other threads about, the fork that takes care of them is used."""
    monkeypatch.setattr("threading.active_count", lambda: 2)
    monkeypatch.setattr(spawn, "clone", lambda: pytest.fail("cloned"))
    assert _seen([0], names=("a",))["environ"]["LISTEN_FDS"] == "1"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EINVAL])
def test_kernel_without_clone3(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Where the kernel, or a filter, refuses clone3() there is still fork()."""
    monkeypatch.setattr(libc, "_CLONE3", 1 << 20)
    monkeypatch.setattr(libc, "last_error", lambda: OSError(number, "refused"))
    assert _seen([0], names=("a",))["environ"]["LISTEN_FDS"] == "1"


# --- again and again ------------------------------------------------------------------------------


@EVERY_WAY
def test_each_process_is_told_something_else() -> None:
    """Nothing is left of what another process was told, and of how much that was."""
    environ = {"PATH": os.environ["PATH"], "A": "1"}
    execution = _execution(
        sys.executable, "-I", "-S", "-c", REPORT, environ=environ, names=("a",), stdout=1
    )
    starter = spawn.Starter(execution)
    variables = [{"B": "x"}, {"B": "y", "C": "z" * 10_000}, {}, {"C": "é" * 300}]
    for told in variables:
        with _memory() as file:
            child = starter.start([0, file], told)
            assert child.wait_started() is None
            assert _status(child) == 0
            os.lseek(file, 0, os.SEEK_SET)
            seen = json.loads(os.read(file, 1 << 24))
        found = seen["environ"]
        assert {name: found[name] for name in found if name in "ABC"} == {"A": "1", **told}
        assert (found["LISTEN_PID"], found["LISTEN_FDS"]) == (str(seen["pid"]), "1")


@EVERY_WAY
def test_nul_in_what_is_told() -> None:
    """It is refused, and the next process is started all the same."""
    starter = spawn.Starter(_execution("/bin/true", names=("a",)))
    with pytest.raises(LaunchError) as caught:
        starter.start([0], {"A": "b\0c"})
    assert caught.value.errno == errno.EINVAL
    child = starter.start([0], {"A": "b"})
    assert child.wait_started() is None
    assert _status(child) == 0


@EVERY_WAY
def test_signals_that_get_another_action_between_two_starts() -> None:
    """Each process has the default action for what is ignored when it is started."""
    script = "kill -USR1 $$"
    starter = spawn.Starter(_execution("/bin/sh", "-c", script, names=("a",)))
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    try:
        for action in (signal.SIG_DFL, signal.SIG_IGN, lambda *_: None):
            signal.signal(signal.SIGUSR1, action)
            child = starter.start([0])
            assert child.wait_started() is None
            assert _status(child) == -signal.SIGUSR1
    finally:
        signal.signal(signal.SIGUSR1, before)


@EVERY_WAY
def test_other_numbers_of_descriptors() -> None:
    """What a process gets is found wherever it stands."""
    starter = spawn.Starter(_execution("/bin/sh", "-c", "echo here >&3", names=("a",)))
    for number in (50, 60, 51):
        with _memory() as file:
            os.dup2(file, number)
            child = starter.start([number])
            assert child.wait_started() is None
            assert _status(child) == 0
            os.close(number)
            assert os.pread(file, 100, 0) == b"here\n"


# --- the child object, and in the long run --------------------------------------------------------


@EVERY_WAY
def test_started_tells_once_it_is_known() -> None:
    """`report` becomes readable when it is known whether the program runs, and is closed then."""
    child = spawn.spawn(_execution("/bin/true", nice=os.nice(0)), [0])
    assert child.report
    deadline = time.monotonic() + SECONDS
    while True:
        with contextlib.suppress(BlockingIOError):
            assert child.started() is None
            break
        assert time.monotonic() < deadline
    assert [child.report, child.started()] == [None, None]
    assert _status(child) == 0
    child.close()


def test_simple_start_is_known_at_once() -> None:
    """What posix_spawn() has started runs when it returns."""
    child = spawn.spawn(_execution("/bin/true", stdin=Stream.NULL, session=True))
    assert child.report is None
    assert child.started() is None
    assert _status(child) == 0


@EVERY_WAY
def test_child_that_is_not_waited_for() -> None:
    """Closing a child leaves its process alone."""
    child = spawn.spawn(_execution("/bin/sh", "-c", "exit 7", names=("a",)), [0])
    child.close()
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == 7


@LINUX
@EVERY_WAY
def test_many_starts_leave_nothing_behind() -> None:
    """Hundreds of starts, right and wrong, do not grow this process, even without a collector."""
    right = _execution("/bin/true", names=("a", "b"), pid_variables=("P",), stdin=Stream.NULL)
    wrong = _execution("/no/such/program", names=("a", "b"))
    simple = _execution("/bin/true", stdin=0, stdout=0)

    def some(count: int) -> int:
        for _ in range(count):
            for execution in (right, simple):
                assert _run(execution, [0, 1]) == 0
            child = spawn.spawn(wrong, [0, 1])
            assert child.wait_started() is not None
            assert _status(child) == 203
        return len(gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        some(5)
        before = some(5)
        assert some(60) - before < 60
    finally:
        gc.enable()
