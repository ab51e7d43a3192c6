"""sockact.fd.foreign: closing what came from somebody else."""

import contextlib
import socket
import struct
import threading

import pytest

from sockact.fd.foreign import close_foreign
from sockact.fd.own import OwnedFd
from tests.helpers import SECONDS

_LINGER = struct.pack("ii", 1, 1000)


def _stuffed(client: socket.socket) -> None:
    """Send until the peer takes no more."""
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while client.send(bytes(65536)):
            pass


def _wait_for_threads() -> None:
    for thread in threading.enumerate():
        if thread.daemon:
            thread.join(SECONDS)


@pytest.mark.parametrize("blocking", [True, False])
def test_it_does_not_wait_for_the_peer(*, blocking: bool) -> None:
    """Not even with SO_LINGER and a peer that does not read; and the peer gets everything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    with peer:
        _stuffed(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        client.setblocking(blocking)
        handle = OwnedFd(client.detach())
        thread = threading.Thread(target=close_foreign, args=(handle,), daemon=True)
        thread.start()
        thread.join(SECONDS)
        assert not thread.is_alive()
        peer.settimeout(SECONDS)
        while peer.recv(1 << 20):
            pass
        _wait_for_threads()


def test_an_option_that_others_share_stays() -> None:
    """Whoever else has the socket finds SO_LINGER as it was."""
    with socket.socket() as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        with ours.dup() as theirs:
            handle = OwnedFd(ours.detach())
            close_foreign(handle)
            assert theirs.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == _LINGER
            _wait_for_threads()
            assert handle.closed


def test_a_socket_that_is_to_be_reset_is() -> None:
    """SO_LINGER of no time does not wait, and means something else."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    with peer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        close_foreign(OwnedFd(client.detach()))
        peer.settimeout(SECONDS)
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
