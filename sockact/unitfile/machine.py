"""What units take from the machine they are on: the specifiers that it and its users decide.

Source: systemd.unit(5), "Specifiers"; os-release(5), machine-info(5), file-hierarchy(7).
"""

import functools
import os
from collections.abc import Callable, Iterable, Mapping

from sockact.unitfile.builder import Surroundings
from sockact.unitfile.specifiers import unit_specifiers

_ARCHITECTURES = {"x86_64": "x86-64", "aarch64": "arm64", "i686": "x86", "i386": "x86",
                  "ppc64le": "ppc64-le", "armv7l": "arm", "armv6l": "arm"}  # fmt: skip
_OS_RELEASE = {"o": "ID", "w": "VERSION_ID", "W": "VARIANT_ID", "B": "BUILD_ID",
               "M": "IMAGE_ID", "A": "IMAGE_VERSION"}  # fmt: skip


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""


def _shell_assignment(paths: Iterable[str], key: str) -> str:
    """Return the value of `key` in the first of these os-release(5)-like files that exists."""
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    name, _, value = line.strip().partition("=")
                    if name == key:
                        return value.strip("\"'")
                return ""
        except OSError:
            continue
    return ""


def _account(letter: str) -> str:
    import grp  # noqa: PLC0415
    import pwd  # noqa: PLC0415

    match letter:
        case "U":
            return str(os.getuid())
        case "G":
            return str(os.getgid())
        case "g":
            return grp.getgrgid(os.getgid()).gr_name
    entry = pwd.getpwuid(os.getuid())
    return {"u": entry.pw_name, "h": entry.pw_dir, "s": entry.pw_shell or "/bin/sh"}[letter]


def _host(letter: str) -> str | None:
    """Return the specifiers that come from uname(2) and from files of the machine."""
    host = os.uname()
    match letter:
        case "H":
            return host.nodename
        case "l":
            return host.nodename.partition(".")[0]
        case "q":
            return _shell_assignment(["/etc/machine-info"], "PRETTY_HOSTNAME") or host.nodename
        case "m":
            return _first_line("/etc/machine-id") or None
        case "b":
            return _first_line("/proc/sys/kernel/random/boot_id").replace("-", "") or None
        case "v":
            return host.release
        case "a":
            return _ARCHITECTURES.get(host.machine, host.machine)
    return None


def _directories(environ: Mapping[str, str], *, user: bool) -> dict[str, str]:
    """Return the specifiers that name directories (file-hierarchy(7), XDG base directories)."""
    home = environ.get("HOME") or "/root"
    state = environ.get("XDG_STATE_HOME") or f"{home}/.local/state"
    temporary = next((environ[k] for k in ("TMPDIR", "TEMP", "TMP") if environ.get(k)), "")
    return (
        {
            "t": environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}",
            "S": state,
            "C": environ.get("XDG_CACHE_HOME") or f"{home}/.cache",
            "L": f"{state}/log",
            "E": environ.get("XDG_CONFIG_HOME") or f"{home}/.config",
            "D": environ.get("XDG_DATA_HOME") or f"{home}/.local/share",
        }
        if user
        else {
            "t": "/run", "S": "/var/lib", "C": "/var/cache", "L": "/var/log", "E": "/etc",
            "D": "/usr/share",
        }
    ) | {"T": temporary or "/tmp", "V": temporary or "/var/tmp"}  # fmt: skip


def machine_specifiers(environ: Mapping[str, str], *, user: bool) -> Callable[[str], str | None]:
    """Return the meaning of the specifiers that depend on machine and user, each read on demand."""
    directories = _directories(environ, user=user)

    @functools.cache
    def resolve(letter: str) -> str | None:
        if letter in directories:
            return directories[letter]
        if letter in "uUgGhs":
            try:
                return _account(letter)
            except KeyError:
                return None
        if letter in _OS_RELEASE:
            files = ("/etc/os-release", "/usr/lib/os-release")
            return _shell_assignment(files, _OS_RELEASE[letter])
        return _host(letter)

    return resolve


def _interface_exists(name: str) -> bool:
    import socket  # noqa: PLC0415

    try:
        if name.isdecimal():
            socket.if_indextoname(int(name))
        else:
            socket.if_nametoindex(name)
    except (OSError, OverflowError):
        return False
    return True


def surroundings(name: str, path: str, environ: Mapping[str, str], *, user: bool) -> Surroundings:
    """Return what the meaning of a unit takes from its name, its file and this machine."""
    own = unit_specifiers(name)
    own |= {"y": path, "Y": os.path.dirname(path)}
    machine = machine_specifiers(environ, user=user)
    own["d"] = f"{machine('t')}/credentials/{name}"
    return Surroundings(
        resolve=lambda letter: own[letter] if letter in own else machine(letter),
        ipv6=os.path.exists("/proc/net/if_inet6") or not os.path.exists("/proc/net"),
        interface=_interface_exists,
    )
