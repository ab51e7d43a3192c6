"""What a service unit says, and what there is to say of it and of its directives. Pure."""

from sockact.service_directives import TABLE
from sockact.spec import Directive, Origin, ServiceSpec, Value
from sockact.unitfile.check import Finding, Line, Severity
from sockact.unitfile.service import DERIVED
from sockact.unitfile.service_values import WORD_READERS, write_value
from sockact.unitfile.values import LISTS


def service_findings(spec: ServiceSpec, *, systemd: int = 0) -> list[Finding]:
    """Return what there is to say of a service unit that loads, in the order of its lines.

    Args:
        spec: The definition.
        systemd: The version that the unit must work with; 0 for the newest.
    """
    found = [Finding(Severity.WARNING, one.origin, one.message) for one in spec.diagnostics]
    for name, setting in spec.settings.items():
        since = TABLE[name].since
        if systemd and since > systemd and setting.origin != DERIVED:
            message = f"{name}= is new in systemd {since}; systemd {systemd} ignores the line"
            found.append(Finding(Severity.WARNING, setting.origin, message))
    return sorted(found, key=lambda one: (one.origin.source != spec.path, one.origin.source,
                                          one.origin.line, one.origin.column))  # fmt: skip


def _line(row: Directive[object], value: object, origin: Origin) -> Line:
    return Line(row.name, write_value(row.value, value), None if origin == DERIVED else origin)


def service_lines(spec: ServiceSpec, *, defaults: bool) -> list[Line]:
    """Return what `spec` says, in the order of the table.

    Args:
        spec: The definition.
        defaults: Whether directives that were not set are among it.
    """
    found: list[Line] = []
    for name, row in TABLE.items():
        setting = spec.settings.get(name)
        if setting is None or setting.origin == DERIVED:
            if defaults:
                value = setting.value if setting else row.default
                literal = value not in (None, "", (), frozenset())
                text = write_value(row.value, value) if literal else f"({default_text(row)})"
                found.append(Line(name, text, None))
        elif isinstance(setting.value, frozenset):
            text = " ".join(write_value(row.value, item) for item in sorted(setting.value))
            found.append(Line(name, text, setting.origin))
        elif isinstance(setting.value, tuple) and row.value is not Value.LIMIT:
            places = setting.origins or (setting.origin,) * len(setting.value)
            found += [
                _line(row, item, place) for item, place in zip(setting.value, places, strict=True)
            ]
        else:
            found.append(_line(row, setting.value, setting.origin))
    return found


_DEFAULTS = {
    "Type": "simple; oneshot without ExecStart=",
    "TimeoutStartSec": "90s; infinity with Type=oneshot",
    "TimeoutAbortSec": "as TimeoutStopSec=",
    "RestartKillSignal": "as KillSignal=",
    "NotifyAccess": "none; main with Type=notify, WatchdogSec= or FileDescriptorStoreMax=",
    "WorkingDirectory": "that of sockact",
    "Nice": "as sockact",
    "OOMScoreAdjust": "as sockact",
    "User": "as sockact",
    "Group": "that of the user",
    "Description": "the name of the unit",
    "X-Ready": "as Type= says",
}


def default_text(row: Directive[object]) -> str:
    """Return what holds where the directive is not set."""
    if row.name in _DEFAULTS:
        return _DEFAULTS[row.name]
    if row.value is Value.LIMIT:
        return "as sockact"
    if row.default in ("", (), frozenset()):
        return "not set"
    return write_value(row.value, row.default)


def _empty_text(row: Directive[object]) -> str:
    if not row.resets:
        return "is nothing" if row.value in WORD_READERS else "is ignored with a warning"
    lists = LISTS | set(WORD_READERS) | {Value.FILES, Value.OPEN_FILE}
    return "drops what was set before" if row.value in lists else "brings back the default"


def service_facts(row: Directive[object]) -> dict[str, str]:
    """Return what there is to know of a directive, label to text, in the order to show it."""
    found = {
        "summary": row.summary,
        "value": row.value.value,
        "default": default_text(row),
        "call": row.call,
        "empty value": _empty_text(row),
        "specifiers": "are expanded" if row.specifiers else "",
        "since": f"systemd {row.since}" if row.since else "",
        "section": f"[{row.section}]",
    }
    return {label: text for label, text in found.items() if text}
