"""Which of the sockets that were taken is the one that a definition asks for. Pure."""

import socket as _socket
from collections.abc import Iterable, Sequence

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
    free: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        if not entry.role:
            free.setdefault(entry.name, []).append(index)
    found: list[int | None] = []
    for listener in listeners:
        candidates = free.get(listener.name, [])
        chosen = next((i for i in candidates if matches(listener, entries[i], any_version)), None)
        if chosen is not None:
            candidates.remove(chosen)
        found.append(chosen)
    if renamed:
        _pair_renamed(listeners, entries, any_version, found, free)
    return found, sorted(index for indices in free.values() for index in indices)


def _pair_renamed(
    listeners: Sequence[ListenerSpec],
    entries: Sequence[Entry],
    any_version: int,
    found: list[int | None],
    free: dict[str, list[int]],
) -> None:
    """Find entries of any name for listeners that have none; both `found` and `free` change."""
    places: dict[str, list[int]] = {}
    for index in sorted(index for indices in free.values() for index in indices):
        places.setdefault(_place(entries[index].address), []).append(index)
    for number, listener in enumerate(listeners):
        if found[number] is not None or getattr(listener.address, "port", None) == 0:
            continue
        address = listener.address
        text = str(address)
        if isinstance(address, NetlinkAddress):
            text = f"{address.protocol} {address.group}"
        for index in places.get(_place(text), []):
            entry = entries[index]
            if matches(attrs.evolve(listener, name=entry.name), entry, any_version):
                found[number] = index
                free[entry.name].remove(index)
                places[_place(entry.address)].remove(index)
                break


def _place(address: str) -> str:
    """Return what two addresses that are the same have in common: the port, or the last name."""
    return address.partition("%")[0].rpartition("/")[2].rpartition(":")[2]
