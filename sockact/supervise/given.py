"""What a process of a service gets: descriptors with their names, and which is which."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs

from sockact.fd.own import OwnedFd


@attrs.frozen
class Given:
    """Descriptors for one process.

    Attributes:
        names: Their fd names.
        fds: Their numbers; they belong to somebody else, but for `owned`.
        sockets: How many of them, from the first on, are sockets of socket units.
        owned: Those that were opened for this process alone, to be closed when it has started.
        variables: What its environment tells about them, besides LISTEN_*.
    """

    names: tuple[str, ...] = ()
    fds: tuple[int, ...] = ()
    sockets: int = 0
    owned: tuple[OwnedFd, ...] = ()
    variables: Mapping[str, str] = MappingProxyType({})

    def only_sockets(self) -> "Given":
        """Return the sockets alone; what was opened for the process stays owned here."""
        if len(self.fds) == self.sockets and not self.owned:
            return self
        names, fds = self.names[: self.sockets], self.fds[: self.sockets]
        return Given(names, fds, self.sockets, (), self.variables)

    def close(self) -> None:
        """Close what was opened for this process alone."""
        for handle in self.owned:
            handle.close()


def joined(parts: Sequence[Given]) -> Given:
    """Put together what comes from several places, in order; sockets come first."""
    return Given(
        tuple(name for part in parts for name in part.names),
        tuple(number for part in parts for number in part.fds),
        sum(part.sockets for part in parts),
        tuple(handle for part in parts for handle in part.owned),
        {name: value for part in parts for name, value in part.variables.items()},
    )
