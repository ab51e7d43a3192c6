"""The owner's end of a connection. Pure; see `sockact.rendezvous.machine`."""

from collections.abc import Sequence
from typing import TypeVar

from sockact.rendezvous.actions import (
    Action,
    Close,
    CloseHandles,
    CloseReserve,
    Command,
    DropSets,
    Failed,
    Park,
    Report,
    Resume,
    Send,
    StopAccepting,
    Store,
    Yielded,
)
from sockact.rendezvous.estate import Estate, Phase
from sockact.rendezvous.machine import Side, text_of
from sockact.rendezvous.manifest import STORED, STORED_KEPT, STORED_NO_MORE, Entry
from sockact.rendezvous.messages import (
    ANSWER_MAX,
    FDS_MAX,
    PART_MAX,
    VERSION,
    Abort,
    Accept,
    Ack,
    Adopted,
    Answer,
    Commit,
    Committed,
    Done,
    Drain,
    Gone,
    Hello,
    Listing,
    Message,
    Offer,
    Op,
    Part,
    Ready,
    Reason,
    Refuse,
    Release,
    Request,
    Welcome,
)
from sockact.rendezvous.passage import BrokenError, Giving, Identify
from sockact.rendezvous.policy import Rule, Who
from sockact.rendezvous.tables import (
    ENDINGS,
    FINAL,
    OWNER,
    OWNER_SECONDS,
    PATIENCE_MAX,
    Event,
    OwnerState,
)

H = TypeVar("H")

_EVENTS: dict[type[Message], Event] = {
    Hello: Event.HELLO,
    Accept: Event.ACCEPT,
    Refuse: Event.REFUSE,
    Ready: Event.READY,
    Committed: Event.COMMITTED,
    Release: Event.RELEASE,
    Abort: Event.ABORT,
}
_ASKED = {
    Op.GET: Event.ASK_GET,
    Op.TAKEOVER: Event.ASK_TAKEOVER,
    Op.PUT: Event.ASK_PUT,
    Op.LIST: Event.ASK_LIST,
    Op.DROP: Event.ASK_DROP,
    Op.CONTROL: Event.ASK_CONTROL,
}


def _unsupported(hello: Hello, offers: Sequence[str]) -> Refuse | None:
    """Return the refusal of a peer with which there is no common version or capability."""
    if not hello.oldest <= VERSION <= max(hello.newest, hello.oldest):
        return Refuse(
            Reason.VERSION,
            f"versions {hello.oldest} to {hello.newest} of the protocol were asked for;"
            f" version {VERSION} is spoken here",
        )
    unknown = [name for name in hello.requires if name not in offers]
    if unknown:
        return Refuse(Reason.CAPABILITY, f"capabilities not known here: {', '.join(unknown)}")
    return None


class OwnerSide(Side[OwnerState, H]):
    """The owner's end of one connection.

    Attributes:
        state: Where it stands.
        who: The client, as the kernel tells.
    """

    _moves = OWNER
    _closed = OwnerState.CLOSED
    _peer = "the client"

    def __init__(
        self,
        estate: Estate[H],
        who: Who,
        now: float,
        *,
        identify: Identify[H],
        drain: float = 0.0,
        most: int = FDS_MAX,
    ) -> None:
        """Wait for Hello.

        Args:
            estate: What the owner has; shared with its other connections.
            who: The client.
            now: The time, in seconds of any clock that only goes forward.
            identify: Tells what a handle is.
            drain: Seconds that a drain may last; 0 for ever.
            most: Descriptors that it is given in one message at most.
        """
        self.who = who
        self._estate = estate
        self._drain = drain
        self._request = Request(Op.GET)
        self._most = most
        self._putting: str | None = None
        self._handing = False
        super().__init__(OwnerState.GREETING, now, identify)

    @property
    def gives(self) -> bool:
        """Whether the client is being given something, or has it and may give it back."""
        return self._giving is not None and self.state not in FINAL

    @property
    def given(self) -> dict[H, Entry]:
        """What has been offered to the client."""
        giving = self._giving
        return dict(zip(giving.handles, giving.manifest, strict=True)) if giving else {}

    # What happens.

    def lost(self, now: float, *, dead: bool) -> list[Action]:
        """Note that the peer's end of the connection is closed."""
        del dead  # what follows is the same
        return self._end(Event.LOST, Reason.FAILED, f"the peer ({self.who}) is gone", now)

    # What the driver does.

    def listed(self, parts: Sequence[Listing], now: float) -> list[Action]:
        """Send what `Report` asked for."""
        self._move(Event.DO_ANSWER, now)
        return [*(Send(part) for part in parts), Close()]

    def stored(self, now: float) -> list[Action]:
        """The set is where it will last."""
        self._leave_put()
        self._move(Event.DO_ANSWER, now)
        return [Send(Adopted()), Close()]

    def dropped(self, now: float) -> list[Action]:
        """The sets are closed."""
        self._move(Event.DO_ANSWER, now)
        return [Send(Done()), Close()]

    def answered(self, text: str, now: float) -> list[Action]:
        """Send what a command has come to: the text of a JSON object, in ASCII."""
        if len(text) > ANSWER_MAX:
            return self.failed(
                f"the answer has {len(text)} characters; {ANSWER_MAX} are the most", now
            )
        self._move(Event.DO_ANSWER, now)
        parts = [Part(text[at : at + PART_MAX]) for at in range(0, len(text), PART_MAX)]
        last = len(parts) - 1
        return [*(Send(Answer(part, i != last)) for i, part in enumerate(parts)), Close()]

    def failed(self, text: str, now: float) -> list[Action]:
        """Break off: what was asked for has been begun, and has failed."""
        return self._break(Reason.FAILED, text, now)

    def drained(self, now: float) -> list[Action]:
        """What was accepted is finished, and the reserve can be closed.

        What has come already is to be handed in before: perhaps it is the end of the successor.
        """
        reserve: list[Action] = [CloseReserve()] if self.state is OwnerState.DRAINING else []
        self._move(Event.DO_DRAINED, now)
        self._estate.phase = Phase.RELEASED
        return [*reserve, Send(Gone()), Close()]

    # What it means.

    def _take(self, message: Message, now: float) -> list[Action]:
        match message:
            case Offer():
                return self._put_offered(message, now)
            case Ack():
                return self._acked(message, now)
            case Request():
                return self._asked(message, now)
            case Adopted():
                return self._adopted(now)
        event = _EVENTS.get(type(message))
        if event is None:
            raise BrokenError(f"a {message.TYPE} message is not the client's to send")
        if event in ENDINGS:
            return self._end(event, Reason.FAILED, text_of(message), now)
        self._move(event, now)
        return self._moved(message, now)

    def _moved(self, message: Message, now: float) -> list[Action]:
        match message:
            case Hello():
                return self._greet(message, now)
            case Ready():
                self._estate.phase = Phase.COMMITTING
                return [StopAccepting(), Send(Commit())]
            case Committed():
                self._estate.phase = Phase.DRAINING
                return [Yielded(), Send(Drain(self._drain))]
            case Release():
                self._estate.phase = Phase.RELEASED
                return [CloseReserve()]
        return self._chunk()  # Accept

    def _greet(self, hello: Hello, now: float) -> list[Action]:
        offers = self._estate.capabilities
        refusal = _unsupported(hello, offers)
        if refusal:
            return self.refuse(refusal.reason, refusal.text, now)
        self._most = min(self._most, hello.fds or 1)
        return [Send(Welcome(VERSION, offers, self._estate.generation))]

    def _asked(self, request: Request, now: float) -> list[Action]:
        if self.state is not OwnerState.IDLE:
            raise BrokenError(f"a request is not due; this side {self.state.value}")
        self._request = request
        refusal = self._refusal(request)
        if refusal:
            return self.refuse(*refusal, now)
        estate = self._estate
        match request.op:
            case Op.LIST:
                self._move(Event.ASK_LIST, now)
                return [Report(tuple(held.name for held in estate.visible(self.who)))]
            case Op.DROP:
                self._move(Event.ASK_DROP, now)
                return [DropSets(request.names)]
            case Op.CONTROL:
                self._move(Event.ASK_CONTROL, now)
                return [Command(request.command, request.arguments)]
            case Op.PUT:
                self._putting = request.names[0]
                estate.writers.append(self._putting)
                self._move(Event.ASK_PUT, now)
                return []
            case Op.TAKEOVER:
                estate.phase, estate.successor = Phase.HANDING, self.who
                self._handing = True
                found = estate.everything()
            case Op.GET:
                try:
                    found = estate.chosen(self.who, request.names)
                except KeyError as error:
                    return self.refuse(
                        Reason.UNKNOWN_NAME, f"there is nothing called {error.args[0]!r}", now
                    )
        if not found[1]:
            return self.refuse(Reason.UNKNOWN_NAME, "there is nothing here", now)
        self._giving = Giving(*found, self._most)
        self._move(_ASKED[request.op], now)
        return [Send(offer) for offer in self._giving.offers()]

    def _refusal(self, request: Request) -> tuple[Reason, str] | None:
        """Return why not, if not."""
        estate, op = self._estate, request.op
        if op not in (Op.GET, Op.LIST) and not estate.policy.may_manage(self.who):
            return Reason.DENIED, f"uid {self.who.uid} may not {op.value} here"
        if op is Op.PUT and request.role:
            if request.role != STORED or not estate.parks:
                return Reason.UNSUPPORTED, f"this owner keeps no {request.role}"
        elif op in (Op.PUT, Op.DROP) and not estate.stores:
            return Reason.UNSUPPORTED, f"this owner serves; only a holder takes a {op.value}"
        if op is Op.CONTROL and not estate.commands:
            return Reason.UNSUPPORTED, "this owner takes no commands"
        lasting = op in (Op.GET, Op.LIST) and estate.phase is not Phase.RELEASED
        lasting = lasting or (op is Op.CONTROL and estate.phase is Phase.HANDING)
        if estate.phase is Phase.STARTING and op is Op.TAKEOVER:
            return Reason.BUSY, "the owner is not ready yet"
        if estate.phase not in (Phase.STARTING, Phase.OWNING) and not lasting:
            begun = estate.phase in (Phase.HANDING, Phase.COMMITTING)
            verb = "is taking over" if begun else "has taken over"
            return Reason.BUSY, f"{estate.successor} {verb}"
        if op is Op.TAKEOVER and estate.writers:
            return Reason.BUSY, f"the set {estate.writers[0]!r} is being put"
        if op is Op.PUT:
            return self._put_refusal(request)
        if op is Op.DROP and (unknown := [n for n in request.names if n not in estate.sets]):
            return Reason.UNKNOWN_NAME, f"there is no set called {unknown[0]!r}"
        return None

    def _put_refusal(self, request: Request) -> tuple[Reason, str] | None:
        if len(request.names) != 1 or not request.names[0]:
            return Reason.PROTOCOL, "a put has exactly one name"
        name = request.names[0]
        if name in self._estate.writers:
            return Reason.BUSY, f"the set {name!r} is being put by somebody else"
        if name in self._estate.sets and not (request.replace or request.role):
            return Reason.EXISTS, f"there is a set called {name!r}; drop or replace it"
        return None

    def _put_offered(self, offer: Offer, now: float) -> list[Action]:
        actions = self._offered(offer, now)
        roles = set(offer.entries.column("role"))
        if roles - ({STORED, STORED_KEPT, STORED_NO_MORE} if self._request.role else {""}):
            raise BrokenError("an entry has a role that is not that of what is put")
        return actions

    def _chunk(self) -> list[Action]:
        if self._estate.phase is Phase.RELEASED:
            raise BrokenError(f"{self._estate.successor} has taken over", Reason.BUSY)
        return super()._chunk()

    def _adopted(self, now: float) -> list[Action]:
        self._move(Event.ADOPTED_ALL if self._handing else Event.ADOPTED, now)
        return [] if self._handing else [Close()]

    def _whole(self) -> tuple[Event, list[Action]]:
        request, manifest = self._request, self._receiving.manifest
        if request.role:
            return Event.FDS, [Park(manifest, self._receiving.release())]
        rule = Rule(request.uids, request.gids)
        store = Store(request.names[0], rule, manifest, self._receiving.release())
        return Event.FDS, [store]

    def _end(
        self, event: Event, reason: Reason, text: str, now: float, *, told: Message | None = None
    ) -> list[Action]:
        """End the conversation before its time, and undo what it had begun."""
        before = self.state
        if before in FINAL:
            return []
        self._move(event, now)
        actions: list[Action] = []
        if handles := self._receiving.release():
            actions.append(CloseHandles(handles))
        if told:
            actions.append(Send(told))
        self._leave_put()
        if before is OwnerState.DRAINING and told:
            self._estate.phase = Phase.RELEASED
            actions.append(CloseReserve())
        elif before in (OwnerState.COMMITTING, OwnerState.DRAINING):
            self._take_back()
            actions.append(Resume(text))
        elif self._handing and before is not OwnerState.RELEASED:
            self._take_back()
        if told or event is not Event.LOST:
            actions.append(Failed(reason, text, isinstance(told, Refuse)))
        actions.append(Close())
        return actions

    def _take_back(self) -> None:
        self._estate.phase, self._estate.successor = Phase.OWNING, None

    def _leave_put(self) -> None:
        if self._putting is not None:
            self._estate.writers.remove(self._putting)
            self._putting = None

    def _seconds(self, state: OwnerState) -> float | None:
        if state is OwnerState.PREPARED:
            return min(self._request.patience, PATIENCE_MAX)
        return OWNER_SECONDS.get(state)
