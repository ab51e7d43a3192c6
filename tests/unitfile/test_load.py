"""sockact.unitfile.load: which files are read, and in which order."""

import os
from pathlib import Path

import pytest

import sockact
from sockact.errors import UnitError, UnitNotFoundError
from sockact.spec import SocketSpec
from sockact.unitfile.load import Links, load_spec, search_path
from tests.unitfile.directories import marks, search, write

UNIT = "[Socket]\nListenStream=@sockact\n"


def _load(unit: str, *directories: Path) -> SocketSpec:
    return load_spec(unit, environ=search(*directories))


def test_first_directory_wins(a: Path, b: Path) -> None:
    """The same name in a later directory is not looked at."""
    write(a / "web.socket", UNIT + "InA=1\n")
    write(b / "web.socket", UNIT + "InB=1\n")
    spec = _load("web.socket", a, b)
    assert (marks(spec), spec.path) == (["InA"], str(a / "web.socket"))


def test_literal_instance_before_template(a: Path, b: Path) -> None:
    """web@x.socket is looked for everywhere before web@.socket is."""
    write(a / "web@.socket", UNIT + "Template=1\n")
    write(b / "web@x.socket", UNIT + "Instance=1\n")
    assert marks(_load("web@x.socket", a, b)) == ["Instance"]
    assert marks(_load("web@y.socket", a, b)) == ["Template"]


def test_templates_know_their_instance(a: Path) -> None:
    """Specifiers come from the instance's name, which is also the fd name."""
    write(a / "web@.socket", "[Socket]\nListenStream=%t/%p-%i\nListenFIFO=/%I\n")
    spec = _load("web@x-y.socket", a)
    assert [str(x.address) for x in spec.listeners] == ["/run/web-x-y", "/x/y"]
    assert spec.listeners[0].name == spec.name == "web@x-y.socket"


def test_bare_templates_are_refused(a: Path) -> None:
    """A template without an instance cannot be opened."""
    write(a / "web@.socket", UNIT)
    with pytest.raises(UnitError, match=r"a template; name an instance, like web@1\.socket"):
        _load("web@.socket", a)


def test_dropins(a: Path, b: Path) -> None:
    """Drop-ins of all directories apply after the unit, sorted by their names alone."""
    write(b / "web.socket", UNIT + "Main=1\nBacklog=1\n")
    write(b / "web.socket.d" / "10-x.conf", "[Socket]\nB10=1\nBacklog=2\n")
    write(a / "web.socket.d" / "20-x.conf", "[Socket]\nA20=1\nBacklog=3\n")
    write(a / "socket.d" / "15-x.conf", "[Socket]\nAll15=1\n")
    write(a / "web.socket.d" / "ignored.txt", "[Socket]\nNo=1\n")
    write(a / "web.socket.d" / ".hidden.conf", "[Socket]\nNo=1\n")
    spec = _load("web.socket", a, b)
    assert marks(spec) == ["Main", "B10", "All15", "A20"]
    assert spec.settings["Backlog"].value == 3
    assert spec.settings["Backlog"].origin.source == str(a / "web.socket.d" / "20-x.conf")


DROPIN_DIRECTORIES = [
    "foo-bar@x.socket.d",
    "foo-bar@.socket.d",
    "foo-.socket.d",
    "foo-@x.socket.d",
    "foo-@.socket.d",
    "socket.d",
]


@pytest.mark.parametrize("count", range(len(DROPIN_DIRECTORIES)))
def test_which_of_the_same_name_wins(a: Path, b: Path, count: int) -> None:
    """Of drop-ins of one name the first directory's wins, and in it the most specific one."""
    write(b / "foo-bar@.socket", UNIT)
    for directory, mark in ((a, "A"), (b, "B")):
        for name in DROPIN_DIRECTORIES[count:]:
            mark_of = f"{mark}{name}".replace("=", "")
            write(directory / name / "same.conf", f"[Socket]\n{mark_of}=1\n")
    assert marks(_load("foo-bar@x.socket", a, b)) == [f"A{DROPIN_DIRECTORIES[count]}"]


def test_masked_dropins(a: Path, b: Path) -> None:
    """A link to /dev/null, or an empty file, hides the drop-in of that name."""
    write(b / "web.socket", UNIT)
    for name in ("one", "two"):
        write(b / "web.socket.d" / f"{name}.conf", "[Socket]\nSeen=1\n")
    (a / "web.socket.d").mkdir(parents=True)
    (a / "web.socket.d" / "one.conf").symlink_to("/dev/null")
    write(a / "web.socket.d" / "two.conf", "")
    assert marks(_load("web.socket", a, b)) == []


def test_dropins_reset_lists(a: Path) -> None:
    """An empty assignment in a drop-in drops what the unit said."""
    write(a / "web.socket", UNIT)
    write(a / "web.socket.d" / "x.conf", "[Socket]\nListenStream=\nListenStream=81\n")
    assert [str(x.address) for x in _load("web.socket", a).listeners] == ["81"]


@pytest.mark.parametrize("how", ["empty", "link"])
def test_masked_units(a: Path, b: Path, how: str) -> None:
    """A mask in front of a unit is an error that says so."""
    write(b / "web.socket", UNIT)
    a.mkdir()
    if how == "empty":
        (a / "web.socket").touch()
    else:
        (a / "web.socket").symlink_to("/dev/null")
    with pytest.raises(UnitNotFoundError, match=r"a/web\.socket: the unit is masked"):
        _load("web.socket", a, b)


def test_aliases(a: Path) -> None:
    """A link to another unit is that unit, with the drop-ins of both names."""
    write(a / "real.socket", UNIT)
    (a / "alias.socket").symlink_to("real.socket")
    write(a / "real.socket.d" / "1.conf", "[Socket]\nReal=1\n")
    write(a / "alias.socket.d" / "2.conf", "[Socket]\nAlias=1\n")
    for name in ("alias.socket", "real.socket"):
        spec = _load(name, a)
        assert (spec.name, marks(spec)) == ("real.socket", ["Real", "Alias"])


def test_links_are_looked_at_once_for_many_units(a: Path) -> None:
    """Those with one suffix: a directory of thousands of units is not read thousands of times."""
    write(a / "one.socket", UNIT)
    write(a / "two.socket", UNIT)
    (a / "alias.socket").symlink_to("two.socket")
    write(a / "alias.socket.d" / "1.conf", "[Socket]\nAlias=1\n")
    environ, links = search(a), Links()
    assert marks(load_spec("one.socket", environ=environ, links=links)) == []
    (a / "alias.socket").unlink()
    assert marks(load_spec("two.socket", environ=environ, links=links)) == ["Alias"]
    assert marks(load_spec("two.socket", environ=environ)) == []


def test_a_path_is_a_unit(a: Path, b: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path's own directory comes first; a name that exists in the working directory is a path."""
    write(a / "web.socket", UNIT + "InA=1\n")
    write(a / "web.socket.d" / "1.conf", "[Socket]\nDropA=1\n")
    write(b / "web.socket", UNIT + "InB=1\n")
    write(b / "web.socket.d" / "2.conf", "[Socket]\nDropB=1\n")
    assert marks(_load(str(a / "web.socket"), b)) == ["InA", "DropA", "DropB"]
    monkeypatch.chdir(a)
    assert marks(_load("web.socket", b)) == ["InA", "DropA", "DropB"]
    monkeypatch.undo()
    assert marks(_load("web.socket", b)) == ["InB", "DropB"]


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ("no-such.socket", "no such socket unit; looked in"),
        ("web.service", "not the name of a socket unit"),
        ("web", "not the name of a socket unit"),
        (".socket", "not the name of a socket unit"),
        ("a b.socket", "not the name of a socket unit"),
        ("x" * 250 + ".socket", "not the name of a socket unit"),
    ],
)
def test_names(tmp_path: Path, unit: str, message: str) -> None:
    """What is not there, or cannot be a unit's name, is said."""
    with pytest.raises(UnitError, match=message):
        _load(unit, tmp_path)


def test_what_cannot_be_read(a: Path) -> None:
    """Directories, FIFOs, dangling links: one line each, and no hanging."""
    (a / "dir.socket").mkdir(parents=True)
    os.mkfifo(a / "fifo.socket")
    (a / "dangling.socket").symlink_to("nowhere")
    for name in ("dir", "fifo", "dangling"):
        with pytest.raises(UnitNotFoundError, match=rf"{name}\.socket: "):
            _load(f"{name}.socket", a)


def test_search_path() -> None:
    """Extra directories come first; $SYSTEMD_UNIT_PATH replaces the rest, or is put before it."""
    system = search_path({})
    assert system[0] == "/etc/systemd/system.control"
    assert system.index("/etc/systemd/system") < system.index("/run/systemd/system")
    assert search_path({}, extra=["/x"]) == ("/x", *system)
    assert search_path({"SYSTEMD_UNIT_PATH": "/a:/b"}) == ("/a", "/b")
    assert search_path({"SYSTEMD_UNIT_PATH": "/a:"}) == ("/a", *system)
    user = search_path({"HOME": "/h", "XDG_RUNTIME_DIR": "/r"}, user=True)
    assert user[0] == "/h/.config/systemd/user.control"
    assert user.index("/h/.config/systemd/user") < user.index("/etc/systemd/user")
    assert "/r/systemd/user" in user
    assert "/h/.local/share/systemd/user" in user


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Socket]\nBacklog=5\n[Bad\nBacklog=6\n", "invalid section header"),
        ("[Socket]\nBacklog=5\nSocketUser=a/b\nBacklog=6\n", "SocketUser="),
        ("[Socket]\nBacklog=5\nExecStartPre=a/b\nBacklog=6\n", "ExecStartPre="),
    ],
)
def test_a_fault_in_a_dropin_ends_only_the_dropin(tmp_path: Path, text: str, said: str) -> None:
    """What would make a unit unusable makes the rest of a drop-in ignored, with a warning."""
    (tmp_path / "a.socket").write_text("[Socket]\nListenStream=1\n", encoding="ascii")
    drop_ins = tmp_path / "a.socket.d"
    drop_ins.mkdir()
    (drop_ins / "1.conf").write_text(text, encoding="ascii")
    (drop_ins / "2.conf").write_text("[Socket]\nKeepAlive=yes\n", encoding="ascii")
    (drop_ins / "3.conf").symlink_to("nowhere")
    (drop_ins / "4.conf").mkdir()
    warnings: list[str] = []
    unit = sockact.load(str(tmp_path / "a.socket"), warn=warnings.append)
    assert unit.settings_text() == {"Backlog": "5", "KeepAlive": "yes"}
    assert len(warnings) == 3
    assert said in warnings[-1] or said in warnings[0]


def test_a_refusal_says_what_was_ignored_before(tmp_path: Path) -> None:
    """The warnings that explain why a unit is refused are not lost."""
    (tmp_path / "a.socket").write_text("[Socket]\nListenStream=localhost:1\n", encoding="ascii")
    warnings: list[str] = []
    with pytest.raises(UnitError, match="no listener left"):
        sockact.load(str(tmp_path / "a.socket"), warn=warnings.append)
    assert len(warnings) == 1
    assert "a.socket:2:14: ListenStream=: 'localhost:1'" in warnings[0]


def test_a_relative_search_path_is_made_absolute(tmp_path: Path) -> None:
    """Specifiers that name the file's place are absolute wherever the path came from."""
    (tmp_path / "u.socket").write_text("[Socket]\nListenStream=%Y/s\n", encoding="ascii")
    relative = os.path.relpath(tmp_path)
    unit = sockact.load("u.socket", unit_path=[relative], environ={})
    assert str(unit.spec.listeners[0].address) == f"{tmp_path}/s"


def test_an_instance_may_hold_an_at_sign(tmp_path: Path) -> None:
    """The first @ ends the prefix."""
    (tmp_path / "a@.socket").write_text("[Socket]\nListenStream=@%p-%i\n", encoding="ascii")
    unit = sockact.load("a@b@c.socket", unit_path=[str(tmp_path)], environ={})
    assert str(unit.spec.listeners[0].address) == "@a-b@c"
