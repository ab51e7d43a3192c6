"""Answering what is asked of a supervisor at its rendezvous: sockact(1), status, replace …."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from sockact.fd.queue import queue
from sockact.rendezvous.offer import Reply
from sockact.rendezvous.policy import Who
from sockact.rendezvous.takeover import Tenure
from sockact.sockets.socketset import NamedSocket
from sockact.supervise.house import logger
from sockact.supervise.instance import SKIPPED, SUCCESS
from sockact.supervise.listen import SocketUnit
from sockact.supervise.manage import Manager
from sockact.supervise.renew import Service
from sockact.supervise.replace import Missing
from sockact.supervise.serve import Running
from sockact.supervise.settings import Place, Settings
from sockact.supervise.start import Generation
from sockact.supervise.tables import Unit

_FAILED = 1
_NO_INPUT = 66


class Asked(Protocol):
    """What a supervisor is to those who ask it; `sockact.supervise.run.Supervisor` says more."""

    settings: Settings
    place: Place
    manager: Manager
    tenure: Tenure | None
    since: float

    @property
    def is_replacing(self) -> bool:
        """Whether a replacement is under way."""

    def replace(self, names: Sequence[str], done: Callable[[str], None]) -> None:
        """Replace services."""


class Responder:
    """Carries out commands for a supervisor."""

    def __init__(self, supervisor: Asked) -> None:
        """Work for it."""
        self._supervisor = supervisor
        self._commands: dict[str, Callable[[Sequence[str], Mapping[str, object], Reply], None]] = {
            "status": self._status,
            "replace": self._replace,
            "start": self._start,
            "stop": self._stop,
            "restart": self._restart,
            "reload": self._reload,
        }

    def command(
        self, who: Who, command: str, arguments: Mapping[str, object], answer: Reply
    ) -> None:
        """Carry out one command."""
        carry_out = self._commands.get(command)
        names = arguments.get("units", [])
        if carry_out is None:
            answer({"error": f"there is no command {command!r}", "status": 2})
            return
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            answer({"error": "units is no list of names", "status": 2})
            return
        if command != "status":
            logger.info("%s: %s", who, " ".join([command, *names]))
        carry_out(names, arguments, answer)

    # --- looking ----------------------------------------------------------------------------------

    def _status(
        self, names: Sequence[str], _arguments: Mapping[str, object], answer: Reply
    ) -> None:
        if (missing := self._missing(names)) is not None:
            answer(missing)
            return
        report = self.report()
        if names:
            for key in ("units", "services", "instances"):
                rows = report[key]
                assert isinstance(rows, list)
                report[key] = [row for row in rows if row["name"] in names]
        answer({"report": report})

    def report(self) -> dict[str, object]:
        """Return everything that there is to know."""
        supervisor = self._supervisor
        manager, tenure = supervisor.manager, supervisor.tenure
        now = manager.house.now()
        return {
            "pid": os.getpid(),
            "place": supervisor.place.value,
            "path": supervisor.settings.path,
            "generation": tenure.estate.generation if tenure else 0,
            "uptime": time.time() - supervisor.since,
            "replacing": supervisor.is_replacing,
            "units": [_unit(unit) for unit in manager.units.values()],
            "services": [_service(one, now) for one in manager.all_services()],
            "instances": [
                {"name": name, **_process(one, now)} for name, one in manager.instances.items()
            ],
        }

    def _missing(self, names: Sequence[str]) -> dict[str, object] | None:
        manager = self._supervisor.manager
        for name in names:
            if (
                name not in manager.units
                and name not in manager.services
                and (name not in manager.instances)
            ):
                return {"error": f"there is no unit {name}", "status": _NO_INPUT}
        return None

    # --- doing ------------------------------------------------------------------------------------

    def _replace(
        self, names: Sequence[str], arguments: Mapping[str, object], answer: Reply
    ) -> None:
        manager = self._supervisor.manager
        waits = arguments.get("wait") is True

        def done(why: str) -> None:
            if why:
                logger.error("not replaced: %s", why)
                status = _NO_INPUT if isinstance(why, Missing) else _FAILED
                answer({"error": why, "status": status})
            elif waits:
                _Wait(manager.all_services(), _is_ending, lambda: answer({}))
            else:
                answer({})

        self._supervisor.replace(names, done)

    def _start(self, names: Sequence[str], _arguments: Mapping[str, object], answer: Reply) -> None:
        def start(service: Service) -> str:
            return service.start()

        self._each(names, start, lambda unit: unit.start(), answer, starts=True)

    def _stop(self, names: Sequence[str], _arguments: Mapping[str, object], answer: Reply) -> None:
        def stop(service: Service) -> str:
            service.stop()
            return ""

        self._each(names, stop, lambda unit: unit.stop(), answer, settles=True)

    def _restart(
        self, names: Sequence[str], _arguments: Mapping[str, object], answer: Reply
    ) -> None:
        def restart(service: Service) -> str:
            service.restart()
            return ""

        self._each(names, restart, None, answer, starts=True)

    def _reload(
        self, names: Sequence[str], _arguments: Mapping[str, object], answer: Reply
    ) -> None:
        def reload(service: Service) -> str:
            if service.reload():
                return ""
            return "it does not run, or has neither ExecReload= nor Type=notify-reload"

        self._each(names, reload, None, answer)

    def _each(
        self,
        names: Sequence[str],
        service_does: Callable[[Service], str],
        unit_does: Callable[[SocketUnit], None] | None,
        answer: Reply,
        *,
        starts: bool = False,
        settles: bool = False,
    ) -> None:
        manager = self._supervisor.manager
        if self._supervisor.place is not Place.SERVING:
            place = self._supervisor.place.value
            answer({"error": f"the supervisor is {place}", "status": _FAILED})
            return
        if (missing := self._missing(names)) is not None:
            answer(missing)
            return
        chosen = names or list(manager.services)
        problems = []
        for name in chosen:
            if name in manager.services:
                why = service_does(manager.services[name])
            elif name in manager.units and unit_does is not None:
                why = self._tell_unit(manager.units[name], unit_does, starts=starts)
            elif name in manager.instances and settles:
                manager.instances[name].stop()
                why = ""
            else:
                why = "that can be done to a service only"
            if why:
                problems.append(f"{name}: {why}")
        if problems:
            answer({"error": "; ".join(problems), "status": _FAILED})
            return
        services = [manager.services[name] for name in chosen if name in manager.services]
        if settles:
            _Wait(services, _is_ending, lambda: answer({}))
        elif starts:
            _Wait(services, _is_starting, lambda: _tell_failures(services, answer))
        else:
            answer({})

    def _tell_unit(
        self, unit: SocketUnit, does: Callable[[SocketUnit], None], *, starts: bool
    ) -> str:
        busy = self._supervisor.manager.busy_service(unit)
        if starts and busy and not unit.life.is_open:
            return f"{busy} runs already; stop it first"
        does(unit)
        return unit.problem if unit.life.state is Unit.FAILED else ""


class _Wait:
    """Calls back when there is no service any more that is waited for."""

    def __init__(
        self,
        services: Sequence[Service],
        waits_for: Callable[[Service], bool],
        done: Callable[[], None],
    ) -> None:
        self._services = services
        self._waits_for = waits_for
        self._done = done
        self._over = False
        for service in services:
            service.watch(self._look)
        self._look(None)

    def _look(self, _service: Service | None) -> None:
        if self._over or any(map(self._waits_for, self._services)):
            return
        self._over = True
        for service in self._services:
            service.unwatch(self._look)
        self._done()


def _is_ending(service: Service) -> bool:
    """Whether something is left of what has stepped down, or was stopped."""
    return bool(service.former or (service.stopping and service.current))


def _is_starting(service: Service) -> bool:
    return service.is_restarting or service.is_starting


def _tell_failures(services: Sequence[Service], answer: Reply) -> None:
    failed = [
        f"{one.name}: {one.last_failure or one.result}"
        for one in services
        if not one.is_up and one.result not in (SUCCESS, SKIPPED)
    ]
    answer({"error": "; ".join(failed), "status": _FAILED} if failed else {})


# --- as JSON --------------------------------------------------------------------------------------


def _unit(unit: SocketUnit) -> dict[str, object]:
    return {
        "name": unit.name,
        "state": unit.life.state.value,
        "result": unit.life.result,
        "triggers": unit.service,
        "accept": unit.accepts,
        "accepted": unit.accepted,
        "refused": unit.refused,
        "connections": len(unit.connections),
        "triggered": unit.life.triggered,
        "problem": unit.problem,
        "listeners": [_listener(entry) for entry in unit.sockets],
    }


def _listener(entry: NamedSocket) -> dict[str, object]:
    found, listener = queue(entry.fileno()), entry.listener
    what = entry.describe()
    return {
        "name": entry.name,
        "kind": listener.kind.value if listener else what.kind,
        "address": what.address or (str(listener.address) if listener else ""),
        "queue": None
        if found is None
        else {"now": found.now, "limit": found.limit, "unit": found.unit},
    }


def _service(service: Service, now: float) -> dict[str, object]:
    groups = [
        *([("current", service.current)] if service.current else []),
        *([("candidate", service.trial.generation)] if service.trial else []),
        *(("former", one) for one in service.former),
    ]
    return {
        "name": service.name,
        "state": service.state,
        "result": service.result,
        "restarts": service.restarts,
        "last_failure": service.last_failure,
        "exit": None if service.exit is None else str(service.exit),
        "stored": [one.name for one in service.store.entries()],
        "instances": [
            {"role": role, "generation": generation.number, "ready": _is_ready(generation, one)}
            | _process(one, now)
            for role, generation in groups
            for one in generation.slots
        ],
    }


def _is_ready(generation: Generation, one: Running) -> bool:
    return generation.ready and one.is_up


def _process(one: Running, now: float) -> dict[str, object]:
    return {
        "pid": one.pid,
        "state": one.life.state.value,
        "result": one.life.result,
        "uptime": now - one.since,
        "status": one.status_text,
        "problem": one.problem,
    }
