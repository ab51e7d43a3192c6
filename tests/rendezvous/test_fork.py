"""A process that forks: its children inherit what they serve, and nothing of the rendezvous."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sockact
from tests.helpers import ROOT, SECONDS, clean_environ

PARENT = """
import os, sys, sockact
t = sockact.takeover(sys.argv[1], "web=tcp:127.0.0.1:0")
t.ready()
if not os.fork():
    names = []
    for n in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{n}"))
        except OSError:
            pass
    sockets = sum(name.startswith("socket:") for name in names)
    others = [n for n in names if "lock" in n or "eventpoll" in n or "pidfd" in n]
    print(os.getpid(), sockets, others, flush=True)
    os.read(0, 1)
    t.close()
    os._exit(0)
os.read(0, 1)
"""


def test_child_keeps_nothing_but_what_it_serves(short_dir: Path) -> None:
    """A forked worker has its copy of the socket; the path is free when its parent is killed."""
    path = str(short_dir / "s")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environ(),
        cwd=ROOT,
    ) as parent:
        assert parent.stdout
        child, sockets, others = parent.stdout.readline().split(maxsplit=2)
        try:
            assert (sockets, others) == ("1", "[]\n")
            parent.kill()
            parent.wait(SECONDS)
            with pytest.raises(sockact.errors.OwnerNotFoundError):
                sockact.take(path)
            with sockact.takeover(path, "web=tcp:127.0.0.1:0", timeout=SECONDS) as again:
                assert again.generation == 1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
