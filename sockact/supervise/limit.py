"""How often something may happen: systemd's rate limit. Pure.

A window opens with the first event and lasts for the interval; in it, `burst` events are allowed.
The first event after its end opens the next one. Source: ``src/basic/ratelimit.c`` in systemd.
"""

from sockact.spec import INFINITY

_MICRO = 1_000_000


class RateLimit:
    """At most `burst` events in each window of `interval` microseconds.

    Attributes:
        began: When the window opened, in seconds on the caller's clock; None if there is none.
        count: Events in it so far, those that were refused included.
    """

    __slots__ = ("_burst", "_interval", "began", "count")

    def __init__(self, interval: int, burst: int) -> None:
        """Begin without a window.

        Args:
            interval: Microseconds; 0 switches the limit off, `INFINITY` never begins anew.
            burst: Events; 0 switches the limit off.
        """
        self._interval = float("inf") if interval == INFINITY else interval / _MICRO
        self._burst = burst
        self.began: float | None = None
        self.count = 0

    def __bool__(self) -> bool:
        """Whether there is a limit at all."""
        return self._interval > 0 and self._burst > 0

    def allow(self, now: float) -> bool:
        """Count an event, and return whether it is within the limit.

        Args:
            now: Seconds on a clock that never goes back.
        """
        if not self:
            return True
        if self.began is None or now - self.began > self._interval:
            self.began, self.count = now, 1
            return True
        self.count += 1
        return self.count <= self._burst

    def ends(self, now: float) -> float:
        """Return when the window ends; `now` if none is open."""
        return now if self.began is None else max(now, self.began + self._interval)

    def reset(self) -> None:
        """Forget the window: the next event opens a new one."""
        self.began, self.count = None, 0
