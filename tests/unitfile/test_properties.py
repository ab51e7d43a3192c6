"""Definitions keep their meaning: text to spec to text."""

import attrs
from hypothesis import given, settings

from sockact.errors import UnitError
from sockact.spec import Origin, SocketSpec
from sockact.unitfile.builder import Surroundings
from sockact.unitfile.grammar import parse
from sockact.unitfile.unit import interpret, write
from tests.strategies import UNIT_TEXTS

SURROUNDINGS = Surroundings(lambda _letter: None)


def _read(text: str) -> SocketSpec:
    assignments, _ = parse(text.encode(), "t")
    return interpret("web.socket", assignments, SURROUNDINGS)


def _meaning(spec: SocketSpec) -> object:
    """Return a spec without the places where things were said."""
    nowhere = Origin("")
    return (
        tuple(attrs.evolve(listener, origin=nowhere) for listener in spec.listeners),
        {name: setting.value for name, setting in spec.settings.items()},
    )


@given(UNIT_TEXTS)
@settings(max_examples=200, deadline=None)
def test_text_to_spec_to_text(text: str) -> None:
    """Any unit that loads is written as one that means the same, and is written the same again."""
    spec = _read(text)
    written = write(spec)
    again = _read(written)
    assert _meaning(again) == _meaning(spec)
    assert write(again) == written
    assert not again.diagnostics or spec.diagnostics


@given(UNIT_TEXTS)
@settings(max_examples=50, deadline=None)
def test_line_ends_and_comments_change_nothing(text: str) -> None:
    """CRLF, comments, empty lines and blanks around leave the meaning as it is."""
    dressed = "\r\n".join(f"  {line}  \r\n# {line}\\\r\n;" for line in text.splitlines())
    assert _meaning(_read(dressed)) == _meaning(_read(text))


@given(UNIT_TEXTS)
@settings(max_examples=50, deadline=None)
def test_half_a_unit_is_a_unit_or_an_error(text: str) -> None:
    """A file cut off anywhere is read, or refused in one line."""
    try:
        _read(text[: len(text) * 2 // 3])
    except UnitError as error:
        assert "\n" not in str(error)
