"""Work that waits for others, done beside the loop: in a thread of its own, and only for so long.

Names are resolved by a call that cannot be interrupted and may take as long as the resolver likes
(getaddrinfo(3), resolv.conf(5)), and a holder may be slow. Meanwhile the loop goes on.
"""

import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from sockact.rendezvous.react import Reactor

T = TypeVar("T")


def _nothing(_result: object) -> None:
    pass


class Aside(Generic[T]):
    """One piece of work: its outcome comes in a step of the reactor, and its thread is gone then.

    The thread has all signals blocked, so that they go on to reach the main thread (signal(7)). It
    does not keep the process from ending. Without a thread to be had the work is done at once.
    """

    def __init__(
        self,
        reactor: Reactor,
        work: Callable[[], T],
        done: Callable[[Callable[[], T]], None],
        *,
        discard: Callable[[T], None] = _nothing,
    ) -> None:
        """Begin.

        Args:
            reactor: Who calls `done`.
            work: What to do, in the thread. It starts no process, and touches nothing that the loop
                changes.
            done: Called once, with what returns the result, or raises what the work has raised.
            discard: Closes a result that nobody wants any more.
        """
        self._reactor = reactor
        self._work = work
        self._done = done
        self._discard = discard
        self._over = False
        thread = threading.Thread(target=self._run, name="sockact-aside", daemon=True)
        self._thread: threading.Thread | None = thread
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            thread.start()
        except RuntimeError:  # there can be no thread now (EAGAIN): then the loop has to wait
            self._thread = None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if self._thread is None:
            self._run()

    def _run(self) -> None:
        try:
            result = self._work()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            self._reactor.post(partial(self._failed, error))
        else:
            self._reactor.post(partial(self._succeeded, result))

    def _succeeded(self, result: T) -> None:
        if self._is_wanted():
            self._done(lambda: result)
        else:
            self._discard(result)

    def _failed(self, error: BaseException) -> None:
        def outcome() -> T:
            raise error

        if self._is_wanted():
            self._done(outcome)

    def _is_wanted(self) -> bool:
        if self._thread is not None:
            self._thread.join()  # a process of one thread starts others in less time
        wanted, self._over = not self._over, True
        return wanted

    def cancel(self) -> None:
        """Want the outcome no more; without effect once it has come."""
        self._over = True
