"""How long it takes to get and to take over 1 to 4,000 sockets at a rendezvous.

The floor is a bare loop of sendmsg() and recvmsg() in the same Python: the same chunks with as many
bytes, an acknowledgement for each, from another process. It verifies nothing, knows no names, and
cannot fail. Each figure is the best of three in a row. A measurement begins with connect() and ends when the descriptors are owned; closing
them is outside. Where they are installed, two others give out their sockets in the same run: HAProxy
through ``_getsocks``, to the barest client in Python, and s6-fdholderd to the client in C that comes
with it, whose time is that of the whole command less that of the same command for an empty set.

    python -m tests.bench.rendezvous [--rounds N] [--counts 1,10,253,1000,4000]
"""

import argparse
import array
import contextlib
import gc
import importlib
import os
import resource
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import sockact
from sockact.rendezvous.inspect import manifest_of
from sockact.rendezvous.messages import FDS_MAX, Offer
from sockact.rendezvous.wire import encode
from tests.bench.measure import in_turn, show

COUNTS = (1, 10, 253, 1000, 4000)
BAR = 1.5
BAR_FROM = 1000
_CLOEXEC = socket.MSG_CMSG_CLOEXEC
_HOST = "127.66.66.66"
_FIRST_PORT = 20_000
_S6_AT_ONCE = 253  # s6-fdholder-setdump 2.11 says EINVAL from 254 on


def _listeners(count: int) -> sockact.SocketSet:
    last = _FIRST_PORT + count - 1
    return sockact.listen(f"web=tcp:{_HOST}:{_FIRST_PORT}-{last}?Backlog=16")


# --- the floor ------------------------------------------------------------------------------------


def _serve_floor(path: str, sockets: sockact.SocketSet) -> None:
    """Give every client the chunks, each after the acknowledgement of the one before."""
    rows = manifest_of([(entry.name, entry) for entry in sockets], "web")
    size = sum(len(encode(Offer(len(rows), part))) for part in rows.parts())
    numbers = sockets.filenos()
    chunks = [numbers[i : i + FDS_MAX] for i in range(0, len(numbers), FDS_MAX)]
    payload = b"x" * (size // len(chunks))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            client, _ = listener.accept()
            with client:
                for chunk in chunks:
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", chunk))]
                    client.sendmsg([payload], rights)
                    client.recv(1)


def _floor(path: str, count: int) -> float:
    begin = time.perf_counter()
    numbers = array.array("i")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(path)
        while len(numbers) < count:
            _, control, _, _ = sock.recvmsg(65536, 2048, _CLOEXEC)
            numbers.frombytes(control[0][2])
            sock.send(b"x")
    spent = time.perf_counter() - begin
    _close(numbers)
    return spent


def _close(numbers: "array.array[int] | list[int]") -> None:
    for number in numbers:
        os.close(number)


# --- sockact --------------------------------------------------------------------------------------


def _serve_owner(path: str, sockets: sockact.SocketSet) -> None:
    with sockact.offer(path, sockets) as rendezvous:
        rendezvous.wait_successor()


def _get(path: str, count: int) -> float:
    begin = time.perf_counter()
    sockets = sockact.take(path)
    spent = time.perf_counter() - begin
    assert len(sockets) == count
    sockets.close()
    return spent


def _take_over(path: str, count: int) -> float:
    """Take over in a child, which stays until the next one takes over; it times itself."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        with os.fdopen(reader) as file:
            return float(file.readline())
    try:
        if os.fork():
            os._exit(0)
        os.close(reader)
        sockact.take(path).close()  # so that a fresh fork has its pages, as any running process has
        begin = time.perf_counter()
        with sockact.takeover(path) as rendezvous:
            rendezvous.ready()
            os.write(writer, f"{time.perf_counter() - begin}\n".encode())
            os.close(writer)
            assert len(rendezvous.sockets) == count
            rendezvous.wait_successor()
    finally:
        os._exit(0)


# --- the others -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _haproxy(directory: Path, count: int) -> Iterator[Callable[[], float]]:
    """Run HAProxy with as many listeners; give the measurement of its ``_getsocks``."""
    path, config = directory / "stats", directory / "haproxy.cfg"
    binds = "".join(
        f"  bind 127.67.67.67:{port}\n" for port in range(_FIRST_PORT, _FIRST_PORT + count)
    )
    config.write_text(
        f"global\n  stats socket {path} mode 600 level admin expose-fd listeners\n  nbthread 1\n"
        f"  maxconn 100\ndefaults\n  mode tcp\n  timeout client 5s\n  timeout server 5s\n"
        f"  timeout connect 5s\nfrontend f\n  backlog 16\n{binds}",
        encoding="ascii",
    )
    command = ["haproxy", "-db", "-f", str(config)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(path, process)
            yield lambda: _getsocks(str(path), count)
        finally:
            process.terminate()


def _getsocks(path: str, count: int) -> float:
    begin = time.perf_counter()
    numbers = array.array("i")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5.0)
        sock.connect(path)
        sock.sendall(b"_getsocks\n")
        (total,) = struct.unpack("i", sock.recv(4, socket.MSG_WAITALL))
        while len(numbers) < total:
            _, control, _, _ = sock.recvmsg(65536, 2048, _CLOEXEC)
            if control:
                numbers.frombytes(control[0][2])
                if len(numbers) < total:
                    sock.send(struct.pack("i", len(numbers)))
    spent = time.perf_counter() - begin
    assert len(numbers) >= count, (len(numbers), count)
    _close(numbers)
    return spent


@contextlib.contextmanager
def _s6(directory: Path, name: str, sockets: sockact.SocketSet) -> Iterator[Callable[[], float]]:
    """Run s6-fdholderd with these descriptors; give the measurement of its client's dump."""
    path = directory / name
    rules = directory / "rules"
    env = rules / "uid" / "0" / "env"
    if not env.is_dir():
        (env / "..").resolve().mkdir(parents=True, exist_ok=True)
        env.mkdir(parents=True)
        (rules / "uid" / "0" / "allow").touch()
        for variable in ("S6_FDHOLDER_GETDUMP", "S6_FDHOLDER_SETDUMP", "S6_FDHOLDER_LIST"):
            (env / variable).write_text("x")
    limit = len(sockets) + 10
    command = [
        "s6-ipcserver-socketbinder", str(path),
        "s6-fdholderd", "-1", "-n", str(limit), "-x", "env", "-i", str(rules),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_for(path, process)
            if len(sockets):
                _s6_fill(path, sockets)
            dump = ["s6-fdholder-getdump", str(path), shutil.which("true") or "true"]
            yield lambda: _seconds(dump)
        finally:
            process.terminate()


def _s6_fill(path: Path, sockets: sockact.SocketSet) -> None:
    numbers = sockets.filenos()
    for first in range(0, len(numbers), _S6_AT_ONCE):
        some = numbers[first : first + _S6_AT_ONCE]
        environ = dict(os.environ) | {"S6_FD#": str(len(some))}
        for index, number in enumerate(some):
            environ[f"S6_FD_{index}"] = str(number)
            environ[f"S6_FDID_{index}"] = f"web-{first + index}"
        subprocess.run(["s6-fdholder-setdump", str(path)], env=environ, pass_fds=some, check=True)


def _seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"{command} ended with {status}")
    return time.perf_counter() - begin


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket(socket.AF_UNIX) as sock:
            if not sock.connect_ex(str(path)):
                return
        time.sleep(0.01)
    raise RuntimeError(f"{process.args!r} did not come up")


# --- the run --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _child(
    serve: Callable[[str, sockact.SocketSet], None], path: Path, sockets: sockact.SocketSet
) -> Iterator[None]:
    pid = os.fork()
    if not pid:
        try:
            serve(str(path), sockets)
        finally:
            os._exit(0)
    try:
        while not path.exists():
            time.sleep(0.005)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
        os.waitpid(pid, 0)


def _measure(count: int, rounds: int) -> dict[str, object]:
    notes: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sa-")))
        directory.chmod(0o700)
        with _listeners(count) as sockets:
            floor, owner = directory / "floor", directory / "owner"
            chain = directory / "chain"
            stack.enter_context(_child(_serve_floor, floor, sockets))
            stack.enter_context(_child(_serve_owner, owner, sockets))
            stack.enter_context(_child(_serve_owner, chain, sockets))
            stack.callback(_end_chain, str(chain))
            sides: dict[str, Callable[[], float]] = {
                "floor": lambda: _floor(str(floor), count),
                "get": lambda: _get(str(owner), count),
                "takeover": lambda: _take_over(str(chain), count),
            }
            if shutil.which("s6-fdholderd"):
                full = stack.enter_context(_s6(directory, "s6", sockets))
                empty = stack.enter_context(_s6(directory, "s6-empty", sockact.SocketSet()))
                try:
                    full()
                except RuntimeError as error:
                    notes["s6-fdholder-getdump"] = f"left out: {error}"
                else:
                    sides["s6-fdholder-getdump"] = lambda: full() - empty()
        if shutil.which("haproxy"):
            sides["haproxy _getsocks"] = stack.enter_context(_haproxy(directory, count))
        best = {name: _best(side) for name, side in sides.items()}
        return {**in_turn(best, rounds, "floor"), **notes}


def _best(side: Callable[[], float]) -> Callable[[], float]:
    """Measure three times in a row: the first one finds every cache full of the other sides."""
    return lambda: min(side() for _ in range(3))


def _end_chain(path: str) -> None:
    """Take the last one's place, and end."""
    with sockact.takeover(path) as rendezvous:
        rendezvous.ready()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)))
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()
    # What is imported at first use is not what is measured.
    importlib.import_module("sockact.rendezvous.thread")
    importlib.import_module("sockact.rendezvous.furnish")
    result: dict[str, object] = {
        "bench": "rendezvous",
        "rounds": arguments.rounds,
        "bar": f"get and takeover at most {BAR} times the floor from {BAR_FROM} on",
    }
    for count in map(int, arguments.counts.split(",")):
        if hard != resource.RLIM_INFINITY and hard < 3 * count + 100:
            result[str(count)] = f"left out: the hard limit of open files is {hard}"
            continue
        result[str(count)] = _measure(count, arguments.rounds)
    show(result)


if __name__ == "__main__":
    main()
