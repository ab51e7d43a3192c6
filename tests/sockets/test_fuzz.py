"""The opener on random definitions: everything or nothing, and nothing left behind."""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sockact import directives as d
from sockact.errors import BindError, ListenTextError
from sockact.library import definition
from sockact.sockets.bind import open_specs
from sockact.spec import Directive, Moment
from tests.strategies import VALUES

# A name in a directory of its own: some are the same, some lie below another.
_PATHS = st.sampled_from(["a", "b", "d/a", "d/e/f", "a/x", "plain"])
_ADDRESSES = st.one_of(
    st.sampled_from(["tcp:127.0.0.1:0", "udp:127.0.0.1:0", "tcp6:[::1]:0", "netlink:route",
                     "unix:@sockact-fuzz", "tcp:192.0.2.1:1", "special:/dev/null"]),
    st.tuples(st.sampled_from(["unix", "unix-dgram", "unix-seqpacket", "fifo", "special"]), _PATHS)
    .map(lambda pair: f"{pair[0]}:@DIR@/{pair[1]}"),
)  # fmt: skip
# What waits for a human, changes the machine, or needs what there is not.
_LEFT_OUT = {"Symlinks", "SocketUser", "SocketGroup", "FileDescriptorName", "PipeSize"}
_ROWS = [
    row for row in d.TABLE.values()
    if row.moment not in (Moment.LISTENER, Moment.MANAGER, Moment.NEVER)
    and row.name not in _LEFT_OUT
]  # fmt: skip


def _setting(row: Directive[object]) -> st.SearchStrategy[tuple[str, str]]:
    return st.tuples(st.just(row.name), VALUES[row.value])


_SETTINGS = st.dictionaries(st.sampled_from(range(len(_ROWS))), st.none(), max_size=4).flatmap(
    lambda chosen: st.tuples(*(_setting(_ROWS[index]) for index in chosen))
)


def _open_fds() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


@given(st.lists(st.tuples(_ADDRESSES, _SETTINGS), min_size=1, max_size=5))
@settings(max_examples=250, deadline=None)
def test_all_or_nothing(wanted: list[tuple[str, tuple[tuple[str, str], ...]]]) -> None:
    """Whatever is asked for opens as a whole or fails with an error that is ours."""
    directory = Path(tempfile.mkdtemp(prefix="sa-", dir="/tmp"))
    try:
        (directory / "plain").write_text("x", encoding="ascii")
        fds = _open_fds()
        units = []
        for address, chosen in wanted:
            query = "&".join(f"{name}={value.replace('%', '%25')}" for name, value in chosen)
            text = address.replace("@DIR@", str(directory)) + (f"?{query}" if query else "")
            try:
                units.append(definition(text, warn=lambda _: None))
            except ListenTextError:
                continue
        try:
            found = open_specs([unit.spec for unit in units], warn=lambda _: None)
        except BindError as error:
            assert str(error).startswith("cannot open ")
        else:
            assert len(found) == len(units)
            assert all(not os.get_inheritable(number) for number in found.filenos())
            found.discard()
        assert _open_fds() == fds
        assert [path.name for path in directory.iterdir()] == ["plain"]
    finally:
        shutil.rmtree(directory)
