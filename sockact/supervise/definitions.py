"""What a supervisor runs, as values: socket units, and the services that they start."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import attrs

from sockact import directives, service_directives
from sockact.spec import InetAddress, ServiceSpec, Setting, SocketSpec

_STREAMS = (
    service_directives.STANDARD_INPUT,
    service_directives.STANDARD_OUTPUT,
    service_directives.STANDARD_ERROR,
)
_NO_SERVICES: Mapping[str, ServiceSpec] = MappingProxyType({})
_NO_TEMPLATES: Mapping[str, Callable[[str], ServiceSpec]] = MappingProxyType({})


@attrs.frozen
class UnitDefinition:
    """A socket unit, and the service that it starts.

    Attributes:
        spec: The unit.
        service: The service's name; with Accept=yes that of a template, such as ``echo@.service``.
        copies: In how many equal parts its sockets come, one for each process: with ReusePort=yes
            and X-Instances= each has sockets of its own.
    """

    spec: SocketSpec
    service: str
    copies: int = 1


@attrs.frozen
class Definitions:
    """Everything that is run.

    Attributes:
        units: The socket units, in the order in which services get their sockets.
        services: The services by name, templates left out.
        templates: What gives the definition of an instance, by the name of the template.
        eager: Names of the services that are started at once.
    """

    units: tuple[UnitDefinition, ...] = ()
    services: Mapping[str, ServiceSpec] = _NO_SERVICES
    templates: Mapping[str, Callable[[str], ServiceSpec]] = _NO_TEMPLATES
    eager: tuple[str, ...] = ()

    def joined(self) -> "Definitions":
        """Return them with what the services say of the sockets in the units.

        That is NonBlocking=, which a standard stream never is, and with ReusePort=yes and
        X-Instances= sockets for each process.
        """
        units = (self._multiplied(self._non_blocking(unit)) for unit in self.units)
        return attrs.evolve(self, units=tuple(units))

    def _non_blocking(self, unit: UnitDefinition) -> UnitDefinition:
        name = directives.NON_BLOCKING.name
        service = self.services.get(unit.service)
        if unit.service in self.templates:
            prefix, _, suffix = unit.service.partition("@")
            service = self.templates[unit.service](f"{prefix}@0{suffix}")
        if service is None or name in unit.spec.settings:
            return unit
        streams = [
            service.settings[row.name]
            for row in _STREAMS
            if row.name in service.settings and service.get(row).kind == "socket"
        ]
        if streams:  # they block, whatever else it says
            setting = Setting(False, streams[0].origin)
        elif name in service.settings:
            setting = service.settings[name]
        else:
            return unit
        settings = {**unit.spec.settings, name: setting}
        return attrs.evolve(unit, spec=attrs.evolve(unit.spec, settings=settings))

    def _multiplied(self, unit: UnitDefinition) -> UnitDefinition:
        service = self.services.get(unit.service)
        copies = service.get(service_directives.X_INSTANCES) if service else 1
        inet = all(isinstance(one.address, InetAddress) for one in unit.spec.listeners)
        if copies <= 1 or not inet or not unit.spec.get(directives.REUSE_PORT):
            return unit
        spec = attrs.evolve(unit.spec, listeners=unit.spec.listeners * copies)
        return attrs.evolve(unit, spec=spec, copies=copies)

    def triggering(self, service: str) -> list[str]:
        """Return the names of the socket units that start a service."""
        return [unit.spec.name for unit in self.units if unit.service == service]
