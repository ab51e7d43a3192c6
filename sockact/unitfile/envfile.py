"""The files of ``EnvironmentFile=``: text to variables.

This is the grammar that systemd reads them with, which is near to that of a shell but not the same:
there is no ``export``, and nothing is expanded. Lines without ``=`` mean nothing.

Source: systemd.exec(5), "EnvironmentFile="; ``parse_env_file_internal()`` in systemd's
src/basic/env-file.c.
"""

import re
from collections.abc import Callable

from sockact.unitfile.values import BLANKS, is_text, is_variable

_KEY = re.compile(r"[^\n\r][^=\n\r]*")
_COMMENT = re.compile(r"[^\n\r]*")
_SINGLE = re.compile(r"'([^']*)(?:'|\Z)")
_DOUBLE = re.compile(r'"([^"\\]*(?:\\(?:.|\Z)[^"\\]*)*)(?:"|\Z)', re.DOTALL)
_DOUBLE_ESCAPE = re.compile(r"\\(.|\Z)", re.DOTALL)


def parse_env_file(
    data: bytes, warn: Callable[[str], None] = lambda _message: None
) -> list[tuple[str, str]]:
    """Return the variables that the file says, in its order; of one name the last counts.

    Args:
        data: The whole file.
        warn: Called for an assignment whose name no variable can have; it is left out.

    Raises:
        ValueError: The file is refused: it has a NUL in it, or a variable that is not UTF-8.
    """
    if b"\0" in data:
        raise ValueError("there is a NUL byte in it")
    text = data.decode("utf-8", "surrogateescape")
    found: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        if text[position] in BLANKS:
            position += 1
            continue
        match = (_COMMENT if text[position] in "#;" else _KEY).match(text, position)
        assert match
        position = match.end()
        if match.re is _COMMENT or text[position : position + 1] != "=":
            continue
        value, position = _value(text, position + 1)
        name = match[0].rstrip(BLANKS)
        if not is_text(name + value):
            raise ValueError(f"the variable {name[:80]!r} is not UTF-8")
        if is_variable(name):
            found.append((name, value))
        else:
            warn(f"{name[:80]!r} is not the name of a variable; ignored")
    return found


def _value(text: str, position: int) -> tuple[str, int]:
    """Return the value that begins at `position`, and where it ends."""
    pieces: list[str] = []
    while True:
        while text[position : position + 1] in (" ", "\t"):
            position += 1
        if match := _SINGLE.match(text, position):
            pieces.append(match[1])
        elif match := _DOUBLE.match(text, position):
            pieces.append(_DOUBLE_ESCAPE.sub(_unquote, match[1]))
        else:
            rest, position = _unquoted(text, position)
            return "".join([*pieces, rest]), position
        position = match.end()


def _unquote(match: re.Match[str]) -> str:
    char = match[1]
    if char in ("", "\n"):
        return ""
    return char if char in '"\\`$' else match[0]


def _unquoted(text: str, position: int) -> tuple[str, int]:
    """Read up to the end of the line, without the blanks in front of it."""
    out: list[str] = []
    solid = 0
    while position < len(text) and text[position] not in "\n\r":
        char = text[position]
        position += 1
        if char == "\\":
            if text[position : position + 1] not in ("\n", "\r"):
                out.append(text[position : position + 1])
            position += 1
            solid = len(out)
        else:
            out.append(char)
            if char not in BLANKS:
                solid = len(out)
    return "".join(out[:solid]), position
