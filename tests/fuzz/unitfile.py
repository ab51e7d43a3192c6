"""Random input for the readers of definitions, for a bounded time.

    python -m tests.fuzz.unitfile [--seconds N] [--seed N]

Checks two promises: no input makes a reader fail in any way but its own error, and none takes
more than time linear in its length. `fuzz_one` takes bytes, so a coverage-guided fuzzer such as
atheris can drive it as well.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable

from sockact.errors import ListenTextError, UnitError
from sockact.service_directives import EXEC_START
from sockact.unitfile.builder import Surroundings
from sockact.unitfile.envfile import parse_env_file
from sockact.unitfile.grammar import SERVICE_SECTIONS, parse
from sockact.unitfile.listen import parse_listen
from sockact.unitfile.service import interpret as interpret_service
from sockact.unitfile.unit import interpret

SURROUNDINGS = Surroundings({"i": "x", "t": "/run", "n": "fuzz.socket"}.get)

CORPUS = [
    b"[Unit]\nDescription=x\nAfter=a.target\n[Socket]\nListenStream=80\nBacklog=0x10\n[Install]\n",
    b'[Socket]\nListenStream=[::1]:80%%lo\nListenFIFO=/run/%i\nSymlinks=/a "/b c" /d\\x20e\n',
    b"[Socket]\nListenDatagram=@x\\\n# c\n y\nKeepAliveTimeSec=1min 30s .5us\nReceiveBuffer=1G 5M\n",
    b"\xef\xbb\xbf[X-A]\r\nq\r\n[Socket]\0ListenNetlink=route 3\rSocketMode=0660\n\rIPTOS=\n",
    b"[Socket]\nListenMessageQueue=/q\nExecStartPre=-/bin/sh -c 'a \\\"b\\\" \\u00e9'\nAccept=no\n",
    (
        b"[Unit]\nConflicts=a.service\n[Service]\nType=notify\nExecStart=-@/bin/a b '$A' ${B} \\; ; c %i\n"
        b'Environment=A=1 "B=2 3"\nLimitNOFILE=1:2\nSuccessExitStatus=1 HUP\nUser=a\nTimeoutSec=3\n'
    ),
    b"[Service]\nExecStart=a\nOpenFile=/a:b:append\nStandardInput=fd:x\nX-Ready=tcp:80\nUMask=7\n",
    b'A=1\n# c \\\nB=\'x\ny\' "z\\"" t\\\nC=\\ d\n',
    b"web=tcp:[fe80::1]:80-90%eth0?Backlog=5&NoDelay=yes&Symlinks=/a%20/b",
    b"tcp:localhost:http?SocketMode=0600",
    b"unix-seqpacket:@a",
    b"vsock:-1:99",
    b"netlink:kobject-uevent:1",
]
TOKENS = [
    b"[", b"]", b"=", b"\n", b"\r", b"\0", b"\\", b"\\\n", b"#", b";", b" ", b"\t", b'"', b"'", b"%",
    b"%%", b":", b"-", b"/", b"@", b"?", b"&", b"0x", b"1e9", b"infinity", b".", b"\xff", b"\xc3\xa9",
    b"\xef\xbf\xbe", b"[Socket]\n", b"ListenStream=", b"Symlinks=", b"99999999999999999999", b"us",
]  # fmt: skip


def fuzz_one(data: bytes) -> None:
    """Give `data` to each reader; any exception but their own is a fault."""
    try:
        assignments, _ = parse(data, "fuzz")
        interpret("fuzz.socket", assignments, SURROUNDINGS)
    except UnitError:
        pass
    try:
        assignments, _ = parse(data, "fuzz", sections=SERVICE_SECTIONS)
        service = interpret_service("fuzz.service", assignments, SURROUNDINGS)
        for command in service.get(EXEC_START):
            command.arguments({"A": "a b", "B": "'"})
    except UnitError:
        pass
    try:
        parse_env_file(data)
    except ValueError:
        pass
    try:
        parse_listen(data.decode("utf-8", "surrogateescape"))
    except ListenTextError:
        pass


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Return `data` with a few random changes."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(out))
        match chance.randint(0, 4):
            case 0:
                out[at:at] = chance.choice(TOKENS)
            case 1:
                del out[at : at + chance.randint(1, 8)]
            case 2:
                out[at:at] = out[at : at + chance.randint(1, 30)] * chance.randint(1, 5)
            case 3:
                out[at : at + 1] = bytes([chance.randint(0, 255)])
            case _:
                other = chance.choice(CORPUS)
                out[at:at] = other[chance.randint(0, len(other)) :]
    return bytes(out[:4000])


SHAPES: dict[str, Callable[[int], bytes]] = {
    "continuations": lambda n: b"[Socket]\nBacklog=" + b"x\\\n" * n,
    "comments in a continuation": lambda n: b"[Socket]\nBacklog=\\\n" + b"#\n" * n,
    "one long line": lambda n: b"[Socket]\nBacklog=" + b"x" * min(n * 4, 1_000_000),
    "backslashes": lambda n: b"[Socket]\nSymlinks=" + b"\\" * n,
    "escapes": lambda n: b"[Socket]\nSymlinks=" + b"/\\x41 " * n,
    "quotes": lambda n: b"[Socket]\nSymlinks=" + b"\"'" * n,
    "slashes": lambda n: b"[Socket]\nListenFIFO=" + b"/." * n,
    "time spans": lambda n: b"[Socket]\nTimeoutSec=" + b"1s " * n,
    "fractions": lambda n: b"[Socket]\nTimeoutSec=1." + b"1" * n,
    "sizes": lambda n: b"[Socket]\nReceiveBuffer=" + b"1 " * n,
    "digits": lambda n: b"[Socket]\nBacklog=" + b"1" * n,
    "zeros": lambda n: b"[Socket]\nSocketMode=" + b"0" * n,
    "specifiers": lambda n: b"[Socket]\nFileDescriptorName=" + b"%i%%" * n,
    "sections": lambda n: b"[Socket]\n[X-y]\n" * n,
    "unknown sections": lambda n: b"[y]\n" * n,
    "unknown keys": lambda n: b"[Socket]\n" + b"X-y=1\n" * n,
    "listeners": lambda n: b"[Socket]\n" + b"ListenStream=80\n" * n,
    "resets": lambda n: b"[Socket]\n" + b"ListenStream=80\nListenStream=\n" * n,
    "line ends": lambda n: b"\r\n\0" * n,
    "blanks": lambda n: b"[Socket]\nA" + b" \t" * n + b"=" + b" " * n,
    "non-characters": lambda n: b"[Socket]\nA=" + b"\xc3\xa9" * n + b"\xef\xbf\xbe",
    "bad byte far out": lambda n: b"[Socket]\nA=\\\n" + b"\xc3\xa9\\\n" * n + b"\xff",
    "list lines": lambda n: b"[Socket]\nListenStream=80\n" + b"ExecStartPre=a\n" * n,
    "words of a command": lambda n: b"[Service]\nExecStart=a" + b" b" * n,
    "commands of a line": lambda n: b"[Service]\nType=oneshot\nExecStart=a" + b" ; b" * n,
    "semicolons": lambda n: b"[Service]\nExecStart=a" + b" \\; ;;" * n,
    "open variables": lambda n: b"[Service]\nExecStart=a x" + b"${" * n,
    "variables": lambda n: b"[Service]\nExecStart=a x" + b"${A}$$" * n,
    "environment": lambda n: (
        b"[Service]\nExecStart=a\n" + b"".join(b"Environment=A%d=1\n" % i for i in range(n))
    ),
    "environment in a line": lambda n: b"[Service]\nExecStart=a\nEnvironment=" + b"A=1 " * n,
    "names": lambda n: (
        b"[Service]\nExecStart=a\nPassEnvironment=" + b"".join(b"A%d " % i for i in range(n))
    ),
    "statuses": lambda n: b"[Service]\nExecStart=a\n" + b"SuccessExitStatus=1 2\n" * n,
    "foreign keys": lambda n: b"[Service]\nExecStart=a\n" + b"PrivateTmp=1\n" * n,
    "quotes of a file": lambda n: b"A=" + b"''\"\"" * n,
    "escapes of a file": lambda n: b'A="' + b"\\a" * n,
    "blanks of a file": lambda n: b"A=a" + b" " * n + b"b\n" + b" \t\r" * n,
    "query": lambda n: b"tcp:80?" + b"Symlinks=/a&" * n,
    "colons": lambda n: b"tcp:" + b":" * n,
    "dashes": lambda n: b"tcp:" + b"1-" * n,
    "dots in a host": lambda n: b"tcp:" + b"a." * n + b":80",
    "name": lambda n: b"a" * n + b"=tcp:80",
    "scheme": lambda n: b"a" * min(n, 20_000) + b":80",
}
# Below this many seconds a measurement says more about the machine than about the code.
_FLOOR = 0.002


def growth(shape: Callable[[int], bytes]) -> float:
    """Return how much longer four times the input takes; about 4 if time is linear."""
    count = 1000
    while True:
        small = _seconds(shape(count))
        if small > _FLOOR or count > 200_000:
            break
        count *= 4
    return _seconds(shape(4 * count)) / max(small, _FLOOR)


def _seconds(data: bytes) -> float:
    best = float("inf")
    for _ in range(3):
        begin = time.process_time()
        fuzz_one(data)
        best = min(best, time.process_time() - begin)
    return best


def main() -> int:
    """Run for the time given; return an exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    chance = random.Random(seed)
    worst = {name: round(growth(shape), 1) for name, shape in SHAPES.items()}
    inputs, deadline = 0, time.monotonic() + arguments.seconds
    pool = list(CORPUS)
    while time.monotonic() < deadline:
        data = mutate(chance.choice(pool), chance)
        try:
            fuzz_one(data)
        except Exception as error:
            print(f"seed {seed}: {type(error).__name__}: {error}\ninput: {data!r}", file=sys.stderr)
            raise
        inputs += 1
        if chance.random() < 0.02:
            pool[chance.randint(len(CORPUS), 400) if len(pool) > 400 else len(pool) :] = [data]
    slow = {name: ratio for name, ratio in worst.items() if ratio > 10}
    print(json.dumps({"inputs": inputs, "seed": seed, "shapes": len(SHAPES), "growth": worst}))
    if slow:
        print(f"more than linear: {slow}", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
