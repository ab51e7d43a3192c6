"""Turning this process into a program that inherits a socket set: exec in place, same pid.

Everything that can fail is done before anything that cannot be undone. What cannot: descriptors
moved to 3, 4, 5 …. Until execve() succeeds root's rights are kept in the saved user id, so that
even then the nodes made for the program can be removed; a successful execve() overwrites the
saved id (credentials(7)), and with it the last way back.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

import attrs

from sockact.activation.environ import FIRST_FD, VARIABLES, encode
from sockact.activation.program import (
    ACCOUNT,
    DEFAULT_PATH,
    Identity,
    become,
    explain,
    find_program,
    identity,
    take_groups,
    take_user,
)
from sockact.activation.receive import own_pidfd_id
from sockact.errors import LaunchError, WorkingDirectoryError
from sockact.fd.place import close_on_exec_from, fill_stdio, place
from sockact.sockets.socketset import SocketSet


@contextlib.contextmanager
def _as(who: Identity | None) -> Iterator[None]:
    """Change to `who`; if the body fails, change back.

    Raises:
        LaunchError: This process may not do that.
    """
    if who is None:
        yield
        return
    uids, gids, groups = os.getresuid(), os.getresgid(), os.getgroups()
    root = os.geteuid() == 0
    try:
        take_groups(who)
        take_user(who, uids[2])
    except PermissionError as error:
        raise LaunchError(
            f"as uid {who.uid}, gid {who.gid}", errno.EPERM, f"{error.strerror}; this needs root"
        ) from None
    try:
        yield
    finally:
        # Only reached if execve() has failed.
        os.setresuid(*uids)
        os.setresgid(*gids)
        if root:
            os.setgroups(groups)


def _environ(base: Mapping[str, str], sockets: SocketSet, *, inetd: bool) -> dict[str, str]:
    environ = {key: value for key, value in base.items() if key not in VARIABLES}
    if not inetd:
        environ |= encode(sockets.names, os.getpid(), own_pidfd_id())
    return environ | chosen_ports(sockets)


def chosen_ports(sockets: SocketSet) -> dict[str, str]:
    """Return the variables that tell a program which ports the kernel has chosen (port 0)."""
    ports: dict[str, list[str]] = {}
    for entry in sockets:
        address = entry.listener.address if entry.listener else None
        if getattr(address, "port", None) == 0 or getattr(address, "service", None) == "0":
            name = "".join(c if c.isalnum() else "_" for c in entry.name).upper()
            ports.setdefault(f"SOCKACT_PORT_{name}", []).append(str(entry.describe().port))
    return {name: " ".join(dict.fromkeys(numbers)) for name, numbers in ports.items()}


def _default_signals(undo: contextlib.ExitStack) -> None:
    """Give SIGPIPE and SIGXFSZ, which Python ignores, their default action back."""
    import signal  # noqa: PLC0415

    for name in ("SIGPIPE", "SIGXFSZ"):
        if number := getattr(signal, name, 0):
            undo.callback(signal.signal, number, signal.signal(number, signal.SIG_DFL))


@attrs.frozen(eq=False, repr=False)
class Prepared:
    """A command that is known to be startable; see `prepare`."""

    path: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    directory: str | None
    who: Identity | None
    inetd: bool

    def arguments(self, sockets: SocketSet) -> list[str]:
        """Return the command with every ``{fd:NAME}`` and the like replaced.

        Raises:
            SubstitutionError: A field fits no socket, or several.
        """
        if not any("{" in word for word in self.argv):
            return list(self.argv)
        from sockact.activation.substitute import Given, has_fields, substitute  # noqa: PLC0415

        if not has_fields(self.argv):
            return list(self.argv)
        first = 0 if self.inetd else FIRST_FD
        given = []
        for number, entry in enumerate(sockets, first):
            what = entry.describe()
            given.append(Given(entry.name, number, what.address, what.port))
        return substitute(self.argv, given)


def prepare(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    directory: str | None = None,
    setenv: Mapping[str, str] | None = None,
    user: str | None = None,
    group: str | None = None,
    inetd: bool = False,
) -> Prepared:
    """Check all that can be checked of a command before a socket is opened for it.

    Standard input, output and error are opened on /dev/null where they are closed, so that no
    socket takes their place.

    Args:
        command: The program and its arguments; ``{fd:NAME}`` and the like are replaced later.
        environ: The program's environment, without LISTEN_*.
        directory: Change to it.
        setenv: Variables that are set even where `user` would set them otherwise.
        user: Run as this user, with USER, LOGNAME, HOME and SHELL of its entry, or without them if
            it has none; needs root.
        group: Run as this group; the user's own by default.
        inetd: Pass the one socket as standard input and output, without LISTEN_*.

    Raises:
        LaunchError: There is no such program.
        WorkingDirectoryError: There is no such directory.
        CredentialsError: There is no such user or group.
    """
    fill_stdio()
    who = identity(user, group)
    if directory is not None and not os.path.isdir(directory):
        missing = not os.path.lexists(directory)
        number = errno.ENOENT if missing else errno.ENOTDIR
        raise WorkingDirectoryError(directory, number, os.strerror(number))
    if who and who.environ is not None:
        environ = {k: v for k, v in environ.items() if k not in ACCOUNT} | dict(who.environ)
    environ = {**environ, **(setenv or {})}
    path = find_program(command[0], environ.get("PATH", DEFAULT_PATH), directory)
    return Prepared(path, tuple(command), environ, directory, who, inetd)


def execute(prepared: Prepared, sockets: SocketSet) -> NoReturn:
    """Become the program, with the descriptors of `sockets` from 3 on.

    Takes over `sockets`. LISTEN_PID stays right because the pid stays the same. Descriptors other
    than standard input, output and error and the set itself are not inherited. O_NONBLOCK is left
    as it is: it is set when a listener is opened, and an inherited one may be in use by others.

    Raises:
        LaunchError: It could not be started. The set has been closed and the nodes made for it
            removed; a descriptor that others hold too goes on living there.
        SubstitutionError: A field of the command fits no socket.
    """
    undo = contextlib.ExitStack()
    try:
        if threading.current_thread() is not threading.main_thread():
            reason = "only the main thread can give the program its signals"
            raise LaunchError(prepared.argv[0], errno.EPERM, reason)
        argv = prepared.arguments(sockets)
        environ = _environ(prepared.environ, sockets, inetd=prepared.inetd)
        _default_signals(undo)
        if prepared.inetd:
            for number in (0, 1):
                undo.callback(_put_back, os.dup(number), number)
            place(sockets.filenos() * 2, 0)
            close_on_exec_from(FIRST_FD)
        else:
            sockets.place(FIRST_FD)
            close_on_exec_from(FIRST_FD + len(sockets))
        # As another user this process may read neither its modules nor /proc/self/fd any more:
        # whatever needs them stands above.
        with _as(prepared.who):
            if prepared.directory is not None:
                _enter(prepared.directory)
            try:
                become(prepared.path, argv, environ)
            except OSError as error:
                raise explain(prepared.argv[0], prepared.path, error.errno or 0, environ) from None
    except BaseException as error:
        undo.close()
        sockets.discard()
        if not isinstance(error, OSError) or isinstance(error, LaunchError):
            raise
        raise LaunchError(
            prepared.argv[0], error.errno or 0, error.strerror or str(error)
        ) from None


def _put_back(saved: int, number: int) -> None:
    os.dup2(saved, number)
    os.close(saved)


def _enter(directory: str) -> None:
    try:
        os.chdir(directory)
    except OSError as error:
        number = error.errno or errno.EACCES
        raise WorkingDirectoryError(directory, number, os.strerror(number)) from None


def wait_for_traffic(sockets: SocketSet) -> None:
    """Wait until one of the sockets is readable.

    Raises:
        FdStateError: One was closed.
    """
    import select  # noqa: PLC0415

    poll = select.poll()
    for number in sockets.filenos():
        poll.register(number, select.POLLIN)
    while not poll.poll():
        pass
