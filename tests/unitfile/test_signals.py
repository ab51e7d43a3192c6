"""sockact.unitfile.signals: names and numbers of signals."""

import signal

import pytest

from sockact.unitfile.signals import signal_name, signal_number

MIN, MAX = int(getattr(signal, "SIGRTMIN", 0)), int(getattr(signal, "SIGRTMAX", 0))
pytestmark = pytest.mark.skipif(not MIN, reason="this system has no realtime signals")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", signal.SIGTERM), ("TERM", signal.SIGTERM), ("15", 15), ("0xf", 15), ("017", 15),
        ("USR1", signal.SIGUSR1), ("SIGIO", signal.SIGIO), ("1", 1), ("64", 64),
        ("RTMIN", MIN), ("SIGRTMIN+0", MIN), ("RTMIN+3", MIN + 3),
        ("SIGRTMAX", MAX), ("RTMAX-2", MAX - 2),
    ],
)  # fmt: skip
def test_numbers(text: str, number: int) -> None:
    """With and without SIG, as a number, and counted from either end of the realtime signals."""
    assert signal_number(text) == number
    assert signal_number(signal_name(number)) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "65", "-1", "term", "SIG", "SIGSIGTERM", "SIGFOO", "IOT", "SIGPOLL", "CLD", "RTMIN-1",
     "RTMIN+99", "RTMAX+1", "RTMIN+", "1x", "_DFL", "BLOCK", "\u0661"],
)  # fmt: skip
def test_none(text: str) -> None:
    """What is no signal, or one's second name, which systemd does not know."""
    with pytest.raises(ValueError, match="is not a signal"):
        signal_number(text)


def test_every_signal_has_a_name() -> None:
    """Whatever number the kernel may say is written."""
    assert [signal_number(signal_name(number)) for number in range(1, 65)] == list(range(1, 65))
    assert (signal_name(9), signal_name(MIN + 5)) == ("SIGKILL", "SIGRTMIN+5")
