"""``sockact hold``, run as a person runs it."""

import os
import signal
import socket
from pathlib import Path

import pytest

import sockact
from sockact.cli import exits
from sockact.rendezvous.messages import Accept, Ack, Adopted, Committed, Op, Ready
from tests.cli.holders import WEB, as_user, holder, listed, port_of, run_as, said_until
from tests.helpers import SECONDS, SOCKACT, run, running
from tests.rendezvous.peers import Wire, until

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_it_opens_and_holds(short_dir: Path) -> None:
    """Everything that is defined is open, each fd name a set, and the kernel's ports are told."""
    unit = short_dir / "two.socket"
    unit.write_text(
        f"[Socket]\nListenStream={short_dir}/a\nListenDatagram={short_dir}/b\n", encoding="utf-8"
    )
    with running([*SOCKACT, "hold", f"{short_dir}/r", *WEB, str(unit)]) as process:
        said = said_until(process, "generation 1: 2 sets, 3 descriptors")
        found = listed(short_dir / "r")
        assert f"sockact: web: Stream {found[2]['address']}\n" in said
        assert [one["set"] for one in found] == ["two.socket", "two.socket", "web"]
        assert [one["kind"] for one in found] == ["Stream", "Datagram", "Stream"]
        with socket.create_connection(("127.0.0.1", port_of(short_dir / "r")), timeout=SECONDS):
            pass


def test_what_was_inherited_is_held(short_dir: Path) -> None:
    """Sockets that were passed to sockact itself are held under their fd names."""
    command = [*SOCKACT, "exec", *WEB, "--", *SOCKACT, "hold", f"{short_dir}/r"]
    with running(command) as process:
        said_until(process, "generation 1: 1 set, 1 descriptor")
        assert [one["set"] for one in listed(short_dir / "r")] == ["web"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it(short_dir: Path, number: signal.Signals) -> None:
    """It ends with status 0, and leaves neither node nor lock."""
    with holder(short_dir / "r", *WEB) as process:
        process.send_signal(number)
        assert process.wait(SECONDS) == exits.OK
    assert os.listdir(short_dir) == []


def test_a_live_owner_is_an_error(short_dir: Path) -> None:
    """Without --takeover the line says that there is such an option, and the owner goes on."""
    with holder(short_dir / "r", *WEB) as process:
        done = run("hold", f"{short_dir}/r")
        assert done.returncode == exits.FAILURE
        assert done.stderr == (
            f"sockact: error: {short_dir}/r: has an owner; --takeover takes over from it,"
            " with all it has\n"
        )
        assert process.poll() is None
        assert len(listed(short_dir / "r")) == 1


def test_takeover_keeps_every_set(short_dir: Path) -> None:
    """The new holder has the same sockets since the same time, and the old one ends with 0."""
    path = short_dir / "r"
    with holder(path, *WEB) as old:
        assert run("put", str(path), "more", "-l", "u=unix:@sockact-more").returncode == exits.OK
        before = listed(path)
        with holder(path, "--takeover", *WEB, "-l", "new=udp:127.0.0.1:0") as new:
            assert old.wait(SECONDS) == exits.OK
            assert old.stderr
            assert "has taken over" in old.stderr.read()
            after = listed(path)
            keys = ("set", "name", "inode", "since", "address")
            assert [[one[key] for key in keys] for one in after[:2]] == [
                [one[key] for key in keys] for one in before
            ]
            assert {one["generation"] for one in after} == {2}
            assert [one["set"] for one in after] == ["web", "more", "new"]
            assert {holder["pid"] for one in after for holder in one["held_by"]} == {new.pid}


def test_takeover_of_nothing(short_dir: Path) -> None:
    """Where there is no owner --takeover changes nothing."""
    with holder(short_dir / "r", "--takeover", *WEB):
        assert listed(short_dir / "r")[0]["generation"] == 1


def test_after_a_kill(short_dir: Path) -> None:
    """Without an fd store the sets are lost; the next start says so, and uses the path again."""
    path = short_dir / "r"
    with holder(path, *WEB) as process:
        process.kill()
        process.wait(SECONDS)
    done = run("list", str(path))
    assert (done.returncode, done.stdout) == (exits.UNAVAILABLE, "")
    with running([*SOCKACT, "hold", str(path)]) as again:
        said = said_until(again, "generation 1: 0 sets")
        assert said[0] == (
            f"sockact: {path}: its owner has died, and what that alone held is lost\n"
        )
        assert listed(path) == []


def test_who_has_a_copy_keeps_it(short_dir: Path) -> None:
    """A program that got a socket serves on when the holder is killed."""
    path = short_dir / "r"
    serve = (
        "import socket; s = socket.socket(fileno=3); print(flush=True); s.accept()[0].send(b'x')"
    )
    with holder(path, *WEB) as process:
        port = port_of(path)
        with running(
            [*SOCKACT, "get", str(path), "--", "/usr/bin/python3", "-c", serve]
        ) as program:
            assert program.stdout
            program.stdout.readline()
            process.kill()
            process.wait(SECONDS)
            with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as client:
                assert client.recv(1) == b"x"


def test_a_directory_that_others_may_write_to(short_dir: Path) -> None:
    """The line says which directory, and what to do; nothing is made there."""
    short_dir.chmod(0o777)
    done = run("hold", f"{short_dir}/r", *WEB)
    assert done.returncode == exits.NO_PERMISSION
    assert done.stderr == (
        f"sockact: error: {short_dir}/r: others may write to {short_dir}; use a directory of your"
        " own, or chmod go-w\n"
    )
    assert os.listdir(short_dir) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("missing/r", "No such file or directory"),
        ("", "is the path of a socket, not a directory"),
        ("file", "something that is no socket stands there"),
    ],
)
def test_no_place_for_it(short_dir: Path, name: str, text: str) -> None:
    """A path where no rendezvous can be is an error, and what stands there stays."""
    (short_dir / "file").write_text("mine", encoding="ascii")
    done = run("hold", f"{short_dir}/{name}")
    assert done.returncode == exits.FAILURE
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (short_dir / "file").read_text(encoding="ascii") == "mine"


def test_an_address_in_use(short_dir: Path) -> None:
    """A listener that cannot be opened is the error of exec, and the path is left free."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run("hold", f"{short_dir}/r", "-l", f"web=tcp:127.0.0.1:{port}")
    assert done.returncode == exits.FAILURE
    assert f"cannot open web=tcp:127.0.0.1:{port}: bind" in done.stderr
    assert os.listdir(short_dir) == []


def test_an_unknown_user(short_dir: Path) -> None:
    """A name that no user has is found before anything is opened."""
    done = run("hold", f"{short_dir}/r", *WEB, "--allow-user", "no-such-user")
    assert done.returncode == exits.USAGE
    assert done.stderr == "sockact: error: there is no user 'no-such-user'\n"
    assert os.listdir(short_dir) == []


def test_an_accepting_unit_is_refused(short_dir: Path) -> None:
    """Accept=yes is not what a holder can do, and the line says why."""
    unit = short_dir / "a.socket"
    unit.write_text(f"[Socket]\nListenStream={short_dir}/a\nAccept=yes\n", encoding="utf-8")
    done = run("hold", f"{short_dir}/r", str(unit))
    assert done.returncode == exits.CONFIG
    assert "a holder passes the listening socket on" in done.stderr


def test_what_has_no_effect_is_told(short_dir: Path) -> None:
    """A directive of the manager is a warning that names the command."""
    unit = short_dir / "a.socket"
    unit.write_text(
        f"[Socket]\nListenStream={short_dir}/a\nTriggerLimitBurst=5\n", encoding="utf-8"
    )
    done = run("put", f"{short_dir}/r", "x", str(unit))
    assert "TriggerLimitBurst= has no effect under put" in done.stderr
    assert done.returncode == exits.UNAVAILABLE
    assert not (short_dir / "a").exists()


@ROOT_ONLY
def test_others_get_what_they_may(short_dir: Path) -> None:
    """A user gets what --allow-user gives, sees no more, and may not put, drop or take over."""
    path = str(short_dir / "r")
    with holder(path, *WEB, "--allow-user", "12345"):
        assert run("put", path, "own", "-l", "tcp:127.0.0.1:0").returncode == exits.OK
        done = run_as(12345, "get", path, "web", "--", "/bin/true")
        assert done.returncode == exits.OK, done.stderr
        assert "own" not in run_as(12345, "list", path).stdout
        done = run_as(12345, "get", path, "own", "--", "/bin/true")
        assert done.returncode == exits.NO_INPUT
        for command in (["drop", path, "web"], ["put", path, "x", "-l", "unix:@sockact-x"]):
            done = run_as(12345, *command)
            assert done.returncode == exits.NO_PERMISSION, done.stderr
            assert "may not" in done.stderr


@ROOT_ONLY
def test_a_group_gets_what_it_may(short_dir: Path) -> None:
    """So does the member of a group, of a set that was put, and who is in neither is sent away."""
    path = str(short_dir / "r")
    with holder(path):
        words = ["-l", "tcp:127.0.0.1:0", "--allow-group", "12345"]
        assert run("put", path, "set", *words).returncode == exits.OK
        assert run_as(12345, "get", path, "set", "--", "/bin/true").returncode == exits.OK
        done = run_as(12346, "list", path)
        assert done.returncode == exits.NO_PERMISSION
        assert done.stderr == f"sockact: error: {path}: uid 12346 may do nothing here\n"


@ROOT_ONLY
def test_others_are_not_let_in(short_dir: Path) -> None:
    """Without a rule for anybody the node itself keeps other users out."""
    with holder(short_dir / "r", *WEB):
        done = run_as(12345, "list", str(short_dir / "r"))
        assert done.returncode == exits.NO_PERMISSION
        assert "Permission denied" in done.stderr


@ROOT_ONLY
def test_the_owner_must_be_believed() -> None:
    """An owner that is another user is not asked anything, unless --owner names it."""
    name = f"@sockact-owner-{os.getpid()}"
    with running(as_user(12345, "hold", name, *WEB, "--allow-user", "54321")) as process:
        said_until(process, "generation")
        done = run_as(54321, "get", name, "--", "/bin/true")
        assert done.returncode == exits.NO_PERMISSION
        assert "uid 12345, not by root" in done.stderr
        done = run_as(54321, "get", name, "--owner", "12345", "--", "/bin/true")
        assert done.returncode == exits.OK, done.stderr


def test_a_successor_that_is_lost_at_once_is_none(short_dir: Path) -> None:
    """The holder goes on with everything, unless it was told to let go."""
    path = f"{short_dir}/r"
    with holder(path, *WEB) as process:
        port = port_of(path)
        wire = Wire(path)
        assert wire.ask(Op.TAKEOVER, patience=5.0).TYPE == "offer"
        wire.say(Accept())
        taken = wire.hear()[1]
        for message in (Ack(len(taken)), Adopted(), Ready()):
            wire.say(message)
        assert wire.hear()[0].TYPE == "commit"
        # So that the word and the end come at once, however the machine is loaded.
        process.send_signal(signal.SIGSTOP)
        status = Path(f"/proc/{process.pid}/status")
        until(lambda: "State:\tT" in status.read_text(encoding="ascii"), "the holder is stopped")
        wire.say(Committed())
        wire.close()
        process.send_signal(signal.SIGCONT)
        for number in taken:
            os.close(number)
        said_until(process, "goes on")
        assert port_of(path) == port


def test_memory_and_descriptors_stay_flat(short_dir: Path) -> None:
    """Hundreds of sets may come and go."""
    path = str(short_dir / "r")

    def come_and_go(times: int) -> tuple[int, int]:
        for _ in range(times):
            with sockact.listen("a=tcp:127.0.0.1:0", "b=udp:127.0.0.1:0") as sockets:
                sockact.put(path, "x", sockets, replace=True)
            sockact.take(path, "x").close()
            sockact.holdings(path)
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        memory = next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)
        return memory, len(os.listdir(f"/proc/{process.pid}/fd"))

    with holder(path) as process:
        memory, descriptors = come_and_go(60)
        later, still = come_and_go(200)
    assert later < memory + 1000, "each set has cost memory for good"  # KiB; a leak had cost 3,000
    assert still <= descriptors + 2  # one connection may be about to be closed
