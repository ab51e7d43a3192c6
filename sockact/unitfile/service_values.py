"""The value syntaxes that stand in service units only; see ``sockact.unitfile.values``.

Source: systemd's src/core/load-fragment.c, src/basic/rlimit-util.c, src/shared/exit-status.c and
src/shared/open-file.c.
"""

import re
from collections.abc import Callable

from sockact.service_directives import ExitStatus, OpenFileSpec, OptionalPath, Stdio
from sockact.spec import INFINITY, Value
from sockact.unitfile.signals import signal_name, signal_number
from sockact.unitfile.values import (
    BLANKS,
    READERS,
    absolute_path,
    boolean,
    fd_name,
    integer,
    is_text,
    is_variable,
    next_word,
    quote_escaped,
    size,
    span,
    unescape,
    write,
)

_U64_MAX = 2**64 - 1


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text[:40]!r} is none of {', '.join(words)}")
        return text

    return read


_TYPES = _one_of("simple", "exec", "notify", "notify-reload", "oneshot", "idle", "forking", "dbus")


def _type(text: str) -> str:
    kind = _TYPES(text)
    return "simple" if kind == "idle" else kind


_PRESERVE = _one_of("no", "yes", "restart", "on-success")


def _preserve(text: str) -> str:
    if text in ("restart", "on-success"):
        return text
    try:
        return "yes" if boolean(text) else "no"
    except ValueError:
        return _PRESERVE(text)


# Names of exit statuses: ISO C, LSB, BSD, and systemd's own from 200 on.
_STATUSES = {
    "SUCCESS": 0, "FAILURE": 1, "INVALIDARGUMENT": 2, "NOTIMPLEMENTED": 3, "NOPERMISSION": 4,
    "NOTINSTALLED": 5, "NOTCONFIGURED": 6, "NOTRUNNING": 7, "USAGE": 64, "DATAERR": 65,
    "NOINPUT": 66, "NOUSER": 67, "NOHOST": 68, "UNAVAILABLE": 69, "SOFTWARE": 70, "OSERR": 71,
    "OSFILE": 72, "CANTCREAT": 73, "IOERR": 74, "TEMPFAIL": 75, "PROTOCOL": 76, "NOPERM": 77,
    "CONFIG": 78, "CHDIR": 200, "NICE": 201, "FDS": 202, "EXEC": 203, "MEMORY": 204,
    "LIMITS": 205, "OOM_ADJUST": 206, "SIGNAL_MASK": 207, "STDIN": 208, "STDOUT": 209,
    "CHROOT": 210, "IOPRIO": 211, "TIMERSLACK": 212, "SECUREBITS": 213, "SETSCHEDULER": 214,
    "CPUAFFINITY": 215, "GROUP": 216, "USER": 217, "CAPABILITIES": 218, "CGROUP": 219,
    "SETSID": 220, "CONFIRM": 221, "STDERR": 222, "PAM": 224, "NETWORK": 225, "NAMESPACE": 226,
    "NO_NEW_PRIVILEGES": 227, "SECCOMP": 228, "SELINUX_CONTEXT": 229, "PERSONALITY": 230,
    "APPARMOR": 231, "ADDRESS_FAMILIES": 232, "RUNTIME_DIRECTORY": 233, "CHOWN": 235,
    "SMACK_PROCESS_LABEL": 236, "KEYRING": 237, "STATE_DIRECTORY": 238, "CACHE_DIRECTORY": 239,
    "LOGS_DIRECTORY": 240, "CONFIGURATION_DIRECTORY": 241, "NUMA_POLICY": 242,
    "CREDENTIALS": 243, "BPF": 245, "KSM": 246, "EXCEPTION": 255,
}  # fmt: skip


def _status(word: str) -> ExitStatus:
    if word in _STATUSES:
        return ("exit", _STATUSES[word])
    try:
        return ("exit", integer(word, 0, 255))
    except ValueError:
        pass
    try:
        return ("signal", signal_number(word))
    except ValueError:
        raise ValueError(f"{word[:40]!r} is neither an exit status nor a signal") from None


def _assignment(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not is_variable(name) or not is_text(value):
        raise ValueError(f"{word[:80]!r} is not NAME=VALUE")
    return name, value


def _name(word: str) -> str:
    if not is_variable(word):
        raise ValueError(f"{word[:80]!r} is not the name of a variable")
    return word


def _name_or_assignment(word: str) -> str:
    if not is_variable(word):
        _assignment(word)
    return word


_UNIT_TYPES = "service|socket|device|mount|automount|swap|target|path|timer|slice|scope"


def _unit(word: str) -> str:
    if len(word) > 255 or not re.fullmatch(
        rf"[A-Za-z0-9:_.\\-]+(?:@[A-Za-z0-9:_.\\@-]*)?\.(?:{_UNIT_TYPES})", word
    ):
        raise ValueError(f"{word[:80]!r} is not the name of a unit")
    return word


def _socket(word: str) -> str:
    if not word.endswith(".socket"):
        raise ValueError(f"{word[:80]!r} is not the name of a socket unit")
    return _unit(word)


def _optional_path(text: str) -> OptionalPath:
    optional = text.startswith("-")
    return OptionalPath(absolute_path(text[optional:]), optional)


def _directory(text: str) -> OptionalPath:
    optional = text.startswith("-")
    path = text[optional:]
    return OptionalPath(path if path == "~" else absolute_path(path), optional)


# --- limits ---------------------------------------------------------------------------------------


def _number(text: str) -> int:
    return integer(text, 0, _U64_MAX - 1)


def _seconds(text: str) -> int:
    found = span(text)
    return -1 if found == INFINITY else -(-found // 1_000_000)


def _microseconds(text: str) -> int:
    found = span(text, unit="us")
    return -1 if found == INFINITY else found


def _nice_limit(text: str) -> int:
    if text.startswith("+"):
        return 20 - integer(text[1:], 0, 19)
    if text.startswith("-"):
        return 20 + integer(text[1:], 0, 20)
    return integer(text, 0, 40)


_LIMIT_READERS: dict[str, Callable[[str], int]] = {
    "LimitCPU": _seconds,
    "LimitNICE": _nice_limit,
    "LimitRTTIME": _microseconds,
    **dict.fromkeys(("LimitNOFILE", "LimitNPROC", "LimitLOCKS", "LimitSIGPENDING"), _number),
    "LimitRTPRIO": _number,
}


def read_limit(name: str, text: str) -> tuple[int, int]:
    """Read the value of the ``Limit*=`` directive `name`: soft and hard, -1 for no limit.

    Raises:
        ValueError: It is no limit, or the soft one is above the hard one.
    """
    reader = _LIMIT_READERS.get(name, size)
    soft, colon, hard = text.partition(":")

    def one(part: str) -> int:
        return (
            -1 if part == "infinity" and reader is not _nice_limit else reader(part.lstrip(BLANKS))
        )

    low = one(soft)
    high = one(hard) if colon else low
    if (low if low >= 0 else INFINITY) > (high if high >= 0 else INFINITY):
        raise ValueError(f"the soft limit {soft} is above the hard one")
    return low, high


# --- streams and files ----------------------------------------------------------------------------

_ELSEWHERE = ("journal", "kmsg", "syslog", "journal+console", "kmsg+console", "syslog+console",
              "tty")  # fmt: skip


def _stream(text: str, words: tuple[str, ...], files: tuple[str, ...]) -> Stdio:
    kind, colon, target = text.partition(":")
    if not colon and kind in words:
        return Stdio(kind)
    if kind == "fd":
        return Stdio("fd", fd_name(target))
    if colon and kind in files:
        return Stdio(kind, absolute_path(target))
    raise ValueError(f"{text[:80]!r} is not a stream")


def _input(text: str) -> Stdio:
    if text in ("tty", "tty-force", "tty-fail", "data"):
        return Stdio(text)
    return _stream(text, ("null", "socket"), ("file",))


def _output(text: str) -> Stdio:
    if text in _ELSEWHERE:
        return Stdio(text)
    return _stream(text, ("inherit", "null", "socket"), ("file", "append", "truncate"))


_OPTIONS = ("read-only", "append", "truncate", "graceful")


def _open_file(text: str) -> OpenFileSpec:
    fields = [unescape(field) for field in text.split(":")]
    if len(fields) > 3 or not fields[0].startswith("/") or len(fields[0]) >= 4096:
        raise ValueError(f"{text[:80]!r} is not {Value.OPEN_FILE.value}, with an absolute path")
    path, name, options = (*fields, "", "")[:3]
    name = fd_name(name or path.rstrip("/").rpartition("/")[2])
    said = [word for word in options.split(",") if word]
    if not name:
        raise ValueError("the root directory is no file")
    if not set(said) <= set(_OPTIONS) or len(set(said)) < len(said):
        raise ValueError(f"{options[:80]!r}: options are {', '.join(_OPTIONS)}, each once")
    modes = [word for word in said if word != "graceful"]
    if len(modes) > 1:
        raise ValueError(f"{' and '.join(modes)} exclude each other")
    return OpenFileSpec(path, name, modes[0] if modes else "", "graceful" in said)


# --- ours -----------------------------------------------------------------------------------------


def _ready(text: str) -> object:
    from sockact.unitfile.readiness import parse_readiness  # noqa: PLC0415 - few units say this

    return parse_readiness(text)


SERVICE_READERS: dict[Value, Callable[[str], object]] = {
    Value.TYPE: _type,
    Value.RESTART: _one_of(
        "no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always"
    ),
    Value.KILL_MODE: _one_of("control-group", "mixed", "process", "none"),
    Value.NOTIFY_ACCESS: _one_of("none", "main", "exec", "all"),
    Value.PRESERVE: _preserve,
    Value.SIGNAL: signal_number,
    Value.FILES: lambda text: (_optional_path(text),),
    Value.DIRECTORY: _directory,
    Value.INPUT: _input,
    Value.OUTPUT: _output,
    Value.OPEN_FILE: lambda text: (_open_file(text),),
    Value.NICE: lambda text: integer(text, -20, 19),
    Value.OOM_SCORE: lambda text: integer(text, -1000, 1000),
    Value.READY: _ready,
    Value.COUNT: lambda text: integer(text, 1, 1000),
}
"""The reader of each syntax that is read as a whole."""


def _plain_word(text: str, position: int) -> tuple[str, int] | None:
    """Give the next word where quotes and backslashes are characters like others."""
    match = re.compile(r"[ \t\n\r]*([^ \t\n\r]+)").match(text, position)
    return (match[1], match.end()) if match else None


def _quoted_word(text: str, position: int) -> tuple[str, int] | None:
    return next_word(text, position, escapes=False)


def _escaped_word(text: str, position: int) -> tuple[str, int] | None:
    return next_word(text, position, escapes=True)


NextWord = Callable[[str, int], tuple[str, int] | None]
WORD_READERS: dict[Value, tuple[NextWord, Callable[[str], object]]] = {
    Value.STATUSES: (_plain_word, _status),
    Value.ENVIRONMENT: (_escaped_word, _assignment),
    Value.NAMES: (_quoted_word, _name),
    Value.UNSET: (_escaped_word, _name_or_assignment),
    Value.GROUPS: (_plain_word, READERS[Value.USER]),
    Value.SOCKETS: (_plain_word, _socket),
    Value.UNITS: (_plain_word, _unit),
}
"""Of each list: what splits it into words, and the reader of a word."""


def write_status(status: ExitStatus) -> str:
    """Write an exit status, or the signal that ended a process."""
    kind, number = status
    return str(number) if kind == "exit" else signal_name(number)


def _write_environment(item: object) -> str:
    assert isinstance(item, tuple)
    return quote_escaped("=".join(item))


def _write_limit(item: object) -> str:
    assert isinstance(item, tuple)
    soft, hard = ("infinity" if one < 0 else str(one) for one in item)
    return soft if soft == hard else f"{soft}:{hard}"


_WRITERS: dict[Value, Callable[[object], str]] = {
    Value.STATUSES: write_status,  # type: ignore[dict-item]
    Value.ENVIRONMENT: _write_environment,
    Value.UNSET: lambda item: quote_escaped(str(item)),
    Value.LIMIT: _write_limit,
    Value.SIGNAL: signal_name,  # type: ignore[dict-item]
    Value.OUTPUT: lambda item: "(that of sockact)" if item == Stdio("parent") else str(item),
}


def write_value(value: Value, item: object) -> str:
    """Write one value of a service unit, as `sockact.unitfile.values.write` does for sockets."""
    writer = _WRITERS.get(value)
    return writer(item) if writer else write(value, item)
