"""Which process holds an address, as far as /proc tells (proc(5))."""

import os
import socket as _socket
import sys
from collections.abc import Iterable, Iterator

import attrs


@attrs.frozen
class Process:
    """A process with a descriptor open.

    Attributes:
        pid: Its process id.
        program: Its name, as the kernel has it.
    """

    pid: int
    program: str

    def __str__(self) -> str:
        return f"{self.program} (pid {self.pid})"


def inet_holders(protocol: str, host: str, port: int) -> list[Process]:
    """Return the processes that have a ``tcp`` or ``udp`` socket bound to `port`.

    Args:
        protocol: ``tcp`` or ``udp``.
        host: Only those in the way of this numeric address; empty for any.
        port: The port.
    """
    addresses = {_proc_address(one) for one in (host, "0.0.0.0", "::", f"::ffff:{host}") if host}
    inodes = set()
    for table in (protocol, f"{protocol}6"):
        for fields in _table(f"/proc/net/{table}"):
            # local address, remote address, state; those of TCP that are connected do not matter
            local, _, number = fields[1].partition(":") if len(fields) > 9 else ("", "", "")
            in_the_way = not addresses or local in addresses or host in ("0.0.0.0", "::")
            if number == f"{port:04X}" and in_the_way and (protocol == "udp" or fields[3] == "0A"):
                inodes.add(fields[9])
    return holders_of(inodes)


def _proc_address(host: str) -> str:
    """Write a numeric address as /proc/net/tcp does: words of this machine's byte order."""
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            packed = _socket.inet_pton(family, host)
        except OSError:
            continue
        words = (packed[i : i + 4] for i in range(0, len(packed), 4))
        return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
    return ""


def unix_holders(path: str) -> list[Process]:
    """Return the processes that have a Unix socket of that path, or ``@`` name, open."""
    inodes = {
        fields[6] for fields in _table("/proc/net/unix") if len(fields) > 7 and fields[7] == path
    }
    return holders_of(inodes)


def _table(path: str) -> Iterator[list[str]]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            next(file, None)
            for line in file:
                yield line.rstrip("\n").split(maxsplit=11 if "unix" not in path else 7)
    except OSError:
        return


def holders_of(inodes: set[str]) -> list[Process]:
    """Return the processes that have a socket with one of these inode numbers open.

    Only processes that this one may look into can be seen: its own user's, or all for root.
    """
    found = holders_by_link(f"socket:[{inode}]" for inode in inodes)
    processes = {one.pid: one for several in found.values() for one in several}
    return list(processes.values())


def holders_by_link(links: Iterable[str]) -> dict[str, list[Process]]:
    """Return for each descriptor the processes that have it open, from one look at all of them.

    Args:
        links: What ``/proc/PID/fd/N`` links to: ``socket:[INODE]``, or the path of a file.
    """
    found: dict[str, list[Process]] = {link: [] for link in links}
    for pid in filter(str.isdecimal, _listed("/proc") if found else ()):
        directory = f"/proc/{pid}/fd"
        opened = {_link(f"{directory}/{fd}") for fd in _listed(directory)} & found.keys()
        if opened:
            process = Process(int(pid), _program(pid))
            for link in opened:
                found[link].append(process)
    return found


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _program(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "a process"
