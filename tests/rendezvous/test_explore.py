"""Every state that a takeover can reach, and proof that the exploration would see a broken rule."""

from typing import Any

import pytest

from sockact.rendezvous.actions import (
    Action,
    Adopt,
    CloseReserve,
    Command,
    Lead,
    Resume,
    Send,
    StepDown,
    Succeeded,
)
from sockact.rendezvous.client import ClientSide
from sockact.rendezvous.machine import Side
from sockact.rendezvous.messages import (
    Abort,
    Ack,
    Adopted,
    Answer,
    Commit,
    Drain,
    Fds,
    Message,
    Ready,
    Reason,
)
from sockact.rendezvous.owner import OwnerSide
from sockact.rendezvous.tables import ClientState, Event, OwnerState
from tests.rendezvous import explore_command
from tests.rendezvous.explore import SCENARIOS, Exploration, Scenario
from tests.rendezvous.explore_command import CommandScenario


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_state_keeps_the_rules(name: str) -> None:
    """In whatever order things happen, the invariants hold, and it comes to a good end."""
    found = Exploration(SCENARIOS[name])
    print(f"{name}: {found.states} states, {found.moves} moves")
    assert found.states >= 50


def test_every_state_of_a_takeover_occurs() -> None:
    """The exploration leaves out no state that a takeover has."""
    seen = Exploration(Scenario()).seen()
    puts = {
        OwnerState.REPORTING, OwnerState.EXPECTING, OwnerState.CONSIDERING, OwnerState.RECEIVING,
        OwnerState.STORING, OwnerState.DROPPING, OwnerState.OBEYING,
        ClientState.OFFERED, ClientState.SENDING, ClientState.SENT, ClientState.DONE,
        ClientState.COMMANDED,
    }  # fmt: skip
    assert seen == {*OwnerState, *ClientState} - puts


@pytest.mark.parametrize("name", explore_command.SCENARIOS)
def test_every_state_of_a_command_keeps_the_rules(name: str) -> None:
    """In whatever order things happen, a command is carried out once, and answered whole."""
    found = Exploration(explore_command.SCENARIOS[name])
    print(f"{name}: {found.states} states, {found.moves} moves")
    assert found.states >= 30


class ClosesAtCommit(OwnerSide[str]):
    """Closes its reserve when it says Commit."""

    def _moved(self, message: Message, now: float) -> list[Action]:
        actions = super()._moved(message, now)
        commits = any(isinstance(a, Send) and isinstance(a.message, Commit) for a in actions)
        return [*actions, CloseReserve()] if commits else actions


class ClosesAtDrain(OwnerSide[str]):
    """Closes its reserve when it says Drain."""

    def _moved(self, message: Message, now: float) -> list[Action]:
        actions = super()._moved(message, now)
        drains = any(isinstance(a, Send) and isinstance(a.message, Drain) for a in actions)
        return [*actions, CloseReserve()] if drains else actions


class NeverResumes(OwnerSide[str]):
    """Does not serve again when its successor is lost."""

    def _end(self, *args: Any, **named: Any) -> list[Action]:
        actions = super()._end(*args, **named)
        return [action for action in actions if not isinstance(action, Resume)]


class ResumesFromDrain(OwnerSide[str]):
    """Serves again when it breaks off its own drain, though its successor leads."""

    def _end(self, event: Event, *args: Any, **named: Any) -> list[Action]:
        if self.state is not OwnerState.DRAINING:
            return super()._end(event, *args, **named)
        told = named.pop("told", None)
        actions = super()._end(event, *args, **named)
        return [Send(told), *actions] if told else actions


class StopsEarly(OwnerSide[str]):
    """Commits when the taker has adopted, without waiting for Ready."""

    def _adopted(self, now: float) -> list[Action]:
        super()._adopted(now)
        self._move(Event.READY, now)
        return super()._moved(Ready(), now)


class SaysNothing(OwnerSide[str]):
    """Breaks off without an Abort."""

    def _end(self, *args: Any, **named: Any) -> list[Action]:
        actions = super()._end(*args, **named)
        return [
            action
            for action in actions
            if not (isinstance(action, Send) and isinstance(action.message, Abort))
        ]


class LeadsAtAdopted(ClientSide[str]):
    """Leads as soon as it has everything."""

    def _whole(self) -> tuple[Event, list[Action]]:
        event, actions = super()._whole()
        self._led = True
        return event, [*actions, Lead()]


class AdoptsParts(ClientSide[str]):
    """Adopts each chunk as it comes."""

    def _arrived(self, fds: Fds, handles: Any, now: float) -> list[Action]:
        self._receiving.arrived(fds, handles)
        self._move(Event.FDS_ALL, now)
        count = self._receiving.count
        adopt = Adopt(self._receiving.manifest, self._receiving.release())
        return [Send(Ack(count)), adopt, Send(Adopted())]


class NeverStepsDown(ClientSide[str]):
    """Goes on serving when the owner has taken back."""

    def _end(self, *args: Any, **named: Any) -> list[Action]:
        actions = super()._end(*args, **named)
        return [action for action in actions if not isinstance(action, StepDown)]


class KeepsHandles(ClientSide[str]):
    """Forgets what had come when it fails."""

    def _end(self, *args: Any, **named: Any) -> list[Action]:
        self._receiving.release()
        return super()._end(*args, **named)


class DropsAtDeath(ClientSide[str]):
    """Gives up when the owner dies, though it has everything."""

    def lost(self, now: float, *, dead: bool) -> list[Action]:  # noqa: D102
        if self.state is ClientState.ADOPTED and dead:
            return self._end(Event.DO_CANCEL, Reason.FAILED, "the owner is gone", now)
        return super().lost(now, dead=dead)


class DoesNotLead(ClientSide[str]):
    """Never takes the lead."""

    def _lead(self) -> list[Action]:
        return []


@pytest.mark.parametrize(
    ("side", "rule"),
    [
        (ClosesAtCommit, "I1: the reserve was closed before Committed"),
        (ClosesAtDrain, "the reserve was closed twice"),
        (NeverResumes, "I4: the phase is not what the owner does"),
        (ResumesFromDrain, "I2: both serve"),
        (StopsEarly, "I4: the owner stopped accepting before Ready"),
        (SaysNothing, "inherits from a live owner"),
        (LeadsAtAdopted, "I2: failed, but was not told to step down"),
        (AdoptsParts, "I3: adopted what is not the set"),
        (NeverStepsDown, "I2: failed, but was not told to step down"),
        (KeepsHandles, "I3: a handle is lost"),
        (DropsAtDeath, "I1: nobody holds the sockets"),
        (DoesNotLead, "I2: is alone, and does not serve"),
    ],
)
def test_a_broken_rule_is_seen(side: type[Side[Any, str]], rule: str) -> None:
    """A machine that breaks one rule is caught, and the way there is told."""
    if issubclass(side, OwnerSide):
        scenario = Scenario(owner=side, blind=side is SaysNothing)
    else:
        assert issubclass(side, ClientSide)
        scenario = Scenario(taker=side)
    with pytest.raises(AssertionError, match=rule) as caught:
        Exploration(scenario)
    assert caught.value.__notes__[0].startswith("taker sends; ")


class Refuses(OwnerSide[str]):
    """Refuses a command that has failed, so that its client asks again."""

    def failed(self, text: str, now: float) -> list[Action]:  # noqa: D102
        return self.refuse(Reason.BUSY, text, now)


class BeginsTwice(OwnerSide[str]):
    """Carries out a command when it comes, and once more when its client is gone."""

    def lost(self, now: float, *, dead: bool) -> list[Action]:  # noqa: D102
        actions = super().lost(now, dead=dead)
        again = [Command(self._request.command, self._request.arguments)]
        return again + actions if self._request.command else actions


class HearsOnePart(ClientSide[str]):
    """Takes the first part of an answer for all of it."""

    def _answered(self, answer: Answer, now: float) -> list[Action]:
        actions = super()._answered(answer, now)
        return [*actions, Succeeded()] if answer.more else actions


@pytest.mark.parametrize(
    ("side", "rule"),
    [
        (Refuses, "what was begun is refused"),
        (BeginsTwice, "a command is carried out twice"),
        (HearsOnePart, "the answer is not whole"),
    ],
)
def test_a_broken_rule_of_commands_is_seen(side: type[Side[Any, str]], rule: str) -> None:
    """As above, of commands."""
    if issubclass(side, OwnerSide):
        scenario = CommandScenario(owner=side)
    else:
        assert issubclass(side, ClientSide)
        scenario = CommandScenario(taker=side)
    with pytest.raises(AssertionError, match=rule) as caught:
        Exploration(scenario)
    assert caught.value.__notes__[0].startswith("taker sends; ")
