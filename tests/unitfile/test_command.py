"""sockact.unitfile.command: command lines, as systemd splits and expands them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockact.spec import Origin
from sockact.unitfile.command import Command, parse_commands
from sockact.unitfile.values import RefusedError

RESOLVE = {"i": "x y", "n": "web.service"}.get

# Each line, and the path and arguments of each command in it.
GOOD: dict[str, list[tuple[str, list[str]]]] = {
    "/bin/true": [("/bin/true", ["/bin/true"])],
    "true": [("true", ["true"])],
    "/bin/true x": [("/bin/true", ["/bin/true", "x"])],
    "/bin//a/./b x": [("/bin/a/b", ["/bin//a/./b", "x"])],
    "/bin/../a": [("/bin/../a", ["/bin/../a"])],
    '"/bin/a b" c': [("/bin/a b", ["/bin/a b", "c"])],
    "a 'b c' d\"e f\"g": [("a", ["a", "b c", "de fg"])],
    "a '' \"\"": [("a", ["a", "", ""])],
    "a \\x41\\102\\u00e9\\s\\t\\\\": [("a", ["a", "AB\xe9 \t\\"])],
    "a 'b\\'c'": [("a", ["a", "b'c"])],
    "a %i '%n' %% % 5%": [("a", ["a", "x y", "web.service", "%", "%", "5%"])],
    "/bin/%n": [("/bin/web.service", ["/bin/web.service"])],
    "@/bin/a name x": [("/bin/a", ["name", "x"])],
    "@/bin/a ''": [("/bin/a", [""])],
    "a ; b": [("a", ["a"]), ("b", ["b"])],
    "a x ; b y ;": [("a", ["a", "x"]), ("b", ["b", "y"])],
    "; a ; ; b": [("a", ["a"]), ("b", ["b"])],
    "a \\; b": [("a", ["a", ";", "b"])],
    "a \";\" ';' ;; x;y b\\;": [("a", ["a", ";", ";", ";;", "x;y", "b\\;"])],
    "  a\tb  ": [("a", ["a", "b"])],
    "| echo hi > x": [("/bin/sh", ["sh", "echo", "hi", ">", "x"])],
    "|echo hi": [("/bin/sh", ["sh", "echo", "hi"])],
    "@|echo": [("/bin/sh", ["-sh", "echo"])],
    "|": [("/bin/sh", ["sh"])],
}

# Lines that refuse the unit.
REFUSED = [
    "@", "@/bin/a", "+", ":", "''", "rel/path", "/bin/", ".", "..", "@a/b c", "x" * 256,
    '/bin/a "x', "/bin/a 'x", "a b'c", "a %z", "/bin/%z", "+!/bin/a", '"/bin/a\'b"',
    "/bin/a\\\\b", "/bin/a\\tb", "a ; @b", "/" + "x/" * 3000 + "x",
]  # fmt: skip

# Lines, or the rest of lines, that are ignored; the commands that stay.
IGNORED = {
    "": 0, "-": 0, "-@": 0, "- a": 0, "--/bin/true": 0, "-rel/path": 0, "-/bin/": 0, '-/bin/a "x': 0, "-a %z": 0, "-@/bin/a": 0,
    '"/bin/true': 0, "a ; -b/c": 1, "a ; -": 1, "-b/c ; a": 0, "a ; b ; 'c": 2,
}  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_good(text: str) -> None:
    """Each line is these programs with these arguments."""
    said: list[str] = []
    found = parse_commands(text, resolve=RESOLVE, warn=said.append)
    assert [(one.path, list(one.argv)) for one in found] == GOOD[text]
    assert bool(said) == ("b\\;" in text)  # an escape that there is not


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text: str) -> None:
    """A command that is wrong refuses the unit, in one short line."""
    with pytest.raises(RefusedError, match=r"\S") as caught:
        parse_commands(text, resolve=RESOLVE)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", IGNORED)
def test_ignored(text: str) -> None:
    """With - it is ignored with a warning, and so is the rest of its line."""
    said: list[str] = []
    assert len(parse_commands(text, resolve=RESOLVE, warn=said.append)) == IGNORED[text]
    assert len(said) == 1


@pytest.mark.parametrize(
    ("text", "ignore", "expand", "privileges", "shell"),
    [
        ("a", False, True, "", False),
        ("-a", True, True, "", False),
        (":a", False, False, "", False),
        ("+a", False, True, "+", False),
        ("!a", False, True, "!", False),
        ("!!a", False, True, "", False),
        ("|a", False, True, "", True),
        ("-:+|a", True, False, "+", True),
        ("!:-a", True, False, "!", False),
        ("@-:!a b", True, False, "!", False),
        ('"-a"', True, True, "", False),
    ],
)
def test_prefixes(text: str, ignore: bool, expand: bool, privileges: str, shell: bool) -> None:
    """Prefixes stand in any order, each once, with nothing between."""
    (found,) = parse_commands(text)
    assert (found.ignore_failure, found.expand) == (ignore, expand)
    assert (found.privileges, found.shell) == (privileges, shell)


def test_unknown_escapes() -> None:
    """An unknown escape stays as it is, with a warning; those beside it are read."""
    said: list[str] = []
    (found,) = parse_commands(r"/bin/echo a\qb\tc \x0g", warn=said.append)
    assert found.argv == ("/bin/echo", "a\\qb\tc", "\\x0g")
    assert len(said) == 2


def test_place() -> None:
    """A command keeps the place where it stands, which is no part of what it is."""
    (here,), (there,) = (parse_commands("a b", origin=Origin("f", line)) for line in (1, 2))
    assert (str(here.origin), str(there.origin)) == ("f:1", "f:2")
    assert here == there
    assert hash(here) == hash(there)
    assert here != parse_commands("a c")[0]


ENVIRON = {
    "A": "one", "B": "two words  'and quotes'", "E": "", "T": "  \t ", "Q": '"open', "X": "a\\ b\\",
}  # fmt: skip


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("x", ["x"]),
        ("$A", ["one"]),
        ("$B", ["two", "words", "and quotes"]),
        ("$E", []),
        ("$T", []),
        ("$NO", []),
        ("$Q", ["open"]),
        ("$X", ["a b"]),
        ("${A}", ["one"]),
        ("${B}", ["two words  'and quotes'"]),
        ("${E}", [""]),
        ("${NO}", [""]),
        ("x${A}y${A}", ["xoneyone"]),
        ("x$A", ["x$A"]),
        ("$A/b", []),
        ("$$", ["$"]),
        ("$$A", ["$A"]),
        ("$${A}", ["${A}"]),
        ("$$$A", ["$$A"]),
        ("$", []),
        ("x$", ["x$"]),
        ("${A", ["${A"]),
        ("${}", [""]),
        ("${A:-b}", [""]),
        ("$$${A}", ["$one"]),
        ("{A}", ["{A}"]),
    ],
)
def test_variables(word: str, expected: list[str]) -> None:
    """$NAME is split, ${NAME} is not, $$ is a dollar; what is not set is nothing."""
    command = Command("/bin/a", ("/bin/a", word))
    assert command.arguments(ENVIRON) == ["/bin/a", *expected]


def test_no_variables() -> None:
    """With a colon in front nothing is replaced."""
    (command,) = parse_commands(":a $A ${A} $$")
    assert command.arguments(ENVIRON) == ["a", "$A", "${A}", "$$"]


def test_shell() -> None:
    """A shell gets the words as one line, after variables."""
    (command,) = parse_commands("|echo $A > ${B} '&&' ls")
    assert command.arguments(ENVIRON) == ["sh", "-c", "echo one > two words  'and quotes' && ls"]
    assert parse_commands("@|")[0].arguments(ENVIRON) == ["-sh"]


_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
_PATHS = st.lists(st.text("abc-.% ;$", min_size=1, max_size=5), min_size=1, max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)


@given(
    _PATHS.filter(lambda path: "/." not in path),
    st.lists(_WORDS, max_size=4),
    st.tuples(st.booleans(), st.booleans(), st.sampled_from(["", "+", "!"])),
    st.one_of(st.none(), _WORDS),
)
def test_written_and_read(
    path: str, words: list[str], prefixes: tuple[bool, bool, str], name: str | None
) -> None:
    """A command is written so that it reads back."""
    argv = (path if name is None else name, *words)
    command = Command(path, argv, *prefixes)
    text = str(command)
    assert "\n" not in text
    assert parse_commands(text.replace("%", "%%")) == (command,)


@given(st.lists(_WORDS, max_size=4), st.booleans())
def test_shells_are_written_and_read(words: list[str], login: bool) -> None:
    """And so is one for a shell."""
    first = [word for word in words[:1] if word and word[0] not in "-@:+!|"]
    command = Command("/bin/sh", ("-sh" if login else "sh", *first, *words[1:]), shell=True)
    if len(command.argv) > 1 and (not command.argv[1] or command.argv[1][0] in "-@:+!|"):
        return
    assert parse_commands(str(command).replace("%", "%%")) == (command,)


@given(st.text(max_size=60))
def test_any_text_is_commands_or_refused(text: str) -> None:
    """No text makes it fail in any other way, and what it reads it writes."""
    try:
        found = parse_commands(text, resolve=RESOLVE)
    except RefusedError:
        return
    for command in found:
        command.arguments(ENVIRON)
        assert str(command)
