"""The command lines of ``Exec*=``: text to commands, and a command to the arguments of execve().

A line is read in two steps, as systemd does: quotes, escapes, specifiers and ``;`` when the unit is
loaded, variables when the command is run. There is nothing of a shell in it.

Source: systemd.service(5), "Command lines"; ``config_parse_exec()`` in systemd's
src/core/load-fragment.c and ``replace_env_argv()`` in src/basic/env-util.c.
"""

import re
from collections.abc import Callable, Mapping

import attrs

from sockact.spec import AsValue, Origin
from sockact.unitfile.specifiers import expand as expand_specifiers
from sockact.unitfile.values import (
    RefusedError,
    next_word,
    quote_escaped,
    simplify_path,
    words,
)

_PATH_MAX = 4095
_NOWHERE = Origin("")


@attrs.frozen(eq=False, repr=False)
class Command(AsValue):
    """A program and its arguments.

    Attributes:
        path: What to execute: an absolute path, or a name without slashes to look up.
        argv: The arguments, the name of the program first; variables are not yet replaced.
        ignore_failure: Whether a failure does not count (``-``).
        expand: Whether variables are replaced in the arguments (no ``:``).
        privileges: ``+`` to run it with all rights, ``!`` to leave only the user as it is, or
            empty.
        shell: Whether a shell runs it (``|``), which is `path`, as a login shell with ``@``.
        origin: Where it stands.
    """

    path: str
    argv: tuple[str, ...]
    ignore_failure: bool = False
    expand: bool = True
    privileges: str = ""
    shell: bool = False
    origin: Origin = _NOWHERE

    def arguments(self, environ: Mapping[str, str]) -> list[str]:
        """Return the arguments for execve(), with the variables of `environ` in them.

        A word ``$NAME`` becomes the words of the value, none if it is not set; ``${NAME}`` anywhere
        becomes the value as it is; ``$$`` becomes ``$``; any other ``$`` stays. A shell gets the
        words as one line behind ``-c``.
        """
        found = list(self.argv)
        if self.expand:
            found = [part for word in self.argv for part in _expanded(word, environ)]
        if self.shell and len(found) > 1:
            return [found[0], "-c", " ".join(found[1:])]
        return found

    def _values(self) -> tuple[object, ...]:
        # A command that stands on another line is still the same.
        return super()._values()[:-1]

    def __str__(self) -> str:
        """Write it so that `parse_commands` reads it back, but for specifiers."""
        named = self.argv[0] == "-sh" if self.shell else self.argv[0] != self.path
        marks = "".join(
            (
                "-" * self.ignore_failure,
                "@" * named,
                ":" * (not self.expand),
                self.privileges,
                "|" * self.shell,
            )
        )
        first, *rest = (
            self.argv[1:] or ("",) if self.shell else (self.path, *self.argv[not named :])
        )
        found = [quote_escaped(marks + first)]
        found += ["\\;" if word == ";" else quote_escaped(word) for word in rest]
        return " ".join(found)


def _expanded(word: str, environ: Mapping[str, str]) -> list[str]:
    if word.startswith("$") and word[1:2] not in ("{", "$"):
        return _split(environ.get(word[1:], ""))
    return [_replace(word, environ)]


_VARIABLE = r"\$(?:\$|\{([^}]*)(\}|\Z))"


def _replace(word: str, environ: Mapping[str, str]) -> str:
    def meaning(match: re.Match[str]) -> str:
        name, end = match[1], match[2]
        if name is None:
            return "$"
        return environ.get(name, "") if end else match[0]

    return re.compile(_VARIABLE).sub(meaning, word) if "$" in word else word


def _split(value: str) -> list[str]:
    """Split a variable's value at blanks, without its quotes; an open quote ends with the value."""
    return words(value, escapes=False, relaxed=True)


# --- reading --------------------------------------------------------------------------------------

Resolve = Callable[[str], str | None]
"""The meaning of a specifier's letter, or None."""


class _Refusal(Exception):  # noqa: N818 - no error yet: what it is depends on the prefixes
    """What is wrong with one command."""


def parse_commands(
    text: str,
    *,
    resolve: Resolve = lambda _letter: None,
    origin: Origin = _NOWHERE,
    warn: Callable[[str], None] = lambda _message: None,
) -> tuple[Command, ...]:
    """Read the value of an Exec directive: one command, or several with ``;`` between.

    Args:
        text: The value, not empty.
        resolve: The meaning of specifiers.
        origin: Where it stands.
        warn: Called with what is ignored: unknown escapes, and a command with ``-`` that is wrong.

    Raises:
        RefusedError: A command without ``-`` is wrong, which refuses the unit.
    """
    found: list[Command] = []
    position: int | None = 0
    while position is not None:
        try:
            step = _next(text, position, warn)
        except ValueError as error:
            warn(f"{error}; the rest of the line is ignored")
            break
        if step is None:
            if not found:
                warn("no program to run; ignored")
            break
        word, position = step
        if word == ";":
            continue
        reading = _Reading(text, position, resolve, warn)
        try:
            found.append(reading.command(word, origin))
        except _Refusal as error:
            if not reading.ignore_failure:
                raise RefusedError(str(error)) from None
            warn(f"{error}; this command is ignored")
            break
        position = reading.more
    return tuple(found)


def _next(text: str, position: int, warn: Callable[[str], None]) -> tuple[str, int] | None:
    try:
        return next_word(text, position, escapes=True)
    except ValueError as error:
        step = next_word(text, position, escapes=True, verbatim=True)
        warn(f"{error}; taken as it is")
        return step


class _Reading:
    """One command of a line, from behind its first word.

    Attributes:
        ignore_failure: Whether there is a ``-`` in front of it.
        more: Where the next command begins, or None.
    """

    def __init__(
        self, text: str, position: int, resolve: Resolve, warn: Callable[[str], None]
    ) -> None:
        self._text = text
        self._position = position
        self._resolve = resolve
        self._warn = warn
        self.ignore_failure = False
        self.more: int | None = None

    def command(self, word: str, origin: Origin) -> Command:
        prefixes, program = _prefixes(word)
        self.ignore_failure = "-" in prefixes
        argv: list[str] = []
        if "|" in prefixes:
            path = "/bin/sh"
            argv.append("-sh" if "@" in prefixes else "sh")
            if program:
                argv.append(self._expand(program))
        else:
            program = self._expand(program, _PATH_MAX)
            path = _program(program)
            if "@" not in prefixes:
                argv.append(program)
        argv += self._arguments()
        if not argv:
            raise _Refusal("a name for the program is missing behind @")
        return Command(
            path,
            tuple(argv),
            self.ignore_failure,
            ":" not in prefixes,
            "+" if "+" in prefixes else "!" if "!" in prefixes else "",
            "|" in prefixes,
            origin,
        )

    def _expand(self, word: str, limit: int = 1024 * 1024) -> str:
        try:
            return expand_specifiers(word, self._resolve, limit)
        except ValueError as error:
            raise _Refusal(str(error)) from None

    def _arguments(self) -> list[str]:
        found: list[str] = []
        while True:
            # Only an unquoted one, which next_word() cannot tell from others.
            if match := re.compile(_SEMICOLON).match(self._text, self._position):
                self._position = match.end()
                if not match[1]:
                    self.more = self._position
                    return found
                found.append(";")
                continue
            try:
                step = _next(self._text, self._position, self._warn)
            except ValueError as error:
                raise _Refusal(str(error)) from None
            if step is None:
                return found
            word, self._position = step
            found.append(self._expand(word))


_SEMICOLON = r"[ \t\n\r]*(\\?);(?=[ \t\n\r]|\Z)"


def _prefixes(word: str) -> tuple[set[str], str]:
    """Return the prefixes of a command's first word, and what is behind them."""
    found: set[str] = set()
    while word and word[0] in "-@:+!|" and word[0] not in found:
        if word[0] in "+!" and found & {"+", "!", "!!"}:
            break  # they exclude each other
        mark = "!!" if word.startswith("!!") else word[0]
        found.add(mark)
        word = word[len(mark) :]
    return found, word


def _program(text: str) -> str:
    if not text:
        raise _Refusal("no program to run")
    if any(ord(char) < 0x20 or ord(char) == 0x7F or char in "\"'\\" for char in text):
        raise _Refusal(f"{text[:80]!r} has characters in it that no program's name may have")
    if text.endswith("/"):
        raise _Refusal(f"{text[:80]!r} is a directory")
    if not text.startswith("/"):
        if "/" in text or text in (".", "..") or len(text.encode("utf-8", "surrogateescape")) > 255:
            raise _Refusal(f"{text[:80]!r} is neither a name nor an absolute path")
        return text
    if len(text.encode("utf-8", "surrogateescape")) > _PATH_MAX:
        raise _Refusal(f"{text[:80]!r} is too long for a path")
    return simplify_path(text)
