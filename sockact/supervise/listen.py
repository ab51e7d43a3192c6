"""Socket units at work: their sockets, who is told of traffic, and the limits of that."""

import contextlib
import logging
import signal
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Protocol

from sockact import directives as d
from sockact.activation.launch import chosen_ports
from sockact.errors import SockactError
from sockact.sockets.accept import Accepted, Acceptor, Plans
from sockact.sockets.flush import flush
from sockact.sockets.socketset import NamedSocket, SocketSet
from sockact.spec import ServiceSpec, SocketSpec
from sockact.supervise import family
from sockact.supervise.connection import Connections, source, text
from sockact.supervise.exit import Exit
from sockact.supervise.given import Given
from sockact.supervise.house import House, log
from sockact.supervise.instance import Kill, Run
from sockact.supervise.limit import RateLimit
from sockact.supervise.prepare import Preparer
from sockact.supervise.serve import seconds
from sockact.supervise.tables import UNIT_COMMANDS, Unit
from sockact.supervise.unit import (
    LIMIT_HIT,
    START_LIMIT_HIT,
    Act,
    Close,
    Entered,
    Flush,
    Open,
    Rules,
    UnitLife,
)
from sockact.supervise.watch import Event, Mode, Watch
from sockact.unitfile.command import Command

if TYPE_CHECKING:
    from sockact.supervise.fork import Process

_COMMANDS = {
    row.name: row
    for row in (d.EXEC_START_PRE, d.EXEC_START_POST, d.EXEC_STOP_PRE, d.EXEC_STOP_POST)
}
_BURSTS = {True: (200, 150), False: (20, 15)}
"""TriggerLimitBurst= and PollLimitBurst= by default, with Accept=yes and without."""


class Trigger(Protocol):
    """Whoever starts services for socket units."""

    def trigger(self, unit: "SocketUnit") -> None:
        """Start the service of a unit whose sockets have traffic, and tell the unit."""

    def accept(self, unit: "SocketUnit", accepted: Accepted) -> None:
        """Start an instance for a connection, which it owns from now on."""

    def open(self, unit: "SocketUnit") -> None:
        """Give a unit its sockets by `SocketUnit.opened`, or tell it that they cannot be opened."""

    def closed(self, unit: "SocketUnit") -> None:
        """Hear that a unit's sockets were closed."""

    def hung_up(self, unit: "SocketUnit", number: int) -> None:
        """Hear that a listener was shut down by whoever serves it."""

    def unit_changed(self, unit: "SocketUnit") -> None:
        """Hear that a unit is in another state."""


def commands_of(spec: SocketSpec) -> dict[str, tuple[Command, ...]]:
    """Return the commands of a socket unit by directive."""
    return {name: spec.get(row) for name, row in _COMMANDS.items()}


def rules_of(spec: SocketSpec, commands: dict[str, tuple[Command, ...]]) -> Rules:
    """Return what a definition means for the life of a socket unit."""
    get = spec.get
    burst = get(d.TRIGGER_LIMIT_BURST)
    recovers = get(d.X_TRIGGER_LIMIT_RECOVER)
    return Rules(
        accepts=get(d.ACCEPT),
        commands={
            name: tuple(one.ignore_failure for one in found) for name, found in commands.items()
        },
        trigger=(
            get(d.TRIGGER_LIMIT_INTERVAL),
            _BURSTS[get(d.ACCEPT)][0] if burst is None else burst,
        ),
        recovers=seconds(recovers) if recovers else None,
        timeout=seconds(get(d.TIMEOUT)),
        flushes=get(d.FLUSH_PENDING),
        patience=seconds(get(d.DEFER_TRIGGER_MAX)),
    )


def given_of(entries: Sequence[NamedSocket], names: Sequence[str] = ()) -> Given:
    """Return sockets for a process, under their own names or others."""
    return Given(
        tuple(names) or tuple(entry.name for entry in entries),
        tuple(entry.fileno() for entry in entries),
        len(entries),
        variables=chosen_ports(SocketSet(entries)),
    )


def part(
    entries: Sequence[NamedSocket], copies: int, slot: int, names: Sequence[str] = ()
) -> Given:
    """Return the sockets of one process, where each of several has its own."""
    size = len(entries) // copies
    mine = slice(slot % copies * size, (slot % copies + 1) * size)
    return given_of(entries[mine], names[mine])


class SocketUnit:
    """One socket unit.

    Attributes:
        spec: Its definition.
        service: The name of the service that it starts; with Accept=yes the template's.
        copies: In how many equal parts its sockets come.
        life: Where it stands.
        sockets: Its sockets, owned here.
        accepted: Connections that got an instance.
        refused: Connections that did not.
        connections: Those that are open, with Accept=yes.
        problem: What went wrong last, for people.
        active_since: When something last arrived, as far as it is watched for.
    """

    def __init__(
        self, house: House, watch: Watch, spec: SocketSpec, service: str, trigger: Trigger
    ) -> None:
        """Begin dead."""
        self.service = service
        self.copies = 1
        self.sockets = SocketSet()
        self.accepted = 0
        self.refused = 0
        self.problem = ""
        self.active_since = house.now()
        self.watches_activity = False
        self._house = house
        self._watch = watch
        self._trigger = trigger
        self._command: Process | None = None
        self._acceptors: dict[int, Acceptor] = {}
        self._limits: dict[int, RateLimit] = {}
        self._resting: dict[int, float] = {}
        self._watched: set[int] = set()
        self._acts: list[Act] = []
        self._acting = False
        self._closed = False
        self.set_spec(spec)
        house.reactor.add(self)

    def set_spec(self, spec: SocketSpec) -> None:
        """Use another definition; the sockets stay as they are."""
        self.spec = spec
        self.name = spec.name
        self._commands = commands_of(spec)
        rules = rules_of(spec, self._commands)
        if not hasattr(self, "life"):
            self.life = UnitLife(rules)
            self.connections = self._new_connections()
        else:
            self.life.set_rules(rules, self._house.now())
            self.connections.limit(
                spec.get(d.MAX_CONNECTIONS), spec.get(d.MAX_CONNECTIONS_PER_SOURCE)
            )

    def _new_connections(self) -> Connections:
        get = self.spec.get
        return Connections(get(d.MAX_CONNECTIONS), get(d.MAX_CONNECTIONS_PER_SOURCE))

    @property
    def accepts(self) -> bool:
        """Whether each connection gets an instance of its own."""
        return self.life.rules.accepts

    # --- what it is told --------------------------------------------------------------------------

    def start(self) -> None:
        """Start it."""
        self.do(self.life.start(self._house.now()))

    def stop(self) -> None:
        """Stop it: its sockets are closed, its service goes on."""
        self.do(self.life.stop(self._house.now()))

    def opened(self, sockets: SocketSet) -> None:
        """Take ownership of its sockets, and listen."""
        if self.life.state is not Unit.START_OPEN:
            sockets.close()  # it was stopped meanwhile
            return
        self.sockets = sockets
        self._look_at_sockets()
        self.do(self.life.opened(self._house.now()))

    def change_sockets(self, sockets: SocketSet) -> SocketSet:
        """Take ownership of other sockets in place of the present ones; return those."""
        self._unwatch(keep=set(sockets.filenos()))
        before, self.sockets = self.sockets, sockets
        self._look_at_sockets()
        self.rewatch()
        return before

    def fail(self, text: str, result: str = "resources") -> None:
        """Come to an end because of a failure."""
        self._complain(text)
        self.do(self.life.broken(result, self._house.now()))

    def service_changed(self, *, active: bool, hit_limit: bool) -> None:
        """Hear how its service stands."""
        if self.accepts:
            return
        now = self._house.now()
        if active:
            self.do(self.life.active(now))
        elif hit_limit:
            self.do(self.life.refused(START_LIMIT_HIT, now))
        else:
            self.do(self.life.inactive(now))

    def given(self, slot: int | None = None) -> Given:
        """Return its sockets for a process: all, or those for one of several."""
        if not self.life.is_open and self.life.state is not Unit.START_OPEN:
            return Given()
        if slot is not None and self.copies > 1:
            return part(list(self.sockets), self.copies, slot)
        return given_of(list(self.sockets))

    # --- what it does -----------------------------------------------------------------------------

    def do(self, acts: Sequence[Act]) -> None:
        """Carry out what its life asks for."""
        self._acts += acts
        if self._acting or self._closed:
            return
        self._acting = True
        changed = False
        try:
            while self._acts:
                act = self._acts.pop(0)
                changed = changed or isinstance(act, Entered)
                self._carry_out(act)
        finally:
            self._acting = False
        if changed:
            self.rewatch()
            self._trigger.unit_changed(self)

    def _carry_out(self, act: Act) -> None:
        match act:
            case Open():
                self._trigger.open(self)
            case Close():
                self._unwatch()
                self._limits = {}
                self.sockets.close()
                self.sockets = SocketSet()
                self._trigger.closed(self)
            case Flush():
                self._flush()
            case Run():
                self._run(act)
            case Kill():
                self._kill(final=act.signal == "FinalKillSignal")
            case Entered():
                log(logging.DEBUG, self.name, act.state)

    def _flush(self) -> None:
        for number in self.sockets.filenos():
            with contextlib.suppress(OSError):
                flush(number)

    def _run(self, act: Run) -> None:
        command = self._commands[act.directive][act.index]
        passes = self.spec.get(d.PASS_FDS_TO_EXEC) and self.life.is_open
        given = self.given() if passes else Given()
        preparer = Preparer(ServiceSpec(self.name), self._house.base, search=self._house.search)
        try:
            starter, told = preparer.starter(command, {}, given)
            self._command = self._house.children.start(
                starter, given.fds, lambda _error: None, self._command_ended, told
            )
        except (SockactError, OSError) as error:
            self._complain(f"{act.directive}: {error}")
            self._acts += self.life.command_ended("resources", self._house.now())

    def _command_ended(self, how: Exit) -> None:
        self._command = None
        if not how.is_clean(oneshot=True) and self.life.state in UNIT_COMMANDS:
            self._complain(f"{UNIT_COMMANDS[self.life.state]}: {how}")
        result = (
            "success" if how.is_clean(oneshot=True) else "signal" if how.signal else "exit-code"
        )
        self.do(self.life.command_ended(result, self._house.now()))

    def _kill(self, *, final: bool) -> None:
        """End the command that runs, with everything that it has started."""
        if self._command is not None:
            pid = self._command.pid
            others = self._house.children.others({pid})
            told = family.Family("", pid, pid, others=others)
            number = signal.SIGKILL if final else signal.SIGTERM
            family.kill(family.CONTROL_GROUP, told, number, final=final)

    def _complain(self, text: str) -> None:
        self.problem = text
        log(logging.ERROR, self.name, text)

    # --- traffic ----------------------------------------------------------------------------------

    def _look_at_sockets(self) -> None:
        self._acceptors, self._limits, self._resting = {}, {}, {}
        get = self.spec.get
        interval, burst = get(d.POLL_LIMIT_INTERVAL), get(d.POLL_LIMIT_BURST)
        burst = _BURSTS[self.accepts][1] if burst is None else burst
        blocking = not get(d.NON_BLOCKING)
        plans = Plans()
        for number in self.sockets.filenos():
            self._limits[number] = RateLimit(interval, burst)
            if self.accepts:
                self._acceptors[number] = Acceptor(
                    number, self.spec, blocking=blocking, warn=self._warn, plans=plans
                )

    def _warn(self, line: str) -> None:
        log(logging.WARNING, self.name, line)

    def rewatch(self) -> None:
        """Watch its sockets for what matters in its present state."""
        if not self.life.is_open:
            return
        if self.life.polls and self._house.polls:
            mode = Mode.READABLE
        elif self.watches_activity:
            mode = Mode.ACTIVITY
        else:
            mode = Mode.HANGUP
        for number in self.sockets.filenos():
            resting = mode is Mode.READABLE and number in self._resting
            self._watched.add(number)
            try:
                self._watch.set(number, Mode.HANGUP if resting else mode, (self, number))
            except OSError as error:
                self.fail(f"cannot listen: {error.strerror}")
                return

    def pause(self) -> None:
        """Trigger nothing more, for a successor does."""
        for number in self._watched:
            self._watch.set(number, Mode.OFF, (self, number))

    def _unwatch(self, keep: AbstractSet[int] = frozenset()) -> None:
        for number in self._watched - keep:
            self._watch.remove(number)
        self._watched &= keep

    def seen(self, number: int, event: Event) -> None:
        """Hear what has been seen on one of its sockets."""
        now = self._house.now()
        if number not in self._limits:
            return
        if event is Event.HANGUP:
            self._trigger.hung_up(self, number)
            return
        self.active_since = now
        if event is Event.ACTIVITY or not self.life.polls:
            return
        if not self._limits[number].allow(now):
            self._resting[number] = self._limits[number].ends(now)
            self._watch.set(number, Mode.HANGUP, (self, number))
            return
        if self.accepts:
            self._accept(number, now)
        elif not self.life.allows(now):
            self._limit_hit(now)
        else:
            self._trigger.trigger(self)

    def _limit_hit(self, now: float) -> None:
        self.refused += 1
        recovers = self.life.rules.recovers
        rest = "" if recovers is None else f"; listens again in {recovers:g} s"
        self._complain(f"{LIMIT_HIT}: its service was started too often{rest}")
        self.do(self.life.limit_hit(now))

    def _accept(self, number: int, now: float) -> None:
        try:
            accepted = self._acceptors[number].accept()
        except OSError as error:
            self.fail(f"cannot accept: {error.strerror}")
            return
        if accepted is None:
            return
        if not self.life.allows(now):
            accepted.close()
            self._limit_hit(now)
            return
        key = source(accepted.caller)
        if why := self.connections.admit(key):
            self._house.children.reap()  # some may have ended, and nobody has looked yet
            why = self.connections.admit(key) if self.life.polls else "it is being stopped"
        if why:
            self.refused += 1
            accepted.close()
            who = text(accepted.caller)
            log(logging.WARNING, self.name, f"{who} was refused: {why}")
            return
        self._trigger.accept(self, accepted)

    def deadline(self) -> float | None:
        """Return when something is due; for the reactor."""
        when = self.life.deadline()
        for until in self._resting.values():
            when = until if when is None else min(until, when)
        return when

    def expire(self, now: float) -> None:
        """Do what is due."""
        over = [number for number, until in self._resting.items() if until <= now]
        for number in over:
            del self._resting[number]
        if over:
            self.rewatch()
        if (when := self.life.deadline()) is not None and when <= now:
            if self._command is not None and self.life.state in UNIT_COMMANDS:
                self._complain(f"{UNIT_COMMANDS[self.life.state]}: takes too long")
            self.do(self.life.expire(now))

    def kill(self) -> None:
        """End the command that runs by force."""
        self._kill(final=True)

    def close(self, let_go: Callable[[SocketSet], None] = SocketSet.close) -> None:
        """Close its sockets at once, by one of the methods of `SocketSet` that do; and its command.

        Nothing is begun any more.
        """
        self._closed = True
        self._house.reactor.remove(self)
        self._unwatch()
        self._kill(final=True)
        let_go(self.sockets)
