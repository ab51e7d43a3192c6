"""Putting descriptors at 3, 4, 5 …, for a program that is about to be executed.

The numbers wanted may be in use by other descriptors of the same set. Moving each out of the way
first would need twice as many numbers as there are descriptors, which fails near the limit. So
the moves are ordered instead: a number is written only when what it held has been moved on, and
each cycle is broken with one spare number.
"""

import os
from collections.abc import Iterator, Sequence

SPARE = -1
"""In a plan: the one spare number that breaks a cycle."""


def plan_moves(sources: Sequence[int], base: int) -> list[tuple[int, int]]:
    """Order the dup2() calls that bring ``sources[i]`` to ``base + i``.

    Args:
        sources: Descriptor numbers; one may occur more than once.
        base: The first number wanted.

    Returns:
        (from, to) pairs to be carried out in order; `SPARE` stands for any number that is neither
        a source nor a target. A source that is where it belongs does not occur.
    """
    wanted = {base + i: source for i, source in enumerate(sources) if source != base + i}
    readers: dict[int, int] = {}
    for source in wanted.values():
        readers[source] = readers.get(source, 0) + 1
    moves: list[tuple[int, int]] = []
    free = [target for target in wanted if target not in readers]
    while free:
        target = free.pop()
        source = wanted.pop(target)
        moves.append((source, target))
        readers[source] -= 1
        if not readers[source] and source in wanted:
            free.append(source)
    # What is left are cycles, in which each number is wanted by exactly one other.
    while wanted:
        first = target = next(iter(wanted))
        moves.append((first, SPARE))
        while (source := wanted.pop(target)) != first:
            moves.append((source, target))
            target = source
        moves.append((SPARE, target))
    return moves


def place(sources: Sequence[int], base: int = 3) -> None:
    """Bring ``sources[i]`` to number ``base + i``, inheritable.

    Whatever else was open at a target number is closed. The caller owned the sources and owns
    the targets afterwards; sources outside the targets stay open too.

    Raises:
        OSError: A number is over the limit (EMFILE, EBADF); the moves up to there are done.
    """
    spare = -1
    try:
        for source, target in plan_moves(sources, base):
            if target == SPARE:
                if spare >= 0:
                    os.close(spare)
                spare = os.dup(source)
            else:
                os.dup2(spare if source == SPARE else source, target, inheritable=True)
    finally:
        if spare >= 0:
            os.close(spare)
    for number in range(base, base + len(sources)):
        os.set_inheritable(number, True)


def _open_from(first: int) -> Iterator[int]:
    for directory in ("/proc/self/fd", "/dev/fd"):
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        return (int(name) for name in names if int(name) >= first)
    import resource  # noqa: PLC0415 - only where there is neither directory

    return iter(range(first, resource.getrlimit(resource.RLIMIT_NOFILE)[0]))


def close_on_exec_from(first: int) -> None:
    """Set FD_CLOEXEC on every open descriptor from `first` on."""
    for number in _open_from(first):
        try:
            os.set_inheritable(number, False)
        except OSError:
            continue  # the directory's own descriptor, closed by now


def fill_stdio() -> None:
    """Open /dev/null on each of 0, 1 and 2 that is closed, so that no socket lands there."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            return
        os.set_inheritable(fd, True)
