"""sockact.unitfile.values: the tables of systemd.syntax(7) and systemd.time(7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockact.spec import INFINITY, Value
from sockact.unitfile.values import READERS, quote_word, simplify_path, words, write

S, M, H, D = 10**6, 60 * 10**6, 3600 * 10**6, 86400 * 10**6

GOOD = [
    (Value.BOOLEAN, True, ["1", "yes", "YES", "y", "true", "T", "on", "On"]),
    (Value.BOOLEAN, False, ["0", "no", "N", "false", "f", "off", "OFF"]),
    (Value.UNSIGNED, 0, ["0", "+0", "-0", "0x0", "00"]),
    (Value.UNSIGNED, 8, ["8", "010", "0x8", "0X8", "0o10", "0b1000", "+8", "+010"]),
    (Value.UNSIGNED, 4294967295, ["4294967295", "0xffffffff", "037777777777"]),
    (Value.INTEGER, -5, ["-5", "-0x5", "-05"]),
    (Value.INTEGER, -(2**31), ["-2147483648"]),
    (Value.LONG, 2**63 - 1, ["9223372036854775807"]),
    (Value.MODE, 0o660, ["660", "0660", "000660"]),
    (Value.MODE, 0o7777, ["7777"]),
    (Value.SIZE, 0, ["0", "0K"]),
    (Value.SIZE, 1024, ["1024", "1K", "1 K", "1024B", "+1K", " 1K"]),
    (Value.SIZE, 1536, ["1.5K", "1K 512", "1K512", "1K 512B"]),
    (Value.SIZE, 10 * 2**20, ["10.M", "10M"]),
    (Value.SIZE, 2**30 + 512 * 2**20, ["1G 512M", "1.5G"]),
    (Value.SIZE, 2**60, ["1E"]),
    (Value.SIZE, 2**63, ["8E"]),
    (Value.SPAN, 0, ["0", "0s", "0.0", "0us"]),
    (Value.SPAN, 90 * S, ["90", "90s", "1min 30s", "1m30s", "1min30", "1.5min", " 90 ", "90 sec"]),
    (Value.SPAN, S // 2, [".5", ".5s", "0.5", "500ms", "500msec", "500000us", "500000\u00b5s",
                          "500000\u03bcs", "0.500000"]),
    (Value.SPAN, H, ["1h", "1hr", "1hour", "1hours", "60m", "60 minutes"]),
    (Value.SPAN, D, ["1d", "1day", "24h", "1 days"]),
    (Value.SPAN, 7 * D, ["1w", "1week", "1weeks"]),
    (Value.SPAN, 2629800 * S, ["1M", "1month", "1months"]),
    (Value.SPAN, 31557600 * S, ["1y", "1year", "1years"]),
    (Value.SPAN, 11 * S, ["5 6", "5s6s", "5s 6"]),
    (Value.SPAN, 12 * S + 340000 + 560000, ["12.34 .56"]),
    (Value.SPAN, INFINITY, ["infinity", " infinity "]),
    (Value.SPAN_OR_ZERO, INFINITY, ["0", "infinity"]),
    (Value.SPAN_OR_ZERO, 5 * S, ["5"]),
    (Value.FDNAME, "a b-c", ["a b-c"]),
    (Value.FDNAME, "", [""]),
    (Value.INTERFACE, "eth0", ["eth0"]),
    (Value.INTERFACE, "", ["*"]),
    (Value.USER, "www-data", ["www-data"]),
    (Value.USER, "33", ["33"]),
    (Value.USER, "a b", ["a b"]),
    (Value.USER, "-x", ["-x"]),
    (Value.SERVICE, "a@b.service", ["a@b.service"]),
    (Value.PROTOCOL, "mptcp", ["mptcp"]),
    (Value.BIND_IPV6, "both", ["both", "no", "off"]),
    (Value.BIND_IPV6, "ipv6-only", ["ipv6-only", "yes", "1"]),
    (Value.BIND_IPV6, "default", ["default"]),
    (Value.TIMESTAMPING, "us", ["us", "usec", "\u00b5s", "\u03bcs"]),
    (Value.TIMESTAMPING, "ns", ["ns", "nsec", "yes", "1"]),
    (Value.TIMESTAMPING, "off", ["off", "no"]),
    (Value.TOS, 16, ["low-delay", "16", "0x10"]),
    (Value.TOS, 2, ["low-cost"]),
    (Value.DEFER, "yes", ["yes", "on"]),
    (Value.DEFER, "patient", ["patient"]),
    (Value.PATHS, ("/a", "/b c"), ['/a "/b c"', "/a//. '/b c/'"]),
]  # fmt: skip

BAD = [
    (Value.BOOLEAN, ["", "2", "enable", "yess", "ja", " yes"]),
    (Value.UNSIGNED, ["", "-1", "4294967296", "1x", "x", "08", "0x", "0b2", "+0b1", "1 2", "1.0",
                      "0o8", "--1", "9" * 400, "\u0661"]),
    (Value.INTEGER, ["2147483648", "-2147483649", "", "1-"]),
    (Value.MODE, ["", "8", "0o660", "+660", "-1", "10000", "rw", "0660 "]),
    (Value.SIZE, ["", "-1", "K", "1k", "1KiB", "1Ki", "1M 1G", "1K 1K", "1 1", "16E", "1X", "9" * 40,
                  "1..5K", "1K-"]),
    (Value.SPAN, ["", " ", "-1", "-0", "1x", "3.s", "3.", "12.34.56", "0.-0", "3.+1", "3. 1", "x",
                  "infinityx", "infinity 1", "1 infinity", "584543y", "1s-1", "..5", "9" * 30]),
    (Value.FDNAME, ["a:b", "\u00fc", "a\tb", "\x7f", "x" * 256]),
    (Value.INTERFACE, ["", "a/b", "a b", "a:b", "a%b", ".", "..", "all", "default", "12", "x" * 16]),
    (Value.USER, ["", "a:b", "a/b", ".", "..", "-1", "4294967295", "a\tb"]),
    (Value.SERVICE, ["a.socket", ".service", "a b.service"]),
    (Value.PROTOCOL, ["", "tcp", "udp", "SCTP"]),
    (Value.BIND_IPV6, ["", "ipv6", "maybe"]),
    (Value.TIMESTAMPING, ["", "ms", "maybe"]),
    (Value.TOS, ["", "256", "-1", "fast"]),
    (Value.DEFER, ["", "impatient"]),
    (Value.PATHS, ["relative", "/a/../b", '"/a', "/a\\", "/" + "x" * 4096]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected", "text"),
    [(value, expected, text) for value, expected, texts in GOOD for text in texts],
)
def test_good(value: Value, expected: object, text: str) -> None:
    """Each syntax takes these, and means that."""
    assert READERS[value](text) == expected


@pytest.mark.parametrize(("value", "text"), [(value, t) for value, texts in BAD for t in texts])
def test_bad(value: Value, text: str) -> None:
    """Each syntax refuses these, with one short line."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        READERS[value](text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@given(st.sampled_from([v for v in Value if v in READERS]), st.text(max_size=60))
def test_anything_is_a_value_or_a_value_error(value: Value, text: str) -> None:
    """No text makes a reader fail in any other way."""
    try:
        READERS[value](text)
    except ValueError:
        pass


@given(st.integers(0, INFINITY - 1))
def test_spans_round_trip(span: int) -> None:
    """A time span is written so that it reads back."""
    assert READERS[Value.SPAN](write(Value.SPAN, span)) == span


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)))
def test_words_round_trip(items: list[str]) -> None:
    """Quoted words read back as they were."""
    assert words(" ".join(map(quote_word, items)), escapes=False) == items


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'a "b c" d', ["a", "b c", "d"]),
        (r"a'b c'd", ["ab cd"]),
        (r'"" x', ["", "x"]),
        (r"\x41\102\u0043\U00000044\s\t", ["ABCD \t"]),
        (r"'\x41'", ["A"]),
        (r"\xc3\xa9".replace("\\", "\\"), ["\udcc3\udca9"]),
        (r"a\"b\'c\\d", ["a\"b'c\\d"]),
        ("  \t\n ", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    """Quotes group anywhere in a word, and escapes work inside and outside of them."""
    assert words(text, escapes=True) == expected


@pytest.mark.parametrize(
    "text", ["'a", '"a', "\\", "\\q", "\\x0", "\\x00", "\\400", "\\ud800", "\\U00110000"]
)
def test_words_errors(text: str) -> None:
    """Open quotes, unknown escapes, NUL and surrogates are refused."""
    with pytest.raises(ValueError, match=r"closing|escape"):
        words(text, escapes=True)


def test_words_without_escapes() -> None:
    """In lists of paths a backslash takes the next character as it is, whatever it is."""
    assert words(r"/a\ b /\x\\ '\''", escapes=False) == ["/a b", "/x\\", "'"]
    with pytest.raises(ValueError, match="nothing behind"):
        words("/a\\", escapes=False)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/a/", "/a"),
        ("/a/./b//c/.", "/a/b/c"),
        ("/./", "/"),
        ("/a/...", "/a/..."),
    ],
)
def test_simplify_path(path: str, expected: str) -> None:
    """Doubled slashes, dots and final slashes go."""
    assert simplify_path(path) == expected
