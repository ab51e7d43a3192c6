"""The client's end of a connection. Pure; see `sockact.rendezvous.machine`.

A client is a taker, or somebody who gets, puts, lists, drops or gives a command.
"""

from typing import TypeVar

from sockact.rendezvous.actions import (
    Action,
    Adopt,
    Alone,
    Answered,
    Close,
    CloseHandles,
    Failed,
    Inherit,
    Lead,
    Listed,
    Send,
    StepDown,
    Succeeded,
)
from sockact.rendezvous.machine import Side, text_of
from sockact.rendezvous.manifest import STORED, Manifest
from sockact.rendezvous.messages import (
    ANSWER_MAX,
    ENTRIES_MAX,
    FDS_MAX,
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
    Ready,
    Reason,
    Refuse,
    Release,
    Request,
    Welcome,
)
from sockact.rendezvous.passage import BrokenError, Giving, Identify
from sockact.rendezvous.tables import CLIENT, CLIENT_SECONDS, ENDINGS, FINAL, ClientState, Event

H = TypeVar("H")

_ANSWERS: dict[type[Message], tuple[Op, ...]] = {
    Offer: (Op.GET, Op.TAKEOVER),
    Listing: (Op.LIST,),
    Done: (Op.DROP,),
    Answer: (Op.CONTROL,),
}
_NEEDS = {
    (Op.PUT, ""): ("store", "this owner serves; only a holder takes a put"),
    (Op.PUT, STORED): ("fdstore", "this owner keeps no fdstore"),
    (Op.CONTROL, ""): ("control", "this owner takes no commands"),
}
"""The capability that a request with a role needs, and what is said if the owner has it not."""
_WELCOMES = {Op.PUT: Event.WELCOME_PUT, Op.CONTROL: Event.WELCOME_CONTROL}
_EVENTS: dict[type[Message], Event] = {
    Welcome: Event.WELCOME,
    Accept: Event.ACCEPT,
    Refuse: Event.REFUSE,
    Adopted: Event.ADOPTED,
    Commit: Event.COMMIT,
    Drain: Event.DRAIN,
    Gone: Event.GONE,
    Done: Event.DONE,
    Abort: Event.ABORT,
}


class ClientSide(Side[ClientState, H]):
    """The client's end of a connection: of a taker, or of anybody else who asks for something.

    Attributes:
        state: Where it stands.
        generation: The owner's generation, once it has said Welcome.
    """

    _moves = CLIENT
    _closed = ClientState.CLOSED
    _peer = "the owner"

    def __init__(
        self,
        request: Request,
        now: float,
        *,
        identify: Identify[H],
        give: tuple[Manifest, tuple[H, ...]] | None = None,
        hello: Hello | None = None,
    ) -> None:
        """Be about to say Hello; `start` does.

        Args:
            request: What is wanted.
            now: The time.
            identify: Tells what a handle is.
            give: What to put; the handles stay the caller's.
            hello: What to say first.
        """
        self.generation = 0
        self._request = request
        self._hello = hello or Hello(1, VERSION)
        self._give = give
        self._listed_rows = 0
        self._answered_size = 0
        self._led = False
        self._released = False
        # Who speaks one version need not wait to learn which one it is; it saves a round trip.
        one = self._hello.oldest == self._hello.newest
        self._at_once = one and (request.op, request.role) not in _NEEDS
        super().__init__(ClientState.GREETING, now, identify)

    # What happens.

    def start(self) -> list[Action]:
        """Say Hello, and at once what is wanted if that cannot depend on the answer."""
        return [Send(self._hello), *([Send(self._request)] if self._at_once else [])]

    def lost(self, now: float, *, dead: bool) -> list[Action]:
        """Note that the owner's end of the connection is closed.

        Args:
            now: The time.
            dead: Whether the owner is known, or must be assumed, to be dead.
        """
        if self.state is ClientState.HEIR:
            return []
        event = Event.LOST_DEAD if dead else Event.LOST
        return self._end(event, Reason.FAILED, "the owner is gone", now)

    # What the driver does.

    def ready(self, now: float) -> list[Action]:
        """Vote for the commit."""
        self._move(Event.DO_READY, now)
        if self.state is ClientState.ALONE:
            return [*self._lead(), Alone()]
        return [Send(Ready())]

    def release(self, now: float) -> list[Action]:
        """Tell the former owner to close its reserve, because this one hands over or ends."""
        del now
        leading = self.state in (ClientState.LEADING, ClientState.PRESUMING)
        return self._release() if leading else []

    # What it means.

    def _take(self, message: Message, now: float) -> list[Action]:
        if self._request.op not in _ANSWERS.get(type(message), (self._request.op,)):
            raise BrokenError(f"a {message.TYPE} message answers no {self._request.op.value}")
        match message:
            case Offer():
                return self._offered(message, now)
            case Ack():
                return self._acked(message, now)
            case Listing():
                return self._listed(message, now)
            case Answer():
                return self._answered(message, now)
        event = _EVENTS.get(type(message))
        if event is None:
            raise BrokenError(f"a {message.TYPE} message is not the owner's to send")
        if event in ENDINGS:
            reason = getattr(message, "reason", Reason.FAILED)
            refused = isinstance(message, Refuse)
            return self._end(event, reason, text_of(message), now, refused=refused)
        if event is Event.WELCOME:
            event = _WELCOMES.get(self._request.op, event)
        self._move(event, now)
        return self._moved(message, now)

    def _listed(self, listing: Listing, now: float) -> list[Action]:
        self._listed_rows += len(listing.entries)
        if self._listed_rows > ENTRIES_MAX:
            raise BrokenError(f"{self._listed_rows} descriptors are too many", Reason.LIMIT)
        self._move(Event.LIST_PART if listing.more else Event.LISTING, now)
        return [Listed(listing)] if listing.more else [Listed(listing), Succeeded(), Close()]

    def _answered(self, answer: Answer, now: float) -> list[Action]:
        self._answered_size += len(answer.text)
        if self._answered_size > ANSWER_MAX:
            raise BrokenError(f"an answer of more than {ANSWER_MAX} characters", Reason.LIMIT)
        self._move(Event.ANSWER_PART if answer.more else Event.ANSWER, now)
        part = Answered(answer.text)
        return [part] if answer.more else [part, Succeeded(), Close()]

    def _moved(self, message: Message, now: float) -> list[Action]:
        match message:
            case Welcome():
                return self._welcomed(message, now)
            case Accept():
                return self._chunk()
            case Commit():
                return [Send(Committed())]
            case Drain():
                return self._lead()
            case Gone():
                return [Alone(), Close()]
        return [Succeeded(), Close()]  # Adopted, after a put, and Done

    def _welcomed(self, welcome: Welcome, now: float) -> list[Action]:
        if not self._hello.oldest <= welcome.version <= self._hello.newest:
            raise BrokenError(f"the owner speaks version {welcome.version}", Reason.VERSION)
        self.generation = welcome.generation
        if self._at_once:
            return []
        needed, text = _NEEDS.get((self._request.op, self._request.role), ("", ""))
        if needed and needed not in welcome.offers:
            told = Abort(Reason.CANCELLED, text)
            return self._end(
                Event.DO_CANCEL, Reason.UNSUPPORTED, text, now, told=told, refused=True
            )
        if self._give is None:
            return [Send(self._request)]
        self._giving = Giving(*self._give, min(FDS_MAX, welcome.fds or 1))
        return [Send(self._request), *(Send(offer) for offer in self._giving.offers())]

    def _whole(self) -> tuple[Event, list[Action]]:
        adopt = [Adopt(self._receiving.manifest, self._receiving.release()), Send(Adopted())]
        if self._request.op is Op.TAKEOVER:
            return Event.FDS_ALL, adopt
        return Event.FDS, [*adopt, Succeeded(), Close()]

    def _end(
        self,
        event: Event,
        reason: Reason,
        text: str,
        now: float,
        *,
        told: Message | None = None,
        refused: bool = False,
    ) -> list[Action]:
        """Follow what ends a conversation, or what only ends the owner's part in it."""
        before = self.state
        if before in FINAL:
            return []
        self._move(event, now)
        match self.state:
            case ClientState.HEIR:
                return [Inherit(), Close()]
            case ClientState.PRESUMING:
                return self._lead()
            case ClientState.ALONE:
                # An owner that is told so does not take the end of the connection for our death.
                rest = self._release() if event is Event.BROKEN else []
                return [*self._lead(), *rest, Alone(), Close()]
        if before is ClientState.HEIR:
            return [Failed(reason, text, refused)]
        actions: list[Action] = []
        if handles := self._receiving.release():
            actions.append(CloseHandles(handles))
        if told:
            actions.append(Send(told))
        if before in (ClientState.PRESUMING, ClientState.LEADING):
            actions.append(StepDown())
        lost = event in (Event.LOST, Event.LOST_DEAD)
        return [*actions, Failed(reason, text, refused, lost), Close()]

    def _lead(self) -> list[Action]:
        if self._led:
            return []
        self._led = True
        return [Lead()]

    def _release(self) -> list[Action]:
        if self._released:
            return []
        self._released = True
        return [Send(Release())]

    def _seconds(self, state: ClientState) -> float | None:
        return CLIENT_SECONDS.get(state)
