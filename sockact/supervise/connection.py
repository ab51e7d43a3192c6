"""Accept=yes: what the instance for a connection is called and told, and how many there may be.

Pure. Source: ``instance_from_socket()`` and ``socket_enter_running()`` of systemd's
``src/core/socket.c``, and the REMOTE_ variables of its ``src/core/service.c``.
"""

import socket as _socket
from collections.abc import Hashable

from sockact.sockets.caller import Caller, End

_MAPPED = "::ffff:"
_AF_VSOCK = 40
_ESCAPES = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
    "\\": "\\\\", '"': '\\"', "'": "\\'",
}  # fmt: skip


def instance_name(caller: Caller, number: int) -> str:
    """Return what stands between ``@`` and ``.service`` in the name of a connection's unit.

    Args:
        caller: The connection.
        number: How many connections the socket unit had accepted before it.

    Only letters, digits and ``:._-`` occur, so it needs no escaping.
    """
    parts = [str(number)]
    if caller.cookie is not None:
        parts.append(str(caller.cookie))
    if caller.family == _socket.AF_UNIX:
        if caller.uid is None or not caller.pid:
            parts.append("unknown")
        else:
            known = caller.pidfd_id is not None
            parts.append(f"{caller.pid}_{caller.pidfd_id}" if known else str(caller.pid))
            parts.append(str(caller.uid))
    else:
        local, remote = caller.local.host, caller.remote.host
        if _is_mapped(local) and _is_mapped(remote):
            local, remote = _plain(local), _plain(remote)
        parts += [f"{local}:{caller.local.port}", f"{remote}:{caller.remote.port}"]
    return "-".join(parts)


def environment(caller: Caller) -> dict[str, str]:
    """Return the variables that the instance gets besides LISTEN_FDS and its like.

    REMOTE_ADDR and REMOTE_PORT, and SO_COOKIE. A Unix socket has no REMOTE_PORT, and a REMOTE_ADDR
    only if the one who connected had bound a name.
    """
    remote, variables = caller.remote, dict[str, str]()
    if caller.family == _socket.AF_UNIX:
        if remote.host:
            variables["REMOTE_ADDR"] = escape(remote.host)
    elif remote.host:
        variables["REMOTE_ADDR"] = _host(caller.family, remote)
        variables["REMOTE_PORT"] = str(remote.port)
    if caller.cookie is not None:
        variables["SO_COOKIE"] = str(caller.cookie)
    return variables


def source(caller: Caller) -> Hashable:
    """Return what MaxConnectionsPerSource= counts by: equal for callers from the same source.

    An IP address without port and scope, a vsock context id, a user. None is counted by nothing.
    """
    if caller.family == _socket.AF_UNIX:
        return None if caller.uid is None else (caller.family, caller.uid)
    if caller.family in (_socket.AF_INET, _socket.AF_INET6, _AF_VSOCK):
        return caller.family, caller.remote.host
    return None


def text(caller: Caller) -> str:
    """Return who called, for people: ``127.0.0.1:4711``, or ``pid 12, uid 0``."""
    remote = caller.remote
    if caller.family == _socket.AF_UNIX:
        if caller.uid is None:
            return "unknown"
        return f"pid {caller.pid}, uid {caller.uid}" if caller.pid else f"uid {caller.uid}"
    host = _host(caller.family, End(remote.host))
    if ":" in host and caller.family == _socket.AF_INET6:
        scope = f"%{remote.scope}" if remote.scope else ""
        return f"[{host}]:{remote.port}{scope}"
    return f"{host}:{remote.port}"


def escape(name: str) -> str:
    """Return the name of a Unix socket as C would write it, as systemd gives it to instances."""
    return "".join(
        _ESCAPES.get(char, char if " " <= char <= "~" else _octal(char)) for char in name
    )


def _octal(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogateescape"))


def _is_mapped(host: str) -> bool:
    """Whether it is an IPv4 address written as an IPv6 one (RFC 4291, 2.5.5.2)."""
    return host.startswith(_MAPPED) and "." in host


def _plain(host: str) -> str:
    return host[len(_MAPPED) :] if _is_mapped(host) else host


def _host(family: int, end: End) -> str:
    if family == _AF_VSOCK:
        return f"vsock:{end.host}"
    return _plain(end.host) + (f"%{end.scope}" if end.scope else "")


class Connections:
    """How many connections of one socket unit are open, in all and from each source."""

    def __init__(self, maximum: int, per_source: int) -> None:
        """Begin with none.

        Args:
            maximum: MaxConnections=.
            per_source: MaxConnectionsPerSource=; 0 is no limit.
        """
        self._maximum = maximum
        self._per_source = per_source
        self._total = 0
        self._counts: dict[Hashable, int] = {}

    def limit(self, maximum: int, per_source: int) -> None:
        """Allow as many from now on; those that are open stay."""
        self._maximum = maximum
        self._per_source = per_source

    def __len__(self) -> int:
        return self._total

    def of(self, key: Hashable) -> int:
        """Return how many there are from one source."""
        return self._counts.get(key, 0)

    def refusal(self, key: Hashable) -> str:
        """Return why there may not be one more from this source; empty if there may."""
        if self._total >= self._maximum:
            return f"MaxConnections={self._maximum} are open"
        if self._per_source and key is not None and self.of(key) >= self._per_source:
            return f"MaxConnectionsPerSource={self._per_source} are open from there"
        return ""

    def admit(self, key: Hashable) -> str:
        """Count one more, unless that is too many.

        Args:
            key: Its `source`.

        Returns:
            Empty; or the reason for a refusal, and then it is not counted.
        """
        reason = self.refusal(key)
        if not reason:
            self._total += 1
            if key is not None:
                self._counts[key] = self.of(key) + 1
        return reason

    def leave(self, key: Hashable) -> None:
        """Count one less: a connection that was admitted under this key has ended."""
        self._total -= 1
        if key is None:
            return
        left = self._counts.pop(key) - 1
        if left:
            self._counts[key] = left
