"""sockact.supervise.tables, and that the machines move as the tables say."""

import enum
from collections.abc import Mapping
from typing import TypeVar

import pytest

from sockact.supervise.tables import (
    COMMANDS,
    INSTANCE,
    IS_FINAL,
    IS_OPEN,
    IS_OVER,
    IS_STARTING,
    IS_UP,
    UNIT,
    UNIT_COMMANDS,
    Happens,
    Instance,
    Occurs,
    Unit,
)
from tests.supervise.play import Play, UnitPlay

S, H, U, O = Instance, Happens, Unit, Occurs  # noqa: E741


State = TypeVar("State", bound=enum.Enum)
Event = TypeVar("Event", bound=enum.Enum)


def _reach(table: Mapping[State, Mapping[Event, State]], start: State) -> set[State]:
    found, todo = {start}, [start]
    while todo:
        new = set(table[todo.pop()].values()) - found
        found |= new
        todo += new
    return found


class TestAsData:
    def test_complete(self) -> None:
        """Every state stands in its table, and every event is of use."""
        assert set(INSTANCE) == set(S)
        assert set(UNIT) == set(U)
        assert {event for row in INSTANCE.values() for event in row} == set(H)
        assert {event for row in UNIT.values() for event in row} == set(O)

    def test_all_states_can_be_reached(self) -> None:
        """A state that nothing leads to is not there; how the special ones are meant is said."""
        assert _reach(INSTANCE, S.DEAD) == set(S) - {S.EXITED, S.FAILED}  # RUNNING and DEAD
        assert _reach(UNIT, U.DEAD) == set(U) - {U.FAILED}

    @pytest.mark.parametrize("state", S)
    def test_instances_can_end(self, state: Instance) -> None:
        """From everywhere there is a way to the end."""
        assert S.DEAD in _reach(INSTANCE, state)

    @pytest.mark.parametrize("state", U)
    def test_units_can_end(self, state: Unit) -> None:
        """From everywhere there is a way to the end."""
        assert U.DEAD in _reach(UNIT, state)

    def test_whatever_lasts_can_be_stopped_or_is_late(self) -> None:
        """A state is over, or an end is on the way that time brings about, or it can be stopped."""
        for state in set(S) - IS_OVER:
            assert {H.STOP, H.LATE} & set(INSTANCE[state]), state
        for unit in set(U) - {U.DEAD, U.FAILED}:
            assert {O.STOP, O.LATE} & set(UNIT[unit]), unit

    def test_no_way_back_from_a_stop(self) -> None:
        """What is being stopped is not up again before it was at its end."""
        stopping = {state for state in S if state.value.startswith(("stop", "final"))}
        for state in stopping:
            assert set(INSTANCE[state].values()) <= stopping | {S.DEAD}
        closing = {unit for unit in U if unit.value.startswith(("stop", "final"))}
        for unit in closing:
            assert set(UNIT[unit].values()) <= closing | {U.DEAD}

    def test_groups(self) -> None:
        """A state that has not ended is starting, up, or being stopped; nothing is two of these."""
        assert not IS_UP & IS_STARTING
        assert IS_OVER < IS_FINAL
        assert not IS_FINAL & (IS_UP | IS_STARTING)
        assert set(COMMANDS) - IS_STARTING - IS_UP == {S.STOP, S.STOP_POST}

    def test_names(self) -> None:
        """The states are called as systemd calls them; one is ours."""
        assert {state.value for state in S} < _SYSTEMD_SERVICE
        assert {unit.value for unit in U} - _SYSTEMD_SOCKET == {"limited"}

    def test_commands_end(self) -> None:
        """A state with commands knows what follows if they succeed, fail, or take too long."""
        for state in COMMANDS:
            assert {H.DONE, H.BROKEN, H.LATE} <= set(INSTANCE[state])
        for unit in UNIT_COMMANDS:
            assert {O.DONE, O.UNDONE, O.LATE} <= set(UNIT[unit])

    def test_sockets_are_closed_only_on_the_way_to_the_end(self) -> None:
        """From a state with open sockets one comes to another, or to the end."""
        for unit in IS_OPEN:
            assert set(UNIT[unit].values()) <= IS_OPEN | {U.STOP_POST, U.DEAD}


# ``systemctl --state=help`` of versions 252 to 258.
_SYSTEMD_SERVICE = set(
    "dead condition start-pre start start-post running exited reload reload-signal reload-notify "
    "stop stop-watchdog stop-sigterm stop-sigkill stop-post final-watchdog final-sigterm "
    "final-sigkill failed dead-before-auto-restart failed-before-auto-restart "
    "dead-resources-pinned auto-restart auto-restart-queued cleaning".split()
)
_SYSTEMD_SOCKET = set(
    "dead start-pre start-open start-chown start-post listening deferred running stop-pre "
    "stop-pre-sigterm stop-pre-sigkill stop-post final-sigterm final-sigkill failed "
    "cleaning".split()
)

# --- the machines ---------------------------------------------------------------------------------

# How each state is come into by an instance that has one command of each kind.
_WAYS: dict[Instance, tuple[str, ...]] = {
    S.DEAD: (),
    S.CONDITION: ("start",),
    S.START_PRE: ("start", "done"),
    S.START: ("start", "done", "done"),
    S.START_POST: ("start", "done", "done", "said_ready"),
    S.RUNNING: ("start", "done", "done", "said_ready", "done"),
    S.EXITED: ("start", "done", "done", "said_ready", "done", "ends"),
    S.RELOAD: ("start", "done", "done", "said_ready", "done", "reload"),
    S.RELOAD_SIGNAL: ("start", "done", "done", "said_ready", "done", "reload", "done"),
    S.RELOAD_NOTIFY: ("start", "done", "done", "said_ready", "done", "said_reloading"),
    S.STOP: ("start", "done", "done", "said_ready", "done", "stop"),
    S.STOP_WATCHDOG: ("start", "done", "done", "said_ready", "done", "said_broken"),
    S.STOP_SIGTERM: ("start", "done", "done", "stop"),
    S.STOP_SIGKILL: ("start", "done", "done", "stop", "late"),
    S.STOP_POST: ("start", "done", "done", "stop", "ends", "gone"),
    S.FINAL_SIGTERM: ("start", "done", "done", "stop", "ends", "gone", "done"),
    S.FINAL_SIGKILL: ("start", "done", "done", "stop", "ends", "gone", "done", "late"),
    S.FAILED: ("start", "done resources"),
}

# What makes each event happen, as far as it can happen in a state at all.
_EVENTS: dict[Happens, str] = {
    H.START: "start",
    H.STOP: "stop",
    H.RELOAD: "reload",
    H.DONE: "done",
    H.BROKEN: "done exit-code",
    H.UNABLE: "done resources",
    H.EXECUTED: "executed",
    H.EXITED: "ends",
    H.READY: "said_ready",
    H.RELOADING: "said_reloading",
    H.SIGNALLED: "done",
    H.STOPPING: "said_stopping",
    H.GONE: "gone",
    H.LATE: "late",
    H.SPARED: "late",
    H.SILENT: "said_broken",
}


def _let(play: Play | UnitPlay, what: str) -> None:
    if what == "late":
        play.late()
    else:
        play(what)


def _instance(state: Instance, event: Happens) -> Play:
    kind = {H.EXECUTED: "exec", H.SIGNALLED: "notify-reload"}.get(event, "notify")
    if state is S.RELOAD_SIGNAL:
        kind = "notify-reload"
    if state is S.START and event in (H.DONE, H.BROKEN):
        kind = "oneshot"
    play = Play(
        kind,
        runtime=50.0 if event is H.LATE else None,
        kills=event is not H.SPARED or state in (S.STOP_SIGKILL, S.FINAL_SIGKILL),
        remains=state is S.EXITED,
        each=True,
    )
    play.others = True  # so that nothing is gone before it is said
    for what in _WAYS[state]:
        _let(play, "executed" if kind == "exec" and what == "said_ready" else what)
    assert play.life.state is state
    return play


def _can_happen(play: Play, state: Instance, event: Happens) -> bool:
    life = play.life
    if event in (H.DONE, H.BROKEN, H.UNABLE):
        return life.control or (state is S.START and event is not H.UNABLE)
    return {
        H.EXITED: life.main and life.plan.type != "oneshot",
        H.LATE: life.deadline() is not None,
        H.SPARED: not life.plan.kills and event in INSTANCE[state],
        H.SIGNALLED: state is S.RELOAD,
    }.get(event, True)


# Where it depends on Type=, or a command has to end first; the machine's own tests have more.
_EXCEPTIONS = {
    (S.START, H.EXITED): S.STOP_SIGTERM,
    (S.START, H.RELOADING): S.START,
    (S.RELOAD, H.RELOADING): S.RELOAD,
}


def _target(play: Play, state: Instance, event: Happens) -> Instance:
    """Return where an event has led to."""
    target = INSTANCE[state].get(event, state)
    target = _EXCEPTIONS.get((state, event), target)
    if target is S.RUNNING and not play.life.main:
        return S.EXITED if play.life.plan.remains else S.STOP
    good = play.life.result in ("success", "exec-condition")
    return target if target is not S.DEAD or good else S.FAILED


@pytest.mark.parametrize("event", H)
@pytest.mark.parametrize("state", S)
def test_instance_moves_by_the_table(state: Instance, event: Happens) -> None:
    """In each state each event does what its cell says, or nothing."""
    play = _instance(state, event)
    if not _can_happen(play, state, event):
        assert event not in INSTANCE[state]
        return
    what = _EVENTS[event]
    if state is S.START and event in (H.DONE, H.BROKEN):
        what = what.replace("done", "ends")
    _let(play, what)
    assert play.life.state is _target(play, state, event)


_UNIT_WAYS: dict[Unit, tuple[str, ...]] = {
    U.DEAD: (),
    U.START_PRE: ("start",),
    U.START_OPEN: ("start", "done"),
    U.START_POST: ("start", "done", "opened"),
    U.LISTENING: ("start", "done", "opened", "done"),
    U.DEFERRED: ("start", "done", "opened", "done", "deferred"),
    U.RUNNING: ("start", "done", "opened", "done", "has_triggered"),
    U.LIMITED: ("start", "done", "opened", "done", "limit_hit"),
    U.STOP_PRE: ("start", "done", "opened", "done", "stop"),
    U.STOP_PRE_SIGTERM: ("start", "done", "opened", "stop"),
    U.STOP_PRE_SIGKILL: ("start", "done", "opened", "stop", "late"),
    U.STOP_POST: ("start", "done", "opened", "done", "stop", "done"),
    U.FINAL_SIGTERM: ("start", "late"),
    U.FINAL_SIGKILL: ("start", "late", "late"),
    U.FAILED: ("start", "done exit-code"),
}
_UNIT_EVENTS: dict[Occurs, str] = {
    O.START: "start",
    O.STOP: "stop",
    O.DONE: "done",
    O.UNDONE: "done signal",
    O.ENDED: "done",
    O.LATE: "late",
    O.BROKEN: "broken resources",
    O.TRIGGERED: "has_triggered",
    O.DEFERRED: "deferred",
    O.REFUSED: "refused resources",
    O.ACTIVE: "active",
    O.INACTIVE: "inactive",
    O.LIMIT: "limit_hit",
    O.TIRED: "refused service-start-limit-hit",
}


def _can_occur(play: UnitPlay, state: Unit, event: Occurs) -> bool:
    life, commands = play.life, state in UNIT_COMMANDS
    return {
        O.DONE: (life.control and commands) or state is U.START_OPEN,
        O.UNDONE: life.control and commands,
        O.ENDED: life.control and not commands,
        O.LATE: life.deadline() is not None,
        O.LIMIT: life.rules.recovers is None,
    }.get(event, True)


@pytest.mark.parametrize("event", O)
@pytest.mark.parametrize("state", U)
def test_unit_moves_by_the_table(state: Unit, event: Occurs) -> None:
    """In each state each event does what its cell says, or nothing."""
    recovers = 5.0 if event is O.TIRED or state is U.LIMITED else None
    play = UnitPlay(recovers=recovers, patience=7.0, each=True)
    for what in _UNIT_WAYS[state]:
        _let(play, what)
    assert play.life.state is state
    if not _can_occur(play, state, event):
        assert event not in UNIT[state]
        return
    target = UNIT[state].get(event, state)
    _let(play, "opened" if state is U.START_OPEN and event is O.DONE else _UNIT_EVENTS[event])
    if target is U.DEAD and play.life.result != "success":
        target = U.FAILED
    assert play.life.state is target
