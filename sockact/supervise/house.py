"""What all services of one supervisor share: the loop, the children, the clock, the log."""

import logging
import os
import time
from collections.abc import Mapping
from typing import Protocol

from sockact.rendezvous.react import Reactor
from sockact.supervise.fork import Children

logger = logging.getLogger("sockact.run")


class Ending(Protocol):
    """Something that waits until none of its processes is left."""

    def child_ended(self) -> None:
        """Look again: some child of this process has ended."""


class House:
    """The surroundings of every service.

    Attributes:
        reactor: What calls everybody.
        children: The processes that were started here.
        base: The environment that every service begins with.
        whole: What PassEnvironment= takes variables from.
        search: Where programs without a path are looked up; empty for systemd's own places.
        death_signal: Whether children are told when this process dies.
        sessions: Whether each gets a session of its own.
        ending: Whether everything is being stopped: nothing is started any more.
        ending_ones: Whoever waits for the end of processes that may be no children of this one.
        polls: Whether traffic may start anything: not while somebody else serves.
    """

    def __init__(
        self,
        reactor: Reactor,
        base: Mapping[str, str],
        whole: Mapping[str, str],
        *,
        search: str = "",
        death_signal: bool = True,
        sessions: bool = True,
    ) -> None:
        """Begin without children."""
        self.reactor = reactor
        self.children = Children(reactor)
        self.base = base
        self.whole = whole
        self.search = search
        self.death_signal = death_signal
        self.sessions = sessions
        self.ending = False
        self.ending_ones: set[Ending] = set()
        self.polls = False

    now = staticmethod(time.monotonic)
    """The seconds on the clock that everything here is timed by."""


def new_invocation() -> str:
    """Return a name for one run of a service (INVOCATION_ID of systemd.exec(5))."""
    return os.urandom(16).hex()


def log(level: int, unit: str, text: object, *arguments: object, **fields: object) -> None:
    """Write one line about a unit to the log.

    Args:
        level: As in `logging`.
        unit: Its name.
        text: What there is to say, or its format if there are arguments.
        arguments: For the format.
        fields: What else belongs to it, for machines.
    """
    if logger.isEnabledFor(level):
        said = str(text) % arguments if arguments else text
        logger.log(level, "%s: %s", unit, said, extra={"unit": unit, **fields})
