"""sockact.activation.notify against a real datagram socket in the manager's place."""

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sockact
from sockact import notify
from sockact.errors import NotifyError


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address)
        self.sock.settimeout(10)

    def receive(self) -> tuple[str, list[int]]:
        """Return the next message and its descriptors."""
        data, fds, _flags, _address = socket.recv_fds(self.sock, 65536, 253)
        return data.decode(), fds


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Manager]:
    """Be the service manager, at a path and at an abstract name."""
    shown = str(short_dir / "notify") if request.param == "path" else f"@sockact-{os.getpid()}"
    found = Manager(shown.replace("@", "\0"))
    monkeypatch.setenv("NOTIFY_SOCKET", shown)
    yield found
    found.sock.close()
    monkeypatch.undo()


def test_texts(manager: Manager) -> None:
    """Each function sends its line and says that there was somebody to tell."""
    calls: list[tuple[Callable[[], bool], str]] = [
        (notify.ready, "READY=1"),
        (lambda: notify.ready("up"), "READY=1\nSTATUS=up"),
        (notify.stopping, "STOPPING=1"),
        (lambda: notify.status("two\nlines, grün"), "STATUS=two lines, grün"),
        (notify.watchdog, "WATCHDOG=1"),
        (lambda: notify.unstore("web"), "FDSTOREREMOVE=1\nFDNAME=web"),
        (lambda: notify.notify("X_OWN=1"), "X_OWN=1"),
    ]
    for call, expected in calls:
        assert call()
        assert manager.receive() == (expected, [])


def test_reloading_carries_the_time(manager: Manager) -> None:
    """RELOADING=1 comes with MONOTONIC_USEC, which Type=notify-reload needs."""
    assert notify.reloading()
    text, _ = manager.receive()
    first, second = text.split("\n")
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0


def test_store_sends_each_name_with_its_descriptors(manager: Manager) -> None:
    """The fd store gets one message for each fd name, and the set keeps its own copies."""
    with sockact.listen("a=tcp:127.0.0.1:0", "b=tcp:127.0.0.1:0", "a=udp:127.0.0.1:0") as found:
        assert notify.store(found, poll=False)
        text, fds = manager.receive()
        assert (text, len(fds)) == ("FDSTORE=1\nFDNAME=a\nFDPOLL=0", 2)
        assert os.path.sameopenfile(fds[0], found.filenos()[0])
        assert os.path.sameopenfile(fds[1], found.filenos()[2])
        text, more = manager.receive()
        assert (text, len(more)) == ("FDSTORE=1\nFDNAME=b\nFDPOLL=0", 1)
        for fd in fds + more:
            os.close(fd)
        assert found["b"].getsockname()


def test_store_in_chunks(manager: Manager) -> None:
    """More descriptors than one message takes go in several."""
    with sockact.listen("a=tcp:127.0.0.81:23000-23299") as found:
        assert notify.store(found)
        counts = []
        for _ in range(2):
            _, fds = manager.receive()
            counts.append(len(fds))
            for fd in fds:
                os.close(fd)
    assert counts == [253, 47]


def test_barrier_waits_for_the_manager(manager: Manager) -> None:
    """The barrier returns when the manager has closed its end."""

    def serve() -> None:
        text, fds = manager.receive()
        assert text == "BARRIER=1"
        assert not select.select([], [], [], 0.1)[0]
        os.close(fds[0])

    thread = threading.Thread(target=serve)
    thread.start()
    assert notify.barrier(10)
    thread.join()


def test_barrier_gives_up(manager: Manager) -> None:
    """A manager that does not answer is an error after the timeout."""
    with pytest.raises(NotifyError, match="did not answer"):
        notify.barrier(0.05)
    _, fds = manager.receive()
    os.close(fds[0])


def test_speaking_for_another_process(manager: Manager) -> None:
    """A message with another pid carries it where the kernel allows it, and is sent anyway."""
    manager.sock.setsockopt(socket.SOL_SOCKET, 16, 1)  # SO_PASSCRED
    assert notify.notify("READY=1", pid=1)
    _, control, _, _ = manager.sock.recvmsg(100, 100)
    pid = int.from_bytes(control[0][2][:4], "little")
    assert pid == (1 if os.geteuid() == 0 else os.getpid())


def test_nobody_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NOTIFY_SOCKET every function returns False and does nothing."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with sockact.listen("a=tcp:127.0.0.1:0") as found:
        calls = (notify.ready(), notify.barrier(), notify.store(found), notify.status("x"))
    assert calls == (False,) * 4
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("/no/such/socket", "No such file or directory"),
        ("relative", "neither a path"),
        ("vsock:x:1", "NOTIFY_SOCKET=vsock:x:1"),
        ("@no-such-abstract-socket", "Connection refused"),
    ],
)
def test_errors(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager that cannot be reached is an error that names the address."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with pytest.raises(NotifyError, match=message) as caught:
        notify.ready()
    assert address in str(caught.value)
    monkeypatch.undo()


def test_watchdog_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interval is in seconds, ours if WATCHDOG_PID is us or absent, and junk is an error."""
    assert notify.watchdog_seconds() is None
    monkeypatch.setenv("WATCHDOG_USEC", "1500000")
    assert notify.watchdog_seconds() == 1.5
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert notify.watchdog_seconds() == 1.5
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert notify.watchdog_seconds() is None
    for bad in ("0", "x", "-1"):
        monkeypatch.setenv("WATCHDOG_USEC", bad)
        with pytest.raises(NotifyError):
            notify.watchdog_seconds()
    monkeypatch.undo()
