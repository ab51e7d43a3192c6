"""Finding and reading unit files: the search path, templates, aliases, masks and drop-ins.

The order is systemd's (systemd.unit(5), "Unit File Load Path"): the first directory that has the
name wins, a literal instance before its template; then every ``NAME.d/*.conf`` is applied in the
order of the file names, where a file hides one of the same name in a later directory. A path
instead of a name adds the directory of that file in front, as ``systemd-analyze verify`` does.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import attrs

from sockact.errors import UnitError, UnitNotFoundError
from sockact.spec import Diagnostic, Origin, ServiceSpec, SocketSpec
from sockact.unitfile.builder import Surroundings
from sockact.unitfile.grammar import SERVICE_SECTIONS, SOCKET_SECTIONS, Assignment, parse
from sockact.unitfile.machine import surroundings

FILE_MAX = 4 * 1024 * 1024
"""The most bytes of a unit file, so that who wrote it decides on no more memory than that."""

_SYSTEM_PATH = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
)


def _user_path(environ: Mapping[str, str]) -> tuple[str, ...]:
    home = environ.get("HOME") or os.path.expanduser("~")
    config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    data = environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
    runtime = environ.get("XDG_RUNTIME_DIR")
    config_dirs = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    data_dirs = (environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")

    def run(*names: str) -> list[str]:
        return [f"{runtime}/systemd/{name}" for name in names] if runtime else []

    return tuple(
        dict.fromkeys(
            [
                f"{config}/systemd/user.control",
                *run("user.control", "transient", "generator.early"),
                f"{config}/systemd/user",
                *(f"{directory}/systemd/user" for directory in config_dirs),
                "/etc/systemd/user",
                *run("user"),
                "/run/systemd/user",
                *run("generator"),
                f"{data}/systemd/user",
                *(f"{directory}/systemd/user" for directory in data_dirs),
                "/usr/local/share/systemd/user",
                "/usr/share/systemd/user",
                "/usr/local/lib/systemd/user",
                "/usr/lib/systemd/user",
                *run("generator.late"),
            ]
        )
    )


def search_path(
    environ: Mapping[str, str], *, user: bool = False, extra: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the directories in which units are looked up, first wins.

    Args:
        environ: Where $SYSTEMD_UNIT_PATH and the XDG variables come from.
        user: As for ``systemctl --user``.
        extra: Directories to put in front.
    """
    standard = _user_path(environ) if user else _SYSTEM_PATH
    override = environ.get("SYSTEMD_UNIT_PATH")
    if override:
        own = tuple(part for part in override.split(":") if part)
        standard = own + standard if override.endswith(":") else own
    return tuple(map(os.path.abspath, (*extra, *standard)))


def _is_unit_name(name: str, suffix: str) -> bool:
    return (
        len(name) <= 255
        and name.endswith(suffix)
        and bool(re.fullmatch(r"[A-Za-z0-9:_.\\-]+(?:@[A-Za-z0-9:_.\\@-]*)?\.[a-z]+", name))
    )


def _parts(name: str) -> tuple[str, str, str, str]:
    """Return the parts of a unit's name: prefix, ``@`` or nothing, instance, and suffix."""
    stem, dot, kind = name.rpartition(".")
    return *stem.partition("@"), dot + kind


def _template(name: str) -> str:
    """Return the template of an instance's name, else an empty string."""
    prefix, at, instance, suffix = _parts(name)
    return f"{prefix}@{suffix}" if at and instance else ""


def _find(name: str, directories: Iterable[str]) -> str:
    for candidate in filter(None, (name, _template(name))):
        for directory in directories:
            path = f"{directory}/{candidate}"
            if os.path.lexists(path):
                return path
    return ""


def _is_masked(path: str) -> bool:
    try:
        info = os.stat(path)
    except OSError:
        return False
    return (stat.S_ISREG(info.st_mode) and not info.st_size) or os.path.realpath(path) == os.devnull


def _read(path: str) -> bytes:
    """Read a unit file.

    Raises:
        UnitNotFoundError: It cannot be opened, or is no regular file.
    """
    try:
        # O_NONBLOCK: a FIFO of that name must not hang us before we see what it is.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UnitNotFoundError(f"cannot read it: {error.strerror}", path) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnitNotFoundError("not a regular file", path)
    with open(descriptor, "rb") as file:
        data = file.read(FILE_MAX + 1)
    if len(data) > FILE_MAX:
        raise UnitNotFoundError(f"over {FILE_MAX} bytes, which is no unit file", path)
    return data


Links = dict[tuple[str, str], list[tuple[str, str]]]
"""The symbolic links with a suffix in a directory, and where they lead: looked at once for many
units."""


def _links(directory: str, suffix: str, known: Links) -> list[tuple[str, str]]:
    found = known.get((directory, suffix))
    if found is None:
        found = known[directory, suffix] = []
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            found += [
                (entry.name, os.path.realpath(entry.path))
                for entry in entries
                if entry.name.endswith(suffix) and entry.is_symlink()
            ]
    return found


def _aliases(path: str, directories: Iterable[str], known: Links) -> list[str]:
    """Return the other names that lead to `path` by symbolic links of the search path."""
    real = os.path.realpath(path)
    suffix = os.path.splitext(path)[1]
    return [
        name
        for directory in directories
        for name, target in _links(directory, suffix, known)
        if target == real
    ]


def _dropin_names(name: str) -> list[str]:
    """Return the names whose ``.d`` directories apply to one unit name, the most specific first."""
    names = [name]
    if template := _template(name):
        names += _dropin_names(template)
    stem, at, rest, suffix = _parts(name)
    dash = stem.rstrip("-").rfind("-")
    if dash > 0:
        names += _dropin_names(f"{stem[: dash + 1]}{at if rest else ''}{rest}{suffix}")
    return list(dict.fromkeys(names))


def _dropins(names: Iterable[str], directories: tuple[str, ...], kind: str) -> list[str]:
    """Return the drop-in files that apply, in the order in which they do."""
    places = [
        f"{directory}/{variant}.d"
        for name in names
        for directory in directories
        for variant in _dropin_names(name)
    ]
    places += [f"{directory}/{kind}.d" for directory in directories]
    chosen: dict[str, str] = {}
    for place in dict.fromkeys(places):
        try:
            entries = os.listdir(place)
        except OSError:
            continue
        for entry in entries:
            if entry.endswith(".conf") and not entry.startswith("."):
                chosen.setdefault(entry, f"{place}/{entry}")
    return [path for _, path in sorted(chosen.items()) if not _is_masked(path)]


def _locate(
    unit: str, directories: tuple[str, ...], kind: str, *, by_name: bool
) -> tuple[str, str, tuple[str, ...]]:
    """Return the unit's name, its main file and the directories that apply to it."""
    name = os.path.basename(unit)
    suffix = f".{kind}"
    if not _is_unit_name(name, suffix):
        raise UnitError(
            f"not the name of a {kind} unit, such as web{suffix} or web@1{suffix}", unit
        )
    if "/" in unit or (not by_name and os.path.lexists(unit)):
        home = os.path.dirname(os.path.abspath(unit))
        directories = (home, *(other for other in directories if other != home))
        path = _find(name, (home,))
    else:
        path = _find(name, directories)
    if not path and directories[0] == os.path.dirname(os.path.abspath(unit)) and "/" in unit:
        raise UnitNotFoundError(f"no such {kind} unit", unit)
    if not path:
        shown = ", ".join(directories[:3]) + (", …" if len(directories) > 3 else "")
        raise UnitNotFoundError(f"no such {kind} unit; looked in {shown}", unit)
    real = os.path.basename(os.path.realpath(path))
    if os.path.islink(path) and _is_unit_name(real, suffix) and real != _template(name):
        name = real
    if "@" in name and not _parts(name)[2]:
        raise UnitError(f"a template; name an instance, like {name.replace('@', '@1')}", path)
    return name, path, directories


class _Read(NamedTuple):
    """What the files of a unit say, and what it means depends on."""

    name: str
    assignments: list[Assignment]
    surroundings: Surroundings
    path: str
    diagnostics: list[Diagnostic]


def _gather(
    unit: str,
    kind: str,
    sections: tuple[str, ...],
    *,
    environ: Mapping[str, str],
    user: bool,
    extra: Iterable[str],
    by_name: bool = False,
    links: Links | None = None,
) -> tuple[_Read, tuple[str, ...]]:
    """Find and read the files of a unit of this kind, and return which they are, too."""
    try:
        directories = search_path(environ, user=user, extra=extra)
        name, path, directories = _locate(unit, directories, kind, by_name=by_name)
    except FileNotFoundError as error:
        if isinstance(error, UnitNotFoundError):
            raise
        raise UnitNotFoundError("the working directory does not exist any more", unit) from None
    if _is_masked(path):
        raise UnitNotFoundError("the unit is masked", path)
    assignments: list[Assignment] = []
    diagnostics: list[Diagnostic] = []
    files: list[str] = []
    names = dict.fromkeys([name, *_aliases(path, directories, {} if links is None else links)])
    for file in (path, *_dropins(names, directories, kind)):
        drop_in = file != path
        try:
            data = _read(file)
        except UnitNotFoundError as error:
            if not drop_in:
                raise
            diagnostics.append(Diagnostic(Origin(file), f"{error.message}; ignored"))
            continue
        files.append(file)
        found, problems = parse(data, file, drop_in=drop_in, sections=sections)
        assignments += found
        diagnostics += problems
    around = surroundings(name, path, environ, user=user)
    return _Read(name, assignments, around, path, diagnostics), tuple(files)


def load_spec(
    unit: str,
    *,
    environ: Mapping[str, str],
    user: bool = False,
    extra: Iterable[str] = (),
    links: Links | None = None,
) -> SocketSpec:
    """Load a socket unit with its drop-ins.

    Args:
        unit: A name to look up (``web.socket``, ``web@blue.socket``), or a path. A name that
            exists in the working directory is a path.
        environ: The environment, for the search path and for specifiers.
        user: Look it up as ``systemctl --user`` does.
        extra: Directories to search first.
        links: What is known of them, to be kept for the next unit; by default nothing.

    Raises:
        UnitNotFoundError: There is none, it is masked, or it cannot be read.
        UnitError: It is refused; see `sockact.unitfile.grammar.parse` and
            `sockact.unitfile.unit.interpret`.
    """
    from sockact.unitfile.unit import interpret  # noqa: PLC0415 - each kind without the other

    found, files = _gather(
        unit, "socket", SOCKET_SECTIONS, environ=environ, user=user, extra=extra, links=links
    )
    return attrs.evolve(interpret(*found), files=files)


def load_service(
    unit: str,
    *,
    environ: Mapping[str, str],
    user: bool = False,
    extra: Iterable[str] = (),
    by_name: bool = False,
    links: Links | None = None,
) -> ServiceSpec:
    """Load a service unit with its drop-ins.

    Args:
        unit: A name to look up (``web.service``, ``web@blue.service``), or a path. A name that
            exists in the working directory is a path.
        environ: The environment, for the search path and for specifiers.
        user: Look it up as ``systemctl --user`` does.
        extra: Directories to search first.
        by_name: Look a name up, whatever exists in the working directory.
        links: As for `load_spec`.

    Raises:
        UnitNotFoundError: There is none, it is masked, or it cannot be read.
        UnitError: It is refused; see `sockact.unitfile.grammar.parse` and
            `sockact.unitfile.service.interpret`.
    """
    from sockact.unitfile.service import interpret  # noqa: PLC0415 - each kind without the other

    found, files = _gather(
        unit,
        "service",
        SERVICE_SECTIONS,
        environ=environ,
        user=user,
        extra=extra,
        by_name=by_name,
        links=links,
    )
    return attrs.evolve(interpret(*found), files=files)


def strangers(files: Iterable[str], directories: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Give the files that are symbolic links to somewhere else, and where that is.

    Args:
        files: The files of a unit.
        directories: Where units may be; below them is inside.
    """
    inside = [os.path.realpath(directory) for directory in directories]
    for file in files:
        real = os.path.realpath(file)
        inside_too = [*inside, os.path.realpath(os.path.dirname(os.path.abspath(file)))]
        if os.path.islink(file) and not any(
            real.startswith(f"{directory}/") for directory in inside_too
        ):
            yield file, real
