"""What a service stores with a supervisor that has a successor already is sent after it.

What a takeover passes is fixed when it is offered. A descriptor that is stored or removed later
goes by a put of its own, from the former owner to whoever answers at the path by then.
"""

import itertools
import os
import time

from sockact.errors import RefusedError, RendezvousError
from sockact.fd.own import OwnedFd
from sockact.rendezvous.manifest import STORED, Entry, Manifest
from sockact.rendezvous.messages import Op, Request
from sockact.rendezvous.react import Reactor
from sockact.rendezvous.take import AGAIN, Asking
from sockact.rendezvous.talk import close_all

RETRY_SECONDS = 0.2
"""How long to wait before the owner is asked again."""

FINISH_SECONDS = 5.0
"""How long an owner that ends waits until what is under way has arrived."""


class Parcels:
    """Descriptors on their way to the owner of a path; never blocks."""

    def __init__(self, reactor: Reactor, path: str) -> None:
        """Have nothing to send."""
        self._reactor = reactor
        self._path = path
        self._waiting: list[tuple[Entry, OwnedFd]] = []
        self._sent: list[tuple[Entry, OwnedFd]] = []
        self._asking: Asking | None = None
        self._retry_at: float | None = None
        reactor.add(self)

    @property
    def pending(self) -> bool:
        """Whether something has not arrived."""
        return bool(self._waiting or self._sent)

    def send(self, entry: Entry, handle: OwnedFd) -> None:
        """Send a copy of a descriptor; if there can be none, that is logged."""
        try:
            copy = OwnedFd(os.dup(handle.fileno()))
        except OSError as error:
            _warn([(entry, handle)], str(error.strerror))
            return
        self._waiting.append((entry, copy))
        if self._asking is None and self._retry_at is None:
            self._retry_at = time.monotonic()  # with what else is about to come

    def deadline(self) -> float | None:
        """Return when to ask; for the reactor."""
        return self._retry_at

    def expire(self, now: float) -> None:
        """Ask."""
        self._retry_at = None
        service = self._waiting[0][0].address
        of_it = [item for item in self._waiting if item[0].address == service]
        manifest = Manifest(entry for entry, _ in of_it)
        handles = tuple(handle for _, handle in of_it)
        request = Request(Op.PUT, (service,), role=STORED)
        try:
            asking = Asking(self._reactor, self._path, request, now, give=(manifest, handles))
        except RendezvousError:
            self._retry_at = now + RETRY_SECONDS
            return
        self._waiting = [item for item in self._waiting if item[0].address != service]
        self._sent = of_it
        self._asking = asking
        asking.on_close = self._ended

    def _ended(self) -> None:
        """See what has come of it."""
        asking, self._asking = self._asking, None
        sent, self._sent = self._sent, []
        assert asking
        try:
            asking.check()
        except RendezvousError as error:
            if not isinstance(error, RefusedError) or error.reason in AGAIN:
                self._waiting = sent + self._waiting
                self._retry_at = time.monotonic() + RETRY_SECONDS
                return
            _warn(sent, str(error))
        close_all([handle for _, handle in sent])
        if self._waiting:
            self._retry_at = time.monotonic()

    def finish(self) -> None:
        """Wait until everything has arrived, for some seconds at most."""
        until = time.monotonic() + FINISH_SECONDS
        while self.pending and (left := until - time.monotonic()) > 0:
            self._reactor.step(left)

    def stop(self, why: str) -> None:
        """Send nothing more, and close what has not arrived; a second time does nothing.

        Args:
            why: Why it is lost, for the log; empty if it is not.
        """
        asking, self._asking = self._asking, None
        if asking:
            asking.on_close = lambda: None
            asking.abandon("the owner ends")
        left = self._sent + self._waiting
        self._sent, self._waiting, self._retry_at = [], [], None
        if why:
            _warn(left, why)
        close_all([handle for _, handle in left])

    def close(self, why: str = "the successor could not be reached") -> None:
        """Send nothing more, and be no more; a second time does nothing."""
        self.stop(why)
        self._reactor.remove(self)

    def close_copies(self) -> None:
        """In a forked child: close what belongs to the parent, who goes on with it."""
        if self._asking:
            self._asking.talk.close_copies()
        close_all([handle for _, handle in self._sent + self._waiting])


def _warn(lost: list[tuple[Entry, OwnedFd]], why: str) -> None:
    import logging  # noqa: PLC0415 - nothing is to be logged as a rule

    for service, items in itertools.groupby(lost, key=lambda item: item[0].address):
        names = ", ".join(dict.fromkeys(entry.name for entry, _ in items))
        logging.getLogger("sockact").warning(
            "%s: what has changed in its fd store since the takeover is lost: %s: %s",
            service,
            names,
            why,
        )
