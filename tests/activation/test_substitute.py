"""sockact.activation.substitute."""

import pytest

from sockact.activation.substitute import Given, has_fields, substitute
from sockact.errors import SubstitutionError

WEB = Given("web", 3, "127.0.0.1:8080", 8080)
ADMIN = Given("admin", 4, "/run/admin.sock", 0)
MORE = Given("web", 5, "[::1]:8080", 8080)
FIFO = Given("fifo", 6, "", 0)


@pytest.mark.parametrize(
    ("word", "given", "expected"),
    [
        ("--fd={fd:web}", [WEB, ADMIN], "--fd=3"),
        ("{address:web} {port:web}", [WEB], "127.0.0.1:8080 8080"),
        ("{port:web}", [WEB, WEB], "8080"),
        ("{address:admin}", [WEB, ADMIN], "/run/admin.sock"),
        ("{fd}", [WEB], "3"),
        ("{fd:web:1},{fd:web:0}", [WEB, ADMIN, MORE], "5,3"),
        ("{{fd:web}", [WEB], "{fd:web}"),
        ("{{fd}} {fds} {} {fd:} {x:web}", [Given("", 9, "", 0)], "{fd}} {fds} {} 9 {x:web}"),
        ("plain", [], "plain"),
        ("$(awk '{print}')", [], "$(awk '{print}')"),
    ],
)
def test_substitute(word: str, given: list[Given], expected: str) -> None:
    """Fields become numbers and addresses; everything else stays as it is."""
    assert substitute([word], given) == [expected]


@pytest.mark.parametrize(
    ("word", "given", "message"),
    [
        ("{fd:wbe}", [WEB, ADMIN], "{fd:wbe}: no such socket; there are: web, admin"),
        ("{fd}", [], "{fd}: no such socket; there are: none"),
        ("{fd}", [WEB, ADMIN], "2 sockets match; write {fd:NAME}"),
        ("{fd:web}", [WEB, MORE], "2 sockets match; write {fd:web:0}"),
        ("{fd:web:2}", [WEB, MORE], "no such socket"),
        ("{port:admin}", [ADMIN], "/run/admin.sock has no port"),
        ("{address:fifo}", [FIFO], "fifo has no address"),
    ],
)
def test_errors(word: str, given: list[Given], message: str) -> None:
    """A field that fits nothing, or several, says what there is."""
    with pytest.raises(SubstitutionError) as caught:
        substitute(["program", word], given)
    assert message in str(caught.value)


def test_has_fields() -> None:
    """A command without fields need not be looked at."""
    assert has_fields(["x", "a{port:b}"])
    assert not has_fields(["x", "{}", "{fdx}"])
