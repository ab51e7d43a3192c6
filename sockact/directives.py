"""THE table: every directive of ``[Socket]``, one row each, as data.

The parser reads the value syntax and the default from it, the opener the setsockopt() arguments
and whether a failure is fatal, the command line and the manual page everything else. Adding a
directive is adding a row. Rows whose `Moment` is LATE stand in the order in which systemd sets
the options, which is the order in which the opener sets them.

Source: systemd.socket(5) up to version 261, and the order of calls in systemd's
``src/core/socket.c``. Option numbers that Python's socket module lacks are Linux's, from
``include/uapi/asm-generic/socket.h`` and its neighbours.
"""

import socket as _socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from sockact.spec import INFINITY, Directive, Moment, Reach, SockOption, Value

if TYPE_CHECKING:
    from sockact.unitfile.command import Command

_SOL_SOCKET = _socket.SOL_SOCKET
_IP = _socket.IPPROTO_IP
_TCP = _socket.IPPROTO_TCP
_IPV6 = _socket.IPPROTO_IPV6

# Linux numbers; on a system where they mean nothing the call fails, and says so.
SO_BINDTODEVICE = 25
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
_SO_PASSCRED = 16
_SO_PRIORITY = 12
_SO_TIMESTAMP = 29
_SO_PASSSEC = 34
_SO_TIMESTAMPNS = 35
_SO_MARK = 36
_SO_PASSPIDFD = 76
_SO_PASSRIGHTS = 83
_TCP_KEEPIDLE = 4
_TCP_KEEPINTVL = 5
_TCP_KEEPCNT = 6
_TCP_DEFER_ACCEPT = 9
_TCP_CONGESTION = 13
_IP_PKTINFO = 8
_IP_FREEBIND = 15
_IP_TRANSPARENT = 19
_IPV6_RECVPKTINFO = 49
_IPV6_TRANSPARENT = 75
_IPV6_FREEBIND = 78
_SOL_NETLINK = 270
_NETLINK_PKTINFO = 3
_SOL_SCTP = 132
_SCTP_NODELAY = 3

SECOND = 1_000_000
"""Microseconds in a second: time spans are kept in microseconds, as systemd keeps them."""

BACKLOG_MAX = 2**31 - 1
"""The largest backlog listen(2) takes; the kernel caps it to net.core.somaxconn."""


def _flag(level: int, number: int) -> Callable[[bool, int, int], SockOption | None]:
    return lambda on, _family, _protocol: (level, number, 1) if on else None


def _number(level: int, number: int) -> Callable[[int, int, int], SockOption | None]:
    return lambda n, _family, _protocol: (level, number, n) if n >= 0 else None


def _count(level: int, number: int) -> Callable[[int, int, int], SockOption | None]:
    return lambda n, _family, _protocol: (level, number, n) if n > 0 else None


def _seconds(number: int) -> Callable[[int, int, int], SockOption | None]:
    def option(span: int, _family: int, _protocol: int) -> SockOption | None:
        return (_TCP, number, span // SECOND) if span else None

    return option


def _defer(span: int, _family: int, _protocol: int) -> SockOption | None:
    return (_TCP, _TCP_DEFER_ACCEPT, span // SECOND) if 0 < span < INFINITY else None


def _by_family(
    v4: tuple[int, int], v6: tuple[int, int], *more: tuple[int, int, int]
) -> Callable[[bool, int, int], SockOption | None]:
    known = {int(_socket.AF_INET): v4, int(_socket.AF_INET6): v6}
    known |= {family: (level, number) for family, level, number in more}

    def option(on: bool, family: int, _protocol: int) -> SockOption | None:
        # A family without the option gets the IPv4 one, so that the kernel says no and the
        # warning names the call.
        return (*known.get(family, v4), 1) if on else None

    return option


def _no_delay(on: bool, _family: int, protocol: int) -> SockOption | None:
    if not on:
        return None
    return (
        (_SOL_SCTP, _SCTP_NODELAY, 1) if protocol == _SOL_SCTP else (_TCP, _socket.TCP_NODELAY, 1)
    )


def _only_v6(choice: str, family: int, _protocol: int) -> SockOption | None:
    if choice == "default" or family != _socket.AF_INET6:
        return None
    return (_IPV6, _socket.IPV6_V6ONLY, int(choice == "ipv6-only"))


def _ttl(n: int, family: int, _protocol: int) -> SockOption | None:
    if n < 0:
        return None
    if family == _socket.AF_INET6:
        return (_IPV6, _socket.IPV6_UNICAST_HOPS, n)
    return (_IP, _socket.IP_TTL, n)


def _timestamps(choice: str, _family: int, _protocol: int) -> SockOption | None:
    numbers = {"us": _SO_TIMESTAMP, "ns": _SO_TIMESTAMPNS}
    return (_SOL_SOCKET, numbers[choice], 1) if choice in numbers else None


def _text(level: int, number: int) -> Callable[[str, int, int], SockOption | None]:
    def option(text: str, _family: int, _protocol: int) -> SockOption | None:
        return (level, number, text.encode("utf-8", "surrogateescape") + b"\0") if text else None

    return option


def _no_rights(on: bool, _family: int, _protocol: int) -> SockOption | None:
    return None if on else (_SOL_SOCKET, _SO_PASSRIGHTS, 0)


_ONCE = "the program is started once, at once, and is not started again"
_EACH = "only sockact run, and exec --accept, run a program for each connection"
_PID1 = "only systemd itself can do it"
_LSM = "it needs a Linux security module that only systemd sets up"

_L = Moment.LISTENER

LISTEN_STREAM = Directive(
    "ListenStream",
    Value.LISTEN,
    "",
    _L,
    "Listens on a stream socket.",
    "socket(SOCK_STREAM), bind(), listen()",
    specifiers=True,
    fatal=True,
)
LISTEN_DATAGRAM = Directive(
    "ListenDatagram",
    Value.LISTEN,
    "",
    _L,
    "Receives on a datagram socket.",
    "socket(SOCK_DGRAM), bind()",
    specifiers=True,
    fatal=True,
)
LISTEN_SEQPACKET = Directive(
    "ListenSequentialPacket",
    Value.LISTEN,
    "",
    _L,
    "Listens on a sequential packet socket; AF_UNIX only.",
    "socket(SOCK_SEQPACKET), bind(), listen()",
    specifiers=True,
    fatal=True,
)
LISTEN_FIFO = Directive(
    "ListenFIFO",
    Value.LISTEN,
    "",
    _L,
    "Reads and writes a FIFO.",
    "mkfifo(), open(O_RDWR)",
    specifiers=True,
    fatal=True,
)
LISTEN_SPECIAL = Directive(
    "ListenSpecial",
    Value.LISTEN,
    "",
    _L,
    "Opens a character device or a regular file.",
    "open(O_NOFOLLOW)",
    specifiers=True,
    fatal=True,
)
LISTEN_NETLINK = Directive(
    "ListenNetlink",
    Value.LISTEN,
    "",
    _L,
    "Joins a netlink family, and optionally a multicast group.",
    "socket(AF_NETLINK), bind()",
    specifiers=True,
    fatal=True,
)
LISTEN_MQUEUE = Directive(
    "ListenMessageQueue",
    Value.LISTEN,
    "",
    _L,
    "Reads a POSIX message queue.",
    "mq_open(O_RDONLY | O_CREAT)",
    specifiers=True,
    fatal=True,
)
LISTEN_USB = Directive(
    "ListenUSBFunction",
    Value.LISTEN,
    "",
    _L,
    "Opens the endpoints of a USB FunctionFS mount.",
    since=227,
    specifiers=True,
    without_manager="the descriptors come from a service unit that only systemd runs",
)

SOCKET_PROTOCOL = Directive(
    "SocketProtocol",
    Value.PROTOCOL,
    "",
    Moment.CREATE,
    "Uses UDP-Lite, SCTP or multipath TCP instead of the usual protocol, where it fits the kind.",
    "socket()",
    229,
    Reach.INET,
    fatal=True,
)
BIND_IPV6_ONLY = Directive(
    "BindIPv6Only",
    Value.BIND_IPV6,
    "default",
    Moment.BEFORE_BIND,
    "Whether an IPv6 socket also takes IPv4 connections; the kernel decides by default.",
    "IPPROTO_IPV6 IPV6_V6ONLY",
    0,
    Reach.INET6,
    _only_v6,
    True,
)
BIND_TO_DEVICE = Directive(
    "BindToDevice",
    Value.INTERFACE,
    "",
    Moment.BEFORE_BIND,
    "Takes traffic of one network interface only.",
    "SOL_SOCKET SO_BINDTODEVICE",
    0,
    Reach.INET,
    _text(_SOL_SOCKET, SO_BINDTODEVICE),
    True,
    True,
    specifiers=True,
)
REUSE_PORT = Directive(
    "ReusePort",
    Value.BOOLEAN,
    False,
    Moment.BEFORE_BIND,
    "Lets several sockets bind the same port; the kernel spreads the load.",
    "SOL_SOCKET SO_REUSEPORT",
    206,
    Reach.INET,
    _flag(_SOL_SOCKET, _socket.SO_REUSEPORT),
)
FREE_BIND = Directive(
    "FreeBind",
    Value.BOOLEAN,
    False,
    Moment.BEFORE_BIND,
    "Binds an address that no interface has yet.",
    "IP_FREEBIND or IPV6_FREEBIND",
    0,
    Reach.INET,
    _by_family((_IP, _IP_FREEBIND), (_IPV6, _IPV6_FREEBIND)),
)
TRANSPARENT = Directive(
    "Transparent",
    Value.BOOLEAN,
    False,
    Moment.BEFORE_BIND,
    "Binds foreign addresses, for transparent proxies.",
    "IP_TRANSPARENT or IPV6_TRANSPARENT",
    0,
    Reach.INET,
    _by_family((_IP, _IP_TRANSPARENT), (_IPV6, _IPV6_TRANSPARENT)),
)
BACKLOG = Directive(
    "Backlog",
    Value.UNSIGNED,
    BACKLOG_MAX,
    Moment.LISTEN,
    "How many connections may wait to be accepted; the kernel caps it to net.core.somaxconn.",
    "listen()",
    0,
    Reach.ACCEPTING,
    fatal=True,
)

SOCKET_USER = Directive(
    "SocketUser",
    Value.USER,
    "",
    Moment.NODE,
    "Owner of the node; the group becomes that user's unless SocketGroup= is set.",
    "chown()",
    214,
    Reach.NODES,
    fatal=True,
    resets=True,
    specifiers=True,
)
SOCKET_GROUP = Directive(
    "SocketGroup",
    Value.USER,
    "",
    Moment.NODE,
    "Group of the node.",
    "chown()",
    214,
    Reach.NODES,
    fatal=True,
    resets=True,
    specifiers=True,
)
SOCKET_MODE = Directive(
    "SocketMode",
    Value.MODE,
    0o666,
    Moment.NODE,
    "Access mode of the node.",
    "fchmod() before bind(), mkfifo(), mq_open()",
    0,
    Reach.NODES,
    fatal=True,
)
DIRECTORY_MODE = Directive(
    "DirectoryMode",
    Value.MODE,
    0o755,
    Moment.NODE,
    "Access mode of missing parent directories, which are made.",
    "mkdir()",
    0,
    Reach.PATHS,
    fatal=True,
)
WRITABLE = Directive(
    "Writable",
    Value.BOOLEAN,
    False,
    Moment.NODE,
    "Opens the file for writing too.",
    "open(O_RDWR)",
    227,
    Reach.SPECIAL,
    fatal=True,
)
PIPE_SIZE = Directive(
    "PipeSize",
    Value.SIZE,
    0,
    Moment.NODE,
    "Capacity of the pipe in bytes.",
    "fcntl(F_SETPIPE_SZ)",
    0,
    Reach.FIFO,
)
MQUEUE_MAX_MESSAGES = Directive(
    "MessageQueueMaxMessages",
    Value.LONG,
    0,
    Moment.NODE,
    "Most messages in the queue; used if MessageQueueMessageSize= is set too.",
    "mq_open()",
    0,
    Reach.MQUEUE,
    fatal=True,
)
MQUEUE_MESSAGE_SIZE = Directive(
    "MessageQueueMessageSize",
    Value.LONG,
    0,
    Moment.NODE,
    "Most bytes in a message; used if MessageQueueMaxMessages= is set too.",
    "mq_open()",
    0,
    Reach.MQUEUE,
    fatal=True,
)
SYMLINKS = Directive[tuple[str, ...]](
    "Symlinks",
    Value.PATHS,
    (),
    Moment.NODE,
    "Symbolic links to the node; the unit must have exactly one.",
    "symlink()",
    214,
    Reach.PATHS,
    resets=True,
    specifiers=True,
)
REMOVE_ON_STOP = Directive(
    "RemoveOnStop",
    Value.BOOLEAN,
    False,
    Moment.NODE,
    "Removes the node and its symbolic links when the socket set is closed.",
    "unlink()",
    214,
    Reach.NODES,
)

KEEP_ALIVE = Directive(
    "KeepAlive",
    Value.BOOLEAN,
    False,
    Moment.LATE,
    "Probes idle connections.",
    "SOL_SOCKET SO_KEEPALIVE",
    0,
    Reach.TCP,
    _flag(_SOL_SOCKET, _socket.SO_KEEPALIVE),
)
KEEP_ALIVE_TIME = Directive(
    "KeepAliveTimeSec",
    Value.SPAN,
    0,
    Moment.LATE,
    "Idle time before the first probe, in whole seconds.",
    "SOL_TCP TCP_KEEPIDLE",
    216,
    Reach.TCP,
    _seconds(_TCP_KEEPIDLE),
)
KEEP_ALIVE_INTERVAL = Directive(
    "KeepAliveIntervalSec",
    Value.SPAN,
    0,
    Moment.LATE,
    "Time between probes, in whole seconds.",
    "SOL_TCP TCP_KEEPINTVL",
    216,
    Reach.TCP,
    _seconds(_TCP_KEEPINTVL),
)
KEEP_ALIVE_PROBES = Directive(
    "KeepAliveProbes",
    Value.UNSIGNED,
    0,
    Moment.LATE,
    "Unanswered probes before the connection is given up.",
    "SOL_TCP TCP_KEEPCNT",
    216,
    Reach.TCP,
    _count(_TCP, _TCP_KEEPCNT),
)
DEFER_ACCEPT = Directive(
    "DeferAcceptSec",
    Value.SPAN,
    0,
    Moment.LATE,
    "Wakes the program only when data has arrived, or this time has passed.",
    "SOL_TCP TCP_DEFER_ACCEPT",
    216,
    Reach.TCP,
    _defer,
)
NO_DELAY = Directive(
    "NoDelay",
    Value.BOOLEAN,
    False,
    Moment.LATE,
    "Sends small segments at once (no Nagle).",
    "SOL_TCP TCP_NODELAY or SOL_SCTP SCTP_NODELAY",
    216,
    Reach.TCP_SCTP,
    _no_delay,
)
BROADCAST = Directive(
    "Broadcast",
    Value.BOOLEAN,
    False,
    Moment.LATE,
    "Allows datagrams to broadcast addresses.",
    "SOL_SOCKET SO_BROADCAST",
    0,
    Reach.DATAGRAM,
    _flag(_SOL_SOCKET, _socket.SO_BROADCAST),
)
PASS_CREDENTIALS = Directive(
    "PassCredentials",
    Value.BOOLEAN,
    False,
    Moment.LATE,
    "Attaches the sender's pid, uid and gid to each message.",
    "SOL_SOCKET SO_PASSCRED",
    0,
    Reach.UNIX_NETLINK,
    _flag(_SOL_SOCKET, _SO_PASSCRED),
)
PASS_PIDFD = Directive(
    "PassPIDFD",
    Value.BOOLEAN,
    False,
    Moment.LATE,
    "Attaches a pidfd of the sender to each message (Linux 6.5).",
    "SOL_SOCKET SO_PASSPIDFD",
    258,
    Reach.UNIX,
    _flag(_SOL_SOCKET, _SO_PASSPIDFD),
)
PASS_SECURITY = Directive(
    "PassSecurity",
    Value.BOOLEAN,
    False,
    Moment.LATE,
    "Attaches the sender's security label to each message.",
    "SOL_SOCKET SO_PASSSEC",
    0,
    Reach.UNIX,
    _flag(_SOL_SOCKET, _SO_PASSSEC),
)
PASS_PACKET_INFO = Directive(
    "PassPacketInfo",
    Value.BOOLEAN,
    False,
    Moment.LATE,
    "Attaches destination address and interface to each datagram.",
    "IP_PKTINFO, IPV6_RECVPKTINFO or NETLINK_PKTINFO",
    246,
    Reach.INET_NETLINK,
    _by_family(
        (_IP, _IP_PKTINFO), (_IPV6, _IPV6_RECVPKTINFO), (16, _SOL_NETLINK, _NETLINK_PKTINFO)
    ),
)
ACCEPT_FILE_DESCRIPTORS = Directive(
    "AcceptFileDescriptors",
    Value.BOOLEAN,
    True,
    Moment.LATE,
    "Whether peers may send file descriptors (Linux 6.16 can refuse them).",
    "SOL_SOCKET SO_PASSRIGHTS",
    258,
    Reach.UNIX,
    _no_rights,
)
TIMESTAMPING = Directive(
    "Timestamping",
    Value.TIMESTAMPING,
    "off",
    Moment.LATE,
    "Attaches the time of arrival to what is received, in micro- or nanoseconds.",
    "SOL_SOCKET SO_TIMESTAMP or SO_TIMESTAMPNS",
    247,
    Reach.SOCKETS,
    _timestamps,
)
PRIORITY = Directive(
    "Priority",
    Value.INTEGER,
    -1,
    Moment.LATE,
    "Priority of the traffic sent.",
    "SOL_SOCKET SO_PRIORITY",
    0,
    Reach.SOCKETS,
    _number(_SOL_SOCKET, _SO_PRIORITY),
)
RECEIVE_BUFFER = Directive(
    "ReceiveBuffer",
    Value.SIZE,
    0,
    Moment.LATE,
    "Bytes of receive buffer; beyond the system's limit with CAP_NET_ADMIN only.",
    "SOL_SOCKET SO_RCVBUF, then SO_RCVBUFFORCE",
    0,
    Reach.SOCKETS,
    _count(_SOL_SOCKET, _socket.SO_RCVBUF),
)
SEND_BUFFER = Directive(
    "SendBuffer",
    Value.SIZE,
    0,
    Moment.LATE,
    "Bytes of send buffer; beyond the system's limit with CAP_NET_ADMIN only.",
    "SOL_SOCKET SO_SNDBUF, then SO_SNDBUFFORCE",
    0,
    Reach.SOCKETS,
    _count(_SOL_SOCKET, _socket.SO_SNDBUF),
)
MARK = Directive(
    "Mark",
    Value.INTEGER,
    -1,
    Moment.LATE,
    "Firewall mark of the packets sent; needs CAP_NET_ADMIN.",
    "SOL_SOCKET SO_MARK",
    0,
    Reach.INET,
    _number(_SOL_SOCKET, _SO_MARK),
)
IP_TOS = Directive(
    "IPTOS",
    Value.TOS,
    -1,
    Moment.LATE,
    "Type-of-service byte of the packets sent.",
    "IPPROTO_IP IP_TOS",
    0,
    Reach.INET4,
    _number(_IP, _socket.IP_TOS),
    resets=True,
)
IP_TTL = Directive(
    "IPTTL",
    Value.INTEGER,
    -1,
    Moment.LATE,
    "Hop limit of the packets sent.",
    "IP_TTL or IPV6_UNICAST_HOPS",
    0,
    Reach.INET,
    _ttl,
)
TCP_CONGESTION = Directive(
    "TCPCongestion",
    Value.STRING,
    "",
    Moment.LATE,
    "Congestion control algorithm.",
    "SOL_TCP TCP_CONGESTION",
    0,
    Reach.TCP,
    _text(_TCP, _TCP_CONGESTION),
    resets=True,
)

FILE_DESCRIPTOR_NAME = Directive(
    "FileDescriptorName",
    Value.FDNAME,
    "",
    Moment.EXPORT,
    "The name of every descriptor of the unit in LISTEN_FDNAMES; by default the unit's full name.",
    "LISTEN_FDNAMES",
    227,
    resets=True,
    specifiers=True,
)
NON_BLOCKING = Directive(
    "NonBlocking",
    Value.BOOLEAN,
    False,
    Moment.EXPORT,
    "Sets O_NONBLOCK on what the program gets; can be said in --listen and --property, too.",
    "O_NONBLOCK",
    section="Service",
)

ACCEPT = Directive(
    "Accept",
    Value.BOOLEAN,
    False,
    Moment.MANAGER,
    "Starts one process for each connection, instead of one for all.",
    "accept4()",
    applies=Reach.ACCEPTING,
    without_manager=_EACH,
)
FLUSH_PENDING = Directive(
    "FlushPending",
    Value.BOOLEAN,
    False,
    Moment.MANAGER,
    "Discards what is queued each time the socket goes back to listening.",
    "accept4(), read()",
    247,
    without_manager=_ONCE,
)
MAX_CONNECTIONS = Directive(
    "MaxConnections",
    Value.UNSIGNED,
    64,
    Moment.MANAGER,
    "Most processes at a time with Accept=yes.",
    without_manager=_EACH,
)
MAX_CONNECTIONS_PER_SOURCE = Directive(
    "MaxConnectionsPerSource",
    Value.UNSIGNED,
    0,
    Moment.MANAGER,
    "Most processes at a time for one peer address or user with Accept=yes; 0 is no limit.",
    since=232,
    without_manager=_EACH,
)
SERVICE = Directive(
    "Service",
    Value.SERVICE,
    "",
    Moment.MANAGER,
    "The service to start; by default the one of the same name.",
    specifiers=True,
    without_manager="the program is the one on the command line",
)
TRIGGER_LIMIT_INTERVAL = Directive(
    "TriggerLimitIntervalSec",
    Value.SPAN,
    2 * SECOND,
    Moment.MANAGER,
    "The time in which TriggerLimitBurst= starts are allowed; 0 is no limit.",
    since=230,
    without_manager=_ONCE,
)
TRIGGER_LIMIT_BURST = Directive[int | None](
    "TriggerLimitBurst",
    Value.UNSIGNED,
    None,
    Moment.MANAGER,
    "Starts allowed in TriggerLimitIntervalSec=: 200 with Accept=yes, else 20.",
    since=230,
    without_manager=_ONCE,
)
X_TRIGGER_LIMIT_RECOVER = Directive(
    "X-TriggerLimitRecoverSec",
    Value.SPAN_OR_ZERO,
    INFINITY,
    Moment.MANAGER,
    "How long a unit that was started too often rests before it listens again; systemd lets it"
    " fail, and so does infinity.",
    without_manager=_ONCE,
)
POLL_LIMIT_INTERVAL = Directive(
    "PollLimitIntervalSec",
    Value.SPAN,
    2 * SECOND,
    Moment.MANAGER,
    "The time in which PollLimitBurst= wake-ups are allowed; 0 is no limit.",
    since=255,
    without_manager=_ONCE,
)
POLL_LIMIT_BURST = Directive[int | None](
    "PollLimitBurst",
    Value.UNSIGNED,
    None,
    Moment.MANAGER,
    "Wake-ups allowed in PollLimitIntervalSec=: 150 with Accept=yes, else 15.",
    since=255,
    without_manager=_ONCE,
)
DEFER_TRIGGER = Directive(
    "DeferTrigger",
    Value.DEFER,
    "no",
    Moment.MANAGER,
    "Waits for services that conflict with the one to start (Conflicts=, among those that are run),"
    " instead of stopping them: yes, only if they stop already; patient, until they stop.",
    since=258,
    without_manager=_ONCE,
)
DEFER_TRIGGER_MAX = Directive(
    "DeferTriggerMaxSec",
    Value.SPAN_OR_ZERO,
    INFINITY,
    Moment.MANAGER,
    "How long DeferTrigger= waits; then the unit fails.",
    since=258,
    without_manager=_ONCE,
)
TIMEOUT = Directive(
    "TimeoutSec",
    Value.SPAN_OR_ZERO,
    90 * SECOND,
    Moment.MANAGER,
    "How long each command of ExecStartPre= and the like may take.",
    without_manager="no such command is run",
)
EXEC_START_PRE = Directive[tuple["Command", ...]](
    "ExecStartPre",
    Value.COMMANDS,
    (),
    Moment.MANAGER,
    "Commands to run before the listeners are opened.",
    resets=True,
    specifiers=True,
    without_manager="commands of the unit are not run",
)
EXEC_START_POST = Directive[tuple["Command", ...]](
    "ExecStartPost",
    Value.COMMANDS,
    (),
    Moment.MANAGER,
    "Commands to run after the listeners are opened.",
    resets=True,
    specifiers=True,
    without_manager="commands of the unit are not run",
)
EXEC_STOP_PRE = Directive[tuple["Command", ...]](
    "ExecStopPre",
    Value.COMMANDS,
    (),
    Moment.MANAGER,
    "Commands to run before the listeners are closed.",
    resets=True,
    specifiers=True,
    without_manager="commands of the unit are not run",
)
EXEC_STOP_POST = Directive[tuple["Command", ...]](
    "ExecStopPost",
    Value.COMMANDS,
    (),
    Moment.MANAGER,
    "Commands to run after the listeners are closed.",
    resets=True,
    specifiers=True,
    without_manager="commands of the unit are not run",
)
PASS_FDS_TO_EXEC = Directive(
    "PassFileDescriptorsToExec",
    Value.BOOLEAN,
    False,
    Moment.MANAGER,
    "Passes the descriptors to ExecStartPost=, ExecStopPre= and ExecStopPost= too.",
    since=256,
    without_manager="commands of the unit are not run",
)

SMACK_LABEL = Directive(
    "SmackLabel",
    Value.STRING,
    "",
    Moment.NEVER,
    "SMACK label of the socket.",
    since=196,
    resets=True,
    without_manager=_LSM,
    specifiers=True,
)
SMACK_LABEL_IP_IN = Directive(
    "SmackLabelIPIn",
    Value.STRING,
    "",
    Moment.NEVER,
    "SMACK label of incoming traffic.",
    since=196,
    resets=True,
    without_manager=_LSM,
    specifiers=True,
)
SMACK_LABEL_IP_OUT = Directive(
    "SmackLabelIPOut",
    Value.STRING,
    "",
    Moment.NEVER,
    "SMACK label of outgoing traffic.",
    since=196,
    resets=True,
    without_manager=_LSM,
    specifiers=True,
)
SELINUX_CONTEXT_FROM_NET = Directive(
    "SELinuxContextFromNet",
    Value.BOOLEAN,
    False,
    Moment.NEVER,
    "Takes the SELinux level of the service from its peer.",
    since=217,
    without_manager=_LSM,
)

TABLE: dict[str, Directive[object]] = {
    row.name: row for row in tuple(globals().values()) if isinstance(row, Directive)
}
"""Every row by name, in the order of this file."""

BEFORE_BIND = tuple(row for row in TABLE.values() if row.moment is Moment.BEFORE_BIND)
LATE = tuple(row for row in TABLE.values() if row.moment is Moment.LATE)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the one of `known` that `name` was most likely meant to be, or an empty string."""
    import difflib  # noqa: PLC0415 - only for those who mistyped

    folded = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), folded, 1, 0.65)
    return folded[close[0]] if close else ""
