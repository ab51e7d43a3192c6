"""A tenure for a program of threads and plain sockets: a thread answers the rendezvous."""

import os
import threading
import time
from collections.abc import Callable

from sockact.errors import RendezvousError, TakeoverAbortedError
from sockact.fd.own import Closing
from sockact.rendezvous.react import Reactor
from sockact.rendezvous.takeover import HANDOVER_SECONDS, Phase, Tenure
from sockact.sockets.socketset import SocketSet

_PAUSE_SECONDS = 0.1
_DECISION_SECONDS = 10.0
_CLOSE_SECONDS = HANDOVER_SECONDS + _DECISION_SECONDS


class Rendezvous(Closing):
    """This process's time at a rendezvous, as `sockact.takeover` and `sockact.offer` begin it.

    Use it as a context manager. Its callbacks run in its own thread.

    Attributes:
        sockets: The sockets to serve, owned here; closed by `close`.
    """

    def __init__(self, reactor: Reactor, tenure: Tenure, sockets: SocketSet) -> None:
        """Take ownership of all three, and begin to answer."""
        self.sockets = sockets
        self._reactor = reactor
        self._tenure = tenure
        self._changed = threading.Condition()
        self._phase = tenure.phase
        self._stopping = False
        self._pid = os.getpid()
        tenure.watch(self._note)
        self._thread = threading.Thread(target=self._run, name="sockact-rendezvous", daemon=True)
        self._thread.start()

    def _note(self) -> None:
        with self._changed:
            self._phase = self._tenure.phase
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            self._answer()
            # `close` may have been kept from that, by a callback, until it gave up.
            self._tenure.close()
        finally:
            self._reactor.close()

    def _answer(self) -> None:
        while not self._stopping:
            try:
                self._reactor.step(None)
            except Exception:
                import logging  # noqa: PLC0415 - nothing is to be logged as a rule

                # An owner that stopped answering would be worse than whatever this is.
                logging.getLogger("sockact").exception("the thread of a rendezvous failed")
                time.sleep(_PAUSE_SECONDS)

    def _wait(self, phases: tuple[Phase, ...], timeout: float | None) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._phase in phases, timeout)

    @property
    def generation(self) -> int:
        """How many owners there have been, this one included."""
        return self._tenure.estate.generation

    @property
    def phase(self) -> str:
        """Where it stands, in words."""
        return self._phase.value

    @property
    def deadline(self) -> float | None:
        """When the drain must be over, on the monotonic clock; None while there is no limit."""
        return self._tenure.drain_until

    def on_drain(self, callback: Callable[[], object]) -> Callable[[], object]:
        """Call `callback` when a successor is ready: it must have accept() stopped on return.

        Usable as a decorator. The successor serves as soon as every callback has returned.
        """
        self._reactor.post(lambda: self._tenure.call_on_stop(callback))
        return callback

    def on_resume(self, callback: Callable[[], object]) -> Callable[[], object]:
        """Call `callback` when the successor was lost before the drain was over: accept again.

        Usable as a decorator.
        """
        self._tenure.on_resume.append(callback)
        return callback

    def ready(self, timeout: float | None = 30.0) -> None:
        """Say that this process can serve; returns when it is the owner, and may accept.

        Args:
            timeout: Seconds to wait for the former owner; None for as long as it takes.

        Raises:
            TakeoverAbortedError: The former owner broke it off, or did not answer; it goes on
                serving, and this process has to leave the sockets alone.
        """
        self._reactor.post(self._tenure.ready)
        ends = (Phase.LEADING, Phase.STOPPED, Phase.DRAINING, Phase.FAILED, Phase.CLOSED)
        if not self._wait(ends, timeout):
            self._reactor.post(self._tenure.withdraw)
            if not self._wait(ends, _DECISION_SECONDS) or self._phase is Phase.FAILED:
                self.close()
                raise TakeoverAbortedError("the former owner did not commit in time")
        if self._phase is Phase.FAILED:
            raise TakeoverAbortedError(self._tenure.failure)
        if self._phase is Phase.CLOSED:
            raise RendezvousError("the rendezvous was closed")

    def wait_successor(self, timeout: float | None = None) -> bool:
        """Wait until a successor serves; then finish what was accepted, and `close`.

        Once more after that, with a timeout of 0, it says whether the successor is still there.

        Args:
            timeout: Seconds to wait at most; None for ever.

        Returns:
            Whether there is one.

        Raises:
            TakeoverAbortedError: This process has never become, or is no longer, the owner.
        """
        found = self._wait((Phase.DRAINING, Phase.FAILED, Phase.CLOSED), timeout)
        if self._phase is Phase.FAILED:
            raise TakeoverAbortedError(self._tenure.failure)
        return found and self._phase is Phase.DRAINING

    def close(self, timeout: float = _CLOSE_SECONDS) -> None:
        """End it; a second time does nothing.

        Before `ready` the former owner goes on as if nobody had asked. With a successor this says
        that the drain is over. Otherwise the sockets are closed and the path is removed; but if
        somebody is just taking over, not before they have, or 10 seconds are over.

        Args:
            timeout: Seconds to wait for a takeover under way, or for a callback that has not
                returned. When it has, the rest is closed.
        """
        if self._stopping:
            return
        if os.getpid() != self._pid:
            # In a forked child only its copies of the sockets are its own.
            self._stopping = True
            self.sockets.leave()
            return
        if threading.current_thread() is self._thread:
            raise RendezvousError("close() cannot be called by a callback; set an event instead")
        undo = self._phase in (Phase.PENDING, Phase.VOTED, Phase.FAILED)
        self._reactor.post(self._tenure.close)
        closed = self._wait((Phase.CLOSED,), timeout)
        self._stopping = True
        self._reactor.post(lambda: None)
        if closed:
            self._thread.join()
        if undo:
            self.sockets.discard()
        elif self._tenure.was_succeeded or not closed:
            self.sockets.leave()
        else:
            self.sockets.close()
