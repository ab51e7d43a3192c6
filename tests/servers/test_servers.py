"""Real servers, real requests, each started through ``sockact exec``."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest

from tests.helpers import (
    ROOT,
    SECONDS,
    SOCKACT,
    clean_environ,
    free_port,
    get,
    running,
    wait_until_accepting,
)

EXAMPLES = ROOT / "examples"
PYTHON = sys.executable


@attrs.frozen
class Server:
    """How to start a server, and how it ends.

    Attributes:
        command: The command, with fields.
        body: A regular expression for what it answers.
        stop: The signal that ends it gracefully.
        status: Its exit status then.
        options: Further options of sockact exec.
        unix: Whether it can serve a Unix socket.
    """

    command: list[str]
    body: str
    stop: signal.Signals = signal.SIGTERM
    status: int = 0
    options: tuple[str, ...] = ()
    unix: bool = True


def _gunicorn(*options: str, app: str = "flask_app:app") -> list[str]:
    return [PYTHON, "-m", "gunicorn", "--chdir", str(EXAMPLES), *options, app]


_UVICORN = [PYTHON, "-m", "uvicorn", "--app-dir", str(EXAMPLES)]

SERVERS = {
    "gunicorn sync": Server(_gunicorn(), r"Hello from Flask in process \d+"),
    "gunicorn gthread": Server(_gunicorn("--threads", "4"), r"Hello from Flask"),
    "gunicorn two workers": Server(_gunicorn("-w", "2"), r"Hello from Flask"),
    "gunicorn preload": Server(_gunicorn("--preload"), r"Hello from Flask"),
    "uvicorn --fd": Server(
        [*_UVICORN, "--fd", "{fd:web}", "asgi_app:app"], r"Hello from uvicorn", status=-15
    ),
    "uvicorn --workers": Server(
        [*_UVICORN, "--workers", "2", "--fd", "{fd}", "asgi_app:app"], r"Hello from uvicorn"
    ),
    "uvicorn in a program": Server(
        [PYTHON, str(EXAMPLES / "asgi_app.py")], r"Hello from uvicorn in process {pid}", status=-15
    ),
    "uvicorn with its drain": Server(
        [PYTHON, str(EXAMPLES / "uvicorn_drain.py")], r"Hello from process {pid}", status=-15
    ),
    "uvicorn with its drain, by its command": Server(
        [PYTHON, "-m", "sockact.servers.uvicorn", "--app-dir", str(EXAMPLES), "asgi_app:app"],
        r"Hello from uvicorn in process {pid}",
        status=-15,
    ),
    "werkzeug": Server(
        [PYTHON, str(EXAMPLES / "flask_app.py")],
        r"Hello from Flask in process {pid}",
        status=-15,
        unix=False,
    ),
    "standard library": Server(
        [PYTHON, str(EXAMPLES / "http_hello.py")], r"Hello from process {pid}, path /"
    ),
}


@pytest.fixture(params=["tcp", "unix"])
def place(request: pytest.FixtureRequest, short_dir: Path) -> tuple[str, tuple[str, int] | str]:
    """Give a ``--listen`` address, and where a client finds it."""
    if request.param == "tcp":
        port = free_port()
        return f"tcp:127.0.0.1:{port}", ("127.0.0.1", port)
    return f"unix:{short_dir}/s", f"{short_dir}/s"


@pytest.mark.parametrize("name", SERVERS)
def test_serves(name: str, place: tuple[str, tuple[str, int] | str]) -> None:
    """Unchanged, it serves the inherited socket in our process, and ends as it always does."""
    server = SERVERS[name]
    listen, address = place
    if isinstance(address, str) and not server.unix:
        pytest.skip("this server takes TCP sockets only")
    command = [*SOCKACT, "exec", "-l", f"web={listen}", *server.options, "--", *server.command]
    with running(command) as process:
        wait_until_accepting(address)
        expected = server.body.replace("{pid}", str(process.pid))
        for _ in range(3):
            status, body = get(address)
            assert status == 200
            assert re.match(expected, body), body
        process.send_signal(server.stop)
        assert process.wait(SECONDS) == server.status
    if isinstance(address, str):
        assert Path(address).is_socket(), "the server removed a path that it does not own"


def test_gunicorn_says_what_it_took(short_dir: Path) -> None:
    """All sockets reach gunicorn: it takes them by LISTEN_FDS, and believes LISTEN_PID."""
    port = free_port()
    sockets = ["-l", f"a=tcp:127.0.0.1:{port}", "-l", f"b=unix:{short_dir}/s"]
    with running([*SOCKACT, "exec", *sockets, "--", *_gunicorn()]) as process:
        for address in (("127.0.0.1", port), f"{short_dir}/s"):
            wait_until_accepting(address)
            assert get(address)[0] == 200
        process.terminate()
        _, stderr = process.communicate(timeout=SECONDS)
    assert f"Listening at: http://127.0.0.1:{port},unix:{short_dir}/s" in stderr


def test_uvicorn_serves_every_socket(short_dir: Path) -> None:
    """A program of one's own gives uvicorn all that it inherited."""
    port = free_port()
    sockets = ["-l", f"a=tcp:127.0.0.1:{port}", "-l", f"b=unix:{short_dir}/s"]
    with running([*SOCKACT, "exec", *sockets, "--", PYTHON, str(EXAMPLES / "asgi_app.py")]):
        for address in (("127.0.0.1", port), f"{short_dir}/s"):
            wait_until_accepting(address)
            assert get(address)[1].startswith("Hello from uvicorn")


def test_a_unit_file_instead_of_options(short_dir: Path) -> None:
    """The same with a socket unit."""
    unit = short_dir / "web.socket"
    unit.write_text(f"[Socket]\nListenStream={short_dir}/s\nSocketMode=0600\n", encoding="utf-8")
    with running([*SOCKACT, "exec", str(unit), "--", *_gunicorn()]):
        wait_until_accepting(f"{short_dir}/s")
        assert get(f"{short_dir}/s")[0] == 200


def test_no_client_is_refused_while_the_server_starts() -> None:
    """Connections made before the server runs wait in the queue and are served."""
    port = free_port()
    late = ["sh", "-c", 'sleep 0.7; exec "$@"', "sh", *_gunicorn()]
    with running([*SOCKACT, "exec", "-l", f"web=tcp:127.0.0.1:{port}", "--", *late]):
        wait_until_accepting(("127.0.0.1", port))
        begin = time.monotonic()
        assert get(("127.0.0.1", port))[0] == 200
        assert time.monotonic() - begin > 0.3, "the server was there already: the test is void"


def test_lazy_start_serves_the_first_client(short_dir: Path) -> None:
    """With --lazy the first connection starts gunicorn and gets its answer from it."""
    path = f"{short_dir}/s"
    with running([*SOCKACT, "exec", "--lazy", "-l", f"unix:{path}", "--", *_gunicorn()]) as process:
        deadline = time.monotonic() + SECONDS
        while not Path(path).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert b"gunicorn\0--chdir" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert b"sockact" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert get(path)[0] == 200
        assert b"sockact" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()


def test_asyncio_echo() -> None:
    """With asyncio a program serves, says READY=1, and finishes with its clients after SIGTERM."""
    port = free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0sockact-ready-{os.getpid()}")
        manager.settimeout(SECONDS)
        environ = {"NOTIFY_SOCKET": f"@sockact-ready-{os.getpid()}"}
        command = [*SOCKACT, "exec", "-l", f"echo=tcp:127.0.0.1:{port}", "--", PYTHON]
        with running([*command, str(EXAMPLES / "asyncio_echo.py")], environ=environ) as process:
            assert manager.recv(100) == b"READY=1"
            with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
                client.sendall(b"one")
                assert client.recv(10) == b"one"
                process.terminate()
                assert manager.recv(100) == b"STOPPING=1"
                client.sendall(b"two")
                assert client.recv(10) == b"two"
            assert process.wait(SECONDS) == 0


def test_plain_socket() -> None:
    """The smallest program serves, by the only socket there is."""
    port = free_port()
    command = [*SOCKACT, "exec", "-l", f"tcp:127.0.0.1:{port}", "--", PYTHON]
    with running([*command, str(EXAMPLES / "plain_socket.py")]):
        wait_until_accepting(("127.0.0.1", port))
        with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
            assert client.recv(10) == b"Hello\n"


@pytest.fixture(scope="session")
def c_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the C example."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("there is no C compiler")
    if not Path("/usr/include/systemd/sd-daemon.h").exists():
        pytest.skip("libsystemd's header is not installed")
    program = tmp_path_factory.mktemp("c") / "c_listen"
    source = str(EXAMPLES / "c_listen.c")
    flags = ["-Wall", "-Wextra", "-Werror", "-Wno-sign-compare"]
    subprocess.run([compiler, *flags, "-o", str(program), source, "-lsystemd"], check=True)
    return program


def test_c_program_on_libsystemd(c_program: Path, short_dir: Path) -> None:
    """sd_listen_fds_with_names() finds each socket under its name."""
    port = free_port()
    sockets = ["-l", f"first=tcp:127.0.0.1:{port}", "-l", f"second=unix:{short_dir}/s"]
    with running([*SOCKACT, "exec", *sockets, "--", str(c_program)]):
        for address, name in ((("127.0.0.1", port), "first"), (f"{short_dir}/s", "second")):
            wait_until_accepting(address)
            assert get(address) == (200, name)


def test_c_program_believes_nobody_else(c_program: Path) -> None:
    """In a child of the program that was started, LISTEN_PID names another process."""
    command = [*SOCKACT, "exec", "-l", "tcp:127.0.0.1:0", "--", "sh", "-c", f"{c_program}; exit 7"]
    done = subprocess.run(
        command, env=clean_environ(), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 7
    assert "expected 1 to 64 sockets" in done.stderr


def test_nginx(tmp_path: Path) -> None:
    """By its own variable nginx takes the descriptor, serves, and ends after SIGQUIT."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not nginx:
        pytest.skip("nginx is not installed")
    port = free_port()
    text = (EXAMPLES / "nginx.conf").read_text(encoding="utf-8")
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(text.replace("127.0.0.1:8080;", f"127.0.0.1:{port};"))
    listen = f"127.0.0.1:{port}?NonBlocking=yes"
    command = [*SOCKACT, "exec", "-l", listen, "-E", "NGINX=3;", "--"]
    with running([*command, nginx, "-p", str(tmp_path), "-c", str(configuration)]) as process:
        wait_until_accepting(("127.0.0.1", port))
        for _ in range(3):
            assert get(("127.0.0.1", port)) == (200, "Hello from nginx\n")
        process.send_signal(signal.SIGQUIT)
        assert process.wait(SECONDS) == 0
        stderr = process.stderr.read() if process.stderr else ""
    assert "using inherited sockets" in stderr
