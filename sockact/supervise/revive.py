"""Bringing back a listener that a program has shut down, for itself and so for all (shutdown(2)).

A TCP socket that was bound to a port of its own choice can listen again, and is the same socket
for everybody. Any other has to be opened anew, and then processes that have the old one do not
know of the new one.
"""

import select
import socket as _socket

import attrs

from sockact import directives
from sockact.fd.probe import borrowed
from sockact.sockets.bind import open_specs
from sockact.sockets.socketset import SocketSet
from sockact.supervise.listen import SocketUnit
from sockact.supervise.open import listening


def revive(unit: SocketUnit, index: int) -> bool:
    """Have a listener of a unit accept connections again.

    Returns:
        Whether it is the same socket.

    Raises:
        OSError: It cannot be done.
        BindError: It could not be opened anew.
    """
    entries = list(unit.sockets)
    entry = entries[index]
    if _listens_again(entry.fileno(), unit.spec.get(directives.BACKLOG)):
        unit.rewatch()
        return True
    listener = entry.listener
    if listener is None:
        raise OSError(0, "and it was inherited, so that it cannot be opened anew")
    one = attrs.evolve(listening(unit.spec), listeners=(listener,))
    opened = open_specs([one], replace=True, warn=lambda _line: None)
    entries[index] = next(iter(opened))
    opened.forget()
    whole = SocketSet(entries)
    before = unit.change_sockets(whole)
    before.forget()
    whole.extend(before)
    whole.extend(opened)
    entry.close()
    return False


def _listens_again(number: int, backlog: int) -> bool:
    sock = borrowed(number)
    try:
        if sock.family not in (_socket.AF_INET, _socket.AF_INET6):
            return False
        if sock.type != _socket.SOCK_STREAM:
            return False
        before = sock.getsockname()
        if not before[1]:
            return False
        sock.listen(min(backlog, 2**31 - 1))
        if sock.getsockname() != before:
            return False
    except OSError:
        return False
    finally:
        sock.detach()
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return not any(event & select.POLLHUP for _, event in poll.poll(0))
