"""The readers against the systemd on this machine: does it load, and is there a warning?

``systemd-analyze verify`` needs no running manager. Each table is one call with many units, and for
each unit two things must agree: whether it is refused, and whether any line of it is warned about.
Directives newer than systemd 252, and the differences that the manual lists, are left out.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import sockact
from sockact.errors import UnitError
from sockact.unitfile.load import load_service, load_spec
from tests.conformance import services
from tests.helpers import clean_environ
from tests.unitfile.test_address import BAD as BAD_ADDRESSES
from tests.unitfile.test_address import GOOD as GOOD_ADDRESSES
from tests.unitfile.test_command import GOOD as GOOD_COMMANDS
from tests.unitfile.test_command import IGNORED as IGNORED_COMMANDS
from tests.unitfile.test_command import REFUSED as REFUSED_COMMANDS
from tests.unitfile.test_load import DROPIN_DIRECTORIES
from tests.unitfile.test_values import BAD as BAD_VALUES
from tests.unitfile.test_values import GOOD as GOOD_VALUES

from sockact.spec import Value  # isort: skip

ANALYZE = shutil.which("systemd-analyze") or ""
pytestmark = pytest.mark.skipif(not ANALYZE, reason="systemd-analyze is not installed")

Verdict = tuple[bool, bool]
REFUSED = re.compile(
    r"(?:Unit )?(\w+)\.socket(?:: .*Refusing| has a bad unit file setting| failed to load properly"
    r"| is masked)"
)
WARNED = re.compile(r"/(\w+)\.socket:\d+: ")


def _systemd(directory: Path, units: dict[str, bytes]) -> dict[str, Verdict]:
    for name, data in units.items():
        (directory / f"{name}.socket").write_bytes(data)
        (directory / f"{name}.service").write_text("[Service]\nExecStart=/bin/true\n")
    done = subprocess.run(
        [ANALYZE, "verify", "--man=no", "--recursive-errors=no",
         *(str(directory / f"{name}.socket") for name in units)],
        env=clean_environ({"SYSTEMD_LOG_LEVEL": "info"}), capture_output=True, check=False,
    )  # fmt: skip
    refused, warned = set(), set()
    for line in done.stderr.decode("utf-8", "replace").splitlines():
        if match := REFUSED.search(line):
            refused.add(match[1])
        if match := WARNED.search(line):
            warned.add(match[1])
    return {name: (name in refused, name in warned) for name in units}


def _sockact(directory: Path, name: str) -> Verdict:
    said: list[str] = []
    try:
        sockact.load(str(directory / f"{name}.socket"), warn=said.append)
    except UnitError as error:
        return True, bool(error.line and "invalid" in str(error)) or bool(said)
    return False, bool(said)


def _compare(tmp_path: Path, cases: dict[str, bytes], *, refusals_only: bool = False) -> None:
    """Compare the verdicts on every case; a refused unit need not have been warned about alike."""
    units = {f"c{number}": data for number, data in enumerate(cases.values())}
    theirs = _systemd(tmp_path, units)
    differing = []
    for name, case in zip(units, cases, strict=True):
        ours = _sockact(tmp_path, name)
        same = ours[0] == theirs[name][0] and (
            ours[0] or refusals_only or ours[1] == theirs[name][1]
        )
        if not same:
            differing.append(f"{case!r}: sockact {ours}, systemd {theirs[name]} (refused, warned)")
    assert not differing, "\n".join(differing)


def test_grammar(tmp_path: Path) -> None:
    """Lines, sections, comments, continuations and bytes."""
    good = b"ListenStream=80\n"
    bodies = [
        b"", b"\n", b"#\n", b"[Socket]\n", b"[Socket]\n" + good, b"[Socket]\r\nListenStream=80\r\n",
        b"[Socket]\rListenStream=80\r", b"[Socket]\0ListenStream=80\0",
        b"[Socket]\n\rListenStream=80\n\r", b"\xef\xbb\xbf[Socket]\n" + good,
        b"\xef\xbb\xbf#x\n[Socket]\n" + good, b"#x\n\xef\xbb\xbf[Socket]\n" + good,
        b"[Socket]\n\xef\xbb\xbf" + good, b"\xef\xbb\xbf[Socket]\n\xef\xbb\xbf" + good,
        b"[Socket]\nListenStream=\\\n80\n", b"[Socket]\nListenStream=\\\n#x\n80\n",
        b"[Socket]\nListenStream=\\\n\n80\n", b"[Socket]\nListenStream=8\\ \n0\n" + good,
        b"[Socket]\n" + good + b"Backlog=1\\", b"[Socket]\n" + good + b"Backlog=1\\\n",
        b"[Socket]\n" + good + b"Backlog=1\\\\\n", b"[Socket]\n#\\\n" + good,
        b"[Socket]\n" + good + b"Backlog\\\n=1\n", b"[Socket\n" + good, b"[Socket] x\n" + good,
        b"[\n[Socket]\n" + good, b" [Socket] \n" + good,
        b"[So'cket]\n[Socket]\n" + good, b"[So\\cket]\n[Socket]\n" + good,
        b"[So\x01]\n[Socket]\n" + good, b"[socket]\n[Socket]\n" + good, b"[X-a]\nb\n[Socket]\n" + good,
        b"[Socket]\n" + good + b"[Nonsense]\nA=1\nB\n", b"A=1\n[Socket]\n" + good,
        b"A\n[Socket]\n" + good, b"[Socket]\n" + good + b"A\n", b"[Socket]\n" + good + b"=1\n",
        b"[Socket]\n" + good + b"X-a=1\n", b"[Socket]\n" + good + b"Nonsense=1\n",
        b"[Socket]\n" + good + b"backlog=1\n", b"[Socket]\n" + good + b"Backlog =1\n",
        b"[Socket]\n" + good + b"  Backlog=1\n", b"[Socket]\n" + good + b"Backlog=1 # x\n",
        b"[Socket]\n" + good + b"A=\xff\n", b"[Socket]\n" + good + b"#\xff\n",
        b"[Socket]\n" + good + b"X-A=\xff\n", b"[Socket]\n" + good + b"X-A=\xc3\xa9\n",
        b"[Socket]\n" + good + "X-A=\ufffe\n".encode(), b"[Socket]\n" + good + "X-A=\ufdd0\n".encode(),
        b"[Socket]\n" + good + "X-A=\U0001fffe\n".encode(),
        b"[Socket]\n" + good + "X-A=\ufffd\U0010fffd\n".encode(),
        b"[Socket]\n" + good + b"X-A=\xed\xa0\x80\n", b"[Socket]\n" + good + b"X-A=\xf4\x90\x80\x80\n",
        b"[Socket]\n" + good + b"X-A=" + b"x" * (1048576 - 5),
        b"[Socket]\n" + good + b"X-A=" + b"x" * (1048576 - 4),
        b"[Socket]\n" + good + b"X-A=" + b"x" * 1048570 + b"\\\nxx\n",
        b"[Socket]\n" + good + b"X-A=" + b"x" * 1048570 + b"\\\nxxxxxxxx\n",
        b"[Unit]\nDescription=x\nX-y=1\n[Socket]\n" + good + b"[Install]\nWantedBy=a.target\n",
        b"[Unit]\nNonsense=x\n[Socket]\n" + good, b"[Install]\nNonsense=x\n[Socket]\n" + good,
        b"[Socket]\nListenStream=80\nListenStream=\n", b"[Socket]\nListenStream=80\nListenFIFO=\n",
    ]  # fmt: skip
    _compare(tmp_path, {repr(body[:80]) + str(i): body for i, body in enumerate(bodies)})


KEYS = {
    Value.BOOLEAN: "KeepAlive",
    Value.UNSIGNED: "Backlog",
    Value.INTEGER: "Priority",
    Value.LONG: "MessageQueueMaxMessages",
    Value.MODE: "SocketMode",
    Value.SIZE: "ReceiveBuffer",
    Value.SPAN: "KeepAliveTimeSec",
    Value.SPAN_OR_ZERO: "TimeoutSec",
    Value.FDNAME: "FileDescriptorName",
    Value.INTERFACE: "BindToDevice",
    Value.SERVICE: "Service",
    Value.BIND_IPV6: "BindIPv6Only",
    Value.TIMESTAMPING: "Timestamping",
    Value.TOS: "IPTOS",
    Value.STRING: "TCPCongestion",
    Value.USER: "SocketUser",
}


@pytest.mark.parametrize("value", KEYS, ids=lambda value: value.name)
def test_values(tmp_path: Path, value: Value) -> None:
    """Every value of the tables of good and bad ones is taken or refused alike."""
    texts = [text for kind, _, texts in GOOD_VALUES if kind is value for text in texts]
    texts += [text for kind, bad in BAD_VALUES if kind is value for text in bad]
    # A service must exist to be loaded; that is not the question here.
    texts = [t for t in texts if len(t) < 1000 and not (value is Value.SERVICE and "@b" in t)]
    cases = {
        text: f"[Socket]\nListenStream=80\n{KEYS[value]}={text.replace('%', '%%')}\n".encode()
        for text in texts
    }
    _compare(tmp_path, cases)


def test_symlink_lists(tmp_path: Path) -> None:
    """Words, quotes and escapes."""
    texts = [
        "/a", "/a /b", '"/a b"', "'/a b'", '/a"b"', "/a\\x20b", "/a\\040b", "/a\\u00e9", "relative",
        "/a/../b", "/a//b", '"/a', "'/a", "/a\\q", "/a\\", "/a\\x00", "/a\\ud800", '""', "/a\\s/b",
    ]  # fmt: skip
    units = {text: f"[Socket]\nListenStream=/s\nSymlinks={text}\n".encode() for text in texts}
    _compare(tmp_path, units)


# Context ids by name and typed prefixes came after 252, and so did the refusal of the last port.
NEWER = re.compile(r"vsock(-\w+:|:(any|-1|host|local|hypervisor):|:2:4294967295)")


def test_addresses(tmp_path: Path) -> None:
    """Every address of the tables of good and bad ones."""
    texts = [text for text in (*GOOD_ADDRESSES, *BAD_ADDRESSES) if "\0" not in text]
    texts += [
        "127.0.0.1:80%lo",
        "127.0.0.1:80%nosuch0",
        "[::1]:80%lo",
        "[::1]:80%1",
        "[::1]:80%nosuch0",
    ]
    cases = {
        text: f"[Socket]\nListenStream={text.replace('%', '%%')}\nListenStream=@x\n".encode()
        for text in texts
        if "%eth0" not in text and "%2" not in text and text and not NEWER.match(text)
    }
    _compare(tmp_path, cases)


def test_other_listeners(tmp_path: Path) -> None:
    """FIFOs, special files, netlink, queues, sequential packets."""
    lines = [
        "ListenFIFO=/f", "ListenFIFO=f", "ListenFIFO=/a/../f", "ListenFIFO=/a//f/", "ListenFIFO=%t/f",
        "ListenFIFO=%z", "ListenSpecial=/dev/null", "ListenSpecial=null", "ListenSpecial=/proc/x",
        "ListenNetlink=route", "ListenNetlink=route 1", "ListenNetlink=route 0x10",
        "ListenNetlink=route -1", "ListenNetlink=route x", "ListenNetlink=nonsense",
        "ListenNetlink=15 1", "ListenNetlink=route 4294967296", "ListenNetlink=kobject-uevent 1",
        "ListenMessageQueue=/q", "ListenMessageQueue=q", "ListenSequentialPacket=/s",
        "ListenSequentialPacket=@s", "ListenSequentialPacket=80", "ListenDatagram=80",
        "ListenDatagram=[::1]:80", "ListenDatagram=/d", "ListenStream=%%x", "ListenStream=%",
        "ListenStream=/a%b", "ListenStream=/%-", "ListenStream=/%i", "ListenStream=/%p",
        "ListenStream=/%j%J%N%P%I%f%H%l%v%a%b%m%u%U%g%G%h%s%T%V%S%C%L%E%t%o%w%W%B%M%A%q%y%Y%d",
    ]  # fmt: skip
    _compare(tmp_path, {line: f"[Socket]\nListenStream=@x\n{line}\n".encode() for line in lines})


def test_combinations(tmp_path: Path) -> None:
    """What no single directive can tell."""
    bodies = [
        "ListenStream=80\nAccept=yes\nMaxConnections=0\n", "ListenStream=/a\nSymlinks=/b\n",
        "ListenStream=80\nSymlinks=/b\n", "ListenStream=/a\nListenFIFO=/f\nSymlinks=/b\n",
        "ListenStream=@a\nSymlinks=/b\n", "ListenFIFO=/f\nSymlinks=/b\n",
        "ListenDatagram=80\nAccept=yes\n", "ListenFIFO=/f\nAccept=yes\n",
        "ListenStream=80\nAccept=yes\nService=c0.service\n",
        "ListenStream=80\nExecStartPre=/bin/true\n", "ListenStream=80\nExecStartPre=true\n",
        "ListenStream=80\nExecStartPre=\n", "ListenStream=80\nSymlinks=\n",
    ]  # fmt: skip
    units = {body: f"[Socket]\n{body}".encode() for body in bodies}
    for number in range(len(units)):
        (tmp_path / f"c{number}@.service").write_text("[Service]\nExecStart=/bin/true\n")
    _compare(tmp_path, units, refusals_only=True)


COMMANDS = [
    text for text in (*GOOD_COMMANDS, *REFUSED_COMMANDS, *IGNORED_COMMANDS) if "|" not in text
]


def test_commands(tmp_path: Path) -> None:
    """Every command line of the tables of good and bad ones, warned about and refused alike."""
    cases = {
        text: f"[Socket]\nListenStream=80\nExecStopPost={text}\n".encode()
        for text in COMMANDS
        if text  # an empty value resets
    }
    _compare(tmp_path, cases)


SERVICE_LINE = re.compile(r"/([\w-]+)\.service:(\d+): ")
SERVICE_REFUSED = re.compile(r"(?:^|/|Unit )([\w-]+)\.service(?:: .*Refusing| has a bad unit file)")
# What sockact says of what it does not do.
NOT_DONE = ("has no effect", "is not done here")


def test_services(tmp_path: Path) -> None:
    """Every service of the conformance suite is refused or not, and its wrong lines are the same."""
    # Of dependencies nothing is said here; they are looked at when units are loaded for good.
    cases = set(services.CASES) - {"description"}
    paths = [tmp_path / f"{case}.service" for case in sorted(cases)]
    for path in paths:
        path.write_bytes(services.text(path.stem).encode())
    done = subprocess.run(
        [ANALYZE, "verify", "--man=no", "--recursive-errors=no", *paths],
        env=clean_environ({"SYSTEMD_LOG_LEVEL": "info"}), capture_output=True, check=False,
    )  # fmt: skip
    refused: set[str] = set()
    lines: dict[str, set[int]] = {path.stem: set() for path in paths}
    for line in done.stderr.decode("utf-8", "replace").splitlines():
        if match := SERVICE_LINE.search(line):
            lines[match[1]].add(int(match[2]))
        if match := SERVICE_REFUSED.search(line):
            refused.add(match[1])
    differing = []
    for path in paths:
        try:
            spec = load_service(str(path), environ={})
        except UnitError as error:
            if path.stem not in refused:
                differing.append(f"sockact: {error}")
            continue
        said = {
            one.origin.line
            for one in spec.diagnostics
            if not any(text in one.message for text in NOT_DONE)
        }
        if path.stem in refused or said != lines[path.stem]:
            differing.append(f"{path.stem}: systemd {lines[path.stem]}, sockact {said}")
    assert differing == []


@pytest.mark.parametrize("kind", ["socket", "service"])
def test_which_dropins_are_read(tmp_path: Path, kind: str) -> None:
    """The same drop-ins apply, in the same order, and of one name the same one wins."""
    a, b = tmp_path / "a", tmp_path / "b"
    directories = [name.replace("socket", kind) for name in DROPIN_DIRECTORIES]
    for directory in (a, b):
        for name in directories:
            (directory / name).mkdir(parents=True)
            for file in ("same.conf", f"{directory.name}-{name}.conf"):
                (directory / name / file).write_text(f"[{kind.title()}]\nNonsense=1\n")
    mark = {"service": "", "socket": ""} | {kind: "Nonsense=1\n"}
    (b / "foo-bar@.socket").write_text(f"[Socket]\nListenStream=@x\n{mark['socket']}")
    (b / "foo-bar@.service").write_text(f"[Service]\nExecStart=/bin/true\n{mark['service']}")
    environ = clean_environ({"SYSTEMD_UNIT_PATH": f"{a}:{b}"})
    load = load_spec if kind == "socket" else load_service
    for left in directories:
        done = subprocess.run(
            [ANALYZE, "verify", "--man=no", f"foo-bar@x.{kind}"],
            env=environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        theirs = re.findall(r"^(\S+):\d+: Unknown key", done.stderr, re.MULTILINE)
        spec = load(f"foo-bar@x.{kind}", environ=environ)
        assert [one.origin.source for one in spec.diagnostics] == theirs
        assert theirs[-1].endswith("same.conf")
        for directory in (a, b):
            (directory / left / "same.conf").unlink()
