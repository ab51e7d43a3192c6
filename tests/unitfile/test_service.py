"""sockact.unitfile.service: what the assignments of a service unit mean.

That this is what systemd makes of them, tests/conformance/test_services.py finds out.
"""

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockact import service_directives as d
from sockact.errors import DirectiveError, UnitError
from sockact.service_directives import OpenFileSpec, OptionalPath, Stdio
from sockact.spec import (
    INFINITY,
    Directive,
    HostAddress,
    Moment,
    Origin,
    ServiceSpec,
    Setting,
    Value,
)
from sockact.unitfile.builder import Surroundings
from sockact.unitfile.check_service import (
    default_text,
    service_facts,
    service_findings,
    service_lines,
)
from sockact.unitfile.command import Command
from sockact.unitfile.foreign import COMMAND_KEYS
from sockact.unitfile.foreign_service import service_key
from sockact.unitfile.grammar import SERVICE_SECTIONS, parse
from sockact.unitfile.readiness import Said, Tcp, parse_readiness
from sockact.unitfile.service import DERIVED, complete, interpret, override, read_setting
from sockact.unitfile.service_values import SERVICE_READERS, WORD_READERS
from sockact.unitfile.values import READERS

SURROUNDINGS = Surroundings({"t": "/run", "i": "x", "n": "web.service"}.get)
SYSTEMD = Path("/usr/lib/systemd/systemd")


def _unit(text: str, name: str = "web.service") -> ServiceSpec:
    text = text if text.startswith("[") else f"[Service]\nExecStart=/bin/web\n{text}"
    assignments, _ = parse(text.encode(), "t", sections=SERVICE_SECTIONS)
    return interpret(name, assignments, SURROUNDINGS, "t")


def _said(text: str) -> list[str]:
    return [str(one) for one in _unit(text).diagnostics]


# --- the table ------------------------------------------------------------------------------------

ROWS = list(d.TABLE.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_are_whole(row: Directive[object]) -> None:
    """Each row has what the parser, the command line and the manual need of it."""
    assert row.summary.endswith(".")
    assert (
        row.value in READERS
        or row.value in SERVICE_READERS
        or row.value in WORD_READERS
        or row.value in (Value.COMMANDS, Value.LIMIT)
    )
    assert row.section in ("Service", "Unit")
    assert row.moment in (Moment.MANAGER, Moment.EXPORT)
    assert default_text(row)
    assert service_facts(row)["summary"] == row.summary


def test_constants() -> None:
    """A row is under the name by which it is asked for."""
    assert len(d.LIMITS) == 16
    by_constant = {
        name: row for name, row in vars(d).items() if isinstance(row, Directive) and name.isupper()
    }
    assert {row.name for row in by_constant.values()} | set(d.LIMITS) == set(d.TABLE)


@pytest.mark.skipif(not SYSTEMD.exists(), reason="systemd is not installed")
@pytest.mark.parametrize("section", ["Service", "Unit"])
def test_systemd_knows_no_other_key(section: str) -> None:
    """Every key of the systemd on this machine is a row, or known not to be honoured."""
    dump = subprocess.check_output([SYSTEMD, "--dump-configuration-items"], text=True)
    lines = dump.partition(f"[{section}]\n")[2].partition("\n\n")[0].splitlines()
    keys = {line.partition("=")[0] for line in lines} - set(d.TABLE) - {d.BOTH_TIMEOUTS}
    keys -= {key for where, key in d.ALIASES if where == section}
    assert len(lines) > 60
    assert [key for key in keys if not service_key(section, key)[1]] == []


def test_rows_are_systemds() -> None:
    """Whatever is no X- key of ours is one of systemd's, so that no unit is for us alone."""
    newer = {"OpenFile", "ReloadSignal", "RestartSteps", "RestartMaxDelaySec",
             "FileDescriptorStorePreserve"}  # fmt: skip
    assert newer == {row.name for row in ROWS if row.since > 252}
    assert {name for name in d.TABLE if name.startswith("X-")} == {
        "X-Ready", "X-IdleStopSec", "X-Instances"
    }  # fmt: skip


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "text", "value"),
    [
        (d.TYPE, "exec", "exec"),
        (d.TYPE, "idle", "simple"),
        (d.TYPE, "notify-reload", "notify-reload"),
        (d.RESTART, "on-abnormal", "on-abnormal"),
        (d.RESTART_SEC, "1.5", 1_500_000),
        (d.RESTART_STEPS, "3\nRestartMaxDelaySec=1", 3),
        (d.TIMEOUT_START, "0", INFINITY),
        (d.TIMEOUT_STOP, "1min", 60_000_000),
        (d.KILL_MODE, "mixed", "mixed"),
        (d.KILL_SIGNAL, "INT", 2),
        (d.SEND_SIGHUP, "on", True),
        (d.NOTIFY_ACCESS, "all", "all"),
        (d.FD_STORE_MAX, "7", 7),
        (d.FD_STORE_PRESERVE, "true", "yes"),
        (d.FD_STORE_PRESERVE, "off", "no"),
        (d.FD_STORE_PRESERVE, "restart", "restart"),
        (d.FD_STORE_PRESERVE, "on-success", "on-success"),
        (d.SUCCESS_EXIT_STATUS, "1 TEMPFAIL HUP", {("exit", 1), ("exit", 75), ("signal", 1)}),
        (d.SUCCESS_EXIT_STATUS, "1\nSuccessExitStatus=0x2", {("exit", 1), ("exit", 2)}),
        (d.SUCCESS_EXIT_STATUS, "1\nSuccessExitStatus=", frozenset()),
        (d.ENVIRONMENT, "A=1 'B=2 3' C=%i", (("A", "1"), ("B", "2 3"), ("C", "x"))),
        (d.ENVIRONMENT, "A=1 B=2\nEnvironment=A=3", (("A", "3"), ("B", "2"))),
        (d.ENVIRONMENT, "A=1\nEnvironment=\nEnvironment=B=", (("B", ""),)),
        (d.ENVIRONMENT_FILE, "-/a\nEnvironmentFile=%t/b*",
         (OptionalPath("/a", optional=True), OptionalPath("/run/b*"))),
        (d.PASS_ENVIRONMENT, "A B A", ("A", "B")),
        (d.UNSET_ENVIRONMENT, 'A "B=1 2"', ("A", "B=1 2")),
        (d.USER, "www-data", "www-data"),
        (d.SUPPLEMENTARY_GROUPS, "a 7\nSupplementaryGroups=b", ("a", "7", "b")),
        (d.WORKING_DIRECTORY, "/a//b/", OptionalPath("/a/b")),
        (d.WORKING_DIRECTORY, "-~", OptionalPath("~", optional=True)),
        (d.UMASK, "027", 0o27),
        (d.NICE, "-5", -5),
        (d.OOM_SCORE_ADJUST, "1000", 1000),
        (d.LIMITS["LimitNOFILE"], "1024:4096", (1024, 4096)),
        (d.LIMITS["LimitAS"], "1G", (2**30, 2**30)),
        (d.LIMITS["LimitCORE"], "0:infinity", (0, -1)),
        (d.LIMITS["LimitCPU"], "1500ms", (2, 2)),
        (d.LIMITS["LimitRTTIME"], "5", (5, 5)),
        (d.LIMITS["LimitNICE"], "-20:+0", None),
        (d.LIMITS["LimitNICE"], "+19", (1, 1)),
        (d.SOCKETS, "a.socket b.socket\nSockets=\nSockets=b.socket c@%i.socket",
         ("a.socket", "b.socket", "c@x.socket")),
        (d.STANDARD_INPUT, "fd:a b", Stdio("fd", "a b")),
        (d.STANDARD_OUTPUT, "append:%t//x", Stdio("append", "/run/x")),
        (d.STANDARD_ERROR, "null", Stdio("null")),
        (d.OPEN_FILE, "/a/b", (OpenFileSpec("/a/b", "b"),)),
        (d.OPEN_FILE, "/a:n:read-only,graceful\nOpenFile=/b",
         (OpenFileSpec("/a", "n", "read-only", graceful=True), OpenFileSpec("/b", "b"))),
        (d.OPEN_FILE, "/a\\x3ab\\sc:n:append", (OpenFileSpec("/a:b c", "n", "append"),)),
        (d.X_READY, "exec", Said.EXEC),
        (d.X_READY, "tcp:localhost:80", Tcp(HostAddress("localhost", "80"))),
        (d.X_READY, "http://[::1]:80/x", parse_readiness("http://[::1]:80/x")),
        (d.X_IDLE_STOP, "5min", 300_000_000),
        (d.X_IDLE_STOP, "0", INFINITY),
        (d.X_INSTANCES, "4", 4),
    ],
)  # fmt: skip
def test_values(row: Directive[object], text: str, value: object) -> None:
    """Values that are right, and how they add up."""
    spec = _unit(f"{row.name}={text}")
    if value is None:
        assert len(spec.diagnostics) == 1
    else:
        assert spec.diagnostics == ()
    assert spec.get(row) == value


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (d.TYPE, "fast"), (d.RESTART, "yes"), (d.RESTART_SEC, ""), (d.RESTART_SEC, "-1"),
        (d.TIMEOUT_START, "soon"), (d.KILL_MODE, "all"), (d.KILL_SIGNAL, "0"), (d.UMASK, "8"),
        (d.NOTIFY_ACCESS, "yes"), (d.FD_STORE_MAX, "-1"), (d.FD_STORE_PRESERVE, "always"),
        (d.NICE, "20"), (d.OOM_SCORE_ADJUST, "-1001"), (d.LIMITS["LimitNOFILE"], "2:1"),
        (d.LIMITS["LimitNOFILE"], ""), (d.LIMITS["LimitNOFILE"], "1K"), (d.LIMITS["LimitAS"], "1:"),
        (d.LIMITS["LimitNICE"], "-21"), (d.LIMITS["LimitNICE"], "41"), (d.ENVIRONMENT, "A"),
        (d.ENVIRONMENT, 'A="1'), (d.ENVIRONMENT, "A=\\q"), (d.ENVIRONMENT_FILE, "a"),
        (d.ENVIRONMENT_FILE, "-"), (d.PASS_ENVIRONMENT, "A=1"), (d.UNSET_ENVIRONMENT, "1A"),
        (d.WORKING_DIRECTORY, "-a"), (d.SUCCESS_EXIT_STATUS, "256"), (d.SUCCESS_EXIT_STATUS, "x"),
        (d.SOCKETS, "a.service"), (d.CONFLICTS, "a"), (d.STANDARD_INPUT, "inherit"),
        (d.STANDARD_OUTPUT, "fd:a:b"), (d.STANDARD_OUTPUT, "file:a"), (d.STANDARD_OUTPUT, "append"),
        (d.OPEN_FILE, "a"), (d.OPEN_FILE, "/"), (d.OPEN_FILE, "/a:b:c"), (d.OPEN_FILE, "/a:b:append:x"),
        (d.OPEN_FILE, "/a::append,truncate"), (d.OPEN_FILE, "/a::append,append"),
        (d.OPEN_FILE, "/a\\q"),
        (d.OPEN_FILE, "/a\\x3ab"), (d.X_READY, "soon"), (d.X_READY, "tcp:"), (d.X_READY, ":80"),
        (d.X_READY, "tcp:127.0.0.1:0"), (d.X_READY, "https://a/"), (d.X_READY, "delay:infinity"),
        (d.X_IDLE_STOP, "never"), (d.X_INSTANCES, "0"), (d.X_INSTANCES, "1001"),
    ],
)  # fmt: skip
def test_bad_values(row: Directive[object], text: str) -> None:
    """A value that is wrong is one warning at its place, and what held before holds."""
    section = f"[{row.section}]\n{row.name}={text}\n[Service]\nExecStart=/bin/web\n"
    spec = _unit(section)
    (said,) = map(str, spec.diagnostics)
    assert re.match(rf"t:2:\d+: {row.name}=: ", said)
    assert "ignored" in said
    assert row.name not in spec.settings or spec.settings[row.name].origin == DERIVED


@pytest.mark.parametrize(
    "line",
    ["User=a:b", "Group=%z", "SupplementaryGroups=a/b", "ExecStartPre=a/b", "WorkingDirectory=a",
     "ExecStop=@", "WorkingDirectory=/%z"],
)  # fmt: skip
def test_refused_lines(line: str) -> None:
    """A bad account, command or directory refuses the unit; in a drop-in only the rest of that."""
    with pytest.raises(DirectiveError, match=rf"^t:3:\d+: {line.partition('=')[0]}=: "):
        _unit(line)
    main, _ = parse(b"[Service]\nExecStart=/bin/web\n", "t", sections=SERVICE_SECTIONS)
    more, _ = parse(f"[Service]\nNice=1\n{line}\nNice=2\n".encode(), "x.conf",
                    sections=SERVICE_SECTIONS)  # fmt: skip
    spec = interpret("web.service", [*main, *more], SURROUNDINGS, "t")
    assert spec.get(d.NICE) == 1
    assert "the rest of this drop-in is ignored" in str(spec.diagnostics[0])


def test_commands() -> None:
    """Commands add up, know their line, and an empty value drops them."""
    spec = _unit("ExecStartPre=/bin/a %i ; -/bin/b\nExecStartPre=c\nExecStop=d\nExecStop=\n")
    found = spec.get(d.EXEC_START_PRE)
    assert found == (
        Command("/bin/a", ("/bin/a", "x")),
        Command("/bin/b", ("/bin/b",), ignore_failure=True),
        Command("c", ("c",)),
    )
    assert [str(one.origin) for one in found] == ["t:3:1", "t:3:1", "t:4:1"]
    assert spec.get(d.EXEC_STOP) == ()


# --- what follows ---------------------------------------------------------------------------------

ONESHOT = "[Service]\nType=oneshot\nExecStart=/bin/a\nExecStart=/bin/b\n"


@pytest.mark.parametrize(
    ("text", "row", "value"),
    [
        ("", d.TYPE, "simple"),
        ("[Service]\nExecStop=/bin/a\nRemainAfterExit=yes\n", d.TYPE, "oneshot"),
        ("", d.TIMEOUT_START, 90_000_000),
        (ONESHOT, d.TIMEOUT_START, INFINITY),
        (ONESHOT + "TimeoutStartSec=5\n", d.TIMEOUT_START, 5_000_000),
        (ONESHOT + "TimeoutSec=5\n", d.TIMEOUT_STOP, 5_000_000),
        ("TimeoutSec=5\nTimeoutStopSec=7\n", d.TIMEOUT_START, 5_000_000),
        ("TimeoutSec=5\nTimeoutStopSec=7\n", d.TIMEOUT_STOP, 7_000_000),
        ("TimeoutStopSec=7\n", d.TIMEOUT_ABORT, 7_000_000),
        ("TimeoutAbortSec=3\nTimeoutStopSec=7\n", d.TIMEOUT_ABORT, 3_000_000),
        ("KillSignal=INT\n", d.RESTART_KILL_SIGNAL, 2),
        ("KillSignal=INT\nRestartKillSignal=HUP\n", d.RESTART_KILL_SIGNAL, 1),
        ("", d.NOTIFY_ACCESS, "none"),
        ("Type=notify\n", d.NOTIFY_ACCESS, "main"),
        ("Type=notify-reload\nNotifyAccess=exec\n", d.NOTIFY_ACCESS, "exec"),
        ("WatchdogSec=1\n", d.NOTIFY_ACCESS, "main"),
        ("FileDescriptorStoreMax=1\nNotifyAccess=none\n", d.NOTIFY_ACCESS, "main"),
        ("StartLimitBurst=7\n", d.START_LIMIT_BURST, 7),
        ("StartLimitInterval=7\n", d.START_LIMIT_INTERVAL, 7_000_000),
    ],
)  # fmt: skip
def test_what_follows(text: str, row: Directive[object], value: object) -> None:
    """Defaults that depend on other directives are settings."""
    spec = _unit(text)
    assert spec.diagnostics == ()
    assert spec.get(row) == value


@pytest.mark.parametrize(
    ("lines", "output", "error"),
    [
        ("", "parent", "parent"),
        ("StandardInput=file:/x", "parent", "parent"),
        ("StandardInput=socket", "inherit", "inherit"),
        ("StandardInput=fd", "inherit", "inherit"),
        ("StandardInput=socket\nStandardError=journal", "inherit", "parent"),
        ("StandardInput=socket\nStandardOutput=null", "null", "inherit"),
        ("StandardOutput=null", "null", "inherit"),
        ("StandardError=null", "parent", "null"),
        ("StandardOutput=journal", "parent", "inherit"),
        ("StandardInput=tty\nStandardOutput=tty", "parent", "inherit"),
    ],
)
def test_streams(lines: str, output: str, error: str) -> None:
    """An output inherits of a socket; where there is none it goes where that of sockact goes."""
    spec = _unit(lines)
    assert (spec.get(d.STANDARD_OUTPUT).kind, spec.get(d.STANDARD_ERROR).kind) == (output, error)
    foreign = re.findall("=(?:journal|tty)", lines)
    assert len(spec.diagnostics) == len(foreign)
    assert all("is not done here" in one.message for one in spec.diagnostics)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[Service]\n", "nothing to run"),
        ("[Service]\nType=simple\nExecStop=/bin/a\n", "t:2:1: only a service of Type=oneshot"),
        ("[Service]\nType=oneshot\nExecStop=/bin/a\n", "RemainAfterExit=yes"),
        ("ExecStart=/bin/b\n", "t:3:1: 2 programs in ExecStart="),
        ("ExecStart=\n", "nothing to run"),
        (ONESHOT + "Restart=always\n", "t:5:1: Restart=always excludes Type=oneshot"),
        (ONESHOT + "Restart=on-success\n", "t:5:1: Restart=on-success excludes"),
        (ONESHOT + "X-Instances=2\n", "t:5:1: X-Instances= excludes"),
        ("Type=forking\n", "t:3:1: Type=forking is not run here"),
        ("Type=dbus\n", "t:3:1: Type=dbus is not run here"),
    ],
)
def test_refused(text: str, why: str) -> None:
    """Combinations that cannot work, and types that are not run here, refuse the unit."""
    with pytest.raises(DirectiveError, match=re.escape(why)):
        _unit(text)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("RestartSteps=3", "RestartSteps= has no effect without RestartMaxDelaySec="),
        ("RestartMaxDelaySec=3", "RestartMaxDelaySec= has no effect without RestartSteps="),
        ("RestartSteps=3\nRestartMaxDelaySec=50ms", "is less than RestartSec="),
        ("Type=oneshot\nRuntimeMaxSec=3", "has no effect with Type=oneshot"),
    ],
)
def test_contradictions(lines: str, said: str) -> None:
    """What contradicts itself is a warning."""
    (found,) = _said(lines)
    assert said in found


def test_a_longest_wait_holds() -> None:
    """RestartSec= is no more than RestartMaxDelaySec=."""
    spec = _unit("RestartSec=9\nRestartSteps=3\nRestartMaxDelaySec=5")
    assert spec.get(d.RESTART_SEC) == 5_000_000


def test_completing_again() -> None:
    """What follows is found anew each time, and said once."""
    spec = _unit("Type=oneshot\nRuntimeMaxSec=3\nKillSignal=INT")
    assert complete(spec) == spec
    changed = override(
        spec,
        {
            "Type": Setting("notify", Origin("x")),
            "KillSignal": Setting(1, Origin("x")),
        },
    )
    assert changed.get(d.TIMEOUT_START) == 90_000_000
    assert changed.get(d.RESTART_KILL_SIGNAL) == 1
    assert changed.get(d.NOTIFY_ACCESS) == "main"
    with pytest.raises(DirectiveError, match="x: Restart=always"):
        override(spec, {"Restart": Setting("always", Origin("x"))})


# --- what is not honoured -------------------------------------------------------------------------


def test_a_foreign_key_is_told_once() -> None:
    """Each key that nobody honours is one warning, with the place of its first line."""
    said = _said("ProtectSystem=strict\nProtectSystem=full\nPrivateTmp=yes\nProtectSystem=no\n")
    assert said == [
        "t:3:1: ProtectSystem= has no effect: the service is not confined here",
        "t:5:1: PrivateTmp= has no effect: the service is not confined here",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Nonsense=1", "unknown key Nonsense= in [Service]; ignored"),
        ("execstart=1", "did you mean ExecStart=?"),
        ("RestartSecs=1", "did you mean RestartSec=?"),
        ("ProtectSystm=1", "did you mean ProtectSystem=?"),
        ("X-IdleStop=1", "did you mean X-IdleStopSec=?"),
        ("X-Intances=2", "did you mean X-Instances=?"),
        ("PIDFile=/x", "PIDFile= has no effect: the main process is the one that was started"),
        ("DynamicUser=yes", "name one in User="),
        ("RuntimeDirectory=x", "make it in ExecStartPre="),
        ("MemoryMax=1G", "no control groups"),
        ("SyslogIdentifier=x", "its output goes"),
        ("Description=x", "Description= belongs to [Unit]"),
        ("RestartMode=direct", "RestartMode= has no effect here"),
    ],
)
def test_foreign_keys(line: str, said: str) -> None:
    """A key is known, and then it is said why it has no effect; or it is not."""
    (found,) = _said(line)
    assert said in found
    assert found.startswith("t:3:1: ")


def test_every_known_key_has_something_said() -> None:
    """Nothing of [Service] that is not honoured passes in silence."""
    for key in COMMAND_KEYS - set(d.TABLE):
        said, known = service_key("Service", key)
        assert said.startswith(f"{key}= has no effect")
        assert known


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("[Unit]\nDescription=x\nDocumentation=man:x\nSourcePath=/x\nX-y=1\n", 0),
        ("[Unit]\nAfter=a\nAfter=b\nWants=a\nRequires=a\nDefaultDependencies=no\n", 4),
        ("[Unit]\nConditionPathExists=/x\nAssertHost=x\n", 2),
        ("[Unit]\nNonsense=1\nNice=5\nExecStart=/x\n", 3),
        ("[Install]\nWantedBy=x\nAlias=x\nAlso=x\n", 0),
        ("[Install]\nNonsense=1\nNice=5\n", 2),
        ("[Socket]\nListenStream=1\nx\n[X-Ours]\ny\n", 0),  # of the section the grammar warns
    ],
)
def test_other_sections(text: str, count: int) -> None:
    """Texts and [Install] pass in silence; what would tie the service to others does not."""
    spec = _unit(f"{text}[Service]\nExecStart=/bin/a\n")
    assert len(spec.diagnostics) == count
    assert spec.get(d.NICE) is None


# --- what is said elsewhere -----------------------------------------------------------------------


def test_read_setting() -> None:
    """A directive can be said outside of a unit, without specifiers."""
    row, setting = read_setting("Restart", "always", Origin("here"))
    assert (row, setting) == (d.TABLE["Restart"], Setting("always", Origin("here")))
    assert read_setting("Environment", "A=%i", Origin("x"))[1].value == (("A", "%i"),)
    assert read_setting("ExecStop", "/bin/a 100%", Origin("x"))[1].value == (
        Command("/bin/a", ("/bin/a", "100%")),
    )
    assert read_setting("ExecStop", "", Origin("x"))[1].value == ()
    for name, text in (("Restrat", "x"), ("Restart", "x"), ("User", "a:b"), ("ExecStop", "@")):
        with pytest.raises(ValueError, match=name):
            read_setting(name, text, Origin("x"))


def test_lines_and_findings() -> None:
    """Everything that was set is shown with its place; defaults only where asked for."""
    spec = _unit("Environment=B=1 A=2\nSuccessExitStatus=HUP 3\nLimitNOFILE=1:2\nNice=x\n")
    lines = [(one.name, one.value, str(one.origin)) for one in service_lines(spec, defaults=False)]
    assert lines == [
        ("ExecStart", "/bin/web", "t:2:1"),
        ("SuccessExitStatus", "3 SIGHUP", "t:4:1"),
        ("Environment", "B=1", "t:3:1"),
        ("Environment", "A=2", "t:3:1"),
        ("LimitNOFILE", "1:2", "t:5:1"),
    ]
    everything = {one.name: one.value for one in service_lines(spec, defaults=True)}
    assert set(everything) == set(d.TABLE)
    assert everything["TimeoutAbortSec"] == "90s"
    assert everything["LimitAS"] == "(as sockact)"
    assert [str(one) for one in service_findings(spec)] == [
        "t:6:6: warning: Nice=: 'x' is not a whole number; this line is ignored"
    ]


_LINES = st.one_of(
    st.sampled_from([row.name for row in ROWS] + ["TimeoutSec", "ProtectHome", "X-a"]).flatmap(
        lambda name: st.one_of(
            st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=12),
            st.sampled_from(["", "1", "yes", "infinity", "/a", "A=1", "-/a b", "fd:x", "1:2", "~"]),
        ).map(lambda text: f"{name}={text}")
    ),
    st.sampled_from(["[Service]", "[Unit]", "[Install]", "nonsense"]),
)


@given(st.lists(_LINES, max_size=12))
def test_any_lines_are_a_service_or_refused(lines: list[str]) -> None:
    """No lines make it fail in any other way; what it reads can be shown and completed."""
    try:
        spec = _unit("\n".join(["", *lines]))
    except UnitError as error:
        assert "\n" not in str(error)
        return
    assert service_lines(spec, defaults=True)
    assert all("\n" not in str(one) for one in service_findings(spec, systemd=252))
    assert complete(spec) == spec
