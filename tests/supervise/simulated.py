"""Services and socket units whose processes are simulated, in a time of their own.

A program is said as `tests.supervise.actor` takes it; here it takes no time but what it sleeps.
"""

import collections
import heapq
import itertools
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

import attrs

from sockact import service_directives as d
from sockact.spec import ServiceSpec, SocketSpec
from sockact.supervise import instance, unit
from sockact.supervise.exit import Exit
from sockact.supervise.instance import Life
from sockact.supervise.limit import RateLimit
from sockact.supervise.listen import commands_of, rules_of
from sockact.supervise.restarts import delay, shall_restart
from sockact.supervise.serve import plan_of
from sockact.supervise.tables import INSTANCE, IS_OVER, Happens, Instance, Unit
from sockact.supervise.unit import UnitLife
from sockact.unitfile.command import Command


@attrs.frozen
class Case:
    """A unit.

    Attributes:
        lines: Of its [Service] or [Socket] section; what a program does stands between angle
            brackets, as `tests.supervise.actor` takes it.
        does: In which state, and when which of its programs listens, systemctl is told what; an
            ``@`` stands for the service of a socket unit.
        unit: Lines of its [Unit] section.
        unable: Whether no program can be started at all: EnvironmentFile= is not there.
    """

    lines: str
    does: Sequence[tuple[str, str, str]] = ()
    unit: str = ""
    unable: bool = False


@attrs.frozen
class Seen:
    """What became of a unit.

    Attributes:
        path: The states it went through, except those that systemd 252 does not have.
        runs: The commands that were run.
        result: How it ended.
        restarts: How often it was started again.
    """

    path: list[str]
    runs: list[str]
    result: str
    restarts: int = 0


class Process:
    """A simulated process."""

    def __init__(self, steps: str, ended: Callable[[Exit], None]) -> None:
        self.steps = [step.strip() for step in steps.split(";")]
        self.ended = ended
        self.alive = True
        self.handlers = {
            words[1]: " ".join(words[2:])
            for words in map(str.split, self.steps)
            if words[0] == "on"
        }


class Simulation:
    """A unit from its start until nothing happens any more."""

    life: Life | UnitLife

    def __init__(self, case: Case) -> None:
        self.case = case
        self.does = list(case.does)
        self.now = 0.0
        self.path: list[str] = []
        self.runs: list[str] = []
        self._control: Process | None = None
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def start(self) -> None:
        """Start it."""
        raise NotImplementedError

    def expire(self) -> None:
        """Let it do what is due."""
        raise NotImplementedError

    def told(self, verb: str) -> None:
        """Tell it something, as systemctl does."""
        raise NotImplementedError

    def heard(self, said: Mapping[str, str]) -> None:
        """Hear what a process says."""
        raise NotImplementedError

    def run(self) -> Seen:
        """Let everything happen."""
        self.start()
        while self.now < 300:
            if self.does and self._is_time(*self.does[0][:2]):
                self._tell_later(self.does.pop(0)[2])
            due = self.life.deadline()
            if due is not None and (not self._later or due <= self._later[0][0]):
                self.now = due
                self.expire()
            elif self._later:
                self.now, _, what = heapq.heappop(self._later)
                what()
            else:
                break
        assert not self.does
        return Seen(self.path, self.runs, self.life.result)

    def _is_time(self, state: str, mark: str) -> bool:
        return shown(self.life.state) == state and (not mark or mark in self.runs)

    def _tell_later(self, verb: str) -> None:
        self.at(0.1, lambda: self.told(verb))

    def at(self, delay: float, what: Callable[[], None]) -> None:
        """Let something happen later."""
        heapq.heappush(self._later, (self.now + delay, next(self._count), what))

    def begin(self, steps: str, ended: Callable[[Exit], None]) -> Process:
        """Begin a process."""
        process = Process(steps, ended)
        self.at(0.001, lambda: self._go_on(process))
        return process

    def _go_on(self, process: Process) -> None:
        while process.alive:
            step = process.steps.pop(0) if process.steps else "exit 0"
            if step.startswith("sleep"):
                self.at(float(step[6:]), lambda: self._go_on(process))
                return
            if step == "forever":
                return
            self._take(process, step)

    def _take(self, process: Process, step: str) -> None:
        verb, _, rest = step.partition(" ")
        if verb == "say":
            self.heard(dict(word.split("=") for word in rest.split()))
        elif verb in ("exit", "kill"):
            process.alive = False
            process.ended(
                Exit(int(rest)) if verb == "exit" else Exit(0, signal.Signals[f"SIG{rest}"])
            )

    def signal(self, process: Process | None, number: int) -> None:
        """Send a signal."""
        assert process
        name = signal.Signals(number).name.removeprefix("SIG")
        step = process.handlers.get(name, f"kill {name}")
        self.at(0.001, lambda: self._take(process, step) if process.alive else None)


_COMMANDS = {row.name: row for row in (
    d.EXEC_CONDITION, d.EXEC_START_PRE, d.EXEC_START, d.EXEC_START_POST, d.EXEC_RELOAD,
    d.EXEC_STOP, d.EXEC_STOP_POST,
)}  # fmt: skip
_SIGNALS = {row.name: row for row in (d.KILL_SIGNAL, d.FINAL_KILL_SIGNAL, d.WATCHDOG_SIGNAL)}


class ServiceSimulation(Simulation):
    """A service."""

    life: Life

    def __init__(self, spec: ServiceSpec, case: Case) -> None:
        super().__init__(case)
        self.spec = spec
        self.life = Life(plan_of(spec))
        self.restarts = 0
        self._result = ""
        self._main: Process | None = None
        self._exit: Exit | None = None
        self._is_over = self._stopped = False
        self._acts: collections.deque[instance.Act] = collections.deque()
        self._acting = False
        self._limit = RateLimit(spec.get(d.START_LIMIT_INTERVAL), spec.get(d.START_LIMIT_BURST))

    def run(self) -> Seen:
        """Let everything happen."""
        seen = super().run()
        return attrs.evolve(seen, result=self._result or seen.result, restarts=self.restarts)

    def start(self) -> None:
        """Start it."""
        if not self._limit.allow(self.now):
            self.path.append("failed")
            self._result = "start-limit-hit" if self.life.result == "success" else ""
            return
        self.life, self._is_over = Life(plan_of(self.spec)), False
        self._do(self.life.start(self.now))

    def expire(self) -> None:
        """Let it do what is due."""
        self._do(self.life.expire(self.now))

    def told(self, verb: str) -> None:
        """Tell it something, as systemctl does."""
        if verb == "stop":
            self._stopped = True
            self._do(self.life.stop(self.now))
        elif verb == "reload":
            assert self.life.can_reload()
            self._do(self.life.reload(self.now))
        else:
            self.signal(self._main, signal.Signals[f"SIG{verb.partition('=')[2]}"])

    def _do(self, acts: Sequence[instance.Act]) -> None:
        self._acts += acts
        if self._acting:
            return
        self._acting = True
        while True:
            while self._acts:
                self._carry_out(self._acts.popleft())
            if Happens.GONE not in INSTANCE[self.life.state] or self._main or self._control:
                break
            self._acts += self.life.gone(self.now)
        self._acting = False
        if self.life.state in IS_OVER and not self._is_over:
            self._is_over = True
            self._over()

    def _over(self) -> None:
        how = self._exit
        status = None
        if how is not None:
            status = ("signal", how.signal) if how.signal else ("exit", how.status)
        may = self.life.restarts and not self._stopped
        if may and shall_restart(self.spec, self.life.result, status):
            self.at(delay(self.spec, self.restarts), self.start)
            self.restarts += 1

    def _carry_out(self, act: instance.Act) -> None:
        match act:
            case instance.Run():
                self._run(act)
            case instance.Kill():
                for process in filter(None, (self._main, self._control)):
                    self.signal(process, self.spec.get(_SIGNALS[act.signal]))
            case instance.KillCommand():
                self.signal(self._control, signal.SIGKILL)
            case instance.Entered():
                state = shown(act.state)
                waits = Happens.GONE in INSTANCE[act.state] and not self._main and not self._control
                simple = state == "start" and self.life.plan.type == "simple"  # goes on at once
                if not waits and not simple and self.path[-1:] != [state]:
                    self.path.append(state)

    def _run(self, act: instance.Run) -> None:
        is_main = act.directive == "ExecStart"
        if self.case.unable:
            tell = self.life.main_ended if is_main else self.life.command_ended
            if not is_main:
                self.path.pop()  # systemd comes into a state when its process exists
            self._acts += tell("resources", self.now)
            return
        command = self.spec.get(_COMMANDS[act.directive])[act.index]
        actor = command.path == sys.executable
        self.runs.append(f"{act.directive}-{act.index}" if actor else command.path)
        process = self.begin(_steps(command), self._main_ended if is_main else self._control_ended)
        if command.path == "/bin/kill":
            self.signal(self._main, signal.Signals[f"SIG{command.argv[1].removeprefix('-')}"])
        if not is_main:
            assert self._control is None
            self._control = process
            return
        assert self._main is None
        self._main = process
        self._acts += self.life.forked(self.now)
        if actor:
            self.at(0, lambda: self._do(self.life.executed(self.now)))

    def heard(self, said: Mapping[str, str]) -> None:
        """Hear what a process says."""
        life, now = self.life, self.now
        if said.get("WATCHDOG") == "1":
            life.said_alive(now)
        if "WATCHDOG_USEC" in said:
            life.set_watchdog(int(said["WATCHDOG_USEC"]) / 1e6, now)
        if "EXTEND_TIMEOUT_USEC" in said:
            life.extend(int(said["EXTEND_TIMEOUT_USEC"]) / 1e6, now)
        if said.get("WATCHDOG") == "trigger":
            self._do(life.said_broken(now))
        if "STOPPING" in said:
            self._do(life.said_stopping(now))
        if "RELOADING" in said:
            self._do(life.said_reloading(now))
        if "READY" in said:
            self._do(life.said_ready(now))

    def _judge(self, how: Exit, *, main: bool) -> str:
        success: frozenset[tuple[str, int]] = self.spec.get(d.SUCCESS_EXIT_STATUS)
        oneshot = not main or self.spec.get(d.TYPE) == "oneshot"
        return _result(how, clean=how.is_clean(success, oneshot=oneshot))

    def _main_ended(self, how: Exit) -> None:
        self._main, self._exit = None, how
        self._do(self.life.main_ended(self._judge(how, main=True), self.now))

    def _control_ended(self, how: Exit) -> None:
        self._control = None
        result = self._judge(how, main=False)
        self._do(self.life.command_ended(result, self.now, status=how.status))


class SocketSimulation(Simulation):
    """A socket unit; nobody connects."""

    life: UnitLife

    def __init__(self, spec: SocketSpec, case: Case) -> None:
        super().__init__(case)
        self._commands = commands_of(spec)
        self.life = UnitLife(rules_of(spec, self._commands))

    def start(self) -> None:
        """Start it."""
        self._do(self.life.start(self.now))

    def expire(self) -> None:
        """Let it do what is due."""
        self._do(self.life.expire(self.now))

    def told(self, verb: str) -> None:
        """Tell it, or its service, something, as systemctl does."""
        tell = {"start @": self.life.active, "stop @": self.life.inactive, "stop": self.life.stop}
        self._do(tell[verb](self.now))

    def _do(self, acts: Sequence[unit.Act]) -> None:
        for act in acts:
            match act:
                case instance.Run():
                    self.runs.append(f"{act.directive}-{act.index}")
                    assert self._control is None
                    command = self._commands[act.directive][act.index]
                    self._control = self.begin(_steps(command), self._ended)
                case instance.Kill():
                    final = act.signal == "FinalKillSignal"
                    self.signal(self._control, signal.SIGKILL if final else signal.SIGTERM)
                case unit.Open():
                    self.at(0, self._open)
                case unit.Entered(state=Unit.START_OPEN):
                    pass  # systemd has it since version 258
                case unit.Entered():
                    self.path.append(act.state.value)

    def _open(self) -> None:
        if "ListenStream=192.0.2.1:9" in self.case.lines:
            self._do(self.life.broken("resources", self.now))
        else:
            self._do(self.life.opened(self.now))

    def _ended(self, how: Exit) -> None:
        self._control = None
        result = _result(how, clean=how.is_clean(oneshot=True))
        self._do(self.life.command_ended(result, self.now))


def _steps(command: Command) -> str:
    """Return what a program does."""
    others = {"/bin/kill": "exit 0", "/no/such/program": "exit 203"}
    return others.get(command.path) or command.argv[-1]


def _result(how: Exit, *, clean: bool) -> str:
    return "success" if clean else "signal" if how.signal else "exit-code"


def shown(state: Instance | Unit) -> str:
    """Return a state as systemd 252 has it."""
    return "reload" if state.value.startswith("reload") else state.value
