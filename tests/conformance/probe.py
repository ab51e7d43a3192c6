"""What a program sees that was activated; run as ``python -I -S probe.py OUT``.

It knows nothing of sockact: it asks the kernel, and writes down what it is told, as a literal of
Python. A shell has saved /proc/self/status before, in ``OUT.status``: an interpreter changes what
happens at some signals. It imports as little as it can, since it is started a thousand times.
"""

import _socket
import _stat as stat
import fcntl
import os
import resource
import sys

_SOL = _socket.SOL_SOCKET
_TCP, _IP, _IPV6 = 6, 0, 41
# Option numbers from Linux's headers; what is not valid for a socket is left out of its report.
OPTIONS = {
    "SO_TYPE": (_SOL, 3), "SO_PROTOCOL": (_SOL, 38), "SO_DOMAIN": (_SOL, 39),
    "SO_ACCEPTCONN": (_SOL, 30), "SO_REUSEADDR": (_SOL, 2), "SO_BROADCAST": (_SOL, 6),
    "SO_SNDBUF": (_SOL, 7), "SO_RCVBUF": (_SOL, 8), "SO_KEEPALIVE": (_SOL, 9),
    "SO_PRIORITY": (_SOL, 12), "SO_REUSEPORT": (_SOL, 15), "SO_PASSCRED": (_SOL, 16),
    "SO_TIMESTAMP": (_SOL, 29), "SO_PASSSEC": (_SOL, 34), "SO_TIMESTAMPNS": (_SOL, 35),
    "SO_MARK": (_SOL, 36), "SO_PASSPIDFD": (_SOL, 76), "SO_PASSRIGHTS": (_SOL, 83),
    "TCP_NODELAY": (_TCP, 1), "TCP_KEEPIDLE": (_TCP, 4), "TCP_KEEPINTVL": (_TCP, 5),
    "TCP_KEEPCNT": (_TCP, 6), "TCP_DEFER_ACCEPT": (_TCP, 9),
    "IP_TOS": (_IP, 1), "IP_TTL": (_IP, 2), "IP_PKTINFO": (_IP, 8), "IP_FREEBIND": (_IP, 15),
    "IP_TRANSPARENT": (_IP, 19), "IPV6_UNICAST_HOPS": (_IPV6, 16), "IPV6_V6ONLY": (_IPV6, 26),
    "IPV6_RECVPKTINFO": (_IPV6, 49), "IPV6_TCLASS": (_IPV6, 67), "IPV6_TRANSPARENT": (_IPV6, 75),
    "IPV6_FREEBIND": (_IPV6, 78), "NETLINK_PKTINFO": (270, 3), "SCTP_NODELAY": (132, 3),
}  # fmt: skip
TEXT_OPTIONS = {"SO_BINDTODEVICE": (_SOL, 25), "TCP_CONGESTION": (_TCP, 13)}
# Fields of /proc/self/status, proc_pid_status(5).
_STATUS = {
    "Umask": "umask", "SigBlk": "blocked", "CapInh": "capabilities.inheritable",
    "CapPrm": "capabilities.permitted", "CapEff": "capabilities.effective",
    "CapBnd": "capabilities.bounding", "CapAmb": "capabilities.ambient",
    "NoNewPrivs": "no_new_privileges", "Seccomp": "seccomp",
}  # fmt: skip
# Two signals that libc keeps for itself, and may leave ignored: it is its own matter (nptl(7)).
_OF_LIBC = 3 << 31
# Variables whose value is another one each time, and what is written down of them.
_CHANGING = ("INVOCATION_ID", "JOURNAL_STREAM", "NOTIFY_SOCKET", "SO_COOKIE")
LIMITS = ("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS",
          "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME")  # fmt: skip
"""The resource limits in the order of the kernel's numbers (asm-generic/resource.h)."""


def _backlog(sock: _socket.socket) -> int:
    """Return the backlog of a listening TCP socket (tcpi_sacked of struct tcp_info)."""
    info: bytes = sock.getsockopt(_TCP, 11, 104)
    return int.from_bytes(info[28:32], sys.byteorder)


def _text(name: object) -> object:
    return name.decode() if isinstance(name, bytes) else name


def _socket_of(fd: int) -> dict[str, object]:
    sock = _socket.socket(fileno=fd)
    found: dict[str, object] = {}
    for name, (level, number) in OPTIONS.items():
        try:
            found[name] = sock.getsockopt(level, number)
        except OSError:
            continue
    for name, (level, number) in TEXT_OPTIONS.items():
        try:
            found[name] = sock.getsockopt(level, number, 64).rstrip(b"\0").decode()
        except OSError:
            continue
    if found.get("SO_PROTOCOL") == _TCP and found["SO_ACCEPTCONN"]:
        found["backlog"] = _backlog(sock)
    name = sock.getsockname()
    if found["SO_DOMAIN"] == 16:
        name = name[1:]  # the port of a netlink socket is a number the kernel chose
    found["address"] = _text(name)
    try:
        found["peer"] = _text(sock.getpeername()) if found["SO_DOMAIN"] != 16 else None
    except OSError:
        found["peer"] = None
    sock.detach()
    return found


def describe(fd: int) -> dict[str, object]:
    """Return what can be known of one descriptor."""
    info = os.fstat(fd)
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    found: dict[str, object] = {
        "kind": stat.filemode(info.st_mode)[0],
        "cloexec": fcntl.fcntl(fd, fcntl.F_GETFD),
        "nonblock": bool(flags & os.O_NONBLOCK),
        "access": flags & os.O_ACCMODE,
        "append": bool(flags & os.O_APPEND),
    }
    if stat.S_ISSOCK(info.st_mode):
        return found | _socket_of(fd)
    path = found["path"] = os.readlink(f"/proc/self/fd/{fd}")
    found["mode"] = oct(info.st_mode & 0o7777)
    found["owner"] = [info.st_uid, info.st_gid]
    if stat.S_ISFIFO(info.st_mode):
        found["pipe_size"] = fcntl.fcntl(fd, 1032)
    if path.startswith("/") and path.rindex("/") == 0:
        import ctypes

        attributes = (ctypes.c_long * 8)()
        if not ctypes.CDLL("librt.so.1").mq_getattr(fd, attributes):
            found["mq_maxmsg"], found["mq_msgsize"] = attributes[1], attributes[2]
    return found


def nodes(*roots: str) -> dict[str, object]:
    """Return every node below `roots`: kind, mode, owner, and where a link leads."""
    found: dict[str, object] = {}
    for root in roots:
        for directory, names, files in os.walk(root):
            for name in names + files:
                path = os.path.join(directory, name)
                info = os.lstat(path)
                link = os.readlink(path) if stat.S_ISLNK(info.st_mode) else ""
                found[path] = [stat.filemode(info.st_mode), info.st_uid, info.st_gid, link]
    return found


def _environ() -> dict[str, str]:
    """Return the environment, without what is another one each time."""
    found = dict(os.environ)
    own = str(os.getpid())
    for name, value in found.items():
        if name in _CHANGING:
            found[name] = "set"
        elif name.endswith("PID"):
            found[name] = "own" if value == own else "another" if value.isdigit() else value
    for name in ("LC_CTYPE", "LD_LIBRARY_PATH"):  # that is Python itself, and for it
        found.pop(name, None)
    return found


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def main() -> None:
    """Look around and write down what there is."""
    count = int(os.environ.get("LISTEN_FDS", "0"))
    with open(sys.argv[1] + ".status", encoding="utf-8") as file:
        status = dict(line.split(":\t", 1) for line in file if ":\t" in line)
    # Standard descriptors, the passed ones, and the one with which this list is read.
    extra = sorted(int(name) for name in os.listdir("/proc/self/fd"))[3 + count + 1 :]
    report = {
        "names": os.environ.get("LISTEN_FDNAMES", "").split(":"),
        "pid_is_ours": os.environ.get("LISTEN_PID") == str(os.getpid()),
        "fds": [describe(fd) for fd in range(3, 3 + count)],
        "extra": extra,
        "nodes": nodes("/run/t", "/run/mqueue"),
        "directory": os.getcwd(),
        "ids": [os.getresuid(), os.getresgid(), sorted(os.getgroups())],
        "stdio": {str(fd): describe(fd) for fd in range(3)},
        "environ": _environ(),
        "limits": {name: resource.getrlimit(number) for number, name in enumerate(LIMITS)},
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "oom_score_adjust": _read("/proc/self/oom_score_adj"),
        "scheduler": os.sched_getscheduler(0),
        "processors": sorted(os.sched_getaffinity(0)),
        "timer_slack": _read("/proc/self/timerslack_ns"),
        "core_filter": _read("/proc/self/coredump_filter"),
        "personality": _read("/proc/self/personality"),
        "ignored": int(status["SigIgn"], 16) & ~_OF_LIBC,
        "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    } | {ours: status[theirs].strip() for theirs, ours in _STATUS.items() if theirs in status}
    with open(sys.argv[1] + ".new", "w", encoding="ascii") as file:
        file.write(ascii(report))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    os._exit(0)  # to take everything down in order takes a while


if __name__ == "__main__":
    main()
