"""What the commands have in common that tell a running ``sockact run`` what to do."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

import sockact
from sockact.cli import exits, output, rendezvous
from sockact.errors import OwnerNotFoundError, RendezvousError
from sockact.supervise.where import paths

_C = TypeVar("_C", bound=Callable[..., object])
_SUFFIXES = (".service", ".socket")


def options(command: _C) -> _C:
    """Add the arguments PATH and UNIT, and the options of a rendezvous, to a command."""
    words = click.argument("words", nargs=-1, metavar="[PATH] [UNIT]...")
    return words(rendezvous.options(command))


def split(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the path, if there is one, and the names of units."""
    if words and ("/" in words[0] or not words[0].endswith(_SUFFIXES)):
        return words[0], list(words[1:])
    return None, list(words)


def ask(
    path: str,
    command: str,
    units: Sequence[str],
    given: Mapping[str, Any],
    **more: object,
) -> dict[str, object]:
    """Have the supervisor at a path carry out a command; end with its status if it cannot.

    Raises:
        RendezvousError: Nobody answers there, or may not.
    """
    answer = sockact.control(
        path,
        command,
        {"units": list(units), **more},
        timeout=given["timeout"],
        trusted=rendezvous.uids(given["owners"]),
    )
    if (error := answer.get("error")) is not None:
        output.fail(str(error))
        status = answer.get("status")
        click.get_current_context().exit(status if isinstance(status, int) else exits.FAILURE)
    return answer


def only(path: str | None, given: Mapping[str, Any]) -> str:
    """Return the path, or that of the only supervisor of this user.

    Raises:
        UsageError: There are several.
        OwnerNotFoundError: There is none.
    """
    if path is not None:
        return path
    found = [one for one, _ in reports((), given)]
    if not found:
        raise OwnerNotFoundError("no sockact run of this user is to be found; name its PATH")
    if len(found) > 1:
        raise click.UsageError(f"several run; name the PATH of one: {', '.join(found)}")
    return found[0]


def reports(units: Sequence[str], given: Mapping[str, Any]) -> list[tuple[str, dict[str, object]]]:
    """Return what each supervisor of this user tells of itself, with its path."""
    found = []
    for path in paths(os.environ):
        try:
            found.append((path, ask(path, "status", units, given)))
        except OwnerNotFoundError:
            continue
        except RendezvousError as error:
            output.warn(str(error))
    return found


def tell(command: str, words: Sequence[str], given: Mapping[str, Any], **more: object) -> None:
    """Have one supervisor carry out a command."""
    path, units = split(words)
    ask(only(path, given), command, units, given, **more)
