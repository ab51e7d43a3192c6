"""The vocabulary: immutable values that say what is to be opened, never how.

A definition text, whether a ``.socket`` file or a ``--listen`` option, becomes a `SocketSpec`: its
listeners in order, and the directives that were set. The directives themselves are rows of
``sockact.directives``; a spec keeps only what was said, with the place where it was said, and a
row knows its own default. Nothing here opens, reads or owns anything.
"""

import enum
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar, Generic, TypeVar

import attrs

T = TypeVar("T")

INFINITY = (1 << 64) - 1
"""A time span without end, in microseconds (systemd's USEC_INFINITY)."""


class Kind(enum.Enum):
    """What a listener is; the value is what ``systemctl list-sockets`` calls it."""

    STREAM = "Stream"
    DATAGRAM = "Datagram"
    SEQPACKET = "SequentialPacket"
    FIFO = "FIFO"
    SPECIAL = "Special"
    NETLINK = "Netlink"
    MQUEUE = "MessageQueue"
    USB = "USBFunction"


ACCEPTING = (Kind.STREAM, Kind.SEQPACKET)
"""The kinds on which connections are accepted."""

PROTOCOLS = {"udplite": 136, "sctp": 132, "mptcp": 262}
"""The values of SocketProtocol=, and their IPPROTO_ numbers."""


class AsValue:
    """Equality, hash and repr for all value classes.

    Written once, because attrs would compile them for each class, which takes more than half of
    the time that this module takes to import, and this module is on every user's way to a start.
    """

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def _values(self) -> tuple[object, ...]:
        return tuple([getattr(self, name) for name in self.__match_args__])

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        fields = (f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__name__}({', '.join(fields)})"


# --- addresses ------------------------------------------------------------------------------------


@attrs.frozen(eq=False, repr=False)
class InetAddress(AsValue):
    """An IP address and port.

    Attributes:
        version: 4 or 6; 0 is "every address of this machine": ``[::]`` where there is IPv6, else
            ``0.0.0.0`` (systemd's meaning of a bare port).
        host: The numeric address; empty with version 0.
        port: 1 to 65535; 0 lets the kernel choose (``--listen`` only).
        scope: Interface name or index of a link-local IPv6 address, or empty; without effect on
            an IPv4 address.
    """

    version: int
    host: str
    port: int
    scope: str = ""

    def __str__(self) -> str:
        if not self.version:
            return str(self.port)
        if self.version == 4:
            return f"{self.host}:{self.port}"
        return f"[{self.host}]:{self.port}" + (f"%{self.scope}" if self.scope else "")


@attrs.frozen(eq=False, repr=False)
class HostAddress(AsValue):
    """A host or service by name, looked up when it is opened (``--listen`` only).

    Attributes:
        host: Host name or numeric address; empty for every address of this machine.
        service: A name from services(5), or a port number.
        version: 4 or 6 to take only such addresses, 0 for all.
    """

    host: str
    service: str
    version: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.service}" if host else self.service


@attrs.frozen(eq=False, repr=False)
class UnixAddress(AsValue):
    """An AF_UNIX path, or an abstract name written with a leading ``@``."""

    path: str

    @property
    def abstract(self) -> bool:
        """Whether the name lives in the abstract namespace, without a node."""
        return self.path.startswith("@")

    def __str__(self) -> str:
        return self.path


@attrs.frozen(eq=False, repr=False)
class VsockAddress(AsValue):
    """A port of this machine's, or any, context id (vsock(7))."""

    cid: int
    port: int

    def __str__(self) -> str:
        return f"vsock:{'' if self.cid == 0xFFFFFFFF else self.cid}:{self.port}"


@attrs.frozen(eq=False, repr=False)
class NetlinkAddress(AsValue):
    """A netlink protocol and multicast group mask (netlink(7))."""

    family: str
    protocol: int
    group: int = 0

    def __str__(self) -> str:
        return f"{self.family} {self.group}"


@attrs.frozen(eq=False, repr=False)
class PathAddress(AsValue):
    """The absolute path of a FIFO, special file or FunctionFS mount, or the name of a queue."""

    path: str

    def __str__(self) -> str:
        return self.path


Address = InetAddress | HostAddress | UnixAddress | VsockAddress | NetlinkAddress | PathAddress


# --- what was said, and where ---------------------------------------------------------------------


@attrs.frozen(eq=False, repr=False)
class Origin(AsValue):
    """Where something was said: a file, line and column, or a ``--listen`` text."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.source
        return f"{self.source}:{self.line}" + (f":{self.column}" if self.column else "")


@attrs.frozen(eq=False, repr=False)
class Diagnostic(AsValue):
    """Something that a person should know about a definition that is used all the same."""

    origin: Origin
    message: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.message}"


@attrs.frozen(eq=False, repr=False)
class Setting(AsValue):
    """The value of a directive, and where it was (last) set.

    Attributes:
        value: The value.
        origin: The last line that set it.
        origins: Of a list, the place of each element.
    """

    value: object
    origin: Origin
    origins: tuple[Origin, ...] = ()


class Value(enum.Enum):
    """The syntax of a directive's value; ``sockact.unitfile.values`` reads and writes each."""

    BOOLEAN = "boolean"
    UNSIGNED = "unsigned integer"
    INTEGER = "integer"
    LONG = "long integer"
    MODE = "octal file mode"
    SIZE = "size in bytes"
    SPAN = "time span"
    SPAN_OR_ZERO = "time span, 0 is infinity"
    STRING = "string"
    PATHS = "list of paths"
    FDNAME = "file descriptor name"
    INTERFACE = "network interface"
    USER = "user or group"
    SERVICE = "service unit"
    COMMANDS = "command lines"
    PROTOCOL = "protocol"
    BIND_IPV6 = "default, both or ipv6-only"
    TIMESTAMPING = "off, us or ns"
    TOS = "type of service"
    DEFER = "boolean or patient"
    LISTEN = "address"
    # Those below stand in service units only; ``sockact.unitfile.service_values`` reads them.
    TYPE = "simple, exec, notify, notify-reload or oneshot"
    RESTART = "no, on-success, on-failure, on-abnormal, on-watchdog, on-abort or always"
    KILL_MODE = "control-group, mixed, process or none"
    NOTIFY_ACCESS = "none, main, exec or all"
    PRESERVE = "boolean, restart or on-success"
    SIGNAL = "signal"
    STATUSES = "list of exit statuses and signals"
    ENVIRONMENT = "list of NAME=VALUE"
    NAMES = "list of variable names"
    UNSET = "list of variable names and NAME=VALUE"
    FILES = "absolute path, - in front if it may be missing"
    DIRECTORY = "absolute path or ~, - in front if it may be missing"
    GROUPS = "list of groups"
    SOCKETS = "list of socket units"
    UNITS = "list of units"
    LIMIT = "SOFT:HARD, one number for both, or infinity"
    INPUT = "null, socket, fd:NAME or file:PATH"
    OUTPUT = "inherit, null, socket, fd:NAME, file:PATH, append:PATH or truncate:PATH"
    OPEN_FILE = "PATH[:NAME[:OPTION,...]]"
    NICE = "-20 to 19"
    OOM_SCORE = "-1000 to 1000"
    READY = "none, exec, notify, delay:SPAN, tcp:ADDRESS, http:URL or cmd:COMMAND"
    COUNT = "whole number from 1 to 1000"


class Moment(enum.Enum):
    """When a directive acts."""

    LISTENER = "is a listener"
    CREATE = "at socket()"
    BEFORE_BIND = "before bind()"
    LISTEN = "at listen()"
    LATE = "after listen()"
    NODE = "when the node is made"
    EXPORT = "when the program starts"
    MANAGER = "by sockact run, or by systemd"
    NEVER = "never"


class Reach(enum.Enum):
    """What kind of listener a directive has an effect on, as the manual shows it."""

    ALL = "every listener"
    SOCKETS = "every socket"
    INET = "IPv4 and IPv6"
    INET4 = "IPv4"
    INET6 = "IPv6"
    TCP = "TCP"
    TCP_SCTP = "TCP and SCTP"
    DATAGRAM = "datagram sockets"
    ACCEPTING = "stream and sequential packet sockets"
    UNIX = "AF_UNIX"
    UNIX_NETLINK = "AF_UNIX and netlink"
    INET_NETLINK = "IPv4, IPv6 and netlink"
    PATHS = "AF_UNIX paths and FIFOs"
    NODES = "AF_UNIX paths, FIFOs and message queues"
    FIFO = "ListenFIFO="
    SPECIAL = "ListenSpecial="
    MQUEUE = "ListenMessageQueue="


SockOption = tuple[int, int, int | bytes]
"""The arguments of one setsockopt(): level, option, value."""


@attrs.frozen(eq=False, repr=False)
class Directive(AsValue, Generic[T]):
    """One row of the directive table.

    Attributes:
        name: The key, as systemd spells it.
        value: The syntax of its value.
        default: What holds if it is not set.
        moment: When it acts.
        summary: What it does, one sentence for the manual.
        call: The system call behind it, as the manual shows it.
        since: The systemd version that has it first; 0 if older than 214.
        applies: What kind of listener it has an effect on.
        option: For setsockopt() directives: (value, address family, protocol) to the arguments,
            or None where there is nothing to set.
        fatal: Whether a failure of the call makes the listener fail; else it is a warning.
        resets: Whether an empty assignment brings back the default; else it is an error.
        without_manager: For `Moment.MANAGER`: why `sockact exec` has no use for it; for
            `Moment.NEVER`: why it has no effect at all.
        specifiers: Whether ``%`` specifiers are expanded.
        section: The section it belongs to.
    """

    name: str
    value: Value
    default: T
    moment: Moment
    summary: str
    call: str = ""
    since: int = 0
    applies: Reach = Reach.ALL
    option: Callable[[T, int, int], SockOption | None] | None = None
    fatal: bool = False
    resets: bool = False
    without_manager: str = ""
    specifiers: bool = False
    section: str = "Socket"


# --- what is to be opened -------------------------------------------------------------------------


@attrs.frozen(eq=False, repr=False)
class ListenerSpec(AsValue):
    """One thing to open.

    Attributes:
        kind: What it is.
        address: Where it is.
        name: Its fd name, as LISTEN_FDNAMES will carry it.
        origin: Where it was asked for.
    """

    kind: Kind
    address: Address
    name: str
    origin: Origin

    def __str__(self) -> str:
        return f"{self.name} ({self.kind.value} {self.address})"


_NOTHING: Mapping[str, Setting] = MappingProxyType({})


@attrs.frozen(eq=False, repr=False)
class SocketSpec(AsValue):
    """A socket unit as a value: listeners that share one group of directives.

    Attributes:
        name: The unit's full name (``web.socket``), or the ``--listen`` text.
        listeners: What to open, in order.
        settings: The directives that were set, by name.
        diagnostics: What was ignored on the way here.
        path: The unit's main file; empty for a ``--listen`` text.
        files: The main file and the drop-ins that were read.
    """

    name: str
    listeners: tuple[ListenerSpec, ...]
    settings: Mapping[str, Setting] = _NOTHING
    diagnostics: tuple[Diagnostic, ...] = ()
    path: str = ""
    files: tuple[str, ...] = ()

    def get(self, directive: Directive[T]) -> T:
        """Return the value of `directive`: what was set, else its default."""
        setting = self.settings.get(directive.name)
        return directive.default if setting is None else setting.value  # type: ignore[return-value]


@attrs.frozen(eq=False, repr=False)
class ServiceSpec(AsValue):
    """A service unit as a value: how a program is run.

    Attributes:
        name: The unit's full name (``web.service``).
        settings: The directives that were set, by name.
        diagnostics: What was ignored on the way here.
        path: The unit's main file; empty if it was said on the command line.
        files: The main file and the drop-ins that were read.
    """

    name: str
    settings: Mapping[str, Setting] = _NOTHING
    diagnostics: tuple[Diagnostic, ...] = ()
    path: str = ""
    files: tuple[str, ...] = ()

    def get(self, directive: Directive[T]) -> T:
        """Return the value of `directive`: what was set, else its default."""
        setting = self.settings.get(directive.name)
        return directive.default if setting is None else setting.value  # type: ignore[return-value]
