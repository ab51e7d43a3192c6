"""Descriptors to manifest entries: what each one is, as the kernel tells."""

import os
import socket as _socket
import stat
from collections.abc import Iterable

from sockact.fd.identity import identity, namespace_cookie, socket_cookie
from sockact.fd.own import OwnedFd
from sockact.fd.probe import borrowed, describe
from sockact.rendezvous.manifest import Entry, Manifest


def inspect(fd: int, name: str, set_name: str, role: str = "") -> Entry:
    """Return the entry of one descriptor.

    Raises:
        OSError: It is not open.
    """
    what = describe(fd)
    device, inode = identity(fd)
    protocol = cookie = namespace = 0
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        sock = borrowed(fd)
        protocol = sock.proto
        sock.detach()
        cookie = socket_cookie(fd) or 0
        namespace = namespace_cookie(fd) or 0
    return Entry(
        set_name, name, what.kind, what.family, what.address, protocol, what.listening,
        device, inode, cookie, namespace, role,
    )  # fmt: skip


def manifest_of(entries: Iterable[tuple[str, OwnedFd]], set_name: str) -> Manifest:
    """Return the manifest of named descriptors that are to be one set.

    Raises:
        OSError: One is not open.
        FdStateError: One was closed.
    """
    return Manifest([inspect(fd.fileno(), name, set_name) for name, fd in entries])


def elsewhere(manifest: Manifest) -> list[str]:
    """Return a line for a person if sockets live in another network namespace than this process.

    A socket serves the namespace that it was made in, wherever the process is that accepts. To the
    path of a Unix socket that makes no difference.
    """
    there = [
        entry
        for entry in manifest
        if entry.namespace
        and not entry.role
        and (entry.family != "AF_UNIX" or entry.address.startswith("@"))
    ]
    if not there:
        return []
    with _socket.socket(_socket.AF_UNIX) as own:
        here = namespace_cookie(own.fileno())
    names = dict.fromkeys(entry.name for entry in there if entry.namespace != here)
    if not here or not names:
        return []
    text = "made in another network namespace, whose clients it goes on to serve"
    return [f"{', '.join(names)}: {text}; what is opened here is opened in this one"]
