"""What tells a process from every other that has had, or will have, its pid."""

import functools
import os


def pidfd_id(pidfd: int) -> int | None:
    """Return the number that identifies the process of a pidfd for ever.

    It is the inode number (Linux 6.9). Before, all pidfds share one inode, on the same device as
    every other anonymous inode, which tells the two apart.

    Returns:
        The number, or None where there is no pidfs.

    Raises:
        OSError: It is not open (EBADF).
    """
    status = os.fstat(pidfd)
    return None if status.st_dev == _anonymous_device() else status.st_ino


@functools.cache
def _anonymous_device() -> int:
    fd = os.eventfd(0)
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)
