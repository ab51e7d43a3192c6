"""The holder as a service of the real systemd, which keeps its descriptors while it is dead."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.namespaces import Systemd, missing_systemd
from tests.helpers import ROOT
from tests.rendezvous.inside import Inside
from tests.rendezvous.peers import ActorError, until

SAMPLE = ROOT / "units" / "sockact-hold.service"
OWN = 4
"""Descriptors in the fd store that are the holder's own: listener, lock, and two of memory."""

# What stands in each actor: the service, and how to look at what it holds.
_PRELUDE = """
import random, select, signal, socket, subprocess, threading, time
import sockact.errors
from sockact.fd.identity import socket_cookie
from sockact.sockets.socketset import NamedSocket, SocketSet

def put(name, *named, **more):
    with SocketSet([NamedSocket(each, os.dup(fd)) for each, fd in named]) as some:
        sockact.put(PATH, name, some, **more)

def tcp():
    sock = socket.create_server(("127.0.0.1", 0))
    return sock.detach()

def systemctl(*words):
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True)
    return done.stdout.strip()

def main_pid():
    return int(systemctl("show", "--value", "--property=MainPID", SERVICE))

def kill(pid=0):
    pid = pid or main_pid()
    assert pid
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], 20)[0]
    os.close(pidfd)
    return pid

def held():
    keys = ("set", "name", "kind", "address", "device", "inode", "cookie")
    return [[*(getattr(one.entry, key) for key in keys), one.since] for one in sockact.holdings(PATH)]

def fd_of(name):
    return got.filenos()[got.names.index(name)]

def set_names():
    return [one.entry.set for one in sockact.holdings(PATH)]

def generation():
    return sockact.holdings(PATH)[0].generation

class Probe:
    '''Connects to the path again and again; whoever finds nobody there is noted.'''
    def __init__(self):
        self.failures, self.count, self.ended = [], 0, threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
    def run(self):
        while not self.ended.wait(0.01):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                try:
                    sock.connect(PATH)
                    self.count += 1
                except OSError as error:
                    self.failures.append(str(error))
    def end(self):
        self.ended.set()
        self.thread.join()
        return [self.failures, self.count > 10]
"""


def _drop_in(log: str, command: str) -> str:
    return (
        "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=\n"
        f"ExecStart={sys.executable} -m sockact hold {command}\n"
        f"WorkingDirectory={ROOT}\nStandardOutput=append:{log}\nStandardError=append:{log}\n"
    )


def _install(units: Path, name: str, *changes: tuple[str, str], more: str = "") -> None:
    """Make a service of the sample; each has a name, a directory, and a path of its own."""
    text = SAMPLE.read_text(encoding="utf-8").replace("=sockact\n", f"={name}\n")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (units / f"{name}.service").write_text(text, encoding="utf-8")
    place = units / f"{name}.service.d"
    place.mkdir()
    command = f"/run/{name}/hold.sock{more}"
    (place / "test.conf").write_text(_drop_in(f"/run/out/{name}", command), encoding="ascii")


@pytest.fixture(scope="module", name="machine")
def _machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    """Boot systemd with the sample and some variants of it."""
    if reason := missing_systemd():
        pytest.skip(reason)
    units = tmp_path_factory.mktemp("systemd") / "units"
    units.mkdir()
    (units / "test.target").write_text("[Unit]\nDefaultDependencies=no\n", encoding="ascii")
    _install(units, "hold")
    small = "FileDescriptorStoreMax=4096"
    _install(units, "small2", (small, "FileDescriptorStoreMax=2"))
    _install(units, "small6", (small, "FileDescriptorStoreMax=6"))
    _install(units, "none", (small, ""))
    told = "FileDescriptorStoreMax=6\nEnvironment=FDSTORE=6"  # as systemd does since 254
    _install(units, "told", (small, told))
    _install(units, "taking", more=" --takeover")
    _install(units, "moved")
    _install(units, "passed", more=" --allow-user 12345")
    (units / "passed.socket").write_text(
        "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=127.0.0.1:8081\n"
        "ListenStream=/run/passed.sock\nFileDescriptorName=web\n",
        encoding="ascii",
    )
    with Systemd(units) as machine:
        machine.run("ip", "link", "set", "lo", "up")
        yield machine


class Service:
    """A service in the machine, and an actor beside it."""

    def __init__(self, machine: Systemd, name: str) -> None:
        self.machine = machine
        self.name = name
        self.unit = f"{name}.service"
        self.path = f"/run/{name}/hold.sock"
        self.actor = Inside(machine.command())
        self.do, self.ask = self.actor.do, self.actor.ask

    def begin(self) -> None:
        """Start it."""
        self.do(_PRELUDE)
        self.do(f"PATH, SERVICE = {self.path!r}, {self.unit!r}")
        self.machine.path(f"/run/out/{self.name}").unlink(missing_ok=True)
        self.systemctl("start", self.unit)

    def systemctl(self, *words: str) -> str:
        """Run systemctl, which must succeed."""
        done = self.machine.run("systemctl", *words)
        assert done.returncode == 0, f"{done.stderr}\n{self.said()}"
        return done.stdout.strip()

    def show(self, what: str) -> str:
        """Return a property of the service."""
        return self.systemctl("show", "--value", f"--property={what}", self.unit)

    def stored(self) -> int:
        """Return how many descriptors are in the fd store."""
        return int(self.show("NFileDescriptorStore"))

    def said(self) -> str:
        """Return what the service has said."""
        log = self.machine.path(f"/run/out/{self.name}")
        return log.read_text(encoding="utf-8") if log.exists() else ""


@contextlib.contextmanager
def started(machine: Systemd, name: str) -> Iterator[Service]:
    """Start a service, and stop it at the end."""
    service = Service(machine, name)
    try:
        service.begin()
        yield service
    finally:
        machine.run("systemctl", "stop", service.unit)
        service.actor.close()


@pytest.fixture(name="service")
def _service(machine: Systemd) -> Iterator[Service]:
    """Start the sample."""
    with started(machine, "hold") as service:
        yield service


EVERYTHING = """
web = tcp()
client = socket.create_connection(socket.socket(fileno=os.dup(web)).getsockname())
far, near = socket.socketpair()
for path in ("/run/fifo", "/run/unix"):
    if os.path.exists(path):
        os.unlink(path)
os.mkfifo("/run/fifo")
fifo = os.open("/run/fifo", os.O_RDWR)
os.write(fifo, b"in the fifo")
reader, writer = os.pipe()
unix = socket.socket(socket.AF_UNIX)
unix.bind("/run/unix")
unix.listen()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))
many = [socket.socket() for _ in range(300)]
put("web", ("http", web), ("again", web))
put("mixed", ("unix", unix.fileno()), ("udp", udp.fileno()), ("fifo", fifo), users=[12345])
put("connection", ("connection", near.fileno()))
gone, hung = socket.socketpair()
gone.sendall(b"last words")
gone.close()
put("hung", ("hung", hung.fileno()))
put("pipe", ("w", writer), ("r", reader))
put("many", *((f"m{i}", sock.fileno()) for i, sock in enumerate(many)))
put("shared", ("http", web))
for sock in (unix, udp, near, hung, *many):
    sock.close()
for fd in (web, fifo, reader, writer):
    os.close(fd)
before = held()
"""

AS_ANOTHER = """
def as_another(name):
    os.seteuid(12345)
    try:
        with sockact.take(PATH, name) as got:
            return len(got)
    except sockact.errors.RefusedError as error:
        return error.reason
    finally:
        os.seteuid(0)
"""


def test_a_killed_holder_finds_everything_again(service: Service) -> None:
    """Sets, their order, rules and times, what waits in queues; and the path never refuses."""
    service.do(EVERYTHING + AS_ANOTHER)
    # A description counts once: web is stored once for three entries.
    descriptions = 1 + 3 + 1 + 1 + 2 + 300
    assert service.stored() == OWN + descriptions
    service.do("probe = Probe()")
    for number in range(2, 5):
        service.do("old = kill()")
        assert service.ask("generation()") == number, service.said()
        assert service.ask("main_pid() != old") is True
        assert service.ask("held() == before") is True, service.said()
        service.do(f"socket.create_connection(client.getpeername()).sendall(b'dead {number}')")
        assert service.stored() == OWN + descriptions
    assert service.ask("probe.end()") == [[], True]
    assert service.ask("[as_another('mixed'), as_another('web')]") == [3, "unknown-name"]
    service.do("got = sockact.take(PATH, 'web')")
    service.do("listener = socket.socket(fileno=os.dup(fd_of('http')))")
    # The first is from before all kills.
    service.do("listener.settimeout(20); waiting = [listener.accept()[0] for _ in range(4)]")
    assert service.ask("waiting[0].getpeername() == client.getsockname()") is True
    assert service.ask("waiting[3].recv(100).decode()") == "dead 4"
    service.do("got.extend(sockact.take(PATH, 'hung'))")
    assert service.ask("os.read(fd_of('hung'), 100).decode()") == "last words"
    service.do("far.sendall(b'still'); got.extend(sockact.take(PATH, 'connection'))")
    assert service.ask("os.read(fd_of('connection'), 100).decode()") == "still"
    service.do("got.extend(sockact.take(PATH, 'mixed')); got.extend(sockact.take(PATH, 'pipe'))")
    assert service.ask("os.read(fd_of('fifo'), 100).decode()") == "in the fifo"
    service.do("os.write(fd_of('w'), b'through')")
    assert service.ask("os.read(fd_of('r'), 100).decode()") == "through"
    assert "warning" not in service.said()


PUTTING = """
acked, dropped, unsure, ended = {}, set(), set(), threading.Event()

def putting():
    for number in range(1 << 30):
        if ended.is_set():
            return
        name = f"s{number}"
        # So many that a kill mostly comes while they are on their way to systemd.
        fds = [os.eventfd(0), *(socket.socket().detach() for _ in range(39))]
        try:
            put(name, *((f"n{fd}", fd) for fd in fds))
            acked[name] = [socket_cookie(fd) or 0 for fd in fds]
        except sockact.errors.RendezvousError:
            unsure.add(name)
        for fd in fds:
            os.close(fd)
        old = f"s{number - 5}"
        if old in acked:
            del acked[old]
            try:
                sockact.drop(PATH, old)
                dropped.add(old)
            except sockact.errors.RendezvousError:
                unsure.add(old)

def check():
    found = {}
    for one in sockact.holdings(PATH):
        found.setdefault(one.entry.set, []).append(one.entry.cookie)
    assert all(len(cookies) == 40 for cookies in found.values()), found
    assert not dropped & found.keys(), dropped & found.keys()
    wrong = {name: (cookies, found.get(name)) for name, cookies in acked.items() if found.get(name) != cookies}
    assert not wrong, wrong
    assert set(found) <= set(acked) | unsure, found
    return len(found)
"""


def test_what_was_acknowledged_is_there_whenever_it_is_killed(service: Service) -> None:
    """Killed in the middle of puts and drops: each is there as a whole or not at all."""
    service.do(PUTTING)
    done = 0
    for _ in range(4):
        service.do("ended.clear(); worker = threading.Thread(target=putting); worker.start()")
        for _ in range(5):
            service.do("time.sleep(random.uniform(0, 0.02)); kill(); sockact.holdings(PATH)")
        service.do("ended.set(); worker.join()")
        left = service.ask("check()")
        assert isinstance(left, int)
        done += left
        # The names begin anew.
        service.do(
            "sockact.drop(PATH, *set(set_names())); acked, dropped, unsure = {}, set(), set()"
        )
    assert done
    assert service.stored() == OWN
    assert "warning" not in service.said()


def test_a_drop_and_a_replacement_last(service: Service) -> None:
    """What was dropped is closed, in systemd too; what another set needs is not."""
    service.do(
        "old, new = tcp(), tcp(); address = socket.socket(fileno=os.dup(old)).getsockname()\n"
        "put('a', ('old', old), ('new', new))\n"
        "put('b', ('new', new))\n"
        "put('c', ('old', old))\n"
        "more = sockact.listen('more=udp:127.0.0.1:0')\n"
    )
    assert service.stored() == OWN + 2
    service.do("kill(); other = more['more'].fileno()")
    service.do("put('a', ('new', new), ('more', other), replace=True)")
    assert service.stored() == OWN + 3
    service.do("kill()")
    assert service.ask("[[h[0], h[1]] for h in held()]") == [
        ["a", "new"], ["a", "more"], ["b", "new"], ["c", "old"]
    ]  # fmt: skip
    service.do("sockact.drop(PATH, 'c'); os.close(old)")
    assert service.stored() == OWN + 2
    service.do("socket.create_server(address).close()")  # nobody has it open
    service.do("kill(); sockact.drop(PATH, 'a'); kill()")
    assert service.ask("[[h[0], h[1]] for h in held()]") == [["b", "new"]]
    assert service.ask("held()[0][6] == socket_cookie(new)") is True
    service.do("put('d', ('d', tcp())); sockact.drop(PATH, 'd')")
    service.do("kill()")
    assert service.ask("[[h[0], h[1]] for h in held()]") == [["b", "new"]]
    assert service.stored() == OWN + 1


def test_a_restart_loses_nothing_and_a_stop_everything(service: Service) -> None:
    """The path stays over a restart; after a stop, a start makes it anew."""
    service.do("put('a', ('a', tcp()), ('b', tcp())); before = held()")
    service.do("probe = Probe()")
    for _ in range(2):
        service.systemctl("restart", service.unit)
        assert service.ask("held() == before") is True
    assert service.ask("probe.end()") == [[], True]
    assert service.ask("generation()") == 3
    service.systemctl("stop", service.unit)
    with pytest.raises(ActorError, match="nobody listens there"):
        service.do("sockact.holdings(PATH)")
    service.systemctl("start", service.unit)
    assert service.ask("held()") == []
    service.do("put('a', ('a', tcp()))")
    assert service.ask("generation()") == 1


def test_a_path_that_was_removed_is_made_again(service: Service) -> None:
    """Somebody cleans up the directory while the holder is dead: the sets come back even so."""
    service.do("put('a', ('a', tcp())); before = held()")
    service.do("os.unlink(PATH); kill()")
    until(lambda: service.machine.path(service.path).exists(), "the path is back")
    assert service.ask("held() == before") is True
    assert service.stored() == OWN + 1
    assert "hold.sock: was removed, and is made again" in service.said()


def test_sockets_that_are_passed_become_sets(machine: Systemd) -> None:
    """Those of a socket unit are one set by their name, with the rule of the command line."""
    machine.run("systemctl", "start", "passed.socket")
    with started(machine, "passed") as service:
        # What a client puts in their place counts, though systemd passes them at each start.
        service.do(AS_ANOTHER + "before = held()")
        assert [row[:4] for row in service.ask("before")] == [  # type: ignore[attr-defined]
            ["web", "web", "Stream", "127.0.0.1:8081"],
            ["web", "web", "Stream", "/run/passed.sock"],
        ]
        service.do("kill()")
        assert service.ask("held() == before") is True
        assert service.ask("as_another('web')") == 2
        service.do("got = sockact.take(PATH)")
        assert service.ask("[os.get_blocking(one.fileno()) for one in got]") == [False, False]
        service.do("put('web', ('x', tcp()), replace=True); kill()")
        assert service.ask("[h[1] for h in held()]") == ["x"]
        service.do("sockact.drop(PATH, 'web'); kill()")
        assert service.ask("held() == before or [h[:7] for h in held()]") == [
            row[:7]
            for row in service.ask("before")  # type: ignore[attr-defined]
        ]
        machine.run("systemctl", "stop", "passed.socket")


PUT_THREE = """
for name in ("one", "two", "three"):
    put(name, (name, tcp()))
"""


def test_what_a_small_store_has_not_kept_is_named(machine: Systemd) -> None:
    """A systemd older than 254 does not tell; the next start does, and keeps what there is."""
    with started(machine, "small6") as service:
        if "three" not in _try_three(service):
            return
        service.do("kill()")
        assert service.ask("set_names()") == ["one", "two"]
        assert "warning: three: three is lost; the fd store has not kept it" in service.said()
        service.do("kill()")
        assert service.ask("set_names()") == ["one", "two"]
        assert service.said().count("is lost") == 1
        # There is room again, but only if what is dropped leaves the store.
        service.do("sockact.drop(PATH, 'one'); put('four', ('f', tcp()))")
        service.do("kill()")
        assert service.ask("set_names()") == ["two", "four"]


def _try_three(service: Service) -> list[str]:
    try:
        service.do(PUT_THREE)
    except ActorError as error:  # systemd 254
        assert "FileDescriptorStoreMax=" in str(error)
    found = service.ask("set_names()")
    assert isinstance(found, list)
    return found


def test_what_does_not_fit_into_the_store_is_refused(machine: Systemd) -> None:
    """Where systemd tells how much it takes, no more is promised."""
    with started(machine, "told") as service:
        with pytest.raises(ActorError, match=r"the fd store takes 6 \(FileDescriptorStoreMax=\)"):
            service.do(PUT_THREE)
        assert service.ask("set_names()") == ["one", "two"]
        service.do("kill()")
        assert service.ask("set_names()") == ["one", "two"]
        with pytest.raises(ActorError, match="the fd store takes 6"):
            service.do("put('two', ('two', tcp()), ('more', tcp()), replace=True)")
        service.do("kill(); sockact.drop(PATH, 'one'); put('three', ('three', tcp())); kill()")
        assert service.ask("set_names()") == ["two", "three"]
        assert "warning" not in service.said()


def test_a_store_that_is_too_small_for_the_holder_itself(machine: Systemd) -> None:
    """Not even the listener and the lock fit: it says so, and begins anew at the same path."""
    with started(machine, "small2") as service:
        service.do(PUT_THREE)
        service.do("kill()")
        until(lambda: service.said().count("generation") == 2, "it is back")
        assert service.ask("set_names()") == []
        for name in ("one", "two", "three"):
            assert f"warning: {name}: {name} is lost" in service.said()
        assert "is made again; the fd store has not kept its listener" in service.said()
        service.do(PUT_THREE)
        assert service.ask("set_names()") == ["one", "two", "three"]


def test_without_a_store_a_start_begins_anew(machine: Systemd) -> None:
    """There is nothing that could be told; but nothing is in the way either."""
    with started(machine, "none") as service:
        service.do(PUT_THREE)
        service.do("kill()")
        until(lambda: service.said().count("generation") == 2, "it is back")
        assert service.ask("set_names()") == []


def test_a_holder_outside_takes_over(service: Service) -> None:
    """The service ends, is not started again, and keeps nothing; nobody is refused meanwhile."""
    service.do(EVERYTHING + "probe = Probe()")
    outside = [sys.executable, "-m", "sockact", "hold", service.path, "--takeover"]
    service.do(f"new = subprocess.Popen({outside!r}, stderr=subprocess.PIPE, text=True)")
    until(lambda: service.show("ActiveState") == "inactive", "the service has ended")
    assert service.show("Result") == "success"
    assert service.stored() == 0
    assert service.ask("held() == before") is True
    assert service.ask("generation()") == 2
    service.do("sockact.drop(PATH, 'many')")
    assert service.ask("probe.end()") == [[], True]
    # While that one lives, the service has nothing to do here.
    assert service.machine.run("systemctl", "start", service.unit).returncode
    assert "has an owner" in service.said()
    service.systemctl("stop", service.unit)
    service.do("new.terminate(); said = new.communicate()[1]")
    service.systemctl("start", service.unit)
    assert service.ask("held()") == []


def test_a_holder_killed_during_a_takeover_leaves_it_to_the_taker(service: Service) -> None:
    """The taker has everything: the next start does not answer beside it."""
    service.do("put('a', ('a', tcp())); before = held()")
    service.do("taken = sockact.takeover(PATH)")
    until(lambda: service.stored() == OWN + 2, "the taker is in the fd store")
    service.do("kill()")
    until(lambda: "a takeover was under way" in service.said(), "the next start has seen it")
    service.do("taken.ready()")
    assert service.ask("taken.generation") == 2
    assert service.ask("[h[:7] for h in held()] == [h[:7] for h in before]") is True
    assert service.ask("generation()") == 2
    until(lambda: service.stored() == 0, "nothing is in the fd store")
    service.systemctl("stop", service.unit)
    service.do("taken.close()")


def test_a_restart_during_a_takeover_breaks_it_off(service: Service) -> None:
    """The taker is told, and lives on; the holder has everything."""
    service.do("put('a', ('a', tcp())); before = held()")
    service.do("taken = sockact.takeover(PATH)")
    until(lambda: service.stored() == OWN + 2, "the taker is in the fd store")
    service.systemctl("restart", service.unit)
    assert service.ask("held() == before") is True
    assert service.stored() == OWN + 1
    assert "a takeover was under way" not in service.said()
    with pytest.raises(ActorError, match="TakeoverAbortedError"):
        service.do("taken.ready()")


KILL_WHILE_IT_TAKES_OVER = """
start = subprocess.Popen(["systemctl", "start", SERVICE], stderr=subprocess.DEVNULL)
for number in range(8):
    while not (pid := main_pid()):
        pass
    while len(os.listdir(f"/proc/{pid}/fd")) < 300:
        pass
    # It has everything; now it stores that, and gets ready.
    time.sleep(0.005 * number)
    kill(pid)
    assert held() == before
    if old.poll() is not None:
        break
start.wait(20)
"""


def test_the_service_takes_over_from_outside(machine: Systemd) -> None:
    """Whenever it is killed on its way, either has everything, and in the end it does."""
    service = Service(machine, "taking")
    try:
        service.do(_PRELUDE)
        service.do(f"PATH, SERVICE = {service.path!r}, {service.unit!r}")
        service.do("os.makedirs('/run/taking', mode=0o755)")
        outside = [sys.executable, "-m", "sockact", "hold", service.path]
        service.do(f"old = subprocess.Popen({outside!r})")
        until(lambda: machine.path(service.path).exists(), "the holder is there")
        # So many that the way is long.
        service.do("many = [(f'n{i}', socket.socket().detach()) for i in range(400)]")
        service.do("put('a', *many, users=[12345]); before = held()")
        service.do(KILL_WHILE_IT_TAKES_OVER)
        assert service.ask("held() == before") is True
        assert service.ask("old.wait(20)") == 0
        service.do(AS_ANOTHER + "kill()")
        assert service.ask("[held() == before, as_another('a')]") == [True, 400]
        assert service.stored() == OWN + 400
    finally:
        machine.run("systemctl", "stop", service.unit)
        service.actor.close()


def test_another_path_has_the_same_sets(machine: Systemd) -> None:
    """The unit is changed and restarted: what was held is at the new path, the old one is gone."""
    with started(machine, "moved") as service:
        service.do("put('a', ('a', tcp())); before = held()")
        units = machine.run("systemctl", "show", "--value", "--property=DropInPaths", service.unit)
        drop_in = Path(units.stdout.strip())
        text = drop_in.read_text(encoding="ascii")
        drop_in.write_text(text.replace("/hold.sock", "/new.sock"), encoding="ascii")
        service.systemctl("daemon-reload")
        service.systemctl("restart", service.unit)
        assert service.ask("sorted(os.listdir('/run/moved'))") == ["new.sock", "new.sock.lock"]
        service.do("PATH = '/run/moved/new.sock'")
        assert service.ask("held() == before") is True
        service.do("kill()")
        assert service.ask("held() == before") is True
        assert service.stored() == OWN + 1


def test_a_takeover_that_comes_to_nothing_leaves_no_trace(service: Service) -> None:
    """The taker gives up, or dies with the holder: the holder goes on."""
    service.do("put('a', ('a', tcp())); before = held()")
    service.do("taken = sockact.takeover(PATH)")
    until(lambda: service.stored() == OWN + 2, "the taker is in the fd store")
    service.do("taken.close()")
    until(lambda: service.stored() == OWN + 1, "the taker has left the fd store")
    service.do(
        "child = subprocess.Popen([sys.executable, '-c', f'import sockact, time\\n"
        "t = sockact.takeover({PATH!r})\\ntime.sleep(1000)'])"
    )
    until(lambda: service.stored() == OWN + 2, "the taker is in the fd store")
    service.do(
        "pid = main_pid(); os.kill(pid, signal.SIGSTOP)\n"
        "child.kill(); child.wait()\n"
        "os.kill(pid, signal.SIGKILL)"
    )
    assert service.ask("held() == before") is True
    assert service.stored() == OWN + 1
