"""What listeners make in the file system: parents, nodes, links; and its removal.

Three rules hold here. A node never has a wider mode than it is meant to have, not even for a
moment, and the process's umask is left alone: it belongs to every thread. A live socket is told
from a stale node without disturbing it: a datagram connect() to the path finds the kernel's
socket behind the node and fails with EPROTOTYPE if that is of another type, and with ECONNREFUSED
only if there is none. And a node is removed only while it is the very one that was meant.
"""

import errno
import os
import socket as _socket
import stat
import time

LOCK_SECONDS = 5.0
"""How long to wait for another process that is replacing a stale node in the same directory."""


class Made:
    """What opening one unit has made in the file system; `remove` undoes it."""

    def __init__(self) -> None:
        self._nodes: list[tuple[str, int, int]] = []
        self._directories: list[str] = []
        self._queues: list[str] = []
        self._aside: list[tuple[str, str]] = []
        self._pid = os.getpid()

    def __bool__(self) -> bool:
        """Whether there is anything to remove."""
        return bool(self._nodes or self._directories or self._queues or self._aside)

    def node(self, path: str) -> None:
        """Remember a node just made."""
        info = os.lstat(path)
        self._nodes.append((path, info.st_dev, info.st_ino))

    def queue(self, name: str) -> None:
        """Remember a message queue just made."""
        self._queues.append(name)

    def parents(self, path: str, mode: int) -> None:
        """Make the missing directories above `path`.

        As in systemd, a failure here is not reported: the step that needs the directory fails.
        """
        missing = []
        parent = os.path.dirname(path)
        while parent and not os.path.lexists(parent):
            missing.append(parent)
            parent = os.path.dirname(parent)
        for directory in reversed(missing):
            try:
                os.mkdir(directory, mode & 0o7777)
            except FileExistsError:
                continue  # somebody else needed it at the same time
            except OSError:
                return
            self._directories.append(directory)
            # mkdir() applies the umask; systemd's own is 0.
            if stat.S_IMODE(os.lstat(directory).st_mode) != mode & 0o7777:
                os.chmod(directory, mode & 0o7777)

    def remove(self, *, directories: bool) -> None:
        """Remove the nodes that are still ours, and directories made for them if empty.

        In a child that was forked later this does nothing: the nodes are the parent's.
        """
        if os.getpid() != self._pid:
            return
        for path, device, inode in reversed(self._nodes):
            _unlink_if(path, device, inode)
        for name in self._queues:
            from sockact.fd.mqueue import unlink_queue  # noqa: PLC0415 - it loads ctypes

            try:
                unlink_queue(name)
            except OSError:
                continue
        self._nodes, self._queues = [], []
        if not directories:
            return
        for kept, path in self._aside:
            os.replace(kept, path)
        for directory in reversed(self._directories):
            try:
                os.rmdir(directory)
            except OSError:
                break
        self._aside, self._directories = [], []

    def set_aside(self, path: str) -> None:
        """Keep the node at `path` under another name, until `settle` or `remove`.

        Raises:
            OSError: link(2) failed.
        """
        kept = f"{path}.{os.getpid()}~"
        os.link(path, kept, follow_symlinks=False)
        self._aside.append((kept, path))

    def settle(self) -> None:
        """Let go of the nodes that were set aside: what took their place stays."""
        for kept, _ in self._aside:
            os.unlink(kept)
        self._aside = []


def _unlink_if(path: str, device: int, inode: int) -> None:
    try:
        info = os.lstat(path)
        if (info.st_dev, info.st_ino) == (device, inode):
            os.unlink(path)
    except OSError:
        return


def set_mode(path: str, mode: int) -> None:
    """Widen the mode of a socket node that the umask has narrowed at birth.

    By a descriptor of the node, so that a symbolic link put in its place is not followed.

    Raises:
        OSError: chmod(2) failed.
    """
    if stat.S_IMODE(os.lstat(path).st_mode) == mode:
        return
    if not hasattr(os, "O_PATH"):
        os.chmod(path, mode)
        return
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


def bind_with_mode(sock: _socket.SocketType, path: str, mode: int) -> None:
    """Bind `sock` to `path`; the node has no more than `mode` from its first moment.

    Raises:
        OSError: bind(2) failed.
    """
    try:
        # Linux takes the mode of the node from the socket's own inode (af_unix.c).
        os.fchmod(sock.fileno(), mode)
    except OSError:
        # macOS cannot; there the umask is the only way.
        old = os.umask(~mode & 0o777)
        try:
            sock.bind(os.fsencode(path))
        finally:
            os.umask(old)
        return
    sock.bind(os.fsencode(path))


def is_live(path: str) -> bool:
    """Whether some process holds a socket that is bound to the node at `path`.

    The one that does sees nothing of the question.

    Raises:
        OSError: It cannot be told: no permission.
    """
    with _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        error = probe.connect_ex(os.fsencode(path))
    if error in (errno.ECONNREFUSED, errno.ENOENT):
        return False
    # EPERM: a datagram socket that is connected to somebody else, and so is alive.
    if error in (errno.EACCES, errno.ENOTDIR, errno.ELOOP):
        raise OSError(error, os.strerror(error))
    return True


def is_socket_node(path: str) -> bool:
    """Whether there is a socket at `path`, or nothing any more."""
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True


class DirectoryLock:
    """An flock(2) on the directory of a path, held while a stale node in it is replaced.

    Raises on entry:
        TimeoutError: Another process has held it for `LOCK_SECONDS`.
        OSError: The directory cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._directory = os.path.dirname(path)
        self._fd = -1

    def __enter__(self) -> None:
        import fcntl  # noqa: PLC0415 - only where a node is in the way

        self._fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(self._fd)
                    raise TimeoutError(
                        errno.ETIMEDOUT, f"another process holds the lock on {self._directory}"
                    ) from None
                time.sleep(0.02)
            except BaseException:
                os.close(self._fd)
                raise
            else:
                return

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def symlink(target: str, link: str, *, replace: bool) -> bool:
    """Make `link` point to `target`, unless it does.

    Args:
        target: The node.
        link: The path of the link.
        replace: Whether a link that points elsewhere may be replaced.

    Returns:
        Whether it was made just now.

    Raises:
        OSError: It could not be made, or something else stands there.
    """
    try:
        os.symlink(target, link)
    except FileExistsError:
        if not os.path.islink(link):
            raise
        if os.readlink(link) == target:
            return False
        if not replace:
            raise
        temporary = f"{link}.{os.getpid()}"
        os.symlink(target, temporary)
        os.replace(temporary, link)
    return True
