"""sockact.unitfile.specifiers."""

import pytest

from sockact.unitfile.specifiers import expand, unescape, unit_specifiers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("%i-%i", "I-I"),
        ("100%%", "100%"),
        ("%%i", "%i"),
        ("a%", "a%"),
        ("%-x", "%-x"),
        ("% i", "% i"),
        ("%é", "%é"),
    ],
)
def test_expand(text: str, expected: str) -> None:
    """Letters are looked up, a doubled sign is one, and before anything else it stands for itself."""
    assert expand(text, {"i": "I"}.get) == expected


@pytest.mark.parametrize("text", ["%z", "%0", "%i%z"])
def test_unknown(text: str) -> None:
    """A letter or digit that means nothing is an error that names it."""
    with pytest.raises(ValueError, match="unknown specifier %"):
        expand(text, {"i": "I"}.get)


def test_limit() -> None:
    """What grows too long is refused."""
    with pytest.raises(ValueError, match="over 10 bytes"):
        expand("%i%i", {"i": "é" * 3}.get, 10)


def test_of_an_instance() -> None:
    """An instance's name gives prefix, instance and their parts, escaped and not."""
    found = unit_specifiers(r"my-web\x2dapp@srv-www\x20x.socket")
    assert found == {
        "n": r"my-web\x2dapp@srv-www\x20x.socket",
        "N": r"my-web\x2dapp@srv-www\x20x",
        "p": r"my-web\x2dapp",
        "P": "my/web-app",
        "i": r"srv-www\x20x",
        "I": "srv/www x",
        "j": r"web\x2dapp",
        "J": "web-app",
        "f": "/srv/www x",
    }


def test_of_a_plain_unit() -> None:
    """Without an instance, %i is empty and %f comes from the prefix."""
    found = unit_specifiers("run-app.socket")
    assert (found["i"], found["I"], found["f"], found["j"]) == ("", "", "/run/app", "app")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("-", "/"), (r"\x2d", "-"), (r"\xzz", r"\xzz"), (r"a\x", r"a\x"), ("é", "é")],
)
def test_unescape(text: str, expected: str) -> None:
    """Dashes are slashes, and only whole escapes are escapes."""
    assert unescape(text) == expected
