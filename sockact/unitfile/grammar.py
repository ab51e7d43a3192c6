"""The line grammar of unit files: bytes to assignments, each with its place.

This follows systemd's ``config_parse()`` byte for byte, because a file that systemd reads one way
must not be read another way here. What surprises people, and is right:

- LF, CR, NUL and their pairs end a line, so a NUL byte is just a line end.
- A comment is a whole line. It does not continue, though it ends in a backslash, and it may stand
  inside a continuation, which goes on behind it; an empty line ends the continuation.
- A backslash at the end of a line becomes one space; the blanks of the next line stay.
- A broken section header, or a line that is not UTF-8, makes the whole file unusable; most other
  faults are a warning, and the line is skipped.

Everything is one pass over the bytes: time and memory are linear in the size of the file.
"""

import re
from collections.abc import Iterator

import attrs

from sockact.errors import UnitSyntaxError
from sockact.spec import Diagnostic, Origin
from sockact.unitfile.values import BLANKS, NONCHARACTER

LINE_MAX = 1024 * 1024
"""A line, and a continued line as a whole, must stay below this many bytes (LONG_LINE_MAX)."""

SOCKET_SECTIONS = ("Unit", "Socket", "Install")
SERVICE_SECTIONS = ("Unit", "Service", "Install")

_TERMINATOR = re.compile(rb"(?:\r\n|\n\r|\r|\n)\0?|\0")
_BOM = b"\xef\xbb\xbf"
_BLANKS = BLANKS.encode()
_UNSAFE_IN_SECTION = re.compile(r"[\x00-\x1f\x7f\"'\\*?\[]")
_NONCHARACTER = re.compile(NONCHARACTER)


@attrs.frozen
class Assignment:
    """One ``Key=Value`` of a known section, trimmed, with the places of key and value."""

    section: str
    key: str
    value: str
    origin: Origin
    value_origin: Origin


class _Line:
    """A logical line under construction: its pieces, and where each began."""

    __slots__ = ("length", "pieces", "starts")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.starts: list[tuple[int, int, int]] = []  # offset here, line number, bytes cut off
        self.length = 0

    def add(self, number: int, piece: bytes, cut: int) -> None:
        self.starts.append((self.length, number, cut))
        self.pieces.append(piece)
        self.length += len(piece)

    def origin(self, source: str, offset: int) -> Origin:
        """Return the place of the byte at `offset`; the column counts characters."""
        index = len(self.starts) - 1
        while self.starts[index][0] > offset:
            index -= 1
        start, number, cut = self.starts[index]
        before = self.pieces[index][: offset - start].decode("utf-8", "replace")
        return Origin(source, number, len(before) + cut + 1)


class _Reader:
    """The state that one file carries from line to line."""

    def __init__(self, source: str, sections: tuple[str, ...]) -> None:
        self.source = source
        self.sections = sections
        self.assignments: list[Assignment] = []
        self.diagnostics: list[Diagnostic] = []
        self._section = ""
        self._skipping = False

    def _warn(self, origin: Origin, message: str) -> None:
        self.diagnostics.append(Diagnostic(origin, message))

    def take(self, line: _Line) -> None:
        """Interpret one logical line."""
        whole = b"".join(line.pieces)
        raw = whole.strip(_BLANKS)
        if not raw:
            return
        start = len(whole) - len(whole.lstrip(_BLANKS))
        origin = line.origin(self.source, start)
        text = self._decode(raw, line, start)
        if text.startswith("["):
            self._enter(text, origin)
            return
        key, equals, value = text.partition("=")
        if not self._section:
            if not self._skipping:
                self._warn(origin, "assignment outside of a section; ignored")
        elif not equals:
            self._warn(origin, "no '=' in this line; ignored")
        elif not key.rstrip(BLANKS):
            self._warn(origin, "nothing before '='; ignored")
        else:
            lead = len(value) - len(value.lstrip(BLANKS))
            at = start + len((key + "=" + value[:lead]).encode())
            self.assignments.append(
                Assignment(
                    self._section,
                    key.rstrip(BLANKS),
                    value.strip(BLANKS),
                    origin,
                    line.origin(self.source, min(at, len(whole) - 1)),
                )
            )

    def _decode(self, raw: bytes, line: _Line, start: int) -> str:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            place = line.origin(self.source, start + error.start)
            message = f"byte 0x{raw[error.start]:02x} is not UTF-8"
            raise UnitSyntaxError(message, self.source, place.line, place.column) from None
        if not text.isascii() and (bad := _NONCHARACTER.search(text)):
            place = line.origin(self.source, start + len(text[: bad.start()].encode()))
            message = f"U+{ord(bad[0]):04X} is no character of Unicode"
            raise UnitSyntaxError(message, self.source, place.line, place.column)
        return text

    def _enter(self, text: str, origin: Origin) -> None:
        name = text[1:-1]
        if not text.endswith("]") or _UNSAFE_IN_SECTION.search(name):
            raise UnitSyntaxError(
                f"invalid section header {text[:80]!r}; write it like [{self.sections[1]}]",
                self.source,
                origin.line,
                origin.column,
            )
        if name in self.sections:
            self._section, self._skipping = name, False
            return
        if not name.startswith("X-"):
            self._warn(origin, f"unknown section [{name}]; what it holds is ignored")
        self._section, self._skipping = "", True


def _physical_lines(data: bytes) -> Iterator[bytes]:
    position = 0
    for match in _TERMINATOR.finditer(data):
        yield data[position : match.start()]
        position = match.end()
    if position < len(data):
        yield data[position:]


def parse(
    data: bytes,
    source: str,
    *,
    drop_in: bool = False,
    sections: tuple[str, ...] = SOCKET_SECTIONS,
) -> tuple[list[Assignment], list[Diagnostic]]:
    """Split the text of a unit file into assignments.

    Args:
        data: The whole file.
        source: What to call it in messages; usually its path.
        drop_in: Whether it is a drop-in: what makes a unit unusable ends a drop-in with a warning.
        sections: The sections that such a unit has.

    Returns:
        The assignments of these sections in order, and what was ignored on the way.

    Raises:
        UnitSyntaxError: systemd would refuse the unit: a broken section header, a line that is
            not UTF-8, or one of 1 MiB or more.

    Source: systemd.syntax(7), and ``config_parse()`` in systemd's src/shared/conf-parser.c.
    """
    reader = _Reader(source, sections)
    try:
        _read(reader, data)
    except UnitSyntaxError as error:
        if not drop_in:
            raise
        place = Origin(source, error.line, error.column)
        message = f"{error.message}; the rest of this drop-in is ignored"
        reader.diagnostics.append(Diagnostic(place, message))
    return reader.assignments, reader.diagnostics


def _read(reader: _Reader, data: bytes) -> None:
    source = reader.source
    pending: _Line | None = None
    bom_seen = False
    for number, raw in enumerate(_physical_lines(data), 1):
        if len(raw) >= LINE_MAX:
            raise UnitSyntaxError(f"line of {LINE_MAX} bytes or more", source, number)
        if raw.lstrip(_BLANKS)[:1] in (b"#", b";"):
            continue
        cut = 0
        if not bom_seen and raw.startswith(_BOM):
            raw, cut, bom_seen = raw[len(_BOM) :], 1, True  # noqa: PLW2901
        line = pending or _Line()
        if pending and pending.length + len(raw) > LINE_MAX:
            raise UnitSyntaxError(f"continued line of over {LINE_MAX} bytes", source, number)
        if (len(raw) - len(raw.rstrip(b"\\"))) % 2:
            line.add(number, raw[:-1] + b" ", cut)
            pending = line
            continue
        line.add(number, raw, cut)
        pending = None
        reader.take(line)
    if pending:
        reader.take(pending)
