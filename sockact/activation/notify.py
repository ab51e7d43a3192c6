"""Telling the service manager how it stands: sd_notify(3).

Text goes through the sdnotify package. What that cannot do is done here: descriptors for the fd
store, the barrier, and a manager behind a vsock address (``NOTIFY_SOCKET=vsock:2:9999``), as in
virtual machines. Without NOTIFY_SOCKET every function does nothing and returns False, so a
program calls them wherever it runs.
"""

import contextlib
import errno
import os
import select
import socket as _socket
import time
from collections.abc import Iterator, Sequence

from sockact.errors import NotifyError
from sockact.fd.transfer import FDS_MAX, send_message
from sockact.sockets.socketset import SocketSet

_SEND_BUFFER = 8 * 1024 * 1024


def ready(status_text: str = "") -> bool:
    """Say that start-up, or a reload, is finished: ``READY=1``.

    Args:
        status_text: A line for ``systemctl status``, sent along.

    Returns:
        Whether there was a manager to tell.

    Raises:
        NotifyError: There is one, but it could not be told.
    """
    line = status_text.replace("\n", " ")
    return notify("READY=1" + (f"\nSTATUS={line}" if line else ""))


def reloading() -> bool:
    """Say that a reload has begun, and when (``Type=notify-reload`` wants the time); then `ready`.

    Returns:
        Whether there was a manager to tell.

    Raises:
        NotifyError: It could not be told.
    """
    return notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> bool:
    """Say that shutting down has begun: ``STOPPING=1``.

    Returns:
        Whether there was a manager to tell.

    Raises:
        NotifyError: It could not be told.
    """
    return notify("STOPPING=1")


def status(text: str) -> bool:
    """Show one line in ``systemctl status``.

    Returns:
        Whether there was a manager to tell.

    Raises:
        NotifyError: It could not be told.
    """
    return notify("STATUS=" + text.replace("\n", " "))


def watchdog() -> bool:
    """Say that this process is alive: ``WATCHDOG=1``; see `watchdog_seconds`.

    Returns:
        Whether there was a manager to tell.

    Raises:
        NotifyError: It could not be told.
    """
    return notify("WATCHDOG=1")


def watchdog_seconds() -> float | None:
    """Return the interval, in seconds, in which the manager wants `watchdog`; half of it is wise.

    Returns:
        None if it wants none, or wants it from another process (sd_watchdog_enabled(3)).

    Raises:
        NotifyError: WATCHDOG_USEC or WATCHDOG_PID is malformed.
    """
    text = os.environ.get("WATCHDOG_USEC")
    if text is None:
        return None
    pid = os.environ.get("WATCHDOG_PID", "").strip() or str(os.getpid())
    if not text.strip().isdecimal() or not int(text) or not pid.isdecimal():
        raise NotifyError(errno.EINVAL, f"WATCHDOG_USEC={text!r}, WATCHDOG_PID={pid!r}")
    return int(text) / 1e6 if int(pid) == os.getpid() else None


def store(sockets: SocketSet, *, poll: bool = True) -> bool:
    """Park descriptors in the manager's fd store, where they outlive this process.

    They come back to the next start of the service through LISTEN_FDS, under their fd names. The
    set goes on owning its own copies.

    Args:
        sockets: What to store; needs FileDescriptorStoreMax= in the service.
        poll: Whether the manager drops a descriptor that reports an error or a hang-up.

    Returns:
        Whether there was a manager to tell.

    Raises:
        NotifyError: It could not be told. Some names may have been stored already.
    """
    by_name: dict[str, list[int]] = {}
    for entry in sockets:
        by_name.setdefault(entry.name, []).append(entry.fileno())
    told = False
    for name, numbers in by_name.items():
        text = f"FDSTORE=1\nFDNAME={name}" + ("" if poll else "\nFDPOLL=0")
        for start in range(0, len(numbers), FDS_MAX):
            told = notify(text, numbers[start : start + FDS_MAX])
    return told


def unstore(name: str) -> bool:
    """Remove every descriptor of that fd name from the manager's fd store.

    Returns:
        Whether there was a manager to tell.

    Raises:
        NotifyError: It could not be told.
    """
    return notify(f"FDSTOREREMOVE=1\nFDNAME={name}")


def barrier(timeout: float | None = 5.0) -> bool:
    """Wait until the manager has handled everything that this process sent before.

    Args:
        timeout: Seconds to wait at most; None for ever.

    Returns:
        Whether there was a manager to tell.

    Raises:
        NotifyError: It could not be told, or ETIMEDOUT.

    Source: sd_notify_barrier(3).
    """
    reader, writer = os.pipe()
    try:
        try:
            if not notify("BARRIER=1", [writer]):
                return False
        finally:
            os.close(writer)
        poll = select.poll()
        poll.register(reader, 0)
        if not poll.poll(None if timeout is None else max(0, int(timeout * 1000))):
            raise NotifyError(errno.ETIMEDOUT, "the service manager did not answer the barrier")
        return True
    finally:
        os.close(reader)


def notify(state: str, fds: Sequence[int] = (), *, pid: int = 0) -> bool:
    """Send one message to the service manager.

    Args:
        state: Lines of ``KEY=VALUE``.
        fds: Descriptors to send along, which the caller goes on owning.
        pid: Speak for another process, if the kernel allows it; 0 is this one.

    Returns:
        False if NOTIFY_SOCKET is not set, else True.

    Raises:
        NotifyError: NOTIFY_SOCKET is set, but nothing could be sent there.

    Source: sd_notify(3).
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    try:
        with _connect(address) as sock:
            # sdnotify encodes in Latin-1, but the manager reads UTF-8.
            if not fds and not pid and state.isascii():
                _notify_text(sock, state)
            else:
                send_message(sock, state.encode(), fds, pid)
            if sock.type != _socket.SOCK_DGRAM:
                sock.shutdown(_socket.SHUT_WR)
                sock.recv(1)  # the manager closes when it has read all
    except OSError as error:
        number = error.errno or errno.EINVAL
        reason = error.strerror or str(error)
        raise NotifyError(number, f"cannot notify {address}: {reason}") from None
    except ValueError as error:
        raise NotifyError(errno.EINVAL, f"NOTIFY_SOCKET={address}: {error}") from None
    return True


def _notify_text(sock: _socket.socket, state: str) -> None:
    import sdnotify  # noqa: PLC0415 - not needed by those who notify nobody

    # Its constructor would connect a socket of its own, and drop that unclosed if it cannot.
    notifier = sdnotify.SystemdNotifier.__new__(sdnotify.SystemdNotifier)
    notifier.socket, notifier.debug = sock, True  # debug: let errors through
    notifier.notify(state)


_VSOCK_TYPES: dict[str, tuple[_socket.SocketKind, ...]] = {
    "vsock-stream": (_socket.SOCK_STREAM,),
    "vsock-dgram": (_socket.SOCK_DGRAM,),
    "vsock-seqpacket": (_socket.SOCK_SEQPACKET,),
    "vsock": (_socket.SOCK_DGRAM, _socket.SOCK_SEQPACKET, _socket.SOCK_STREAM),
}


@contextlib.contextmanager
def _connect(address: str) -> Iterator[_socket.socket]:
    scheme, _, rest = address.partition(":")
    if address.startswith(("/", "@")):
        name: object = (
            os.fsencode(address).replace(b"@", b"\0", 1) if address[0] == "@" else address
        )
        family, types = int(_socket.AF_UNIX), _VSOCK_TYPES["vsock-dgram"]
    elif scheme in _VSOCK_TYPES:
        cid, _, port = rest.partition(":")
        name = (int(cid), int(port))  # no "any" here: there is one manager to tell
        family, types = 40, _VSOCK_TYPES[scheme]
    else:
        raise ValueError("neither a path, an @abstract name nor a vsock address")
    failure: OSError | None = None
    for kind in types:
        try:
            sock = _socket.socket(family, kind)
        except OSError as error:
            failure = failure or error
            continue
        with sock:
            try:
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, _SEND_BUFFER)
                sock.connect(name)  # type: ignore[arg-type]
            except OSError as error:
                failure = error
                continue
            yield sock
            return
    assert failure is not None
    try:
        raise failure
    finally:
        failure = None  # else the exception, its traceback and this frame would hold each other
