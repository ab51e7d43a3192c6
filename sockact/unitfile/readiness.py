"""When a service counts as ready, as a text and as a value. Pure.

``none`` as soon as it is forked, ``exec`` when execve(2) has succeeded, ``notify`` when it says
READY=1 (sd_notify(3)), ``delay:2s`` when it has lived that long, ``tcp:ADDRESS`` when a connection
is taken, ``http:URL`` when a GET is answered with 2xx or 3xx, ``cmd:COMMAND`` when a command that
is run beside it succeeds.
"""

import enum
import re
from collections.abc import Callable, Iterable
from typing import TypeAlias

import attrs

from sockact.spec import (
    INFINITY,
    Address,
    AsValue,
    HostAddress,
    InetAddress,
    UnixAddress,
)
from sockact.unitfile.address import numeric_host, port, unix
from sockact.unitfile.values import BLANKS, span

Target: TypeAlias = InetAddress | HostAddress | UnixAddress
"""Where a probe connects to; a `HostAddress` without a host is this machine's loopback."""


def _written(target: Target) -> str:
    if isinstance(target, UnixAddress):
        return target.path
    if isinstance(target, HostAddress):
        return f"{target.host}:{target.service}"
    if target.version == 4:
        return f"{target.host}:{target.port}"
    zone = f"%{target.scope}" if target.scope else ""
    return f"[{target.host}{zone}]:{target.port}"


class Said(enum.Enum):
    """Readiness that the start or the service itself tells of: nothing to try."""

    NONE = "none"
    EXEC = "exec"
    NOTIFY = "notify"

    def __str__(self) -> str:
        return self.value


@attrs.frozen(eq=False, repr=False)
class Delay(AsValue):
    """Ready after that many seconds of life."""

    seconds: float

    def __str__(self) -> str:
        return f"delay:{self.seconds:g}s"


@attrs.frozen(eq=False, repr=False)
class Tcp(AsValue):
    """Ready when a stream connection to that address is taken."""

    target: Target

    def __str__(self) -> str:
        return f"tcp:{_written(self.target)}"


@attrs.frozen(eq=False, repr=False)
class Http(AsValue):
    """Ready when a GET is answered with 2xx or 3xx.

    Attributes:
        target: Where to connect to.
        host: The Host header.
        path: The path and query to ask for.
    """

    target: Target
    host: str
    path: str

    def __str__(self) -> str:
        if isinstance(self.target, UnixAddress):
            return f"http://unix:{self.target.path}:{self.path}"
        return f"http://{_written(self.target)}{self.path}"


@attrs.frozen(eq=False, repr=False)
class Command(AsValue):
    """Ready when that command, as ExecStart= would take it, exits with 0."""

    text: str

    def __str__(self) -> str:
        return f"cmd:{self.text}"


Tried: TypeAlias = Delay | Tcp | Http | Command
Readiness: TypeAlias = Said | Tried

_FORMS = "none, exec, notify, delay:SPAN, tcp:ADDRESS, http:URL or cmd:COMMAND"
_HOST = r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?"
_URL = r"//(?P<place>\[[^\]/]*\][^/?#]*|[^/?#]*)(?P<path>[/?][^#]*)?"


def parse_readiness(text: str) -> Readiness:
    """Read a readiness text, of X-Ready= or ``--ready``.

    Raises:
        ValueError: It is none of the forms, or what follows the colon is wrong; one line.
    """
    text = text.strip(BLANKS)
    for said in Said:
        if text == said.value:
            return said
    form, colon, rest = text.partition(":")
    if not colon or form not in _READERS:
        if form in _READERS:
            raise ValueError(f"{form} needs more: write {_EXAMPLES[form]}")
        if form == "https":
            raise ValueError("https is not checked here; write http:URL, or cmd:curl -fsS URL")
        raise ValueError(f"{text[:80]!r} is no readiness; it must be {_FORMS}")
    try:
        return _READERS[form](rest.strip(BLANKS))
    except ValueError as error:
        raise ValueError(f"{form}: {error}") from None


def _delay(text: str) -> Delay:
    microseconds = span(text)
    if microseconds == INFINITY:
        raise ValueError("it would never be ready")
    return Delay(microseconds / 1_000_000)


def _tcp(text: str) -> Tcp:
    return Tcp(_target(text))


def _target(text: str, default_port: int = 0) -> Target:
    """Read ``host:port``, ``[v6]:port``, ``:port``, ``port``, ``/path`` or ``@name``."""
    if text.startswith(("/", "@")):
        return unix(text)
    example = "write HOST:PORT, [IPv6]:PORT, PORT or /PATH"
    match = re.fullmatch(r"\[(?P<six>[^\]%]*)(?:%(?P<zone>[^\]]+))?\](?::(?P<port>.*))?", text)
    if match:
        number = numeric_host(match["six"])
        if number is None or number[0] != 6:
            raise ValueError(f"{match['six']!r} is not an IPv6 address")
        return InetAddress(6, number[1], _port(match["port"], default_port), match["zone"] or "")
    host, colon, service = text.rpartition(":")
    if not colon and not default_port:
        host, service = "", text
        if not text.isdecimal():
            raise ValueError(f"{text[:80]!r} has no port; {example}")
    elif not colon:
        host, service = text, ""
    if ":" in host:
        raise ValueError(f"{text[:80]!r}: an IPv6 address stands in brackets; {example}")
    number = numeric_host(host) if host else None
    if number:
        return InetAddress(4, number[1], _port(service, default_port))
    if host and not re.fullmatch(_HOST, host):
        raise ValueError(f"{host[:80]!r} is neither an IP address nor a host name")
    return HostAddress(host, str(_port(service, default_port)))


def _port(text: str | None, default: int) -> int:
    if not text and default:
        return default
    # integer() would take 0x50 and 010 as well.
    if not text or not text.isascii() or not text.isdecimal() or text.startswith("0"):
        raise ValueError(f"{(text or '')[:40]!r} is not a port from 1 to 65535")
    return port(text)


def _http(text: str) -> Http:
    if text.startswith("https:"):
        raise ValueError("https is not checked here; write cmd:curl -fsS URL")
    match = re.fullmatch(_URL, text.removeprefix("http:"))
    example = "write http://HOST[:PORT]/PATH or http://unix:/SOCKET:/PATH"
    if not match:
        wrong = "has a #fragment, which is never sent" if "#" in text else "is not a URL"
        raise ValueError(f"{text[:80]!r} {wrong}; {example}")
    place, path = match["place"], match["path"] or "/"
    if place == "unix:":
        name, colon, path = path.rpartition(":/")
        if not colon:  # all of it is the socket
            name, path = match["path"] or "", "/"
        target, host, path = unix(name), "localhost", path if path == "/" else f"/{path}"
        return Http(target, host, _path(path))
    if "@" in place:
        raise ValueError(f"{text[:80]!r}: a user name in a URL is not sent; use cmd:curl")
    if not place:
        raise ValueError(f"{text[:80]!r} has no host; {example}")
    if place.isdecimal():
        raise ValueError(f"{text[:80]!r}: {place} alone is no host; write http://:{place}/PATH")
    found = _target(place, 80)
    host = f"localhost{place}" if place.startswith(":") else place
    return Http(found, host, _path(path if path.startswith("/") else f"/{path}"))


def _path(path: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", path):
        raise ValueError(f"{path[:80]!r} has characters that must be written as %XX in a URL")
    return path


def _command(text: str) -> Command:
    if not text:
        raise ValueError(f"there is no command; write {_EXAMPLES['cmd']}")
    return Command(text)


_READERS: dict[str, Callable[[str], Tried]] = {
    "delay": _delay,
    "tcp": _tcp,
    "http": _http,
    "cmd": _command,
}
_EXAMPLES = {
    "delay": "delay:2s",
    "tcp": "tcp:HOST:PORT",
    "http": "http://HOST:PORT/PATH",
    "cmd": "cmd:/usr/bin/check",
}


def shared_listener(readiness: Readiness, listeners: Iterable[Address]) -> Address | None:
    """Return which of the listeners that a service is handed its probe would connect to, or None.

    Such a probe proves little: the kernel takes connections for a listener that is open, whether
    anybody serves it or not, and during a replacement the old instance may be who answers. A probe
    is for an address that the service opens itself.

    Args:
        readiness: What was asked for.
        listeners: The addresses of the listeners.
    """
    if not isinstance(readiness, Tcp | Http):
        return None
    return next((one for one in listeners if _reaches(readiness.target, one)), None)


def _reaches(target: Target, listener: Address) -> bool:
    if isinstance(target, UnixAddress) or isinstance(listener, UnixAddress):
        return target == listener
    if not isinstance(listener, InetAddress | HostAddress) or _port_of(target) != _port_of(
        listener
    ):
        return False
    if listener.host in ("", "0.0.0.0", "::"):
        # Of a host name nobody knows here whether it is this machine's.
        return isinstance(target, InetAddress) or target.host in ("", "localhost")
    return _loopback(target.host) == _loopback(listener.host)


def _port_of(address: InetAddress | HostAddress) -> str:
    return str(address.port) if isinstance(address, InetAddress) else address.service


def _loopback(host: str) -> str:
    if host in ("", "localhost", "::1", "0.0.0.0", "::") or host.startswith("127."):
        return "localhost"
    return host
