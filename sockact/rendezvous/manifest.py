"""The manifest: what each descriptor of a transfer is, so that its receiver can verify it. Pure.

It is kept by columns, one tuple for each property, because sets of thousands are read and written
on the way of a takeover: a column is checked and turned into JSON by one call.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Self

import attrs

from sockact.spec import AsValue

ROWS_MAX = 500
_NO_NAME = re.compile("[\x00-\x1f\x7f:]")
"""What would make LISTEN_FDNAMES say something else (sd_listen_fds(3))."""
_PART_BYTES = 56_000

STORED, STORED_KEPT, STORED_NO_MORE = "fdstore", "fdstore-kept", "fdstore-removed"
"""The roles of what a service has stored with its supervisor; the second kind stays when it hangs
up, and the third has left the store after it was passed on."""

Identity = tuple[int, int]
"""What a file description is: st_dev and st_ino, the same for each of its descriptors anywhere."""


@attrs.frozen(eq=False, repr=False)
class Entry(AsValue):
    """One descriptor.

    Attributes:
        set: The name of the set that it belongs to.
        name: Its fd name.
        kind: ``Stream``, ``Datagram`` …, as `sockact.Description.kind`.
        family: ``AF_INET6`` …; empty for what is no socket.
        address: Its local address or path as text.
        protocol: The protocol number of a socket.
        listening: Whether it accepts connections.
        device: st_dev of the file description.
        inode: st_ino of the file description.
        cookie: SO_COOKIE of a socket, 0 where there is none.
        namespace: SO_NETNS_COOKIE of a socket, 0 where there is none.
        role: Empty for what a program serves; ``rendezvous`` for the listener of the path, ``lock``
            for the lock of the path, ``owner`` for a pidfd of the owner, ``state`` for what a
            holder remembers of its sets, ``turn`` and ``elder`` for who may inherit, ``fdstore``
            and ``fdstore-kept`` for what a service, which is the address, has stored with its
            supervisor: they go with a takeover. ``fdstore-removed`` comes after one.
    """

    set: str
    name: str
    kind: str = "Other"
    family: str = ""
    address: str = ""
    protocol: int = 0
    listening: bool = False
    device: int = 0
    inode: int = 0
    cookie: int = 0
    namespace: int = 0
    role: str = ""

    @property
    def identity(self) -> Identity:
        """Which file description it is."""
        return self.device, self.inode


COLUMNS: Mapping[str, type] = {
    "set": str,
    "name": str,
    "kind": str,
    "family": str,
    "address": str,
    "protocol": int,
    "listening": bool,
    "device": int,
    "inode": int,
    "cookie": int,
    "namespace": int,
    "role": str,
}
_TEXT_LIMITS = {"set": 255, "name": 255, "kind": 64, "family": 64, "address": 4096, "role": 64}
_DEFAULTS: Mapping[str, object] = {
    column: {str: "", int: 0, bool: False}[kind] for column, kind in COLUMNS.items()
}


class Manifest:
    """Entries in order; an immutable sequence of `Entry`."""

    __slots__ = ("_columns", "_count", "_parts", "_text")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        """Collect `entries`."""
        rows = tuple(entries)
        self._parts: tuple[Manifest, ...] = ()
        self._text = ""
        self._count = len(rows)
        self._columns = {
            column: tuple([getattr(row, column) for row in rows]) for column in COLUMNS
        }

    @classmethod
    def _of(cls, columns: dict[str, tuple[object, ...]], count: int) -> Self:
        new = cls()
        new._columns, new._count = columns, count
        return new

    @classmethod
    def joined(cls, parts: Sequence["Manifest"]) -> "Manifest":
        """Return one manifest with the entries of all parts."""
        if len(parts) == 1:
            return parts[0]
        columns = {
            name: tuple(chain.from_iterable(part.column(name) for part in parts))
            for name in COLUMNS
        }
        return cls._of(columns, sum(map(len, parts)))

    def column(self, name: str) -> tuple[object, ...]:
        """Return one property of all entries."""
        return self._columns[name]

    @property
    def names(self) -> tuple[str, ...]:
        """The fd names, in order."""
        return self._columns["name"]

    @property
    def identities(self) -> list[Identity]:
        """Which file description each entry is, in order."""
        return list(zip(self._columns["device"], self._columns["inode"], strict=True))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Entry:
        return Entry(*(self._columns[name][index] for name in COLUMNS))

    def __iter__(self) -> Iterator[Entry]:
        return map(Entry, *(self._columns[name] for name in COLUMNS))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Manifest):
            return NotImplemented
        return self._columns == other._columns

    def __hash__(self) -> int:
        return hash(tuple(self._columns.values()))

    def __repr__(self) -> str:
        return f"Manifest({list(self)!r})"

    def select(self, indices: Sequence[int]) -> "Manifest":
        """Return the entries at these places."""
        columns = {
            name: tuple([column[i] for i in indices]) for name, column in self._columns.items()
        }
        return self._of(columns, len(indices))

    def parts(self) -> "tuple[Manifest, ...]":
        """Split it so that each part fits into one message; at least one part, if need be empty."""
        # An owner gives out the same set again and again.
        self._parts = self._parts or tuple(self._split())
        return self._parts

    def _split(self) -> "list[Manifest]":
        found: list[Manifest] = []
        begin, rows = 0, ROWS_MAX
        while begin < self._count or not found:
            part = self._slice(begin, begin + rows)
            if rows > 1 and part._written_size() > _PART_BYTES:  # noqa: SLF001
                rows //= 2
                continue
            found.append(part)
            begin += rows
        return found

    def _slice(self, begin: int, end: int) -> "Manifest":
        columns = {name: column[begin:end] for name, column in self._columns.items()}
        return self._of(columns, len(columns["name"]))

    def _written_size(self) -> int:
        """Return at least as many bytes as JSON takes for it."""
        size = 250
        for name, kind in COLUMNS.items():
            column = self._columns[name]
            if kind is str:
                text = "".join(column)
                plain = text.isascii() and text.isprintable()
                escapes = text.count('"') + text.count("\\")
                size += (len(text) if plain else 6 * 2 * len(text)) + escapes + 3 * self._count
            else:
                longest = 5 if kind is bool else len(str(max(column, default=0)))
                size += (longest + 1) * self._count
        return size

    def to_columns(self) -> dict[str, object]:
        """Return it for JSON: a list for each property, or one value that holds for all entries.

        A property that is empty, 0 or false for all is left out.
        """
        columns: dict[str, object] = {"count": self._count}
        for name, column in self._columns.items():
            if len(set(column)) > 1:
                columns[name] = column
            elif self._count and column[0] != _DEFAULTS[name]:
                columns[name] = column[0]
        return columns

    @property
    def text(self) -> str:
        """What `to_columns` says, as JSON."""
        self._text = self._text or json.dumps(self.to_columns(), separators=(",", ":"))
        return self._text

    @classmethod
    def from_columns(cls, found: object, limit: int) -> "Manifest":
        """Read what `to_columns` wrote; unknown properties are passed over.

        Args:
            found: What JSON gave.
            limit: How many entries there may be at most.

        Raises:
            ValueError: It is malformed.
        """
        if type(found) is not dict:
            raise ValueError("the entries are no object")
        count = found.get("count")
        if type(count) is not int or not 0 <= count <= limit:
            raise ValueError("the number of entries is missing or out of range")
        columns: dict[str, tuple[object, ...]] = {}
        for name, kind in COLUMNS.items():
            value = found.get(name, _DEFAULTS[name])
            values = value if type(value) is list else [value]
            if set(map(type, values)) - {kind}:
                raise ValueError(f"{name}: a value is no {kind.__name__}")
            _check_range(name, values)
            columns[name] = tuple(values) if values is value else (value,) * count
            if len(columns[name]) != count:
                raise ValueError(f"{name}: {len(values)} values for {count} entries")
        return cls._of(columns, count)


def _check_range(name: str, values: Sequence[object]) -> None:
    if not values:
        return
    if name in ("name", "set") and _NO_NAME.search("".join(values)):  # type: ignore[arg-type]
        raise ValueError(f"{name}: has a colon or a control character")
    if (longest := _TEXT_LIMITS.get(name)) is not None:
        if max(map(len, values)) > longest:  # type: ignore[arg-type]
            raise ValueError(f"{name}: longer than {longest} characters")
    elif COLUMNS[name] is int and not 0 <= min(values) <= max(values) < 1 << 64:  # type: ignore[type-var, operator]
        raise ValueError(f"{name}: out of range")
