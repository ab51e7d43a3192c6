"""Who made a connection, as the kernel told when it was accepted. Pure."""

import attrs

from sockact.spec import AsValue


@attrs.frozen(eq=False, repr=False)
class End(AsValue):
    """One end of a connection.

    Attributes:
        host: Numeric address; the context id of vsock; the path of a Unix socket, or its abstract
            name with a leading ``@``; empty if a Unix socket has no name.
        port: Port of an IP or vsock socket, else 0.
        scope: Interface of a link-local IPv6 address: its name, or its number if it has none.
    """

    host: str = ""
    port: int = 0
    scope: str = ""


@attrs.frozen(eq=False, repr=False)
class Caller(AsValue):
    """A connection, and who is at its other end.

    Attributes:
        family: Address family of this end, as a number.
        local: This end.
        remote: The other end.
        cookie: SO_COOKIE, which no other socket has until the next boot; None where there is none.
        pid: Of a Unix socket: the process that connected; 0 if it is outside of our pid namespace.
        uid: Of a Unix socket: the user it ran as; None if the kernel does not tell.
        pidfd_id: Of a Unix socket: the inode number of a pidfd of that process, which no other
            process ever has; None where there is no pidfs.
    """

    family: int
    local: End
    remote: End
    cookie: int | None = None
    pid: int = 0
    uid: int | None = None
    pidfd_id: int | None = None
