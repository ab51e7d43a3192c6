"""``%`` specifiers: expansion with a mapping that the caller gives (systemd.unit(5), "Specifiers").

``expand`` knows the syntax; ``unit_specifiers`` knows what follows from the unit's name alone.
What depends on the machine and the user comes from ``sockact.unitfile.load``.
"""

import re
from collections.abc import Callable

_SPECIFIER = re.compile(r"%([A-Za-z0-9%])")


def expand(text: str, resolve: Callable[[str], str | None], limit: int = 1024 * 1024) -> str:
    """Expand the specifiers in `text`.

    Args:
        text: A directive's value.
        resolve: The meaning of one letter, or None if there is no such specifier.
        limit: The most bytes that the result may have.

    Raises:
        ValueError: A letter or digit that is no specifier, or the result is too long.
    """
    if "%" not in text:
        return text

    def meaning(match: re.Match[str]) -> str:
        letter = match[1]
        if letter == "%":
            return "%"
        found = resolve(letter)
        if found is None:
            raise ValueError(f"unknown specifier %{letter}; write %% for a percent sign")
        return found

    expanded = _SPECIFIER.sub(meaning, text)
    if len(expanded.encode("utf-8", "surrogateescape")) > limit:
        raise ValueError(f"over {limit} bytes after expansion of specifiers")
    return expanded


def unescape(text: str) -> str:
    r"""Undo systemd-escape(1): ``-`` is a slash, ``\xHH`` a byte."""
    out = bytearray()
    data = text.encode()
    position = 0
    while position < len(data):
        byte = data[position : position + 1]
        code = data[position + 2 : position + 4]
        if byte == b"-":
            out += b"/"
        elif (
            byte == b"\\"
            and data[position + 1 : position + 2] == b"x"
            and re.fullmatch(rb"[0-9a-fA-F]{2}", code)
        ):
            out.append(int(code, 16))
            position += 3
        else:
            out += byte
        position += 1
    return out.decode("utf-8", "surrogateescape")


def unit_specifiers(name: str) -> dict[str, str]:
    """Return the specifiers that follow from a full unit name such as ``web@blue.socket``."""
    stem = name.rpartition(".")[0]
    prefix, _, instance = stem.partition("@")
    last = prefix.rpartition("-")[2]
    path = unescape(instance or prefix).strip("/")
    return {
        "n": name,
        "N": stem,
        "p": prefix,
        "P": unescape(prefix),
        "i": instance,
        "I": unescape(instance),
        "j": last,
        "J": unescape(last),
        "f": "/" + path,
    }
