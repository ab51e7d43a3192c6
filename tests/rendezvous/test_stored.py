"""What services store with a supervisor goes along with a takeover, early or late."""

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from functools import partial

import pytest

import sockact
from sockact.errors import BindError
from sockact.fd.identity import identity
from sockact.fd.own import OwnedFd
from sockact.rendezvous import parcels
from sockact.rendezvous.arrive import Parked
from sockact.rendezvous.takeover import Phase
from tests.helpers import SECONDS
from tests.rendezvous.peers import actors, cookies, count_fds, until
from tests.rendezvous.supervising import Supervisor

WEB = "web=tcp:127.0.0.1:0"


@pytest.fixture(name="things")
def _things() -> Iterator[list[OwnedFd]]:
    """Give descriptors of three kinds, each with an identity of its own."""
    with socket.socket() as sock, contextlib.ExitStack() as stack:
        reader, writer = os.pipe()
        os.close(writer)
        handles = [OwnedFd(os.dup(sock.fileno())), OwnedFd(reader), OwnedFd(os.memfd_create("x"))]
        for handle in handles:
            stack.callback(handle.close)
        yield handles


def told(parked: Sequence[Parked]) -> list[tuple[str, str, tuple[int, int], bool]]:
    """Return what is said of descriptors, and what they are."""
    return [(one.service, one.name, identity(one.handle.fileno()), one.poll) for one in parked]


def row(
    service: str, name: str, thing: OwnedFd, *, poll: bool = True
) -> tuple[str, str, tuple[int, int], bool]:
    """Return what `told` says of one."""
    return service, name, identity(thing.fileno()), poll


def test_what_is_stored_goes_along(path: str, things: list[OwnedFd]) -> None:
    """In its order, with its names; nobody who only gets or lists sees any of it."""
    odd = "job@7-127.0.0.1:80-[::1]:90.service"
    with Supervisor(path, WEB) as old:
        old.ready()
        for service, name, thing, poll in [
            ("web.service", "one", things[0], True),
            (odd, "two", things[1], True),
            ("web.service", "one", things[2], False),
        ]:
            old.do(partial(old.tenure.add_stored, service, name, thing, poll=poll))
        with sockact.take(path) as got:
            assert got.names == ("web",)
        assert len(sockact.holdings(path)) == 1
        with Supervisor(path, WEB) as new:
            assert told(new.came) == [
                row("web.service", "one", things[0]),
                row(odd, "two", things[1]),
                row("web.service", "one", things[2], poll=False),
            ]
            assert cookies(list(new.sockets)) == cookies(list(old.sockets))
            new.ready()
            old.close()
            assert new.late == []


def test_what_is_removed_does_not(path: str, things: list[OwnedFd]) -> None:
    """By its descriptor, by its name, or all of a service; and the copies are closed at once."""
    with Supervisor(path) as old:
        old.ready()
        before = count_fds()

        def fill() -> None:
            for service in ("a", "b"):
                for name in ("x", "y"):
                    for thing in things:
                        old.tenure.add_stored(service, name, thing)

        def expected(*services: str, name: str = "") -> int:
            return sum(
                one.address in services and name in ("", one.name)
                for one in old.tenure.estate.stored.values()
            )

        old.do(fill)
        assert count_fds() == before + 12
        old.do(lambda: old.tenure.remove_stored("a", "x", things[1]))
        assert (expected("a", name="x"), expected("a", name="y"), expected("b")) == (2, 3, 6)
        old.do(lambda: old.tenure.remove_stored("a", "x"))
        assert (expected("a"), expected("b")) == (3, 6)
        old.do(lambda: old.tenure.remove_stored("b"))
        old.do(lambda: old.tenure.remove_stored("c"))
        assert (expected("a"), expected("b")) == (3, 0)
        assert count_fds() == before + 3


@pytest.mark.parametrize("name", ["a:b", "a\nb", "x" * 256])
def test_a_name_that_cannot_be_passed_on_is_refused(
    path: str, things: list[OwnedFd], name: str
) -> None:
    """Else it would break every takeover to come."""
    with Supervisor(path) as old:
        old.ready()
        with pytest.raises(ValueError, match="name"):
            old.do(lambda: old.tenure.add_stored("web.service", name, things[0]))
        with Supervisor(path) as new:
            assert new.came == []


def test_who_does_not_want_it_closes_it(path: str, things: list[OwnedFd]) -> None:
    """A program that takes over has no use for it."""
    with Supervisor(path, WEB) as old:
        old.ready()
        for thing in things:
            old.do(partial(old.tenure.add_stored, "web", "x", thing))
        before = count_fds()
        with sockact.takeover(path, WEB, timeout=SECONDS) as new:
            new.ready()
            old.close()
            assert len(new.sockets) == 1
        assert count_fds() < before


def test_a_taker_that_gives_up_changes_nothing(path: str, things: list[OwnedFd]) -> None:
    """What was stored meanwhile is in the next offer, and what was removed is in none."""
    with Supervisor(path, WEB) as old:
        old.ready()
        old.do(lambda: old.tenure.add_stored("web", "early", things[0]))
        with Supervisor(path, WEB) as new:
            before = count_fds()
            old.do(lambda: old.tenure.add_stored("web", "late", things[1]))
            old.do(lambda: old.tenure.remove_stored("web", "early"))
            assert count_fds() == before + 1  # what is being given stays until then
            assert told(new.came) == [row("web", "early", things[0])]
        until(lambda: old.tenure.successor is None, "the taker has gone")
        assert len(old.tenure._leaving) == 0
        with Supervisor(path, WEB) as new:
            assert told(new.came) == [row("web", "late", things[1])]
            new.ready()
            old.close()
            assert new.late == []


def test_what_is_stored_too_late_goes_after(path: str, things: list[OwnedFd]) -> None:
    """What the offer did not have is sent to the successor, and so is all that comes later."""
    with Supervisor(path, WEB) as old:
        old.ready()
        old.do(lambda: old.tenure.add_stored("web", "early", things[0]))
        with Supervisor(path, WEB) as new:
            old.do(lambda: old.tenure.add_stored("web", "late", things[1], poll=False))
            assert new.late == []
            new.ready()
            old.wait(Phase.DRAINING)
            until(lambda: len(new.late) == 1, "what was late has come")
            old.do(lambda: old.tenure.add_stored("job", "later", things[2]))
            old.do(lambda: old.tenure.add_stored("web", "later", things[2]))
            old.close()  # it waits for what is under way
            assert told(new.late) == [
                row("web", "late", things[1], poll=False),
                row("job", "later", things[2]),
                row("web", "later", things[2]),
            ]
            assert new.tenure.owns


def test_what_is_removed_too_late_is_told(path: str, things: list[OwnedFd]) -> None:
    """A successor hears, once it is one, what has left a store since it was offered that."""
    with Supervisor(path, WEB) as old:
        old.ready()
        for name, thing in zip(("x", "y", "y"), things, strict=True):
            old.do(partial(old.tenure.add_stored, "web", name, thing))
        with Supervisor(path, WEB) as new:
            old.do(lambda: old.tenure.remove_stored("web", "y", things[1]))
            old.do(lambda: old.tenure.add_stored("web", "late", things[1]))
            assert new.late == []
            new.ready()
            old.wait(Phase.DRAINING)
            old.do(lambda: old.tenure.remove_stored("web", "y"))
            old.do(lambda: old.tenure.remove_stored("web", "late"))
            old.close()
            gone = [(one.name, one.removed) for one in new.late]
            assert gone == [("y", True), ("late", False), ("y", True), ("late", True)]
            wanted = [things[i] for i in (1, 1, 2, 1)]
            assert [row[2] for row in told(new.late)] == [identity(t.fileno()) for t in wanted]


def test_what_never_was_offered_is_not_told(path: str, things: list[OwnedFd]) -> None:
    """What came and went between the offer and the commit is nobody's business."""
    with Supervisor(path, WEB) as old:
        old.ready()
        with Supervisor(path, WEB) as new:
            old.do(lambda: old.tenure.add_stored("web", "x", things[0]))
            old.do(lambda: old.tenure.remove_stored("web", "x"))
            new.ready()
            old.close()
            assert new.late == []


def test_it_goes_to_whoever_is_the_owner_by_then(path: str, things: list[OwnedFd]) -> None:
    """While a third takes over it waits; then the third gets it."""
    with Supervisor(path) as first:
        first.ready()
        with Supervisor(path) as second:
            second.ready()
            first.wait(Phase.DRAINING)
            with Supervisor(path) as third:
                first.do(partial(first.tenure.add_stored, "web", "late", things[0]))
                until(lambda: _retries(first), "the second is busy")
                third.ready()
                until(lambda: len(third.late) == 1, "it has come")
                assert second.late == []
                assert told(third.late) == [row("web", "late", things[0])]
                until(lambda: not _retries(first), "it is told")


def _retries(supervisor: Supervisor) -> bool:
    sender = supervisor.tenure._parcels
    return sender is not None and sender.pending and sender._retry_at is not None


def test_who_keeps_no_store_is_not_sent_any(
    path: str, things: list[OwnedFd], caplog: pytest.LogCaptureFixture
) -> None:
    """What is lost by that is in the log, by service and name."""
    with Supervisor(path) as old:
        old.ready()
        with Supervisor(path) as new:
            new.tenure.on_stored = None
            new.ready()
            old.wait(Phase.DRAINING)
            for name in ("x", "y"):
                old.do(partial(old.tenure.add_stored, "web", name, things[0]))
            until(lambda: bool(caplog.messages), "it is told")
            assert (
                "web: what has changed in its fd store since the takeover is lost: "
                in caplog.messages[0]
            )
            assert "keeps no fdstore" in caplog.messages[0]


def test_who_cannot_keep_it_says_so(
    path: str, things: list[OwnedFd], caplog: pytest.LogCaptureFixture
) -> None:
    """The former owner tells of it, nothing stays open, and both go on."""

    def refuse(parked: list[Parked]) -> None:
        raise ValueError(f"no room for {parked[0].name}")

    with Supervisor(path) as old:
        old.ready()
        with Supervisor(path) as new:
            new.tenure.on_stored = refuse
            new.ready()
            old.wait(Phase.DRAINING)
            before = count_fds()
            old.do(lambda: old.tenure.add_stored("web", "x", things[0]))
            until(lambda: bool(caplog.messages), "it is told")
            assert "no room for x" in caplog.messages[0]
            until(lambda: count_fds() == before + 1, "only the copy in reserve is left")
            assert new.tenure.owns


def test_a_successor_that_dies_takes_nothing_with_it(path: str, things: list[OwnedFd]) -> None:
    """The former owner has everything, early or late, when it takes back."""
    with Supervisor(path) as old, actors(0) as (actor,):
        old.ready()
        old.do(lambda: old.tenure.add_stored("web", "early", things[0]))
        actor.do(f"t = sockact.takeover({path!r}); t.ready()")
        old.wait(Phase.DRAINING)
        old.do(lambda: old.tenure.add_stored("web", "late", things[1]))
        actor.kill()
        old.wait(Phase.LEADING)
        with Supervisor(path) as new:
            names = [one.name for one in new.came]
            assert names[0] == "early"
            new.ready()
            old.close()
            assert sorted(one.name for one in [*new.came, *new.late]) == ["early", "late"]


def test_an_owner_that_ends_does_not_wait_for_ever(
    path: str,
    things: list[OwnedFd],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If its successor cannot be reached, what is on its way is lost, and that is told."""
    monkeypatch.setattr(parcels, "FINISH_SECONDS", 0.3)
    with Supervisor(path) as first:
        first.ready()
        with Supervisor(path) as second:
            second.ready()
            first.wait(Phase.DRAINING)
            with Supervisor(path):  # so the second is busy
                first.do(lambda: first.tenure.add_stored("web", "late", things[0]))
                first.close()
            assert "is lost: late" in caplog.messages[0]
            assert second.late == []


def test_the_reserve_of_a_released_owner(path: str, things: list[OwnedFd]) -> None:
    """What is stored after the copies were closed is sent, too."""
    with Supervisor(path) as first:
        first.ready()
        first.do(lambda: first.tenure.add_stored("web", "early", things[0]))
        with Supervisor(path) as second:
            second.ready()
            first.wait(Phase.DRAINING)
            with Supervisor(path) as third:
                third.ready()
                second.wait(Phase.DRAINING)
                until(lambda: not first.tenure.estate.stored, "the first was released")
                first.do(lambda: first.tenure.add_stored("web", "late", things[1]))
                until(lambda: len(third.late) == 1, "it has come")
                assert second.late == []


def test_come_that_fails_keeps_nothing(path: str, things: list[OwnedFd]) -> None:
    """If something new cannot be opened, what came is closed, and the owner goes on."""
    with Supervisor(path) as old, socket.create_server(("127.0.0.1", 0)) as blocker:
        old.ready()
        old.do(lambda: old.tenure.add_stored("web", "x", things[0]))
        before = count_fds()
        port = blocker.getsockname()[1]
        with pytest.raises(BindError, match=str(port)):
            Supervisor(path, f"web=tcp:127.0.0.1:{port}")
        until(lambda: count_fds() == before, "everything is closed")
        assert old.tenure.owns
