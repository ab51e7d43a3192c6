"""``sockact check`` and ``sockact show``, run as a person runs them."""

import json
from pathlib import Path

import pytest

import sockact
from tests.helpers import run

FAULTY = """\
[Socket]
ListenStream=8080
SocketMode=0600
PassPIDFD=yes
Bakclog=5
TriggerLimitBurst=5
"""


def _unit(directory: Path, text: str, name: str = "w.socket") -> str:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_findings(tmp_path: Path) -> None:
    """Each line that is wrong or idle is a finding, in the order of the file."""
    path = _unit(tmp_path, FAULTY)
    done = run("check", "--systemd", "252", path)
    assert (done.returncode, done.stderr) == (1, "")
    found = [line.removeprefix(path).split(": ", 2)[:2] for line in done.stdout.splitlines()]
    assert found == [
        [":3:1", "warning"], [":4:1", "warning"], [":4:1", "warning"], [":5:1", "warning"],
        [":6:1", "note"],
    ]  # fmt: skip
    assert "PassPIDFD= is new in systemd 258; systemd 252 ignores the line" in done.stdout
    assert "SocketMode= has no effect: it is for AF_UNIX paths" in done.stdout
    assert "did you mean Backlog=?" in done.stdout
    assert "systemd 258" not in run("check", "--systemd", "258", path).stdout


def test_json(tmp_path: Path) -> None:
    """The same for programs."""
    found = json.loads(run("check", "--json", _unit(tmp_path, FAULTY)).stdout)
    assert found[0].keys() == {"path", "line", "column", "severity", "message"}
    assert [one["line"] for one in found] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("[Socket]\nListenStream=1\n", 0, ""),
        ("[Socket]\nListenStream=1\nFlushPending=yes\n", 0, ":3:1: note: FlushPending="),
        ("[Socket]\nListenStream=1\nAccept=yes\nMaxConnections=3\n", 0, ""),
        ("[Socket]\nListenStream=1\nBacklog=x\n", 1, ":3:9: warning: Backlog="),
        ("[Socket]\nListenStream=x\n", 78, "error: no listener left"),
        ("[Socket\n", 78, ":1:1: error: invalid section header"),
    ],
)
def test_status(tmp_path: Path, text: str, status: int, said: str) -> None:
    """The exit status is that of the worst finding."""
    done = run("check", _unit(tmp_path, text))
    assert (done.returncode, done.stderr) == (status, "")
    assert said in done.stdout
    assert bool(done.stdout) == bool(said)


def test_refusal_shows_the_reason(tmp_path: Path) -> None:
    """What was ignored before a refusal is told before it."""
    lines = run("check", _unit(tmp_path, "[Socket]\nListenStream=x\n")).stdout.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["warning", "error"]


def test_directory(tmp_path: Path) -> None:
    """Of a directory every unit is checked, templates with an instance."""
    _unit(tmp_path, FAULTY, "a.socket")
    _unit(tmp_path, "[Socket]\nListenStream=/run/%i\nBacklog=y\n", "b@.socket")
    done = run("check", str(tmp_path))
    assert {line.partition(":")[0] for line in done.stdout.splitlines()} == {
        f"{tmp_path}/a.socket", f"{tmp_path}/b@.socket"
    }  # fmt: skip
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "no units"),
        (("./none.socket",), 66, "no such socket unit"),
        (("/proc/self/fdinfo",), 66, "no .socket or .service file in this directory"),
        (("--systemd", "new", "x.socket"), 2, "--systemd"),
        (("--explain", "Baklog"), 2, "did you mean Backlog?"),
        (("--explain", "Backlog", "x.socket"), 2, "takes no units"),
    ],
)
def test_errors(arguments: tuple[str, ...], status: int, message: str) -> None:
    """One line on standard error."""
    done = run("check", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1)
    assert message in done.stderr


def test_explain() -> None:
    """A row of the directive table, for people and for programs."""
    done = run("check", "--explain", "DeferAcceptSec")
    assert done.stdout.startswith("DeferAcceptSec=\n  Wakes the program only when data has arrived")
    assert "  call:         SOL_TCP TCP_DEFER_ACCEPT\n" in done.stdout
    known = json.loads(run("check", "--json", "--explain", "FlushPending=").stdout)
    assert known["name"] == "FlushPending"
    assert known["acts"] == "by sockact run, or by systemd"
    assert known["under exec"].startswith("no effect")
    known = json.loads(run("check", "--json", "--explain", "Accept").stdout)
    assert known["under exec"].startswith("honoured")


def test_show(tmp_path: Path) -> None:
    """Values after drop-ins and specifiers, each with its place; lists element by element."""
    _unit(tmp_path, "[Socket]\nListenStream=/run/%p\nBacklog=1\nSymlinks=/a\n")
    drop_in = tmp_path / "w.socket.d" / "x.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Socket]\nBacklog=2\nSymlinks=/b /c\n", encoding="ascii")
    done = run("show", str(tmp_path / "w.socket"))
    main = tmp_path / "w.socket"
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows == [
        ["UNIT", "SETTING", "FROM"],
        ["w.socket", "ListenStream=/run/w", f"{main}:2:1"],
        ["w.socket", "Backlog=2", f"{drop_in}:2:1"],
        ["w.socket", "Symlinks=/a", f"{main}:4:1"],
        ["w.socket", "Symlinks=/b", f"{drop_in}:3:1"],
        ["w.socket", "Symlinks=/c", f"{drop_in}:3:1"],
    ]
    data = json.loads(run("show", "--json", "--all", str(main)).stdout)[0]
    assert data["path"] == str(main)
    by_name = {one["name"]: one for one in data["settings"]}
    assert by_name["Backlog"]["from"] == {"path": str(drop_in), "line": 2, "column": 1}
    assert by_name["KeepAlive"] == {"name": "KeepAlive", "value": "no", "from": None}
    assert by_name["Priority"]["value"] == "(the kernel's)"


def test_show_all_of_a_unit_with_nothing_set(tmp_path: Path) -> None:
    """Each directive has a default that can be shown, those that are lists too."""
    done = run("show", "--all", _unit(tmp_path, "[Socket]\nListenStream=8080\n"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "Symlinks=(not set)" in done.stdout


def test_nothing_is_run_or_opened(tmp_path: Path) -> None:
    """A unit from somebody else can make neither command act."""
    marker = tmp_path / "marker"
    text = f"[Socket]\nListenStream={tmp_path}/s\nExecStartPre=/bin/touch {marker}\n"
    path = _unit(tmp_path, text)
    for command in ("check", "show"):
        assert run(command, path).returncode == 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["w.socket"]


def test_library(tmp_path: Path) -> None:
    """The same as a function."""
    found = sockact.check(_unit(tmp_path, FAULTY), systemd=252)
    assert [one.severity for one in found].count(sockact.Severity.NOTE) == 1
    assert str(found[0]).startswith(f"{tmp_path}/w.socket:3:1: warning: SocketMode=")


def test_a_link_out_of_the_search_path_is_seen(tmp_path: Path) -> None:
    """What a unit reads from elsewhere is told; a link to a neighbour is not worth a word."""
    units, elsewhere = tmp_path / "units", tmp_path / "elsewhere"
    (units / "a.socket.d").mkdir(parents=True)
    elsewhere.mkdir()
    _unit(units, "[Socket]\nListenStream=1\n", "a.socket")
    (units / "b.socket").symlink_to("a.socket")
    assert run("check", str(units)).stdout == ""
    secret = elsewhere / "secret"
    secret.write_text("[Socket]\nBacklog=5\n", encoding="ascii")
    (units / "a.socket.d" / "x.conf").symlink_to(secret)
    done = run("check", str(units / "a.socket"))
    assert done.returncode == 1
    assert f"x.conf: warning: is a link to {secret}, which is outside" in done.stdout


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """A unit from somebody else costs no more memory than units need."""
    path = tmp_path / "huge.socket"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    done = run("check", str(path))
    assert (done.returncode, done.stderr.count("\n")) == (66, 1)
    assert "over 4194304 bytes" in done.stderr


SERVICE = """\
[Unit]
After=network.target
[Service]
ExecStart=/bin/web $A 100%%
ProtectSystem=strict
ProtectSystem=full
Restrat=always
OpenFile=/etc/passwd
Environment="A=b c" B=d
"""


def test_service_findings(tmp_path: Path) -> None:
    """What nobody honours in a service unit is told, once for each key."""
    path = _unit(tmp_path, SERVICE, "w.service")
    done = run("check", "--systemd", "252", str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "")
    found = [line.removeprefix(path).split(": ", 2)[:2] for line in done.stdout.splitlines()]
    assert found == [
        [":2:1", "warning"], [":5:1", "warning"], [":7:1", "warning"], [":8:1", "warning"],
    ]  # fmt: skip
    assert "did you mean Restart=?" in done.stdout
    assert "OpenFile= is new in systemd 253" in done.stdout
    refused = run("check", _unit(tmp_path, "[Service]\nType=forking\nExecStart=a\n", "f.service"))
    assert refused.returncode == 78
    assert "f.service:2:1: error: Type=forking is not run here" in refused.stdout


def test_a_socket_is_checked_without_its_service(tmp_path: Path) -> None:
    """A socket unit is looked at by itself."""
    _unit(tmp_path, "[Service\n", "w.service")
    assert run("check", _unit(tmp_path, "[Socket]\nListenStream=1\n")).returncode == 0


def test_explain_service() -> None:
    """Directives of service units are explained, too; of both kinds both."""
    done = run("check", "--explain", "TimeoutAbortSec")
    assert "  default:      as TimeoutStopSec=\n" in done.stdout
    both = run("check", "--explain", "ExecStartPre").stdout
    assert both.count("ExecStartPre=\n") == 2
    known = json.loads(run("check", "--json", "--explain", "ExecStartPre").stdout)
    assert known["name"] == "ExecStartPre"
    assert known["in service units"]["section"] == "[Service]"
    assert run("check", "--explain", "NonBlocking").stdout.count("NonBlocking=\n") == 1


def test_show_service(tmp_path: Path) -> None:
    """A service unit is shown like a socket unit."""
    path = _unit(tmp_path, SERVICE, "w.service")
    done = run("show", path)
    rows = [line.split(maxsplit=1)[1].split("  ")[0] for line in done.stdout.splitlines()]
    assert rows == [
        "SETTING", "ExecStart=/bin/web $A 100%", "OpenFile=/etc/passwd:passwd",
        'Environment="A=b c"', "Environment=B=d",
    ]  # fmt: skip
    assert done.stderr.count("\n") == 3
    data = json.loads(run("show", "--json", "--all", path).stdout)[0]
    by_name = {one["name"]: one for one in data["settings"]}
    assert by_name["Type"] == {"name": "Type", "value": "simple", "from": None}
    assert by_name["StandardOutput"]["value"] == "(that of sockact)"
    assert by_name["User"]["value"] == "(as sockact)"
    assert by_name["OpenFile"]["from"] == {"path": path, "line": 8, "column": 1}
