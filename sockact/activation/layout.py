"""How descriptors come to be where a program that is about to be started wants them."""

import fcntl
import functools
import os
from collections.abc import Sequence
from typing import NamedTuple

from sockact.activation.environ import FIRST_FD
from sockact.activation.execution import Execution, How, Stdio, Stream, StreamFile
from sockact.fd.place import SPARE, plan_moves


class Opening(NamedTuple):
    """What becomes a standard stream after all moves.

    Attributes:
        number: The stream.
        path: A file to be opened; empty for a duplicate of `other`.
        flags: How it is opened.
        other: A standard stream.
    """

    number: int
    path: str
    flags: int
    other: int = -1


class Layout:
    """What is to be done with descriptors in a new process; owns what it has opened for that.

    Attributes:
        sources: What comes to stand at 0, 1, 2, ….
        moves: The dup2() calls, in order.
        kept: What is in its place already, and only to be made inheritable.
        openings: What is opened then.
        opens_files: Whether any of these is a file.
        end: The first number that the program does not use.
    """

    def __init__(self, execution: Execution, fds: Sequence[int]) -> None:
        """Plan; see `sockact.activation.spawn.spawn` for `fds`.

        Raises:
            OSError: There is no free descriptor (EMFILE).
        """
        self.moves: list[tuple[int, int]] = []
        self.kept: list[int] = []
        self.openings: list[Opening] = []
        self.opens_files = False
        self._opened: list[int] = []
        try:
            self.sources = sources = [
                *self._streams(execution, fds),
                *fds[: len(execution.names)],
            ]
            self.end = len(sources)
            self.kept += [n for n in range(FIRST_FD, self.end) if sources[n] == n]
            self._order(_plan(tuple(sources)))
        except BaseException:
            self.close()
            raise

    def _streams(self, execution: Execution, fds: Sequence[int]) -> list[int]:
        """Return which descriptors become the standard streams; what is opened later stays."""
        streams = (execution.stdin, execution.stdout, execution.stderr)
        sources = [0, 1, 2]
        null: dict[int, int] = {}
        for number, stream in enumerate(streams):
            if isinstance(stream, int):
                sources[number] = fds[stream]
                if fds[stream] == number:
                    self.kept.append(number)
            elif stream is Stream.NULL:
                flags = os.O_WRONLY if number else os.O_RDONLY
                if flags not in null:
                    null[flags] = self._own(os.open(os.devnull, flags))
                sources[number] = null[flags]
            elif stream is Stream.SAME:
                self.openings.append(Opening(number, "", 0, number - 1))
            elif isinstance(stream, StreamFile):
                self.openings.append(_opening(number, stream, streams))
                self.opens_files = True
        return sources

    def _order(self, plan: Sequence[tuple[int, int]]) -> None:
        """Turn a plan into moves, with duplicates made here as its spare numbers."""
        spare = -1
        for source, target in plan:
            if target == SPARE:
                spare = self._own(fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, self.end))
            else:
                self.moves.append((spare if source == SPARE else source, target))

    def _own(self, fd: int) -> int:
        self._opened.append(fd)
        return fd

    def close(self) -> None:
        """Close what was opened here."""
        for fd in self._opened:
            os.close(fd)
        self._opened = []


@functools.lru_cache(maxsize=64)
def _plan(sources: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(plan_moves(sources, 0))


def _opening(number: int, file: StreamFile, streams: tuple[Stdio, Stdio, Stdio]) -> Opening:
    """Return how a file is opened, in the way of systemd's setup_input() and setup_output()."""
    if number == 0:
        written = StreamFile(file.path, How.WRITE) in streams[1:]
        return Opening(0, file.path, os.O_RDWR | os.O_CREAT if written else os.O_RDONLY)
    if file.how is How.WRITE and streams[0] == StreamFile(file.path, How.READ):
        return Opening(number, "", 0, 0)
    if number == 2 and streams[1] == file:
        return Opening(number, "", 0, 1)
    extra = {How.TRUNCATE: os.O_TRUNC, How.APPEND: os.O_APPEND}.get(file.how, 0)
    return Opening(number, file.path, os.O_WRONLY | os.O_CREAT | extra)
