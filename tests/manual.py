"""The directives in sockact.socket(5) and sockact.service(5) as their tables have them, and more.

``python -m tests.manual`` writes them into the pages; a test finds out whether they stand there.
"""

from itertools import groupby
from pathlib import Path

from sockact import service_directives
from sockact.directives import TABLE
from sockact.spec import Directive, Moment
from sockact.unitfile.check_service import service_facts
from sockact.unitfile.explain import facts
from tests import manual_rendezvous, manual_run

PAGE = Path(__file__).resolve().parent.parent / "man" / "sockact.socket.5"
SERVICE = PAGE.with_name("sockact.service.5")
RENDEZVOUS = PAGE.with_name("sockact-rendezvous.7")
RUN = PAGE.with_name("sockact-run.1")
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
# The first directive below each heading.
_SERVICE_HEADINGS = {
    "Type": "Starting and stopping",
    "Restart": "Restarting",
    "KillMode": "Signals",
    "NotifyAccess": "What the program tells",
    "Sockets": "What the program gets",
    "User": "Rights and limits",
    "Description": "The unit",
    "X-Ready": "Beyond systemd",
}


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace(". ", ".\n")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _row(row: Directive[object], known: dict[str, str], usual_section: str = "") -> str:
    lines = [f".It Cm {row.name} Ns =", _roff(known["summary"])]
    if known.get("section", usual_section) != usual_section:
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
        parts += [_row(row, facts(row)) for row in rows]
        parts.append(".El\n")
    return "".join(parts)


def render_service() -> str:
    """Return the directives of services as mdoc."""
    parts: list[str] = []
    for row in service_directives.TABLE.values():
        if heading := _SERVICE_HEADINGS.get(row.name):
            parts.append(f"{'.El' if parts else ''}\n.Ss {heading}\n.Bl -tag -width Ds\n".lstrip())
        parts.append(_row(row, service_facts(row), "[Service]"))
    return "".join([*parts, ".El\n"])


def begin(block: str) -> str:
    """Return the line in front of a part of sockact-rendezvous(7) or sockact-run(1)."""
    return f'.\\" Written by python -m tests.manual: {block}\n'


def _write(page: Path, begin_line: str, text: str) -> None:
    before, found, rest = page.read_text(encoding="utf-8").partition(begin_line)
    _, ended, after = rest.partition(END)
    assert found and ended, f"{page.name} lacks: {begin_line}"  # noqa: PT018
    page.write_text(before + begin_line + text + END + after, encoding="utf-8")


def main() -> None:
    """Write the parts into the manual pages."""
    _write(PAGE, BEGIN, render())
    _write(SERVICE, BEGIN, render_service())
    for page, blocks in ((RENDEZVOUS, manual_rendezvous.BLOCKS), (RUN, manual_run.BLOCKS)):
        for block, text in blocks.items():
            _write(page, begin(block), text())


if __name__ == "__main__":
    main()
