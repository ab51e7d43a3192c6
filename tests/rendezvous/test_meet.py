"""Who may come to a rendezvous, and where it may be: real users, directories and nodes."""

import contextlib
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import sockact
from sockact.errors import PathInUseError, RendezvousError, UntrustedOwnerError
from sockact.fd.peer import overflow_uid
from sockact.rendezvous.meet import Place, checked_path, connect
from sockact.rendezvous.messages import Reason, Refuse
from tests.helpers import SECONDS
from tests.rendezvous.peers import ANOTHER_UID, ActorError, actors, count_fds, leading

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
WEB = "web=tcp:127.0.0.1:0"
# Another user may not be able to read the modules that are loaded late.
LOADED = (
    "import sockact.fd.queue, sockact.rendezvous.furnish, sockact.sockets.bind\n"
    "import sockact.fd.mqueue, sockact.sockets.resolve, sockact.unitfile.listen, _socket, logging\n"
    "sockact.takeover('@sockact-test-%d' % os.getpid(), 'web=tcp:127.0.0.1:0').close()"
)


@pytest.fixture(name="open_dir")
def _open_dir() -> Iterator[Path]:
    """Give a directory in which everybody may make what is theirs, as in /tmp."""
    path = Path(tempfile.mkdtemp(prefix="sa-", dir="/tmp"))
    path.chmod(0o1777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


# Who may come.


@needs_root
def test_another_user_is_refused_before_a_name_is_told(path: str) -> None:
    """Even where the node is open to all: the first message is a refusal, and then comes the end."""
    with (
        leading(path, WEB) as owner,
        actors(ANOTHER_UID, before=LOADED) as (other,),
    ):
        with pytest.raises(ActorError, match="Permission denied"):
            other.do(f"sockact.take({path!r}, timeout=1)")
        owner._tenure._place.open_to_others()
        for what in ("take", "takeover", "holdings"):
            with pytest.raises(ActorError, match="may do nothing here") as caught:
                other.do(f"sockact.{what}({path!r}, timeout=1)")
            assert caught.value.kind == "RefusedError"
            assert "web" not in str(caught.value)
        other.do(f"s = dial({path!r}); first = hear(s)[0]")
        assert other.ask("[first.TYPE, first.reason.value, s.recv(1) == b'']") == [
            Refuse.TYPE,
            Reason.DENIED.value,
            True,
        ]
        assert owner.phase == "is the owner"


@needs_root
def test_one_who_connected_before_giving_up_its_rights_is_who_it_was(path: str) -> None:
    """And the other way round: the kernel tells who connected, not who sends."""
    with (
        leading(path, WEB) as owner,
        actors(0, before=LOADED) as (other,),
    ):
        owner._tenure._place.open_to_others()
        other.do(f"w = Wire({path!r}); os.setresuid(1, 1, 1)")
        assert other.ask("type(w.ask(Op.GET)).__name__") == "Offer"


@needs_root
def test_a_user_of_its_own(short_dir: Path) -> None:
    """Without root everything works between processes of one user; root may do it all, too."""
    os.chown(short_dir, ANOTHER_UID, ANOTHER_UID)
    path = str(short_dir / "r")
    with actors(ANOTHER_UID, ANOTHER_UID, before=LOADED) as (old, new):
        old.do(f"t = sockact.takeover({path!r}, {WEB!r}); t.ready()")
        new.do(f"t = sockact.takeover({path!r}, {WEB!r}); t.ready()")
        assert old.ask("t.wait_successor(10)") is True
        assert old.ask("cookies(t.sockets)") == new.ask("cookies(t.sockets)")
        old.do("t.close()")
        new.do("t.close()")
    assert os.listdir(short_dir) == []


@needs_root
def test_an_untrusted_owner_is_asked_nothing(open_dir: Path) -> None:
    """Whoever runs as root believes only root, and whom it is told to believe."""
    path = str(open_dir / "r")
    with actors(ANOTHER_UID, before=LOADED) as (owner,):
        owner.do(
            "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(10)\n"
            f"s.bind({path!r}); s.listen()"
        )
        before = count_fds()
        for ask in (sockact.take, sockact.takeover, sockact.holdings):
            with pytest.raises(UntrustedOwnerError, match="nothing was asked"):
                ask(path, timeout=1)
            assert owner.ask("s.accept()[0].recv(1000).decode()") == ""
        assert count_fds() == before
        owner.do(
            f"s.close(); os.unlink({path!r}); t = sockact.takeover({path!r}, {WEB!r}); t.ready()"
        )
        sockact.take(path, trusted=(ANOTHER_UID,)).close()
        with sockact.takeover(path, trusted=(ANOTHER_UID,)) as new:
            new.ready()
            assert owner.ask("t.wait_successor(10)") is True


@needs_root
def test_the_user_that_stands_for_all_is_nobody(open_dir: Path) -> None:
    """Two processes of the overflow uid need not be the same user."""
    path = str(open_dir / "r")
    with actors(overflow_uid(), overflow_uid(), before=LOADED) as (owner, other):
        owner.do(f"t = sockact.takeover({path!r}, {WEB!r}); t.ready()")
        with pytest.raises(ActorError, match="nothing was asked") as caught:
            other.do(f"sockact.take({path!r}, timeout=1)")
        assert caught.value.kind == "UntrustedOwnerError"
        other.do(f"s = dial({path!r})")
        assert other.ask("hear(s)[0].reason.value") == "denied"
        with pytest.raises(UntrustedOwnerError):
            sockact.take(path, trusted=(overflow_uid(),))


@needs_root
def test_a_lock_of_another_user_is_no_lock(open_dir: Path) -> None:
    """Who could not take the place of root's rendezvous cannot keep root from it unseen."""
    path = str(open_dir / "r")
    Path(f"{path}.lock").write_text("")
    os.chown(f"{path}.lock", ANOTHER_UID, -1)
    with pytest.raises(PathInUseError, match=r"r\.lock"):
        sockact.takeover(path, WEB, timeout=0.1)


# Where it may be.


def test_a_directory_that_others_write_to(short_dir: Path) -> None:
    """There anybody could put another socket in the place of ours; with the sticky bit they cannot."""
    below = short_dir / "below"
    below.mkdir()
    for mode in (0o777, 0o775, 0o757):
        below.chmod(mode)
        for path in (below / "r", below / "deeper" / "r"):
            path.parent.mkdir(exist_ok=True)
            with pytest.raises(PathInUseError, match="others may write"):
                sockact.takeover(str(path), WEB)
            with pytest.raises(PathInUseError, match="others may write"):
                sockact.take(str(path))
    below.chmod(0o1777)
    sockact.takeover(str(below / "r"), WEB).close()


@needs_root
def test_a_directory_of_another_user(short_dir: Path, path: str) -> None:
    """It could do so as well."""
    os.chown(short_dir, ANOTHER_UID, -1)
    with pytest.raises(PathInUseError, match=f"belongs to uid {ANOTHER_UID}"):
        sockact.takeover(path, WEB)


@needs_root
def test_a_directory_of_a_user_who_is_trusted(short_dir: Path, path: str) -> None:
    """Who may own the path may own its directory, as the RuntimeDirectory= of a service's user."""
    short_dir.chmod(0o755)
    os.chown(short_dir, ANOTHER_UID, -1)
    with pytest.raises(PathInUseError, match=f"belongs to uid {ANOTHER_UID}"):
        sockact.holdings(path)
    with actors(ANOTHER_UID, before=LOADED) as (other,):
        other.do(f"keep = sockact.takeover({path!r}, {WEB!r})\nkeep.ready()")
        assert [one.entry.name for one in sockact.holdings(path, trusted=[ANOTHER_UID])] == ["web"]


@pytest.mark.parametrize("end", ["missing/r", "file/r", "", "dir/"])
def test_no_place_for_a_socket(short_dir: Path, end: str) -> None:
    """A missing directory, a file in the place of one, and a directory are told from each other."""
    (short_dir / "file").write_text("")
    with pytest.raises(PathInUseError, match=r"No such file|no directory|not a directory"):
        sockact.takeover(f"{short_dir}/{end}", WEB)


@pytest.mark.parametrize("start", ["", "@"])
def test_a_name_that_is_too_long(short_dir: Path, start: str) -> None:
    """It is told at once, by whoever needs the path; a long directory does no harm."""
    name = "x" * 108
    path = f"@{name}" if start else f"{short_dir}/{name}"
    with pytest.raises(PathInUseError, match="bytes are too long"):
        sockact.takeover(path, WEB)
    with pytest.raises(PathInUseError, match="bytes are too long"):
        sockact.take(path)
    if os.path.isdir("/proc/self/fd"):
        deep = short_dir / name
        deep.mkdir()
        sockact.takeover(f"{deep}/{'x' * 80}", WEB).close()


def test_links_above_are_resolved(short_dir: Path) -> None:
    """The directory that counts is the real one."""
    (short_dir / "real").mkdir()
    os.symlink("real", short_dir / "link")
    assert checked_path(f"{short_dir}/link/../link/r") == f"{short_dir}/real/r"
    (short_dir / "real").chmod(0o777)
    with pytest.raises(PathInUseError, match="others may write"):
        checked_path(f"{short_dir}/link/r")


# The parts.


def test_the_lock_is_given_to_one(path: str) -> None:
    """A second one hears that it is taken, until the first one lets go of it."""
    first = Place.occupy(path)
    assert first
    assert Place.occupy(path) is None
    first.leave()
    assert not os.path.exists(f"{path}.lock")
    again = Place.occupy(path)
    assert again
    again.leave()


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
def test_the_lock_of_an_abstract_name(kind: int) -> None:
    """It holds whatever type the listener has, and is nobody's after the last descriptor."""
    name = f"@sockact-test-{os.getpid()}-lock"
    first = Place.occupy(name)
    assert first
    with first.publish(kind) as listener:
        assert Place.occupy(name) is None
        with connect(name, 0.0) as sock:
            assert sock.type == kind
        assert listener.getsockname() == f"\0{name[1:]}".encode()
    first.vacate()
    again = Place.occupy(name)
    assert again
    again.close()
    with pytest.raises(PathInUseError, match="too long"):
        Place.occupy("@" + "x" * 200)


def test_a_name_is_no_file(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To leave an abstract name removes no file that is called like it."""
    monkeypatch.chdir(short_dir)
    name = f"@sockact-test-{os.getpid()}"
    for file in (name, f"{name}.lock"):
        Path(file).write_text("mine")
    sockact.takeover(name, WEB).close()
    assert sorted(os.listdir()) == [name, f"{name}.lock"]
    monkeypatch.undo()


def test_the_node_is_never_wider_than_it_is_meant(path: str) -> None:
    """Whatever the umask is."""
    old = os.umask(0)
    try:
        with leading(path, WEB):
            assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
            assert stat.S_IMODE(os.lstat(f"{path}.lock").st_mode) == 0o600
    finally:
        os.umask(old)


def test_a_node_that_nobody_listens_at_is_replaced(path: str) -> None:
    """It is another node then."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(path)
    before = os.lstat(path).st_ino
    with leading(path, WEB):
        assert os.lstat(path).st_ino != before


def test_a_full_backlog_is_waited_for(path: str) -> None:
    """It says so in the end; the error names the path once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(0)
        with contextlib.closing(connect(path, 0.0)):
            for ask in (sockact.take, sockact.takeover):
                with pytest.raises(RendezvousError, match="backlog is full") as caught:
                    ask(path, timeout=0.05)
                assert str(caught.value).count(path) == 1


def test_a_socket_of_another_type_is_no_rendezvous(path: str) -> None:
    """A datagram socket at the path is alive, and is left alone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        with pytest.raises(RendezvousError, match="wrong type"):
            sockact.takeover(path, WEB, timeout=0.05)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", path)
        other.settimeout(SECONDS)
        assert other.recv(1) == b"x"


def test_somebody_who_is_no_owner_at_all(path: str) -> None:
    """A server of another protocol is not disturbed beyond one Hello."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with pytest.raises(RendezvousError, match="in time"):
            sockact.takeover(path, WEB, timeout=0.1)
        with pytest.raises(RendezvousError, match="in time"):
            sockact.take(path, timeout=0.1)


def test_without_a_working_directory(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is nowhere once the working directory was removed, which is said."""
    (short_dir / "gone").mkdir()
    monkeypatch.chdir(short_dir / "gone")
    (short_dir / "gone").rmdir()
    with pytest.raises(PathInUseError, match="the working directory does not exist"):
        checked_path("app.rdv")
