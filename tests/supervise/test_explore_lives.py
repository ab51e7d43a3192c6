"""Every way that instances and socket units can go, with whatever their processes do.

A process exists from when it was run until it ends, which it may do at any time, or never, however
it is told to. Times pass only until something is due.
"""

import collections
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar

import attrs
import pytest

from sockact.supervise import instance, unit
from sockact.supervise.instance import Life, Plan
from sockact.supervise.tables import (
    COMMANDS,
    INSTANCE,
    IS_OPEN,
    IS_OVER,
    IS_UP,
    UNIT_COMMANDS,
    Happens,
    Instance,
    Unit,
)
from sockact.supervise.unit import Rules, UnitLife
from tests.supervise.play import flags

S, U = Instance, Unit


Way = tuple[str, Callable[[Any], None]]
"""What can happen, and how it does."""


def _told(name: str, *arguments: object) -> Way:
    """Return a way: the machine is told something."""

    def happens(world: Any) -> None:
        world.tell(getattr(world.life, name)(*arguments, world.now))

    return " ".join([name, *map(str, arguments)]), happens


def _ends(what: str, result: str) -> Way:
    """Return a way: a process ends."""

    def happens(world: Any) -> None:
        getattr(world, what)(result)

    return f"{what} {result}", happens


T = TypeVar("T")


def _shallow(one: T) -> T:
    """Return a copy, faster than `copy.copy`."""
    new = object.__new__(type(one))
    new.__dict__.update(one.__dict__)
    return new


class World:
    """A machine, and what surrounds it.

    Attributes:
        trace: How it has come to this.
        now: The time.
        stopped: Whether it was told to stop, and has not begun anew since.
    """

    life: Any

    def __init__(self) -> None:
        self.trace: tuple[str, ...] = ()
        self.now = 0.0
        self.stopped = False

    def copy(self) -> Self:
        """Return the same once more."""
        new = _shallow(self)
        new.life = _shallow(self.life)
        new.life._acts = []
        return new

    def key(self) -> tuple[object, ...]:
        """Return all that what comes depends on."""
        raise NotImplementedError

    def ways(self) -> Iterator[Way]:
        """Yield what can happen next."""
        raise NotImplementedError

    def check_after(self, before: Self) -> None:
        """See that this may follow from the world before."""


W = TypeVar("W", bound=World)


def explore(first: W) -> list[W]:
    """Return every world that can come of the first; each step is checked by the worlds."""
    seen = {first.key(): first}
    todo = collections.deque([first])
    while todo:
        world = todo.popleft()
        for name, happens in world.ways():
            new = world.copy()
            new.trace += (name,)
            happens(new)
            new.check_after(world)
            key = new.key()
            if key not in seen:
                seen[key] = new
                todo.append(new)
    return list(seen.values())


def _relative(when: float | None, now: float) -> float | None:
    return None if when is None else when - now


class InstanceWorld(World):
    """An instance and its processes."""

    def __init__(self, plan: Plan, *, others: bool = False) -> None:
        super().__init__()
        self.life: Life = Life(plan)
        self.main = self.control = self.others = self.executed = False
        self.pending: instance.Run | None = None
        self.leaves_others = others

    def key(self) -> tuple[object, ...]:
        """Return all that what comes depends on."""
        life = self.life
        times = (
            life._until,
            life._guard,
            life._up_since if life.plan.runtime and life.ready else None,
        )
        return (
            life.state, life.result, life.reload_result, life.ready, life.said, life.restarts,
            life._index, life._main_index, life._command, life._forgotten, life._last_word,
            life._watchdog, *(_relative(when, self.now) for when in times),
            self.main, self.control, self.others, self.executed, self.pending, self.stopped,
        )  # fmt: skip

    def ways(self) -> Iterator[Way]:
        """Yield what can happen next."""
        life = self.life
        if self.pending is not None:
            yield "run", InstanceWorld.runs
            yield "cannot be run", InstanceWorld.cannot_run
            return
        if self.is_gone():
            yield _told("gone")
            return
        if life.state in IS_OVER:
            yield "start", InstanceWorld.start
        yield "stop", InstanceWorld.stop
        if life.can_reload():
            yield _told("reload")
        if self.main:
            if life.plan.type == "exec" and not self.executed:
                yield "executed", InstanceWorld.runs_program
            yield _ends("main_ends", "success")
            yield _ends("main_ends", "exit-code")
            for word in ("said_ready", "said_reloading", "said_stopping", "said_broken"):
                yield _told(word)
        if self.control:
            yield _ends("command_ends", "success")
            yield _ends("command_ends", "signal")
        if self.others:
            yield "others end", InstanceWorld.others_end
        if life.deadline() is not None:
            yield "late", InstanceWorld.late

    def check_after(self, before: "InstanceWorld") -> None:
        """See that the first failure stays the result, and that the end is the end."""
        if self.trace[-1] == "start":
            return
        if before.life.result != "success":
            assert self.life.result == before.life.result, self.trace
        if before.life.state in IS_OVER:
            assert self.life.state is before.life.state, self.trace
            assert self.life.result == before.life.result, self.trace
            assert self.pending is None, self.trace

    def start(self) -> None:
        """Tell it to start."""
        acts = self.life.start(self.now)
        assert bool(acts) != (self.main or self.control), self.trace
        self.stopped = self.stopped and not acts
        self.tell(acts)

    def is_gone(self) -> bool:
        """Whether its end is waited for, and there is nothing left of it."""
        waits = Happens.GONE in INSTANCE[self.life.state]
        return waits and not (self.main or self.control or self.others)

    def runs(self) -> None:
        """Run what is to be run."""
        run, self.pending = self.pending, None
        assert run
        if run.directive == "ExecStart":
            assert not self.main, self.trace
            self.main, self.executed = True, False
            self.others = self.leaves_others
            self.tell(self.life.forked(self.now))
        else:
            assert not self.control, self.trace
            self.control = True
            self.check(())

    def cannot_run(self) -> None:
        """Find that it cannot be run."""
        run, self.pending = self.pending, None
        assert run
        ended = self.life.main_ended if run.directive == "ExecStart" else self.life.command_ended
        self.tell(ended("resources", self.now))

    def runs_program(self) -> None:
        """Let the main process become its program."""
        self.executed = True
        self.tell(self.life.executed(self.now))

    def main_ends(self, result: str) -> None:
        """Let the main process end."""
        self.main = False
        self.tell(self.life.main_ended(result, self.now))

    def command_ends(self, result: str) -> None:
        """Let the command end."""
        self.control = False
        self.tell(self.life.command_ended(result, self.now))

    def others_end(self) -> None:
        """Let the other processes end."""
        self.others = False

    def stop(self) -> None:
        """Tell it to stop."""
        self.stopped = self.stopped or self.life.state not in IS_OVER
        self.tell(self.life.stop(self.now))

    def late(self) -> None:
        """Let the time pass until something is due."""
        due = self.life.deadline()
        assert due is not None
        assert due >= self.now, self.trace
        self.now = due
        acts = self.life.expire(due)
        assert acts, self.trace  # else it would be due for ever
        self.tell(acts)

    def tell(self, acts: Sequence[instance.Act]) -> None:
        """Take what is to be done."""
        for act in acts:
            if isinstance(act, instance.Run):
                assert self.pending is None, self.trace
                alive = self.main if act.directive == "ExecStart" else self.control
                assert not alive, self.trace
                assert COMMANDS[self.life.state] == act.directive, self.trace
                self.pending = act
            elif isinstance(act, instance.Kill) and act.signal != "ReloadSignal":
                assert Happens.GONE in INSTANCE[self.life.state], self.trace
            elif isinstance(act, instance.Kill):
                assert self.main, self.trace
            elif isinstance(act, instance.KillCommand):
                assert self.control, self.trace
        entered = [act.state for act in acts if isinstance(act, instance.Entered)]
        assert not entered or entered[-1] is self.life.state, self.trace
        self.check(acts)

    def check(self, acts: Sequence[instance.Act]) -> None:
        """See that all is as it has to be."""
        life, state = self.life, self.life.state
        begun = self.pending is not None and self.pending.directive != "ExecStart"
        assert life.main == self.main, self.trace
        assert life.control == (self.control or begun), self.trace
        due = life.deadline()
        if state in IS_OVER:
            assert due is None, self.trace
            assert self.pending is None, self.trace
            assert (state is S.FAILED) == (life.result not in ("success", "exec-condition"))
        elif state not in (S.RUNNING, S.EXITED) and not (state is S.START and self.pending):
            assert due is not None, (state, self.trace)
        if life.plan.watchdog and state in IS_UP - {S.EXITED}:
            assert life._guard is not None, self.trace
        if state in (S.RUNNING, S.RELOAD_SIGNAL, S.RELOAD_NOTIFY):
            assert self.main, self.trace
        if state in IS_UP:
            assert life.result == "success" or state is S.RELOAD, self.trace
            assert not self.stopped, self.trace
            assert life.ready, self.trace
        if state is S.EXITED:
            assert not self.main, self.trace
        if state in COMMANDS and state is not S.START:
            assert self.control or begun, self.trace
        assert len(acts) < 8, self.trace


_BEFORE = flags(ExecStart="x", ExecCondition="x", ExecStartPre="xx")
_AFTER = flags(ExecStart="x", ExecStartPost="x", ExecStop="xx", ExecStopPost="x")
_RELOAD = flags(ExecStart="-", ExecReload="xx", ExecStop="x")
_WATCHED = flags(ExecStart="-", ExecReload="x", ExecStop="x")
_SEVERAL = flags(ExecStart="x-x", ExecStartPost="x", ExecReload="x", ExecStop="x")
_NOTHING = flags(ExecStop="x", ExecReload="x")
_KINDS: dict[str, tuple[Sequence[str], Plan]] = {
    "before": (("exec", "notify-reload"), Plan(commands=_BEFORE)),
    "after": (("simple", "notify-reload"), Plan(commands=_AFTER)),
    "reload": (("notify",), Plan(commands=_RELOAD)),
    "remains": (("notify-reload", "oneshot"), Plan(commands=_RELOAD, remains=True)),
    "spared": (("notify",), Plan(commands=_AFTER, kills=False)),
    "others": (("simple", "notify-reload"), Plan(commands=flags(ExecStart="x", ExecStop="x"))),
    "watched": (("exec", "notify-reload"), Plan(commands=_WATCHED, watchdog=2.0, runtime=8.0)),
    "several": (("oneshot",), Plan(commands=_SEVERAL)),
    "nothing": (("oneshot",), Plan(commands=_NOTHING, remains=True)),
}
_PLANS = {
    f"{kind} {name}": attrs.evolve(plan, type=kind, start=3.0, stop=5.0, abort=7.0)
    for name, (kinds, plan) in _KINDS.items()
    for kind in kinds
}


@functools.cache
def _worlds(name: str) -> list[InstanceWorld]:
    return explore(InstanceWorld(_PLANS[name], others=name.endswith("others")))


def _step(world: InstanceWorld, *, deaf: bool) -> None:
    """Let go on what is being stopped, with processes that are deaf or that obey."""
    if world.pending is not None:
        world.runs()
    elif world.is_gone():
        world.tell(world.life.gone(world.now))
    elif deaf:
        world.late()
    elif world.control:
        world.command_ends("signal")
    elif world.main:
        world.main_ends("signal")
    else:
        world.others_end()


def _steps(world: InstanceWorld, known: dict[tuple[object, ...], int], *, deaf: bool) -> int:
    """Return how many steps a world is away from its end, when it is stopped now."""
    world = world.copy()
    if world.pending is not None:
        world.runs()
    world.stop()
    keys = []
    while world.life.state not in IS_OVER and (key := world.key()) not in known:
        keys.append(key)
        assert len(keys) < 30, world.trace
        _step(world, deaf=deaf)
    rest = 0 if world.life.state in IS_OVER else known[world.key()]
    known.update((key, rest + count) for count, key in enumerate(reversed(keys), 1))
    return rest + len(keys)


@pytest.mark.parametrize("name", _PLANS)
def test_instances(name: str) -> None:
    """Whatever happens, nothing is run twice at a time, all ends in time, and the end is the end."""
    worlds = _worlds(name)
    for deaf in (True, False):
        known: dict[tuple[object, ...], int] = {}
        for world in worlds:
            assert _steps(world, known, deaf=deaf) <= 12, world.trace


def test_instances_are_everywhere() -> None:
    """These together come into every state there is."""
    names = ("notify-reload before", "notify-reload after", "notify-reload remains")
    assert {world.life.state for name in names for world in _worlds(name)} == set(S)


class UnitWorld(World):
    """A socket unit, its command and its sockets."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.life: UnitLife = UnitLife(rules)
        self.control = self.open = self.opening = False
        self.pending: instance.Run | None = None

    def key(self) -> tuple[object, ...]:
        """Return all that what comes depends on."""
        life = self.life
        return (
            life.state, life.result, life.control, life._command, _relative(life._until, self.now),
            self.control, self.open, self.opening, self.pending, self.stopped,
        )  # fmt: skip

    def ways(self) -> Iterator[Way]:
        """Yield what can happen next."""
        if self.pending is not None:
            yield "run", UnitWorld.runs
            yield "cannot be run", UnitWorld.cannot_run
            return
        if self.opening:
            yield "opened", UnitWorld.opened
        if self.life.state in (U.DEAD, U.FAILED):
            yield "start", UnitWorld.start
        yield "stop", UnitWorld.stop
        if self.control:
            yield _ends("command_ends", "success")
            yield _ends("command_ends", "signal")
        for name in ("has_triggered", "deferred", "active", "inactive", "limit_hit"):
            yield _told(name)
        yield _told("refused", "resources")
        yield "broken", UnitWorld.breaks
        if self.life.deadline() is not None:
            yield "late", UnitWorld.late

    def start(self) -> None:
        """Tell it to start."""
        self.stopped = False
        self.tell(self.life.start(self.now))

    def stop(self) -> None:
        """Tell it to stop."""
        self.stopped = True
        self.opening = False
        self.tell(self.life.stop(self.now))

    def opened(self) -> None:
        """Open the sockets."""
        self.opening, self.open = False, True
        self.tell(self.life.opened(self.now))

    def breaks(self) -> None:
        """Find that the sockets cannot be used."""
        self.opening = False
        self.tell(self.life.broken("resources", self.now))

    def runs(self) -> None:
        """Run what is to be run."""
        assert not self.control, self.trace
        self.pending, self.control = None, True

    def cannot_run(self) -> None:
        """Find that it cannot be run."""
        self.pending = None
        self.tell(self.life.command_ended("resources", self.now))

    def command_ends(self, result: str) -> None:
        """Let the command end."""
        self.control = False
        self.tell(self.life.command_ended(result, self.now))

    def late(self) -> None:
        """Let the time pass until something is due."""
        due = self.life.deadline()
        assert due is not None
        self.now = due
        acts = self.life.expire(due)
        assert acts, self.trace
        self.tell(acts)

    def tell(self, acts: Sequence[unit.Act]) -> None:
        """Take what is to be done, and see that all is as it has to be."""
        for act in acts:
            if isinstance(act, instance.Run):
                assert self.pending is None, self.trace
                assert not self.control, self.trace
                self.pending = act
            elif isinstance(act, unit.Open):
                assert not self.open, self.trace
                self.opening = True
            elif isinstance(act, unit.Close):
                self.open = False
            elif isinstance(act, instance.Kill):
                assert self.control, self.trace
            elif isinstance(act, unit.Flush):
                assert self.open, self.trace
                assert self.life.polls, self.trace
        state = self.life.state
        assert self.life.control == (self.control or self.pending is not None), self.trace
        if self.open:
            assert state in IS_OPEN, self.trace
        if state in (U.START_POST, U.LISTENING, U.DEFERRED, U.RUNNING, U.LIMITED):
            assert self.open, self.trace
            assert not self.stopped, self.trace
        if state in (U.DEAD, U.FAILED):
            assert (state is U.FAILED) == (self.life.result != "success"), self.trace
            assert self.life.deadline() is None, self.trace
            assert self.pending is None, self.trace
        elif self.control or self.pending is not None:
            assert self.life.deadline() is not None, self.trace


_RULES = {
    "plain": Rules(),
    "each": Rules(commands=flags(**dict.fromkeys(UNIT_COMMANDS.values(), "x-")), timeout=5.0),
    "recovers": Rules(
        commands=flags(**dict.fromkeys(UNIT_COMMANDS.values(), "x")),
        recovers=9.0, patience=8.0, timeout=5.0, flushes=True,
    ),
    "accepts": Rules(accepts=True, commands=flags(ExecStopPre="x"), flushes=True),
}  # fmt: skip


@pytest.mark.parametrize("name", _RULES)
def test_units(name: str) -> None:
    """One command at a time, sockets opened and closed in turn, and every stop ends in time."""
    worlds = explore(UnitWorld(_RULES[name]))
    if name == "recovers":
        assert {one.life.state for one in worlds} == set(U)
    for world in worlds:
        for deaf in (True, False):
            one, steps = world.copy(), 0
            if one.pending is not None:
                one.runs()
            one.stop()
            while one.life.state not in (U.DEAD, U.FAILED):
                if one.pending is not None:
                    one.runs()
                elif deaf or not one.control:
                    one.late()
                else:
                    one.command_ends("signal")
                steps += 1
                assert steps < 12, one.trace
            assert not one.open, one.trace
