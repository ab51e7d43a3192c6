"""Random messages and manifests for property tests."""

import json
import re
from typing import Any

import attrs
from hypothesis import strategies as st

from sockact.rendezvous.manifest import COLUMNS, Entry, Manifest
from sockact.rendezvous.messages import MESSAGES, Json, Message, Op, Part, Reason


def _canonical(text: str) -> str:
    """Join surrogate pairs: JSON cannot tell two halves from the whole (RFC 8259, 7)."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


CHARACTERS = st.one_of(
    st.sampled_from("abz09_.-/@:[]%\"'\\ \n\0\x7f"),
    st.sampled_from("\u00e9\u2028\ud800\udcff\udfff\U0001f600\U0010ffff"),
    st.characters(exclude_categories=()),
)


def texts(most: int) -> st.SearchStrategy[str]:
    """Return text of at most so many characters, odd ones and lone surrogates included."""
    return st.text(CHARACTERS, max_size=most).map(_canonical)


_COLUMN = {str: texts(40), int: st.integers(0, 2**64 - 1), bool: st.booleans()}
_NAMES = texts(40).map(lambda text: re.sub("[\x00-\x1f\x7f:]", "", text))

ENTRIES: st.SearchStrategy[Entry] = st.builds(
    Entry,
    **{
        name: _NAMES if name in ("name", "set") else _COLUMN[kind] for name, kind in COLUMNS.items()
    },
)

MANIFESTS: st.SearchStrategy[Manifest] = st.one_of(
    st.lists(ENTRIES, max_size=6).map(Manifest),
    st.tuples(ENTRIES, st.integers(0, 40)).map(lambda t: Manifest([t[0]] * t[1])),
)

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | texts(20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(10), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
OBJECTS: st.SearchStrategy[Json] = st.dictionaries(texts(10), _VALUES, max_size=4).map(
    lambda found: Json(json.dumps(found, separators=(",", ":")))
)

_INTS = st.integers(0, 2**63 - 1)
_FLOATS = st.floats(0, 2.0**62, allow_nan=False)
_FIELDS: dict[object, st.SearchStrategy[Any]] = {
    int: _INTS,
    float: _FLOATS,
    bool: st.booleans(),
    str: texts(60),
    Op: st.sampled_from(Op),
    Reason: st.sampled_from(Reason),
    Manifest: MANIFESTS,
    Json: OBJECTS,
    Part: texts(100),
    tuple[str, ...]: st.lists(texts(40), max_size=4).map(tuple),
    tuple[int, ...]: st.lists(st.integers(-1, 2**63 - 1), max_size=4).map(tuple),
    tuple[float, ...]: st.lists(_FLOATS, max_size=4).map(tuple),
}


def messages(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Return messages of a kind, with every field filled."""
    return st.builds(kind, **{field.name: _FIELDS[field.type] for field in attrs.fields(kind)})


ANY_MESSAGE = st.sampled_from(sorted(MESSAGES)).flatmap(lambda name: messages(MESSAGES[name]))
