"""Which of the sockets that were taken a definition asks for."""

import time

import attrs
import pytest

from sockact.rendezvous.manifest import Entry
from sockact.rendezvous.match import matches, pair, pair_opened
from sockact.spec import ListenerSpec, Origin
from sockact.unitfile.listen import parse_listen


def _listener(text: str) -> ListenerSpec:
    return parse_listen(text).listeners[0]


def _entry(kind: str, family: str, address: str, name: str = "n", role: str = "") -> Entry:
    return Entry("s", name, kind, family, address, role=role)


IS = [
    ("n=tcp4:127.0.0.1:80", ("Stream", "AF_INET", "127.0.0.1:80"), True),
    ("n=tcp4:127.0.0.1:80", ("Stream", "AF_INET", "127.0.0.1:81"), False),
    ("n=tcp4:127.0.0.1:80", ("Stream", "AF_INET", "127.0.0.2:80"), False),
    ("n=tcp4:127.0.0.1:80", ("Datagram", "AF_INET", "127.0.0.1:80"), False),
    ("n=tcp4:127.0.0.1:0", ("Stream", "AF_INET", "127.0.0.1:4711"), True),
    ("n=udp4:127.0.0.1:53", ("Datagram", "AF_INET", "127.0.0.1:53"), True),
    ("n=tcp:80", ("Stream", "AF_INET6", "[::]:80"), True),
    ("n=tcp:80", ("Stream", "AF_INET", "0.0.0.0:80"), False),
    ("n=tcp4:80", ("Stream", "AF_INET", "0.0.0.0:80"), True),
    ("n=tcp:[::1]:80", ("Stream", "AF_INET6", "[::1]:80"), True),
    ("n=tcp:[0:0:0:0:0:0:0:1]:80", ("Stream", "AF_INET6", "[::1]:80"), True),
    ("n=tcp:[::1]:80", ("Stream", "AF_INET6", "[::2]:80"), False),
    ("n=unix:/run/x", ("Stream", "AF_UNIX", "/run/x"), True),
    ("n=unix:/run/x", ("Stream", "AF_UNIX", "/run/y"), False),
    ("n=unix:/run/x", ("SequentialPacket", "AF_UNIX", "/run/x"), False),
    ("n=unix-seqpacket:/run/x", ("SequentialPacket", "AF_UNIX", "/run/x"), True),
    ("n=unix-dgram:@x", ("Datagram", "AF_UNIX", "@x"), True),
    ("n=unix-dgram:@x", ("Datagram", "AF_UNIX", "@xy"), False),
    ("n=fifo:/run/f", ("FIFO", "", "/run/f"), True),
    ("n=fifo:/run/f", ("FIFO", "", "/srv/run/f"), False),
    ("n=fifo:/run/f", ("FIFO", "", "/run/f (deleted)"), False),
    ("n=special:/dev/null", ("Device", "", "/dev/null"), True),
    ("n=special:/dev/null", ("FIFO", "", "/dev/null"), False),
    ("n=mqueue:/q", ("MessageQueue", "", "/q"), True),
    ("n=mqueue:/q", ("MessageQueue", "", "/dev/mqueue/q"), True),
    ("n=mqueue:/q", ("MessageQueue", "", "/qq"), False),
]


@pytest.mark.parametrize(("text", "entry", "expected"), IS)
def test_it_is_what_the_definition_would_open(
    text: str, entry: tuple[str, str, str], *, expected: bool
) -> None:
    """Name, kind and address decide."""
    assert matches(_listener(text), _entry(*entry), 6) is expected
    assert not matches(_listener(text), _entry(*entry, name="other"), 6)
    assert not matches(_listener(text), _entry(*entry, role="lock"), 6)


def test_every_address_is_of_the_version_that_the_machine_has() -> None:
    """Without IPv6 a plain port is one of IPv4."""
    entry = _entry("Stream", "AF_INET", "0.0.0.0:80")
    assert matches(_listener("n=tcp:80"), entry, 4)
    assert not matches(_listener("n=tcp:80"), entry, 6)


def test_each_is_found_once() -> None:
    """Equal definitions get different sockets as long as there are some; duties are nobody's."""
    entries = [
        _entry("Stream", "AF_UNIX", "/a", role="rendezvous"),
        _entry("Stream", "AF_UNIX", "/a"),
        _entry("Stream", "AF_UNIX", "/b"),
        _entry("Stream", "AF_UNIX", "/a"),
        _entry("Stream", "AF_UNIX", "/c", name="m"),
    ]
    listeners = [_listener("n=unix:/a")] * 3
    assert pair(listeners, entries, 6) == ([1, 3, None], [2, 4])
    assert pair([], entries, 6) == ([], [1, 2, 3, 4])


@pytest.mark.parametrize(("text", "entry", "expected"), [case for case in IS if case[2]])
def test_one_of_another_name_is_found_if_that_is_asked_for(
    text: str, entry: tuple[str, str, str], *, expected: bool
) -> None:
    """Kind and address decide then; a port that the kernel chooses is no address."""
    entries = [_entry("Stream", "AF_UNIX", "/other"), _entry(*entry, name="other")]
    assert pair([_listener(text)], entries, 6) == ([None], [0, 1])
    found = pair([_listener(text)], entries, 6, renamed=True)
    assert found == (([None], [0, 1]) if text.endswith(":0") else ([1], [0]))
    assert expected


def test_a_name_that_is_right_comes_first() -> None:
    """What has the name is not given to a listener of another one."""
    entries = [_entry("Stream", "AF_UNIX", "/a", name=name) for name in ("x", "m", "n")]
    listeners = [_listener("z=unix:/a"), _listener("n=unix:/a"), _listener("q=unix:/a")]
    assert pair(listeners, entries, 6, renamed=True) == ([0, 2, 1], [])
    assert pair([_listener("n=netlink:route 1")], [_entry("Netlink", "AF_NETLINK", "0 1", "m")], 6,
                renamed=True) == ([0], [])  # fmt: skip


def test_what_was_opened_from_the_same_definition_is_known() -> None:
    """Kind, address and name decide, wherever it was written; each socket is found once."""
    texts = ["a=tcp:127.0.0.1:80", "a=tcp:127.0.0.1:81", "b=tcp:127.0.0.1:80", "a=tcp:127.0.0.1:80"]
    opened = [None, *map(_listener, texts)]
    elsewhere = [attrs.evolve(_listener(text), origin=Origin("new", 7)) for text in texts]
    assert pair_opened(elsewhere, opened) == [1, 2, 3, 4]
    assert pair_opened(elsewhere[::-1], opened) == [1, 3, 2, 4]
    other = ["a=udp:127.0.0.1:80", "c=tcp:127.0.0.1:80", "a=tcp:127.0.0.1:82", texts[1], texts[1]]
    assert pair_opened(map(_listener, other), opened) == [None, None, None, 2, None]


def test_the_path_of_a_file_has_to_be_asked_for() -> None:
    """Unlike that of a socket: it may have been removed."""
    fifo, path = _listener("n=fifo:/run/f"), _listener("n=unix:/run/s")
    assert pair_opened([fifo, path], [fifo, path]) == [None, 1]


@pytest.mark.parametrize("renamed", [False, True])
def test_thousands_in_another_order(*, renamed: bool) -> None:
    """Each is compared with those of its own address, not with all of them."""
    places = [f"127.{1 + one // 250}.0.{1 + one % 250}:80" for one in range(3000)]
    entries = [_entry("Stream", "AF_INET", place) for place in places]
    name = "m" if renamed else "n"
    listeners = [_listener(f"{name}=tcp:{place}") for place in places]
    seconds = []
    for step in (1, -1):
        began = time.thread_time()
        found, left = pair(listeners[::step], entries, 6, renamed=renamed)
        seconds.append(time.thread_time() - began)
        assert (found, left) == (list(range(3000))[::step], [])
    assert seconds[1] < 30 * seconds[0]
