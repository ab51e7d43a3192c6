"""sockact.activation.message: one datagram of sd_notify(3)."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockact.activation.message import PAYLOAD_MAX, Access, Message, accepts, parse
from sockact.spec import INFINITY


def read(text: str | bytes) -> Message:
    """Return a message that must not be dropped."""
    found = parse(text.encode() if isinstance(text, str) else text)
    assert isinstance(found, Message)
    return found


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"x" * 4097, "longer than 4096"),
        (b"READY=1\0STATUS=x", "NUL"),
        (b"\0READY=1", "NUL"),
        (b"READY=1\0\0", "NUL"),
        (b"READY=1\\", "backslash"),
        (b"READY=1\nX=\\\\\\", "backslash"),
        (b"BARRIER=1\nREADY=1", "alone"),
        (b"BARRIER=1\nBARRIER=1", "alone"),
    ],
)
def test_dropped(data: bytes, reason: str) -> None:
    """A message that breaks a rule of the whole is dropped, with the reason."""
    found = parse(data)
    assert isinstance(found, str)
    assert reason in found


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", ()),
        (b"\0", ()),
        (b"\n\r\n", ()),
        (b"A=1\nB=2\n\n", ("A=1", "B=2")),
        (b"A=1\r\nB=2\r\n\0", ("A=1", "B=2")),
        (b"\n\nA=1", ("A=1",)),
        (b"A=\\n\\\\", ("A=n\\",)),
        (b"A=1\\\nB=2\nC=3", ("A=1\nB=2", "C=3")),
        (b"\\\r", ("\r",)),
        (b"A=\xff", ("A=\udcff",)),
        (b"x" * 4096, ("x" * 4096,)),
    ],
)
def test_lines(data: bytes, lines: tuple[str, ...]) -> None:
    """Lines end at LF or CR, empty ones do not count, a backslash takes a character literally."""
    assert read(data).lines == lines


def test_nothing() -> None:
    """What a message does not say is False or None, and stored descriptors are polled."""
    message = read("X_OWN=1")
    flags = ("ready", "reloading", "stopping", "barrier", "restart_reset", "watchdog_ping",
             "watchdog_trigger", "fdstore", "fdstoreremove", "mainpidfd")  # fmt: skip
    values = ("status", "mainpid", "mainpidfdid", "watchdog_usec", "extend_timeout_usec",
              "monotonic_usec", "errno", "exit_status", "buserror", "varlinkerror",
              "notify_access", "fdname")  # fmt: skip
    assert not any(getattr(message, name) for name in flags)
    assert all(getattr(message, name) is None for name in values)
    assert message.fdpoll
    assert list(message.complaints()) == []
    assert message.get("X_OWN") == "1"
    assert message.get("X") is None


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("READY=0\nREADY=1", "ready", True),
        ("READY=1 ", "ready", False),
        ("RELOADING=1", "reloading", True),
        ("STOPPING=1", "stopping", True),
        ("BARRIER=1\n", "barrier", True),
        ("BARRIER=0", "barrier", False),
        ("RESTART_RESET=1", "restart_reset", True),
        ("STATUS=a=b\nSTATUS=c", "status", "a=b"),
        ("STATUS=", "status", ""),
        ("STATUS=grün", "status", "grün"),
        (b"STATUS=\xc3", "status", ""),
        (b"STATUS=\xed\xa0\x80", "status", ""),
        ("STATUS=\ufdd0", "status", ""),
        ("STATUS=\U0010fffe", "status", ""),
        (b"STATUS=fine\nX=\xff", "status", "fine"),
        ("MAINPID=42", "mainpid", 42),
        ("MAINPID=0", "mainpid", None),
        ("MAINPID=-1", "mainpid", None),
        ("MAINPID=2147483648", "mainpid", None),
        ("MAINPIDFD=1", "mainpidfd", True),
        ("MAINPIDFDID=18446744073709551615", "mainpidfdid", 2**64 - 1),
        ("WATCHDOG=1", "watchdog_ping", True),
        ("WATCHDOG=trigger", "watchdog_trigger", True),
        ("WATCHDOG=0\nWATCHDOG=1", "watchdog_ping", False),
        ("WATCHDOG_USEC=0", "watchdog_usec", 0),
        ("WATCHDOG_USEC=18446744073709551615", "watchdog_usec", INFINITY),
        ("WATCHDOG_USEC=18446744073709551616", "watchdog_usec", None),
        ("WATCHDOG_USEC=0x" + "f" * 4000, "watchdog_usec", None),
        ("WATCHDOG_USEC=" + "9" * 4000, "watchdog_usec", None),
        ("WATCHDOG_USEC=1s", "watchdog_usec", None),
        ("EXTEND_TIMEOUT_USEC= \t017", "extend_timeout_usec", 15),
        ("EXTEND_TIMEOUT_USEC=17 ", "extend_timeout_usec", None),
        ("MONOTONIC_USEC=0b101", "monotonic_usec", 5),
        ("MONOTONIC_USEC=٣", "monotonic_usec", None),
        ("ERRNO=ENOENT", "errno", errno.ENOENT),
        ("ERRNO=0", "errno", 0),
        ("ERRNO=4095", "errno", 4095),
        ("ERRNO=4096", "errno", None),
        ("ERRNO=errorcode", "errno", None),
        ("EXIT_STATUS=255", "exit_status", 255),
        ("EXIT_STATUS=256", "exit_status", None),
        ("BUSERROR=org.x.Error", "buserror", "org.x.Error"),
        ("BUSERROR=grün", "buserror", None),
        ("VARLINKERROR=", "varlinkerror", ""),
        ("NOTIFYACCESS=exec", "notify_access", Access.EXEC),
        ("NOTIFYACCESS=Exec", "notify_access", None),
        ("FDSTORE=1", "fdstore", True),
        ("FDSTORE=1\nFDSTOREREMOVE=1", "fdstore", False),
        ("FDSTOREREMOVE=1", "fdstoreremove", False),
        ("FDSTOREREMOVE=1\nFDNAME=a:b", "fdstoreremove", False),
        ("FDSTOREREMOVE=1\nFDNAME=a b", "fdstoreremove", True),
        ("FDNAME=one\nFDNAME=two", "fdname", "one"),
        ("FDNAME=", "fdname", ""),
        ("FDNAME=" + "n" * 255, "fdname", "n" * 255),
        ("FDNAME=" + "n" * 256, "fdname", None),
        ("FDNAME=grün", "fdname", None),
        ("FDPOLL=0", "fdpoll", False),
        ("FDPOLL=no", "fdpoll", True),
    ],
)
def test_values(text: str | bytes, name: str, value: object) -> None:
    """A flag holds in any line; of a value the first line counts, if it is valid."""
    assert getattr(read(text), name) == value


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("MAINPID=x", "MAINPID='x' is not a number"),
        ("ERRNO=EWHAT", "ERRNO='EWHAT' is not a number"),
        ("WATCHDOG=2", "WATCHDOG='2' is none of 1, trigger"),
        (b"WATCHDOG=\xff\x1b[31m", r"'\udcff\x1b[31m' is none of"),
        ("NOTIFYACCESS=some", "none of none, main, exec, all"),
        (b"STATUS=\xff", "STATUS= is not UTF-8"),
        ("BUSERROR=\t", "BUSERROR= is not a name"),
        ("FDNAME=a:b", "FDNAME='a:b' is not an fd name"),
        ("FDSTOREREMOVE=1", "FDSTOREREMOVE=1 comes without an FDNAME="),
    ],
)
def test_complaints(text: str | bytes, complaint: str) -> None:
    """What is ignored is named."""
    (found,) = read(text).complaints()
    assert complaint in found


@pytest.mark.parametrize(
    ("access", "accepted"),
    [
        (Access.NONE, set()),
        (Access.MAIN, {10}),
        (Access.EXEC, {10, 11}),
        (Access.ALL, {10, 11, 12}),
    ],
)
def test_access(access: Access, accepted: set[int]) -> None:
    """Each setting lets in one process more: the main one, the control one, all of the service."""
    found = {pid for pid in (10, 11, 12, 13) if accepts(access, pid, 10, 11, {12}.__contains__)}
    assert found == accepted
    nobody = {pid for pid in (10, 11, 13) if accepts(access, pid, 0, 0, {12}.__contains__)}
    assert nobody == set()


def test_access_of_an_unknown_sender() -> None:
    """Where the system does not say who sent it, every setting but none lets it in."""
    found = [access for access in Access if accepts(access, 0, 10, 0, lambda _: False)]
    assert found == [Access.MAIN, Access.EXEC, Access.ALL]


def _split_like_systemd(text: str) -> list[str] | None:
    """Follow extract_first_word() of systemd's src/basic/extract-word.c, without flags."""
    words: list[str] = []
    word: list[str] | None = None
    characters = iter(text)
    for char in characters:
        if char in "\n\r":
            if word is not None:
                words.append("".join(word))
            word = None
            continue
        word = [] if word is None else word
        if char == "\\":
            escaped = next(characters, None)
            if escaped is None:
                return None
            word.append(escaped)
        else:
            word.append(char)
    return words if word is None else [*words, "".join(word)]


@given(st.text("A=1\\\n\r\0 ", max_size=30))
def test_splitting_is_systemds(text: str) -> None:
    """Any text is split as systemd's own function does it."""
    expected = _split_like_systemd(text.removesuffix("\0"))
    found = parse(text.encode())
    if "\0" in text[:-1] or expected is None:
        assert isinstance(found, str)
    else:
        assert found == Message(tuple(expected))


_LINES = st.builds(
    lambda key, value: f"{key}={value}".encode("utf-8", "surrogateescape"),
    st.sampled_from(
        ["READY", "STATUS", "MAINPID", "ERRNO", "WATCHDOG", "WATCHDOG_USEC", "FDSTORE", "FDNAME",
         "FDSTOREREMOVE", "NOTIFYACCESS", "BUSERROR", "BARRIER", "EXIT_STATUS"]
    ),
    st.one_of(
        st.just("1"), st.integers().map(str), st.integers(0).map(hex), st.text(max_size=20),
        st.binary(max_size=20).map(os.fsdecode),
    ),
)  # fmt: skip


@given(
    st.one_of(st.binary(max_size=PAYLOAD_MAX + 10), st.lists(_LINES, max_size=8).map(b"\n".join))
)
def test_never_fails(data: bytes) -> None:
    """Whatever comes is a message whose every value is of its type, or dropped with a reason."""
    message = parse(data)
    if isinstance(message, str):
        assert message
        return
    properties = [name for name, value in vars(Message).items() if isinstance(value, property)]
    assert len(properties) > 20
    for name in properties:
        value = getattr(message, name)
        assert value is None or isinstance(value, bool | int | str)
    for complaint in message.complaints():
        assert complaint.isascii()
        assert complaint.isprintable()
    for number in (message.mainpid, message.errno, message.watchdog_usec, message.exit_status):
        assert number is None or 0 <= number < 2**64
    (message.status or "").encode()
