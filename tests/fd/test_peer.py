"""sockact.fd.peer, against real processes."""

import contextlib
import errno
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sockact.fd.peer import (
    Peer,
    _from_xucred,
    is_dead,
    overflow_uid,
    own_pidfd,
    peer_of,
    peer_pidfd,
    refuse_descriptors,
)
from sockact.fd.transfer import receive_message, send_some
from tests.helpers import ROOT, SECONDS

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")

_CONNECT = """
import os, socket, sys
{before}
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
    sock.connect(sys.argv[1])
    {after}
    sock.recv(1)
"""


@contextlib.contextmanager
def _listening(directory: Path) -> Iterator[tuple[socket.socket, str]]:
    path = str(directory / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.settimeout(SECONDS)
        listener.bind(path)
        os.chmod(path, 0o666)
        listener.listen()
        yield listener, path


@contextlib.contextmanager
def _connected(
    directory: Path, *, before: str = "", after: str = ""
) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """Give a connection from a child that runs code before and after it connects."""
    code = _CONNECT.format(before=before, after=after)
    with (
        _listening(directory) as (listener, path),
        subprocess.Popen([sys.executable, "-I", "-S", "-c", code, path]) as child,
    ):
        try:
            connection, _ = listener.accept()
            with connection:
                yield connection, child
        finally:
            child.kill()


def _wait_for_end(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(SECONDS * 1000)


def _unshared(options: Sequence[str], code: str, sock: socket.socket) -> str:
    """Run Python code, which has `sock`, in new namespaces; return what it printed."""
    unshare = shutil.which("unshare")
    if not unshare:
        pytest.skip("there is no unshare(1)")
    if subprocess.run([unshare, *options, "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"unshare {' '.join(options)} is not allowed")
    before = (
        "import os, socket, sys\nfrom sockact.fd.peer import *\n"
        "sock = socket.socket(fileno=int(sys.argv[1]))\n"
    )
    result = subprocess.run(
        [unshare, *options, sys.executable, "-c", before + code, str(sock.fileno())],
        cwd=ROOT,
        pass_fds=[sock.fileno()],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


# --- credentials ----------------------------------------------------------------------------------


def test_peer_is_this_process() -> None:
    """At the other end of a pair is the process that made it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert sorted(peer.groups) == sorted(os.getgroups())


@needs_root
def test_peer_is_who_connected(short_dir: Path) -> None:
    """The ids are those at the time of connecting, effective ones, with the groups as they are."""
    before = "os.setgroups([7, 12346, 9]); os.setresgid(0, 12346, 0); os.setresuid(0, 12345, 0)"
    with _connected(short_dir, before=before) as (connection, child):
        peer = peer_of(connection)
        assert (peer.pid, peer.uid, peer.gid) == (child.pid, 12345, 12346)
        assert sorted(peer.groups) == [7, 9, 12346]


@needs_root
def test_gid_need_not_be_among_the_groups(short_dir: Path) -> None:
    """The supplementary groups are given as they are: without the gid where it is not one."""
    before = "os.setgroups([7]); os.setresgid(12346, 12346, 12346)"
    with _connected(short_dir, before=before) as (connection, child):
        assert peer_of(connection) == Peer(child.pid, 0, 12346, (7,))


@needs_root
@pytest.mark.parametrize("count", [0, 256, 257, 65536])
def test_peer_in_many_groups(short_dir: Path, count: int) -> None:
    """All groups are told, also where they take more room than Python's getsockopt gives."""
    before = f"os.setgroups(range(1000, 1000 + {count}))"
    with _connected(short_dir, before=before) as (connection, _):
        assert peer_of(connection).groups == tuple(range(1000, 1000 + count))


@needs_root
def test_peer_that_changes_user_later_stays_who_it_was(short_dir: Path) -> None:
    """What the peer becomes after connecting makes no difference."""
    after = "os.setresuid(12345, 12345, 12345); sock.send(b'x')"
    with _connected(short_dir, after=after) as (connection, _):
        assert connection.recv(1) == b"x"
        assert peer_of(connection).uid == 0


def test_client_sees_who_listens(short_dir: Path) -> None:
    """The other way round it is the process that called listen."""
    with (
        _listening(short_dir) as (_, path),
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock,
    ):
        sock.connect(path)
        assert peer_of(sock).pid == os.getpid()
        assert peer_of(sock).uid == os.geteuid()


def test_nobody_at_the_other_end() -> None:
    """Without a connection there is no peer, and no pidfd of one."""
    with socket.socket(socket.AF_UNIX) as sock:
        with pytest.raises(OSError, match="not connected") as caught:
            peer_of(sock)
        assert caught.value.errno == errno.ENOTCONN
        assert peer_pidfd(sock) is None


def test_peer_of_a_tcp_connection_is_unknown() -> None:
    """Across the network nobody is known: that is an error, not a user."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as sock,
        pytest.raises(OSError, match="not connected"),
    ):
        peer_of(sock)


def test_peer_in_another_user_namespace_has_the_overflow_uid() -> None:
    """A peer without a name in our user namespace has the uid that stands for all of those."""
    ours, theirs = socket.socketpair()
    code = "print(peer_of(sock).uid == overflow_uid() == os.getuid())"
    with ours, theirs:
        assert _unshared(["--user"], code, theirs) == "True"


def test_peer_outside_of_the_pid_namespace_has_no_pid() -> None:
    """A peer without a number in our pid namespace has pid 0, but there is a pidfd of it."""
    ours, theirs = socket.socketpair()
    code = "fd = peer_pidfd(sock); print(peer_of(sock).pid, fd and is_dead(fd))"
    with ours, theirs:
        pidfd = peer_pidfd(ours)
        if pidfd is not None:
            os.close(pidfd)
        expected = "0 None" if pidfd is None else "0 False"
        assert _unshared(["--user", "--pid", "--fork"], code, theirs) == expected


def test_overflow_uid_is_the_systems() -> None:
    """The number is what the kernel uses."""
    assert overflow_uid() == int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii"))


def test_credentials_of_macos() -> None:
    """A struct xucred is read: its first group is the gid, and only as many groups count as it says."""
    option = struct.pack("=IIhxx16I", 0, 501, 3, 20, 12, 61, *[99] * 13)
    assert _from_xucred(7, option) == Peer(7, 501, 20, (12, 61))
    with pytest.raises(OSError, match="unknown way"):
        _from_xucred(7, struct.pack("=IIhxx16I", 1, 501, 3, *[20] * 16))


# --- refusing -------------------------------------------------------------------------------------


def test_descriptors_are_refused(short_dir: Path) -> None:
    """A sender of descriptors is refused at once, on connections to a listener too; bytes arrive."""
    with _listening(short_dir) as (listener, path):
        if not refuse_descriptors(listener):
            pytest.skip("this kernel has no SO_PASSRIGHTS")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(path)
            with pytest.raises(PermissionError):
                send_some(client, b"too early", [0])
            connection, _ = listener.accept()
            with connection:
                with pytest.raises(PermissionError):
                    send_some(client, b"x", [0])
                send_some(client, b"bytes")
                assert receive_message(connection, 10).data == b"bytes"
                send_some(connection, b"x", [0])
                got = receive_message(client, 10)
                assert len(got.fds) == 1
                os.close(got.fds[0])


def test_kernel_that_cannot_refuse() -> None:
    """Where the kernel does not know the option, as for TCP, the answer is no; a closed socket is an error."""
    with socket.socket(socket.AF_INET) as sock:
        assert not refuse_descriptors(sock)
    with pytest.raises(OSError, match="Bad file descriptor"):
        refuse_descriptors(sock)
    with pytest.raises(OSError, match="Bad file descriptor"):
        peer_pidfd(sock)


# --- pidfds ---------------------------------------------------------------------------------------


def test_own_pidfd_lives() -> None:
    """This process is not dead, and its pidfd is not inherited."""
    pidfd = own_pidfd()
    if pidfd is None:
        pytest.skip("this kernel has no pidfd_open")
    try:
        assert not is_dead(pidfd)
        assert not os.get_inheritable(pidfd)
    finally:
        os.close(pidfd)


def test_peer_dies(short_dir: Path) -> None:
    """A pidfd of the peer tells of its death, before and after it is waited for."""
    with _connected(short_dir) as (connection, child):
        pidfd = peer_pidfd(connection)
        if pidfd is None:
            pytest.skip("this kernel has no SO_PEERPIDFD")
        try:
            assert not os.get_inheritable(pidfd)
            assert not is_dead(pidfd)
            child.kill()
            _wait_for_end(pidfd)
            assert is_dead(pidfd)
            child.wait()
            assert is_dead(pidfd)
        finally:
            os.close(pidfd)


def test_peer_that_is_already_gone(short_dir: Path) -> None:
    """Of a peer that was waited for there is a dead pidfd or none, and still its ids."""
    with _connected(short_dir) as (connection, child):
        child.kill()
        child.wait()
        assert peer_of(connection).uid == os.geteuid()
        assert peer_of(connection).pid == child.pid
        pidfd = peer_pidfd(connection)
        if pidfd is not None:
            try:
                assert is_dead(pidfd)
            finally:
                os.close(pidfd)


def test_closed_pidfd_is_an_error() -> None:
    """A number that is not open says nothing about a process."""
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        is_dead(reader)
