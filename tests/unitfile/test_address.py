"""sockact.unitfile.address: the forms of systemd.socket(5), and what is not one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockact.spec import Kind
from sockact.unitfile.address import listen_address, socket_address

GOOD = {
    "80": "80",
    "65535": "65535",
    "010": "8",
    "0x1F90": "8080",
    "0o17": "15",
    "0b11": "3",
    "+80": "80",
    "127.0.0.1:80": "127.0.0.1:80",
    "0.0.0.0:0x50": "0.0.0.0:80",
    "[::1]:80": "[::1]:80",
    "[::]:80": "[::]:80",
    "[0:0::1]:80": "[::1]:80",
    "[::ffff:127.0.0.1]:80": "[::ffff:127.0.0.1]:80",
    "[fe80::1]:80%eth0": "[fe80::1]:80%eth0",
    "[fe80::1]:80%2": "[fe80::1]:80%2",
    "/run/x": "/run/x",
    "/var/run/x": "/run/x",
    "@abstract": "@abstract",
    "@@": "@@",
    "/" + "x" * 106: "/" + "x" * 106,
    "@" + "x" * 106: "@" + "x" * 106,
    "vsock::1234": "vsock::1234",
    "vsock:any:1234": "vsock::1234",
    "vsock:-1:1234": "vsock::1234",
    "vsock:2:1234": "vsock:2:1234",
    "vsock:host:1": "vsock:2:1",
    "vsock:local:1": "vsock:1:1",
    "vsock:hypervisor:1": "vsock:0:1",
    "vsock-stream:2:1234": "vsock:2:1234",
    "vsock:2:0": "vsock:2:0",
    "vsock:4294967295:4294967294": "vsock::4294967294",
}

BAD = [
    "", "0", "65536", "99999999999999999999", "-80", "80x", "8 0", "http", "localhost:80", "*:80",
    "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:http", "127.1:80",
    "256.0.0.1:80", "127.0.0.01:80", "127.0.0.1:80%", "[::1]", "[::1]:", "[::1]:0", "[::1:80",
    "::1:80", "[::1]80", "[127.0.0.1]:80", "[fe80::1]%eth0:80", "[::1]:80%", "[::1]:80#x", "[]:80",
    "relative/path", "/", "@", "/" + "x" * 107, "@" + "x" * 107, "vsock:", "vsock:2", "vsock:2:",
    "vsock:2:4294967295", "vsock:x:1", "vsock:4294967296:1", "/a\0b",
]  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), GOOD.items())
def test_good(text: str, shown: str) -> None:
    """Each form is read, printed as systemd prints it, and what is printed reads back."""
    address = listen_address(Kind.STREAM, text)
    assert str(address) == shown
    assert listen_address(Kind.STREAM, shown) == address


@pytest.mark.parametrize("text", BAD)
def test_bad(text: str) -> None:
    """What systemd refuses is refused, in one line."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        listen_address(Kind.STREAM, text)
    assert "\n" not in str(caught.value).replace("\\n", "")


@pytest.mark.parametrize(
    ("kind", "text", "shown"),
    [
        (Kind.SEQPACKET, "@x", "@x"),
        (Kind.FIFO, "/run//f/", "/run/f"),
        (Kind.SPECIAL, "/dev/null", "/dev/null"),
        (Kind.MQUEUE, "/queue", "/queue"),
        (Kind.NETLINK, "route", "route 0"),
        (Kind.NETLINK, "kobject-uevent 1", "kobject-uevent 1"),
        (Kind.NETLINK, "route \t 0x10", "route 16"),
        (Kind.NETLINK, "15 1", "15 1"),
        (Kind.USB, "/dev/ffs", "/dev/ffs"),
    ],
)
def test_other_kinds(kind: Kind, text: str, shown: str) -> None:
    """FIFOs, special files, queues and netlink have forms of their own."""
    assert str(listen_address(kind, text)) == shown


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.SEQPACKET, "80"),
        (Kind.SEQPACKET, "vsock::80"),
        (Kind.FIFO, "relative"),
        (Kind.FIFO, "/a/../b"),
        (Kind.MQUEUE, "queue"),
        (Kind.NETLINK, ""),
        (Kind.NETLINK, "nonsense"),
        (Kind.NETLINK, "route x"),
        (Kind.NETLINK, "route 1 "),
        (Kind.NETLINK, "route 4294967296"),
    ],
)
def test_other_kinds_bad(kind: Kind, text: str) -> None:
    """And they refuse these."""
    with pytest.raises(ValueError, match=r"\S"):
        listen_address(kind, text)


@given(st.text(max_size=40))
def test_anything_is_an_address_or_a_value_error(text: str) -> None:
    """No text fails in any other way, and what is read is printed and reads back."""
    try:
        address = socket_address(text)
    except ValueError:
        return
    assert socket_address(str(address)) == address
