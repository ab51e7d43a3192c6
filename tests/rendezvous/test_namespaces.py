"""Rendezvous between processes in different namespaces, as containers that share a directory."""

import contextlib
import errno
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.conformance.namespaces import missing
from tests.rendezvous.inside import Inside
from tests.rendezvous.peers import ANOTHER_UID, Actor, ActorError, actors, until

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

NET = ("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")
PID = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
OVERFLOW = 65534

_PRELUDE = """
import ctypes, select, signal, socket, warnings
from sockact.errors import *
said = []
warnings.showwarning = lambda message, *_: said.append(str(message))
warnings.simplefilter("always")

def dial(port):
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        return sock.recv(100).decode()

def serve(sockets, name, text):
    with socket.socket(fileno=os.dup(sockets.filenos()[sockets.names.index(name)])) as listener:
        assert select.select([listener], [], [], 20)[0]
        connection, _ = listener.accept()
        with connection:
            connection.sendall(text.encode())

def new_user_namespace():
    assert ctypes.CDLL(None, use_errno=True).unshare(0x10000000) == 0
"""


@contextlib.contextmanager
def inside(*commands: Sequence[str]) -> Iterator[list[Inside]]:
    """Start an actor behind each command."""
    found: list[Inside] = []
    try:
        for command in commands:
            found.append(Inside(command))
            found[-1].do(_PRELUDE)
        yield found
    finally:
        for actor in found:
            actor.close()


def at(actor: Actor) -> list[str]:
    """Return a command that runs in the network namespace of an actor."""
    return ["nsenter", f"--net=/proc/{actor.pid}/ns/net"]


def _lines(actor: Actor) -> list[str]:
    """Return what an actor has been warned of."""
    found = actor.ask("said")
    assert isinstance(found, list)
    return found


def served(server: Actor, name: str, client: Actor, port: int, text: str) -> None:
    """Have one actor connect, and the other answer."""
    client.begin(f"dial({port})", "ask")
    server.do(f"serve(t.sockets, {name!r}, {text!r})")
    assert client.end() == text


# Network namespaces.


def test_a_socket_serves_the_network_namespace_that_it_was_made_in(path: str) -> None:
    """Its taker elsewhere answers the clients there, is warned once, and opens new ones here."""
    with inside(NET, NET) as (old, new):
        old.do(
            f"t = sockact.takeover({path!r}, 'web=tcp:127.0.0.1:8080', 'u=unix:{path}.u')\n"
            "t.ready()"
        )
        new.do(
            f"t = sockact.takeover({path!r}, 'web=tcp:127.0.0.1:8080', 'u=unix:{path}.u',"
            " 'new=tcp:127.0.0.1:8081')\nt.ready()"
        )
        old.do("assert t.wait_successor(20); t.close()")
        assert _lines(old) == []
        (said,) = _lines(new)
        assert said == (
            f"{path}: web: made in another network namespace, whose clients it goes on to serve;"
            " what is opened here is opened in this one"
        )
        served(new, "web", old, 8080, "from the new one")
        with pytest.raises(ActorError, match="refused"):
            old.do("dial(8081)")
        # The path of a Unix socket is the same everywhere.
        with inside(at(old), at(new)) as (third, fourth):
            texts = "'web=tcp:127.0.0.1:8080', 'new=tcp:127.0.0.1:8081'"
            third.do(f"t = sockact.takeover({path!r}, {texts}); t.ready()")
            new.do("assert t.wait_successor(20); t.close()")
            assert [line.split(": ")[1] for line in _lines(third)] == ["new"]
            served(third, "new", fourth, 8081, "from the third")
            fourth.do(f"t = sockact.takeover({path!r}, {texts}); t.ready()")
            third.do("assert t.wait_successor(20); t.close()")
            assert [line.split(": ")[1] for line in _lines(fourth)] == ["web"]
            served(fourth, "web", old, 8080, "from the fourth")
            fourth.do("t.close()")


def test_an_entry_names_its_network_namespace(path: str) -> None:
    """The cookie in the manifest is the same for sockets of one namespace."""
    with inside(NET, (), NET) as (owner, here, other):
        owner.do(f"o = sockact.offer({path!r}, sockact.listen('a=tcp:127.0.0.1:0'))")
        ask = f"[one.entry.namespace for one in sockact.holdings({path!r})]"
        own = "__import__('sockact.fd.identity').fd.identity.namespace_cookie(sock.fileno())"
        for actor in (owner, here, other):
            actor.do("sock = socket.socket()")
        found = [actor.number(own) for actor in (owner, here, other)]
        assert len(set(found)) == 3
        for actor in (owner, here, other):
            assert actor.ask(ask) == found[:1]


def test_a_get_in_another_network_namespace(path: str) -> None:
    """A copy serves the clients of where it was made, too."""
    with inside(NET, NET) as (owner, client):
        owner.do(f"o = sockact.offer({path!r}, sockact.listen('web=tcp:127.0.0.1:8080'))")
        client.do(f"got = sockact.take({path!r}, 'web')")
        owner.begin("dial(8080)", "ask")
        client.do("serve(got, 'web', 'a copy')")
        assert owner.end() == "a copy"


def test_an_abstract_name_is_of_one_network_namespace() -> None:
    """Elsewhere it is free."""
    path = f"@sockact-test-{os.getpid()}"
    with inside(NET, NET) as (one, other):
        one.do(f"t = sockact.takeover({path!r}, 'web=tcp:127.0.0.1:8080'); t.ready()")
        other.do(f"t = sockact.takeover({path!r}, 'web=tcp:127.0.0.1:8080'); t.ready()")
        assert [one.ask("t.generation"), other.ask("t.generation")] == [1, 1]
        with inside(at(one)) as (third,):
            assert third.ask(f"len(sockact.take({path!r}))") == 1


def test_the_command_warns_once(path: str) -> None:
    """Sockact hold --takeover says it, too."""
    hold = f"p = subprocess.Popen([sys.executable, '-m', 'sockact', 'hold', {path!r}"
    with inside(NET, NET) as (old, new):
        old.do(f"import subprocess\n{hold}, '--listen', 'web=tcp:127.0.0.1:8080'])")
        until(lambda: os.path.exists(path), "the holder is there")
        new.do(f"import subprocess\n{hold}, '--takeover'], stderr=subprocess.PIPE, text=True)")
        old.do("assert p.wait(20) == 0")
        assert new.ask(f"[one.generation for one in sockact.holdings({path!r})]") == [2]
        new.do("p.terminate(); lines = p.communicate()[1].splitlines()")
        said = new.ask("[line for line in lines if 'warning' in line]")
        assert isinstance(said, list)
        assert len(said) == 1
        assert said[0].startswith(f"sockact: warning: {path}: web: made in another network")


# Process id namespaces.


@pytest.mark.parametrize("where", ["owner", "taker", "both"])
def test_a_takeover_between_pid_namespaces(path: str, where: str) -> None:
    """Neither has a process id for the other; it is not needed."""
    commands = (PID if where != "taker" else (), PID if where != "owner" else ())
    with inside(*commands) as (old, new):
        old.do(f"t = sockact.takeover({path!r}, 'web=tcp:127.0.0.1:0'); t.ready()")
        new.do(f"t = sockact.takeover({path!r}, 'web=tcp:127.0.0.1:0'); t.ready()")
        old.do("assert t.wait_successor(20); t.close()")
        assert new.ask("[t.generation, t.phase]") == [2, "is the owner"]
        new.do("t.close()")


@pytest.mark.parametrize("where", ["owner", "taker"])
def test_an_owner_that_is_killed_is_noticed_in_another_pid_namespace(path: str, where: str) -> None:
    """Its pidfd works there: the taker, who has everything, serves."""
    commands = (PID if where == "owner" else (), PID if where == "taker" else ())
    with inside(*commands) as (old, new):
        old.do(f"t = sockact.takeover({path!r}, 'web=tcp:127.0.0.1:0'); t.ready()")
        new.do(f"t = sockact.takeover({path!r}, 'web=tcp:127.0.0.1:0')")
        if where == "taker":
            # A child has the connection open, so nothing but the pidfd tells.
            old.do(
                "import subprocess; talk = next(iter(t._tenure._owner._talks))\n"
                "child = subprocess.Popen(['sleep', '60'], pass_fds=[talk.socket.fileno()])"
            )
            child = old.number("child.pid")
        old.kill()
        new.do("t.ready(20)")
        assert new.ask("[t.generation, t.phase]") == [2, "is the owner"]
        if where == "taker":
            os.kill(child, signal.SIGKILL)
        new.do("t.close()")


# A system that takes only little control data.

LITTLE = ("unshare", "--net", "sh", "-c",
          'echo 500 >/proc/sys/net/core/optmem_max && exec "$@"', "sh")  # fmt: skip


def test_chunks_that_the_kernel_does_not_take_are_halved(path: str) -> None:
    """ENOBUFS is no end: everything comes, in smaller chunks."""
    with inside(LITTLE, ()) as (owner, taker):
        owner.do(
            "import array\n"
            "one, other = socket.socketpair()\n"
            "rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0] * 250))]\n"
            "try:\n"
            "    one.sendmsg([b'x'], rights)\n"
            "except OSError as error:\n"
            "    number = error.errno\n"
            f"o = sockact.offer({path!r}, sockact.SocketSet(sockact.NamedSocket(str(i),"
            " os.memfd_create('x')) for i in range(600)))"
        )
        assert owner.number("number") == errno.ENOBUFS
        taker.do(f"t = sockact.take({path!r})")
        assert taker.ask("t.names == tuple(map(str, range(600)))") is True
        taker.do("t.close()")
        owner.do("o.close()")


# Mount namespaces.


def test_one_directory_at_two_paths(short_dir: Path) -> None:
    """The lock and the node are files: whoever sees the directory is at the same rendezvous."""
    for name in ("here", "there"):
        (short_dir / name).mkdir()
    here, there = f"{short_dir}/here/r", f"{short_dir}/there/r"
    bind = f'mount --bind {short_dir}/here {short_dir}/there; exec "$@"'
    with inside((), ("unshare", "--mount", "sh", "-c", bind, "sh")) as (old, new):
        old.do(f"t = sockact.takeover({here!r}, 'web=tcp:127.0.0.1:0'); t.ready()")
        with pytest.raises(ActorError, match="has an owner"):
            new.do(f"sockact.offer({there!r}, sockact.listen('web=tcp:127.0.0.1:0'))")
        assert new.ask(f"len(sockact.take({there!r}))") == 1
        new.do(f"t = sockact.takeover({there!r}, 'web=tcp:127.0.0.1:0'); t.ready()")
        old.do("assert t.wait_successor(20); t.close()")
        assert old.ask(f"[one.generation for one in sockact.holdings({here!r})]") == [2]
        assert os.listdir(short_dir / "there") == []
        new.kill()
        old.do(f"t = sockact.takeover({here!r}, 'web=tcp:127.0.0.1:0'); t.ready()")
        assert old.ask("t.generation") == 1
        old.do("t.close()")
    assert os.listdir(short_dir / "here") == []


def test_a_node_that_is_mounted_alone_is_not_enough(short_dir: Path) -> None:
    """A get works, until the node is replaced."""
    there = f"{short_dir}/there"
    Path(there).touch()
    with inside((), ()) as (old, new):
        path = f"{short_dir}/r"
        old.do(f"o = sockact.offer({path!r}, sockact.listen('web=tcp:127.0.0.1:0'))")
        bind = f'mount --bind {path} {there}; exec "$@"'
        with inside(("unshare", "--mount", "sh", "-c", bind, "sh")) as (client,):
            assert client.ask(f"len(sockact.take({there!r}))") == 1
            old.kill()
            new.do(f"o = sockact.offer({path!r}, sockact.listen('web=tcp:127.0.0.1:0'))")
            with pytest.raises(ActorError, match="OwnerNotFoundError"):
                client.do(f"sockact.take({there!r})")


# User namespaces.


@contextlib.contextmanager
def users(*mappings: str | None) -> Iterator[list[Actor]]:
    """Start actors: without a user namespace, or with one that has these lines in its uid_map."""
    with actors(*(0 for _ in mappings)) as found:
        for actor, mapping in zip(found, mappings, strict=True):
            actor.do(_PRELUDE)
            if mapping is None:
                continue
            actor.do("new_user_namespace()")
            if mapping:
                for name in ("uid_map", "gid_map"):
                    Path(f"/proc/{actor.pid}/{name}").write_text(mapping, encoding="ascii")
                actor.do("os.setgroups([]); os.setresgid(0, 0, 0); os.setresuid(0, 0, 0)")
        yield found


ROOT_IS_ROOT = "0 0 1\n"
ROOT_IS_ANOTHER = f"0 {ANOTHER_UID} 1\n"
UNMAPPED = ""


@pytest.mark.parametrize("where", ["owner", "taker"])
def test_root_that_is_mapped_to_root_is_root(path: str, where: str) -> None:
    """What both namespaces call root is one user: everything works."""
    pair = (ROOT_IS_ROOT, None) if where == "owner" else (None, ROOT_IS_ROOT)
    with users(*pair) as (old, new):
        old.do(f"t = sockact.takeover({path!r}, 'web=tcp:127.0.0.1:0'); t.ready()")
        assert new.ask(f"len(sockact.take({path!r}))") == 1
        new.do(f"t = sockact.takeover({path!r}, 'web=tcp:127.0.0.1:0'); t.ready()")
        old.do("assert t.wait_successor(20); t.close()")
        assert new.ask("t.generation") == 2
        new.do("t.close()")


def test_an_owner_without_a_name_is_not_trusted(path: str) -> None:
    """Even if the client has none either: both are uid 65534 to it, and may be anybody."""
    with users(None, UNMAPPED) as (owner, client):
        owner.do(f"o = sockact.offer({path!r}, sockact.listen('web=tcp:127.0.0.1:0'))")
        assert client.ask("os.geteuid()") == OVERFLOW
        for call in ("take", "takeover", "holdings"):
            with pytest.raises(ActorError, match="UntrustedOwnerError") as caught:
                client.do(f"sockact.{call}({path!r})")
            assert f"uid {OVERFLOW}, which stands for all without a name" in str(caught.value)
        more = f"trusted=[{OVERFLOW}]"
        with pytest.raises(ActorError, match="UntrustedOwnerError"):
            client.do(f"sockact.take({path!r}, {more})")


def test_a_client_without_a_name_is_refused(path: str) -> None:
    """Even if the owner has none either, or names the number in a rule."""
    with users(UNMAPPED, None) as (owner, client):
        assert owner.ask("os.geteuid()") == OVERFLOW
        owner.do(f"o = sockact.offer({path!r}, sockact.listen('web=tcp:127.0.0.1:0'))")
        for call in ("take", "takeover", "holdings"):
            with pytest.raises(ActorError, match="RefusedError") as caught:
                client.do(f"sockact.{call}({path!r})")
            assert f"uid {OVERFLOW}, which stands for" in str(caught.value)
        owner.do("o.close()")


def test_root_of_a_container_is_another_user_outside() -> None:
    """It may do what a rule allows that user, but does not know who the owner is."""
    path = f"@sockact-test-{os.getpid()}"
    with users(None, ROOT_IS_ANOTHER) as (owner, client):
        owner.do(f"o = sockact.offer({path!r}, sockact.listen('web=tcp:127.0.0.1:0'))")
        with pytest.raises(ActorError, match="UntrustedOwnerError"):
            client.do(f"sockact.take({path!r})")
        owner.do("o.close()")
        client.do(f"o = sockact.offer({path!r}, sockact.listen('web=tcp:127.0.0.1:0'))")
        with pytest.raises(ActorError, match=f"is owned by pid [0-9]+, uid {ANOTHER_UID}"):
            owner.do(f"sockact.take({path!r})")
        # It may be believed, but then does not know who asks.
        with pytest.raises(ActorError, match="may do nothing here"):
            owner.do(f"sockact.take({path!r}, trusted=[{ANOTHER_UID}])")
        client.do("o.close()")


def test_containers_with_one_mapping_are_at_home_with_each_other() -> None:
    """Two user namespaces in which root is the same user outside."""
    path = f"@sockact-test-{os.getpid()}"
    with users(ROOT_IS_ANOTHER, ROOT_IS_ANOTHER) as (old, new):
        old.do(f"t = sockact.takeover({path!r}, 'web=tcp:127.0.0.1:0'); t.ready()")
        new.do(f"t = sockact.takeover({path!r}, 'web=tcp:127.0.0.1:0'); t.ready()")
        old.do("assert t.wait_successor(20); t.close()")
        assert new.ask("t.generation") == 2
        new.do("t.close()")


def test_a_directory_of_nobody_is_no_place(path: str) -> None:
    """What a user namespace has no name for, anybody may own."""
    nobodys = pytest.raises(ActorError, match=f"belongs to uid {OVERFLOW}")
    with users(ROOT_IS_ANOTHER) as (actor,), nobodys:
        actor.do(f"sockact.holdings({path!r})")
