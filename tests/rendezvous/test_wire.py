"""Messages to bytes and back: all that is valid, and all that is not."""

import json
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sockact.errors import RemoteProtocolError
from sockact.rendezvous.manifest import Manifest
from sockact.rendezvous.messages import (
    BYTES_MAX,
    FDS_MAX,
    MESSAGES,
    NAME_MAX,
    TEXT_MAX,
    Abort,
    Accept,
    Alive,
    Fds,
    Hello,
    Json,
    Listing,
    Message,
    Offer,
    Op,
    Part,
    Reason,
    Refuse,
    Request,
    Welcome,
)
from sockact.rendezvous.wire import FRAMING, HEADER, MAGIC, Framer, decode, encode
from tests.rendezvous.shapes import ANY_MESSAGE, messages


def frame(body: bytes, fds: int = 0, *, magic: bytes = MAGIC, framing: int = FRAMING) -> bytes:
    """Return a frame with that body."""
    return HEADER.pack(magic, framing, fds, len(body)) + body


def read(found: object) -> Message:
    """Read a JSON value as the body of a frame."""
    return decode(frame(json.dumps(found).encode()), 0)


@pytest.mark.parametrize("name", MESSAGES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_message_comes_back(name: str, data: st.DataObject) -> None:
    """A message of any kind, with any text in it, is the same after its way as a frame."""
    message = data.draw(messages(MESSAGES[name]))
    fds = data.draw(st.integers(0, FDS_MAX))
    there = encode(message, fds)
    assert there[HEADER.size :].isascii()
    assert decode(there, fds) == message
    framer: Framer[int] = Framer()
    framer.feed(there, range(fds))
    assert framer.next() == (message, tuple(range(fds)))
    assert framer.next() is None
    assert not framer.pending


@pytest.mark.parametrize("name", MESSAGES)
def test_fields_with_defaults_may_be_missing_and_unknown_ones_are_ignored(name: str) -> None:
    """An older peer leaves out what it does not know, and a newer one says more."""
    values: dict[object, object] = {
        int: 1, str: "x", Op: "get", Reason: "busy", Manifest: {"count": 1}, Part: "x",
    }  # fmt: skip
    kind = MESSAGES[name]
    needed = {f.name: values[f.type] for f in attrs.fields(kind) if f.default is attrs.NOTHING}
    message = read({"type": name, **needed, "from_the_future": {"a": [1, None]}})
    assert message == read({"type": name, **needed})
    for field in attrs.fields(kind):
        if field.default is not attrs.NOTHING:
            assert getattr(message, field.name) == field.default
    for missing in needed:
        with pytest.raises(RemoteProtocolError):
            read({"type": name, **needed, missing: None})
        less = {key: value for key, value in needed.items() if key != missing}
        with pytest.raises(RemoteProtocolError, match="malformed"):
            read({"type": name, **less})


def test_a_reason_of_a_newer_peer_is_a_failure() -> None:
    """A reason that is not known here ends it all the same; the text says why."""
    text = "the moon is full"
    assert read({"type": "refuse", "reason": "moon", "text": text}) == Refuse(Reason.FAILED, text)
    with pytest.raises(RemoteProtocolError):
        read({"type": "request", "op": "moon"})


def test_whole_numbers_are_numbers() -> None:
    """Seconds may be written without a fraction, as other languages' JSON does."""
    assert read({"type": "drain", "seconds": 3}) == read({"type": "drain", "seconds": 3.0})
    listing = {"type": "listing", "entries": {"count": 1}, "since": [3]}
    assert read(listing) == Listing(Manifest.from_columns({"count": 1}, 1), since=(3.0,))


def test_the_last_of_two_equal_keys_counts() -> None:
    """Duplicate keys are no error (RFC 8259, 4, leaves it open): the last one holds."""
    body = b'{"type":"ready","type":"fds","first":1,"first":2,"count":3}'
    assert decode(frame(body), 0) == Fds(2, 3)


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_what_json_has_no_number_for_is_not_sent(number: float) -> None:
    """JSON has no infinity; a peer in another language could not read it."""
    with pytest.raises(ValueError, match="JSON"):
        encode(Request(Op.TAKEOVER, patience=number))


def test_too_much_is_not_sent() -> None:
    """A frame has a limit, and what exceeds it is an error at the sender."""
    with pytest.raises(ValueError, match="bytes"):
        encode(Request(Op.GET, tuple(f"{i:0255}" for i in range(1000))))


# --- what is malformed ----------------------------------------------------------------------------

_SHORT = frame(b'{"type":"ready"}')
FRAMES: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 0),
    "shorter than a header": (_SHORT[:7], 0),
    "header alone": (_SHORT[:8], 0),
    "body cut off": (_SHORT[:-1], 0),
    "body too long": (_SHORT + b" ", 0),
    "wrong magic": (frame(b"{}", magic=b"SA"), 0),
    "framing 0": (frame(b'{"type":"ready"}', framing=0), 0),
    "framing 2": (frame(b'{"type":"ready"}', framing=2), 0),
    "length lies": (HEADER.pack(MAGIC, FRAMING, 0, 2**32 - 1) + b"{}", 0),
    "too long": (frame(b" " * (BYTES_MAX - HEADER.size + 1)), 0),
    "too many descriptors": (frame(b'{"type":"ready"}', FDS_MAX + 1), FDS_MAX + 1),
    "a descriptor less": (frame(b'{"type":"ready"}', 2), 1),
    "a descriptor more": (frame(b'{"type":"ready"}', 2), 3),
    "an unasked descriptor": (frame(b'{"type":"ready"}'), 1),
}
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "blank": b"  ",
    "no JSON": b"hello",
    "two values": b"{}{}",
    "cut off": b'{"type":"rea',
    "null": b"null",
    "a number": b"1",
    "text": b'"ready"',
    "a list": b'["ready"]',
    "NUL": b'{"type":"ready"}\0',
    "not UTF-8": b'{"type":"refuse","reason":"busy","text":"\xff"}',
    "UTF-16": '{"type":"ready"}'.encode("utf-16"),
    "UTF-32": '{"type":"ready"}'.encode("utf-32-le"),
    "byte order mark": b'\xef\xbb\xbf{"type":"ready"}',
    "NaN": b'{"type":"drain","seconds":NaN}',
    "Infinity": b'{"type":"drain","seconds":Infinity}',
    "-Infinity": b'{"type":"drain","seconds":-Infinity}',
    "too large a float": b'{"type":"drain","seconds":1e999}',
    "too many digits": b'{"type":"ack","count":' + b"9" * 60000 + b"}",
    "a huge number": b'{"type":"ack","count":' + b"9" * 4000 + b"}",
    "huge seconds": b'{"type":"drain","seconds":' + b"9" * 4000 + b"}",
    "huge seconds in a list": b'{"type":"listing","entries":{"count":1},"since":['
    + b"9" * 4000
    + b"]}",
    "infinite seconds in a list": b'{"type":"listing","entries":{"count":1},"since":[1e999]}',
    "no type": b"{}",
    "unknown type": b'{"type":"moon"}',
    "long unknown type": b'{"type":"' + b"m" * 60000 + b'"}',
    "type null": b'{"type":null}',
    "type a list": b'{"type":["ready"]}',
    "type an object": b'{"type":{"ready":1}}',
    "type a number": b'{"type":1}',
    "deep": b"[" * 60000,
    "deep and whole": b"[" * 30000 + b"]" * 30000,
    "deep objects": b'{"a":' * 12000,
}


@pytest.mark.parametrize("name", FRAMES)
def test_malformed_frames_are_the_peers_fault(name: str) -> None:
    """Whatever is wrong with a frame is a RemoteProtocolError."""
    with pytest.raises(RemoteProtocolError):
        decode(*FRAMES[name])


@pytest.mark.parametrize("name", BODIES)
def test_malformed_bodies_are_the_peers_fault(name: str) -> None:
    """Whatever is wrong with a body is a RemoteProtocolError, from a stream as well."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode(frame(BODIES[name]), 0)
    assert len(str(caught.value)) < 400
    framer: Framer[int] = Framer()
    framer.feed(frame(BODIES[name]))
    with pytest.raises(RemoteProtocolError):
        framer.next()


@pytest.mark.parametrize(
    "place",
    [
        '{"type":%s}',
        '{"type":"request","op":%s}',
        '{"type":"request","op":"get","names":%s}',
        '{"type":"request","op":"get","names":[%s]}',
        '{"type":"refuse","reason":%s}',
        '{"type":"refuse","reason":"busy","text":%s}',
        '{"type":"offer","count":1,"entries":%s}',
        '{"type":"offer","count":1,"entries":{"count":%s}}',
        '{"type":"offer","count":1,"entries":{"count":1,"name":%s}}',
        '{"type":"drain","seconds":%s}',
        '{"type":"answer","text":%s}',
        '{"type":"request","op":"get","arguments":%s}',
    ],
)
def test_nesting_of_any_depth_is_the_peers_fault(place: str) -> None:
    """Just below the depth that the JSON reader takes, nothing else fails for it either."""
    for depth in [*range(1, 30), *range(900, 1010), 3000, 9000]:
        body = (place % ("[" * depth + "]" * depth)).encode()
        try:
            decode(frame(body), 0)
        except RemoteProtocolError:
            continue
        assert depth <= 2, f"{body[:80]!r} was read"


_WRONG: dict[object, list[object]] = {
    int: [None, "1", 1.0, True, -1, 2**63, 10**300, [], {}],
    float: [None, "1", True, -1, -0.5, 2**63, 1e300, 10**400, [], {}],
    bool: [None, 0, 1, "true", [], {}],
    str: [None, 1, True, [], {}, "x" * (TEXT_MAX + 1)],
    Op: [None, 1, True, [], {}, "", "GET"],
    Reason: [None, 1, True, [], {}],
    Manifest: [None, 1, "x", [], {}],
    Part: [None, 1, True, [], {}],
    Json: [None, 1, "x", "{}", [], [{}], {"a": 1e999}, json.loads('{"a":' * 33 + "1" + "}" * 33)],
    tuple[str, ...]: [None, 1, "x", {}, [1], ["x", None], [[]], ["x" * (NAME_MAX + 1)]],
    tuple[int, ...]: [None, 1, "x", {}, [1.0], [True], ["1"], [-2], [2**63], [None]],
    tuple[float, ...]: [None, 1, "x", {}, ["1"], [True], [-1], [1e300], [10**400], [None]],
}


@pytest.mark.parametrize("name", MESSAGES)
def test_values_of_a_wrong_type_are_the_peers_fault(name: str) -> None:
    """Each field takes its type and range, and nothing else."""
    kind = MESSAGES[name]
    right: dict[object, object] = {
        int: 1, str: "x", Op: "get", Reason: "busy", Manifest: {"count": 1}, Part: "x",
    }  # fmt: skip
    good = {f.name: right[f.type] for f in attrs.fields(kind) if f.type in right}
    read({"type": name, **good})
    for field in attrs.fields(kind):
        for value in _WRONG[field.type]:
            with pytest.raises(RemoteProtocolError):
                read({"type": name, **good, field.name: value})


def test_arguments_are_an_object() -> None:
    """They go as one in the message, and come as its text, in one way to write it."""
    request = Request(Op.CONTROL, command="stop", arguments=Json('{"a":[1,null,{"b":"\\u00e9"}]}'))
    body = json.loads(encode(request)[HEADER.size :])
    assert body["arguments"] == {"a": [1, None, {"b": "\u00e9"}]}
    assert read(body) == request
    deep = json.loads('{"a":' * 32 + "1" + "}" * 32)
    message = read({"type": "request", "op": "control", "arguments": deep})
    assert isinstance(message, Request)
    assert json.loads(message.arguments) == deep


def test_lists_have_a_limit() -> None:
    """A list of more than 1024 items is too long; what a list has for each entry may be longer."""
    read({"type": "request", "op": "get", "names": ["x"] * 1024})
    with pytest.raises(RemoteProtocolError, match="1025"):
        read({"type": "request", "op": "get", "names": ["x"] * 1025})
    read({"type": "listing", "entries": {"count": 0}, "now": [1] * 1025})


_JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4),
        st.sampled_from(["get", "busy", 10**350, -1, 2**63]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)  # fmt: skip
_FIELD_NAMES = sorted({field.name for kind in MESSAGES.values() for field in attrs.fields(kind)})


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(MESSAGES)), st.dictionaries(st.sampled_from(_FIELD_NAMES), _JSON))
def test_any_fields_are_read_or_the_peers_fault(name: str, fields: dict[str, Any]) -> None:
    """No value in any field makes the reader fail in another way; what is read can be sent."""
    try:
        message = read({**fields, "type": name})
    except RemoteProtocolError:
        return
    assert decode(encode(message), 0) == message


@settings(max_examples=300, deadline=None)
@given(ANY_MESSAGE, st.data())
def test_damaged_frames_are_read_or_the_peers_fault(message: Message, data: st.DataObject) -> None:
    """No damage makes the reader fail in another way, by packet or from a stream."""
    bad = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(bad) - 1))
        bad[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    fds = data.draw(st.integers(0, 2))
    try:
        assert isinstance(decode(bytes(bad), fds), Message)
    except RemoteProtocolError:
        pass
    framer: Framer[int] = Framer()
    framer.feed(bytes(bad), range(fds))
    got: tuple[int, ...] = ()
    try:
        while found := framer.next():
            got += found[1]
    except RemoteProtocolError:
        pass
    assert (*got, *framer.abandon()) == tuple(range(fds))


# --- the stream -----------------------------------------------------------------------------------


class KernelStream:
    """A Unix stream as the kernel reads it, unix_stream_read_generic().

    A read goes on over plain bytes, and ends with what remains of the sendmsg() whose descriptors
    it took; it takes them with the first byte of that.
    """

    def __init__(self, sent: list[tuple[bytes, tuple[int, ...]]]) -> None:
        self._sent = list(sent)

    def read(self, size: int) -> tuple[bytes, tuple[int, ...]]:
        """Return what recvmsg() of so many bytes gives."""
        data = b""
        while self._sent and len(data) < size:
            piece, fds = self._sent[0]
            some = size - len(data)
            data += piece[:some]
            self._sent[0] = (piece[some:], ())
            if not self._sent[0][0]:
                del self._sent[0]
            if fds:
                return data, fds
        return data, ()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(ANY_MESSAGE, st.sampled_from([0, 0, 0, 1, 2, FDS_MAX])), max_size=8),
    st.data(),
)
def test_a_stream_cut_anywhere_gives_the_same_messages(
    sent: list[tuple[Message, int]], data: st.DataObject
) -> None:
    """However reads cut the stream, each message comes with the descriptors that it was sent with."""
    number, there, expected = 0, [], []
    for message, count in sent:
        fds = tuple(range(number, number + count))
        number += count
        there.append((encode(message, count), fds))
        expected.append((message, fds))
    stream = KernelStream(there)
    framer: Framer[int] = Framer()
    got = []
    sizes = data.draw(st.lists(st.sampled_from([1, 3, 8, 9, 100, BYTES_MAX]), min_size=1))
    for turn in range(10**6):
        piece, fds = stream.read(sizes[turn % len(sizes)] if turn < 2000 else BYTES_MAX)
        if not piece:
            break
        framer.feed(piece, fds)
        while found := framer.next():
            got.append(found)
    assert got == expected
    assert not framer.pending
    assert framer.abandon() == ()


def test_plain_bytes_in_front_take_no_descriptor() -> None:
    """Bytes of earlier messages may come with the descriptors of a later one."""
    framer: Framer[str] = Framer()
    last = encode(Fds(0, 2), 2)
    framer.feed(encode(Alive()) + encode(Accept()) + last[:1], ("a", "b"))
    assert framer.next() == (Alive(), ())
    assert framer.next() == (Accept(), ())
    assert framer.next() is None
    assert framer.pending
    framer.feed(last[1:])
    assert framer.next() == (Fds(0, 2), ("a", "b"))


@pytest.mark.parametrize(
    ("data", "handles"),
    [
        (b"", 1),
        (encode(Accept()), 1),
        (encode(Accept())[:9], 1),
        (encode(Fds(0, 1), 1), 0),
        (encode(Fds(0, 1), 1), 2),
        (encode(Fds(0, 1), 1)[:8], 2),
        (encode(Accept())[:3], FDS_MAX + 1),
    ],
)
def test_descriptors_that_no_message_speaks_of_are_an_error(data: bytes, handles: int) -> None:
    """Too few or too many are noticed at once, and all of them can still be closed."""
    framer: Framer[int] = Framer()
    framer.feed(data, range(handles))
    got: list[tuple[Message, tuple[int, ...]]] = []
    with pytest.raises(RemoteProtocolError):
        got.extend(iter(framer.next, None))
    found = [handle for _, some in got for handle in some]
    assert [*found, *framer.abandon()] == list(range(handles))
    assert not framer.pending


def test_a_header_that_lies_is_noticed_before_its_body() -> None:
    """A length beyond the limit is an error at once, so a peer cannot make us collect bytes."""
    framer: Framer[int] = Framer()
    framer.feed(HEADER.pack(MAGIC, FRAMING, 0, BYTES_MAX))
    with pytest.raises(RemoteProtocolError, match="too large"):
        framer.next()


def test_every_limit_that_the_peer_may_use_fits() -> None:
    """The longest text and the longest names of the odd kind can be sent and read."""
    for character in ("\U0001f600", "\0", "\udcff"):
        abort = Abort(Reason.FAILED, character * TEXT_MAX)
        assert decode(encode(abort), 0) == abort
        hello = Hello(1, 1, requires=(character * NAME_MAX,) * 8, program=character * 100)
        assert decode(encode(hello), 0) == hello
    welcome = Welcome(1, generation=2**63 - 1)
    assert decode(encode(welcome), 0) == welcome
    offer = Offer(0, Manifest())
    assert decode(encode(offer), 0) == offer
