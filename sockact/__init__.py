"""sockact: systemd-style socket activation for Python, with and without systemd.

Every name is imported at its first use, so that ``import sockact`` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sockact import aio, daemon, errors
    from sockact.activation import notify
    from sockact.activation.launch import Prepared, execute, prepare, wait_for_traffic
    from sockact.activation.receive import listen_fds
    from sockact.fd.probe import (
        Description,
        describe,
        is_fifo,
        is_mq,
        is_socket,
        is_socket_inet,
        is_socket_unix,
        is_special,
    )
    from sockact.holder.hold import hold
    from sockact.library import (
        SocketUnit,
        activated_or_listen,
        check,
        definition,
        held_by,
        listen,
        load,
        offer,
        socket,
        take_or_listen,
        takeover,
    )
    from sockact.rendezvous.command import control
    from sockact.rendezvous.policy import Rule
    from sockact.rendezvous.take import Holding, drop, holdings, put, take
    from sockact.rendezvous.thread import Rendezvous
    from sockact.sockets.bind import open_specs
    from sockact.sockets.holder import Process
    from sockact.sockets.socketset import NamedSocket, SocketSet
    from sockact.spec import Kind, ListenerSpec, SocketSpec
    from sockact.unitfile.check import Finding, Severity

_HOMES = {
    "sockact.activation": ("notify",),
    "sockact": ("aio", "daemon", "errors"),
    "sockact.activation.launch": ("Prepared", "execute", "prepare", "wait_for_traffic"),
    "sockact.activation.receive": ("listen_fds",),
    "sockact.fd.probe": (
        "Description",
        "describe",
        "is_fifo",
        "is_mq",
        "is_socket",
        "is_socket_inet",
        "is_socket_unix",
        "is_special",
    ),
    "sockact.holder.hold": ("hold",),
    "sockact.library": (
        "SocketUnit",
        "activated_or_listen",
        "check",
        "definition",
        "held_by",
        "listen",
        "load",
        "offer",
        "socket",
        "take_or_listen",
        "takeover",
    ),
    "sockact.rendezvous.command": ("control",),
    "sockact.rendezvous.policy": ("Rule",),
    "sockact.rendezvous.take": ("Holding", "drop", "holdings", "put", "take"),
    "sockact.rendezvous.thread": ("Rendezvous",),
    "sockact.sockets.bind": ("open_specs",),
    "sockact.sockets.holder": ("Process",),
    "sockact.sockets.socketset": ("NamedSocket", "SocketSet"),
    "sockact.spec": ("Kind", "ListenerSpec", "SocketSpec"),
    "sockact.unitfile.check": ("Finding", "Severity"),
}
_MODULES = ("aio", "daemon", "errors", "notify")

__all__ = [
    "Description",
    "Finding",
    "Holding",
    "Kind",
    "ListenerSpec",
    "NamedSocket",
    "Prepared",
    "Process",
    "Rendezvous",
    "Rule",
    "Severity",
    "SocketSet",
    "SocketSpec",
    "SocketUnit",
    "__version__",
    "activated_or_listen",
    "aio",
    "check",
    "control",
    "daemon",
    "definition",
    "describe",
    "drop",
    "errors",
    "execute",
    "held_by",
    "hold",
    "holdings",
    "is_fifo",
    "is_mq",
    "is_socket",
    "is_socket_inet",
    "is_socket_unix",
    "is_special",
    "listen",
    "listen_fds",
    "load",
    "notify",
    "offer",
    "open_specs",
    "prepare",
    "put",
    "socket",
    "take",
    "take_or_listen",
    "takeover",
    "wait_for_traffic",
]


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            if name in _MODULES:
                found: object = importlib.import_module(f"{home}.{name}")
            else:
                found = getattr(importlib.import_module(home), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module 'sockact' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
