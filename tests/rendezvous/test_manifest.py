"""The manifest: columns, parts that fit into frames, and JSON."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sockact.rendezvous.manifest import COLUMNS, ROWS_MAX, Entry, Manifest
from sockact.rendezvous.messages import BYTES_MAX, ENTRIES_MAX, Offer
from sockact.rendezvous.wire import decode, encode
from tests.rendezvous.shapes import ENTRIES, MANIFESTS

HUGE = 2**64 - 1
LONGEST = {
    "astral": "\U0001f600",
    "quote": '"',
    "backslash": "\\",
    "letter": "x",
    "surrogate": "\udcff",
}


def _read(manifest: Manifest) -> Manifest:
    return Manifest.from_columns(json.loads(json.dumps(manifest.to_columns())), ENTRIES_MAX)


@settings(deadline=None)
@given(st.lists(ENTRIES, max_size=8))
def test_is_a_sequence_of_its_entries(entries: list[Entry]) -> None:
    """A manifest gives back what it was made of, in order."""
    manifest = Manifest(entries)
    assert list(manifest) == entries
    assert [manifest[i] for i in range(len(manifest))] == entries
    assert manifest.names == tuple(entry.name for entry in entries)
    assert manifest.identities == [entry.identity for entry in entries]
    assert manifest == Manifest(entries)
    assert hash(manifest) == hash(Manifest(entries))


@settings(deadline=None)
@given(MANIFESTS)
def test_comes_back_from_json(manifest: Manifest) -> None:
    """Columns written as JSON and read again are the same manifest."""
    assert _read(manifest) == manifest


@settings(deadline=None)
@given(MANIFESTS, st.data())
def test_select_gives_the_entries_asked_for(manifest: Manifest, data: st.DataObject) -> None:
    """A selection has the entries at the places given, in that order."""
    places = st.lists(st.integers(0, len(manifest) - 1), max_size=5) if manifest else st.just([])
    indices = data.draw(places)
    assert list(manifest.select(indices)) == [manifest[i] for i in indices]


@settings(deadline=None)
@given(st.lists(MANIFESTS, max_size=4))
def test_joined_is_one_after_the_other(parts: list[Manifest]) -> None:
    """Manifests join in order."""
    assert list(Manifest.joined(parts)) == [entry for part in parts for entry in part]


@pytest.mark.parametrize("character", LONGEST.values(), ids=LONGEST)
@pytest.mark.parametrize("number", [0, HUGE])
@pytest.mark.parametrize("count", [1, 2, 499, 500, 501, 1300])
def test_parts_fit_into_one_frame_each(character: str, number: int, count: int) -> None:
    """Whatever is in it, each part of a manifest fits into an Offer, and joins back."""
    for length, address in ((1, 20), (20, 90), (255, 4096)):
        rows = min(count, 30) if length == 255 else count
        entry = Entry(
            character * length, character * length, character * min(length, 64),
            character * min(length, 64), character * address, number, listening=False,
            device=number, inode=number, cookie=number, namespace=number,
            role=character * min(length, 64),
        )  # fmt: skip
        other = Entry("", "x", address="1", listening=True)
        manifest = Manifest([entry, other] * (rows // 2) + [entry] * (rows % 2))
        parts = manifest.parts()
        assert Manifest.joined(parts) == manifest
        for part in parts:
            assert 1 <= len(part) <= ROWS_MAX
            offer = Offer(ENTRIES_MAX, part, more=True)
            assert decode(encode(offer), 0) == offer


@pytest.mark.parametrize("length", [0, 9, 30, 40, 60])
def test_parts_of_large_numbers_fit(length: int) -> None:
    """Numbers take up to twenty digits each, and count as the text does."""
    entries = [
        Entry("s", "n", address=f"{i:0{length}}", protocol=HUGE - i, listening=bool(i % 2),
              device=HUGE - i, inode=HUGE - i, cookie=HUGE - i, namespace=HUGE - i)
        for i in range(1000)
    ]  # fmt: skip
    parts = Manifest(entries).parts()
    assert list(Manifest.joined(parts)) == entries
    assert all(len(encode(Offer(ENTRIES_MAX, part))) <= BYTES_MAX for part in parts)


@settings(deadline=None)
@given(st.lists(ENTRIES, max_size=30), st.integers(1, 40))
def test_random_parts_fit_and_join(entries: list[Entry], times: int) -> None:
    """Random entries in random numbers fit, too."""
    manifest = Manifest(entries * times)
    parts = manifest.parts()
    assert Manifest.joined(parts) == manifest
    assert all(len(encode(Offer(ENTRIES_MAX, part))) <= BYTES_MAX for part in parts)


def test_an_empty_manifest_is_one_empty_part() -> None:
    """There is always a part to send."""
    assert list(Manifest().parts()) == [Manifest()]


def test_thousands_of_ordinary_entries_take_few_messages() -> None:
    """A set of 5000 is told in at most 20 messages."""
    entries = [
        Entry("web", f"web-{i}", "Stream", "AF_INET", f"127.0.0.1:{10000 + i}", 6, listening=True,
              device=8, inode=10**7 + i, cookie=10**5 + i, namespace=1)
        for i in range(5000)
    ]  # fmt: skip
    assert len(Manifest(entries).parts()) <= 20


def test_what_all_entries_share_is_written_once() -> None:
    """A property that is the same for all takes one value, and one that is empty none."""
    columns = Manifest([Entry("web", "a"), Entry("web", "b")]).to_columns()
    assert columns == {"count": 2, "set": "web", "name": ("a", "b"), "kind": "Other"}


def _wrong() -> list[tuple[str, Any]]:
    wrong: list[tuple[str, Any]] = [
        ("no object", []),
        ("null", None),
        ("text", "x"),
        ("no count", {}),
        ("count true", {"count": True}),
        ("count text", {"count": "1"}),
        ("count float", {"count": 1.0}),
        ("count negative", {"count": -1}),
        ("count too large", {"count": ENTRIES_MAX + 1}),
        ("count huge", {"count": 10**400}),
        ("too few values", {"count": 2, "name": ["a"]}),
        ("too many values", {"count": 1, "name": ["a", "b"]}),
        ("values for nothing", {"count": 0, "name": ["a"]}),
    ]
    for name, kind in COLUMNS.items():
        bad: dict[type, list[object]] = {
            str: [1, None, {}, ["a", 1], "x" * 4097],
            int: [-1, 2**64, 10**400, True, 1.0, "1", [1, -1], [0, "1"]],
            bool: [0, 1, "true", None, [True, 0]],
        }
        wrong += [(f"{name}={str(value)[:9]}", {"count": 2, name: value}) for value in bad[kind]]
    return wrong


@pytest.mark.parametrize("found", [value for _, value in _wrong()], ids=[n for n, _ in _wrong()])
def test_malformed_columns_are_told(found: object) -> None:
    """Every malformed column is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        Manifest.from_columns(found, ENTRIES_MAX)


def test_unknown_columns_are_passed_over() -> None:
    """A newer peer may say more of each descriptor."""
    found = {"count": 1, "name": "a", "colour": ["red", "blue"], "nested": {"x": [1]}}
    assert Manifest.from_columns(found, 1) == Manifest([Entry("", "a", "")])


@settings(deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from(["count", *COLUMNS]), inner, max_size=4),
        ),
    )
)
def test_any_json_is_read_or_a_value_error(found: object) -> None:
    """No JSON value makes the reader fail in another way."""
    try:
        manifest = Manifest.from_columns(found, 100)
    except ValueError:
        return
    assert len(list(manifest)) == len(manifest)


@pytest.mark.parametrize("column", ["name", "set"])
@pytest.mark.parametrize("text", ["a:b", "a\nX=1", "\0", "\x7f"])
def test_names_that_would_change_listen_fdnames_are_malformed(column: str, text: str) -> None:
    """An owner cannot make a program believe other names than those it was given."""
    with pytest.raises(ValueError, match="colon or a control character"):
        Manifest.from_columns({"count": 1, column: text}, 10)
