"""sockact.supervise.store: the fd store of a service."""

import contextlib
import fcntl
import os
import select
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sockact
from sockact import notify
from sockact.activation.hear import Ear, Heard
from sockact.fd.own import OwnedFd
from sockact.rendezvous.react import Reactor
from sockact.supervise.store import NAME, FdStore, Stored
from tests.helpers import SECONDS

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


class Watched(FdStore):
    """A store that writes down who comes and goes."""

    def __init__(self, maximum: int, reactor: Reactor | None = None) -> None:
        super().__init__(maximum, reactor, added=self.note, removed=self.strike)
        self.notes: list[str] = []

    def note(self, entry: Stored) -> None:
        """Write down who has come."""
        assert not entry.handle.closed
        assert entry in self.entries()
        self.notes.append(f"+{entry.name}")

    def strike(self, entry: Stored) -> None:
        """Write down who has left, while its descriptor is still open."""
        assert not entry.handle.closed
        assert entry not in self.entries()
        self.notes.append(f"-{entry.name}")

    @property
    def names(self) -> list[str]:
        """The names of what is stored."""
        return [entry.name for entry in self.entries()]


@pytest.fixture
def store() -> Iterator[Watched]:
    """Give a store that is large enough."""
    with Watched(100) as found:
        yield found


def udp() -> OwnedFd:
    """Return something that neither hangs up nor is a duplicate."""
    return OwnedFd(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach())


def pair() -> tuple[OwnedFd, OwnedFd]:
    """Return two ends: one to be stored, and one that makes it hang up when it is closed."""
    one, other = socket.socketpair()
    return OwnedFd(one.detach()), OwnedFd(other.detach())


def copy(handle: OwnedFd) -> OwnedFd:
    """Return a duplicate."""
    return OwnedFd(fcntl.fcntl(handle.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))


def test_order(store: Watched) -> None:
    """The newest message comes first, and what came together stays in its order."""
    first, second, third = udp(), udp(), udp()
    store.add("a", [first])
    store.add("b", [second, third])
    assert store.names == ["b", "b", "a"]
    assert [entry.handle for entry in store.entries()] == [second, third, first]
    assert [entry.fileno() for entry in store.entries()] == [
        handle.fileno() for handle in (second, third, first)
    ]
    assert store.notes == ["+a", "+b", "+b"]
    assert len(store) == 3


def test_names(store: Watched) -> None:
    """What has no name is called stored; an empty name is one."""
    store.add(None, [udp()])
    store.add("", [udp()])
    assert store.names == ["", NAME]
    assert NAME == "stored"


def test_duplicates(store: Watched) -> None:
    """An open file description is stored once, under its first name; its duplicates are closed."""
    handle = udp()
    again, inside = copy(handle), copy(handle)
    other = udp()
    assert store.add("a", [handle]) == []
    assert store.add("b", [again, other, inside]) == []
    assert store.names == ["b", "a"]
    assert again.closed
    assert inside.closed
    assert not other.closed


@on_linux
def test_same_file_opened_twice(store: Watched, tmp_path: Path) -> None:
    """Two descriptions of one file are two, where the kernel can tell them apart."""
    path = tmp_path / "file"
    path.touch()
    handles = [OwnedFd(os.open(path, os.O_RDONLY)), OwnedFd(os.open(path, os.O_WRONLY))]
    store.add("a", [*handles, copy(handles[0])])
    assert len(store) == 2


def test_maximum() -> None:
    """What is too much is refused and closed; what is there already is not too much."""
    with Watched(2) as store:
        first, second, third, fourth = udp(), udp(), udp(), udp()
        assert store.add("a", [first]) == []
        refused = store.add("b", [second, copy(first), third, fourth])
        assert refused == ["the fd store takes 2 (FileDescriptorStoreMax=)"] * 2
        assert store.names == ["b", "a"]
        assert third.closed
        assert fourth.closed
        assert store.add("c", [copy(first), copy(second)]) == []
        store.maximum = 1
        assert len(store) == 2
        assert store.remove("a") == 1
        assert len(store.add("c", [udp()])) == 1
        store.maximum = 2
        assert store.add("c", [udp()]) == []


def test_no_store() -> None:
    """A store that takes nothing has no descriptor of its own."""
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    with FdStore(0) as store:
        assert len(store.add("a", [udp()])) == 1
        assert store.sweep() == 0
        if before:
            assert len(os.listdir("/proc/self/fd")) == before


def test_remove(store: Watched) -> None:
    """All of a name go, and nothing else."""
    handles = [udp(), udp(), udp()]
    store.add("a", handles[:1])
    store.add("b", handles[1:2])
    store.add("a", handles[2:])
    assert store.remove("a") == 2
    assert store.remove("unknown") == 0
    assert store.names == ["b"]
    assert [handle.closed for handle in handles] == [True, False, True]
    assert store.notes == ["+a", "+b", "+a", "-a", "-a"]


def test_clear_and_close(store: Watched) -> None:
    """Clearing tells of each that goes; closing tells nobody, and may be repeated."""
    store.add("a", [udp(), udp()])
    assert store.clear() == 2
    handle = udp()
    store.add("b", [handle])
    store.close()
    store.close()
    assert handle.closed
    assert len(store) == 0
    assert store.notes == ["+a", "+a", "-a", "-a", "+b"]


def test_not_a_descriptor(store: Watched) -> None:
    """A handle whose number is not open is refused."""
    number = os.open(os.devnull, os.O_RDONLY)
    handle = OwnedFd(number)
    os.close(number)
    assert store.add("a", [handle]) == ["a descriptor cannot be stored: Bad file descriptor"]
    assert len(store) == 0


def test_hang_up(store: Watched) -> None:
    """What hangs up leaves, unless it is not polled; data that waits is no hang-up."""
    polled, peer = pair()
    unpolled, other = pair()
    talking, third = pair()
    store.add("polled", [polled])
    store.add("unpolled", [unpolled], poll=False)
    store.add("talking", [talking])
    os.write(third.fileno(), b"x")
    assert store.sweep() == 0
    peer.close()
    other.close()
    assert store.sweep() == 1
    assert store.names == ["talking", "unpolled"]
    assert polled.closed
    third.close()
    assert store.sweep() == 1
    assert store.notes[-2:] == ["-polled", "-talking"]


def test_listener_that_was_shut_down(store: Watched) -> None:
    """A listener that its server shut down is of no use any more, and leaves."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        store.add("web", [OwnedFd(os.dup(server.fileno()))])
        assert store.sweep() == 0
        server.shutdown(socket.SHUT_RDWR)
        assert store.sweep() == 1


def test_error(store: Watched) -> None:
    """What reports an error leaves too: here a pipe that nobody reads."""
    reader, writer = os.pipe()
    store.add("a", [OwnedFd(writer)])
    assert store.sweep() == 0
    os.close(reader)
    assert store.sweep() == 1


def test_hung_up_already(store: Watched) -> None:
    """What has hung up before it comes leaves at the next sweep."""
    handle, peer = pair()
    peer.close()
    assert store.add("a", [handle]) == []
    assert store.sweep() == 1


@on_linux
def test_files_cannot_hang_up(store: Watched, tmp_path: Path) -> None:
    """A file that cannot be polled is stored like anything else."""
    path = tmp_path / "file"
    path.touch()
    store.add("a", [OwnedFd(os.open(path, os.O_RDONLY)), udp()])
    assert store.sweep() == 0
    assert store.remove("a") == 2


@on_linux
def test_epoll_descriptors(store: Watched) -> None:
    """An epoll descriptor can be stored; one that is nested too deep is refused, not watched."""
    with contextlib.ExitStack() as stack:
        store.add("flat", [OwnedFd(os.dup(stack.enter_context(select.epoll()).fileno()))])
        inner = stack.enter_context(select.epoll())
        with contextlib.suppress(OSError):
            while True:
                outer = stack.enter_context(select.epoll())
                outer.register(inner.fileno(), select.EPOLLIN)
                inner = outer
        refused = store.add("deep", [OwnedFd(os.dup(inner.fileno()))])
        assert len(refused) == 1
        assert "Too many levels" in refused[0]
        assert store.names == ["flat"]
        assert store.add("deep", [OwnedFd(os.dup(inner.fileno()))], poll=False) == []


@on_linux
def test_descriptors_that_others_hold(store: Watched) -> None:
    """What was removed is not seen again, though others have it open and it hangs up."""
    handle, peer = pair()
    other = copy(handle)
    store.add("a", [handle])
    store.remove("a")
    peer.close()
    assert not select.select([store], [], [], 0)[0]
    assert store.sweep() == 0
    other.close()


@on_linux
def test_on_a_reactor() -> None:
    """On a reactor it sweeps itself, and leaves the reactor when it is closed."""
    with contextlib.closing(Reactor()) as reactor, Watched(10, reactor) as store:
        one, peer = pair()
        other, second = pair()
        store.add("a", [one])
        store.add("b", [other])
        reactor.step()
        assert store.names == ["b", "a"]
        peer.close()
        reactor.step(SECONDS)
        assert store.names == ["b"]
        second.close()
        store.close()
        assert not select.select([reactor], [], [], 0)[0]


@on_linux
def test_descriptor(store: Watched) -> None:
    """It has a close-on-exec descriptor that is readable when there is something to sweep."""
    handle, peer = pair()
    assert fcntl.fcntl(store.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    store.add("a", [handle])
    assert not select.select([store], [], [], 0)[0]
    peer.close()
    assert select.select([store], [], [], SECONDS)[0]
    store.sweep()
    assert not select.select([store], [], [], 0)[0]


def test_callbacks_that_change_the_store(store: Watched) -> None:
    """A callback may remove others, or close the store: each descriptor is closed once."""
    handles = [udp(), udp(), udp()]
    store.add("a", handles[:2])
    store.add("b", handles[2:])

    def clear(_: Stored) -> None:
        store.clear()

    store.removed = clear
    assert store.remove("a") == 1
    assert all(handle.closed for handle in handles)
    more = [udp(), udp()]
    store.add("c", more)
    store.removed = lambda _: store.close()
    assert store.remove("c") == 1
    assert all(handle.closed for handle in more)


def test_callback_that_fails(store: Watched) -> None:
    """Its error comes out; what was stored stays."""
    handles = [udp(), udp()]

    def fail(_: Stored) -> None:
        raise RuntimeError("no")

    store.added = fail
    with pytest.raises(RuntimeError, match="no"):
        store.add("a", handles)
    assert store.names == ["a", "a"]
    assert not any(handle.closed for handle in handles)
    store.removed = fail
    with pytest.raises(RuntimeError, match="no"):
        store.remove("a")
    assert handles[0].closed
    assert store.names == ["a"]


def test_filled_while_another_is(store: Watched) -> None:
    """So has one that gets what comes to another one as that is told."""
    with Watched(100) as other:

        def pass_on(entry: Stored) -> None:
            other.add(entry.name, [copy(entry.handle)])

        store.added = pass_on
        for count in (1, 3, 2):
            store.add(str(count), [udp() for _ in range(count)])
        assert [one.identity for one in other.entries()] == [
            one.identity for one in store.entries()
        ]


def test_remove_one_of_a_name(store: Watched) -> None:
    """What is removed may be told by a duplicate; others of its name stay."""
    handles = [udp(), udp()]
    store.add("a", handles)
    same = copy(handles[1])
    assert store.remove("b", same) == 0
    assert store.remove("a", same) == 1
    same.close()
    assert [handle.closed for handle in handles] == [False, True]


def test_filled_from_another(store: Watched) -> None:
    """A store that is filled from another one, one by one and in reverse, has the same order."""
    for name in ("a", "b", "b", "c"):
        store.add(name, [udp()])
    with Watched(100) as other:
        for entry in reversed(store.entries()):
            other.add(entry.name, [copy(entry.handle)], poll=entry.poll)
        assert other.names == store.names
        assert [each.identity for each in other.entries()] == [
            each.identity for each in store.entries()
        ]


def test_with_a_service_that_stores(store: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the program's call to the store and back out of it: names, order, and identity."""
    with Ear() as ear:
        monkeypatch.setenv("NOTIFY_SOCKET", ear.address)

        def handle(heard: Heard) -> None:
            message = heard.message
            if message.fdstoreremove:
                store.remove(message.fdname or "")
            elif message.fdstore:
                store.add(message.fdname, heard.take(), poll=message.fdpoll)

        with sockact.listen("a=tcp:127.0.0.1:0", "b=tcp:127.0.0.1:0", "a=udp:127.0.0.1:0") as found:
            program = threading.Thread(
                target=lambda: notify.store(found) and notify.barrier(SECONDS)
            )
            program.start()
            while program.is_alive():
                if select.select([ear], [], [], 0.01)[0]:
                    ear.hear(handle)
            program.join()
            assert store.names == ["b", "a", "a"]
            kept = [entry.fileno() for entry in store.entries()]
            numbers = found.filenos()
            for fd, number in zip(kept, (numbers[1], numbers[0], numbers[2]), strict=True):
                assert os.path.sameopenfile(fd, number)
            notify.unstore("a")
            ear.hear(handle)
            assert store.names == ["b"]
        monkeypatch.undo()


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("xyz"), st.lists(st.integers(0, 7), max_size=4)),
        st.tuples(st.just("remove"), st.sampled_from("xyz"), st.just([])),
        st.tuples(st.just("hang up"), st.just(""), st.lists(st.integers(0, 7), max_size=1)),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(_STEPS, st.integers(0, 5))
def test_as_a_list(steps: list[tuple[str, str, list[int]]], maximum: int) -> None:
    """Whatever is done to it, it is what a list of names and numbers would be."""
    pairs = [socket.socketpair() for _ in range(8)]
    hung: set[int] = set()
    model: list[tuple[str, int]] = []
    with Watched(maximum) as store:
        for what, name, numbers in steps:
            if what == "remove":
                store.remove(name)
                model = [each for each in model if each[0] != name]
            elif what == "hang up":
                for number in numbers:
                    pairs[number][1].close()
                    hung.add(number)
            else:
                handles = [OwnedFd(os.dup(pairs[number][0].fileno())) for number in numbers]
                refused = store.add(name, handles)
                fresh: list[tuple[str, int]] = []
                for number in numbers:
                    if number not in [each for _, each in model + fresh]:
                        fresh.append((name, number))
                room = max(0, maximum - len(model))
                model = fresh[:room] + model
                assert len(refused) >= len(fresh) - len(fresh[:room])
            store.sweep()
            model = [each for each in model if each[1] not in hung]
            known = {os.fstat(one.fileno()).st_ino: index for index, (one, _) in enumerate(pairs)}
            assert [(each.name, known[each.identity[1]]) for each in store.entries()] == model
        came = sum(note[0] == "+" for note in store.notes)
        left = sum(note[0] == "-" for note in store.notes)
        assert came - left == len(model)
    for one, other in pairs:
        one.close()
        other.close()
