"""New definitions while owning: what stays, what is opened, what is dropped, and that it is undone."""

import contextlib
import os
import resource
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import attrs
import pytest

import sockact
from sockact.errors import BindError, FdStateError, RefusedError
from sockact.rendezvous.change import Change, change
from sockact.rendezvous.furnish import resolved
from sockact.rendezvous.messages import (
    VERSION,
    Accept,
    Ack,
    Adopted,
    Fds,
    Hello,
    Offer,
    Op,
    Request,
)
from sockact.rendezvous.takeover import Phase
from sockact.sockets.socketset import SocketSet
from sockact.spec import SocketSpec
from tests.helpers import free_port
from tests.rendezvous.peers import Wire, cookies, count_fds, until
from tests.rendezvous.supervising import Supervisor


def specs_of(owner: Supervisor, *definitions: str) -> list[SocketSpec]:
    """Return definitions as they are used there."""
    return [resolved(sockact.definition(text).spec, owner.options) for text in definitions]


def prepare(owner: Supervisor, *definitions: str) -> Change:
    """Prepare a change."""
    new = specs_of(owner, *definitions)
    return owner.do(
        lambda: change(owner.sockets, owner.specs, new, owner.options, owner.said.append)
    )


def commit(owner: Supervisor, prepared: Change) -> SocketSet:
    """Make a change, and return what is dropped."""
    done = partial(prepared.commit, owner.tenure, warn=owner.said.append)
    owner.sockets, dropped = owner.do(done)
    owner.specs = prepared.specs
    return dropped


@contextlib.contextmanager
def owning(path: str, *definitions: str) -> Iterator[Supervisor]:
    """Be an owner."""
    with Supervisor(path, *definitions) as owner:
        owner.ready()
        yield owner


def port_of(sockets: SocketSet, name: str) -> int:
    """Return the port of a socket."""
    number: int = sockets.socket(name).getsockname()[1]
    return number


def test_what_stays_is_the_same_descriptor(path: str) -> None:
    """A client that waits in its queue does not notice; what is new comes, what is not wanted goes."""
    kept, added, gone = (free_port() for _ in range(3))
    with owning(path, f"a=tcp:127.0.0.1:{kept}", f"b=tcp:127.0.0.1:{gone}") as owner:
        before = list(owner.sockets)
        (cookie, _), numbers = cookies(before), owner.sockets.filenos()
        with socket.create_connection(("127.0.0.1", kept)):
            prepared = prepare(owner, f"c=tcp:127.0.0.1:{added}", f"a=tcp:127.0.0.1:{kept}")
            assert [entry.name for entry in prepared.opened] == ["c"]
            assert [entry.name for entry in prepared.dropped] == ["b"]
            assert prepared.entries == [*prepared.opened, before[0]]
            assert len(sockact.holdings(path)) == 2
            dropped = commit(owner, prepared)
            assert owner.sockets.names == ("c", "a")
            assert owner.sockets.filenos()[1] == numbers[0]
            assert cookies(list(owner.sockets))[1] == cookie
            assert list(dropped) == [before[1]]
            owner.sockets["a"].accept()[0].close()
        socket.create_connection(("127.0.0.1", gone)).close()  # until it is closed
        dropped.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", gone))
        assert [one.entry.name for one in sockact.holdings(path)] == ["c", "a"]
        with Supervisor(path, f"c=tcp:127.0.0.1:{added}", f"a=tcp:127.0.0.1:{kept}") as new:
            assert cookies(list(new.sockets)) == cookies(list(owner.sockets))
            new.ready()
            owner.close()
        assert not owner.said


def test_a_listener_that_stands_there_again(path: str) -> None:
    """A listener that a definition has twice is two sockets (ReusePort=): only one is new."""
    text = f"a=tcp:127.0.0.1:{free_port()}?ReusePort=yes"
    with owning(path, text) as owner:
        before = owner.sockets.filenos()
        (spec,) = specs_of(owner, text)
        twice = attrs.evolve(spec, listeners=spec.listeners * 2)
        work = partial(
            change, owner.sockets, owner.specs, [twice], owner.options, owner.said.append
        )
        prepared = owner.do(work)
        assert len(prepared.opened) == 1
        commit(owner, prepared).close()
        assert owner.sockets.filenos()[0] == before[0]
        assert len(set(cookies(list(owner.sockets)))) == 2
        with Supervisor(path, text) as new:  # which has no use for the second
            assert len(new.sockets) == 1


def test_a_change_that_is_undone_changes_nothing(short_dir: Path, path: str) -> None:
    """What was opened is closed and removed, and the owner has what it had."""
    with owning(path, "a=tcp:127.0.0.1:0") as owner:
        before, have = count_fds(), cookies(list(owner.sockets))
        prepared = prepare(owner, f"b=unix:{short_dir}/b/b", "c=udp:127.0.0.1:0")
        assert count_fds() == before + 2
        assert os.listdir(short_dir / "b") == ["b"]
        for _ in range(2):
            owner.do(prepared.undo)
            assert count_fds() == before
            assert not (short_dir / "b").exists()
        with pytest.raises(RuntimeError, match="made, or undone"):
            commit(owner, prepared)
        assert cookies(list(owner.sockets)) == have
        assert [one.entry.name for one in sockact.holdings(path)] == ["a"]
        dropped = commit(owner, prepare(owner, "a=tcp:127.0.0.1:0"))
        assert (len(dropped), cookies(list(owner.sockets))) == (0, have)


def test_a_change_that_cannot_be_made_changes_nothing(short_dir: Path, path: str) -> None:
    """All or nothing: one address in use, or a user that does not exist, and nothing is opened."""
    with (
        socket.create_server(("127.0.0.1", 0)) as blocker,
        owning(path, "a=tcp:127.0.0.1:0", f"n=unix:{short_dir}/n") as owner,
    ):
        before = count_fds()
        wanted = [
            f"b=unix:{short_dir}/b",
            f"c=tcp:127.0.0.1:{blocker.getsockname()[1]}",
        ]
        with pytest.raises(BindError, match="in use"):
            prepare(owner, *wanted)
        with pytest.raises(BindError, match="no-such-user"):
            prepare(owner, wanted[0], f"n=unix:{short_dir}/n?SocketUser=no-such-user")
        specs = [sockact.definition("b=tcp:no-such-host.invalid:80").spec]
        with pytest.raises(BindError, match="no-such-host"):
            change(owner.sockets, owner.specs, specs, owner.options, owner.said.append)
        assert count_fds() == before
        assert not (short_dir / "b").exists()
        assert owner.sockets.names == ("a", "n")


def test_what_has_another_name_stays(path: str) -> None:
    """The address decides: a client goes on, and the name is the new one everywhere."""
    port = free_port()
    with owning(path, f"a=tcp:127.0.0.1:{port}", "b=udp:127.0.0.1:0") as owner:
        have = cookies(list(owner.sockets))
        dropped = commit(owner, prepare(owner, f"web=tcp:127.0.0.1:{port}", "b=udp:127.0.0.1:0"))
        assert len(dropped) == 0
        assert owner.sockets.names == ("web", "b")
        assert cookies(list(owner.sockets)) == have
        with sockact.take(path, "web") as got:
            assert cookies(list(got)) == have[:1]
        # And back again, to see that the copies are found by their new names.
        copies = [held.handles[0] for held in owner.tenure.estate.sets.values()]
        commit(owner, prepare(owner, "b=udp:127.0.0.1:0", f"a=tcp:127.0.0.1:{port}"))
        now = [held.handles[0] for held in owner.tenure.estate.sets.values()]
        assert now == copies[::-1]
        assert cookies(list(owner.sockets)) == have[::-1]


def test_many_of_one_name(path: str) -> None:
    """Each stays what it is, in the order of the definitions."""
    ports = [free_port() for _ in range(4)]
    texts = [f"web=tcp:127.0.0.1:{port}" for port in ports]
    with owning(path, *texts[:3]) as owner:
        have = cookies(list(owner.sockets))
        dropped = commit(owner, prepare(owner, texts[2], texts[3], texts[0]))
        found = cookies(list(owner.sockets))
        assert (found[0], found[2]) == (have[2], have[0])
        assert cookies(list(dropped)) == [have[1]]
        dropped.close()
        with sockact.take(path) as got:
            assert cookies(list(got)) == found


def test_options_that_can_be_set_are_set(path: str) -> None:
    """At the commit, and not before; what a socket has from birth stays, and that is told."""
    address = f"tcp:127.0.0.1:{free_port()}"
    with owning(path, f"a={address}?Backlog=7&NoDelay=no") as owner:
        sock = owner.sockets["a"]
        text = f"a={address}?Backlog=9&NoDelay=yes&KeepAlive=yes&FreeBind=yes"
        prepared = prepare(owner, text)
        assert prepared.opened == []
        options = [
            (socket.IPPROTO_TCP, socket.TCP_NODELAY),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        ]
        assert [sock.getsockopt(*option) for option in options] == [0, 0]
        assert sockact.holdings(path)[0].limit == 7
        commit(owner, prepared)
        assert [sock.getsockopt(*option) for option in options] == [1, 1]
        assert sockact.holdings(path)[0].limit == 9
        assert [line.partition(": ")[2] for line in owner.said] == [
            f"FreeBind= of 127.0.0.1:{address.rpartition(':')[2]}, which is open, stays as it was"
        ]
        owner.said.clear()
        commit(owner, prepare(owner, text))
        assert owner.said == []


def test_a_change_waits_for_a_takeover(path: str) -> None:
    """What a taker was offered is fixed; if it gives up, the change can be made after all."""
    port = free_port()
    with owning(path, "a=tcp:127.0.0.1:0") as owner:
        prepared = prepare(owner, f"b=tcp:127.0.0.1:{port}")
        before = count_fds()
        with Supervisor(path, "a=tcp:127.0.0.1:0") as taker:
            with pytest.raises(RefusedError, match="is taking over") as caught:
                commit(owner, prepared)
            assert caught.value.reason == "busy"
            assert owner.sockets.names == ("a",)
            assert cookies(list(taker.sockets)) == cookies(list(owner.sockets))
        until(lambda: owner.tenure.successor is None, "the taker has gone")
        assert count_fds() == before
        commit(owner, prepared).close()
        assert owner.sockets.names == ("b",)
        last = prepare(owner, "c=tcp:127.0.0.1:0")
        with Supervisor(path, f"b=tcp:127.0.0.1:{port}") as taker:
            taker.ready()
            owner.wait(Phase.DRAINING)
            with pytest.raises(RefusedError, match="has taken over"):
                commit(owner, last)
            owner.do(last.undo)
            owner.close()


def test_a_get_under_way_is_not_disturbed(path: str) -> None:
    """Whoever was offered what is dropped gets it nevertheless; then its copy is closed."""
    with owning(path, "a=tcp:127.0.0.1:0", "b=tcp:127.0.0.1:0") as owner:
        have = cookies(list(owner.sockets))
        wire = Wire(path)
        with contextlib.closing(wire):
            wire.say(Hello(1, VERSION))
            wire.hear()
            wire.say(Request(Op.GET))
            offer, _ = wire.hear()
            assert isinstance(offer, Offer)
            commit(owner, prepare(owner, "a=tcp:127.0.0.1:0")).close()
            before = count_fds()
            wire.say(Accept())
            fds, numbers = wire.hear()
            assert fds == Fds(0, 2)
            got = [socket.socket(fileno=number) for number in numbers]
            assert cookies(got) == have
            for sock in got:
                sock.close()
            wire.say(Ack(2))
            wire.say(Adopted())
            # The owner's end of the connection, and its copy of what was dropped.
            until(lambda: count_fds() == before - 2, "the copy is closed")


def test_what_was_closed_cannot_stay(path: str) -> None:
    """That is an error before anything has changed."""
    port = free_port()
    with owning(path, f"a=tcp:127.0.0.1:{port}") as owner:
        prepared = prepare(owner, f"a=tcp:127.0.0.1:{port}", "b=tcp:127.0.0.1:0")
        owner.sockets.entry("a").close()
        with pytest.raises(FdStateError):
            commit(owner, prepared)
        assert [one.entry.name for one in sockact.holdings(path)] == ["a"]
        owner.do(prepared.undo)
        with pytest.raises(FdStateError):
            prepare(owner, "b=tcp:127.0.0.1:0")


@contextlib.contextmanager
def exhausted() -> Iterator[None]:
    """Let this process have as many descriptors as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(map(int, os.listdir("/proc/self/fd"))) + 1
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)


def test_there_are_no_descriptors_left(path: str) -> None:
    """Neither at the preparation nor at the commit is anything changed by that."""
    ports = [free_port() for _ in range(3)]
    texts = [f"{name}=tcp:127.0.0.1:{port}" for name, port in zip("abc", ports, strict=True)]
    with owning(path, texts[0]) as owner:
        prepared = prepare(owner, *texts)
        have = count_fds()
        with exhausted(), pytest.raises(OSError, match="Too many open files"):
            commit(owner, prepared)
        assert count_fds() == have
        assert owner.sockets.names == ("a",)
        assert [one.entry.name for one in sockact.holdings(path)] == ["a"]
        commit(owner, prepared).close()
        assert [one.entry.name for one in sockact.holdings(path)] == ["a", "b", "c"]


def test_nodes_go_with_what_is_dropped(short_dir: Path, path: str) -> None:
    """If the definition said so (RemoveOnStop=); those of what stays go with the whole set."""
    texts = {
        name: f"{name}=unix:{short_dir}/{name}?RemoveOnStop={'yes' if name in 'abe' else 'no'}"
        for name in "abcde"
    }

    def nodes() -> list[str]:
        return sorted(set(os.listdir(short_dir)) & set(texts))

    with owning(path, texts["a"], texts["b"], texts["c"], texts["d"]) as owner:
        dropped = commit(owner, prepare(owner, texts["a"], texts["c"], texts["e"]))
        assert nodes() == ["a", "b", "c", "d", "e"]
        dropped.close()
        assert nodes() == ["a", "c", "d", "e"]
    assert nodes() == ["c", "d"]


def test_a_node_is_removed_if_its_new_definition_says_so(short_dir: Path, path: str) -> None:
    """And if the new one does not any more, that comes with the next start only, and is told."""
    yes, no = (f"a=unix:{short_dir}/a?RemoveOnStop={word}" for word in ("yes", "no"))
    with owning(path, no) as owner:
        commit(owner, prepare(owner, yes))
        assert owner.said == []
    assert not (short_dir / "a").exists()
    with owning(path, yes) as owner:
        commit(owner, prepare(owner, no))
        assert "RemoveOnStop= of" in owner.said[0]
    assert not (short_dir / "a").exists()


def test_without_a_rendezvous(short_dir: Path) -> None:
    """Whoever owns no path changes its definitions all the same, with an opener of its own."""
    texts = [f"a=unix:{short_dir}/a", f"b=unix:{short_dir}/b"]
    specs = [sockact.definition(text).spec for text in texts]
    seen: list[Sequence[str]] = []

    def opener(missing: Sequence[SocketSpec]) -> SocketSet:
        seen.append([listener.name for spec in missing for listener in spec.listeners])
        return sockact.open_specs(missing)

    from sockact.rendezvous.furnish import Options

    said: list[str] = []
    options = Options(blocking=True)
    sockets = sockact.open_specs(specs[:1])
    prepared = change(sockets, specs[:1], specs, options, said.append, open=opener)
    sockets, dropped = prepared.commit(warn=said.append)
    with sockets, dropped:
        assert sockets.names == ("a", "b")
        assert [os.get_blocking(number) for number in sockets.filenos()] == [True, True]
        assert len(dropped) == 0
        assert seen == [["b"]]
    sockets.discard()
    assert said == []


def test_an_opener_that_fails_leaves_nothing(short_dir: Path, path: str) -> None:
    """Whatever it raises comes through; nothing has changed."""

    def opener(missing: Sequence[SocketSpec]) -> SocketSet:
        raise LookupError(len(missing))

    with owning(path, "a=tcp:127.0.0.1:0") as owner:
        before = count_fds()
        specs = specs_of(owner, f"b=unix:{short_dir}/b")
        with pytest.raises(LookupError):
            change(owner.sockets, owner.specs, specs, owner.options, print, open=opener)
        assert count_fds() == before
        assert owner.sockets.names == ("a",)


def test_host_names_and_ports_that_the_kernel_chose(path: str) -> None:
    """Port 0 is whichever it had got, if the name is the same; with another name it is a new one."""
    texts = ("a=tcp:localhost:0", "b=tcp:127.0.0.1:0")
    with owning(path, *texts) as owner:
        have = cookies(list(owner.sockets))
        assert len(commit(owner, prepare(owner, *texts))) == 0
        assert cookies(list(owner.sockets)) == have
        dropped = commit(owner, prepare(owner, texts[0], "c=tcp:127.0.0.1:0"))
        assert cookies(list(dropped)) == have[-1:]
        dropped.close()
        assert port_of(owner.sockets, "c")


def test_what_stays_is_passed_on_as_it_was(path: str) -> None:
    """A set that no definition touches is the same; one that has got a socket is told anew."""
    ports = [free_port() for _ in range(3)]
    a, b, more = (f"{name}=tcp:127.0.0.1:{port}" for name, port in zip("aba", ports, strict=True))
    with owning(path, a, b) as owner:
        before = dict(owner.tenure.estate.sets)
        commit(owner, prepare(owner, b, a, more)).close()
        after = owner.tenure.estate.sets
        assert list(after) == ["b", "a"]
        assert after["b"].handles[0] is before["b"].handles[0]
        assert after["b"].manifest is before["b"].manifest
        assert after["a"].handles[0] is before["a"].handles[0]
        assert [row.address for row in after["a"].manifest] == [
            f"127.0.0.1:{ports[0]}",
            f"127.0.0.1:{ports[2]}",
        ]
        assert not owner.said


def test_a_fifo_that_was_removed_is_made_anew(short_dir: Path, path: str) -> None:
    """What is open leads nowhere any more."""
    with owning(path, f"f=fifo:{short_dir}/f", "a=tcp:127.0.0.1:0") as owner:
        (short_dir / "f").unlink()
        prepared = prepare(owner, f"f=fifo:{short_dir}/f", "a=tcp:127.0.0.1:0")
        assert [entry.name for entry in prepared.opened] == ["f"]
        commit(owner, prepared).close()
        assert (short_dir / "f").is_fifo()
