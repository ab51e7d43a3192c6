"""Signals as callbacks of a reactor."""

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType

from sockact.rendezvous.react import READ, Reactor


class Signals:
    """Runs a callback in the reactor's next step when a signal has come; for the main thread.

    The descriptor that signal.set_wakeup_fd() knows ends the wait that a signal finds, also the
    one that begins just when it comes; Python's own handler notes which it was. So nothing is
    lost, however many signals come meanwhile; of one number that comes repeatedly before its
    callback runs, one call remains, as with the kernel's own pending signals (signal(7)).

    A handler is all that PID 1 of a namespace needs to receive a signal whose default action is
    otherwise kept from it (pid_namespaces(7)). A signal that was blocked by whoever started this
    process is received as well. A program that is executed starts with the default
    action again; between fork(2) and execve(2) the handlers are still there, and a child must
    have blocked what is to be its own by then.
    """

    def __init__(self, reactor: Reactor) -> None:
        """Begin without any signal; owns two descriptors until `close`.

        Raises:
            ValueError: This is not the main thread.
        """
        self._reactor = reactor
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._before: dict[int, signal._HANDLER] = {}
        self._pending: dict[int, None] = {}
        self._blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._woken, self._waker = os.pipe()
        try:
            os.set_blocking(self._woken, False)
            os.set_blocking(self._waker, False)
            # A full pipe wakes as well as one that has room.
            self._wakeup_before = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        except BaseException:
            os.close(self._woken)
            os.close(self._waker)
            raise
        self._closed = False
        reactor.watch(self._woken, READ, self._run)

    def on(self, number: int, callback: Callable[[int], None]) -> None:
        """Call `callback` with the number whenever that signal has come; a second call replaces.

        Raises:
            OSError: EINVAL: there is no handling that signal.
            ValueError: There is no such signal.
        """
        if number not in self._callbacks:
            before = signal.getsignal(number)
            signal.signal(number, self._handle)
            self._before[number] = before
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        self._callbacks[number] = callback

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._pending[number] = None

    def _run(self) -> None:
        """Call back for what has come."""
        # Python runs the handler of a signal whose byte was read before it goes on here.
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)
        pending, self._pending = self._pending, {}
        numbers = iter(pending)
        try:
            for number in numbers:
                if (callback := self._callbacks.get(number)) is not None:
                    callback(number)
        except BaseException:
            self._pending |= dict.fromkeys(numbers)  # those behind the one that failed
            if not self._closed:
                with contextlib.suppress(BlockingIOError):
                    os.write(self._waker, b"\0")
            raise

    def close(self) -> None:
        """Put back every handler, what was blocked, and what set_wakeup_fd() had; repeatable.

        What has come and was not called yet is dropped.
        """
        if self._closed:
            return
        self._closed = True
        signal.pthread_sigmask(signal.SIG_BLOCK, self._blocked & self._before.keys())
        for number, before in self._before.items():
            # None: it was not set by Python, and cannot be put back by it.
            signal.signal(number, signal.SIG_DFL if before is None else before)
        self._callbacks.clear()
        signal.set_wakeup_fd(self._wakeup_before)
        self._reactor.unwatch(self._woken)
        os.close(self._woken)
        os.close(self._waker)
