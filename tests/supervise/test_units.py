"""``sockact run`` with unit files."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import (
    SECONDS,
    SOCKACT,
    clean_environ,
    free_port,
    get,
    wait_until_accepting,
)
from tests.supervise.supervisors import Running, server, supervisor

Address = tuple[str, int]


def _command(*arguments: str) -> str:
    return " ".join(server(*arguments))


class Units:
    """A directory of units.

    Attributes:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def socket(self, name: str, *lines: str, port: int = 0) -> Address:
        """Write a socket unit that listens on a free port; return the address."""
        address = ("127.0.0.1", port or free_port())
        text = [f"ListenStream={address[0]}:{address[1]}", *lines]
        (self.path / name).write_text("[Socket]\n" + "\n".join(text) + "\n", encoding="utf-8")
        return address

    def service(self, name: str, command: str, *lines: str, unit: str = "") -> None:
        """Write a service unit."""
        head = f"[Unit]\n{unit}\n" if unit else ""
        text = f"{head}[Service]\nExecStart={command}\n" + "\n".join(lines) + "\n"
        (self.path / name).write_text(text, encoding="utf-8")


@pytest.fixture
def units(short_dir: Path) -> Units:
    """Give a directory for units."""
    return Units(short_dir / "units")


@contextlib.contextmanager
def running(units: Units, *arguments: str, **more: object) -> Iterator[Running]:
    """Run the units of a directory."""
    with supervisor(units.path.parent, *arguments, str(units.path), **more) as run:  # type: ignore[arg-type]
        yield run


def _pid(address: Address) -> int:
    return int(get(address, "/pid")[1])


def _is(state: str, pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return stat.rpartition(")")[2].split()[0] == state


@contextlib.contextmanager
def _stopped(run: Running) -> Iterator[None]:
    """Have the supervisor do nothing meanwhile."""
    run.process.send_signal(signal.SIGSTOP)
    try:
        run.until(lambda: _is("T", run.process.pid))
        yield
    finally:
        run.process.send_signal(signal.SIGCONT)


def _talk(address: Address, data: bytes = b"") -> bytes:
    """Send something, and return everything that comes."""
    with socket.create_connection(address, SECONDS) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


class TestOnDemand:
    def test_first_connection_starts(self, units: Units) -> None:
        """A service is started by traffic on its socket, and gets it under the unit's name."""
        address = units.socket("web.socket")
        units.service("web.service", _command())
        with running(units) as run:
            assert run.service("web.service")["state"] == "dead"
            environ = json.loads(get(address, "/environ")[1])
            assert environ["LISTEN_FDNAMES"] == "web.socket"
            assert len(environ["INVOCATION_ID"]) == 32
            assert run.unit("web.socket")["state"] == "running"
            assert run.unit("web.socket")["triggered"] == 1

    def test_several_sockets(self, units: Units) -> None:
        """A service gets the sockets of every unit that starts it, in order, and those it names."""
        one = units.socket("a.socket", "Service=web.service", "FileDescriptorName=one")
        two = units.socket("b.socket", "Service=web.service", "FileDescriptorName=two")
        units.socket("c.socket", "Service=other.service", "FileDescriptorName=three")
        units.service("web.service", _command(), "Sockets=c.socket")
        units.service("other.service", _command())
        with running(units) as run:
            assert get(two, "/names")[1] == "one:two:three"
            assert _pid(one) == run.pids("web.service")[0]
            assert run.unit("a.socket")["state"] == "running"
            assert run.unit("c.socket")["state"] == "listening"

    def test_stopped_service_is_started_again(self, units: Units) -> None:
        """A service that was stopped by hand is started by the next connection."""
        address = units.socket("web.socket")
        units.service("web.service", _command())
        with running(units) as run:
            first = _pid(address)
            assert run.ask("stop", "web.service").returncode == 0
            assert not os.path.exists(f"/proc/{first}")
            assert run.service("web.service")["state"] == "dead"
            assert run.unit("web.socket")["state"] == "listening"
            assert _pid(address) != first

    def test_stopped_socket(self, units: Units) -> None:
        """A socket unit that is stopped closes its sockets; its service goes on."""
        address = units.socket("web.socket")
        units.service("web.service", _command())
        with running(units) as run:
            pid = _pid(address)
            assert run.ask("stop", "web.socket").returncode == 0
            assert run.unit("web.socket")["state"] == "dead"
            assert run.pids("web.service") == [pid]
            assert run.ask("stop", "web.service").returncode == 0
            with pytest.raises(ConnectionRefusedError):
                _pid(address)
            assert run.ask("start", "web.socket").returncode == 0
            assert _pid(address)

    def test_idle_service_is_stopped(self, units: Units) -> None:
        """X-IdleStopSec= stops a service without connections, and no other."""
        address = units.socket("web.socket")
        units.service("web.service", _command(), "X-IdleStopSec=0.5")
        with running(units) as run:
            first = _pid(address)
            with socket.create_connection(address, SECONDS):
                time.sleep(1.5)
                assert run.pids("web.service") == [first]
            run.state_becomes("web.service", "dead")
            assert run.unit("web.socket")["state"] == "listening"
            assert _pid(address) != first

    def test_who_waits_is_not_idle(self, units: Units) -> None:
        """X-IdleStopSec= counts who waits for a service that takes longer to begin."""
        address = units.socket("web.socket")
        units.service("web.service", _command("--delay", "1"), "X-IdleStopSec=0.2")
        with running(units) as run:
            assert _pid(address)
            run.state_becomes("web.service", "dead")
            assert run.text().count("stopped: no connection") == 1

    def test_not_ours(self, units: Units) -> None:
        """A directive that is not honoured is a warning that names it."""
        units.socket("web.socket")
        units.service("web.service", _command(), "ProtectSystem=strict")
        with running(units) as run:
            assert "ProtectSystem=" in run.text()
            assert "web.service:3" in run.text()

    def test_missing_service(self, units: Units) -> None:
        """A socket unit without its service is refused with one line."""
        units.socket("web.socket")
        with supervisor(units.path.parent, str(units.path), wait=False) as run:
            assert run.ends() == 66
            assert "it starts web.service" in run.text()
            assert len(run.text().splitlines()) == 1


class TestLimits:
    def test_trigger_limit(self, units: Units) -> None:
        """A service that does not take what waits is given up: the unit fails, and so all."""
        address = units.socket("web.socket", "TriggerLimitBurst=3", "TriggerLimitIntervalSec=60")
        units.service("web.service", "/bin/true", unit="StartLimitBurst=0")
        with running(units) as run:
            with socket.create_connection(address, SECONDS):
                assert run.ends() == 1
            assert "trigger-limit-hit" in run.text()

    def test_limit_recovers(self, units: Units) -> None:
        """With X-TriggerLimitRecoverSec= it listens again after a rest, and nobody is refused."""
        address = units.socket(
            "web.socket",
            "TriggerLimitBurst=3",
            "TriggerLimitIntervalSec=60",
            "X-TriggerLimitRecoverSec=1",
        )
        flag = units.path.parent / "works"
        units.service(
            "web.service",
            f"/bin/sh -c '[ -e {flag} ] && exec {_command()}; exit 0'",
            unit="StartLimitBurst=0",
        )
        with running(units) as run:
            with socket.create_connection(address, SECONDS) as sock:
                run.state_becomes("web.socket", "limited")
                flag.touch()
                sock.sendall(b"GET /pid HTTP/1.0\r\n\r\n")
                assert sock.recv(4096).startswith(b"HTTP/1.0 200")
            assert run.unit("web.socket")["state"] == "running"

    def test_start_limit(self, units: Units) -> None:
        """A service that is started too often takes its socket unit with it."""
        address = units.socket("web.socket")
        units.service("web.service", "/bin/false", unit="StartLimitBurst=2")
        other = units.socket("other.socket")
        units.service("other.service", _command())
        with running(units) as run:
            with socket.create_connection(address, SECONDS):
                run.state_becomes("web.socket", "failed")
            assert run.unit("web.socket")["result"] == "service-start-limit-hit"
            assert _pid(other)

    def test_conflicts(self, units: Units) -> None:
        """A service that conflicts is stopped, or waited for."""
        one = units.socket("one.socket")
        two = units.socket("two.socket", "DeferTrigger=patient")
        units.service("one.service", _command())
        units.service("two.service", _command(), unit="Conflicts=one.service")
        with running(units) as run:
            assert _pid(one)
            with socket.create_connection(two, SECONDS) as sock:
                sock.sendall(b"GET /pid HTTP/1.0\r\n\r\n")
                run.state_becomes("two.socket", "deferred")
                assert run.ask("stop", "one.service").returncode == 0
                assert sock.recv(4096).startswith(b"HTTP/1.0 200")
            assert _pid(one)  # which stops two.service
            run.state_becomes("two.service", "dead")


class TestAccept:
    def test_each_connection_has_an_instance(self, units: Units) -> None:
        """Accept=yes gives each connection a process, with the connection and who called."""
        address = units.socket("echo.socket", "Accept=yes")
        script = "env; echo %i; cat"
        units.service("echo@.service", f"/bin/sh -c '{script}'", "StandardInput=socket")
        with running(units) as run:
            said = _talk(address, b"hello").decode()
            assert "REMOTE_ADDR=127.0.0.1\n" in said
            assert "REMOTE_PORT=" in said
            assert "LISTEN_FDS" not in said
            assert "\n0-" in said
            assert said.endswith("hello")
            run.until(lambda: run.unit("echo.socket")["connections"] == 0)
            unit = run.unit("echo.socket")
            assert (unit["accepted"], unit["refused"]) == (1, 0)
            assert unit["state"] == "listening"

    def test_descriptor(self, units: Units) -> None:
        """Without StandardInput=socket the connection is descriptor 3."""
        address = units.socket("echo.socket", "Accept=yes")
        units.service("echo@.service", "/bin/sh -c 'echo $LISTEN_FDS $LISTEN_FDNAMES >&3'")
        with running(units):
            assert _talk(address) == b"1 connection\n"

    def test_limits(self, units: Units) -> None:
        """More than MaxConnections= are closed, and counted."""
        address = units.socket("echo.socket", "Accept=yes", "MaxConnections=2")
        units.service("echo@.service", "/bin/cat", "StandardInput=socket")
        with running(units) as run, contextlib.ExitStack() as stack:
            for _ in range(2):
                sock = stack.enter_context(socket.create_connection(address, SECONDS))
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
            assert _talk(address) == b""
            unit = run.unit("echo.socket")
            assert (unit["accepted"], unit["refused"], unit["connections"]) == (2, 1, 2)
            names = [one["name"] for one in run.report()["instances"]]
            assert all(name.startswith("echo@") for name in names)

    def test_room_that_nobody_has_seen(self, units: Units) -> None:
        """A connection is not refused for one whose process has ended, though that is not known."""
        address = units.socket("echo.socket", "Accept=yes", "MaxConnections=1")
        units.service("echo@.service", "/bin/cat", "StandardInput=socket")
        with running(units) as run, socket.create_connection(address, SECONDS):
            run.until(lambda: run.report()["instances"])
            (one,) = run.report()["instances"]
            with _stopped(run):
                sock = socket.create_connection(address, SECONDS)
                os.kill(one["pid"], signal.SIGKILL)
                run.until(lambda: _is("Z", one["pid"]))
            with sock:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
            assert run.unit("echo.socket")["refused"] == 0

    def test_many_at_once(self, units: Units) -> None:
        """All that wait at once get a process."""
        address = units.socket("echo.socket", "Accept=yes")
        units.service("echo@.service", "/bin/cat", "StandardInput=socket")
        with running(units) as run, contextlib.ExitStack() as stack:
            with _stopped(run):
                made = (socket.create_connection(address, SECONDS) for _ in range(30))
                many = [stack.enter_context(sock) for sock in made]
            for sock in many:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
            unit = run.unit("echo.socket")
            assert (unit["accepted"], unit["connections"]) == (30, 30)

    def test_end(self, units: Units) -> None:
        """Instances end with the supervisor."""
        address = units.socket("echo.socket", "Accept=yes")
        units.service("echo@.service", "/bin/sleep 60", "StandardInput=socket")
        with running(units) as run, socket.create_connection(address, SECONDS):
            run.until(lambda: run.report()["instances"])
            (one,) = run.report()["instances"]
            assert run.end() == 0
            assert not os.path.exists(f"/proc/{one['pid']}")

    def test_exec(self) -> None:
        """``sockact exec --accept`` does the same for a command."""
        address = ("127.0.0.1", free_port())
        command = [
            *SOCKACT,
            "exec",
            "--accept",
            "--inetd",
            "--listen",
            f"tcp:127.0.0.1:{address[1]}",
        ]
        process = subprocess.Popen(
            [*command, "--", "cat"], env=clean_environ(), stderr=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + SECONDS
            while time.monotonic() < deadline:
                with contextlib.suppress(ConnectionRefusedError):
                    assert _talk(address, b"one") == b"one"
                    break
            assert _talk(address, b"two") == b"two"
        finally:
            process.terminate()
            assert process.wait(SECONDS) == 0

    def test_exec_is_not_slowed_down(self) -> None:
        """``sockact exec --accept`` takes more connections at once than a unit's limits allow."""
        address = ("127.0.0.1", free_port())
        command = [*SOCKACT, "exec", "-a", "--inetd", "-l", f"tcp:127.0.0.1:{address[1]}"]
        process = subprocess.Popen(
            [*command, "--", "/bin/echo", "x"], env=clean_environ(), stderr=subprocess.DEVNULL
        )
        try:
            wait_until_accepting(address)
            for _ in range(220):  # PollLimitBurst= is 150 in 2 s, TriggerLimitBurst= is 200
                assert _talk(address) == b"x\n"
        finally:
            process.terminate()
            assert process.wait(SECONDS) == 0


class TestStore:
    def test_outlives_a_restart(self, units: Units) -> None:
        """What a service stores comes back to its next process, and to the next supervisor's."""
        address = units.socket("web.socket", "FileDescriptorName=web")
        units.service(
            "web.service", _command("--store", "kept"), "FileDescriptorStoreMax=5", "Restart=always"
        )
        with running(units) as run:
            assert get(address, "/names")[1] == "web"
            assert run.service("web.service")["stored"] == ["kept"]
            with pytest.raises(OSError, match=r".*"):
                get(address, "/exit/1")
            assert get(address, "/names")[1] == "web:kept"
            assert run.ask("replace").returncode == 0
            assert get(address, "/names")[1] == "web:kept"
            with running(units, name="new") as new:
                assert run.ends() == 0
                assert get(address, "/names")[1] == "web:kept"
                assert new.service("web.service")["stored"] == ["kept"]
                assert new.ask("stop", "web.service").returncode == 0
                assert new.service("web.service")["stored"] == []


class TestReload:
    def test_sockets_come_and_go(self, units: Units) -> None:
        """A replacement opens what is new, keeps what stays, and closes what is dropped."""
        stays = units.socket("web.socket", "FileDescriptorName=stays")
        goes = units.socket("old.socket", "Service=web.service", "FileDescriptorName=goes")
        units.service("web.service", _command("--notify", "READY=1"), "Type=notify")
        with running(units) as run:
            assert get(stays, "/names")[1] == "goes:stays"
            before = run.unit("web.socket")
            with socket.create_connection(stays, SECONDS) as waits:
                (units.path / "old.socket").unlink()
                comes = units.socket(
                    "new.socket", "Service=web.service", "FileDescriptorName=comes"
                )
                done = run.ask("replace")
                assert (done.returncode, done.stderr) == (0, "")
                assert get(stays, "/names")[1] == "comes:stays"
                assert _pid(comes) == _pid(stays)
                with socket.create_connection(goes, SECONDS):
                    pass  # as long as the old process finishes what it has accepted
                waits.sendall(b"GET /pid HTTP/1.0\r\n\r\n")
                assert waits.recv(4096)
            run.until(lambda: len(run.pids("web.service")) == 1)
            with pytest.raises(ConnectionRefusedError):
                _pid(goes)
            assert before["name"] == "web.socket"
            assert [one["name"] for one in run.report()["units"]] == ["new.socket", "web.socket"]

    @pytest.mark.parametrize("fault", ["[Socket\n", "[Socket]\nListenStream=192.0.2.1:1\n"])
    def test_fault_changes_nothing(self, units: Units, fault: str) -> None:
        """A definition that cannot be read or opened changes nothing, and is told."""
        address = units.socket("web.socket")
        units.service("web.service", _command())
        with running(units) as run:
            first = _pid(address)
            (units.path / "bad.socket").write_text(fault, encoding="utf-8")
            units.service("bad.service", _command())
            done = run.ask("replace")
            assert done.returncode == 1
            assert len(done.stderr.splitlines()) == 1
            assert _pid(address) == first
            assert [one["name"] for one in run.report()["units"]] == ["web.socket"]

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (["MaxConnections=1"], ["MaxConnections=2"]),
            (["MaxConnectionsPerSource=1"], []),
            (["PollLimitIntervalSec=1h", "PollLimitBurst=1"], ["PollLimitBurst=0"]),
            (["TriggerLimitIntervalSec=1h", "TriggerLimitBurst=1"], ["TriggerLimitBurst=2"]),
        ],
    )
    def test_limits_apply_at_once(self, units: Units, before: list[str], after: list[str]) -> None:
        """Another limit is in force from the replacement on, at a socket that stays."""
        address = units.socket("echo.socket", "Accept=yes", *before)
        units.service("echo@.service", "/bin/cat", "StandardInput=socket")
        with running(units) as run, contextlib.ExitStack() as stack:
            for _ in range(2):
                sock = stack.enter_context(socket.create_connection(address, SECONDS))
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
                units.socket("echo.socket", "Accept=yes", *after, port=address[1])
                assert run.ask("replace").returncode == 0

    def test_rest_ends_by_another_limit(self, units: Units) -> None:
        """A unit that rests listens again as soon as its limit is another."""
        lines = ["TriggerLimitIntervalSec=1h", "X-TriggerLimitRecoverSec=1h"]
        address = units.socket("web.socket", *lines, "TriggerLimitBurst=1")
        units.service("web.service", "/bin/true")
        with running(units) as run, socket.create_connection(address, SECONDS) as sock:
            run.state_becomes("web.socket", "limited")
            sock.sendall(b"GET /pid HTTP/1.0\r\n\r\n")
            units.service("web.service", _command())
            units.socket("web.socket", *lines, "TriggerLimitBurst=2", port=address[1])
            assert run.ask("replace").returncode == 0
            assert sock.recv(4096).startswith(b"HTTP/1.0 200")

    def test_reload_command(self, units: Units) -> None:
        """``sockact reload`` runs ExecReload= with $MAINPID."""
        address = units.socket("web.socket")
        mark = units.path.parent / "mark"
        units.service("web.service", _command(), f"ExecReload=/bin/sh -c 'echo $MAINPID > {mark}'")
        with running(units) as run:
            pid = _pid(address)
            assert run.ask("reload", "web.service").returncode == 0
            run.until(lambda: mark.exists() and mark.read_text().strip() == str(pid))
            assert run.ask("reload", "none.service").returncode == 66


class TestFailures:
    def test_restarts_are_forgotten(self, units: Units) -> None:
        """RESTART_RESET=1 says that the restarts so far do not count."""
        address = units.socket("web.socket")
        said = "READY=1,RESTART_RESET=1"
        units.service("web.service", _command("--notify", said), "Type=notify", "Restart=always")
        with running(units) as run:
            first = _pid(address)
            os.kill(first, signal.SIGKILL)
            run.until(lambda: run.pids("web.service") not in ([], [first]))
            assert _pid(address) != first
            run.until(lambda: run.service("web.service")["restarts"] == 0)
            assert "started again, for the 1st time" in run.text()

    def test_shut_down_listener(self, units: Units) -> None:
        """A listener that its server shuts down listens again, and that is told."""
        address = units.socket("web.socket")
        script = (
            "import socket, time; s = socket.socket(fileno=3); s.setblocking(True); c, _ = s.accept();"
            " c.sendall(b'bye'); c.close(); s.shutdown(socket.SHUT_RDWR); time.sleep(0.2)"
        )
        units.service("web.service", f'{sys.executable} -c "{script}"')
        with running(units) as run:
            assert _talk(address) == b"bye"
            run.logged("was shut down")
            assert _talk(address) == b"bye"

    def test_supervisor_is_killed(self, units: Units) -> None:
        """If the supervisor is killed, its services get their stop signal."""
        address = units.socket("web.socket")
        units.service("web.service", _command())
        with running(units) as run:
            pid = _pid(address)
            run.process.kill()
            run.process.wait()
            deadline = time.monotonic() + SECONDS
            while os.path.exists(f"/proc/{pid}/exe"):
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def test_watchdog(self, units: Units) -> None:
        """A service that does not tell that it is alive is ended, and started again."""
        units.service(
            "web.service",
            _command("--notify", "READY=1"),
            "Type=notify",
            "WatchdogSec=0.3",
            "Restart=on-watchdog",
        )
        units.socket("web.socket")
        with running(units, "--now") as run:
            run.until(lambda: run.service("web.service")["restarts"] >= 1)
            assert "watchdog" in run.text()

    def test_daemon_children_are_ended(self, units: Units) -> None:
        """What a service has left in the background is ended with it."""
        address = units.socket("web.socket")
        script = f"(setsid sleep 77 &); exec {_command()}"
        units.service("web.service", f"/bin/sh -c '{script}'")
        with running(units) as run:
            assert _pid(address)
            assert run.ask("stop", "web.service").returncode == 0
            found = subprocess.run(["pgrep", "-f", "^sleep 77$"], check=False, capture_output=True)
            assert found.stdout == b""

    def test_hard_to_end(self, units: Units) -> None:
        """A service that ignores its stop signal is killed after TimeoutStopSec=."""
        units.service(
            "web.service",
            "/bin/sh -c 'trap : TERM; while :; do sleep 0.05; done'",
            "TimeoutStopSec=0.3",
        )
        units.socket("web.socket")
        with running(units, "--now") as run:
            (pid,) = run.pids("web.service")
            assert run.ask("stop", "web.service").returncode == 0
            assert not os.path.exists(f"/proc/{pid}")
            assert run.service("web.service")["result"] == "timeout"

    def test_second_signal_kills(self, units: Units) -> None:
        """A second SIGTERM ends at once what does not want to end."""
        units.service("web.service", "/bin/sh -c 'trap : TERM; while :; do sleep 0.05; done'")
        units.socket("web.socket")
        with running(units, "--now") as run:
            run.until(lambda: run.pids("web.service"))
            time.sleep(0.2)
            run.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert run.process.poll() is None
            assert run.end() == 0


def test_start_limit_recovers(units: Units) -> None:
    """X-TriggerLimitRecoverSec= lets a service rest too that was started too often, and try again."""
    address = units.socket("web.socket", "X-TriggerLimitRecoverSec=1")
    flag = units.path.parent / "works"
    units.service(
        "web.service",
        f"/bin/sh -c '[ -e {flag} ] && exec {_command()}; exit 1'",
        unit="StartLimitBurst=2\nStartLimitIntervalSec=0.5",
    )
    with running(units) as run, socket.create_connection(address, SECONDS) as sock:
        run.state_becomes("web.socket", "limited")
        flag.touch()
        sock.sendall(b"GET /pid HTTP/1.0\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.0 200")


@pytest.mark.parametrize("lines", [("Type=notify", "TimeoutStartSec=0.5"), ("Type=exec",)])
def test_start_tells_of_a_failure(units: Units, lines: tuple[str, ...]) -> None:
    """``sockact start`` and restart wait until a service has started, or has failed to."""
    units.socket("web.socket")
    program = "/no/such/program" if "Type=exec" in lines else "/bin/sleep 60"
    units.service("web.service", program, *lines)
    with running(units) as run:
        for command in ("start", "restart"):
            done = run.ask(command, "web.service")
            assert done.returncode == 1, command
            assert done.stderr.startswith("sockact: error: web.service: ")


def test_start_limit_is_told_once(units: Units) -> None:
    """What is started too often again and again has failed for that reason, and the one before."""
    units.socket("web.socket", "X-TriggerLimitRecoverSec=60")
    units.service("web.service", "/bin/false", unit="StartLimitBurst=1\nStartLimitIntervalSec=60")
    with running(units) as run:
        run.ask("start", "web.service")
        run.state_becomes("web.service", "failed")
        for _ in range(3):
            assert run.ask("start", "web.service").returncode == 1
        failure = run.service("web.service")["last_failure"]
        assert failure.count("started too often") == 1
        assert failure.endswith("status=1/FAILURE")


def test_takeover_leaves_idle_services_alone(units: Units) -> None:
    """A successor starts what the former supervisor ran, and the rest on demand."""
    used, idle = units.socket("used.socket"), units.socket("idle.socket")
    for name in ("used.service", "idle.service"):
        units.service(name, _command())
    with running(units) as old:
        first = _pid(used)
        with running(units, name="new") as new:
            assert old.ends() == 0
            assert _pid(used) not in (0, first)
            assert new.service("idle.service")["state"] == "dead"
            assert _pid(idle)
