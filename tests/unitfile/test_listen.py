"""sockact.unitfile.listen: ``--listen`` texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockact.errors import ListenTextError
from sockact.spec import Kind
from sockact.unitfile.listen import SCHEMES, parse_listen

GOOD = {
    "tcp:8080": [("tcp-8080", "Stream", "8080")],
    "tcp:*:8080": [("tcp-8080", "Stream", "8080")],
    "web=tcp:8080": [("web", "Stream", "8080")],
    "tcp4:8080": [("tcp4-8080", "Stream", "0.0.0.0:8080")],
    "tcp6:8080": [("tcp6-8080", "Stream", "[::]:8080")],
    "tcp:127.0.0.1:80": [("tcp-80", "Stream", "127.0.0.1:80")],
    "tcp:[::1]:80": [("tcp-80", "Stream", "[::1]:80")],
    "tcp:[fe80::1]:80%eth0": [("tcp-80", "Stream", "[fe80::1]:80%eth0")],
    "tcp:0": [("tcp-0", "Stream", "0")],
    "tcp:127.0.0.1:0": [("tcp-0", "Stream", "127.0.0.1:0")],
    "udp:53": [("udp-53", "Datagram", "53")],
    "udp6:[::1]:53": [("udp6-53", "Datagram", "[::1]:53")],
    "tcp:8000-8002": [(f"tcp-{p}", "Stream", str(p)) for p in (8000, 8001, 8002)],
    "x=tcp:127.0.0.1:7-8": [("x", "Stream", "127.0.0.1:7"), ("x", "Stream", "127.0.0.1:8")],
    "tcp:localhost:80": [("tcp-80", "Stream", "localhost:80")],
    "tcp:localhost:80-81": [("tcp-80", "Stream", "localhost:80"), ("tcp-81", "Stream", "localhost:81")],
    "tcp:localhost:http": [("tcp-http", "Stream", "localhost:http")],
    "tcp:http": [("tcp-http", "Stream", "http")],
    "tcp:127.0.0.1:http-alt": [("tcp-http-alt", "Stream", "127.0.0.1:http-alt")],
    "unix:/run/app.sock": [("app.sock", "Stream", "/run/app.sock")],
    "unix:@abs": [("@abs", "Stream", "@abs")],
    "unix-dgram:/d": [("d", "Datagram", "/d")],
    "unix-seqpacket:/s": [("s", "SequentialPacket", "/s")],
    "fifo:/f": [("f", "FIFO", "/f")],
    "special:/dev/null": [("null", "Special", "/dev/null")],
    "netlink:route": [("netlink-route", "Netlink", "route 0")],
    "netlink:route:3": [("netlink-route", "Netlink", "route 3")],
    "netlink:route 3": [("netlink-route", "Netlink", "route 3")],
    "mqueue:/q": [("q", "MessageQueue", "/q")],
    "vsock::1234": [("vsock-1234", "Stream", "vsock::1234")],
    "unix:/a:b": [("a_b", "Stream", "/a:b")],
    "x=unix:/a=b": [("x", "Stream", "/a=b")],
    "8080": [("tcp-8080", "Stream", "8080")],
    "127.0.0.1:80": [("tcp-80", "Stream", "127.0.0.1:80")],
    "/run/x": [("x", "Stream", "/run/x")],
    "@x": [("@x", "Stream", "@x")],
    "n=/run/x": [("n", "Stream", "/run/x")],
    "vsock:2:9": [("vsock-9", "Stream", "vsock:2:9")],
    "vsock-stream:2:9": [("vsock-9", "Stream", "vsock:2:9")],
    "tcp:8080?FileDescriptorName=z": [("z", "Stream", "8080")],
}  # fmt: skip

BAD = {
    "": ("''", 0),
    "tcp:": ("nothing to listen on; write tcp:ADDRESS", 4),
    "tpc:80": ("unknown scheme 'tpc'; did you mean tcp:80?", 0),
    "TCP:80": ("did you mean tcp:80?", 0),
    "localhost:80": ("for a host or service name write tcp:localhost:80", 0),
    "http": ("or put a scheme in front", 0),
    "tcp:65536": ("is not a port from 1 to 65535", 4),
    "tcp:127.0.0.1:": ("neither a port, a range nor a service name", 4),
    "tcp:127.0.0.1": ("is not a port", 4),
    "tcp:::1:80": ("write an IPv6 address in brackets: [::1]:80", 4),
    "tcp:[::1]": ("is not [IPv6]:PORT", 4),
    "tcp:[1.2.3.4]:80": ("is not an IPv6 address", 4),
    "tcp4:[::1]:80": ("::1 is not an IPv4 address", 5),
    "tcp6:127.0.0.1:80": ("127.0.0.1 is not an IPv6 address", 5),
    "tcp:010": ("leading zero", 4),
    "tcp:9-8": ("runs backwards", 4),
    "tcp:0-8": ("is not a port", 4),
    "tcp:8-": ("is not a port", 4),
    "tcp:bad host:80": ("neither an IP address nor a host name", 4),
    "tcp:-x:80": ("neither an IP address nor a host name", 4),
    "unix:relative": ("neither an absolute path", 5),
    "unix:/" + "x" * 107: ("the kernel takes 107", 5),
    "fifo:rel": ("not an absolute path", 5),
    "mqueue:q": ("not an absolute path", 7),
    "netlink:nonsense": ("is not a netlink family", 8),
    "vsock:1": ("is not CID:PORT", 6),
    "=tcp:80": ("the name is empty", 0),
    "é=tcp:80": ("is not an fd name", 0),
    "a=b=tcp:80": ("", 2),
    "tcp:80?": ("a directive is written Name=Value", 7),
    "tcp:80?Backlog": ("a directive is written Name=Value", 7),
    "tcp:80?NoDelay=yes&": ("a directive is written Name=Value", 19),
    "tcp:80?NoDelay=yes&Backlog=x": ("Backlog=: 'x' is not a whole number", 19),
    "tcp:80?backlog=1": ("unknown directive backlog; did you mean Backlog?", 7),
    "tcp:80?Backlog=1&Backlog=2": ("Backlog= is given twice", 17),
    "tcp:80?Accept=yes": ("Accept= has no effect here", 7),
    "tcp:80?ListenStream=81": ("a listener is written as SCHEME:ADDRESS", 7),
    "tcp:80?SmackLabel=x": ("SmackLabel= has no effect here", 7),
    "a=tcp:80?FileDescriptorName=b": ("both NAME= and FileDescriptorName= are given", 9),
    "tcp:80?Symlinks=/x": ("Symlinks= needs exactly one", 6),
}


@pytest.mark.parametrize(("text", "expected"), GOOD.items())
def test_good(text: str, expected: list[tuple[str, str, str]]) -> None:
    """Each form gives these listeners: fd name, kind, address."""
    spec = parse_listen(text)
    assert [(x.name, x.kind.value, str(x.address)) for x in spec.listeners] == expected


@pytest.mark.parametrize(("text", "expected"), BAD.items())
def test_bad(text: str, expected: tuple[str, int]) -> None:
    """Each mistake is one line that says what is wrong, with which part, and what to write."""
    with pytest.raises(ListenTextError) as caught:
        parse_listen(text)
    message, start = expected
    assert message in str(caught.value)
    assert caught.value.start == start
    assert "\n" not in str(caught.value)


def test_directives() -> None:
    """Directives follow a question mark, with percent escapes where a value needs them."""
    spec = parse_listen("unix:/s?SocketMode=0600&Symlinks=/a /b&Symlinks=/c%26d&Backlog=%35")
    assert {name: setting.value for name, setting in spec.settings.items()} == {
        "SocketMode": 0o600,
        "Symlinks": ("/a", "/b", "/c&d"),
        "Backlog": 5,
    }


def test_tcp6_leaves_ipv4_alone() -> None:
    """tcp6: is IPv6 only, unless one says otherwise."""
    assert parse_listen("tcp6:80").settings["BindIPv6Only"].value == "ipv6-only"
    assert parse_listen("tcp6:80?BindIPv6Only=both").settings["BindIPv6Only"].value == "both"
    assert "BindIPv6Only" not in parse_listen("tcp:80").settings


def test_bare_addresses_follow_the_option() -> None:
    """Without a scheme the kind is the caller's choice, and must fit the address."""
    assert parse_listen("53", bare=Kind.DATAGRAM).listeners[0].name == "udp-53"
    assert parse_listen("/s", bare=Kind.SEQPACKET).listeners[0].kind is Kind.SEQPACKET
    assert parse_listen("tcp:53", bare=Kind.DATAGRAM).listeners[0].kind is Kind.STREAM
    with pytest.raises(ListenTextError, match="AF_UNIX only"):
        parse_listen("53", bare=Kind.SEQPACKET)


def test_whole_range() -> None:
    """Every port there is can be one range."""
    assert len(parse_listen("tcp:1-65535").listeners) == 65535


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    """Whatever the text, there are listeners or one kind of error that points into it."""
    try:
        assert parse_listen(text).listeners
    except ListenTextError as error:
        assert 0 <= error.start <= error.end <= max(len(text), 1)


@given(
    st.sampled_from(["", "web=", "="]),
    st.sampled_from([*(f"{scheme}:" for scheme in SCHEMES), "", "x:"]),
    st.text("0123456789abc.:[]%-*/@ ", max_size=20),
    st.sampled_from(["", "?", "?Backlog=1", "?Backlog=", "?&", "?%=%zz", "?NoDelay=%79es"]),
)
def test_any_mixture_of_what_matters(name: str, scheme: str, address: str, query: str) -> None:
    """Mixtures of the parts never fail otherwise."""
    try:
        parse_listen(name + scheme + address + query)
    except ListenTextError as error:
        assert str(error)
