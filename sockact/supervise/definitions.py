"""What a supervisor runs, as values: socket units, and the services that they start."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import attrs

from sockact.spec import ServiceSpec, SocketSpec

_NO_SERVICES: Mapping[str, ServiceSpec] = MappingProxyType({})
_NO_TEMPLATES: Mapping[str, Callable[[str], ServiceSpec]] = MappingProxyType({})


@attrs.frozen
class UnitDefinition:
    """A socket unit, and the service that it starts.

    Attributes:
        spec: The unit.
        service: The service's name; with Accept=yes that of a template, such as ``echo@.service``.
    """

    spec: SocketSpec
    service: str


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

    def triggering(self, service: str) -> list[str]:
        """Return the names of the socket units that start a service."""
        return [unit.spec.name for unit in self.units if unit.service == service]
