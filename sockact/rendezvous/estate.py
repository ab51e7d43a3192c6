"""What an owner has to pass on, and who is taking it over. Pure.

One estate is shared by all connections of an owner: it is how they know of each other.
"""

import enum
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

import attrs

from sockact.rendezvous.manifest import Entry, Manifest
from sockact.rendezvous.policy import Policy, Rule, Who
from sockact.spec import AsValue

H = TypeVar("H")

_NOBODY_ELSE = Rule()


class Phase(enum.Enum):
    """Who has the sockets."""

    STARTING = "this owner is not ready"
    OWNING = "this owner serves"
    HANDING = "this owner serves, and a taker has copies"
    COMMITTING = "this owner has stopped accepting, and waits for the taker's word"
    DRAINING = "the successor serves; this one keeps its copies in reserve"
    RELEASED = "the successor serves; this one has closed its copies"


@attrs.frozen(eq=False, repr=False)
class HeldSet(AsValue, Generic[H]):
    """One set.

    Attributes:
        name: Its name.
        manifest: What it consists of.
        handles: Its descriptors, in the same order; whoever made the set owns them.
        rule: Who may get it.
        since: When it came here, in seconds since 1970.
    """

    name: str
    manifest: Manifest
    handles: tuple[H, ...]
    rule: Rule = _NOBODY_ELSE
    since: float = 0.0


class Estate(Generic[H]):
    """The sets of an owner, and its place at the rendezvous.

    Attributes:
        policy: Who is who.
        generation: How many owners there have been, this one included.
        stores: Whether sets may be put and dropped: whether this is a holder.
        commands: Whether it takes commands.
        parks: Whether it keeps what services have stored with a former owner.
        sets: By name, in the order in which they came.
        duties: What goes along with a takeover beside the sets; see `Entry.role`.
        stored: What goes along with a takeover, but changes more often than that.
        phase: Who has the sockets.
        successor: Who is taking over, or has.
        writers: Names of sets that are being put at this moment.
    """

    def __init__(self, policy: Policy, *, generation: int = 1, stores: bool = False) -> None:
        """Begin with no sets."""
        self.policy = policy
        self.generation = generation
        self.stores = stores
        self.commands = False
        self.parks = False
        self.sets: dict[str, HeldSet[H]] = {}
        self.duties: tuple[Manifest, tuple[H, ...]] = (Manifest(), ())
        self.stored: dict[H, Entry] = {}
        self.phase = Phase.OWNING
        self.successor: Who | None = None
        self.writers: list[str] = []

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it does beyond what every owner does, by the names of the protocol."""
        has = {"store": self.stores, "control": self.commands, "fdstore": self.parks}
        return tuple(name for name, there in has.items() if there)

    def visible(self, who: Who) -> list[HeldSet[H]]:
        """Return the sets that `who` may know of."""
        return [held for held in self.sets.values() if self.policy.may_get(who, held.rule)]

    def chosen(self, who: Who, names: Sequence[str]) -> tuple[Manifest, tuple[H, ...]]:
        """Return what `who` may get under these names, in their order; without names, everything.

        A name is that of a set, or else an fd name. One that comes again adds nothing, so what is
        returned is at most twice what there is.

        Raises:
            KeyError: Nothing that `who` may get has one of the names; its argument is the name.
        """
        sets = self.visible(who)
        if not names:
            return _joined((held.manifest, held.handles) for held in sets)
        return _joined(self._find(sets, name) for name in dict.fromkeys(names))

    def _find(self, sets: Sequence[HeldSet[H]], name: str) -> tuple[Manifest, tuple[H, ...]]:
        # A unit's sockets are called as the unit, unless it says otherwise.
        for wanted in (name, f"{name}.socket"):
            for held in sets:
                if held.name == wanted:
                    return held.manifest, held.handles
        found = []
        for held in sets:
            indices = [i for i, fd_name in enumerate(held.manifest.names) if fd_name == name]
            if indices:
                found.append(
                    (held.manifest.select(indices), tuple(held.handles[i] for i in indices))
                )
        if not found:
            raise KeyError(name)
        return _joined(found)

    def everything(self) -> tuple[Manifest, tuple[H, ...]]:
        """Return what a takeover passes: all sets, then the duties and what is stored."""
        sets = [(held.manifest, held.handles) for held in self.sets.values()]
        stored = [(Manifest(self.stored.values()), tuple(self.stored))] if self.stored else []
        return _joined([*sets, self.duties, *stored])

    def rules(self) -> list[Rule]:
        """Return the rules of all sets."""
        return [held.rule for held in self.sets.values()]


def _joined(
    found: Iterable[tuple[Manifest, tuple[H, ...]]],
) -> tuple[Manifest, tuple[H, ...]]:
    pairs = list(found)
    handles: list[H] = []
    for _, some in pairs:
        handles += some
    return Manifest.joined([manifest for manifest, _ in pairs] or [Manifest()]), tuple(handles)
