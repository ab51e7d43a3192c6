"""What came after the systemd that the conformance suite starts: held against systemd.socket(5).

systemd 253 to 261. What the options do to a socket is tested where sockets are opened.
"""

import pytest

from sockact.directives import TABLE
from sockact.errors import DirectiveError
from sockact.spec import INFINITY, SocketSpec
from sockact.unitfile.builder import Surroundings
from sockact.unitfile.grammar import parse
from sockact.unitfile.unit import interpret

SURROUNDINGS = Surroundings(lambda _letter: None)

NEWER = {
    "PassPIDFD": (258, False),
    "AcceptFileDescriptors": (258, True),
    "PollLimitIntervalSec": (255, 2_000_000),
    "PollLimitBurst": (255, None),  # 150 with Accept=yes, else 15
    "DeferTrigger": (258, "no"),
    "DeferTriggerMaxSec": (258, INFINITY),
    "PassFileDescriptorsToExec": (256, False),
}


def _read(*lines: str) -> SocketSpec:
    text = "\n".join(["[Socket]", "ListenStream=1", *lines])
    return interpret("t.socket", parse(text.encode(), "t")[0], SURROUNDINGS, "t")


def test_these_are_all() -> None:
    """The table has these and no others after systemd 252, with these defaults."""
    newer = {name: row for name, row in TABLE.items() if row.since > 252}
    assert {name: (row.since, row.default) for name, row in newer.items()} == NEWER


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("PassPIDFD", "yes", True),
        ("AcceptFileDescriptors", "off", False),
        ("PollLimitIntervalSec", "1min", 60_000_000),
        ("PollLimitIntervalSec", "0", 0),
        ("PollLimitBurst", "7", 7),
        ("PollLimitBurst", "0", 0),
        ("DeferTrigger", "yes", "yes"),
        ("DeferTrigger", "patient", "patient"),
        ("DeferTrigger", "0", "no"),
        ("DeferTriggerMaxSec", "5min", 300_000_000),
        ("DeferTriggerMaxSec", "0", INFINITY),
        ("DeferTriggerMaxSec", "infinity", INFINITY),
        ("PassFileDescriptorsToExec", "1", True),
        ("SocketProtocol", "mptcp", "mptcp"),
    ],
)
def test_values(name: str, text: str, value: object) -> None:
    """Values that are right."""
    spec = _read(f"{name}={text}")
    assert spec.diagnostics == ()
    assert spec.get(TABLE[name]) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PassPIDFD", "maybe"),
        ("AcceptFileDescriptors", ""),
        ("PollLimitIntervalSec", "often"),
        ("PollLimitBurst", "-1"),
        ("DeferTrigger", "impatient"),
        ("DeferTriggerMaxSec", "-5"),
        ("PassFileDescriptorsToExec", "2"),
    ],
)
def test_bad_values(name: str, text: str) -> None:
    """Values that are wrong: a warning, and the default holds."""
    spec = _read(f"{name}={text}")
    assert len(spec.diagnostics) == 1
    assert spec.get(TABLE[name]) == TABLE[name].default


@pytest.mark.parametrize("lines", [("MaxConnections=0",), ("Accept=yes", "DeferTrigger=yes")])
def test_refused(lines: tuple[str, ...]) -> None:
    """What systemd refuses since 257 and 258."""
    with pytest.raises(DirectiveError):
        _read(*lines)


@pytest.mark.parametrize(
    ("name", "text"),
    [("PollLimitBurst", "4294967295"), ("TriggerLimitBurst", "4294967295"),
     ("PollLimitIntervalSec", "infinity"), ("TriggerLimitIntervalSec", "infinity")],
)  # fmt: skip
def test_marks_of_not_set(name: str, text: str) -> None:
    """The largest value of a limit is systemd's mark for the default."""
    assert _read(f"{name}={text}").settings == {}
