"""sockact.library: definitions, opening and activation joined."""

import os
from pathlib import Path

import pytest

import sockact
from sockact.errors import ListenTextError, SockactWarning, UnitError, UnitNotFoundError


def _unit(directory: Path, text: str, name: str = "web.socket") -> str:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_load_and_open(short_dir: Path) -> None:
    """A unit file is loaded, opened, and its descriptors go by the unit's name."""
    path = _unit(short_dir, f"[Socket]\nListenStream={short_dir}/s\nListenFIFO={short_dir}/f\n")
    unit = sockact.load(path)
    assert unit.name == "web.socket"
    with unit.open() as found:
        assert found.names == ("web.socket", "web.socket")
        assert [e.describe().kind for e in found] == ["Stream", "FIFO"]


def test_load_warns(short_dir: Path) -> None:
    """What is ignored is a warning by default, and a call if one gives a function."""
    path = _unit(short_dir, "[Socket]\nListenStream=@sockact-load\nBacklogg=3\n")
    with pytest.warns(SockactWarning, match=r"web\.socket:3:1: unknown key Backlogg="):
        sockact.load(path)
    said: list[str] = []
    sockact.load(path, warn=said.append)
    assert len(said) == 1
    assert "did you mean Backlog=?" in said[0]


def test_load_errors(short_dir: Path) -> None:
    """Missing and refused units are errors with the file's name."""
    with pytest.raises(UnitNotFoundError, match="no such socket unit"):
        sockact.load("no-such-unit.socket")
    with pytest.raises(UnitError, match="no listener left"):
        sockact.load(_unit(short_dir, "[Socket]\n"))
    with pytest.raises(UnitError, match="not the name of a socket unit"):
        sockact.load(str(short_dir / "web.service"))


def test_unit_path_and_environment(short_dir: Path) -> None:
    """Units are looked up in the directories given, then where the environment says."""
    _unit(short_dir, "[Socket]\nListenStream=@sockact-a\n", "a.socket")
    assert sockact.load("a.socket", unit_path=[str(short_dir)]).name == "a.socket"
    assert (
        sockact.load("a.socket", environ={"SYSTEMD_UNIT_PATH": str(short_dir)}).name == "a.socket"
    )


def test_override() -> None:
    """Directives set from outside win over those of the definition."""
    unit = sockact.definition("web=tcp:127.0.0.1:0?Backlog=5&NoDelay=yes")
    changed = unit.override(["Backlog=7", "FileDescriptorName=other"])
    assert changed.settings_text() == {
        "Backlog": "7",
        "NoDelay": "yes",
        "FileDescriptorName": "other",
    }
    assert [listener.name for listener in changed.spec.listeners] == ["other"]
    for bad in ("Backlog", "Backlogg=3", "Backlog=x", "ListenStream=80", "MaxConnections=3"):
        with pytest.raises(ValueError, match=bad.partition("=")[0]):
            unit.override([bad])


def test_without_supervisor(short_dir: Path) -> None:
    """What only a supervisor can do is listed with its place; defaults are not worth a word."""
    text = "[Socket]\nListenStream=@x1\nMaxConnections=64\nTriggerLimitBurst=3\nRemoveOnStop=yes\n"
    said = sockact.load(_unit(short_dir, text)).without_supervisor()
    assert [d.origin.line for d in said] == [4, 5]
    assert all(d.message.endswith("; sockact run honours it") for d in said)
    assert not sockact.load(_unit(short_dir, text)).accepts
    # exec stays for Accept=yes, a holder does not.
    each = sockact.load(_unit(short_dir, text + "Accept=yes\n"))
    assert each.without_supervisor() == []
    assert [d.origin.line for d in each.without_supervisor("hold")] == [4, 6]


def test_renamed() -> None:
    """Each listener gets its name; bad names and wrong counts are errors."""
    unit = sockact.definition("tcp:8000-8001")
    assert [one.name for one in unit.renamed(["a", "b"]).spec.listeners] == ["a", "b"]
    for names in (["a"], ["a", "b", "c"], ["a", "b:c"]):
        with pytest.raises(ValueError, match=r"fd name|zip"):
            unit.renamed(names)


def test_to_text_reads_back(short_dir: Path) -> None:
    """A definition is written as a unit file that means the same; some cannot be."""
    unit = sockact.definition("unix:/x?SocketMode=0600&Backlog=9")
    again = sockact.load(_unit(short_dir, unit.to_text()))
    assert again.settings_text() == {**unit.settings_text(), "FileDescriptorName": "x"}
    for text in ("tcp:localhost:80", "tcp:0"):
        with pytest.raises(ValueError, match="a unit file cannot say"):
            sockact.definition(text).to_text()
    web = sockact.definition("web=tcp:8080").to_text()
    assert sockact.load(_unit(short_dir, web)).spec.listeners[0].name == "web"
    for text, message in (
        ("tcp:80?NonBlocking=yes", "does not belong"),
        ("tcp:80?TCPCongestion=a%0AListenStream=1", "line end"),
        ("tcp:80-81", "one fd name"),
    ):
        with pytest.raises(ValueError, match=message):
            sockact.definition(text).to_text()


def test_override_is_as_if_it_stood_last() -> None:
    """Lists grow, empty values reset, and an empty name is no name."""
    unit = sockact.definition("a=unix:/x?Symlinks=/l1&SocketUser=root")
    assert unit.override(["Symlinks=/l2"]).settings_text()["Symlinks"] == "/l1 /l2"
    assert (
        unit.override(["Symlinks=/l2", "Symlinks=/l3"]).settings_text()["Symlinks"].count("/") == 3
    )
    assert unit.override(["Symlinks="]).settings_text()["Symlinks"] == ""
    assert unit.override(["SocketUser="]).settings_text()["SocketUser"] == ""
    assert unit.override(["FileDescriptorName="]).spec.listeners[0].name == "a"
    with pytest.raises(ValueError, match="empty"):
        unit.renamed([""])


def test_listen_checks_all_texts_first(short_dir: Path) -> None:
    """A wrong text opens nothing, though others before it are right."""
    with pytest.raises(ListenTextError):
        sockact.listen(f"unix:{short_dir}/s", "tcp:nonsense port")
    assert list(short_dir.iterdir()) == []


# --- at a rendezvous ------------------------------------------------------------------------------


def test_take_or_listen(short_dir: Path) -> None:
    """Texts and units get what the owner has in their order, and what it has not is opened."""
    path = f"{short_dir}/r"
    with sockact.offer(
        path, sockact.listen("a=tcp:127.0.0.1:0", "b=unix:@sockact-library-b")
    ) as at:
        inodes = {one.name: os.fstat(one.fileno()).st_ino for one in at.sockets}
        unit = sockact.definition("b=unix:@sockact-library-b")
        with sockact.take_or_listen(path, unit, "c=tcp:127.0.0.1:0", "a=tcp:127.0.0.1:0") as found:
            assert found.names == ("b", "c", "a")
            got = [os.fstat(one.fileno()).st_ino for one in found]
            assert (got[0], got[2]) == (inodes["b"], inodes["a"])
            assert got[1] not in inodes.values()
            assert [one.listener.name for one in found if one.listener] == ["b", "c", "a"]
        with sockact.take_or_listen(path) as found:
            assert found.names == ("a", "b")


def test_take_or_listen_from_nobody(short_dir: Path) -> None:
    """Where nobody answers nothing is opened."""
    with pytest.raises(sockact.errors.OwnerNotFoundError):
        sockact.take_or_listen(f"{short_dir}/r", f"u=unix:{short_dir}/u")
    assert not os.listdir(short_dir)


def test_held_by(short_dir: Path) -> None:
    """Each holding has the processes that have it open, FIFOs too; one that is gone has none."""
    path = f"{short_dir}/r"
    sockets = sockact.listen("a=tcp:127.0.0.1:0", f"f=fifo:{short_dir}/f")
    with sockact.offer(path, sockets):
        found = sockact.holdings(path)
        assert [[one.pid for one in each] for each in sockact.held_by(found)] == [[os.getpid()]] * 2
    assert sockact.held_by(found) == [[], []]
    assert sockact.held_by([]) == []
