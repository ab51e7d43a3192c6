"""Whatever a peer does, an honest takeover goes on, and the owner has lost nothing in the end.

Each case is something that a hostile peer does to an owner, from a process of its own. While it is
at it, another process takes over. Afterwards both, the former owner and the new one, have the
descriptors and about the memory that they had before.
"""

import contextlib
import json
import os
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

import sockact
from sockact.errors import RendezvousError
from sockact.fd.transfer import send_message
from sockact.rendezvous.manifest import Entry, Manifest
from sockact.rendezvous.messages import (
    BYTES_MAX,
    MESSAGES,
    VERSION,
    Accept,
    Ack,
    Adopted,
    Alive,
    Fds,
    Hello,
    Message,
    Offer,
    Op,
    Ready,
    Request,
)
from sockact.rendezvous.wire import HEADER, MAGIC, encode
from tests.helpers import SECONDS
from tests.rendezvous.peers import (
    ANOTHER_UID,
    Actor,
    Wire,
    actors,
    count_fds,
    dial,
    leading,
    rights,
    until,
)

MEMORY_KIB = 24 * 1024
"""How much more memory an owner may have afterwards: what one message of each kind can take."""

_SHORTER = """
import sockact.rendezvous.tables as tables
import sockact.rendezvous.talk as talk
import sockact.rendezvous.machine as machine
for seconds in (tables.OWNER_SECONDS,):
    seconds.update({state: 0.4 for state in seconds})
talk.LINGER_SECONDS = 0.4
machine.TRANSFER_SECONDS = 1.0
talk._READS = 8
"""
"""Less patience, so that the tests need less of it: with a program's own there is no option."""

Held = list[socket.socket]
CASES: dict[str, Callable[[str], Held]] = {}


def case(function: Callable[[str], Held]) -> Callable[[str], Held]:
    """Add to the table; what a function returns is kept open for the rest of the test."""
    CASES[function.__name__.strip("_")] = function
    return function


def _frame(body: bytes, fds: int = 0, framing: int = 1) -> bytes:
    return HEADER.pack(MAGIC, framing, fds, len(body)) + body


def _raw(path: str, *frames: bytes, fds: tuple[int, ...] = ()) -> Held:
    """Send frames as they are, whatever comes of it."""
    sock = dial(path)
    with contextlib.suppress(OSError):
        for frame in frames:
            sock.sendmsg([frame], rights(*fds) if fds else [])
    return [sock]


def _greeted(path: str) -> Wire:
    """Be greeted, or refused."""
    wire = Wire(path)
    with contextlib.suppress(OSError, EOFError):
        wire.say(Hello(1, VERSION))
        wire.hear()
    return wire


def _asked(path: str, op: Op, **more: object) -> Wire:
    """Ask for something."""
    wire = _greeted(path)
    with contextlib.suppress(OSError):
        wire.say(Request(op, **more))  # type: ignore[arg-type]
    return wire


def _adopted(path: str, patience: float) -> Wire:
    """Take everything, if it is given, and say so; throw it away."""
    wire = _asked(path, Op.TAKEOVER, patience=patience)
    with contextlib.suppress(OSError, EOFError):
        if isinstance(wire.hear()[0], Offer):
            wire.say(Accept())
            fds = wire.hear()[1]
            for fd in fds:
                os.close(fd)
            wire.say(Ack(len(fds)))
            wire.say(Adopted())
    return wire


@case
def _flood(path: str) -> Held:
    first = dial(path)
    held = [first]
    for _ in range(500):
        with contextlib.suppress(OSError):
            sock = socket.socket(socket.AF_UNIX, first.type)
            sock.setblocking(False)
            held.append(sock)
            sock.connect(path)
    return held


@case
def _many_that_hang_up(path: str) -> Held:
    for _ in range(200):
        with contextlib.suppress(OSError):
            dial(path).close()
    return []


@case
def _silent(path: str) -> Held:
    return [dial(path) for _ in range(4)]


@case
def _silent_after_hello(path: str) -> Held:
    return [_greeted(path).sock for _ in range(4)]


@case
def _slow(path: str) -> Held:
    frame = encode(Hello(1, VERSION, program="x" * 100))
    sock = dial(path)
    with contextlib.suppress(OSError):
        for i in range(len(frame) - 1):
            sock.send(frame[i : i + 1])
    return [sock]


@case
def _truncated(path: str) -> Held:
    frame = encode(Hello(1, VERSION))
    return [sock for cut in (1, 7, 8, 9, len(frame) - 1) for sock in _raw(path, frame[:cut])]


@case
def _empty(path: str) -> Held:
    return _raw(path, b"", b"", _frame(b""))


@case
def _too_large(path: str) -> Held:
    sizes = (BYTES_MAX - 8, BYTES_MAX - 7, 70 * 1024, 200 * 1024)
    return [sock for size in sizes for sock in _raw(path, _frame(b" " * size))]


@case
def _huge_length(path: str) -> Held:
    return _raw(path, HEADER.pack(MAGIC, 1, 255, 2**32 - 1))


@case
def _deep(path: str) -> Held:
    bodies = [b"[" * 60_000, b'{"type":' * 8000, b'{"type":' + b"[" * 30_000 + b"]" * 30_000 + b"}"]
    return [sock for body in bodies for sock in _raw(path, _frame(body))]


@case
def _no_protocol(path: str) -> Held:
    texts = [
        b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, b"\xff" * 100, _frame(b"{}", framing=2),
        _frame(b"[]"), _frame(b"1e999"), _frame(b'{"type":"hello"}'), _frame(b'{"type":[]}'),
        _frame(b'{"type":"hello","oldest":NaN,"newest":1}'),
        _frame(b'{"type":"hello","oldest":' + b"9" * 5000 + b',"newest":1}'),
        _frame(b'{"type":"hello","oldest":-1,"newest":true}'),
        _frame(b'{"type":"hello","oldest":1,"newest":1,"requires":["' + b"x" * 60_000 + b'"]}'),
    ]  # fmt: skip
    return [sock for text in texts for sock in _raw(path, text)]


_SOME = Manifest([Entry("s", "n", device=1, inode=2)])
_FIELDS: dict[str, dict[str, object]] = {
    "hello": {"oldest": 1, "newest": 1},
    "welcome": {"version": 1},
    "request": {"op": Op.TAKEOVER},
    "offer": {"count": 1, "entries": _SOME},
    "fds": {"first": 0, "count": 1},
    "ack": {"count": 1},
    "listing": {"entries": _SOME},
    "answer": {"text": "{}"},
}


def _message(kind: str) -> Message:
    return MESSAGES[kind](**_FIELDS.get(kind, {}))


def _messages() -> list[bytes]:
    """Return every kind of message."""
    found = []
    for kind in MESSAGES:
        if kind in ("refuse", "abort"):
            found.append(_frame(json.dumps({"type": kind, "reason": "failed"}).encode()))
        else:
            found.append(encode(_message(kind)))
    return found


@case
def _wrong_first_message(path: str) -> Held:
    return [sock for frame in _messages() for sock in _raw(path, frame)]


@case
def _wrong_second_message(path: str) -> Held:
    hello = encode(Hello(1, VERSION))
    return [sock for frame in _messages() for sock in _raw(path, hello, frame)]


@case
def _wrong_third_message(path: str) -> Held:
    first = [encode(Hello(1, VERSION)), encode(Request(Op.GET))]
    return [sock for frame in _messages() for sock in _raw(path, *first, frame)]


@case
def _unknown_versions(path: str) -> Held:
    pairs = [(2, 9), (0, 0), (9, 1), (2**62, 2**62)]
    return [sock for pair in pairs for sock in _raw(path, encode(Hello(*pair)))]


@case
def _unknown_capability(path: str) -> Held:
    return _raw(path, encode(Hello(1, VERSION, ("teleport",) * 1000)))


@case
def _names_without_end(path: str) -> Held:
    names = tuple(str(i) for i in range(1024))
    return [_asked(path, op, names=names).sock for op in (Op.GET, Op.DROP, Op.PUT)]


@case
def _descriptors_without_a_place(path: str) -> Held:
    """Where the kernel has SO_PASSRIGHTS they are refused there (EPERM); else they are closed."""
    fds = (0,) * 253
    hello = encode(Hello(1, VERSION))
    counted = HEADER.pack(MAGIC, 1, 250, len(hello) - 8) + hello[8:]
    held = [sock for frame in (hello, counted) for sock in _raw(path, *[frame] * 4, fds=fds)]
    for _ in range(4):
        wire = _greeted(path)
        held.append(wire.sock)
        with contextlib.suppress(OSError):
            wire.sock.sendmsg([encode(Fds(0, 250), 250)], rights(*fds[:250]))
            wire.sock.sendmsg([b"s"], rights(*fds))
    return held


@case
def _sockets_that_contain_themselves(path: str) -> Held:
    for _ in range(20):
        sock = dial(path)
        with contextlib.suppress(OSError):
            send_message(sock, encode(Hello(1, VERSION)), [sock.fileno()])
        sock.close()
    for _ in range(20):
        left, right = socket.socketpair()
        for one in (left, right):
            one.sendmsg([b"x"], rights(left.fileno(), right.fileno()))
        left.close()
        right.close()
    return []


@case
def _alive_for_ever(path: str) -> Held:
    """More than is read at a time, from a process of its own that does not stop."""
    pid = os.fork()
    if not pid:
        try:
            frame = encode(Alive())
            while True:
                sock = dial(path)
                with contextlib.suppress(OSError):
                    sock.send(encode(Hello(1, VERSION)))
                    while True:
                        sock.send(frame)
                sock.close()
        finally:
            os._exit(0)
    _CHILDREN.append(pid)
    return []


@case
def _reads_nothing(path: str) -> Held:
    """It asks for much, and leaves it in its queue."""
    held = []
    for op in (Op.LIST, Op.GET, Op.LIST):
        sock = dial(path)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        with contextlib.suppress(OSError):
            sock.send(encode(Hello(1, VERSION)))
            sock.send(encode(Request(op)))
            for _ in range(200):
                sock.send(b"nonsense", socket.MSG_DONTWAIT)
        held.append(sock)
    return held


@case
def _commands_without_end(path: str) -> Held:
    commands = ("never", "big", "fail", "never")
    return [_asked(path, Op.CONTROL, command=commands[i % 4]).sock for i in range(48)]


@case
def _deep_arguments(path: str) -> Held:
    deep = b'{"type":"request","op":"control","arguments":' + b'{"a":' * 9_000
    return _raw(path, encode(Hello(1, VERSION)), _frame(deep + b"1" + b"}" * 9_001))


@case
def _stored_without_end(path: str) -> Held:
    held = []
    for _ in range(30):
        wire = _asked(path, Op.PUT, names=("web.service",), role="fdstore")
        with contextlib.suppress(OSError, EOFError):
            wire.say(Offer(2, Manifest([Entry("", "n", role="fdstore")] * 2)))
            wire.hear()
            wire.say(Fds(0, 1), [0])
        held.append(wire.sock)
    return held


@case
def _half_closed(path: str) -> Held:
    held = []
    for how in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
        for _ in range(2):
            wire = _greeted(path)
            with contextlib.suppress(OSError):
                wire.sock.shutdown(how)
                wire.say(Request(Op.LIST))
            held.append(wire.sock)
    return held


@case
def _stopped(path: str) -> Held:
    """A process that is stopped in the middle of a takeover."""
    pid = os.fork()
    if not pid:
        try:
            wire = _asked(path, Op.TAKEOVER)
            os.kill(os.getpid(), signal.SIGSTOP)
            wire.close()
        finally:
            os._exit(0)
    _CHILDREN.append(pid)
    os.waitpid(pid, os.WUNTRACED)
    return []


@case
def _gets_without_end(path: str) -> Held:
    """It receives, and acknowledges nothing."""
    held = []
    for _ in range(5):
        wire = _asked(path, Op.GET)
        with contextlib.suppress(OSError, EOFError):
            wire.hear()
            wire.say(Accept())
        held.append(wire.sock)
    return held


@case
def _never_ready(path: str) -> Held:
    return [_adopted(path, 0.5).sock]


@case
def _never_committed(path: str) -> Held:
    wire = _adopted(path, 0.5)
    with contextlib.suppress(OSError):
        wire.say(Ready())
    return [wire.sock]


@case
def _ready_twice(path: str) -> Held:
    wire = _adopted(path, 5.0)
    with contextlib.suppress(OSError):
        wire.say(Ready())
        wire.say(Ready())
    return [wire.sock]


@case
def _wrong_acks(path: str) -> Held:
    held = []
    for answer in (Ack(0), Ack(2**40), Adopted(), Ready(), Accept()):
        wire = _asked(path, Op.GET)
        with contextlib.suppress(OSError, EOFError):
            wire.hear()
            wire.say(Accept())
            wire.say(answer)
        held.append(wire.sock)
    return held


@case
def _huge_manifest(path: str) -> Held:
    """A message of some bytes that stands for 65536 entries, where none is due."""
    body = json.dumps({"type": "offer", "count": 65536, "entries": {"count": 65536}}).encode()
    return [sock for _ in range(4) for sock in _raw(path, encode(Hello(1, VERSION)), _frame(body))]


@case
def _resets(path: str) -> Held:
    for _ in range(50):
        sock = dial(path)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            sock.send(encode(Hello(1, VERSION)))
        sock.close()
    return []


_CHILDREN: list[int] = []
_HELD: Held = []


def attack(name: str, path: str) -> None:
    """Run a case, in the hostile process."""
    sys.setrecursionlimit(10_000)
    _HELD.extend(CASES[name](path))


def retreat() -> None:
    """End it, in the hostile process."""
    while _HELD:
        _HELD.pop().close()
    while _CHILDREN:
        pid = _CHILDREN.pop()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@attrs.define
class Arena:
    """An owner, who takes over from it, and who does them harm.

    Attributes:
        path: The rendezvous.
        owner: Owns it.
        idle: Does not, for now.
        hostile: The hostile process.
        idle_fds: How many descriptors a process has that is not at the rendezvous.
        memory: How much memory each has, in KiB, before the first case.
    """

    path: str
    owner: Actor
    idle: Actor
    hostile: Actor
    idle_fds: dict[int, int]
    memory: dict[int, int]

    def lead(self, actor: Actor) -> None:
        """Have an actor take over; it takes long only where all are busy."""
        actor.do(f"t = sockact.takeover({self.path!r}, 'web=tcp:127.0.0.1:0', timeout=15)")
        actor.do("t.ready()")
        self.open(actor)

    def open(self, actor: Actor) -> None:
        """Let the other user connect, and get the set, if it is another."""
        actor.do(
            "import attrs; from sockact.rendezvous.policy import Rule\n"
            "t._tenure._place.open_to_others(); sets = t._tenure.estate.sets\n"
            f"sets['web'] = attrs.evolve(sets['web'], rule=Rule(({ANOTHER_UID},)))\n"
            "from sockact.rendezvous.arrive import close_parked\n"
            "t._tenure.on_stored = close_parked\n"
            "def obey(who, command, arguments, answer):\n"
            "    if command == 'big': answer({'x': 'y' * 100_000})\n"
            "    if command == 'fail': raise LookupError(command)\n"
            "t._tenure.commands = obey"
        )


@contextlib.contextmanager
def _arena(directory: str, uid: int, *, stream: bool) -> Iterator[Arena]:
    path = f"{directory}/r"
    attacks = "from tests.rendezvous.test_hostile import attack, retreat"
    with actors(0, 0) as (owner, idle), actors(uid, before=attacks) as (hostile,):
        for actor in (owner, idle):
            actor.do(_SHORTER)
        # Everything is loaded, so that what comes later is not taken for a leak.
        arena = Arena(path, owner, idle, hostile, {}, {})
        for actor in (owner, idle):
            actor.do(f"sockact.takeover({path!r} + 'x', 'web=tcp:127.0.0.1:0').close()")
            arena.idle_fds[actor.pid] = actor.number("count_fds()")
        owner.do(
            f"t = sockact.takeover({path!r}, 'web=tcp:127.0.0.1:0', stream={stream}); t.ready()"
        )
        owner.do(f"sockact.take({path!r}).close(); sockact.holdings({path!r})")
        arena.open(owner)
        for actor in (owner, idle):
            arena.memory[actor.pid] = actor.number("resident_kib()")
        yield arena


@pytest.fixture(scope="module", name="arenas")
def _arenas() -> Iterator[Callable[[int, bool], Arena]]:
    with contextlib.ExitStack() as stack:
        made: dict[tuple[int, bool], Arena] = {}

        for uid in (0, ANOTHER_UID) if os.getuid() == 0 else (0,):
            for stream in (False, True):
                directory = stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="sa-", dir="/tmp")
                )
                os.chmod(directory, 0o755)
                made[uid, stream] = stack.enter_context(_arena(directory, uid, stream=stream))

        def get(uid: int, stream: bool) -> Arena:
            return made[uid, stream]

        yield get


def _parameters() -> list[tuple[str, int, bool]]:
    found = [(name, 0, stream) for name in CASES for stream in (False, True)]
    return found + [(name, ANOTHER_UID, False) for name in CASES]


@pytest.mark.parametrize(("name", "uid", "stream"), _parameters())
def test_an_honest_takeover_goes_on(
    arenas: Callable[[int, bool], Arena], name: str, uid: int, *, stream: bool
) -> None:
    """It succeeds while a peer misbehaves, and nothing remains of that peer."""
    if uid and os.getuid() != 0:
        pytest.skip("needs root, to become another user")
    arena = arenas(uid, stream)
    old, new = arena.owner, arena.idle
    before = old.number("count_fds()")
    new_before = new.number("count_fds()")
    arena.hostile.do(f"attack({name!r}, {arena.path!r})")
    arena.hostile.begin(f"attack({name!r}, {arena.path!r})")
    try:
        arena.lead(new)
        assert old.ask("t.wait_successor(10)") is True
        arena.owner, arena.idle = new, old
        assert new.ask("t.phase") == "is the owner"
        old.do("t.close()")
        assert old.number("count_fds()") == new_before
    finally:
        arena.hostile.end()
        arena.hostile.do("retreat()")
    until(lambda: new.number("count_fds()") == before, "every descriptor is closed")
    for actor in (old, new):
        assert actor.number("resident_kib()") < arena.memory[actor.pid] + MEMORY_KIB


@pytest.mark.parametrize("stream", [False, True])
def test_descriptors_are_refused_by_the_kernel(short_dir: Path, *, stream: bool) -> None:
    """Where it can do that (SO_PASSRIGHTS) nobody needs to close them; else the owner does."""
    path = f"{short_dir}/r"
    with (
        leading(path, "web=tcp:127.0.0.1:0", stream=stream) as owner,
        contextlib.closing(dial(path)) as sock,
    ):
        before = count_fds()
        try:
            sock.sendmsg([encode(Hello(1, VERSION), 1)], rights(0))
        except PermissionError:
            pass
        else:
            assert sock.recv(BYTES_MAX)
        until(lambda: count_fds() <= before, "nothing has stayed")
        assert owner.phase == "is the owner"


def test_without_descriptors_left_an_owner_waits(short_dir: Path) -> None:
    """Who connects waits in the backlog, the processor is not kept busy, and then it goes on."""
    path = f"{short_dir}/r"
    with actors(0) as (owner,):
        owner.do(
            f"import resource, time; t = sockact.takeover({path!r}, 'web=udp:127.0.0.1:0'); t.ready()"
        )
        owner.do(f"sockact.take({path!r}).close()")
        owner.do(
            "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (count_fds() + 1, hard)); held = []\n"
            "try:\n    while True: held.append(os.dup(0))\n"
            "except OSError: used = time.process_time()"
        )
        with contextlib.closing(Wire(path)) as wire:
            wire.say(Hello(1, VERSION))
            wire.sock.settimeout(0.4)
            with pytest.raises(TimeoutError):
                wire.hear()
            busy = owner.ask("time.process_time() - used")
            assert isinstance(busy, float)
            assert busy < 0.2
            owner.do("resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))")
            wire.sock.settimeout(SECONDS)
            assert wire.hear()[0].TYPE == "welcome"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
def test_others_together_cannot_keep_out_who_may_take_over(short_dir: Path) -> None:
    """Some connections are kept for root and the owner's own user."""
    path = f"{short_dir}/r"
    with actors(0) as (owner,), actors(ANOTHER_UID) as (other,):
        owner.do(
            "import attrs, sockact.rendezvous.offer as offer\n"
            "from sockact.rendezvous.policy import Rule\n"
            "offer.CONNECTIONS_MAX, offer.CONNECTIONS_KEPT = 8, 4\n"
            f"t = sockact.takeover({path!r}, 'web=udp:127.0.0.1:0')\n"
            "t._tenure._place.open_to_others(); sets = t._tenure.estate.sets\n"
            f"sets['web'] = attrs.evolve(sets['web'], rule=Rule(({ANOTHER_UID},)))"
        )
        other.do(f"held = [Wire({path!r}) for _ in range(4)]; last = Wire({path!r})")
        assert other.ask("last.hear()[0].reason.value") == "limit"
        sockact.take(path, timeout=1).close()
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                wire = stack.enter_context(contextlib.closing(Wire(path)))
                wire.say(Hello(1, VERSION))
                assert wire.hear()[0].TYPE == "welcome"
            with pytest.raises(RendezvousError, match="in time"):
                sockact.take(path, timeout=0.1)
        sockact.take(path, timeout=5).close()
