"""What surrounds every test: nothing of the process may be left changed."""

import contextlib
import gc
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# On a busy machine, or the first time, when there are no tables of Unicode yet, all is slow.
hypothesis.settings.register_profile(
    "suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")

# The usual soft limit of 1024 descriptors is too low for the tests that pass many.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if _soft != resource.RLIM_INFINITY and _soft < (_many := 20000):
    _most = _many if _hard == resource.RLIM_INFINITY else min(_many, _hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_most, _hard))

# A shell that runs the tests in the background lets them ignore Ctrl-C, and what they start too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _children() -> set[int]:
    """Return this process's children, zombies included."""
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError):  # a thread that is just on its way out
            text = Path(f"/proc/self/task/{task}/children").read_text(encoding="ascii")
            found |= {int(pid) for pid in text.split()}
    return found


def open_fds() -> dict[int, str]:
    """Return every open descriptor of this process, and what it is open on."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def _umask() -> str:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(line for line in status.splitlines() if line.startswith("Umask"))


def _state() -> tuple[object, ...]:
    """Return what a test may not change, in the order of `_NAMES`."""
    environ = dict(os.environ)
    environ.pop("PYTEST_CURRENT_TEST", None)
    return open_fds(), _children(), _umask(), environ, os.getcwd()


_NAMES = ("descriptors", "children", "umask", "environment", "working directory")


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Fail a test that leaves a descriptor, a child, a umask, a variable or a directory changed."""
    before = _state()
    yield
    after = _state()
    if after != before:
        # Perhaps only a cycle holds it. To collect each time would take longer than the tests.
        gc.collect()
        after = _state()
    for name, old, new in zip(_NAMES, before, after, strict=True):
        assert new == old, f"the test changed the process's {name}"


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """Give a directory whose path is short enough for a Unix socket (unix(7): 107 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="sa-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)
