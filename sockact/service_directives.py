"""THE table of service units: every directive that is honoured, one row each, as data.

It is to ``.service`` files what ``sockact.directives`` is to ``.socket`` files. What systemd knows
beyond these rows is named in ``sockact.unitfile.foreign`` and is a warning. Adding a directive is
adding a row to its group.

Some defaults depend on other directives, and `sockact.unitfile.service` puts what follows into the
settings, so that ``spec.get(ROW)`` is always what holds.

Source: systemd.service(5), systemd.exec(5), systemd.kill(5) and systemd.unit(5) up to version 261.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import attrs

from sockact import directives
from sockact.directives import SECOND
from sockact.spec import INFINITY, AsValue, Directive, Moment, Value

if TYPE_CHECKING:
    from sockact.unitfile.command import Command
    from sockact.unitfile.readiness import Readiness

T = TypeVar("T")

MILLISECOND = SECOND // 1000

# Signals whose numbers POSIX or every system agrees on; the others are the platform's.
_SIGHUP, _SIGABRT, _SIGKILL, _SIGTERM = 1, 6, 9, 15


@attrs.frozen(eq=False, repr=False)
class OptionalPath(AsValue):
    """A path that may be allowed to be missing.

    Attributes:
        path: The path; of WorkingDirectory= also ``~``, the home of the user.
        optional: Whether it is no error if it is missing (``-`` in front).
    """

    path: str
    optional: bool = False

    def __str__(self) -> str:
        return ("-" if self.optional else "") + self.path


@attrs.frozen(eq=False, repr=False)
class Stdio(AsValue):
    """Where standard input comes from, or an output goes to.

    Attributes:
        kind: ``null``; ``socket`` for the one socket; ``fd`` for the socket named `target`;
            ``file``, ``append`` or ``truncate`` for the file at the path `target`; ``inherit`` for
            what the stream before it has (of input: nothing); ``parent`` for where the same stream
            of sockact goes.
        target: The path, or the fd name.
    """

    kind: str
    target: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.target}" if self.target else self.kind


@attrs.frozen(eq=False, repr=False)
class OpenFileSpec(AsValue):
    """A file, or a Unix socket, that is opened for the program (OpenFile=).

    Attributes:
        path: Its absolute path.
        name: The fd name; by default the name of the file.
        mode: ``read-only``, ``append``, ``truncate``, or empty for reading and writing.
        graceful: Whether it may be missing.
    """

    path: str
    name: str
    mode: str = ""
    graceful: bool = False

    def __str__(self) -> str:
        options = ",".join(filter(None, (self.mode, "graceful" if self.graceful else "")))
        path = self.path.replace("\\", "\\\\").replace(":", "\\x3a")
        return f"{path}:{self.name}" + (f":{options}" if options else "")


ExitStatus = tuple[str, int]
"""``("exit", code)`` or ``("signal", number)``."""

Commands = tuple["Command", ...]
_NO_COMMANDS: Commands = ()
_NO_STATUSES: frozenset[ExitStatus] = frozenset()


def _row(
    name: str,
    value: Value,
    default: T,
    summary: str,
    *,
    call: str = "",
    since: int = 0,
    resets: bool = False,
    specifiers: bool = False,
    section: str = "Service",
) -> Directive[T]:
    return Directive(
        name,
        value,
        default,
        Moment.MANAGER,
        summary,
        call,
        since,
        resets=resets,
        specifiers=specifiers,
        section=section,
    )


def _commands(name: str, summary: str, since: int = 0) -> Directive[Commands]:
    return _row(
        name,
        Value.COMMANDS,
        _NO_COMMANDS,
        summary,
        call="execve()",
        since=since,
        resets=True,
        specifiers=True,
    )


# --- starting and stopping ------------------------------------------------------------------------

TYPE = _row(
    "Type",
    Value.TYPE,
    "simple",
    "When the service counts as started: at once (simple, and idle, which is the same here), when"
    " its program runs (exec), when it says READY=1 (notify, notify-reload), or when it has ended"
    " (oneshot, the default without ExecStart=).",
)
EXEC_CONDITION = _commands(
    "ExecCondition",
    "Commands to run first; one that ends with 1 to 254 keeps the service from being started,"
    " which is no failure.",
    243,
)
EXEC_START_PRE = _commands("ExecStartPre", "Commands to run before ExecStart=.")
EXEC_START = _commands(
    "ExecStart",
    "The program of the service; with Type=oneshot there may be several, run one after the other.",
)
EXEC_START_POST = _commands("ExecStartPost", "Commands to run when the service has started.")
EXEC_RELOAD = _commands(
    "ExecReload", "Commands that make the service read its configuration; $MAINPID is its process."
)
EXEC_STOP = _commands("ExecStop", "Commands that ask the service to end; then KillSignal= is sent.")
EXEC_STOP_POST = _commands(
    "ExecStopPost", "Commands to run when the service has ended, also after a failure."
)
REMAIN_AFTER_EXIT = _row(
    "RemainAfterExit",
    Value.BOOLEAN,
    False,
    "Counts the service as active when all its processes have ended.",
)
TIMEOUT_START = _row(
    "TimeoutStartSec",
    Value.SPAN_OR_ZERO,
    90 * SECOND,
    "How long a start may take; with Type=oneshot there is no limit by default.",
    since=188,
)
TIMEOUT_STOP = _row(
    "TimeoutStopSec",
    Value.SPAN_OR_ZERO,
    90 * SECOND,
    "How long each command of ExecStop=, and the processes after KillSignal=, may take.",
    since=188,
)
TIMEOUT_ABORT = _row(
    "TimeoutAbortSec",
    Value.SPAN,
    90 * SECOND,
    "How long the processes may take after WatchdogSignal=; by default as TimeoutStopSec=.",
    since=243,
    resets=True,
)
RUNTIME_MAX = _row(
    "RuntimeMaxSec",
    Value.SPAN,
    INFINITY,
    "How long the service may run; then it is stopped, and has failed.",
    since=229,
)

# --- restarting -----------------------------------------------------------------------------------

RESTART = _row(
    "Restart",
    Value.RESTART,
    "no",
    "After which end of its program the service is started again.",
)
RESTART_SEC = _row(
    "RestartSec", Value.SPAN, 100 * MILLISECOND, "How long to wait before that start."
)
RESTART_STEPS = _row(
    "RestartSteps",
    Value.UNSIGNED,
    0,
    "In how many restarts the wait grows from RestartSec= to RestartMaxDelaySec=.",
    since=254,
)
RESTART_MAX_DELAY = _row(
    "RestartMaxDelaySec",
    Value.SPAN,
    INFINITY,
    "The longest wait before a restart; used if RestartSteps= is set too.",
    since=254,
)
SUCCESS_EXIT_STATUS = _row(
    "SuccessExitStatus",
    Value.STATUSES,
    _NO_STATUSES,
    "Ends of the program that are no failure, beside 0, HUP, INT, TERM and PIPE.",
    since=189,
    resets=True,
)
RESTART_PREVENT_EXIT_STATUS = _row(
    "RestartPreventExitStatus",
    Value.STATUSES,
    _NO_STATUSES,
    "Ends of the program after which it is not started again, whatever Restart= says.",
    since=189,
    resets=True,
)
RESTART_FORCE_EXIT_STATUS = _row(
    "RestartForceExitStatus",
    Value.STATUSES,
    _NO_STATUSES,
    "Ends of the program after which it is started again, whatever Restart= says.",
    since=215,
    resets=True,
)
START_LIMIT_INTERVAL = _row(
    "StartLimitIntervalSec",
    Value.SPAN,
    10 * SECOND,
    "The time in which StartLimitBurst= starts are allowed; 0 is no limit.",
    since=229,
    section="Unit",
)
START_LIMIT_BURST = _row(
    "StartLimitBurst",
    Value.UNSIGNED,
    5,
    "Starts allowed in StartLimitIntervalSec=; 0 is no limit.",
    since=229,
    section="Unit",
)

# --- signals --------------------------------------------------------------------------------------

KILL_MODE = _row(
    "KillMode",
    Value.KILL_MODE,
    "control-group",
    "Who gets the signals of a stop: all processes of the service, all but first only the main"
    " one (mixed), the main one, or nobody.",
    call="kill()",
    since=187,
)
KILL_SIGNAL = _row(
    "KillSignal", Value.SIGNAL, _SIGTERM, "The signal that asks the service to end.", call="kill()",
    since=187,
)  # fmt: skip
RESTART_KILL_SIGNAL = _row(
    "RestartKillSignal",
    Value.SIGNAL,
    _SIGTERM,
    "The same for a restart; by default as KillSignal=.",
    call="kill()",
    since=244,
)
SEND_SIGHUP = _row(
    "SendSIGHUP", Value.BOOLEAN, False, "Sends SIGHUP right after that signal.", call="kill()",
    since=207,
)  # fmt: skip
SEND_SIGKILL = _row(
    "SendSIGKILL",
    Value.BOOLEAN,
    True,
    "Sends FinalKillSignal= to what is left after TimeoutStopSec=.",
    call="kill()",
    since=187,
)
FINAL_KILL_SIGNAL = _row(
    "FinalKillSignal", Value.SIGNAL, _SIGKILL, "The signal that ends what is left.", call="kill()",
    since=240,
)  # fmt: skip
RELOAD_SIGNAL = _row(
    "ReloadSignal",
    Value.SIGNAL,
    _SIGHUP,
    "The signal that makes a service of Type=notify-reload read its configuration.",
    call="kill()",
    since=253,
)
IGNORE_SIGPIPE = _row(
    "IgnoreSIGPIPE",
    Value.BOOLEAN,
    True,
    "Ignores SIGPIPE in the program.",
    call="sigaction()",
)

# --- what the program tells -----------------------------------------------------------------------

NOTIFY_ACCESS = _row(
    "NotifyAccess",
    Value.NOTIFY_ACCESS,
    "none",
    "Whose messages of sd_notify() count: nobody's, those of the main process, of the processes"
    " of Exec directives (exec), or of all; at least main if the service needs it.",
    call="NOTIFY_SOCKET",
)
WATCHDOG = _row(
    "WatchdogSec",
    Value.SPAN,
    0,
    "The service has failed if it does not say WATCHDOG=1 within this time; 0 is no limit.",
    call="WATCHDOG_USEC",
)
WATCHDOG_SIGNAL = _row(
    "WatchdogSignal",
    Value.SIGNAL,
    _SIGABRT,
    "The signal that ends it then.",
    call="kill()",
    since=240,
)
FD_STORE_MAX = _row(
    "FileDescriptorStoreMax",
    Value.UNSIGNED,
    0,
    "How many descriptors the service may leave with us by FDSTORE=1; it gets them back at its"
    " next start.",
    call="SCM_RIGHTS",
    since=219,
)
FD_STORE_PRESERVE = _row(
    "FileDescriptorStorePreserve",
    Value.PRESERVE,
    "restart",
    "Whether these outlive a stop: no, yes, only a restart, or only a stop without a failure"
    " (on-success).",
    since=254,
)

# --- what the program gets ------------------------------------------------------------------------

SOCKETS: Directive[tuple[str, ...]] = _row(
    "Sockets",
    Value.SOCKETS,
    (),
    "Socket units whose sockets the service gets, beside the one of its name.",
    call="LISTEN_FDS",
    specifiers=True,
)
NON_BLOCKING = directives.NON_BLOCKING
OPEN_FILE: Directive[tuple[OpenFileSpec, ...]] = _row(
    "OpenFile",
    Value.OPEN_FILE,
    (),
    "A file or Unix socket that is opened for the service, behind its sockets. Options: read-only,"
    " append, truncate, graceful.",
    call="open() or connect()",
    since=253,
    resets=True,
)
STANDARD_INPUT = _row(
    "StandardInput",
    Value.INPUT,
    Stdio("null"),
    "Standard input; socket is the one socket, fd the socket of that fd name.",
    call="dup2()",
    specifiers=True,
)
STANDARD_OUTPUT = _row(
    "StandardOutput",
    Value.OUTPUT,
    Stdio("inherit"),
    "Standard output; inherit is the socket that standard input is, else that of sockact.",
    call="dup2()",
    specifiers=True,
)
STANDARD_ERROR = _row(
    "StandardError",
    Value.OUTPUT,
    Stdio("inherit"),
    "Standard error; inherit is what standard output is if that was set, else that of sockact.",
    call="dup2()",
    specifiers=True,
)
ENVIRONMENT: Directive[tuple[tuple[str, str], ...]] = _row(
    "Environment",
    Value.ENVIRONMENT,
    (),
    "Variables.",
    call="execve()",
    resets=True,
    specifiers=True,
)
ENVIRONMENT_FILE: Directive[tuple[OptionalPath, ...]] = _row(
    "EnvironmentFile",
    Value.FILES,
    (),
    "Files with more variables, read at each start.",
    call="execve()",
    resets=True,
    specifiers=True,
)
PASS_ENVIRONMENT: Directive[tuple[str, ...]] = _row(
    "PassEnvironment",
    Value.NAMES,
    (),
    "Variables that are taken from the environment of sockact.",
    call="execve()",
    since=228,
    resets=True,
    specifiers=True,
)
UNSET_ENVIRONMENT: Directive[tuple[str, ...]] = _row(
    "UnsetEnvironment",
    Value.UNSET,
    (),
    "Variables that are removed in the end, or only if they have that value.",
    call="execve()",
    since=235,
    resets=True,
    specifiers=True,
)

# --- as whom and within which limits --------------------------------------------------------------

USER = _row(
    "User",
    Value.USER,
    "",
    "The user that the program runs as; by default that of sockact.",
    call="setresuid()",
    resets=True,
    specifiers=True,
)
GROUP = _row(
    "Group",
    Value.USER,
    "",
    "The group that the program runs as; by default that of the user.",
    call="setresgid()",
    resets=True,
    specifiers=True,
)
SUPPLEMENTARY_GROUPS: Directive[tuple[str, ...]] = _row(
    "SupplementaryGroups",
    Value.GROUPS,
    (),
    "Groups that the program is in besides.",
    call="setgroups()",
    resets=True,
    specifiers=True,
)
WORKING_DIRECTORY: Directive[OptionalPath | None] = _row(
    "WorkingDirectory",
    Value.DIRECTORY,
    None,
    "The directory that the program runs in; ~ is the home of the user.",
    call="chdir()",
    resets=True,
    specifiers=True,
)
UMASK = _row("UMask", Value.MODE, 0o022, "Access rights that new files lack.", call="umask()")
NICE: Directive[int | None] = _row(
    "Nice", Value.NICE, None, "Priority of the processes.", call="setpriority()", resets=True
)
OOM_SCORE_ADJUST: Directive[int | None] = _row(
    "OOMScoreAdjust",
    Value.OOM_SCORE,
    None,
    "How likely the kernel is to end the processes when memory runs out.",
    call="/proc/self/oom_score_adj",
    resets=True,
)

_LIMITS = {
    "CPU": "Seconds of processor time.",
    "FSIZE": "Bytes of a file.",
    "DATA": "Bytes of data.",
    "STACK": "Bytes of stack.",
    "CORE": "Bytes of a core dump.",
    "RSS": "Bytes of resident memory.",
    "NOFILE": "File descriptors.",
    "AS": "Bytes of address space.",
    "NPROC": "Processes of the user.",
    "MEMLOCK": "Bytes of locked memory.",
    "LOCKS": "File locks.",
    "SIGPENDING": "Signals that wait.",
    "MSGQUEUE": "Bytes in message queues.",
    "NICE": "The highest nice level, -20 to 19 with a sign, or 1 to 40.",
    "RTPRIO": "The highest realtime priority.",
    "RTTIME": "Microseconds of realtime processor time without a pause.",
}


def _limit(name: str, summary: str) -> Directive[tuple[int, int] | None]:
    call = f"setrlimit(RLIMIT_{name})"
    return _row(f"Limit{name}", Value.LIMIT, None, summary, call=call)


LIMITS = {f"Limit{name}": _limit(name, summary) for name, summary in _LIMITS.items()}
"""The rows of ``Limit*=`` by name: (soft, hard), -1 for no limit; None leaves it as it is."""

# --- the unit, and what is ours -------------------------------------------------------------------

DESCRIPTION = _row(
    "Description",
    Value.STRING,
    "",
    "What the service is, for people.",
    resets=True,
    specifiers=True,
    section="Unit",
)
CONFLICTS: Directive[tuple[str, ...]] = _row(
    "Conflicts",
    Value.UNITS,
    (),
    "Services that do not run beside this one: they are stopped when it is started, and"
    " DeferTrigger= of a socket unit waits for them.",
    specifiers=True,
    section="Unit",
)
X_READY: "Directive[Readiness | None]" = _row(
    "X-Ready",
    Value.READY,
    None,
    "How an instance shows that it can serve; the one that it replaces is stopped only then.",
    resets=True,
)
X_IDLE_STOP = _row(
    "X-IdleStopSec",
    Value.SPAN_OR_ZERO,
    INFINITY,
    "Stops the service when nobody was served, or waited, for this long; the next one starts it.",
)
X_INSTANCES = _row(
    "X-Instances",
    Value.COUNT,
    1,
    "How many processes of the program serve side by side.",
)


def _table() -> Iterator[Directive[object]]:
    for found in tuple(globals().values()):
        if found is LIMITS:
            yield from LIMITS.values()
        elif isinstance(found, Directive):
            yield found


TABLE = {row.name: row for row in _table()}
"""Every row by name."""

ALIASES = {
    ("Service", "StartLimitInterval"): START_LIMIT_INTERVAL.name,
    ("Unit", "StartLimitInterval"): START_LIMIT_INTERVAL.name,
    ("Service", "StartLimitBurst"): START_LIMIT_BURST.name,
}
"""Other places and spellings that systemd takes, from before 229."""

BOTH_TIMEOUTS = "TimeoutSec"
"""The key that sets TimeoutStartSec= and TimeoutStopSec= at once."""
