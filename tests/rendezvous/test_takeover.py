"""sockact.takeover and sockact.offer between real processes."""

import contextlib
import errno
import functools
import os
import resource
import select
import signal
import socket
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import sockact
from sockact.errors import (
    BindError,
    PathInUseError,
    RefusedError,
    RendezvousError,
    TakeoverAbortedError,
)
from sockact.rendezvous.messages import (
    VERSION,
    Abort,
    Accept,
    Ack,
    Adopted,
    Alive,
    Commit,
    Fds,
    Hello,
    Offer,
    Op,
    Ready,
    Reason,
    Refuse,
    Welcome,
)
from tests.helpers import SECONDS, free_port
from tests.rendezvous.peers import (
    Actor,
    ActorError,
    Wire,
    actors,
    cookies,
    count_fds,
    dial,
    leading,
    until,
)

STREAM = [False, True]
WEB = "web=tcp:127.0.0.1:0"


def come(actor: Actor, path: str, *definitions: str, stream: bool = False, more: str = "") -> None:
    """Have an actor take a path over, without getting ready; the first one has nobody to wait for."""
    texts = ", ".join(repr(text) for text in (path, *definitions))
    actor.do(f"t = sockact.takeover({texts}, stream={stream}, timeout=10{more})")
    actor.do("if t.generation == 1: t.ready()")


def step_down(actor: Actor) -> None:
    """Have an actor that has a successor finish."""
    assert actor.ask("t.wait_successor(10)") is True
    actor.do("t.close()")


def _left(path: str) -> list[str]:
    return [] if path.startswith("@") else os.listdir(os.path.dirname(path))


@pytest.fixture(name="pair")
def _pair() -> Iterator[list[Actor]]:
    with actors(0, 0) as found:
        yield found


@pytest.mark.parametrize("stream", STREAM)
def test_three_generations_serve_the_very_same_sockets(path: str, *, stream: bool) -> None:
    """Each takes the sockets of the one before it; the last one removes the path and its lock."""
    definitions = (WEB, "dns=udp:127.0.0.1:0")
    with actors(0, 0, 0) as family:
        seen = []
        for generation, actor in enumerate(family, 1):
            come(actor, path, *definitions, stream=stream)
            actor.do("t.ready()")
            assert actor.ask("[t.generation, t.phase]") == [generation, "is the owner"]
            seen.append(actor.ask("cookies(t.sockets)"))
            for name in (path, f"{path}.lock"):
                assert stat.S_IMODE(os.lstat(name).st_mode) == 0o600
            if generation > 1:
                step_down(family[generation - 2])
        assert seen[0] == seen[1] == seen[2]
        family[-1].do("t.close()")
        assert _left(path) == []


@pytest.mark.parametrize("name", ["abstract", "long", "relative"])
@pytest.mark.parametrize("stream", STREAM)
def test_any_kind_of_path_is_taken_over(short_dir: Path, name: str, *, stream: bool) -> None:
    """An abstract name, a path over 108 bytes, and a relative path are as good as any."""
    path = {
        "abstract": f"@sockact-test-{os.getpid()}-{stream}",
        "long": str(short_dir / ("d" * 100) / ("r" * 60)),
        "relative": os.path.relpath(short_dir / "r"),
    }[name]
    if name == "long":
        os.mkdir(os.path.dirname(path))
    with (
        leading(path, WEB, stream=stream) as old,
        sockact.takeover(path, WEB, stream=stream) as new,
    ):
        new.ready()
        assert old.wait_successor(SECONDS)
        assert cookies(list(old.sockets)) == cookies(list(new.sockets))
        assert new.generation == 2


def test_what_has_the_same_name_kind_and_address_is_taken(short_dir: Path, path: str) -> None:
    """Anything else that the definitions name is opened; port 0 means the port there is."""
    port = free_port()
    old = [
        "web=tcp:127.0.0.1:0",
        f"web=unix:{short_dir}/web",
        f"web=unix-dgram:{short_dir}/dgram",
        f"pipe=fifo:{short_dir}/pipe",
        "dns=udp:127.0.0.1:0",
        "kernel=netlink:route 1",
    ]
    new = [old[5], old[4], old[3], f"other=tcp:127.0.0.1:{port}", old[1], old[0]]
    with leading(path, *old) as first, sockact.takeover(path, *new) as second:
        assert second.sockets.names == ("kernel", "dns", "pipe", "other", "web", "web")
        was, now = cookies(list(first.sockets)), cookies(list(second.sockets))
        assert [was.index(one) if one in was else None for one in now] == [5, 4, 3, None, 1, 0]
        # What is new accepts before anybody has said that it is ready.
        socket.create_connection(("127.0.0.1", port), SECONDS).close()


def test_a_fifo_elsewhere_is_another_one(short_dir: Path, path: str) -> None:
    """The end of a path is not the path."""
    (short_dir / "a" / str(short_dir)[1:]).mkdir(parents=True)
    definitions = [f"p=fifo:{short_dir}/a{short_dir}/p", f"p=fifo:{short_dir}/p"]
    with (
        leading(path, definitions[0]) as old,
        sockact.takeover(path, definitions[1]) as new,
    ):
        assert cookies(list(old.sockets)) != cookies(list(new.sockets))


def test_what_is_dropped_stays_open_until_the_drain_is_over(path: str) -> None:
    """A client of a listener that the successor does not want is refused only after `gone`."""
    port = free_port()
    with (
        leading(path, WEB, f"old=tcp:127.0.0.1:{port}") as old,
        sockact.takeover(path, WEB) as new,
    ):
        new.ready()
        assert old.wait_successor(SECONDS)
        socket.create_connection(("127.0.0.1", port), SECONDS).close()
        old.close()

        def refused() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED

        until(refused, "the listener is closed")
        assert not new._tenure.predecessor_drains


def test_a_definition_that_cannot_be_opened_changes_nothing(path: str) -> None:
    """The former owner goes on, and what had been opened is closed."""
    with socket.create_server(("127.0.0.1", 0)) as taken, leading(path, WEB) as old:
        before = count_fds()
        free = free_port()
        with pytest.raises(BindError):
            sockact.takeover(
                path, WEB, f"a=tcp:127.0.0.1:{free}", f"b=tcp:127.0.0.1:{taken.getsockname()[1]}"
            )
        until(lambda: count_fds() == before, "everything is closed")
        assert old.phase == "is the owner"
        socket.create_server(("127.0.0.1", free)).close()
        with sockact.takeover(path, WEB) as new:
            new.ready()
            assert new.generation == 2


def test_a_first_start_that_fails_leaves_nothing(path: str) -> None:
    """Neither the path nor its lock stays when the first owner cannot open its sockets."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BindError):
        sockact.takeover(path, f"b=tcp:127.0.0.1:{taken.getsockname()[1]}")
    assert _left(path) == []


@pytest.mark.parametrize("stream", STREAM)
def test_a_taker_that_leaves_before_ready_was_never_there(path: str, *, stream: bool) -> None:
    """The owner neither stops nor resumes, and the next taker is the same generation."""
    called: list[str] = []
    with leading(path, WEB, stream=stream) as old:
        old.on_drain(lambda: called.append("drain"))
        old.on_resume(lambda: called.append("resume"))
        before = count_fds()
        for _ in range(3):
            with sockact.takeover(path, WEB) as new:
                assert new.generation == 2
        until(lambda: count_fds() == before, "everything is closed")
        assert (called, old.phase) == ([], "is the owner")


def test_a_killed_taker_was_never_there(path: str, pair: list[Actor]) -> None:
    """SIGKILL before ready leaves the owner as it was."""
    with leading(path, WEB) as old:
        come(pair[0], path)
        pair[0].kill()
        come(pair[1], path)
        assert pair[1].ask("t.generation") == 2
        assert old.phase == "is the owner"


def test_a_second_taker_is_refused_while_the_first_gets_ready(path: str) -> None:
    """It says who is taking over, and that may be waited for."""
    with leading(path, WEB), sockact.takeover(path, WEB) as new:
        with pytest.raises(RefusedError, match="is taking over") as caught:
            sockact.takeover(path, WEB, timeout=0.1)
        assert caught.value.reason == "busy"
        assert str(caught.value).count(path) == 1
        new.ready()


def test_a_taker_waits_for_the_one_before_it(path: str, pair: list[Actor]) -> None:
    """A taker that comes too early gets the sockets from the next generation, or from this one."""
    with leading(path, WEB) as old:
        new = sockact.takeover(path, WEB)
        pair[0].begin(f"t = sockact.takeover({path!r}, timeout=10); t.ready()")
        assert not pair[0].is_done(0.1)
        new.ready()
        assert old.wait_successor(SECONDS)
        old.close()
        pair[0].end()
        assert pair[0].ask("t.generation") == 3
        assert new.wait_successor(SECONDS)
        new.close()


def test_the_program_stops_before_its_successor_starts(path: str) -> None:
    """`ready` returns only after every callback of the former owner's has returned."""
    order: list[str] = []
    with leading(path, WEB, drain=7.0) as old, sockact.takeover(path, WEB) as new:

        @old.on_drain
        def _stop() -> None:
            time.sleep(0.05)
            order.append("stopped")

        @old.on_drain
        def _wrong() -> None:
            order.append("failed")
            raise ValueError

        assert (old.deadline, order) == (None, [])
        assert not old.wait_successor(0.01)
        new.ready()
        order.append("ready")
        assert old.wait_successor(SECONDS)
        assert order == ["stopped", "failed", "ready"]
        assert old.phase == "has a successor"
        assert (old.deadline or 0.0) > time.monotonic() - 13.0


def test_ready_gives_up_on_an_owner_that_hangs(path: str, pair: list[Actor]) -> None:
    """A stopped owner is not waited for; once it goes on, it still has everything."""
    come(pair[0], path, WEB)
    with sockact.takeover(path, WEB) as new:
        pair[0].send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, pair[0].pid, os.WSTOPPED | os.WNOWAIT)  # all of its threads have
        try:
            with pytest.raises(TakeoverAbortedError, match="did not commit in time"):
                new.ready(timeout=0.2)
        finally:
            pair[0].send_signal(signal.SIGCONT)
    come(pair[1], path, WEB)
    assert pair[0].ask("t.phase") == "is the owner"
    assert pair[0].ask("cookies(t.sockets)") == pair[1].ask("cookies(t.sockets)")


def test_an_owner_that_loses_patience_goes_on(path: str) -> None:
    """A taker that is not ready in time is told so, and has to leave the sockets alone."""
    with leading(path, WEB) as old, sockact.takeover(path, WEB, patience=0.2) as late:
        with pytest.raises(TakeoverAbortedError, match="took too long"):
            late.wait_successor(SECONDS)
        with pytest.raises(TakeoverAbortedError, match="took too long"):
            late.ready()
        assert old.phase == "is the owner"
        with sockact.takeover(path, WEB) as new:
            new.ready()


def test_the_owner_takes_back_from_a_successor_that_is_killed(path: str, pair: list[Actor]) -> None:
    """During the drain the former owner can serve again, and be taken over from again."""
    resumed: list[str] = []
    read, write = os.pipe()
    with leading(path, WEB) as old:

        @old.on_resume
        def _resume() -> None:
            resumed.append(old.phase)
            os.write(write, b"x")

        come(pair[0], path)
        pair[0].do("t.ready()")
        assert old.wait_successor(SECONDS)
        pair[0].kill()
        assert select.select([read], [], [], SECONDS)[0]
        assert resumed == ["is the owner"]
        come(pair[1], path)
        pair[1].do("t.ready()")
        assert pair[1].ask("t.generation") == 2
        assert pair[1].ask("cookies(t.sockets)") == cookies(list(old.sockets))
        assert old.wait_successor(SECONDS)
    os.close(read)
    os.close(write)


def test_the_taker_inherits_from_an_owner_that_is_killed(path: str, pair: list[Actor]) -> None:
    """An owner that dies before the commit leaves everything to the one who has adopted it."""
    come(pair[0], path, WEB)
    with sockact.takeover(path, WEB) as new:
        pair[0].kill()
        new.ready()
        assert (new.phase, new.generation) == ("is the owner", 2)
        assert os.path.exists(path)
        come(pair[1], path)
        pair[1].do("t.ready()")
        assert pair[1].ask("t.generation") == 3


@pytest.mark.parametrize("name", ["path", "abstract"])
def test_two_that_start_at_once_after_a_kill_are_one_owner_and_one_taker(
    path: str, name: str
) -> None:
    """A stale node is replaced by exactly one of them; the other one takes over."""
    if name == "abstract":
        path = f"@sockact-test-{os.getpid()}-race"
    definition = f"web=tcp:127.0.0.1:{free_port()}"
    with actors(0, 0, 0, 0, 0) as (first, *rest):
        come(first, path, definition)
        first.kill()
        for actor in rest:
            actor.begin(
                f"t = sockact.takeover({path!r}, {definition!r}, timeout=15); t.ready()\n"
                "import threading\n"
                "threading.Thread(target=lambda: (t.wait_successor(), t.close())).start()"
            )
        for actor in rest:
            actor.end()
        generations = [actor.number("t.generation") for actor in rest]
        assert sorted(generations) == [1, 2, 3, 4]
        last = rest[generations.index(4)]
        last.do("t.close()")
    assert _left(path) == []


def test_a_stale_path_is_recovered(path: str, pair: list[Actor]) -> None:
    """Also where the one that was killed had just made its node."""
    come(pair[0], path, WEB)
    pair[0].kill()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as half_made:
        half_made.bind(f"{path}.new")
    come(pair[1], path, WEB)
    assert pair[1].ask("t.generation") == 1
    assert sorted(os.listdir(os.path.dirname(path))) == ["r", "r.lock"]


def test_an_owner_that_ends_lets_go_of_the_taker(path: str) -> None:
    """Who ends on purpose passes nothing on: the taker is told."""
    old = leading(path, WEB)
    with sockact.takeover(path, WEB) as new:
        old.close()
        with pytest.raises(TakeoverAbortedError, match="ends"):
            new.ready()
    assert _left(path) == []


def test_an_owner_that_ends_has_those_who_come_ask_again(path: str) -> None:
    """Who has not adopted anything yet hears that it is busy, and finds whoever is there then."""
    old = leading(path, WEB)
    with contextlib.closing(Wire(path)) as idle, contextlib.closing(Wire(path)) as taker:
        idle.say(Hello(1, VERSION))
        assert isinstance(idle.hear()[0], Welcome)
        assert isinstance(taker.ask(Op.TAKEOVER), Offer)
        old.close()
        for wire in (idle, taker):
            answer = wire.hear()[0]
            assert isinstance(answer, Refuse)
            assert answer.reason is Reason.BUSY
    with sockact.takeover(path, WEB) as new:
        assert new.generation == 1


def _set_of_everything(directory: Path) -> sockact.SocketSet:
    """Return a set with a descriptor of each kind, established connections and a duplicate."""
    made = sockact.listen(
        "a=tcp:127.0.0.1:0",
        "b=udp:127.0.0.1:0",
        f"c=unix:{directory}/c",
        f"d=unix-dgram:{directory}/d",
        f"e=unix-seqpacket:{directory}/e",
        f"f=fifo:{directory}/f",
    )
    (directory / "file").write_text("file")
    client = socket.create_connection(made["a"].getsockname())
    left, right = socket.socketpair()
    numbers = {
        "g": os.open(directory / "file", os.O_RDWR),
        "h": os.memfd_create("sockact-test"),
        "i": client.detach(),
        "j": left.detach(),
        "k": right.detach(),
        "l": os.dup(made["a"].fileno()),
        "m": os.open("/dev/null", os.O_RDWR),
        "n": os.open("/", os.O_RDONLY | os.O_DIRECTORY),
    }
    for name, number in numbers.items():
        made.append(sockact.NamedSocket(name, number))
    return made


@pytest.mark.parametrize("stream", STREAM)
def test_every_kind_of_descriptor_passes(path: str, short_dir: Path, *, stream: bool) -> None:
    """Each arrives as what it was; a duplicate stays one; connections stay connected."""
    given = _set_of_everything(short_dir)
    kinds = [entry.describe() for entry in given]
    with sockact.offer(path, given, stream=stream) as old, sockact.takeover(path) as new:
        assert new.sockets.names == tuple("abcdefghijklmn")
        assert [entry.describe() for entry in new.sockets] == kinds
        assert cookies(list(new.sockets)) == cookies(list(old.sockets))
        numbers = dict(zip(new.sockets.names, new.sockets.filenos(), strict=True))
        os.write(numbers["j"], b"through")
        assert os.read(old.sockets.entry("k").fileno(), 10) == b"through"
        assert os.pread(numbers["g"], 10, 0) == b"file"
        new.ready()


def test_listeners_do_not_block_unless_asked_to(path: str) -> None:
    """A blocking accept() would hang in the process that loses the race for a connection."""
    with leading(path, "a=tcp:127.0.0.1:0", "b=tcp:127.0.0.1:0?NonBlocking=no") as owner:
        assert [os.get_blocking(number) for number in owner.sockets.filenos()] == [False, True]


def test_a_node_to_be_removed_stays_with_its_successor(short_dir: Path, path: str) -> None:
    """RemoveOnStop=yes removes nothing while somebody else serves there."""
    node = short_dir / "u"
    definition = f"u=unix:{node}?RemoveOnStop=yes"
    with leading(path, definition) as old, sockact.takeover(path, definition) as new:
        new.ready()
        assert old.wait_successor(SECONDS)
        old.close()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(node))
    other = short_dir / "v"
    sockact.takeover(path, f"u=unix:{other}?RemoveOnStop=yes").close()
    assert not other.exists()


@pytest.mark.parametrize("stream", STREAM)
def test_four_thousand_sockets_pass(path: str, *, stream: bool) -> None:
    """In many messages, with the longest names there are."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 9000:
        pytest.skip(f"the hard limit of open files is {hard}")
    name = "n" * 245
    with actors(0, 0) as (old, new):
        old.do(
            "import resource; hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))\n"
            "given = sockact.SocketSet([sockact.NamedSocket("
            f"{name!r} + str(i), socket.socket(type=socket.SOCK_DGRAM).detach())"
            " for i in range(4000)])\n"
            f"t = sockact.offer({path!r}, given, stream={stream})"
        )
        come(new, path)
        assert new.number("len(t.sockets)") == 4000
        new.do("t.ready()")
        assert old.ask("cookies(t.sockets)") == new.ask("cookies(t.sockets)")
        step_down(old)
        assert old.number("count_fds()") < 20


@pytest.mark.parametrize("operation", ["takeover", "take"])
def test_a_receiver_without_room_refuses_before_anything_moves(
    path: str, pair: list[Actor], operation: str
) -> None:
    """It says so at once, and the owner is as it was."""
    come(pair[0], path, *(f"w{i}=udp:127.0.0.1:0" for i in range(50)))
    before = pair[0].number("count_fds()")
    pair[1].do("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))")
    start = time.monotonic()
    with pytest.raises(ActorError, match="RLIMIT_NOFILE") as caught:
        pair[1].do(f"sockact.{operation}({path!r}, timeout=60)")
    assert caught.value.kind == "NoRoomError"
    assert time.monotonic() - start < SECONDS
    until(lambda: pair[0].number("count_fds()") == before, "everything is closed")
    assert pair[0].ask("t.phase") == "is the owner"
    pair[1].do("t = None; assert count_fds() < 12, os.listdir('/proc/self/fd')")


def test_the_soft_limit_is_raised_where_that_helps(path: str, pair: list[Actor]) -> None:
    """Only a hard limit is a reason to refuse."""
    come(pair[0], path, *(f"w{i}=udp:127.0.0.1:0" for i in range(50)))
    pair[1].do(
        "import resource; hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (60, hard))"
    )
    come(pair[1], path)
    assert pair[1].number("len(t.sockets)") == 50


def test_offer_wants_a_path_without_an_owner(path: str) -> None:
    """The set stays the caller's."""
    with leading(path, WEB) as owner, sockact.listen(WEB) as mine:
        with pytest.raises(PathInUseError, match="has an owner"):
            sockact.offer(path, mine)
        assert mine["web"].fileno() > 0
        assert owner.phase == "is the owner"


def test_something_else_at_the_path_is_left_alone(short_dir: Path, path: str) -> None:
    """A file, a directory, or a link, even one to a rendezvous, is refused; no lock is left."""
    places = {name: str(short_dir / name) for name in ("file", "dir", "link", "loop")}
    Path(places["file"]).write_text("mine")
    os.mkdir(places["dir"])
    os.symlink(path, places["link"])
    os.symlink(places["loop"], places["loop"])
    with leading(path, WEB):
        before = sorted(os.listdir(short_dir))
        for place in places.values():
            with pytest.raises(PathInUseError, match="no socket"):
                sockact.takeover(place, WEB, timeout=0.1)
            with pytest.raises(RendezvousError, match="no socket"):
                sockact.take(place)
        assert sorted(os.listdir(short_dir)) == before


@pytest.mark.parametrize("what", ["link", "fifo", "directory"])
def test_a_lock_that_is_no_file_is_refused(short_dir: Path, path: str, what: str) -> None:
    """A link is not followed, and a FIFO is not waited for."""
    lock = f"{path}.lock"
    if what == "link":
        os.symlink(short_dir / "elsewhere", lock)
    elif what == "fifo":
        os.mkfifo(lock)
    else:
        os.mkdir(lock)
    with pytest.raises(PathInUseError, match="lock"):
        sockact.takeover(path, WEB, timeout=0.1)
    assert os.listdir(short_dir) == ["r.lock"]


def test_a_lock_that_somebody_holds_is_waited_for(path: str, pair: list[Actor]) -> None:
    """While nobody answers the lock's holder may be starting; it says so in the end."""
    pair[0].do(
        f"import fcntl; lock = open({path + '.lock'!r}, 'w'); fcntl.flock(lock, fcntl.LOCK_EX)"
    )
    with pytest.raises(PathInUseError, match="somebody may be starting"):
        sockact.takeover(path, WEB, timeout=0.1)
    pair[1].begin(f"t = sockact.takeover({path!r}, {WEB!r}, timeout=10)")
    assert not pair[1].is_done(0.1)
    pair[0].do("lock.close()")
    pair[1].end()
    assert pair[1].ask("t.generation") == 1


def test_closing_twice_and_using_it_afterwards(path: str) -> None:
    """A second close does nothing; nothing is written to a descriptor that is somebody else's."""
    owner = leading(path, WEB)
    owner.close()
    owner.close()
    read, write = os.pipe()
    os.set_blocking(read, False)
    copies = [os.dup(write) for _ in range(20)]  # the number of the reactor's pipe among them
    with pytest.raises(RendezvousError, match="closed"):
        owner.ready()
    assert not owner.wait_successor(0)
    with pytest.raises(BlockingIOError):
        os.read(read, 1)
    for number in (read, write, *copies):
        os.close(number)


def test_close_in_a_callback_is_an_error(path: str) -> None:
    """It would wait for itself."""
    errors: list[str] = []
    with leading(path, WEB) as old, sockact.takeover(path, WEB) as new:

        @old.on_drain
        def _close() -> None:
            try:
                old.close()
            except RendezvousError as error:
                errors.append(str(error))

        new.ready()
        assert old.wait_successor(SECONDS)
    assert errors == ["close() cannot be called by a callback; set an event instead"]


def _write(number: int) -> None:
    os.write(number, b"x")


def test_close_while_the_successor_is_about_to_commit(path: str) -> None:
    """The owner that ends just then is succeeded: the path stays."""
    for _ in range(20):
        with leading(path, WEB) as old, sockact.takeover(path, WEB) as new:
            stopped, go = os.pipe()
            old.on_drain(functools.partial(_write, go))
            new._reactor.post(new._tenure.ready)
            os.read(stopped, 1)
            old.close()
            new.ready()
            assert new.phase == "is the owner"
            assert os.path.exists(path)
            os.close(stopped)
            os.close(go)


def test_an_owner_that_ends_reads_of_the_end_of_its_successor_first(
    path: str, pair: list[Actor]
) -> None:
    """If nobody has the sockets any more, the path is removed with the last one who had them."""
    with leading(path, WEB) as old:
        come(pair[0], path)
        pair[0].do("t.ready()")
        assert old.wait_successor(SECONDS)

        def end() -> None:
            pair[0].kill()
            old._tenure.close()

        old._reactor.post(end)
    assert _left(path) == []


# What a taker can do wrong, each followed by an honest takeover.


def _transfer(wire: Wire) -> tuple[int, ...]:
    """Get everything of a takeover; return it unacknowledged."""
    offer = wire.ask(Op.TAKEOVER, patience=0.3)
    assert isinstance(offer, Offer)
    wire.say(Accept())
    message, fds = wire.hear()
    assert isinstance(message, Fds)
    return fds


@pytest.mark.parametrize("stream", STREAM)
@pytest.mark.parametrize("case", ["ack", "early", "twice", "silent", "alive", "patience"])
def test_a_taker_that_does_it_wrong_changes_nothing(path: str, case: str, *, stream: bool) -> None:
    """It is told, and the next one is served."""
    with leading(path, WEB, stream=stream) as old:
        before = count_fds()
        with contextlib.closing(Wire(path)) as wire:
            fds = _transfer(wire)
            match case:
                case "ack":
                    wire.say(Ack(len(fds) + 1))
                case "early":
                    wire.say(Adopted())
                case "twice":
                    wire.say(Ack(len(fds)))
                    wire.say(Adopted())
                    wire.say(Ready())
                    assert isinstance(wire.hear()[0], Commit)
                    wire.say(Ready())
                case "alive":
                    wire.say(Ack(len(fds)))
                    wire.say(Adopted())
                    with contextlib.suppress(OSError):
                        while True:
                            wire.say(Alive())
                case _:
                    wire.say(Ack(len(fds)))
                    wire.say(Adopted())
            if case in ("silent", "patience"):
                with pytest.raises(RefusedError, match="is taking over"):
                    sockact.takeover(path, WEB, timeout=0.05)
            answer = wire.hear()[0]
            while isinstance(answer, Alive):
                answer = wire.hear()[0]
            assert isinstance(answer, Abort)
            over = case in ("silent", "patience", "alive")
            assert answer.reason is (Reason.TIMEOUT if over else Reason.PROTOCOL)
        for fd in fds:
            os.close(fd)
        until(lambda: count_fds() == before, "everything is closed")
        with sockact.takeover(path, WEB) as new:
            new.ready()
            assert old.wait_successor(SECONDS)


def test_a_killed_process_resets_nothing(path: str) -> None:
    """A connection that is reset while it waits in the backlog does the owner no harm."""
    with leading(path, WEB) as old:
        for _ in range(20):
            sock = dial(path)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.send(b"sa")
            sock.close()
        with sockact.takeover(path, WEB) as new:
            new.ready()
            assert old.wait_successor(SECONDS)
