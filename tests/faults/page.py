"""A page of memory on which a server keeps what must be known of it even when it is killed."""

import mmap
import os
from pathlib import Path

STARTING, ARRIVED, LEADING, STOPPED, DRAINING, OVER, ABORTED = range(7)
STATES = ("starting", "arrived", "leading", "stopped", "draining", "over", "aborted")

_STATE, _ACCEPTING, _ACCEPTED, _FINISHED, _RESUMED, _GENERATION, _COUNT = range(7)


class Page:
    """Numbers in a file that is mapped by the server and by the test.

    Each is stored by one instruction, so a SIGKILL finds all of them whole.

    Attributes:
        file: The file, which is made if it is not there, and stays.
    """

    def __init__(self, file: Path) -> None:
        """Map the file."""
        self.file = file
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, _COUNT * 8)
            self._map = mmap.mmap(fd, _COUNT * 8)
        finally:
            os.close(fd)
        self._numbers = memoryview(self._map).cast("Q")

    def close(self) -> None:
        """Unmap it."""
        self._numbers.release()
        self._map.close()

    @property
    def state(self) -> int:
        """Where the server stands, as it sees it itself."""
        return self._numbers[_STATE]

    @state.setter
    def state(self, state: int) -> None:
        self._numbers[_STATE] = state

    @property
    def generation(self) -> int:
        """Its generation, from its arrival on."""
        return self._numbers[_GENERATION]

    @generation.setter
    def generation(self, generation: int) -> None:
        self._numbers[_GENERATION] = generation

    @property
    def resumed(self) -> int:
        """How often it has taken back."""
        return self._numbers[_RESUMED]

    def note_resumed(self) -> None:
        """Count one more."""
        self._numbers[_RESUMED] += 1

    def begin_accept(self) -> None:
        """Note that accept() is about to be called."""
        self._numbers[_ACCEPTING] = 1

    def end_accept(self, *, found: bool) -> None:
        """Note that it has returned, and whether with a connection."""
        self._numbers[_ACCEPTED] += found
        self._numbers[_ACCEPTING] = 0

    def note_finished(self) -> None:
        """Count a connection that was answered and closed."""
        self._numbers[_FINISHED] += 1

    @property
    def finished(self) -> int:
        """How many connections were answered and closed."""
        return self._numbers[_FINISHED]

    @property
    def unfinished(self) -> int:
        """How many connections died with the server at most, if it was killed.

        Those accepted and not yet closed; and one more if it was in accept(), which may have
        returned one that was not counted any more.
        """
        n = self._numbers
        return n[_ACCEPTED] - n[_FINISHED] + n[_ACCEPTING]
