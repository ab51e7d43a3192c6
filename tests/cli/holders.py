"""Holders for the tests of the command line."""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.helpers import SECONDS, SOCKACT, clean_environ, run, running

# Whoever runs the tests may have a Python that others cannot read: all is imported before.
_AS_USER = """
import difflib, grp, importlib, json, os, pkgutil, pwd, shlex, sys
import click.shell_completion
import sockact
for module in pkgutil.walk_packages(sockact.__path__, "sockact."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from sockact.cli import main
uid = int(sys.argv.pop(1))
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
main()
"""


def as_user(uid: int, *arguments: str) -> list[str]:
    """The command that runs ``sockact ARGUMENTS`` as another user; needs root."""
    return [sys.executable, "-c", _AS_USER, str(uid), *arguments]


def run_as(
    uid: int, *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``sockact ARGUMENTS`` as another user to its end."""
    return subprocess.run(
        as_user(uid, *arguments), env=clean_environ(environ), capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip


WEB = ("--listen", "web=tcp:127.0.0.1:0")


@contextlib.contextmanager
def holder(path: Path | str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``sockact hold PATH ARGUMENTS`` until the end of the block."""
    with running([*SOCKACT, "hold", str(path), *arguments]) as process:
        said_until(process, "generation")
        yield process


def said_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """Return the lines that a process says on standard error up to one with `text`."""
    lines: list[str] = []
    assert process.stderr
    while not lines or text not in lines[-1]:
        line = process.stderr.readline()
        assert line, f"{text!r} was not said, but: {lines}"
        lines.append(line)
    return lines


def listed(path: Path | str) -> list[dict[str, Any]]:
    """What ``sockact list --json`` prints."""
    done = run("list", str(path), "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def port_of(path: Path | str, name: str = "web") -> int:
    """The port of a socket at a rendezvous."""
    addresses = [one["address"] for one in listed(path) if one["name"] == name]
    return int(addresses[0].rpartition(":")[2])


def answer_of(port: int) -> bytes:
    """Connect, and return all that comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as sock:
        data = b""
        while part := sock.recv(1000):
            data += part
        return data
