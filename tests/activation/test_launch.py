"""sockact.activation.launch: what can be seen without becoming another program."""

import os
import pwd
from pathlib import Path

import pytest

from sockact.activation.launch import prepare
from sockact.activation.program import find_program, identity
from sockact.errors import CredentialsError, LaunchError


def _program(path: Path, mode: int = 0o755) -> Path:
    path.write_text("#!/bin/sh\n", encoding="ascii")
    path.chmod(mode)
    return path


def test_find_program_as_execvp_does(tmp_path: Path) -> None:
    """The first executable file of PATH wins; files that are not executable are passed over."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    _program(tmp_path / "a" / "prog", 0o644)
    (tmp_path / "b" / "prog").mkdir()
    wanted = _program(tmp_path / "c" / "prog")
    search = f"{tmp_path}/a:{tmp_path}/b:{tmp_path}/missing:{tmp_path}/c"
    assert find_program("prog", search) == str(wanted)


def test_relative_program_is_found_in_its_directory(tmp_path: Path) -> None:
    """A path with a slash is relative to the directory that will be changed to."""
    _program(tmp_path / "prog")
    assert find_program("./prog", "", str(tmp_path)) == "./prog"


@pytest.mark.parametrize(
    ("program", "number", "message"),
    [
        ("no-such-program", 2, "no such program in PATH"),
        ("/no/such/program", 2, "no such program"),
        ("/etc/passwd", 13, "not executable"),
        ("/etc", 13, "not executable"),
        ("", 2, "the name of the program is empty"),
    ],
)
def test_program_errors(program: str, number: int, message: str) -> None:
    """What cannot be run is said, with the reason, before anything is opened."""
    with pytest.raises(LaunchError, match=message) as caught:
        find_program(program, "/usr/bin:/bin")
    assert caught.value.errno == number


def test_identity() -> None:
    """A user brings groups and variables; a group alone changes only the group."""
    entry = pwd.getpwnam("daemon")
    who = identity("daemon", None)
    assert who
    assert (who.uid, who.gid) == (entry.pw_uid, entry.pw_gid)
    assert who.environ
    assert who.environ["HOME"] == entry.pw_dir
    assert identity(None, None) is None
    group = identity(None, "daemon")
    assert group
    assert (group.uid, group.environ) == (os.geteuid(), None)
    number = identity("54321", None)
    assert number
    assert (number.uid, number.gid, number.groups) == (54321, 54321, (54321,))


@pytest.mark.parametrize(
    ("name", "home", "shell", "expected"),
    [
        ("web", "/srv/web", "/bin/zsh", {"HOME": "/srv/web", "SHELL": "/bin/zsh"}),
        ("web", "/", "/usr/sbin/nologin", {}),
        ("web", "", "", {}),
        ("web", "/nonexistent", "/bin/false", {"HOME": "/nonexistent"}),
        ("nobody", "/home/nobody", "/bin/sh", {}),
    ],
)
def test_variables_of_a_user(
    name: str, home: str, shell: str, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no home and no shell is not set, and neither is anything of nobody's."""
    entry = pwd.struct_passwd((name, "x", 12, 34, "", home, shell))
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: entry)
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: entry)
    who = identity(name, None)
    assert who
    assert who.environ == {"USER": name, "LOGNAME": name, **expected}


@pytest.mark.parametrize(("user", "group"), [("no-such-user", None), (None, "no-such-group")])
def test_unknown_identity(user: str | None, group: str | None) -> None:
    """Unknown accounts are an error that names them."""
    with pytest.raises(CredentialsError, match="no-such-"):
        identity(user, group)


@pytest.mark.parametrize(
    ("directory", "message"), [("/no/such", "No such file"), ("/etc/passwd", "Not a directory")]
)
def test_unusable_directory(directory: str, message: str) -> None:
    """A directory that cannot be changed to is an error before anything is opened."""
    with pytest.raises(LaunchError, match=message):
        prepare(["true"], environ=os.environ, directory=directory)
