"""Messages to bytes and back. Pure.

A frame is a header of eight bytes and a JSON object in UTF-8. The header says how many descriptors
come with the frame, so that a lost or a foreign one is noticed, and how long the body is, which a
stream needs. A frame is never empty: on SOCK_SEQPACKET an empty message could not be told from the
end (kernel: unix_dgram_recvmsg()).
"""

import json
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import attrs

from sockact.errors import RemoteProtocolError
from sockact.rendezvous.manifest import Manifest
from sockact.rendezvous.messages import (
    BYTES_MAX,
    DEPTH_MAX,
    ENTRIES_MAX,
    FDS_MAX,
    MESSAGES,
    NAME_MAX,
    TEXT_MAX,
    Json,
    Message,
    Op,
    Part,
    Reason,
)

H = TypeVar("H")

HEADER = struct.Struct("!2sBBI")
"""Magic, version of the framing, number of descriptors, bytes in the body."""

MAGIC = b"sa"
FRAMING = 1
_BODY_MAX = BYTES_MAX - HEADER.size
_LIST_MAX = 1024
_INT_MAX = 2**63
_ITEMS: Mapping[object, type] = {tuple[t, ...]: t for t in (str, int, float)}  # type: ignore[valid-type]


def encode(message: Message, fds: int = 0) -> bytes:
    """Return the frame of a message that goes with so many descriptors.

    Raises:
        ValueError: It is too long for a frame, or has a number that is infinite.
    """
    fields: dict[str, object] = {"type": message.TYPE}
    last = ""
    names: tuple[str, ...] = message.__match_args__
    for name in names:
        value: object = getattr(message, name)
        if isinstance(value, Manifest | Json):
            text = value.text if isinstance(value, Manifest) else value
            last = f',"{name}":{text}' + "}"
            continue
        fields[name] = value.value if isinstance(value, Op | Reason) else value
    text = json.dumps(fields, separators=(",", ":"), allow_nan=False)
    body = (text[:-1] + last if last else text).encode("ascii")
    if len(body) > _BODY_MAX:
        raise ValueError(f"a {message.TYPE} message of {len(body)} bytes")
    return HEADER.pack(MAGIC, FRAMING, fds, len(body)) + body


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _read_header(data: bytes) -> tuple[int, int]:
    """Return how many descriptors and how many bytes of body a frame has.

    Raises:
        RemoteProtocolError: It is no header.
    """
    magic, framing, fds, size = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise RemoteProtocolError("the peer does not speak the rendezvous protocol")
    if framing != FRAMING:
        raise RemoteProtocolError(f"the peer uses framing {framing}; {FRAMING} is known here")
    if fds > FDS_MAX or size > _BODY_MAX:
        raise RemoteProtocolError(f"a message of {size} bytes with {fds} descriptors is too large")
    return fds, size


def _read_body(body: bytes) -> Message:
    try:
        found = json.loads(str(body, "utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"a message is no JSON: {error}") from None
    if type(found) is not dict:
        raise RemoteProtocolError("a message is no JSON object")
    kind = found.get("type")
    message = MESSAGES.get(kind) if type(kind) is str else None
    if message is None:
        raise RemoteProtocolError(f"there is no message of type {_shown(kind)}")
    try:
        return message(**_fields(message, found))
    except (TypeError, ValueError) as error:
        raise RemoteProtocolError(f"a {message.TYPE} message is malformed: {error}") from None


def _shown(value: object) -> str:
    """Return a value for a person; what is nested may be too deep for repr()."""
    return repr(value[:40]) if type(value) is str else f"<{type(value).__name__}>"


def decode(frame: bytes, fds: int) -> Message:
    """Read one whole frame, as it comes by SOCK_SEQPACKET.

    Args:
        frame: The frame.
        fds: How many descriptors came with it.

    Raises:
        RemoteProtocolError: It is malformed, or came with another number of descriptors.
    """
    if len(frame) < HEADER.size:
        raise RemoteProtocolError(f"a message of {len(frame)} bytes is too short")
    announced, size = _read_header(frame)
    if size != len(frame) - HEADER.size:
        raise RemoteProtocolError("the length of a message is not what its header says")
    if announced != fds:
        raise RemoteProtocolError(f"a message came with {fds} descriptors instead of {announced}")
    return _read_body(frame[HEADER.size :])


class Framer(Generic[H]):
    """Cuts a byte stream into frames, and tells which descriptors belong to each.

    The kernel hands descriptors out with the first byte of the sendmsg() that carried them, but
    may put bytes of earlier ones in front (unix_stream_read_generic()); so they wait in a queue of
    their own until their frame is complete. The framer owns the handles in its queue.
    """

    def __init__(self) -> None:
        """Begin with nothing received."""
        self._bytes = bytearray()
        self._handles: deque[H] = deque()

    def feed(self, data: bytes, handles: Sequence[H] = ()) -> None:
        """Take what one recvmsg() gave."""
        self._bytes += data
        self._handles.extend(handles)

    def next(self) -> tuple[Message, tuple[H, ...]] | None:
        """Return the next message and its handles, which are the caller's; None if none is whole.

        Raises:
            RemoteProtocolError: What has come is no frame, or there are too many or too few
                handles. The handles stay in the queue; see `abandon`.
        """
        message = None
        if len(self._bytes) >= HEADER.size:
            fds, size = _read_header(bytes(self._bytes[: HEADER.size]))
            end = HEADER.size + size
            if len(self._bytes) >= end:
                if fds > len(self._handles):
                    raise RemoteProtocolError(
                        f"a message came with {len(self._handles)} descriptors instead of {fds}"
                    )
                message = _read_body(bytes(self._bytes[HEADER.size : end]))
                del self._bytes[:end]
                return message, tuple(self._handles.popleft() for _ in range(fds))
            allowed = fds
        else:
            allowed = FDS_MAX if self._bytes else 0
        if len(self._handles) > allowed:
            raise RemoteProtocolError("descriptors came that no message speaks of")
        return None

    @property
    def pending(self) -> bool:
        """Whether a part of a frame has come."""
        return bool(self._bytes)

    def abandon(self) -> tuple[H, ...]:
        """Give up; the handles still waiting are the caller's."""
        handles = tuple(self._handles)
        self._handles.clear()
        self._bytes.clear()
        return handles


def _fields(message: type[Message], found: Mapping[str, object]) -> dict[str, object]:
    """Return the known fields of a message with their types checked."""
    return {
        field.name: _value(message, field, found[field.name])
        for field in attrs.fields(message)
        if field.name in found
    }


def _value(message: type[Message], field: "attrs.Attribute[object]", value: object) -> object:
    name, kind = field.name, field.type
    if kind is Manifest:
        return Manifest.from_columns(value, ENTRIES_MAX)
    if kind is Op or kind is Reason:
        return _choice(kind, value)
    if kind is bool and type(value) is bool:
        return value
    if kind is int and type(value) is int and 0 <= value < _INT_MAX:
        return value
    if kind is float and type(value) in (int, float) and 0 <= value < _INT_MAX:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    if kind is str and type(value) is str and len(value) <= TEXT_MAX:
        return value
    if kind is Part and type(value) is str:
        return value
    if kind is Json and type(value) is dict and not _is_deeper(value, DEPTH_MAX):
        return Json(json.dumps(value, separators=(",", ":"), allow_nan=False))
    item = _ITEMS.get(kind)
    if item and type(value) is list:
        return _items(message, name, item, value)
    raise ValueError(f"{name} has a wrong value")


def _is_deeper(value: object, most: int) -> bool:
    """Whether objects and lists are nested deeper than that."""
    items = value.values() if type(value) is dict else value if type(value) is list else None
    if items is None:
        return False
    return not most or any(_is_deeper(item, most - 1) for item in items)


def _choice(kind: type[Op] | type[Reason], value: object) -> object:
    if type(value) is str:
        try:
            return kind(value)
        except ValueError:
            # A newer peer may have a newer reason; its text says it.
            if kind is Reason:
                return Reason.FAILED
    raise ValueError(f"there is no {kind.__name__.lower()} {_shown(value)}")


def _items(
    message: type[Message], name: str, kind: type, value: list[object]
) -> tuple[object, ...]:
    limit = ENTRIES_MAX if message.TYPE == "listing" else _LIST_MAX
    if len(value) > limit:
        raise ValueError(f"{name} has {len(value)} items")
    if kind is float:
        if not all(type(item) in (int, float) and 0 <= item < _INT_MAX for item in value):  # type: ignore[operator]
            raise ValueError(f"{name} has an item that is no number, or out of range")
        return tuple(float(item) for item in value)  # type: ignore[arg-type]
    if not all(type(item) is kind for item in value):
        raise ValueError(f"{name} has an item that is no {kind.__name__}")
    if kind is str and any(len(item) > NAME_MAX for item in value):  # type: ignore[arg-type]
        raise ValueError(f"{name} has an item longer than {NAME_MAX} characters")
    if kind is int and any(not -1 <= item < _INT_MAX for item in value):  # type: ignore[operator]
        raise ValueError(f"{name} has an item out of range")
    return tuple(value)
