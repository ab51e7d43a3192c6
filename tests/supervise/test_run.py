"""``sockact run`` with real processes and real sockets."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers import SECONDS, SOCKACT, clean_environ, free_port, get
from tests.supervise.supervisors import Running, server, supervisor


def _address() -> tuple[str, int]:
    return "127.0.0.1", free_port()


def _listen(address: tuple[str, int]) -> list[str]:
    return ["--listen", f"web=tcp:{address[0]}:{address[1]}"]


def _pid(address: tuple[str, int]) -> int:
    return int(get(address, "/pid")[1])


def _python(*arguments: str) -> list[str]:
    """Return a command that is called server."""
    return ["--", *server(*arguments)]


NAME = os.path.basename(server()[0]) + ".service"


class TestCommand:
    def test_serves(self, short_dir: Path) -> None:
        """A command is started at once, with the sockets, and ends with the supervisor."""
        address = _address()
        with supervisor(short_dir, *_listen(address), *_python()) as run:
            pid = _pid(address)
            environ = json.loads(get(address, "/environ")[1])
            assert environ["LISTEN_FDS"] == "1"
            assert environ["LISTEN_FDNAMES"] == "web"
            assert environ["LISTEN_PID"] == str(pid)
            assert run.pids(NAME) == [pid]
            assert run.end() == 0
            assert not os.path.exists(f"/proc/{pid}")
            assert not run.path.exists()

    def test_is_started_on_demand(self, short_dir: Path) -> None:
        """With --lazy it is started by the first connection."""
        address = _address()
        with supervisor(short_dir, "--lazy", *_listen(address), *_python()) as run:
            assert run.service(NAME)["state"] == "dead"
            assert _pid(address) == run.pids(NAME)[0]
            assert run.unit(f"web=tcp:{address[0]}:{address[1]}")["state"] == "running"

    def test_crash_is_mended(self, short_dir: Path) -> None:
        """A program that crashes is started again; connections wait meanwhile."""
        address = _address()
        with supervisor(short_dir, *_listen(address), *_python()) as run:
            first = _pid(address)
            with pytest.raises(OSError, match=r".*"):
                get(address, "/exit/3")
            assert _pid(address) != first
            run.until(lambda: run.service(NAME)["restarts"] == 1)
            assert run.service(NAME)["state"] == "running"

    def test_start_limit(self, short_dir: Path) -> None:
        """A program that always fails is given up, and so is the supervisor, which says why."""
        address = _address()
        with supervisor(short_dir, *_listen(address), *_python("--fail", "3"), wait=False) as run:
            assert run.ends() == 1
            assert "started too often" in run.text()
            assert "status=3" in run.text()

    def test_without_sockets(self, short_dir: Path) -> None:
        """Without sockets, the end of the command is the end, with its status."""
        with supervisor(
            short_dir, "--restart", "no", "--", "sh", "-c", "exit 7", wait=False
        ) as run:
            assert run.ends() == 7

    def test_killed_command_passes_its_signal(self, short_dir: Path) -> None:
        """A command that is killed gives 128 and the signal."""
        command = ["--restart", "no", "--", "sh", "-c", "kill -KILL $$"]
        with supervisor(short_dir, *command, wait=False) as run:
            assert run.ends() == 128 + signal.SIGKILL

    def test_missing_program(self, short_dir: Path) -> None:
        """A program that does not exist is said before anything is opened."""
        with supervisor(short_dir, *_listen(_address()), "--", "no-such-thing", wait=False) as run:
            assert run.ends() == 127
            assert "cannot run no-such-thing" in run.text()

    def test_taken_port(self, short_dir: Path) -> None:
        """A port that is in use is one line, and exit status 1."""
        with socket.create_server(("127.0.0.1", 0)) as sock:
            address = ("127.0.0.1", sock.getsockname()[1])
            with supervisor(short_dir, *_listen(address), *_python(), wait=False) as run:
                assert run.ends() == 1
                assert "in use" in run.text()
                assert len(run.text().splitlines()) == 1

    def test_signals_are_forwarded(self, short_dir: Path) -> None:
        """SIGUSR1 goes to the main process."""
        script = "trap 'echo got >&2' USR1; echo up >&2; while :; do sleep 0.05; done"
        with supervisor(short_dir, "--", "sh", "-c", script) as run:
            run.logged("up")
            run.process.send_signal(signal.SIGUSR1)
            run.logged("got")

    def test_instances(self, short_dir: Path) -> None:
        """--instances runs several processes on the same sockets."""
        address = _address()
        with supervisor(short_dir, "--instances", "3", *_listen(address), *_python()) as run:
            run.until(lambda: len(run.pids(NAME)) == 3)
            assert _pid(address) in run.pids(NAME)
            victim = run.pids(NAME)[1]
            os.kill(victim, signal.SIGKILL)
            run.until(lambda: len(set(run.pids(NAME)) - {victim}) == 3)


class TestReplace:
    def test_replaces(self, short_dir: Path) -> None:
        """A new process follows the old one, which finishes what it has accepted."""
        address = _address()
        ready = ["-S", "Type=notify"]
        with supervisor(
            short_dir, *ready, *_listen(address), *_python("--notify", "READY=1")
        ) as run:
            first = _pid(address)
            with socket.create_connection(address, SECONDS) as slow:
                slow.sendall(b"GET /slow/0.5 HTTP/1.0\r\n\r\n")
                time.sleep(0.1)
                done = run.ask("replace")
                assert (done.returncode, done.stderr) == (0, "")
                assert _pid(address) != first
                data = b"".join(iter(lambda: slow.recv(4096), b""))
                assert data.endswith(str(first).encode())
            run.until(lambda: first not in run.pids(NAME))

    def test_failing_one_changes_nothing(self, short_dir: Path) -> None:
        """A new process that is never ready is stopped, and the old one goes on."""
        address = _address()
        flag = short_dir / "fail"
        script = f"[ -e {flag} ] && exit 9; exec {' '.join(server())}"
        with supervisor(short_dir, *_listen(address), "--", "sh", "-c", script) as run:
            first = _pid(address)
            flag.touch()
            done = run.ask("replace")
            assert done.returncode == 1
            assert "status=9" in done.stderr
            assert len(done.stderr.splitlines()) == 1
            run.logged("not replaced: sh.service: main process ended")
            assert _pid(address) == first
            flag.unlink()
            assert run.ask("replace").returncode == 0
            assert _pid(address) != first

    def test_life_is_not_shortened_by_ready(self, short_dir: Path) -> None:
        """What is to live for a while has to, whatever it says: gunicorn says READY=1 too early."""
        address = _address()
        ready = ["--ready", "delay:60s", *_listen(address)]
        with supervisor(short_dir, *ready, *_python("--notify", "READY=1,STATUS=up")) as run:
            first = _pid(address)
            run.process.send_signal(signal.SIGHUP)

            def candidates() -> list[int]:
                ones = run.service(NAME)["instances"]
                return [one["pid"] for one in ones if one["role"] == "candidate" and one["status"]]

            run.until(candidates)
            os.kill(candidates()[0], signal.SIGKILL)
            run.logged("not replaced")
            assert _pid(address) == first

    def test_probe_of_a_host_that_does_not_exist(self, short_dir: Path) -> None:
        """It stops a replacement, but not the first process: there, readiness is only told."""
        address = _address()
        ready = ["--ready", "tcp:no-such-host.invalid:80", *_listen(address)]
        with supervisor(short_dir, *ready, *_python()) as run:
            run.logged("no-such-host.invalid:80: ")
            first = _pid(address)
            assert run.pids(NAME) == [first]
            done = run.ask("replace")
            assert done.returncode == 1
            assert "no-such-host.invalid:80: " in done.stderr
            run.until(lambda: run.pids(NAME) == [first])
            assert _pid(address) == first

    def test_hanging_one(self, short_dir: Path) -> None:
        """A new process that is not ready in time is stopped."""
        address = _address()
        flag = short_dir / "hang"
        script = f"[ -e {flag} ] && exec sleep 60; exec {' '.join(server('--notify', 'READY=1'))}"
        options = ["-S", "Type=notify", "-S", "TimeoutStartSec=1"]
        with supervisor(short_dir, *options, *_listen(address), "--", "sh", "-c", script) as run:
            first = _pid(address)
            flag.touch()
            done = run.ask("replace")
            assert done.returncode == 1
            assert "not ready in time" in done.stderr or "timeout" in done.stderr
            assert _pid(address) == first
            run.until(lambda: run.pids("sh.service") == [first])

    def test_by_signal(self, short_dir: Path) -> None:
        """SIGHUP replaces."""
        address = _address()
        with supervisor(short_dir, *_listen(address), *_python()) as run:
            first = _pid(address)
            run.process.send_signal(signal.SIGHUP)
            run.until(lambda: _pid(address) != first)

    def test_takeover(self, short_dir: Path) -> None:
        """A second supervisor takes over, and the first ends with 0."""
        address = _address()
        with supervisor(short_dir, *_listen(address), *_python()) as old:
            first = _pid(address)
            with supervisor(short_dir, *_listen(address), *_python(), name="new") as new:
                assert old.ends() == 0
                assert _pid(address) != first
                assert new.report()["generation"] == 2
                assert new.end() == 0

    def test_failing_takeover(self, short_dir: Path) -> None:
        """A successor whose program fails ends with 1, and the first goes on."""
        address = _address()
        with supervisor(short_dir, *_listen(address), *_python()) as old:
            first = _pid(address)
            with supervisor(
                short_dir, *_listen(address), *_python("--fail", "5"), name="new", wait=False
            ) as new:
                assert new.ends() == 1
                assert "status=5" in new.text()
            assert _pid(address) == first
            assert old.report()["generation"] == 1


class TestInherited:
    def test_command_gets_them(self, short_dir: Path) -> None:
        """Sockets that were passed to the supervisor are the command's, and stay over a replacement."""
        address = _address()
        log = short_dir / "log"
        path = short_dir / "run.rdv"
        inner = ["--listen", f"own=tcp:127.0.0.1:{free_port()}", *_python()]
        outer = [*SOCKACT, "exec", *_listen(address), "--"]
        command = [*outer, *SOCKACT, "run", "--rendezvous", str(path), *inner]
        with log.open("wb") as stderr:
            process = subprocess.Popen(command, env=clean_environ(), stderr=stderr)
        run = Running(process, path, log)
        try:
            run.logged("2 sockets open")
            assert get(address, "/names")[1] == "web:own"
            first = _pid(address)
            assert run.ask("replace").returncode == 0
            assert _pid(address) != first
            assert get(address, "/names")[1] == "web:own"
        finally:
            process.terminate()
            assert process.wait(SECONDS) == 0

    def test_unit_gets_its_own(self, short_dir: Path) -> None:
        """A unit whose address is among the inherited sockets gets that one, under its own name."""
        address = _address()
        (short_dir / "web.socket").write_text(
            f"[Socket]\nListenStream={address[0]}:{address[1]}\nFileDescriptorName=mine\n"
        )
        (short_dir / "web.service").write_text(f"[Service]\nExecStart={' '.join(server())}\n")
        log, path = short_dir / "log", short_dir / "run.rdv"
        extra = ["--listen", f"other=tcp:127.0.0.1:{free_port()}"]
        command = [*SOCKACT, "exec", *_listen(address), *extra, "--", *SOCKACT, "run"]
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*command, "--rendezvous", str(path), str(short_dir / "web.socket")],
                env=clean_environ(),
                stderr=stderr,
            )
        run = Running(process, path, log)
        try:
            run.logged("1 socket open")
            assert get(address, "/names")[1] == "mine"
            assert "other: was passed to sockact, but no unit here wants it" in run.text()
        finally:
            process.terminate()
            assert process.wait(SECONDS) == 0


def test_stay(short_dir: Path) -> None:
    """With --stay a supervisor that was succeeded waits for a signal, and then ends with 0."""
    address = _address()
    with supervisor(short_dir, "--stay", *_listen(address), *_python()) as old:
        assert _pid(address)
        with supervisor(short_dir, *_listen(address), *_python(), name="new"):
            old.logged("has handed everything over")
            assert old.process.poll() is None
            assert _pid(address)
            assert old.end() == 0
