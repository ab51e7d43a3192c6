"""From a command line to a supervisor at work."""

import gc
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
import click

import sockact
from sockact import directives
from sockact import service_directives as d
from sockact.cli import definitions, exits, output, program, rendezvous
from sockact.cli.logs import logging_to
from sockact.errors import UnitError
from sockact.spec import Origin, ServiceSpec, Setting, SocketSpec
from sockact.supervise.definitions import Definitions
from sockact.supervise.gather import Search, command_service, for_command, for_units
from sockact.supervise.inherit import Inheritance, unit_for
from sockact.supervise.prepare import base_environ
from sockact.supervise.run import Supervisor
from sockact.supervise.settings import Settings
from sockact.supervise.where import own_path
from sockact.unitfile.readiness import parse_readiness, shared_listener
from sockact.unitfile.service import override, read_setting
from sockact.unitfile.unit import override as override_socket

_RUN_ONLY: Mapping[str, Any] = {
    "path": None,
    "lazy": None,
    "ready": None,
    "drain": 0.0,
    "stay": False,
    "instances": 1,
    "restart": None,
    "service_properties": (),
    "log_format": "auto",
    "own_path": True,
    "sessions": True,
}
"""What ``sockact exec`` has no options for."""


def serve(chosen: definitions.Definitions, runs: program.Program, **given: Any) -> None:
    """Run a supervisor until its end; end with its status.

    Args:
        chosen: What to open.
        runs: The command, if there is one.
        given: The options of ``sockact run``, or those that ``sockact exec`` has of them.
    """
    _open_standard_streams()
    given = {**_RUN_ONLY, **given}
    gc.enable()  # a launcher lives without a collector, but a supervisor lives for years
    gathering = Gathering(chosen, runs, given)
    found = gathering.load()  # every fault of the command line first
    inherited = sockact.listen_fds()
    if given["source"] is not None and runs.command and not found.units:
        inherited.extend(_everything(given))
    inheritance = Inheritance(inherited)
    try:
        if gathering.adopt(inheritance.unwanted(unit.spec for unit in found.units)):
            found = gathering.load()
    except BaseException:
        inheritance.close()
        raise
    level = logging.DEBUG if given["verbose"] else logging.INFO
    with logging_to(given["log_format"], level=level) as handler:
        settings = gathering.settings()
        supervisor = Supervisor(found, gathering.load_again, settings, output.warn, inheritance)
        handler.attach(supervisor.reactor)
        status = supervisor.run()
    if status != exits.OK:
        click.get_current_context().exit(status)


def _everything(given: Mapping[str, Any]) -> sockact.SocketSet:
    """Take everything that a holder has, for a command without definitions of its own."""
    trusted = rendezvous.uids(given["owners"])
    return sockact.take(given["source"], timeout=given["timeout"], trusted=trusted)


def _open_standard_streams() -> None:
    """Give descriptors 0 to 2 a meaning if they have none, so that no other file becomes them."""
    while (fd := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(fd, True)
    os.close(fd)


class Gathering:
    """Reads the definitions, as often as it is asked to."""

    def __init__(
        self, chosen: definitions.Definitions, runs: program.Program, given: Mapping[str, Any]
    ) -> None:
        """Keep what the command line says.

        Raises:
            UsageError: It makes no sense.
        """
        self._chosen = chosen
        self._runs = runs
        self._given = given
        self._changes: dict[str, Setting] = {}
        for text in given["service_properties"]:
            name, equals, value = text.partition("=")
            if not equals:
                raise click.UsageError(f"--service-property {text!r} is not Directive=Value")
            try:
                row, setting = read_setting(name, value, Origin(f"--service-property {text}"))
            except ValueError as error:
                raise click.UsageError(f"--service-property: {error}") from None
            self._changes[row.name] = setting
        self._adopted: list[SocketSpec] = []
        self._ours(given)

    def adopt(self, entries: Iterable[sockact.NamedSocket]) -> bool:
        """Have the command get what was inherited and is no unit's; say what nobody gets.

        Returns:
            Whether it gets anything.
        """
        for entry in entries:
            spec = unit_for(entry) if self._runs.command else None
            if spec is None:
                output.warn(f"{entry.name}: was passed to sockact, but no unit here wants it")
            else:
                self._adopted.append(spec)
        return bool(self._adopted)

    def _ours(self, given: Mapping[str, Any]) -> None:
        if given["ready"] is not None:
            try:
                value = parse_readiness(given["ready"])
            except ValueError as error:
                raise click.UsageError(f"--ready: {error}") from None
            self._changes[d.X_READY.name] = Setting(value, Origin("--ready"))
        if given["instances"] > 1:
            self._changes[d.X_INSTANCES.name] = Setting(given["instances"], Origin("--instances"))
        if given["restart"] is not None:
            try:
                row, setting = read_setting("Restart", given["restart"], Origin("--restart"))
            except ValueError as error:
                raise click.UsageError(f"--restart: {error}") from None
            self._changes[row.name] = setting

    def settings(self) -> Settings:
        """Return how the supervisor runs."""
        given = self._given
        shared = given["path"] is not None
        return Settings(
            path=own_path(os.environ) if given["own_path"] and not shared else given["path"],
            shared=shared,
            source=given["source"],
            timeout=given["timeout"],
            drain=given["drain"],
            stays=given["stay"],
            trusted=rendezvous.uids(given["owners"]),
            environ=base_environ(self._runs.environ(os.environ)),
            whole_environ=base_environ(os.environ),
            search=os.environ.get("PATH", "") if self._runs.command else "",
            sessions=given["sessions"],
            passes_status=bool(self._runs.command) and not given["accept"],
        )

    def load(self) -> Definitions:
        """Read everything.

        Raises:
            UnitError: A definition is refused.
            LaunchError: There is no such program.
        """
        found = self._command() if self._runs.command else self._units()
        services = {name: self._changed(spec) for name, spec in found.services.items()}
        found = attrs.evolve(found, services=services).joined()
        for line in _vain_probes(found):
            output.warn(line)
        return found

    def load_again(self) -> Definitions:
        """Do the same once more, when there is no command line to complain about.

        Raises:
            UnitError: A definition is refused.
            LaunchError: There is no such program.
        """
        try:
            return self.load()
        except click.UsageError as error:
            raise UnitError(error.format_message(), "the command line") from None

    def _changed(self, spec: ServiceSpec) -> ServiceSpec:
        return override(spec, self._changes) if self._changes else spec

    def _units(self) -> Definitions:
        chosen = self._chosen
        search = Search(os.environ, chosen.user_units, chosen.unit_path, output.warn)
        found = for_units(chosen.units, search, eager=self._given["lazy"] is False)
        if not chosen.properties:
            return found
        units = [sockact.SocketUnit(unit.spec) for unit in found.units]
        specs = [unit.spec for unit in chosen.change(units, supervised=True)]
        pairs = zip(found.units, specs, strict=True)
        return attrs.evolve(
            found, units=tuple(attrs.evolve(unit, spec=spec) for unit, spec in pairs)
        )

    def _command(self) -> Definitions:
        runs = self._runs
        runs.prepare()  # there is such a program, user and directory
        specs = [*self._adopted, *(unit.spec for unit in self._chosen.load("run"))]
        if self._given["accept"]:
            limits = {} if self._given["own_path"] else _UNHURRIED
            specs = [_accepting(spec, limits) for spec in specs]
        accepts = any(spec.get(directives.ACCEPT) for spec in specs)
        settings: dict[str, object] = {
            d.RESTART.name: "no" if accepts else "on-failure",
            d.ENVIRONMENT.name: tuple(runs.variables().items()),
        }
        if accepts:
            settings[d.NOTIFY_ACCESS.name] = "none"
        if runs.inetd:
            settings[d.STANDARD_INPUT.name] = d.Stdio("socket")
            settings[d.STANDARD_OUTPUT.name] = d.Stdio("inherit")
        if runs.chdir is not None:
            settings[d.WORKING_DIRECTORY.name] = d.OptionalPath(os.path.abspath(runs.chdir))
        if runs.user is not None:
            settings[d.USER.name] = runs.user
        if runs.group is not None:
            settings[d.GROUP.name] = runs.group

        def make(name: str) -> ServiceSpec:
            return self._changed(command_service(name, runs.command, settings))

        lazy = self._given["lazy"] is True
        return for_command(specs, make, runs.command[0], eager=not lazy)


def _vain_probes(found: Definitions) -> Iterator[str]:
    """Give a line for each probe that whoever serves already would answer."""
    for name, spec in found.services.items():
        readiness = spec.get(d.X_READY)
        units = [unit.spec for unit in found.units if unit.service == name]
        addresses = [one.address for unit in units for one in unit.listeners]
        if readiness is not None and (own := shared_listener(readiness, addresses)):
            yield (
                f"{name}: {readiness} proves nothing: {own} is open whoever serves, and the old"
                " process may answer; probe an address that only the new one has"
            )


_UNHURRIED = {
    directives.TRIGGER_LIMIT_BURST.name: 0,
    directives.POLL_LIMIT_BURST.name: 0,
}
"""As systemd-socket-activate, ``exec --accept`` takes connections as fast as they come."""


def _accepting(spec: SocketSpec, limits: Mapping[str, int]) -> SocketSpec:
    values = {directives.ACCEPT.name: True, **limits}
    said = {name for name in limits if name in spec.settings}
    origin = Origin("--accept")
    return override_socket(
        spec, {name: Setting(value, origin) for name, value in values.items() if name not in said}
    )
