"""sockact.sockets.node."""

import fcntl
import os
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from sockact.sockets import node
from sockact.sockets.node import DirectoryLock, Made, is_live, symlink


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_live_is_told_from_stale(short_dir: Path, kind: int) -> None:
    """A socket is live from bind() on, before it listens, and stale when it is closed."""
    path = str(short_dir / "s")
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(path)
        assert is_live(path)
        if kind != socket.SOCK_DGRAM:
            sock.listen()
            assert is_live(path)
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.accept()  # the question was not a connection
    assert not is_live(path)


def test_nothing_is_not_live(short_dir: Path) -> None:
    """Without a node nobody can be there."""
    assert not is_live(str(short_dir / "missing"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_liveness_without_permission_is_an_error(short_dir: Path) -> None:
    """A node that may not be connected to is not taken for stale."""
    path = str(short_dir / "s")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        os.chmod(path, 0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(PermissionError):
                is_live(path)
        finally:
            os.seteuid(0)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o777, 0o000])
def test_mode_at_birth(short_dir: Path, mode: int) -> None:
    """Right after bind() the node has no bit more than wanted; then exactly those wanted."""
    path = str(short_dir / "s")
    with socket.socket(socket.AF_UNIX) as sock:
        node.bind_with_mode(sock, path, mode)
        born = stat.S_IMODE(os.stat(path).st_mode)
        assert not born & ~mode
        node.set_mode(path, mode)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode


def test_set_mode_does_not_follow_links(short_dir: Path) -> None:
    """A symbolic link put in the place of the node leads nowhere."""
    victim = short_dir / "victim"
    victim.write_text("x", encoding="ascii")
    victim.chmod(0o600)
    (short_dir / "s").symlink_to(victim)
    node.set_mode(str(short_dir / "s"), 0o666)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


def test_made_removes_only_its_own(short_dir: Path) -> None:
    """A node that was replaced since stays; directories are removed if they are empty."""
    made = Made()
    path = short_dir / "a" / "b" / "s"
    made.parents(str(path), 0o750)
    assert stat.S_IMODE((short_dir / "a").stat().st_mode) == 0o750
    os.mkfifo(path)
    made.node(str(path))
    os.mkfifo(short_dir / "other")
    os.replace(short_dir / "other", path)
    made.remove(directories=True)
    assert path.exists()
    path.unlink()
    made.remove(directories=True)
    assert path.parent.exists()


def test_made_removes_nodes_and_directories(short_dir: Path) -> None:
    """Nodes go first, then the directories made for them, but none that was there before."""
    made = Made()
    path = short_dir / "a" / "b" / "s"
    made.parents(str(path), 0o755)
    os.mkfifo(path)
    made.node(str(path))
    made.remove(directories=True)
    assert list(short_dir.iterdir()) == []


def test_directory_lock_waits_for_its_turn(short_dir: Path) -> None:
    """A second process, or thread, enters when the first has left."""
    path = str(short_dir / "s")
    order: list[str] = []

    def second() -> None:
        with DirectoryLock(path):
            order.append("second")

    with DirectoryLock(path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_directory_lock_gives_up(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If somebody keeps the lock, waiting ends with a TimeoutError that names the directory."""
    monkeypatch.setattr(node, "LOCK_SECONDS", 0.1)
    fd = os.open(short_dir, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(TimeoutError, match=str(short_dir)), DirectoryLock(str(short_dir / "s")):
        pass
    os.close(fd)


def test_symlink_is_idempotent(short_dir: Path) -> None:
    """A link that is right stays; a wrong one is replaced only on request; a file never is."""
    link, target = str(short_dir / "link"), str(short_dir / "target")
    assert symlink(target, link, replace=False)
    assert not symlink(target, link, replace=False)
    with pytest.raises(FileExistsError):
        symlink("/elsewhere", link, replace=False)
    assert symlink("/elsewhere", link, replace=True)
    assert os.readlink(link) == "/elsewhere"
    (short_dir / "file").write_text("x", encoding="ascii")
    with pytest.raises(FileExistsError):
        symlink(target, str(short_dir / "file"), replace=True)
