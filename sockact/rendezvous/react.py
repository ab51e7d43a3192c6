"""Callbacks on descriptors and on time, for whoever wants to drive them.

A `Reactor` is itself a descriptor that becomes readable when there is something to do, so the same
conversations run in a thread, in a blocking call, and inside asyncio.
"""

import collections
import contextlib
import math
import os
import selectors
import time
from collections.abc import Callable
from typing import Protocol

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

_LONGEST = 86400.0
"""Seconds that are waited for at a time; epoll_wait(2) takes 24 days in milliseconds."""


class Timed(Protocol):
    """Something that wants to be called at a time."""

    def deadline(self) -> float | None:
        """Return when, on the monotonic clock; None for never."""

    def expire(self, now: float) -> None:
        """Do what is due."""


class Reactor:
    """The descriptors and times that one owner or taker waits for.

    Only `post` may be called from another thread than the one that drives it. It owns its selector
    and the pipe that wakes it, nothing else.
    """

    def __init__(self) -> None:
        """Begin with nothing to wait for."""
        self._selector = selectors.DefaultSelector()
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._posted: collections.deque[Callable[[], None]] = collections.deque()
        self._timed: list[Timed] = []
        try:
            self._woken, self._waker = (
                os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else _pipe()
            )
        except BaseException:
            self._selector.close()
            raise
        self._closed = False
        self.watch(self._woken, READ, self._run_posted)

    def fileno(self) -> int:
        """Return the descriptor that is readable when `step` has something to do."""
        return self._selector.fileno()

    def watch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever `fd` is ready for `events`; a second call changes the first."""
        known = fd in self._keys
        place = self._selector.modify if known else self._selector.register
        self._keys[fd] = place(fd, events, callback)

    def unwatch(self, fd: int) -> None:
        """Forget `fd`; to be called before it is closed (epoll(7), Q6)."""
        if self._keys.pop(fd, None) is not None:
            self._selector.unregister(fd)

    def add(self, timed: Timed) -> None:
        """Call `timed` when it is due, from now on."""
        self._timed.append(timed)

    def remove(self, timed: Timed) -> None:
        """Call it no more."""
        if timed in self._timed:
            self._timed.remove(timed)

    def post(self, callback: Callable[[], None]) -> None:
        """Have `callback` run by whoever drives the reactor; callable from any thread.

        Once the reactor is closed this does nothing.
        """
        if not self._closed:
            self._posted.append(callback)
            self._wake()

    def _wake(self) -> None:
        # Another thread may have closed it just now: then there is no number to write to, because
        # that may be somebody else's by now.
        with contextlib.suppress(OSError):  # EAGAIN: it is about to wake anyhow
            os.write(self._waker, b"x")

    def _run_posted(self) -> None:
        with contextlib.suppress(BlockingIOError):  # a nested step may have read it
            os.read(self._woken, 4096)
        try:
            for _ in range(len(self._posted)):  # what these post is for the next step
                if self._posted:
                    self._posted.popleft()()
        except BaseException:
            self._wake()  # for those behind the one that failed
            raise

    def timeout(self) -> float | None:
        """Return the seconds until something is due; None if nothing is."""
        when = self._deadline()
        return None if when is None else max(0.0, when - time.monotonic())

    def _deadline(self) -> float | None:
        first: float | None = None
        for timed in self._timed:
            when = timed.deadline()
            if when is not None and (first is None or when < first):
                first = when
        return first

    def step(self, timeout: float | None = 0.0) -> None:
        """Wait at most so many seconds, and a day, for the next event; do everything that is due.

        What descriptors bring comes before what time brings: a peer's word that has arrived counts,
        however late it is read.
        """
        due = self._deadline()
        wait = None if timeout is None or timeout == math.inf else min(timeout, _LONGEST)
        if due is not None:
            left = min(max(0.0, due - time.monotonic()), _LONGEST)
            wait = left if wait is None else min(left, wait)
        for key, _ in self._selector.select(wait):
            # A callback before this one may have ended what this one is about.
            if self._keys.get(key.fd) is key:
                key.data()
        if due is None or due > (now := time.monotonic()):
            return
        for timed in list(self._timed):
            when = timed.deadline()
            if when is not None and when <= now:
                timed.expire(now)

    def close(self) -> None:
        """Close its own descriptors; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self._keys.clear()
            self._selector.close()
            waker, self._waker = self._waker, -1
            os.close(self._woken)
            os.close(waker)


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return reader, writer
