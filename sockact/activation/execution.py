"""How a program is to be started, with everything decided. Pure.

`sockact.activation.spawn` carries it out. Whoever makes one has done all the looking up before: the
program's path, its user's numbers, its whole environment.
"""

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from sockact.spec import AsValue

if TYPE_CHECKING:
    from sockact.activation.program import Identity


class Stream(enum.Enum):
    """What a standard stream is connected to, where that is no file and no passed descriptor."""

    INHERIT = "ours"
    NULL = "/dev/null"
    SAME = "the stream before it"
    """Of standard output: what standard input is; of standard error: what standard output is."""


class How(enum.Enum):
    """How the file of a standard stream is opened."""

    READ = "for reading"
    WRITE = "for writing from its beginning, without truncating it"
    TRUNCATE = "for writing, truncated"
    APPEND = "for appending"


@attrs.frozen(eq=False, repr=False)
class StreamFile(AsValue):
    """A file as a standard stream.

    It is opened by the new process, with the authority of this one. What is opened for writing is
    created if it is missing, with mode 0666 less the program's umask. A Unix socket is connected
    to. One that standard output and error name alike is opened once, and so is one that is read as
    standard input and written (`How.WRITE`) as another: for both then.

    Source: systemd.exec(5), StandardInput= and StandardOutput=.
    """

    path: str
    how: How


Stdio = Stream | StreamFile | int
"""A standard stream; a number is an index into the descriptors that are given to spawn()."""


class Step(enum.Enum):
    """What a start can fail at; the value is systemd's exit status for it (systemd.exec(5))."""

    DIRECTORY = 200
    NICE = 201
    DESCRIPTORS = 202
    EXEC = 203
    LIMITS = 205
    OOM_SCORE = 206
    SIGNALS = 207
    STDIN = 208
    STDOUT = 209
    GROUP = 216
    USER = 217
    SESSION = 220
    STDERR = 222


@attrs.frozen(eq=False, repr=False)
class Limit(AsValue):
    """One resource limit of setrlimit(2).

    Attributes:
        resource: Its name without RLIMIT_: ``NOFILE``.
        soft: The limit in its own unit; -1 is infinity.
        hard: How far the program may raise it; -1 is infinity.
    """

    resource: str
    soft: int
    hard: int


@attrs.frozen(eq=False, repr=False)
class Execution(AsValue):
    """A program to be started.

    Attributes:
        path: The program's file.
        argv: Its arguments, the first its name.
        environ: Its environment, complete but for LISTEN_* and `pid_variables`.
        withheld: Those of LISTEN_* and `pid_variables` of which `environ` has the last word.
        names: An fd name for each descriptor that is placed at 3, 4, 5 ….
        listen: Tell of them in LISTEN_*.
        pid_variables: Variables whose value is the process id of the program: ``WATCHDOG_PID``.
        stdin: Standard input.
        stdout: Standard output.
        stderr: Standard error.
        session: Put it into a session of its own (setsid(2)).
        ignore_sigpipe: Start it with SIGPIPE ignored; every other signal has its default action.
        death_signal: What it gets when the thread that started it ends; 0 for nothing. The kernel
            forgets it for programs that gain rights when executed (prctl(2), PR_SET_PDEATHSIG).
            Linux only.
        umask: Its file mode mask; None for ours.
        limits: Its resource limits; the others are ours. Where a hard limit may not be raised as
            far as wanted, it gets what is allowed.
        nice: Its nice level; None for ours. Where it may not be lowered so far, likewise.
        oom_score_adjust: What oom_score_adj(5) says; None for ours. No error if forbidden.
        who: The user that it runs as; None for ours.
        directory: Its working directory, entered as that user; None for ours.
        directory_optional: Run it in the root directory if that directory cannot be entered.
        shell: Run what the kernel does not recognise as a shell script, as execvp(3) does.
    """

    path: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    names: tuple[str, ...] = ()
    listen: bool = True
    pid_variables: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    stdin: Stdio = Stream.INHERIT
    stdout: Stdio = Stream.INHERIT
    stderr: Stdio = Stream.INHERIT
    session: bool = False
    ignore_sigpipe: bool = False
    death_signal: int = 0
    umask: int | None = None
    limits: tuple[Limit, ...] = ()
    nice: int | None = None
    oom_score_adjust: int | None = None
    who: "Identity | None" = None
    directory: str | None = None
    directory_optional: bool = False
    shell: bool = False
