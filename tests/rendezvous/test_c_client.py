"""A client in another language, written from sockact-rendezvous(7) alone."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from sockact.errors import RemoteProtocolError
from sockact.fd.identity import identity
from sockact.fd.peer import overflow_uid
from sockact.fd.transfer import Received, receive_message, send_message
from sockact.rendezvous.actions import Action, Close, CloseHandles, Failed, Send
from sockact.rendezvous.estate import Estate, HeldSet
from sockact.rendezvous.manifest import Entry, Manifest
from sockact.rendezvous.messages import BYTES_MAX, Fds, Message, Offer, Reason, Refuse, Welcome
from sockact.rendezvous.owner import OwnerSide
from sockact.rendezvous.policy import Policy, Who
from sockact.rendezvous.tables import FINAL, OwnerState
from sockact.rendezvous.wire import HEADER, decode, encode
from tests.helpers import ROOT, SECONDS, clean_environ

SOURCE = ROOT / "examples" / "rendezvous_get.c"
SHOW = """
import json, os, socket
count = int(os.environ["LISTEN_FDS"])
assert os.environ["LISTEN_PID"] == str(os.getpid())
names = os.environ["LISTEN_FDNAMES"].split(":")
inodes = [os.fstat(3 + i).st_ino for i in range(count)]
others = sorted(int(fd) for fd in os.listdir("/proc/self/fd") if int(fd) >= 3 + count)
print(json.dumps([names, inodes, len(others)]))
"""
FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-g"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the example, with the sanitizers where they are installed."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("there is no C compiler")
    if sys.platform != "linux":
        pytest.skip("it is for Linux")
    program = tmp_path_factory.mktemp("c") / "rendezvous_get"
    command = [compiler, *FLAGS, "-o", str(program), str(SOURCE)]
    with_sanitizers = subprocess.run([*command, *SANITIZE], capture_output=True, check=False)
    if with_sanitizers.returncode != 0:
        subprocess.run(command, check=True)
    return program


@contextlib.contextmanager
def listening(directory: Path) -> Iterator[tuple[socket.socket, str]]:
    """Listen at a path."""
    path = f"{directory}/r"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.settimeout(SECONDS)
        listener.bind(path)
        listener.listen()
        yield listener, path


@contextlib.contextmanager
def many(count: int, *names: str) -> Iterator[HeldSet[int]]:
    """Make a set called web of so many sockets, whose names take turns."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(count)]
        fds = [sock.fileno() for sock in sockets]
        manifest = Manifest(
            Entry(
                "web",
                names[i % len(names)],
                "Stream",
                "AF_UNIX",
                f"socket {i}",
                0,
                True,
                *identity(fd),
            )
            for i, fd in enumerate(fds)
        )
        yield HeldSet("web", manifest, tuple(fds))


Serve = Callable[[socket.socket], None]


def served(
    client: Path, directory: Path, serve: Serve, *names: str, program: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the client against an owner that serves one connection."""
    with listening(directory) as (listener, path):
        command = [str(client), path, *names, "--", *(program or (sys.executable, "-c", SHOW))]
        process = subprocess.Popen(
            command, env=clean_environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(SECONDS)
                serve(connection)
            out, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
            process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@attrs.frozen
class Owner:
    """The owner's machine on a blocking connection; it has no deadlines."""

    estate: Estate[int]
    who: Who = attrs.field(factory=lambda: Who(os.getuid()))
    seen: list[Action] = attrs.field(factory=list)

    def __call__(self, connection: socket.socket) -> None:
        """Serve it to the end."""
        side = OwnerSide(
            self.estate, self.who, 0.0, identify=lambda fds: [identity(fd) for fd in fds]
        )
        while side.state not in FINAL:
            received = receive_message(connection, BYTES_MAX)
            self._carry_out(connection, self._told(side, received))
        self.seen.append(Close())
        assert side.state in (OwnerState.DONE, OwnerState.CLOSED)

    def _told(self, side: OwnerSide[int], received: Received) -> list[Action]:
        if not received.data:
            return side.lost(0.0, dead=False)
        try:
            message = decode(received.data, len(received.fds))
        except RemoteProtocolError as error:
            return side.broken(str(error), 0.0)
        return side.receive(message, received.fds, 0.0)

    def _carry_out(self, connection: socket.socket, actions: Sequence[Action]) -> None:
        for action in actions:
            self.seen.append(action)
            match action:
                case Send(message, handles):
                    send_message(connection, encode(message, len(handles)), handles)
                case CloseHandles(handles):
                    for fd in handles:
                        os.close(fd)


def owner_of(*sets: HeldSet[int], own_uid: int | None = None) -> Owner:
    """Return an owner that has these sets."""
    estate: Estate[int] = Estate(
        Policy(os.getuid() if own_uid is None else own_uid, overflow_uid())
    )
    estate.sets.update({held.name: held for held in sets})
    return Owner(estate)


def shown(done: subprocess.CompletedProcess[str]) -> tuple[list[str], list[int]]:
    """Return the names and the inodes that the program found; it has nothing else open."""
    assert (done.returncode, done.stderr) == (0, "")
    names, inodes, others = json.loads(done.stdout)
    assert others <= 1, "only the directory being listed"
    return names, inodes


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a failed client says."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    line, *more = done.stderr.splitlines()
    assert not more, done.stderr
    assert line.startswith("rendezvous_get: ")
    return line.removeprefix("rendezvous_get: ")


@pytest.mark.parametrize("count", [1, 2, 250, 251, 300])
def test_gets_a_set(client: Path, short_dir: Path, count: int) -> None:
    """The program inherits the sockets in order, under their names, in one chunk or in two."""
    names = ("web",) if count == 1 else ("web", "admin")
    with many(count, *names) as held:
        owner = owner_of(held)
        found, inodes = shown(served(client, short_dir, owner))
        assert found == list(held.manifest.names)
        assert inodes == [os.fstat(fd).st_ino for fd in held.handles]
    chunks = [a for a in owner.seen if isinstance(a, Send) and isinstance(a.message, Fds)]
    assert len(chunks) == (count + 249) // 250


def test_gets_what_it_names(client: Path, short_dir: Path) -> None:
    """Names are looked up by the owner: here one fd name of the set."""
    with many(5, "web", "admin") as held:
        found, inodes = shown(served(client, short_dir, owner_of(held), "admin"))
        assert found == ["admin", "admin"]
        assert inodes == [os.fstat(held.handles[i]).st_ino for i in (1, 3)]


@pytest.mark.parametrize("name", ['a"b', "a\\", "a\nb", "ä", "x" * 255])
def test_asks_for_any_name(client: Path, short_dir: Path, name: str) -> None:
    """Whatever the name on the command line is, the owner gets that name."""
    with many(1, "web") as held:
        other = attrs.evolve(held, name=name)
        found, _ = shown(served(client, short_dir, owner_of(other), name))
        assert found == ["web"]


def test_is_refused(client: Path, short_dir: Path) -> None:
    """What the owner answers to a name that nothing has is told in one line."""
    with many(1, "web") as held:
        line = complaint(served(client, short_dir, owner_of(held), "nothing"))
    assert line == "the owner says no: there is nothing called 'nothing' (unknown-name)"


def test_is_refused_at_once(client: Path, short_dir: Path) -> None:
    """An owner that refuses before it has read anything, and closes, is still heard."""

    def refuse(connection: socket.socket) -> None:
        connection.recv(1, socket.MSG_PEEK)  # hello has come, and will stay unread
        send_message(connection, encode(Refuse(Reason.DENIED, "not\nyou\x1b[31m")))

    assert complaint(served(client, short_dir, refuse)) == (
        "the owner says no: not?you?[31m (denied)"
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root can have another user listen")
def test_believes_only_root_and_its_own_user(client: Path, short_dir: Path) -> None:
    """To an owner who is another user nothing is said at all."""
    with listening(short_dir) as (listener, path):
        # The kernel shows clients who has called listen() last.
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.setresuid(12345, 12345, 12345)
                listener.listen()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        done = subprocess.run(
            [str(client), path, "--", "true"],
            env=clean_environ(), capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100) == b""
    assert complaint(done) == (f"{path}: the owner is uid 12345, which is neither root nor you")


def test_nobody_listens(client: Path, short_dir: Path) -> None:
    """Without an owner it says so, with the path."""
    command = [str(client), f"{short_dir}/none", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert complaint(done) == f"{short_dir}/none: No such file or directory"


@pytest.mark.parametrize("arguments", [[], ["/p"], ["/p", "--"], ["/p", "web"], ["--", "x"]])
def test_usage(client: Path, arguments: list[str]) -> None:
    """A wrong command line is answered with the right one."""
    command = [str(client), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: rendezvous_get PATH [NAME...] -- COMMAND")


def test_no_such_program(client: Path, short_dir: Path) -> None:
    """A command that does not exist ends it like a shell's."""
    with many(1, "web") as held:
        done = served(client, short_dir, owner_of(held), program=["/nonexistent"])
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr == "rendezvous_get: /nonexistent: No such file or directory\n"


def test_has_no_room(client: Path, short_dir: Path) -> None:
    """It refuses before a descriptor moves if RLIMIT_NOFILE is too low for all."""
    shell = short_dir / "limited"
    shell.write_text(f'#!/bin/sh\nulimit -n 200\nexec {client} "$@"\n', encoding="ascii")
    shell.chmod(0o755)
    with many(150, "web") as held:
        owner = owner_of(held)
        line = complaint(served(shell, short_dir, owner))
    assert line == "150 descriptors are too many for RLIMIT_NOFILE"
    assert not any(isinstance(a, Send) and isinstance(a.message, Fds) for a in owner.seen)
    assert [a.reason for a in owner.seen if isinstance(a, Failed)] == [Reason.FAILED]


# An owner of another make, or of none.


def frame(body: object, fds: int = 0) -> bytes:
    """Return a frame of any body."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HEADER.pack(b"sa", 1, fds, len(data)) + data


def says(*messages: Message | bytes, fds: int = 0) -> Serve:
    """Return an owner that says these, one for each message that it hears, then closes.

    To the last one so many descriptors of a socket are attached.
    """

    def serve(connection: socket.socket) -> None:
        with many(1, "web") as held:
            for i, message in enumerate(messages):
                assert receive_message(connection, BYTES_MAX).data
                handles = held.handles * fds if i == len(messages) - 1 else ()
                data = message if isinstance(message, bytes) else encode(message, len(handles))
                send_message(connection, data, handles)
            with contextlib.suppress(ConnectionResetError):
                connection.recv(BYTES_MAX)

    return serve


def offering(entries: object, count: int = 1, **more: object) -> bytes:
    """Return an offer with any entries."""
    return frame({"type": "offer", "count": count, "entries": entries, **more})


WELCOME = Welcome(1)
ONE = Offer(1, Manifest([Entry("web", "web", inode=1)]))
ODD: dict[str, tuple[Serve, str]] = {
    "nothing": (says(), "the owner has closed"),
    "short": (says(b"sa\1\0\0"), "does not speak"),
    "foreign": (says(b"HTTP/1.0 400 Bad Request\r\n\r\n"), "does not speak"),
    "another framing": (says(b"sa\2\0\0\0\0\2{}"), "does not speak"),
    "wrong length": (says(b"sa\1\0\0\0\0\3{}"), "not as long"),
    "too long": (says(frame(b" " * BYTES_MAX)), "too long"),
    "no fd": (says(frame({"type": "welcome", "version": 1}, 1)), "not as long"),
    "fds unasked": (says(frame({"type": "welcome", "version": 1}, 2), fds=2), "not as long"),
    "empty": (says(frame(b"")), "malformed"),
    "no object": (says(frame(b"[]")), "malformed"),
    "two values": (says(frame(b'{"type":"welcome"}{}')), "malformed"),
    "cut": (says(frame(b'{"type":"welcome","version"')), "ends too early"),
    "cut string": (says(frame(b'{"type":"wel')), "ends too early"),
    "cut escape": (says(frame(b'{"type":"\\u00')), "ends too early"),
    "wrong escape": (says(frame(b'{"type":"\\x"}')), "malformed"),
    "NUL": (says(frame(b'{"type":"welcome",\0}')), "malformed"),
    "comma": (says(frame(b'{"type":"welcome",}')), "malformed"),
    "no value": (says(frame(b'{"type":}')), "malformed"),
    "deep": (says(frame(b'{"a":' + b"[" * 60000)), "too deeply"),
    "type is nested": (says(frame({"a": {"type": "welcome"}})), "has no type"),
    "type is a number": (says(frame({"type": 1})), "malformed"),
    "type is long": (says(frame({"type": "x" * 60000})), "unknown type"),
    "version 2": (says(Welcome(2)), "another version"),
    "no version": (says(frame({"type": "welcome"})), "lacks version"),
    "negative": (says(frame({"type": "welcome", "version": -1})), "malformed"),
    "leading zero": (says(frame(b'{"type":"welcome","version":01}')), "malformed"),
    "a fraction": (says(frame(b'{"type":"welcome","version":1.0}')), "malformed"),
    "too large": (says(frame(b'{"type":"welcome","version":%d}' % 2**64)), "too large"),
    "out of turn": (says(ONE), "another message than welcome"),
    "dies": (says(WELCOME), "the owner has closed"),
    "no entries": (says(WELCOME, frame({"type": "offer", "count": 1})), "no entries"),
    "0 entries": (says(WELCOME, offering({"count": 0}, 0)), "contradict"),
    "65537 entries": (says(WELCOME, offering({"count": 65537}, 65537)), "contradict"),
    "too many": (says(WELCOME, offering({"count": 2, "name": "a"}, 1)), "contradict"),
    "more without more": (says(WELCOME, offering({"count": 1, "name": "a"}, 1, more=True)), "contradict"),
    "short column": (says(WELCOME, offering({"count": 2, "name": ["a"]}, 2)), "malformed"),
    "long column": (says(WELCOME, offering({"count": 1, "name": ["a", "b"]})), "malformed"),
    "no name": (says(WELCOME, offering({"count": 1})), "name is missing"),
    "colon": (says(WELCOME, offering({"count": 1, "name": "a:b"})), "LISTEN_FDNAMES cannot"),
    "NUL in a name": (says(WELCOME, offering({"count": 1, "name": "a\0"})), "LISTEN_FDNAMES cannot"),
    "long name": (says(WELCOME, offering({"count": 1, "name": "a" * 256})), "too long"),
    "long names": (says(WELCOME, offering({"count": 500, "name": "a" * 255}, 500)), "too long"),
    "wrong column": (says(WELCOME, offering({"count": 1, "name": "a", "inode": "1"})), "malformed"),
    "aborts": (says(WELCOME, ONE, frame({"type": "abort", "reason": "new", "text": "no"})), "the owner says no: no (new)"),
    "no descriptor": (says(WELCOME, ONE, Fds(0, 1)), "other descriptors"),
    "two descriptors": (says(WELCOME, ONE, Fds(0, 2), fds=2), "other descriptors"),
    "253 descriptors": (says(WELCOME, ONE, Fds(0, 253), fds=253), "other descriptors"),
    "wrong place": (says(WELCOME, ONE, Fds(1, 1), fds=1), "other descriptors"),
    "another socket": (says(WELCOME, ONE, Fds(0, 1), fds=1), "descriptor 0 is not the one"),
}  # fmt: skip


@pytest.mark.parametrize(("serve", "text"), ODD.values(), ids=ODD)
def test_odd_owner(client: Path, short_dir: Path, serve: Serve, text: str) -> None:
    """Whatever an owner sends that it should not, the client ends with one line, and no program."""
    assert text in complaint(served(client, short_dir, serve))


def test_another_spelling(client: Path, short_dir: Path) -> None:
    """JSON may be written otherwise, and have fields that are not known yet."""
    with many(2, "web") as held:
        device, inode = identity(held.handles[0])
        _, second = identity(held.handles[1])
        offer = (
            '\r\n{ "new" : [ {"type":"x"}, -1.5e+3, null, [ ], {"a":{}} ] , "entries" : {"inode":'
            f'[ {inode} , {second} ], "device":{device}, "name" : "\\u0077\\u0065b", "count":2'
            ', "unknown column": [true, false]}\t,"more":false,"\\u0074ype":"offer","count":2} '
        ).encode()

        def serve(connection: socket.socket) -> None:
            for data, handles in (
                (frame({"type": "alive"}), ()),
                (frame({"type": "welcome", "version": 1, "ä": "\U0001f600"}), ()),
                (frame(offer), ()),
                (encode(Fds(0, 1), 1), held.handles[:1]),
                (encode(Fds(1, 1), 1), held.handles[1:]),
            ):
                if data != frame({"type": "welcome", "version": 1, "ä": "\U0001f600"}):
                    assert receive_message(connection, BYTES_MAX).data
                send_message(connection, data, handles)
            for _ in ("ack", "adopted", "the end"):
                receive_message(connection, BYTES_MAX)

        names, inodes = shown(served(client, short_dir, serve))
        assert names == ["web", "web"]
        assert inodes == [inode, second]
