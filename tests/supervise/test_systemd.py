"""``sockact run`` as a service of the real systemd, by the sample unit."""

import sys
from collections.abc import Iterator

import pytest

from tests.conformance.namespaces import Systemd, missing_systemd
from tests.helpers import ROOT, SECONDS
from tests.rendezvous.peers import until
from tests.supervise.supervisors import SERVER

SAMPLE = ROOT / "units" / "sockact-run.service"
PORT = 8080
# The program of the service; what stands in this file is added to its command line.
MORE = "/run/more"

_GET = f"""
import http.client
there = http.client.HTTPConnection("127.0.0.1", {PORT}, timeout={SECONDS})
there.request("GET", "/pid")
print(there.getresponse().read().decode())
"""


class Service:
    """The sample, in a machine with systemd."""

    unit = "sockact-run.service"

    def __init__(self, machine: Systemd) -> None:
        self.machine = machine

    def systemctl(self, *words: str) -> bool:
        """Run systemctl; return whether it has succeeded."""
        return self.machine.run("systemctl", *words).returncode == 0

    def show(self, what: str) -> str:
        """Return a property of the service."""
        shown = self.machine.run("systemctl", "show", "--value", f"--property={what}", self.unit)
        return shown.stdout.strip()

    def pid(self) -> int:
        """Return the process, as numbered inside, that answers a request."""
        done = self.machine.run(sys.executable, "-c", _GET)
        assert done.returncode == 0, done.stderr + self.said()
        return int(done.stdout)

    def lives(self, pid: int) -> bool:
        """Whether there is such a process inside."""
        return self.machine.run("test", "-d", f"/proc/{pid}").returncode == 0

    def more(self, words: str) -> None:
        """Have the next process of the program get more arguments."""
        self.machine.path(MORE).write_text(words, encoding="ascii")

    def said(self) -> str:
        """Return what sockact has said."""
        log = self.machine.path("/run/out/run")
        return log.read_text(encoding="utf-8") if log.exists() else ""


@pytest.fixture(scope="module", name="machine")
def _machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    """Boot systemd with the sample, and a directory of units for that."""
    if reason := missing_systemd():
        pytest.skip(reason)
    place = tmp_path_factory.mktemp("systemd")
    units, ours = place / "units", place / "ours"
    drop_in = units / f"{Service.unit}.d"
    drop_in.mkdir(parents=True)
    ours.mkdir()
    (units / "test.target").write_text("[Unit]\nDefaultDependencies=no\n", encoding="ascii")
    text = SAMPLE.read_text(encoding="utf-8")
    for old, new in (
        ("/usr/bin/env sockact", f"{sys.executable} -m sockact"),
        ("/etc/sockact", str(ours)),
    ):
        assert old in text
        text = text.replace(old, new)
    (units / Service.unit).write_text(text, encoding="utf-8")
    (drop_in / "test.conf").write_text(
        f"[Unit]\nDefaultDependencies=no\n[Service]\nWorkingDirectory={ROOT}\n"
        "StandardOutput=append:/run/out/run\nStandardError=append:/run/out/run\n",
        encoding="ascii",
    )
    (units / "sockact-run.socket").write_text(
        f"[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=127.0.0.1:{PORT}\n",
        encoding="ascii",
    )
    (ours / "web.socket").write_text(f"[Socket]\nListenStream=127.0.0.1:{PORT}\n", encoding="ascii")
    command = f"exec {sys.executable} {SERVER} --notify READY=1 $(cat {MORE})"
    (ours / "web.service").write_text(
        f"[Service]\nType=notify\nExecStart=/bin/sh -c '{command}'\n"
        "TimeoutStartSec=2\nTimeoutStopSec=1\n",
        encoding="ascii",
    )
    with Systemd(units) as machine:
        machine.run("ip", "link", "set", "lo", "up")
        yield machine


@pytest.fixture(name="service")
def _service(machine: Systemd) -> Iterator[Service]:
    """Start the sample, and stop it at the end."""
    service = Service(machine)
    service.more("")
    assert service.systemctl("start", service.unit), service.said()
    yield service
    service.systemctl("stop", service.unit)


def test_reload_replaces(service: Service) -> None:
    """``systemctl reload`` returns when new processes serve, and the supervisor stays."""
    supervisor, first = service.show("MainPID"), service.pid()
    assert service.systemctl("reload", service.unit), service.said()
    assert service.pid() != first
    until(lambda: not service.lives(first), "the old one is gone")
    assert service.show("MainPID") == supervisor
    assert service.show("ActiveState") == "active"


def test_reload_that_fails(service: Service) -> None:
    """It fails if the new process does, and the old one goes on."""
    first = service.pid()
    for words, why in (("--fail 9", "status=9"), ("--delay 60", "not ready in time")):
        service.more(words)
        assert not service.systemctl("reload", service.unit)
        assert why in service.said()
        assert service.pid() == first
        assert service.show("ActiveState") == "active"
    service.more("")
    assert service.systemctl("reload", service.unit)
    assert service.pid() != first


def test_stop(service: Service) -> None:
    """A stop ends everything in order: the signal of systemd is for the supervisor alone."""
    pid = service.pid()
    assert service.systemctl("stop", service.unit)
    assert not service.lives(pid)
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("success", "0")
    assert not service.machine.path("/run/sockact/run.rdv").exists()


def test_a_killed_supervisor_is_started_again(service: Service) -> None:
    """Its services end with it, and the next one starts them on demand."""
    first = service.pid()
    service.machine.run("kill", "-KILL", service.show("MainPID"))
    until(lambda: service.show("NRestarts") != "0", "systemd starts it again")
    until(lambda: service.show("ActiveState") == "active", "it serves again")
    assert service.pid() != first
    assert not service.lives(first)


def test_sockets_of_systemd_outlive_it(machine: Systemd) -> None:
    """Who connects while it is dead waits, if the socket was passed to it by systemd."""
    service = Service(machine)
    service.more("")
    assert service.systemctl("start", "sockact-run.socket")
    try:
        first = service.pid()
        service.machine.run("kill", "-KILL", service.show("MainPID"))
        assert service.pid() != first
        assert service.said().count("Address already in use") == 0
    finally:
        service.systemctl("stop", "sockact-run.socket", service.unit)
