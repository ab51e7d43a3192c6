"""What messages mean to the real systemd, and what they mean here."""

import contextlib
import inspect
import json
import os
import re
import select
import socket
import sys
import time
from pathlib import Path

import pytest

from sockact.activation.hear import Ear, Heard
from sockact.rendezvous.react import READ, Reactor
from sockact.supervise.store import FdStore
from sockact.unitfile.values import span
from tests.conformance.namespaces import Systemd, missing_systemd
from tests.helpers import SECONDS

# Each message, and the descriptors that go with it: a letter is always the same description, H and
# I have hung up, U and V are sockets, the others are files, which cannot be watched. The effects
# add up. $PID is the sender.
CASES: list[tuple[bytes, str]] = [
    (b"READY=0", ""),
    (b"READY=1 ", ""),
    (b" READY=1", ""),
    (b"ready=1", ""),
    (b"X=1\0READY=1", ""),
    (b"READY=1\\", ""),
    (b"READY=1" + b"\nX=" + b"x" * 4087, ""),
    (b"READY=1\nBARRIER=1", ""),
    (b"READY=1\nBARRIER=1", "a"),
    (b"READY=0\r\n\nRE\\ADY=1\r", ""),
    (b"STATUS=one", ""),
    (b"", ""),
    (b"\0", ""),
    (b"\n\n", ""),
    (b"STATUS", ""),
    (b"STATUS=two\0", ""),
    (b"STATUS=three\0\0", ""),
    (b"STATUS=first\nSTATUS=second", ""),
    (b"STATUS= blanks \t ", ""),
    (b"STATUS=back\\slash \\n \\\\ \"quo'ted", ""),
    (b"STATUS=over\\\ntwo lines", ""),
    (b"STATUS=gr\xc3\xbcn", ""),
    (b"STATUS=\xff", ""),
    (b"STATUS=x" + b"y" * 4088, ""),
    (b"STATUS=x" + b"y" * 4089, ""),
    (b"STATUS=surrogate \xed\xa0\x80", ""),
    (b"STATUS=private \xee\x80\x80", ""),
    (b"STATUS=noncharacter \xef\xb7\x90", ""),
    (b"STATUS=\xf4\x8f\xbf\xbd", ""),
    (b"STATUS=\xf4\x8f\xbf\xbe", ""),
    (b"STATUS=kept\nX_\xff\xfe=1", ""),
    (b"STATUS=\nERRNO=5", ""),
    (b"ERRNO=ENOENT", ""),
    (b"ERRNO=4096", ""),
    (b"ERRNO=enoent", ""),
    (b"ERRNO=0x10", ""),
    (b"ERRNO=-1", ""),
    (b"ERRNO= +017", ""),
    (b"ERRNO=17 ", ""),
    (b"ERRNO=0b11", ""),
    (b"ERRNO=", ""),
    (b"ERRNO=4095", ""),
    (b"ERRNO=0", ""),
    (b"WATCHDOG_USEC=900000000", ""),
    (b"WATCHDOG_USEC=-1", ""),
    (b"WATCHDOG_USEC=9e8", ""),
    (b"WATCHDOG_USEC=18446744073709551616", ""),
    (b"WATCHDOG_USEC=0x40000000\nWATCHDOG=1", ""),
    (b"WATCHDOG=2\nWATCHDOG_USEC=-0", ""),
    (b"MAINPID=0", ""),
    (b"MAINPID=99999999999", ""),
    (b"MAINPID=1 ", ""),
    (b"MAINPID=$PID", ""),
    (b"RELOADING=1", ""),
    (b"RELOADING=1\nSTATUS=still", ""),
    (b"READY=1", ""),
    (b"FDSTORE=1\nFDNAME=one", "ab"),
    (b"FDSTORE=1\nFDNAME=two", "a"),
    (b"FDSTORE=1\nFDNAME=two", "cac"),
    (b"FDSTORE=1\nFDNAME=hung", "H"),
    (b"FDSTORE=1\nFDNAME=not polled\nFDPOLL=0", "H"),
    (b"FDSTORE=1\nFDPOLL=0\nFDNAME=not polled", "I"),
    (b"FDSTORE=1\nFDNAME=file", "d"),
    (b"FDSTORE=1", "U"),
    (b"FDSTORE=1\nFDNAME=co:lon", "V"),
    (b"FDSTORE=1\nFDNAME=", "f"),
    (b"FDSTORE=0\nFDNAME=no", "g"),
    (b"FDNAME=no", "g"),
    (b"FDSTORE=1\nFDNAME=no", ""),
    (b"FDSTORE=1\nFDNAME=first\nFDNAME=second", "g"),
    (b"FDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=one", "h"),
    (b"FDSTORE=1\nFDSTOREREMOVE=1", "h"),
    (b"FDSTOREREMOVE=1\nFDNAME=co:lon", ""),
    (b"FDSTOREREMOVE=1\nFDNAME=unheard of", ""),
    (b"BARRIER=1\nFDSTORE=1", "h"),
    (b"FDSTORE=1\nFDNAME=" + b"n" * 256, "h"),
    (b"FDSTORE=1\nFDNAME=" + b"n" * 255, "i"),
    (b"FDSTORE=1\nFDNAME=many", "jklmnop"),
    (b"FDSTORE=1\nFDNAME=over", "q"),
    (b"STATUS=good bye\nREADY=1\nSTOPPING=1", ""),
    (b"READY=1", ""),
]  # fmt: skip
STORE_MAX = 16

_PROPERTIES = ("StatusText", "StatusErrno", "NFileDescriptorStore", "WatchdogUSec", "MainPID",
               "SubState")  # fmt: skip


class Talker:
    """Sends messages to a NOTIFY_SOCKET; run as the service under systemd, and from the test."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.connect("\0" + address[1:] if address[0] == "@" else address)
        self.fds: dict[str, int] = {}

    def fd(self, letter: str) -> int:
        """Return the descriptor of that letter."""
        if letter not in self.fds:
            if letter in "HI":
                self.fds[letter], writer = os.pipe()
                os.close(writer)
            elif letter in "UV":
                self.fds[letter] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach()
            else:
                self.fds[letter] = os.memfd_create(letter)
        return self.fds[letter]

    def send(self, payload: bytes, letters: str) -> None:
        """Send one message."""
        payload = payload.replace(b"$PID", str(os.getpid()).encode())
        socket.send_fds(self.sock, [payload], [self.fd(letter) for letter in letters])

    def close(self) -> None:
        """Close everything."""
        self.sock.close()
        for fd in self.fds.values():
            os.close(fd)


_SERVICE = """
import json, os, pathlib, select, signal, socket, subprocess
{talker}
def barrier():
    reader, writer = os.pipe()
    socket.send_fds(talker.sock, [b"BARRIER=1"], [writer])
    os.close(writer)
    poll = select.poll()
    poll.register(reader, 0)
    assert poll.poll(20000)
    os.close(reader)

out = pathlib.Path("/run/out/notee")
talker = Talker(os.environ["NOTIFY_SOCKET"])
if out.exists():
    names = os.environ["LISTEN_FDNAMES"].split(":")
    files = [os.readlink(f"/proc/self/fd/{{3 + index}}") for index in range(len(names))]
    out.with_suffix(".tmp").write_text(json.dumps([*json.loads(out.read_text()), names, files]))
    out.with_suffix(".tmp").rename(out.with_suffix(".all"))
    signal.pause()
found = []
for payload, letters in json.loads({cases!r}):
    talker.send(payload.encode("latin-1"), letters)
    barrier()
    command = ["systemctl", "show", "notee.service", "--property=" + ",".join({properties!r})]
    text = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    found.append(dict(line.split("=", 1) for line in text.rstrip("\\n").split("\\n")))
out.write_text(json.dumps([found, os.getpid()]))
"""

Shown = list[dict[str, object]]


def _real(units: Path) -> tuple[Shown, list[str], list[str]]:
    """Send the messages to systemd.

    Returns:
        What it shows after each, and the names and the files that the next start is given.
    """
    source = _SERVICE.format(
        talker=inspect.getsource(Talker),
        cases=json.dumps([(payload.decode("latin-1"), letters) for payload, letters in CASES]),
        properties=_PROPERTIES,
    )
    (units / "service.py").write_text(source, encoding="utf-8")
    (units / "test.target").write_text("[Unit]\nDefaultDependencies=no\n", encoding="ascii")
    (units / "notee.service").write_text(
        "[Unit]\nDefaultDependencies=no\n[Service]\nType=notify\nNotifyAccess=all\nRestart=always\n"
        f"RestartSec=0\nFileDescriptorStoreMax={STORE_MAX}\nStandardError=append:/run/out/errors\n"
        f"ExecStart={sys.executable} {units}/service.py\n",
        encoding="utf-8",
    )
    with Systemd(units) as machine:
        machine.run("systemctl", "start", "--no-block", "notee.service")
        path = machine.path("/run/out/notee.all")
        deadline = time.monotonic() + SECONDS * 3
        while not path.exists():
            assert time.monotonic() < deadline, machine.run("cat", "/run/out/errors").stdout
            time.sleep(0.02)
        found, pid, names, files = json.loads(path.read_text(encoding="utf-8"))
    for shown in found:
        shown["WatchdogUSec"] = span(shown["WatchdogUSec"])
        shown["MainPID"] = int(shown["MainPID"]) == pid
    return found, names, files


class Manager:
    """As little of a service manager as the messages can be seen by."""

    def __init__(self, store: FdStore) -> None:
        self.store = store
        self.status, self.errno, self.watchdog, self.main = "", 0, 0, os.getpid()
        self.state = "start"

    def handle(self, heard: Heard) -> None:
        """Do what a message says."""
        message = heard.message
        if message.mainpid is not None:
            self.main = message.mainpid
        if message.stopping or self.state == "stop-sigterm":
            self.state = "stop-sigterm"
        elif message.ready or message.reloading:
            self.state = "running" if message.ready else "reload"
        if message.status is not None:
            self.status = message.status
        if message.errno is not None:
            self.errno = message.errno
        if message.watchdog_usec is not None:
            self.watchdog = message.watchdog_usec
        if message.fdstoreremove:
            assert message.fdname is not None
            self.store.remove(message.fdname)
        elif message.fdstore:
            self.store.add(message.fdname, heard.take(), poll=message.fdpoll)

    def show(self) -> dict[str, object]:
        """Return what ``systemctl show`` would."""
        printable = "\n" not in self.status
        return {
            "StatusText": self.status if printable else "[unprintable]",
            "StatusErrno": str(self.errno),
            "NFileDescriptorStore": str(len(self.store)),
            "WatchdogUSec": self.watchdog,
            "MainPID": self.main == os.getpid(),
            "SubState": self.state,
        }


def _ours() -> tuple[Shown, list[str], list[str]]:
    """Send the messages to an ear; return the same as `_real`."""
    reactor = Reactor()
    found = []
    with (
        contextlib.closing(reactor),
        FdStore(STORE_MAX, reactor) as store,
        Ear() as ear,
        contextlib.closing(Talker(ear.address)) as talker,
    ):
        manager = Manager(store)

        def listen() -> None:
            ear.hear(manager.handle)

        reactor.watch(ear.fileno(), READ, listen)
        for payload, letters in CASES:
            talker.send(payload, letters)
            while select.select([reactor], [], [], 0)[0]:
                reactor.step()
            found.append(manager.show())
        names = [entry.name for entry in store.entries()]
        files = [os.readlink(f"/proc/self/fd/{entry.fileno()}") for entry in store.entries()]
    return found, names, files


def _kinds(names: list[str], files: list[str]) -> list[tuple[str, str]]:
    """Return each name with its file, where that is not up to chance."""
    known = [re.sub(r":\[\d+\]", "", file) for file in files]
    # Descriptors of one message come in any order, and of too many some are taken.
    return [(name, "" if name == "many" else file) for name, file in zip(names, known, strict=True)]


def test_messages_mean_the_same(tmp_path: Path) -> None:
    """State, status, error, watchdog and store are what systemd makes of the same messages."""
    if reason := missing_systemd():
        pytest.skip(reason)
    real, real_names, real_files = _real(tmp_path)
    ours, names, files = _ours()
    for case, expected, found in zip(CASES, real, ours, strict=True):
        assert (case, found) == (case, expected)
    assert _kinds(names, files) == _kinds(real_names, real_files)
