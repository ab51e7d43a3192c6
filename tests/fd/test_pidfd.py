"""sockact.fd.pidfd."""

import os
import subprocess
import sys

import pytest

from sockact.fd.pidfd import pid_of, pidfd_id
from tests.helpers import SECONDS

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="there are no pidfds")


def test_pid_of_a_process() -> None:
    """A pidfd tells which process it is, until that has been waited for."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        pidfd = os.pidfd_open(process.pid)
        try:
            assert pid_of(pidfd) == process.pid
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert pid_of(pidfd) == process.pid
            process.wait(SECONDS)
            assert pid_of(pidfd) is None
        finally:
            os.close(pidfd)


def test_what_is_no_pidfd() -> None:
    """Nothing else names a process."""
    reader, writer = os.pipe()
    assert pid_of(reader) is None
    os.close(reader)
    os.close(writer)
    assert pid_of(reader) is None


def test_id() -> None:
    """Each pidfd of a process has the same number, if any."""
    first, second = os.pidfd_open(os.getpid()), os.pidfd_open(os.getpid())
    try:
        assert pidfd_id(first) == pidfd_id(second)
    finally:
        os.close(first)
        os.close(second)
