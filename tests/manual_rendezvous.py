"""What sockact-rendezvous(7) says of the protocol, from the tables and classes that it runs on.

``python -m tests.manual`` writes it into the page; a test finds out whether it stands there.
"""

import enum
import inspect
import re
from collections.abc import Mapping, Sequence

import attrs

from sockact.rendezvous import messages, tables
from sockact.rendezvous.manifest import COLUMNS, ROWS_MAX, Manifest
from sockact.rendezvous.messages import MESSAGES, Json, Message, Op, Part, Reason

SENDERS = {
    "hello": "The client, once, before anything else.",
    "welcome": "The owner, in answer to hello.",
    "request": "The client, once: right behind hello or after welcome, as said above.",
    "offer": "The giver: the owner after a get or a takeover, the client right behind a put."
    " In as many parts as it takes, none of them empty.",
    "accept": "The receiver, after the last part of the offer.",
    "refuse": "The owner, at any time before accept, also before it has read anything, when it"
    " cannot store what was put, and when it ends; the client, in the place of accept.",
    "fds": "The giver, after accept, and after each ack but the last.",
    "ack": "The receiver, after each fds.",
    "adopted": "The receiver, after the last ack; for a put, when the set is where it will last.",
    "done": "The owner, after a drop.",
    "ready": "The taker, when it could serve.",
    "commit": "The owner, in answer to ready.",
    "committed": "The taker, in answer to commit.",
    "drain": "The owner, in answer to committed.",
    "gone": "The former owner, when its drain is over.",
    "release": "The new owner, between committed and gone, if it wants.",
    "abort": "Either, at any time.",
    "alive": "Either; see DEADLINES. It is no answer to anything.",
    "listing": "The owner, after a list; in as many parts as it takes, which may be empty.",
    "answer": "The owner, after a control, when the command has ended; in as many parts as it takes.",
}

_COLUMN_TEXTS = {
    "set": "The name of the set that the entry belongs to.",
    "name": "Its fd name.",
    "kind": "Stream, Datagram, SequentialPacket, Raw or Netlink for a socket, FIFO, File, Device,"
    " MessageQueue, Other, or what is not known yet.",
    "family": "The address family of a socket as its C constant is spelled, AF_INET6; else empty.",
    "address": "Its local address or path as text; for people.",
    "protocol": "The protocol number of a socket (SO_PROTOCOL).",
    "listening": "Whether it is a socket that accepts connections.",
    "device": "st_dev of the file description, as fstat(2) gives it.",
    "inode": "st_ino of the file description.",
    "cookie": "SO_COOKIE of a socket; 0 if there is none.",
    "namespace": "SO_NETNS_COOKIE of a socket; 0 if there is none.",
    "role": "Empty for what a program serves; else what it is for, see TAKEOVER.",
}

_REASON_TEXTS = {
    Reason.BUSY: "Not now: somebody is taking over, has taken over, or puts a set, or the owner is"
    " not ready yet, or ends.",
    Reason.DENIED: "The client is a user who may not do that.",
    Reason.UNKNOWN_NAME: "Nothing that the client may get has that name, or there is nothing.",
    Reason.EXISTS: "There is a set of that name, and it was not to be replaced.",
    Reason.VERSION: "There is no version of the protocol that both speak.",
    Reason.CAPABILITY: "A capability that the client requires is missing.",
    Reason.UNSUPPORTED: "This owner does not do that at all.",
    Reason.LIMIT: "There is no room: RLIMIT_NOFILE of the receiver, or too many connections.",
    Reason.PROTOCOL: "The peer has sent what it should not.",
    Reason.MISMATCH: "A descriptor is not the one that the manifest names.",
    Reason.TIMEOUT: "The peer took too long.",
    Reason.CANCELLED: "The sender, or whoever uses it, has given up.",
    Reason.FAILED: "Something else, which the text tells.",
}

_FIELD_TEXTS = {
    ("hello", "fds"): "The most descriptors that it takes with one frame.",
    ("welcome", "fds"): "The most descriptors that it takes with one frame.",
    ("request", "op"): "get, takeover, put, list, drop or control; another is an error.",
    ("request", "names"): "For a get, sets or fd names; without any, all."
    " For a drop, sets. For a put, the one name of the new set.",
    ("request", "patience"): "For a takeover: seconds that the taker may need until it is ready.",
    ("request", "uids"): "For a put: users who may get the set, besides root and the owner's own.",
    ("request", "gids"): "For a put: groups that may.",
    ("request", "replace"): "For a put: whether a set of that name may be replaced.",
    ("request", "role"): "For a put: fdstore, if what is put has been stored by a service, which is"
    " its name then; see Stored descriptors. Empty for a set.",
    ("request", "command"): "For a control: what the owner is to do.",
    ("request", "arguments"): "For a control: what the command needs to know.",
    ("fds", "first"): "The place in the manifest of the first of them, from 0.",
    ("fds", "count"): "How many come, as the header says too.",
    ("ack", "count"): "How many have arrived, in all.",
    ("refuse", "reason"): "Why; see Reasons.",
    ("abort", "reason"): "Why; see Reasons.",
    ("listing", "since"): "For each entry, when its set came to the owner, in seconds since 1970.",
}
"""Where the page says more than the docstring of a message, or says it from farther away."""

_TYPES = {
    int: "integer", float: "number", bool: "boolean", str: "string", Manifest: "manifest",
    Op: "string", Reason: "string",
    tuple[str, ...]: "list of strings", tuple[int, ...]: "list of integers",
    tuple[float, ...]: "list of numbers", Json: "object", Part: "string",
}  # fmt: skip


def _roff(text: str) -> str:
    """Return text as roff, with each sentence on a line of its own."""
    text = text.replace("`", "").replace("\\", "\\e")
    text = re.sub(r"([.:;,]) (?=[A-Z])", lambda m: m[1] + ("\n" if m[1] == "." else " "), text)
    return "\n".join(f"\\&{line}" if line[:1] in ".'" else line for line in text.split("\n"))


def _column_table(widths: Sequence[str], head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    width = " ".join(f'"{width}"' for width in widths)
    lines = [f".Bl -column {width} -compact"]
    lines.append(".It " + " Ta ".join(f"Em {cell}" for cell in head))
    lines += [".It " + " Ta ".join(cell or "\\&" for cell in row) for row in rows]
    return "\n".join([*lines, ".El\n"])


def _attributes(kind: type) -> tuple[str, dict[str, str]]:
    """Return what the docstring of a class says of it, and of each of its attributes."""
    text, _, rest = inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(rest).splitlines():
        begin = re.match(r"(\w+): (.*)", line)
        if begin:
            name = begin[1]
            found[name] = begin[2]
        else:
            found[name] += " " + line.strip()
    return " ".join(text.split()), found


def _default(field: "attrs.Attribute[object]") -> str:
    value = field.default
    if value is attrs.NOTHING:
        return "required"
    if isinstance(value, bool):
        return "default " + ("true" if value else "false")
    if isinstance(value, Json):
        return "default " + value
    if isinstance(value, str) and not value:
        return "default empty"
    if isinstance(value, tuple):
        return "default []"
    return f"default {value:g}" if isinstance(value, float) else f"default {value}"


def _message(kind: type[Message]) -> str:
    summary, texts = _attributes(kind)
    lines = [f".It Cm {kind.TYPE}", _roff(summary), ".br", ".Em Sent by :"]
    sender = SENDERS[kind.TYPE]
    lines.append(_roff(sender[0].lower() + sender[1:]))
    fields = attrs.fields(kind)
    if fields:
        lines.append(".Bl -tag -width Ds -compact")
    for field in fields:
        lines.append(f".It Va {field.name} Pq {_TYPES[field.type]}, {_default(field)}")
        lines.append(_roff(_FIELD_TEXTS.get((kind.TYPE, field.name)) or texts[field.name]))
    if fields:
        lines.append(".El")
    return "\n".join(lines) + "\n"


def render_messages() -> str:
    """Return every message as mdoc."""
    return ".Bl -tag -width Ds\n" + "".join(map(_message, MESSAGES.values())) + ".El\n"


def render_columns() -> str:
    """Return the columns of a manifest as mdoc."""
    lines = [".Bl -tag -width Ds -compact"]
    for name, kind in COLUMNS.items():
        lines += [f".It Va {name} Pq {_TYPES[kind]}", _roff(_COLUMN_TEXTS[name])]
    return "\n".join([*lines, ".El\n"])


def render_reasons() -> str:
    """Return the reasons as mdoc."""
    lines = [".Bl -tag -width unknown-nameX -compact"]
    for reason in Reason:
        lines += [f".It Cm {reason.value}", _roff(_REASON_TEXTS[reason])]
    return "\n".join([*lines, ".El\n"])


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _states(
    states: type[enum.Enum], moves: Mapping[enum.Enum, Mapping[tables.Event, enum.Enum]]
) -> str:
    widths = ("CONSIDERING", "fds, the last chunk of a takeover", "CONSIDERING")
    meanings = [".Bl -tag -width CONSIDERINGX -compact"]
    rows = []
    for state in states:
        final = " Final." if state in tables.FINAL else ""
        meanings += [f".It Em {state.name}", _roff(_sentence(state.value) + final)]
        for i, (event, after) in enumerate(moves[state].items()):
            rows.append((state.name if i == 0 else "", event.value, after.name))
    table = _column_table(widths, ("State", "Event", "Next"), rows)
    return "\n".join([*meanings, ".El\n"]) + ".Pp\n" + table


def render_owner() -> str:
    """Return the owner's states and moves as mdoc."""
    return _states(tables.OwnerState, tables.OWNER)  # type: ignore[arg-type]


def render_client() -> str:
    """Return the client's states and moves as mdoc."""
    return _states(tables.ClientState, tables.CLIENT)  # type: ignore[arg-type]


def render_endings() -> str:
    """Return the events that end a conversation, as mdoc."""
    names = [event.value for event in tables.Event if event in tables.ENDINGS]
    return "\n".join([".Bl -bullet -compact", *(f".It\n{_roff(name)}" for name in names), ".El\n"])


def render_deadlines() -> str:
    """Return how long each end waits in which state, as mdoc."""
    rows = []
    for end, states, seconds in (
        ("owner", tables.OwnerState, tables.OWNER_SECONDS),
        ("client", tables.ClientState, tables.CLIENT_SECONDS),
    ):
        for state in states:
            wait = f"{seconds[state]:g}" if state in seconds else ""  # type: ignore[index]
            if state is tables.OwnerState.PREPARED:
                wait = "patience"
            elif state in (tables.ClientState.ADOPTED, tables.ClientState.COMMANDED):
                wait = "its own"
            elif state is tables.OwnerState.OBEYING:
                wait = "any"
            if not wait:
                continue
            alive = "yes" if state in tables.AWAITED else "no"
            capped = "yes" if state in seconds and state not in tables.UNCAPPED else "no"
            rows.append((end, state.name, wait, alive, capped))
    table = _column_table(
        ("client", "COMMITTING", "patience", "alive", "bounded"),
        ("End", "State", "Seconds", "Alive", "Bounded"), rows,
    )  # fmt: skip
    facts = {
        "bound": "{} seconds from the beginning of a connection: then a state that is bounded is"
        " over, however much of its time is left",
        "patience": "{} seconds at most, whatever the request says",
        "alive": "{} seconds between two alive messages",
        "silence": "{} seconds without any message: then the peer of a state with alive has had its"
        " time",
    }
    limits = (
        tables.TRANSFER_SECONDS, tables.PATIENCE_MAX, tables.ALIVE_SECONDS, tables.SILENCE_SECONDS,
    )  # fmt: skip
    lines = [".Bl -tag -width patienceX -compact"]
    for (name, text), limit in zip(facts.items(), limits, strict=True):
        lines += [f".It {name}", text.format(f"{limit:g}") + "."]
    return table + ".Pp\n" + "\n".join([*lines, ".El\n"])


def render_limits() -> str:
    """Return the limits as mdoc."""
    rows = [
        (f"{messages.BYTES_MAX}", "bytes in a frame, header included"),
        (f"{messages.FDS_MAX}", "descriptors with a frame (the kernel takes 253)"),
        (f"{messages.ENTRIES_MAX}", "entries in a manifest, in all its parts"),
        (f"{ROWS_MAX}", "entries in one part, as written by sockact; a reader takes more"),
        (f"{messages.NAME_MAX}", "characters in the name of a set or a descriptor"),
        (f"{messages.TEXT_MAX}", "characters in any other string, but the text of an answer"),
        (f"{messages.ANSWER_MAX}", "characters in the answer to a command, in all its parts"),
        (
            f"{messages.PART_MAX}",
            "characters in one part, as sockact writes it; a reader takes more",
        ),
        (
            f"{messages.DEPTH_MAX}",
            "objects and lists within each other in the arguments of a command",
        ),
        ("64", "characters in kind, family and role"),
        ("1024", "items in a list, except in a listing"),
        ("0 to 2^64 - 1", "the integers of a manifest"),
        ("0 to 2^63 - 1", "integers and numbers elsewhere; -1 too in a list"),
    ]
    return _column_table(("0 to 2^64 - 1X", "x"), ("Limit", "What"), rows)


BLOCKS = {
    "messages": render_messages,
    "columns": render_columns,
    "reasons": render_reasons,
    "owner": render_owner,
    "client": render_client,
    "endings": render_endings,
    "deadlines": render_deadlines,
    "limits": render_limits,
}
"""What is written into the page, by the name that stands in its markers."""
