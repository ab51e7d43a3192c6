"""The two ends of a connection at a rendezvous, without input or output. Pure.

Each end is told what happened (a message and its handles, the loss of the peer, the time, or what
its driver did) and answers with frozen actions for the driver to carry out in their order. The
moves are those of `sockact.rendezvous.tables`; here stands only what a move means.

What makes a takeover safe:

- The owner alone decides. It goes on serving until the taker has voted by Ready, and it serves
  again if the taker is lost before it has said Committed: its copies are closed only after that.
- Committed is final. Before the owner gives up waiting for it, its driver reads what has already
  come, so a taker that could send it may rely on it even if the owner hangs. From there on neither
  end takes a fault of the other's for a reason to undo it: a taker that has said Committed leads,
  and a former owner that breaks off its drain closes its reserve instead of serving again.
- Whoever breaks off says Abort first. So the end of a connection without one, of a peer that is
  dead, tells a taker that has adopted everything that it is alone in charge.
- While it drains, the former owner keeps its copies in reserve. If its successor dies without a
  Release, it takes back.
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from sockact.errors import LocalProtocolError
from sockact.rendezvous.actions import Action, CloseHandles, Consider, Send
from sockact.rendezvous.messages import (
    TEXT_MAX,
    Abort,
    Accept,
    Ack,
    Alive,
    Fds,
    Message,
    Offer,
    Reason,
    Refuse,
)
from sockact.rendezvous.passage import BrokenError, Giving, Identify, Receiving
from sockact.rendezvous.tables import (
    ALIVE_SECONDS,
    AWAITED,
    CUT,
    ENDINGS,
    FINAL,
    SILENCE_SECONDS,
    TRANSFER_SECONDS,
    UNCAPPED,
    ClientState,
    Event,
    OwnerState,
)

H = TypeVar("H")
S = TypeVar("S", bound=OwnerState | ClientState)


class Clock:
    """When a state has lasted too long, and when to say Alive."""

    def __init__(self, now: float) -> None:
        self.born = now
        self.heard = now
        self._said = now
        self._ends: float | None = None
        self._awaited = False

    def enter(self, seconds: float | None, *, awaited: bool, capped: bool, now: float) -> None:
        """Begin to wait for so many seconds, None for ever."""
        self._ends = None if seconds is None else now + seconds
        if self._ends is not None and capped:
            self._ends = min(self._ends, self.born + TRANSFER_SECONDS)
        if awaited and not self._awaited:
            self.heard = self._said = now
        self._awaited = awaited

    def deadline(self) -> float | None:
        """Return when to look again."""
        moments = [] if self._ends is None else [self._ends]
        if self._awaited:
            moments += [self._said + ALIVE_SECONDS, self.heard + SILENCE_SECONDS]
        return min(moments, default=None)

    def is_over(self, now: float) -> bool:
        """Whether the peer has had its time."""
        if self._ends is not None and now >= self._ends:
            return True
        return self._awaited and now >= self.heard + SILENCE_SECONDS

    def must_speak(self, now: float) -> bool:
        """Whether it is time to say Alive; then that counts as said."""
        if not self._awaited or now < self._said + ALIVE_SECONDS:
            return False
        self._said = now
        return True


class Side(abc.ABC, Generic[S, H]):
    """One end of a connection.

    Attributes:
        state: Where it stands.
    """

    _moves: ClassVar[Mapping[Any, Mapping[Event, Any]]]
    _closed: ClassVar[Any]
    _peer: ClassVar[str]

    def __init__(self, state: S, now: float, identify: Identify[H]) -> None:
        """Begin in `state`."""
        self._giving: Giving[H] | None = None
        self._receiving: Receiving[H] = Receiving(identify)
        self._clock = Clock(now)
        self._enter(state, now)

    def receive(self, message: Message, handles: Sequence[H], now: float) -> list[Action]:
        """Take a message; its handles are owned here from now on."""
        self._clock.heard = now
        if self.state in CUT:
            return [CloseHandles(tuple(handles))] if handles else []
        try:
            if isinstance(message, Fds):
                return self._arrived(message, handles, now)
            if handles:
                raise BrokenError("descriptors came with a message that has none")
            return [] if isinstance(message, Alive) else self._take(message, now)
        except BrokenError as error:
            rest = self._closing(handles)
            return [*rest, *self._break(error.reason, error.text, now, Event.BROKEN)]

    def broken(self, text: str, now: float) -> list[Action]:
        """Note that what the peer sent is no message at all."""
        if self.state in CUT:
            return []
        return self._break(Reason.PROTOCOL, text, now, Event.BROKEN)

    def expire(self, now: float) -> list[Action]:
        """Note the time. Messages that have come already are to be handed in before."""
        if self.state not in FINAL and self._clock.is_over(now):
            text = f"{self._peer} took too long; this side {self.state.value}"
            return self._break(Reason.TIMEOUT, text, now, Event.EXPIRED)
        return [Send(Alive())] if self._clock.must_speak(now) else []

    def deadline(self) -> float | None:
        """Return when to call `expire`."""
        return None if self.state in FINAL else self._clock.deadline()

    def accept(self, now: float) -> list[Action]:
        """There is room for what is offered."""
        self._move(Event.DO_ACCEPT, now)
        return [Send(Accept())]

    def refuse(self, reason: Reason, text: str, now: float) -> list[Action]:
        """No: there is no room for what is offered, or what is asked for cannot be done."""
        told = Refuse(reason, text[:TEXT_MAX])
        return self._end(Event.DO_REFUSE, reason, text, now, told=told)

    def cancel(self, text: str, now: float) -> list[Action]:
        """Break off."""
        return self._break(Reason.CANCELLED, text, now)

    def smaller_chunk(self) -> list[Action]:
        """Send less at once: the kernel would not take the last Fds (ENOBUFS)."""
        if self._giving is None or Event.ACK_PART not in self._moves[self.state]:
            return []
        message = self._giving.smaller_chunk()
        return [] if message is None else [Send(*message)]

    # For the two ends to fill in.

    @abc.abstractmethod
    def _take(self, message: Message, now: float) -> list[Action]:
        """Take any message but Fds and Alive."""

    @abc.abstractmethod
    def _whole(self) -> tuple[Event, list[Action]]:
        """Return the event of the last chunk, and what follows its Ack."""

    @abc.abstractmethod
    def _end(
        self, event: Event, reason: Reason, text: str, now: float, *, told: Message | None = None
    ) -> list[Action]:
        """End the conversation before its time; `told` is what the peer is told."""

    @abc.abstractmethod
    def _seconds(self, state: S) -> float | None:
        """Return how long to wait in a state."""

    # What both do.

    def _arrived(self, fds: Fds, handles: Sequence[H], now: float) -> list[Action]:
        if Event.FDS_PART not in self._moves[self.state]:
            raise BrokenError(f"descriptors are not due; this side {self.state.value}")
        if not self._receiving.arrived(fds, handles):
            self._move(Event.FDS_PART, now)
            return [Send(Ack(self._receiving.count))]
        ack = Send[H](Ack(self._receiving.count))
        event, actions = self._whole()
        self._move(event, now)
        return [ack, *actions]

    def _offered(self, offer: Offer, now: float) -> list[Action]:
        if Event.OFFER not in self._moves[self.state]:
            raise BrokenError(f"an offer is not due; this side {self.state.value}")
        last = self._receiving.offered(offer)
        self._move(Event.OFFER if last else Event.OFFER_PART, now)
        return [Consider(offer.count)] if last else []

    def _acked(self, ack: Ack, now: float) -> list[Action]:
        if Event.ACK_PART not in self._moves[self.state] or not self._giving:
            raise BrokenError(f"an ack is not due; this side {self.state.value}")
        last = self._giving.acked(ack.count)
        self._move(Event.ACK if last else Event.ACK_PART, now)
        return [] if last else self._chunk()

    def _chunk(self) -> list[Action]:
        assert self._giving
        return [Send(*self._giving.next_chunk())]

    def _closing(self, handles: Sequence[H]) -> list[Action]:
        """Return what closes handles that came with a message, unless they were taken already."""
        rest = tuple(handle for handle in handles if not self._receiving.has(handle))
        return [CloseHandles(rest)] if rest else []

    def _break(
        self, reason: Reason, text: str, now: float, event: Event = Event.DO_CANCEL
    ) -> list[Action]:
        """End it, and tell the peer why."""
        if self.state in FINAL:
            return []
        return self._end(event, reason, text, now, told=Abort(reason, text[:TEXT_MAX]))

    def _move(self, event: Event, now: float) -> None:
        after = self._moves[self.state].get(event)
        if after is None and event in ENDINGS and self.state not in FINAL:
            after = self._closed
        if after is not None:
            self._enter(after, now)
            return
        text = f"{event.value}: not due; this side {self.state.value}"
        if event.name.startswith("DO_"):
            raise LocalProtocolError(text)
        raise BrokenError(text)

    def _enter(self, state: S, now: float) -> None:
        self.state: S = state
        self._clock.enter(
            self._seconds(state), awaited=state in AWAITED, capped=state not in UNCAPPED, now=now
        )


def text_of(message: Message) -> str:
    """Return what a Refuse or an Abort says, for a person."""
    text = getattr(message, "text", "")
    return str(text) or f"the peer said {message.TYPE}"
