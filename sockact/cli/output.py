"""Lines, tables and JSON for people and programs. Messages go to stderr, results to stdout."""

from collections.abc import Sequence

import click


def printable(text: str) -> str:
    """Return `text` on one line, with control characters and undecodable bytes escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def say(message: str) -> None:
    """Tell a person something."""
    click.echo(f"sockact: {printable(message)}", err=True)


def warn(message: str) -> None:
    """Tell a person that something was left out."""
    say(f"warning: {message}")


def fail(message: str) -> None:
    """Tell a person what is wrong, in one line."""
    say(f"error: {message}")


def _print(text: str) -> None:
    try:
        click.echo(text)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def line(text: str) -> None:
    """Print one line of a result."""
    _print(printable(text))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns; the last is not padded."""
    lines = [head, *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        _print("  ".join(padded).rstrip())


def json(value: object) -> None:
    """Print a value as JSON."""
    import json as _json  # noqa: PLC0415 - only for --json

    _print(_json.dumps(value, indent=2))


def json_line(value: object) -> None:
    """Print a value as one line of JSON."""
    import json as _json  # noqa: PLC0415 - only for --json

    _print(_json.dumps(value))
