"""The value syntaxes of unit files: text to value, and value to text.

Each reader raises ValueError with a message that says what is expected. The corner cases
(``010`` is eight, ``.5s`` is a time but ``3.s`` is not, ``1G 512M`` is a size) are systemd's, see
systemd.syntax(7), systemd.time(7) and systemd's src/basic/parse-util.c and time-util.c.
Patterns are compiled where they are used, which Python caches: one start in ten thousand uses them
all, and each costs as much as opening twenty sockets.
"""

import re
from collections.abc import Callable

from sockact.spec import INFINITY, PROTOCOLS, Value

BLANKS = " \t\n\r"
"""What is trimmed around lines, keys and values."""

_INT_MAX = 2**31 - 1
_UINT_MAX = 2**32 - 1
_TRUE = frozenset({"1", "yes", "y", "true", "t", "on"})
_FALSE = frozenset({"0", "no", "n", "false", "f", "off"})

# What strtol(3) with base 0 takes, and systemd's own 0b and 0o, which take no sign.
_INTEGER = (
    r"(?P<bin>0[bB][01]+)|(?P<oct>0[oO][0-7]+)"
    r"|(?P<sign>[+-]?)(?:(?P<hex>0[xX][0-9a-fA-F]+)|(?P<old>0[0-7]*)|(?P<dec>[1-9][0-9]*))"
)
_MODE = r"[0-7]+"


def integer(text: str, low: int, high: int) -> int:
    """Read an integer of any base that systemd knows, between `low` and `high`.

    Raises:
        ValueError: It is none, or it is out of range.
    """
    match = re.compile(_INTEGER).fullmatch(text)
    if not match:
        raise ValueError(f"{text[:40]!r} is not a whole number")
    if digits := match["hex"] or match["bin"] or match["oct"]:
        number = int(digits, 0)
    elif digits := match["old"]:
        number = int(digits, 8)
    elif len(match["dec"]) > 20:
        number = high + 1
    else:
        number = int(match["dec"])
    if match["sign"] == "-":
        number = -number
    if not low <= number <= high:
        raise ValueError(f"{text[:40]} is out of range; it must be {low} to {high}")
    return number


def boolean(text: str) -> bool:
    """Read a boolean.

    Raises:
        ValueError: It is none of the words for yes and no.
    """
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"{text[:40]!r} is not a boolean; write yes or no")


def _unsigned(text: str) -> int:
    return integer(text, 0, _UINT_MAX)


def _integer(text: str) -> int:
    return integer(text, -_INT_MAX - 1, _INT_MAX)


def _long(text: str) -> int:
    return integer(text, -(2**63), 2**63 - 1)


def mode(text: str) -> int:
    """Read an octal file mode.

    Raises:
        ValueError: It is not octal digits, or more than 7777.
    """
    if not re.compile(_MODE).fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not an octal mode like 0660")
    if len(text.lstrip("0")) > 4:
        raise ValueError(f"{text[:40]} is more than 7777")
    return int(text, 8)


_SIZE_UNITS = "EPTGMKB"
_SIZE_TERM = r"[ \t\n\r]*\+?([0-9]+)(?:\.([0-9]*))?[ \t\n\r]*([EPTGMKB]?)"


def size(text: str) -> int:
    """Read a size in bytes: ``512``, ``64K``, ``1.5G``, ``1G 512M``; K is 1024.

    Raises:
        ValueError: It does not parse, or is 2^64 or more.
    """
    total, position, largest = 0, 0, -1
    while position < len(text) or not text:
        match = re.compile(_SIZE_TERM).match(text, position)
        if not match:
            what = "negative" if text[position:].lstrip().startswith("-") else "not a size like 64K"
            raise ValueError(f"{text[:40]!r} is {what}")
        digits, fraction, suffix = match.groups()
        rank = _SIZE_UNITS.index(suffix) if suffix else len(_SIZE_UNITS)
        if rank <= largest:
            raise ValueError(f"{text[:40]!r}: larger units come first, each once")
        largest = rank
        factor = 1024 ** max(0, 6 - rank)
        total += int(digits[:30]) * factor
        if fraction:
            total += int(factor * float("0." + fraction[:30]))
        if len(digits) > 30 or total >= 2**64:
            raise ValueError(f"{text[:40]!r} is too large")
        position = match.end()
    return total


_SPAN_UNITS = {
    "seconds": 1_000_000, "second": 1_000_000, "sec": 1_000_000, "s": 1_000_000,
    "minutes": 60_000_000, "minute": 60_000_000, "min": 60_000_000, "m": 60_000_000,
    "months": 2_629_800_000_000, "month": 2_629_800_000_000, "M": 2_629_800_000_000,
    "msec": 1000, "ms": 1000,
    "hours": 3_600_000_000, "hour": 3_600_000_000, "hr": 3_600_000_000, "h": 3_600_000_000,
    "days": 86_400_000_000, "day": 86_400_000_000, "d": 86_400_000_000,
    "weeks": 604_800_000_000, "week": 604_800_000_000, "w": 604_800_000_000,
    "years": 31_557_600_000_000, "year": 31_557_600_000_000, "y": 31_557_600_000_000,
    "usec": 1, "us": 1, "\u00b5s": 1, "\u03bcs": 1,
}  # fmt: skip
# Longest first, so that "min" is not read as "m" and a rest.
_SPAN_TERM = (
    r"(?P<int>\+?[0-9]+)?(?:(?P<dot>\.)(?P<frac>[0-9]*))?"
    r"(?P<gap>[ \t\n\r]*)(?P<unit>" + "|".join(sorted(_SPAN_UNITS, key=len, reverse=True)) + ")?"
)


def span(text: str, unit: str = "s") -> int:
    """Read a time span, in microseconds: ``90``, ``1min 30s``, ``1h30m``, ``.5s``, ``infinity``.

    Args:
        text: The time span.
        unit: What a number without a unit counts.

    Returns:
        Microseconds; `sockact.spec.INFINITY` for ``infinity``.

    Raises:
        ValueError: It does not parse, has a sign, or overflows.
    """
    if text.strip(BLANKS) == "infinity":
        return INFINITY
    total, position, length = 0, 0, len(text.rstrip(BLANKS))
    wrong = f"{text[:40]!r} is not a time span like 90, 1min 30s or infinity"
    if not text.strip(BLANKS):
        raise ValueError(wrong)
    while position < length:
        while text[position] in BLANKS:
            position += 1
        match = re.compile(_SPAN_TERM).match(text, position)
        if not match or not (match["int"] or match["dot"]) or (match["dot"] and not match["frac"]):
            raise ValueError(wrong)
        position = match.end()
        if not match["gap"] and not match["unit"] and position < length:
            raise ValueError(wrong)
        factor = _SPAN_UNITS[match["unit"] or unit]
        whole = match["int"] or "0"
        total += (int(whole) if len(whole) <= 20 else INFINITY) * factor
        for power, digit in enumerate((match["frac"] or "")[:16], 1):
            total += int(digit) * (factor // 10**power)
        if total >= INFINITY:
            raise ValueError(f"{text[:40]!r} is too long a time")
    return total


def _span_or_zero(text: str) -> int:
    return span(text) or INFINITY


_FD_NAME = r"[\x20-\x39\x3b-\x7e]{0,255}"


def fd_name(text: str) -> str:
    """Check an fd name: at most 255 printable ASCII characters, no colon.

    Raises:
        ValueError: It is not one.

    Source: sd_listen_fds(3), ``fdname_is_valid()``.
    """
    if not re.compile(_FD_NAME).fullmatch(text):
        raise ValueError(
            f"{text[:40]!r} is not an fd name: ASCII without ':', at most 255 characters"
        )
    return text


# Besides surrogates, which UTF-8 decoding refuses by itself, systemd refuses noncharacters.
NONCHARACTER = (
    "[\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)


def is_text(text: str) -> bool:
    """Whether `text` is what systemd takes for valid UTF-8."""
    if text.isascii():
        return True
    return not re.search("[\ud800-\udfff]|" + NONCHARACTER, text)


def is_variable(name: str) -> bool:
    """Whether `name` can be the name of an environment variable."""
    return bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name))


_INTERFACE = r"[^/ \t\n\r\f\v:%\x00-\x1f\x7f]{1,15}"


def _interface(text: str) -> str:
    if text == "*":
        return ""
    reserved = text in (".", "..", "all", "default") or text.isdecimal()
    if not text.isascii() or reserved or not re.compile(_INTERFACE).fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not an interface name")
    return text


def _user(text: str) -> str:
    """Check an account as systemd does for units, which is less strict than useradd(8)."""
    if text.isascii() and text.isdecimal():
        if int(text[:20]) >= _UINT_MAX:
            raise ValueError(f"{text[:40]!r} is not a user or group number")
    elif (
        re.search(r"[\x00-\x1f\x7f:/]", text)
        or text != text.strip()
        or text in ("", ".", "..")
        or text.lstrip("-").isdecimal()
    ):
        raise ValueError(f"{text[:40]!r} is not a user or group name, or number")
    return text


def _service(text: str) -> str:
    if (
        not re.fullmatch(r"[A-Za-z0-9:_.\\-]+(?:@[A-Za-z0-9:_.\\@-]+)?\.service", text)
        or len(text) > 255
    ):
        raise ValueError(f"{text[:40]!r} is not the name of a service unit")
    return text


def _protocol(text: str) -> str:
    if text not in PROTOCOLS:
        raise ValueError(
            f"{text[:40]!r} is not a socket protocol; it must be {', '.join(PROTOCOLS)}"
        )
    return text


def _bind_ipv6(text: str) -> str:
    if text in ("default", "both", "ipv6-only"):
        return text
    try:
        return "ipv6-only" if boolean(text) else "both"
    except ValueError:
        raise ValueError(f"{text[:40]!r} must be default, both or ipv6-only") from None


def _timestamping(text: str) -> str:
    words = {"off": "off", "us": "us", "usec": "us", "\u00b5s": "us", "\u03bcs": "us",
             "ns": "ns", "nsec": "ns"}  # fmt: skip
    if text in words:
        return words[text]
    try:
        return "ns" if boolean(text) else "off"
    except ValueError:
        raise ValueError(f"{text[:40]!r} must be off, us or ns") from None


_TOS = {"low-delay": 16, "throughput": 8, "reliability": 4, "low-cost": 2}


def _tos(text: str) -> int:
    try:
        return _TOS[text] if text in _TOS else integer(text, 0, 255)
    except ValueError:
        raise ValueError(f"{text[:40]!r} must be 0 to 255, or {', '.join(_TOS)}") from None


def _defer(text: str) -> str:
    if text == "patient":
        return text
    try:
        return "yes" if boolean(text) else "no"
    except ValueError:
        raise ValueError(f"{text[:40]!r} must be yes, no or patient") from None


_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
            "\\": "\\", '"': '"', "'": "'", "s": " "}  # fmt: skip
_NUMERIC_ESCAPE = r"x([0-9a-fA-F]{2})|([0-3][0-7]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})"


def _unescape(text: str, position: int) -> tuple[str, int]:
    """Return what the escape whose letter is at `position` means, and where it ends."""
    letter = text[position : position + 1]
    if letter in _ESCAPES:
        return _ESCAPES[letter], position + 1
    match = re.compile(_NUMERIC_ESCAPE).match(text, position)
    if match:
        digits = next(group for group in match.groups() if group)
        number = int(digits, 8 if match[2] else 16)
        # \xHH and \ooo are bytes; above ASCII they can only be half of a UTF-8 sequence.
        if 0 < number <= 0x10FFFF and not 0xD800 <= number <= 0xDFFF:
            if (match[1] or match[2]) and number > 0x7F:
                return bytes([number]).decode("utf-8", "surrogateescape"), match.end()
            return chr(number), match.end()
    raise ValueError(f"unknown escape \\{letter}")


def unescape(text: str) -> str:
    """Replace the C escapes in a text without quotes.

    Raises:
        ValueError: One is unknown or cut off.
    """
    piece: list[str] = []
    position = 0
    while position < len(text):
        char, position = text[position], position + 1
        if char == "\\":
            char, position = _unescape(text, position)
        piece.append(char)
    return "".join(piece)


def words(text: str, *, escapes: bool, relaxed: bool = False) -> list[str]:
    """Split a value into words at blanks, with quotes.

    Args:
        text: The value.
        escapes: Whether a backslash begins a C escape; else it takes the next character as it is.
        relaxed: Whether a quote that is not closed, and a backslash at the end, are no error.

    Raises:
        ValueError: A quote is not closed, or an escape is unknown or cut off.

    Source: systemd.syntax(7), "Quoting"; ``extract_first_word()``.
    """
    found: list[str] = []
    position = 0
    while (step := next_word(text, position, escapes=escapes, relaxed=relaxed)) is not None:
        word, position = step
        found.append(word)
    return found


def next_word(
    text: str, position: int, *, escapes: bool, relaxed: bool = False, verbatim: bool = False
) -> tuple[str, int] | None:
    """Return the word that begins at or behind `position`, and where it ends; see `words`.

    With `verbatim`, an unknown escape stays as it is.
    """
    piece: list[str] = []
    in_word, quote = False, ""
    while position < len(text):
        char = text[position]
        position += 1
        if char == "\\":
            meaning, position = _behind_backslash(text, position, escapes, relaxed, verbatim)
            piece.append(meaning)
            in_word = True
        elif quote:
            if char == quote:
                quote = ""
            else:
                piece.append(char)
        elif char in "\"'":
            quote, in_word = char, True
        elif char not in BLANKS:
            piece.append(char)
            in_word = True
        elif in_word:
            break
    if quote and not relaxed:
        raise ValueError(f"no closing {quote}")
    return ("".join(piece), position) if in_word else None


def _behind_backslash(
    text: str, position: int, escapes: bool, relaxed: bool, verbatim: bool
) -> tuple[str, int]:
    if escapes:
        try:
            return _unescape(text, position)
        except ValueError:
            if not verbatim:
                raise
            return "\\" + text[position : position + 1], position + 1
    if position < len(text):
        return text[position], position + 1
    if relaxed:
        return "", position
    raise ValueError("nothing behind the last backslash")


def quote_word(word: str) -> str:
    """Write `word` so that `words` without escapes reads it back as one word."""
    return re.sub(r"([ \t\n\r\"'\\])", r"\\\1", word) if word else '""'


_PLAIN = r"[^\s\"'\\\x00-\x1f\x7f\ud800-\udfff]+"
_ESCAPED = r"[\"\\\x00-\x1f\x7f\ud800-\udfff]"


def quote_escaped(word: str) -> str:
    """Write `word` so that `words` with escapes reads it back as one word."""
    if re.fullmatch(_PLAIN, word):
        return word

    def escape(match: re.Match[str]) -> str:
        char = match[0]
        return f"\\{char}" if char in '"\\' else f"\\x{ord(char) & 0xFF:02x}"

    return f'"{re.sub(_ESCAPED, escape, word)}"'


_SLASHES = r"/(?:\.?/)+"


def simplify_path(path: str) -> str:
    """Drop doubled slashes, ``/./`` and a final slash, as systemd does."""
    path = re.compile(_SLASHES).sub("/", path)
    while path.endswith("/."):
        path = path[:-1].rstrip("/") or "/"
    return path.rstrip("/") or "/"


def absolute_path(path: str) -> str:
    """Check a path, and simplify it.

    Raises:
        ValueError: It is relative, goes up by ``..``, or is too long for the kernel.
    """
    if not path.startswith("/"):
        raise ValueError(f"{path[:80]!r} is not an absolute path")
    if "\0" in path or len(path.encode("utf-8", "surrogateescape")) >= 4096:
        raise ValueError("path is too long, or holds a NUL")
    simple = simplify_path(path)
    if ".." in simple.split("/"):
        raise ValueError(f"{path[:80]!r} goes up by '..'")
    return simple


def _string(text: str) -> str:
    return text


def _paths(text: str) -> tuple[str, ...]:
    return tuple(absolute_path(word) for word in words(text, escapes=False))


class RefusedError(ValueError):
    """A value so wrong that the whole unit is refused, not just the line."""


READERS: dict[Value, Callable[[str], object]] = {
    Value.BOOLEAN: boolean,
    Value.UNSIGNED: _unsigned,
    Value.INTEGER: _integer,
    Value.LONG: _long,
    Value.MODE: mode,
    Value.SIZE: size,
    Value.SPAN: span,
    Value.SPAN_OR_ZERO: _span_or_zero,
    Value.STRING: _string,
    Value.PATHS: _paths,
    Value.FDNAME: fd_name,
    Value.INTERFACE: _interface,
    Value.USER: _user,
    Value.SERVICE: _service,
    Value.PROTOCOL: _protocol,
    Value.BIND_IPV6: _bind_ipv6,
    Value.TIMESTAMPING: _timestamping,
    Value.TOS: _tos,
    Value.DEFER: _defer,
}
"""The reader of each syntax of socket units; list syntaxes return what one assignment adds.

Command lines are read by `sockact.unitfile.command`.
"""

LISTS = frozenset({Value.PATHS, Value.COMMANDS})
"""The syntaxes whose assignments add up."""


def _write_span(value: object) -> str:
    assert isinstance(value, int)
    if value == INFINITY:
        return "infinity"
    seconds, rest = divmod(value, 1_000_000)
    parts = [f"{seconds}s"] if seconds or not rest else []
    return " ".join(parts + ([f"{rest}us"] if rest else []))


def write(value: Value, item: object) -> str:
    """Write one value so that its reader reads it back; of a list, one element."""
    if isinstance(item, bool):
        return "yes" if item else "no"
    if value is Value.MODE:
        assert isinstance(item, int)
        return f"{item:04o}"
    if value in (Value.SPAN, Value.SPAN_OR_ZERO):
        return _write_span(item)
    if value is Value.PATHS:
        assert isinstance(item, str)
        return quote_word(item)
    return str(item)
