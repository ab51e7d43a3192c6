"""Where the sockets of a supervisor come from: inherited, from a holder, or opened here."""

from sockact.rendezvous.furnish import Options, resolved, take_for
from sockact.sockets.bind import open_specs
from sockact.sockets.socketset import SocketSet
from sockact.sockets.task import Warn
from sockact.spec import SocketSpec
from sockact.supervise.inherit import Inheritance
from sockact.supervise.open import listening
from sockact.supervise.settings import Settings


class Supply:
    """What opens the units of one supervisor.

    Attributes:
        warn: Called with a line for each option that could not be set.
    """

    def __init__(self, settings: Settings, inheritance: Inheritance, warn: Warn) -> None:
        """Take ownership of what was inherited."""
        self.warn = warn
        self._settings = settings
        self._inheritance = inheritance

    def options(self, patience: float = 0.0) -> Options:
        """Return how to come to the rendezvous; services need `patience` seconds to get ready."""
        settings = self._settings
        return Options(
            timeout=settings.timeout,
            patience=patience,
            drain=settings.drain,
            trusted=settings.trusted,
            blocking=not settings.shared,
        )

    def resolved(self, spec: SocketSpec) -> SocketSpec:
        """Return what `open` opens for a unit.

        Raises:
            BindError: A host name has no address.
        """
        return resolved(listening(spec), self.options())

    def open(self, spec: SocketSpec) -> SocketSet:
        """Return the sockets of a unit, from the holder if there is one.

        Raises:
            BindError: One of them could not be opened; nothing is left of it.
            RendezvousError: The holder did not give them.
        """
        if self._settings.source is None:
            return open_specs([spec], warn=self.warn)
        return take_for(
            self._settings.source,
            [spec],
            replace=False,
            timeout=self._settings.timeout,
            trusted=self._settings.trusted,
            warn=self.warn,
        )

    def open_first(self, spec: SocketSpec) -> SocketSet:
        """Return the sockets of a unit: what was inherited, and for the rest as `open`."""
        return self._inheritance.open(spec, self.open)

    def close(self) -> None:
        """Close what was inherited and nobody has wanted."""
        self._inheritance.close()
