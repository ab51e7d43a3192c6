"""sockact.unitfile.grammar: the rules of systemd.syntax(7), byte for byte."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockact.errors import UnitSyntaxError
from sockact.unitfile.grammar import LINE_MAX, parse


def _parsed(data: bytes) -> list[tuple[str, str, str]]:
    return [(a.section, a.key, a.value) for a in parse(data, "t")[0]]


def _keys(data: bytes) -> list[tuple[str, str]]:
    return [(key, value) for _, key, value in _parsed(b"[Socket]\n" + data)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"A=1\nB=2", [("A", "1"), ("B", "2")]),
        (b"A=1\r\nB=2\r\n", [("A", "1"), ("B", "2")]),
        (b"A=1\rB=2\r", [("A", "1"), ("B", "2")]),
        (b"A=1\n\rB=2", [("A", "1"), ("B", "2")]),
        (b"A=1\0B=2\0", [("A", "1"), ("B", "2")]),
        (b"A=1\r\n\0B=2", [("A", "1"), ("B", "2")]),
        (b"  A \t=\t 1 x \t\n", [("A", "1 x")]),
        (b"A=b=c\n", [("A", "b=c")]),
        (b"A=\n", [("A", "")]),
        (b"A=1 # no comment\n", [("A", "1 # no comment")]),
        (b"#A=1\n;B=2\n \t# C=3\nD=4\n", [("D", "4")]),
        (b"# ends in a backslash \\\nA=1\n", [("A", "1")]),
        (b"A=1 \\\n  2\n", [("A", "1    2")]),
        (b"A=1\\\n2\n", [("A", "1 2")]),
        (b"A=1\\\n# inside\n;too\\\n 2\nB=3\n", [("A", "1  2"), ("B", "3")]),
        (b"A=1\\\n\nB=3\n", [("A", "1"), ("B", "3")]),
        (b"A=1\\\n   \nB=3\n", [("A", "1"), ("B", "3")]),
        (b"A=1\\ \nB=3\n", [("A", "1\\"), ("B", "3")]),
        (b"A=1\\\\\nB=3\n", [("A", "1\\\\"), ("B", "3")]),
        (b"A=1\\\\\\\nB=3\n", [("A", "1\\\\ B=3")]),
        (b"A=1\\", [("A", "1")]),
        (b"A=1\\\n", [("A", "1")]),
        (b"A=1\\\r\n2\r\n", [("A", "1 2")]),
        (b"A\\\n=1\n", [("A", "1")]),
        (b"X-Own=1\nA=1\n", [("X-Own", "1"), ("A", "1")]),
        ("A=ü\u2028x\n".encode(), [("A", "ü\u2028x")]),
        (b"A=\x01\x7f\n", [("A", "\x01\x7f")]),
    ],
)
def test_assignments(data: bytes, expected: list[tuple[str, str]]) -> None:
    """Line ends, trimming, comments and continuations are systemd's."""
    assert _keys(data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xef\xbb\xbf[Socket]\nA=1\n", [("Socket", "A", "1")]),
        (b"# comment\n\xef\xbb\xbf[Socket]\nA=1\n", [("Socket", "A", "1")]),
        (b"[Socket]\n\xef\xbb\xbfA=1\n", [("Socket", "A", "1")]),
        (b"[Socket]\nA=1\\\n\xef\xbb\xbf2\n", [("Socket", "A", "1 2")]),
        (b"[Unit]\nA=1\n[Socket]\nB=2\n[Unit]\nC=3\n",
         [("Unit", "A", "1"), ("Socket", "B", "2"), ("Unit", "C", "3")]),
        (b"[X-Mine]\nA=1\n[Socket]\nB=2\n", [("Socket", "B", "2")]),
        (b"  [Socket]  \nA=1\n", [("Socket", "A", "1")]),
        (b"", []),
    ],
)  # fmt: skip
def test_sections(data: bytes, expected: list[tuple[str, str, str]]) -> None:
    """Sections repeat, unknown ones are skipped, and one byte order mark is dropped."""
    assert _parsed(data) == expected
    assert parse(data, "t")[1] == []


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        (b"A=1\n[Socket]\n", ["t:1:1: assignment outside of a section; ignored"]),
        (b"[Socket]\n  junk\n", ["t:2:3: no '=' in this line; ignored"]),
        (b"[Socket]\n =1\n", ["t:2:2: nothing before '='; ignored"]),
        (b"[socket]\nA=1\nB\n", ["t:1:1: unknown section [socket]; what it holds is ignored"]),
        (b"\xef\xbb\xbf# no comment\n", ["t:1:2: assignment outside of a section; ignored"]),
        (
            b"[Socket]\nA=1\n\xef\xbb\xbfB=2\n\xef\xbb\xbfC\n",
            ["t:4:1: no '=' in this line; ignored"],
        ),
    ],
)
def test_warnings(data: bytes, messages: list[str]) -> None:
    """What is ignored is said, with line and column."""
    assert [str(d) for d in parse(data, "t")[1]] == messages


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[Socket\n", "t:1:1: invalid section header '[Socket'"),
        (b"[\n", "invalid section header"),
        (b"[So'cket]\n", "invalid section header"),
        (b"[So\\cket]\n", "invalid section header"),
        (b"[So*cket]\n", "invalid section header"),
        (b"[So\x01cket]\n", "invalid section header"),
        (b"[Socket] # x\n", "invalid section header"),
        (b"[Socket]\nA=\xff\n", "t:2:3: byte 0xff is not UTF-8"),
        (b"[Socket]\nA=1\\\n  \xc3\n", "t:3:3: byte 0xc3 is not UTF-8"),
        (b"[Socket]\nA=\xed\xa0\x80\n", "is not UTF-8"),
        ("[Socket]\nA=é\ufffe\n".encode(), "t:2:4: U+FFFE is no character"),
        ("[Socket]\nA=\ufdd0\n".encode(), "U+FDD0 is no character"),
    ],
)
def test_refusals(data: bytes, message: str) -> None:
    """These make the whole file unusable."""
    with pytest.raises(UnitSyntaxError) as caught:
        parse(data, "t")
    assert message in str(caught.value)


def test_invalid_utf8_in_comments_is_nobodys_business() -> None:
    """Comments may hold any bytes."""
    assert _keys(b"# \xff\nA=1\n;\xc3\n") == [("A", "1")]


@pytest.mark.parametrize(
    ("data", "fits"),
    [
        (b"A=" + b"x" * (LINE_MAX - 3), True),
        (b"A=" + b"x" * (LINE_MAX - 2), False),
        (b"#" + b"x" * LINE_MAX, False),
        (b"A=" + b"x" * (LINE_MAX // 2) + b"\\\n" + b"x" * (LINE_MAX // 2 - 3), True),
        (b"A=" + b"x" * (LINE_MAX // 2) + b"\\\n" + b"x" * (LINE_MAX // 2 - 2), False),
    ],
)
def test_length_limits(data: bytes, fits: bool) -> None:
    """A line below 1 MiB is read; one of 1 MiB, and a longer continued one, refuse the file."""
    if fits:
        assert len(_keys(data)) == 1
    else:
        with pytest.raises(UnitSyntaxError, match="line of"):
            _keys(data)


def test_origins() -> None:
    """Key and value know where they stand, also behind continuations and in characters."""
    data = "[Socket]\n  ÄKey  =  \\\n  välue\nB=\n".encode()
    first, second = parse(data, "t")[0]
    assert (first.origin.line, first.origin.column) == (2, 3)
    assert (first.value_origin.line, first.value_origin.column) == (3, 3)
    assert (second.origin.line, second.origin.column) == (4, 1)


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """Whatever the bytes, there are assignments or one kind of error."""
    try:
        assignments, _ = parse(data, "t")
    except UnitSyntaxError:
        return
    for item in assignments:
        assert item.key == item.key.strip(" \t\n\r") != ""
        assert "\n" not in item.value
        assert "\0" not in item.value


@given(st.lists(st.sampled_from([b"[Socket]", b"A=1", b"\\", b"#", b" ", b"\n", b"\r", b"\0", b"=",
                                 b"\xef\xbb\xbf", b"[X-]", b"\xc3", b"\xa9"]), max_size=30))  # fmt: skip
def test_any_mixture_of_what_matters(parts: list[bytes]) -> None:
    """Mixtures of the bytes that mean something never fail otherwise."""
    try:
        parse(b"".join(parts), "t")
    except UnitSyntaxError as error:
        assert error.path == "t"


def test_continuations_take_linear_time() -> None:
    """A line continued a hundred thousand times is no trap."""
    data = b"[Socket]\nA=" + b"x\\\n" * 100_000
    begin = time.process_time()
    assert len(_parsed(data)) == 1
    assert time.process_time() - begin < 10
