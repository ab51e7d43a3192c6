"""What the programs of the life-cycle cases do: ``python -I -S player.py LOG NAME VERB...``.

It appends to LOG, as a line of JSON, who it is and what it was given, and then does each verb. After
``then`` stands what it does if it is not the first of this name. It knows nothing of sockact.

exit N           ends with a status
forever          does nothing until it is told to end
serve N          takes N connections, or all that come, and answers each with "ok"
cat              sends back what comes on descriptor 3, until its end
drain            reads what waits in descriptor 3
drain-queue      takes a message from the queue that is descriptor 3
hangup           shuts the listener down
notify TEXT      sends a notification
store NAME       stores a new file under a name
twice NAME       stores one file two times
drop NAME        removes what is stored under a name
sleep SECONDS    waits
"""

import array
import ctypes
import json
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable

VARIABLES = ("LISTEN_FDS", "LISTEN_FDNAMES", "REMOTE_ADDR", "REMOTE_PORT", "SO_COOKIE", "FDSTORE")


def _describe(fd: int) -> str:
    mode = os.fstat(fd).st_mode
    if not stat.S_ISSOCK(mode):
        return "fifo" if stat.S_ISFIFO(mode) else "file"
    sock = socket.socket(fileno=fd)
    try:
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        blocks = "blocking" if os.get_blocking(fd) else "non-blocking"
        return f"{'listener' if listens else 'socket'} {blocks}"
    finally:
        sock.detach()


def _given() -> dict[str, object]:
    environ = {key: os.environ[key] for key in VARIABLES if key in os.environ}
    ours = os.environ.get("LISTEN_PID") == str(os.getpid())
    count = int(environ.get("LISTEN_FDS", "0")) if ours else 0
    return {"environ": environ, "fds": [_describe(fd) for fd in range(3, 3 + count)]}


def _notify(text: str, *fds: int) -> None:
    path = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sock.sendmsg([text.encode()], rights, 0, "\0" + path[1:] if path[0] == "@" else path)


def _store(name: str, *, times: int = 1) -> None:
    fd = os.memfd_create(name)  # a pipe would hang up when this process ends
    for _ in range(times):
        _notify(f"FDSTORE=1\nFDNAME={name}", fd)


def _listener() -> int:
    """Return a copy of the first listener: the order between units is not defined."""
    fds = range(3, 3 + int(os.environ["LISTEN_FDS"]))
    return os.dup(next(fd for fd in fds if _describe(fd).startswith("listener")))


def _serve(count: int) -> None:
    listener = socket.socket(fileno=_listener())
    while count:
        connection = listener.accept()[0]
        connection.sendall(b"ok")
        connection.close()
        count -= 1


def _cat() -> None:
    while data := os.read(3, 65536):
        os.write(3, data)


def _drain() -> None:
    os.read(3, 65536)


def _drain_queue() -> None:
    ctypes.CDLL(None).mq_receive(3, ctypes.create_string_buffer(65536), 65536, None)


def _hangup() -> None:
    socket.socket(fileno=_listener()).shutdown(socket.SHUT_RDWR)


def _forever() -> None:
    while True:
        signal.pause()


ALONE = {
    "forever": _forever, "cat": _cat, "drain": _drain, "drain-queue": _drain_queue,
    "hangup": _hangup,
}  # fmt: skip
WITH_WORD: dict[str, Callable[[str], object]] = {
    "exit": lambda word: sys.exit(int(word)),
    "notify": _notify,
    "store": _store,
    "twice": lambda word: _store(word, times=2),
    "drop": lambda word: _notify(f"FDSTOREREMOVE=1\nFDNAME={word}"),
    "sleep": lambda word: time.sleep(float(word)),
}


def _play(words: list[str]) -> None:
    while words:
        verb = words.pop(0)
        if verb == "serve":
            _serve(int(words.pop(0)) if words and words[0].isdigit() else -1)
        elif verb in ALONE:
            ALONE[verb]()
        else:
            WITH_WORD[verb](words.pop(0))


def main() -> None:
    """Do what the arguments say."""
    log, name, *words = sys.argv[1:]
    line = json.dumps({"name": name, "pid": os.getpid(), **_given()})
    fd = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    os.write(fd, (line + "\n").encode())
    with open(fd, encoding="utf-8") as file:
        file.seek(0)
        before = sum(json.loads(one)["name"] == name for one in file) - 1
    if "then" in words:
        at = words.index("then")
        words = words[at + 1 :] if before else words[:at]
    _play(words)


if __name__ == "__main__":
    main()
