"""The LISTEN_* variables: encoding for a program, decoding in one. Pure.

Source: sd_listen_fds(3), and ``sd_listen_fds_with_names()`` in systemd's sd-daemon.c, whose order
of decisions `decode` follows.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import attrs

from sockact.errors import EnvironError
from sockact.spec import AsValue

FIRST_FD = 3
"""The number of the first passed descriptor (SD_LISTEN_FDS_START)."""

LISTEN_PID = "LISTEN_PID"
LISTEN_PIDFDID = "LISTEN_PIDFDID"
LISTEN_FDS = "LISTEN_FDS"
LISTEN_FDNAMES = "LISTEN_FDNAMES"
VARIABLES = (LISTEN_PID, LISTEN_PIDFDID, LISTEN_FDS, LISTEN_FDNAMES)

UNKNOWN = "unknown"
"""The name of each descriptor where LISTEN_FDNAMES is absent."""

_INT_MAX = 2**31 - 1
_MANY = 1 << 24


@attrs.frozen(eq=False, repr=False)
class Passed(AsValue):
    """What LISTEN_* say.

    Attributes:
        names: An fd name for each passed descriptor, from `FIRST_FD` on.
        reason: If there are none, why.
    """

    names: tuple[str, ...] = ()
    reason: str = ""


def encode(names: Sequence[str], pid: int, pidfd_id: int | None) -> dict[str, str]:
    """Return the variables for a program that gets ``len(names)`` descriptors.

    Args:
        names: The fd names, in order; none may hold a colon.
        pid: The process that will run the program.
        pidfd_id: The inode number of its pidfd, where the kernel has pidfs.
    """
    if not names:
        return {}
    variables = {
        LISTEN_FDS: str(len(names)),
        LISTEN_PID: str(pid),
        LISTEN_FDNAMES: ":".join(map(_whole, names)),
    }
    if pidfd_id is not None:
        variables[LISTEN_PIDFDID] = str(pidfd_id)
    return variables


def _whole(name: str) -> str:
    """Keep a last backslash from taking the colon behind it with it, for readers that unescape."""
    return name + "\\" if (len(name) - len(name.rstrip("\\"))) % 2 else name


def decode(environ: Mapping[str, str], pid: int, pidfd_id: Callable[[], int | None]) -> Passed:
    """Read the variables as the process `pid`.

    Args:
        environ: The environment.
        pid: The process whose descriptors are wanted; LISTEN_PID must name it.
        pidfd_id: Gives the inode number of that process's pidfd, or None if it has none;
            called only if LISTEN_PIDFDID is set.

    Raises:
        EnvironError: A variable is malformed: no number, LISTEN_FDS below 1, or another number
            of names than of descriptors.
    """
    names = _split(environ[LISTEN_FDNAMES]) if LISTEN_FDNAMES in environ else None
    if LISTEN_PID not in environ:
        return Passed(reason="LISTEN_PID is not set: this process was not socket-activated")
    owner = _number(environ, LISTEN_PID, _INT_MAX)
    if owner < 1:
        raise EnvironError(LISTEN_PID, f"{owner} is not a process id")
    if owner != pid:
        return Passed(
            reason=f"LISTEN_PID={owner} says that the sockets are for another process than {pid}"
        )
    if LISTEN_PIDFDID in environ:
        claimed = _number(environ, LISTEN_PIDFDID, 2**64 - 1)
        own = pidfd_id()
        if own is not None and own != claimed:
            return Passed(
                reason=f"LISTEN_PIDFDID={claimed} is another process that had this pid before"
            )
    if LISTEN_FDS not in environ:
        return Passed(reason="LISTEN_FDS is not set")
    count = _number(environ, LISTEN_FDS, 2**64)
    if not 1 <= count <= _INT_MAX - FIRST_FD:
        raise EnvironError(LISTEN_FDS, f"{count} is out of range; it must be 1 or more")
    if names is None:
        if count > _MANY:
            # No process has that many open; to make so many names would take all memory.
            raise EnvironError(LISTEN_FDS, f"{count} descriptors were promised, which cannot be")
        return Passed((UNKNOWN,) * count)
    if len(names) != count:
        raise EnvironError(LISTEN_FDNAMES, f"{len(names)} names for LISTEN_FDS={count} descriptors")
    return Passed(tuple(names))


def _number(environ: Mapping[str, str], variable: str, high: int) -> int:
    """Read a number as systemd's safe_atoi() does: blanks in front, any C base."""
    text = environ[variable].lstrip(" \t\n\r")
    match = re.fullmatch(
        r"(?P<sign>[+-]?)(?:0[xX](?P<x>[0-9a-fA-F]+)|(?P<old>0[0-7]*)|(?P<dec>[1-9][0-9]*))"
        r"|0[bB](?P<b>[01]+)|0[oO](?P<o>[0-7]+)",
        text[:64],
    )
    if not match or len(text) > 64:
        raise EnvironError(variable, f"{text[:40]!r} is not a number")
    digits, base = next(
        (match[group], base)
        for group, base in (("x", 16), ("old", 8), ("dec", 10), ("b", 2), ("o", 8))
        if match[group]
    )
    number = int(digits, base) * (-1 if match["sign"] == "-" else 1)
    if number > high:
        raise EnvironError(variable, f"{number} is out of range")
    return number


def _split(text: str) -> list[str]:
    """Split at colons; a backslash takes the next character literally, as in systemd."""
    if "\\" not in text:
        return text.split(":")
    if re.search(r"(?<!\\)(?:\\\\)*\\\Z", text):
        raise EnvironError(LISTEN_FDNAMES, "ends in a backslash")
    names = [""]
    for escaped, char in re.findall(r"(\\?)(.)", text, re.DOTALL):
        if char == ":" and not escaped:
            names.append("")
        else:
            names[-1] += char
    return names
