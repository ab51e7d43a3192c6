"""sockact.control: commands to an owner, between real processes."""

import contextlib
import math
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

import sockact
from sockact.errors import OwnerNotFoundError, RefusedError, RendezvousError
from sockact.rendezvous.messages import (
    ANSWER_MAX,
    PART_MAX,
    VERSION,
    Abort,
    Alive,
    Answer,
    Done,
    Hello,
    Json,
    Message,
    Op,
    Part,
    Reason,
    Refuse,
    Request,
    Welcome,
)
from sockact.rendezvous.offer import COMMANDS_MAX, CONNECTIONS_EACH, Reply
from sockact.rendezvous.policy import Who
from tests.helpers import SECONDS
from tests.rendezvous.peers import (
    ANOTHER_UID,
    Wire,
    actors,
    count_fds,
    dial,
    hear,
    leading,
    say,
    until,
)

WEB = "web=tcp:127.0.0.1:0"


class Boss:
    """Takes commands: ``echo`` is answered at once, ``wait`` when the test says so."""

    def __init__(self, owner: sockact.Rendezvous) -> None:
        self.owner = owner
        self.waiting: queue.Queue[Reply] = queue.Queue()
        self.heard: list[str] = []
        owner._tenure.commands = self

    def __call__(
        self, who: Who, command: str, arguments: Mapping[str, object], answer: Reply
    ) -> None:
        """Carry out a command."""
        self.heard.append(command)
        match command:
            case "echo":
                answer({"who": who.uid, "arguments": arguments})
            case "wait":
                self.waiting.put(answer)
            case "twice":
                answer({"answer": 1})
                answer({"answer": 2})
            case "long":
                answer({"text": '\u00e9"\\' * int(str(arguments["count"]))})
            case "no json":
                answer({"set": {1}})
            case "infinite":
                answer({"number": math.inf})
            case _:
                raise LookupError(f"there is no command {command}")

    def answer(self, found: Mapping[str, object]) -> None:
        """Answer one that waits."""
        reply = self.waiting.get(timeout=SECONDS)
        self.owner._reactor.post(lambda: reply(found))


@contextlib.contextmanager
def taking_commands(path: str, *, stream: bool = False) -> Iterator[Boss]:
    """Be an owner that takes commands."""
    with leading(path, WEB, stream=stream) as owner:
        yield Boss(owner)


@contextlib.contextmanager
def asking() -> Iterator[Callable[..., "Future[dict[str, object]]"]]:
    """Give what calls sockact.control in a thread."""
    with ThreadPoolExecutor(COMMANDS_MAX + 8) as pool:
        yield lambda *args, **named: pool.submit(sockact.control, *args, **named)


@pytest.mark.parametrize("stream", [False, True])
def test_a_command_is_answered(path: str, *, stream: bool) -> None:
    """Any JSON object there and back."""
    arguments: dict[str, object] = {"a": [1, None, {"b": "\u00e9\U0001f600\n"}], "c": -1.5}
    with taking_commands(path, stream=stream):
        found = sockact.control(path, "echo", arguments)
        assert found == {"who": os.getuid(), "arguments": arguments}
        assert sockact.control(path, "echo")["arguments"] == {}
        assert sockact.control(path, "echo", timeout=None)["arguments"] == {}


@pytest.mark.parametrize("stream", [False, True])
def test_a_long_answer_arrives_whole(path: str, *, stream: bool) -> None:
    """Megabytes come in parts; what would be too much is not sent at all."""
    with taking_commands(path, stream=stream) as boss:
        for count in (10, PART_MAX // 8, 300_000):
            text = sockact.control(path, "long", {"count": count})["text"]
            assert text == '\u00e9"\\' * count
        with pytest.raises(RendezvousError, match="characters"):
            sockact.control(path, "long", {"count": ANSWER_MAX // 10 + 1})
        assert boss.owner.phase == "is the owner"


def test_a_command_may_take_its_time(path: str) -> None:
    """Meanwhile the owner answers others."""
    with taking_commands(path) as boss, asking() as ask:
        slow = ask(path, "wait")
        until(lambda: not boss.waiting.empty(), "the command is begun")
        assert sockact.control(path, "echo", {"x": 1})["arguments"] == {"x": 1}
        assert len(sockact.holdings(path)) == 1
        assert not slow.done()
        boss.answer({"done": True})
        assert slow.result(SECONDS) == {"done": True}


def test_a_command_goes_on_without_its_client(path: str) -> None:
    """Whoever goes away, or has waited long enough, has not stopped it; its answer is dropped."""
    with taking_commands(path) as boss:
        before = count_fds()
        with pytest.raises(RendezvousError, match="does not answer in time"):
            sockact.control(path, "wait", timeout=0.2)
        wire = Wire(path)
        wire.say(Hello(1, VERSION))
        wire.hear()
        wire.say(Request(Op.CONTROL, command="wait"))
        until(lambda: boss.waiting.qsize() == 2, "both are begun")
        wire.close()
        until(lambda: count_fds() == before, "the owner has closed both connections")
        boss.answer({"late": 1})
        boss.answer({"late": 2})
        assert sockact.control(path, "echo")["arguments"] == {}
        assert boss.heard == ["wait", "wait", "echo"]


def test_a_command_that_fails(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its client hears why, whoever reads the log too, and the owner goes on."""
    with taking_commands(path) as boss:
        with pytest.raises(RendezvousError, match="failed: there is no command moon") as caught:
            sockact.control(path, "moon")
        assert not isinstance(caught.value, RefusedError)
        for command in ("no json", "infinite"):
            with pytest.raises(RendezvousError, match="the answer is no JSON"):
                sockact.control(path, command)
        until(lambda: len(caplog.records) == 3, "each is in the log")
        assert sockact.control(path, "twice") == {"answer": 1}
        assert boss.owner.phase == "is the owner"


def test_what_cannot_be_sent(path: str) -> None:
    """It is the caller's fault, and nobody is asked."""
    deep: dict[str, object] = {}
    for _ in range(40):
        deep = {"a": deep}
    for arguments in ({"set": {1}}, {"nan": math.nan}, {"long": "x" * 70_000}, deep):
        with pytest.raises(ValueError, match=r"arguments|sent|request|range"):
            sockact.control(path, "echo", arguments)
    with pytest.raises(ValueError, match="cannot be sent"):
        sockact.control(path, "x" * 5000)
    with pytest.raises(OwnerNotFoundError):
        sockact.control(path, "echo")


def test_an_owner_that_takes_no_commands(path: str) -> None:
    """It says so; also one that has stopped taking them."""
    with leading(path, WEB) as owner:
        with pytest.raises(RefusedError, match="takes no commands") as caught:
            sockact.control(path, "echo")
        assert caught.value.reason == "unsupported"
        boss = Boss(owner)
        assert sockact.control(path, "echo")["arguments"] == {}
        owner._tenure.commands = None
        with pytest.raises(RefusedError, match="takes no commands"):
            sockact.control(path, "echo")
        assert boss.heard == ["echo"]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
def test_others_may_not_command(short_dir: Path) -> None:
    """Also one that may get a set."""
    path = f"{short_dir}/r"
    with actors(0) as (owner,), actors(ANOTHER_UID) as (other,):
        owner.do(
            "import attrs\nfrom sockact.rendezvous.policy import Rule\n"
            f"t = sockact.takeover({path!r}, {WEB!r}); t.ready(); heard = []\n"
            "t._tenure.commands = lambda *args: heard.append(args)\n"
            "t._tenure._place.open_to_others(); sets = t._tenure.estate.sets\n"
            f"sets['web'] = attrs.evolve(sets['web'], rule=Rule(({ANOTHER_UID},)))"
        )
        code = f"sockact.control({path!r}, 'stop', trusted=[0])"
        error = (
            "import sockact.errors\ntry:\n    {}\nexcept sockact.errors.RefusedError as error:\n"
            "    reason = error.reason"
        )
        other.do(error.format(code))
        assert other.ask("reason") == "denied"
        assert owner.ask("len(heard)") == 0


def test_commands_do_not_keep_a_takeover_waiting(path: str) -> None:
    """However many are under way, their user has connections left; too many have to wait."""
    with taking_commands(path) as boss, asking() as ask:
        slow = [ask(path, "wait", timeout=SECONDS) for _ in range(COMMANDS_MAX + 1)]
        until(lambda: boss.waiting.qsize() == COMMANDS_MAX, "as many as may are begun")
        assert COMMANDS_MAX > CONNECTIONS_EACH
        with pytest.raises(RefusedError, match="commands are under way"):
            sockact.control(path, "wait", timeout=0.3)
        with sockact.takeover(path, WEB, timeout=SECONDS) as new:
            assert new.phase == "has the sockets, is not ready"
        for number in range(COMMANDS_MAX + 1):
            boss.answer({"number": number})
        found = [one.result(SECONDS)["number"] for one in slow]
        assert sorted(map(int, map(str, found))) == list(range(COMMANDS_MAX + 1))
        assert boss.heard == ["wait"] * (COMMANDS_MAX + 1)


def test_commands_during_a_takeover(path: str) -> None:
    """The owner takes them until its successor is ready, and then that one does."""
    with taking_commands(path) as old, asking() as ask:
        slow = ask(path, "wait")
        with sockact.takeover(path, WEB) as successor:
            new = Boss(successor)
            assert sockact.control(path, "echo")["arguments"] == {}
            assert old.owner._tenure.successor
            successor.ready()
            assert old.owner.wait_successor(SECONDS)
            assert sockact.control(path, "echo")["arguments"] == {}
            assert (old.heard, new.heard) == (["wait", "echo"], ["echo"])
            # What was begun is answered by whoever has begun it.
            old.answer({"by": "the former owner"})
            assert slow.result(SECONDS) == {"by": "the former owner"}
            old.owner.close()


def test_an_owner_that_ends_leaves_no_command_in_doubt(path: str) -> None:
    """Its client hears that it is broken off; nobody begins it again elsewhere."""
    with asking() as ask:
        with taking_commands(path) as boss:
            slow = ask(path, "wait")
            until(lambda: not boss.waiting.empty(), "the command is begun")
        with pytest.raises(RendezvousError, match="the program ends") as caught:
            slow.result(SECONDS)
        assert not isinstance(caught.value, RefusedError)
    with actors(0) as (owner,), asking() as ask:
        owner.do(
            f"t = sockact.takeover({path!r}, {WEB!r}); t.ready(); heard = []\n"
            "t._tenure.commands = lambda *args: heard.append(args)"
        )
        slow = ask(path, "wait")
        until(lambda: owner.ask("len(heard)") == 1, "the command is begun")
        owner.kill()
        with pytest.raises(RendezvousError, match="is gone"):
            slow.result(SECONDS)


# --- other owners ---------------------------------------------------------------------------------


@contextlib.contextmanager
def saying(path: str, *messages: Message, offers: tuple[str, ...] = ("control",)) -> Iterator[None]:
    """Be an owner that says these messages to whoever has made a request."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError, EOFError):
                hear(sock)
                say(sock, Welcome(1, offers))
                hear(sock)
                for message in messages:
                    say(sock, message)
                while True:
                    hear(sock)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()
            os.unlink(path)


_LONG = [Answer(Part("x" * PART_MAX), more=True)] * (ANSWER_MAX // PART_MAX + 1)


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ((Answer(Part("")),), "is no JSON object"),
        ((Answer(Part("[1]")),), "is no JSON object"),
        ((Answer(Part("{")), Answer(Part("}"))), "is no JSON object"),
        ((Answer(Part('{"a":' * 9_000)),), "is no JSON object|malformed"),
        ((Done(),), "answers no control"),
        (tuple(_LONG), "an answer of more than"),
        ((Answer(Part("{"), more=True), Abort(Reason.FAILED, "no cheese")), "no cheese"),
        ((Answer(Part("{"), more=True), Alive()), "in time"),
        ((Refuse(Reason.UNSUPPORTED, "not today"),), "not today"),
    ],
)
def test_a_dishonest_owner_is_not_believed(
    path: str, messages: tuple[Message, ...], text: str
) -> None:
    """A client returns a whole object, or raises."""
    timeout = 0.5 if "time" in text else SECONDS
    with saying(path, *messages), pytest.raises(RendezvousError, match=text):
        sockact.control(path, "echo", timeout=timeout)


def test_an_owner_of_the_first_release_is_not_asked(path: str) -> None:
    """It does not know the request, and so does not say that it does: it hears no more than that."""
    with (
        saying(path, offers=("store",)),
        pytest.raises(RefusedError, match="takes no commands") as caught,
    ):
        sockact.control(path, "echo")
    assert caught.value.reason == "unsupported"


def test_a_client_may_ask_without_looking(path: str) -> None:
    """A raw client that does not wait for the welcome gets its answer in order."""
    with taking_commands(path):
        wire = Wire(path)
        with contextlib.closing(wire):
            wire.say(Hello(1, VERSION))
            wire.say(Request(Op.CONTROL, command="echo", arguments=Json('{"n":1}')))
            welcome, _ = wire.hear()
            assert isinstance(welcome, Welcome)
            assert welcome.offers == ("control",)
            answer, _ = wire.hear()
            assert isinstance(answer, Answer)
            assert '"n":1' in answer.text


def test_a_client_that_does_not_read_costs_little(path: str) -> None:
    """What waits for it is thrown away after some seconds; others are served meanwhile."""
    with taking_commands(path) as boss, dial(path) as deaf:
        say(deaf, Hello(1, VERSION))
        arguments = Json('{"count":400000}')
        say(deaf, Request(Op.CONTROL, command="long", arguments=arguments))
        until(lambda: boss.heard == ["long"], "it is begun")
        begin = time.monotonic()
        assert sockact.control(path, "echo")["arguments"] == {}
        owner = boss.owner._tenure._owner
        assert owner
        until(lambda: not owner._talks, "the owner has given it up")
        assert time.monotonic() - begin < SECONDS
