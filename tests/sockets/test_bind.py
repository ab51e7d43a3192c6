"""sockact.sockets.bind, with resolve, advice and holder: real sockets, real failures."""

import concurrent.futures
import errno
import grp
import os
import pwd
import resource
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import sockact
from sockact import directives as d
from sockact.errors import BindError
from sockact.sockets import bind
from tests.helpers import clean_environ, free_port

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
IPV6_ONLY = pytest.mark.skipif(not bind.has_ipv6(), reason="this machine has no IPv6")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def _option(sock: socket.socket, level: int, number: int) -> int:
    return sock.getsockopt(level, number)


# --- every kind -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "family", "listening"),
    [
        ("tcp:127.0.0.1:0", "Stream", "AF_INET", True),
        ("tcp4:0", "Stream", "AF_INET", True),
        ("udp:127.0.0.1:0", "Datagram", "AF_INET", False),
        ("unix:@sockact-stream", "Stream", "AF_UNIX", True),
        ("unix-dgram:@sockact-dgram", "Datagram", "AF_UNIX", False),
        ("unix-seqpacket:@sockact-seq", "SequentialPacket", "AF_UNIX", True),
        ("special:/dev/null", "Device", "", False),
        pytest.param("tcp6:[::1]:0", "Stream", "AF_INET6", True, marks=IPV6_ONLY),
        pytest.param("udp6:0", "Datagram", "AF_INET6", False, marks=IPV6_ONLY),
        pytest.param("tcp:0", "Stream", "AF_INET6", True, marks=IPV6_ONLY),
    ],
)
def test_kinds(text: str, kind: str, family: str, listening: bool) -> None:
    """Each scheme opens what it says: close-on-exec, and blocking by default."""
    with sockact.listen(text) as found:
        (entry,) = found
        what = entry.describe()
        assert (what.kind, what.family, what.listening) == (kind, family, listening)
        assert not os.get_inheritable(entry.fileno())
        assert os.get_blocking(entry.fileno())


def test_netlink() -> None:
    """A netlink socket joins its group."""
    with sockact.listen("netlink:route:1") as found:
        assert found["netlink-route"].getsockname()[1] == 1


def test_vsock() -> None:
    """A vsock listener opens, where the kernel has vsock."""
    try:
        found = sockact.listen("vsock::5555")
    except BindError as error:
        pytest.skip(str(error))
    with found:
        assert found.entry().describe().family == "AF_VSOCK"


def test_message_queue() -> None:
    """A queue is made with its limits and mode whatever the umask, and removed on discard."""
    name = f"/sockact-{os.getpid()}"
    limits = "MessageQueueMaxMessages=3&MessageQueueMessageSize=64&SocketMode=0622"
    old = os.umask(0o077)
    try:
        found = sockact.listen(f"q=mqueue:{name}?{limits}")
    except BindError as error:
        pytest.skip(str(error))
    finally:
        os.umask(old)
    info = os.fstat(found.filenos()[0])
    assert stat.S_IMODE(info.st_mode) == 0o622
    found.close()
    with pytest.raises(BindError, match="another mode or owner"):
        sockact.listen(f"q=mqueue:{name}?SocketMode=0600")
    again = sockact.listen(f"q=mqueue:{name}?SocketMode=0622&RemoveOnStop=yes")
    assert os.fstat(again.filenos()[0]).st_ino == info.st_ino
    again.close()  # not made by this set, so not removed by it
    sockact.listen(f"q=mqueue:{name}?SocketMode=0622").discard()
    from sockact.fd.mqueue import unlink_queue

    unlink_queue(name)
    made = sockact.listen(f"q=mqueue:{name}?RemoveOnStop=yes")
    made.close()
    with pytest.raises(FileNotFoundError):
        unlink_queue(name)


@IPV6_ONLY
def test_bare_port_takes_ipv4_and_ipv6() -> None:
    """``tcp:PORT`` is [::]:PORT and serves IPv4 as well; tcp4 and tcp6 work side by side."""
    port = free_port()
    with sockact.listen(f"tcp:{port}"):
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port)).close()
    with sockact.listen(f"tcp4:{port}", f"tcp6:{port}") as both:
        assert both.names == (f"tcp4-{port}", f"tcp6-{port}")
        assert _option(both[f"tcp6-{port}"], socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_multipath_tcp() -> None:
    """SocketProtocol=mptcp makes the socket multipath TCP."""
    try:
        found = sockact.listen("web=tcp:127.0.0.1:0?SocketProtocol=mptcp")
    except BindError as error:
        pytest.skip(str(error))
    with found:
        assert found["web"].proto == 262


# --- names, ports, ranges -------------------------------------------------------------------------


def test_port_range() -> None:
    """A range opens every port, each under a name of its own."""
    first = 21_000
    with sockact.listen(f"tcp:127.0.0.77:{first}-{first + 4}") as found:
        assert found.names == tuple(f"tcp-{first + i}" for i in range(5))
        assert [s.getsockname()[1] for s in found.sockets()] == list(range(first, first + 5))


def test_host_name_opens_every_address() -> None:
    """A host name opens a listener on each of its addresses, all on the same port."""
    addresses = {i[4][0] for i in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    with sockact.listen("web=tcp:localhost:0") as found:
        names = [sock.getsockname() for sock in found.sockets("web")]
    assert {name[0] for name in names} == addresses
    assert len({name[1] for name in names}) == 1


def test_several_addresses_share_the_chosen_port() -> None:
    """With port 0 the kernel chooses once for all addresses of a name."""
    spec = sockact.definition("web=tcp:127.0.0.1:0").spec
    (one,) = spec.listeners
    import attrs

    other = attrs.evolve(one, address=attrs.evolve(one.address, host="127.0.0.2"))  # type: ignore[arg-type]
    with sockact.open_specs([attrs.evolve(spec, listeners=(one, other))]) as found:
        names = [sock.getsockname() for sock in found.sockets()]
    assert [name[0] for name in names] == ["127.0.0.1", "127.0.0.2"]
    assert names[0][1] == names[1][1]


def test_service_name() -> None:
    """A service name stands for its port."""
    found = sockact.definition("tcp:127.0.0.1:http-alt").resolved().spec.listeners
    assert [str(listener.address) for listener in found] == ["127.0.0.1:8080"]
    found = sockact.definition("udp4:domain").resolved().spec.listeners
    assert [str(listener.address) for listener in found] == ["0.0.0.0:53"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tcp:no-such-host.invalid:80", "no-such-host.invalid:80"),
        ("tcp:127.0.0.1:no-such-service", "no-such-service"),
        ("tcp:no-such-service", "no service is called 'no-such-service'"),
    ],
)
def test_unknown_names(text: str, message: str) -> None:
    """A name that cannot be resolved is one clear error."""
    with pytest.raises(BindError, match=message) as caught:
        sockact.listen(text)
    assert "\n" not in str(caught.value)


# --- socket options -------------------------------------------------------------------------------

SOL, TCP, IP = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP


@pytest.mark.parametrize(
    ("query", "level", "number", "value"),
    [
        ("KeepAlive=yes", SOL, socket.SO_KEEPALIVE, 1),
        ("KeepAliveTimeSec=2min", TCP, 4, 120),
        ("KeepAliveIntervalSec=7", TCP, 5, 7),
        ("KeepAliveProbes=5", TCP, 6, 5),
        ("DeferAcceptSec=1", TCP, 9, 1),
        ("NoDelay=yes", TCP, socket.TCP_NODELAY, 1),
        ("ReusePort=yes", SOL, socket.SO_REUSEPORT, 1),
        ("FreeBind=yes", IP, 15, 1),
        ("Priority=3", SOL, 12, 3),
        ("ReceiveBuffer=64K", SOL, socket.SO_RCVBUF, 131072),
        ("SendBuffer=64K", SOL, socket.SO_SNDBUF, 131072),
        ("IPTOS=low-delay", IP, socket.IP_TOS, 16),
        ("IPTTL=9", IP, socket.IP_TTL, 9),
        ("PassPacketInfo=yes", IP, 8, 1),
        ("Timestamping=us", SOL, 29, 1),
        ("Timestamping=ns", SOL, 35, 1),
        ("", SOL, socket.SO_REUSEADDR, 1),
        ("", SOL, socket.SO_KEEPALIVE, 0),
        pytest.param("Transparent=yes", IP, 19, 1, marks=ROOT_ONLY),
        pytest.param("Mark=7", SOL, 36, 7, marks=ROOT_ONLY),
    ],
)
def test_inet_options(query: str, level: int, number: int, value: int) -> None:
    """Each directive sets its socket option, and without it the kernel's default stays."""
    with sockact.listen("?".join(filter(None, ("web=tcp:127.0.0.1:0", query)))) as found:
        assert _option(found["web"], level, number) == value


@pytest.mark.parametrize(
    ("query", "number"),
    [("PassCredentials=yes", 16), ("PassSecurity=yes", 34), ("PassPIDFD=yes", 76)],
)
def test_unix_options(query: str, number: int) -> None:
    """The options of Unix sockets are set; a kernel that has one not says so in a warning."""
    warnings: list[str] = []
    with sockact.listen(f"web=unix:@sockact-options?{query}", warn=warnings.append) as found:
        if warnings:
            pytest.skip(warnings[0])
        assert _option(found["web"], SOL, number) == 1


def test_accept_file_descriptors() -> None:
    """AcceptFileDescriptors=no refuses descriptors (Linux 6.16), or warns on an older kernel."""
    warnings: list[str] = []
    text = "web=unix:@sockact-rights?AcceptFileDescriptors=no"
    with sockact.listen(text, warn=warnings.append) as found:
        if warnings:
            assert "SO_PASSRIGHTS" in warnings[0]
        else:
            assert _option(found["web"], SOL, 83) == 0


def test_broadcast_and_congestion() -> None:
    """A datagram socket may broadcast; a congestion algorithm is chosen by name."""
    with sockact.listen("u=udp:127.0.0.1:0?Broadcast=yes") as found:
        assert _option(found["u"], SOL, socket.SO_BROADCAST) == 1
    with sockact.listen("t=tcp:127.0.0.1:0?TCPCongestion=reno") as found:
        assert found["t"].getsockopt(TCP, 13, 16).rstrip(b"\0") == b"reno"


@IPV6_ONLY
def test_ipv6_hops() -> None:
    """IPTTL= is the hop limit of an IPv6 socket."""
    with sockact.listen("t=tcp6:[::1]:0?IPTTL=9") as found:
        assert _option(found["t"], socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) == 9


def test_options_that_fail_are_warnings() -> None:
    """An option that does not fit, or is refused, is a warning that names it; the socket opens."""
    warnings: list[str] = []
    query = "KeepAliveTimeSec=10ms&TCPCongestion=no-such&IPTTL=9999"
    with sockact.listen(f"web=tcp:127.0.0.1:0?{query}", warn=warnings.append) as found:
        assert found["web"].getsockname()
    named = [w.partition(": ")[2].partition("=")[0] for w in warnings]
    assert named == ["KeepAliveTimeSec", "IPTTL", "TCPCongestion"]
    assert all(w.startswith("web=tcp:127.0.0.1:0?Keep") for w in warnings)
    assert all("could not be set" in w for w in warnings)


@pytest.mark.parametrize(
    "query", ["ReceiveBuffer=10G", "SendBuffer=3G", "KeepAliveProbes=4294967295",
              "KeepAliveTimeSec=1000y", "DeferAcceptSec=1000y", "TCPCongestion=%FF"],
)  # fmt: skip
def test_values_beyond_the_kernels_are_warnings(query: str) -> None:
    """A number that does not fit into the call is a warning as well."""
    warnings: list[str] = []
    with sockact.listen(f"tcp:127.0.0.1:0?{query}", warn=warnings.append):
        assert len(warnings) == 1
    assert "could not be set" in warnings[0]


def test_idle_directives_are_warnings() -> None:
    """A directive that means nothing to such a listener is a warning, not silence."""
    warnings: list[str] = []
    with sockact.listen("tcp:127.0.0.1:0?SocketMode=0600", warn=warnings.append):
        assert len(warnings) == 1
    assert "SocketMode= has no effect: it is for AF_UNIX paths" in warnings[0]


def test_warnings_by_default() -> None:
    """Without a function of one's own, a warning is a Python warning."""
    with pytest.warns(sockact.errors.SockactWarning, match="IPTTL="):
        sockact.listen("web=tcp:127.0.0.1:0?IPTTL=9999").close()


def test_fatal_options_fail() -> None:
    """An option before bind() that changes what is bound is fatal, and nothing stays open."""
    with pytest.raises(BindError, match="BindToDevice") as caught:
        sockact.listen("web=tcp:127.0.0.1:0?BindToDevice=nosuch0")
    assert caught.value.errno in (errno.ENODEV, errno.EPERM)


def test_backlog() -> None:
    """Backlog= limits how many connections wait."""
    with sockact.listen("web=unix:@sockact-backlog?Backlog=1") as found:
        clients = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        results = []
        for client in clients:
            client.setblocking(False)
            results.append(client.connect_ex(found["web"].getsockname()))
            client.close()
        assert results == [0, 0, errno.EAGAIN, errno.EAGAIN]


@pytest.mark.parametrize("kind", ["tcp:127.0.0.1:0", "unix:{}/s", "fifo:{}/f", "special:/dev/null"])
def test_non_blocking(short_dir: Path, kind: str) -> None:
    """NonBlocking=yes sets O_NONBLOCK, and without it the flag is clear."""
    text = kind.format(short_dir)
    with sockact.listen(f"{text}?NonBlocking=yes") as found:
        assert not os.get_blocking(found.filenos()[0])
    with sockact.listen(text) as found:
        assert os.get_blocking(found.filenos()[0])


def test_default_timeout_of_the_process_does_not_matter() -> None:
    """socket.setdefaulttimeout() in the program does not make listeners non-blocking."""
    socket.setdefaulttimeout(5)
    try:
        with sockact.listen("web=tcp:127.0.0.1:0") as found:
            assert os.get_blocking(found.filenos()[0])
    finally:
        socket.setdefaulttimeout(None)


# --- nodes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(short_dir: Path, umask: int) -> None:
    """Nodes and parents get exactly SocketMode= and DirectoryMode=, and the umask is left alone."""
    query = "SocketMode=0660&DirectoryMode=0751"
    old = os.umask(umask)
    try:
        texts = [f"unix:{short_dir}/a/b/s?{query}", f"fifo:{short_dir}/a/f?{query}"]
        with sockact.listen(*texts):
            assert _mode(short_dir / "a") == _mode(short_dir / "a" / "b") == 0o751
            assert _mode(short_dir / "a" / "b" / "s") == 0o660
            assert _mode(short_dir / "a" / "f") == 0o660
        assert os.umask(umask) == umask
    finally:
        os.umask(old)


@ROOT_ONLY
def test_owner(short_dir: Path) -> None:
    """SocketUser= brings its primary group along; SocketGroup= overrides it; names and numbers."""
    user = pwd.getpwnam("nobody")
    for query, uid, gid in (
        ("SocketUser=nobody", user.pw_uid, user.pw_gid),
        (f"SocketUser={user.pw_uid}", user.pw_uid, user.pw_gid),
        ("SocketGroup=daemon", 0, grp.getgrnam("daemon").gr_gid),
        ("SocketUser=nobody&SocketGroup=daemon", user.pw_uid, grp.getgrnam("daemon").gr_gid),
        ("SocketUser=4242", 4242, 4242),
    ):
        for scheme in ("unix", "fifo"):
            path = short_dir / scheme
            found = sockact.listen(f"{scheme}:{path}?{query}")
            assert (path.stat().st_uid, path.stat().st_gid) == (uid, gid)
            found.discard()
            assert not path.exists()


def test_unknown_owner_opens_nothing(short_dir: Path) -> None:
    """A user that does not exist is an error before anything is made."""
    with pytest.raises(BindError, match="there is no user 'no-such-user'"):
        sockact.listen(f"unix:{short_dir}/s?SocketUser=no-such-user")
    assert not (short_dir / "s").exists()


@ROOT_ONLY
def test_leftover_fifo_of_the_units_own_user(short_dir: Path) -> None:
    """A FIFO left over by SocketUser= is used again; one of another mode is not."""
    text = f"fifo:{short_dir}/f?SocketUser=nobody&SocketMode=0620"
    sockact.listen(text).close()
    sockact.listen(text).close()
    with pytest.raises(BindError, match="another mode or owner; remove"):
        sockact.listen(f"fifo:{short_dir}/f?SocketMode=0600")


def test_fifo_carries_data(short_dir: Path) -> None:
    """The FIFO is open for reading and writing, so a reader never sees its end."""
    with sockact.listen(f"fifo:{short_dir}/f?PipeSize=65536") as found:
        (fd,) = found.filenos()
        with open(short_dir / "f", "wb", buffering=0) as file:
            file.write(b"hello")
        assert os.read(fd, 10) == b"hello"


def test_something_else_in_the_way(short_dir: Path) -> None:
    """A file, a directory or a link at the path is never removed."""
    (short_dir / "file").write_text("precious", encoding="ascii")
    (short_dir / "link").symlink_to("/nonexistent")
    for scheme in ("unix", "fifo"):
        for name in ("file", "link"):
            with pytest.raises(BindError):
                sockact.listen(f"{scheme}:{short_dir / name}", replace=True)
    assert (short_dir / "file").read_text(encoding="ascii") == "precious"
    assert (short_dir / "link").is_symlink()


def test_special_files(short_dir: Path) -> None:
    """A file opens for reading, with Writable=yes for writing too; links and FIFOs are refused."""
    (short_dir / "file").write_text("x", encoding="ascii")
    (short_dir / "link").symlink_to(short_dir / "file")
    os.mkfifo(short_dir / "fifo")
    with sockact.listen(f"special:{short_dir}/file?Writable=yes") as found:
        os.write(found.filenos()[0], b"y")
    assert (short_dir / "file").read_text(encoding="ascii") == "y"
    with (
        sockact.listen(f"special:{short_dir}/file") as found,
        pytest.raises(OSError, match="Bad file desc"),
    ):
        os.write(found.filenos()[0], b"z")
    for name, message in (("link", "links are not followed"), ("fifo", "neither a regular file")):
        with pytest.raises(BindError, match=message):
            sockact.listen(f"special:{short_dir}/{name}")


def test_symlinks(short_dir: Path) -> None:
    """Symlinks= lead to the node, with parents made for them, and a wrong one is a warning."""
    (short_dir / "taken").write_text("x", encoding="ascii")
    links = f"{short_dir}/l1 {short_dir}/x/l2 {short_dir}/taken"
    warnings: list[str] = []
    text = f"unix:{short_dir}/s?Symlinks={links}"
    with sockact.listen(text, warn=warnings.append) as found:
        assert os.readlink(short_dir / "l1") == os.readlink(short_dir / "x" / "l2")
        socket_at_link = socket.socket(socket.AF_UNIX)
        socket_at_link.connect(str(short_dir / "l1"))
        socket_at_link.close()
        found.discard()
    assert [w for w in warnings if "taken: File exists" in w]
    assert sorted(p.name for p in short_dir.iterdir()) == ["taken"]


def test_remove_on_stop(short_dir: Path) -> None:
    """With RemoveOnStop=yes closing removes node and links, else both stay."""
    text = f"unix:{short_dir}/s?Symlinks={short_dir}/l"
    sockact.listen(text).close()
    assert sorted(p.name for p in short_dir.iterdir()) == ["l", "s"]
    sockact.listen(f"{text}&RemoveOnStop=yes").close()
    assert [p.name for p in short_dir.iterdir()] == ["l"]  # it was right, so it was not made anew
    (short_dir / "l").unlink()
    sockact.listen(f"{text}&RemoveOnStop=yes").close()
    assert list(short_dir.iterdir()) == []


# --- live and stale -------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["unix", "unix-dgram", "unix-seqpacket"])
def test_stale_node_is_replaced(short_dir: Path, scheme: str) -> None:
    """The node of a process that is gone is removed without being asked."""
    text = f"s={scheme}:{short_dir}/s"
    sockact.listen(text).close()
    assert (short_dir / "s").exists()
    with sockact.listen(text) as found:
        assert found["s"].getsockname() == f"{short_dir}/s"


@pytest.mark.parametrize("old", ["unix", "unix-dgram", "unix-seqpacket"])
@pytest.mark.parametrize("new", ["unix", "unix-dgram"])
def test_live_node_is_not_replaced(short_dir: Path, old: str, new: str) -> None:
    """A node that some process holds is left alone, of whatever type, and the error names it."""
    with sockact.listen(f"s={old}:{short_dir}/s"):
        before = (short_dir / "s").stat().st_ino
        with pytest.raises(BindError) as caught:
            sockact.listen(f"{new}:{short_dir}/s")
        assert caught.value.errno == errno.EADDRINUSE
        assert f"(pid {os.getpid()})" in str(caught.value)
        assert "--replace" in str(caught.value)
        assert (short_dir / "s").stat().st_ino == before


def test_replace_takes_the_path_over(short_dir: Path) -> None:
    """With replace, new clients find the new socket; the old one keeps what it has."""
    text = f"s=unix:{short_dir}/s"
    with sockact.listen(text) as old, sockact.listen(text, replace=True) as new:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{short_dir}/s")
            connection, _ = new["s"].accept()
            connection.close()
        old["s"].setblocking(False)
        with pytest.raises(BlockingIOError):
            old["s"].accept()


def test_two_starters_never_both_win(short_dir: Path) -> None:
    """Of many processes that find the same stale node, exactly one gets the path."""
    sockact.listen(f"unix:{short_dir}/s").close()
    code = f"""
import sys, sockact
sys.stdin.readline()
try: found = sockact.listen("s=unix:{short_dir}/s")
except sockact.errors.BindError as error: print("lost", flush=True)
else: print("won", flush=True); sys.stdin.readline()
"""
    crowd = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environ(),
        )
        for _ in range(8)
    ]
    for process in crowd:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    lines = [process.stdout.readline() for process in crowd if process.stdout]
    for process in crowd:
        process.communicate("end\n")
    assert sorted(lines) == ["lost\n"] * 7 + ["won\n"]


# --- all or nothing -------------------------------------------------------------------------------


@pytest.mark.parametrize("more", ["", "&RemoveOnStop=yes"])
def test_failure_undoes_everything(short_dir: Path, more: str) -> None:
    """When the last listener fails, all are closed and no node, link or directory stays."""
    texts = (
        f"unix:{short_dir}/a/s?Symlinks={short_dir}/l/link{more}",
        f"fifo:{short_dir}/a/b/f",
        "tcp:127.0.0.1:0",
    )
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(BindError) as caught:
            sockact.listen(*texts, f"tcp:127.0.0.1:{port}")
    message = str(caught.value)
    assert message.startswith(f"cannot open tcp:127.0.0.1:{port}: bind: Address already in use")
    assert f"(pid {os.getpid()})" in message
    assert caught.value.step == "bind"
    assert list(short_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "number", "message"),
    [
        ("tcp:192.0.2.1:80", errno.EADDRNOTAVAIL, "no interface here has 192.0.2.1"),
        ("unix:/proc/nowhere/s", errno.ENOENT, "directory /proc/nowhere is missing"),
        ("special:/no/such/file", errno.ENOENT, "does not make files"),
        ("fifo:/proc/f", None, "mkfifo"),
        ("special:/dev", errno.EEXIST, "neither a regular file nor a character device"),
        ("mqueue:/a?MessageQueueMaxMessages=9999999&MessageQueueMessageSize=1", None, "mq_open"),
    ],
)
def test_errors_say_what_to_do(text: str, number: int | None, message: str) -> None:
    """Each failure is one line: the listener, the call, the reason, and what to do."""
    with pytest.raises(BindError, match=message) as caught:
        sockact.listen(text)
    assert number is None or caught.value.errno == number
    assert "\n" not in str(caught.value)
    assert caught.value.hint or number is None


@ROOT_ONLY
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tcp:127.0.0.1:81", "ports below 1024 need root"),
        ("unix:/s", "may not write to /"),
        ("unix:{}/s?SocketUser=root", "SocketUser= and SocketGroup= need root"),
    ],
)
def test_errors_of_ordinary_users(short_dir: Path, text: str, message: str) -> None:
    """Without the rights, the error says which right is missing."""
    short_dir.chmod(0o777)
    code = (
        "import os, sys, sockact\nos.setgid(65534); os.setuid(65534)\n"
        "try: sockact.listen(sys.argv[1])\n"
        "except sockact.errors.BindError as error: print(error)"
    )
    # The modules must be in memory before the user changes: they may lie where it cannot read.
    preload = "import sockact.library, sockact.sockets.advice, sockact.fd.account, pwd, grp\n"
    shown = subprocess.check_output(
        [sys.executable, "-c", preload + code, text.format(short_dir)],
        env=clean_environ(),
        text=True,
    )
    if not shown:
        pytest.skip("this machine lets every user bind low ports")
    assert message in shown
    assert not (short_dir / "s").exists()


# --- many -----------------------------------------------------------------------------------------


def _limited(soft: int, hard: int, code: str) -> str:
    limits = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
    return subprocess.check_output(
        [sys.executable, "-c", limits + code], env=clean_environ(), text=True
    )


def test_soft_limit_is_raised() -> None:
    """More listeners than the soft limit allows: it is raised to the hard one."""
    code = (
        "import sockact\n"
        "found = sockact.listen('tcp:127.0.0.78:22000-22199')\n"
        "print(len(found), resource.getrlimit(resource.RLIMIT_NOFILE)); found.close()"
    )
    assert _limited(64, 512, code) == "200 (512, 512)\n"


def test_soft_limit_is_raised_for_a_program(short_dir: Path) -> None:
    """`sockact exec` raises it for the program, too, and imports what that takes in time."""
    listen = f"--listen tcp:127.0.0.78:22200-22299 --listen unix:{short_dir}/s"
    command = f"ulimit -Sn 48; ulimit -Hn 512; exec {sys.executable} -m sockact exec {listen}"
    shown = subprocess.run(
        ["sh", "-c", command + " -- sh -c 'echo $LISTEN_FDS; ulimit -Sn'"],
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (shown.stdout, shown.stderr) == ("101\n512\n", "")


def test_hard_limit_is_named() -> None:
    """Beyond the hard limit the error names the limit, and everything is closed again."""
    code = (
        "import os, sockact\n"
        "try: sockact.listen('tcp:127.0.0.79:22000-22199')\n"
        "except sockact.errors.BindError as error: print(error)\n"
        "print(len(os.listdir('/proc/self/fd')))"
    )
    shown = _limited(64, 128, code).splitlines()
    assert "may open 128 files; raise the hard limit" in shown[0]
    assert shown[1] == "4"


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 10_100,
    reason="the hard limit of open files is below 10,100",
)
def test_ten_thousand() -> None:
    """Ten thousand listeners open, and arrive in the program."""
    from tests.helpers import run

    count = "import os; print(os.environ['LISTEN_FDS'], len(os.listdir('/proc/self/fd')))"
    shown = run("exec", "--listen", "tcp:127.0.0.80:20000-29999", "--", sys.executable, "-c", count)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "10000 10004\n", "")


def test_plan_order_is_systemds() -> None:
    """Options after listen() are set in the order in which systemd sets them."""
    assert [row.name for row in d.LATE] == [
        "KeepAlive", "KeepAliveTimeSec", "KeepAliveIntervalSec", "KeepAliveProbes",
        "DeferAcceptSec", "NoDelay", "Broadcast", "PassCredentials", "PassPIDFD", "PassSecurity",
        "PassPacketInfo", "AcceptFileDescriptors", "Timestamping", "Priority", "ReceiveBuffer",
        "SendBuffer", "Mark", "IPTOS", "IPTTL", "TCPCongestion",
    ]  # fmt: skip
    assert [row.name for row in d.BEFORE_BIND] == [
        "BindIPv6Only", "BindToDevice", "ReusePort", "FreeBind", "Transparent",
    ]  # fmt: skip


def test_failure_after_replacing_gives_the_path_back(short_dir: Path) -> None:
    """A live socket keeps its path when what was to replace it cannot be opened as a whole."""
    path = str(short_dir / "live")
    with socket.socket(socket.AF_UNIX) as live, socket.create_server(("127.0.0.1", 0)) as busy:
        live.bind(path)
        live.listen()
        with pytest.raises(BindError):
            sockact.listen(f"unix:{path}", f"tcp:127.0.0.1:{busy.getsockname()[1]}", replace=True)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            live.accept()[0].close()
        with sockact.listen(f"unix:{path}", replace=True), socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            live.setblocking(False)
            with pytest.raises(BlockingIOError):
                live.accept()
        assert [entry.name for entry in short_dir.iterdir()] == ["live"]


@pytest.mark.parametrize("discard", [False, True])
def test_a_forked_child_removes_nothing(short_dir: Path, discard: bool) -> None:
    """The nodes are the parent's: a worker that closes its copy does not cut the clients off."""
    path = short_dir / "sock"
    with sockact.listen(f"unix:{path}?RemoveOnStop=yes") as found:
        pid = os.fork()
        if not pid:
            found.discard() if discard else found.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert path.exists()
    assert not path.exists()


def test_parents_are_made_by_many_at_once(short_dir: Path) -> None:
    """Whoever makes a missing directory, everybody's listener opens."""
    for turn in range(50):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            texts = [f"unix:{short_dir}/{turn}/a/b/s{number}" for number in range(8)]
            for found in pool.map(sockact.listen, texts):
                found.close()


def test_a_connected_datagram_socket_is_live(short_dir: Path) -> None:
    """A socket that takes datagrams from one sender only is in use all the same."""
    path = str(short_dir / "one")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(short_dir / "other"))
            one.connect(str(short_dir / "other"))
            with pytest.raises(BindError, match="Address already in use"):
                sockact.listen(f"unix-dgram:{path}")
