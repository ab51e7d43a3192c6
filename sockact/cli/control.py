"""What the commands have in common that tell a running ``sockact run`` what to do."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import click

import sockact
from sockact.cli import exits, output, rendezvous
from sockact.errors import OwnerNotFoundError, RendezvousError
from sockact.supervise.where import paths

_C = TypeVar("_C", bound=Callable[..., object])
_NONE = "no sockact run of this user is to be found"
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
    answer = _request(path, command, units, given, **more)
    if answer.get("error") is not None:
        _end(answer)
    return answer


def _request(
    path: str, command: str, units: Sequence[str], given: Mapping[str, Any], **more: object
) -> dict[str, object]:
    return sockact.control(
        path,
        command,
        {"units": list(units), **more},
        timeout=given["timeout"],
        trusted=rendezvous.uids(given["owners"]),
    )


def _end(answer: Mapping[str, object]) -> NoReturn:
    output.fail(str(answer["error"]))
    status = answer.get("status")
    click.get_current_context().exit(status if isinstance(status, int) else exits.FAILURE)


def only(path: str | None) -> str:
    """Return the path, or that of the only supervisor of this user.

    Raises:
        UsageError: There are several.
        OwnerNotFoundError: There is none.
    """
    if path is not None:
        return path
    found = paths(os.environ)
    if not found:
        raise OwnerNotFoundError(f"{_NONE}; name its PATH")
    if len(found) > 1:
        raise click.UsageError(f"several run; name the PATH of one: {', '.join(found)}")
    return found[0]


def reports(units: Sequence[str], given: Mapping[str, Any]) -> list[tuple[str, dict[str, object]]]:
    """Return what each supervisor of this user tells of itself, with its path.

    One that does not answer is a warning if another one does. End with the status of one that
    refuses, such as for want of the units, if none tells anything.

    Raises:
        RendezvousError: There are some, and none of them answers; or units are named, and there is
            none.
    """
    found: list[tuple[str, dict[str, object]]] = []
    refused: list[dict[str, object]] = []
    failed: list[RendezvousError] = []
    for path in paths(os.environ):
        try:
            answer = _request(path, "status", units, given)
        except OwnerNotFoundError:
            continue
        except RendezvousError as error:
            failed.append(error)
            continue
        if answer.get("error") is None:
            found.append((path, answer))
        else:
            refused.append(answer)
    last = failed.pop() if failed and not found else None
    for one in failed:
        output.warn(str(one))
    if last:
        raise last
    if not found and refused:
        _end(refused[0])
    if not found and units:
        raise OwnerNotFoundError(_NONE)
    return found


def tell(command: str, words: Sequence[str], given: Mapping[str, Any], **more: object) -> None:
    """Have one supervisor carry out a command."""
    path, units = split(words)
    ask(only(path), command, units, given, **more)
