"""Which units are run, and where they come from."""

from pathlib import Path

import pytest

from sockact import service_directives as d
from sockact.errors import UnitNotFoundError
from sockact.supervise.gather import Search, for_units

SOCKET = "[Socket]\nListenStream=8080\n"
ACCEPTING = f"{SOCKET}Accept=yes\n"


@pytest.fixture(name="places")
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The directory on the search path, and the working directory."""
    path, here = tmp_path / "path", tmp_path / "here"
    path.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    return path, here


def _search(path: Path, *, user: bool = False) -> Search:
    return Search({"SYSTEMD_UNIT_PATH": str(path)}, user, (), lambda _text: None)


def _write(directory: Path, name: str, text: str = "") -> None:
    (directory / name).write_text(text or f"[Service]\nExecStart=/{directory.name}\n")


@pytest.mark.parametrize(
    ("unit", "service"), [(SOCKET, "web.service"), (ACCEPTING, "web@.service")]
)
def test_service_of_a_unit(places: tuple[Path, Path], unit: str, service: str) -> None:
    """The service of a unit from the search path is no file that lies about where one is."""
    path, here = places
    _write(path, "web.socket", unit)
    _write(path, service)
    _write(here, service)
    _write(here, "web@0-0.service")
    found = for_units(["web.socket"], _search(path), eager=False)
    spec = found.services.get(service) or found.templates[service]("web@0-0.service")
    assert [command.path for command in spec.get(d.EXEC_START)] == ["/path"]


def test_service_beside_a_unit(places: tuple[Path, Path]) -> None:
    """That of a unit of the working directory, or one that is named, is one there."""
    path, here = places
    for name in ("web.service", "other.service"):
        _write(path, name)
        _write(here, name)
    _write(here, "web.socket", SOCKET)
    found = for_units(["web.socket", "other.service"], _search(path), eager=False)
    programs = {spec.get(d.EXEC_START)[0].path for spec in found.services.values()}
    assert programs == {"/here"}


@pytest.mark.parametrize(("user", "directory"), [(False, "/"), (True, "~")])
def test_working_directory(places: tuple[Path, Path], *, user: bool, directory: str) -> None:
    """Without WorkingDirectory= it is the one that systemd gives, system or user manager."""
    path, _ = places
    _write(path, "web.service")
    found = for_units(["web.service"], _search(path, user=user), eager=False)
    place = found.services["web.service"].get(d.WORKING_DIRECTORY)
    assert place is not None
    assert (place.path, place.optional) == (directory, False)


@pytest.mark.parametrize("word", [".", "./web.socket"])
def test_without_a_working_directory(places: tuple[Path, Path], word: str) -> None:
    """A relative path is nowhere once the working directory was removed, which is said."""
    path, here = places
    here.rmdir()
    with pytest.raises(UnitNotFoundError, match="the working directory does not exist"):
        for_units([word], _search(path), eager=False)
