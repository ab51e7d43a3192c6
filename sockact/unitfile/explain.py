"""What one row of the directive table means, in words for a person. Pure."""

from sockact.directives import FILE_DESCRIPTOR_NAME
from sockact.spec import Directive, Moment, Value
from sockact.unitfile.values import LISTS, write

_NUMBERS = frozenset({
    Value.UNSIGNED, Value.INTEGER, Value.LONG, Value.SIZE, Value.SPAN, Value.TOS
})  # fmt: skip
_BY_HAND = frozenset({Moment.MANAGER, Moment.NEVER})
_NOT_OPENED = _BY_HAND | {Moment.LISTENER}


def default_text(row: Directive[object]) -> str:
    """Return what holds where the directive is not set."""
    if row.default is None:
        return "depends on Accept="
    if row.name == FILE_DESCRIPTOR_NAME.name:
        return "the unit's full name"
    if row.default in ("", ()):
        return "not set"
    if row.value in _NUMBERS and row.moment not in _BY_HAND and row.default in (0, -1):
        return "the kernel's"
    return write(row.value, row.default)


def _empty_text(row: Directive[object]) -> str:
    if row.moment is Moment.LISTENER:
        return "drops every listener that was set before"
    if row.value in LISTS:
        return "drops every value that was set before"
    return "brings back the default" if row.resets else "is ignored with a warning"


def _failure_text(row: Directive[object]) -> str:
    if row.without_manager or row.moment is Moment.EXPORT:
        return ""
    return "the listener is not opened" if row.fatal else "a warning; the listener is used without"


def facts(row: Directive[object]) -> dict[str, str]:
    """Return what there is to know of a directive, label to text, in the order to show it."""
    found = {
        "summary": row.summary,
        "value": row.value.value,
        "default": "" if row.moment is Moment.LISTENER else default_text(row),
        "acts": "" if row.moment is Moment.LISTENER else row.moment.value,
        "call": row.call,
        "applies to": "" if row.moment in _NOT_OPENED else row.applies,
        "if it fails": _failure_text(row),
        "under exec": f"no effect: {row.without_manager}" if row.without_manager else "",
        "empty value": _empty_text(row),
        "specifiers": "are expanded" if row.specifiers else "",
        "since": f"systemd {row.since}" if row.since else "",
        "section": "" if row.section == "Socket" else f"[{row.section}]",
    }
    return {label: text for label, text in found.items() if text}
