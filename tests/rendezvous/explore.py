"""Every interleaving of a takeover: both machines back to back, and all that can befall them.

    python -m tests.rendezvous.explore

One owner passes three handles in chunks of two, and a taker takes them. Of every state that can be
reached, every event that can come next is tried: a message is sent, or arrives, or arrives spoilt;
a process is killed; the time of a side is over; the taker accepts, refuses, is ready, gives up or
releases the reserve; the owner gives up or has drained; a second taker comes and goes.

What a run keeps to, because the drivers do:

- What a side sends goes to its outbox first, so a message may be unsent while time passes, and a
  kill loses it. A message in the queue arrives, even from a dead process.
- A side reads before `expire`, and an owner before `drained` and before it breaks off a drain: its
  queue, and then the end of the connection.
- A message to an end that is closed vanishes, and so does what such an end had not read.

`World.check` has what must hold in every state, `Exploration` what must come of every state.
"""

import copy
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

from sockact.rendezvous.actions import (
    Action,
    Adopt,
    Alone,
    Close,
    CloseHandles,
    CloseReserve,
    Command,
    Consider,
    Failed,
    Inherit,
    Lead,
    Resume,
    Send,
    StepDown,
    StopAccepting,
    Yielded,
)
from sockact.rendezvous.client import ClientSide
from sockact.rendezvous.estate import Estate, HeldSet, Phase
from sockact.rendezvous.manifest import Entry, Identity, Manifest
from sockact.rendezvous.messages import (
    Abort,
    Alive,
    Committed,
    Drain,
    Fds,
    Hello,
    Json,
    Message,
    Op,
    Ready,
    Reason,
    Refuse,
    Release,
    Request,
)
from sockact.rendezvous.owner import OwnerSide
from sockact.rendezvous.passage import Giving, Receiving
from sockact.rendezvous.policy import Policy, Who
from sockact.rendezvous.tables import ALIVE_SECONDS, FINAL, ClientState, OwnerState

LATE = 1e9
"""A moment at which every time is over."""

TAKER, OTHER = Who(0, (), 11), Who(0, (), 22)

Letter: TypeAlias = tuple[Message, tuple[str, ...]]


def identify(handles: Sequence[str]) -> list[Identity]:
    """Return what each handle is: a copy of ``a`` is ``a'``, and both are the same file."""
    return [(1, ord(handle[0])) for handle in handles]


def estate_of(handles: Sequence[str]) -> Estate[str]:
    """Return an owner's estate with one set of these handles."""
    estate: Estate[str] = Estate(Policy(1000))
    estate.commands = True
    entries = [Entry("web", name, device=1, inode=ord(name)) for name in handles]
    estate.sets["web"] = HeldSet("web", Manifest(entries), tuple(handles))
    return estate


_HELLO = Hello(1, 1, fds=2)


@dataclass(frozen=True)
class Scenario:
    """What may happen, and who takes part.

    Attributes:
        handles: What is passed.
        hello: What the taker says first.
        deaths: How many processes may be killed.
        faults: How many messages may arrive spoilt: as no message, or with wrong handles.
        second: Whether a second taker may come and go.
        commands: Whether somebody may come and give commands.
        blind: Whether a driver cannot tell death from a deliberate end, and takes it for death.
        owner: The class of the owner's end.
        taker: The class of the taker's end.
    """

    handles: tuple[str, ...] = ("a", "b", "c")
    hello: Hello = _HELLO
    deaths: int = 1
    faults: int = 0
    second: bool = False
    commands: bool = False
    blind: bool = False
    owner: type[OwnerSide[str]] = OwnerSide
    taker: type[ClientSide[str]] = ClientSide

    def begin(self) -> "World":
        """Return the first state: the taker has said nothing yet."""
        return World.begin(self)


@dataclass
class End:
    """A process, and its end of the connection.

    Attributes:
        alive: Whether it lives.
        open: Whether its end of the connection is open.
        closing: Whether it closes that when everything is sent.
        accepting: Whether it serves.
        outbox: What it has not sent yet.
        queue: What it has not read yet.
    """

    alive: bool = True
    open: bool = True
    closing: bool = False
    accepting: bool = False
    outbox: tuple[Letter, ...] = ()
    queue: tuple[Letter, ...] = ()


@dataclass
class World:
    """Both processes, what is on its way between them, and what has happened.

    Attributes:
        copies: Whether the owner has its copies.
        considers: Whether the taker looks for room.
        received: What came to the taker.
        adopted: What it adopted.
        closed: What it closed.
        gave_up: Whether the taker gave up by its own will after it had said Committed, or when the
            owner was dead: from there on nobody promises that somebody serves.
        unheld: Whether a process was killed that alone held the sockets, or was alone to keep them.
        overlap: Whether both may go on serving: a message that said who does was spoilt.
    """

    scenario: Scenario
    estate: Estate[str]
    owner: OwnerSide[str]
    taker: ClientSide[str]
    o: End = field(default_factory=lambda: End(accepting=True))
    t: End = field(default_factory=End)
    second: OwnerSide[str] | None = None
    commander: OwnerSide[str] | None = None
    deaths: int = 0
    faults: int = 0
    copies: bool = True
    ready_came: bool = False
    committed_came: bool = False
    drain_came: bool = False
    considers: bool = False
    received: tuple[str, ...] = ()
    adopted: tuple[str, ...] = ()
    dropped: bool = False
    closed: tuple[str, ...] = ()
    gave_up: bool = False
    unheld: bool = False
    overlap: bool = False

    @classmethod
    def begin(cls, scenario: Scenario) -> "World":
        """Return the first state: the taker has said nothing yet."""
        estate = estate_of(scenario.handles)
        owner = scenario.owner(estate, TAKER, 0.0, identify=identify)
        taker = scenario.taker(Request(Op.TAKEOVER), 0.0, identify=identify, hello=scenario.hello)
        world = cls(scenario, estate, owner, taker)
        world.perform_taker(taker.start())
        return world

    def clone(self) -> "World":
        """Return a copy that shares nothing that changes."""
        new = copy.copy(self)
        new.o, new.t = copy.copy(self.o), copy.copy(self.t)
        new.estate = copy.copy(self.estate)
        new.estate.writers = list(self.estate.writers)
        new.owner = _clone_side(self.owner)
        new.owner._estate = new.estate
        new.taker = _clone_side(self.taker)
        if self.second:
            new.second = _clone_side(self.second)
            new.second._estate = new.estate
        if self.commander:
            new.commander = _clone_side(self.commander)
            new.commander._estate = new.estate
        return new

    def key(self) -> tuple[object, ...]:
        """Return what makes this state different from others; the time does not."""
        rest = [
            value
            for name, value in vars(self).items()
            if name not in ("scenario", "estate", "owner", "taker", "o", "t", "second", "commander")
        ]
        estate = self.estate
        return (
            *_key(self.owner),
            *_key(self.taker),
            *(_key(self.second) if self.second else ()),
            *(_key(self.commander) if self.commander else ()),
            *vars(self.o).values(),
            *vars(self.t).values(),
            estate.phase,
            estate.successor,
            *estate.writers,
            *rest,
        )

    # What the drivers do.

    def perform_owner(self, actions: Iterable[Action]) -> None:
        """Carry out what the owner's end wants."""
        for action in actions:
            match action:
                case Send():
                    self._send(self.o, action)
                case StopAccepting():
                    assert self.ready_came, "I4: the owner stopped accepting before Ready"
                    self.o.accepting = False
                case Yielded():
                    assert self.committed_came, "I4: the owner drains before Committed"
                case CloseReserve():
                    assert self.committed_came, "I1: the reserve was closed before Committed"
                    assert self.copies, "the reserve was closed twice"
                    self.copies = False
                case Resume():
                    assert self.copies, "I1: the owner serves again without its copies"
                    assert self.estate.phase is Phase.OWNING, "I4: serves again, but owns nothing"
                    self.o.accepting = True
                case Close():
                    self.o.closing = True
                case Failed():
                    pass
                case _:
                    raise AssertionError(f"the owner's end wants {action}")
        self._settle(self.o, self.t)

    def perform_taker(self, actions: Iterable[Action]) -> None:
        """Carry out what the taker's end wants."""
        for action in actions:
            match action:
                case Send():
                    self._send(self.t, action)
                case Consider():
                    self.considers = True
                case CloseHandles():
                    self.closed += action.handles
                case Adopt():
                    expected = identify(self.scenario.handles)
                    assert identify(action.handles) == expected, "I3: adopted what is not the set"
                    assert not self.adopted, "I3: adopted twice"
                    self.adopted = action.handles
                case Lead():
                    assert self.adopted, "I3: leads without a set"
                    assert not self.t.accepting, "leads twice"
                    self.t.accepting = True
                case Inherit():
                    assert self.adopted, "I3: inherits without a set"
                    assert not self.o.alive, "inherits from a live owner"
                case Alone():
                    assert self.t.accepting, "I2: is alone, and does not serve"
                case StepDown():
                    assert self.t.accepting, "steps down from nothing"
                    self.t.accepting = False
                case Failed():
                    assert not self.t.accepting, "I2: failed, but was not told to step down"
                    self.dropped = bool(self.adopted)
                case Close():
                    self.t.closing = True
                case _:
                    raise AssertionError(f"the taker's end wants {action}")
        self._settle(self.t, self.o)

    def _send(self, end: End, action: Send[str]) -> None:
        assert not end.closing, f"{action.message} after Close"
        end.outbox += ((action.message, action.handles),)

    def _settle(self, end: End, peer: End) -> None:
        if not peer.open:
            end.outbox = ()
        if end.closing and not end.outbox:
            self._shut(end, peer)

    def _shut(self, end: End, peer: End) -> None:
        end.open = False
        end.outbox = end.queue = ()
        peer.outbox = ()
        if peer.closing:
            peer.open = False
            peer.queue = ()

    def flush(self, end: End, peer: End) -> None:
        """Send the first message of an outbox."""
        peer.queue += (end.outbox[0],)
        end.outbox = end.outbox[1:]
        self._settle(end, peer)

    def deliver_owner(self) -> None:
        """Let the owner read a message."""
        (message, handles), self.o.queue = self.o.queue[0], self.o.queue[1:]
        before = self.owner.state
        self.ready_came |= isinstance(message, Ready) and before is OwnerState.PREPARED
        self.committed_came |= isinstance(message, Committed) and before is OwnerState.COMMITTING
        self.perform_owner(self.owner.receive(message, handles, 0.0))

    def deliver_taker(self, change: Callable[[tuple[str, ...]], tuple[str, ...]] = tuple) -> None:
        """Let the taker read a message; its handles are new numbers for the same files."""
        (message, sent), self.t.queue = self.t.queue[0], self.t.queue[1:]
        handles = tuple(f"{handle}'" for handle in change(sent))
        self.received += handles
        self.drain_came |= isinstance(message, Drain)
        self.perform_taker(self.taker.receive(message, handles, 0.0))

    def spoil(self, end: End) -> None:
        """Let a message arrive as none."""
        self.faults += 1
        end.queue = end.queue[1:]
        if end is self.o:
            self.perform_owner(self.owner.broken("garbage", 0.0))
        else:
            self._in_doubt()
            self.perform_taker(self.taker.broken("garbage", 0.0))

    def misdeliver(self, change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> None:
        """Let handles arrive that are not those that were sent."""
        self.faults += 1
        self._in_doubt()
        self.deliver_taker(change)

    def _in_doubt(self) -> None:
        # Whether the owner serves again or drains, only the spoilt message would have told.
        self.overlap |= self.taker.state in (ClientState.COMMITTED, ClientState.PRESUMING)

    def kill(self, end: End, peer: End) -> None:
        """Kill a process."""
        other_holds = self.taker_holds() if end is self.o else self.owner_holds()
        holds = self.owner_holds() if end is self.o else self.taker_holds()
        if holds and not other_holds and not self.deaths + self.faults:
            if end is self.o:
                assert not self.adopted or self.dropped, "I1: the taker dropped what it adopted"
            else:
                assert self.committed_came, "I1: the owner closed its copies before Committed"
            self.unheld = True
        # An owner that has broken off has the sockets again: its taker is about to drop them. And a
        # successor that has released the reserve answers for them alone.
        last_word = Abort if end is self.o else Release
        self.unheld |= any(isinstance(message, last_word) for message, _ in peer.queue)
        self.deaths += 1
        end.alive = end.accepting = end.closing = False
        self._shut(end, peer)

    def lose_owner(self) -> None:
        """Let the owner see the end of the connection."""
        self.o.closing = True
        self.perform_owner(self.owner.lost(0.0, dead=self.scenario.blind or not self.t.alive))

    def lose_taker(self) -> None:
        """Let the taker see the end of the connection."""
        self.perform_taker(self.taker.lost(0.0, dead=self.scenario.blind or not self.o.alive))

    def cancel_taker(self) -> None:
        """Let the taker give up."""
        mine = (ClientState.COMMITTED, ClientState.PRESUMING, ClientState.LEADING)
        self.gave_up |= not self.o.alive or self.taker.state in mine
        self.perform_taker(self.taker.cancel("no more", 0.0))

    def say_alive(self, side: OwnerSide[str] | ClientSide[str]) -> None:
        """Let a side say that it is alive."""
        actions = side.expire(ALIVE_SECONDS)
        side._clock._said = 0.0
        if side is self.owner:
            self.perform_owner(actions)
        else:
            self.perform_taker(actions)

    def consider(self, *, room: bool) -> None:
        """Let the taker find room, or none."""
        self.considers = False
        taker = self.taker
        if room:
            self.perform_taker(taker.accept(0.0))
        else:
            self.perform_taker(taker.refuse(Reason.LIMIT, "no room", 0.0))

    def second_asks(self) -> None:
        """Let a second taker ask."""
        self.second = self._ask()

    def second_leaves(self) -> None:
        """Let the second taker go."""
        assert self.second
        self.second.lost(0.0, dead=True)
        self.second = None

    def _ask(self) -> OwnerSide[str]:
        side: OwnerSide[str] = OwnerSide(self.estate, OTHER, 0.0, identify=identify)
        side.receive(Hello(1, 1), (), 0.0)
        side.receive(Request(Op.TAKEOVER), (), 0.0)
        return side

    def command_comes(self) -> None:
        """Let somebody give a command: it is taken while the owner serves, and changes nothing."""
        before = self.estate.phase
        side: OwnerSide[str] = OwnerSide(self.estate, OTHER, 0.0, identify=identify)
        side.receive(Hello(1, 1), (), 0.0)
        actions = side.receive(Request(Op.CONTROL, command="status"), (), 0.0)
        if before in (Phase.OWNING, Phase.HANDING):
            assert actions == [Command("status", Json("{}"))], "a command is not taken"
            self.commander = side
        else:
            message = actions[0].message if isinstance(actions[0], Send) else None
            assert isinstance(message, Refuse), "a command is taken by one who has stopped"
            assert message.reason is Reason.BUSY, "nobody would ask the successor"
        assert self.estate.phase is before, "a command changes the owner's phase"

    def command_ends(self, *, lost: bool) -> None:
        """Let a command be answered, or its client go; neither has to do with the takeover."""
        assert self.commander
        before = self.estate.phase, self.estate.successor
        side, self.commander = self.commander, None
        actions = side.lost(0.0, dead=True) if lost else side.answered("{}", 0.0)
        assert actions[-1] == Close()
        assert before == (self.estate.phase, self.estate.successor), "a command ends a takeover"

    # What can happen.

    def progress(self) -> Iterator[tuple[str, Callable[["World"], None]]]:
        """Give what happens if nothing goes wrong and nobody waits, the most urgent first."""
        o, t = self.o, self.t
        if o.outbox:
            yield "owner sends", lambda w: w.flush(w.o, w.t)
        if t.outbox:
            yield "taker sends", lambda w: w.flush(w.t, w.o)
        if o.queue:
            yield "owner reads", World.deliver_owner
        elif o.open and not t.open:
            yield "owner sees the end", World.lose_owner
        if t.queue:
            yield "taker reads", World.deliver_taker
        elif t.open and not o.open:
            yield "taker sees the end", World.lose_taker
        if t.alive and self.considers and self.taker.state is ClientState.CONSIDERING:
            yield "taker has room", lambda w: w.consider(room=True)
        if t.alive and self.taker.state in (ClientState.ADOPTED, ClientState.HEIR):
            yield "taker is ready", lambda w: w.perform_taker(w.taker.ready(0.0))
        if self.owner.state in (OwnerState.DRAINING, OwnerState.RELEASED) and self._has_read():
            yield "owner has drained", lambda w: w.perform_owner(w.owner.drained(0.0))

    def times(self) -> Iterator[tuple[str, Callable[["World"], None]]]:
        """Give whose time may be over."""
        if not (self.o.open and self.t.open):
            return
        if not self.o.queue and self.owner.deadline() is not None:
            yield "owner is out of time", lambda w: w.perform_owner(w.owner.expire(LATE))
        if not self.t.queue and self.taker.deadline() is not None:
            yield "taker is out of time", lambda w: w.perform_taker(w.taker.expire(LATE))

    def mishaps(self) -> Iterator[tuple[str, Callable[["World"], None]]]:
        """Give what else may happen."""
        o, t = self.o, self.t
        if self.deaths < self.scenario.deaths:
            if o.alive:
                yield "owner is killed", lambda w: w.kill(w.o, w.t)
            if t.alive:
                yield "taker is killed", lambda w: w.kill(w.t, w.o)
        if self.faults < self.scenario.faults:
            yield from self._faults()
        yield from self._alives()
        yield from self._decisions()
        if self.scenario.second and o.alive:
            if self.second:
                yield "second taker leaves", World.second_leaves
            elif self.estate.phase is Phase.OWNING:
                yield "second taker asks", World.second_asks
        if self.scenario.commands and o.alive:
            if self.commander:
                yield "the command is answered", lambda w: w.command_ends(lost=False)
                yield "the commander leaves", lambda w: w.command_ends(lost=True)
            else:
                yield "a command comes", World.command_comes

    def _alives(self) -> Iterator[tuple[str, Callable[["World"], None]]]:
        if self._may_say_alive(self.owner, self.o, self.t):
            yield "owner says Alive", lambda w: w.say_alive(w.owner)
        if self._may_say_alive(self.taker, self.t, self.o):
            yield "taker says Alive", lambda w: w.say_alive(w.taker)

    def _may_say_alive(self, side: OwnerSide[str] | ClientSide[str], end: End, peer: End) -> bool:
        """Whether it is time for it; one that is on its way is enough."""
        said = any(isinstance(message, Alive) for message, _ in (*end.outbox, *peer.queue))
        due = side.deadline() == ALIVE_SECONDS and not side._clock.is_over(ALIVE_SECONDS)
        return end.open and due and not said

    def _decisions(self) -> Iterator[tuple[str, Callable[["World"], None]]]:
        state = self.taker.state
        if self.t.alive and self.considers and state is ClientState.CONSIDERING:
            yield "taker has no room", lambda w: w.consider(room=False)
        if self.t.alive and state not in FINAL:
            yield "taker gives up", World.cancel_taker
        leads = state in (ClientState.LEADING, ClientState.PRESUMING)
        if self.t.alive and leads and not self.taker._released:
            yield "taker releases", lambda w: w.perform_taker(w.taker.release(0.0))
        mid_drain = self.owner.state is OwnerState.DRAINING and not self._has_read()
        if self.o.alive and self.owner.state not in FINAL and not mid_drain:
            yield "owner breaks off", lambda w: w.perform_owner(w.owner.cancel("no more", 0.0))

    def _has_read(self) -> bool:
        return self.o.open and self.t.open and not self.o.queue

    def _faults(self) -> Iterator[tuple[str, Callable[["World"], None]]]:
        if self.o.queue:
            yield "owner reads garbage", lambda w: w.spoil(w.o)
        if self.t.queue:
            yield "taker reads garbage", lambda w: w.spoil(w.t)
            message, handles = self.t.queue[0]
            if isinstance(message, Fds):
                yield "a handle is lost", lambda w: w.misdeliver(lambda h: h[1:])
                yield "another handle comes", lambda w: w.misdeliver(lambda h: ("x", *h[1:]))
                if len(handles) > 1:
                    yield "handles change places", lambda w: w.misdeliver(lambda h: h[::-1])
            else:
                yield "a handle comes unasked", lambda w: w.misdeliver(lambda h: (*h, "y"))

    def events(self) -> Iterator[tuple[str, Callable[["World"], None]]]:
        """Give everything that can happen next."""
        yield from self.progress()
        yield from self.times()
        yield from self.mishaps()

    # What must hold.

    def owner_holds(self) -> bool:
        """Whether the owner lives and has its copies."""
        return self.o.alive and self.copies

    def taker_holds(self) -> bool:
        """Whether the taker lives and has the whole set."""
        return self.t.alive and bool(self.adopted) and not self.dropped

    def check(self) -> None:
        """Check what must hold in every state.

        I1: With one death or one spoilt message at most, somebody who lives holds the set. Excepted is the death of who
        was alone with it: an owner whose taker had not adopted yet, a successor whose predecessor
        had Committed from it and has finished; the next start recovers those.
        I2: Once the taker has read Drain, never both serve.
        I3: Every handle that came to the taker is in the machine, adopted or closed, once.
        I4: The owner serves in the phases that say so. A second taker is told who is first.
        """
        held = self.owner_holds() or self.taker_holds()
        if self.deaths + self.faults <= 1 and not self.unheld and not self.gave_up:
            assert held, "I1: nobody holds the sockets"
        both = self.o.accepting and self.t.accepting
        assert not (both and self.drain_came), "I2: both serve after Drain"
        inside = self.taker._receiving._handles
        found = sorted([*inside, *self.adopted, *self.closed])
        assert found == sorted(self.received), "I3: a handle is lost, or twice there"
        if self.taker.state in FINAL:
            assert not inside, "I3: handles are left in a machine that is finished"
        if self.o.alive:
            serves = self.estate.phase in (Phase.OWNING, Phase.HANDING)
            assert self.o.accepting == serves, "I4: the phase is not what the owner does"
        if self.o.alive and self.estate.phase is not Phase.OWNING:
            self._check_busy()

    def _check_busy(self) -> None:
        estate = copy.copy(self.estate)
        side: OwnerSide[str] = OwnerSide(estate, OTHER, 0.0, identify=identify)
        side.receive(Hello(1, 1), (), 0.0)
        refuse = side.receive(Request(Op.TAKEOVER), (), 0.0)[0]
        assert isinstance(refuse, Send), "a second taker is not answered"
        message = refuse.message
        assert isinstance(message, Refuse), "a second taker is not refused"
        assert message.reason is Reason.BUSY, "a second taker is refused for another reason"
        assert f"pid {(estate.successor or OTHER).pid}," in message.text, "who is first is not told"
        assert estate.phase is self.estate.phase, "a second taker changes the owner's phase"

    def check_end(self, *, ready: bool) -> None:
        """Check what must have come of it when nothing is left to happen.

        Both ends are finished, and exactly one live process serves: the owner or its successor.

        Args:
            ready: Whether the taker says Ready when it can; else an heir need not serve.
        """
        if self.o.alive:
            assert self.owner.state in FINAL, f"the owner's end hangs: {self.owner.state}"
        heir = self.t.alive and self.taker.state is ClientState.HEIR
        if self.t.alive and not (heir and not ready):
            assert self.taker.state in FINAL, f"the taker's end hangs: {self.taker.state}"
        if self.deaths + self.faults > 1 or self.unheld or self.gave_up or (heir and not ready):
            return
        serving = self.o.accepting + self.t.accepting
        assert serving, "I2: nobody serves, and nobody ever will"
        assert serving == 1 or self.overlap, "I2: both serve for ever"


def _clone_side(side: Any) -> Any:
    new = copy.copy(side)
    new._clock = copy.copy(side._clock)
    new._giving = copy.copy(side._giving)
    new._receiving = copy.copy(side._receiving)
    new._receiving._parts = list(side._receiving._parts)
    new._receiving._handles = list(side._receiving._handles)
    return new


_ALIKE = ("_clock", "_estate", "_hello", "who")


def _key(side: OwnerSide[str] | ClientSide[str]) -> Iterator[object]:
    for name, value in vars(side).items():
        if name in _ALIKE:
            continue
        match value:
            case Giving():
                yield value._acked, value._sent, value._chunk
            case Receiving():
                yield tuple(value._handles), len(value._parts)
            case _:
                yield value


UNSURE = {"taker is ready", "the command ends"}
"""What a process is waited for that may take for ever."""


class Beginning(Protocol):
    """What can be explored."""

    def begin(self) -> World:
        """Return the first state."""


class Exploration:
    """Every state that a scenario can reach.

    Attributes:
        states: How many there are.
        moves: How many events lead from one to another.
    """

    def __init__(self, scenario: Beginning) -> None:
        """Explore it, and check every state.

        Raises:
            AssertionError: A rule is broken; the note has the events that lead there.
        """
        self.states = 0
        self.moves = 0
        self._ways: list[tuple[int, str]] = []
        self._worlds: list[World] = []
        self._next: list[list[int]] = [[], []]
        self._explore(scenario.begin())
        for ready in (True, False):
            self._follow(ready=ready)

    def _explore(self, first: World) -> None:
        numbers: dict[tuple[object, ...], int] = {first.key(): 0}
        self._worlds, self._ways = [first], [(-1, "")]
        for number, world in enumerate(self._worlds):
            successors: dict[str, int] = {}
            for name, event in world.events():
                new = world.clone()
                try:
                    event(new)
                    new.check()
                except Exception as error:
                    error.add_note("; ".join([*self.way(number), name]))
                    raise
                self.moves += 1
                key = new.key()
                found = numbers.get(key)
                if found is None:
                    found = numbers[key] = len(self._worlds)
                    self._worlds.append(new)
                    self._ways.append((number, name))
                successors[name] = found
            self._note(world, successors)
        self.states = len(self._worlds)

    def _note(self, world: World, successors: dict[str, int]) -> None:
        """Note what comes next if the taker gets ready, and if it never does but time passes."""
        goes_on = [name for name, _ in world.progress()]
        waits = [name for name in goes_on if name not in UNSURE]
        waits += [name for name, _ in world.times()]
        self._next[0].append(successors[goes_on[0]] if goes_on else -1)
        self._next[1].append(successors[waits[0]] if waits else -1)

    def _follow(self, *, ready: bool) -> None:
        """Check that from every state on, it comes to a good end by itself."""
        following = self._next[0 if ready else 1]
        good: set[int] = set()
        for number in range(self.states):
            path: set[int] = set()
            at = number
            while at >= 0 and at not in good:
                assert at not in path, f"it goes round for ever: {'; '.join(self.way(at))}"
                path.add(at)
                if following[at] < 0:
                    self._check_end(at, ready=ready)
                at = following[at]
            good |= path

    def _check_end(self, number: int, *, ready: bool) -> None:
        try:
            self._worlds[number].check_end(ready=ready)
        except AssertionError as error:
            error.add_note("; ".join(self.way(number)))
            raise

    def way(self, number: int) -> list[str]:
        """Return the events that lead to a state."""
        names: list[str] = []
        while number > 0:
            number, name = self._ways[number]
            names.append(name)
        return names[::-1]

    def seen(self) -> set[OwnerState | ClientState]:
        """Return the states of either end that occur."""
        return {state for world in self._worlds for state in (world.owner.state, world.taker.state)}


_ONE = Scenario(handles=("a",), deaths=1)
SCENARIOS = {
    "one death, a second taker": Scenario(deaths=1, second=True),
    "one death, and commands": replace(_ONE, commands=True),
    "two deaths": Scenario(deaths=2),
    "one death, and every end is taken for one": Scenario(blind=True),
    "a spoilt message": Scenario(deaths=0, faults=1),
    "a spoilt message and a death": replace(_ONE, faults=1),
    "versions 1 to 2": replace(_ONE, hello=Hello(1, 2, fds=2)),
    "versions 2 to 3": replace(_ONE, hello=Hello(2, 3)),
    "an unknown capability": replace(_ONE, hello=Hello(1, 1, requires=("time-travel",))),
}
"""What is explored. Three handles are in two chunks, one is in one."""


def main() -> None:
    """Explore everything, and print the counts as JSON."""
    report: dict[str, object] = {}
    for name, scenario in SCENARIOS.items():
        begin = time.perf_counter()
        found = Exploration(scenario)
        seconds = round(time.perf_counter() - begin, 2)
        report[name] = {"states": found.states, "moves": found.moves, "seconds": seconds}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
