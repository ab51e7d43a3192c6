"""sockact.activation.environ."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockact.activation.environ import decode, encode
from sockact.errors import EnvironError

NAMES = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters=":\\"), max_size=20
)


@given(st.lists(NAMES, min_size=1, max_size=20), st.integers(1, 2**22), st.integers(0, 2**64 - 1))
def test_round_trip(names: list[str], pid: int, pidfd_id: int) -> None:
    """What is encoded for a process is decoded by it, and by nobody else."""
    environ = encode(names, pid, pidfd_id)
    assert decode(environ, pid, lambda: pidfd_id).names == tuple(names)
    assert decode(environ, pid + 1, lambda: pidfd_id).names == ()
    assert decode(environ, pid, lambda: pidfd_id ^ 1).names == ()
    assert decode(environ, pid, lambda: None).names == tuple(names)


def test_nothing_to_pass_sets_nothing() -> None:
    """An empty set leaves no trace: LISTEN_FDS=0 would be an error to the receiver."""
    assert encode([], 7, 8) == {}


def test_without_pidfs() -> None:
    """Where there is no pidfs, LISTEN_PIDFDID is left out."""
    assert encode(["a", "b"], 7, None) == {
        "LISTEN_FDS": "2",
        "LISTEN_PID": "7",
        "LISTEN_FDNAMES": "a:b",
    }


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"LISTEN_PID": "7", "LISTEN_FDS": "2"}, ("unknown", "unknown")),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "1", "LISTEN_FDNAMES": ""}, ("",)),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a::b"}, ("a", "", "b")),
        ({"LISTEN_PID": "0x7", "LISTEN_FDS": " +02", "LISTEN_FDNAMES": "a:b"}, ("a", "b")),
        ({"LISTEN_PID": "0b111", "LISTEN_FDS": "0o1"}, ("unknown",)),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "1", "LISTEN_FDNAMES": r"a\:b"}, ("a:b",)),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": r"a\\:b\c"}, ("a\\", "bc")),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "1", "LISTEN_PIDFDID": "99"}, ("unknown",)),
    ],
)
def test_accepted(environ: dict[str, str], names: tuple[str, ...]) -> None:
    """The forms that sd_listen_fds_with_names() takes, oddities included."""
    assert decode(environ, 7, lambda: 99).names == names


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({}, "LISTEN_PID is not set"),
        ({"LISTEN_FDS": "1"}, "LISTEN_PID is not set"),
        ({"LISTEN_PID": "8", "LISTEN_FDS": "1"}, "for another process than 7"),
        ({"LISTEN_PID": "8", "LISTEN_FDS": "junk"}, "for another process than 7"),
        ({"LISTEN_PID": "7"}, "LISTEN_FDS is not set"),
        ({"LISTEN_PID": "7", "LISTEN_PIDFDID": "98", "LISTEN_FDS": "junk"}, "had this pid before"),
    ],
)
def test_not_for_us(environ: dict[str, str], reason: str) -> None:
    """What is not meant for this process is no error, and the reason is kept."""
    passed = decode(environ, 7, lambda: 99)
    assert passed.names == ()
    assert reason in passed.reason


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({"LISTEN_PID": ""}, "LISTEN_PID"),
        ({"LISTEN_PID": "seven"}, "LISTEN_PID"),
        ({"LISTEN_PID": "0"}, "LISTEN_PID"),
        ({"LISTEN_PID": "-7"}, "LISTEN_PID"),
        ({"LISTEN_PID": "99999999999"}, "LISTEN_PID"),
        ({"LISTEN_PID": "7 "}, "LISTEN_PID"),
        ({"LISTEN_PID": "9" * 5000}, "LISTEN_PID"),
        ({"LISTEN_PID": "7", "LISTEN_PIDFDID": "x", "LISTEN_FDS": "1"}, "LISTEN_PIDFDID"),
        ({"LISTEN_PID": "7", "LISTEN_PIDFDID": str(2**64), "LISTEN_FDS": "1"}, "LISTEN_PIDFDID"),
        ({"LISTEN_PID": "7", "LISTEN_FDS": ""}, "LISTEN_FDS"),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "0"}, "LISTEN_FDS"),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "-1"}, "LISTEN_FDS"),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "1x"}, "LISTEN_FDS"),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "09"}, "LISTEN_FDS"),
        ({"LISTEN_PID": "7", "LISTEN_FDS": str(2**31 - 3)}, "LISTEN_FDS"),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"}, "LISTEN_FDNAMES"),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"}, "LISTEN_FDNAMES"),
        # The names are split before the pid is looked at.
        ({"LISTEN_PID": "8", "LISTEN_FDNAMES": "a\\"}, "LISTEN_FDNAMES"),
    ],
)
def test_malformed(environ: dict[str, str], variable: str) -> None:
    """A malformed variable is an error that names it."""
    with pytest.raises(EnvironError) as caught:
        decode(environ, 7, lambda: 99)
    assert caught.value.variable == variable
    assert str(caught.value).startswith(f"{variable}: ")
