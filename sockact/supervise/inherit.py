"""Sockets that a supervisor was itself activated with: they are used where a unit wants them."""

from collections.abc import Callable, Iterable

import attrs

from sockact.rendezvous.furnish import any_version
from sockact.rendezvous.inspect import inspect
from sockact.rendezvous.match import pair
from sockact.sockets.resolve import resolve_spec
from sockact.sockets.socketset import NamedSocket, SocketSet
from sockact.spec import Kind, ListenerSpec, Origin, SocketSpec
from sockact.unitfile.address import listen_address

Open = Callable[[SocketSpec], SocketSet]


class Inheritance:
    """What was inherited and nobody has taken yet; owned here."""

    def __init__(self, sockets: SocketSet, *, renamed: bool = True) -> None:
        """Take ownership of `sockets`.

        Args:
            sockets: What was inherited.
            renamed: Whether a unit may get what has another fd name.
        """
        self._renamed = renamed
        self._entries = list(sockets)
        sockets.forget()

    def __len__(self) -> int:
        return len(self._entries)

    def unwanted(self, specs: Iterable[SocketSpec]) -> list[NamedSocket]:
        """Return what no listener of these units is; it stays owned here.

        Raises:
            BindError: A host name has no address.
        """
        listeners = [one for spec in specs for one in resolve_spec(spec).listeners]
        _, left = self._pair(listeners)
        return [self._entries[index] for index in left]

    def _pair(self, listeners: list[ListenerSpec]) -> tuple[list[int | None], list[int]]:
        rows = [inspect(entry.fileno(), entry.name, entry.name) for entry in self._entries]
        return pair(listeners, rows, any_version(), renamed=self._renamed)

    def open(self, spec: SocketSpec, open_: Open) -> SocketSet:
        """Return the sockets of a unit: what was inherited, and for the rest what `open_` opens.

        Raises:
            BindError: Something could not be opened; what was inherited stays.
        """
        listeners = list(spec.listeners)
        found, _ = self._pair(listeners)
        missing = [one for one, index in zip(listeners, found, strict=True) if index is None]
        opened = open_(attrs.evolve(spec, listeners=tuple(missing))) if missing else SocketSet()
        new = iter(list(opened))
        opened.forget()
        whole = SocketSet()
        for listener, index in zip(listeners, found, strict=True):
            if index is None:
                whole.append(next(new))
            else:
                number = self._entries[index].release()
                whole.append(NamedSocket(listener.name, number, listener))
        self._entries = [entry for entry in self._entries if not entry.closed]
        whole.extend(opened)
        return whole

    def close(self) -> None:
        """Close what nobody has taken."""
        for entry in self._entries:
            entry.close()
        self._entries = []


def unit_for(entry: NamedSocket) -> SocketSpec | None:
    """Return a definition of what was inherited; None if a unit cannot say what it is."""
    what = entry.describe()
    try:
        kind = Kind(what.kind)
        address = listen_address(kind, what.address)
    except ValueError:
        return None
    origin = Origin(f"inherited {entry.name}")
    return SocketSpec(entry.name, (ListenerSpec(kind, address, entry.name, origin),))
