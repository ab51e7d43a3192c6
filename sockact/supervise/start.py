"""A generation: processes of one definition, side by side, until all have shown that they serve."""

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Mapping

from sockact import service_directives as d
from sockact.spec import ServiceSpec
from sockact.supervise.exit import Exit
from sockact.supervise.given import Given
from sockact.supervise.house import House, log
from sockact.supervise.instance import SUCCESS
from sockact.supervise.prepare import Preparer
from sockact.supervise.probe import Probe
from sockact.supervise.serve import Recipe, Running
from sockact.supervise.store import FdStore
from sockact.unitfile.command import parse_commands
from sockact.unitfile.readiness import Readiness, Said

Gives = Callable[[int], Given]
"""Asked for the descriptors of the process in a slot."""


class Generation:
    """Processes of one definition, side by side.

    Attributes:
        number: 1, 2, 3 … of a service.
        spec: The definition.
        slots: The processes, also those that have ended.
        readiness: What has to be tried once all have started; None for nothing.
        begun: Whether all have been started.
        ready: Whether it has shown that it can serve.
        futile: Whether it never will, because what was to be tried cannot be.
        problem: Why it came to nothing.
    """

    def __init__(
        self,
        house: House,
        spec: ServiceSpec,
        number: int,
        gives: Gives,
        *,
        store: FdStore | None,
        readiness: Readiness | None,
        changed: Callable[["Generation", Running], None],
    ) -> None:
        """Prepare it.

        Args:
            house: Its surroundings.
            spec: The definition.
            number: Its number.
            gives: Asked for the descriptors of each process.
            store: The service's fd store.
            readiness: What has to be tried once all have started; None for nothing.
            changed: Called when one of its processes has changed, or when all are ready.
        """
        self.number = number
        self.spec = spec
        self.begun = False
        self.ready = False
        self.futile = False
        self.problem = ""
        self._house = house
        self._recipe = Recipe(house, spec)
        self._gives = gives
        self._store = store
        self.readiness = readiness
        self._changed = changed
        self._probe: Probe | None = None
        self.slots: list[Running] = []

    def start(self) -> None:
        """Start all its processes."""
        for slot in range(max(1, self.spec.get(d.X_INSTANCES))):
            self.slots.append(self._new(slot))
        for one in list(self.slots):
            one.start()
        self.begun = True

    def _new(self, slot: int) -> Running:
        count = self.spec.get(d.X_INSTANCES)
        name = f"{self.spec.name}" + (f"#{slot}" if count > 1 else "")
        return Running(
            self._house,
            self._recipe,
            name=name,
            generation=self.number,
            slot=slot,
            given=lambda: self._gives(slot),
            variables=self._variables(slot),
            store=self._store,
            changed=self._heard,
        )

    def _variables(self, slot: int) -> dict[str, str]:
        variables = {"SOCKACT_GENERATION": str(self.number)}
        if self.spec.get(d.X_INSTANCES) > 1:
            variables["SOCKACT_INSTANCE"] = str(slot)
        return variables

    def again(self, slot: int) -> None:
        """Start one of its processes again."""
        self.slots[slot] = self._new(slot)
        self.slots[slot].start()

    def _heard(self, one: Running) -> None:
        if one.problem:
            self.problem = one.problem
        if not self.ready and not self.futile and self.is_up and self._probe is None:
            self._try()
        self._changed(self, one)

    def _try(self) -> None:
        match self.readiness:
            case None | Said.NONE:
                self._become_ready()
            case Said.EXEC:
                self._become_ready(all(one.runs for one in self.slots))
            case Said.NOTIFY:
                self._become_ready(all(one.life.said for one in self.slots))
            case readiness:
                self._probe = Probe(self._house.reactor, readiness, self._probed, run=self._run)

    def _become_ready(self, holds: object = True) -> None:
        if holds:
            self.ready = True
            log(logging.INFO, self.spec.name, "ready", generation=self.number)

    def _probed(self, error: str | None) -> None:
        self._probe = None
        if error is not None:
            self.problem, self.futile = error, True
            log(logging.WARNING, self.spec.name, error, generation=self.number)
        else:
            self._become_ready()
        self._changed(self, self.slots[0])

    def why_not(self) -> str:
        """Return why it is not ready, for people."""
        if self._probe is not None and self._probe.reason:
            return self._probe.reason
        if self.problem:
            return self.problem
        states = {one.life.state.value for one in self.slots}
        return f"it is still in {', '.join(sorted(states))}"

    def _run(self, text: str, ended: Callable[[Exit], None]) -> "_Check":
        main = self.slots[0]
        return _Check(
            self._house,
            self.spec,
            text,
            main=main.pid,
            variables=self._variables(main.slot),
            ended=ended,
        )

    def stop(self, *, restarting: bool = False) -> None:
        """Stop all its processes."""
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        for one in self.slots:
            one.stop(restarting=restarting)

    @property
    def is_over(self) -> bool:
        """Whether all its processes have come to their end."""
        return all(one.is_over for one in self.slots)

    @property
    def is_active(self) -> bool:
        """Whether any of its processes is starting or has started."""
        return any(one.is_active for one in self.slots)

    @property
    def is_up(self) -> bool:
        """Whether all its processes have started, or have done what they had to do."""
        return all(one.is_up or _is_done(one) for one in self.slots)

    @property
    def is_whole(self) -> bool:
        """Whether none of its processes has ended before its time."""
        return all(one.is_active or _is_done(one) for one in self.slots)


def _is_done(one: Running) -> bool:
    """Whether it had only one thing to do, and has done it (Type=oneshot)."""
    done = one.life.ready and one.life.result == SUCCESS
    return done and one.spec.get(d.TYPE) == "oneshot"


class _Check:
    """A command that finds out whether a service is ready."""

    def __init__(
        self,
        house: House,
        spec: ServiceSpec,
        text: str,
        *,
        main: int,
        variables: Mapping[str, str],
        ended: Callable[[Exit], None],
    ) -> None:
        (command,) = parse_commands(text)[:1] or (None,)
        if command is None:
            raise OSError(0, "the command is empty")
        self._ended: Callable[[Exit], None] | None = ended
        preparer = Preparer(spec, house.base, search=house.base.get("PATH", ""))
        known = {**variables, "MAINPID": str(main)}
        starter, told = preparer.starter(command, known, Given(), main=False)
        self._process = house.children.start(starter, (), lambda _error: None, self._over, told)
        self._alive = True

    def _over(self, how: Exit) -> None:
        self._alive = False
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(how)

    def kill(self) -> None:
        """End it."""
        self._ended = None
        if self._alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._process.pid, signal.SIGKILL)
