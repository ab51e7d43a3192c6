"""How long ``sockact exec`` takes to start a program.

The floor is the same interpreter importing what sockact stands on: attrs, click and socket. For
comparison systemd-socket-activate, which is written in C, starts the same program; since it
waits for traffic, its time includes one connection.

    python -m tests.bench.launch [--rounds N]
"""

import argparse
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.measure import command_seconds, environ, in_turn, show

BAR = 1.15
TRUE = shutil.which("true") or "/bin/true"


def _socket_activate() -> float:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    command = ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", TRUE]
    begin = time.perf_counter()
    with subprocess.Popen(command, env=environ(), stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except ConnectionRefusedError:
                time.sleep(0.0002)
            except ConnectionResetError:  # the program was done before the handshake was
                process.wait()
            else:
                process.wait()
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    sockact = Path(sys.executable).with_name("sockact")
    launcher = [str(sockact)] if sockact.exists() else [sys.executable, "-m", "sockact"]
    spare = "127.0.0.1:1?FreeBind=no"
    with socket.create_server(("127.0.0.1", 0)) as sock:
        spare = f"tcp:127.0.0.1:{sock.getsockname()[1]}"
    sides = {
        "floor": lambda: command_seconds([sys.executable, "-c", "import attrs, click, socket"]),
        "sockact exec": lambda: command_seconds([*launcher, "exec", "--listen", spare, "--", TRUE]),
        "bare interpreter": lambda: command_seconds([sys.executable, "-c", "pass"]),
    }
    if shutil.which("systemd-socket-activate"):
        sides["systemd-socket-activate"] = _socket_activate
    result = in_turn(sides, rounds, "floor")
    ratio = result["sockact exec"]["ratio"]
    show({"bench": "launch", "rounds": rounds, "bar": BAR, "within_bar": ratio <= BAR, **result})


if __name__ == "__main__":
    main()
