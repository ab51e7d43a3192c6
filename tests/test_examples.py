"""Every example says how it is run, and is run by a test."""

import os
import re
import subprocess
from pathlib import Path

import pytest

import sockact
from tests.helpers import ROOT, run

EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.is_file())
# These come to a rendezvous by themselves; tests/test_aio.py runs each with each.
TAKEOVERS = [path for path in EXAMPLES if path.stem.startswith("takeover_")]
TESTS = "\n".join(
    (ROOT / "tests" / name).read_text(encoding="utf-8")
    for name in ("servers/test_servers.py", "rendezvous/test_c_client.py")
)


def _commands(text: str) -> list[str]:
    """Return the sockact commands in the comment head of an example, continued lines joined."""
    joined = re.sub(r"\\+\n[\s#*]*", "", text)
    return re.findall(r"sockact (?:exec|hold) .*", joined)


@pytest.mark.parametrize("path", [p for p in EXAMPLES if p not in TAKEOVERS], ids=lambda p: p.name)
def test_is_run_by_a_test(path: object) -> None:
    """An example that no test starts would rot."""
    name = str(path).rpartition("/")[2]
    stem = name.partition(".")[0]
    assert name in TESTS or f"{stem}:app" in TESTS


@pytest.mark.parametrize("path", TAKEOVERS, ids=lambda path: path.name)
def test_takeovers_are_run_by_a_test(path: Path) -> None:
    """One that replaces itself is run by the tests of takeovers, and says how it is started."""
    tests = (ROOT / "tests" / "test_aio.py").read_text(encoding="utf-8")
    assert f'"{path.stem.removeprefix("takeover_")}"' in tests
    text = path.read_text(encoding="utf-8")
    (words,) = re.findall(rf"^    python examples/{path.name} (.*)$", text, re.MULTILINE)
    name, *definitions = words.split()
    assert os.path.isabs(name)
    for one in definitions:
        sockact.definition(one)


@pytest.mark.parametrize("path", [p for p in EXAMPLES if p not in TAKEOVERS], ids=lambda p: p.name)
def test_its_command_is_right(path: object) -> None:
    """The command in its head is one that sockact takes, as --print shows without running it."""
    with open(str(path), encoding="utf-8") as file:
        commands = _commands(file.read())
    assert commands
    for command in commands:
        if command.startswith("sockact hold"):
            continue  # it has no --print; the test of its example runs it
        options = command.removeprefix("sockact ").partition(" -- ")[0].split()
        done = run(*(word.strip("'") for word in options), "--print")
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", [p for p in EXAMPLES if p.suffix == ".py"], ids=lambda p: p.name)
def test_python_examples_compile_alone(path: object) -> None:
    """An example imports nothing of the tests or of its neighbours."""
    source = subprocess.check_output(["cat", str(path)], text=True)
    assert "from tests" not in source
    assert "import tests" not in source
