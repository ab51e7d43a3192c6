"""The loop goes on while a replacement waits for others: a holder, or a resolver."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import sockact
from tests.cli.holders import holder
from tests.helpers import SECONDS, SOCKACT, clean_environ, free_port
from tests.supervise.supervisors import Running, server, supervisor

FOR_EVER = "600"
_HOST = "held-up.test"
_PAUSES = "import signal; signal.pause()"
_NAMESERVER = f"127.53.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"


def _echo(directory: Path) -> tuple[str, int]:
    """Write units that answer each connection by a process of its own."""
    port = free_port()
    (directory / "echo.socket").write_text(f"[Socket]\nListenStream=127.0.0.1:{port}\nAccept=yes\n")
    (directory / "echo@.service").write_text(
        "[Service]\nExecStart=/bin/cat\nStandardInput=socket\n"
    )
    return "127.0.0.1", port


def _answers(address: tuple[str, int]) -> None:
    with socket.create_connection(address, SECONDS) as client:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"


class _Replacing:
    """A ``sockact replace`` under way."""

    def __init__(self, run: Running) -> None:
        self._done: subprocess.CompletedProcess[str] | None = None
        self._thread = threading.Thread(target=self._ask, args=(run,))
        self._thread.start()
        run.until(lambda: run.report()["replacing"])

    def _ask(self, run: Running) -> None:
        self._done = run.ask("replace")

    def result(self) -> subprocess.CompletedProcess[str]:
        """Wait until it is over."""
        self._thread.join()
        assert self._done
        return self._done


class TestHolder:
    """A holder that is stopped: it takes connections, and does not answer."""

    @pytest.fixture
    def units(self, short_dir: Path) -> Path:
        """Give a directory with units."""
        directory = short_dir / "units"
        directory.mkdir()
        return directory

    @pytest.fixture
    def stopped(self, short_dir: Path) -> Iterator[subprocess.Popen[str]]:
        """Give a holder that has one socket, for a unit to come."""
        with holder(short_dir / "h") as process:
            yield process
            process.send_signal(signal.SIGCONT)

    def test_the_loop_goes_on(
        self, short_dir: Path, units: Path, stopped: subprocess.Popen[str]
    ) -> None:
        """Connections and questions are answered meanwhile; then its socket is taken."""
        address = _echo(units)
        options = ("--from", f"{short_dir}/h", "--timeout", FOR_EVER)
        with (
            supervisor(short_dir, str(units), *options) as run,
            sockact.listen(f"new.socket=tcp:127.0.0.1:{free_port()}") as sockets,
        ):
            sockact.put(f"{short_dir}/h", "new", sockets)
            here = sockets.socket().getsockname()
            (units / "new.socket").write_text(
                f"[Socket]\nListenStream={here[0]}:{here[1]}\nService=new.service\n"
            )
            (units / "new.service").write_text(f"[Service]\nExecStart={' '.join(server())}\n")
            stopped.send_signal(signal.SIGSTOP)
            replacing = _Replacing(run)
            _answers(address)
            again = run.ask("replace")
            assert "a replacement is under way" in again.stderr
            assert run.report()["replacing"]  # so all of that was while it waited
            stopped.send_signal(signal.SIGCONT)
            done = replacing.result()
            assert done.returncode == 0, done.stderr + run.text()
            assert run.unit("new.socket")["state"] == "listening"

    def test_it_has_a_limit(
        self, short_dir: Path, units: Path, stopped: subprocess.Popen[str]
    ) -> None:
        """--timeout; then nothing has changed."""
        address = _echo(units)
        options = ("--from", f"{short_dir}/h", "--timeout", "1")
        with supervisor(short_dir, str(units), *options) as run:
            text = f"[Socket]\nListenStream=127.0.0.1:{free_port()}\nService=new.service\n"
            (units / "new.socket").write_text(text)
            (units / "new.service").write_text(f"[Service]\nExecStart={' '.join(server())}\n")
            stopped.send_signal(signal.SIGSTOP)
            done = run.ask("replace")
            assert done.returncode == 1
            assert "the owner does not answer in time" in done.stderr
            _answers(address)
            assert [one["name"] for one in run.report()["units"]] == ["echo.socket"]

    def test_a_unit_is_started_meanwhile(
        self, short_dir: Path, units: Path, stopped: subprocess.Popen[str]
    ) -> None:
        """By itself, too, it waits beside the loop; if it is stopped, it is wanted no more."""
        address = _echo(units)
        port = free_port()
        text = f"[Socket]\nListenStream=127.0.0.1:{port}\nService=late.service\n"
        (units / "late.socket").write_text(text)
        (units / "late.service").write_text(f"[Service]\nExecStart={' '.join(server())}\n")
        options = ("--from", f"{short_dir}/h", "--timeout", FOR_EVER)
        with supervisor(short_dir, str(units), *options) as run:
            run.ask("stop", "late.socket")
            stopped.send_signal(signal.SIGSTOP)
            run.ask("start", "late.socket")
            for _ in range(2):
                _answers(address)
                assert run.unit("late.socket")["state"] == "start-open"
                run.ask("stop", "late.socket")
                assert run.unit("late.socket")["state"] == "dead"
                run.ask("start", "late.socket")
            stopped.send_signal(signal.SIGCONT)
            run.state_becomes("late.socket", "listening")
            socket.create_connection(("127.0.0.1", port), SECONDS).close()


class TestResolver:
    """A nameserver that never answers, in a mount namespace with an /etc/resolv.conf of its own."""

    @pytest.fixture
    def hosts(self, short_dir: Path) -> Iterator[Path]:
        """Give the /etc/hosts of there, which has one name until it is written anew."""
        if os.geteuid():
            pytest.skip("a file is mounted over /etc/resolv.conf by root only")
        unshare = shutil.which("unshare") or pytest.skip("unshare is not installed")
        files = {
            "hosts": f"127.0.0.1 localhost {_HOST}\n",
            "resolv.conf": f"nameserver {_NAMESERVER}\noptions timeout:30 attempts:5 ndots:0\n",
            "nsswitch.conf": "hosts: files dns\nservices: files\n",
        }
        mounts = []
        for name, text in files.items():
            (short_dir / name).write_text(text)
            if os.path.exists(f"/etc/{name}"):
                mounts.append(f"mount --bind '{short_dir}/{name}' $(realpath /etc/{name})")
        script = short_dir / "within"
        script.write_text("\n".join(["set -e", *mounts, 'exec "$@"', ""]))
        done = subprocess.run(
            [unshare, "--mount", "sh", str(script), *SOCKACT, "--version"],
            env=clean_environ(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"no mount namespace: {done.stderr.strip()}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nameserver:
            try:
                nameserver.bind((_NAMESERVER, 53))
            except OSError as error:
                pytest.skip(f"no nameserver can be had: {error}")
            yield short_dir / "hosts"

    def test_replacement(self, short_dir: Path, hosts: Path) -> None:
        """Connections and questions are answered meanwhile, and a signal ends it."""
        address = "127.0.0.1", free_port()
        words = ("--listen", f"tcp:{_HOST}:{address[1]}", "--accept", "--inetd", "--", "/bin/cat")
        there = ["unshare", "--mount", "sh", str(hosts.with_name("within"))]
        with supervisor(short_dir, *words, within=there) as run:
            _answers(address)
            hosts.write_text("127.0.0.1 localhost\n")
            run.process.send_signal(signal.SIGHUP)
            run.until(lambda: run.report()["replacing"])
            _answers(address)
            assert run.report()["replacing"]
            assert run.end() == 0, run.text()
            assert "the supervisor ends" in run.text()

    def test_probe(self, short_dir: Path, hosts: Path) -> None:
        """So is the host of a probe looked up."""
        hosts.write_text("127.0.0.1 localhost\n")
        words = ("--ready", f"tcp:{_HOST}:80", "--", sys.executable, "-c", _PAUSES)
        there = ["unshare", "--mount", "sh", str(hosts.with_name("within"))]
        listen = ("--listen", "tcp:127.0.0.1:0")
        with supervisor(short_dir, *listen, *words, within=there) as run:
            (service,) = run.report()["services"]
            assert [one["ready"] for one in service["instances"]] == [False]
            assert run.end() == 0, run.text()
