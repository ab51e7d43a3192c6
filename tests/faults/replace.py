"""Replacing a service under load, again and again, with good releases and with bad ones.

    python -m tests.faults.replace [--count 200] [--apps gunicorn,nginx,node] [--ways replace,rendezvous]
    python -m tests.faults.replace --count 0        only the bad releases, and the killed supervisors

prints JSON and returns 1 if a request has failed that must not. The load makes a new connection for
each request, in HTTP; the servers are as they are.
"""

import argparse
import contextlib
import functools
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from tests.faults.supervised import Supervisor, missing, replace
from tests.helpers import SECONDS, SOCKACT, free_port, running
from tests.load import Load, Result
from tests.servers import apps

RATE = 100.0
TIMEOUT = 2 * SECONDS
APPS = ("gunicorn", "nginx", "node")
WAYS = ("replace", "rendezvous")

FAULTS = ("crash", "hang", "ready-crash", "accept-crash")
"""What a bad release does: it ends at once; it never gets ready; it gets ready and ends at once; it
gets ready, accepts one connection and ends."""

START_SECONDS = 2

_BAD = """\
import os, socket, sys, time
fault, accepted = sys.argv[1:]
if fault == "crash":
    sys.exit(3)
if fault == "hang":
    time.sleep(1000)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
    name = os.environ["NOTIFY_SOCKET"]
    sock.sendto(b"READY=1", name.replace("@", "\\0", 1))
if fault == "accept-crash":
    with socket.socket(fileno=3) as listener:
        listener.setblocking(True)
        listener.accept()
    with open(accepted, "ab") as file:
        file.write(b"x")
os._exit(3)
"""


@attrs.frozen
class Report:
    """What became of it.

    Attributes:
        result: The requests.
        seconds: Of each replacement, until no process of the old generation is left.
        excused: How many requests a process had accepted that then ended without an answer.
        refusals: What was said of each release that was not taken.
    """

    result: Result
    seconds: tuple[float, ...] = ()
    excused: int = 0
    refusals: tuple[str, ...] = ()

    @property
    def lost(self) -> int:
        """How many requests have failed that must not."""
        return max(0, self.result.failed - self.excused)

    def summary(self) -> dict[str, object]:
        """Return it as JSON takes it."""
        load = self.result.summary()
        servers = load.pop("by_server")
        assert isinstance(servers, dict)
        found: dict[str, object] = {"lost": self.lost, "servers": len(servers), "load": load}
        if self.seconds:
            found |= {
                "replacements": len(self.seconds),
                "median_ms": round(statistics.median(self.seconds) * 1e3),
                "max_ms": round(max(self.seconds) * 1e3),
            }
        if self.refusals:
            found["refusals"] = self.refusals
        return found | {"excused": self.excused}


@contextlib.contextmanager
def _load(port: int) -> Iterator[Load]:
    address = (apps.HOST, port)
    with Load(address, clients=100, rate=RATE, timeout=TIMEOUT, http=True) as load:
        yield load


def _arguments(directory: Path, name: str, port: int) -> list[str]:
    """Return what ``sockact run`` is to run, but for its options."""
    app = apps.APPS[name](directory, port)
    if name == "gunicorn":  # the shortest command line; the others' signals take a unit
        listen = f"--listen=web=tcp:{apps.HOST}:{port}"
        return [listen, f"--ready={app.ready}", "--", *app.command]
    return [str(apps.write_units(directory, app, port))]


# --- good releases --------------------------------------------------------------------------------


def replacements(directory: Path, name: str, count: int, interval: float) -> Report:
    """Replace a service so many times by ``sockact replace``.

    Args:
        directory: Empty, and short.
        name: Which of `APPS`.
        count: How many times.
        interval: Seconds from the beginning of one to that of the next, if it does not take longer.

    Raises:
        AssertionError: One has failed.
    """
    path, port = directory / "r", free_port()
    seconds: list[float] = []
    arguments = [f"--rendezvous={path}", *_arguments(directory, name, port)]
    with Supervisor(directory, arguments) as supervisor:
        supervisor.wait_answer(port)
        with _load(port) as load:
            for _ in range(count):
                begin, old = time.monotonic(), supervisor.processes()
                done = replace(path)
                assert not done.returncode, f"{done.stderr}\n{supervisor.said()}"
                supervisor.wait_gone(old)
                assert supervisor.processes(), f"nothing runs; {supervisor.said()}"
                seconds.append(time.monotonic() - begin)
                time.sleep(max(0.0, begin + interval - time.monotonic()))
            return Report(load.stop(), tuple(seconds))


def successions(directory: Path, name: str, count: int, interval: float) -> Report:
    """Have another ``sockact run`` of the same rendezvous take over so many times.

    The arguments are those of `replacements`.

    Raises:
        AssertionError: One has failed.
    """
    path, port = directory / "r", free_port()
    seconds: list[float] = []
    arguments = [f"--rendezvous={path}", *_arguments(directory, name, port)]
    with contextlib.ExitStack() as stack:
        leader = stack.enter_context(Supervisor(directory, arguments))
        leader.wait_answer(port)
        with _load(port) as load:
            for _ in range(count):
                begin, old = time.monotonic(), leader.processes()
                successor = stack.enter_context(Supervisor(directory, arguments))
                status = leader.wait_end()
                assert not status, f"status {status}: {leader.said()}"
                successor.wait_gone(old)
                assert successor.process.poll() is None, successor.said()
                seconds.append(time.monotonic() - begin)
                leader.log.unlink()
                leader = successor
                time.sleep(max(0.0, begin + interval - time.monotonic()))
            return Report(load.stop(), tuple(seconds))


GOOD: dict[str, Callable[..., Report]] = {
    "replace": replacements,
    "rendezvous": successions,
}


# --- bad releases ---------------------------------------------------------------------------------


def _write_release(directory: Path, port: int, fault: str) -> Path:
    """Write units for gunicorn, or for a release with a fault; return the socket unit's path.

    What a unit starts is a script, so that the release behind a unit can change.
    """
    directory.mkdir(exist_ok=True)
    app = apps.gunicorn(directory, port)
    bad = directory / "bad.py"
    bad.write_text(_BAD, encoding="ascii")
    words = app.command
    if fault:
        words = [sys.executable, "-IS", str(bad), fault, str(directory / "accepted")]
    start = directory / "start.new"
    start.write_text(f"exec {' '.join(words)}\n", encoding="utf-8")
    start.rename(directory / "start")
    unit = apps.write_units(
        directory, attrs.evolve(app, command=["/bin/sh", str(directory / "start")]), port
    )
    service = directory / "web.service"
    text = service.read_text(encoding="utf-8")
    text += f"TimeoutStartSec={START_SECONDS}s\nRestart=on-failure\nRestartSec=200ms\n"
    service.write_text(text, encoding="utf-8")
    return unit


def bad_replacement(directory: Path, fault: str) -> Report:
    """Replace a service by a release with a fault, which a second later is a good one again.

    Raises:
        AssertionError: A release that never got ready was taken, or a good one was not.
    """
    path, port, release = directory / "r", free_port(), directory / "release"
    unit = _write_release(release, port, "")
    with Supervisor(directory, [f"--rendezvous={path}", str(unit)]) as supervisor:
        supervisor.wait_answer(port)
        with _load(port) as load:
            old = supervisor.processes()
            _write_release(release, port, fault)
            load.mark("bad")
            done = replace(path)
            if fault in ("crash", "hang"):
                assert done.returncode, f"it was taken; {supervisor.said()}"
                assert old <= supervisor.processes(), f"the old one is gone; {supervisor.said()}"
            time.sleep(1.0)
            _write_release(release, port, "")
            load.mark("good")
            after = replace(path)
            assert not after.returncode, f"{after.stderr}\n{supervisor.said()}"
            supervisor.wait_gone(old)
            time.sleep(0.5)
            result = load.stop()
    return Report(result, (), _accepted(release), (done.stderr.strip(),))


def bad_succession(directory: Path, fault: str) -> Report:
    """Have a release with a fault take over from another process; then a good one.

    Raises:
        AssertionError: A release that never got ready was taken, or a good one was not.
    """
    path, port = directory / "r", free_port()
    good = _write_release(directory / "good", port, "")
    bad = _write_release(directory / "bad", port, fault)
    rendezvous = f"--rendezvous={path}"
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Supervisor(directory, [rendezvous, str(good)]))
        first.wait_answer(port)
        with _load(port) as load:
            old = first.processes()
            load.mark("bad")
            second = stack.enter_context(Supervisor(directory, [rendezvous, str(bad)]))
            if fault in ("crash", "hang"):
                assert second.wait_end(), f"a bad release ended with 0: {second.said()}"
                assert old <= first.processes(), f"the old one is gone; {first.said()}"
            else:
                time.sleep(1.0)
            load.mark("good")
            # If the crash was seen before the commit, the release was refused.
            last = second if second.process.poll() is None else first
            third = stack.enter_context(Supervisor(directory, [rendezvous, str(good)]))
            status = last.wait_end()
            assert not status, f"status {status}: {last.said()}"
            third.wait_gone(old)
            time.sleep(0.5)
            result = load.stop()
    return Report(result, (), _accepted(directory / "bad"), (second.said(),))


BAD: dict[str, Callable[..., Report]] = {
    "replace": bad_replacement,
    "rendezvous": bad_succession,
}


def _accepted(release: Path) -> int:
    file = release / "accepted"
    return file.stat().st_size if file.exists() else 0


# --- a supervisor that is killed ------------------------------------------------------------------


def killed(directory: Path, times: int, *, holder: bool = True) -> Report:
    """Kill the supervisor by SIGKILL and start it again, with a holder behind it or without.

    The requests that were refused are the point; those that fail otherwise had been accepted by
    processes that ended with their supervisor.

    Raises:
        AssertionError: It does not come up again.
    """
    path, port = directory / "r", free_port()
    listen = f"--listen=web=tcp:{apps.HOST}:{port}"
    app = apps.gunicorn(directory, port)
    arguments = [f"--rendezvous={path}", listen, f"--ready={app.ready}"]
    with contextlib.ExitStack() as stack:
        if holder:
            hold = stack.enter_context(running([*SOCKACT, "hold", str(directory / "h"), listen]))
            assert hold.stderr
            while "generation" not in (line := hold.stderr.readline()):
                assert line, "the holder has ended"
            arguments.append(f"--from={directory / 'h'}")
        arguments += ["--", *app.command]
        supervisor = stack.enter_context(Supervisor(directory, arguments))
        supervisor.wait_answer(port)
        with _load(port) as load:
            for _ in range(times):
                old = supervisor.processes()
                supervisor.kill()
                if not holder:
                    supervisor.wait_gone(old)  # they have the port until then
                supervisor = stack.enter_context(Supervisor(directory, arguments))
                supervisor.wait_gone(old)
                supervisor.wait_answer(port)
            result = load.stop()
    excused = result.failed - result.refused if holder else result.failed
    return Report(result, (), excused)


# --- the run --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sa-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def main() -> int:
    """Print what became of it; return 1 if a request has failed that must not."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.replace", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--interval", type=float, default=0.5)
    parser.add_argument("--apps", default=",".join(APPS))
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()
    if why := missing():
        print(why, file=sys.stderr)
        return 1
    jobs: dict[str, Callable[[Path], Report]] = {}
    for way in options.ways.split(","):
        for name in filter(None, options.apps.split(",") if options.count else ()):
            jobs[f"{name}, {way}"] = functools.partial(
                GOOD[way], name=name, count=options.count, interval=options.interval
            )
        for fault in filter(None, options.faults.split(",")):
            jobs[f"{fault}, {way}"] = functools.partial(BAD[way], fault=fault)
    for holder in (True, False) if options.kills else ():
        what = "supervisor killed, " + ("holder" if holder else "no holder")
        jobs[what] = functools.partial(killed, times=options.kills, holder=holder)
    found: dict[str, object] = {}
    bad = False
    for name, job in jobs.items():
        with _directory() as directory:
            try:
                report = job(directory)
            except AssertionError as error:
                found[name] = f"failed: {error}"
                bad = True
            else:
                found[name] = report.summary()
                bad |= bool(report.lost)
        print(f"{name}: done", file=sys.stderr)
    print(json.dumps(found, indent=2))
    return bad


if __name__ == "__main__":
    sys.exit(main())
