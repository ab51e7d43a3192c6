"""``sockact put``, ``get`` and ``drop``, run as a person runs them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sockact.cli import exits
from tests.cli.holders import WEB, answer_of, holder, listed, port_of
from tests.helpers import ROOT, SECONDS, SOCKACT, clean_environ, get, run, running

# What a program sees of its activation.
REPORT = (
    "import json, os, socket, sys;"
    "fds = range(3, 3 + int(os.environ.get('LISTEN_FDS', 0)));"
    "json.dump([os.getpid(), os.environ.get('LISTEN_PID'), os.environ.get('LISTEN_FDNAMES'),"
    "[os.fstat(fd).st_ino for fd in fds], sorted(map(int, os.listdir('/proc/self/fd')))[:-1],"
    "os.getcwd(), sys.argv[1:]], sys.stdout)"
)
PROGRAM = ("/usr/bin/python3", "-I", "-S", "-c", REPORT)
FREE = ("-l", "tcp:127.0.0.1:0")


# --- put ------------------------------------------------------------------------------------------


def test_put_leaves_it_with_the_holder(short_dir: Path) -> None:
    """The set is the holder's, whole, under the name; the chosen port is told; the node stays."""
    path = str(short_dir / "r")
    with holder(path) as process:
        done = run("put", path, "app", "-l", "web=tcp:127.0.0.1:0", "-l", f"u=unix:{short_dir}/u")
        assert done.returncode == exits.OK
        found = listed(path)
        assert done.stderr == f"sockact: web: Stream {found[0]['address']}\n"
        assert [(one["set"], one["name"]) for one in found] == [("app", "web"), ("app", "u")]
        assert [[one["pid"] for one in each["held_by"]] for each in found] == [[process.pid]] * 2
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{short_dir}/u")


def test_put_of_what_was_inherited(short_dir: Path) -> None:
    """Sockets that were passed to sockact itself come first in the set."""
    path = str(short_dir / "r")
    with holder(path):
        inner = [*SOCKACT, "put", path, "app", "-l", "two=unix:@sockact-put-two"]
        done = run("exec", "-l", "one=tcp:127.0.0.1:0", "--", *inner)
        assert done.returncode == exits.OK, done.stderr
        assert [one["name"] for one in listed(path)] == ["one", "two"]


def test_put_of_a_name_in_use(short_dir: Path) -> None:
    """It is refused, and the node that was made is removed; --replace puts it in its place."""
    path = str(short_dir / "r")
    with holder(path, *WEB):
        before = listed(path)
        done = run("put", path, "web", "-l", f"unix:{short_dir}/u")
        assert done.returncode == exits.FAILURE
        assert done.stderr == (
            f"sockact: error: {path}: there is a set called 'web'; drop or replace it\n"
        )
        assert not (short_dir / "u").exists()
        assert listed(path) == before
        assert run("put", path, "web", *FREE, "--replace").returncode == exits.OK
        assert [one["set"] for one in listed(path)] == ["web"]
        assert listed(path)[0]["inode"] != before[0]["inode"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["x"], "nothing to put"),
        (["", *FREE], "the name of the set is empty"),
        (["a:b", *FREE], "'a:b' is not a name for a set"),
        ([], "Missing argument 'NAME'"),
        (["x", *FREE, "--timeout", "-1"], "'--timeout'"),
    ],
)
def test_wrong_puts(short_dir: Path, arguments: list[str], text: str) -> None:
    """What cannot be meant is an error of usage, before anybody is asked."""
    done = run("put", f"{short_dir}/r", *arguments)
    assert done.returncode == exits.USAGE
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_put_with_an_owner_that_is_no_holder(short_dir: Path) -> None:
    """Who serves takes nothing in, and says so."""
    code = (
        "import sockact, sys\n"
        "with sockact.offer(sys.argv[1], sockact.listen('web=tcp:127.0.0.1:0')):\n"
        "    print(flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, f"{short_dir}/r"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environ(),
    ) as owner:  # fmt: skip
        assert owner.stdout
        owner.stdout.readline()
        for command in (["put", f"{short_dir}/r", "x", *FREE], ["drop", f"{short_dir}/r", "web"]):
            done = run(*command)
            assert done.returncode == exits.FAILURE
            assert "only a holder takes" in done.stderr
        assert len(listed(short_dir / "r")) == 1
        owner.communicate(timeout=SECONDS)


@pytest.mark.parametrize(
    "command",
    [["put", "PATH", "x", *FREE], ["get", "PATH", "--", "true"], ["drop", "PATH", "x"],
     ["list", "PATH"], ["exec", "--from", "PATH", *FREE, "--", "true"]],
)  # fmt: skip
def test_nobody_there(short_dir: Path, command: list[str]) -> None:
    """Where nobody answers there is one line, and a status of its own."""
    path = f"{short_dir}/r"
    done = run(*[path if word == "PATH" else word for word in command])
    assert (done.returncode, done.stdout) == (exits.UNAVAILABLE, "")
    assert done.stderr == f"sockact: error: {path}: nobody listens there\n"
    assert os.listdir(short_dir) == []


# --- get ------------------------------------------------------------------------------------------


def test_the_protocol(short_dir: Path) -> None:
    """The program has sockact's process id, the descriptors from 3 on, and nothing else."""
    path = str(short_dir / "r")
    with holder(path, *WEB, "-l", "u=unix:@sockact-get-u"):
        inodes = {one["name"]: one["inode"] for one in listed(path)}
        process = subprocess.Popen(
            [*SOCKACT, "get", path, "u", "web", "--chdir", str(short_dir), "--", *PROGRAM,
             "{fd:web}", "{port:web}", "--timeout"],
            env=clean_environ(), stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        stdout, _ = process.communicate(timeout=SECONDS)
        pid, listen_pid, names, found, fds, directory, words = json.loads(stdout)
        assert pid == process.pid == int(listen_pid)
        assert names == "u:web"
        assert found == [inodes["u"], inodes["web"]]
        assert fds == [0, 1, 2, 3, 4]
        assert directory == str(short_dir)
        assert words == ["4", str(port_of(path)), "--timeout"]


def test_everything(short_dir: Path) -> None:
    """Without names it is everything, behind what was inherited."""
    path = str(short_dir / "r")
    with holder(path, *WEB, "-l", "u=unix:@sockact-get-all"):
        done = run("exec", "-l", "own=tcp:127.0.0.1:0", "--", *SOCKACT, "get", path, "--", *PROGRAM)
        assert json.loads(done.stdout)[2] == "own:web:u"


def test_the_environment(short_dir: Path) -> None:
    """--setenv, --clean-env and --inetd are those of exec."""
    path = str(short_dir / "r")
    with holder(path, *WEB):
        words = ["-E", "NEW=1", "--clean-env", "--inetd", "--", "/usr/bin/env"]
        # Standard output is the socket, which nobody can write to.
        script = ["--", "sh", "-c", "env >&2"]
        done = run("get", path, *words[:-2], *script, environ={"OTHER": "2"})
        assert "NEW=1" in done.stderr
        assert "OTHER" not in done.stderr
        assert "LISTEN_FDS" not in done.stderr
        assert done.returncode == exits.OK


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["nothing", "--", "true"], exits.NO_INPUT, "there is nothing called 'nothing'"),
        (["web"], exits.USAGE, "no program to run; write it behind --"),
        (["web", "--"], exits.USAGE, "no program to run; write it behind --"),
        (["web", "--", "no-such-program"], exits.NOT_FOUND, "no such program in PATH"),
        (["web", "u", "--inetd", "--", "true"], exits.USAGE, "exactly one socket, not 2"),
        (["web", "--", "echo", "{fd:nix}"], exits.USAGE, "nix"),
        (["web", "-E", "LISTEN_FDS=1", "--", "true"], exits.USAGE, "sockact itself sets that"),
        (["web", "--nonsense", "--", "true"], exits.USAGE, "No such option"),
        (["web", "--owner", "no-such-user", "--", "true"], exits.USAGE, "there is no user"),
    ],
)
def test_wrong_gets(short_dir: Path, arguments: list[str], status: int, text: str) -> None:
    """Each failure is one line with its status, and the holder has what it had."""
    path = str(short_dir / "r")
    with holder(path, *WEB, "-l", f"u=unix:@{short_dir.name}"):
        done = run("get", path, *arguments)
        assert done.returncode == status, done.stderr
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert len(listed(path)) == 2


def test_a_server_is_replaced(short_dir: Path) -> None:
    """One real server after another answers on the socket, and a client between them waits."""
    gunicorn = Path(sys.executable).with_name("gunicorn")
    if not gunicorn.exists():
        pytest.skip("gunicorn is not installed")
    app = short_dir / "app.py"
    app.write_text(
        "import os\n"
        "def app(environ, start):\n"
        "    start('200 OK', [])\n"
        "    return [os.environ['GENERATION'].encode()]\n",
        encoding="ascii",
    )
    path = str(short_dir / "r")
    with holder(path, *WEB):
        port = port_of(path)
        for generation in "12":
            command = [
                *SOCKACT, "get", path, "web", "--chdir", str(short_dir), "-E",
                f"GENERATION={generation}", "--", str(gunicorn), "app:app",
            ]  # fmt: skip
            with running(command) as server:
                assert get(("127.0.0.1", port)) == (200, generation)
                server.send_signal(signal.SIGTERM)
                server.wait(SECONDS)


def test_the_client_in_c_gets_the_same(short_dir: Path) -> None:
    """A client of the protocol that is not ours gets what a holder of ours has."""
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("there is no C compiler")
    program = str(short_dir / "get")
    source = str(ROOT / "examples" / "rendezvous_get.c")
    subprocess.run([compiler, "-o", program, source], check=True)
    with holder(short_dir / "r", *WEB):
        done = subprocess.run(
            [program, str(short_dir / "r"), "web", "--", *PROGRAM],
            env=clean_environ(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout)[2:4] == ["web", [listed(short_dir / "r")[0]["inode"]]]


# --- drop -----------------------------------------------------------------------------------------


def test_drop_closes_them(short_dir: Path) -> None:
    """The sets are gone and their ports free; the others stay."""
    path = str(short_dir / "r")
    with holder(path, *WEB, "-l", "one=tcp:127.0.0.1:0", "-l", "two=tcp:127.0.0.1:0"):
        port = port_of(path, "one")
        assert run("drop", path, "one", "two").returncode == exits.OK
        assert [one["set"] for one in listed(path)] == ["web"]
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_drop_is_all_or_nothing(short_dir: Path) -> None:
    """If one name is unknown, nothing is dropped."""
    path = str(short_dir / "r")
    with holder(path, *WEB):
        done = run("drop", path, "web", "nix")
        assert done.returncode == exits.NO_INPUT
        assert done.stderr == f"sockact: error: {path}: there is no set called 'nix'\n"
        assert len(listed(path)) == 1
        assert run("drop", path).returncode == exits.USAGE


# --- exec --from ----------------------------------------------------------------------------------

SERVE = (
    "import os, socket\n"
    "print(os.environ['LISTEN_FDNAMES'], os.environ['SOCKACT_PORT_OWN'], flush=True)\n"
    "for fd in (3, 4): socket.socket(fileno=fd).accept()[0].send(b'%d' % fd)\n"
)


def test_from_takes_and_opens(short_dir: Path) -> None:
    """What the holder has is taken, what it has not is opened, in the order of the definitions."""
    path = str(short_dir / "r")
    with holder(path, *WEB, "-l", "other=unix:@sockact-from-other"):
        port = port_of(path)
        command = [
            *SOCKACT, "exec", "--from", path, "-l", "own=tcp:127.0.0.1:0",
            "-l", f"web=tcp:127.0.0.1:{port}", "--", "/usr/bin/python3", "-c", SERVE,
        ]  # fmt: skip
        with running(command) as program:
            assert program.stdout
            names, own = program.stdout.readline().split()
            assert names == "own:web"
            assert answer_of(int(own)) == b"3"
            assert answer_of(port) == b"4"
            assert program.wait(SECONDS) == 0


def test_from_without_definitions(short_dir: Path) -> None:
    """Then it is everything that the holder has."""
    path = str(short_dir / "r")
    with holder(path, *WEB, "-l", "u=unix:@sockact-from-all"):
        done = run("exec", "--from", path, "--", *PROGRAM)
        assert json.loads(done.stdout)[2] == "web:u"


def test_from_takes_only_what_is_the_same(short_dir: Path) -> None:
    """Another name or another address is another socket, which is opened."""
    path = str(short_dir / "r")
    with holder(path, *WEB):
        inode = listed(path)[0]["inode"]
        words = ["-l", "web=unix:@sockact-from-web", "-l", "x=tcp:127.0.0.1:0"]
        done = run("exec", "--from", path, *words, "--", *PROGRAM)
        assert inode not in json.loads(done.stdout)[3]


def test_from_a_set_of_another_name(short_dir: Path) -> None:
    """A socket is found by its fd name, whatever its set is called, and the rest is left."""
    path = str(short_dir / "r")
    with holder(path):
        two = ["-l", "a=unix:@sockact-from-a", "-l", "b=unix:@sockact-from-b"]
        assert run("put", path, "set", *two).returncode == exits.OK
        done = run("exec", "--from", path, *two[2:], "--", *PROGRAM)
        assert json.loads(done.stdout)[2:5] == ["b", [listed(path)[1]["inode"]], [0, 1, 2, 3]]


def test_from_is_undone(short_dir: Path) -> None:
    """If what is missing cannot be opened, nothing of it stays, and the holder has what it had."""
    path = str(short_dir / "r")
    with holder(path, *WEB), socket.create_server(("127.0.0.1", 0)) as other:
        words = ["-l", f"u=unix:{short_dir}/u", "-l", f"x=tcp:127.0.0.1:{other.getsockname()[1]}"]
        done = run("exec", "--from", path, *words, "--", "true")
        assert done.returncode == exits.FAILURE
        assert "Address already in use" in done.stderr
        assert not (short_dir / "u").exists()
        assert len(listed(path)) == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--from", "/x", "--print"], "--print does not look at --from"),
        (["--owner", "0", "-l", "tcp:0", "--", "true"], "--owner goes with --from"),
    ],
)
def test_wrong_froms(arguments: list[str], text: str) -> None:
    """Options that make no sense together are an error of usage."""
    done = run("exec", *arguments)
    assert done.returncode == exits.USAGE
    assert text in done.stderr


def test_a_name_before_a_unit_of_that_name(short_dir: Path) -> None:
    """A set goes by its name without .socket, unless another set is called so."""
    path = str(short_dir / "r")
    with holder(path):
        assert run("put", path, "web.socket", "-l", "unit=unix:@sockact-a").returncode == exits.OK
        assert json.loads(run("get", path, "web", "--", *PROGRAM).stdout)[2] == "unit"
        assert run("put", path, "web", "-l", "text=unix:@sockact-b").returncode == exits.OK
        assert json.loads(run("get", path, "web", "--", *PROGRAM).stdout)[2] == "text"
