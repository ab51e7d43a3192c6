"""Siblings that come and go: listeners with one address, one for each process (ReusePort=yes).

The kernel spreads new connections over all that are open, whether somebody serves them or not, and
resets those that wait in one that is closed, unless net.ipv4.tcp_migrate_req is 1
(Documentation/networking/ip-sysctl.rst). So those that are new get nothing before they are served;
and those that are given up get nothing any more while the processes that serve them are still told
to go on, until nothing is left in them.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence

from sockact.fd.own import OwnedFd
from sockact.fd.queue import handshakes, queue
from sockact.fd.reuseport import Group, group, spread, steer
from sockact.rendezvous.react import Reactor
from sockact.supervise.house import log

EBB_SECONDS = 10.0
"""How long what waits in listeners that are given up may take to be accepted."""

_LOOK_SECONDS = 0.02


class Steering:
    """Which of several siblings get new connections."""

    def __init__(self) -> None:
        """Begin with all as the kernel has them."""
        self._counts: dict[Group, int] = {}
        self._complained = False

    def confine(
        self, handles: Iterable[OwnedFd], idle: Collection[OwnedFd] = (), *, more: bool = False
    ) -> None:
        """Have new connections go to those siblings alone that come before the first idle one.

        While some are idle, those that begin to listen later get nothing either: their numbers
        change when the idle ones are closed.

        Args:
            handles: Listeners, siblings in the order in which they began to listen.
            idle: Those of them that are served no more.
            more: Whether others are about to begin to listen, which are not served yet.
        """
        if not (idle or more or self._counts):
            return
        for key, members in _groups(handles).items():
            served = [one not in idle for one in members]
            count = served.index(False) if False in served else len(members)
            try:
                if count < len(members) or more:
                    if count := min(count, self._counts.get(key, count)):
                        steer(members[0].fileno(), count)
                        self._counts[key] = count
                elif self._counts.pop(key, 0):
                    spread(members[0].fileno())
            except OSError as error:
                self._complain(members[0], error)

    def _complain(self, handle: OwnedFd, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            name = getattr(handle, "name", "ReusePort=yes")
            text = "connections cannot be steered, so some may be lost when there are to be fewer"
            log(logging.WARNING, name, f"{text} or more processes: {error.strerror}")


def _groups(handles: Iterable[OwnedFd]) -> dict[Group, list[OwnedFd]]:
    found: dict[Group, list[OwnedFd]] = {}
    for one in handles:
        if not one.closed and (key := group(one.fileno())) is not None:
            found.setdefault(key, []).append(one)
    return found


def siblings(handles: Iterable[OwnedFd], some: Collection[OwnedFd]) -> list[OwnedFd]:
    """Return those of `some` that have a sibling among `handles` which is not of them."""
    if not some:
        return []  # nothing is asked about sockets that stay
    return [
        one
        for members in _groups(handles).values()
        if any(other not in some for other in members)
        for one in members
        if one in some
    ]


class Ebb:
    """Waits until nothing is left in listeners that get nothing new any more."""

    def __init__(
        self,
        reactor: Reactor,
        handles: Sequence[OwnedFd],
        now: float,
        done: Callable[[int], None],
    ) -> None:
        """Begin to wait.

        Args:
            reactor: What calls it.
            handles: The listeners, which somebody accepts from.
            now: The time.
            done: Called with how many connections are left all the same.
        """
        self._reactor = reactor
        self._handles = handles
        self._done = done
        self._until = now + EBB_SECONDS
        # A handshake that another processor has just begun is seen by then.
        self._look = now + _LOOK_SECONDS
        self._begun: frozenset[bytes] | None = None
        reactor.add(self)

    def deadline(self) -> float | None:
        """Return when it looks again."""
        return self._look

    def expire(self, now: float) -> None:
        """Look."""
        numbers = [one.fileno() for one in self._handles if not one.closed]
        current = frozenset[bytes]().union(*map(handshakes, numbers))
        # Those that begin later are for other listeners.
        self._begun = current if self._begun is None else self._begun & current
        waiting = sum(found.now for number in numbers if (found := queue(number)))
        left = waiting + len(self._begun)
        if left and now < self._until:
            self._look = now + _LOOK_SECONDS
            return
        self.cancel()
        self._done(waiting)

    def cancel(self) -> None:
        """Wait no more."""
        self._reactor.remove(self)
