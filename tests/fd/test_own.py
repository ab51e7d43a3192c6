"""sockact.fd.own."""

import gc
import os

import pytest

from sockact.errors import FdStateError
from sockact.fd.own import OwnedFd


def _devnull() -> int:
    return os.open(os.devnull, os.O_RDONLY)


def test_close_closes_once() -> None:
    """Closing closes the descriptor, and a second time does nothing."""
    number = _devnull()
    fd = OwnedFd(number)
    assert fd.fileno() == number
    fd.close()
    fd.close()
    assert fd.closed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_release_gives_ownership_away() -> None:
    """A released number stays open, and is the caller's."""
    fd = OwnedFd(_devnull())
    number = fd.release()
    fd.close()
    os.fstat(number)
    os.close(number)


@pytest.mark.parametrize("use", [OwnedFd.fileno, OwnedFd.release])
def test_use_after_release_is_an_error(use: object) -> None:
    """A descriptor that was given away cannot be used again."""
    fd = OwnedFd(_devnull())
    os.close(fd.release())
    with pytest.raises(FdStateError):
        use(fd)  # type: ignore[operator]
    assert repr(fd) == "<OwnedFd closed>"


def test_forgotten_descriptor_warns_and_closes() -> None:
    """An open descriptor that nobody refers to any more is closed, with a ResourceWarning."""
    number = _devnull()
    fd = [OwnedFd(number)]
    with pytest.warns(ResourceWarning, match=f"unclosed descriptor {number}"):
        fd.clear()
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
