"""What a supervisor runs, as values: socket units, and the services that they start."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import attrs

from sockact import directives, service_directives
from sockact.spec import InetAddress, ServiceSpec, SocketSpec

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

    def multiplied(self) -> "Definitions":
        """Return them with sockets for each process where ReusePort=yes and X-Instances= say so."""
        return attrs.evolve(self, units=tuple(self._multiplied(unit) for unit in self.units))

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
