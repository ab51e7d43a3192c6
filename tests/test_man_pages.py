"""The manual against the program: whatever one has, the other says."""

import inspect
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import sockact
from sockact import aio, errors, service_directives
from sockact.activation import notify
from sockact.cli import exits, group
from sockact.directives import TABLE
from sockact.rendezvous.messages import MESSAGES
from sockact.rendezvous.wire import HEADER, decode
from sockact.supervise.prepare import OURS
from sockact.supervise.run import FORWARDED
from sockact.unitfile.listen import SCHEMES
from sockact.unitfile.readiness import parse_readiness
from tests import manual, manual_rendezvous, manual_run
from tests.supervise.supervisors import supervisor

MAN = Path(__file__).resolve().parent.parent / "man"


def page(name: str) -> str:
    """The text of a page without its markup for fixed spacing."""
    return (MAN / name).read_text(encoding="utf-8")


def options_in(name: str) -> set[str]:
    """The options that have a place of their own in the list of a page."""
    found = set()
    for line in page(name).splitlines():
        if line.startswith(".It "):
            found |= {f"--{option}" for option in re.findall(r"Fl Fl ([a-z-]+)", line)}
            found |= {f"-{option}" for option in re.findall(r"(?<!Fl )Fl ([A-Za-z])\b", line)}
    return found


def commands() -> Iterator[tuple[str, click.Command]]:
    """Each page of the command line, and the command that it is about."""
    context = click.Context(group)
    yield "sockact.1", group
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        yield f"sockact-{name}.1", command


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=str)
def test_options(name: str, command: click.Command) -> None:
    """A page lists the options of its command, all of them and no others."""
    parent = click.Context(group, **group.context_settings)
    context = click.Context(command, parent=parent, **command.context_settings)
    known: set[str] = set()
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option):
            known |= {*parameter.opts, *parameter.secondary_opts}
    assert options_in(name) == known


def test_every_command_has_a_page() -> None:
    """The overview names each command and its page, and each page is there."""
    for name, _ in commands():
        assert (MAN / name).is_file()
        if name != "sockact.1":
            command = name.removeprefix("sockact-").removesuffix(".1")
            assert f".It Ic {command}\n" in page("sockact.1")
            assert f".Xr sockact-{command} 1" in page("sockact.1")


def test_exit_statuses() -> None:
    """The overview has the table of exit statuses, word for word."""
    section = page("sockact.1").partition(".Sh EXIT STATUS")[2].partition(".Sh ")[0]
    found = dict(re.findall(r"^\.It ([0-9]+)\n(.*)\.$", section, re.MULTILINE))
    assert {int(number): text.lower() for number, text in found.items()} == {
        number: text.lower() for number, text in exits.MEANINGS.items()
    }


def test_schemes() -> None:
    """The page of exec lists the schemes of --listen."""
    section = page("sockact-exec.1").partition(".Sh LISTENERS")[2].partition(".Sh ")[0]
    assert set(re.findall(r"^\.It Li ([a-z0-9-]+) Ta", section, re.MULTILINE)) == set(SCHEMES)


def test_directives() -> None:
    """The page on units says what the directive table says; see tests/manual.py."""
    text = page("sockact.socket.5")
    written = text.partition(manual.BEGIN)[2].partition(manual.END)[0]
    assert written == manual.render()
    assert re.findall(r"^\.It Cm ([\w-]+) Ns =$", written, re.MULTILINE) == list(TABLE)


def test_service_directives() -> None:
    """And so does the page on service units."""
    text = page("sockact.service.5")
    written = text.partition(manual.BEGIN)[2].partition(manual.END)[0]
    assert written == manual.render_service()
    rows = re.findall(r"^\.It Cm ([\w-]+) Ns =$", written, re.MULTILINE)
    assert rows == list(service_directives.TABLE)


@pytest.mark.parametrize("block", manual_rendezvous.BLOCKS)
def test_rendezvous(block: str) -> None:
    """The specification of the protocol says what its tables say; see tests/manual_rendezvous.py."""
    text = page("sockact-rendezvous.7")
    written = text.partition(manual.begin(block))[2].partition(manual.END)[0]
    assert written == manual_rendezvous.BLOCKS[block]()


@pytest.mark.parametrize("block", manual_run.BLOCKS)
def test_run(block: str) -> None:
    """The page of run has the life of a socket unit as its table has it; see tests/manual_run.py."""
    text = page("sockact-run.1")
    written = text.partition(manual.begin(block))[2].partition(manual.END)[0]
    assert written == manual_run.BLOCKS[block]()


def test_environment_of_services() -> None:
    """The page of run names each variable that services do not inherit."""
    section = page("sockact-run.1").partition(".Sh ENVIRONMENT")[2].partition(".Sh ")[0]
    named = set(re.findall(r"[A-Z][A-Z_]+", section))
    assert set(OURS) <= named | {"LISTEN_PIDFDID"}


def test_signals_of_run() -> None:
    """And each signal that is passed on."""
    section = page("sockact-run.1").partition(".Sh SIGNALS")[2].partition(".Sh ")[0]
    assert f".It Dv {' , '.join(FORWARDED)}\nPassed on" in section


def test_readiness() -> None:
    """And each form of readiness, which are the ones that are read."""
    section = page("sockact-run.1").partition(".Sh READINESS")[2].partition(".Sh ")[0]
    forms = re.findall(r"^\.It Li ([a-z]+:?)", section, re.MULTILINE)
    with pytest.raises(ValueError, match="must be") as error:
        parse_readiness("x")
    known = re.findall(r"[a-z]+:?(?=[ ,A-Z]|$)", str(error.value).partition("must be ")[2])
    assert forms == [one for one in known if one != "or"]


def _members(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield name
            yield from _members(member)
    elif isinstance(value, list):
        for member in value:
            yield from _members(member)


def test_members_of_status(short_dir: Path) -> None:
    """The page of status names each member of the JSON, and no other."""
    command = ["--listen", f"web=unix:{short_dir}/s", "--", "sleep", "100"]
    with supervisor(short_dir, *command) as run:
        report = run.report()
    section = page("sockact-status.1").partition(".Sh JSON")[2].partition("States and results")[0]
    lines = re.findall(r"^\.(?:It )?Li (.*)$", section, re.MULTILINE)
    named = {name for line in lines for name in re.findall(r"[a-z_]+", line)}
    assert named == set(_members(json.loads(json.dumps(report))))


def test_every_message_is_told() -> None:
    """Each message has a place in the list, and each ends in a sentence on who sends it."""
    assert list(manual_rendezvous.SENDERS) == list(MESSAGES)


def test_frames_in_the_examples() -> None:
    """Each frame that the specification shows is one, and the bytes of the first are right."""
    text = page("sockact-rendezvous.7").partition(".Sh EXAMPLES")[2].partition(".Sh ")[0]
    bodies = re.findall(r"^[CO] (\{(?:.|\n {3})*\})( \[1\])?$", text, re.MULTILINE)
    assert len(bodies) == 14
    frames = []
    for body, fds in bodies:
        data = body.replace("\n   ", "").replace("\\e", "\\").encode()
        frames.append(HEADER.pack(b"sa", 1, 1 if fds else 0, len(data)) + data)
        decode(frames[-1], 1 if fds else 0)
    dump = re.search(r"^\.Dl ((?:[0-9a-f]{2} ?)+)$", text, re.MULTILINE)
    assert dump
    assert frames[0].startswith(bytes.fromhex(dump[1]))
    assert f"and has {len(frames[0])} of them." in text


def functions_in(text: str) -> dict[str, list[str]]:
    """The functions that a page shows, and their arguments."""
    found = {}
    for name, rest in re.findall(r'Fn ([\w.]+)((?: "[^"]*")*)', text):
        arguments = re.findall(r'"([^"]*)"', rest)
        if arguments or name not in found:
            found[name] = arguments
    return found


def documented() -> Iterator[tuple[str, object]]:
    """Every function and method that the page of the library owes."""
    for name in sockact.__all__:
        if inspect.isfunction(found := getattr(sockact, name)):
            yield name, found
    for name, found in vars(notify).items():
        if inspect.isfunction(found) and found.__module__ == notify.__name__:
            yield f"notify.{name}", found
    for name in sockact.daemon.__all__:
        if inspect.isfunction(found := getattr(sockact.daemon, name)):
            yield f"daemon.{name}", found
    for name, found in vars(aio).items():
        if inspect.isfunction(found) and found.__module__ == aio.__name__:
            yield f"aio.{name}", found
    kinds = (sockact.SocketSet, sockact.NamedSocket, sockact.SocketUnit, sockact.Rendezvous)
    for kind in kinds:
        for name, found in vars(kind).items():
            if inspect.isfunction(found):
                yield f"{kind.__name__}.{name}", found


CASES = [(name, found) for name, found in documented() if "._" not in name and name[0] != "_"]


@pytest.mark.parametrize(("name", "found"), CASES, ids=[name for name, _ in CASES])
def test_library(name: str, found: object) -> None:
    """The page of the library shows each function with its arguments in their order."""
    before, start, rest = page("sockact.3").partition(".It Vt Rendezvous\n")
    own, end, after = rest.partition(".El")
    assert start
    assert end
    shown = functions_in(own if name.startswith("Rendezvous.") else before + after)
    short = name if name.startswith(("notify.", "daemon.", "aio.")) else name.rpartition(".")[2]
    assert callable(found)
    if name == "NamedSocket.describe":
        assert ".Fn describe ,\n" in page("sockact.3")
        return
    parameters = inspect.signature(found).parameters.values()
    expected = [
        f"*{parameter.name}" if parameter.kind is parameter.VAR_POSITIONAL else parameter.name
        for parameter in parameters
        if parameter.name != "self"
    ]
    assert shown[short] == expected


def test_library_names() -> None:
    """The page of the library names every public name and every exception."""
    text = set(re.findall(r"[\w.]+", page("sockact.3")))
    kinds = {name for name in vars(errors) if name[0] != "_" and name[0].isupper()}
    missing = [name for name in {*sockact.__all__, *kinds} - {"__version__"} if name not in text]
    assert not missing


def test_pages_are_installed() -> None:
    """The package installs every page where man(1) finds it."""
    data = tomllib.loads((MAN.parent / "pyproject.toml").read_text(encoding="utf-8"))
    installed = data["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert installed == {
        f"man/{path.name}": f"share/man/man{path.suffix[1:]}/{path.name}" for path in MAN.iterdir()
    }


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
def test_lint() -> None:
    """Nothing in the pages is worth a warning."""
    run = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *sorted(map(str, MAN.iterdir()))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.stdout + run.stderr == ""
