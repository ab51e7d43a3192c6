"""Which of the sockets that were taken is the one that a definition asks for. Pure."""

import collections
import socket as _socket
from collections.abc import Iterable, Iterator, Sequence

import attrs

from sockact.rendezvous.manifest import Entry
from sockact.spec import (
    InetAddress,
    Kind,
    ListenerSpec,
    NetlinkAddress,
    PathAddress,
    UnixAddress,
    VsockAddress,
)

_KINDS = {
    Kind.STREAM: ("Stream",),
    Kind.DATAGRAM: ("Datagram",),
    Kind.SEQPACKET: ("SequentialPacket",),
    Kind.FIFO: ("FIFO",),
    Kind.SPECIAL: ("File", "Device"),
    Kind.NETLINK: ("Netlink",),
    Kind.MQUEUE: ("MessageQueue", "File"),
}


def matches(listener: ListenerSpec, entry: Entry, any_version: int) -> bool:
    """Whether a descriptor is what `listener` would open: same name, kind and address.

    Args:
        listener: The definition, with host names resolved.
        entry: What the descriptor is.
        any_version: The IP version, 4 or 6, of "every address of this machine".
    """
    if entry.role or listener.name != entry.name or entry.kind not in _KINDS[listener.kind]:
        return False
    address = listener.address
    match address:
        case InetAddress():
            return _is_inet(address, entry, any_version)
        case UnixAddress():
            return entry.family == "AF_UNIX" and entry.address == address.path
        case VsockAddress():
            return entry.address == f"vsock:{address.cid}:{address.port}"
        case NetlinkAddress():
            return entry.address == f"{address.protocol} {address.group}"
        case PathAddress():
            if listener.kind is Kind.MQUEUE:
                return entry.address.endswith(address.path)
            return entry.address == address.path
    return False


def _is_inet(address: InetAddress, entry: Entry, any_version: int) -> bool:
    version = address.version or any_version
    if entry.family != ("AF_INET" if version == 4 else "AF_INET6"):
        return False
    family = _socket.AF_INET if version == 4 else _socket.AF_INET6
    host, _, port = entry.address.partition("%")[0].rpartition(":")
    wanted = address.host or ("0.0.0.0" if version == 4 else "::")
    if address.port and port != str(address.port):  # port 0: whichever it had got
        return False
    return _packed(family, host.strip("[]")) == _packed(family, wanted)


def _packed(family: int, host: str) -> bytes:
    try:
        return _socket.inet_pton(family, host)
    except OSError:
        return host.encode()


def pair_opened(
    listeners: Iterable[ListenerSpec], opened: Iterable[ListenerSpec | None]
) -> list[int | None]:
    """Find for each listener a socket that was opened from the same, wherever that was written.

    A socket keeps its kind and address for life, so nobody has to be asked what it is. The path of
    another file does not stay: what was removed is not found here.

    Args:
        listeners: The definitions, with host names resolved.
        opened: What each socket was opened from, as far as that is known.

    Returns:
        For each listener the index of its socket, or None.
    """
    free: dict[tuple[object, ...], list[int]] = {}
    for index, one in enumerate(opened):
        if one is not None and not isinstance(one.address, PathAddress):
            free.setdefault((one.kind, one.address, one.name), []).append(index)
    for indices in free.values():
        indices.reverse()
    found: list[int | None] = []
    for one in listeners:
        indices = free.get((one.kind, one.address, one.name), [])
        found.append(indices.pop() if indices else None)
    return found


def pair(
    listeners: Iterable[ListenerSpec],
    entries: Sequence[Entry],
    any_version: int,
    *,
    renamed: bool = False,
) -> tuple[list[int | None], list[int]]:
    """Find for each listener an entry that nobody else has found.

    Args:
        listeners: The definitions, with host names resolved.
        entries: What the descriptors are.
        any_version: The IP version, 4 or 6, of "every address of this machine".
        renamed: Whether an entry that no listener of its name wants may be that of another name. A
            port that the kernel is to choose is no address, so there the name has to be the same.

    Returns:
        For each listener the index of its entry, or None; and the indices of entries that no
        listener wants, duties left out.
    """
    listeners = list(listeners)
    free = _Free(entries, by_place=renamed)
    found: list[int | None] = []
    for listener in listeners:
        place = _place(listener, any_version)
        found.append(free.find((listener.name, *place), listener, any_version))
    for number, listener in enumerate(listeners if renamed else ()):
        if found[number] is None and getattr(listener.address, "port", None) != 0:
            found[number] = free.find(_place(listener, any_version), listener, any_version)
    return found, free.left()


class _Free:
    """Entries that nobody has found yet, by name and place, and by their place alone if need be."""

    def __init__(self, entries: Sequence[Entry], *, by_place: bool) -> None:
        self._entries = entries
        self._left = {index: None for index, entry in enumerate(entries) if not entry.role}
        self._at: dict[tuple[object, ...], collections.deque[int]] = {}
        for index in self._left:
            for place in _places(entries[index]):
                key = (entries[index].name, *place)
                self._at.setdefault(key, collections.deque()).append(index)
                if by_place:
                    self._at.setdefault(place, collections.deque()).append(index)

    def find(self, key: tuple[object, ...], listener: ListenerSpec, any_version: int) -> int | None:
        """Return the first with this key that the listener may be by any name, and keep it."""
        at = self._at.get(key, collections.deque())
        while at and at[0] not in self._left:
            at.popleft()
        for index in at:
            entry = self._entries[index]
            if index not in self._left:
                continue
            if entry.name != listener.name:
                listener = attrs.evolve(listener, name=entry.name)
            if matches(listener, entry, any_version):
                del self._left[index]
                return index
        return None

    def left(self) -> list[int]:
        """Return those that nobody has found."""
        return list(self._left)


def _place(listener: ListenerSpec, any_version: int) -> tuple[object, ...]:
    """Return what a listener has in common with every entry that may be it."""
    address = listener.address
    match address:
        case InetAddress():
            version = address.version or any_version
            family = _socket.AF_INET if version == 4 else _socket.AF_INET6
            host = address.host or ("0.0.0.0" if version == 4 else "::")
            return _packed(family, host), str(address.port)
        case NetlinkAddress():
            return (f"{address.protocol} {address.group}",)
    return (_last(str(address)),)


def _places(entry: Entry) -> Iterator[tuple[object, ...]]:
    """Give the places of an entry: of an IP socket also that of a port of the kernel's choice."""
    if entry.family not in ("AF_INET", "AF_INET6"):
        yield (_last(entry.address),)
        return
    family = _socket.AF_INET if entry.family == "AF_INET" else _socket.AF_INET6
    host, _, port = entry.address.partition("%")[0].rpartition(":")
    for number in dict.fromkeys((port, "0")):
        yield _packed(family, host.strip("[]")), number


def _last(address: str) -> str:
    """Return the last name in a path, or the port, which two that are the same have in common."""
    return address.rpartition("/")[2].rpartition(":")[2]
