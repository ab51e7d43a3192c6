"""Hearing what a service says: the manager's end of NOTIFY_SOCKET (sd_notify(3))."""

import contextlib
import os
import socket as _socket
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable

from sockact.activation.message import PAYLOAD_MAX, Message, parse
from sockact.fd.foreign import close_foreign
from sockact.fd.own import Closing, OwnedFd

_BUFFER = 8 * 1024 * 1024  # NOTIFY_RCVBUF_SIZE of systemd
_CONTROL_SIZE = 2048  # 253 descriptors take 1032 bytes, credentials 32
_AT_ONCE = 64
_UCRED = struct.Struct("=iII")

_LINUX = sys.platform == "linux"
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_CLOEXEC = getattr(_socket, "MSG_CMSG_CLOEXEC", 0x40000000 if _LINUX else 0)


class Heard:
    """One message, while it is being handled.

    Attributes:
        pid: Who sent it; 0 where the system does not tell. It may have ended by now.
        uid: The sender's user id.
        gid: The sender's group id.
        message: What it says; never a barrier.
    """

    __slots__ = ("_fds", "gid", "message", "pid", "uid")

    def __init__(
        self, pid: int, uid: int, gid: int, message: Message, fds: tuple[OwnedFd, ...] = ()
    ) -> None:
        """Own `fds`."""
        self.pid = pid
        self.uid = uid
        self.gid = gid
        self.message = message
        self._fds = fds

    @property
    def count(self) -> int:
        """How many descriptors came with it and have not been taken."""
        return len(self._fds)

    def take(self) -> tuple[OwnedFd, ...]:
        """Give the descriptors away, in the order in which they were sent; the caller owns them.

        Those that nobody takes are closed when the message has been handled.
        """
        fds, self._fds = self._fds, ()
        return fds

    def close(self) -> None:
        """Close what has not been taken."""
        for handle in self.take():
            close_foreign(handle)


class Ear(Closing):
    """One NOTIFY_SOCKET, for the processes of one service.

    Whoever sees its name can send to it (/proc/net/unix shows it to all), so who sent a message
    decides whether it counts: `sockact.activation.message.accepts`. On Linux the kernel says who it
    was, also of a sender that has ended since. Elsewhere it says nothing, and the socket lies in a
    directory that only one user can enter.

    Attributes:
        address: What NOTIFY_SOCKET is to be.
    """

    def __init__(
        self,
        *,
        directory: str | None = None,
        user: int | None = None,
        complain: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Open it.

        Args:
            directory: Where to make a directory of its own for a socket with a path. None is the
                directory for temporary files, or on Linux an abstract name: that can be reached
                from another root directory, but not from another network namespace.
            user: Whom the directory shall belong to, if not to us.
            complain: Called with a sentence about each message that is dropped.

        Raises:
            OSError: It could not be opened.
        """
        self._complain = complain
        self._directory = ""
        self._hearing = False
        self._most = _queue_length() + _AT_ONCE
        self._sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        try:
            self._sock.setblocking(False)
            _grow(self._sock)
            if sys.platform == "linux":
                # Before it has a name: what comes earlier would come from nobody.
                self._sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
            if _LINUX and directory is None:
                self.address = f"@sockact/notify/{os.urandom(16).hex()}"
                self._sock.bind(b"\0" + self.address[1:].encode())
            else:
                self._directory = tempfile.mkdtemp(prefix="sockact-", dir=directory)  # mode 0700
                self.address = os.path.join(self._directory, "notify")
                self._sock.bind(self.address)
                if user is not None and user != os.geteuid():
                    os.chown(self.address, user, -1)
                    os.chown(self._directory, user, -1)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to `hear`."""
        return self._sock.fileno()

    def hear(self, handle: Callable[[Heard], None], limit: int | None = _AT_ONCE) -> int:
        """Read what is waiting, and have it handled message by message.

        A barrier is answered here, when `handle` has returned from everything that was sent before
        it. A call from within `handle` does nothing, for the same reason.

        To be called too when a process is found to have ended, without a limit and before that is
        acted upon: its last words may still be waiting.

        Args:
            handle: Called with each message that is well formed, whoever sent it. What it raises
                comes out here; the message it was called with is gone then, the others wait.
            limit: How many messages to read at most; the rest makes the descriptor readable again.
                None is as many as can have been waiting when this was called.

        Returns:
            How many were read, dropped ones included.

        Raises:
            OSError: It cannot be read.
        """
        if self._hearing:
            return 0
        self._hearing = True
        count = 0
        most = self._most if limit is None else limit
        try:
            while self.fileno() >= 0 and count < most:
                if not self._hear_one(handle):
                    break
                count += 1
        finally:
            self._hearing = False
        return count

    def _hear_one(self, handle: Callable[[Heard], None]) -> bool:
        """Read one message and have it handled; return whether there was one."""
        try:
            data, control, flags, _ = self._sock.recvmsg(PAYLOAD_MAX, _CONTROL_SIZE, _CLOEXEC)
        except BlockingIOError:
            return False
        fds, sender = _sort(control)
        heard = Heard(*(sender or (0, 0, 0)), Message(), fds)
        try:
            message = _problem(flags, sender) or parse(data)
            if isinstance(message, str):
                self._complain(f"a message of process {heard.pid} was dropped: {message}")
            elif message.barrier:
                if heard.count != 1:
                    self._complain(
                        f"process {heard.pid} sent BARRIER=1 with {heard.count} descriptors"
                    )
            else:
                heard.message = message
                handle(heard)
                if heard.count:
                    self._complain(
                        f"process {heard.pid} sent {heard.count} descriptors for nothing"
                    )
        finally:
            heard.close()
        return True

    def close(self) -> None:
        """Close it, and with it everything that has not been heard; a second time does nothing."""
        self._sock.close()
        directory, self._directory = self._directory, ""
        if directory:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(directory, "notify"))
            with contextlib.suppress(OSError):
                os.rmdir(directory)


def _queue_length() -> int:
    """Return how many messages can wait at a new socket, but for some by racing senders."""
    with contextlib.suppress(OSError), open("/proc/sys/net/unix/max_dgram_qlen", "rb") as file:
        return int(file.read())
    return 1024


def _grow(sock: _socket.socket) -> None:
    """Make room for what comes while we are busy, as much as we are given."""
    for option in (_SO_RCVBUFFORCE, _socket.SO_RCVBUF) if _LINUX else (_socket.SO_RCVBUF,):
        with contextlib.suppress(OSError):
            sock.setsockopt(_socket.SOL_SOCKET, option, _BUFFER)
            return


def _sort(
    control: Iterable[tuple[int, int, bytes]],
) -> tuple[tuple[OwnedFd, ...], tuple[int, int, int] | None]:
    """Return what came along: descriptors, and pid, uid and gid of the sender if they are known."""
    fds: list[OwnedFd] = []
    sender = None if _LINUX else (0, os.geteuid(), os.getegid())
    for level, kind, value in control:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            numbers = struct.unpack(f"={len(value) // 4}i", value[: len(value) // 4 * 4])
            fds += [OwnedFd(fd) for fd in numbers]
        elif sys.platform == "linux" and (
            (level, kind, len(value)) == (_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS, _UCRED.size)
        ):
            sender = _UCRED.unpack(value)
    if not _CLOEXEC:
        for fd in fds:
            os.set_inheritable(fd.fileno(), False)
    return tuple(fds), sender


def _problem(flags: int, sender: tuple[int, int, int] | None) -> str:
    """Return what is wrong with a message that was read, or nothing."""
    if flags & _socket.MSG_CTRUNC:
        return "it lost descriptors; probably this process may not open as many (RLIMIT_NOFILE)"
    if flags & _socket.MSG_TRUNC:
        return f"it is longer than {PAYLOAD_MAX} bytes"
    if sender is None or (_LINUX and sender[0] <= 0):
        return "the kernel does not tell who sent it: nobody in our pid namespace"
    return ""
