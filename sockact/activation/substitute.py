"""``{fd:NAME}``, ``{port:NAME}`` and ``{address:NAME}`` in a command. Pure.

With them a program that knows nothing of LISTEN_FDS, but takes the number of a descriptor or an
address as an option, can be started unchanged: ``uvicorn --fd {fd:web} app:app``. Everything
else in braces is left alone; a doubled first brace, ``{{fd:web}``, stands for itself.
"""

import re
from collections.abc import Sequence

import attrs

from sockact.errors import SubstitutionError

_FIELD = re.compile(r"\{(\{?)(fd|port|address)(?::([^{}:]*)(?::([0-9]+))?)?\}")


@attrs.frozen
class Given:
    """What can be said of one descriptor of the program."""

    name: str
    fd: int
    address: str
    port: int


def has_fields(command: Sequence[str]) -> bool:
    """Whether there is anything to substitute, so that the kernel need be asked at all."""
    return any("{" in word and _FIELD.search(word) for word in command)


def substitute(command: Sequence[str], given: Sequence[Given]) -> list[str]:
    """Replace the fields in every word of a command.

    ``{fd}`` alone means the only descriptor; ``{fd:NAME:1}`` the second of that name.

    Raises:
        SubstitutionError: A field fits no descriptor, or several; or there is no port.
    """

    def value(match: re.Match[str]) -> str:
        brace, what, name, index = match.groups()
        if brace:
            return match[0][1:]
        found = [item for item in given if name is None or item.name == name]
        if index is not None:
            found = found[int(index[:9]) : int(index[:9]) + 1]
        if not found:
            known = ", ".join(dict.fromkeys(item.name for item in given)) or "none"
            raise SubstitutionError(f"{match[0]}: no such socket; there are: {known}")
        if len(found) > 1 and (what != "port" or len({item.port for item in found}) > 1):
            example = f"{{{what}:{found[0].name}:0}}" if name is not None else f"{{{what}:NAME}}"
            raise SubstitutionError(f"{match[0]}: {len(found)} sockets match; write {example}")
        item = found[0]
        if what == "port" and not item.port:
            raise SubstitutionError(f"{match[0]}: {item.address or item.name} has no port")
        if what == "address" and not item.address:
            raise SubstitutionError(f"{match[0]}: {item.name} has no address")
        return {"fd": str(item.fd), "port": str(item.port), "address": item.address}[what]

    return [_FIELD.sub(value, word) if "{" in word else word for word in command]
