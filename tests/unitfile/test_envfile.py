"""sockact.unitfile.envfile: files of variables. The same files are read by the real systemd, too."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockact.unitfile.envfile import parse_env_file
from sockact.unitfile.values import is_variable


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=x", "x"),
        ("A=", ""),
        ("A= ", ""),
        ("  A  =  x y  ", "x y"),
        ("A=x # no comment", "x # no comment"),
        ("A=$B ${C} `d`", "$B ${C} `d`"),
        ("A=a=b", "a=b"),
        ("A=a\\ b", "a b"),
        ("A=a\\ ", "a "),
        ("A=a \\", "a "),
        ("A=\\n\\t\\x41", "ntx41"),
        ("A=a\\\nb", "ab"),
        ("A=a \\\n b", "a  b"),
        ("A=a\\\r\nB=c", "a"),
        ("A='a \"b\" \\ $c'", 'a "b" \\ $c'),
        ("A='a\nb'", "a\nb"),
        ("A='cut off\n", "cut off\n"),
        ("A=\"a 'b' c\"", "a 'b' c"),
        ('A="\\" \\\\ \\` \\$ \\n \\ "', '" \\ ` $ \\n \\ '),
        ('A="a\\\nb"', "ab"),
        ('A="a\nb"', "a\nb"),
        ('A="cut off', "cut off"),
        ('A="cut off\\', "cut off"),
        ("A='a'\"b\"c", "abc"),
        ("A='a' \"b\" c d ", "abc d"),
        ("A=a'b'c\"d\"", "a'b'c\"d\""),
        ("A=\\'a\\'", "'a'"),
        ("A=' a '  ", " a "),
        ("A=\xe9\u20ac\U0001f600", "\xe9\u20ac\U0001f600"),
        ("A=1\nA=2", "2"),
        ("A=1\rB=2\r", "1"),
        ("#A=2\n;A=3\n # A=4 \\\nA=1", "1"),
        ("\n\n A=1", "1"),
        ("nonsense\nA=1", "1"),
        ("=x\nA=1", "1"),
    ],
)
def test_values(text: str, value: str) -> None:
    """What the last assignment to A says."""
    said: list[str] = []
    found = dict(parse_env_file(text.encode(), said.append))
    assert found["A"] == value
    assert said == []


@pytest.mark.parametrize("name", ["export A", "1A", "A-B", "A B", "\xe9", "A.B", "=A"])
def test_bad_names(name: str) -> None:
    """An assignment to what can be no variable is left out, with a warning."""
    said: list[str] = []
    assert parse_env_file(f"{name}=1\nA=1\n".encode(), said.append) == [("A", "1")]
    assert len(said) == 1


def test_order() -> None:
    """Variables come in the order of the file."""
    found = parse_env_file(b"B=1\r\nA=2\r\n\r\nB='3'\r\n")
    assert found == [("B", "1"), ("A", "2"), ("B", "3")]


@pytest.mark.parametrize(
    "data", [b"A=1\0", b"A=\xff", b"\xff=1", b"A=\xed\xa0\x80", b"A=1\nB=\xef\xbf\xbe", b"#\0"]
)
def test_refused(data: bytes) -> None:
    """A NUL anywhere, and a variable that is not UTF-8, refuse the whole file."""
    with pytest.raises(ValueError, match=r"\S"):
        parse_env_file(data)


def test_comments_may_be_anything() -> None:
    """What is no variable need not be UTF-8."""
    assert parse_env_file(b"#\xff\nx\xff\nA=1\n\xef\xbb\xbf#\n") == [("A", "1")]


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@given(st.dictionaries(st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]*\Z"), _TEXT, max_size=4))
def test_quoted_values(variables: dict[str, str]) -> None:
    """Any value can be said in double quotes, with a backslash before what is special there."""
    lines = []
    for name, value in variables.items():
        escaped = "".join(f"\\{char}" if char in '"\\`$' else char for char in value)
        lines.append(f'{name}="{escaped}"\n')
    try:
        assert dict(parse_env_file("".join(lines).encode())) == variables
    except ValueError:
        assert any(ord(char) > 0x7F for value in variables.values() for char in value)


@given(st.binary(max_size=80))
def test_any_bytes_are_variables_or_refused(data: bytes) -> None:
    """No file makes it fail in any other way, and every name is one."""
    try:
        found = parse_env_file(data)
    except ValueError:
        return
    assert all(is_variable(name) for name, _ in found)
