"""How a supervisor runs, and where it can stand. Pure."""

import enum
from collections.abc import Mapping

import attrs


@attrs.frozen
class Settings:
    """How a supervisor runs.

    Attributes:
        path: The rendezvous at which it is the owner, and is controlled; None for none.
        shared: Whether somebody else may come to that path: its sockets do not block then.
        source: A rendezvous whose owner or holder has the sockets; None to open them.
        timeout: Seconds to wait for an owner that is busy, starting or stopping.
        drain: Seconds that its drain may last, once it has a successor; 0 for ever.
        trusted: Users who may own the path besides root and this process's own user.
        environ: The environment that every service begins with.
        whole_environ: What PassEnvironment= takes variables from.
        search: Where programs without a path are looked up; empty for systemd's own places.
        death_signal: Whether services are stopped by the kernel if this process is killed.
        sessions: Whether each service gets a session of its own, or else shares ours.
        stays: Whether this process, when it has handed everything over, waits for a signal: for
            container managers that start again whatever ends.
        passes_status: Whether the end of the only service is the end of all, with its status.
    """

    path: str | None = None
    shared: bool = False
    source: str | None = None
    timeout: float = 30.0
    drain: float = 0.0
    trusted: tuple[int, ...] = ()
    environ: Mapping[str, str] = attrs.field(factory=dict)
    whole_environ: Mapping[str, str] = attrs.field(factory=dict)
    search: str = ""
    death_signal: bool = True
    sessions: bool = True
    stays: bool = False
    passes_status: bool = False


class Place(enum.Enum):
    """Where a supervisor stands."""

    BOOTING = "booting"
    TRYING = "trying"
    SERVING = "serving"
    DRAINING = "draining"
    ENDING = "ending"
