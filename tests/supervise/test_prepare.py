"""From definitions of services to processes: what tests/conformance shows only with systemd."""

import os
import pwd
import re
from collections.abc import Mapping
from typing import Any

import pytest

from sockact.activation.execution import Execution, Stream
from sockact.errors import LaunchError
from sockact.spec import Origin, ServiceSpec
from sockact.supervise.given import Given
from sockact.supervise.prepare import Preparer
from sockact.unitfile.command import parse_commands
from sockact.unitfile.service import override, read_setting

BASE = {"PATH": "/bin", "HOME": "/home/sockact", "USER": "sockact", "SHELL": "/bin/sh"}
NOTHING = Given()
PAIR = Given(("x", "x"), (11, 12), 2)


def _spec(*lines: str) -> ServiceSpec:
    changes = {}
    for line in ("ExecStart=/bin/true", *lines):
        name, _, value = line.partition("=")
        row, setting = read_setting(name, value, Origin("a test"))
        changes[row.name] = setting
    return override(ServiceSpec("web.service"), changes)


def _prepared(
    *lines: str,
    command: str = "/bin/true",
    given: Given = NOTHING,
    base: Mapping[str, str] = BASE,
    **more: Any,
) -> Execution:
    (parsed,) = parse_commands(command)
    return Preparer(_spec(*lines), base).prepare(parsed, {}, given, **more)


def test_each_stream_has_a_socket_of_its_own() -> None:
    """Of several sockets with one name each stream gets the next, and the last one if none is left."""
    streams = [f"Standard{name}=fd:x" for name in ("Input", "Output", "Error")]
    found = _prepared(*streams, given=PAIR)
    assert (found.stdin, found.stdout, found.stderr) == (0, 1, 0)
    assert found.names == ("x", "x")
    with pytest.raises(LaunchError, match="no socket named 'y'"):
        _prepared("StandardInput=fd:y", given=PAIR)


@pytest.mark.parametrize("path", ["/no/such/file", "/no/such/*"])
def test_missing_environment_file(path: str) -> None:
    """What is said names the service, which cannot be run, and the file, which is no program."""
    said = f"cannot run web.service: EnvironmentFile={path}: no such file"
    with pytest.raises(LaunchError, match=re.compile(re.escape(said), re.IGNORECASE)):
        _prepared(f"EnvironmentFile={path}")
    _prepared(f"EnvironmentFile=-{path}")


@pytest.mark.parametrize(
    ("directive", "stream"),
    [("StandardInput", "stdin"), ("StandardOutput", "stdout"), ("StandardError", "stderr")],
)
def test_socket_as_a_stream(directive: str, stream: str) -> None:
    """A socket that is a standard stream is not passed a second time, but all else is."""
    preparer = Preparer(_spec(f"{directive}=socket"), BASE)
    given = Given(("s", "stored"), (11, 12), 1)
    (command,) = parse_commands("/bin/true")
    found = preparer.prepare(command, {}, given)
    assert found.names == ("stored",)
    assert preparer.order(given) == (12, 11)
    assert getattr(found, stream) == 1
    for wrong in (PAIR, Given()):
        with pytest.raises(LaunchError, match="can be one socket"):
            preparer.prepare(command, {}, wrong)


def test_commands_share_sockets_only_as_streams() -> None:
    """Commands beside ExecStart= get no descriptors, but those that are their standard streams."""
    assert not Preparer(_spec("StandardInput=null"), BASE).shares_sockets
    assert Preparer(_spec("StandardOutput=fd:x"), BASE).shares_sockets
    found = _prepared("StandardInput=socket", given=Given(("s",), (11,), 1), main=False)
    assert (found.stdin, found.names) == (0, ())
    assert _prepared().stdin is Stream.NULL


def test_the_unit_has_the_last_word() -> None:
    """What Environment= sets, and UnsetEnvironment= removes, is not set when it is started."""
    found = _prepared(
        "Environment=LISTEN_PID=x WATCHDOG_PID=y", "UnsetEnvironment=LISTEN_FDNAMES A"
    )
    assert sorted(found.withheld) == ["LISTEN_FDNAMES", "LISTEN_PID", "WATCHDOG_PID"]
    assert found.environ["LISTEN_PID"] == "x"
    assert _prepared().withheld == ()


def test_variables_of_another_user() -> None:
    """Nothing of this process's own user is left, and a user without an entry has none."""
    assert _prepared("User=54321").environ == {"PATH": "/bin"}
    assert _prepared("Group=0").environ == BASE


def test_home() -> None:
    """``~`` is the home of the user, or of this process, whatever Environment= says of HOME."""
    mine = pwd.getpwuid(os.geteuid()).pw_dir
    for base, home in ((BASE, "/home/sockact"), ({"PATH": "/bin"}, mine)):
        found = _prepared("WorkingDirectory=~", "Environment=A=$HOME", base=base)
        assert (found.directory, found.environ["HOME"]) == (home, home)
    found = _prepared("WorkingDirectory=~", "Environment=HOME=/x")
    assert (found.directory, found.environ["HOME"]) == ("/home/sockact", "/x")
    daemon = pwd.getpwnam("daemon").pw_dir
    assert _prepared("WorkingDirectory=~", "User=daemon").directory == daemon


def test_full_privileges() -> None:
    """A command with + has neither the user nor the limits, one with ! has the limits."""
    lines = ("User=daemon", "LimitNOFILE=100", "Nice=3")
    full, half, none = (_prepared(*lines, command=f"{mark}/bin/true") for mark in ("+", "!", ""))
    assert [one.who is None for one in (full, half, none)] == [True, True, False]
    assert [len(one.limits) for one in (full, half, none)] == [0, 1, 1]
    assert {one.nice for one in (full, half, none)} == {3}
    assert {one.environ["USER"] for one in (full, half, none)} == {"daemon"}


def test_one_starter_for_all_that_is_only_told_something_else() -> None:
    """What does not change is worked out once; Environment= has the last word on what is told."""
    preparer = Preparer(_spec("Environment=A=said"), BASE)
    (command,) = parse_commands("/bin/echo x")
    one, told = preparer.starter(command, {"A": "told", "B": "told"}, PAIR)
    assert told == {"B": "told"}
    assert one.execution.environ == {**BASE, "A": "said"}
    other, told = preparer.starter(command, {"B": "other"}, Given(PAIR.names, (7, 8), 2))
    assert other is one
    assert told == {"B": "other"}
    more = {"pid_variables": ("P",)}, {"main": False}, {"death_signal": 15}
    for change in more:
        other, _ = preparer.starter(command, {}, PAIR, **change)
        assert other is not one
    ports = Given(PAIR.names, PAIR.fds, 2, variables={"SOCKACT_PORT_X": "1"})
    for given in (Given(), ports):
        other, told = preparer.starter(command, {}, given)
        assert other.execution.environ == {**BASE, "A": "said", **given.variables}


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["EnvironmentFile=-/no/such/file"], "/bin/echo x"),
        (["UnsetEnvironment=B=told"], "/bin/echo x"),
        (["WorkingDirectory=~"], "/bin/echo x"),
        ([f"User={os.geteuid()}"], "/bin/echo x"),
        ([], "/bin/echo ${B}"),
        ([], "/bin/echo $B"),
        ([], "sh -c true"),
    ],
)
def test_what_may_change_is_looked_up_each_time(lines: list[str], text: str) -> None:
    """A starter is for one process where files, users, or what it is told have a say in more."""
    preparer = Preparer(_spec(*lines), BASE)
    (command,) = parse_commands(text)
    found = [preparer.starter(command, {"B": "told"}, NOTHING) for _ in range(2)]
    assert found[0][0] is not found[1][0]
    for starter, told in found:
        assert told == {}
        whole = preparer.prepare(command, {"B": "told"}, NOTHING)
        assert starter.execution == whole


def test_what_is_told_replaces_what_was_inherited() -> None:
    """A variable that every service begins with is there once, as it was told."""
    preparer = Preparer(_spec(), {**BASE, "EXIT_CODE": "of another"})
    (command,) = parse_commands("/bin/echo x")
    starter, told = preparer.starter(command, {"EXIT_CODE": "exited"}, NOTHING)
    assert {**starter.execution.environ, **told}["EXIT_CODE"] == "exited"
    assert not told
