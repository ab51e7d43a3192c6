"""sockact.activation.receive, in real processes that were really activated."""

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from sockact.activation.environ import VARIABLES
from sockact.activation.receive import own_pidfd_id, receive
from sockact.errors import EnvironError
from tests.helpers import SECONDS, clean_environ

LAUNCH = (
    sys.executable,
    "-m",
    "sockact",
    "exec",
    "-l",
    "web=tcp:127.0.0.1:0",
    "-l",
    "b=udp:0",
    "--",
)


def _python(
    code: str, environ: Mapping[str, str] | None = None, before: tuple[str, ...] = LAUNCH
) -> str:
    """Run code under a launcher and return what it printed; it must succeed."""
    done = subprocess.run(
        [*before, sys.executable, "-c", code],
        env=clean_environ(environ),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_adopts_what_was_passed() -> None:
    """Names, order and sockets arrive; descriptors become close-on-exec; variables go."""
    code = """
import os, sockact
found = sockact.listen_fds()
print(found.names, found.filenos(), [e.describe().kind for e in found])
print([os.get_inheritable(n) for n in found.filenos()], [v for v in os.environ if "LISTEN_" in v])
print(sockact.listen_fds() is found, sockact.socket("web") is sockact.socket("web"))
"""
    assert _python(code).splitlines() == [
        "('web', 'b') [3, 4] ['Stream', 'Datagram']",
        "[False, False] []",
        "True True",
    ]


def test_keeps_the_environment_if_asked() -> None:
    """With unset_environment=False the variables stay for whoever comes next in the process."""
    code = (
        "import os, sockact; sockact.listen_fds(unset_environment=False);"
        "print(sum('LISTEN_' in v for v in os.environ) >= 3)"
    )
    assert _python(code) == "True\n"


def test_not_activated() -> None:
    """Without activation the set is empty, and a lookup says why."""
    code = """
import sockact
print(len(sockact.listen_fds()))
try: sockact.socket("web")
except sockact.errors.SocketLookupError as error: print(error)
"""
    assert _python(code, before=()).splitlines() == [
        "0",
        "no socket named 'web': LISTEN_PID is not set: this process was not socket-activated",
    ]


def test_forked_child_shares_the_adopted_set() -> None:
    """A worker forked after the first call has the same set, with sockets that work."""
    code = """
import os, sockact
sockact.listen_fds()
pid = os.fork()
if not pid:
    print(sockact.socket("web").getsockname()[0], flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""
    assert _python(code) == "127.0.0.1\n"


def test_forked_child_may_accept_the_parents_claim() -> None:
    """A worker forked before any call sees why it has nothing, and gets it by naming the parent."""
    code = """
import os, sockact
pid = os.fork()
if not pid:
    try: sockact.socket("web")
    except sockact.errors.SocketLookupError as error: print("another process" in str(error))
    os.environ.update(kept)
    print(sockact.listen_fds(pid=os.getppid()).names, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""
    kept = "import os; kept = {k: v for k, v in os.environ.items() if k.startswith('LISTEN_')}\n"
    assert _python(kept + code).splitlines() == ["True", "('web', 'b')"]


def test_threads_get_one_set() -> None:
    """However many threads ask at once, there is one set, and each descriptor has one owner."""
    code = """
import sockact, threading
found, gate = [], threading.Barrier(16)
def ask():
    gate.wait(); found.append(sockact.listen_fds())
threads = [threading.Thread(target=ask) for _ in range(16)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(found), len({id(f) for f in found}), len(found[0]))
"""
    assert _python(code) == "16 1 2\n"


def test_activated_or_listen_prefers_what_was_passed() -> None:
    """When activated nothing is opened, and a single socket goes by the definition's name."""
    launch = (*LAUNCH[:4], "-l", "other=tcp:127.0.0.1:0", "--")
    code = (
        "import sockact; s = sockact.activated_or_listen('web=tcp:127.0.0.1:0');"
        "print(s.names, s['web'].fileno())"
    )
    assert _python(code, before=launch) == "('web',) 3\n"
    assert _python(code, before=()) == "('web',) 3\n"
    both = "import sockact; print(sockact.activated_or_listen('x=tcp:0').names)"
    assert _python(both) == "('web', 'b')\n"


def test_hole_is_an_error() -> None:
    """A promised descriptor that is not open is an error, and nothing is adopted."""
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "200"}
    with pytest.raises(EnvironError, match="was promised but: Bad file descriptor"):
        receive(environ, os.getpid(), unset=True)
    assert environ == {}
    code = (
        "import os, sockact\n"
        "os.environ |= {'LISTEN_FDS': '9', 'LISTEN_FDNAMES': ':'.join('abcdefghi')}\n"
        "try: sockact.listen_fds()\n"
        "except sockact.errors.EnvironError as error: print(error.fd, os.get_inheritable(3))\n"
    )
    assert _python(code) == "5 True\n"


def test_an_error_is_remembered() -> None:
    """A second call must not say that there was no activation because the variables are gone."""
    code = (
        "import os, sockact\n"
        "os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '200'}\n"
        "for _ in range(2):\n"
        "    try: sockact.activated_or_listen('tcp:127.0.0.1:0')\n"
        "    except sockact.errors.EnvironError as error: print(error.fd)\n"
    )
    assert _python(code, before=()) == "3\n3\n"


@pytest.mark.parametrize("unset", [True, False])
def test_variables_go_on_every_path(unset: bool) -> None:
    """They are removed if that is asked for, also after an error and when meant for others."""
    for pid in ("junk", "1"):
        environ = {
            "LISTEN_PID": pid,
            "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": "a",
            "LISTEN_PIDFDID": "1",
        }
        if pid == "junk":
            with pytest.raises(EnvironError):
                receive(environ, os.getpid(), unset=unset)
        else:
            assert len(receive(environ, os.getpid(), unset=unset)) == 0
        assert sorted(environ) == ([] if unset else sorted(VARIABLES))


def test_pidfd_id_is_unique_and_stable() -> None:
    """The number is the same each time, and another for another process."""
    own = own_pidfd_id()
    if own is None:
        pytest.skip("this kernel has no pidfs")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = own_pidfd_id(child.pid)
    child.communicate(b"\n")
    assert own == own_pidfd_id() != other


def test_pidfd_id_of_nobody() -> None:
    """A process that does not exist has none."""
    child = subprocess.Popen(["true"])
    child.wait()
    assert own_pidfd_id(child.pid) is None


def test_recycled_pid_gets_nothing() -> None:
    """Variables with our pid but another process's pidfd id are not for us."""
    if own_pidfd_id() is None:
        pytest.skip("this kernel has no pidfs")
    code = """
import os, sockact
os.environ["LISTEN_PIDFDID"] = str(int(os.environ["LISTEN_PIDFDID"]) + 1)
print(len(sockact.listen_fds()))
"""
    assert _python(code) == "0\n"
