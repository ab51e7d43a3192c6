"""Both ends of a connection: every cell of the tables, the times, and what a client can ask for."""

from collections.abc import Callable, Sequence

import pytest

from sockact.errors import LocalProtocolError
from sockact.rendezvous.actions import (
    Action,
    Adopt,
    Alone,
    Answered,
    Close,
    CloseHandles,
    CloseReserve,
    Command,
    Consider,
    DropSets,
    Failed,
    Inherit,
    Lead,
    Listed,
    Park,
    Report,
    Resume,
    Send,
    StepDown,
    StopAccepting,
    Store,
    Succeeded,
    Yielded,
)
from sockact.rendezvous.client import ClientSide
from sockact.rendezvous.estate import Phase
from sockact.rendezvous.manifest import Manifest
from sockact.rendezvous.messages import (
    ANSWER_MAX,
    ENTRIES_MAX,
    PART_MAX,
    TEXT_MAX,
    Abort,
    Accept,
    Ack,
    Adopted,
    Alive,
    Answer,
    Commit,
    Committed,
    Done,
    Drain,
    Fds,
    Gone,
    Hello,
    Json,
    Listing,
    Message,
    Offer,
    Op,
    Part,
    Ready,
    Reason,
    Refuse,
    Release,
    Request,
    Welcome,
)
from sockact.rendezvous.owner import OwnerSide
from sockact.rendezvous.policy import Rule, Who
from sockact.rendezvous.tables import (
    ALIVE_SECONDS,
    AWAITED,
    CLIENT,
    CLIENT_SECONDS,
    CUT,
    ENDINGS,
    FINAL,
    OWNER,
    OWNER_SECONDS,
    PATIENCE_MAX,
    SILENCE_SECONDS,
    TRANSFER_SECONDS,
    ClientState,
    Event,
    OwnerState,
)
from sockact.rendezvous.wire import encode
from tests.rendezvous.pair import (
    NOW,
    ROOT,
    Pair,
    client_of,
    estate_of,
    manifest_of,
    owner_of,
    sent,
)

O, C, E = OwnerState, ClientState, Event  # noqa: E741
ALL = ("a", "b", "c")
HELLO = Hello(1, 1)
LATE = NOW + 1e6

Step = tuple[Message, tuple[str, ...]] | str


def step(message: Message, *handles: str) -> Step:
    """Return a step of a recipe: a message that comes."""
    return message, handles


def follow(side: OwnerSide[str] | ClientSide[str], steps: Sequence[Step]) -> None:
    """Lead a side along a recipe; a string is what its driver does."""
    for each in steps:
        if isinstance(each, str):
            arguments = {"cancel": ("x", NOW), "lost": (NOW,), "expire": (NOW + 3,), "start": ()}
            named = {"dead": True} if each == "lost" else {}
            getattr(side, each)(*arguments.get(each, (NOW,)), **named)
        else:
            side.receive(*each, NOW)


# --- every cell -----------------------------------------------------------------------------------

MESSAGES: dict[Event, Step] = {
    E.HELLO: step(HELLO),
    E.WELCOME: step(Welcome(1)),
    E.WELCOME_PUT: step(Welcome(1, ("store",))),
    E.WELCOME_CONTROL: step(Welcome(1, ("control",))),
    E.ASK_GET: step(Request(Op.GET)),
    E.ASK_TAKEOVER: step(Request(Op.TAKEOVER)),
    E.ASK_PUT: step(Request(Op.PUT, ("new",))),
    E.ASK_LIST: step(Request(Op.LIST)),
    E.ASK_DROP: step(Request(Op.DROP, ("web",))),
    E.OFFER_PART: step(Offer(3, manifest_of("a"), more=True)),
    E.OFFER: step(Offer(3, manifest_of(ALL))),
    E.ASK_CONTROL: step(Request(Op.CONTROL, command="status")),
    E.ACCEPT: step(Accept()),
    E.REFUSE: step(Refuse(Reason.LIMIT, "no room")),
    E.FDS_PART: step(Fds(0, 2), "a'", "b'"),
    E.FDS: step(Fds(0, 3), "a'", "b'", "c'"),
    E.FDS_ALL: step(Fds(0, 3), "a'", "b'", "c'"),
    E.ACK_PART: step(Ack(2)),
    E.ACK: step(Ack(3)),
    E.ADOPTED: step(Adopted()),
    E.ADOPTED_ALL: step(Adopted()),
    E.READY: step(Ready()),
    E.COMMIT: step(Commit()),
    E.COMMITTED: step(Committed()),
    E.DRAIN: step(Drain()),
    E.GONE: step(Gone()),
    E.RELEASE: step(Release()),
    E.DONE: step(Done()),
    E.LIST_PART: step(Listing(manifest_of("a"), more=True)),
    E.LISTING: step(Listing(manifest_of("a"))),
    E.ANSWER_PART: step(Answer(Part('{"a":'), more=True)),
    E.ANSWER: step(Answer(Part("{}"))),
    E.ABORT: step(Abort(Reason.CANCELLED, "no more")),
}


def owner_at(state: OwnerState, event: Event | None = None, op: Op | None = None) -> OwnerSide[str]:
    """Return an owner's end in a state, in the conversation in which `event` can come."""
    op = op or (Op.GET if (state, event) == (O.SENT, E.ADOPTED) else Op.TAKEOVER)
    hello = Hello(1, 1, fds=2) if (state, event) == (O.SENDING, E.ACK_PART) else HELLO
    asked: list[Step] = [step(hello), step(Request(op))]
    put: list[Step] = [step(HELLO), MESSAGES[E.ASK_PUT]]
    sent_all = [*asked, step(Accept()), step(Ack(3))]
    drains = [*sent_all, step(Adopted()), step(Ready()), step(Committed())]
    recipes: dict[OwnerState, list[Step]] = {
        O.GREETING: [],
        O.IDLE: [step(HELLO)],
        O.OFFERED: asked,
        O.SENDING: [*asked, step(Accept())],
        O.SENT: sent_all,
        O.PREPARED: drains[:-2],
        O.COMMITTING: drains[:-1],
        O.DRAINING: drains,
        O.RELEASED: [*drains, step(Release())],
        O.REPORTING: [step(HELLO), MESSAGES[E.ASK_LIST]],
        O.EXPECTING: put,
        O.CONSIDERING: [*put, MESSAGES[E.OFFER]],
        O.RECEIVING: [*put, MESSAGES[E.OFFER], "accept"],
        O.STORING: [*put, MESSAGES[E.OFFER], "accept", MESSAGES[E.FDS]],
        O.DROPPING: [step(HELLO), MESSAGES[E.ASK_DROP]],
        O.OBEYING: [step(HELLO), MESSAGES[E.ASK_CONTROL]],
        O.DONE: [*drains, "drained"],
        O.CLOSED: [*asked, "cancel"],
    }
    side = owner_of(estate_of(stores=True, commands=True))
    follow(side, recipes[state])
    assert side.state is state
    return side


def client_at(
    state: ClientState, event: Event | None = None, op: Op | None = None
) -> ClientSide[str]:
    """Return a client's end in a state, in the conversation in which `event` can come."""
    puts = {C.OFFERED, C.SENDING, C.SENT}
    by_event = {
        (C.GREETING, E.WELCOME_PUT): Op.PUT,
        (C.GREETING, E.WELCOME_CONTROL): Op.CONTROL,
        (C.ASKING, E.LIST_PART): Op.LIST,
        (C.ASKING, E.LISTING): Op.LIST,
        (C.ASKING, E.DONE): Op.DROP,
        (C.RECEIVING, E.FDS): Op.GET,
    }
    others = {C.DONE: Op.DROP, C.COMMANDED: Op.CONTROL}
    by_state = Op.PUT if state in puts else others.get(state, Op.TAKEOVER)
    op = op or by_event.get((state, event or E.GONE), by_state)
    fds = 2 if (state, event) == (C.SENDING, E.ACK_PART) else 250
    welcome = step(Welcome(1, ("store",), fds=fds))
    got: list[Step] = [welcome, MESSAGES[E.OFFER], "accept", MESSAGES[E.FDS]]
    leads = [*got, "ready", step(Commit()), step(Drain())]
    recipes: dict[ClientState, list[Step]] = {
        C.GREETING: [],
        C.ASKING: [welcome],
        C.CONSIDERING: got[:2],
        C.RECEIVING: got[:3],
        C.ADOPTED: got,
        C.HEIR: [*got, "lost"],
        C.VOTED: leads[:-2],
        C.COMMITTED: leads[:-1],
        C.PRESUMING: [*leads[:-1], "expire"],
        C.LEADING: leads,
        C.ALONE: [*leads, step(Gone())],
        C.OFFERED: [welcome],
        C.SENDING: [welcome, step(Accept())],
        C.SENT: [welcome, step(Accept()), step(Ack(3))],
        C.COMMANDED: [MESSAGES[E.WELCOME_CONTROL]],
        C.DONE: [welcome, step(Done())],
        C.CLOSED: [welcome, "cancel"],
    }
    side = client_of(Request(op, ("new",)), ALL if op is Op.PUT else ())
    follow(side, ["start", *recipes[state]])
    assert side.state is state
    return side


def _deeds(
    side: OwnerSide[str] | ClientSide[str], event: Event
) -> list[Callable[[], list[Action]]]:
    """Return what a driver can call for an event; nothing where this end has no such thing."""
    both: dict[Event, list[Callable[[], list[Action]]]] = {
        E.DO_ACCEPT: [lambda: side.accept(NOW)],
        E.DO_REFUSE: [lambda: side.refuse(Reason.LIMIT, "no room", NOW)],
        E.DO_CANCEL: [lambda: side.cancel("no more", NOW)],
    }
    if event in both:
        return both[event]
    if isinstance(side, ClientSide):
        return [lambda: side.ready(NOW)] if event is E.DO_READY else []
    if event is E.DO_DRAINED:
        return [lambda: side.drained(NOW)]
    if event is E.DO_ANSWER:
        answers: dict[OwnerState, Callable[[], list[Action]]] = {
            O.REPORTING: lambda: side.listed([Listing(Manifest())], NOW),
            O.STORING: lambda: side.stored(NOW),
            O.DROPPING: lambda: side.dropped(NOW),
            O.OBEYING: lambda: side.answered("{}", NOW),
        }
        return [answers[side.state]] if side.state in answers else list(answers.values())
    return []


def _connection(side: OwnerSide[str] | ClientSide[str], event: Event) -> Callable[[], list[Action]]:
    """Return what the driver calls when the connection has something."""
    match event:
        case E.BROKEN:
            return lambda: side.broken("garbage", NOW)
        case E.LOST:
            return lambda: side.lost(NOW, dead=False)
        case E.LOST_DEAD:
            return lambda: side.lost(NOW, dead=True)
        case E.EXPIRED:
            return lambda: side.expire(LATE)
    each = MESSAGES[event]
    assert not isinstance(each, str)
    return lambda: side.receive(*each, NOW)


def _happens(side: OwnerSide[str] | ClientSide[str], event: Event) -> list[Action]:
    if event.name.startswith("DO_"):
        return _deeds(side, event)[0]()
    return _connection(side, event)()


Table = dict[Event, OwnerState] | dict[Event, ClientState]


def _walk(
    side: OwnerSide[str] | ClientSide[str],
    event: Event,
    row: Table,
    closed: OwnerState | ClientState,
) -> None:
    """Let an event happen to a side, and compare with its row of the table."""
    before = side.state
    if event.name.startswith("DO_"):
        deeds = _deeds(side, event)
        assert deeds or event not in row
        for deed in deeds:
            if event in row or event in ENDINGS:
                deed()
                assert side.state is (before if before in FINAL else row.get(event, closed))
            else:
                with pytest.raises(LocalProtocolError, match="this side"):
                    deed()
                assert side.state is before
        return
    happens = _connection(side, event)
    if event is E.EXPIRED and side.deadline() is None:
        assert event not in row
        assert happens() == []
        assert side.state is before
        return
    actions = happens()
    if before in CUT:
        assert all(isinstance(action, CloseHandles) for action in actions)
        assert side.state is before
    elif event in row:
        assert side.state is row[event]
        failed = any(isinstance(action, Failed) for action in actions)
        assert failed is (row[event] is closed)
    elif event in ENDINGS:
        assert side.state is closed
        told = event in (E.BROKEN, E.EXPIRED)
        assert [type(m) for m in sent(actions)] == ([Abort] if told else [])
        assert actions[-1] == Close()
    else:
        # What is not due is the peer's fault, and ends it as garbage does.
        assert side.state is row.get(E.BROKEN, closed)
        kinds = [type(message) for message in sent(actions)]
        assert kinds == ([Release] if E.BROKEN in row else [Abort])
        reasons = [action.reason for action in actions if isinstance(action, Failed)]
        assert reasons == ([] if E.BROKEN in row else [Reason.PROTOCOL])
        assert actions[-1] == Close()


@pytest.mark.parametrize("state", OwnerState)
def test_every_cell_of_the_owner(state: OwnerState) -> None:
    """The owner moves as its table says; what is not there breaks it off, or is our own error."""
    for event in Event:
        side = owner_at(state, event)
        taken = set(OWNER[state])
        same_kind = [{E.ADOPTED, E.ADOPTED_ALL}, {E.FDS, E.FDS_ALL}]
        if any(event in kind and taken & kind and event not in taken for kind in same_kind):
            continue  # what it is called depends on the conversation: the other one is due
        _walk(side, event, dict(OWNER[state]), O.CLOSED)


@pytest.mark.parametrize("state", ClientState)
def test_every_cell_of_the_client(state: ClientState) -> None:
    """The client moves as its table says; what is not there breaks it off, or is our own error."""
    for event in Event:
        side = client_at(state, event)
        taken = set(CLIENT[state])
        same_kind = [{E.ADOPTED, E.ADOPTED_ALL}]
        if any(event in kind and taken & kind and event not in taken for kind in same_kind):
            continue
        _walk(side, event, dict(CLIENT[state]), C.CLOSED)


def test_tables_name_every_state_and_final_states_are_final() -> None:
    """There is a row for each state, every state can be reached, and final rows are empty."""
    for table, first in ((OWNER, O.GREETING), (CLIENT, C.GREETING)):
        assert set(table) == set(type(first))
        reached = {first} | {after for row in table.values() for after in row.values()}
        assert reached | {O.CLOSED, C.CLOSED} >= set(type(first))
        for state, row in table.items():
            assert (state in FINAL) is (not row)


@pytest.mark.parametrize(
    "message",
    [Done(), Welcome(1), Commit(), Drain(), Gone(), Listing(Manifest()), Answer(Part("{}"))],
)
def test_an_owner_is_not_told_what_owners_say(message: Message) -> None:
    """What only an owner says is an error when it comes to one, and changes nothing."""
    for state in OwnerState:
        side = owner_at(state)
        actions = side.receive(message, (), NOW)
        if state in FINAL:
            assert actions == []
        else:
            assert any(isinstance(m, Abort) for m in sent(actions))
            assert side._estate.phase is (
                Phase.RELEASED if state in (O.DRAINING, O.RELEASED) else Phase.OWNING
            )


@pytest.mark.parametrize("op", Op)
@pytest.mark.parametrize(
    ("message", "ops"),
    [
        (Offer(3, manifest_of(ALL)), (Op.GET, Op.TAKEOVER)),
        (Listing(manifest_of("a")), (Op.LIST,)),
        (Done(), (Op.DROP,)),
        (Answer(Part("{}")), (Op.CONTROL,)),
    ],
)
def test_an_answer_to_something_else_is_no_success(
    op: Op, message: Message, ops: tuple[Op, ...]
) -> None:
    """A client takes only an answer to what it asked for."""
    states = {Op.PUT: C.OFFERED, Op.CONTROL: C.COMMANDED}
    side = client_at(states.get(op, C.ASKING), op=None if op is Op.CONTROL else op)
    actions = side.receive(message, (), NOW)
    assert (side.state is not C.CLOSED) is (op in ops)
    if op not in ops:
        assert [type(m) for m in sent(actions)] == [Abort]


def test_handles_that_are_not_due_are_closed() -> None:
    """Whatever state it is in, a side closes handles that it did not ask for, once."""
    for state in (*OwnerState, *ClientState):
        if state in (O.RECEIVING, C.RECEIVING):
            continue
        for message in (Fds(0, 1), Alive(), Ready()):
            side = owner_at(state) if isinstance(state, OwnerState) else client_at(state)
            actions = side.receive(message, ("z",), NOW)
            found = [a.handles for a in actions if isinstance(a, CloseHandles)]
            assert [handle for some in found for handle in some].count("z") == 1


@pytest.mark.parametrize(
    ("message", "handles"),
    [
        (Fds(2, 1), ("x",)),
        (Fds(2, 2), ("c'",)),
        (Fds(1, 1), ("b'",)),
        (Fds(2, 2), ("c'", "d")),
        (Fds(2, 0), ()),
        (Alive(), ("c'",)),
        (Commit(), ()),
    ],
)
@pytest.mark.parametrize("side", ["owner", "client"])
def test_a_set_that_is_not_whole_is_closed_whole(
    side: str, message: Message, handles: tuple[str, ...]
) -> None:
    """If anything is wrong with the last chunk, everything that came is closed, once."""
    end = owner_at(O.RECEIVING) if side == "owner" else client_at(C.RECEIVING)
    end.receive(Fds(0, 2), ("a'", "b'"), NOW)
    actions = end.receive(message, handles, NOW)
    closed = [handle for a in actions if isinstance(a, CloseHandles) for handle in a.handles]
    assert sorted(closed) == sorted(["a'", "b'", *handles])
    assert not any(isinstance(action, Adopt | Store) for action in actions)
    assert end.state in (O.CLOSED, C.CLOSED)


# --- times ----------------------------------------------------------------------------------------


def _expected(state: OwnerState | ClientState, seconds: float | None) -> float | None:
    times = [] if seconds is None else [NOW + seconds]
    if state in AWAITED:
        times.append(NOW + ALIVE_SECONDS)
    return min(times, default=None)


@pytest.mark.parametrize("state", [*OwnerState, *ClientState])
def test_each_state_lasts_as_long_as_the_table_says(state: OwnerState | ClientState) -> None:
    """Shortly before its time is over nothing ends; then the peer is told, and it has failed."""
    if isinstance(state, OwnerState):
        side: OwnerSide[str] | ClientSide[str] = owner_at(state)
        seconds = 60.0 if state is O.PREPARED else OWNER_SECONDS.get(state)
    else:
        side, seconds = client_at(state), CLIENT_SECONDS.get(state)
    assert side.deadline() == _expected(state, seconds)
    if seconds is None:
        return
    if state in AWAITED:
        # Without this, silence would end it first.
        side.receive(Alive(), (), NOW + seconds - 0.5)
    assert all(m == Alive() for m in sent(side.expire(NOW + seconds - 0.1)))
    assert side.state is state
    actions = side.expire(NOW + seconds)
    if state is C.COMMITTED:
        assert actions == [Lead()]
        assert side.state is C.PRESUMING
        return
    assert side.state in (O.CLOSED, C.CLOSED)
    assert isinstance(sent(actions)[-1], Abort)
    failed = next(action for action in actions if isinstance(action, Failed))
    assert failed.reason is Reason.TIMEOUT
    assert "took too long" in failed.text


@pytest.mark.parametrize("state", [O.PREPARED, O.OBEYING, C.ADOPTED, C.VOTED, C.COMMANDED])
def test_each_side_says_alive_and_silence_ends_it(state: OwnerState | ClientState) -> None:
    """Every 5 seconds a side says Alive, and after 20 of silence it ends, whoever it waits for."""
    side = owner_at(state) if isinstance(state, OwnerState) else client_at(state)
    if state is C.VOTED:
        side._clock._ends = None  # it does not last longer than the silence that is tested
    said = []
    for tenth in range(int(SILENCE_SECONDS * 10)):
        now = NOW + tenth / 10
        if side.expire(now) == [Send(Alive())]:
            said.append(now - NOW)
    assert said == [5.0, 10.0, 15.0]
    assert side.deadline() == NOW + SILENCE_SECONDS
    assert isinstance(sent(side.expire(NOW + SILENCE_SECONDS))[0], Abort)
    assert side.state in (O.CLOSED, C.CLOSED)


def test_a_peer_that_says_alive_is_waited_for() -> None:
    """Alive puts the end of the silence off, and nothing else."""
    side = owner_at(O.PREPARED)
    for second in range(10, 60, 10):
        assert side.receive(Alive(), (), NOW + second) == []
        side.expire(NOW + second)
    assert side.state is O.PREPARED
    assert isinstance(sent(side.expire(NOW + 60))[0], Abort)


@pytest.mark.parametrize(
    ("asked", "granted"), [(0.0, 0.0), (1.0, 1.0), (3599.0, 3599.0), (1e18, PATIENCE_MAX)]
)
def test_patience_is_what_the_taker_asks_for_with_a_limit(asked: float, granted: float) -> None:
    """A taker has as long as it says, and at most an hour."""
    side = owner_of(estate_of())
    patience = Request(Op.TAKEOVER, patience=asked)
    follow(side, [step(HELLO), step(patience), step(Accept()), step(Ack(3)), step(Adopted())])
    side.receive(Alive(), (), NOW + granted)
    if granted:
        assert not any(isinstance(m, Abort) for m in sent(side.expire(NOW + granted - 0.5)))
    assert any(isinstance(m, Abort) for m in sent(side.expire(NOW + granted)))


def test_a_busy_peer_cannot_make_a_transfer_last() -> None:
    """However often a client goes on in time, 60 seconds are the end of a transfer."""
    side = owner_of(estate_of(stores=True))
    follow(side, [step(HELLO), MESSAGES[E.ASK_PUT]])
    now = NOW
    while side.state is O.EXPECTING:
        now += 9.0
        side.receive(Offer(ENTRIES_MAX, manifest_of("a"), more=True), (), now)
        assert side.deadline() is not None
        assert side.deadline() <= NOW + TRANSFER_SECONDS  # type: ignore[operator]
        side.expire(now)
    assert now - NOW < TRANSFER_SECONDS + 9
    assert side.state is O.CLOSED


# --- what can be asked for ------------------------------------------------------------------------


def test_takeover() -> None:
    """Everything moves, in the order of the protocol, and the actions of either side with it."""
    pair = Pair(estate_of(), client_of(Request(Op.TAKEOVER), hello=Hello(1, 1, fds=2))).run()
    assert pair.kinds("client") == ["Consider", "Adopt"]
    assert pair.client.generation == 3
    pair.perform("client", pair.client.ready(NOW))
    assert pair.kinds("owner") == ["StopAccepting", "Yielded"]
    pair.perform("owner", pair.owner.drained(NOW))
    assert pair.said("client") == ["hello", "request", "accept", "ack", "ack", "adopted", "ready", "committed"]  # fmt: skip
    assert pair.said("owner") == ["welcome", "offer", "fds", "fds", "commit", "drain", "gone"]
    assert pair.kinds("owner")[2:] == ["CloseReserve", "Close"]
    assert pair.kinds("client")[2:] == ["Lead", "Alone", "Close"]
    assert pair.asked["client"][1] == Adopt(manifest_of(ALL), ("a'", "b'", "c'"))


def test_takeover_has_the_duties_last() -> None:
    """The listener, the lock and the pidfd of the path go with a takeover, and with no get."""
    estate = estate_of()
    estate.duties = (manifest_of("L", "", "rendezvous"), ("L",))
    pair = Pair(estate, client_of(Request(Op.TAKEOVER))).run()
    adopt = pair.asked["client"][1]
    assert isinstance(adopt, Adopt)
    assert adopt.manifest.column("role") == ("", "", "", "rendezvous")
    pair = Pair(estate_of(), client_of(Request(Op.GET))).run()
    assert pair.asked["client"][1] == Adopt(manifest_of(ALL), ("a'", "b'", "c'"))


def test_get() -> None:
    """A get passes copies, and the owner goes on as before."""
    sets: dict[str, Sequence[str]] = {"web": "abc", "mail": "de"}
    for names, expected in [
        ((), "abcde"), (("mail",), "de"), (("mail", "web"), "deabc"), (("b",), "b"),
        (("e", "a"), "ea"), (("web", "web", "web"), "abc"),
    ]:  # fmt: skip
        pair = Pair(estate_of(sets), client_of(Request(Op.GET, names))).run()
        adopt = pair.asked["client"][1]
        assert isinstance(adopt, Adopt)
        assert adopt.handles == tuple(f"{handle}'" for handle in expected)
        assert adopt.manifest.names == tuple(expected)
        assert pair.kinds("client")[2:] == ["Succeeded", "Close"]
        assert pair.kinds("owner") == ["Close"]
        assert pair.estate.phase is Phase.OWNING


def test_put_list_drop() -> None:
    """A holder stores a set, tells of it, passes it on, and drops it."""
    estate = estate_of({}, stores=True)
    request = Request(Op.PUT, ("new",), uids=(5,), gids=(6,))
    pair = Pair(estate, client_of(request, ALL)).run()
    assert pair.kinds("client") == ["Succeeded", "Close"]
    assert pair.kinds("owner") == ["Consider", "Store", "Close"]
    store = pair.asked["owner"][1]
    copies = ("a'", "b'", "c'")
    assert store == Store("new", Rule((5,), (6,)), manifest_of(ALL, "put"), copies)
    assert estate.writers == []
    pair = Pair(estate, client_of(Request(Op.LIST))).run()
    assert pair.asked["owner"][0] == Report(("new",))
    assert pair.asked["client"][0] == Listed(Listing(manifest_of(ALL, "put"), more=True))
    assert pair.kinds("client") == ["Listed", "Listed", "Succeeded", "Close"]
    pair = Pair(estate, client_of(Request(Op.GET)), Who(5)).run()
    assert pair.kinds("client") == ["Consider", "Adopt", "Succeeded", "Close"]
    pair = Pair(estate, client_of(Request(Op.DROP, ("new",)))).run()
    assert pair.asked["owner"] == [DropSets(("new",)), Close()]
    assert pair.kinds("client") == ["Succeeded", "Close"]
    assert estate.sets == {}


def test_a_list_has_an_end() -> None:
    """An owner cannot fill a client's memory: it lists no more than there can be."""
    side = client_of(Request(Op.LIST))
    side.start()
    side.receive(Welcome(1), (), NOW)
    part = Listing(Manifest([manifest_of("a")[0]] * (ENTRIES_MAX // 4)), more=True)
    for _ in range(4):
        assert side.receive(part, (), NOW) == [Listed(part)]
    actions = side.receive(Listing(manifest_of("a")), (), NOW)
    assert isinstance(actions[-2], Failed)
    assert actions[-2].reason is Reason.LIMIT


def test_a_put_has_names_and_roles_that_can_be() -> None:
    """One name, not that of another set unless it is replaced, and no part of the path itself."""
    estate = estate_of({"old": "x"}, stores=True)
    for names, reason in [
        ((), Reason.PROTOCOL), (("a", "b"), Reason.PROTOCOL), (("",), Reason.PROTOCOL),
        (("old",), Reason.EXISTS),
    ]:  # fmt: skip
        refuse = Pair(estate, client_of(Request(Op.PUT, names), ALL)).run().last("owner")
        assert isinstance(refuse, Refuse)
        assert refuse.reason is reason
    pair = Pair(estate, client_of(Request(Op.PUT, ("old",), replace=True), ALL)).run()
    assert pair.kinds("client") == ["Succeeded", "Close"]
    pair = Pair(estate, client_of(Request(Op.PUT, ("new",)), ALL, role="lock")).run()
    assert isinstance(pair.last("owner"), Abort)
    assert "new" not in estate.sets
    assert estate.writers == []


def test_what_a_service_stores_is_put_like_a_set() -> None:
    """It goes to an owner that keeps it, under no name of a set, with its role, and only with it."""
    request = Request(Op.PUT, ("web",), role="fdstore")
    for role in ("fdstore", "fdstore-kept", "fdstore-removed"):
        pair = Pair(estate_of(parks=True), client_of(request, ALL, role=role)).run()
        assert pair.kinds("owner") == ["Consider", "Park", "Close"]
        assert pair.asked["owner"][1] == Park(manifest_of(ALL, "put", role), ("a'", "b'", "c'"))
        assert pair.kinds("client") == ["Succeeded", "Close"]
        assert pair.estate.writers == []
    for role in ("", "lock"):
        pair = Pair(estate_of(parks=True), client_of(request, ALL, role=role)).run()
        assert isinstance(pair.last("owner"), Abort)
        assert pair.estate.writers == []
    for estate in (estate_of(), estate_of(stores=True), estate_of(commands=True)):
        pair = Pair(estate, client_of(request, ALL, role="fdstore"))
        assert _refusal(pair) == (Reason.UNSUPPORTED, "this owner keeps no fdstore")
        assert pair.said("client") == ["hello", "abort"]
        side = owner_of(estate)
        side.receive(HELLO, (), NOW)
        assert isinstance(sent(side.receive(request, (), NOW))[0], Refuse)
    side = owner_of(estate_of(parks=True))
    side.receive(HELLO, (), NOW)
    lock = Request(Op.PUT, ("web",), role="lock")
    assert isinstance(sent(side.receive(lock, (), NOW))[0], Refuse)


def test_no_room() -> None:
    """A receiver without room refuses before a descriptor moves, and nothing has changed."""
    for request, give in [(Request(Op.TAKEOVER), ()), (Request(Op.PUT, ("new",)), ALL)]:
        pair = Pair(estate_of(stores=True), client_of(request, give))
        pair.room = False
        pair.run()
        assert not {"fds"} & {*pair.said("owner"), *pair.said("client")}
        assert "refuse" in {*pair.said("owner"), *pair.said("client")}
        assert pair.estate.phase is Phase.OWNING
        assert pair.estate.writers == []
        assert pair.kinds("client")[-2:] == ["Failed", "Close"]


def test_a_put_that_cannot_be_stored_is_refused() -> None:
    """The client hears why."""
    pair = Pair(estate_of({}, stores=True), client_of(Request(Op.PUT, ("new",)), ALL))
    pair.store = False
    pair.run()
    assert pair.asked["client"][0] == Failed(Reason.FAILED, "the disk is full", refused=True)
    assert pair.estate.writers == []


def _refusal(pair: Pair) -> tuple[Reason, str]:
    pair.run()
    failed = pair.asked["client"][0]
    assert isinstance(failed, Failed)
    assert pair.kinds("client") == ["Failed", "Close"]
    return failed.reason, failed.text


def test_what_is_forbidden_is_not_told_from_what_is_not_there() -> None:
    """Who may not get a set cannot find out that there is one, nor by the name of a descriptor."""
    stranger = Who(77, (77,))
    estate = estate_of({"web": "abc", "mail": "de"}, {"mail": Rule((77,))})
    answers = set()
    for name in ("web", "moon", "a"):
        reason, text = _refusal(Pair(estate, client_of(Request(Op.GET, (name,))), stranger))
        answers.add((reason, text.replace(repr(name), "?")))
    assert answers == {(Reason.UNKNOWN_NAME, "there is nothing called ?")}
    both = Pair(estate, client_of(Request(Op.GET, ("mail", "web"))), stranger)
    assert _refusal(both) == (Reason.UNKNOWN_NAME, "there is nothing called 'web'")
    pair = Pair(estate, client_of(Request(Op.GET)), stranger).run()
    assert pair.asked["client"][1] == Adopt(manifest_of("de", "mail"), ("d'", "e'"))
    listed = Pair(estate, client_of(Request(Op.LIST)), stranger).run()
    assert listed.asked["owner"][0] == Report(("mail",))
    nobody = Who(78)
    empty = _refusal(Pair(estate_of({}), client_of(Request(Op.GET)), ROOT))
    assert _refusal(Pair(estate, client_of(Request(Op.GET)), nobody)) == empty


@pytest.mark.parametrize("op", [Op.TAKEOVER, Op.PUT, Op.DROP, Op.CONTROL])
def test_only_managers_change_what_others_are_served_by(op: Op) -> None:
    """Whoever may get a set may do no more, and hears that, whatever state the owner is in."""
    estate = estate_of(rules={"web": Rule((77,))}, stores=True, commands=True)
    for phase in Phase:
        estate.phase = phase
        pair = Pair(estate, client_of(Request(op, ("web",)), ALL if op is Op.PUT else ()), Who(77))
        assert _refusal(pair) == (Reason.DENIED, f"uid 77 may not {op.value} here")


def test_a_busy_owner_says_who_is_taking_over() -> None:
    """A second taker is refused, and told of the first, as long as there is one."""
    first = Who(0, (), 1234)
    pair = Pair(estate_of(stores=True), client_of(Request(Op.TAKEOVER)), first).run()
    texts = {Phase.HANDING: "is taking over", Phase.COMMITTING: "is taking over"}
    for phase in (Phase.HANDING, Phase.COMMITTING, Phase.DRAINING, Phase.RELEASED):
        pair.estate.phase = phase
        for op in (Op.TAKEOVER, Op.PUT, Op.DROP):
            give = ALL if op is Op.PUT else ()
            found = _refusal(Pair(pair.estate, client_of(Request(op, ("web",)), give)))
            text = f"pid 1234, uid 0 {texts.get(phase, 'has taken over')}"
            assert found == (Reason.BUSY, text)
            assert pair.estate.phase is phase
    pair.estate.phase = Phase.HANDING
    pair.perform("client", pair.client.cancel("no more", NOW))
    assert (pair.estate.phase, pair.estate.successor) == (Phase.OWNING, None)
    pair = Pair(pair.estate, client_of(Request(Op.TAKEOVER))).run()
    assert pair.estate.phase is Phase.HANDING


def test_a_put_and_a_takeover_exclude_each_other() -> None:
    """While a set is being put, nobody takes over, nor puts one of the same name."""
    estate = estate_of(stores=True)
    side = owner_of(estate)
    follow(side, [step(HELLO), MESSAGES[E.ASK_PUT]])
    busy = _refusal(Pair(estate, client_of(Request(Op.TAKEOVER))))
    assert busy == (Reason.BUSY, "the set 'new' is being put")
    reason, _ = _refusal(Pair(estate, client_of(Request(Op.PUT, ("new",)), ALL)))
    assert reason is Reason.BUSY
    side.lost(NOW, dead=True)
    Pair(estate, client_of(Request(Op.TAKEOVER))).run()
    assert estate.phase is Phase.HANDING


def test_get_and_list_go_on_during_a_takeover_until_the_copies_are_closed() -> None:
    """An owner passes what it has; when it has closed its copies, it has nothing more to pass."""
    pair = Pair(estate_of(), client_of(Request(Op.TAKEOVER))).run()
    getter = owner_of(pair.estate)
    follow(getter, [step(HELLO), step(Request(Op.GET))])
    for op in (Op.GET, Op.LIST):
        other = Pair(pair.estate, client_of(Request(op))).run()
        assert other.kinds("client")[-2:] == ["Succeeded", "Close"]
    pair.perform("client", pair.client.ready(NOW))
    pair.perform("client", pair.client.release(NOW))
    assert pair.estate.phase is Phase.RELEASED
    for op in (Op.GET, Op.LIST):
        reason, _ = _refusal(Pair(pair.estate, client_of(Request(op))))
        assert reason is Reason.BUSY
    assert [type(m) for m in sent(getter.receive(Accept(), (), NOW))] == [Abort]


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (Hello(1, 1), None),
        (Hello(1, 2), None),
        (Hello(0, 1), None),
        (Hello(2, 3), Reason.VERSION),
        (Hello(0, 0), Reason.VERSION),
        (Hello(1, 1, requires=("store",)), Reason.CAPABILITY),
        (Hello(1, 1, requires=("time-travel",)), Reason.CAPABILITY),
        (Hello(1, 1, offers=("time-travel",)), None),
    ],
)
def test_versions_and_capabilities(hello: Hello, reason: Reason | None) -> None:
    """A version that both speak is found, or it is said that there is none."""
    pair = Pair(estate_of(), client_of(Request(Op.GET), hello=hello))
    if reason:
        assert _refusal(pair)[0] is reason
    else:
        assert pair.run().kinds("client")[-2:] == ["Succeeded", "Close"]


def test_a_version_that_was_not_asked_for_is_broken() -> None:
    """An owner cannot choose a version that the client does not speak."""
    side = client_at(C.GREETING)
    abort = sent(side.receive(Welcome(2), (), NOW))[0]
    assert isinstance(abort, Abort)
    assert abort.reason is Reason.VERSION


# --- commands -------------------------------------------------------------------------------------


def commander(name: str = "status", arguments: str = "{}") -> ClientSide[str]:
    """Return the end of a client that gives a command."""
    return client_of(Request(Op.CONTROL, command=name, arguments=Json(arguments)))


def test_a_command_and_its_answer() -> None:
    """The owner's driver hears the command as it was given, and the client what it came to."""
    pair = Pair(estate_of(commands=True), commander("stop", '{"units":["web"]}')).run()
    assert pair.asked["owner"] == [Command("stop", Json('{"units":["web"]}'))]
    assert (pair.owner.state, pair.client.state) == (O.OBEYING, C.COMMANDED)
    assert pair.client.generation == 3
    pair.perform("owner", pair.owner.answered('{"ok":true}', NOW))
    assert pair.asked["client"] == [Answered('{"ok":true}'), Succeeded(), Close()]
    assert pair.said("client") == ["hello", "request"]
    assert pair.said("owner") == ["welcome", "answer"]
    assert pair.estate.phase is Phase.OWNING


@pytest.mark.parametrize("size", [PART_MAX - 1, PART_MAX, PART_MAX + 1, 5 * PART_MAX, ANSWER_MAX])
def test_a_long_answer_comes_in_parts(size: int) -> None:
    """Each part fits into a message, even if every character of it takes two bytes there."""
    text = '"\\' * (size // 2) + "x" * (size % 2)
    pair = Pair(estate_of(commands=True), commander()).run()
    pair.perform("owner", pair.owner.answered(text, NOW))
    parts = [action.text for action in pair.asked["client"] if isinstance(action, Answered)]
    assert "".join(parts) == text
    assert len(parts) == -(-size // PART_MAX)
    assert pair.kinds("client")[-2:] == ["Succeeded", "Close"]


def test_an_answer_has_an_end() -> None:
    """An owner says no more than a client takes, and a client takes no more than it must."""
    pair = Pair(estate_of(commands=True), commander()).run()
    pair.perform("owner", pair.owner.answered("x" * (ANSWER_MAX + 1), NOW))
    failed = pair.asked["client"][0]
    assert isinstance(failed, Failed)
    assert (failed.reason, failed.refused) == (Reason.FAILED, False)
    side = client_at(C.COMMANDED)
    part = Answer(Part("x" * (ANSWER_MAX // 4)), more=True)
    for _ in range(4):
        assert side.receive(part, (), NOW) == [Answered(part.text)]
    actions = side.receive(Answer(Part("x")), (), NOW)
    assert isinstance(actions[-2], Failed)
    assert actions[-2].reason is Reason.LIMIT


def test_a_command_that_fails_is_no_refusal() -> None:
    """What has been begun is broken off, so that nobody asks again without thinking."""
    pair = Pair(estate_of(commands=True), commander()).run()
    pair.perform("owner", pair.owner.failed("out of cheese", NOW))
    assert pair.asked["client"][0] == Failed(Reason.FAILED, "out of cheese")


def test_an_owner_that_takes_no_commands() -> None:
    """A client sees by the welcome that it cannot be done; one that asks all the same is refused.

    So an older owner, which does not know the request at all, is never asked.
    """
    pair = Pair(estate_of(), commander())
    assert _refusal(pair) == (Reason.UNSUPPORTED, "this owner takes no commands")
    assert pair.said("client") == ["hello", "abort"]
    side = owner_of(estate_of())
    side.receive(HELLO, (), NOW)
    refuse = sent(side.receive(Request(Op.CONTROL, command="status"), (), NOW))
    assert refuse == [Refuse(Reason.UNSUPPORTED, "this owner takes no commands")]


def test_commands_during_a_takeover() -> None:
    """They are taken until the owner has stopped; then the successor is to be asked."""
    estate = estate_of(commands=True)
    estate.successor = Who(0, (), 77)
    for phase in Phase:
        estate.phase = phase
        pair = Pair(estate, commander())
        if phase in (Phase.STARTING, Phase.OWNING, Phase.HANDING):
            assert pair.run().kinds("owner") == ["Command"]
        else:
            assert _refusal(pair)[0] is Reason.BUSY
        assert estate.phase is phase
        assert estate.successor == Who(0, (), 77)


def test_a_command_lasts_as_long_as_its_client_lives() -> None:
    """Minutes are nothing, as long as each end hears of the other."""
    pair = Pair(estate_of(commands=True), commander()).run()
    for minute in range(1, 200):
        now = NOW + minute * 5.0
        assert pair.owner.expire(now) == pair.client.expire(now) == [Send(Alive())]
        assert pair.owner.receive(Alive(), (), now) == pair.client.receive(Alive(), (), now) == []
    pair.perform("owner", pair.owner.answered("{}", NOW))
    assert pair.kinds("client") == ["Answered", "Succeeded", "Close"]


def test_a_put_needs_a_holder() -> None:
    """A client that is to put a set sees by the welcome that it cannot be done here."""
    pair = Pair(estate_of(), client_of(Request(Op.PUT, ("new",)), ALL))
    assert _refusal(pair)[0] is Reason.UNSUPPORTED
    assert pair.said("client") == ["hello", "abort"]


def test_what_is_said_always_fits() -> None:
    """However long a reason is, it can be sent: a peer's own long words come back in it."""
    names = tuple(f"{i:0255}" for i in range(200))
    pair = Pair(estate_of(), client_of(Request(Op.GET), hello=Hello(1, 1, requires=names))).run()
    refuse = pair.last("owner")
    assert isinstance(refuse, Refuse)
    assert len(refuse.text) == TEXT_MAX
    for state in (O.IDLE, O.SENDING):
        for message in sent(owner_at(state).cancel("\U0001f600" * 10**5, NOW)):
            encode(message)


# --- what makes a takeover safe -------------------------------------------------------------------


def test_a_taker_that_is_lost_before_it_committed_changes_nothing() -> None:
    """However a taker ends, the owner owns again, and serves again where it had stopped."""
    handing = [O.OFFERED, O.SENDING, O.SENT, O.PREPARED, O.COMMITTING]
    for state in handing:
        for event in (E.LOST, E.ABORT, E.REFUSE, E.BROKEN, E.EXPIRED, E.HELLO):
            side = owner_at(state)
            actions = _happens(side, event)
            assert side._estate.phase is Phase.OWNING
            assert side._estate.successor is None
            resumed = any(isinstance(action, Resume) for action in actions)
            assert resumed is (state is O.COMMITTING)


def test_a_reserve_serves_again_if_the_successor_is_lost() -> None:
    """A successor that dies or gives back finds its predecessor's reserve; one that released not."""
    for event in (E.LOST_DEAD, E.LOST, E.ABORT):
        side = owner_at(O.DRAINING)
        assert any(isinstance(action, Resume) for action in _happens(side, event))
        assert side._estate.phase is Phase.OWNING
        side = owner_at(O.RELEASED)
        assert not any(isinstance(action, Resume) for action in _happens(side, event))
        assert side._estate.phase is Phase.RELEASED


def test_committed_is_final_for_the_former_owner() -> None:
    """An owner that breaks off its drain closes its reserve: its successor serves, and goes on."""
    for event in (E.DO_CANCEL, E.BROKEN, E.READY):
        actions = _happens(owner_at(O.DRAINING), event)
        kinds = [type(action) for action in actions]
        assert kinds == [Send, CloseReserve, Failed, Close]
        assert isinstance(sent(actions)[0], Abort)
        assert client_at(C.LEADING).receive(sent(actions)[0], (), NOW) == [Alone(), Close()]


def test_a_reserve_is_closed_once() -> None:
    """Whether it is released or drained first, the copies are closed once."""
    side = owner_at(O.RELEASED)
    assert side.drained(NOW) == [Send(Gone()), Close()]
    side = owner_at(O.DRAINING)
    assert side.drained(NOW) == [CloseReserve(), Send(Gone()), Close()]


@pytest.mark.parametrize("state", [C.COMMITTED, C.PRESUMING, C.LEADING])
def test_committed_is_final_for_the_successor(state: ClientState) -> None:
    """Nonsense from the former owner does not stop a successor; it says Release and is alone."""
    lead = [Lead()] if state is C.COMMITTED else []
    for event in (E.BROKEN, E.WELCOME):
        side = client_at(state)
        assert _happens(side, event) == [*lead, Send(Release()), Alone(), Close()]
        assert side.state is C.ALONE


@pytest.mark.parametrize("state", [C.PRESUMING, C.LEADING])
def test_a_successor_that_gives_up_steps_down(state: ClientState) -> None:
    """It says Abort, so that the reserve serves again, and its driver is told to stop."""
    actions = client_at(state).cancel("no more", NOW)
    assert [type(action) for action in actions] == [Send, StepDown, Failed, Close]


def test_release_is_said_once() -> None:
    """A successor releases the reserve once, and only if it leads."""
    side = client_at(C.LEADING)
    assert side.release(NOW) == [Send(Release())]
    assert side.release(NOW) == []
    assert side.broken("garbage", NOW) == [Alone(), Close()]
    for state in ClientState:
        if state not in (C.PRESUMING, C.LEADING):
            assert client_at(state).release(NOW) == []


def test_an_heir_is_on_its_own() -> None:
    """After the owner's death the set is the taker's; nothing from the connection changes that."""
    side = client_at(C.ADOPTED)
    assert side.lost(NOW, dead=True) == [Inherit(), Close()]
    assert side.lost(NOW, dead=True) == []
    assert side.lost(NOW, dead=False) == []
    assert side.broken("garbage", NOW) == []
    assert side.receive(Abort(Reason.FAILED), (), NOW) == []
    assert side.deadline() is None
    assert side.ready(NOW) == [Lead(), Alone()]
    side = client_at(C.HEIR)
    assert side.cancel("no more", NOW) == [Failed(Reason.CANCELLED, "no more")]


def test_the_owner_stops_only_after_ready_and_drains_only_after_committed() -> None:
    """The order of the commit."""
    side = owner_at(O.PREPARED)
    assert side.receive(Ready(), (), NOW) == [StopAccepting(), Send(Commit())]
    assert side._estate.phase is Phase.COMMITTING
    assert side.receive(Committed(), (), NOW) == [Yielded(), Send(Drain(0.0))]
    side = owner_of(estate_of(), drain=30.0)
    steps = [step(HELLO), step(Request(Op.TAKEOVER)), step(Accept()), step(Ack(3))]
    follow(side, [*steps, step(Adopted()), step(Ready())])
    assert sent(side.receive(Committed(), (), NOW)) == [Drain(30.0)]


def test_a_smaller_chunk_is_sent_only_while_sending() -> None:
    """Where the kernel takes no chunk of that size, half of it is sent; never after the end."""
    side = owner_at(O.SENDING)
    assert side.smaller_chunk() == [Send(Fds(0, 1), ("a",))]
    assert side.smaller_chunk() == []
    side = owner_at(O.SENDING)
    side.cancel("no more", NOW)
    assert side.smaller_chunk() == []
    assert owner_at(O.SENT).smaller_chunk() == []
    assert client_at(C.ASKING).smaller_chunk() == []


def test_a_success_is_told_once() -> None:
    """What is finished stays so, whatever the connection does then."""
    side = client_at(C.DONE)
    assert side.lost(NOW, dead=True) == []
    assert side.cancel("x", NOW) == []
    assert side.expire(LATE) == []
    pair = Pair(estate_of(), client_of(Request(Op.GET))).run()
    assert pair.asked["client"].count(Succeeded()) == 1
    assert pair.asked["client"][0] == Consider(3)
