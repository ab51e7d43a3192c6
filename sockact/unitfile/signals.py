"""Names of signals, exit statuses, and their numbers on this platform."""

import re
import signal

from sockact.unitfile.values import integer

_LARGEST = signal.NSIG - 1


def signal_number(text: str) -> int:
    """Read a signal: ``SIGTERM``, ``TERM``, ``15``, ``RTMIN+3``, ``SIGRTMAX-1``.

    Raises:
        ValueError: There is no such signal.

    Source: ``signal_from_string()`` in systemd's src/basic/signal-util.c.
    """
    wrong = f"{text[:40]!r} is not a signal like SIGTERM"
    name = text.removeprefix("SIG")
    if text[:1].isdecimal():
        try:
            return integer(text, 1, _LARGEST)
        except ValueError:
            raise ValueError(wrong) from None
    found = signal.Signals.__members__.get(f"SIG{name}")
    if found and found.name == f"SIG{name}":  # no second names, such as SIGIOT
        return int(found)
    match = re.fullmatch(r"RT(?:MIN(?:\+([0-9]+))?|MAX(?:-([0-9]+))?)", name)
    if not match or not hasattr(signal, "SIGRTMIN"):
        raise ValueError(wrong)
    low, high = int(signal.SIGRTMIN), int(signal.SIGRTMAX)
    number = high - int(match[2] or 0) if "MAX" in name else low + int(match[1] or 0)
    if not low <= number <= high:
        raise ValueError(wrong)
    return number


def signal_name(number: int) -> str:
    """Return the name of a signal, or its number if it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        low = int(getattr(signal, "SIGRTMIN", _LARGEST))
        return f"SIGRTMIN+{number - low}" if number > low else str(number)
