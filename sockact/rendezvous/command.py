"""A command to an owner, and its answer."""

import json
import math
from collections.abc import Mapping, Sequence

from sockact.errors import RemoteProtocolError, RendezvousError
from sockact.rendezvous.messages import Json, Op, Request
from sockact.rendezvous.take import TIMEOUT, ask
from sockact.rendezvous.wire import decode, encode


def control(
    path: str,
    command: str,
    arguments: Mapping[str, object] | None = None,
    *,
    timeout: float | None = TIMEOUT,
    trusted: Sequence[int] = (),
) -> dict[str, object]:
    """Have the owner of a path do something, and return its answer.

    Which commands there are is the owner's matter, and so is what they answer; a command that has
    failed may have an answer that says so. Whoever gives it has to be root or the owner's own user.

    Args:
        path: The rendezvous.
        command: What to do.
        arguments: What the command needs to know, in values of JSON.
        timeout: Seconds that it may take, None for any time. If they are over, the command goes on.
        trusted: Users who may own the path besides root and this process's own user.

    Returns:
        The answer, in values of JSON.

    Raises:
        OwnerNotFoundError: Nobody answers there.
        PathInUseError: Others may write to a directory of the path, or no socket stands there.
        UntrustedOwnerError: The one who does is not to be trusted.
        RefusedError: The owner takes no commands, or none of this user's; nothing was done.
        RendezvousError: It came to nothing in another way; something may have been done.
        ValueError: The arguments are no JSON, or too long: 60,000 characters always fit.

    Source: sockact-rendezvous(7).
    """
    request = Request(Op.CONTROL, command=command, arguments=_written(arguments or {}))
    try:
        decode(encode(request), 0)
    except RemoteProtocolError as error:
        raise ValueError(f"the command {command[:40]!r} cannot be sent: {error}") from None
    asking = ask(path, request, math.inf if timeout is None else timeout, trusted)
    try:
        answer = json.loads("".join(asking.answer))
    except (ValueError, RecursionError):
        answer = None
    if type(answer) is not dict:
        raise RendezvousError(f"{path}: the answer to {command!r} is no JSON object")
    return answer


def _written(arguments: Mapping[str, object]) -> Json:
    try:
        return Json(json.dumps(dict(arguments), separators=(",", ":"), allow_nan=False))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"the arguments are no JSON: {error}") from None
