"""The examples of deployment, run as far as a machine without Docker and Kubernetes can.

What would be a container is a process in a pid namespace of its own here, with the very command
that the example gives; only paths and ports are replaced.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import ROOT, SECONDS, clean_environ, free_port, get

CONTAINER = ROOT / "examples" / "container"
LAPTOP = ROOT / "examples" / "laptop"
BIN = str(Path(sys.executable).parent)
APART = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def _missing() -> str:
    done = subprocess.run([*APART, "true"], capture_output=True, text=True, check=False)
    return f"no pid namespaces: {done.stderr.strip()}" if done.returncode else ""


needs_namespaces = pytest.mark.skipif(bool(_missing()), reason=_missing())


def _until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@contextlib.contextmanager
def _load(port: int, lost: int = 0) -> Iterator[list[str]]:
    """Make one request after the other; give what was answered; so many may fail."""
    said: list[str] = []
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            try:
                status, body = get(("127.0.0.1", port))
                said.append(body if status == 200 else f"error: {status}")
            except OSError as error:
                said.append(f"error: {error}")

    threads = len(os.listdir("/proc/self/task"))
    thread = threading.Thread(target=run)
    thread.start()
    try:
        _until(lambda: said, "there is no answer")
        yield said
    finally:
        over.set()
        thread.join()
        while len(os.listdir("/proc/self/task")) > threads:  # it may still be about to go
            time.sleep(0.001)
    errors = [one for one in said if one.startswith("error")]
    assert len(errors) <= lost, errors


class Container:
    """A command as PID 1 of a namespace."""

    def __init__(self, command: Sequence[str], directory: Path) -> None:
        self.log = directory / f"log-{time.monotonic_ns()}"
        environ = {"PATH": f"{BIN}:{os.environ['PATH']}"}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*APART, *command],
                cwd=directory,
                stdout=log,
                stderr=log,
                env=clean_environ(environ),
            )

    @property
    def pid(self) -> int:
        """Its PID 1, as it is called out here."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        _until(children.read_text, "it does not start")
        return int(children.read_text().split()[0])

    def pids(self) -> list[int]:
        """Return the processes in it, zombies included, as they are called out here."""
        namespace = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if name.isdecimal() and os.readlink(f"/proc/{name}/ns/pid") == namespace:
                    found.append(int(name))
        return found

    def signal(self, number: int) -> None:
        """Send its PID 1 a signal, as a container manager does."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Return its status."""
        return self.process.wait(SECONDS)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def _containers(directory: Path) -> Iterator[Callable[[Sequence[str]], Container]]:
    shutil.copy(ROOT / "examples" / "http_hello.py", directory)
    started: list[Container] = []

    def start(command: Sequence[str]) -> Container:
        started.append(Container(command, directory))
        return started[-1]

    try:
        yield start
    except BaseException:
        for one in started:
            print(one.log.read_text(errors="replace"))
        raise
    finally:
        for one in started:
            one.close()


def _served(port: int) -> int:
    """Return which process answers, as it calls itself."""
    return _pid_in(get(("127.0.0.1", port))[1])


def _pid_in(body: str) -> int:
    match = re.search(r"process (\d+)", body)
    assert match
    return int(match[1])


def _is_up(port: int) -> bool:
    try:
        return bool(_served(port))
    except OSError:
        return False


def _put(words: Sequence[str], port: int, path: str) -> list[str]:
    """Return a command with a port and a place of the test's own."""
    return [
        word.replace("tcp:8080", f"tcp:127.0.0.1:{port}")
        .replace("/run/hello/rendezvous", path)
        .replace("/rendezvous/hello", path)
        for word in words
    ]


# --- Dockerfile -----------------------------------------------------------------------------------


def _dockerfile() -> dict[str, list[str]]:
    """Return the instructions of the Dockerfile, each with its last arguments."""
    text = re.sub(r"\\\n", " ", (CONTAINER / "Dockerfile").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            found[name] = json.loads(rest) if rest.startswith("[") else rest.split()
    return found


def test_the_dockerfile_copies_what_there_is() -> None:
    """What is copied into the image is in the repository, and its port is the one that is open."""
    found = _dockerfile()
    assert list(found) == ["FROM", "COPY", "RUN", "WORKDIR", "USER", "EXPOSE", "ENTRYPOINT", "CMD"]
    assert (ROOT / found["COPY"][0]).is_file()
    assert f"web=tcp:{found['EXPOSE'][0]}" in found["CMD"]
    assert found["CMD"][-1] == Path(found["COPY"][0]).name


@needs_namespaces
def test_the_image_serves_and_stops(tmp_path: Path) -> None:
    """Its command, as PID 1, serves, is replaced by SIGHUP, reaps orphans, and ends by SIGTERM."""
    found, port = _dockerfile(), free_port()
    command = _put([*found["ENTRYPOINT"], *found["CMD"]], port, "")
    with _containers(tmp_path) as start:
        hello = start(command)
        _until(lambda: _is_up(port), "it does not serve")
        first = _served(port)
        with _load(port) as said:
            hello.signal(signal.SIGHUP)
            _until(lambda: _pid_in(said[-1]) != first, "it is not replaced")
        enter = ["nsenter", "--pid", "--target", str(hello.pid)]
        subprocess.run([*enter, "sh", "-c", "(sleep 0.1 &)"], check=True)
        _until(lambda: len(hello.pids()) == 2, "an orphan is not reaped")
        hello.signal(signal.SIGTERM)
        assert hello.wait() == 0


# --- compose --------------------------------------------------------------------------------------


def _yaml(name: str) -> list[Any]:
    yaml = pytest.importorskip("yaml")
    with open(CONTAINER / name, encoding="utf-8") as file:
        return list(yaml.safe_load_all(file))


def test_compose_shares_network_and_volume() -> None:
    """Both releases are in one network and have one volume, and do not come again by themselves."""
    (compose,) = _yaml("compose.yaml")
    services = compose["services"]
    assert services["blue"] == services["green"]
    release = services["blue"]
    assert release["network_mode"] == "service:net"
    (volume,) = release["volumes"]
    assert volume.partition(":")[0] in compose["volumes"]
    assert release["restart"] == "on-failure"
    assert "ports" not in release
    assert services["net"]["ports"]
    build = services["net"]["build"]
    assert (CONTAINER / build["context"] / build["dockerfile"]).samefile(CONTAINER / "Dockerfile")
    # Where the volume is mounted the image has a directory that only its user may write to.
    mounted = volume.partition(":")[2]
    dockerfile = (CONTAINER / "Dockerfile").read_text(encoding="utf-8")
    assert f"--mode 0700 {mounted}\n" in dockerfile
    assert f"--rendezvous={mounted}/rendezvous" in release["command"]


@needs_namespaces
def test_one_release_takes_over_from_the_other(short_dir: Path) -> None:
    """Blue, green, and blue again, without a failed request; who has handed over exits with 0."""
    (compose,) = _yaml("compose.yaml")
    port, path = free_port(), f"{short_dir}/r"
    words = [*_dockerfile()["ENTRYPOINT"], *compose["services"]["blue"]["command"]]
    command = _put(words, port, path)
    with _containers(short_dir) as start:
        blue = start(command)
        _until(lambda: _is_up(port), "it does not serve")
        with _load(port):
            green = start(command)
            assert blue.wait() == 0
            again = start(command)
            assert green.wait() == 0
            broken = start([*command[:-1], "missing.py"])
            assert broken.wait() != 0
            _until(lambda: _is_up(port), "it does not serve any more")
        again.signal(signal.SIGTERM)
        assert again.wait() == 0


# --- Kubernetes -----------------------------------------------------------------------------------


def _pod() -> tuple[dict[str, Any], dict[str, Any]]:
    pod, service = _yaml("kubernetes.yaml")
    return pod, service


def test_the_pod_is_consistent() -> None:
    """The holder is a sidecar; everybody mounts the volume; the service finds the port."""
    pod, service = _pod()
    assert (pod["kind"], service["kind"]) == ("Pod", "Service")
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    sticky, holder = pod["spec"]["initContainers"]
    (server,) = pod["spec"]["containers"]
    assert holder["restartPolicy"] == "Always"
    assert "restartPolicy" not in sticky
    (volume,) = pod["spec"]["volumes"]
    for one in (sticky, holder, server):
        (mount,) = one["volumeMounts"]
        assert mount["name"] == volume["name"]
    assert service["spec"]["ports"][0]["targetPort"] == server["ports"][0]["name"]
    assert f"web=tcp:{server['ports'][0]['containerPort']}" in holder["command"]
    assert f"--from={holder['command'][2]}" in server["args"]
    assert int(_dockerfile()["USER"][0]) == pod["spec"]["securityContext"]["runAsUser"]


@needs_namespaces
def test_the_holder_bridges_a_crash(short_dir: Path) -> None:
    """While the server is away connections wait; when it comes again they are served."""
    pod, _ = _pod()
    sticky, holder = pod["spec"]["initContainers"]
    (server,) = pod["spec"]["containers"]
    volume = short_dir / "rendezvous"
    volume.mkdir()
    volume.chmod(0o777)  # as an emptyDir is
    subprocess.run([*sticky["command"][:-1], volume], check=True)
    port, path = free_port(), f"{volume}/hello"
    with _containers(short_dir) as start:
        holding = start(_put(holder["command"], port, path))
        probe = _put(holder["startupProbe"]["exec"]["command"], port, path)
        environ = clean_environ({"PATH": f"{BIN}:{os.environ['PATH']}"})
        _until(
            lambda: (
                not subprocess.run(probe, env=environ, check=False, capture_output=True).returncode
            ),
            "the holder does not come up",
        )
        command = _put([*server["command"], *server["args"]], port, path)
        one = start(command)
        _until(lambda: _is_up(port), "it does not serve")
        with _load(port, lost=1) as said:  # what the killed one has accepted is lost
            one.signal(signal.SIGKILL)
            one.wait()
            count = len(said)
            two = start(command)
            _until(lambda: len(said) > count + 10, "it does not serve again")
        two.signal(signal.SIGTERM)
        assert two.wait() == 0
        holding.signal(signal.SIGTERM)
        assert holding.wait() == 0


# --- laptop ---------------------------------------------------------------------------------------


def test_what_is_saved_is_served(tmp_path: Path) -> None:
    """A file that is saved is served, one that is saved broken is not, and no request fails."""
    pytest.importorskip("watchfiles")
    script = LAPTOP / "reload.sh"
    source, port = tmp_path / "http_hello.py", free_port()
    text = (ROOT / "examples" / "http_hello.py").read_text(encoding="utf-8")
    source.write_text(text)
    words = [
        str(script), str(tmp_path), "--listen", f"web=tcp:127.0.0.1:{port}", "--ready", "notify",
        "--", "python", str(source),
    ]  # fmt: skip
    environ = clean_environ({"PATH": f"{BIN}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)})
    log = tmp_path / "log"
    with open(log, "wb") as output:
        process = subprocess.Popen(words, env=environ, stdout=output, stderr=output)
    try:
        _until(lambda: _is_up(port), "it does not serve")
        with _load(port) as said:
            # The watcher may begin to watch only now: saved again and again, until it is seen.
            for number in range(100):
                source.write_text(text.replace("Hello from", f"Save {number} from"))
                with contextlib.suppress(AssertionError):
                    _within(1.0, lambda: said[-1].startswith("Save"))
                    break
            last = said[-1]
            source.write_text(text + "\n(\n")
            _until(lambda: "SyntaxError" in log.read_text(), "the fault is not told of")
            source.write_text(text.replace("Hello from", "Repaired by"))
            _until(lambda: said[-1].startswith("Repaired"), "it is not repaired")
        assert last.startswith("Save")
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    except BaseException:
        print(log.read_text(errors="replace"))
        raise
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    assert not list(tmp_path.glob("tmp.*"))


def _within(seconds: float, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
