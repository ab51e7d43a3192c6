"""Collecting what is to be run: units by name or directory, or a command for them all."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import attrs

from sockact import directives
from sockact import service_directives as d
from sockact.errors import DirectiveError, UnitError, UnitNotFoundError
from sockact.spec import Origin, ServiceSpec, Setting, SocketSpec
from sockact.supervise.definitions import Definitions, UnitDefinition
from sockact.unitfile.command import Command
from sockact.unitfile.load import Links, load_service, load_spec
from sockact.unitfile.service import complete

_SOCKET, _SERVICE = ".socket", ".service"
_LINE = Origin("the command line")
_DEFAULT = Origin("by default")


@attrs.frozen
class Search:
    """Where units are looked up.

    Attributes:
        environ: The environment, for the search path and for specifiers.
        user: Look them up as ``systemctl --user`` does.
        extra: Directories to search first.
        warn: Called with a line for each thing in them that is ignored.
        links: What is known of the symbolic links there; None for what is looked up much later.
    """

    environ: Mapping[str, str]
    user: bool
    extra: tuple[str, ...]
    warn: Callable[[str], None]
    links: Links | None = attrs.field(factory=dict, eq=False)

    def socket(self, name: str) -> SocketSpec:
        """Load a socket unit; raise UnitError if it is refused."""
        return load_spec(
            name, environ=self.environ, user=self.user, extra=self.extra, links=self.links
        )

    def service(self, name: str, *, by_name: bool = True) -> ServiceSpec:
        """Load a service unit; raise UnitError if it is refused.

        Args:
            name: Its name, or its path.
            by_name: A name is none of a file in the working directory: nobody has typed it.
        """
        return load_service(
            name,
            environ=self.environ,
            user=self.user,
            extra=self.extra,
            by_name=by_name,
            links=self.links,
        )

    def within(self, directory: str) -> "Search":
        """Return the same with one more directory, the first."""
        if directory in self.extra:
            return self
        return attrs.evolve(self, extra=(directory, *self.extra))


def command_service(
    name: str, command: Sequence[str], settings: Mapping[str, object]
) -> ServiceSpec:
    """Return the definition of a command, as if it stood in ExecStart=.

    Args:
        name: The unit's full name.
        command: The program and its arguments, taken as they are.
        settings: Directives of [Service] with their values.

    Raises:
        DirectiveError: They contradict each other.
    """
    run = Command(command[0], tuple(command), expand=False, origin=_LINE)
    values: dict[str, object] = {
        d.TYPE.name: "exec",
        d.EXEC_START.name: (run,),
        d.NOTIFY_ACCESS.name: "all",
        d.UMASK.name: None,
        d.IGNORE_SIGPIPE.name: False,
        **settings,
    }
    spec = ServiceSpec(
        name, MappingProxyType({key: Setting(value, _LINE) for key, value in values.items()})
    )
    return complete(spec)


def service_name(program: str, *, template: bool = False) -> str:
    """Return what the service of a command is called."""
    stem = re.sub(r"[^A-Za-z0-9:_.-]", "_", os.path.basename(program)) or "command"
    return f"{stem}@{_SERVICE}" if template else stem + _SERVICE


def _told_apart(specs: Iterable[SocketSpec]) -> Iterator[SocketSpec]:
    """Give units names of their own where several have the same, as inherited sockets may."""
    counts: dict[str, int] = {}
    for spec in specs:
        number = counts[spec.name] = counts.get(spec.name, 0) + 1
        yield spec if number == 1 else attrs.evolve(spec, name=f"{spec.name}#{number}")


def for_command(
    specs: Iterable[SocketSpec], make: Callable[[str], ServiceSpec], program: str, *, eager: bool
) -> Definitions:
    """Return the definitions of one command that serves all these sockets.

    Args:
        specs: The socket units.
        make: Gives the definition of the service with a name.
        program: What the command runs.
        eager: Start it at once.

    Raises:
        DirectiveError: Some units have Accept=yes, and others do not.
    """
    specs = tuple(_told_apart(specs))
    accepting = [spec for spec in specs if spec.get(directives.ACCEPT)]
    if accepting and len(accepting) < len(specs):
        raise DirectiveError(
            "Accept=yes gives the command one connection, others want it to have the socket;"
            " run two commands",
            accepting[0].path or accepting[0].name,
        )
    name = service_name(program, template=bool(accepting))
    units = tuple(UnitDefinition(spec, name) for spec in specs)
    if accepting:
        spec = make(name)
        return Definitions(units, templates={name: lambda _name: spec})
    return Definitions(units, {name: make(name)}, eager=(name,) if eager else ())


def for_units(words: Iterable[str], search: Search, *, eager: bool) -> Definitions:
    """Return the definitions of units, and of the services that they start.

    Args:
        words: Names or files of units, or directories of units. Services that are named, and those
            in a directory that no socket unit there starts, are started at once.
        search: Where what is not named by its path is looked up.
        eager: Start every service at once.

    Raises:
        UnitNotFoundError: There is no such unit, or no service for a socket unit.
        UnitError: One is refused.
    """
    collector = _Collector(search)
    for word in words:
        if os.path.isdir(word):
            collector.directory(word)
        elif word.endswith(_SOCKET):
            collector.socket(word, collector.near(word))
        else:
            collector.eager.append(collector.service(word, collector.near(word), by_name=False))
    found = collector.definitions()
    if eager:
        found = attrs.evolve(found, eager=tuple(found.services))
    return found


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise UnitNotFoundError("the working directory does not exist any more", path) from None


class _Collector:
    def __init__(self, search: Search) -> None:
        self._search = search
        self.units: dict[str, UnitDefinition] = {}
        self.services: dict[str, ServiceSpec] = {}
        self.templates: dict[str, Callable[[str], ServiceSpec]] = {}
        self.eager: list[str] = []

    def near(self, word: str) -> Search:
        """Return where the units beside a unit are looked up."""
        if "/" in word or os.path.lexists(word):
            return self._search.within(os.path.dirname(_absolute(word)))
        return self._search

    def directory(self, path: str) -> None:
        names = sorted(os.listdir(path))
        search = self._search.within(_absolute(path))
        sockets = [n for n in names if n.endswith(_SOCKET) and not _is_template(n)]
        for name in sockets:
            self.socket(os.path.join(path, name), search)
        for name in names:
            if name.endswith(_SERVICE) and not _is_template(name) and name not in self.services:
                self.eager.append(self.service(os.path.join(path, name), search))
        if not sockets and not self.eager:
            raise UnitNotFoundError("no .socket or .service unit in this directory", path)

    def socket(self, word: str, search: Search) -> None:
        spec = search.socket(word)
        for diagnostic in spec.diagnostics:
            search.warn(str(diagnostic))
        if spec.name in self.units:
            return
        stem = spec.name.removesuffix(_SOCKET)
        if spec.get(directives.ACCEPT):
            name = f"{stem.partition('@')[0]}@{_SERVICE}"
            self._template(name, spec, search)
        else:
            name = spec.get(directives.SERVICE) or stem + _SERVICE
            try:
                name = self.service(name, search)
            except UnitNotFoundError as error:
                raise UnitNotFoundError(f"it starts {name}: {error.message}", spec.path) from None
        self.units[spec.name] = UnitDefinition(spec, name)

    def service(self, word: str, search: Search, *, by_name: bool = True) -> str:
        name: str = os.path.basename(word)
        if name in self.services:
            return name
        spec = search.service(word, by_name=by_name)
        for diagnostic in spec.diagnostics:
            search.warn(str(diagnostic))
        self.services[name] = attrs.evolve(self._settled(spec), name=name)
        return name

    def _settled(self, spec: ServiceSpec) -> ServiceSpec:
        """Return a definition with the working directory that systemd gives it by default."""
        key = d.WORKING_DIRECTORY.name
        if spec.get(d.WORKING_DIRECTORY) is not None:
            return spec
        place = d.OptionalPath("~" if self._search.user else "/")
        return attrs.evolve(spec, settings={**spec.settings, key: Setting(place, _DEFAULT)})

    def _template(self, name: str, unit: SocketSpec, search: Search) -> None:
        """Look at a template once, and read it anew for each instance if it has specifiers."""
        prefix, _, suffix = name.partition("@")
        try:
            first = search.service(f"{prefix}@0-0{suffix}")
            second = search.service(f"{prefix}@1-1{suffix}")
        except UnitNotFoundError as error:
            raise UnitNotFoundError(f"it starts {name}: {error.message}", unit.path) from None
        for diagnostic in first.diagnostics:
            search.warn(str(diagnostic))
        same = all(
            setting.value == second.settings[key].value for key, setting in first.settings.items()
        )
        if same:
            settled = self._settled(first)
            self.templates[name] = lambda _name: settled
        else:
            later = attrs.evolve(search, links=None)
            self.templates[name] = lambda one: self._settled(later.service(one))

    def definitions(self) -> Definitions:
        known = {*self.units}
        for spec in self.services.values():
            wanted: tuple[str, ...] = spec.get(d.SOCKETS)
            for name in wanted:
                if name not in known:
                    setting = spec.settings[d.SOCKETS.name]
                    place = setting.origin
                    raise UnitError(
                        f"Sockets={name} is not among the socket units that are run; name it, too",
                        place.source,
                        place.line,
                    )
        eager = [name for name in dict.fromkeys(self.eager) if not self._is_triggered(name)]
        return Definitions(
            tuple(self.units.values()),
            MappingProxyType(self.services),
            MappingProxyType(self.templates),
            tuple(eager),
        )

    def _is_triggered(self, service: str) -> bool:
        return any(unit.service == service for unit in self.units.values())


def _is_template(name: str) -> bool:
    return "@." in name
