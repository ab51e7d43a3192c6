"""One direction of a transfer, manifest first and then chunks of handles. Pure.

A handle is whatever stands for a descriptor: its number in the drivers, a letter in tests.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from sockact.rendezvous.manifest import Identity, Manifest
from sockact.rendezvous.messages import ENTRIES_MAX, Fds, Offer, Reason

H = TypeVar("H")

Identify = Callable[[Sequence[H]], Sequence[Identity]]
"""Tells which file description each handle is."""


class BrokenError(Exception):
    """The peer's message does not fit what was agreed on."""

    def __init__(self, text: str, reason: Reason = Reason.PROTOCOL) -> None:
        super().__init__(text)
        self.text = text
        self.reason = reason


class Giving(Generic[H]):
    """The giver's half; the handles go on belonging to whoever made it."""

    def __init__(self, manifest: Manifest, handles: Sequence[H], chunk: int) -> None:
        """Give these, at most `chunk` in a message."""
        self.manifest = manifest
        self.handles = tuple(handles)
        self._chunk = chunk
        self._acked = 0
        self._sent = 0

    def offers(self) -> list[Offer]:
        """Return the manifest as messages."""
        parts = self.manifest.parts()
        last = len(parts) - 1
        return [Offer(len(self.manifest), part, i != last) for i, part in enumerate(parts)]

    def next_chunk(self) -> tuple[Fds, tuple[H, ...]]:
        """Return the message that follows what was acknowledged, and its handles."""
        first = self._acked
        handles = self.handles[first : first + self._chunk]
        self._sent = first + len(handles)
        return Fds(first, len(handles)), handles

    def smaller_chunk(self) -> tuple[Fds, tuple[H, ...]] | None:
        """Return half of a chunk that the kernel would not take, or None if it cannot be halved."""
        self._chunk = min(self._chunk, self._sent - self._acked)
        if self._chunk < 2:
            return None
        self._chunk //= 2
        return self.next_chunk()

    def acked(self, count: int) -> bool:
        """Note an acknowledgement; return whether it is the last one.

        Raises:
            BrokenError: It is not for what was sent.
        """
        if count != self._sent:
            raise BrokenError(f"{count} descriptors acknowledged instead of {self._sent}")
        self._acked = count
        return count == len(self.handles)


class Receiving(Generic[H]):
    """The receiver's half; it owns the handles that have come until `release`."""

    def __init__(self, identify: Identify[H]) -> None:
        """Begin with nothing."""
        self._identify = identify
        self._parts: list[Manifest] = []
        self._handles: list[H] = []
        self._expected: list[Identity] = []
        self.manifest = Manifest()

    def offered(self, offer: Offer) -> bool:
        """Note a part of the manifest; return whether it is the last one.

        Raises:
            BrokenError: The parts contradict each other, or there are too many.
        """
        if offer.count > ENTRIES_MAX:
            raise BrokenError(f"{offer.count} descriptors are too many", Reason.LIMIT)
        self._parts.append(offer.entries)
        have = sum(map(len, self._parts))
        if not len(offer.entries) or have > offer.count or (have == offer.count) == offer.more:
            raise BrokenError(f"the manifest has {have} entries, {offer.count} are announced")
        if offer.more:
            return False
        self.manifest = Manifest.joined(self._parts)
        self._expected = self.manifest.identities
        return True

    def arrived(self, fds: Fds, handles: Sequence[H]) -> bool:
        """Take handles that came; return whether they are the last ones.

        Raises:
            BrokenError: They are not those that the manifest names.
        """
        begin = len(self._handles)
        self._handles.extend(handles)
        end = len(self._handles)
        if fds.first != begin or fds.count != len(handles) or not handles:
            raise BrokenError(
                f"{len(handles)} descriptors came at {begin}, {fds.count} at {fds.first} announced"
            )
        if end > len(self._expected):
            raise BrokenError("more descriptors came than the manifest names")
        found = list(self._identify(handles))
        if found != self._expected[begin:end]:
            wrong = next(i for i in range(end - begin) if found[i] != self._expected[begin + i])
            entry = self.manifest[begin + wrong]
            raise BrokenError(
                f"descriptor {begin + wrong} ({entry.name} {entry.address}) is not the one that"
                " the manifest names",
                Reason.MISMATCH,
            )
        return end == len(self._expected)

    @property
    def count(self) -> int:
        """How many have arrived."""
        return len(self._handles)

    def has(self, handle: H) -> bool:
        """Whether a handle has been taken in."""
        return handle in self._handles

    def release(self) -> tuple[H, ...]:
        """Give the handles that have come to the caller."""
        handles = tuple(self._handles)
        self._handles = []
        return handles
