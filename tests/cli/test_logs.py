"""sockact.cli.logs, with real pipes, terminals and sockets."""

import contextlib
import fcntl
import json
import logging
import os
import pty
import re
import socket
import stat
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sockact.cli.logs import KEPT_MAX, LAST_SECONDS, StderrHandler, logging_to
from sockact.rendezvous.react import Reactor
from tests.helpers import ROOT, SECONDS

LOGGER = logging.getLogger("sockact.test")
_BLANK: Mapping[str, str] = {}


@pytest.fixture(name="pipe")
def _pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for number in (read, write):
        with contextlib.suppress(OSError):
            os.close(number)


@pytest.fixture(name="terminal")
def _terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    yield master, slave
    os.close(master)
    os.close(slave)


def _fill(fd: int) -> None:
    """Write to `fd` until it takes no more, and leave its flags as they were."""
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, b"." * 1024)
    os.set_blocking(fd, True)


def _said(
    pipe: tuple[int, int], form: str, environ: Mapping[str, str] = _BLANK, **extra: object
) -> str:
    """Return what is written for one warning."""
    with logging_to(form, fd=pipe[1], environ=environ):
        LOGGER.warning("%s: it is late", "web.service", extra={"unit": "web.service", **extra})
    return os.read(pipe[0], 65536).decode()


# --- JSON -----------------------------------------------------------------------------------------


def test_json_is_for_programs(pipe: tuple[int, int]) -> None:
    """One object in a line: time, level, message without the unit, and what was given besides."""
    line = _said(pipe, "json", pid=12, generation=3)
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    found = json.loads(line)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ", found.pop("time"))
    assert found == {
        "level": "warning",
        "message": "it is late",
        "unit": "web.service",
        "pid": 12,
        "generation": 3,
    }


def test_json_takes_any_value(pipe: tuple[int, int]) -> None:
    """What JSON has no form for is written as text, and no character breaks the line."""
    line = _said(pipe, "json", path=Path("/x"), text="a\nb\udcff\u2028\x1b", odd=float)
    assert line.isascii()
    found = json.loads(line)
    assert found["path"] == "/x"
    assert found["text"] == "a\nb\udcff\u2028\x1b"
    assert found["odd"] == "<class 'float'>"


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("debug", ["", "1"])
def test_no_traceback(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, form: str, debug: str
) -> None:
    """An exception is a part of the message; where it was raised only SOCKACT_DEBUG shows."""
    monkeypatch.setenv("SOCKACT_DEBUG", debug)
    with logging_to(form, fd=pipe[1], environ={}):
        try:
            raise LookupError("no such thing")
        except LookupError:
            LOGGER.exception("cannot start")
    text = os.read(pipe[0], 65536).decode()
    assert "cannot start: LookupError: no such thing" in text
    assert ("Traceback" in text) is bool(debug)
    assert (text.count("\n") == 1) is (form == "json" or not debug)


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_wrong_message_is_still_one(pipe: tuple[int, int], form: str) -> None:
    """Arguments that do not fit, or that cannot be printed, raise nothing."""

    class Odd:
        def __str__(self) -> str:
            raise OSError("no")

        __repr__ = __str__

    with logging_to(form, fd=pipe[1], environ={}):
        LOGGER.warning("%s and %d", "one")  # noqa: PLE1206 - that is it
        LOGGER.warning("see %s", Odd())
    first, second = os.read(pipe[0], 65536).decode().splitlines()
    assert "%s and %d" in first
    assert second == "a message could not be formatted"


# --- text -----------------------------------------------------------------------------------------


def test_text_in_a_file_has_a_date(pipe: tuple[int, int]) -> None:
    """RFC 3339 with the offset to UTC; the level from warning on."""
    line = _said(pipe, "text")
    pattern = (
        r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\d[+-]\d\d:\d\d warning: web.service: it is late\n"
    )
    assert re.fullmatch(pattern, line)


@pytest.mark.parametrize(
    ("environ", "colour"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_text_on_a_terminal(
    terminal: tuple[int, int], environ: Mapping[str, str], *, colour: bool
) -> None:
    """A time without a date; colours only where they are wanted, and never within the message."""
    line = _said(terminal, "auto", environ)
    assert ("\x1b[" in line) is colour
    plain = re.sub(r"\x1b\[[0-9]*m", "", line)
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d\d\d warning: web.service: it is late\n", plain)
    assert line.endswith(" web.service: it is late\n")


def test_information_has_no_level(pipe: tuple[int, int]) -> None:
    """Most lines are that; below the level that was chosen there is none."""
    with logging_to("text", fd=pipe[1], environ={}):
        LOGGER.info("started")
        LOGGER.debug("thinking")
    text = os.read(pipe[0], 65536).decode()
    assert text.endswith(" started\n")
    assert text.count("\n") == 1


def test_a_message_is_one_line(pipe: tuple[int, int]) -> None:
    """Control characters of whoever caused it are escaped."""
    with logging_to("text", fd=pipe[1], environ={}):
        LOGGER.info("status: %s", "a\nb\x1b[31m\udcff")
    assert os.read(pipe[0], 65536).endswith(b"status: a\\nb\\x1b[31m\\udcff\n")


# --- auto and journald ----------------------------------------------------------------------------


def _stream(fd: int) -> str:
    status = os.fstat(fd)
    return f"{status.st_dev}:{status.st_ino}"


@pytest.mark.parametrize("form", ["auto", "text"])
@pytest.mark.parametrize(("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2)])  # fmt: skip
def test_journald_gets_priorities(
    pipe: tuple[int, int], form: str, level: str, priority: int
) -> None:
    """Where JOURNAL_STREAM names standard error, a line begins with its priority, not the time."""
    with logging_to(
        form, level=logging.DEBUG, fd=pipe[1], environ={"JOURNAL_STREAM": _stream(pipe[1])}
    ):
        getattr(LOGGER, level)("hello")
    assert os.read(pipe[0], 65536).decode() == f"<{priority}>hello\n"


@pytest.mark.parametrize("stream", ["", "1:2", "nonsense"])
def test_auto_is_json_elsewhere(pipe: tuple[int, int], stream: str) -> None:
    """A JOURNAL_STREAM that is another's, inherited by whoever redirects, does not count."""
    assert _said(pipe, "auto", {"JOURNAL_STREAM": stream}).startswith('{"time": ')


def test_json_can_be_had_anywhere(pipe: tuple[int, int], terminal: tuple[int, int]) -> None:
    """Asked for, it is written for journald and on a terminal as well."""
    assert _said(pipe, "json", {"JOURNAL_STREAM": _stream(pipe[1])}).startswith("{")
    assert _said(terminal, "json", {"TERM": "xterm"}).startswith("{")


def test_everything_is_put_back(pipe: tuple[int, int]) -> None:
    """Afterwards the logger is as it was."""
    logger = logging.getLogger("sockact")
    before = (logger.level, logger.propagate, list(logger.handlers))
    _said(pipe, "json")
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def test_a_closed_standard_error() -> None:
    """Nothing is written, and nothing fails."""
    fd = os.open(os.devnull, os.O_WRONLY)
    os.close(fd)
    with logging_to("auto", fd=fd, environ={}):
        LOGGER.warning("hello")


# --- never waiting --------------------------------------------------------------------------------


def _logger(handler: StderrHandler) -> logging.Logger:
    logger = logging.Logger("apart", logging.INFO)  # noqa: LOG001 - nobody else is to know it
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    return logger


def _read_all(fd: int) -> bytes:
    os.set_blocking(fd, False)
    found = b""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(fd, 65536):
            found += piece
    return found


def _is_blocking(fd: int) -> bool:
    return not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK


def test_a_full_pipe_is_not_waited_for(pipe: tuple[int, int]) -> None:
    """What comes is kept, in order, and written when there is room; no flag of it is changed."""
    _fill(pipe[1])
    handler = StderrHandler(pipe[1])
    logger = _logger(handler)
    for number in range(100):
        logger.info("message %d", number)
    assert _is_blocking(pipe[1])
    assert set(_read_all(pipe[0])) == set(b".")
    logger.info("message 100")
    assert _read_all(pipe[0]) == b"".join(b"message %d\n" % number for number in range(101))
    assert not handler.dropped
    handler.close()


def test_what_is_dropped_is_counted(pipe: tuple[int, int]) -> None:
    """There is a limit to what is kept; what was lost is told of behind it, once there is room."""
    _fill(pipe[1])
    handler = StderrHandler(pipe[1])
    logger = _logger(handler)
    count = 2 * KEPT_MAX // 1024
    for number in range(count):
        logger.info("%06d%s", number, "x" * 1017)
    assert count // 2 <= handler.dropped <= count // 2 + 1
    dropped = handler.dropped
    found = b""
    while handler._kept or handler.dropped:
        found += _read_all(pipe[0])
        handler.flush()
    found += _read_all(pipe[0])
    lines = found.lstrip(b".").decode().splitlines()
    assert [int(line[:6]) for line in lines[:-1]] == list(range(count - dropped))
    assert lines[-1] == f"{dropped} messages were lost: standard error did not take them"
    logger.info("again")
    assert _read_all(pipe[0]) == b"again\n"
    handler.close()


def test_a_reactor_writes_what_was_kept(pipe: tuple[int, int]) -> None:
    """It is called when there is room, and only as long as something is kept."""
    _fill(pipe[1])
    with contextlib.closing(Reactor()) as reactor:
        handler = StderrHandler(pipe[1])
        handler.attach(reactor)
        logger = _logger(handler)
        logger.info("hello")
        reactor.step(0)
        assert handler._kept
        _read_all(pipe[0])
        reactor.step(SECONDS)
        assert _read_all(pipe[0]) == b"hello\n"
        began = time.monotonic()
        reactor.step(0.01)  # it is writable, but nobody asks
        assert time.monotonic() - began >= 0.005
        handler.close()


def test_a_stopped_terminal_is_not_waited_for(terminal: tuple[int, int]) -> None:
    """Ctrl-S stops the terminal, not the supervisor."""
    master, slave = terminal
    termios.tcflow(slave, termios.TCOOFF)
    handler = StderrHandler(slave)
    _logger(handler).info("hello")
    assert handler._kept
    termios.tcflow(slave, termios.TCOON)
    handler.flush()
    assert os.read(master, 100) == b"hello\n"
    assert _is_blocking(slave)
    handler.close()


def test_a_full_socket_is_not_waited_for() -> None:
    """As journald's is, if it is slow."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _fill(ours.fileno())
        handler = StderrHandler(ours.fileno())
        _logger(handler).info("hello")
        assert handler._kept
        assert _is_blocking(ours.fileno())
        _read_all(theirs.fileno())
        handler.close()
        assert _read_all(theirs.fileno()) == b"hello\n"


def test_a_long_message_is_written_in_parts(pipe: tuple[int, int]) -> None:
    """Longer than the pipe holds, it is finished before the next one begins."""
    handler = StderrHandler(pipe[1])
    logger = _logger(handler)
    logger.info("x" * 200_000)
    logger.info("y")
    found = b""
    while handler._kept:
        found += _read_all(pipe[0])
        handler.flush()
    assert found + _read_all(pipe[0]) == b"x" * 200_000 + b"\ny\n"
    handler.close()


def test_nobody_reads(pipe: tuple[int, int]) -> None:
    """A reader that has gone is no error; what is lost is counted."""
    handler = StderrHandler(pipe[1])
    os.close(pipe[0])
    logger = _logger(handler)
    for _ in range(3):
        logger.info("hello")
    assert handler.dropped == 3
    handler.close()


def test_a_full_disk_is_told_of_later() -> None:
    """When it takes again, how many were lost is the first line."""
    with open("/dev/full", "wb") as full, open("/dev/null", "wb") as null:
        handler = StderrHandler(full.fileno())
        logger = _logger(handler)
        for _ in range(3):
            logger.info("hello")
        assert handler.dropped == 3
        assert handler._sink is not None
        os.dup2(null.fileno(), handler._sink.fd)
        logger.info("hello")
        assert not handler.dropped
        handler.close()


def test_the_last_words_are_waited_for(pipe: tuple[int, int]) -> None:
    """A moment, if somebody reads."""
    _fill(pipe[1])
    reader = subprocess.Popen(["sh", "-c", "sleep 0.1; exec cat"], stdin=pipe[0], stdout=-1)
    os.close(pipe[0])
    handler = StderrHandler(pipe[1])
    _logger(handler).info("goodbye")
    handler.close()
    os.close(pipe[1])
    assert reader.communicate(timeout=SECONDS)[0].endswith(b".goodbye\n")


def test_the_last_words_are_not_waited_for_long(pipe: tuple[int, int]) -> None:
    """If nobody reads, it ends nevertheless."""
    _fill(pipe[1])
    handler = StderrHandler(pipe[1])
    _logger(handler).info("goodbye")
    began = time.monotonic()
    handler.close()
    assert time.monotonic() - began < LAST_SECONDS + SECONDS
    handler.close()
    _logger(handler).info("nothing")


_OTHER_USER = """
import contextlib, logging, os, sys
from sockact.cli.logs import StderrHandler
os.setresuid(65534, 65534, 65534)
handler = StderrHandler(2)
assert handler._sink._poll is not None
logger = logging.Logger("x")
logger.addHandler(handler)
for number in range(5000):
    logger.info("%d %s", number, "x" * 100)
os.write(1, b"alive\\n")
os.read(0, 1)
handler.close()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_pipe_of_another_user(pipe: tuple[int, int]) -> None:
    """It cannot be opened again; then poll(2) says whether there is room."""
    process = subprocess.Popen(
        [sys.executable, "-c", _OTHER_USER],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=pipe[1],
    )  # fmt: skip
    os.close(pipe[1])
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"alive\n"
        process.stdin.write(b"x")
        process.stdin.close()
        found = b""
        while piece := os.read(pipe[0], 65536):
            found += piece
        numbers = [int(line.split()[0]) for line in found.splitlines() if b"lost" not in line]
        assert numbers == list(range(len(numbers)))
        assert process.wait(timeout=SECONDS) == 0


def test_a_file_is_written_at_once(tmp_path: Path) -> None:
    """It is opened once only, so that what others append is not overwritten."""
    with open(tmp_path / "log", "ab") as file:
        assert stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        handler = StderrHandler(file.fileno())
        logger = _logger(handler)
        logger.info("one")
        os.write(file.fileno(), b"two\n")
        logger.info("three")
        handler.close()
    assert (tmp_path / "log").read_text() == "one\ntwo\nthree\n"


def test_exec_does_without_logging() -> None:
    """What only starts a program does not pay for it."""
    command = ["-m", "sockact", "exec", "--listen", "tcp:127.0.0.1:0", "--", "true"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"sockact.cli.program", "signal"} <= modules, done.stderr[-500:]
    assert "logging" not in modules
