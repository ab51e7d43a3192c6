"""Where the sockets of a supervisor come from: inherited, from a holder, or opened here."""

from collections.abc import Iterable

from sockact.rendezvous.furnish import Options, ask_for, missing_of, resolved, take_for
from sockact.rendezvous.match import pair_opened
from sockact.sockets.bind import open_specs
from sockact.sockets.socketset import SocketSet
from sockact.sockets.task import Warn
from sockact.spec import HostAddress, ListenerSpec, SocketSpec
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

    def may_wait(self, spec: SocketSpec) -> bool:
        """Whether `find` may take long: it asks a resolver, or a holder."""
        named = any(isinstance(one.address, HostAddress) for one in spec.listeners)
        return named or self._settings.source is not None

    def find(self, specs: Iterable[SocketSpec], present: Iterable[ListenerSpec | None]) -> "Found":
        """Look up what definitions need: addresses of names, and what a holder has of what is new.

        This may take long, and may be called in any thread.

        Args:
            specs: The definitions.
            present: What is open was opened from these.

        Raises:
            BindError: A host name has no address.
            RendezvousError: The holder does not answer, or not in time.
        """
        resolved = [self.resolved(spec) for spec in specs]
        settings = self._settings
        taken = SocketSet()
        if settings.source is not None:
            listeners = [one for spec in resolved for one in spec.listeners]
            missing = missing_of(resolved, pair_opened(listeners, present))
            if missing:
                _, taken = ask_for(
                    settings.source,
                    missing,
                    timeout=settings.timeout,
                    trusted=settings.trusted,
                    warn=self.warn,
                )
        return Found(resolved, Inheritance(taken, renamed=False), self.warn)

    def open_first(self, spec: SocketSpec) -> SocketSet:
        """Return the sockets of a unit: what was inherited, and for the rest as `open`."""
        return self._inheritance.open(spec, self.open)

    def close(self) -> None:
        """Close what was inherited and nobody has wanted."""
        self._inheritance.close()


class Found:
    """What was looked up for definitions.

    Attributes:
        specs: The definitions, with host names resolved.
    """

    def __init__(self, specs: list[SocketSpec], taken: Inheritance, warn: Warn) -> None:
        """Take ownership of what a holder gave."""
        self.specs = specs
        self._taken = taken
        self._warn = warn

    def open(self, spec: SocketSpec) -> SocketSet:
        """Return the sockets of one of them, or of some of its listeners, without waiting.

        Raises:
            BindError: One could not be opened; nothing is left of it.
        """
        return self._taken.open(spec, lambda rest: open_specs([rest], warn=self._warn))

    def close(self) -> None:
        """Close what was not used."""
        self._taken.close()
