"""What an end of a connection wants done: frozen values, carried out by its driver. Pure."""

from typing import Generic, TypeVar

import attrs

from sockact.rendezvous.manifest import Manifest
from sockact.rendezvous.messages import Json, Listing, Message, Reason
from sockact.rendezvous.policy import Rule
from sockact.spec import AsValue

H = TypeVar("H")


@attrs.frozen(eq=False, repr=False)
class Action(AsValue):
    """Something for the driver to do."""


@attrs.frozen(eq=False, repr=False)
class Send(Action, Generic[H]):
    """Send a message; the handles that go with it stay with whoever owns them."""

    message: Message
    handles: tuple[H, ...] = ()


@attrs.frozen(eq=False, repr=False)
class CloseHandles(Action, Generic[H]):
    """Close handles that were received and are not wanted."""

    handles: tuple[H, ...]


@attrs.frozen(eq=False, repr=False)
class Close(Action):
    """The conversation is over: close the connection when everything is sent."""


@attrs.frozen(eq=False, repr=False)
class Consider(Action):
    """Find out whether there is room for so many descriptors; then `accept` or `refuse`."""

    count: int


@attrs.frozen(eq=False, repr=False)
class Adopt(Action, Generic[H]):
    """The handles have come whole and verified; they are the driver's."""

    manifest: Manifest
    handles: tuple[H, ...]


@attrs.frozen(eq=False, repr=False)
class StopAccepting(Action):
    """Owner: accept no more connections, neither those of clients nor at the rendezvous."""


@attrs.frozen(eq=False, repr=False)
class Yielded(Action):
    """Owner: the successor serves; drain."""


@attrs.frozen(eq=False, repr=False)
class CloseReserve(Action):
    """Owner: close the copies of everything that was handed over."""


@attrs.frozen(eq=False, repr=False)
class Resume(Action):
    """Owner: serve again; why is for people."""

    why: str


@attrs.frozen(eq=False, repr=False)
class Report(Action):
    """Owner: describe these sets to the client; then `listed`."""

    names: tuple[str, ...]


@attrs.frozen(eq=False, repr=False)
class Store(Action, Generic[H]):
    """Owner: keep a set that was put; its handles are the driver's; then `stored` or `refuse`."""

    name: str
    rule: Rule
    manifest: Manifest
    handles: tuple[H, ...]


@attrs.frozen(eq=False, repr=False)
class Park(Action, Generic[H]):
    """Owner: keep what a service has stored with the former owner; then `stored` or `refuse`.

    Its handles are the driver's.
    """

    manifest: Manifest
    handles: tuple[H, ...]


@attrs.frozen(eq=False, repr=False)
class DropSets(Action):
    """Owner: close these sets; then `dropped`."""

    names: tuple[str, ...]


@attrs.frozen(eq=False, repr=False)
class Command(Action):
    """Owner: carry out a command, however long that takes; then `answered`, `failed` or `refuse`.

    Attributes:
        name: Which one.
        arguments: What it needs to know.
    """

    name: str
    arguments: Json


@attrs.frozen(eq=False, repr=False)
class Inherit(Action):
    """Client: the owner died; whatever it served is held only here now."""


@attrs.frozen(eq=False, repr=False)
class Lead(Action):
    """Client: it is the owner from now on."""


@attrs.frozen(eq=False, repr=False)
class StepDown(Action):
    """Client: it serves no more; the owner has taken back, or may now that it is told."""


@attrs.frozen(eq=False, repr=False)
class Alone(Action):
    """Client: the former owner is gone."""


@attrs.frozen(eq=False, repr=False)
class Listed(Action):
    """Client: a part of what there is."""

    listing: Listing


@attrs.frozen(eq=False, repr=False)
class Answered(Action):
    """Client: a part of the answer to a command."""

    text: str


@attrs.frozen(eq=False, repr=False)
class Succeeded(Action):
    """Client: what was asked for is done."""


@attrs.frozen(eq=False, repr=False)
class Failed(Action):
    """It came to nothing, and nothing has changed for whoever served before.

    Attributes:
        reason: Why.
        text: Why, for a person.
        refused: Whether the peer said no, rather than that something broke.
        lost: Whether the peer was lost without a word.
    """

    reason: Reason
    text: str
    refused: bool = False
    lost: bool = False
