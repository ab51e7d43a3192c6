"""Transcripts of conversations: made once for each version of the protocol, replayed for ever.

    python -m tests.rendezvous.record

writes those of ``transcripts/v1-*.json`` that are not there yet. What is there stays as it is: what
matters is that a newer machine comes to the same end with a peer that says what is written there.

A transcript has what both ends begin with, the steps in their order, and what comes of it on either
side. A step is a frame, as the side that sends it, the header in hexadecimal and the body; or what
a driver does, as the side and the name of what it calls.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sockact.rendezvous.actions import (
    Action,
    Adopt,
    Answered,
    Command,
    Failed,
    Listed,
    Park,
    Report,
    Store,
)
from sockact.rendezvous.client import ClientSide
from sockact.rendezvous.estate import Estate, Phase
from sockact.rendezvous.manifest import Manifest
from sockact.rendezvous.messages import VERSION, Hello, Json, Op, Request
from sockact.rendezvous.owner import OwnerSide
from sockact.rendezvous.policy import Rule, Who
from tests.rendezvous.pair import NOW, Pair, client_of, estate_of

HERE = Path(__file__).resolve().parent / "transcripts"

Setup = dict[str, Any]
"""``sets``, ``rules`` (uids for a set), ``stores``, ``commands``, ``uid``, ``busy`` (pid of another
taker), ``parks``, ``no_room`` of the owner; ``op``, ``names``, ``uids``, ``gids``, ``command``, ``arguments``,
``role``, ``give``, ``give_role``, ``hello``, ``fds`` of the client."""

CASES: dict[str, tuple[Setup, list[tuple[str, str]]]] = {
    "takeover": (
        {"op": "takeover", "fds": 2},
        [("client", "ready"), ("owner", "drained")],
    ),
    "takeover-released": (
        {"op": "takeover"},
        [("client", "ready"), ("client", "release"), ("owner", "drained")],
    ),
    "takeover-alive": (
        {"op": "takeover"},
        [("owner", "alive"), ("client", "alive"), ("client", "ready"), ("owner", "drained")],
    ),
    "abort-by-client": ({"op": "takeover"}, [("client", "cancel")]),
    "abort-by-owner": ({"op": "takeover"}, [("owner", "cancel")]),
    "get": ({"op": "get", "fds": 2}, []),
    "get-names": (
        {
            "op": "get", "names": ["db", "b"], "uid": 33, "rules": {"web": [33], "db": [33]},
            "sets": {"web": "abc", "db": "de", "secret": "f"},
        },
        [],
    ),
    "get-forbidden": ({"op": "get", "names": ["web"], "uid": 33}, []),
    "get-no-room": ({"op": "get", "no_room": True}, []),
    "put": (
        {"op": "put", "names": ["new"], "give": "xyz", "uids": [33], "gids": [44], "stores": True},
        [],
    ),
    "put-to-an-owner": ({"op": "put", "names": ["new"], "give": "x"}, []),
    "put-exists": ({"op": "put", "names": ["web"], "give": "x", "stores": True}, []),
    "list": ({"op": "list", "sets": {"web": "abc", "db": "d"}, "stores": True}, []),
    "drop": ({"op": "drop", "names": ["web"], "stores": True}, []),
    "refuse-busy": ({"op": "takeover", "busy": 77}, []),
    "refuse-denied": ({"op": "takeover", "uid": 33, "rules": {"web": [33]}}, []),
    "control": (
        {"op": "control", "command": "restart", "arguments": '{"units":["web"]}', "commands": True},
        [("owner", "alive"), ("client", "alive"), ("owner", "answer")],
    ),
    "control-long-answer": (
        {"op": "control", "command": "status", "commands": True},
        [("owner", "long answer")],
    ),
    "control-fails": (
        {"op": "control", "command": "status", "commands": True},
        [("owner", "fail")],
    ),
    # As every owner of the first release is.
    "control-without-commands": ({"op": "control", "command": "status"}, []),
    "control-denied": ({"op": "control", "command": "status", "commands": True, "uid": 33}, []),
    "put-stored": (
        {
            "op": "put", "names": ["web.service"], "give": "xy", "give_role": "fdstore",
            "role": "fdstore", "parks": True,
        },
        [],
    ),
    "put-stored-to-an-owner": (
        {
            "op": "put", "names": ["web.service"], "give": "x", "give_role": "fdstore",
            "role": "fdstore",
        },
        [],
    ),
    # Versions that will never be spoken, so that this stays a refusal.
    "refuse-version": ({"op": "get", "hello": [200, 201]}, []),
}  # fmt: skip


def estate_in(setup: Setup) -> Estate[str]:
    """Return what the owner has."""
    rules = {name: Rule(tuple(uids)) for name, uids in setup.get("rules", {}).items()}
    flags = {name: setup.get(name, False) for name in ("stores", "commands", "parks")}
    estate = estate_of(setup.get("sets"), rules, **flags)
    if "busy" in setup:
        estate.phase, estate.successor = Phase.HANDING, Who(0, (), setup["busy"])
    return estate


def who_in(setup: Setup) -> Who:
    """Return who the client is."""
    return Who(setup.get("uid", 0), (), 4711)


def client_in(setup: Setup, *, recorded: bool = False) -> ClientSide[str]:
    """Return the client's end; unless it is recorded, its Hello is what is said nowadays."""
    lists = {name: tuple(setup[name]) for name in ("names", "uids", "gids") if name in setup}
    fds = setup.get("fds", 250)
    oldest, newest = setup.get("hello", (1, 1 if recorded else VERSION))
    return client_of(
        Request(
            Op(setup["op"]),
            **lists,  # type: ignore[arg-type]
            command=setup.get("command", ""),
            arguments=Json(setup.get("arguments", "{}")),
            role=setup.get("role", ""),
        ),
        tuple(setup.get("give", "")),
        Hello(oldest, newest, fds=fds),
        setup.get("give_role", ""),
    )


def outcome(actions: Sequence[Action]) -> list[str]:
    """Return what a driver was asked to do, in words that last."""
    return [_word(action) for action in actions]


def _word(action: Action) -> str:
    name = type(action).__name__
    match action:
        case Failed():
            return f"{name} {action.reason.value}{' refused' if action.refused else ''}"
        case Adopt() | Park():
            return f"{name} {_entries(action.manifest)} {' '.join(action.handles)}"
        case Store():
            what = f"{action.name} {action.rule.uids} {action.rule.gids}"
            return f"{name} {what} {_entries(action.manifest)} {' '.join(action.handles)}"
        case Listed():
            return f"{name} {_entries(action.listing.entries)}"
        case Command():
            return f"{name} {action.name} {action.arguments}"
        case Answered():
            return f"{name} {len(action.text)} {action.text[:40]}"
        case Report():
            return f"{name} {' '.join(action.names)}"
    return name


def _entries(manifest: Manifest) -> str:
    return " ".join(f"{each.set}/{each.name}={each.address}" for each in manifest)


def deed(side: OwnerSide[str] | ClientSide[str], name: str) -> list[Action]:
    """Let the driver of a side do something, and return what the machine says to that."""
    calls: dict[str, Callable[[Any], list[Action]]] = {
        "ready": lambda end: end.ready(NOW),
        "release": lambda end: end.release(NOW),
        "drained": lambda end: end.drained(NOW),
        "cancel": lambda end: end.cancel("no more", NOW),
        "alive": lambda end: end.expire(NOW + 5),
        "answer": lambda end: end.answered('{"text":"\\u00e9\\"","list":[1,null]}', NOW),
        "long answer": lambda end: end.answered('{"text":"' + "x" * 70_000 + '"}', NOW),
        "fail": lambda end: end.failed("the command failed", NOW),
    }
    return calls[name](side)


def record(setup: Setup, script: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Let both ends talk, and return the transcript."""
    pair = Pair(estate_in(setup), client_in(setup, recorded=True), who_in(setup))
    pair.room = not setup.get("no_room")
    steps: list[dict[str, str]] = []
    done = 0

    def collect() -> None:
        nonlocal done
        for side, header, body in pair.frames[done:]:
            steps.append({"from": side, "header": header.hex(), "body": body.decode("ascii")})
        done = len(pair.frames)

    pair.run()
    for side, name in script:
        collect()
        steps.append({"from": side, "does": name})
        pair.perform(side, deed(pair.owner if side == "owner" else pair.client, name))
    collect()
    ends = {side: outcome(actions) for side, actions in pair.asked.items()}
    return {"version": VERSION, "setup": setup, "steps": steps, "outcome": ends}


def main() -> None:
    """Write the transcripts that are missing, in the version that is spoken."""
    for name, (setup, script) in CASES.items():
        path = HERE / f"v{VERSION}-{name}.json"
        if path.exists():
            continue
        text = json.dumps(record(setup, script), indent=1)
        path.write_text(f"{text}\n", encoding="ascii")
        print(path.name)


if __name__ == "__main__":
    main()
