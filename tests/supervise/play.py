"""Lives with processes that do what a test says: they start at once, and end when they are told."""

from collections.abc import Sequence

from sockact.supervise import instance, unit
from sockact.supervise.instance import Life, Plan
from sockact.supervise.tables import COMMANDS, INSTANCE, UNIT_COMMANDS, Happens, Instance, Unit
from sockact.supervise.unit import Rules, UnitLife


def flags(**commands: str) -> dict[str, tuple[bool, ...]]:
    """Return commands as a plan has them: a character for each, "-" if its failure is ignored."""
    return {name: tuple(mark == "-" for mark in marks) for name, marks in commands.items()}


def words(acts: Sequence[instance.Act | unit.Act] | None) -> str:
    """Return what is to be done as text: a state entered has a colon."""
    found = []
    for act in acts or ():
        match act:
            case instance.Entered() | unit.Entered():
                found.append(f":{act.state.value}")
            case instance.Run():
                found.append(f"{act.directive}-{act.index}")
            case instance.Kill():
                found.append(act.signal)
            case _:
                found.append(type(act).__name__)
    return " ".join(found)


class Play:
    """An instance, and its processes.

    Attributes:
        life: The machine.
        now: The time.
        others: Whether there are processes of it beside the main one and the command.
    """

    def __init__(
        self,
        kind: str = "simple",
        *,
        start: float | None = 10.0,
        stop: float | None = 20.0,
        abort: float | None = 30.0,
        runtime: float | None = None,
        watchdog: float | None = None,
        kills: bool = True,
        remains: bool = False,
        each: bool = False,
        **commands: str,
    ) -> None:
        """Prepare it, with one ExecStart= if nothing else is said.

        Args:
            kind: Type=.
            start: As `Plan` has it, as are the others.
            stop: TimeoutStopSec=.
            abort: TimeoutAbortSec=.
            runtime: RuntimeMaxSec=.
            watchdog: WatchdogSec=.
            kills: SendSIGKILL=.
            remains: RemainAfterExit=.
            each: Whether it has a command of each kind.
            commands: As `flags` takes them.
        """
        all_commands = dict.fromkeys(COMMANDS.values() if each else ("ExecStart",), "x")
        self.life = Life(
            Plan(kind, flags(**{**all_commands, **commands}), start, stop, abort, runtime,
                 watchdog, kills=kills, remains=remains)
        )  # fmt: skip
        self.now = 100.0
        self.others = False

    def __call__(self, *what: str) -> str:
        """Let things happen: one each, with its arguments behind; return what comes of all."""
        return " ".join(filter(None, map(self._happens, what)))

    def _happens(self, what: str) -> str:
        name, *arguments = what.split()
        method = getattr(self.life, {"ends": "main_ended", "done": "command_ended"}.get(name, name))
        if name in ("ends", "done"):
            more = {"status": int(arguments[1])} if arguments[1:] else {}
            return self._follow(method(*arguments[:1] or ["success"], self.now, **more))
        return self._follow(method(*map(float, arguments), self.now))

    def _follow(self, acts: Sequence[instance.Act] | None) -> str:
        found = [words(acts)]
        if any(
            isinstance(act, instance.Run) and act.directive == "ExecStart" for act in acts or ()
        ):
            found.append(self._follow(self.life.forked(self.now)))
        waits = Happens.GONE in INSTANCE[self.life.state]
        if waits and not (self.life.main or self.life.control or self.others):
            found.append(self._follow(self.life.gone(self.now)))
        return " ".join(filter(None, found))

    def late(self) -> str:
        """Let the time pass until something is due."""
        due = self.life.deadline()
        assert due is not None
        self.now = due
        return self._follow(self.life.expire(due))

    def has(self, what: str) -> bool:
        """Whether an attribute of it is true now."""
        return bool(getattr(self.life, what))

    @property
    def left(self) -> float | None:
        """The seconds until something is due."""
        due = self.life.deadline()
        return None if due is None else due - self.now

    @property
    def end(self) -> tuple[Instance, str]:
        """Where it stands, and the result."""
        return self.life.state, self.life.result


class UnitPlay:
    """A socket unit, and its commands.

    Attributes:
        life: The machine.
        now: The time.
    """

    def __init__(
        self,
        *,
        accepts: bool = False,
        trigger: tuple[int, int] = (2_000_000, 3),
        recovers: float | None = None,
        flushes: bool = False,
        patience: float | None = None,
        timeout: float | None = 10.0,
        each: bool = False,
        **commands: str,
    ) -> None:
        """Prepare it.

        Args:
            accepts: As `Rules` has it, as are the others.
            trigger: The trigger limit.
            recovers: X-TriggerLimitRecoverSec=.
            flushes: FlushPending=.
            patience: DeferTriggerMaxSec=.
            timeout: TimeoutSec=.
            each: Whether it has a command of each kind.
            commands: As `flags` takes them.
        """
        all_commands = dict.fromkeys(UNIT_COMMANDS.values() if each else (), "x")
        self.life = UnitLife(
            Rules(
                accepts,
                flags(**{**all_commands, **commands}),
                trigger,
                recovers,
                timeout,
                flushes,
                patience,
            )
        )
        self.now = 100.0

    def __call__(self, *what: str) -> str:
        """Let things happen: one each, with its argument behind; return what comes of all."""
        return " ".join(filter(None, map(self._happens, what)))

    def _happens(self, what: str) -> str:
        name, *arguments = what.split()
        method = getattr(self.life, {"done": "command_ended"}.get(name, name))
        if name == "done":
            arguments = arguments or ["success"]
        return words(method(*arguments, self.now))

    def late(self) -> str:
        """Let the time pass until something is due."""
        due = self.life.deadline()
        assert due is not None
        self.now = due
        return words(self.life.expire(due))

    def has(self, what: str) -> bool:
        """Whether an attribute of it is true now."""
        return bool(getattr(self.life, what))

    @property
    def left(self) -> float | None:
        """The seconds until something is due."""
        due = self.life.deadline()
        return None if due is None else due - self.now

    @property
    def end(self) -> tuple[Unit, str]:
        """Where it stands, and the result."""
        return self.life.state, self.life.result
