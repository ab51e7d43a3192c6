"""sockact.rendezvous.talk over real sockets."""

import contextlib
import logging
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

import sockact
from sockact.errors import RemoteProtocolError
from sockact.fd.own import OwnedFd
from sockact.fd.transfer import receive_message
from sockact.rendezvous import talk as talk_module
from sockact.rendezvous.actions import Action
from sockact.rendezvous.estate import Estate, HeldSet
from sockact.rendezvous.inspect import inspect
from sockact.rendezvous.manifest import Entry, Manifest
from sockact.rendezvous.messages import (
    BYTES_MAX,
    VERSION,
    Abort,
    Accept,
    Alive,
    Fds,
    Hello,
    Listing,
    Message,
    Offer,
    Op,
    Reason,
    Request,
    Welcome,
)
from sockact.rendezvous.owner import OwnerSide
from sockact.rendezvous.policy import Policy, Who
from sockact.rendezvous.react import Reactor
from sockact.rendezvous.tables import OwnerState
from sockact.rendezvous.talk import Connection, Talk, identify
from sockact.rendezvous.wire import Framer, encode
from tests.helpers import SECONDS
from tests.rendezvous.peers import ANOTHER_UID, Wire, actors, count_fds, dial, say, until

KINDS = [socket.SOCK_SEQPACKET, socket.SOCK_STREAM]
Pair = tuple[Connection, socket.socket]


@pytest.fixture(name="pair", params=KINDS, ids=["seqpacket", "stream"])
def _pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    mine, theirs = socket.socketpair(socket.AF_UNIX, request.param)
    theirs.settimeout(SECONDS)
    connection = Connection(mine)
    yield connection, theirs
    connection.close()
    theirs.close()


class Reader:
    """Reads frames, and closes the descriptors that come with them."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._framer: Framer[int] = Framer()

    def read(self, before: Callable[[], None] = lambda: None) -> tuple[Message, int]:
        """Return the next message and how many descriptors it had."""
        while not (found := self._next()):
            before()
            self._read_some()
        for fd in found[1]:
            os.close(fd)
        return found[0], len(found[1])

    def _next(self) -> tuple[Message, tuple[int, ...]] | None:
        return self._framer.next()

    def _read_some(self) -> None:
        got = receive_message(self._sock, BYTES_MAX)
        if not got.data:
            raise EOFError
        self._framer.feed(got.data, got.fds)


def _null() -> OwnedFd:
    return OwnedFd(os.open("/dev/null", os.O_RDONLY))


# Connections.


def test_what_the_peer_does_not_read_waits(pair: Pair) -> None:
    """Messages stay whole and in order, and so do their descriptors, of which copies wait."""
    connection, theirs = pair
    handle = _null()
    count = 100
    for i in range(count):
        connection.send(Abort(Reason.FAILED, f"{i} {'x' * 4000}"), [handle] * (i % 3))
    handle.close()
    assert connection.pending
    reader = Reader(theirs)
    for i in range(count):
        message, fds = reader.read(connection.flush)
        assert (getattr(message, "text", "")[:3].split()[0], fds) == (str(i), i % 3)
    connection.flush()
    assert not connection.pending


def test_the_copies_that_wait_are_closed_with_it(pair: Pair) -> None:
    """Also if nobody has ever read."""
    connection, _ = pair
    with contextlib.closing(_null()) as handle:
        before = count_fds()
        while not connection.pending:
            connection.send(Abort(Reason.FAILED, "x" * 4000), [handle])
        connection.send(Alive(), [])
        connection.send(Fds(0, 3), [handle] * 3)
        assert count_fds() > before
        connection.close_queue()
        assert count_fds() == before


def test_a_message_whose_copies_cannot_be_made_is_not_sent(pair: Pair) -> None:
    """Without room for them it would go without its descriptors."""
    connection, _ = pair
    with contextlib.closing(_null()) as handle:
        while not connection.pending:
            connection.send(Abort(Reason.FAILED, "x" * 4000))
        queued, before = len(connection._out), count_fds()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (handle.fileno() + 2, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                connection.send(Fds(0, 3), [handle] * 3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (len(connection._out), count_fds()) == (queued, before)


def test_a_peer_that_never_reads_fills_no_memory(pair: Pair) -> None:
    """There is an end to the queue."""
    connection, _ = pair

    def fill() -> None:
        for _ in range(1_000_000):
            connection.send(Alive())

    with pytest.raises(OSError, match="does not read"):
        fill()


def test_the_end_and_its_errors_are_told_apart(pair: Pair) -> None:
    """Nothing there, the end, and nonsense."""
    connection, theirs = pair
    assert connection.receive() is None
    theirs.send(encode(Hello(1, 1)))
    got = connection.receive()
    assert got
    assert isinstance(got[0], Hello)
    theirs.send(b"nonsense")
    with pytest.raises(RemoteProtocolError):
        connection.receive()


def test_what_was_sent_before_a_reset_still_comes() -> None:
    """A peer that closes without reading everything has said what it has said."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.closing(Connection(mine)) as connection:
        connection.send(Alive())
        say(theirs, Hello(1, 1))
        theirs.close()
        got = connection.receive()
        assert got
        assert isinstance(got[0], Hello)
        with pytest.raises(EOFError):
            connection.receive()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become a user with limits")
def test_too_many_descriptors_in_flight_are_waited_for() -> None:
    """ETOOMANYREFS passes as others arrive; meanwhile the processor has something better to do."""
    loaded = (
        "import resource, time, sockact.rendezvous.talk as talk_module\n"
        "from sockact.rendezvous.talk import *\n"
        "from sockact.rendezvous.client import ClientSide\n"
        "from sockact.rendezvous.react import Reactor\n"
        "from sockact.rendezvous.messages import *\n"
        "from sockact.fd.own import OwnedFd\n"
        "import select, logging\n"
    )
    with actors(ANOTHER_UID, before=loaded) as (other,):
        other.do(
            "resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))\n"
            "left, right = socket.socketpair()\n"
            "for _ in range(4): left.sendmsg([b'x'], rights(*[0] * 10))\n"
            "mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
            "reactor = Reactor(); connection = Connection(mine)\n"
            "side = ClientSide(Request(Op.GET), time.monotonic(), identify=identify)\n"
            "t = Talk(reactor, connection, side, print)\n"
            "handle = OwnedFd(os.dup(0)); connection.send(Fds(0, 1), [handle]); t._settle()"
        )
        assert other.ask("[connection.pending, connection.crowded]") == [True, True]
        other.do("steps, end = 0, time.monotonic() + 0.2")
        other.do("while time.monotonic() < end: reactor.step(0.2); steps += 1")
        assert other.number("steps") < 40
        other.do("for _ in range(4): right.recv(1)")
        other.do(
            "end = time.monotonic() + 10\n"
            "while connection.pending and time.monotonic() < end: reactor.step(0.2)"
        )
        assert other.ask("[connection.pending, hear(theirs)[0].TYPE]") == [False, "fds"]


# Ends of the protocol at work.


class Counting(OwnerSide[OwnedFd]):
    """Counts the messages that come."""

    count = 0

    def receive(self, message: Message, handles: Sequence[OwnedFd], now: float) -> list[Action]:
        """Count it, and take it."""
        self.count += 1
        return super().receive(message, handles, now)


class Stage:
    """A reactor with owners' ends of connections."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.estate: Estate[OwnedFd] = Estate(Policy(os.getuid()))
        self.acted: list[Action] = []
        self._peers: list[socket.socket] = []
        self._talks: list[Talk] = []

    def talk(
        self,
        kind: int = socket.SOCK_SEQPACKET,
        act: Callable[[Action], None] | None = None,
        born: float | None = None,
    ) -> tuple[Talk, Counting, socket.socket]:
        """Add one; return it with its end, and the socket of its peer."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, kind)
        theirs.settimeout(SECONDS)
        now = time.monotonic() if born is None else born
        side = Counting(self.estate, Who(os.getuid()), now, identify=identify)
        talk = Talk(self.reactor, Connection(mine), side, act or self.acted.append)
        self._peers.append(theirs)
        self._talks.append(talk)
        return talk, side, theirs

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Drive it until a condition holds."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end
            self.reactor.step(0.01)

    def close(self) -> None:
        """Close everything."""
        for talk in self._talks:
            talk.close()
        for peer in self._peers:
            peer.close()
        self.reactor.close()


@pytest.fixture(name="stage")
def _stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


def test_who_never_stops_talking_does_not_keep_others_waiting(stage: Stage) -> None:
    """A bounded number of messages is read at a time, however many there are."""
    _, loud, their_loud = stage.talk(socket.SOCK_STREAM)
    _, calm, their_calm = stage.talk()
    say(their_loud, Hello(1, 1))
    their_loud.sendall(encode(Alive()) * 500)
    say(their_calm, Hello(1, 1))
    stage.reactor.step(0)
    assert loud.count <= 64
    assert calm.state is OwnerState.IDLE
    # What waits in the framer rather than in the socket is not forgotten.
    for _ in range(20):
        stage.reactor.step(0)
    assert loud.count == 501


def test_what_has_come_is_read_before_time_is_up(stage: Stage) -> None:
    """Even if it stands behind more messages than are read at a time otherwise."""
    talk, side, theirs = stage.talk(socket.SOCK_STREAM, born=time.monotonic() - 6.0)
    say(theirs, Hello(1, 1))
    talk.expire(time.monotonic())
    assert side.state is OwnerState.IDLE
    talk, side, theirs = stage.talk(socket.SOCK_STREAM, born=time.monotonic() - 6.0)
    theirs.sendall(encode(Alive()) * 200 + encode(Hello(1, 1)))
    talk.expire(time.monotonic())
    assert side.state is OwnerState.IDLE
    talk, side, theirs = stage.talk(born=time.monotonic() - 6.0)
    talk.expire(time.monotonic())
    assert side.state is OwnerState.CLOSED
    assert talk.closed


def test_what_goes_wrong_ends_one_conversation(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """The owner does not die of it, and somebody who looks at the log hears of it."""

    def fail(action: Action) -> None:
        raise KeyError(action)

    bad, _, theirs = stage.talk(act=fail)
    good, side, their_good = stage.talk()
    for sock in (theirs, their_good):
        say(sock, Hello(1, 1))
        say(sock, Request(Op.LIST))
    with caplog.at_level(logging.ERROR, "sockact"):
        stage.run_until(lambda: side.state is OwnerState.REPORTING)
        stage.run_until(lambda: bad.closed)
    assert not good.closed
    assert "a conversation at a rendezvous failed" in caplog.text


def test_a_takeover_that_goes_wrong_is_undone(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """The next one is not refused for the one that failed."""
    handle = _null()
    entry = inspect(handle.fileno(), "n", "s")
    stage.estate.sets["s"] = HeldSet("s", Manifest([entry]), (handle,))
    talk, side, theirs = stage.talk()
    say(theirs, Hello(1, 1))
    say(theirs, Request(Op.TAKEOVER))
    stage.run_until(lambda: side.state is OwnerState.OFFERED)
    assert stage.estate.phase.name == "HANDING"
    side._giving = None  # as if by a mistake of ours
    with caplog.at_level(logging.CRITICAL, "sockact"):
        say(theirs, Accept())
        stage.run_until(lambda: talk.closed)
    assert stage.estate.phase.name == "OWNING"
    handle.close()


def test_the_last_words_do_not_wait_for_ever(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that does not read what ends a conversation is not waited for without end."""
    monkeypatch.setattr(talk_module, "LINGER_SECONDS", 0.05)
    talk, side, theirs = stage.talk()
    say(theirs, Hello(1, 1))
    say(theirs, Request(Op.LIST))
    stage.run_until(lambda: side.state is OwnerState.REPORTING)
    rows = Manifest([Entry("s" * 200, "n" * 200 + str(i)) for i in range(100)])
    talk.perform(side.listed([Listing(rows)] * 20, time.monotonic()))
    assert not talk.closed
    for _ in range(3):  # what still comes changes nothing, and costs nothing
        with contextlib.suppress(OSError):
            theirs.send(b"nonsense", socket.MSG_DONTWAIT)
    stage.run_until(lambda: talk.closed)


@pytest.mark.parametrize("kind", KINDS)
def test_to_wait_for_a_reader_costs_nothing(stage: Stage, kind: int) -> None:
    """The processor is not kept busy by a queue that is full."""
    talk, side, theirs = stage.talk(kind)
    say(theirs, Hello(1, 1))
    say(theirs, Request(Op.LIST))
    stage.run_until(lambda: side.state is OwnerState.REPORTING)
    rows = Manifest([Entry("s" * 200, "n" * 200 + str(i)) for i in range(100)])
    talk.perform(side.listed([Listing(rows)] * 20, time.monotonic()))
    steps, end = 0, time.monotonic() + 0.2
    while time.monotonic() < end:
        stage.reactor.step(0.2)
        steps += 1
    assert not talk.closed
    assert steps < 10


def test_the_last_words_wait_for_who_reads(stage: Stage) -> None:
    """A slow reader gets everything."""
    talk, side, theirs = stage.talk()
    say(theirs, Hello(1, 1))
    say(theirs, Request(Op.LIST))
    stage.run_until(lambda: side.state is OwnerState.REPORTING)
    rows = Manifest([Entry("s" * 200, "n" * 200 + str(i)) for i in range(100)])
    talk.perform(side.listed([Listing(rows)] * 20, time.monotonic()))
    reader = Reader(theirs)
    found = [reader.read(lambda: stage.reactor.step(0))[0] for _ in range(21)]
    assert isinstance(found[0], Welcome)
    assert all(isinstance(one, Listing) for one in found[1:])
    stage.run_until(lambda: talk.closed)


def test_an_owner_does_not_keep_what_nobody_reads(short_dir: object) -> None:
    """A client that asks for a long list and reads nothing is let go of while it stays."""
    path = f"{short_dir}/r"
    with actors(0) as (owner,):
        owner.do(
            "import sockact.rendezvous.talk as talk; talk.LINGER_SECONDS = 0.1\n"
            "given = sockact.SocketSet([sockact.NamedSocket('n' * 240 + str(i),"
            " socket.socket(type=socket.SOCK_DGRAM).detach()) for i in range(600)])\n"
            f"t = sockact.offer({path!r}, given)"
        )
        before = owner.number("count_fds()")
        for _ in range(3):
            sock = dial(path)
            say(sock, Hello(1, VERSION))
            say(sock, Request(Op.LIST))
            until(lambda: owner.number("count_fds()") > before, "it has connected")
            until(lambda: owner.number("count_fds()") == before, "it is let go of")
            sock.close()
        # The same, read to its end, however slowly.
        owner.do(f"talk.LINGER_SECONDS = {SECONDS}")
        assert len(sockact.holdings(path)) == 600
        with contextlib.closing(Wire(path)) as wire:
            assert isinstance(wire.ask(Op.GET), Offer)
