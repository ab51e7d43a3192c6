"""sockact.unitfile.unit: what assignments mean."""

import pytest

from sockact import directives as d
from sockact.errors import DirectiveError
from sockact.spec import INFINITY, Directive, Kind, Moment, Origin, SocketSpec, Value
from sockact.unitfile.builder import Surroundings
from sockact.unitfile.command import Command
from sockact.unitfile.foreign import foreign_key, unit_section
from sockact.unitfile.grammar import parse
from sockact.unitfile.unit import LISTEN_KINDS, interpret, read_setting, write
from sockact.unitfile.values import READERS

SURROUNDINGS = Surroundings({"t": "/run", "i": "x", "n": "web.socket"}.get)


def _unit(text: str, surroundings: Surroundings = SURROUNDINGS) -> SocketSpec:
    assignments, _ = parse(f"[Socket]\n{text}".encode(), "t")
    return interpret("web.socket", assignments, surroundings, "t")


def _said(text: str, surroundings: Surroundings = SURROUNDINGS) -> list[str]:
    return [str(d) for d in _unit("ListenStream=@x\n" + text, surroundings).diagnostics]


# --- the table ------------------------------------------------------------------------------------


def test_table_has_every_directive() -> None:
    """Every [Socket] directive up to systemd 261 is a row; NonBlocking= and ours are besides."""
    assert set(d.TABLE) - {d.X_TRIGGER_LIMIT_RECOVER.name} == set(
        """
        ListenStream ListenDatagram ListenSequentialPacket ListenFIFO ListenSpecial ListenNetlink
        ListenMessageQueue ListenUSBFunction SocketProtocol BindIPv6Only Backlog BindToDevice
        SocketUser SocketGroup SocketMode DirectoryMode Accept Writable FlushPending MaxConnections
        MaxConnectionsPerSource KeepAlive KeepAliveTimeSec KeepAliveIntervalSec KeepAliveProbes
        DeferAcceptSec NoDelay Broadcast PassCredentials PassPIDFD PassSecurity PassPacketInfo
        AcceptFileDescriptors Timestamping Priority ReceiveBuffer SendBuffer Mark IPTOS IPTTL
        TCPCongestion ReusePort FreeBind Transparent SmackLabel SmackLabelIPIn SmackLabelIPOut
        SELinuxContextFromNet PipeSize MessageQueueMaxMessages MessageQueueMessageSize ExecStartPre
        ExecStartPost ExecStopPre ExecStopPost PassFileDescriptorsToExec TimeoutSec Service
        RemoveOnStop Symlinks FileDescriptorName TriggerLimitIntervalSec TriggerLimitBurst
        PollLimitIntervalSec PollLimitBurst DeferTrigger DeferTriggerMaxSec NonBlocking
        """.split()
    )


@pytest.mark.parametrize("row", d.TABLE.values(), ids=lambda row: row.name)
def test_rows_are_whole(row: object) -> None:
    """Each row has what the parser, the opener, the command line and the manual need of it."""
    assert isinstance(row, Directive)
    assert row.summary.endswith(".")
    assert (
        (row.value is Value.LISTEN) == (row.name in LISTEN_KINDS) == (row.moment is Moment.LISTENER)
    )
    assert row.value in (Value.LISTEN, Value.COMMANDS) or row.value in READERS
    assert bool(row.option) == (row.moment in (Moment.BEFORE_BIND, Moment.LATE))
    assert bool(row.without_manager) == (
        row.moment in (Moment.MANAGER, Moment.NEVER) or row.name == "ListenUSBFunction"
    )


@pytest.mark.skipif(
    not __import__("pathlib").Path("/usr/lib/systemd/systemd").exists(),
    reason="systemd is not installed",
)
def test_systemd_knows_no_other_directive() -> None:
    """Every [Socket] key of the systemd on this machine is a row, or known to be another's."""
    import subprocess

    dump = subprocess.check_output(
        ["/usr/lib/systemd/systemd", "--dump-configuration-items"], text=True
    )
    keys = dump.partition("[Socket]\n")[2].partition("\n\n")[0].splitlines()
    unknown = [
        key
        for key in (line.partition("=")[0] for line in keys)
        if key and key not in d.TABLE and "unknown key" in foreign_key(key)
    ]
    assert len(keys) > 100
    assert unknown == []


# --- values ---------------------------------------------------------------------------------------


WITH_VALUES = [
    row
    for row in d.TABLE.values()
    if row.section == "Socket" and row.value not in (Value.LISTEN, Value.STRING)
]


@pytest.mark.parametrize("row", WITH_VALUES, ids=lambda row: row.name)
def test_a_bad_value_keeps_the_old_one(row: object) -> None:
    """A value that does not parse is one warning at its place, and what was set before stays."""
    assert isinstance(row, Directive)
    bad = "\x01" if row.value is not Value.FDNAME else "a:b"
    if row.value in (Value.USER, Value.COMMANDS):
        with pytest.raises(DirectiveError, match=rf"t:3:{len(row.name) + 2}: {row.name}="):
            _unit(f"ListenStream=@x\n{row.name}={bad if row.value is Value.USER else '@'}\n")
        return
    spec = _unit(f"ListenStream=@x\n{row.name}={bad}\n")
    assert spec.get(row) == row.default
    (said,) = [str(x) for x in spec.diagnostics]
    assert said.startswith(f"t:3:{len(row.name) + 2}: {row.name}=: ")
    assert said.endswith("this line is ignored")


@pytest.mark.parametrize(
    ("text", "row", "expected"),
    [
        ("", d.BACKLOG, 2**31 - 1),
        ("Backlog=5\nBacklog=7", d.BACKLOG, 7),
        ("Backlog=5\nBacklog=x", d.BACKLOG, 5),
        ("Backlog=5\nBacklog=", d.BACKLOG, 5),
        ("IPTOS=5\nIPTOS=", d.IP_TOS, -1),
        ("BindToDevice=lo\nBindToDevice=", d.BIND_TO_DEVICE, ""),
        ("BindToDevice=lo\nBindToDevice=*", d.BIND_TO_DEVICE, ""),
        ("FileDescriptorName=a\nFileDescriptorName=", d.FILE_DESCRIPTOR_NAME, ""),
        ("TCPCongestion=%i", d.TCP_CONGESTION, "%i"),
        ("TimeoutSec=0", d.TIMEOUT, INFINITY),
        ("Symlinks=/a /b\nSymlinks=/c", d.SYMLINKS, ("/a", "/b", "/c")),
        ("Symlinks=/a\nSymlinks=\nSymlinks=/c", d.SYMLINKS, ("/c",)),
        ("Symlinks=%t/%i", d.SYMLINKS, ("/run/x",)),
        (
            "ExecStartPre=/bin/a %i\nExecStartPre=-/bin/b",
            d.EXEC_START_PRE,
            (
                Command("/bin/a", ("/bin/a", "x")),
                Command("/bin/b", ("/bin/b",), ignore_failure=True),
            ),
        ),
        ("ExecStartPre=/bin/a\nExecStartPre=", d.EXEC_START_PRE, ()),
        ("FileDescriptorName=%i", d.FILE_DESCRIPTOR_NAME, "x"),
    ],
)
def test_merging(text: str, row: object, expected: object) -> None:
    """Scalars: the last wins; lists add up; an empty assignment resets what systemd resets."""
    assert isinstance(row, Directive)
    assert _unit(f"ListenStream=/s\n{text}\n").get(row) == expected


def test_settings_know_their_place() -> None:
    """Each value knows the line that set it."""
    assert str(_unit("ListenStream=@x\nBacklog=3\n").settings["Backlog"].origin) == "t:3:1"


# --- listeners ------------------------------------------------------------------------------------


def test_listeners_keep_their_order() -> None:
    """All kinds share one list, in the order of the file."""
    spec = _unit("ListenStream=80\nListenFIFO=/f\nListenDatagram=@d\nListenStream=81\n")
    assert [(x.kind, str(x.address)) for x in spec.listeners] == [
        (Kind.STREAM, "80"),
        (Kind.FIFO, "/f"),
        (Kind.DATAGRAM, "@d"),
        (Kind.STREAM, "81"),
    ]


def test_empty_listen_resets_all_kinds() -> None:
    """An empty assignment to any Listen directive drops every listener before it."""
    spec = _unit("ListenStream=80\nListenFIFO=/f\nListenDatagram=\nListenStream=%t/%n\n")
    assert [str(x.address) for x in spec.listeners] == ["/run/web.socket"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ListenStream=localhost:80", "ListenStream=: 'localhost:80' is not a port"),
        ("ListenSequentialPacket=80", "AF_UNIX only"),
        ("ListenStream=%z", "unknown specifier %z"),
        ("ListenFIFO=rel", "is not an absolute path"),
        ("ListenUSBFunction=/dev/ffs", "has no effect"),
        ("ListenStream=[fe80::1]:80%%nosuch", "no network interface 'nosuch'"),
    ],
)
def test_bad_listeners_are_dropped(line: str, message: str) -> None:
    """One that does not parse is a warning, and the others stay."""
    surroundings = Surroundings(lambda _letter: None, interface=lambda _name: False)
    (said,) = _said(line, surroundings)
    assert message in said


def test_without_ipv6() -> None:
    """Where the kernel has no IPv6, such listeners are dropped, but a bare port is not."""
    surroundings = Surroundings(lambda _letter: None, ipv6=False)
    spec = _unit("ListenStream=[::1]:80\nListenStream=80\n", surroundings)
    assert [str(x.address) for x in spec.listeners] == ["80"]
    assert "no IPv6" in str(spec.diagnostics[0])


def test_names() -> None:
    """The fd name is FileDescriptorName=, else the unit's full name."""
    assert _unit("ListenStream=80\n").listeners[0].name == "web.socket"
    assert _unit("ListenStream=80\nFileDescriptorName=api\n").listeners[0].name == "api"


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no listener left"),
        ("ListenStream=80\nListenFIFO=\n", "no listener left"),
        ("ListenStream=nonsense\n", "no listener left"),
        ("ListenStream=80\nMaxConnections=0\n", "t:3:1: MaxConnections=0"),
        ("ListenDatagram=80\nAccept=yes\n", "t:3:1: Accept=yes, but nothing can be accepted"),
        ("ListenFIFO=/f\nAccept=yes\n", "Accept=yes"),
        ("ListenStream=80\nAccept=yes\nService=a.service\n", "t:4:1: Service= excludes"),
        ("ListenStream=80\nAccept=yes\nDeferTrigger=yes\n", "t:4:1: DeferTrigger= excludes"),
        ("ListenStream=80\nSymlinks=/a\n", "here are 0"),
        ("ListenStream=/a\nListenFIFO=/b\nSymlinks=/c\n", "here are 2"),
        ("ListenStream=@a\nSymlinks=/c\n", "here are 0"),
        ("ListenStream=80\nSocketUser=a:b\n", "t:3:12: SocketUser="),
        ('ListenStream=80\nExecStartPre=/bin/true "x\n', "no closing"),
        ("ListenStream=80\nExecStopPost=/bin/true %z\n", "unknown specifier"),
    ],
)
def test_refused(text: str, message: str) -> None:
    """These units systemd does not load."""
    with pytest.raises(DirectiveError) as caught:
        _unit(text)
    assert message in str(caught.value)


# --- what is foreign ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("X-Mine=1", None),
        ("Backlogg=1", "unknown key Backlogg= in [Socket]; did you mean Backlog=?; ignored"),
        ("backlog=1", "did you mean Backlog=?"),
        ("Nonsense=1", "unknown key Nonsense= in [Socket]; ignored"),
        ("PassRights=1", "unknown key PassRights="),
        ("NonBlocking=1", "NonBlocking= belongs to [Service]; ignored"),
        ("User=a", "User= has no effect: it is for the commands of the unit"),
        ("MemoryMax=1G", "MemoryMax= has no effect"),
        ("SmackLabel=a", "SmackLabel= has no effect: it needs a Linux security module"),
        ("SELinuxContextFromNet=yes", "has no effect"),
    ],
)
def test_foreign_keys(line: str, message: str | None) -> None:
    """Unknown and useless keys are warnings with a hint; X- keys are nobody's business."""
    said = _said(line)
    assert len(said) == (message is not None)
    assert message is None or (said[0].startswith("t:3:1: ") and message in said[0])


@pytest.mark.parametrize(
    ("section", "key", "message"),
    [
        ("Unit", "Description", ""),
        ("Unit", "After", ""),
        ("Unit", "X-Own", ""),
        ("Unit", "ConditionPathExists", "ConditionPathExists= has no effect: conditions are not"),
        ("Unit", "AssertUser", "not evaluated"),
        ("Unit", "Aftr", "unknown key Aftr= in [Unit]; did you mean After=?; ignored"),
        ("Unit", "ConditionNonsense", "unknown key ConditionNonsense="),
        ("Install", "WantedBy", ""),
        ("Install", "WantdBy", "did you mean WantedBy=?"),
    ],
)
def test_other_sections(section: str, key: str, message: str) -> None:
    """[Unit] and [Install] tie a unit into systemd's graph; only lost conditions are worth a word."""
    said = unit_section(section, key)
    assert (message in said) if message else said == ""


# --- and back -------------------------------------------------------------------------------------


def test_writes_what_it_reads() -> None:
    """A spec is written as text that gives the same spec."""
    text = (
        "[Socket]\nListenStream=/a%%b\nListenDatagram=[::1]:80\nListenNetlink=route 3\n"
        "ListenMessageQueue=/q\nListenSpecial=/dev/null\nListenStream=vsock::9\nBacklog=7\n"
        "SocketMode=0600\nKeepAliveTimeSec=1s 500000us\nNoDelay=yes\nSymlinks=/x\\ y\n"
        "Symlinks=/z\nTCPCongestion=a%b\n"
    )
    assignments, _ = parse(text.encode(), "t")
    spec = interpret("web.socket", assignments, SURROUNDINGS)
    assert write(spec) == text
    assert not spec.diagnostics


def test_commands_can_be_said_elsewhere() -> None:
    """With a supervisor commands are read outside a unit, too, without specifiers."""
    row, setting = read_setting("ExecStartPre", "/bin/a 5% b", Origin("x"), supervised=True)
    assert row == d.TABLE["ExecStartPre"]
    assert setting.value == (Command("/bin/a", ("/bin/a", "5%", "b")),)
    for text in ("a/b", "-a/b", "a \\q"):
        with pytest.raises(ValueError, match=r"^ExecStartPre=: "):
            read_setting("ExecStartPre", text, Origin("x"), supervised=True)
    with pytest.raises(ValueError, match="has no effect here"):
        read_setting("ExecStartPre", "/bin/a", Origin("x"))
