"""``sockact run`` where events come in an awkward order."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockact.activation.receive import own_pidfd_id
from sockact.supervise import where
from tests.helpers import (
    ROOT,
    SECONDS,
    SOCKACT,
    clean_environ,
    free_port,
    get,
    wait_until_accepting,
)
from tests.processes import living
from tests.supervise.supervisors import Running, server, supervisor
from tests.supervise.test_units import Units, running

NOTIFIES = ("--notify", "READY=1")
STUBBORN = "/bin/sh -c 'trap : TERM; while :; do sleep 0.05; done'"


@pytest.fixture
def units(short_dir: Path) -> Units:
    """Give a directory for units."""
    return Units(short_dir / "units")


def _command(*arguments: str) -> str:
    return " ".join(server(*arguments))


def _unless(flag: Path, instead: str, *arguments: str) -> str:
    """Return a command that does something else once a file is there."""
    return f"/bin/sh -c '[ -e {flag} ] && {instead}; exec {_command(*arguments)}'"


def _pid(address: tuple[str, int]) -> int:
    return int(get(address, "/pid")[1])


def _runs(command: str) -> bool:
    """Whether there is a process with this command line."""
    done = subprocess.run(["pgrep", "-f", f"^{command}$"], stdout=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def _fds(run: Running) -> list[str]:
    """Return what the supervisor has open."""
    found = []
    for name in os.listdir(f"/proc/{run.process.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{run.process.pid}/fd/{name}"))
    return found


def _is_open(address: tuple[str, int]) -> bool:
    """Whether connections to an address are taken; one that is just being closed may reset some."""
    with (
        contextlib.suppress(ConnectionRefusedError, ConnectionResetError),
        socket.create_connection(address, SECONDS),
    ):
        return True
    return False


def _has_user_namespaces() -> bool:
    """Whether unshare(1) makes one, in which nobody has a directory for what runs."""
    try:
        done = subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


@contextlib.contextmanager
def _successor(units: Units, *arguments: str, wait: bool = True) -> Iterator[Running]:
    with supervisor(units.path.parent, *arguments, str(units.path), name="new", wait=wait) as run:
        yield run


class TestRestart:
    def test_while_it_waits(self, units: Units) -> None:
        """What waits for its automatic restart is restarted at once, and counts as new."""
        units.socket("web.socket")
        flag = units.path.parent / "works"
        script = f"[ -e {flag} ] && exec sleep 60; exit 1"
        units.service("web.service", f"/bin/sh -c '{script}'", "Restart=always", "RestartSec=60")
        with running(units, "--now") as run:
            run.state_becomes("web.service", "auto-restart")
            flag.touch()
            assert run.ask("restart", "web.service").returncode == 0
            run.state_becomes("web.service", "running")
            assert run.service("web.service")["restarts"] == 0
            assert run.end() == 0

    def test_of_the_only_service(self, units: Units) -> None:
        """The restart of all that runs is not the end."""
        with supervisor(units.path.parent, "--", "sleep", "60") as run:
            (first,) = run.pids("sleep.service")
            assert run.ask("restart").returncode == 0
            run.until(lambda: run.pids("sleep.service") not in ([], [first]))
            assert run.process.poll() is None

    def test_traffic_does_not_shorten_the_wait(self, units: Units) -> None:
        """A connection that waits does not have a service that fails restarted any earlier."""
        address = units.socket("web.socket")
        units.service("web.service", "/bin/false", "Restart=always", "RestartSec=60")
        with running(units) as run, socket.create_connection(address, SECONDS):
            run.state_becomes("web.service", "auto-restart")
            run.state_becomes("web.socket", "running")
            assert run.service("web.service")["restarts"] == 0

    def test_store_outlives_it(self, units: Units) -> None:
        """What a service has stored outlives ``sockact restart``."""
        address = units.socket("web.socket", "FileDescriptorName=web")
        units.service("web.service", _command("--store", "kept"), "FileDescriptorStoreMax=1")
        with running(units, "--now") as run:
            assert get(address, "/names")[1] == "web"
            assert run.ask("restart").returncode == 0
            run.until(lambda: get(address, "/names")[1] == "web:kept")

    @pytest.mark.parametrize(
        "said",
        [
            "f'MAINPID={pid}'",
            "f'MAINPID={pid}\\nMAINPIDFDID={os.fstat(fd).st_ino}'",
            "'MAINPID=1\\nMAINPIDFD=1', [fd]",
        ],
    )
    def test_of_another_main_process(self, units: Units, said: str) -> None:
        """A service whose main process hands over to another goes on with that."""
        address = units.socket("web.socket")
        script = units.path.parent / "hand-over"
        script.write_text(
            "import os, sys, time\n"
            "from sockact import notify\n"
            "if pid := os.fork():\n"
            "    fd = os.pidfd_open(pid)\n"
            f"    notify.notify({said})\n"
            "    notify.ready()\n"
            "    time.sleep(0.2)\n"
            "    os._exit(0)\n"
            "os.environ['LISTEN_PID'] = str(os.getpid())\n"
            f"os.execv(sys.executable, {list(server())!r})\n"
        )
        units.service(
            "web.service", f"{sys.executable} {script}", "Type=notify", "NotifyAccess=all"
        )
        with running(units, "--now") as run:
            pid = _pid(address)
            time.sleep(0.4)
            assert _pid(address) == pid
            assert run.pids("web.service") == [pid]
            os.kill(pid, signal.SIGTERM)
            run.state_becomes("web.service", "dead")

    @pytest.mark.parametrize(
        ("said", "why"),
        [
            ("f'MAINPID={pid}\\nMAINPIDFDID=1'", "MAINPIDFDID=1 is not that of process"),
            ("f'MAINPID={pid}\\nMAINPIDFD=1'", "comes with 0 descriptors instead of one"),
            ("'MAINPIDFD=1', [fd, fd]", "comes with 2 descriptors instead of one"),
            ("'MAINPIDFD=1', [0]", "comes without a pidfd of a process"),
            ("'MAINPIDFD=1', [os.pidfd_open(os.getppid())]", "is none of this service"),
        ],
    )
    def test_of_no_other_main_process(self, units: Units, said: str, why: str) -> None:
        """What does not name a process of the service for certain changes nothing, and is told."""
        if "MAINPIDFDID" in said and own_pidfd_id() is None:
            pytest.skip("pidfds have no numbers of their own (Linux 6.9)")
        units.socket("web.socket")
        script = units.path.parent / "hand-over"
        script.write_text(
            "import os, time\n"
            "from sockact import notify\n"
            "if (pid := os.fork()) == 0:\n"
            "    time.sleep(60)\n"
            "fd = os.pidfd_open(pid)\n"
            f"notify.notify({said})\n"
            "notify.ready(str(os.getpid()))\n"
            "time.sleep(60)\n"
        )
        units.service("web.service", f"{sys.executable} {script}", "Type=notify")
        with running(units, "--now") as run:
            run.state_becomes("web.service", "running")
            assert why in run.text()
            (one,) = run.service("web.service")["instances"]
            assert str(one["pid"]) == one["status"]


class TestSaid:
    """What a service says with sd_notify(3)."""

    @staticmethod
    def _says(units: Units, *lines: str) -> str:
        """Write a program of these lines; return its command."""
        script = units.path.parent / "says"
        script.write_text("import os, time\nfrom sockact import notify\n" + "\n".join(lines))
        return f"{sys.executable} {script}"

    def test_a_watchdog_where_there_was_none(self, units: Units) -> None:
        """WATCHDOG_USEC= switches it on for a service that nothing else limits."""
        command = self._says(
            units,
            "notify.notify('READY=1')",
            "time.sleep(0.2)",
            "notify.notify('WATCHDOG_USEC=100000')",
            "time.sleep(60)",
        )
        units.service("app.service", command, "Type=notify", "Restart=no")
        with running(units) as run:
            run.logged("running: watchdog")

    def test_many_descriptors_too_many(self, units: Units) -> None:
        """One line in the log says that they were not stored; they may come as fast as they like."""
        command = self._says(
            units,
            "fds = [os.open('/dev/null', os.O_RDONLY) for _ in range(100)]",
            "notify.notify('READY=1\\nFDSTORE=1', fds=fds)",
            "time.sleep(60)",
        )
        units.service("app.service", command, "Type=notify", "FileDescriptorStoreMax=1")
        with running(units) as run:
            run.state_becomes("app.service", "running")
            assert run.text().count("not stored") == 1

    def test_exact_watchdog(self, units: Units) -> None:
        """It is told the very time that its definition says."""
        mark = units.path.parent / "mark"
        command = f"/bin/sh -c 'echo $$WATCHDOG_USEC > {mark}; exec sleep 60'"
        units.service("app.service", command, "WatchdogSec=1001ms")
        with running(units) as run:
            run.until(lambda: mark.exists() and mark.read_text())
            assert mark.read_text() == "1001000\n"

    def test_a_word_of_one_that_has_ended(self, units: Units) -> None:
        """It counts as long as nobody has waited for the process (NotifyAccess=all)."""
        mark = units.path.parent / "mark"
        command = self._says(
            units,
            "from pathlib import Path",
            f"mark = Path({str(mark)!r})",
            "mark.touch()",
            "while mark.exists():",
            "    time.sleep(0.01)",
            "if not (pid := os.fork()):",
            "    notify.notify('READY=1')",
            "    os._exit(0)",
            "os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)",
            "mark.touch()",
            "time.sleep(60)",
        )
        units.service("app.service", command, "Type=notify", "NotifyAccess=all")
        with running(units) as run:
            run.until(mark.exists)
            run.process.send_signal(signal.SIGSTOP)
            mark.unlink()
            run.until(mark.exists)
            run.process.send_signal(signal.SIGCONT)
            run.state_becomes("app.service", "running")

    def test_another_service_is_its_main_process(self, units: Units) -> None:
        """MAINPID= of a process that is another service's counts for nothing, and stops nothing."""
        mark = units.path.parent / "other"
        units.service("other.service", f"/bin/sh -c 'echo $$$$ > {mark}; exec sleep 60'")
        command = self._says(
            units,
            "from pathlib import Path",
            f"mark = Path({str(mark)!r})",
            "while not (mark.exists() and mark.read_text()):",
            "    time.sleep(0.01)",
            "notify.notify(f'READY=1\\nMAINPID={mark.read_text()}')",
            "time.sleep(60)",
        )
        units.service("app.service", command, "Type=notify")
        with running(units) as run:
            run.logged("is none of this service")
            assert run.ask("stop", "app.service").returncode == 0
            assert run.service("app.service")["state"] == "dead"
            assert run.pids("other.service") == [int(mark.read_text())]

    def test_the_child_of_another_is_its_main_process(self, units: Units) -> None:
        """Its end is noticed, though another process waits for it; the service is over then."""
        command = self._says(
            units,
            "pid = os.fork()",
            "if not pid:",
            "    os.execvp('sleep', ['sleep', '60'])",
            "notify.notify(f'READY=1\\nMAINPID={pid}')",
            "os.waitpid(pid, 0)",
            "time.sleep(60)",
        )
        units.service("app.service", command, "Type=notify", "RemainAfterExit=yes")
        with running(units) as run:
            run.state_becomes("app.service", "running")
            before = _fds(run).count("anon_inode:[pidfd]") - 1
            (pid,) = run.pids("app.service")
            os.kill(pid, signal.SIGKILL)
            run.state_becomes("app.service", "exited")
            assert run.service("app.service")["exit"] is None
            assert _fds(run).count("anon_inode:[pidfd]") == before


class TestReplace:
    def test_what_waits_for_its_restart(self, units: Units) -> None:
        """A service that fails again and again is replaced by what does not."""
        address = units.socket("web.socket")
        units.service("web.service", "/bin/false", "Restart=always", "RestartSec=60")
        with running(units, "--now") as run:
            run.state_becomes("web.service", "auto-restart")
            units.service("web.service", _command(*NOTIFIES), "Type=notify")
            done = run.ask("replace")
            assert (done.returncode, done.stderr) == (0, "")
            assert _pid(address) == run.pids("web.service")[0]

    def test_another_service_for_a_socket(self, units: Units) -> None:
        """A socket unit that is to start another service does so from then on."""
        address = units.socket("web.socket")
        units.service("web.service", _command())
        with running(units) as run:
            first = _pid(address)
            units.socket("web.socket", "Service=other.service", port=address[1])
            units.service("other.service", _command())
            (units.path / "web.service").unlink()
            assert run.ask("replace", "--wait").returncode == 0
            assert _pid(address) != first
            assert run.pids("other.service")

    def test_one_of_several_processes_fails(self, units: Units) -> None:
        """If one of several new processes fails, nobody waits for the others."""
        address = units.socket("web.socket")
        flag = units.path.parent / "fails"
        command = _unless(flag, "[ $SOCKACT_INSTANCE = 1 ] && exit 3", *NOTIFIES)
        units.service("web.service", command, "Type=notify", "X-Instances=2")
        with running(units, "--now") as run:
            _pid(address)
            flag.touch()
            done = run.ask("replace", "--timeout", "10")
            assert done.returncode == 1
            assert "status=3" in done.stderr
            flag.unlink()
            assert run.ask("replace", "--wait").returncode == 0
            assert len(run.pids("web.service")) == 2

    def test_ready_and_then_over(self, units: Units) -> None:
        """What is ready, and ends while others are waited for, has failed."""
        address = units.socket("web.socket")
        units.socket("slow.socket")
        flag = units.path.parent / "fails"
        units.service(
            "web.service",
            _unless(flag, f"exec {_command(*NOTIFIES, '--then', '3')}", *NOTIFIES),
            "Type=notify",
        )
        units.service("slow.service", _unless(flag, "sleep 5", *NOTIFIES), "Type=notify")
        with running(units, "--now") as run:
            first = _pid(address)
            run.until(lambda: run.pids("slow.service"))
            flag.touch()
            done = run.ask("replace")
            assert done.returncode == 1
            assert "status=3" in done.stderr
            assert _pid(address) == first

    def test_dropped_links(self, units: Units) -> None:
        """What is dropped takes its node and its links with it, if it is to (RemoveOnStop=)."""
        directory = units.path.parent
        units.socket("web.socket")
        text = "[Socket]\nListenStream={0}/{1}\nService=web.service\nSymlinks={0}/link-{1}\n"
        (units.path / "goes.socket").write_text(
            text.format(directory, "goes") + "RemoveOnStop=yes\n"
        )
        (units.path / "stays.socket").write_text(text.format(directory, "stays"))
        units.service("web.service", _command())
        with running(units) as run:
            assert (directory / "link-goes").exists()
            (units.path / "goes.socket").unlink()
            (units.path / "stays.socket").unlink()
            assert run.ask("replace", "--wait").returncode == 0
            found = {path.name for path in directory.iterdir()}
            assert found >= {"stays", "link-stays"}
            assert not found & {"goes", "link-goes"}

    def test_dropped_store(self, units: Units) -> None:
        """What a dropped service had stored is closed, also what was to be kept for it."""
        units.socket("web.socket")
        address = units.socket("x.socket", "FileDescriptorName=x")
        units.service("web.service", _command())
        units.service(
            "x.service",
            _command("--store", "kept"),
            "FileDescriptorStoreMax=1",
            "FileDescriptorStorePreserve=yes",
        )
        with running(units, "--now") as run:
            assert get(address, "/names")[1] == "x"
            run.until(lambda: any("memfd" in what for what in _fds(run)))
            (units.path / "x.socket").unlink()
            (units.path / "x.service").unlink()
            assert run.ask("replace", "--wait").returncode == 0
            run.until(lambda: not any("memfd" in what for what in _fds(run)))

    def test_new_unit_that_cannot_begin(self, units: Units) -> None:
        """A new socket unit whose ExecStartPre= fails leaves nothing open."""
        units.socket("web.socket")
        units.service("web.service", _command())
        with running(units) as run:
            before = len(_fds(run))
            address = units.socket("x.socket", "Service=web.service", "ExecStartPre=/bin/false")
            for _ in range(2):
                assert run.ask("replace").returncode == 0
                run.state_becomes("x.socket", "failed")
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(address, SECONDS)
                assert len(_fds(run)) == before
            units.socket("x.socket", "Service=web.service", port=address[1])
            assert run.ask("replace").returncode == 0
            assert _pid(address)

    def test_descriptors_stay_as_many(self, units: Units) -> None:
        """Replacements that come to nothing, and that change everything, leave nothing open."""
        units.socket("web.socket")
        units.service("web.service", _command())
        with running(units) as run:
            before = len(_fds(run))
            bad = units.path / "bad.socket"
            for number in range(10):
                name = f"x{number % 3}.socket"
                (units.path / name).unlink(missing_ok=True)
                if number % 2:
                    units.socket(name, "Service=web.service")
                fails = number % 3 == 2
                units.socket(bad.name, "Service=web.service")
                if fails:
                    bad.write_text("[Socket]\nListenStream=192.0.2.1:1\nService=web.service\n")
                assert run.ask("replace").returncode == fails
            for path in units.path.glob("[xb]*.socket"):
                path.unlink()
            assert run.ask("replace").returncode == 0
            assert len(_fds(run)) == before

    def test_moved_listener(self, units: Units) -> None:
        """A listener that becomes another unit's keeps its node when its first unit is dropped."""
        directory = units.path.parent
        text = f"[Socket]\nService=web.service\nRemoveOnStop=yes\nListenStream={directory}/"
        a, b = units.path / "a.socket", units.path / "b.socket"
        a.write_text(f"{text}one\nListenStream={directory}/two\n")
        units.service("web.service", _command())
        with running(units) as run:
            a.write_text(f"{text}one\n")
            b.write_text(f"{text}two\n")
            assert run.ask("replace").returncode == 0
            a.unlink()
            assert run.ask("replace", "--wait").returncode == 0
            assert get(f"{directory}/two")[0] == 200
            assert not (directory / "one").exists()
            assert run.end() == 0
            assert not (directory / "two").exists()

    def test_more_processes_with_sockets_of_their_own(self, units: Units) -> None:
        """With ReusePort=yes each further process gets one further socket, and nobody has others."""
        address = units.socket("web.socket", "ReusePort=yes")
        for count in (1, 3):
            units.service("web.service", _command(*NOTIFIES), "Type=notify", f"X-Instances={count}")
            if count == 1:
                stack = contextlib.ExitStack()
                run = stack.enter_context(running(units, "--now"))
        with stack:
            before = sum("socket" in what for what in _fds(run))
            assert run.ask("replace", "--wait").returncode == 0
            run.until(lambda: len(run.pids("web.service")) == 3)
            # Two of ours and two of the rendezvous; and the NOTIFY_SOCKET of two more.
            assert sum("socket" in what for what in _fds(run)) == before + 6
            assert {_pid(address) for _ in range(40)} == set(run.pids("web.service"))

    def test_short_start_timeout(self, units: Units) -> None:
        """What says nothing of itself has to live for a second, however soon it has to start."""
        units.socket("web.socket")
        units.service("web.service", "/bin/sleep 60", "TimeoutStartSec=0.5")
        with running(units, "--now") as run:
            assert run.ask("replace").returncode == 0

    def test_while_a_listener_is_brought_back(self, units: Units) -> None:
        """A replacement takes the place of the one that a listener that was shut down began."""
        path = units.path.parent / "node"
        (units.path / "web.socket").write_text(f"[Socket]\nListenStream={path}\n")
        script = (
            "import socket, time; s = socket.socket(fileno=3); s.setblocking(True);"
            " c, _ = s.accept(); c.close(); s.shutdown(socket.SHUT_RDWR); time.sleep(60)"
        )
        units.service("web.service", f'{sys.executable} -c "{script}"', "X-Ready=delay:60")
        with running(units) as run:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                run.logged("was opened anew")
            units.service("web.service", _command(*NOTIFIES), "Type=notify")
            assert run.ask("replace", "--wait").returncode == 0
            assert get(str(path))[0] == 200

    def test_listener_that_nobody_serves(self, units: Units) -> None:
        """If a new process cannot serve what was brought back, that is said."""
        path, flag = units.path.parent / "node", units.path.parent / "flag"
        (units.path / "web.socket").write_text(f"[Socket]\nListenStream={path}\n")
        script = (
            f"import socket, time; open({str(flag)!r}, 'w').close();"
            " socket.socket(fileno=3).shutdown(socket.SHUT_RD); time.sleep(60)"
        )
        (units.path.parent / "script").write_text(script)
        units.service(
            "web.service",
            f"/bin/sh -c '[ -e {flag} ] && exit 1; exec {sys.executable} {units.path.parent}/script'",
        )
        with running(units, "--now") as run:
            run.logged("nobody serves")
            assert "restart the service" in run.service("web.service")["last_failure"]

    def test_two_listeners_are_brought_back(self, units: Units) -> None:
        """A new process has both, though it was begun when the first one had been shut down."""
        directory = units.path.parent
        nodes = [directory / name for name in ("one", "two")]
        lines = [f"ListenStream={node}" for node in nodes]
        (units.path / "web.socket").write_text("\n".join(["[Socket]", *lines, ""]))
        flag, mark = directory / "flag", directory / "mark"
        script = (
            "import signal, socket; found = [socket.socket(fileno=n) for n in (3, 4)];"
            " signal.signal(signal.SIGUSR1, lambda *_: [s.shutdown(socket.SHUT_RD) for s in found]);"
            f" open({str(mark)!r}, 'w').close(); signal.pause(); signal.pause()"
        )
        (directory / "script").write_text(script)
        first = f"[ -e {flag} ] || exec {sys.executable} {directory}/script"
        units.service("web.service", f"/bin/sh -c '{first}; exec {_command()}'")
        with running(units, "--now") as run:
            run.until(mark.exists)
            flag.touch()
            run.process.send_signal(signal.SIGUSR1)
            for node in nodes:
                run.logged(f"{node}) was shut down")
                assert get(str(node))[0] == 200

    @pytest.mark.skipif(not _has_user_namespaces(), reason="there are no user namespaces")
    def test_before_a_listener_is_brought_back(self, units: Units) -> None:
        """It is given up where there is no rendezvous, too: for it would have the dead listener."""
        directory = units.path.parent
        path, flag, log = directory / "node", directory / "flag", directory / "log"
        (units.path / "web.socket").write_text(f"[Socket]\nListenStream={path}\n")
        script = (
            "import signal, socket; s = socket.socket(fileno=3);"
            " signal.signal(signal.SIGUSR1, lambda *_: s.shutdown(socket.SHUT_RD));"
            " signal.pause(); signal.pause()"
        )
        units.service(
            "web.service", f"/bin/sh -c '[ -e {flag} ] || exec {sys.executable} -c \"{script}\";"
            f" exec {_command()}'", "X-Ready=delay:1"
        )  # fmt: skip
        environ = clean_environ({"PYTHONPATH": str(ROOT)})
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                ["unshare", "--user", *SOCKACT, "run", "--now", str(units.path)],
                env={name: value for name, value in environ.items() if name != "XDG_RUNTIME_DIR"},
                stderr=stderr,
            )
        run = Running(process, directory / "none", log)
        try:
            run.logged("ready")
            flag.touch()
            process.send_signal(signal.SIGHUP)
            run.logged('"generation": 2')
            process.send_signal(signal.SIGUSR1)
            run.logged("not replaced: other sockets are open")
            assert get(str(path))[0] == 200
            process.terminate()
            assert run.ends() == 0
        finally:
            process.kill()

    def test_signal_during_one(self, units: Units) -> None:
        """A SIGHUP that comes too early is not forgotten."""
        address = units.socket("web.socket")
        units.service("web.service", _command(*NOTIFIES, "--delay", "0.5"), "Type=notify")
        with running(units, "--now") as run:
            first = _pid(address)
            run.process.send_signal(signal.SIGHUP)
            run.logged('"generation": 2')
            units.service("web.service", _command(*NOTIFIES), "Type=notify", "Environment=NEW=1")
            run.process.send_signal(signal.SIGHUP)
            run.until(lambda: run.text().count("replaced") == 2)
            assert first not in run.pids("web.service")
            assert '"NEW": "1"' in get(address, "/environ")[1]


class TestServices:
    def test_late_reload(self, units: Units) -> None:
        """An ExecReload= that takes too long is ended, and the service goes on."""
        address = units.socket("web.socket")
        units.service("web.service", _command(), "ExecReload=/bin/sleep 79", "TimeoutStartSec=0.3")
        with running(units, "--now") as run:
            pid = _pid(address)
            assert run.ask("reload").returncode == 0
            run.logged("ExecReload: takes too long")
            run.state_becomes("web.service", "running")
            assert _pid(address) == pid
            run.until(lambda: not _runs("sleep 79"))

    def test_longer_and_longer_waits(self, units: Units) -> None:
        """RestartSteps= makes the wait longer each time, also if the service is up at once."""
        units.socket("web.socket")
        units.service(
            "web.service",
            "/bin/false",
            "Restart=always",
            "RestartSec=0.01",
            "RestartSteps=1",
            "RestartMaxDelaySec=60",
        )
        with running(units, "--now") as run:
            run.until(lambda: run.service("web.service")["restarts"] == 1)
            time.sleep(0.3)
            assert run.service("web.service")["restarts"] == 1

    def test_idle_again_and_again(self, units: Units) -> None:
        """A service that is stopped for want of work may be started as often as there is some."""
        address = units.socket("web.socket")
        units.service("web.service", _command(), "X-IdleStopSec=0.1", unit="StartLimitBurst=2")
        with running(units) as run:
            for _ in range(4):
                assert _pid(address)
                run.state_becomes("web.service", "dead")

    def test_start_where_one_of_several_is_over(self, units: Units) -> None:
        """All that are over are started, if one waits for that; if one runs, nothing is."""
        mark = units.path.parent / "mark"
        first = f"[ -e {mark} ] && exec sleep 60; exit $$SOCKACT_INSTANCE"
        units.service(
            "app.service",
            f"/bin/sh -c '{first}'",
            "X-Instances=2",
            "Restart=on-failure",
            "RestartSec=60",
        )
        with running(units) as run:
            run.state_becomes("app.service", "auto-restart")
            mark.touch()
            assert run.ask("start").returncode == 0
            pids = run.pids("app.service")
            assert len(pids) == 2
            mark.unlink()
            os.kill(pids[0], signal.SIGTERM)
            run.until(lambda: run.pids("app.service") == pids[1:])
            assert run.ask("start").returncode == 0
            assert run.pids("app.service") == pids[1:]

    @pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit(2)")
    def test_without_a_descriptor_left(self, units: Units) -> None:
        """What a service has left behind is found and ended though nothing more can be opened."""
        mark = units.path.parent / "mark"
        script = f"sleep 60 & echo $$! > {mark}; exec sleep 60"
        units.service("app.service", f"/bin/sh -c '{script}'", "RemainAfterExit=yes")
        with running(units) as run:
            run.until(lambda: mark.exists() and mark.read_text())
            child, number = int(mark.read_text()), run.process.pid
            (main,) = run.pids("app.service")
            before = resource.prlimit(number, resource.RLIMIT_NOFILE)
            free = next(n for n in range(1000) if not Path(f"/proc/{number}/fd/{n}").exists())
            resource.prlimit(number, resource.RLIMIT_NOFILE, (free, before[1]))
            os.kill(main, signal.SIGKILL)
            run.logged("main process ended")
            run.until(lambda: not living([child]))
            resource.prlimit(number, resource.RLIMIT_NOFILE, before)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root's rights")
    @pytest.mark.skipif(shutil.which("setpriv") is None, reason="there is no setpriv(1)")
    def test_signal_that_may_not_be_sent(self, units: Units) -> None:
        """It is complained of, and does not stop the clock: a late reload is over in time."""
        units.service(
            "app.service",
            "/bin/sleep 60",
            "ExecReload=/bin/sleep 60",
            "User=65534",
            "TimeoutStartSec=0.2",
            "KillMode=none",
        )
        within = ("setpriv", "--bounding-set=-kill", "--inh-caps=-kill")
        with running(units, within=within) as run:
            assert run.ask("reload").returncode == 0
            run.state_becomes("app.service", "running")
            run.logged("may not be signalled")
            run.process.send_signal(signal.SIGUSR1)
            run.until(lambda: run.text().count("may not be signalled") == 2)
            assert "internal error" not in run.text()

    def test_file_that_cannot_be_waited_for(self, units: Units) -> None:
        """A socket unit for such a file fails, as under systemd, and nothing else does."""
        address = units.socket("web.socket")
        (units.path / "file.socket").write_text(
            "[Socket]\nListenSpecial=/dev/null\nService=web.service\n"
        )
        units.service("web.service", _command())
        with running(units) as run:
            assert run.unit("file.socket")["state"] == "failed"
            assert _pid(address)


class TestTakeover:
    def test_oneshot(self, units: Units) -> None:
        """A service that has done what it had to is as good as one that is ready."""
        address = units.socket("web.socket")
        units.service("web.service", _command(*NOTIFIES), "Type=notify")
        units.service("once.service", "/bin/true", "Type=oneshot")
        with running(units, "--now") as old:
            _pid(address)
            with _successor(units, "--now"):
                assert old.ends() == 0
                assert _pid(address)

    def test_failing_one_takes_its_nodes_along(self, units: Units) -> None:
        """A successor that fails leaves nothing of what it has made in the file system."""
        directory = units.path.parent
        address = units.socket("web.socket")
        units.service("web.service", _command(*NOTIFIES), "Type=notify")
        with running(units, "--now") as old:
            first = _pid(address)
            (units.path / "new.socket").write_text(
                f"[Socket]\nListenStream={directory}/node\nSymlinks={directory}/link\n"
                "Service=web.service\n"
            )
            units.service("web.service", "/bin/false", "Type=notify")
            with _successor(units, wait=False) as new:
                assert new.ends() == 1
            assert not {"node", "link"} & {path.name for path in directory.iterdir()}
            assert _pid(address) == first
            assert old.report()["generation"] == 1

    def test_store_is_still_there_when_the_successor_dies(self, units: Units) -> None:
        """A supervisor that serves again has what its services had stored."""
        address = units.socket("web.socket", "FileDescriptorName=web")
        slow = units.socket("slow.socket")
        units.service(
            "web.service",
            _command(*NOTIFIES, "--store", "kept"),
            "FileDescriptorStoreMax=1",
            "Type=notify",
        )
        units.service("slow.service", _command(*NOTIFIES), "Type=notify")
        with running(units, "--now") as old, socket.create_connection(slow, SECONDS) as drains:
            assert get(address, "/names")[1] == "web"
            drains.sendall(b"GET /slow/10 HTTP/1.0\r\n\r\n")
            _pid(slow)
            with _successor(units, "--now") as new:
                old.logged("draining")
                old.logged('main process ended, code=exited, status=0/SUCCESS", "unit": "web')
                assert get(address, "/names")[1] == "web:kept"
                pids = new.pids("web.service")
                new.process.kill()
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                old.logged("serves again")
                assert get(address, "/names")[1] == "web:kept"

    def test_store_keeps_its_order(self, units: Units) -> None:
        """What services had stored comes to a successor's in the order that it had."""
        address = units.socket("web.socket")
        command = _command(*NOTIFIES, "--store", "one,two,three")
        units.service("web.service", command, "FileDescriptorStoreMax=3", "Type=notify")
        with running(units, "--now") as old:
            _pid(address)
            before = old.service("web.service")["stored"]
            assert before == ["three", "two", "one"]
            with _successor(units) as new:
                assert old.ends() == 0
                assert new.service("web.service")["stored"] == before

    def test_removed_while_a_successor_tries(self, units: Units) -> None:
        """What leaves a store after it was passed on leaves that of the successor, too."""
        units.socket("web.socket")
        flag = units.path.parent / "flag"
        units.service(
            "web.service",
            _command("--store", "kept"),
            "FileDescriptorStoreMax=1",
            f"X-Ready=cmd:/usr/bin/test -e {flag}",
        )
        with running(units, "--now") as old:
            old.until(lambda: old.service("web.service")["stored"] == ["kept"])
            with _successor(units, wait=False) as new:
                old.until(lambda: "takes over" in new.text())
                os.kill(old.pids("web.service")[0], signal.SIGUSR1)
                old.until(lambda: old.service("web.service")["stored"] == [])
                flag.touch()
                assert old.ends() == 0
                new.until(lambda: new.service("web.service")["stored"] == [])

    def test_nodes_of_a_taken_listener(self, units: Units) -> None:
        """Whoever serves last removes the node and its links (RemoveOnStop=)."""
        directory = units.path.parent
        (units.path / "web.socket").write_text(
            f"[Socket]\nListenStream={directory}/node\nSymlinks={directory}/link\n"
            "RemoveOnStop=yes\n"
        )
        units.service("web.service", _command(), "X-Ready=exec")
        with running(units) as old, _successor(units) as new:
            assert old.ends() == 0
            assert get(f"{directory}/link")[0] == 200
            assert new.end() == 0
            assert not {"node", "link"} & {path.name for path in directory.iterdir()}

    def test_successors_die_again_and_again(self, units: Units) -> None:
        """To serve again is no start that StartLimitBurst= counts."""
        units.socket("web.socket")
        units.service("web.service", STUBBORN, unit="StartLimitBurst=1")
        with running(units, "--now") as old:
            for number in range(1, 3):
                with _successor(units, "--now", wait=False):
                    old.until(lambda n=number: old.text().count("draining") == n)  # type: ignore[misc]
                old.until(lambda n=number: old.text().count("serves again") == n)  # type: ignore[misc]
            old.state_becomes("web.service", "running")

    def test_socket_is_closed_while_a_taker_gets_ready(self, units: Units) -> None:
        """If that one comes to nothing, it is closed indeed, and can be opened again."""
        address = units.socket("web.socket")
        flag = units.path.parent / "flag"
        units.service("web.service", _unless(flag, "exec sleep 60", *NOTIFIES), "Type=notify")
        with running(units, "--now") as old:
            old.state_becomes("web.service", "running")
            flag.touch()
            with _successor(units, "--now", wait=False) as new:
                new.logged("started")
                assert old.ask("stop").returncode == 0
                assert old.ask("stop", "web.socket").returncode == 0
                old.logged("not passed on yet")
            old.until(lambda: not _is_open(address))
            assert old.ask("start", "web.socket").returncode == 0


class TestEnd:
    def test_second_signal_while_former_ones_drain(self, units: Units) -> None:
        """A second SIGTERM ends also what has stepped down."""
        units.socket("web.socket")
        units.service("web.service", STUBBORN, "Type=exec", "X-Ready=exec")
        with running(units, "--now") as run:
            time.sleep(0.2)
            assert run.ask("replace").returncode == 0
            assert len(run.pids("web.service")) == 2
            time.sleep(0.2)
            run.process.send_signal(signal.SIGTERM)
            run.until(lambda: "ending" in run.report()["place"])
            assert run.end() == 0

    def test_second_signal_while_a_socket_unit_ends(self, units: Units) -> None:
        """A second SIGTERM ends the command that a socket unit runs at its end."""
        units.socket("web.socket", "ExecStopPre=/bin/sleep 77")
        units.service("web.service", _command())
        with running(units) as run:
            run.process.terminate()
            run.until(lambda: _runs("/bin/sleep 77"))
            assert run.end() == 0
            assert not _runs("/bin/sleep 77")

    def test_second_signal_while_it_drains(self, units: Units) -> None:
        """A second SIGTERM ends a supervisor that drains."""
        units.socket("web.socket")
        units.service("web.service", STUBBORN)
        with running(units, "--now") as old:
            old.logged("started")
            time.sleep(0.2)
            units.service("web.service", "/bin/sleep 60", "X-Ready=exec")
            with _successor(units, "--now"):
                old.logged("draining")
                for _ in range(2):
                    old.process.send_signal(signal.SIGTERM)
                    time.sleep(0.3)
                assert old.ends() == 0

    def test_second_signal_while_connections_go_on(self, units: Units) -> None:
        """A second SIGTERM ends the instances of Accept=yes."""
        address = units.socket("e.socket", "Accept=yes")
        units.service("e@.service", STUBBORN)
        with running(units) as run, socket.create_connection(address, SECONDS):
            run.until(lambda: run.report()["instances"])
            time.sleep(0.2)
            run.process.send_signal(signal.SIGTERM)
            run.until(lambda: "ending" in run.report()["place"])
            assert run.end() == 0

    def test_commands_of_socket_units(self, units: Units) -> None:
        """A socket unit runs its commands when its sockets are closed, also at the end of all."""
        mark = units.path.parent / "mark"
        names = ("ExecStartPre", "ExecStartPost", "ExecStopPre", "ExecStopPost")
        units.socket("web.socket", *(f"{n}=/bin/sh -c 'echo {n} >> {mark}'" for n in names))
        units.socket("x.socket", "Service=web.service", f"ExecStopPost=/bin/touch {mark}-x")
        units.service("web.service", _command())
        with running(units) as run:
            (units.path / "x.socket").unlink()
            assert run.ask("replace").returncode == 0
            run.until(Path(f"{mark}-x").exists)
            assert run.end() == 0
            assert tuple(mark.read_text().split()) == names

    def test_while_a_command_before_the_sockets_runs(self, units: Units) -> None:
        """SIGTERM ends a supervisor whose ExecStartPre= runs, and the command with it."""
        units.socket("web.socket", "ExecStartPre=/bin/sh -c 'sleep 78; true'")
        units.service("web.service", _command())

        with supervisor(units.path.parent, str(units.path), wait=False) as run:
            run.until(lambda: _runs("sleep 78"))
            assert run.end() == 0
            run.until(lambda: not _runs("sleep 78"))  # no child of it, so it is not waited for

    def test_late_command_before_the_sockets(self, units: Units) -> None:
        """An ExecStartPre= that takes too long is a failure of the start."""
        units.socket("web.socket", "ExecStartPre=/bin/sleep 60", "TimeoutSec=0.2")
        units.service("web.service", _command())
        with supervisor(units.path.parent, str(units.path), wait=False) as run:
            assert run.ends() == 1
            assert "ExecStartPre: takes too long" in run.text()
            assert len(run.text().splitlines()) == 1

    def test_while_it_waits_for_an_owner(self, units: Units) -> None:
        """A signal ends it though the owner at its path does not answer."""
        units.socket("web.socket")
        units.service("web.service", _command())
        directory = units.path.parent
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as owner:
            owner.bind(str(directory / "run.rdv"))
            owner.listen()
            owner.settimeout(SECONDS)
            with supervisor(directory, str(units.path), wait=False) as run:
                peer, _ = owner.accept()
                with peer:
                    peer.recv(4096)
                    run.process.terminate()
                    assert run.ends() == 0, run.text()

    def test_last_moment(self, units: Units) -> None:
        """A signal that comes when all is over does not change the exit status."""
        units.socket("web.socket")
        units.service("web.service", "/bin/true")
        with running(units) as run:
            run.process.terminate()
            while run.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(run.process.pid, signal.SIGTERM)
                time.sleep(0.001)
            assert run.process.returncode == 0

    def test_without_standard_streams(self, units: Units) -> None:
        """Where descriptors 0 to 2 are closed, they become nothing else than /dev/null."""
        address = units.socket("web.socket")
        units.service("web.service", _command())
        path = units.path.parent / "run.rdv"
        command = [*SOCKACT, "run", "--rendezvous", str(path), str(units.path)]
        shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
        process = subprocess.Popen(shell, env=clean_environ())
        try:
            wait_until_accepting(address)
            for pid in (process.pid, _pid(address)):
                for number in range(3):
                    assert os.readlink(f"/proc/{pid}/fd/{number}") == os.devnull
        finally:
            process.terminate()
            assert process.wait(SECONDS) == 0


def test_sockets_of_one_name(short_dir: Path) -> None:
    """A command gets all sockets, inherited ones too, also if several have the same name."""
    ports = [free_port() for _ in range(4)]
    listens = [f"--listen=same=tcp:127.0.0.1:{port}" for port in ports]
    path, log = short_dir / "run.rdv", short_dir / "log"
    inner = [*SOCKACT, "run", "--rendezvous", str(path), *listens[2:], "--", *server()]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*SOCKACT, "exec", *listens[:2], "--", *inner], env=clean_environ(), stderr=stderr
        )
    run = Running(process, path, log)
    try:
        run.logged("4 sockets open")
        for _ in range(2):
            assert get(("127.0.0.1", ports[1]), "/names")[1] == ":".join(["same"] * 4)
            assert run.ask("replace", "--wait").returncode == 0
    finally:
        process.terminate()
        assert process.wait(SECONDS) == 0


def test_left_over_path(short_dir: Path) -> None:
    """What a supervisor that was killed has left of a path of its own, is removed."""
    path = short_dir / "run-1.rdv"
    with supervisor(short_dir, "--", "sleep", "60", path=path) as run:
        assert not where.is_left_over(str(path))
        run.process.kill()
        run.process.wait()
        run.until(lambda: where.is_left_over(str(path)))  # a child just forked has its lock, too
        assert [one.name for one in short_dir.iterdir()] == ["run.log"]
