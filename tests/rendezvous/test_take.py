"""sockact.take, put, drop and holdings against an honest owner, and against dishonest ones."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

import sockact
from sockact.errors import (
    OwnerNotFoundError,
    RefusedError,
    RendezvousError,
    TakeoverAbortedError,
)
from sockact.fd.own import OwnedFd
from sockact.rendezvous.inspect import inspect
from sockact.rendezvous.manifest import Manifest
from sockact.rendezvous.messages import (
    Accept,
    Adopted,
    Alive,
    Commit,
    Done,
    Fds,
    Listing,
    Message,
    Offer,
    Reason,
    Refuse,
    Welcome,
)
from tests.helpers import SECONDS
from tests.rendezvous.peers import Wire, cookies, count_fds, dial, hear, leading, say, until

DEFINITIONS = ("a=udp:127.0.0.1:0", "b=tcp:127.0.0.1:0", "a=tcp:127.0.0.1:0")


@pytest.fixture(name="owner")
def _owner(path: str) -> Iterator[sockact.Rendezvous]:
    with leading(path, *DEFINITIONS) as owner:
        yield owner


@pytest.mark.parametrize(
    ("names", "indices"),
    [
        ((), [0, 2, 1]),
        (("b",), [1]),
        (("a",), [0, 2]),
        (("b", "a"), [1, 0, 2]),
        (("a", "b"), [0, 2, 1]),
        (("b", "b"), [1]),
    ],
)
def test_copies_come_in_the_order_of_the_names(
    path: str, owner: sockact.Rendezvous, names: tuple[str, ...], indices: list[int]
) -> None:
    """Without names everything comes, set by set; the owner keeps its own and its place."""
    have = cookies(list(owner.sockets))
    with sockact.take(path, *names) as got:
        assert cookies(list(got)) == [have[i] for i in indices]
        assert got.names == tuple(owner.sockets.names[i] for i in indices)
        assert not any(os.get_inheritable(number) for number in got.filenos())
    assert owner.phase == "is the owner"
    assert cookies(list(owner.sockets)) == have


def test_an_unknown_name_is_refused(path: str, owner: sockact.Rendezvous) -> None:
    """Nothing is given of the names that are known."""
    before = count_fds()
    with pytest.raises(RefusedError, match="nothing called 'c'") as caught:
        sockact.take(path, "a", "c")
    assert caught.value.reason == "unknown-name"
    until(lambda: count_fds() == before, "everything is closed")
    assert owner.phase == "is the owner"


def test_nothing_is_an_answer_too(path: str) -> None:
    """An owner without sockets has nothing to take, and can be taken over all the same."""
    with leading(path) as owner:
        with pytest.raises(RefusedError, match="there is nothing here"):
            sockact.take(path)
        assert sockact.holdings(path) == []
        with sockact.takeover(path) as new:
            new.ready()
            assert owner.wait_successor(SECONDS)


def test_there_is_no_owner(path: str) -> None:
    """That is told from an owner that refuses; nothing is made at the path."""
    for ask in (sockact.take, sockact.holdings):
        with pytest.raises(OwnerNotFoundError, match="nobody listens"):
            ask(path)
    with pytest.raises(OwnerNotFoundError):
        sockact.take("@sockact-test-nobody")
    assert os.listdir(os.path.dirname(path)) == []


@pytest.mark.usefixtures("owner")
def test_an_owner_that_serves_takes_no_put(path: str) -> None:
    """Neither put nor drop is for an owner that is no holder."""
    with sockact.listen("x=tcp:127.0.0.1:0") as mine:
        before = count_fds()
        with pytest.raises(RendezvousError, match="only a holder takes a put"):
            sockact.put(path, "x", mine)
        with pytest.raises(RefusedError, match="only a holder takes a drop"):
            sockact.drop(path, "a")
        until(lambda: count_fds() == before, "everything is closed")


def test_taking_goes_on_while_somebody_takes_over(path: str, owner: sockact.Rendezvous) -> None:
    """From the old owner, and then from the new one."""
    with sockact.takeover(path) as new:
        with sockact.take(path, "b") as got:
            assert cookies(list(got)) == cookies([owner.sockets.entry("b")])
        assert {one.generation for one in sockact.holdings(path)} == {1}
        new.ready()
        assert {one.generation for one in sockact.holdings(path)} == {2}


@pytest.mark.usefixtures("owner")
def test_too_many_connections_are_waited_for(path: str) -> None:
    """Who has as many as are allowed is refused, and asks again as long as there is time."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(contextlib.closing(dial(path))) for _ in range(16)]
        with pytest.raises(RefusedError, match="too many connections") as caught:
            sockact.take(path, timeout=0.1)
        assert caught.value.reason == "limit"
        threading.Timer(0.1, held.pop().close).start()
        sockact.take(path, timeout=SECONDS).close()


def test_what_is_listed(path: str, owner: sockact.Rendezvous) -> None:
    """Each descriptor with its queue, and since when its set is there."""
    address = owner.sockets["b"].getsockname()
    with socket.create_connection(address, SECONDS):
        found = sockact.holdings(path)
    assert [(one.entry.name, one.entry.kind, one.unit) for one in found] == [
        ("a", "Datagram", "bytes"),
        ("a", "Stream", "connections"),
        ("b", "Stream", "connections"),
    ]
    assert found[2].queued == 1
    assert abs(found[0].since - time.time()) < 60
    assert found[0].entry.address.startswith("127.0.0.1:")


def test_a_long_list_comes_in_many_messages(path: str) -> None:
    """What a list says beside a manifest has its room in a message, and the owner lives on."""
    entries = [
        sockact.NamedSocket("n" * 40 + str(i), socket.socket(type=socket.SOCK_DGRAM).detach())
        for i in range(700)
    ]
    with sockact.offer(path, sockact.SocketSet(entries)) as owner:
        assert len(sockact.holdings(path)) == 700
        assert owner.phase == "is the owner"
    # So different, and so long, that 500 of them only just fit into a part of a manifest.
    one_set = []
    for i in range(600):
        if i % 2:
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(f"\0sockact-test-{os.getpid()}-".ljust(78, "x") + f"{i:03}")
            sock.listen(1000)
        else:
            sock = socket.socket(type=socket.SOCK_DGRAM)
            sock.bind(("127.0.0.1", 0))
        one_set.append(sockact.NamedSocket("n", sock.detach()))
    with sockact.offer(path, sockact.SocketSet(one_set)):
        assert len(sockact.holdings(path)) == 600
        sockact.take(path).close()


# Owners that are not what they seem.


class _Evil:
    """What a dishonest owner has to say to whoever connects."""

    def __init__(self, sock: socket.socket, numbers: Sequence[int]) -> None:
        self._sock = sock
        self.numbers = numbers
        self.manifest = Manifest([inspect(n, str(i), "s") for i, n in enumerate(numbers)])

    def say(self, message: Message, fds: Sequence[int] = ()) -> None:
        say(self._sock, message, fds)

    def until(self, kind: str) -> None:
        """Read until a message of that kind comes."""
        while kind != hear(self._sock)[0].TYPE:
            pass

    def welcome(self) -> None:
        self.until("hello")
        self.say(Welcome(1))
        self.until("request")

    def offer(self) -> None:
        """Offer everything, and wait until that is accepted."""
        self.welcome()
        self.say(Offer(len(self.numbers), self.manifest))
        self.until("accept")


EVIL: dict[str, tuple[Callable[[_Evil], None], str]] = {}


def evil(text: str) -> Callable[[Callable[[_Evil], None]], Callable[[_Evil], None]]:
    """Add to the table, with what the client has to say about it."""

    def add(function: Callable[[_Evil], None]) -> Callable[[_Evil], None]:
        EVIL[function.__name__.strip("_")] = function, text
        return function

    return add


@evil("is not the one that the manifest names")
def _swaps(e: _Evil) -> None:
    e.offer()
    e.say(Fds(0, 3), [e.numbers[1], e.numbers[0], e.numbers[2]])


@evil("is not the one that the manifest names")
def _repeats(e: _Evil) -> None:
    e.offer()
    e.say(Fds(0, 3), [e.numbers[0], e.numbers[0], e.numbers[2]])


@evil("is not the one that the manifest names")
def _swaps_in_the_second_chunk(e: _Evil) -> None:
    e.offer()
    e.say(Fds(0, 1), e.numbers[:1])
    e.until("ack")
    e.say(Fds(1, 2), [e.numbers[2], e.numbers[1]])


@evil("descriptors came at 0, 2 at 0 announced")
def _miscounts(e: _Evil) -> None:
    e.offer()
    e.say(Fds(0, 2), e.numbers)


@evil("announced")
def _skips(e: _Evil) -> None:
    e.offer()
    e.say(Fds(1, 2), e.numbers[1:])


@evil("more descriptors came than the manifest names")
def _gives_too_much(e: _Evil) -> None:
    e.offer()
    e.say(Fds(0, 4), [*e.numbers, e.numbers[0]])


@evil("more descriptors came|not due|is gone|descriptors came")
def _gives_before_accept(e: _Evil) -> None:
    e.welcome()
    e.say(Fds(0, 3), e.numbers)


@evil("descriptors came with a message that has none")
def _gives_with_welcome(e: _Evil) -> None:
    e.until("hello")
    e.say(Welcome(1), e.numbers)


@evil("is gone")
def _dies_between_chunks(e: _Evil) -> None:
    e.offer()
    e.say(Fds(0, 1), e.numbers[:1])
    e.until("ack")


@evil("is gone")
def _dies_after_hello(e: _Evil) -> None:
    e.until("hello")


@evil("not due")
def _says_adopted(e: _Evil) -> None:
    e.offer()
    e.say(Adopted())


@evil("not due")
def _commits(e: _Evil) -> None:
    e.welcome()
    e.say(Commit())


@evil("answers no")
def _lists(e: _Evil) -> None:
    e.welcome()
    e.say(Listing(e.manifest))


@evil("answers no")
def _is_done(e: _Evil) -> None:
    e.welcome()
    e.say(Done())


@evil("the manifest has 3 entries, 2 are announced")
def _offers_more_than_it_counts(e: _Evil) -> None:
    e.welcome()
    e.say(Offer(2, e.manifest))


@evil("too many")
def _offers_too_much(e: _Evil) -> None:
    e.welcome()
    e.say(Offer(2**40, e.manifest, more=True))


@evil("version 9")
def _speaks_a_newer_version(e: _Evil) -> None:
    e.until("hello")
    e.say(Welcome(9))


@evil("not today")
def _refuses(e: _Evil) -> None:
    e.welcome()
    e.say(Refuse(Reason.FAILED, "not today"))


@evil("no JSON|does not speak")
def _talks_nonsense(e: _Evil) -> None:
    e.welcome()
    e._sock.send(b"x" * 100)


@evil("in time")
def _says_alive_for_ever(e: _Evil) -> None:
    e.welcome()
    while True:
        e.say(Alive())


@evil("in time")
def _says_nothing(e: _Evil) -> None:
    e.welcome()
    e.until("nothing")


@contextlib.contextmanager
def _evil_owner(path: str, act: Callable[[_Evil], None]) -> Iterator[list[int]]:
    """Listen at the path in a thread, and treat the first one to connect as `act` does."""
    made = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(3)]
    numbers = [sock.fileno() for sock in made]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.settimeout(SECONDS)
        listener.listen()

        def serve() -> None:
            sock, _ = listener.accept()
            with sock, contextlib.suppress(EOFError, OSError):
                act(_Evil(sock, numbers))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield numbers
        finally:
            thread.join()
    for sock in made:
        sock.close()


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("operation", ["take", "takeover"])
def test_a_dishonest_owner_gives_nothing(path: str, name: str, operation: str) -> None:
    """Whatever had come by then is closed, and the error says what was wrong."""
    act, text = EVIL[name]
    if name.startswith("dies") and operation == "takeover":
        text = "in time"  # whoever comes after the dead owner is asked again, and says nothing
    before = count_fds()
    with _evil_owner(path, act), pytest.raises(RendezvousError, match=text):
        getattr(sockact, operation)(path, timeout=0.3 if "time" in text else 1.0)
    assert count_fds() == before


def test_an_owner_without_a_listener_to_give_is_not_taken_over(path: str) -> None:
    """Without the listener of the path a taker would own nothing."""

    def act(e: _Evil) -> None:
        e.offer()
        e.say(Fds(0, 3), e.numbers)
        e.until("abort")

    before = count_fds()
    with (
        _evil_owner(path, act),
        pytest.raises(TakeoverAbortedError, match="did not pass its rendezvous listener"),
    ):
        sockact.takeover(path, timeout=5)
    assert count_fds() == before


def test_an_honest_one_by_the_same_means(path: str) -> None:
    """The evil owners fail for what they do wrong, not for how they are made."""

    def act(e: _Evil) -> None:
        e.offer()
        e.say(Alive())
        e.say(Fds(0, 1), e.numbers[:1])
        e.until("ack")
        e.say(Fds(1, 2), e.numbers[1:])
        e.until("adopted")

    with _evil_owner(path, act) as numbers, sockact.take(path, timeout=5) as got:
        assert cookies(list(got)) == cookies([_Number(number) for number in numbers])


class _Number(OwnedFd):
    """A number that is somebody else's."""

    def __del__(self) -> None:
        pass


def test_the_raw_client_is_served(path: str, owner: sockact.Rendezvous) -> None:
    """Accept, Ack and Adopted are all that a client has to say."""
    from sockact.rendezvous.messages import Ack, Op

    with contextlib.closing(Wire(path)) as wire:
        assert isinstance(wire.ask(Op.GET), Offer)
        wire.say(Accept())
        message, fds = wire.hear()
        wire.say(Ack(len(fds)))
        wire.say(Adopted())
        with pytest.raises(EOFError):
            wire.hear()
        assert isinstance(message, Fds)
        assert len(fds) == len(owner.sockets)
        for fd in fds:
            os.close(fd)
