"""Where a supervisor can be reached that was given no rendezvous of its own."""

import contextlib
import fcntl
import os
import re
from collections.abc import Mapping

_NAME = re.compile(r"run-([0-9]+)\.rdv")


def runtime_directory(environ: Mapping[str, str]) -> str | None:
    """Return where this user's supervisors are to be found; None if there is no such place.

    ``/run/sockact`` for root, ``$XDG_RUNTIME_DIR/sockact`` for others (XDG base directories).
    """
    if os.geteuid() == 0:
        return "/run/sockact"
    base = environ.get("XDG_RUNTIME_DIR", "")
    return os.path.join(base, "sockact") if base.startswith("/") else None


def own_path(environ: Mapping[str, str]) -> str | None:
    """Return the path of this process, in a directory that exists; None if there can be none."""
    directory = runtime_directory(environ)
    if directory is None:
        return None
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    except OSError:
        return None
    if not os.access(directory, os.W_OK):
        return None
    return os.path.join(directory, f"run-{os.getpid()}.rdv")


def paths(environ: Mapping[str, str]) -> list[str]:
    """Return the paths of this user's supervisors that live; those of dead ones are removed."""
    directory = runtime_directory(environ)
    if directory is None:
        return []
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    found = [os.path.join(directory, name) for name in names if _NAME.fullmatch(name)]
    return [path for path in found if not is_left_over(path)]


def is_left_over(path: str) -> bool:
    """Remove what a supervisor that was killed has left: its lock is nobody's (flock(2)).

    Returns:
        Whether that was so.
    """
    try:
        lock = os.open(path + ".lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name in (path, path + ".lock"):
            with contextlib.suppress(OSError):
                os.unlink(name)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
