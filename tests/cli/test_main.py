"""The ``sockact`` command as a whole."""

import subprocess
import sys
from pathlib import Path

import pytest

import sockact
from sockact import errors
from sockact.cli import exits, output
from tests.helpers import SOCKACT, clean_environ, run


def test_help() -> None:
    """--help shows the commands and the manual pages, on stdout."""
    done = run("--help")
    assert done.returncode == 0
    assert "exec     Open sockets and become a program that inherits them." in done.stdout
    assert "sockact-COMMAND(1)" in done.stdout
    assert run("exec", "-h").stdout.startswith(
        "Usage: sockact exec [OPTIONS] [UNIT.socket]... [--]"
    )


def test_version() -> None:
    """--version shows the name and the version."""
    assert run("--version").stdout == f"sockact {sockact.__version__}\n"


def test_without_arguments() -> None:
    """Without a command there is help on stderr, and the status is that of wrong use."""
    done = run()
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: sockact")


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["exce"]])
def test_unknown_commands_and_options(arguments: list[str]) -> None:
    """They are one line, and status 2."""
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("sockact: error: No such ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ListenTextError("m", "t", 0, 1), 2),
        (errors.SubstitutionError("m"), 2),
        (errors.CredentialsError("m"), 2),
        (errors.UnitNotFoundError("m", "p"), 66),
        (errors.UnitSyntaxError("m", "p"), 78),
        (errors.DirectiveError("m", "p"), 78),
        (errors.LaunchError("p", 2, "r"), 127),
        (errors.LaunchError("p", 13, "r"), 126),
        (errors.LaunchError("p", 1, "r"), 1),
        (errors.BindError("l", "bind", 98, "r"), 1),
        (errors.EnvironError("LISTEN_FDS", "m"), 1),
        (errors.NotifyError(1, "m"), 1),
    ],
)
def test_statuses(error: errors.SockactError, status: int) -> None:
    """Each error has its status, and each status a meaning in the manual."""
    assert exits.status_of(error) == status
    assert status in exits.MEANINGS


def test_printable() -> None:
    """Control characters and undecodable bytes cannot disturb a terminal or break a line."""
    assert output.printable("a\nb\x1b[1m\udcff é") == "a\\nb\\x1b[1m\\udcff é"


def test_undecodable_arguments_are_no_traceback() -> None:
    """Bytes that are not UTF-8 in arguments are handled like any other."""
    done = subprocess.run(
        [*SOCKACT, "exec", "-l", b"tcp:\xff", "--", "true"],
        env=clean_environ(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1


def test_internal_errors_are_one_line() -> None:
    """Even an error of our own is one line with status 70, unless SOCKACT_DEBUG asks for more."""
    code = (
        "import sys, sockact.library as l; sys.argv[1:] = ['exec', '-l', 'x', '--', 'true']\n"
        "l.parse_listen = lambda *a, **k: 1 / 0\n"
        "from sockact.cli import main; main()"
    )
    for environ, traceback in (({}, False), ({"SOCKACT_DEBUG": "1"}, True)):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=clean_environ(environ),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ("Traceback" in done.stderr) == traceback
        assert done.returncode == (1 if traceback else 70)
        assert "ZeroDivisionError" in done.stderr


def test_module_and_command_are_one() -> None:
    """``python -m sockact`` and the installed command say the same."""
    command = Path(sys.executable).with_name("sockact")
    if command.exists():
        installed = subprocess.check_output([command, "--version"], text=True)
        assert installed == run("--version").stdout
    assert exits.MEANINGS.keys() >= {0, 1, 2, 66, 70, 78, 126, 127, 130}


def test_interrupted_while_it_starts(tmp_path: Path) -> None:
    """Ctrl-C while modules are imported is no traceback either."""
    text = "import signal\nsignal.raise_signal(signal.SIGINT)\n"
    (tmp_path / "click.py").write_text(text)
    done = run("--version", environ={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
