"""Loading service units: the same directories, drop-ins, templates, aliases and masks as of sockets."""

from pathlib import Path

import pytest

from sockact import service_directives as d
from sockact.errors import DirectiveError, UnitError, UnitNotFoundError, UnitSyntaxError
from sockact.spec import ServiceSpec
from sockact.unitfile.load import load_service, load_spec
from tests.unitfile.directories import marks, search, write

UNIT = "[Service]\nExecStart=/bin/web %i\n"


def _load(unit: str, *directories: Path) -> ServiceSpec:
    return load_service(unit, environ=search(*directories))


def test_templates(a: Path, b: Path) -> None:
    """An instance is read from its template, and knows its own name."""
    write(a / "web@.service", UNIT + "Template=1\n")
    write(b / "web@x.service", UNIT + "Instance=1\n")
    assert marks(_load("web@x.service", a, b)) == ["Instance"]
    spec = _load("web@0-127.0.0.1:80-127.0.0.1:9.service", a, b)
    assert marks(spec) == ["Template"]
    assert spec.name == "web@0-127.0.0.1:80-127.0.0.1:9.service"
    assert spec.get(d.EXEC_START)[0].argv == ("/bin/web", "0-127.0.0.1:80-127.0.0.1:9")
    with pytest.raises(UnitError, match=r"a template; name an instance, like web@1\.service"):
        _load("web@.service", a)


def test_dropins(a: Path, b: Path) -> None:
    """Drop-ins of all directories and of the type apply after the unit, by their names."""
    write(b / "a-web.service", UNIT + "Main=1\nNice=1\n")
    write(b / "a-web.service.d" / "10.conf", "[Service]\nB10=1\nNice=2\n")
    write(a / "a-.service.d" / "20.conf", "[Service]\nA20=1\nNice=3\n")
    write(a / "service.d" / "15.conf", "[Service]\nAll15=1\nExecStart=\nExecStart=/bin/other\n")
    write(a / "socket.d" / "16.conf", "[Service]\nNo=1\n")
    spec = _load("a-web.service", a, b)
    assert marks(spec) == ["Main", "B10", "All15", "A20"]
    assert spec.settings["Nice"].value == 3
    assert [one.path for one in spec.get(d.EXEC_START)] == ["/bin/other"]
    assert spec.files == tuple(
        str(b / name) if name.startswith("a-web") else str(a / name)
        for name in ("a-web.service", "a-web.service.d/10.conf", "service.d/15.conf",
                     "a-.service.d/20.conf")
    )  # fmt: skip


def test_aliases(a: Path) -> None:
    """A link to another service is that service, with the drop-ins of both names."""
    write(a / "real.service", UNIT)
    (a / "alias.service").symlink_to("real.service")
    (a / "other.socket").symlink_to("real.service")
    write(a / "alias.service.d" / "2.conf", "[Service]\nAlias=1\n")
    write(a / "other.socket.d" / "3.conf", "[Service]\nNo=1\n")
    for name in ("alias.service", "real.service"):
        spec = _load(name, a)
        assert (spec.name, marks(spec)) == ("real.service", ["Alias"])


def test_masks(a: Path, b: Path) -> None:
    """A mask in front of a service is an error that says so."""
    write(b / "web.service", UNIT)
    a.mkdir()
    (a / "web.service").symlink_to("/dev/null")
    with pytest.raises(UnitNotFoundError, match=r"a/web\.service: the unit is masked"):
        _load("web.service", a, b)


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ("no-such.service", "no such service unit; looked in"),
        ("./no-such.service", "no such service unit"),
        ("web.socket", "not the name of a service unit, such as web.service"),
        ("web", "not the name of a service unit"),
    ],
)
def test_names(tmp_path: Path, unit: str, message: str) -> None:
    """What is not there, or cannot be a service's name, is said."""
    with pytest.raises(UnitError, match=message):
        _load(unit, tmp_path)


def test_each_kind_has_its_sections(a: Path) -> None:
    """What stands in a section of the other kind is ignored with a warning."""
    text = "[Socket]\nListenStream=1\nNonsense=1\n[Service]\nExecStart=/bin/a\nNonsense=2\n"
    service = _load(str(write(a / "x.service", text)))
    assert [one.origin.line for one in service.diagnostics] == [1, 6]
    socket = load_spec(str(write(a / "x.socket", text)), environ={})
    assert [one.origin.line for one in socket.diagnostics] == [4, 3]


def test_faults(a: Path) -> None:
    """A broken header refuses the unit, and says what one looks like; in a drop-in it does not."""
    broken = write(a / "x.service", "[Service\n")
    with pytest.raises(UnitSyntaxError, match=r"write it like \[Service\]"):
        _load(str(broken))
    path = write(a / "web.service", UNIT)
    write(a / "web.service.d" / "1.conf", "[Service]\nNice=5\nExecStop=a/b\nNice=6\n")
    write(a / "web.service.d" / "2.conf", "[Service]\nUMask=7\n[\nUMask=8\n")
    spec = _load(str(path))
    assert (spec.get(d.NICE), spec.get(d.UMASK), len(spec.diagnostics)) == (5, 7, 2)
    write(a / "web.service.d" / "3.conf", "[Service]\nExecStart=\nNonsense=1\n")
    with pytest.raises(DirectiveError, match="nothing to run") as caught:
        _load(str(path))
    assert len(caught.value.diagnostics) == 3


def test_specifiers(a: Path) -> None:
    """Specifiers are those of the service."""
    path = write(
        a / "p-q@.service",
        "[Unit]\nDescription=%n %N %p %i %j %f %y %Y %t %d\n[Service]\nExecStart=/bin/a\n",
    )
    spec = _load(f"{a}/p-q@x.service")
    runtime = "/run"
    assert spec.get(d.DESCRIPTION) == (
        f"p-q@x.service p-q@x p-q x q /x {path} {a} {runtime} {runtime}/credentials/p-q@x.service"
    )
