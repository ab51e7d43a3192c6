"""What a definition says, and what there is to say of it, for a person and for CI. Pure."""

import enum
from collections.abc import Iterator

import attrs

from sockact import directives as d
from sockact.errors import UnitError
from sockact.spec import AsValue, Diagnostic, Kind, Moment, Origin, SocketSpec
from sockact.unitfile.explain import default_text, idle_settings, unsupervised
from sockact.unitfile.unit import LISTEN_KINDS
from sockact.unitfile.values import write


class Severity(enum.Enum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@attrs.frozen(eq=False, repr=False)
class Finding(AsValue):
    """One thing that was found.

    Attributes:
        severity: ERROR: the unit is refused. WARNING: something in it is ignored, or has no
            effect. NOTE: it depends on who uses the unit.
        origin: Where.
        message: What, why, and what to do.
    """

    severity: Severity
    origin: Origin
    message: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.severity.value}: {self.message}"


def refusal(error: UnitError) -> list[Finding]:
    """Return what there is to say of a unit that is refused, the reason last."""
    place = Origin(error.path, error.line, error.column)
    said = [
        Finding(Severity.WARNING, one.origin, one.message)
        for one in error.diagnostics
        if isinstance(one, Diagnostic)
    ]
    return [*said, Finding(Severity.ERROR, place, error.message)]


def findings(spec: SocketSpec, *, systemd: int = 0) -> list[Finding]:
    """Return what there is to say of a definition that loads, in the order of its lines.

    Args:
        spec: The definition.
        systemd: The version that the unit must work with; 0 for the newest.
    """
    found = [Finding(Severity.WARNING, one.origin, one.message) for one in spec.diagnostics]
    found += [Finding(Severity.WARNING, one.origin, one.message) for one in idle_settings(spec)]
    found += [Finding(Severity.NOTE, one.origin, one.message) for one in unsupervised(spec)]
    found += _too_new(spec, systemd)
    return sorted(found, key=lambda one: (one.origin.source != spec.path, one.origin.source,
                                          one.origin.line, one.origin.column))  # fmt: skip


_KEYS: dict[Kind, str] = {kind: key for key, kind in LISTEN_KINDS.items()}


@attrs.frozen(eq=False, repr=False)
class Line(AsValue):
    """A directive with its value as text, and where it was set; None if that is its default."""

    name: str
    value: str
    origin: Origin | None


def lines(spec: SocketSpec, *, defaults: bool) -> list[Line]:
    """Return what `spec` says: its listeners, then its directives in the order of the table."""
    found = [Line(_KEYS[one.kind], str(one.address), one.origin) for one in spec.listeners]
    for name, row in d.TABLE.items():
        setting = spec.settings.get(name)
        if setting is None:
            if defaults and row.moment is not Moment.LISTENER and row.section == "Socket":
                text = default_text(row)
                listed = isinstance(row.default, tuple)
                literal = not listed and text == write(row.value, row.default)
                found.append(Line(name, text if literal else f"({text})", None))
        elif isinstance(setting.value, tuple):
            places = setting.origins or (setting.origin,) * len(setting.value)
            found += [
                Line(name, write(row.value, item), place)
                for item, place in zip(setting.value, places, strict=True)
            ]
        else:
            found.append(Line(name, write(row.value, setting.value), setting.origin))
    return found


def _too_new(spec: SocketSpec, systemd: int) -> Iterator[Finding]:
    if not systemd:
        return
    said = [(_KEYS[listener.kind], listener.origin) for listener in spec.listeners]
    said += [(name, setting.origin) for name, setting in spec.settings.items()]
    for name, origin in said:
        since = d.TABLE[name].since
        if since > systemd:
            message = f"{name}= is new in systemd {since}; systemd {systemd} ignores the line"
            yield Finding(Severity.WARNING, origin, message)
