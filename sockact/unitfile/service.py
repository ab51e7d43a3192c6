"""Assignments to `ServiceSpec`: the meaning of a service unit.

As with socket units, what systemd does with a fault decides what happens here. What systemd knows
but nobody honours here is a warning, once for each key of a unit.

What follows from several directives, such as the Type= of a unit without one, is set here too, with
`DERIVED` as its place, so that the settings of a spec are what holds.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import attrs

from sockact import service_directives as d
from sockact.directives import nearest
from sockact.errors import DirectiveError
from sockact.service_directives import Stdio
from sockact.spec import INFINITY, Diagnostic, Directive, Origin, ServiceSpec, Setting, Value
from sockact.unitfile import values
from sockact.unitfile.builder import Builder, Surroundings
from sockact.unitfile.grammar import Assignment
from sockact.unitfile.service_values import SERVICE_READERS, WORD_READERS, read_limit
from sockact.unitfile.specifiers import expand

DERIVED = Origin("default")
"""The place of what follows from other directives."""


class _Builder(Builder):
    def __init__(self, name: str, path: str, surroundings: Surroundings) -> None:
        super().__init__(name, path, surroundings)
        self._told: set[tuple[str, str]] = set()

    def assign(self, item: Assignment) -> None:
        if self.is_abandoned(item):
            return
        if item.section == "Service" and item.key == d.BOTH_TIMEOUTS:
            self.set(item, d.TABLE[d.TIMEOUT_START.name])
            # What is wrong with it has been said.
            if self.settings.get(d.TIMEOUT_START.name, _NOT_SET).origin == item.origin:
                self.set(item, d.TABLE[d.TIMEOUT_STOP.name])
            return
        row = d.TABLE.get(d.ALIASES.get((item.section, item.key), item.key))
        if row is None or (
            row.section != item.section and (item.section, item.key) not in d.ALIASES
        ):
            self._foreign(item, row)
        else:
            self.set(item, row)

    def _foreign(self, item: Assignment, row: Directive[object] | None) -> None:
        from sockact.unitfile.foreign_service import service_key  # noqa: PLC0415 - where one is

        if row is not None and item.section != "Install":
            self.warn(item.origin, f"{item.key}= belongs to [{row.section}]; ignored")
        elif (item.section, item.key) not in self._told:
            message, known = service_key(item.section, item.key)
            if message:
                self.warn(item.origin, message)
            if known:
                self._told.add((item.section, item.key))

    def read(self, item: Assignment, row: Directive[object]) -> object:
        if row.value is Value.LIMIT:
            return read_limit(row.name, item.value)
        if row.value in WORD_READERS:
            return self._words(item, row)
        if row.value in (Value.INPUT, Value.OUTPUT):
            return self._stream(item, row)
        if row.value is Value.DIRECTORY:
            try:
                return SERVICE_READERS[row.value](self.expanded(item, row))
            except ValueError as error:
                raise (ValueError if item.value[0] == "-" else values.RefusedError)(
                    str(error)
                ) from None
        if row.value in SERVICE_READERS:
            return SERVICE_READERS[row.value](self.expanded(item, row))
        return super().read(item, row)

    def _stream(self, item: Assignment, row: Directive[object]) -> Stdio:
        stream = SERVICE_READERS[row.value](self.expanded(item, row))
        assert isinstance(stream, Stdio)
        if stream.kind in _STREAMS:
            return stream
        if row.value is Value.INPUT:
            self.warn(item.origin, f"{row.name}={stream.kind} is not done here; it is null")
            return Stdio("null")
        message = f"{row.name}={stream.kind} is not done here; it goes where that of sockact goes"
        self.warn(item.origin, message)
        return Stdio("parent")

    def _words(self, item: Assignment, row: Directive[object]) -> object:
        """Read a list word by word; a wrong one is ignored by itself."""
        split, reader = WORD_READERS[row.value]
        found: list[object] = []
        position = 0
        while True:
            try:
                step = split(item.value, position)
            except ValueError as error:
                self.warn(item.value_origin, f"{row.name}=: {error}; the rest is ignored")
                break
            if step is None:
                break
            word, position = step
            try:
                if row.specifiers:
                    word = expand(word, self.surroundings.resolve)
                found.append(reader(word))
            except ValueError as error:
                if row.value is Value.GROUPS:
                    raise values.RefusedError(str(error)) from None
                self.warn(item.value_origin, f"{row.name}=: {error}; ignored")
        return frozenset(found) if row.value is Value.STATUSES else tuple(found)

    def keep(self, item: Assignment, row: Directive[object], value: object) -> None:
        if row.value is Value.LIMIT:  # a pair, and no list
            self.settings[row.name] = Setting(value, item.origin)
        elif isinstance(value, frozenset):
            old = self.settings.get(row.name)
            if value or old:
                union = value | old.value if old else value  # type: ignore[operator]
                self.settings[row.name] = Setting(union, item.origin)
        else:
            super().keep(item, row, value)

    def key(self, row: Directive[object], one: object, index: int) -> object:
        if row.value is Value.ENVIRONMENT:
            assert isinstance(one, tuple)
            return one[0]
        return one if row.value in _SETS else index

    def build(self) -> ServiceSpec:
        return complete(
            ServiceSpec(
                self.name,
                self.finished(),
                tuple(self.diagnostics),
                self.path,
            )
        )


_NOT_SET = Setting(None, DERIVED)
_SETS = frozenset({Value.NAMES, Value.UNSET, Value.SOCKETS, Value.UNITS})
_STREAMS = frozenset({"inherit", "null", "socket", "fd", "file", "append", "truncate"})


def interpret(
    name: str,
    assignments: Iterable[Assignment],
    surroundings: Surroundings,
    path: str = "",
    diagnostics: Iterable[Diagnostic] = (),
) -> ServiceSpec:
    """Give the assignments of a unit file and its drop-ins, in order, their meaning.

    Args:
        name: The unit's full name.
        assignments: What the files say.
        surroundings: What specifiers take from the machine.
        path: The main file.
        diagnostics: What was ignored before.

    Raises:
        DirectiveError: systemd would refuse the unit, or it cannot be run here.
    """
    builder = _Builder(name, path, surroundings)
    builder.diagnostics.extend(diagnostics)
    try:
        for item in assignments:
            builder.assign(item)
        return builder.build()
    except DirectiveError as error:
        error.diagnostics = tuple(builder.diagnostics)
        raise


# --- what no single directive can tell ------------------------------------------------------------


def complete(spec: ServiceSpec) -> ServiceSpec:
    """Return `spec` with what follows from several directives set, too.

    Raises:
        DirectiveError: systemd would refuse the unit: no program, too many, or directives that
            exclude each other.

    Source: ``service_add_extras()`` and ``service_verify()`` in systemd's src/core/service.c.
    """
    said = {name: setting for name, setting in spec.settings.items() if setting.origin != DERIVED}
    spec = attrs.evolve(spec, settings=MappingProxyType(said))
    found: dict[str, object] = {}
    if d.TYPE.name not in said:
        found[d.TYPE.name] = "simple" if spec.get(d.EXEC_START) else "oneshot"
    kind = found.get(d.TYPE.name) or spec.get(d.TYPE)
    _verify(spec, str(kind))
    if kind == "oneshot" and d.TIMEOUT_START.name not in said:
        found[d.TIMEOUT_START.name] = INFINITY
    if d.TIMEOUT_ABORT.name not in said:
        found[d.TIMEOUT_ABORT.name] = spec.get(d.TIMEOUT_STOP)
    if d.RESTART_KILL_SIGNAL.name not in said:
        found[d.RESTART_KILL_SIGNAL.name] = spec.get(d.KILL_SIGNAL)
    if spec.get(d.NOTIFY_ACCESS) == "none" and (
        kind in ("notify", "notify-reload") or spec.get(d.WATCHDOG) or spec.get(d.FD_STORE_MAX)
    ):
        found[d.NOTIFY_ACCESS.name] = "main"
    found |= _streams(spec)
    spec, more = _mend(spec)
    settings = {**spec.settings, **more}
    for name, value in found.items():
        settings[name] = Setting(value, DERIVED)
    return attrs.evolve(spec, settings=MappingProxyType(settings))


def _streams(spec: ServiceSpec) -> dict[str, object]:
    """Return the outputs that inherit of an input that is none, and so are those of sockact.

    Source: ``service_fix_stdio()``, with the streams of sockact in place of the journal.
    """
    if spec.get(d.STANDARD_INPUT).kind in ("socket", "fd"):
        return {}
    if spec.get(d.STANDARD_OUTPUT).kind != "inherit":
        return {}
    found: dict[str, object] = {d.STANDARD_OUTPUT.name: Stdio("parent")}
    if spec.get(d.STANDARD_ERROR).kind == "inherit":
        found[d.STANDARD_ERROR.name] = Stdio("parent")
    return found


def _mend(spec: ServiceSpec) -> tuple[ServiceSpec, dict[str, Setting]]:
    """Return `spec` with warnings of what contradicts itself, and what holds instead."""
    settings: dict[str, Setting] = {}
    said: list[Diagnostic] = []

    def warn(row: Directive[int], message: str) -> None:
        setting = spec.settings[row.name]
        said.append(Diagnostic(setting.origin, f"{row.name}= {message}"))

    shortest, longest = spec.get(d.RESTART_SEC), spec.get(d.RESTART_MAX_DELAY)
    steps = spec.get(d.RESTART_STEPS)
    if steps and longest == INFINITY:
        warn(d.RESTART_STEPS, "has no effect without RestartMaxDelaySec=")
    if not steps and longest != INFINITY:
        warn(d.RESTART_MAX_DELAY, "has no effect without RestartSteps=")
    if longest < shortest:
        warn(d.RESTART_MAX_DELAY, "is less than RestartSec=, and holds for that, too")
        settings[d.RESTART_SEC.name] = Setting(longest, DERIVED)
    if spec.get(d.RUNTIME_MAX) != INFINITY and spec.get(d.TYPE) == "oneshot":
        warn(d.RUNTIME_MAX, "has no effect with Type=oneshot; TimeoutStartSec= has")
    new = [one for one in said if one not in spec.diagnostics]
    return attrs.evolve(spec, diagnostics=(*spec.diagnostics, *new)), settings


def _verify(spec: ServiceSpec, kind: str) -> None:
    def refuse(row: Directive[object] | None, message: str) -> None:
        setting = spec.settings.get(row.name) if row else None
        place = setting.origin if setting else Origin(spec.path or spec.name)
        raise DirectiveError(message, place.source, place.line, place.column)

    programs = spec.get(d.EXEC_START)
    if kind == "forking":
        refuse(
            d.TABLE[d.TYPE.name],
            "Type=forking is not run here: let the program stay in the foreground, with"
            " Type=notify, exec or simple",
        )
    if kind == "dbus":
        refuse(d.TABLE[d.TYPE.name], "Type=dbus is not run here; use Type=notify, exec or simple")
    if not programs and not spec.get(d.EXEC_STOP):
        refuse(None, "neither ExecStart= nor ExecStop=: there is nothing to run")
    if not programs and kind != "oneshot":
        refuse(d.TABLE[d.TYPE.name], "only a service of Type=oneshot may have no ExecStart=")
    if not programs and not spec.get(d.REMAIN_AFTER_EXIT):
        refuse(None, "without ExecStart= it takes RemainAfterExit=yes")
    if len(programs) > 1 and kind != "oneshot":
        refuse(
            d.TABLE[d.EXEC_START.name],
            f"{len(programs)} programs in ExecStart=, and Type= is not oneshot; an empty"
            " ExecStart= drops those that were set before",
        )
    if kind == "oneshot" and spec.get(d.RESTART) in ("always", "on-success"):
        refuse(
            d.TABLE[d.RESTART.name],
            f"Restart={spec.get(d.RESTART)} excludes Type=oneshot, which would never be done",
        )
    if kind == "oneshot" and spec.get(d.X_INSTANCES) > 1:
        refuse(d.TABLE[d.X_INSTANCES.name], "X-Instances= excludes Type=oneshot")


# --- what is said elsewhere -----------------------------------------------------------------------


def read_setting(name: str, text: str, origin: Origin) -> tuple[Directive[object], Setting]:
    """Read ``Name=text`` as said outside a unit file, without specifiers.

    Raises:
        ValueError: There is no such directive, or its value is wrong.
    """
    row = d.TABLE.get(name)
    if row is None:
        near = nearest(name, d.TABLE)
        raise ValueError(f"unknown directive {name}" + (f"; did you mean {near}?" if near else ""))
    builder = _Builder("", "", Surroundings(_no_specifier))
    item = Assignment(row.section, name, text.replace("%", "%%") if row.specifiers else text,
                      origin, origin)  # fmt: skip
    builder.set(item, row)
    if builder.diagnostics:
        raise ValueError(builder.diagnostics[0].message.removesuffix("; this line is ignored"))
    return row, builder.finished().get(row.name, Setting(row.default, origin))


def _no_specifier(_letter: str) -> None:
    return None


def override(spec: ServiceSpec, changes: Mapping[str, Setting]) -> ServiceSpec:
    """Return `spec` as if `changes` stood at its end.

    Raises:
        DirectiveError: The combination is refused.
    """
    settings = MappingProxyType({**spec.settings, **changes})
    return complete(attrs.evolve(spec, settings=settings))
