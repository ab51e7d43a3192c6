"""sockact.unitfile.readiness: what a text means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockact.spec import Address, HostAddress, InetAddress, NetlinkAddress, UnixAddress
from sockact.unitfile.readiness import (
    Command,
    Delay,
    Http,
    Readiness,
    Said,
    Tcp,
    parse_readiness,
    shared_listener,
)

_CASES = [
    ("none", Said.NONE),
    ("exec", Said.EXEC),
    (" notify ", Said.NOTIFY),
    ("delay:2s", Delay(2.0)),
    ("delay: 1min 30s", Delay(90.0)),
    ("delay:250ms", Delay(0.25)),
    ("delay:0", Delay(0.0)),
    ("tcp:8080", Tcp(HostAddress("", "8080"))),
    ("tcp::8080", Tcp(HostAddress("", "8080"))),
    ("tcp:localhost:8080", Tcp(HostAddress("localhost", "8080"))),
    ("tcp:127.0.0.1:8080", Tcp(InetAddress(4, "127.0.0.1", 8080))),
    ("tcp:[::1]:8080", Tcp(InetAddress(6, "::1", 8080))),
    ("tcp:[fe80::1%eth0]:8080", Tcp(InetAddress(6, "fe80::1", 8080, "eth0"))),
    ("tcp:/run/app.sock", Tcp(UnixAddress("/run/app.sock"))),
    ("tcp:@app", Tcp(UnixAddress("@app"))),
    ("http://host", Http(HostAddress("host", "80"), "host", "/")),
    ("http:http://host/", Http(HostAddress("host", "80"), "host", "/")),
    ("http://host:81/a/b?c=d&e", Http(HostAddress("host", "81"), "host:81", "/a/b?c=d&e")),
    ("http://host?c", Http(HostAddress("host", "80"), "host", "/?c")),
    ("http://:81/x", Http(HostAddress("", "81"), "localhost:81", "/x")),
    ("http://10.0.0.1/x", Http(InetAddress(4, "10.0.0.1", 80), "10.0.0.1", "/x")),
    ("http://[::1]:81/x", Http(InetAddress(6, "::1", 81), "[::1]:81", "/x")),
    ("http://[::1]", Http(InetAddress(6, "::1", 80), "[::1]", "/")),
    ("http://unix:/run/a.sock:/x?y", Http(UnixAddress("/run/a.sock"), "localhost", "/x?y")),
    ("http://unix:/run/a.sock", Http(UnixAddress("/run/a.sock"), "localhost", "/")),
    ("http://unix:/run/a:b.sock:/", Http(UnixAddress("/run/a:b.sock"), "localhost", "/")),
    ("cmd:/bin/check $MAINPID", Command("/bin/check $MAINPID")),
    ("cmd: test -S '/run/a b'", Command("test -S '/run/a b'")),
]


@pytest.mark.parametrize(("text", "value"), _CASES)
def test_a_text_is_a_value(text: str, value: Readiness) -> None:
    """Each form is read."""
    assert parse_readiness(text) == value


@pytest.mark.parametrize("value", dict.fromkeys(value for _, value in _CASES))
def test_a_value_is_a_text(value: Readiness) -> None:
    """What a value prints is read as the same."""
    again = parse_readiness(str(value))
    if isinstance(value, Http) and isinstance(again, Http):
        assert (again.target, again.path) == (value.target, value.path)
    else:
        assert again == value


_WRONG = [
    ("", "is no readiness; it must be none, exec, notify, delay:SPAN"),
    ("ready", "'ready' is no readiness"),
    ("None", "'None' is no readiness"),
    ("notify:x", "is no readiness"),
    ("delay", "delay needs more: write delay:2s"),
    ("delay:", "delay: '' is not a time span"),
    ("delay:soon", "delay: 'soon' is not a time span"),
    ("delay:infinity", "delay: it would never be ready"),
    ("tcp", "tcp needs more"),
    ("tcp:", "tcp: '' has no port; write HOST:PORT"),
    ("tcp:host", "tcp: 'host' has no port"),
    ("tcp:host:", "tcp: '' is not a port"),
    ("tcp:host:http", "tcp: 'http' is not a port"),
    ("tcp:host:0", "'0' is not a port"),
    ("tcp:host:65536", "'65536' is not a port"),
    ("tcp:host:0x50", "'0x50' is not a port"),
    ("tcp:::1:80", "an IPv6 address stands in brackets"),
    ("tcp:[127.0.0.1]:80", "'127.0.0.1' is not an IPv6 address"),
    ("tcp:[::1]", "'' is not a port"),
    ("tcp:a b:80", "'a b' is neither an IP address nor a host name"),
    ("tcp:/" + "x" * 200, "the kernel takes 107"),
    ("http", "http needs more"),
    ("http:", "http: '' is not a URL; write http://HOST"),
    ("http:host/path", "'host/path' is not a URL"),
    ("http://host:99999/", "'99999' is not a port"),
    ("http://8080/", "8080 alone is no host; write http://:8080/PATH"),
    ("http://u:p@host/", "a user name in a URL is not sent"),
    ("http://host/#top", "has a #fragment"),
    ("http://host/a b", "characters that must be written as %XX"),
    ("http://host/\u00e9", "characters that must be written as %XX"),
    ("http://host/a\r\nX: y", "characters that must be written as %XX"),
    ("http://unix:run/a.sock:/", "'run' is not a port"),
    ("http://", "http: '//' has no host"),
    ("https://host/", "https is not checked here"),
    ("http:https://host/", "https is not checked here"),
    ("cmd:", "cmd: there is no command"),
    ("cmd", "cmd needs more"),
]


@pytest.mark.parametrize(("text", "message"), _WRONG)
def test_what_is_wrong_is_said_in_a_line(text: str, message: str) -> None:
    """The message names the form and what would be right."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse_readiness(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.text()
    | st.builds(
        "{}{}".format,
        st.sampled_from(["tcp:", "http://", "http:", "http://unix:/", "delay:", "cmd:"]),
        st.text(alphabet="/:@[]%?#.0123456789abcz -\n\0"),
    )
)
def test_any_text_is_a_value_or_an_error(text: str) -> None:
    """Nothing else than ValueError is raised, in one line, and values survive printing."""
    try:
        value = parse_readiness(text)
    except ValueError as error:
        assert str(error)
    else:
        assert str(parse_readiness(str(value))) == str(value)


@pytest.mark.parametrize(
    ("text", "listener", "shared"),
    [
        ("tcp:8080", InetAddress(0, "", 8080), True),
        ("tcp:8080", InetAddress(4, "127.0.0.1", 8080), True),
        ("tcp:8080", InetAddress(6, "::1", 8080), True),
        ("tcp:localhost:8080", InetAddress(4, "0.0.0.0", 8080), True),
        ("http://127.0.0.1:8080/", InetAddress(6, "::", 8080), True),
        ("http://10.0.0.1:8080/", InetAddress(0, "", 8080), True),
        ("http://10.0.0.1:8080/", InetAddress(4, "127.0.0.1", 8080), False),
        ("tcp:8081", InetAddress(0, "", 8080), False),
        ("tcp:8080", HostAddress("localhost", "8080"), True),
        ("tcp:8080", HostAddress("", "8080"), True),
        ("tcp:db.example:8080", InetAddress(0, "", 8080), False),
        ("tcp:db.example:8080", HostAddress("db.example", "8080"), True),
        ("tcp:/run/a", UnixAddress("/run/a"), True),
        ("http://unix:/run/a:/", UnixAddress("/run/a"), True),
        ("tcp:/run/a", UnixAddress("/run/b"), False),
        ("tcp:8080", UnixAddress("/run/b"), False),
        ("tcp:8080", NetlinkAddress("route", 0), False),
        ("notify", InetAddress(0, "", 8080), False),
        ("cmd:true", InetAddress(0, "", 8080), False),
    ],
)
def test_a_probe_of_our_own_listener(text: str, listener: Address, *, shared: bool) -> None:
    """A probe that the kernel, or the old instance, would answer is recognised."""
    assert (shared_listener(parse_readiness(text), [listener]) == listener) is shared
