"""Both halves of a transfer: nothing but the announced handles, whole and in order."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sockact.rendezvous.manifest import Entry, Identity, Manifest
from sockact.rendezvous.messages import ENTRIES_MAX, Fds, Offer, Reason
from sockact.rendezvous.passage import BrokenError, Giving, Receiving


def identify(handles: Sequence[int]) -> list[Identity]:
    """Return the file of each handle: two handles 1000 apart are copies of one file."""
    return [(7, handle % 1000) for handle in handles]


def manifest_of(count: int) -> Manifest:
    """Return the manifest of the handles from 0 on."""
    return Manifest(
        Entry("s", f"n{i}", address="x" * (i % 50), device=7, inode=i) for i in range(count)
    )


def offered(count: int) -> "Receiving[int]":
    """Return a receiver that has the manifest of so many handles."""
    receiving: Receiving[int] = Receiving(identify)
    assert receiving.offered(Offer(count, manifest_of(count)))
    return receiving


@settings(deadline=None)
@given(st.integers(1, 900), st.integers(1, 250), st.lists(st.integers(0, 30), max_size=3))
def test_everything_arrives_in_chunks(count: int, chunk: int, retries: list[int]) -> None:
    """A set of any size arrives whole and in order, also if chunks have to be made smaller."""
    giving: Giving[int] = Giving(manifest_of(count), range(count), chunk)
    receiving: Receiving[int] = Receiving(identify)
    offers = giving.offers()
    assert [receiving.offered(offer) for offer in offers] == [False] * (len(offers) - 1) + [True]
    assert receiving.manifest == giving.manifest
    turn = 0
    while True:
        fds, handles = giving.next_chunk()
        if turn in retries and (smaller := giving.smaller_chunk()):
            assert len(smaller[1]) == len(handles) // 2
            fds, handles = smaller
        assert 1 <= len(handles) <= chunk
        copies = [handle + 1000 for handle in handles]
        last = receiving.arrived(fds, copies)
        assert giving.acked(receiving.count) is last
        if last:
            break
        turn += 1
    assert receiving.count == count
    assert receiving.release() == tuple(range(1000, 1000 + count))
    assert receiving.release() == ()


def test_a_single_handle_cannot_be_halved() -> None:
    """Where the kernel takes not even one, there is no smaller chunk."""
    giving: Giving[int] = Giving(manifest_of(3), range(3), 3)
    giving.next_chunk()
    assert giving.smaller_chunk() == (Fds(0, 1), (0,))
    assert giving.smaller_chunk() is None
    assert giving.acked(1) is False
    assert giving.next_chunk() == (Fds(1, 1), (1,))


@pytest.mark.parametrize("count", [0, 1, 3, 2**63])
def test_an_ack_of_something_else_is_broken(count: int) -> None:
    """An acknowledgement is for exactly what was sent."""
    giving: Giving[int] = Giving(manifest_of(3), range(3), 2)
    giving.next_chunk()
    with pytest.raises(BrokenError, match="acknowledged"):
        giving.acked(count)


@pytest.mark.parametrize(
    ("count", "parts"),
    [
        (0, [(0, False)]),
        (2, [(0, True)]),
        (2, [(0, False)]),
        (2, [(1, False)]),
        (2, [(2, True)]),
        (2, [(3, False)]),
        (2, [(1, True), (0, True)]),
        (2, [(1, True), (1, True)]),
        (2, [(1, True), (2, False)]),
        (ENTRIES_MAX + 1, [(1, True)]),
        (2**62, [(1, True)]),
    ],
)
def test_parts_that_contradict_each_other_are_broken(
    count: int, parts: list[tuple[int, bool]]
) -> None:
    """The parts of a manifest make up what they announce, each with something in it."""
    receiving: Receiving[int] = Receiving(identify)
    *first, last = [Offer(count, manifest_of(size), more) for size, more in parts]
    for offer in first:
        assert not receiving.offered(offer)
    with pytest.raises(BrokenError):
        receiving.offered(last)


@pytest.mark.parametrize(
    ("fds", "handles", "reason"),
    [
        (Fds(0, 2), [0], Reason.PROTOCOL),
        (Fds(0, 1), [0, 1], Reason.PROTOCOL),
        (Fds(1, 1), [1], Reason.PROTOCOL),
        (Fds(0, 0), [], Reason.PROTOCOL),
        (Fds(0, 4), [0, 1, 2, 3], Reason.PROTOCOL),
        (Fds(0, 3), [0, 2, 1], Reason.MISMATCH),
        (Fds(0, 3), [0, 1, 1], Reason.MISMATCH),
        (Fds(0, 1), [9], Reason.MISMATCH),
    ],
)
def test_other_handles_are_broken_and_kept_for_closing(
    fds: Fds, handles: list[int], reason: Reason
) -> None:
    """Too few, too many, others or in another order: broken, and the receiver owns them."""
    receiving = offered(3)
    with pytest.raises(BrokenError) as caught:
        receiving.arrived(fds, handles)
    assert caught.value.reason is reason
    assert all(receiving.has(handle) for handle in handles)
    assert receiving.release() == tuple(handles)
    assert not any(receiving.has(handle) for handle in handles)


@settings(deadline=None)
@given(st.integers(1, 12), st.data())
def test_only_the_right_handles_are_taken(count: int, data: st.DataObject) -> None:
    """Of all handles that may come, only the announced ones in order make a set."""
    receiving = offered(count)
    handles = data.draw(st.lists(st.integers(0, count), max_size=count + 1))
    try:
        whole = receiving.arrived(Fds(0, len(handles)), handles)
    except BrokenError:
        assert handles != list(range(len(handles))) or not handles or len(handles) > count
    else:
        assert handles == list(range(len(handles)))
        assert whole is (len(handles) == count)
