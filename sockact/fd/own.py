"""A descriptor with exactly one owner."""

import os
import warnings
from types import TracebackType
from typing import Self

from sockact.errors import FdStateError


class OwnedFd:
    """A file descriptor that is closed once, or given away once.

    The number is reachable by `fileno` only while it is owned here. An `OwnedFd` that is garbage
    collected while it is open closes itself with a ResourceWarning, like a file.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        """Take ownership of `fd`."""
        self._fd = fd

    def fileno(self) -> int:
        """Return the number, which stays owned here.

        Raises:
            FdStateError: It was closed or released.
        """
        if self._fd < 0:
            raise FdStateError("the descriptor was closed or given away")
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether it was closed or released."""
        return self._fd < 0

    def release(self) -> int:
        """Give the number away; the caller owns it from here on.

        Raises:
            FdStateError: It was closed or released.
        """
        fd = self.fileno()
        self._fd = -1
        return fd

    def close(self) -> None:
        """Close it; a second time does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __del__(self) -> None:
        if self._fd >= 0:
            warnings.warn(f"unclosed descriptor {self._fd}", ResourceWarning, 1, self)
            self.close()

    def __repr__(self) -> str:
        return "<OwnedFd closed>" if self.closed else f"<OwnedFd {self._fd}>"


class Closing:
    """What is closed at the end of a ``with`` statement."""

    __slots__ = ()

    def close(self) -> None:
        """Close what is owned; a second time does nothing."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
