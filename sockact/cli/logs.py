"""What ``sockact run`` writes on standard error, through the standard ``logging``.

On a terminal and for journald it is text, one line a message; else JSON Lines. A supervisor must
not wait for whoever reads its log: a full pipe, or a terminal on which somebody has pressed Ctrl-S,
would stop all services with it. So nothing here blocks, and no flag of the descriptor is changed,
because its description is shared with every child: what cannot be written at once is kept up to a
limit, then dropped, counted, and told of as soon as there is room.
"""

import collections
import contextlib
import errno
import json
import logging
import os
import select
import socket as _socket
import stat
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from sockact.cli.output import printable

FORMATS: Final = ("auto", "text", "json")

KEPT_MAX = 256 * 1024
"""How many bytes are kept for a standard error that takes none."""
LAST_SECONDS = 1.0
"""How long the last words are waited for."""

_PIPE_BUF = 4096  # POSIX says 512; what poll(2) promises on Linux is a page
_NOSIGNAL = getattr(_socket, "MSG_NOSIGNAL", 0)
_WRITE = 2  # selectors.EVENT_WRITE

# What every record has (logging, "LogRecord attributes"); all else was given as `extra`.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_LEVELS = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "critical",
}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_COLOURS = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class Reactor(Protocol):
    """Who calls back when a descriptor can be written to."""

    def watch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Call `callback` while `fd` is ready."""

    def unwatch(self, fd: int) -> None:
        """Do so no more."""


def level_name(record: logging.LogRecord) -> str:
    """Return the level in lower case: ``warning``."""
    return _LEVELS.get(record.levelno) or record.levelname.lower()


def _text(record: logging.LogRecord) -> str:
    """Return the message, with what was raised, if anything was, in one line."""
    try:
        text = record.getMessage()
    except (TypeError, ValueError, KeyError):  # more or fewer arguments than it has places
        text = str(record.msg)
    if record.exc_info and record.exc_info[0] is not None:
        kind, error = record.exc_info[0].__name__, record.exc_info[1]
        text += f": {kind}: {error}" if str(error) else f": {kind}"
    return text


def _traceback(record: logging.LogRecord) -> str:
    """Return where something was raised; nothing unless SOCKACT_DEBUG asks for it."""
    if not record.exc_info or not os.environ.get("SOCKACT_DEBUG"):
        return ""
    return "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")


def _with_traceback(line: str, record: logging.LogRecord) -> str:
    trace = _traceback(record)
    return f"{line}\n{trace}" if trace else line


class TextFormatter(logging.Formatter):
    """One line for people: the time, the level from warning on, the message."""

    def __init__(self, *, date: bool = False, colour: bool = False) -> None:
        """Choose how.

        Args:
            date: Whether the date, and where the clock stands to UTC, belong to the time.
            colour: Whether it is for a terminal that has colours.
        """
        super().__init__()
        self._date = date
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        level = level_name(record)
        word = "" if level in ("debug", "info") else f"{level}: "
        moment = self._moment(record.created)
        if self._colour:
            moment = f"{_DIM}{moment}{_PLAIN}"
            if word and level in _COLOURS:
                word = f"{_COLOURS[level]}{level}:{_PLAIN} "
        return _with_traceback(f"{moment} {word}{printable(_text(record))}", record)

    def _moment(self, created: float) -> str:
        seconds, milliseconds = _milliseconds(created)
        local = time.localtime(seconds)
        clock = f"{time.strftime('%H:%M:%S', local)}.{milliseconds:03}"
        if not self._date:
            return clock
        zone = time.strftime("%z", local)
        return f"{time.strftime('%Y-%m-%d', local)}T{clock}{zone[:3]}:{zone[3:]}"


def _milliseconds(created: float) -> tuple[int, int]:
    return divmod(int(created * 1000), 1000)


class JournalFormatter(logging.Formatter):
    """One line for journald: the priority in front, no time (sd-daemon(3), SD_INFO)."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        priority = _PRIORITIES.get(level_name(record), 6)
        return _with_traceback(f"<{priority}>{printable(_text(record))}", record)


class JsonFormatter(logging.Formatter):
    """One JSON object in a line: time, level, message, and what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, without the end of the line."""
        seconds, milliseconds = _milliseconds(record.created)
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        extra = {name: value for name, value in vars(record).items() if name not in _USUAL}
        text = _text(record)
        if "unit" in extra:  # which is in front of the text for people
            text = text.removeprefix(f"{extra['unit']}: ")
        head = {
            "time": f"{clock}.{milliseconds:03}Z",
            "level": level_name(record),
            "message": text,
        }
        if trace := _traceback(record):
            extra["traceback"] = trace
        # ensure_ascii: control characters and lone surrogates are escaped, too.
        return json.dumps(head | extra, default=str, ensure_ascii=True)


class _Sink:
    """A descriptor of our own that is written to without waiting."""

    def __init__(self, fd: int) -> None:
        """Write to where `fd` leads, which stays the caller's.

        To open a pipe or a terminal again gives a new description with flags of its own (proc(5),
        /proc/PID/fd), and a socket takes a flag with each message: so O_NONBLOCK, which others
        would see, is not needed.
        """
        mode = os.fstat(fd).st_mode
        self._sock: _socket.socket | None = None
        self._poll: select.poll | None = None
        if stat.S_ISSOCK(mode):
            self._sock = _socket.socket(fileno=os.dup(fd))
            self.fd = self._sock.fileno()
            return
        self.fd = -1
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            with contextlib.suppress(OSError):
                self.fd = os.open(f"/proc/self/fd/{fd}", flags)
        if self.fd < 0:
            self.fd = os.dup(fd)
            if not stat.S_ISREG(mode) and os.get_blocking(fd):
                self._poll = select.poll()
                self._poll.register(self.fd, select.POLLOUT)

    def write(self, data: bytes) -> int:
        """Write some of it, and return how much.

        Raises:
            BlockingIOError: There is no room.
            OSError: It cannot be written.
        """
        if self._sock is not None:
            return self._sock.send(data, _socket.MSG_DONTWAIT | _NOSIGNAL)
        if self._poll is not None:
            # Another writer may take the room in between: then this does wait.
            if not self._poll.poll(0):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            data = data[:_PIPE_BUF]
        return os.write(self.fd, data)

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
        else:
            os.close(self.fd)


class StderrHandler(logging.Handler):
    """Writes records to a descriptor, and never waits for it.

    Attributes:
        dropped: How many records were dropped and not told of yet.
    """

    def __init__(self, fd: int) -> None:
        """Write to where `fd` leads; owns a descriptor of its own until `close`.

        Raises:
            OSError: EBADF: it is not open.
        """
        super().__init__()
        self.dropped = 0
        self._kept: collections.deque[tuple[bytes, int]] = collections.deque()  # and how many
        self._size = 0
        self._reactor: Reactor | None = None
        self._watched = False
        self._sink: _Sink | None = _Sink(fd)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or keep it, or drop it."""
        if self._sink is None:
            return
        line = self._line(record)
        self.flush()
        if self.dropped or (self._kept and self._size + len(line) > KEPT_MAX):
            self.dropped += 1
            return
        self._keep(line, 1)
        self.flush()

    def _line(self, record: logging.LogRecord) -> bytes:
        try:
            return self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:  # noqa: BLE001 - a message is not worth a supervisor
            return b"a message could not be formatted\n"

    def _keep(self, line: bytes, count: int) -> None:
        self._kept.append((line, count))
        self._size += len(line)

    def flush(self) -> None:
        """Write what was kept, as far as there is room."""
        while self._sink is not None and (self._kept or self.dropped):
            if not self._kept:
                self._tell()
            line, count = self._kept[0]
            try:
                written = self._sink.write(line)
            except BlockingIOError:
                break
            except OSError:  # nobody reads any more, or the disk is full
                self.dropped += sum(count for _, count in self._kept)
                self._kept.clear()
                self._size = 0
                break
            self._size -= written
            if written < len(line):
                self._kept[0] = (line[written:], count)
            else:
                self._kept.popleft()
        self._watch(wanted=bool(self._kept))

    def _tell(self) -> None:
        """Keep a line that says how many were dropped."""
        count, self.dropped = self.dropped, 0
        text = f"{count} messages were lost: standard error did not take them"
        record = logging.LogRecord("sockact", logging.WARNING, "", 0, text, None, None)
        self._keep(self._line(record), count)

    # --- with a reactor ---------------------------------------------------------------------------

    def attach(self, reactor: Reactor | None) -> None:
        """Have `reactor` call when there is room for what was kept; None for nobody.

        Without one it is written with the next record.
        """
        self._watch(wanted=False)
        self._reactor = reactor
        self._watch(wanted=bool(self._kept))

    def _watch(self, *, wanted: bool) -> None:
        if self._reactor is None or self._sink is None or wanted == self._watched:
            return
        if wanted:
            self._reactor.watch(self._sink.fd, _WRITE, self.flush)
        else:
            self._reactor.unwatch(self._sink.fd)
        self._watched = wanted

    def close(self) -> None:
        """Write the rest, waiting a second at most, and close; a second time does nothing."""
        if self._sink is not None:
            self.attach(None)
            self._write_last(self._sink.fd)
            self._sink.close()
            self._sink = None
        super().close()

    def _write_last(self, fd: int) -> None:
        deadline = time.monotonic() + LAST_SECONDS
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        self.flush()
        while self._kept and (left := deadline - time.monotonic()) > 0:
            poll.poll(left * 1000)
            self.flush()


# --- setting up -----------------------------------------------------------------------------------


def formatter(form: str, fd: int, environ: Mapping[str, str]) -> logging.Formatter:
    """Return the formatter for ``--log-format``.

    Args:
        form: One of `FORMATS`; ``auto`` is text on a terminal and for journald, else JSON.
        fd: Where it will be written to.
        environ: The environment; NO_COLOR and TERM count on a terminal, and JOURNAL_STREAM says
            what journald listens to (systemd.exec(5)).
    """
    terminal = os.isatty(fd)
    journal = _is_journal(fd, environ)
    if form == "json" or (form == "auto" and not terminal and not journal):
        return JsonFormatter()
    if journal:
        return JournalFormatter()
    colour = terminal and not environ.get("NO_COLOR") and environ.get("TERM", "dumb") != "dumb"
    return TextFormatter(date=not terminal, colour=colour)


def _is_journal(fd: int, environ: Mapping[str, str]) -> bool:
    status = os.fstat(fd)
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


@contextlib.contextmanager
def logging_to(
    form: str,
    *,
    level: int = logging.INFO,
    fd: int = 2,
    environ: Mapping[str, str] = os.environ,
) -> Iterator[StderrHandler]:
    """Write what the logger ``sockact``, and those below it, are told to standard error.

    Args:
        form: One of `FORMATS`.
        level: The least level that is written.
        fd: Where to write; what is closed is not written to.
        environ: See `formatter`.
    """
    try:
        handler = StderrHandler(fd)
    except OSError:
        fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            handler = StderrHandler(fd)
            handler.setFormatter(JsonFormatter())
        finally:
            os.close(fd)
    else:
        handler.setFormatter(formatter(form, fd, environ))
    logger = logging.getLogger("sockact")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
        handler.close()
