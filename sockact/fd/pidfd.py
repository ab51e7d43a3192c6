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


def pid_of(pidfd: int) -> int | None:
    """Return the process of a pidfd, which may have ended, but has not been waited for.

    Source: ``Pid:`` in /proc/self/fdinfo (Linux 5.4), which is 0 for a process without a number in
    the pid namespace of /proc, and -1 for one that is no more.

    Returns:
        Its number, or None: there is no such process, or this is no pidfd.
    """
    try:
        with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as lines:
            found = [line.split()[1] for line in lines if line.startswith("Pid:")]
    except OSError:
        return None
    return int(found[0]) if found and int(found[0]) > 0 else None


@functools.cache
def _anonymous_device() -> int:
    fd = os.eventfd(0)
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)
