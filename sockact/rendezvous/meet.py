"""The path of a rendezvous: its lock, its node, and how a client comes there.

The path never vanishes and is never anybody else's: a node is made under another name and renamed
over the path when it listens, by the one process that holds the lock of the path, so a client
finds the old listener or the new one. A node is stale only if connect(2) is refused while the lock
is held, because a listener that is being made is refused as well. The lock is an flock(2) on
``PATH.lock``; it belongs to the file description, so it goes to a successor like any other
descriptor. A name that begins with ``@`` is abstract: it has no node, and its lock is a datagram
socket of the same name, which nobody reads. The kernel gives a name to one socket of a type at a
time (net/unix/af_unix.c: unix_bind_abstract()), and it goes with the last descriptor.
"""

import contextlib
import errno
import fcntl
import os
import socket as _socket
import stat
import time
from collections.abc import Iterator, Sequence

from sockact.errors import OwnerNotFoundError, PathInUseError, RendezvousError, UntrustedOwnerError
from sockact.fd.own import OwnedFd
from sockact.fd.peer import overflow_uid, peer_of, refuse_descriptors
from sockact.rendezvous.policy import Who, nameless, trusts
from sockact.sockets.node import bind_with_mode

SEQPACKET = _socket.SOCK_SEQPACKET
STREAM = _socket.SOCK_STREAM
BACKLOG = 128
WAIT_SECONDS = 0.02
_PATH_MAX = 100  # sun_path has 108 bytes, on macOS 104
_ABSTRACT_MAX = 107  # without the @
_NAME_MAX = 80  # behind /proc/self/fd/N/, and with .new at its end


def who_is(sock: _socket.socket) -> Who:
    """Return who is at the other end.

    Raises:
        OSError: There is nobody.
    """
    peer = peer_of(sock)
    return Who(peer.uid, (peer.gid, *peer.groups), peer.pid)


def checked_path(path: str, trusted: Sequence[int] = ()) -> str:
    """Return the path of a rendezvous in its final form, absolute and without links above it.

    Args:
        path: The path, or an abstract name with a leading ``@``, which is returned as it is.
        trusted: Users who may own the path, and so its directory, besides root and this process's
            own.

    Raises:
        PathInUseError: It is no place for a socket: a directory is missing, or others may write
            there, and so could put a socket of theirs in the place of ours; or it is too long.
    """
    if path.startswith("@"):
        if (count := len(os.fsencode(path)) - 1) > _ABSTRACT_MAX:
            raise PathInUseError(f"{path}: {count} bytes are too long for an abstract name")
        return path
    if not os.path.basename(path):
        where = path or repr(path)
        raise PathInUseError(f"{where}: a rendezvous is the path of a socket, not a directory")
    try:
        directory = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    except FileNotFoundError:
        raise PathInUseError(f"{path}: the working directory does not exist any more") from None
    current = directory
    while True:
        try:
            info = os.lstat(current)
        except OSError as error:
            raise PathInUseError(f"{path}: {current}: {error.strerror}") from None
        _check_directory(path, current, info, trusted)
        if current == "/":
            return _short_enough(os.path.join(directory, os.path.basename(path)))
        current = os.path.dirname(current)


def _short_enough(path: str) -> str:
    whole, name = len(os.fsencode(path)), len(os.fsencode(os.path.basename(path)))
    if whole <= _PATH_MAX - len(".new"):
        return path
    if not os.path.isdir("/proc/self/fd"):
        raise PathInUseError(f"{path}: {whole} bytes are too long for the path of a socket")
    if name > _NAME_MAX:
        raise PathInUseError(f"{path}: {name} bytes are too long for the name of a socket")
    return path


def _check_directory(
    path: str, directory: str, info: os.stat_result, trusted: Sequence[int]
) -> None:
    if not stat.S_ISDIR(info.st_mode):
        raise PathInUseError(f"{path}: {directory} is no directory")
    if info.st_uid not in (0, os.geteuid(), *trusted):
        raise PathInUseError(
            f"{path}: {directory} belongs to uid {info.st_uid}, who could put another socket there",
            errno.EACCES,
        )
    if info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX:
        raise PathInUseError(
            f"{path}: others may write to {directory}; use a directory of your own, or chmod go-w",
            errno.EACCES,
        )


@contextlib.contextmanager
def _address(path: str) -> Iterator[bytes]:
    """Give what bind() and connect() take for a path, also for one that is too long for them."""
    if path.startswith("@"):
        yield b"\0" + os.fsencode(path[1:])
        return
    name = os.fsencode(path)
    if len(name) <= _PATH_MAX or not os.path.isdir("/proc/self/fd"):
        yield name
        return
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/".encode() + os.path.basename(name)
    finally:
        os.close(directory)


def _socket_of(kind: int) -> _socket.socket:
    sock = _socket.socket(_socket.AF_UNIX, kind)
    sock.setblocking(False)
    return sock


def connect(path: str, deadline: float, *, trusted: Sequence[int] = ()) -> _socket.socket:
    """Connect to the owner at `path`.

    Args:
        path: The path, or an abstract name with a leading ``@``.
        deadline: Until when a full backlog is waited for, on the monotonic clock.
        trusted: Users who may own the path besides root and this process's own.

    Returns:
        A connected, non-blocking socket, which the caller owns.

    Raises:
        OwnerNotFoundError: Nobody listens there.
        UntrustedOwnerError: Somebody else does.
        PathInUseError: Something that is no socket stands there.
        RendezvousError: It cannot be reached: no permission, or its backlog stayed full.
    """
    _check_node(path)
    sock = _connect(path, deadline)
    try:
        owner = who_is(sock)
        if not trusts(owner, os.geteuid(), overflow_uid(), trusted):
            nobody = nameless(owner, overflow_uid())
            own = os.geteuid()
            but = nobody or ", not by root" + (f" or uid {own}" if own else "")
            raise UntrustedOwnerError(f"{path}: is owned by {owner}{but}; nothing was asked")
    except BaseException:
        sock.close()
        raise
    return sock


def _check_node(path: str) -> None:
    """Raise PathInUseError if what stands there is no socket; a link is none, wherever it leads."""
    if path.startswith("@"):
        return
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return  # whoever needs the path hears of it
    if not stat.S_ISSOCK(mode):
        raise PathInUseError(f"{path}: something that is no socket stands there")


def _connect(path: str, deadline: float) -> _socket.socket:
    kind = SEQPACKET
    while True:
        try:
            sock = _socket_of(kind)
        except OSError as error:
            if error.errno == errno.EPROTONOSUPPORT and kind == SEQPACKET:
                kind = STREAM  # macOS
                continue
            raise RendezvousError(f"{path}: {error.strerror}", error.errno or 0) from None
        try:
            with _address(path) as address:
                number = sock.connect_ex(address)
        except OSError as error:
            number = error.errno or errno.EINVAL
        if not number:
            return sock
        sock.close()
        if number == errno.ECONNREFUSED and kind == SEQPACKET and path.startswith("@"):
            kind = STREAM  # each type has abstract names of its own
            continue
        if number in (errno.ENOENT, errno.ECONNREFUSED):
            raise OwnerNotFoundError(f"{path}: nobody listens there", number)
        if number == errno.EPROTOTYPE and kind == SEQPACKET:
            kind = STREAM
        elif number != errno.EAGAIN or time.monotonic() >= deadline:
            why = "its backlog is full" if number == errno.EAGAIN else os.strerror(number)
            raise RendezvousError(f"{path}: cannot connect: {why}", number)
        else:
            time.sleep(WAIT_SECONDS)


class Place:
    """A path, held by its lock: nobody else may publish there.

    Attributes:
        path: The path.
        lock: The lock; None while it is a former owner's. A takeover passes it on.
    """

    def __init__(self, path: str, lock: OwnedFd | None) -> None:
        """Take ownership of `lock`."""
        self.path = path
        self.lock = lock
        self._kept = False

    def keep(self) -> None:
        """Make `vacate` leave the node: somebody else keeps the listener and the lock open."""
        self._kept = True

    @classmethod
    def occupy(cls, path: str) -> "Place | None":
        """Lock a path, unless another process has it locked.

        Raises:
            PathInUseError: The lock is no file of ours.
        """
        if path.startswith("@"):
            return cls._occupy_name(path)
        name = path + ".lock"
        while True:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                lock = OwnedFd(os.open(name, flags, 0o600))
            except OSError as error:
                raise PathInUseError(f"{name}: {error.strerror}", error.errno or 0) from None
            keep = False
            try:
                info = os.fstat(lock.fileno())
                if not stat.S_ISREG(info.st_mode) or info.st_uid not in (0, os.geteuid()):
                    raise PathInUseError(f"{name}: is no lock of ours; remove it")
                try:
                    fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return None
                if _is_node(name, (info.st_dev, info.st_ino)):
                    keep = True
                    return cls(path, lock)
                # The one who had it has removed it meanwhile: somebody may have made a new one.
            finally:
                if not keep:
                    lock.close()

    @classmethod
    def _occupy_name(cls, path: str) -> "Place | None":
        sock = _socket_of(_socket.SOCK_DGRAM)
        try:
            with _address(path) as address:
                sock.bind(address)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:
                return None
            raise PathInUseError(f"{path}: {error.strerror or error}", error.errno or 0) from None
        return cls(path, OwnedFd(sock.detach()))

    def publish(self, kind: int = SEQPACKET) -> _socket.socket:
        """Make a listener and put it at the path, in place of a stale one.

        Args:
            kind: SOCK_SEQPACKET; where that is missing, and on request, SOCK_STREAM.

        Returns:
            The listener, non-blocking, owned by the caller.

        Raises:
            PathInUseError: Something else stands there, or it cannot be made.
        """
        try:
            return self._publish(kind)
        except OSError as error:
            if isinstance(error, PathInUseError):
                raise
            if error.errno == errno.EPROTONOSUPPORT and kind == SEQPACKET:
                return self.publish(STREAM)
            raise PathInUseError(
                f"{self.path}: cannot listen: {error.strerror or error}", error.errno or 0
            ) from None

    def _publish(self, kind: int) -> _socket.socket:
        sock = _socket_of(kind)
        try:
            # Before anybody can connect: who is not asked to may not send descriptors.
            refuse_descriptors(sock)
            if self.path.startswith("@"):
                with _address(self.path) as address:
                    sock.bind(address)
                sock.listen(BACKLOG)
                return sock
            _check_node(self.path)
            temporary = f"{self.path}.new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)  # of one that was killed; the lock says so
            with _address(temporary) as address:
                bind_with_mode(sock, os.fsdecode(address), 0o600)
            sock.listen(BACKLOG)
            try:
                os.rename(temporary, self.path)
            except OSError:
                os.unlink(temporary)
                raise
        except BaseException:
            sock.close()
            raise
        return sock

    def open_to_others(self) -> None:
        """Let every user connect to the node; who they are then decides what they get.

        Raises:
            OSError: chmod(2) failed.
        """
        if not self.path.startswith("@"):
            os.chmod(self.path, 0o666)

    def vacate(self) -> None:
        """Remove the node and the lock, whose holder this is; then close the lock."""
        if self.lock is None or self.lock.closed:
            return
        if not self._kept and not self.path.startswith("@"):
            for name in (self.path, self.path + ".lock"):
                with contextlib.suppress(OSError):
                    os.unlink(name)
        self.close()

    def leave(self) -> None:
        """Remove the lock of a path that was never published, and close it."""
        kept = self._kept or self.path.startswith("@")
        if self.lock is not None and not self.lock.closed and not kept:
            with contextlib.suppress(OSError):
                os.unlink(self.path + ".lock")
        self.close()

    def close(self) -> None:
        """Close this process's copy of the lock; the node stays."""
        if self.lock is not None:
            self.lock.close()


def _is_node(path: str, node: tuple[int, int]) -> bool:
    try:
        info = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (info.st_dev, info.st_ino) == node
