"""The names that users rely on, and what importing them costs."""

import importlib
import subprocess
import sys

import pytest

import sockact
from tests.helpers import clean_environ

PUBLIC = {
    "Description", "Finding", "Kind", "ListenerSpec", "NamedSocket", "Prepared", "Severity", "SocketSet", "SocketSpec",
    "SocketUnit", "__version__", "activated_or_listen", "check", "daemon", "definition", "describe",
    "errors", "execute", "is_fifo", "is_mq", "is_socket", "is_socket_inet", "is_socket_unix",
    "is_special", "listen", "listen_fds", "load", "notify", "open_specs", "prepare", "socket",
    "wait_for_traffic", "Holding", "Rendezvous", "drop", "holdings", "offer", "put", "take", "takeover",
    "Process", "Rule", "held_by", "hold", "take_or_listen", "aio", "control",
}  # fmt: skip


def test_public_names() -> None:
    """The public names are these, sorted, and dir() shows them."""
    assert set(sockact.__all__) == PUBLIC
    assert sockact.__all__ == sorted(sockact.__all__)
    assert set(dir(sockact)) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_name_resolves_and_is_documented(name: str) -> None:
    """Every public name exists, and has a docstring of its own."""
    found = getattr(sockact, name)
    if name != "__version__":
        assert found.__doc__


def test_unknown_name_is_an_attribute_error() -> None:
    """A name that does not exist fails as on any module."""
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = sockact.nonsense


def test_import_is_lazy() -> None:
    """Importing sockact imports none of its parts, and none of its dependencies."""
    code = (
        "import sys, sockact; print(sorted(m for m in sys.modules"
        " if m.startswith('sockact.') or m in ('attrs', 'click', 'socket', 'sdnotify')))"
    )
    shown = subprocess.check_output([sys.executable, "-c", code], env=clean_environ(), text=True)
    assert shown.strip() == "[]"


def test_launching_does_not_import_what_it_does_not_need() -> None:
    """A plain --listen start leaves alone what units, accounts, JSON and failures need."""
    code = (
        "import os, sys\n"
        "from sockact.cli import main\n"
        "os.execve = lambda *a: print(sorted(sys.modules)) or os._exit(0)\n"
        "sys.argv = ['sockact', 'exec', '--listen', 'tcp:127.0.0.1:0', '--', 'true']\n"
        "main()\n"
    )
    shown = subprocess.check_output(
        [sys.executable, "-u", "-c", code],
        env=clean_environ(),
        text=True,
        stderr=subprocess.DEVNULL,
    )
    imported = set(eval(shown))
    for module in (
        "sockact.unitfile.load",
        "sockact.unitfile.grammar",
        "sockact.unitfile.foreign",
        "sockact.sockets.advice",
        "sockact.fd.account",
        "sockact.fd.mqueue",
        "sockact.daemon",
        "sockact.holder",
        "sockact.rendezvous",
        "sockact.rendezvous.policy",
        "sockact.rendezvous.take",
        "sdnotify",
        "logging",
        "urllib.parse",
        "json",
        "ctypes",
        "subprocess",
        "ipaddress",
    ):
        assert module not in imported


def test_exceptions_fit_builtins() -> None:
    """Each exception has sockact's root, and all but the root a builtin beside it."""
    errors = importlib.import_module("sockact.errors")
    own = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    for error in own:
        if error in (errors.SockactError, errors.SockactWarning):
            continue
        assert issubclass(error, errors.SockactError)
        beside = (ValueError, OSError, LookupError, RuntimeError)
        assert issubclass(error, beside), error


def test_version_is_the_packages() -> None:
    """The version that the package reports is the one it was installed as."""
    from importlib.metadata import version

    assert sockact.__version__ == version("sockact")
