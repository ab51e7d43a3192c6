"""The life cycle of socket units, on one side: ``python lifecycle.py real|ours WORK [CASE...]``.

Each case of `CASES` is a few units and a script, which starts and stops them, is a client of theirs,
and notes what it sees. Run inside a machine of `tests.conformance.namespaces`, with systemd as
process 1 or without; WORK is a directory that `install` has filled. Prints a JSON object: case to
notes.

Sources of the cases: systemd's test/units/TEST-07-PID1.*, TEST-03-JOBS and TEST-04-JOURNAL, and
what its ``src/core/socket.c`` does.
"""

import concurrent.futures
import contextlib
import functools
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

PLAYER = Path(__file__).with_name("player.py")
SECONDS = 15.0
"""How long anything may take."""
_AT_ONCE = 6
CALM = 0.7
"""How long nothing more may happen, where that nothing more happens is what is noted."""

# A supervisor has nothing to do any more when all of its units have failed: with this one, it has.
_KEEPER = {
    "keeper.socket": "[Socket]\nListenStream=@keeper-of-CASE\n",
    "keeper.service": "[Service]\nExecStart=/bin/false\n",
}
_ALONE = "[Unit]\nDefaultDependencies=no\n"


class Side:
    """One of the two supervisors, and what a script asks of it."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.notes: dict[str, object] = {}
        self.case = ""
        self._stack = contextlib.ExitStack()

    # --- what each side does in its way -----------------------------------------------------------

    def begin(self) -> None:
        """Start the socket units of the case, but for templates."""
        raise NotImplementedError

    def end(self) -> None:
        """Stop everything."""
        raise NotImplementedError

    def command(self, command: str, unit: str) -> bool:
        """Start or stop a unit, and wait until that is done; return whether it was."""
        raise NotImplementedError

    def unit(self, name: str) -> dict[str, Any]:
        """Return state, result, accepted, refused and connections of a socket unit."""
        raise NotImplementedError

    def service(self, name: str) -> dict[str, Any]:
        """Return state, result, restarts of a service, and how many descriptors are stored."""
        raise NotImplementedError

    # --- what scripts are written with ------------------------------------------------------------

    def run(self, name: str, case: "Case") -> dict[str, object]:
        """Run a case, and return what was noted."""
        self.case, self.notes = name, {}
        try:
            self.begin()
            case.script(self)
        except Exception as error:  # noqa: BLE001 - one case must not end the others
            self.notes["error"] = repr(error)
        finally:
            self._stack.close()
            self.end()
        return self.notes

    @property
    def directory(self) -> Path:
        """Where the units of the case are."""
        return self.work / self.case

    def names(self, suffix: str) -> list[str]:
        """Return the units of the case of one kind, but for templates."""
        found = sorted(path.name for path in self.directory.glob(f"*{suffix}"))
        return [name for name in found if "@." not in name and name not in _KEEPER]

    def log(self, name: str = "") -> list[dict[str, Any]]:
        """Return what the programs of a unit, or all, have reported."""
        path = Path(f"/run/out/{self.case}.log")
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").splitlines()
        return [found for line in lines if (found := json.loads(line))["name"].startswith(name)]

    def starts(self, name: str = "") -> int:
        """Return how often the program of a unit has been started."""
        return len(self.log(name))

    def until(self, what: str, holds: Callable[[], object]) -> None:
        """Wait until something holds; note it if it never does."""
        deadline = time.monotonic() + SECONDS
        while not holds():
            if time.monotonic() > deadline:
                self.notes[f"never: {what}"] = True
                return
            time.sleep(0.02)

    def becomes(self, name: str, *states: str) -> None:
        """Wait until a unit is in a state."""
        ask = self.service if name.endswith(".service") else self.unit
        self.until(f"{name} {'/'.join(states)}", lambda: ask(name)["state"] in states)

    def connections_become(self, name: str, count: int) -> None:
        """Wait until a unit with Accept=yes has so many connections."""
        self.until(f"{count} connections", lambda: self.unit(name)["connections"] == count)

    def started(self, count: int, name: str = "") -> None:
        """Wait until so many programs were started."""
        self.until(f"{count} starts of {name or 'all'}", lambda: self.starts(name) >= count)

    def note(self, **facts: object) -> None:
        """Note facts."""
        self.notes |= facts

    def note_unit(self, name: str, key: str = "unit") -> None:
        """Note how a socket unit stands."""
        self.notes |= {f"{key}.{field}": value for field, value in self.unit(name).items()}

    def note_service(self, name: str, key: str = "service") -> None:
        """Note how a service stands."""
        self.notes |= {f"{key}.{field}": value for field, value in self.service(name).items()}

    def note_starts(self, name: str = "", key: str = "starts") -> None:
        """Note how often a program was started, once that does not change any more."""
        count = -1
        while count != (count := self.starts(name)):
            time.sleep(CALM)
        self.notes[key] = count

    def connect(self, address: str | tuple[str, int], source: str = "") -> socket.socket:
        """Connect to a Unix path or a port, from an address if one is given."""
        client = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self._stack.enter_context(client)
        client.settimeout(SECONDS)
        if source:
            client.bind(source if isinstance(address, str) else (source, 0))
        client.connect(address)
        return client

    def try_connect(self, address: str | tuple[str, int]) -> str:
        """Return what a client sees: what it is told, how it is turned away, or ``silence``."""
        try:
            client = self.connect(address)
        except OSError as error:
            return type(error).__name__
        return heard(client)


def heard(client: socket.socket, seconds: float = SECONDS) -> str:
    """Return what a client is told before its connection ends, or how that ends."""
    client.settimeout(seconds)
    try:
        return client.recv(100).decode() or "end"
    except TimeoutError:
        return "silence"
    except OSError as error:
        return type(error).__name__


def echoes(client: socket.socket) -> bool:
    """Whether what a client sends comes back."""
    try:
        client.sendall(b"x")
    except OSError:
        return False
    return heard(client) == "x"


_SOCKET_FIELDS = {
    "SubState": "state", "Result": "result", "NAccepted": "accepted", "NRefused": "refused",
    "NConnections": "connections",
}  # fmt: skip
_SERVICE_FIELDS = {
    "SubState": "state", "Result": "result", "NRestarts": "restarts",
    "NFileDescriptorStore": "stored",
}  # fmt: skip


class Real(Side):
    """systemd, which is process 1 here."""

    def _systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["systemctl", *arguments], capture_output=True, text=True, timeout=60, check=False
        )

    def begin(self) -> None:
        """Start the socket units of the case, but for templates."""
        self._systemctl("start", *self.names(".socket"))

    def end(self) -> None:
        """Stop everything."""
        names = [path.name for path in self.directory.iterdir() if path.is_file()]
        self._systemctl("stop", *[name for name in names if name.endswith(".socket")])
        self._systemctl("kill", "--signal=KILL", *[name.replace("@.", "@*.") for name in names])
        self._systemctl("stop", *[name.replace("@.", "@*.") for name in names])
        self._systemctl("reset-failed", *[name.replace("@.", "@*.") for name in names])

    def command(self, command: str, unit: str) -> bool:
        """Start or stop a unit, and wait until that is done; return whether it was."""
        return self._systemctl(command, unit).returncode == 0

    def _show(self, name: str, fields: Mapping[str, str]) -> dict[str, Any]:
        shown = self._systemctl("show", f"--property={','.join(fields)}", name).stdout
        found = dict(line.partition("=")[::2] for line in shown.splitlines())
        return {
            ours: int(found[theirs]) if found[theirs].isdigit() else found[theirs]
            for theirs, ours in fields.items()
        }

    def unit(self, name: str) -> dict[str, Any]:
        """Return state, result, accepted, refused and connections of a socket unit."""
        return self._show(name, _SOCKET_FIELDS)

    def service(self, name: str) -> dict[str, Any]:
        """Return state, result, restarts of a service, and how many descriptors are stored."""
        return self._show(name, _SERVICE_FIELDS)


class Ours(Side):
    """A ``sockact run`` for each case; without a rendezvous of its own, as it is in containers."""

    _process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start the socket units of the case, but for templates."""
        with open(f"/run/out/{self.case}.said", "wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sockact", "run", str(self.directory)],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                cwd="/",
            )  # fmt: skip
        self.until("the supervisor", self._is_up)

    def _is_up(self) -> bool:
        if self._has_ended():
            return True
        try:
            return all(one["state"] not in _STARTING for one in self._report()["units"])
        except Exception:  # noqa: BLE001 - whatever it is, it is not there yet
            return False

    def _has_ended(self) -> bool:
        assert self._process
        return self._process.poll() is not None

    def end(self) -> None:
        """Stop everything."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.note(unstoppable=True)
            self._process.kill()
            self._process.wait()
        for one in self.log():
            with contextlib.suppress(ProcessLookupError):
                os.kill(one["pid"], signal.SIGKILL)

    def _control(self, command: str, **arguments: object) -> Mapping[str, Any]:
        import sockact

        assert self._process
        path = f"/run/sockact/run-{self._process.pid}.rdv"
        return sockact.control(path, command, arguments, timeout=SECONDS * 2)

    def _report(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._control("status")["report"]
        return found

    def command(self, command: str, unit: str) -> bool:
        """Start or stop a unit, and wait until that is done; return whether it was."""
        if "error" in self._control(command, units=[unit]):
            return False
        if unit.endswith(".socket"):
            self.until(f"{unit} to {command}", lambda: self.unit(unit)["state"] in _SETTLED)
        return True

    def _find(self, kind: str, name: str) -> Mapping[str, Any]:
        if self._has_ended():
            return {"state": "gone"}
        return next(one for one in self._report()[kind] if one["name"] == name)

    def unit(self, name: str) -> dict[str, Any]:
        """Return state, result, accepted, refused and connections of a socket unit."""
        one = self._find("units", name)
        return {field: one.get(field) for field in _SOCKET_FIELDS.values()}

    def service(self, name: str) -> dict[str, Any]:
        """Return state, result, restarts of a service, and how many descriptors are stored."""
        one = self._find("services", name)
        return {field: one.get(field) for field in ("state", "result", "restarts")} | {
            "stored": len(one.get("stored", []))
        }


_SETTLED = ("dead", "failed", "listening", "running")
_STARTING = ("dead", "start-pre", "start-open", "start-chown", "start-post")


# --- the cases ------------------------------------------------------------------------------------


@attrs.frozen
class Case:
    """Some units, and what is done with them.

    Attributes:
        script: What is done, and what of it is noted.
        units: Name to text; ``<verbs>`` stands for the player, and ``SOCKET`` for an address that
            the case has for itself.
        since: The first systemd version that can do it; an older one is not compared with.
        expected: Of a case that the real systemd is too old for: what is to be seen.
        differs: Notes, or patterns of them, that are different with sockact on purpose, and why.
    """

    script: Callable[[Side], None]
    units: Mapping[str, str]
    since: int = 0
    expected: Mapping[str, object] = {}
    differs: Mapping[str, str] = {}


CASES: dict[str, Case] = {}


def case(
    socket_lines: str,
    service_lines: str = "",
    *,
    more: Mapping[str, str] | None = None,
    since: int = 0,
    expected: Mapping[str, object] | None = None,
    differs: Mapping[str, str] | None = None,
) -> Callable[[Callable[[Side], None]], Callable[[Side], None]]:
    """Make a case of a function: its units are called as it is, with dashes.

    Args:
        socket_lines: Lines of [Socket], besides the listener at its own path.
        service_lines: Lines of [Service], and of [Unit] those that begin with StartLimit.
        more: More units, by name; ``%`` in a name stands for the case's.
        since: See `Case`.
        expected: See `Case`.
        differs: See `Case`.
    """

    def add(script: Callable[[Side], None]) -> Callable[[Side], None]:
        name = script.__name__.replace("_", "-")
        units = {}
        if "Listen" not in socket_lines:
            socket_lines_ = f"ListenStream=/run/t/{name}\n{socket_lines}"
        else:
            socket_lines_ = socket_lines
        units[f"{name}.socket"] = f"[Socket]\n{socket_lines_}\n"
        if service_lines:
            template = "@" if "Accept=yes" in socket_lines else ""
            head = [line for line in service_lines.splitlines() if line.startswith("StartLimit")]
            body = [line for line in service_lines.splitlines() if line not in head]
            units[f"{name}{template}.service"] = "\n".join(
                ["[Unit]", *head, "[Service]", *body, ""]
            )
        for other, text in (more or {}).items():
            units[other.replace("%", name)] = text
        CASES[name] = Case(script, units, since, expected or {}, differs or {})
        return script

    return add


def install(target: Path, *, together: bool) -> None:
    """Write the units of every case into a directory of its own below `target`.

    Args:
        target: A directory that does not exist yet.
        together: Also write all into ``target/all``, with what the real systemd needs.
    """
    target.mkdir()
    everything = target / "all"
    if together:
        everything.mkdir()
        (everything / "test.target").write_text(_ALONE, encoding="ascii")
        for kind in ("socket", "service"):
            (everything / f"{kind}.d").mkdir()
            (everything / f"{kind}.d" / "00-alone.conf").write_text(_ALONE, encoding="ascii")
    for name, one in CASES.items():
        (target / name).mkdir()
        for unit, text in _KEEPER.items():
            (target / name / unit).write_text(text.replace("CASE", name), encoding="ascii")
        player = f"{sys.executable} -I -S {PLAYER} /run/out/{name}.log %n"
        for unit, text in one.units.items():
            written = re.sub(r"<([^>\n]*)>", rf"{player} \1", text)
            (target / name / unit).write_text(written, encoding="utf-8")
            if together:
                (everything / unit).write_text(written, encoding="utf-8")


_REVIVED = "a listener that a program has shut down is opened anew, and the program replaced"
_TOGETHER = "sockact run opens all that it was told to, or ends"


# Limits. (TEST-07-PID1.issue-2467, .poll-limit)


@case(
    "TriggerLimitIntervalSec=30s\nTriggerLimitBurst=4",
    "StartLimitIntervalSec=0\nExecStart=<exit 0>",
)
def trigger_limit(side: Side) -> None:
    """A service that ends without taking the connection is started until the limit is hit."""
    client = side.connect("/run/t/trigger-limit")
    side.becomes("trigger-limit.socket", "failed")
    side.note_starts()
    side.note_unit("trigger-limit.socket")
    side.note_service("trigger-limit.service")
    side.note(client=heard(client), later=side.try_connect("/run/t/trigger-limit"))


@case(
    "TriggerLimitIntervalSec=30s\nTriggerLimitBurst=3",
    "StartLimitIntervalSec=0\nExecCondition=<exit 1>\nExecStart=<serve>",
)
def condition_is_false(side: Side) -> None:
    """A service whose condition does not hold is tried until the trigger limit is hit."""
    side.connect("/run/t/condition-is-false")
    side.becomes("condition-is-false.socket", "failed")
    side.note_starts()
    side.note_unit("condition-is-false.socket")
    side.note_service("condition-is-false.service")


@case("", "StartLimitIntervalSec=30s\nStartLimitBurst=3\nExecStart=<exit 0>")
def start_limit(side: Side) -> None:
    """A service that hits its own limit takes the socket with it."""
    client = side.connect("/run/t/start-limit")
    side.becomes("start-limit.socket", "failed")
    side.note_starts()
    side.note_unit("start-limit.socket")
    side.note_service("start-limit.service")
    side.note(client=heard(client))


@case(
    "TriggerLimitIntervalSec=30s\nTriggerLimitBurst=2",
    "StartLimitIntervalSec=0\nExecStart=<exit 0>",
    differs={"starts": "a unit that is started by hand gets a new window"},
)
def trigger_limit_restart(side: Side) -> None:
    """A unit that hit its limit can be started again, with a new window."""
    side.connect("/run/t/trigger-limit-restart")
    side.becomes("trigger-limit-restart.socket", "failed")
    side.note(again=side.command("start", "trigger-limit-restart.socket"))
    side.becomes("trigger-limit-restart.socket", "listening")
    side.note_unit("trigger-limit-restart.socket")
    side.connect("/run/t/trigger-limit-restart")
    side.becomes("trigger-limit-restart.socket", "failed")
    side.note_starts()


@case(
    "Accept=yes\nPollLimitIntervalSec=30s\nPollLimitBurst=3",
    "ExecStart=<cat>",
    since=255,
    expected={
        "accepted": 3, "starts": 3, "unit.state": "listening", "unit.result": "success",
        "unit.accepted": 3, "unit.refused": 0, "unit.connections": 3,
    },
)  # fmt: skip
def poll_limit(side: Side) -> None:
    """Connections beyond the poll limit wait, and the unit stays up."""
    clients = [side.connect("/run/t/poll-limit") for _ in range(20)]
    side.started(3)
    side.note_starts()
    side.note(accepted=sum(heard(client, 0.01) == "x" for client in clients if _send(client)))
    side.note_unit("poll-limit.socket")


def _send(client: socket.socket) -> bool:
    """Send something, and let it come back."""
    client.sendall(b"x")
    time.sleep(0.01)
    return True


# One service for the socket. (TEST-04-JOURNAL.stopped-socket-activation)


@case("", "ExecStart=<serve>")
def stopped_service(side: Side) -> None:
    """A service that was stopped by hand is started again by traffic."""
    path = "/run/t/stopped-service"
    side.note(first=side.try_connect(path))
    side.becomes("stopped-service.socket", "running")
    side.note_unit("stopped-service.socket", "served")
    side.note(stopped=side.command("stop", "stopped-service.service"))
    side.becomes("stopped-service.socket", "listening")
    side.note_service("stopped-service.service")
    side.note(second=side.try_connect(path))
    side.note_starts()


@case("", "ExecStart=<serve>")
def started_by_hand(side: Side) -> None:
    """A service that was started by hand has the socket, which then is running."""
    side.note(started=side.command("start", "started-by-hand.service"))
    side.started(1)
    side.becomes("started-by-hand.socket", "running")
    side.note(served=side.try_connect("/run/t/started-by-hand"))
    side.note(fds=side.log()[0]["fds"], names=side.log()[0]["environ"].get("LISTEN_FDNAMES"))
    side.command("stop", "started-by-hand.service")
    side.becomes("started-by-hand.socket", "listening")
    side.note_unit("started-by-hand.socket")
    side.note_starts()


@case("", "ExecStart=<serve>")
def stopped_socket(side: Side) -> None:
    """Without its socket a service goes on, and meanwhile the socket cannot be started."""
    path = "/run/t/stopped-socket"
    side.note(first=side.try_connect(path))
    side.note(stopped=side.command("stop", "stopped-socket.socket"))
    side.note_unit("stopped-socket.socket")
    side.note_service("stopped-socket.service")
    side.note(node=Path(path).exists(), still=side.try_connect(path))
    side.note(started=side.command("start", "stopped-socket.socket"))
    side.note_unit("stopped-socket.socket", "refused")
    side.command("stop", "stopped-socket.service")
    side.note(later=side.command("start", "stopped-socket.socket"))
    side.note_unit("stopped-socket.socket", "again")
    side.note(last=side.try_connect(path))
    side.note_starts()


@case("", "StartLimitIntervalSec=0\nExecStart=<serve 1 exit 1>")
def crash(side: Side) -> None:
    """Connections that wait while a service fails are served by the next ones."""
    clients = [side.connect("/run/t/crash") for _ in range(3)]
    side.note(heard=[heard(client) for client in clients])
    side.becomes("crash.service", "failed")
    side.becomes("crash.socket", "listening")
    side.note_starts()
    side.note_unit("crash.socket")
    side.note_service("crash.service")


@case("", "Restart=always\nRestartSec=60\nExecStart=<serve 1 exit 1>")
def auto_restart(side: Side) -> None:
    """A service that waits for its restart is not started earlier by traffic."""
    side.note(first=side.try_connect("/run/t/auto-restart"))
    side.becomes("auto-restart.service", "auto-restart")
    side.becomes("auto-restart.socket", "listening")
    side.note_unit("auto-restart.socket")
    side.note(second=heard(side.connect("/run/t/auto-restart"), CALM))
    side.note_unit("auto-restart.socket", "triggered")
    side.note_service("auto-restart.service")
    side.note_starts()


@case("FlushPending=yes", "ExecStart=<exit 0>")
def flush_pending(side: Side) -> None:
    """What a service has left is thrown away, and it is not started for it again."""
    client = side.connect("/run/t/flush-pending")
    side.note(client=heard(client))
    side.becomes("flush-pending.socket", "listening")
    side.note_starts()
    side.note_unit("flush-pending.socket")


@case("FlushPending=yes", "ExecStart=/no/such/program")
def cannot_execute(side: Side) -> None:
    """A program that cannot be executed is a failed service."""  # TEST-07-PID1.issue-30412
    client = side.connect("/run/t/cannot-execute")
    side.note(client=heard(client))
    side.becomes("cannot-execute.service", "failed")
    side.becomes("cannot-execute.socket", "listening")
    side.note_unit("cannot-execute.socket")
    side.note_service("cannot-execute.service")


@case("", "Type=notify\nTimeoutStartSec=60\nExecStart=<forever>")
def always_activating(side: Side) -> None:
    """The socket of a service that never gets ready can be stopped."""  # TEST-03-JOBS
    side.connect("/run/t/always-activating")
    side.started(1)
    side.becomes("always-activating.service", "start")
    side.note_unit("always-activating.socket", "meanwhile")
    side.note(stopped=side.command("stop", "always-activating.socket"))
    side.note_unit("always-activating.socket", "stopped")
    side.note_service("always-activating.service")
    side.note(started=side.command("start", "always-activating.socket"))
    side.note_unit("always-activating.socket")
    side.note_starts()


@case(
    "",
    "ExecStart=<hangup exit 0>",
    differs={"unit.*": _REVIVED, "starts": _REVIVED},
)
def hangup(side: Side) -> None:
    """A service that shuts the listener down and ends leaves a dead socket."""
    side.connect("/run/t/hangup")
    side.started(1)
    side.until("the end", lambda: side.unit("hangup.socket")["state"] in ("failed", "listening"))
    side.note_unit("hangup.socket")
    side.note_starts()


@case(
    "",
    "ExecStart=<hangup forever>",
    differs={"unit.*": _REVIVED, "starts": _REVIVED},
)
def hangup_and_stay(side: Side) -> None:
    """A service may shut the listener down and go on; that shows once it ends."""
    side.connect("/run/t/hangup-and-stay")
    side.started(1)
    time.sleep(CALM)
    side.note_unit("hangup-and-stay.socket", "meanwhile")
    side.command("stop", "hangup-and-stay.service")
    side.until(
        "the end", lambda: side.unit("hangup-and-stay.socket")["state"] in ("failed", "listening")
    )
    side.note_unit("hangup-and-stay.socket")
    side.note_starts()


# Several of each.


@case(
    "Service=two-sockets-x.service",
    more={
        "%-b.socket": "[Socket]\nListenDatagram=/run/t/%-b\nService=two-sockets-x.service\n"
        "FileDescriptorName=b\n".replace("%", "two-sockets"),
        "%-x.service": "[Service]\nExecStart=<serve>\n",
    },
)
def two_sockets(side: Side) -> None:
    """Two sockets of one service: traffic on one is enough, and both are running then."""
    side.note(first=side.try_connect("/run/t/two-sockets"))
    for name in ("two-sockets.socket", "two-sockets-b.socket"):
        side.becomes(name, "running")
        side.note_unit(name, name)
    names = side.log()[0]["environ"]["LISTEN_FDNAMES"].split(":")
    side.note(names=sorted(names), fds=sorted(side.log()[0]["fds"]))
    side.command("stop", "two-sockets-x.service")
    for name in ("two-sockets.socket", "two-sockets-b.socket"):
        side.becomes(name, "listening")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", "/run/t/two-sockets-b")
        side.started(2)
    side.note_starts()


@case(
    "",
    "ExecStart=<serve>",
    more={"%-other.service": "[Service]\nSockets=two-services.socket\nExecStart=<forever>\n"},
)
def two_services(side: Side) -> None:
    """A service with Sockets= gets the socket too, but is not started by traffic."""
    side.note(first=side.try_connect("/run/t/two-services"))
    side.note(started=side.command("start", "two-services-other.service"))
    side.started(1, "two-services-other")
    (other,) = side.log("two-services-other")
    side.note(fds=other["fds"], names=other["environ"].get("LISTEN_FDNAMES"))
    side.note_unit("two-services.socket")
    side.note_starts("two-services.service")


# Other kinds.


@case("ListenFIFO=/run/t/fifo", "ExecStart=<drain>")
def fifo(side: Side) -> None:
    """What is written to a FIFO starts the service, each time."""
    for count in (1, 2):
        Path("/run/t/fifo").write_text("x", encoding="ascii")
        side.started(count)
        side.becomes("fifo.socket", "listening")
    side.note(fds=side.log()[0]["fds"])
    side.note_starts()
    side.note_unit("fifo.socket")


@case("ListenDatagram=/run/t/datagram", "ExecStart=<drain>")
def datagram(side: Side) -> None:
    """A datagram starts the service, which gets it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for count in (1, 2):
            sender.sendto(b"x", "/run/t/datagram")
            side.started(count)
            side.becomes("datagram.socket", "listening")
    side.note(fds=side.log()[0]["fds"])
    side.note_starts()
    side.note_unit("datagram.socket")


@case("ListenMessageQueue=/message-queue", "ExecStart=<drain-queue>")
def message_queue(side: Side) -> None:
    """A message starts the service, which gets it."""
    import ctypes

    libc = ctypes.CDLL(None)
    queue = libc.mq_open(b"/message-queue", os.O_WRONLY)
    for count in (1, 2):
        side.note(sent=libc.mq_send(queue, b"x", 1, 0))
        side.started(count)
        side.becomes("message-queue.socket", "listening")
    os.close(queue)
    side.note_starts()
    side.note_unit("message-queue.socket")


@case("ListenSpecial=/run/t/plain", "ExecStart=<exit 0>")
def regular_file(side: Side) -> None:
    """A regular file can be opened, but not waited for."""
    side.until("the end", lambda: side.unit("regular-file.socket")["state"] != "start-pre")
    side.note_starts()
    side.note_unit("regular-file.socket")


# Commands of the unit. (TEST-07-PID1.socket-pass-fds)

_FOUR = (
    "ExecStartPre=<exit 0>\nExecStartPost=<exit 0>\nExecStopPre=<exit 0>\nExecStopPost=<exit 0>\n"
)


def _names_and_fds(side: Side) -> list[list[object]]:
    return [[one["environ"].get("LISTEN_FDNAMES"), one["fds"]] for one in side.log()]


@case(_FOUR, "ExecStart=<serve>")
def pass_fds_no(side: Side) -> None:
    """The commands of a unit get no descriptors."""
    side.command("stop", "pass-fds-no.socket")
    side.note(given=_names_and_fds(side))
    side.note_unit("pass-fds-no.socket")


@case(
    "PassFileDescriptorsToExec=yes\nFileDescriptorName=x\n" + _FOUR,
    "ExecStart=<serve>",
    since=256,
    expected={
        "given": [
            [None, []], ["x", ["listener blocking"]], ["x", ["listener blocking"]], [None, []]
        ],
    },
)  # fmt: skip
def pass_fds_yes(side: Side) -> None:
    """With PassFileDescriptorsToExec= those get them that run while the sockets are open."""
    side.command("stop", "pass-fds-yes.socket")
    side.note(given=_names_and_fds(side))


@case(
    "ExecStartPre=<exit 0>\nExecStartPre=<exit 3>\nExecStopPost=<exit 0>",
    "ExecStart=<serve>",
    differs={"unit.*": _TOGETHER},
)
def pre_fails(side: Side) -> None:
    """A unit whose command before the start fails does not listen."""
    side.becomes("pre-fails.socket", "failed", "gone")
    side.note_starts()
    side.note_unit("pre-fails.socket")
    side.note(node=Path("/run/t/pre-fails").exists())


@case(
    "ExecStartPost=-<exit 3>\nExecStartPost=<exit 3>\nExecStopPre=<exit 0>\nExecStopPost=<exit 0>",
    "ExecStart=<serve>",
)
def post_fails(side: Side) -> None:
    """A unit whose command after the start fails is stopped as usual."""
    side.becomes("post-fails.socket", "failed", "gone")
    side.note_starts()
    side.note_unit("post-fails.socket")


@case(
    "TimeoutSec=1500ms\nExecStartPre=<forever>",
    "ExecStart=<serve>",
    differs={"unit.*": _TOGETHER},
)
def late(side: Side) -> None:
    """A unit whose command takes too long fails."""
    side.becomes("late.socket", "failed", "gone")
    side.note_starts()
    side.note_unit("late.socket")


@case("RemoveOnStop=yes\nSymlinks=/run/t/remove-link", "ExecStart=<serve>")
def remove_on_stop(side: Side) -> None:
    """Node and links go with the unit."""
    paths = [Path("/run/t/remove-on-stop"), Path("/run/t/remove-link")]
    side.note(before=[path.is_socket() for path in paths])
    side.command("stop", "remove-on-stop.socket")
    side.note(after=[os.path.lexists(path) for path in paths])
    side.note_unit("remove-on-stop.socket")


@case(
    "ListenStream=127.0.0.1:7001",
    "ExecStart=<serve>",
    more={
        "%-twin.socket": "[Socket]\nListenStream=127.0.0.1:7001\nExecStopPost=<exit 0>\n",
        "%-twin.service": "[Service]\nExecStart=<serve>\n",
    },
    differs={"states": _TOGETHER, "results": _TOGETHER},
)
def bind_fails(side: Side) -> None:
    """A unit that cannot bind fails."""  # TEST-07-PID1.socket-on-failure
    states = sorted(str(side.unit(name)["state"]) for name in side.names(".socket"))
    results = sorted(str(side.unit(name)["result"]) for name in side.names(".socket"))
    side.note(states=states, results=results)


# One process for each connection. (TEST-07-PID1.socket-max-connection)


def _instances(side: Side) -> list[dict[str, Any]]:
    """Return what instances were told, without what is another each time, or since 258."""
    found = []
    for one in side.log():
        environ = dict(one["environ"])
        cookie = environ.pop("SO_COOKIE", None)
        name = one["name"].replace(f"-{cookie}-", "-")
        if "REMOTE_PORT" in environ:
            name = name.replace(f":{environ['REMOTE_PORT']}.", ":PORT.")
            environ["REMOTE_PORT"] = "PORT"
        else:
            name = re.sub(r"-\d+_\d+-", "-PID-", name).replace(f"-{os.getpid()}-", "-PID-")
        found.append({"name": name, "environ": environ, "fds": one["fds"]})
    return sorted(found, key=lambda one: str(one["name"]))


@case("ListenStream=127.0.0.1:7002\nAccept=yes", "ExecStart=<cat>")
def accept(side: Side) -> None:
    """Each connection gets an instance, which is told who called."""
    clients = [side.connect(("127.0.0.1", 7002)) for _ in range(2)]
    side.note(echoes=[echoes(client) for client in clients])
    side.note(instances=_instances(side))
    side.note_unit("accept.socket", "two")
    for count, client in zip((1, 0), clients, strict=True):
        client.close()
        side.connections_become("accept.socket", count)
    side.note_unit("accept.socket")
    side.note_starts()


@case("Accept=yes", "NonBlocking=yes\nExecStart=<forever>")
def accept_unix(side: Side) -> None:
    """Of a local caller, the name of the instance has process and user."""
    side.connect("/run/t/accept-unix")
    side.started(1)
    side.note(instances=_instances(side))


@case(
    "Accept=yes",
    "ExecStart=<cat>",
    since=257,
    expected={
        "instances": [{
            "name": "accept-bound@0-PID-0.service",
            "environ": {
                "LISTEN_FDS": "1", "LISTEN_FDNAMES": "connection", "REMOTE_ADDR": "/run/t/it\\'s me",
            },
            "fds": ["socket blocking"],
        }],
    },
)  # fmt: skip
def accept_bound(side: Side) -> None:
    """A local caller that has a name has that as its address."""
    echoes(side.connect("/run/t/accept-bound", "/run/t/it's me"))
    side.note(instances=_instances(side))


@case("Accept=yes\nMaxConnections=2", "ExecStart=<cat>")
def max_connections(side: Side) -> None:
    """A connection too many is closed, and one that ends makes room."""
    path = "/run/t/max-connections"
    clients = [side.connect(path) for _ in range(2)]
    side.note(first=[echoes(client) for client in clients], third=side.try_connect(path))
    side.note_unit("max-connections.socket", "full")
    clients[0].close()
    side.connections_become("max-connections.socket", 1)
    side.note(fourth=echoes(side.connect(path)))
    side.note_unit("max-connections.socket")
    side.note_starts()


@case("ListenStream=127.0.0.1:7003\nAccept=yes\nMaxConnectionsPerSource=1", "ExecStart=<cat>")
def max_per_source(side: Side) -> None:
    """A source has its own limit."""
    address = ("127.0.0.1", 7003)
    first = side.connect(address)
    side.note(first=echoes(first), second=side.try_connect(address))
    side.note(other=echoes(side.connect(address, "127.0.0.2")))
    side.note_unit("max-per-source.socket")
    first.close()
    side.connections_become("max-per-source.socket", 1)
    side.note(third=echoes(side.connect(address)))
    side.note_starts()


@case(
    "Accept=yes\nMaxConnectionsPerSource=2",
    "ExecStart=<cat>",
    since=256,
    expected={
        "first": [True, True], "third": "end", "other": True, "unit.accepted": 3,
        "unit.refused": 1, "unit.connections": 3, "unit.state": "listening",
        "unit.result": "success",
    },
)  # fmt: skip
def max_per_user(side: Side) -> None:
    """Local callers are counted by user."""
    path = "/run/t/max-per-user"
    clients = [side.connect(path) for _ in range(2)]
    side.note(first=[echoes(client) for client in clients], third=side.try_connect(path))
    os.seteuid(65534)
    try:
        other = side.connect(path)
    finally:
        os.seteuid(0)
    side.note(other=echoes(other))
    side.note_unit("max-per-user.socket")


@case("Accept=yes", "ExecStart=<exit 3>")
def accept_and_fail(side: Side) -> None:
    """An instance that fails is no matter of the socket."""
    side.note(heard=[side.try_connect("/run/t/accept-and-fail") for _ in range(3)])
    side.connections_become("accept-and-fail.socket", 0)
    side.note_starts()
    side.note_unit("accept-and-fail.socket")


@case(
    "Accept=yes\nTriggerLimitIntervalSec=30s\nTriggerLimitBurst=3",
    "ExecStart=<cat>",
)
def accept_trigger_limit(side: Side) -> None:
    """Too many connections in a while end the unit, but not the instances that there are."""
    path = "/run/t/accept-trigger-limit"
    clients = [side.connect(path) for _ in range(3)]
    side.note(first=[echoes(client) for client in clients], fourth=side.try_connect(path))
    side.becomes("accept-trigger-limit.socket", "failed")
    side.note_unit("accept-trigger-limit.socket")
    side.note(later=[echoes(client) for client in clients], fifth=side.try_connect(path))
    side.note_starts()


@case("Accept=yes", "ExecStart=<cat>")
def accept_and_stop(side: Side) -> None:
    """Connections go on without the socket, and with it again."""
    path = "/run/t/accept-and-stop"
    client = side.connect(path)
    side.note(first=echoes(client))
    side.command("stop", "accept-and-stop.socket")
    side.note_unit("accept-and-stop.socket")
    side.note(later=echoes(client), refused=side.try_connect(path))
    side.note(started=side.command("start", "accept-and-stop.socket"))
    side.note_unit("accept-and-stop.socket", "again")
    side.note(second=echoes(side.connect(path)), first_again=echoes(client))
    side.note_starts()


@case("ListenStream=127.0.0.1:7004\nAccept=yes", "ExecStart=<exit 0>")
def accept_gone(side: Side) -> None:
    """Nobody is started for a client that has given up before it was accepted."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.connect(("127.0.0.1", 7004))
        client.close()
    side.note(later=side.try_connect(("127.0.0.1", 7004)))
    side.connections_become("accept-gone.socket", 0)
    side.note(state=side.unit("accept-gone.socket")["state"])


@case(
    "Accept=yes",
    "StandardInput=socket\nExecStart=/bin/sh -c 'read line; echo \"$$line $${LISTEN_FDS:-none}\"'",
)
def inetd(side: Side) -> None:
    """With StandardInput=socket the connection is standard input and output."""
    client = side.connect("/run/t/inetd")
    client.sendall(b"hello\n")
    side.note(heard=heard(client))
    side.connections_become("inetd.socket", 0)
    side.note_unit("inetd.socket")


# Stored descriptors.

_STORING = "Type=notify\nFileDescriptorStoreMax=3\nRestart=on-failure\nRestartSec=0\n"


def _stored(side: Side) -> list[object]:
    """Return the names that each start got, the socket's first."""
    return [one["environ"].get("LISTEN_FDNAMES") for one in side.log()]


@case(
    "FileDescriptorName=it",
    _STORING + "ExecStart=<store a store b sleep 0.5 exit 1 then notify READY=1 serve>",
)
def store(side: Side) -> None:
    """What a service stores it gets after a restart, behind its sockets."""
    side.note(client=side.try_connect("/run/t/store"))
    side.becomes("store.service", "running")
    side.note(names=_stored(side), fds=[one["fds"] for one in side.log()])
    side.note_service("store.service")
    side.command("stop", "store.service")
    side.note_service("store.service", "stopped")


@case(
    "FileDescriptorName=it",
    _STORING
    + "ExecStart=<store a store b store c store d twice e drop b twice f sleep 0.5 exit 1 then"
    + " notify READY=1 serve>",
)
def store_full(side: Side) -> None:
    """Only so many are stored, each once, and what is removed makes room."""
    side.note(client=side.try_connect("/run/t/store-full"))
    side.becomes("store-full.service", "running")
    side.note(names=_stored(side))
    side.note_service("store-full.service")


@case(
    "FileDescriptorName=it",
    "Type=notify\nNotifyAccess=main\nExecStart=<store a notify READY=1 serve>",
)
def store_nothing(side: Side) -> None:
    """A service without FileDescriptorStoreMax= stores nothing."""
    side.note(client=side.try_connect("/run/t/store-nothing"))
    side.becomes("store-nothing.service", "running")
    side.note_service("store-nothing.service")
    side.note(fdstore=side.log()[0]["environ"].get("FDSTORE"))


def _run(which: str, work: str, name: str) -> dict[str, object]:
    side = {"real": Real, "ours": Ours}[which](Path(work))
    return side.run(name, CASES[name])


def main() -> None:
    """Run the cases of one side, some of them beside each other, each in a process of its own."""
    which, work, *names = sys.argv[1:]
    os.umask(0o022)
    Path("/run/t/plain").write_text("plain\n", encoding="ascii")
    names = names or [*CASES]
    fork = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(_AT_ONCE, fork) as pool:
        run = functools.partial(_run, which, work)
        print(json.dumps(dict(zip(names, pool.map(run, names), strict=True))))


if __name__ == "__main__":
    main()
