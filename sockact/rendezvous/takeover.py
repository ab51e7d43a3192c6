"""One process's time at a rendezvous: it serves, is succeeded, and drains.

A `Tenure` is what follows an `Arrival`. It never blocks; who wants to wait, or to serve in a
thread, does that around it (`sockact.rendezvous.thread`, `sockact.aio`).

Three generations may overlap, and then the death of the middle one must not leave two heirs: the
first, who takes back, and the third, who has everything. So each owner hands on a *turn*, a pipe
with one byte, which its successor hands on as that of its *elder*: whoever reads the byte leads.
"""

import enum
import errno
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence

import attrs

from sockact.errors import RefusedError
from sockact.fd.identity import identity
from sockact.fd.own import OwnedFd
from sockact.fd.peer import overflow_uid, own_pidfd
from sockact.rendezvous.actions import Action, Alone, Failed, Lead, StepDown
from sockact.rendezvous.arrive import (
    ELDER,
    LISTENER,
    LOCK,
    OWNER,
    TURN,
    Arrival,
    Parked,
    close_parked,
)
from sockact.rendezvous.estate import Estate, HeldSet
from sockact.rendezvous.estate import Phase as Held
from sockact.rendezvous.manifest import STORED, STORED_KEPT, STORED_NO_MORE, Entry, Manifest
from sockact.rendezvous.meet import SEQPACKET
from sockact.rendezvous.messages import Reason
from sockact.rendezvous.offer import Owner, Reply
from sockact.rendezvous.parcels import Parcels
from sockact.rendezvous.policy import Policy, Rule, Who
from sockact.rendezvous.react import Reactor
from sockact.rendezvous.tables import ClientState
from sockact.rendezvous.talk import close_all

HANDOVER_SECONDS = 10.0
"""How long an owner that ends waits for a taker to become ready."""


Commands = Callable[[Who, str, Mapping[str, object], Reply], None]
"""Carries out a command: who gives it, its name and arguments, and what gets the answer; see
`sockact.rendezvous.offer.Keeper.control`."""


class Phase(enum.Enum):
    """Where a tenure stands."""

    PENDING = "has the sockets, is not ready"
    VOTED = "is ready, waits for the owner"
    LEADING = "is the owner"
    STOPPED = "has stopped accepting for its successor"
    DRAINING = "has a successor"
    FAILED = "came to nothing"
    CLOSED = "is over"


class Tenure:
    """A process's time at a rendezvous, from its arrival on.

    It owns the place, the listener and its own copies of every descriptor that it passes on, so
    that it does not matter what the program does with the ones that it serves.

    Attributes:
        phase: Where it stands.
        estate: What it passes on.
        failure: Why it came to nothing.
        was_succeeded: Once it is closed: whether somebody else serves.
        has_led: Whether it has ever been the owner.
        drain_until: When the drain must be over, on the monotonic clock; None for never.
    """

    def __init__(
        self,
        reactor: Reactor,
        arrival: Arrival,
        *,
        stores: bool = False,
        drain: float = 0.0,
        kind: int = SEQPACKET,
    ) -> None:
        """Take over `arrival` but for its handles; where there was no owner, publish the path.

        What it has of a fd store is closed: who wants that takes it out before.

        Raises:
            PathInUseError: The path cannot be used; the place has been closed.
        """
        self.phase = Phase.PENDING
        self.failure = ""
        self.was_succeeded = False
        self.has_led = False
        self._stays = False
        self._wait_until: float | None = None
        self.drain_until: float | None = None
        policy = Policy(os.geteuid(), overflow_uid())
        self.estate: Estate[OwnedFd] = Estate(policy, generation=arrival.generation, stores=stores)
        self._reactor = reactor
        self._place = arrival.place
        self._asking = arrival.asking
        self._drain = drain
        self._owner: Owner | None = None
        self._dropped: list[OwnedFd] = []
        self._commands: Commands | None = None
        self._stored: dict[OwnedFd, OwnedFd] = {}
        self._leaving: list[OwnedFd] = []
        self._on_stored: Callable[[list[Parked]], object] | None = None
        self._parcels: Parcels | None = None
        self._changed: list[Callable[[], None]] = []
        self.on_stop: list[Callable[[], object]] = []
        self.on_resume: list[Callable[[], object]] = []
        self.on_alone: list[Callable[[], object]] = []
        try:
            self._listener = arrival.listener or self._place.publish(kind)
        except BaseException:
            self._place.leave()
            raise
        self._duties: list[OwnedFd] = []
        self._elder = arrival.turns.pop(ELDER, None)
        close_parked(arrival.stored)
        try:
            self._set_duties()
            if TURN in arrival.turns:
                self.add_duty(ELDER, arrival.turns.pop(TURN))
        except BaseException:
            close_all([*self._duties, *([self._elder] if self._elder else [])])
            self._listener.close()
            self._place.close()
            raise
        _living.add(self)
        if self._asking:
            self._asking.then = self._act
        else:
            self.estate.phase = Held.STARTING
            self._answer()

    def _set_duties(self) -> None:
        """Say what goes along with a takeover beside the sets."""
        self.add_duty(LISTENER, OwnedFd(os.dup(self._listener.fileno())))
        if self._place.lock:
            self.add_duty(LOCK, OwnedFd(os.dup(self._place.lock.fileno())))
        if (pidfd := own_pidfd()) is not None:
            self.add_duty(OWNER, OwnedFd(pidfd))
        self.add_duty(TURN, _new_turn())

    def add_duty(self, role: str, handle: OwnedFd) -> None:
        """Take ownership of a descriptor, and pass it on with a takeover; see `Entry.role`."""
        self._duties.append(handle)
        device, inode = identity(handle.fileno())
        entry = Entry("", role, device=device, inode=inode, role=role)
        manifest, handles = self.estate.duties
        self.estate.duties = Manifest([*manifest, entry]), (*handles, handle)

    def remove_duty(self, role: str) -> None:
        """Pass nothing on in that role any more.

        What went along is closed, unless a taker is just getting it: then when the tenure ends.
        """
        manifest, handles = self.estate.duties
        kept = [i for i, entry in enumerate(manifest) if entry.role != role]
        if self.estate.phase in (Held.STARTING, Held.OWNING):
            for i in set(range(len(handles))) - set(kept):
                self._duties.remove(handles[i])
                handles[i].close()
        self.estate.duties = manifest.select(kept), tuple(handles[i] for i in kept)

    def add_stored(self, service: str, name: str, handle: OwnedFd, *, poll: bool = True) -> None:
        """Have a copy of what a service has stored passed on with a takeover.

        What comes too late for the offer of a takeover is sent after it, once there is a successor.

        Args:
            service: The service.
            name: The fd name.
            handle: The descriptor, which stays the caller's; in `remove_stored` it stands for the
                copy.
            poll: Whether it leaves the store when it hangs up.

        Raises:
            OSError: It cannot be copied.
            ValueError: A name is none.
        """
        copy = OwnedFd(os.dup(handle.fileno()))
        try:
            device, inode = identity(copy.fileno())
            role = STORED if poll else STORED_KEPT
            entry = Entry("", name, address=service, device=device, inode=inode, role=role)
            Manifest.from_columns(Manifest([entry]).to_columns(), 1)
        except BaseException:
            copy.close()
            raise
        self._stored[copy] = handle
        self.estate.stored[copy] = entry
        if self.phase is Phase.DRAINING:
            self._send_after(entry, copy)

    def _send_after(self, entry: Entry, copy: OwnedFd) -> None:
        if self._parcels is None:
            self._parcels = Parcels(self._reactor, self._place.path)
        self._parcels.send(entry, copy)

    def _send_removal(self, entry: Entry, copy: OwnedFd) -> None:
        self._send_after(attrs.evolve(entry, role=STORED_NO_MORE), copy)

    def remove_stored(
        self, service: str, name: str | None = None, handle: OwnedFd | None = None
    ) -> None:
        """Pass on no more what a service had stored, and close the copies.

        A successor that has been given them is told, once it is one.

        Args:
            service: The service.
            name: The fd name; None for everything of the service.
            handle: The descriptor that was added; None for all of that name.
        """
        removed = {
            copy: entry
            for copy, entry in self.estate.stored.items()
            if entry.address == service
            and name in (None, entry.name)
            and handle in (None, self._stored[copy])
        }
        for copy, entry in removed.items():
            del self.estate.stored[copy], self._stored[copy]
            if self.phase is Phase.DRAINING:
                self._send_removal(entry, copy)
        self._close_when_idle(list(removed))

    def _close_when_idle(self, handles: Sequence[OwnedFd]) -> None:
        """Close copies as soon as nobody is just getting them."""
        self._leaving += handles
        if self._owner:
            self._owner.when_idle(self._close_leaving)
        else:
            self._close_leaving()

    def _close_leaving(self) -> None:
        close_all(self._leaving)
        self._leaving = []

    @property
    def on_stored(self) -> Callable[[list[Parked]], object] | None:
        """What gets what services have stored with a former owner too late for the takeover.

        And what has left the store since then: see `Parked.removed`.

        It owns the descriptors; if it raises OSError or ValueError, they are closed, and the former
        owner is told. None: this process keeps no such thing, and a former owner knows.
        """
        return self._on_stored

    @on_stored.setter
    def on_stored(self, callback: Callable[[list[Parked]], object] | None) -> None:
        self._on_stored = callback
        self.estate.parks = callback is not None

    @property
    def commands(self) -> Commands | None:
        """What carries out the commands of root and of this process's own user; None: none does.

        It is called by whoever drives the reactor, also while somebody takes over, until they are
        ready. An exception of its own is logged, and its client told.
        """
        return self._commands

    @commands.setter
    def commands(self, commands: Commands | None) -> None:
        self._commands = commands
        self.estate.commands = commands is not None

    @property
    def successor(self) -> Who | None:
        """Who is taking over, or has."""
        return self.estate.successor

    @property
    def owns(self) -> bool:
        """Whether this process is the one that answers."""
        return self.phase is Phase.LEADING

    @property
    def _commits(self) -> bool:
        """Whether the former owner may have stopped already, and has not said so."""
        return bool(self._asking and self._asking.side.state is ClientState.COMMITTED)

    @property
    def undecided(self) -> bool:
        """Whether it will be known within seconds, but is not yet, who serves."""
        if self._owner and self.estate.phase is Held.DRAINING:  # it may have to take back
            return self._owner.in_doubt
        waits = self._wait_until is not None and self._is_prepared
        return self.phase is Phase.STOPPED or self._commits or waits

    @property
    def _is_prepared(self) -> bool:
        """Whether a taker has everything, and gets ready; who has less can begin again."""
        return self._owner is not None and self._owner.has_prepared

    @property
    def predecessor_drains(self) -> bool:
        """Whether there is a former owner that has not finished."""
        return bool(self._asking and not self._asking.talk.closed)

    def call_on_stop(self, callback: Callable[[], object]) -> None:
        """Call `callback` when a successor is ready; at once if that is so already."""
        self.on_stop.append(callback)
        if self.phase in (Phase.STOPPED, Phase.DRAINING):
            _call([callback])

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever the phase has changed."""
        self._changed.append(changed)

    def add_set(
        self,
        name: str,
        manifest: Manifest,
        handles: Sequence[OwnedFd],
        rule: Rule | None = None,
        since: float | None = None,
    ) -> None:
        """Take ownership of handles, and pass them on as a set."""
        when = time.time() if since is None else since
        self.estate.sets[name] = HeldSet(name, manifest, tuple(handles), rule or Rule(), when)

    def replace_sets(self, sets: Mapping[str, tuple[Manifest, Sequence[OwnedFd]]]) -> None:
        """Pass on these sets from now on, and no others.

        Rules stay, and so does since when a set of that name is here. What is passed on no more is
        closed as soon as nobody is just getting it.

        Args:
            sets: The sets by name; the copies are owned here unless this fails.

        Raises:
            RefusedError: Somebody is taking over, or has: what they were offered is fixed.
        """
        self.check_unchanging()
        before = self.estate.sets
        after = {}
        for name, (manifest, handles) in sets.items():
            old = before.get(name)
            rule, since = (old.rule, old.since) if old else (Rule(), time.time())
            after[name] = HeldSet(name, manifest, tuple(handles), rule, since)
        kept = {handle for held in after.values() for handle in held.handles}
        self.estate.sets = after
        gone = [h for held in before.values() for h in held.handles if h not in kept]
        self._close_when_idle(gone)

    def check_unchanging(self) -> None:
        """Raise RefusedError if somebody is taking over, or has: what they get is fixed."""
        if self.estate.phase not in (Held.STARTING, Held.OWNING):
            begun = self.estate.phase in (Held.HANDING, Held.COMMITTING)
            verb = "is taking over" if begun else "has taken over"
            raise RefusedError(f"{self._place.path}: {self.successor} {verb}", Reason.BUSY.value)

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """Call `callback` as soon as nobody is being given anything, or may be given it again."""
        if self._owner:
            self._owner.when_idle(callback)

    @property
    def dropped(self) -> Sequence[OwnedFd]:
        """What nobody wants, and the former owner may still need; owned here."""
        return self._dropped

    def drop_after_drain(self, handles: Sequence[OwnedFd]) -> None:
        """Take ownership of handles that nobody wants, to close them when the former owner is gone.

        Until then it may still be needed: if this process never gets ready, nothing has happened.
        """
        self._dropped += handles
        if not self.predecessor_drains:
            self._alone()

    # What the program does.

    def ready(self) -> None:
        """Vote for the commit; the phase tells what comes of it."""
        if self.phase is not Phase.PENDING:
            return
        if self._asking:
            self._enter(Phase.VOTED)
            self._asking.talk.perform(self._asking.side.ready(time.monotonic()))
        else:
            self.estate.phase = Held.OWNING
            self._enter(Phase.LEADING)

    def withdraw(self) -> None:
        """Take the vote back, unless the owner has counted it; the phase tells what came of it."""
        self.resolve()
        if self._asking and self.phase in (Phase.PENDING, Phase.VOTED):
            self._asking.abandon("the former owner did not commit in time")

    def catch_up(self) -> None:
        """Hear what a successor has said already: perhaps its end."""
        if self._owner:
            self._owner.catch_up()

    def stay_for_taker(self) -> None:
        """Before `close`: if somebody is just taking over, wait for them, some seconds at most.

        Whoever starts the next version may stop this one at once; to break off would leave nobody.
        """
        if self._stays:
            return
        self._stays = True
        if self.phase is Phase.LEADING and self._is_prepared:
            self._wait_until = time.monotonic() + HANDOVER_SECONDS
            self._reactor.add(self)

    def deadline(self) -> float | None:
        """Return until when a taker is waited for; for the reactor."""
        return self._wait_until

    def expire(self, now: float) -> None:
        """Wait no more."""
        del now
        self._wait_until = None
        _call(self._changed)

    def resolve(self) -> None:
        """Wait until it is known who serves, for some seconds at most."""
        self.catch_up()
        while self.undecided:
            self._reactor.step(None)

    def close(self, why: str = "the program ends") -> None:
        """End it, according to where it stands; a second time does nothing.

        Not ready: the former owner goes on. Succeeded: the successor learns that the drain is over.
        Otherwise everything is closed, and the path is removed; but if somebody is just taking
        over, not before they have, or `HANDOVER_SECONDS` are over.
        """
        if self.phase is Phase.CLOSED:
            return
        self.stay_for_taker()
        if self._parcels:
            self._parcels.finish()
        self.resolve()  # until it is known whose it is, nobody may give it up
        self._reactor.remove(self)
        if self._parcels:
            self._parcels.close()
        succeeded = self.was_succeeded = self.phase is Phase.DRAINING
        if self._owner:
            if succeeded:
                self._owner.drained()
            self._owner.close(why)
        if self._asking:
            if self._owner:
                self._release_predecessor()
            else:
                self._asking.abandon(why)
            self._asking.talk.close()
        vacant = self._owner is not None and not succeeded
        self._enter(Phase.CLOSED)
        self.close_reserve()
        self._alone()
        close_all(self._duties)
        if self._elder:
            self._elder.close()
        if vacant:
            self._place.vacate()
        self._place.close()
        self._listener.close()

    def close_copies(self) -> None:
        """In a forked child: close what belongs to the parent, who goes on with it.

        Else a worker that outlives its parent would keep the path locked, and clients waiting at a
        listener that nobody answers. Nothing is unregistered: the child shares the parent's epoll.
        """
        self.phase = Phase.CLOSED
        self._reactor.close()
        if self._owner:
            self._owner.close_copies()
        if self._asking:
            self._asking.talk.close_copies()
        if self._parcels:
            self._parcels.close_copies()
        self.close_reserve()
        close_all([*self._dropped, *self._duties, *([self._elder] if self._elder else [])])
        self._place.close()
        self._listener.close()

    # The client's end.

    def _act(self, action: Action) -> None:
        match action:
            case Lead():
                self._lead()
            case Alone():
                self._alone()
            case StepDown():
                self._step_down()
            case Failed() if self._owner is None:
                self.failure = action.text
                self._enter(Phase.FAILED)

    def _answer(self) -> None:
        self._owner = Owner(self._reactor, self._listener, self.estate, self, self._drain)

    def _lead(self) -> None:
        if self._elder is not None:
            mine = _claim(self._elder)
            self._elder.close()
            self._elder = None
            if not mine:
                self.failure = "the owner died, and the one before it has taken back"
                self._enter(Phase.FAILED)
                return
        self._answer()
        self._enter(Phase.LEADING)

    def _alone(self) -> None:
        self.remove_duty(ELDER)
        if self._dropped:
            close_all(self._dropped)
            self._dropped = []
            _call(self.on_alone)

    def _step_down(self) -> None:
        """Give back what was taken without the former owner's word."""
        self.failure = "the former owner has taken back"
        if self._owner:
            self._owner.close(self.failure)
            self._owner = None  # the path is the former owner's
        self._enter(Phase.FAILED)
        _call(self.on_stop)

    def _release_predecessor(self) -> None:
        self.remove_duty(ELDER)
        if self._asking and not self._asking.talk.closed:
            self._asking.talk.perform(self._asking.side.release(time.monotonic()))

    # The owner's end: sockact.rendezvous.offer.Keeper.

    def stop_accepting(self) -> None:
        """Have the program stop; the successor waits for that."""
        self._enter(Phase.STOPPED)
        _call(self.on_stop)

    def yielded(self) -> None:
        """Begin to drain."""
        self._release_predecessor()
        if self._drain:
            self.drain_until = time.monotonic() + self._drain
        self._enter(Phase.DRAINING)
        given = self._owner.given if self._owner else {}
        stored = self.estate.stored
        for copy, entry in given.items():
            if entry.role in (STORED, STORED_KEPT) and copy not in stored:
                self._send_removal(entry, copy)
        for copy, entry in stored.items():
            if copy not in given:
                self._send_after(entry, copy)

    def close_reserve(self) -> None:
        """Close the copies that were kept to take back."""
        for held in self.estate.sets.values():
            close_all(held.handles)
        close_all(list(self.estate.stored))
        self.estate.sets, self.estate.stored, self._stored = {}, {}, {}
        self._close_leaving()

    def may_resume(self) -> bool:
        """Whether nobody else has inherited from the successor; then it is this one who does."""
        if self.phase is not Phase.DRAINING:
            return True
        manifest, handles = self.estate.duties
        turn = handles[[entry.role for entry in manifest].index(TURN)]
        if not _claim(turn):
            _call(self._changed)  # whoever waits until it is decided
            return False
        self.remove_duty(TURN)
        self.add_duty(TURN, _new_turn())
        return True

    def resume(self, why: str) -> None:
        """Serve again."""
        del why
        if self.phase is Phase.CLOSED:
            return
        # The successor may have used up the turn of the one before us, who is not needed any more.
        self._release_predecessor()
        self.drain_until = None
        if self._parcels:
            self._parcels.stop("")
        self._enter(Phase.LEADING)
        _call(self.on_resume)

    def store(
        self, name: str, rule: Rule, manifest: Manifest, handles: tuple[OwnedFd, ...]
    ) -> None:
        """Refuse a set: only a holder takes some."""
        del name, rule, manifest
        close_all(handles)
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def park(self, manifest: Manifest, handles: tuple[OwnedFd, ...]) -> None:
        """Keep what a service has stored with the former owner, or remove it.

        Raises:
            OSError: It cannot be kept.
            ValueError: It cannot be kept.
        """
        try:
            if self._on_stored is None:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            self._on_stored(list(map(Parked.of, manifest, handles)))
        except BaseException:
            close_all(handles)
            raise

    def drop(self, names: Sequence[str]) -> None:
        """Close sets."""
        for name in names:
            close_all(self.estate.sets.pop(name).handles)

    def control(
        self, who: Who, command: str, arguments: Mapping[str, object], answer: Reply
    ) -> None:
        """Have a command carried out.

        Raises:
            RuntimeError: Nothing does that any more.
        """
        if self._commands is None:
            raise RuntimeError("this owner takes no commands any more")
        self._commands(who, command, arguments, answer)

    def trouble(self, who: Who, text: str) -> None:
        """Hear of a conversation that came to nothing: not the program's business."""

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.has_led = self.has_led or phase is Phase.LEADING
        _call(self._changed)


def _new_turn() -> OwnedFd:
    """Return what one of two processes can claim: a pipe with one byte, which both can read."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(reader, False)
        os.write(writer, b"x")
    finally:
        os.close(writer)
    return OwnedFd(reader)


def _claim(turn: OwnedFd) -> bool:
    """Whether nobody had claimed it before."""
    return bool(os.read(turn.fileno(), 1))


_living: "weakref.WeakSet[Tenure]" = weakref.WeakSet()


def _close_copies() -> None:
    for tenure in list(_living):
        if tenure.phase is not Phase.CLOSED:
            tenure.close_copies()


os.register_at_fork(after_in_child=_close_copies)


def _call(callbacks: Sequence[Callable[[], object]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except (Exception, SystemExit):
            import logging  # noqa: PLC0415 - a takeover goes on whatever a program's callback does

            logging.getLogger("sockact").exception("a callback of a takeover failed")
