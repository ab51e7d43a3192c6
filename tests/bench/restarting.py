"""Those whose restarts `tests.bench.restart` compares, each as its manual says.

All of them answer with the application of `tests.servers.apps`. A restart is over when the new
generation can answer and no process of the old one is left.
"""

import abc
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.conformance.namespaces import Systemd, missing_systemd
from tests.faults.nursery import wait_for
from tests.faults.supervised import missing
from tests.helpers import SECONDS, clean_environ, get
from tests.processes import adopt_orphans, children, descendants, end_all, living, state
from tests.servers import apps


class Peer(abc.ABC):
    """One way to restart a server, from `start` until `stop`.

    Attributes:
        server: What answers: only those with the same server are compared.
        ours: Whether it is ours.
        programs: What must be installed.
        prefix: What runs a client that is to reach it.
    """

    server = "gunicorn"
    ours = False
    programs: tuple[str, ...] = ()
    prefix: Sequence[str] = ()

    def __init__(self, directory: Path, port: int) -> None:
        """Be about to serve at a port; the directory is empty, and its own."""
        self.directory = directory
        self.port = port
        self.log = directory / "log"

    def missing(self) -> str:
        """Return why it cannot run here, or an empty string."""
        return self._missing()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._start()

    def restart(self) -> None:
        """Restart it, and wait until that is over."""
        self._restart()

    def stop(self) -> None:
        """End all processes of it."""
        self._stop()

    def _missing(self) -> str:
        absent = [program for program in self.programs if not shutil.which(program)]
        return f"{', '.join(absent)} not installed" if absent else ""

    @abc.abstractmethod
    def _start(self) -> None: ...

    @abc.abstractmethod
    def _restart(self) -> None: ...

    def _stop(self) -> None:
        end_all()

    # What they share.

    def spawn(self, command: list[str]) -> int:
        """Start a command; return its process id."""
        # Not a Popen: what is left is killed and reaped as a whole.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self.log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        return os.posix_spawnp(
            command[0], command, clean_environ(), file_actions=actions, setsid=True
        )

    def run(self, command: Sequence[str]) -> None:
        """Run a command to its end.

        Raises:
            RuntimeError: It fails.
        """
        done = subprocess.run(
            command, env=clean_environ(), capture_output=True, text=True, timeout=SECONDS * 3,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr.strip()}")

    def wait_answer(self) -> None:
        """Wait until a request is answered."""

        def answered() -> bool:
            with contextlib.suppress(OSError):
                return get((apps.HOST, self.port), "/?n=x")[0] == 200
            return False

        wait_for(answered, lambda: f"an answer; it said: {self.said()}")

    def said(self) -> str:
        """Return the end of what it wrote."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def wait_gone(self, pids: set[int]) -> None:
        """Wait until processes have ended."""
        wait_for(lambda: not living(pids), lambda: f"{living(pids)} end; {self.said()}")

    def booted(self, pids: set[int]) -> bool:
        """Return whether these are all the workers of the Python application, and can answer."""
        return len(pids) == apps.WORKERS and all(
            (self.directory / f"booted-{pid}").exists() for pid in pids
        )

    def wait_booted(self, master: int, without: set[int]) -> None:
        """Wait until a gunicorn has all its workers, other than those it had."""
        wait_for(
            lambda: self.booted(children(master) - without),
            lambda: f"new workers of {master}; it said: {self.said()}",
        )

    def replaced(self, parent: int, old: int) -> int:
        """Wait until a parent has a gunicorn that can answer in the place of an old one.

        Returns:
            The new one's process id.
        """
        gone = {old, *descendants(old)}

        def new() -> int:
            found = (x for x in children(parent) - gone if self.booted(children(x)))
            return next(found, 0)

        wait_for(lambda: bool(new()), lambda: f"a new one below {parent}; it said: {self.said()}")
        self.wait_gone(gone)
        return new()


# --- gunicorn -------------------------------------------------------------------------------------


class GunicornHup(Peer):
    """SIGHUP: the master starts new workers, and ends the old ones."""

    def _start(self) -> None:
        command = apps.gunicorn_command(self.directory, f"--bind={apps.HOST}:{self.port}")
        self.master = self.spawn(command)
        self.wait_booted(self.master, set())

    def _restart(self) -> None:
        old = children(self.master)
        os.kill(self.master, signal.SIGHUP)
        self.wait_booted(self.master, old)
        self.wait_gone(old)


class GunicornUsr2(GunicornHup):
    """SIGUSR2 starts a second master on the same socket; when it can answer, the first is ended."""

    def _restart(self) -> None:
        old, workers = self.master, children(self.master)
        os.kill(old, signal.SIGUSR2)
        wait_for(lambda: bool(children(old) - workers), lambda: f"a master; {self.said()}")
        (new,) = children(old) - workers
        self.wait_booted(new, set())
        os.kill(old, signal.SIGTERM)
        self.wait_gone({old, *workers})
        self.master = new


class ServerStarter(Peer):
    """Server::Starter: SIGHUP starts a new gunicorn, and ends the old one a second later."""

    programs = ("start_server",)

    def _start(self) -> None:
        words = apps.gunicorn_command(self.directory, "--bind=fd://${SERVER_STARTER_PORT##*=}")
        shell = ["sh", "-c", f"exec {' '.join(words)}"]
        self.starter = self.spawn(
            ["start_server", f"--port={apps.HOST}:{self.port}", "--", *shell]
        )  # fmt: skip
        self.wait_answer()

    def _restart(self) -> None:
        (old,) = children(self.starter)
        os.kill(self.starter, signal.SIGHUP)
        self.replaced(self.starter, old)


class CircusReload(Peer):
    """Circus holds the socket; ``reload`` starts another gunicorn, and ends the surplus one."""

    programs = ("circusd", "circusctl")
    command = "reload"

    def _start(self) -> None:
        words = apps.gunicorn_command(self.directory, "--bind=fd://$(circus.sockets.web)")
        config, ctl = self.directory / "circus.ini", self.directory / "ctl"
        config.write_text(
            f"[circus]\nendpoint = ipc://{ctl}\npubsub_endpoint = ipc://{ctl}.pub\n"
            f"[watcher:web]\ncmd = {' '.join(words)}\nuse_sockets = True\ncopy_env = True\n"
            f"numprocesses = 1\n[socket:web]\nhost = {apps.HOST}\nport = {self.port}\n",
            encoding="utf-8",
        )
        self.endpoint = f"ipc://{ctl}"
        self.circusd = self.spawn(["circusd", str(config)])
        self.wait_answer()

    def _restart(self) -> None:
        (old,) = children(self.circusd)
        self.run(["circusctl", "--endpoint", self.endpoint, "--timeout", "60", self.command,
                  "--waiting", "web"])  # fmt: skip
        self.replaced(self.circusd, old)


class CircusRestart(CircusReload):
    """Circus holds the socket while gunicorn is stopped and started again."""

    command = "restart"


class SystemdRestart(Peer):
    """``systemctl restart`` of a service whose socket systemd holds; in a machine of its own."""

    programs = ("systemctl",)

    def _missing(self) -> str:
        return super()._missing() or missing_systemd()

    def _start(self) -> None:
        app = apps.gunicorn(self.directory, self.port)
        apps.write_units(self.directory, app, self.port, systemd=True)
        target = "[Unit]\nDefaultDependencies=no\nRequires=web.socket\nAfter=web.socket\n"
        (self.directory / "test.target").write_text(target, encoding="utf-8")
        self.machine = Systemd(self.directory)
        self.prefix = ["nsenter", f"--net=/proc/{self.machine.pid}/ns/net"]
        wait_for(
            lambda: self.machine.run("systemctl", "start", "web.service").returncode == 0,
            lambda: self.machine.run("systemctl", "status", "web.service").stdout,
        )

    def _restart(self) -> None:
        done = self.machine.run("systemctl", "restart", "web.service")
        if done.returncode:
            raise RuntimeError(f"systemctl restart: {done.stderr.strip()}")

    def _stop(self) -> None:
        if hasattr(self, "machine"):
            self.machine.close()
        super()._stop()


# --- nginx and HAProxy ----------------------------------------------------------------------------


class NginxReload(Peer):
    """SIGHUP: the master starts new workers, and ends the old ones."""

    server = "nginx"
    programs = ("nginx",)

    def _start(self) -> None:
        self.spawn(apps.nginx_command(self.directory, self.port, daemon=True))
        self.wait_answer()
        self.master = self.pid_of(self.directory / "nginx.pid")

    def pid_of(self, file: Path) -> int:
        """Return the process id in a file, or 0."""
        with contextlib.suppress(OSError, ValueError):
            return int(file.read_text(encoding="ascii"))
        return 0

    def _restart(self) -> None:
        old = children(self.master)
        os.kill(self.master, signal.SIGHUP)
        wait_for(
            lambda: len(living(children(self.master) - old)) == apps.WORKERS, "nginx has new workers"
        )  # fmt: skip
        self.wait_gone(old)


class NginxUsr2(NginxReload):
    """SIGUSR2 starts a second master on the same socket; when it has workers, the first is ended."""

    def _restart(self) -> None:
        old, workers = self.master, children(self.master)
        os.kill(old, signal.SIGUSR2)
        file = self.directory / "nginx.pid"
        wait_for(
            lambda: (
                self.pid_of(file) not in (0, old)
                and len(children(self.pid_of(file))) == apps.WORKERS
            ),
            "nginx has a new master with workers",
        )
        self.master = self.pid_of(file)
        os.kill(old, signal.SIGQUIT)
        self.wait_gone({old, *workers})


class HaproxyReload(Peer):
    """SIGUSR2: the master starts a new worker, which gets the listeners; the old one is ended."""

    server = "haproxy"
    programs = ("haproxy",)

    def _start(self) -> None:
        self.master = self.spawn(
            apps.haproxy_command(self.directory, f"{apps.HOST}:{self.port}")
        )  # fmt: skip
        self.wait_answer()

    def _restart(self) -> None:
        old = children(self.master)
        os.kill(self.master, signal.SIGUSR2)
        wait_for(lambda: bool(living(children(self.master) - old)), "HAProxy has a new worker")
        self.wait_gone(old)


# --- ours -----------------------------------------------------------------------------------------


class _Ours(Peer):
    ours = True

    def _missing(self) -> str:
        return super()._missing() or missing()

    def command(self) -> list[str]:
        """Return the command of a supervisor."""
        return [_launcher(), "run", f"--rendezvous={self.path}", *self.what()]

    def what(self) -> list[str]:
        """Return what it is to run."""
        app = apps.APPS[self.server](self.directory, self.port)
        if self.server == "gunicorn":
            listen = f"web=tcp:{apps.HOST}:{self.port}"
            return [f"--listen={listen}", f"--ready={app.ready}", "--", *app.command]
        return [str(apps.write_units(self.directory, app, self.port))]

    @property
    def path(self) -> Path:
        """The rendezvous."""
        return self.directory / "rdv"

    def _start(self) -> None:
        self.supervisor = self.spawn(self.command())
        self.wait_answer()

    def left(self) -> set[int]:
        """Return all processes of the generation that is there now."""
        return descendants(self.supervisor)


class SockactReplace(_Ours):
    """``sockact replace`` to one ``sockact run``."""

    def _restart(self) -> None:
        old = self.left()
        self.run([_launcher(), "replace", str(self.path)])
        self.wait_gone(old)


class SockactHup(SockactReplace):
    """SIGHUP to one ``sockact run``: no command has to be started, as with those below."""

    def _restart(self) -> None:
        old = self.left()
        os.kill(self.supervisor, signal.SIGHUP)
        self.wait_gone(old)


class SockactSuccessor(_Ours):
    """A second ``sockact run`` of the same rendezvous takes the place of the first."""

    def _restart(self) -> None:
        old = {self.supervisor, *self.left()}
        successor = self.spawn(self.command())
        self.wait_gone(old)
        if state(successor) in ("", "Z"):
            raise RuntimeError(f"the successor has ended: {self.said()}")
        self.supervisor = successor


class SockactReplaceNginx(SockactReplace):
    """``sockact replace`` with nginx."""

    server = "nginx"
    programs = ("nginx",)


class SockactSuccessorNginx(SockactSuccessor):
    """A second ``sockact run`` with nginx."""

    server = "nginx"
    programs = ("nginx",)


class SockactReplaceHaproxy(SockactReplace):
    """``sockact replace`` with HAProxy."""

    server = "haproxy"
    programs = ("haproxy",)


class SockactHupNginx(SockactHup):
    """SIGHUP with nginx."""

    server = "nginx"
    programs = ("nginx",)


class SockactHupHaproxy(SockactHup):
    """SIGHUP with HAProxy."""

    server = "haproxy"
    programs = ("haproxy",)


def _launcher() -> str:
    return str(Path(sys.executable).with_name("sockact"))


PEERS: dict[str, type[Peer]] = {
    "sockact replace": SockactReplace,
    "sockact HUP": SockactHup,
    "sockact run --rendezvous": SockactSuccessor,
    "gunicorn HUP": GunicornHup,
    "gunicorn USR2": GunicornUsr2,
    "Server::Starter": ServerStarter,
    "circus reload": CircusReload,
    "circus restart": CircusRestart,
    "systemd restart": SystemdRestart,
    "sockact replace + nginx": SockactReplaceNginx,
    "sockact HUP + nginx": SockactHupNginx,
    "sockact run --rendezvous + nginx": SockactSuccessorNginx,
    "nginx reload": NginxReload,
    "nginx USR2": NginxUsr2,
    "sockact replace + HAProxy": SockactReplaceHaproxy,
    "sockact HUP + HAProxy": SockactHupHaproxy,
    "HAProxy reload": HaproxyReload,
}


@contextlib.contextmanager
def running(name: str, directory: Path, port: int) -> Iterator[Peer]:
    """Run one of them until the end of the block.

    This process becomes the parent of all that they leave behind, and must have no other children.
    """
    adopt_orphans()
    peer = PEERS[name](directory, port)
    try:
        peer.start()
        yield peer
    finally:
        peer.stop()
