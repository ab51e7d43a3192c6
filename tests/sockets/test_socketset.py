"""sockact.sockets.socketset."""

import concurrent.futures
import gc
import os
import socket
import sys

import pytest

import sockact
from sockact.errors import FdStateError, SocketLookupError
from sockact.sockets.socketset import NamedSocket, SocketSet


def _listening() -> int:
    return socket.create_server(("127.0.0.1", 0)).detach()


def _set(*names: str) -> SocketSet:
    return SocketSet([NamedSocket(name, _listening()) for name in names])


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_order_names_and_lookup() -> None:
    """Order and names are kept; a name finds its one socket, the same object each time."""
    with _set("a", "b", "a") as found:
        assert found.names == ("a", "b", "a")
        assert len(found) == len(found.filenos()) == 3
        assert found["b"] is found.socket("b")
        assert found["b"].fileno() == found.filenos()[1]
        assert len(found.sockets("a")) == 2
        assert len(found.sockets()) == 3


@pytest.mark.parametrize(
    ("names", "wanted", "message"),
    [
        ((), "web", "no socket named 'web': nobody passed any"),
        ((), None, "no socket: nobody passed any"),
        (("a", "b"), "web", "no socket named 'web'; there are: a, b"),
        (("a", "b"), None, "2 sockets match"),
        (("a", "a"), "a", "2 sockets match"),
    ],
)
def test_lookup_errors(names: tuple[str, ...], wanted: str | None, message: str) -> None:
    """A failed lookup says what there is, or why there is nothing."""
    entries = [NamedSocket(name, _listening()) for name in names]
    with SocketSet(entries, "nobody passed any") as found:
        with pytest.raises(SocketLookupError) as caught:
            found.socket(wanted)
        assert message in str(caught.value)


def test_close_closes_everything_once() -> None:
    """Closing closes descriptors and socket objects alike; twice does nothing."""
    found = _set("a", "b")
    numbers = found.filenos()
    _ = found["a"]
    found.close()
    found.close()
    assert not any(map(_is_open, numbers))
    with pytest.raises(FdStateError):
        found.filenos()


def test_socket_outlives_a_forgotten_set() -> None:
    """Whoever keeps the socket object keeps the socket, though the set is gone."""
    sock = _set("a")["a"]
    gc.collect()
    assert sock.getsockname()
    sock.close()


def test_detach_gives_all_away() -> None:
    """After detach the numbers are open, and the caller's."""
    found = _set("a", "b")
    _ = found["a"]
    numbers = found.detach()
    found.close()
    assert all(map(_is_open, numbers))
    assert len(found) == 0
    for number in numbers:
        os.close(number)


def test_extend_moves_ownership() -> None:
    """The other set is empty afterwards, and closing it closes nothing."""
    first, second = _set("a"), _set("b")
    first.extend(second)
    second.close()
    assert first.names == ("a", "b")
    assert all(map(_is_open, first.filenos()))
    first.close()


@pytest.mark.parametrize("discard", [False, True])
def test_cleanups_run_in_reverse(discard: bool) -> None:
    """Closing runs the clean-ups meant for it; discarding runs all, the last one first."""
    done: list[str] = []
    found = _set("a")
    found.on_close(lambda: done.append("always"), only_if_discarded=False)
    found.on_close(lambda: done.append("discarded"), only_if_discarded=True)
    if discard:
        found.discard()
    else:
        found.close()
    found.close()
    assert done == (["discarded", "always"] if discard else ["always"])


def test_fifo_is_no_socket() -> None:
    """What is no socket has a number and a description, but no socket object."""
    reader, writer = os.pipe()
    os.close(writer)
    with SocketSet([NamedSocket("pipe", reader)]) as found:
        assert found.entry().describe().kind == "FIFO"
        with pytest.raises(OSError, match="non-socket"):
            found.socket("pipe")


def test_adopting_follows_the_descriptor() -> None:
    """The object of a non-blocking descriptor is non-blocking, and the flag stays as it was."""
    found = _set("a", "b")
    os.set_blocking(found.filenos()[0], False)
    with found:
        assert found["a"].gettimeout() == 0
        assert found["b"].gettimeout() is None
        assert not os.get_blocking(found["a"].fileno())


def test_threads_get_one_socket_object() -> None:
    """However many threads ask at once, one object owns the descriptor."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for _ in range(300):
                with sockact.listen("a=udp:127.0.0.1:0") as found:
                    entry = found.entry("a")
                    objects = list(pool.map(lambda _, entry=entry: entry.socket, range(4)))
                    assert len(set(map(id, objects))) == 1
    finally:
        sys.setswitchinterval(interval)
