"""``sockact run`` where each process of a service has a socket of its own, and their number changes."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import SECONDS, SOCKACT, clean_environ
from tests.load import Load
from tests.supervise.supervisors import Running, supervisor
from tests.supervise.test_units import Address, Units, running

SERVER = str(Path(__file__).with_name("sibling.py"))
RATE = 100.0
READY = '"message": "ready", "unit": "web.service", "generation": {}'


class Siblings:
    """A service with siblings, under load.

    Attributes:
        units: Its units.
        address: Where it listens.
    """

    def __init__(self, path: Path) -> None:
        self.units = Units(path / "units")
        self.address: Address = self.units.socket("web.socket", "ReusePort=yes")

    def write(self, count: int, *lines: str, option: str = "") -> None:
        """Have the service have so many processes from the next replacement on."""
        command = f"{sys.executable} -IS {SERVER} {option}"
        self.units.service("web.service", command, "Type=notify", f"X-Instances={count}", *lines)

    def load(self) -> Load:
        """Return a load of new connections."""
        return Load(self.address, clients=50, rate=RATE, timeout=20.0)


@pytest.fixture
def siblings(short_dir: Path) -> Siblings:
    """Give a service that nobody runs yet."""
    return Siblings(short_dir)


@pytest.mark.parametrize("waits", [True, False])
def test_fewer_and_more_processes_lose_nothing(siblings: Siblings, waits: bool) -> None:
    """Replaced by fewer and by more processes again and again, a service loses no connection.

    That is so whether the processes that are given up have ended before the next replacement or not.
    """
    siblings.write(4)
    with running(siblings.units, "--now") as run:
        run.until(lambda: len(run.pids("web.service")) == 4)
        with siblings.load() as load:
            time.sleep(0.2)
            for count in (2, 4, 4, 2, 4, 3, 1, 4):
                siblings.write(count)
                done = run.ask("replace", *(["--wait"] if waits else []))
                assert done.returncode == 0, done.stderr + run.text()
            time.sleep(0.2)
            result = load.stop()
    assert not result.failed, (result, run.text())


def test_processes_that_share_a_socket_again_lose_nothing(siblings: Siblings) -> None:
    """Without ReusePort=, and with it again, a service loses no connection."""
    siblings.write(4)
    with running(siblings.units, "--now") as run:
        run.until(lambda: len(run.pids("web.service")) == 4)
        with siblings.load() as load:
            time.sleep(0.2)
            for option in ("ReusePort=no", "ReusePort=yes"):
                siblings.units.socket("web.socket", option, port=siblings.address[1])
                done = run.ask("replace", "--wait")
                assert done.returncode == 0, done.stderr + run.text()
            time.sleep(0.2)
            result = load.stop()
    assert not result.failed, (result, run.text())


def test_what_is_no_socket_is_dropped_and_taken_over(siblings: Siblings) -> None:
    """A FIFO beside siblings is in nobody's way, in a replacement and in a takeover."""
    siblings.write(2)
    fifo, directory = siblings.units.path / "fifo.socket", siblings.units.path.parent
    lines = f"[Socket]\nListenFIFO={directory}/f\nService=idle.service\n"
    fifo.write_text(lines)
    siblings.units.service("idle.service", "/bin/sleep 60", "X-Ready=exec")
    with running(siblings.units, "--now") as first:
        first.until(lambda: len(first.pids("web.service")) == 2)
        for count in (4, 2):  # dropped, and dropped once more while the first still drains
            fifo.unlink()
            siblings.write(count)
            done = first.ask("replace")
            assert done.returncode == 0, done.stderr + first.text()
            fifo.write_text(lines)
            done = first.ask("replace")
            assert done.returncode == 0, done.stderr + first.text()
        siblings.write(4)  # some have to be opened beside what is taken
        units = str(siblings.units.path)
        with supervisor(directory, "--now", units, name="next", wait=False) as second:
            assert first.ends() == 0, first.text() + second.text()
            second.until(lambda: len(second.pids("web.service")) == 4)
            assert "internal error" not in first.text() + second.text()
            assert second.end() == 0, second.text()


def test_another_service_is_replaced(siblings: Siblings) -> None:
    """A service with another number of siblings is replaced, too: each has to be served."""
    siblings.write(2)
    siblings.units.socket("other.socket")
    siblings.units.service("other.service", f"{sys.executable} -IS {SERVER}", "Type=notify")
    with running(siblings.units, "--now") as run:
        run.until(lambda: len(run.pids("web.service")) == 2)
        with siblings.load() as load:
            for count in (4, 2):
                siblings.write(count)
                done = run.ask("replace", "--wait", "other.service")
                assert done.returncode == 0, done.stderr + run.text()
                assert len(run.pids("web.service")) == count
            result = load.stop()
    assert not result.failed, (result, run.text())


def test_a_release_that_fails_with_more_processes_loses_nothing(siblings: Siblings) -> None:
    """What a new generation was given and never served has got no connection."""
    siblings.write(2)
    with running(siblings.units, "--now") as run:
        run.until(lambda: len(run.pids("web.service")) == 2)
        # They do not end at once, and have their sockets meanwhile.
        siblings.write(4, "TimeoutStartSec=0.5", "TimeoutStopSec=1", option="--never-ready")
        with siblings.load() as load:
            time.sleep(0.2)
            assert run.ask("replace").returncode
            run.until(lambda: len(run.service("web.service")["instances"]) == 2)
            result = load.stop()
    assert not result.failed, (result, run.text())


def test_a_release_that_fails_while_others_finish_loses_nothing(siblings: Siblings) -> None:
    """Nothing is sent where nobody serves yet when those who were given up before have ended."""
    siblings.write(4, "Environment=STAY_SECONDS=1")
    with running(siblings.units, "--now") as run:
        run.until(lambda: len(run.pids("web.service")) == 4)
        siblings.write(2)
        assert run.ask("replace").returncode == 0
        siblings.write(4, "TimeoutStartSec=3", "TimeoutStopSec=1", option="--never-ready")
        with siblings.load() as load:
            assert run.ask("replace").returncode
            run.until(lambda: len(run.service("web.service")["instances"]) == 2)
            result = load.stop()
    assert not result.failed, (result, run.text())


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4)])
def test_a_successor_with_another_number_loses_nothing(
    siblings: Siblings, before: int, after: int
) -> None:
    """Taken over by a supervisor that runs fewer or more processes, a service loses no connection."""
    siblings.write(before)
    directory, units = siblings.units.path.parent, str(siblings.units.path)
    with running(siblings.units, "--now") as first:
        first.until(lambda: len(first.pids("web.service")) == before)
        siblings.write(after)
        with siblings.load() as load:
            time.sleep(0.2)
            with supervisor(directory, "--now", units, name="next", wait=False) as second:
                assert first.ends() == 0, first.text() + second.text()
                second.until(lambda: len(second.pids("web.service")) == after)
                load.mark("alone")
                time.sleep(1.0)
                pids = set(map(str, second.pids("web.service")))
                result = load.stop()
                assert second.end() == 0, second.text()
    assert not result.failed, (result, first.text(), second.text())
    assert pids <= set(result.by_server), "not all of its processes get connections"


def test_a_successor_that_fails_with_fewer_processes_loses_nothing(siblings: Siblings) -> None:
    """The processes that it would have given up serve on, and get connections as before."""
    siblings.write(4)
    directory, units = siblings.units.path.parent, str(siblings.units.path)
    with running(siblings.units, "--now") as run:
        run.until(lambda: len(run.pids("web.service")) == 4)
        siblings.write(2, "TimeoutStartSec=0.5", "TimeoutStopSec=1", option="--never-ready")
        with siblings.load() as load:
            with supervisor(directory, "--now", units, name="next", wait=False) as second:
                assert second.ends() == 1, second.text()
            time.sleep(1.0)
            result = load.stop()
        pids = set(map(str, run.pids("web.service")))
    assert not result.failed, (result, run.text())
    assert pids <= set(result.by_server)


class _Waiting:
    """Connections that wait in the queues of processes which do not run for the moment.

    Attributes:
        pids: The processes.
    """

    def __init__(self, run: Running, address: Address) -> None:
        self.pids = run.pids("web.service")
        self._address = address
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)
        self._clients = [self._ask() for _ in range(20)]

    def _ask(self) -> socket.socket:
        sock = socket.create_connection(self._address, SECONDS)
        sock.sendall(b"GET x\n")
        return sock

    def go_on(self) -> None:
        """Have the processes run again."""
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)

    def answered_by(self) -> set[int]:
        """Return which processes answered; every client has to be."""
        return {int(one.makefile().read().split()[1]) for one in self._clients}

    def answers_again(self) -> set[int]:
        """Return which processes answer when it is asked as often again."""
        self.close()
        self._clients = [self._ask() for _ in range(100)]
        return self.answered_by()

    def close(self) -> None:
        """Close the connections."""
        for one in self._clients:
            one.close()


def _replacing(run: Running) -> subprocess.Popen[str]:
    command = [*SOCKACT, "replace", str(run.path)]
    return subprocess.Popen(command, env=clean_environ(), stderr=subprocess.PIPE, text=True)


def test_what_waits_is_served_by_those_who_are_given_up(siblings: Siblings) -> None:
    """A replacement waits until nothing is left in the sockets that it gives up."""
    siblings.write(4)
    with running(siblings.units, "--now") as run:
        run.until(lambda: len(run.pids("web.service")) == 4)
        siblings.write(2)
        with contextlib.closing(_Waiting(run, siblings.address)) as waiting:
            with _replacing(run) as replacing:
                run.logged(READY.format(2))
                waiting.go_on()
                assert replacing.wait(SECONDS) == 0, run.text()
            assert waiting.answered_by() & set(waiting.pids[2:])
            run.until(lambda: len(run.pids("web.service")) == 2)


def test_a_new_process_that_ends_meanwhile(siblings: Siblings) -> None:
    """If it comes to nothing while it waits, those who would be given up get connections again."""
    siblings.write(4)
    with running(siblings.units, "--now") as run:
        run.until(lambda: len(run.pids("web.service")) == 4)
        siblings.write(2)
        with contextlib.closing(_Waiting(run, siblings.address)) as waiting:
            with _replacing(run) as replacing:
                run.logged(READY.format(2))
                started = r'pid (\d+)", "unit": "web.service#0", "generation": 2'
                (new,) = re.findall(started, run.text())
                os.kill(int(new), signal.SIGTERM)
                assert replacing.wait(SECONDS) == 1, run.text()
            waiting.go_on()
            waiting.answered_by()
            assert waiting.answers_again() == set(waiting.pids)


def test_a_successor_that_ends_meanwhile(siblings: Siblings) -> None:
    """So it is if a successor ends that was about to give them up."""
    siblings.write(4)
    directory, units = siblings.units.path.parent, str(siblings.units.path)
    with running(siblings.units, "--now") as run:
        run.until(lambda: len(run.pids("web.service")) == 4)
        siblings.write(2)
        with contextlib.closing(_Waiting(run, siblings.address)) as waiting:
            with supervisor(directory, "--now", units, name="next", wait=False) as second:
                second.logged(READY.format(1))
                second.end()
            waiting.go_on()
            waiting.answered_by()
            assert waiting.answers_again() == set(waiting.pids)


def test_what_nobody_accepts_is_told(siblings: Siblings) -> None:
    """If those who are to go accept nothing, they go all the same, and it is said what that costs."""
    siblings.write(4)
    with running(siblings.units, "--now") as run:
        run.until(lambda: len(run.pids("web.service")) == 4)
        siblings.write(2)
        with contextlib.closing(_Waiting(run, siblings.address)) as waiting:
            assert run.ask("replace").returncode == 0
            assert re.search(r"nobody accepts \d+ connections to processes", run.text())
            run.until(lambda: not set(waiting.pids) & set(run.pids("web.service")))
