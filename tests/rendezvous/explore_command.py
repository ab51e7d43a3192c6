"""Every interleaving of a command: both machines back to back, and all that can befall them.

One client gives one command, whose answer has two parts. What a run keeps to is what one of a
takeover does, see `tests.rendezvous.explore`. Beside that the command may end, or fail, or never
end, whatever has become of its client.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from sockact.rendezvous.actions import (
    Action,
    Answered,
    Close,
    CloseHandles,
    Command,
    Failed,
    Send,
    Succeeded,
)
from sockact.rendezvous.client import ClientSide
from sockact.rendezvous.estate import Phase
from sockact.rendezvous.messages import PART_MAX, Hello, Json, Op, Request
from sockact.rendezvous.owner import OwnerSide
from sockact.rendezvous.tables import FINAL, OwnerState
from tests.rendezvous.explore import TAKER, End, World, estate_of, identify

ANSWER = '{"text":"' + "x" * PART_MAX + '"}'
"""What the command comes to, in two parts."""

ASKED = Command("status", Json('{"units":["web"]}'))


@dataclass(frozen=True)
class CommandScenario:
    """What may happen, and who takes part.

    Attributes:
        hello: What the client says first.
        commands: Whether the owner takes commands.
        deaths: How many processes may be killed.
        faults: How many messages may arrive spoilt.
        blind: Whether a driver takes every end of a connection for a death.
        owner: The class of the owner's end.
        taker: The class of the client's end.
    """

    hello: Hello = field(default_factory=lambda: Hello(1, 1))
    commands: bool = True
    deaths: int = 1
    faults: int = 0
    blind: bool = False
    second: bool = False
    owner: type[OwnerSide[str]] = OwnerSide
    taker: type[ClientSide[str]] = ClientSide

    def begin(self) -> "CommandWorld":
        """Return the first state: the client has said nothing yet."""
        estate = estate_of("abc")
        estate.commands = self.commands
        owner = self.owner(estate, TAKER, 0.0, identify=identify)
        request = Request(Op.CONTROL, command=ASKED.name, arguments=ASKED.arguments)
        taker = self.taker(request, 0.0, identify=identify, hello=self.hello)
        world = CommandWorld(self, estate, owner, taker)  # type: ignore[arg-type]
        world.perform_taker(taker.start())
        return world


@dataclass
class CommandWorld(World):
    """Both processes, what is on its way between them, and what has happened.

    The taker of a `World` is the client here.

    Attributes:
        begun: How often the command was begun.
        runs: Whether it is under way.
        failed_there: Whether it has failed.
        parts: What the client has of the answer.
        succeeded: Whether the client was told that this is all of it.
        failed: Whether the client was told that nothing comes of it.
        disturbed: Whether anything has happened that keeps an answer from coming.
    """

    begun: int = 0
    runs: bool = False
    failed_there: bool = False
    parts: str = ""
    succeeded: bool = False
    failed: bool = False
    disturbed: bool = False

    def perform_owner(self, actions: Iterable[Action]) -> None:
        """Carry out what the owner's end wants."""
        for action in actions:
            match action:
                case Send():
                    self._send(self.o, action)
                case CloseHandles():
                    pass
                case Command():
                    assert action == ASKED, "another command is carried out"
                    self.begun += 1
                    self.runs = True
                case Close():
                    self.o.closing = True
                case Failed():
                    assert not action.refused or not self.begun, "what was begun is refused"
                case _:
                    raise AssertionError(f"the owner's end wants {action}")
        self._settle(self.o, self.t)

    def perform_taker(self, actions: Iterable[Action]) -> None:
        """Carry out what the client's end wants."""
        for action in actions:
            match action:
                case Send():
                    self._send(self.t, action)
                case CloseHandles():
                    self.closed += action.handles
                case Answered():
                    self.parts += action.text
                case Succeeded():
                    self.succeeded = True
                case Failed():
                    assert not action.refused or not self.begun, "what was begun is refused"
                    self.failed = True
                case Close():
                    self.t.closing = True
                case _:
                    raise AssertionError(f"the client's end wants {action}")
        self._settle(self.t, self.o)

    def ends(self) -> None:
        """Let the command end; its driver throws the answer away if nobody waits for it."""
        self.runs = False
        if self.owner.state is OwnerState.OBEYING:
            self.perform_owner(self.owner.answered(ANSWER, 0.0))

    def fails(self) -> None:
        """Let the command fail."""
        self.runs, self.failed_there = False, True
        if self.owner.state is OwnerState.OBEYING:
            self.perform_owner(self.owner.failed("out of cheese", 0.0))

    def kill(self, end: End, peer: End) -> None:
        """Kill a process."""
        self.deaths += 1
        end.alive = end.closing = False
        if end is self.o:
            self.runs = False
        self._shut(end, peer)

    def lose_owner(self) -> None:
        """Let the owner see the end of the connection: the command goes on."""
        runs = self.runs
        super().lose_owner()
        assert self.runs is runs, "a command ends with its client"

    # What can happen.

    def progress(self) -> Iterator[tuple[str, Callable[[World], None]]]:
        """Give what happens if nothing goes wrong and nobody waits, the most urgent first."""
        yield from super().progress()
        if self.o.alive and self.runs:
            yield "the command ends", _on(CommandWorld.ends)

    def times(self) -> Iterator[tuple[str, Callable[[World], None]]]:
        """Give whose time may be over."""
        for name, event in super().times():
            yield name, _disturbs(event)

    def mishaps(self) -> Iterator[tuple[str, Callable[[World], None]]]:
        """Give what else may happen."""
        o, t = self.o, self.t
        if self.deaths < self.scenario.deaths:
            if o.alive:
                yield "owner is killed", _disturbs(lambda w: w.kill(w.o, w.t))
            if t.alive:
                yield "client is killed", _disturbs(lambda w: w.kill(w.t, w.o))
        if self.faults < self.scenario.faults:
            for name, event in self._faults():
                yield name, _disturbs(event)
        yield from self._alives()
        if o.alive and self.runs:
            yield "the command fails", _disturbs(_on(CommandWorld.fails))
        if t.alive and self.taker.state not in FINAL:
            leaves = _disturbs(lambda w: w.perform_taker(w.taker.cancel("no more", 0.0)))
            yield "client gives up", leaves
        if o.alive and self.owner.state not in FINAL:
            leaves = _disturbs(lambda w: w.perform_owner(w.owner.cancel("no more", 0.0)))
            yield "owner breaks off", leaves

    # What must hold.

    def check(self) -> None:
        """Check what must hold in every state.

        A command is carried out once, or not at all. A client that is told so has the whole answer,
        and is not told anything else. The owner goes on serving, and keeps no descriptor.
        """
        assert self.begun <= 1, "a command is carried out twice"
        assert not self.succeeded or self.parts == ANSWER, "the answer is not whole"
        assert not (self.succeeded and self.failed), "a client is told both"
        assert ANSWER.startswith(self.parts), "the answer is another one"
        assert sorted(self.closed) == sorted(self.received), "a descriptor is kept"
        assert self.estate.phase is Phase.OWNING, "a command changes who owns"
        assert not self.estate.writers

    def check_end(self, *, ready: bool) -> None:
        """Check what must have come of it when nothing is left to happen.

        Args:
            ready: Whether the command ends when it can.
        """
        if self.o.alive:
            assert self.owner.state in FINAL, f"the owner's end hangs: {self.owner.state}"
        if self.t.alive:
            assert self.taker.state in FINAL, f"the client's end hangs: {self.taker.state}"
            assert self.succeeded or self.failed, "the client does not learn what came of it"
        if ready and not self.disturbed:
            can = self.scenario.commands and self.scenario.hello.oldest == 1
            assert self.succeeded is can, "nothing came of it"


def _on(event: Callable[[CommandWorld], None]) -> Callable[[World], None]:
    def happens(world: World) -> None:
        assert isinstance(world, CommandWorld)
        event(world)

    return happens


def _disturbs(event: Callable[[World], None]) -> Callable[[World], None]:
    def happens(world: World) -> None:
        assert isinstance(world, CommandWorld)
        world.disturbed = True
        event(world)

    return happens


SCENARIOS = {
    "one death": CommandScenario(),
    "two deaths": CommandScenario(deaths=2),
    "one death, and every end is taken for one": CommandScenario(blind=True),
    "a spoilt message and a death": CommandScenario(faults=1),
    "an owner that takes no commands": CommandScenario(commands=False),
    "versions 1 to 2": CommandScenario(hello=Hello(1, 2)),
    "versions 2 to 3": CommandScenario(hello=Hello(2, 3)),
}
"""What is explored."""
