"""The list of differences, differences.toml, and what is to be said of each."""

import fnmatch
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import attrs

from tests.helpers import ROOT

SECTIONS = {
    "sockact.socket.5": "DIFFERENCES FROM SYSTEMD",
    "sockact.service.5": "DIFFERENCES FROM SYSTEMD",
    "sockact-run.1": "CAVEATS",
}
"""The pages that list differences, and where in them."""


@attrs.frozen
class Difference:
    """One that is meant to be.

    Attributes:
        units: Patterns of what differs.
        fields: Patterns of where.
        manual: The tag under which the manual tells of it.
        reason: Why.
        page: The page of the manual.
        by: The command that differs; empty if all do.
    """

    units: list[str]
    fields: list[str]
    manual: str
    reason: str
    page: str = "sockact.socket.5"
    by: str = ""

    def concerns(self, unit: str, by: str) -> bool:
        """Whether it is one of a unit under a command."""
        return self.by in ("", by) and _matches(unit, self.units)

    def __str__(self) -> str:
        return f"{self.units[0]}-{self.fields[0]}"

    def is_in_the_manual(self) -> bool:
        """Whether users are told of it."""
        manual = (ROOT / "man" / self.page).read_text(encoding="utf-8")
        section = manual.partition(f".Sh {SECTIONS[self.page]}\n")[2].partition(".Sh ")[0]
        return f".It {self.manual}\n" in section and bool(self.reason)


def load(kind: str) -> list[Difference]:
    """Return the differences of one kind, in the order of the file."""
    text = Path(__file__).with_name("differences.toml").read_text(encoding="utf-8")
    return [Difference(**entry) for entry in tomllib.loads(text)[kind]]


def _matches(text: str, patterns: Collection[str]) -> bool:
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns)


def allowed(
    differences: Collection[Difference], unit: str, by: str, fields: Collection[str]
) -> Iterator[tuple[Difference, str]]:
    """Give which of the fields that differ may do so, and by which of the differences."""
    for one in differences:
        if one.concerns(unit, by):
            yield from ((one, field) for field in fields if _matches(field, one.fields))


def unused(one: Difference, by: str, found: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Give what a difference names and what does not differ.

    Args:
        one: The difference.
        by: The command.
        found: The fields that differ, for every unit.
    """
    seen: set[str] = set()
    for pattern in one.units:
        matching = [unit for unit in found if fnmatch.fnmatchcase(unit, pattern)]
        if not matching:
            yield f"there is no {pattern}"
        for unit in matching:
            fields = {field for _, field in allowed([one], unit, by, found[unit])}
            if not fields and pattern != "*":
                yield f"{unit} does not differ"
            seen |= fields
    for pattern in one.fields:
        if not fnmatch.filter(seen, pattern):
            yield f"{pattern} differs nowhere"
