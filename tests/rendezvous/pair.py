"""An owner's end and a client's end that talk to each other in frames, without a driver."""

import collections
from collections.abc import Sequence

from sockact.rendezvous.actions import (
    Action,
    Close,
    CloseHandles,
    Command,
    Consider,
    DropSets,
    Park,
    Report,
    Send,
    Store,
)
from sockact.rendezvous.client import ClientSide
from sockact.rendezvous.estate import Estate, HeldSet
from sockact.rendezvous.manifest import Entry, Identity, Manifest
from sockact.rendezvous.messages import Hello, Listing, Message, Reason, Request
from sockact.rendezvous.owner import OwnerSide
from sockact.rendezvous.policy import Policy, Rule, Who
from sockact.rendezvous.wire import HEADER, decode, encode

ROOT = Who(0, (0,), 4711)
NOW = 100.0


def identify(handles: Sequence[str]) -> list[Identity]:
    """Return what each handle is: its first letter says it, whatever copy it is."""
    return [(1, ord(handle[0])) for handle in handles]


def manifest_of(handles: Sequence[str], set_name: str = "web", role: str = "") -> Manifest:
    """Return the manifest of handles; the letter of each is its fd name."""
    return Manifest(
        Entry(set_name, handle[0], "Stream", "AF_INET", f"127.0.0.1:{8000 + ord(handle[0])}",
              listening=True, device=1, inode=ord(handle[0]), role=role)
        for handle in handles
    )  # fmt: skip


def estate_of(
    sets: dict[str, Sequence[str]] | None = None,
    rules: dict[str, Rule] | None = None,
    *,
    stores: bool = False,
    commands: bool = False,
    parks: bool = False,
) -> Estate[str]:
    """Return an estate with these sets of handles, of a user 1000."""
    estate: Estate[str] = Estate(Policy(1000), generation=3, stores=stores)
    estate.commands, estate.parks = commands, parks
    for name, handles in ({"web": "abc"} if sets is None else sets).items():
        rule = (rules or {}).get(name, Rule())
        manifest = manifest_of(handles, name)
        estate.sets[name] = HeldSet(name, manifest, tuple(handles), rule, 1000.0)
    return estate


def owner_of(estate: Estate[str], who: Who = ROOT, drain: float = 0.0) -> OwnerSide[str]:
    """Return an owner's end that waits for Hello."""
    return OwnerSide(estate, who, NOW, identify=identify, drain=drain)


def client_of(
    request: Request, give: Sequence[str] = (), hello: Hello | None = None, role: str = ""
) -> ClientSide[str]:
    """Return a client's end that has said nothing yet; `give` are the handles that it puts."""
    what = (manifest_of(give, "put", role), tuple(give)) if give else None
    return ClientSide(request, NOW, identify=identify, give=what, hello=hello)


def sent(actions: Sequence[Action]) -> list[Message]:
    """Return the messages among actions."""
    return [action.message for action in actions if isinstance(action, Send)]


class Pair:
    """Both ends, and what went between them.

    Attributes:
        frames: Who said what: the side, the header and the body of every frame, in order.
        asked: What each side's driver was asked to do, messages left out.
        room: Whether whoever is asked finds room.
        store: Whether a set that is put can be stored.
    """

    def __init__(self, estate: Estate[str], client: ClientSide[str], who: Who = ROOT) -> None:
        """Bring both together."""
        self.estate = estate
        self.client = client
        self.owner = owner_of(estate, who)
        self.frames: list[tuple[str, bytes, bytes]] = []
        self.asked: dict[str, list[Action]] = {"owner": [], "client": []}
        self.room = True
        self.store = True
        self._queue: collections.deque[tuple[str, bytes, tuple[str, ...]]] = collections.deque()

    def run(self) -> "Pair":
        """Let the client say Hello, and go on until both are silent."""
        self.perform("client", self.client.start())
        return self

    def perform(self, name: str, actions: Sequence[Action]) -> None:
        """Carry out actions of a side, and everything that follows."""
        self._do(name, actions)
        while self._queue:
            sender, frame, handles = self._queue.popleft()
            message = decode(frame, len(handles))
            copies = tuple(f"{handle}'" for handle in handles)
            if sender == "client":
                self._do("owner", self.owner.receive(message, copies, NOW))
            else:
                self._do("client", self.client.receive(message, copies, NOW))

    def _do(self, name: str, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                frame = encode(action.message, len(action.handles))
                self.frames.append((name, frame[: HEADER.size], frame[HEADER.size :]))
                self._queue.append((name, frame, action.handles))
                continue
            self.asked[name].append(action)
            self._do(name, self.answer(name, action))

    def answer(self, name: str, action: Action) -> Sequence[Action]:
        """Do what a driver does at once."""
        return answer(self.owner if name == "owner" else self.client, action, self)

    def kinds(self, name: str) -> list[str]:
        """Return what a side's driver was asked to do, by name."""
        return [type(action).__name__ for action in self.asked[name]]

    def said(self, name: str) -> list[str]:
        """Return the types of the messages of a side."""
        return [
            decode(header + body, header[3]).TYPE
            for sender, header, body in self.frames
            if sender == name
        ]

    def last(self, name: str) -> Message:
        """Return the last message of a side."""
        header, body = [(h, b) for sender, h, b in self.frames if sender == name][-1]
        return decode(header + body, header[3])


def answer(
    side: OwnerSide[str] | ClientSide[str], action: Action, pair: Pair | None = None
) -> Sequence[Action]:
    """Do what a driver does at once for an action, and return what the machine says to that."""
    match action:
        case Consider():
            if pair and not pair.room:
                return side.refuse(Reason.LIMIT, "no room", NOW)
            return side.accept(NOW)
        case Close() | CloseHandles() | Command():
            return []
    if not isinstance(side, OwnerSide):
        return []
    match action:
        case Report():
            sets = [side._estate.sets[name].manifest for name in action.names]
            ends = [Listing(Manifest())]
            return side.listed([*(Listing(each, more=True) for each in sets), *ends], NOW)
        case Park():
            return side.stored(NOW)
        case Store():
            if pair and not pair.store:
                return side.refuse(Reason.FAILED, "the disk is full", NOW)
            held = HeldSet(action.name, action.manifest, action.handles, action.rule, 2000.0)
            side._estate.sets[action.name] = held
            return side.stored(NOW)
        case DropSets():
            for name in action.names:
                del side._estate.sets[name]
            return side.dropped(NOW)
    return []
