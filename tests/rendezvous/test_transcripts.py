"""Old versions stay supported: either end comes to the recorded end with the recorded peer."""

import json
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from sockact.rendezvous.actions import Action, Send
from sockact.rendezvous.client import ClientSide
from sockact.rendezvous.messages import Alive, Message
from sockact.rendezvous.tables import FINAL
from sockact.rendezvous.wire import HEADER, Framer, decode, encode
from tests.rendezvous.pair import NOW, Pair
from tests.rendezvous.record import (
    CASES,
    HERE,
    client_in,
    deed,
    estate_in,
    outcome,
    record,
    who_in,
)

if TYPE_CHECKING:
    from sockact.rendezvous.owner import OwnerSide

FILES = sorted(path.name for path in HERE.glob("v*.json"))


class Replay:
    """One end that talks with a transcript."""

    def __init__(self, name: str, transcript: dict[str, Any]) -> None:
        setup = transcript["setup"]
        self.name = name
        self.steps = transcript["steps"]
        self.said: deque[Message] = deque()
        self._pair = Pair(estate_in(setup), client_in(setup), who_in(setup))
        self._pair.room = not setup.get("no_room")
        self.side: OwnerSide[str] | ClientSide[str] = (
            self._pair.owner if name == "owner" else self._pair.client
        )
        gives = setup.get("give", "") if name == "owner" else "".join(
            handle for held in self._pair.estate.sets.values() for handle in held.handles
        )  # fmt: skip
        self._handles = {ord(handle): handle for handle in gives}
        self._inodes: list[int] = []

    @property
    def asked(self) -> Sequence[Action]:
        """Return what the driver was asked to do."""
        return self._pair.asked[self.name]

    def run(self) -> None:
        """Go through the steps: hear the peer's, and say our own in the same order."""
        if isinstance(self.side, ClientSide):
            self._perform(self.side.start())
        for step in self.steps:
            if step["from"] != self.name:
                if "does" not in step:
                    self._hear(bytes.fromhex(step["header"]) + step["body"].encode("ascii"))
            elif "does" in step:
                self._perform(deed(self.side, step["does"]))
            else:
                body = step["body"].encode("ascii")
                expected = decode(bytes.fromhex(step["header"]) + body, step_fds(step))
                assert self.said, f"a {expected.TYPE} message is missing"
                message = self.said.popleft()
                assert message.TYPE == expected.TYPE
        assert not [m.TYPE for m in self.said if not isinstance(m, Alive)], "too much is said"

    def _hear(self, frame: bytes) -> None:
        """Read a frame of the peer's from a stream; its descriptors follow its manifest."""
        count = frame[3]
        message = json.loads(frame[HEADER.size :])
        if message["type"] == "offer":
            entries = message["entries"]
            inodes = entries.get("inode", 0)
            many = inodes if isinstance(inodes, list) else [inodes] * entries["count"]
            self._inodes += many
        inodes, self._inodes = self._inodes[:count], self._inodes[count:] if count else self._inodes
        handles = tuple(f"{self._handles[inode]}'" for inode in inodes)
        framer: Framer[str] = Framer()
        framer.feed(frame, handles)
        got = framer.next()
        assert got
        assert framer.next() is None
        self._perform(self.side.receive(*got, NOW))

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                encode(action.message, len(action.handles))
                self.said.append(action.message)
                continue
            self._pair.asked[self.name].append(action)
            self._perform(self._pair.answer(self.name, action))


def step_fds(step: dict[str, str]) -> int:
    """Return how many descriptors go with a recorded frame."""
    return bytes.fromhex(step["header"])[3]


@pytest.mark.parametrize("side", ["owner", "client"])
@pytest.mark.parametrize("name", FILES)
def test_an_end_comes_to_the_recorded_end(name: str, side: str) -> None:
    """Whatever version the peer is of, the same is said in the same order, and the same comes of it."""
    transcript = json.loads((HERE / name).read_text(encoding="ascii"))
    replay = Replay(side, transcript)
    replay.run()
    assert outcome(replay.asked) == transcript["outcome"][side]
    assert replay.side.state in FINAL


@pytest.mark.parametrize("case", CASES)
def test_a_transcript_is_there_for_each_case(case: str) -> None:
    """What is recorded now has a file, so that it will be replayed when it is old."""
    setup, script = CASES[case]
    found = json.loads(json.dumps(record(setup, script)))
    name = f"v{found['version']}-{case}.json"
    assert name in FILES
    assert found["outcome"] == json.loads((HERE / name).read_text(encoding="ascii"))["outcome"]


def test_a_replay_notices_what_is_missing() -> None:
    """If a side says less than it did, or comes to another end, the replay fails."""
    transcript = json.loads((HERE / "v1-takeover.json").read_text(encoding="ascii"))
    transcript["steps"] = [
        step for step in transcript["steps"] if '"type":"commit"' not in step.get("body", "")
    ]
    with pytest.raises(AssertionError, match="a committed message is missing"):
        Replay("client", transcript).run()
    with pytest.raises(AssertionError):
        Replay("owner", transcript).run()
