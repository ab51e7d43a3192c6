"""``sockact exec``, run as a person runs it."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import (
    ROOT,
    SECONDS,
    SOCKACT,
    clean_environ,
    free_port,
    run,
    running,
    wait_until_accepting,
)

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
TCP = ("--listen", "web=tcp:127.0.0.1:0")

# What a program sees of its activation, as JSON.
REPORT = """
import json, os, signal, sys
fds = {}
for name in os.listdir("/proc/self/fd"):
    try: fds[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    except OSError: pass
status = dict(l.split(":", 1) for l in open("/proc/self/status") if ":" in l)
json.dump({
    "pid": os.getpid(), "ppid": os.getppid(), "argv": sys.argv[1:], "cwd": os.getcwd(),
    "environ": dict(os.environ), "fds": fds, "blocking": {n: os.get_blocking(n) for n in fds
        if fds[n].startswith("socket")},
    "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
    "ignored": int(status["SigIgn"], 16), "blocked": int(status["SigBlk"], 16),
    "caps": int(status["CapPrm"], 16),
}, sys.stdout)
"""


@pytest.fixture
def report(tmp_path: Path) -> list[str]:
    """Give the command line of a program that reports what it got."""
    path = tmp_path / "report.py"
    path.write_text(REPORT, encoding="utf-8")
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.owner() == pwd.getpwuid(os.geteuid()).pw_name and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    return ["/usr/bin/python3", "-I", "-S", str(path)]


def _seen(*arguments: str, **more: Any) -> dict[str, Any]:
    done = run("exec", *arguments, **more)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# --- what the program gets ------------------------------------------------------------------------


def test_the_protocol(report: list[str], short_dir: Path) -> None:
    """Descriptors from 3 in order, their names and count, and the program's own process id."""
    process = subprocess.Popen(
        [*SOCKACT, "exec", *TCP, "-l", f"u=unix:{short_dir}/s", "-l", f"fifo:{short_dir}/f",
         "--", *report],
        env=clean_environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    stdout, _ = process.communicate(timeout=SECONDS)
    seen = json.loads(stdout)
    environ = seen["environ"]
    assert seen["pid"] == process.pid == int(environ["LISTEN_PID"])
    assert environ["LISTEN_FDS"] == "3"
    assert environ["LISTEN_FDNAMES"] == "web:u:f"
    kinds = {number: what.partition(":")[0] for number, what in seen["fds"].items()}
    assert kinds.keys() == {"0", "1", "2", "3", "4", "5"}
    assert [kinds[n] for n in "34"] == ["socket", "socket"]
    assert seen["fds"]["5"] == f"{short_dir}/f"
    assert seen["blocking"]["3"]
    if "LISTEN_PIDFDID" in environ:
        assert int(environ["LISTEN_PIDFDID"]) > 0


def test_nothing_else_is_inherited(report: list[str]) -> None:
    """Descriptors that sockact inherited beside standard input, output and error are not passed."""
    command = [*SOCKACT, "exec", *TCP, "--", *report]
    with open(os.devnull, "rb") as one, open(os.devnull, "rb") as two:
        os.set_inheritable(one.fileno(), True)
        done = subprocess.run(
            command,
            env=clean_environ(),
            pass_fds=(one.fileno(), two.fileno()),
            capture_output=True,
            check=True,
        )
    assert json.loads(done.stdout)["fds"].keys() == {"0", "1", "2", "3"}


def test_signals_are_as_a_program_expects_them(report: list[str]) -> None:
    """SIGPIPE and SIGXFSZ, which Python ignores, have their default action; nothing is blocked."""
    seen = _seen(*TCP, "--", "sh", "-c", 'cat /proc/self/status >&2; exec "$@"', "sh", *report)
    done = run("exec", *TCP, "--", "cat", "/proc/self/status")
    status = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    assert int(status["SigIgn"], 16) & (1 << 12 | 1 << 24) == 0
    assert seen["blocked"] == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_stdio_is_tolerated(closed: str, tmp_path: Path) -> None:
    """Sockets do not land on closed standard descriptors, which become /dev/null."""
    inner = "for n in 0 1 2 3; do readlink /proc/$$/fd/$n; done"
    command = (
        f"{' '.join(SOCKACT)} exec --listen tcp:0 -- sh -c '({inner}) > {tmp_path}/o' {closed}"
    )
    subprocess.run(
        ["sh", "-c", command], env=clean_environ(), check=True, stderr=subprocess.DEVNULL
    )
    lines = (tmp_path / "o").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    assert lines[3].startswith("socket:")
    assert not any(line.startswith("socket:") for line in lines[:3])
    for number, redirection in enumerate(("<&-", ">&-", "2>&-")):
        if redirection in closed.split():
            assert lines[number] == "/dev/null"


def test_names_by_default(report: list[str], short_dir: Path) -> None:
    """Without a name a listener is named after its scheme and port, or its file."""
    arguments = [f"unix:{short_dir}/app.sock", "tcp:127.0.0.1:0", "unix:@abstract", "netlink:route"]
    seen = _seen(*(word for text in arguments for word in ("-l", text)), "--", *report)
    environ = seen["environ"]
    assert environ["LISTEN_FDNAMES"] == "app.sock:tcp-0:@abstract:netlink-route"


def test_a_unit_gives_its_name(report: list[str], short_dir: Path) -> None:
    """All descriptors of a unit carry its full name, or its FileDescriptorName=."""
    unit = short_dir / "web.socket"
    unit.write_text(f"[Socket]\nListenStream={short_dir}/s\nListenStream=@sockact-name\n")
    for more, name in (("", "web.socket"), ("FileDescriptorName=api\n", "api")):
        unit.write_text(unit.read_text() + more)
        environ = _seen(str(unit), "--", *report)["environ"]
        assert isinstance(environ, dict)
        assert environ["LISTEN_FDNAMES"] == f"{name}:{name}"


def test_non_blocking(report: list[str]) -> None:
    """O_NONBLOCK is clear, and set with NonBlocking=yes."""
    assert _seen(*TCP, "--", *report)["blocking"] == {"3": True}
    assert _seen(*TCP, "-p", "NonBlocking=yes", "--", *report)["blocking"] == {"3": False}


# --- the environment ------------------------------------------------------------------------------


def test_setenv_and_clean_env(report: list[str]) -> None:
    """Variables are set, passed on or left out; --clean-env keeps only what all programs want."""
    environ = {"OUTER": "1", "DROPPED": "2", "LANG": "C.UTF-8"}
    seen = _seen(
        *TCP, "--clean-env", "-E", "OUTER", "--setenv=NEW=a=b", "--environment", "NONE", "--",
        *report, environ=environ,
    )["environ"]  # fmt: skip
    assert (seen["OUTER"], seen["NEW"]) == ("1", "a=b")
    assert not {"DROPPED", "NONE", "LANG"} & seen.keys()
    assert "PATH" in seen
    seen = _seen(*TCP, "-E", "DROPPED=", "--", *report, environ=environ)["environ"]
    assert (seen["OUTER"], seen["DROPPED"]) == ("1", "")


def test_path_of_the_program_is_looked_up_in_its_own_environment(tmp_path: Path) -> None:
    """--setenv PATH=… decides where the program is found."""
    program = tmp_path / "only-here"
    program.write_text("#!/bin/sh\necho found\n", encoding="ascii")
    program.chmod(0o755)
    done = run("exec", *TCP, "-E", f"PATH={tmp_path}:{os.environ['PATH']}", "--", "only-here")
    assert done.stdout == "found\n"


def test_chdir(report: list[str], tmp_path: Path) -> None:
    """The program runs in the directory, and a relative program is found there."""
    assert _seen(*TCP, "--chdir", str(tmp_path), "--", *report)["cwd"] == str(tmp_path)
    script = tmp_path / "script"
    script.write_text("echo no interpreter line, $LISTEN_FDS\n", encoding="ascii")
    script.chmod(0o755)
    done = run("exec", *TCP, "--chdir", str(tmp_path), "--", "./script")
    assert done.stdout == "no interpreter line, 1\n"


# --- port 0 and substitution ----------------------------------------------------------------------


def test_chosen_port_is_printed_and_exported(report: list[str]) -> None:
    """The port that the kernel chose is said on stderr, exported, and known to the command."""
    done = run("exec", "-l", "my-web=tcp:127.0.0.1:0", "--", *report, "{port:my-web}", "{address}")
    seen = json.loads(done.stdout)
    port = seen["environ"]["SOCKACT_PORT_MY_WEB"]
    assert seen["argv"] == [port, f"127.0.0.1:{port}"]
    assert done.stderr == f"sockact: my-web: Stream 127.0.0.1:{port} is descriptor 3\n"


def test_fixed_ports_are_not_worth_a_word() -> None:
    """Nothing is printed for a fixed port, unless --verbose asks for it."""
    listen = f"tcp:127.0.0.1:{free_port()}"
    assert run("exec", "-l", listen, "--", "true").stderr == ""
    assert listen[4:] in run("exec", "-l", listen, "-v", "--", "true").stderr


def test_substitution(report: list[str], short_dir: Path) -> None:
    """Fields anywhere in the command become numbers and addresses."""
    seen = _seen(
        *TCP, "-l", f"u=unix:{short_dir}/s", "--", *report, "--fd={fd:u}", "{address:u}", "{{fd:u}"
    )
    assert seen["argv"] == ["--fd=4", f"{short_dir}/s", "{fd:u}"]


# --- inheriting -----------------------------------------------------------------------------------


def test_nesting(report: list[str]) -> None:
    """Inherited sockets come first and keep their names; new ones follow."""
    inner = [*SOCKACT, "exec", "-l", "inner=tcp:127.0.0.1:0", "--", *report, "{{fd:web}"]
    done = run("exec", *TCP, "--", *inner)
    seen = json.loads(done.stdout)
    assert seen["environ"]["LISTEN_FDNAMES"] == "web:inner"
    assert seen["environ"]["LISTEN_FDS"] == "2"
    assert seen["argv"] == ["3"]  # the outer one left {fd:web} to the inner one


def test_nesting_without_new_sockets(report: list[str]) -> None:
    """Inherited sockets alone are enough."""
    seen = json.loads(run("exec", *TCP, "--", *SOCKACT, "exec", "--", *report).stdout)
    assert seen["environ"]["LISTEN_FDNAMES"] == "web"


def test_inherited_flags_are_left_alone(report: list[str]) -> None:
    """O_NONBLOCK of an inherited socket stays, since somebody else may serve it."""
    done = run("exec", *TCP, "-p", "NonBlocking=yes", "--", *SOCKACT, "exec", "--", *report)
    assert json.loads(done.stdout)["blocking"] == {"3": False}


def test_malformed_inheritance_is_one_line() -> None:
    """LISTEN_* that are meant for us but wrong are an error, not a guess."""
    script = f"export LISTEN_PID=$$ LISTEN_FDS=none; exec {' '.join(SOCKACT)} exec -- true"
    done = subprocess.run(
        ["sh", "-c", script], env=clean_environ(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "sockact: error: LISTEN_FDS: 'none' is not a number\n"


# --- lazy and inetd -------------------------------------------------------------------------------


def test_lazy_starts_at_the_first_connection(short_dir: Path) -> None:
    """The program is started by traffic, not before, and serves what started it."""
    code = (
        "import socket; s = socket.socket(fileno=3);"
        f"open('{short_dir}/started', 'w').close(); c, _ = s.accept(); c.sendall(b'hello')"
    )
    path = f"{short_dir}/s"
    command = [*SOCKACT, "exec", "--lazy", "-l", f"unix:{path}", "--", sys.executable, "-c", code]
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(f"{short_dir}/notify")
    manager.settimeout(SECONDS)
    with manager, running(command, environ={"NOTIFY_SOCKET": f"{short_dir}/notify"}) as process:
        assert manager.recv(100) == b"READY=1"
        time.sleep(0.2)
        assert not (short_dir / "started").exists()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            assert client.recv(100) == b"hello"
        assert process.wait(SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_lazy_interrupted_leaves_nothing(short_dir: Path, number: signal.Signals) -> None:
    """A signal while waiting ends with 128 and its number, without a word, and removes the node."""
    command = [*SOCKACT, "exec", "--lazy", "-l", f"unix:{short_dir}/s", "--", "true"]
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(f"{short_dir}/notify")
    manager.settimeout(SECONDS)
    with manager, running(command, environ={"NOTIFY_SOCKET": f"{short_dir}/notify"}) as process:
        assert manager.recv(100) == b"READY=1"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=SECONDS)
    assert (process.returncode, stderr.strip()) == (128 + number, "")
    assert not (short_dir / "s").exists()


@pytest.mark.parametrize(("command", "status"), [(["no-such"], 127), (["true", "{fd:x}"], 2)])
def test_lazy_checks_the_command_first(short_dir: Path, command: list[str], status: int) -> None:
    """What is wrong with the command is said at once, not at the first connection."""
    done = run("exec", "--lazy", "-l", f"unix:{short_dir}/s", "--", *command)
    assert done.returncode == status
    assert not (short_dir / "s").exists()


def test_inetd() -> None:
    """The socket is standard input and output, stderr stays, and LISTEN_* are absent."""
    code = (
        "import os, sys; print(os.readlink('/proc/self/fd/0') == os.readlink('/proc/self/fd/1'),"
        " [v for v in os.environ if v.startswith('LISTEN_')], len(os.listdir('/proc/self/fd')),"
        " file=sys.stderr)"
    )
    done = run(
        "exec", "-l", f"tcp:127.0.0.1:{free_port()}", "--inetd", "--", sys.executable, "-c", code
    )
    assert done.stderr == "True [] 4\n"


def test_inetd_serves_a_connection() -> None:
    """A program that accepts on standard input serves."""
    port = free_port()
    code = (
        "import socket; s = socket.socket(fileno=0); c, _ = s.accept(); c.sendall(b'hi'); c.close()"
    )
    command = [*SOCKACT, "exec", "-l", f"127.0.0.1:{port}", "--inetd", "--lazy", "--"]
    with running([*command, sys.executable, "-c", code]) as process:
        deadline = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
                    assert client.recv(10) == b"hi"
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.wait(SECONDS)


# --- who it runs as -------------------------------------------------------------------------------


@ROOT_ONLY
def test_user(report: list[str]) -> None:
    """Root binds, then the program runs as another user, with nothing left of root."""
    entry = pwd.getpwnam("nobody")
    seen = _seen("-l", "tcp:127.0.0.1:443", "--user", "nobody", "--", *report)
    uids, gids, groups = seen["ids"]
    assert uids == [entry.pw_uid] * 3
    assert gids == [entry.pw_gid] * 3
    assert 0 not in groups
    assert seen["caps"] == 0
    environ = seen["environ"]
    assert environ["USER"] == "nobody"
    assert "HOME" not in environ  # what nobody has there is none (systemd.exec(5))


@ROOT_ONLY
def test_group(report: list[str]) -> None:
    """--group alone changes the group; with --user it replaces that user's own."""
    import grp

    gid = grp.getgrnam("daemon").gr_gid
    for more, uid in ((("-g", "daemon"), 0), (("-u", "nobody", "-g", "daemon"), 65534)):
        uids, gids, _ = _seen(*TCP, *more, "--", *report)["ids"]
        assert (uids[0], gids) == (uid, [gid] * 3)


@ROOT_ONLY
def test_failed_exec_as_another_user_undoes_root_made_nodes(short_dir: Path) -> None:
    """When execve() itself fails after the change of user, the node is removed all the same."""
    broken = short_dir / "broken"
    broken.write_text("#!/no/such/interpreter\n", encoding="ascii")
    broken.chmod(0o755)
    done = run("exec", "-l", f"unix:{short_dir}/x/s", "-u", "nobody", "--", str(broken))
    assert done.returncode == 126
    assert "the interpreter or loader that it asks for is missing" in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(p.name for p in short_dir.iterdir()) == ["broken"]


@ROOT_ONLY
def test_ordinary_user_cannot_become_another(short_dir: Path) -> None:
    """Without root, --user is one clear error, and nothing stays bound."""
    short_dir.chmod(0o777)
    code = (
        "import os, sys; sys.argv[1:] = ['exec', '-l', sys.argv[1], '-u', 'daemon', '--', 'true']\n"
        "import sockact.cli, sockact.cli.exec, sockact.activation.launch, sockact.library, pwd\n"
        "import sockact.fd.account, signal, difflib, grp\n"
        "os.setgid(65534); os.setuid(65534); sockact.cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"unix:{short_dir}/s"],
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "this needs root" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (short_dir / "s").exists()


# --- systemd-socket-activate's spellings ----------------------------------------------------------


def test_only_the_name_changes(short_dir: Path) -> None:
    """Command lines of systemd-socket-activate work: -l ADDRESS, -d, --seqpacket, --fdname, -E."""
    port = free_port()
    show = ["sh", "-c", "echo $LISTEN_FDS $LISTEN_FDNAMES $A"]
    for arguments, expected in (
        (["-l", f"127.0.0.1:{port}", "--now"], f"1 tcp-{port}"),
        (["-l", f"{short_dir}/a", "-l", f"127.0.0.1:{port}", "--fdname=x:y"], "2 x:y"),
        (["--listen", f"{short_dir}/b", "--listen=@sockact-b", "--fdname", "one"], "2 one:one"),
        (["-d", "-l", f"127.0.0.1:{port}", "-E", "A=7"], f"1 udp-{port} 7"),
        (["--seqpacket", "-l", f"{short_dir}/c", "--fdname=a", "-EA=8"], "1 a 8"),
    ):
        done = run("exec", *arguments, *show)
        assert (done.stdout.strip(), done.stderr) == (expected, ""), arguments


@pytest.mark.skipif(
    not shutil.which("systemd-socket-activate"),
    reason="systemd-socket-activate is not installed",
)
def test_same_as_systemd_socket_activate(report: list[str], short_dir: Path) -> None:
    """The same arguments give the program the same activation as the original."""
    results: list[object] = []
    for launcher in (["systemd-socket-activate"], [*SOCKACT, "exec", "--lazy", "--clean-env"]):
        port = free_port()
        arguments = ["-l", f"127.0.0.1:{port}", "-l", f"{short_dir}/{len(results)}", "--fdname=a:b"]
        with running([*launcher, *arguments, "-E", "X=1", *report]) as process:
            deadline = time.monotonic() + SECONDS
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port), SECONDS).close()
                    break
                assert time.monotonic() < deadline
                time.sleep(0.02)
            stdout, _ = process.communicate(timeout=SECONDS)
        seen = json.loads(stdout)
        environ = seen["environ"]
        assert int(environ.pop("LISTEN_PID")) == seen["pid"]
        environ.pop("LISTEN_PIDFDID", None)
        environ.pop("LC_CTYPE", None)
        kinds = {n: what.partition(":")[0] for n, what in seen["fds"].items() if n != "2"}
        results.append((environ, kinds["3"], kinds["4"], len(kinds), seen["blocking"]))
    assert results[0] == results[1]


# --- where options end ----------------------------------------------------------------------------


def test_options_end_at_the_program() -> None:
    """Options behind the program are the program's, with and without --."""
    for dashes in ([], ["--"]):
        done = run("exec", *TCP, *dashes, "echo", "-l", "--help", "--", "x.socket")
        assert done.stdout == "-l --help -- x.socket\n"


def test_options_may_stand_between_units(short_dir: Path) -> None:
    """Units and options mix freely before the program."""
    for name in ("a", "b"):
        (short_dir / f"{name}.socket").write_text(f"[Socket]\nListenStream={short_dir}/{name}\n")
    done = run("exec", f"{short_dir}/a.socket", "-p", "SocketMode=0600", f"{short_dir}/b.socket",
               "-l", "c=unix:@sockact-c", "--", "sh", "-c", "echo $LISTEN_FDNAMES")  # fmt: skip
    assert done.stdout == "a.socket:b.socket:c\n"


# --- print ----------------------------------------------------------------------------------------


def test_print(short_dir: Path) -> None:
    """--print shows every listener in a table or as JSON, and opens nothing."""
    unit = short_dir / "web.socket"
    unit.write_text(f"[Socket]\nListenStream={short_dir}/s\nBacklog=7\n", encoding="utf-8")
    arguments = [str(unit), "-l", "x=tcp:127.0.0.1:80-81?NoDelay=yes", "--print"]
    table = run("exec", *arguments).stdout.splitlines()
    assert table[0].split() == ["FD", "NAME", "KIND", "ADDRESS", "DIRECTIVES", "FROM"]
    assert table[1].split() == [
        "3",
        "web.socket",
        "Stream",
        f"{short_dir}/s",
        "Backlog=7",
        f"{unit}:2:1",
    ]
    assert len(table) == 4
    assert (
        len({line.index(word) for line, word in zip(table[1:], ["Stream"] * 3, strict=True)}) == 1
    )
    found = json.loads(run("exec", *arguments, "--json").stdout)
    assert found[2] == {
        "fd": 5,
        "name": "x",
        "kind": "Stream",
        "address": "127.0.0.1:81",
        "directives": {"NoDelay": "yes"},
        "origin": "x=tcp:127.0.0.1:80-81?NoDelay=yes",
    }
    assert not (short_dir / "s").exists()


def test_print_shows_what_is_inherited() -> None:
    """Inherited sockets stand first in the table."""
    done = run("exec", *TCP, "--", *SOCKACT, "exec", "--print", "-l", "tcp:127.0.0.1:80")
    lines = done.stdout.splitlines()
    assert lines[1].split()[:3] == ["3", "web", "Stream"]
    assert lines[1].endswith("inherited")
    assert lines[2].split()[:2] == ["4", "tcp-80"]


# --- what is wrong --------------------------------------------------------------------------------


def _unit(directory: Path, text: str) -> str:
    path = directory / "web.socket"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--", "true"], 2, "nothing to listen on"),
        (["-l", "tcp:80"], 2, "no program to run"),
        (["-l", "tcp:80", "--"], 2, "no program to run"),
        (["-l", "tpc:80", "--", "true"], 2, "did you mean tcp:80?"),
        (["-l", "tcp:80?Backlog=x", "--", "true"], 2, "at 'Backlog=x' (character 8)"),
        (["-l", "", "--", "true"], 2, "is not a port"),
        (["--lisen", "tcp:80", "--", "true"], 2, "--listen"),
        (["-l"], 2, "requires an argument"),
        (["-l", "tcp:80", "--json", "--", "true"], 2, "--json goes with --print"),
        (["-d", "--seqpacket", "-l", "80", "--", "true"], 2, "exclude each other"),
        (["-l", "tcp:0", "-p", "Backlog", "--", "true"], 2, "is not Directive=Value"),
        (["-l", "tcp:0", "-p", "Accept=yes", "--", "true"], 2, "Accept= has no effect here"),
        (["-l", "tcp:0", "--fdname", "a:b", "--", "true"], 2, "2 names for 1 listeners"),
        (["-l", "tcp:0", "--fdname", "\x07", "--", "true"], 2, "is not an fd name"),
        (["-l", "tcp:0", "-E", "=x", "--", "true"], 2, "--setenv '=x'"),
        (["-l", "tcp:0", "--", "true", "{fd:x}"], 2, "no such socket; there are: tcp-0"),
        (["-l", "tcp:0", "-l", "tcp:0", "--inetd", "--", "true"], 2, "exactly one socket"),
        (["-l", "tcp:0", "-u", "no-such-user", "--", "true"], 2, "no user 'no-such-user'"),
        (
            ["-l", "tcp:0", "--chdir", "/no/such", "--", "true"],
            1,
            "cannot change to the directory /no/such",
        ),
        (["-l", "udp:0", "--accept", "--", "true"], 78, "nothing can be accepted on udp-0"),
        (["-l", "tcp:0", "--", "no-such-program"], 127, "no such program in PATH"),
        (["-l", "tcp:0", "--", "/etc/passwd"], 126, "not executable"),
        (["-l", "tcp:192.0.2.1:80", "--", "true"], 1, "no interface here has 192.0.2.1"),
        (["-l", "tcp:no-such-host.invalid:80", "--", "true"], 1, "getaddrinfo"),
        (["no-such.socket", "--", "true"], 66, "no such socket unit"),
        (["./no/such.socket", "--", "true"], 66, "no such socket unit"),
        (["web@.socket", "--", "true"], 66, "web@.socket"),
    ],
)
def test_errors(arguments: list[str], status: int, message: str) -> None:
    """Bad input is one line on stderr with a documented status, and no traceback."""
    done = run("exec", *arguments)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("sockact: error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("", 66, "masked"),
        ("[Socket]\n", 78, "no listener left"),
        ("[Socket\nListenStream=80\n", 78, "web.socket:1:1: invalid section header '[Socket'"),
        ("[Socket]\nListenStream=\udcff\n", 78, "web.socket:2:14: byte 0xff is not UTF-8"),
        ("[Socket]\nListenStream=@x\nMaxConnections=0\n", 78, "web.socket:3:1: MaxConnections=0"),
        ("[Socket]\nListenStream=80\nSymlinks=/x\n", 78, "web.socket:3:1: Symlinks="),
        ("[Socket]\nListenStream=@x\nSocketUser=a:b\n", 78, "web.socket:3:12: SocketUser="),
    ],
)
def test_refused_units(short_dir: Path, text: str, status: int, message: str) -> None:
    """A unit that is refused is one line with file, line and column."""
    done = run("exec", _unit(short_dir, text), "--", "true")
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_warnings_do_not_stop(short_dir: Path) -> None:
    """What is ignored is said, one line each, and the program runs."""
    text = "[Socket]\nListenStream=@sockact-warn\nBacklogg=1\nNoDelay=maybe\nMaxConnections=3\n"
    done = run("exec", _unit(short_dir, text), "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    lines = done.stderr.splitlines()
    assert [line.split(":")[1] for line in lines] == [" warning"] * 3
    keys = [next(word for word in line.split() if "=" in word).rstrip(":") for line in lines]
    assert keys == ["Backlogg=", "NoDelay=", "MaxConnections="]


def test_a_failure_leaves_nothing_bound(short_dir: Path) -> None:
    """When the second listener fails, the first is gone, and the one in the way is named."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = run(
            "exec", "-l", f"unix:{short_dir}/d/s", "-l", f"tcp:127.0.0.1:{port}", "--", "true"
        )
    assert done.returncode == 1
    assert f"port {port} is in use by" in done.stderr
    assert f"(pid {os.getpid()})" in done.stderr
    assert list(short_dir.iterdir()) == []


def test_too_large_an_environment_is_explained() -> None:
    """Ten thousand long names do not fit into one variable, and the error says so."""
    name = "n" * 200
    done = run("exec", "-l", f"{name}=tcp:127.0.0.82:24000-24999", "--", "true")
    assert done.returncode == 126
    assert "LISTEN_FDNAMES alone has" in done.stderr


def test_output_that_nobody_reads() -> None:
    """A closed pipe behind --print is no traceback."""
    script = f"{' '.join(SOCKACT)} exec -l tcp:1-3000 --print | head -n 1"
    done = subprocess.run(
        ["bash", "-c", script + '; echo "${PIPESTATUS[0]}"'],
        env=clean_environ(), capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] in ("0", "1")
    assert done.stderr == ""


def test_a_second_start_on_a_live_path(short_dir: Path) -> None:
    """While one program serves a path a second start is refused, and --replace takes it over."""
    path = f"{short_dir}/s"
    command = [*SOCKACT, "exec", "-l", f"unix:{path}", "--", "sleep", "60"]
    with running(command) as process:
        wait_until_accepting(path)
        done = run("exec", "-l", f"unix:{path}", "--", "true")
        assert done.returncode == 1
        assert f"(pid {process.pid})" in done.stderr
        assert run("exec", "-l", f"unix:{path}", "--replace", "--", "true").returncode == 0
    assert run("exec", "-l", f"unix:{path}", "--", "true").returncode == 0


def test_program_status_is_passed_through() -> None:
    """Since the program is the process, its status and its death are what the caller sees."""
    assert run("exec", *TCP, "--", "sh", "-c", "exit 7").returncode == 7
    assert run("exec", *TCP, "--", "sh", "-c", "kill -9 $$").returncode == -9


@ROOT_ONLY
def test_user_gets_none_of_roots_capabilities() -> None:
    """Ambient capabilities, which would pass an execve(), do not go to another user's program."""
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed")
    done = subprocess.run(
        ["setpriv", "--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service", *SOCKACT,
         "exec", "-l", "tcp:127.0.0.1:0", "--user", "nobody", "--",
         "/bin/grep", "^Cap[PEA]", "/proc/self/status"],
        env=clean_environ(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {line.split()[1] for line in done.stdout.splitlines()} == {"0" * 16}


@ROOT_ONLY
def test_setenv_wins_over_the_users_variables() -> None:
    """What is asked for by name is passed; an account without an entry has no home."""
    done = run("exec", "-l", "tcp:127.0.0.1:0", "--user", "nobody", "-E", "HOME=/x", "--", "env")
    assert "\nHOME=/x\n" in f"\n{done.stdout}"
    assert "\nUSER=nobody\n" in f"\n{done.stdout}"
    done = run("exec", "-l", "tcp:127.0.0.1:0", "--user", "54321", "--", "env")
    assert not {"HOME", "USER", "SHELL"} & {x.partition("=")[0] for x in done.stdout.splitlines()}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-l", "tcp:0", "-E", "LISTEN_FDNAMES=x", "--", "true"], 2, "sockact itself sets that"),
        (["-p", "Bogus=1", "--print"], 2, "there is none"),
        (["-l"], 2, "(see sockact exec --help)"),
        (["-l", "tcp:0", "--fdname", "", "--", "true"], 2, "empty"),
        (
            ["-l", "tcp:0", "--chdir", "/etc/passwd", "--", "true"],
            1,
            "/etc/passwd: Not a directory",
        ),
        (["-l", "tcp:0", "--", "true", "{fd:x:" + "9" * 5000 + "}"], 2, "no such socket"),
        (["-l", "tcp:0", "--user", "9" * 5000, "--", "true"], 2, "there is no user"),
        (["-l", "tcp:" + "a" * 64 + ".com:1", "--", "true"], 1, "is no host name"),
        (["-l", "mqueue:/a/b", "--", "true"], 1, "without slashes"),
        (["-l", "tcp:0", "-l", "tcp:0", "--inetd", "--", "true"], 2, "exactly one socket, not 2"),
    ],
)
def test_more_errors(arguments: list[str], status: int, message: str) -> None:
    """One line, and the status that the manual says."""
    done = run("exec", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1)
    assert message in done.stderr


def test_deleted_directory(tmp_path: Path) -> None:
    """A relative path where there is no directory any more is a plain error."""
    code = 'mkdir gone; cd gone; rmdir ../gone; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", code, "sh", *SOCKACT, "exec", "./x.socket", "true"], cwd=tmp_path,
        env=clean_environ({"PYTHONPATH": str(ROOT)}), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 66
    assert "the working directory does not exist any more" in done.stderr


def test_full_disk() -> None:
    """Output that cannot be written is an error, not an internal one."""
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run(
            [*SOCKACT, "exec", "-l", "tcp:1", "--print"], stdout=full, stderr=subprocess.PIPE,
            env=clean_environ(), text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "sockact: error: standard output: No space left on device\n"


def test_failed_inetd_gives_standard_input_and_output_back(tmp_path: Path) -> None:
    """A library's caller goes on with its own descriptors and signals."""
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such\n", encoding="ascii")
    broken.chmod(0o755)
    code = (
        "import os, signal, sockact\n"
        "before = os.fstat(0), os.fstat(1), signal.getsignal(signal.SIGPIPE)\n"
        f"command = sockact.prepare([{str(broken)!r}], environ={{}}, inetd=True)\n"
        "try: sockact.execute(command, sockact.listen('tcp:127.0.0.1:0'))\n"
        "except sockact.errors.LaunchError as error: print(error)\n"
        "assert before == (os.fstat(0), os.fstat(1), signal.getsignal(signal.SIGPIPE))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environ(), cwd=ROOT, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert "interpreter" in done.stdout


def test_a_unit_with_accept(tmp_path: Path) -> None:
    """It makes exec stay, and run the program for each connection; nothing in it is in vain."""
    address = ("127.0.0.1", free_port())
    unit = tmp_path / "each.socket"
    unit.write_text(
        f"[Socket]\nListenStream={address[0]}:{address[1]}\nAccept=yes\nMaxConnections=5\n",
        encoding="ascii",
    )
    command = [*SOCKACT, "exec", "--inetd", str(unit), "--", "cat"]
    with subprocess.Popen(
        command, env=clean_environ(), stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_until_accepting(address)
            for text in (b"one", b"two"):
                with socket.create_connection(address, SECONDS) as sock:
                    sock.sendall(text)
                    sock.shutdown(socket.SHUT_WR)
                    assert b"".join(iter(lambda: sock.recv(100), b"")) == text
        finally:
            process.terminate()
            _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert "no effect" not in said


def test_programs_of_accept_stay_in_the_session() -> None:
    """They are in our session and process group, so that a terminal reaches them."""
    port = free_port()
    script = "import os; print(os.getsid(0), os.getpgrp())"
    command = [*SOCKACT, "exec", "--accept", "--inetd", "-l", f"tcp:127.0.0.1:{port}", "--",
               sys.executable, "-c", script]  # fmt: skip
    with subprocess.Popen(
        command, env=clean_environ(), stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            wait_until_accepting(("127.0.0.1", port))
            with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
                said = b"".join(iter(lambda: sock.recv(100), b""))
        finally:
            process.terminate()
    assert said.split() == [b"%d" % process.pid] * 2
