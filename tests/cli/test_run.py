"""``sockact run`` and the commands that talk to it, on the command line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from sockact.cli import control
from sockact.errors import OwnerNotFoundError, RendezvousError
from tests.helpers import SECONDS, SOCKACT, clean_environ, free_port, get, run
from tests.supervise.supervisors import server, supervisor

LISTEN = "web=tcp:127.0.0.1:0"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to run"),
        (["--listen", LISTEN], "nothing to run"),
        (["--listen", LISTEN, "--ready", "maybe", "--", "true"], "--ready: 'maybe'"),
        (["--listen", LISTEN, "--restart", "never", "--", "true"], "--restart:"),
        (["--listen", LISTEN, "-S", "Type", "--", "true"], "is not Directive=Value"),
        (["--listen", LISTEN, "-S", "Tpe=exec", "--", "true"], "did you mean Type"),
        (["--listen", LISTEN, "-p", "Backlg=3", "--", "true"], "did you mean Backlog"),
        (["--owner", "root", "--", "true"], "--owner goes with --rendezvous or --from"),
        (["--listen", "tcp:nonsense:", "--", "true"], "tcp:nonsense:"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str) -> None:
    """A mistake on the command line is one line, and exit status 2."""
    done = run("run", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_missing_unit(tmp_path: Path) -> None:
    """A unit or directory without units is one line, and exit status 66."""
    done = run("run", str(tmp_path / "no.socket"))
    assert (done.returncode, done.stderr.count("\n")) == (66, 1)
    done = run("run", str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (66, 1)
    assert "no .socket or .service unit" in done.stderr


def test_empty_path() -> None:
    """A rendezvous that is an empty word, such as an unset variable, is not none."""
    done = run("run", "--rendezvous", "", "--", "true")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "'': a rendezvous is the path of a socket" in done.stderr


@pytest.mark.parametrize("command", ["status", "replace", "start", "stop", "restart", "reload"])
def test_nobody_there(short_dir: Path, command: str) -> None:
    """Where nobody runs, that is said in one line, and exit status 69."""
    done = run(command, str(short_dir / "none.rdv"))
    assert done.returncode == 69
    assert len(done.stderr.splitlines()) == 1


def test_owner_without_commands(short_dir: Path) -> None:
    """A holder takes no commands, and says so."""
    path = str(short_dir / "hold.rdv")
    with subprocess.Popen(
        [*SOCKACT, "hold", path, "--listen", LISTEN], env=clean_environ(), stderr=subprocess.PIPE
    ) as process:
        assert process.stderr
        process.stderr.readline()
        done = run("replace", path)
        assert done.returncode == 1
        assert "takes no commands" in done.stderr
        process.terminate()
        process.stderr.read()


def test_finds_the_only_one(short_dir: Path) -> None:
    """Without a path, the supervisors of this user are found where they put their sockets."""
    environ = clean_environ({"XDG_RUNTIME_DIR": str(short_dir)})
    directory = short_dir / "sockact" if os.geteuid() else Path("/run/sockact")
    port = free_port()
    command = [*SOCKACT, "run", "--listen", f"tcp:127.0.0.1:{port}", "--", *server()]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
    path = directory / f"run-{process.pid}.rdv"
    try:
        deadline = time.monotonic() + SECONDS
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert get(("127.0.0.1", port))
        done = subprocess.run(
            [*SOCKACT, "status", "--json"], env=environ, capture_output=True, text=True, check=True
        )
        pids = [report["pid"] for report in json.loads(done.stdout)]
        assert process.pid in pids
        assert path.stat().st_mode & 0o777 == 0o600
    finally:
        process.terminate()
        assert process.wait(SECONDS) == 0
    assert not path.exists()


def test_status_is_readable(short_dir: Path) -> None:
    """``sockact status`` shows sockets, services and processes as tables."""
    listen = ["--listen", f"web=tcp:127.0.0.1:{free_port()}"]
    with supervisor(
        short_dir, *listen, "--", *server("--notify", "READY=1,STATUS=all well")
    ) as sup:
        sup.until(lambda: "all well" in sup.ask("status").stdout)
        done = sup.ask("status")
        lines = done.stdout.splitlines()
        assert lines[0].startswith(f"{sup.path}: pid {sup.process.pid}, serving, generation 1, up ")
        assert lines[1].split()[:3] == ["SOCKET", "UNIT", "STATE"]
        assert "0/" in lines[2]
        assert lines[3].split()[:3] == ["SERVICE", "STATE", "PID"]
        assert "running" in lines[4]
        for command in ("status", "replace", "start"):
            done = sup.ask(command, "none.service")
            assert (done.returncode, done.stderr.count("\n")) == (66, 1)


def test_environment(short_dir: Path) -> None:
    """A service gets the environment of the supervisor; with --clean-env only what it asks for."""
    port = free_port()
    listen = ["--listen", f"web=tcp:127.0.0.1:{port}"]
    extra = {"COLOUR": "blue", "SHAPE": "round"}
    with supervisor(short_dir, *listen, "-E", "SIZE=9", "--", *server(), environ=extra):
        environ = json.loads(get(("127.0.0.1", port), "/environ")[1])
        assert (environ["COLOUR"], environ["SIZE"]) == ("blue", "9")
        assert "SOCKACT_GENERATION" in environ
    options = ["--clean-env", "-S", "PassEnvironment=COLOUR PYTHONPATH", *listen]
    with supervisor(short_dir, *options, "--", *server(), environ=extra, name="clean"):
        environ = json.loads(get(("127.0.0.1", port), "/environ")[1])
        assert environ["COLOUR"] == "blue"
        assert "SHAPE" not in environ


def test_fields(short_dir: Path) -> None:
    """{fd:NAME} and the like are replaced in a command, as by ``sockact exec``."""
    mark = short_dir / "mark"
    port = free_port()
    script = f"import sys; open({str(mark)!r}, 'w').write(' '.join(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "{fd:web}", "{port:web}", "{address:web}"]
    listen = ["--listen", f"web=tcp:127.0.0.1:{port}"]
    with supervisor(short_dir, "--restart", "no", *listen, "--", *command) as sup:
        sup.until(lambda: mark.exists() and mark.read_text())
        assert mark.read_text() == f"3 {port} 127.0.0.1:{port}"


def test_port_of_the_kernels_choice(short_dir: Path) -> None:
    """A port that the kernel chooses stays the same over a replacement, and is told."""
    listen = ["--listen", LISTEN]
    with supervisor(short_dir, *listen, "--", *server()) as sup:
        (unit,) = sup.report()["units"]
        host, _, port = unit["listeners"][0]["address"].rpartition(":")
        address = (host, int(port))
        environ = json.loads(get(address, "/environ")[1])
        assert environ["SOCKACT_PORT_WEB"] == port
        assert sup.ask("replace").returncode == 0
        assert get(address, "/pid")[1] != environ["LISTEN_PID"]


def test_watch(short_dir: Path) -> None:
    """``sockact status --watch --json`` prints a line again and again, until Ctrl-C."""
    with supervisor(short_dir, "--", "sleep", "60") as sup:
        command = [*SOCKACT, "status", "--watch", "--json", str(sup.path)]
        with subprocess.Popen(command, env=clean_environ(), stdout=subprocess.PIPE) as process:
            assert process.stdout
            for _ in range(2):
                assert json.loads(process.stdout.readline())["pid"] == sup.process.pid
            process.send_signal(signal.SIGINT)
            process.stdout.read()
        assert process.returncode == 130


def test_several(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path, who does not answer, or has no such unit, hides nobody, and is not nobody."""
    given = {"timeout": 3.0, "owners": ()}
    listen = ["--listen", f"web=tcp:127.0.0.1:{free_port()}"]
    silent, none = short_dir / "silent.rdv", short_dir / "none.rdv"
    with (
        supervisor(short_dir, *listen, "--", *server()) as sup,
        supervisor(short_dir, "-S", "Type=exec", "--", "sleep", "60", name="sleep", path=silent),
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as hung,
    ):
        here = [str(silent), str(sup.path)]
        monkeypatch.setattr(control, "paths", lambda _: here)
        assert [path for path, _ in control.reports([], given)] == here
        name = sup.report()["services"][0]["name"]
        assert [path for path, _ in control.reports([name], given)] == here[1:]
        with pytest.raises(click.exceptions.Exit) as ended, click.Context(click.Command("status")):
            control.reports(["none.service"], given)
        assert ended.value.exit_code == 66
        hung.bind(str(none))
        hung.listen()
        here.append(str(none))
        assert [path for path, _ in control.reports([], given)] == here[:2]
        here[:2] = []
        with pytest.raises(RendezvousError, match="does not answer"):
            control.reports([], given)
        assert control.only(None) == str(none)
        here.clear()
        assert control.reports([], given) == []
        with pytest.raises(OwnerNotFoundError):
            control.reports([name], given)
