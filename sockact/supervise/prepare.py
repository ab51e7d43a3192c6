"""From the definition of a service to an `Execution`: what has to be looked up is looked up here.

The environment is that of this process, less what was meant for this process alone, then what the
unit says; systemd.exec(5) has the order.
"""

import errno
import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sockact import service_directives as d
from sockact.activation.environ import FIRST_FD, VARIABLES
from sockact.activation.execution import (
    Execution,
    How,
    Limit,
    Stdio,
    Step,
    Stream,
    StreamFile,
)
from sockact.activation.program import ACCOUNT, DEFAULT_PATH, Identity, find_program, identity
from sockact.activation.spawn import Starter
from sockact.activation.substitute import Given as Field
from sockact.activation.substitute import has_fields, substitute
from sockact.errors import LaunchError
from sockact.fd.probe import describe
from sockact.spec import ServiceSpec
from sockact.supervise.given import Given
from sockact.unitfile.command import Command
from sockact.unitfile.envfile import parse_env_file

OURS = (
    *VARIABLES, "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "MAINPID", "FDSTORE",
    "INVOCATION_ID", "SYSTEMD_EXEC_PID", "REMOTE_ADDR", "REMOTE_PORT", "SO_COOKIE", "SOCKACT_DEBUG",
    "SOCKACT_GENERATION", "SOCKACT_INSTANCE",
)  # fmt: skip
"""Variables that say something to one process only, and so are not passed on."""

# What is told to a process as it is started, unless its unit says something else.
_TOLD = (*VARIABLES, "WATCHDOG_PID", "SYSTEMD_EXEC_PID")
_STREAMS = (d.STANDARD_INPUT, d.STANDARD_OUTPUT, d.STANDARD_ERROR)
_FILE, _STEP = "EnvironmentFile=", "environment"
_FILES = {"file": How.WRITE, "append": How.APPEND, "truncate": How.TRUNCATE}


def base_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that every service begins with.

    Args:
        environ: The environment of this process.
    """
    kept = {name: value for name, value in environ.items() if name not in OURS}
    return {"PATH": DEFAULT_PATH, **kept}


def _arguments(
    command: Command, environ: Mapping[str, str], given: Given, names: Sequence[str]
) -> tuple[str, ...]:
    """Return the arguments; in those of a command line, ``{fd:NAME}`` and the like are replaced."""
    words = command.arguments(environ)
    if command.expand or not any("{" in word for word in words) or not has_fields(words):
        return tuple(words)
    fields = []
    first = FIRST_FD if names else 0
    for number, (name, fd) in enumerate(zip(given.names, given.fds, strict=True), first):
        what = describe(fd)
        fields.append(Field(name, number, what.address, what.port))
    return tuple(substitute(words, fields))


def _is_steady(command: Command) -> bool:
    """Whether it is the same program with the same arguments, whatever is told to it."""
    mark = "$" if command.expand else "{"
    return command.path.startswith("/") and not any(mark in word for word in command.argv)


class Preparer:
    """Prepares the processes of one service.

    Attributes:
        shares_sockets: Whether commands beside ExecStart= get its sockets, too: as their standard
            streams.
    """

    def __init__(
        self,
        spec: ServiceSpec,
        base: Mapping[str, str],
        *,
        whole: Mapping[str, str] = MappingProxyType({}),
        search: str = "",
        session: bool = True,
    ) -> None:
        """Keep what all have in common.

        Args:
            spec: The definition.
            base: What every service begins with.
            whole: What PassEnvironment= takes variables from.
            search: Where programs without a path are looked up; as systemd does by default.
            session: Whether each process gets a session of its own.
        """
        self.spec = spec
        self._base = base
        self._search = search or DEFAULT_PATH
        passed: tuple[str, ...] = spec.get(d.PASS_ENVIRONMENT)
        said: tuple[tuple[str, str], ...] = spec.get(d.ENVIRONMENT)
        self._said = {name: whole[name] for name in passed if name in whole} | dict(said)
        names = (d.USER.name, d.GROUP.name, d.SUPPLEMENTARY_GROUPS.name)
        self._has_user = any(name in spec.settings for name in names)
        unset: tuple[str, ...] = spec.get(d.UNSET_ENVIRONMENT)
        self._withheld = tuple(name for name in unset if name in _TOLD)
        self._stdio = [spec.get(row) for row in _STREAMS]
        kinds = [what.kind for what in self._stdio]
        self._by_socket = "socket" in kinds
        self.shares_sockets = self._by_socket or "fd" in kinds
        # Whether what is told to its processes is all that changes from one to the next.
        directory = spec.get(d.WORKING_DIRECTORY)
        self._is_steady = not (
            self._has_user
            or unset
            or spec.get(d.ENVIRONMENT_FILE)
            or (directory and directory.path == "~")
        )
        self._last: tuple[object, Starter] | None = None
        # Only what a service says differs between its processes is asked for each time.
        self._same: dict[str, Any] = {
            "session": session,
            "ignore_sigpipe": spec.get(d.IGNORE_SIGPIPE),
            "umask": spec.get(d.UMASK),
            "limits": self._limits(),
            "nice": spec.get(d.NICE),
            "oom_score_adjust": spec.get(d.OOM_SCORE_ADJUST),
        }

    def who(self) -> Identity | None:
        """Return as whom it runs.

        Raises:
            CredentialsError: There is no such user or group.
        """
        if not self._has_user:
            return None
        get = self.spec.get
        more: tuple[str, ...] = get(d.SUPPLEMENTARY_GROUPS)
        return identity(get(d.USER) or None, get(d.GROUP) or None, more)

    def prepare(
        self,
        command: Command,
        variables: Mapping[str, str],
        given: Given,
        *,
        pid_variables: tuple[str, ...] = (),
        main: bool = True,
        death_signal: int = 0,
    ) -> Execution:
        """Return how a command of the service is started.

        Args:
            command: Which.
            variables: What this process is told in its environment.
            given: The descriptors that it gets.
            pid_variables: Variables that hold its own process id.
            main: Whether it is of ExecStart=.
            death_signal: What it gets if this process dies.

        Raises:
            LaunchError: There is no program of that name, or EnvironmentFile= cannot be read.
            CredentialsError: There is no such user or group.
        """
        get = self.spec.get
        who = self.who() if command.privileges == "" else None
        user = who or self.who()
        environ = self._environ(variables, given, user)
        where = get(d.WORKING_DIRECTORY)
        directory = where.path if where else None
        if directory == "~":
            directory = self._home(user)
        path = command.path
        if not path.startswith("/"):  # else whoever starts it finds out
            path = find_program(path, self._search, directory)
        stdin, stdout, stderr = self._streams(given)
        names = given.names if main else ()
        if self._by_socket and main:
            names = given.names[given.sockets :]
        same = self._same
        if command.privileges == "+":
            same = {**same, "limits": ()}
        return Execution(
            path=path,
            argv=_arguments(command, environ, given, names),
            environ=environ,
            names=names,
            listen=bool(names),
            pid_variables=pid_variables,
            withheld=(*self._withheld, *(name for name in _TOLD if name in environ)),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            death_signal=death_signal,
            who=who,
            directory=directory,
            directory_optional=bool(where and where.optional),
            **same,
        )

    def starter(
        self,
        command: Command,
        variables: Mapping[str, str],
        given: Given,
        *,
        pid_variables: tuple[str, ...] = (),
        main: bool = True,
        death_signal: int = 0,
    ) -> tuple[Starter, Mapping[str, str]]:
        """Return what starts a command of the service, and what it is to be told then.

        It is the same as last time if `prepare` would do nothing else than then.

        Args, Raises: as for `prepare`.
        """
        told = {name: variables[name] for name in variables if name not in self._said}
        more: dict[str, Any] = {
            "pid_variables": pid_variables,
            "main": main,
            "death_signal": death_signal,
        }
        wanted = command, given.names, given.sockets, given.variables, more
        steady = self._is_steady and told.keys().isdisjoint(self._base)
        if steady and self._last is not None and self._last[0] == wanted:
            return self._last[1], told
        if not (steady and _is_steady(command)):
            return Starter(self.prepare(command, variables, given, **more)), {}
        starter = Starter(self.prepare(command, {}, given, **more))
        self._last = wanted, starter
        return starter, told

    def order(self, given: Given) -> Sequence[int]:
        """Return the descriptors in the order in which `prepare` counts them."""
        if self._by_socket:
            return (*given.fds[given.sockets :], *given.fds[: given.sockets])
        return given.fds

    def _environ(
        self, variables: Mapping[str, str], given: Given, who: Identity | None
    ) -> dict[str, str]:
        get = self.spec.get
        environ = dict(self._base)
        if who and who.environ is not None:
            for name in ACCOUNT:
                environ.pop(name, None)
            environ |= who.environ
        if (where := get(d.WORKING_DIRECTORY)) and where.path == "~":
            environ["HOME"] = self._home(who)
        environ |= variables
        environ |= given.variables
        environ |= self._said
        for name, value in self._from_files():
            environ[name] = value
        for entry in get(d.UNSET_ENVIRONMENT):
            name, equals, value = entry.partition("=")
            if not equals or environ.get(name) == value:
                environ.pop(name, None)
        return environ

    def _home(self, who: Identity | None) -> str:
        """Return the home of a user, or ours if it has none, as systemd does."""
        home = (who.environ or {}).get("HOME") if who else None
        if home := home or self._base.get("HOME"):
            return home
        import pwd  # noqa: PLC0415 - hardly ever

        try:
            return pwd.getpwuid(os.geteuid()).pw_dir or "/"
        except KeyError:
            return "/"

    def _from_files(self) -> Iterator[tuple[str, str]]:
        for entry in self.spec.get(d.ENVIRONMENT_FILE):
            paths = sorted(glob.glob(entry.path)) if glob.has_magic(entry.path) else [entry.path]
            if not paths and not entry.optional:
                reason = f"{_FILE}{entry.path}: no such file"
                raise LaunchError(self.spec.name, errno.ENOENT, reason, _STEP)
            for path in paths:
                try:
                    with open(path, "rb") as file:
                        data = file.read()
                    yield from parse_env_file(data)
                except (OSError, ValueError) as error:
                    if entry.optional:
                        continue
                    reason = f"{_FILE}{path}: {getattr(error, 'strerror', None) or error}"
                    number = getattr(error, "errno", None) or errno.EINVAL
                    raise LaunchError(self.spec.name, number, reason, _STEP) from None

    def _limits(self) -> tuple[Limit, ...]:
        limits = ((name, self.spec.get(row)) for name, row in d.LIMITS.items())
        return tuple(
            Limit(name.removeprefix("Limit"), *limit) for name, limit in limits if limit is not None
        )

    def _streams(self, given: Given) -> tuple[Stdio, Stdio, Stdio]:
        taken: set[int] = set()
        stdin, stdout, stderr = self._stdio
        return (
            self._stream(stdin, given, 0, taken),
            self._stream(stdout, given, 1, taken),
            self._stream(stderr, given, 2, taken),
        )

    def _stream(self, what: d.Stdio, given: Given, number: int, taken: set[int]) -> Stdio:
        match what.kind:
            case "null":
                return Stream.NULL
            case "inherit":
                return Stream.NULL if number == 0 else Stream.SAME
            case "parent":
                return Stream.INHERIT
            case "socket":
                return self._index(given, None, taken)
            case "fd":
                name = what.target or ("stdin", "stdout", "stderr")[number]
                return self._index(given, name, taken)
        how = How.WRITE if number else How.READ
        return StreamFile(what.target, _FILES.get(what.kind, how) if number else how)

    def _index(self, given: Given, name: str | None, taken: set[int]) -> Stdio:
        """Return where, in the order of `order`, the socket for a standard stream stands."""
        sockets = given.names[: given.sockets]
        if name is None:
            if len(sockets) != 1:
                raise LaunchError(
                    self.spec.name,
                    errno.EINVAL,
                    f"a standard stream can be one socket, and there are {len(sockets)}",
                    "stdin",
                    int(Step.STDIN.value),
                )
            return len(given.fds) - 1
        if name not in sockets:
            text = f"there is no socket named {name!r}"
            status = int(Step.DESCRIPTORS.value)
            raise LaunchError(self.spec.name, errno.ENOENT, text, "descriptors", status)
        found = [index for index, one in enumerate(sockets) if one == name]
        index = next((index for index in found if index not in taken), found[0])
        taken.add(index)  # of several with one name, each stream gets its own, if there is one
        return len(given.fds) - given.sockets + index if self._by_socket else index
