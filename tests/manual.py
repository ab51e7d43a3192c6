"""The directives in sockact.socket(5) as the directive table has them.

``python -m tests.manual`` writes them into the page; a test finds out whether they stand there.
"""

from itertools import groupby
from pathlib import Path

from sockact.directives import TABLE
from sockact.spec import Directive, Moment
from sockact.unitfile.explain import facts

PAGE = Path(__file__).resolve().parent.parent / "man" / "sockact.socket.5"
BEGIN = '.\\" The rest of this section is written by: python -m tests.manual\n'
END = '.\\" End of what is written by: python -m tests.manual\n'

_HEADINGS = {
    Moment.LISTENER: "Listeners",
    Moment.CREATE: "Protocol",
    Moment.BEFORE_BIND: "Before bind",
    Moment.LISTEN: "Listening",
    Moment.NODE: "Files and queues",
    Moment.LATE: "Socket options",
    Moment.EXPORT: "For the program",
    Moment.MANAGER: "For a supervisor",
    Moment.NEVER: "Without effect",
}


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace(". ", ".\n")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _row(row: Directive[object]) -> str:
    known = facts(row)
    lines = [f".It Cm {row.name} Ns =", _roff(known["summary"])]
    if known.get("section"):
        lines.append(_roff(f"A key of {known['section']}."))
    for label, text in known.items():
        if label in {"summary", "section"}:
            continue
        lines += [".br", f".Em {label.capitalize()} :", _roff(text)]
    return "\n".join(lines) + "\n"


def render() -> str:
    """Return the directives as mdoc."""
    parts = []
    for moment, rows in groupby(TABLE.values(), lambda row: row.moment):
        parts.append(f".Ss {_HEADINGS[moment]}\n.Bl -tag -width Ds\n")
        parts += [_row(row) for row in rows]
        parts.append(".El\n")
    return "".join(parts)


def main() -> None:
    """Write the directives into the manual page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + render() + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
