"""What the readers of socket and service units share: assignments to settings, and refusals.

What systemd does with a fault decides what happens here: a bad value is a warning and the old
value stays; a bad Exec line or account name refuses the unit, but stands it in a drop-in, only the
rest of that.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import attrs

from sockact.errors import DirectiveError
from sockact.spec import Diagnostic, Directive, Origin, Setting, Value
from sockact.unitfile import values
from sockact.unitfile.grammar import Assignment
from sockact.unitfile.specifiers import expand

_NAME_LIMIT = 255
_TEXT_LIMIT = 1024 * 1024


@attrs.frozen
class Surroundings:
    """What the meaning of a unit takes from the machine.

    Attributes:
        resolve: The meaning of a ``%`` specifier letter, or None.
        ipv6: Whether the kernel has IPv6.
        interface: Whether an interface of that name or index exists.
    """

    resolve: Callable[[str], str | None]
    ipv6: bool = True
    interface: Callable[[str], bool] = lambda _name: True


class Builder:
    """The settings of one unit under construction.

    Attributes:
        name: The unit's full name.
        path: Its main file, or an empty string.
        surroundings: What its meaning takes from the machine.
        settings: The directives that were set.
        diagnostics: What was ignored.
    """

    def __init__(self, name: str, path: str, surroundings: Surroundings) -> None:
        """Begin with nothing set."""
        self.name = name
        self.path = path
        self.surroundings = surroundings
        self.settings: dict[str, Setting] = {}
        self.diagnostics: list[Diagnostic] = []
        self._abandoned = ""
        # The lists, item by item, so that many lines take no more time than they are long.
        self._growing: dict[str, dict[object, tuple[object, Origin]]] = {}

    def warn(self, origin: Origin, message: str) -> None:
        """Note something that is ignored."""
        self.diagnostics.append(Diagnostic(origin, message))

    def refuse(self, item: Assignment, message: str) -> None:
        """Refuse the unit, but of a drop-in only the rest.

        Raises:
            DirectiveError: It does not stand in a drop-in.
        """
        place = item.value_origin
        if place.source == self.path or not self.path:
            raise DirectiveError(message, place.source, place.line, place.column)
        self._abandoned = place.source
        self.warn(place, f"{message}; the rest of this drop-in is ignored")

    def is_abandoned(self, item: Assignment) -> bool:
        """Whether the rest of the drop-in in which it stands is ignored."""
        return item.origin.source == self._abandoned

    def set(self, item: Assignment, row: Directive[object]) -> None:
        """Set a directive, or bring back its default.

        Raises:
            DirectiveError: The unit is refused.
        """
        if not item.value and row.resets:
            self.reset(row)
            return
        try:
            value = self.read(item, row)
        except ValueError as error:
            message = f"{row.name}=: {error}"
            if row.value is Value.USER or isinstance(error, values.RefusedError):
                self.refuse(item, message)
            else:
                self.warn(item.value_origin, f"{message}; this line is ignored")
            return
        if row.value is Value.USER and "User" in row.name and value == "nobody":
            message = "nobody is whom programs without rights run as; any of them could use it"
            self.warn(item.value_origin, f"{row.name}=: {message}")
        if value == "" and row.resets:
            self.reset(row)
        else:
            self.keep(item, row, value)

    def reset(self, row: Directive[object]) -> None:
        """Bring back the default."""
        self.settings.pop(row.name, None)
        self._growing.pop(row.name, None)

    def read(self, item: Assignment, row: Directive[object]) -> object:
        """Read the value of a line.

        Raises:
            RefusedError: The unit is to be refused.
            ValueError: The line is to be ignored.
        """
        if row.value is Value.COMMANDS:
            from sockact.unitfile.command import parse_commands  # noqa: PLC0415 - few have some

            return parse_commands(
                item.value,
                resolve=self.surroundings.resolve,
                origin=item.origin,
                warn=lambda message: self.warn(item.value_origin, f"{row.name}=: {message}"),
            )
        return values.READERS[row.value](self.expanded(item, row))

    def expanded(self, item: Assignment, row: Directive[object]) -> str:
        """Return the value of a line with the specifiers replaced.

        Raises:
            ValueError: There is no such specifier, or it becomes too long.
        """
        if not row.specifiers:
            return item.value
        limit = _NAME_LIMIT if row.value is Value.FDNAME else _TEXT_LIMIT
        return expand(item.value, self.surroundings.resolve, limit)

    def keep(self, item: Assignment, row: Directive[object], value: object) -> None:
        """Set a value; of a list, add what there is."""
        if not isinstance(value, tuple):
            self.settings[row.name] = Setting(value, item.origin)
        elif value:
            growing = self._growing.setdefault(row.name, {})
            for one in value:
                growing[self.key(row, one, len(growing))] = one, item.origin
            self.settings[row.name] = Setting((), item.origin)

    def key(self, row: Directive[object], one: object, index: int) -> object:
        """Return what an item of a list replaces if it is already there: by default, nothing."""
        del row, one
        return index

    def finished(self) -> Mapping[str, Setting]:
        """Return the settings, lists with their items."""
        for name, growing in self._growing.items():
            items, origins = zip(*growing.values(), strict=True)
            self.settings[name] = Setting(items, self.settings[name].origin, origins)
        return MappingProxyType(self.settings)
