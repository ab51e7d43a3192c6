"""What a service says to its manager: one datagram of sd_notify(3). Pure.

The rules are those of systemd, the odd ones too, so that a program behaves under either manager in
the same way: lines end at a line feed or a carriage return, empty ones do not count, a backslash
takes the character behind it literally and goes away. A flag (``READY=1``) holds if it stands in
any line; of a value (``STATUS=...``) the first line counts.

Source: systemd's src/core/manager.c, manager_dispatch_notify_fd(), and src/core/service.c,
service_notify_message(), of version 252; what came later by systemd.exec(5) and sd_notify(3).
"""

import enum
import errno as _errno
import re
from collections.abc import Callable, Iterator

import attrs

from sockact.spec import AsValue
from sockact.unitfile.values import fd_name, integer

PAYLOAD_MAX = 4096
"""Bytes in a message (NOTIFY_BUFFER_MAX, which is PIPE_BUF)."""

_PID_MAX = 2**31 - 1
_U64_MAX = 2**64 - 1
_ERRNO_MAX = 4095  # ERRNO_MAX of the kernel's linux/err.h
_SPACE = " \t\n\r\v\f"
_NUMBERS = ("MAINPID", "MAINPIDFDID", "MONOTONIC_USEC", "EXTEND_TIMEOUT_USEC", "WATCHDOG_USEC",
            "ERRNO", "EXIT_STATUS")  # fmt: skip


class Access(enum.StrEnum):
    """Whose messages count; the value is what ``NotifyAccess=`` calls it (systemd.service(5))."""

    NONE = "none"
    MAIN = "main"
    EXEC = "exec"
    ALL = "all"


def accepts(
    access: Access, sender: int, main: int, control: int, belongs: Callable[[int], bool]
) -> bool:
    """Whether a message counts.

    A barrier is not asked about: it is answered whoever sends it.

    Args:
        access: What the service allows.
        sender: Who sent it; 0 where the system does not tell: there, whoever can reach the socket
            may send.
        main: The service's main process; 0 if there is none.
        control: The process of its ExecStartPre=, ExecReload= and the like that runs now; 0 if
            there is none.
        belongs: Whether a process is one of the service's; asked only with `Access.ALL`, and
            perhaps about one that has ended.
    """
    if access is Access.NONE:
        return False
    if not sender or sender == main:
        return True
    if access is Access.MAIN:
        return False
    return sender == control or (access is Access.ALL and belongs(sender))


@attrs.frozen(eq=False, repr=False)
class Message(AsValue):
    """One message.

    Attributes:
        lines: ``KEY=VALUE`` each, in the order in which they came; bytes that are not UTF-8 are
            surrogates, as from `os.fsdecode`.
    """

    lines: tuple[str, ...] = ()

    def get(self, key: str) -> str | None:
        """Return what stands behind ``KEY=`` in the first line that begins so, or None."""
        start = f"{key}="
        for line in self.lines:
            if line.startswith(start):
                return line[len(start) :]
        return None

    @property
    def ready(self) -> bool:
        """READY=1: start-up, or a reload, is finished. `stopping` wins over it."""
        return "READY=1" in self.lines

    @property
    def reloading(self) -> bool:
        """RELOADING=1; together with `ready`: a reload has begun and ended."""
        return "RELOADING=1" in self.lines

    @property
    def stopping(self) -> bool:
        """STOPPING=1: it is on its way to its end, and nothing makes it ready again."""
        return "STOPPING=1" in self.lines

    @property
    def barrier(self) -> bool:
        """BARRIER=1, and nothing else: its descriptor is to be closed in its turn."""
        return self.lines == ("BARRIER=1",)

    @property
    def restart_reset(self) -> bool:
        """RESTART_RESET=1: the restarts so far do not count."""
        return "RESTART_RESET=1" in self.lines

    @property
    def status(self) -> str | None:
        """STATUS=: a text for people; empty takes back the last one, None says nothing.

        One that is not UTF-8 takes back the last one too. Control characters are left in.
        """
        text = self.get("STATUS")
        return text if text is None or _is_utf8(text) else ""

    @property
    def mainpid(self) -> int | None:
        """MAINPID=: another process is the main process now."""
        return self._number("MAINPID", _PID_MAX) or None

    @property
    def mainpidfd(self) -> bool:
        """MAINPIDFD=1: the message's only descriptor is a pidfd of the main process."""
        return "MAINPIDFD=1" in self.lines

    @property
    def mainpidfdid(self) -> int | None:
        """MAINPIDFDID=: the inode number that a pidfd of `mainpid` has."""
        return self._number("MAINPIDFDID")

    @property
    def watchdog_ping(self) -> bool:
        """WATCHDOG=1: it is alive."""
        return self.get("WATCHDOG") == "1"

    @property
    def watchdog_trigger(self) -> bool:
        """WATCHDOG=trigger: it wants to be treated as if it had not been heard of in time."""
        return self.get("WATCHDOG") == "trigger"

    @property
    def watchdog_usec(self) -> int | None:
        """WATCHDOG_USEC=: microseconds between pings from now on; 0 and `INFINITY` are never."""
        return self._number("WATCHDOG_USEC")

    @property
    def extend_timeout_usec(self) -> int | None:
        """EXTEND_TIMEOUT_USEC=: microseconds within which the next such message is to come."""
        return self._number("EXTEND_TIMEOUT_USEC")

    @property
    def monotonic_usec(self) -> int | None:
        """MONOTONIC_USEC=: when it was sent, in microseconds of CLOCK_MONOTONIC."""
        return self._number("MONOTONIC_USEC")

    @property
    def errno(self) -> int | None:
        """ERRNO=: what went wrong, as a number or a name (``ENOENT``); 0 to 4095."""
        text = self.get("ERRNO")
        if text is not None and text in _errno.errorcode.values():
            return int(getattr(_errno, text))
        return self._number("ERRNO", _ERRNO_MAX)

    @property
    def exit_status(self) -> int | None:
        """EXIT_STATUS=: what it will exit with; 0 to 255."""
        return self._number("EXIT_STATUS", 255)

    @property
    def buserror(self) -> str | None:
        """BUSERROR=: what went wrong, as a D-Bus error name; empty takes it back."""
        return self._ascii("BUSERROR")

    @property
    def varlinkerror(self) -> str | None:
        """VARLINKERROR=: what went wrong, as a Varlink error name; empty takes it back."""
        return self._ascii("VARLINKERROR")

    @property
    def notify_access(self) -> Access | None:
        """NOTIFYACCESS=: whose messages count from now on."""
        text = self.get("NOTIFYACCESS")
        return Access(text) if text in set(Access) else None

    @property
    def fdstore(self) -> bool:
        """FDSTORE=1: its descriptors are to be stored; FDSTOREREMOVE=1 wins over it."""
        return "FDSTORE=1" in self.lines and "FDSTOREREMOVE=1" not in self.lines

    @property
    def fdstoreremove(self) -> bool:
        """FDSTOREREMOVE=1: what is stored under `fdname` is to be closed; False without a name."""
        return "FDSTOREREMOVE=1" in self.lines and self.fdname is not None

    @property
    def fdname(self) -> str | None:
        """FDNAME=: the fd name; None if there is no valid one."""
        text = self.get("FDNAME")
        return text if text is not None and _is_fd_name(text) else None

    @property
    def fdpoll(self) -> bool:
        """Whether descriptors that hang up leave the store, as they do without FDPOLL=0."""
        return "FDPOLL=0" not in self.lines

    def complaints(self) -> Iterator[str]:
        """Give what is wrong with it and is ignored, a sentence each, in printable ASCII."""
        for key in _NUMBERS:
            text = self.get(key)
            if text is not None and getattr(self, key.lower()) is None:
                yield f"{key}={text[:40]!a} is not a number, or out of range"
        for key, texts in (("WATCHDOG", ("1", "trigger")), ("NOTIFYACCESS", tuple(Access))):
            text = self.get(key)
            if text is not None and text not in texts:
                yield f"{key}={text[:40]!a} is none of {', '.join(texts)}"
        for key in ("BUSERROR", "VARLINKERROR"):
            if self.get(key) is not None and self._ascii(key) is None:
                yield f"{key}= is not a name"
        if not _is_utf8(self.get("STATUS") or ""):
            yield "STATUS= is not UTF-8"
        name = self.get("FDNAME")
        if name is not None and self.fdname is None:
            yield f"FDNAME={name[:40]!a} is not an fd name"
        if "FDSTOREREMOVE=1" in self.lines and self.fdname is None:
            yield "FDSTOREREMOVE=1 comes without an FDNAME="

    def _number(self, key: str, high: int = _U64_MAX) -> int | None:
        text = self.get(key)
        return None if text is None else _unsigned(text, high)

    def _ascii(self, key: str) -> str | None:
        text = self.get(key)
        return text if text is not None and text.isascii() and text.isprintable() else None


def parse(data: bytes) -> Message | str:
    """Return the message, or why it is to be dropped as a whole.

    Args:
        data: The datagram; may be empty, which says nothing.
    """
    if len(data) > PAYLOAD_MAX:
        return f"it is longer than {PAYLOAD_MAX} bytes"
    data = data.removesuffix(b"\0")
    if b"\0" in data:
        return "it has a NUL byte in it"
    lines = _lines(data.decode("utf-8", "surrogateescape"))
    if lines is None:
        return "it ends in a backslash"
    message = Message(lines)
    if "BARRIER=1" in lines and not message.barrier:
        return "BARRIER=1 does not stand alone"
    return message


_LINE = re.compile(r"(?:[^\n\r\\]|\\.)+", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def _lines(text: str) -> tuple[str, ...] | None:
    """Split as ``strv_split_newlines()``; None if the last backslash has nothing behind it."""
    if "\\" not in text:
        return tuple(line for line in re.split(r"[\n\r]+", text) if line)
    tail = text[len(text.rstrip("\\")) :]
    if len(tail) % 2:
        return None
    return tuple(_ESCAPED.sub(r"\1", line) for line in _LINE.findall(text))


def _unsigned(text: str, high: int) -> int | None:
    """Read as ``safe_atou64()``, which skips blanks before the number, but not behind it."""
    try:
        return integer(text.lstrip(_SPACE), 0, high)
    except ValueError:
        return None


def _is_utf8(text: str) -> bool:
    """Whether it is UTF-8 as systemd understands it: without Unicode's noncharacters."""
    return not any(
        0xD800 <= (code := ord(char)) < 0xE000
        or 0xFDD0 <= code <= 0xFDEF
        or code & 0xFFFE == 0xFFFE
        for char in text
    )


def _is_fd_name(text: str) -> bool:
    try:
        fd_name(text)
    except ValueError:
        return False
    return True
