"""The edges of a takeover: owners and takers played by hand say just the wrong thing, or too late."""

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sockact
from sockact.errors import PathInUseError, TakeoverAbortedError
from sockact.rendezvous import takeover
from sockact.rendezvous.inspect import inspect
from sockact.rendezvous.manifest import Manifest
from sockact.rendezvous.messages import (
    Abort,
    Commit,
    Drain,
    Fds,
    Message,
    Offer,
    Reason,
    Welcome,
)
from sockact.rendezvous.policy import Who
from tests.helpers import SECONDS
from tests.rendezvous.peers import (
    ANOTHER_UID,
    actors,
    count_fds,
    hear,
    leading,
    say,
    until,
)

WEB = "web=tcp:127.0.0.1:0"


class _Owner:
    """An owner's end, played by hand.

    Attributes:
        listener: The listener of the path.
    """

    def __init__(self, sock: socket.socket, listener: socket.socket) -> None:
        self._sock = sock
        self.listener = listener

    def say(self, message: Message) -> None:
        say(self._sock, message)

    def until(self, kind: str) -> None:
        """Read until a message of that kind comes."""
        while kind != hear(self._sock)[0].TYPE:
            pass

    def give(self, *given: tuple[int, str]) -> None:
        """Give descriptors away, each in its role, and the listener; the client is ready then."""
        self.pass_on(*given, (self.listener.fileno(), "rendezvous"))
        self.until("ready")

    def pass_on(self, *given: tuple[int, str]) -> None:
        """Pass descriptors on, each in its role; without one it is a socket to serve."""
        self.until("hello")
        self.say(Welcome(1))
        self.until("request")
        entries = [inspect(fd, role or "u", "" if role else "u", role) for fd, role in given]
        self.say(Offer(len(given), Manifest(entries)))
        self.until("accept")
        say(self._sock, Fds(0, len(given)), [fd for fd, _ in given])

    def commit(self) -> None:
        self.say(Commit())
        self.until("committed")


@contextlib.contextmanager
def _owned(path: str, act: Callable[[_Owner], None]) -> Iterator[None]:
    """Listen at a path, and treat the first one to connect as `act` does, in a thread."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.settimeout(SECONDS)
        listener.listen()

        def serve() -> None:
            sock, _ = listener.accept()
            sock.settimeout(SECONDS)
            with sock, contextlib.suppress(EOFError):
                act(_Owner(sock, listener))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()


def test_a_vote_that_was_counted_is_not_taken_back(path: str) -> None:
    """An impatient ready() succeeds if the former owner has committed: both would let go else."""
    said: list[str] = []

    def act(owner: _Owner) -> None:
        with socket.create_server(("127.0.0.1", 0)) as web:
            owner.give((web.fileno(), ""))
        owner.commit()
        time.sleep(0.5)
        said.append("drain")
        owner.say(Drain())
        owner.until("release")

    with _owned(path, act), sockact.takeover(path) as taker:
        taker.ready(timeout=0.1)
        assert taker.phase == "is the owner"
        assert said == ["drain"]
        assert not taker.sockets.entry().closed


def test_a_node_stays_with_an_owner_that_takes_back(path: str, short_dir: Path) -> None:
    """RemoveOnStop=yes removes nothing after the one who had presumed to lead has stepped down."""
    node = str(short_dir / "u")

    def act(owner: _Owner) -> None:
        owner.give((listening.fileno(), ""))
        owner.commit()
        until(lambda: taker.phase == "is the owner", "it presumes to lead")
        owner.say(Abort(Reason.CANCELLED, "takes back"))

    def lead() -> None:
        taker.ready()  # it may be over before this has seen that it leads
        taker.wait_successor(SECONDS)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(node)
        listening.listen()
        with _owned(path, act):
            taker = sockact.takeover(path, f"u=unix:{node}?RemoveOnStop=yes")
            with taker, pytest.raises(TakeoverAbortedError, match="takes back"):
                lead()
        assert os.path.exists(node)


@pytest.mark.parametrize("role", ["rendezvous", "owner"])
def test_a_duty_that_is_none_ends_the_takeover(path: str, role: str) -> None:
    """The owner hears of it at once, and nothing stays open."""

    def act(owner: _Owner) -> None:
        with tempfile.TemporaryFile() as file:
            listener = (owner.listener.fileno(), "rendezvous")
            owner.pass_on((file.fileno(), role), *([listener] if role == "owner" else []))
        owner.until("abort")

    before = count_fds()
    with _owned(path, act), pytest.raises(TakeoverAbortedError, match="passed on what cannot be"):
        sockact.takeover(path, timeout=5)
    assert count_fds() == before


def test_a_rendezvous_that_does_not_listen_is_not_taken_over(path: str) -> None:
    """Nobody could ever come to its new owner."""

    def act(owner: _Owner) -> None:
        with socket.socket(socket.AF_UNIX) as other:
            owner.pass_on((other.fileno(), "rendezvous"))
        owner.until("abort")

    with _owned(path, act), pytest.raises(TakeoverAbortedError, match="does not listen"):
        sockact.takeover(path, timeout=5)


def test_a_request_that_cannot_be_written_leaves_nothing(path: str) -> None:
    """Neither a connection nor a takeover that is waited for."""
    with leading(path, WEB) as owner:
        before = count_fds()
        for do in (
            lambda: sockact.take(path, *(f"{i}".zfill(200) for i in range(400))),
            lambda: sockact.takeover(path, patience=float("inf")),
        ):
            with pytest.raises(ValueError):  # noqa: PT011 - json says what it wants
                do()
        until(lambda: count_fds() == before, "the owner has noticed")
        assert owner.phase == "is the owner"


def test_to_want_a_path_that_is_owned_disturbs_nobody(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """offer() begins no takeover to find that there is an owner."""
    with leading(path, WEB) as owner:
        troubles: list[str] = []

        def trouble(who: Who, text: str) -> None:
            troubles.append(f"{who}: {text}")

        monkeypatch.setattr(owner._tenure, "trouble", trouble)
        with pytest.raises(PathInUseError, match="has an owner"):
            sockact.offer(path, sockact.SocketSet(), timeout=1)
        sockact.take(path).close()
        assert troubles == []


def test_close_does_not_wait_for_ever_for_a_callback(path: str) -> None:
    """The tenure ends when the callback does, and its successor keeps the path."""
    stopped, go = threading.Event(), threading.Event()

    def stop() -> None:
        stopped.set()
        go.wait(SECONDS)

    old = leading(path, WEB)
    old.on_drain(stop)
    with sockact.takeover(path, WEB) as new:
        voting = threading.Thread(target=new.ready)
        voting.start()
        assert stopped.wait(SECONDS)
        old.close(timeout=0.1)
        assert old.sockets.entry("web").closed
        go.set()
        voting.join()
        assert new.phase == "is the owner"
        until(lambda: not old._thread.is_alive(), "its thread has ended")
        assert os.path.exists(path)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become other users")
def test_who_may_get_a_set_cannot_keep_others_from_theirs(short_dir: Path) -> None:
    """Descriptors that a user has sent and nobody reads count against its RLIMIT_NOFILE."""
    directory = short_dir / "own"
    directory.mkdir()
    os.chmod(short_dir, 0o755)
    os.chown(directory, 4321, 4321)
    path = f"{directory}/r"
    with actors(4321, 4321, ANOTHER_UID) as (owner, taker, hostile):
        owner.do(
            "import attrs, resource; from sockact.rendezvous.policy import Rule\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (512, 1024))\n"
            "made = [socket.socket(type=socket.SOCK_DGRAM).detach() for _ in range(100)]\n"
            "sockets = sockact.SocketSet(sockact.NamedSocket('w', number) for number in made)\n"
            f"t = sockact.offer({path!r}, sockets)\n"
            "t._tenure._place.open_to_others(); sets = t._tenure.estate.sets\n"
            f"sets['w'] = attrs.evolve(sets['w'], rule=Rule(({ANOTHER_UID},)))"
        )
        hostile.do(
            "import socket; from sockact.rendezvous.messages import Accept\n"
            f"wires = [Wire({path!r}) for _ in range(16)]\n"
            "for wire in wires:\n"
            "    wire.ask(Op.GET); wire.say(Accept())\n"
            "    select.select([wire.sock], [], [])"
        )
        assert taker.number(f"len(sockact.take({path!r}, timeout=5))") == 100
        taker.do(f"leading({path!r}, timeout=5)")
        assert hostile.number("sum(len(wire.hear()[1]) for wire in wires)") <= 256


def test_a_vote_that_was_counted_is_not_taken_back_in_a_loop(path: str) -> None:
    """As with threads; and the loop goes on meanwhile."""

    def act(owner: _Owner) -> None:
        with socket.create_server(("127.0.0.1", 0)) as web:
            owner.give((web.fileno(), ""))
        owner.commit()
        time.sleep(0.5)
        owner.say(Drain())
        owner.until("release")

    async def main() -> int:
        ticks = 0
        async with sockact.aio.takeover(path) as taker:
            ready = asyncio.ensure_future(taker.ready(timeout=0.1))
            while not ready.done():
                await asyncio.sleep(0.05)
                ticks += 1
            await ready
            assert taker.phase == "is the owner"
        return ticks

    with _owned(path, act):
        assert asyncio.run(main()) > 4


def test_a_holder_that_cannot_begin_leaves_nothing(path: str) -> None:
    """Signals are heard by the main thread alone."""
    before = count_fds()
    errors: list[str] = []

    def hold() -> None:
        try:
            sockact.hold(path, warn=print, say=print)
        except ValueError as error:
            errors.append(str(error))

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert "main thread" in errors[0]
    assert count_fds() == before


def test_a_callback_that_exits_ends_no_takeover(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In the thread of the rendezvous it would end nothing but the owner's answers."""
    with leading(path, WEB) as old, sockact.takeover(path, WEB) as new:
        old.on_drain(lambda: sys.exit(3))
        new.ready()
        assert old.wait_successor(SECONDS)
    assert "a callback of a takeover failed" in caplog.text


def test_an_owner_that_ends_waits_for_who_is_taking_over(short_dir: Path) -> None:
    """Whoever starts the next version and stops this one at once still has somebody who serves."""
    path = str(short_dir / "r")
    with sockact.takeover(path, WEB) as old:
        old.ready()
        with sockact.takeover(path) as new:
            closing = threading.Thread(target=old.close)
            closing.start()
            new.ready(SECONDS)
            closing.join(SECONDS)
            assert not closing.is_alive()
            assert (old.phase, new.phase) == ("is over", "is the owner")
            assert os.path.exists(path)
            socket.create_connection(new.sockets["web"].getsockname(), SECONDS).close()


def test_an_owner_that_ends_does_not_wait_for_ever(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A taker that does not become ready is told; it has to start by itself."""
    monkeypatch.setattr(takeover, "HANDOVER_SECONDS", 0.2)
    path = str(short_dir / "r")
    with sockact.takeover(path, WEB) as old:
        old.ready()
        with sockact.takeover(path) as new:
            old.close()
            assert old.phase == "is over"
            with pytest.raises(TakeoverAbortedError, match="the program ends"):
                new.ready(SECONDS)
