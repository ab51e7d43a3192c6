"""What a holder remembers of its sets beyond the descriptors themselves. Pure.

One line of JSON, which counts once it is whole. It goes to a successor with the sets, and to the
fd store of systemd.
"""

import json
from collections.abc import Iterable

import attrs

from sockact.rendezvous.policy import Rule
from sockact.spec import AsValue

VERSION = 1


@attrs.frozen(eq=False, repr=False)
class Remembered(AsValue):
    """A set.

    Attributes:
        name: Its name.
        rule: Who may get it.
        since: When it came, in seconds since 1970.
        fds: The fd name of each descriptor, and the FDNAME of its description in the fd store.
    """

    name: str
    rule: Rule
    since: float
    fds: tuple[tuple[str, str], ...]


@attrs.frozen(eq=False, repr=False)
class Memory(AsValue):
    """Everything.

    Attributes:
        path: The rendezvous.
        generation: The generation of the holder that wrote it.
        serial: Counts the times that it was written.
        sets: The sets, in their order.
    """

    path: str
    generation: int
    serial: int
    sets: tuple[Remembered, ...] = ()


def write(memory: Memory) -> bytes:
    """Return one line."""
    sets = [
        {
            "name": one.name,
            "uids": one.rule.uids,
            "gids": one.rule.gids,
            "since": one.since,
            "fds": one.fds,
        }
        for one in memory.sets
    ]
    whole = {
        "version": VERSION,
        "path": memory.path,
        "generation": memory.generation,
        "serial": memory.serial,
        "sets": sets,
    }
    return json.dumps(whole, separators=(",", ":")).encode("ascii") + b"\n"


def read(data: bytes) -> Memory | None:
    """Return what the last whole line says; None if there is none that can be read."""
    for line in reversed(data.split(b"\n")[:-1]):
        try:
            found = json.loads(line)
            if found["version"] != VERSION:
                continue
            return Memory(
                str(found["path"]),
                int(found["generation"]),
                int(found["serial"]),
                tuple(map(_set, found["sets"])),
            )
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            continue
    return None


def _set(found: dict[str, object]) -> Remembered:
    fds = found["fds"]
    if not isinstance(fds, list):
        raise TypeError("no list")
    return Remembered(
        str(found["name"]),
        Rule(_ints(found["uids"]), _ints(found["gids"])),
        float(found["since"]),  # type: ignore[arg-type]
        tuple((str(name), str(stored)) for name, stored in fds),
    )


def _ints(found: object) -> tuple[int, ...]:
    if not isinstance(found, Iterable):
        raise TypeError("no list")
    return tuple(int(item) for item in found)
