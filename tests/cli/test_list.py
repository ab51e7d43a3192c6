"""``sockact list`` and the completion of names, run as a shell runs them."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sockact.cli import exits
from tests.cli.holders import WEB, holder, listed, port_of, run_as
from tests.helpers import SECONDS, clean_environ, run


def test_the_table(short_dir: Path) -> None:
    """A line on the whole, and a line for each descriptor with its queue and who holds it."""
    path = str(short_dir / "r")
    with holder(path, *WEB, "-l", f"fifo:{short_dir}/f", "-l", "d=udp:127.0.0.1:0") as process:
        with socket.create_connection(("127.0.0.1", port_of(path)), timeout=SECONDS):
            lines = run("list", path).stdout.splitlines()
        assert lines[0] == f"{path}: generation 1, 3 sets, 3 descriptors"
        assert lines[1].split() == [
            "SET",
            "NAME",
            "KIND",
            "ADDRESS",
            "QUEUE",
            "SINCE",
            "HELD",
            "BY",
        ]
        web, fifo, datagram = lines[2:]
        assert web.split()[:3] == ["web", "web", "Stream"]
        assert web.split()[4].startswith("1/")
        assert " ago  " in web
        assert f"(pid {process.pid})" in web
        assert fifo.split()[2:5] == ["FIFO", f"{short_dir}/f", "-"]
        assert f"(pid {process.pid})" in fifo
        assert " bytes " in datagram


def test_who_holds_it(short_dir: Path) -> None:
    """A program that got a socket is shown beside the holder."""
    path = str(short_dir / "r")
    with holder(path, *WEB) as process:
        with subprocess.Popen(
            [sys.executable, "-m", "sockact", "get", path, "--", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environ(),
        ) as program:  # fmt: skip
            assert program.stdout
            program.stdout.readline()
            held_by = {one["pid"] for one in listed(path)[0]["held_by"]}
            program.communicate(timeout=SECONDS)
        assert held_by == {process.pid, program.pid}


def test_json(short_dir: Path) -> None:
    """Each object has everything that is known."""
    path = str(short_dir / "r")
    begun = time.time() - 1
    with holder(path, *WEB) as process:
        (found,) = listed(path)
    assert begun <= found.pop("since") <= time.time() + 1
    assert found.pop("queue")["unit"] == "connections"
    (process_held,) = found.pop("held_by")
    assert process_held["pid"] == process.pid
    numbers = {name: found.pop(name) for name in ("device", "inode", "cookie", "namespace")}
    assert numbers["inode"] > 0
    address = found.pop("address")
    assert address.startswith("127.0.0.1:")
    assert found == {
        "set": "web", "name": "web", "kind": "Stream", "family": "AF_INET",
        "protocol": socket.IPPROTO_TCP, "listening": True, "generation": 1,
    }  # fmt: skip


def test_nothing(short_dir: Path) -> None:
    """An empty holder is told, and is no error."""
    path = str(short_dir / "r")
    with holder(path):
        done = run("list", path)
        assert (done.returncode, done.stdout) == (exits.OK, f"{path}: nothing is held\n")
        assert listed(path) == []


def _complete(words: str) -> list[str]:
    begun = time.monotonic()
    count = str(len(words.split(" ")) - 1)
    environ = {"_SOCKACT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": count}
    done = run(environ=environ)
    assert done.stderr == ""
    assert time.monotonic() - begun < SECONDS
    return done.stdout.split()


def test_completion(short_dir: Path) -> None:
    """Names that are at the path are completed, those given already left out."""
    path = str(short_dir / "r")
    with holder(path, *WEB, "-l", "worker=unix:@sockact-complete", "-l", "x=tcp:127.0.0.1:0"):
        assert run("put", path, "set", "-l", "in=tcp:127.0.0.1:0").returncode == exits.OK
        assert _complete(f"sockact drop {path} w") == ["plain,web", "plain,worker"]
        assert _complete(f"sockact drop {path} web w") == ["plain,worker"]
        assert _complete(f"sockact get {path} ") == [
            f"plain,{name}" for name in ("web", "worker", "x", "set", "in")
        ]
        assert _complete(f"sockact get --inetd {path} wo") == ["plain,worker"]
        assert _complete(f"sockact put {path} se") == ["plain,set"]
        assert _complete(f"sockact get {path} web -- w") == ["file,w"]
        assert _complete("sockact get /tm") == ["file,/tm"]


@pytest.mark.parametrize("words", ["sockact get PATH w", "sockact drop PATH ", "sockact get -- "])
def test_completion_of_nothing(short_dir: Path, words: str) -> None:
    """Where nobody answers nothing is offered, and nothing is said."""
    assert not [
        line for line in _complete(words.replace("PATH", f"{short_dir}/r")) if "plain" in line
    ]


def test_completion_does_not_wait(short_dir: Path) -> None:
    """An owner that does not answer is not waited for."""
    path = str(short_dir / "r")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mute:
        mute.bind(path)
        mute.listen()
        assert _complete(f"sockact get {path} w") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_completion_is_refused_in_silence(short_dir: Path) -> None:
    """A user who may not ask is offered nothing."""
    path = str(short_dir / "r")
    environ = {"_SOCKACT_COMPLETE": "bash_complete", "COMP_WORDS": f"sockact get {path} "}
    with holder(path, *WEB):
        done = run_as(12345, environ={**environ, "COMP_CWORD": "3"})
    assert (done.stdout.strip(), done.stderr) == ("", "")
