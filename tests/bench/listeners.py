"""How long it takes to open and export 1, 100 and 10,000 TCP listeners.

The floor is a bare loop of the same system calls in the same Python. Each measurement is a fresh
interpreter that times itself, from the definition to the environment and the inheritable
descriptors at 3, 4, 5 …, imports left out. The collector of cycles is off on both sides, as it is in
``sockact exec``.

    python -m tests.bench.listeners [--rounds N]
"""

import argparse
import gc
import os
import resource
import socket
import subprocess
import sys
import time

from tests.bench.measure import environ, in_turn, show

BAR = 1.3
COUNTS = (1, 100, 10_000)
HOST = "127.77.77.77"
FIRST_PORT = 20_000


def _floor(count: int) -> float:
    begin = time.perf_counter()
    numbers = []
    for port in range(FIRST_PORT, FIRST_PORT + count):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, port))
        sock.listen(2**31 - 1)
        numbers.append(sock.detach())
    for number in numbers:
        os.set_inheritable(number, True)
    for name in os.listdir("/proc/self/fd"):
        if int(name) >= 3 + count:
            try:
                os.set_inheritable(int(name), False)
            except OSError:
                continue
    os.environ["LISTEN_FDS"] = str(count)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDNAMES"] = ":".join(
        f"tcp-{port}" for port in range(FIRST_PORT, FIRST_PORT + count)
    )
    pidfd, other = os.pidfd_open(os.getpid()), os.eventfd(0)
    os.environ["LISTEN_PIDFDID"] = str(os.fstat(pidfd).st_ino + 0 * os.fstat(other).st_dev)
    os.close(other)
    os.close(pidfd)
    return time.perf_counter() - begin


def _sockact(count: int) -> float:
    from sockact.activation.environ import encode
    from sockact.activation.receive import own_pidfd_id
    from sockact.fd.place import close_on_exec_from
    from sockact.sockets.bind import open_specs
    from sockact.unitfile.listen import parse_listen

    begin = time.perf_counter()
    spec = parse_listen(f"tcp:{HOST}:{FIRST_PORT}-{FIRST_PORT + count - 1}")
    sockets = open_specs([spec])
    sockets.place(3)
    close_on_exec_from(3 + count)
    os.environ.update(encode(sockets.names, os.getpid(), own_pidfd_id()))
    spent = time.perf_counter() - begin
    sockets.detach()
    return spent


def _in_child(side: str, count: int) -> float:
    command = [sys.executable, "-m", "tests.bench.listeners", "--side", side, "--count", str(count)]
    return float(subprocess.check_output(command, env=environ()))


def main() -> None:
    """Measure and print; or, in a child, measure one side once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--side", choices=("floor", "sockact"))
    parser.add_argument("--count", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.side:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        gc.disable()
        print((_floor if arguments.side == "floor" else _sockact)(arguments.count))
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    result: dict[str, object] = {"bench": "listeners", "rounds": arguments.rounds, "bar": BAR}
    for count in COUNTS:
        if hard != resource.RLIM_INFINITY and hard < count + 16:
            result[str(count)] = f"left out: the hard limit of open files is {hard}"
            continue
        sides = {
            "floor": lambda n=count: _in_child("floor", n),
            "sockact": lambda n=count: _in_child("sockact", n),
        }
        measured = in_turn(sides, arguments.rounds, "floor")
        each = measured["sockact"]["median_ms"] * 1e3 / count
        result[str(count)] = {**measured, "sockact_us_each": round(each, 2)}
    show(result)


if __name__ == "__main__":
    main()
