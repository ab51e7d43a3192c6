"""Random definitions for property tests."""

import string

from hypothesis import strategies as st

from sockact import directives as d
from sockact.spec import INFINITY, PROTOCOLS, Directive, Value

_NAME = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=12)
_PATH = st.lists(_NAME, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))

ADDRESSES: dict[str, st.SearchStrategy[str]] = {
    "ListenStream": st.one_of(
        st.integers(1, 65535).map(str),
        st.tuples(st.ip_addresses(v=4), st.integers(1, 65535)).map(lambda t: f"{t[0]}:{t[1]}"),
        st.tuples(st.ip_addresses(v=6), st.integers(1, 65535)).map(lambda t: f"[{t[0]}]:{t[1]}"),
        _PATH,
        _NAME.map("@{}".format),
        st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 2)).map(
            lambda t: f"vsock:{t[0]}:{t[1]}"
        ),
    ),
    "ListenDatagram": st.one_of(st.integers(1, 65535).map(str), _PATH),
    "ListenSequentialPacket": st.one_of(_PATH, _NAME.map("@{}".format)),
    "ListenFIFO": _PATH,
    "ListenSpecial": _PATH,
    "ListenNetlink": st.tuples(
        st.sampled_from(["route", "audit", "kobject-uevent", "7"]), st.integers(0, 2**32 - 1)
    ).map(lambda t: f"{t[0]} {t[1]}"),
    "ListenMessageQueue": _NAME.map("/{}".format),
}

VALUES: dict[Value, st.SearchStrategy[str]] = {
    Value.BOOLEAN: st.sampled_from(["yes", "no", "1", "off"]),
    Value.UNSIGNED: st.integers(1, 2**32 - 1).map(str),
    Value.INTEGER: st.integers(-(2**31), 2**31 - 1).map(str),
    Value.LONG: st.integers(-(2**63), 2**63 - 1).map(str),
    Value.MODE: st.integers(0, 0o7777).map("{:o}".format),
    Value.SIZE: st.integers(0, 2**62).map(str),
    Value.SPAN: st.integers(0, INFINITY - 1).map("{}us".format),
    Value.SPAN_OR_ZERO: st.one_of(st.just("infinity"), st.integers(0, 2**40).map("{}us".format)),
    Value.STRING: st.text(string.ascii_letters + " _%\"'#", max_size=20).map(str.strip),
    Value.FDNAME: st.text(string.ascii_letters + " _-/@", max_size=20).map(str.strip),
    Value.INTERFACE: st.sampled_from(["lo", "eth0", "*"]),
    Value.USER: st.sampled_from(["root", "www-data", "0", "65534"]),
    Value.SERVICE: _NAME.map("{}.service".format),
    Value.PROTOCOL: st.sampled_from(sorted(PROTOCOLS)),
    Value.BIND_IPV6: st.sampled_from(["default", "both", "ipv6-only", "yes"]),
    Value.TIMESTAMPING: st.sampled_from(["off", "us", "nsec"]),
    Value.TOS: st.one_of(st.integers(0, 255).map(str), st.just("low-delay")),
    Value.DEFER: st.sampled_from(["no", "patient"]),
    Value.COMMANDS: st.sampled_from(["/bin/true", "-/bin/sh -c 'exit 1'"]),
}

_UNUSED = {"Accept", "Symlinks", "ListenUSBFunction"}  # they exclude other directives


def _line(row: Directive[object]) -> st.SearchStrategy[str]:
    texts = ADDRESSES[row.name] if row.value is Value.LISTEN else VALUES[row.value]
    return texts.map(
        lambda text: f"{row.name}={text.replace('%', '%%') if row.specifiers else text}"
    )


UNIT_TEXTS = st.tuples(
    ADDRESSES["ListenStream"],
    st.lists(
        st.one_of(
            *(
                _line(row)
                for row in d.TABLE.values()
                if row.section == "Socket" and row.name not in _UNUSED
            )
        ),
        max_size=25,
    ),
).map(lambda t: "\n".join(["[Socket]", f"ListenStream={t[0]}", *t[1], ""]))
"""Whole unit files that systemd would load."""
