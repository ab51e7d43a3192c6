"""Arguments and options of the commands at a rendezvous: where, how long, and whom to believe."""

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

import sockact
from sockact.cli.arguments import ENDED

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_C = TypeVar("_C", bound=Callable[..., object])

_COMPLETION_SECONDS = 0.5

_TIMEOUT = click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=30.0,
    metavar="SEC",
    help="Wait this long for an owner that is busy; 30 seconds by default.",
)
_OWNER = click.option(
    "--owner",
    "owners",
    metavar="USER",
    multiple=True,
    help="Believe an owner that is this user, besides root and oneself.",
)
_FROM = click.option(
    "--from",
    "source",
    type=click.Path(readable=False),
    metavar="PATH",
    help="Get from the owner or holder at this rendezvous what it has of these; open the rest.",
)
_ALLOW = (
    click.option(
        "--allow-user",
        "allow_users",
        metavar="USER",
        multiple=True,
        help="Let this user get it, too.",
    ),
    click.option(
        "--allow-group",
        "allow_groups",
        metavar="GROUP",
        multiple=True,
        help="Let the members of this group get it, too.",
    ),
)


def path_argument(command: _C) -> _C:
    """Add the argument PATH to a command."""
    return click.argument("path", type=click.Path(readable=False))(command)


def options(command: _C) -> _C:
    """Add --timeout and --owner to a command."""
    return _TIMEOUT(_OWNER(command))


def source_options(command: _C) -> _C:
    """Add --from, and the options that go with it, to a command that opens sockets."""
    return _FROM(options(command))


def allow_options(command: _C) -> _C:
    """Add --allow-user and --allow-group to a command."""
    for option in reversed(_ALLOW):
        command = option(command)
    return command


def uids(users: Iterable[str]) -> tuple[int, ...]:
    """Return the ids of users.

    Raises:
        CredentialsError: There is no such user.
    """
    users = tuple(users)
    if not users:
        return ()
    from sockact.fd.account import user_ids  # noqa: PLC0415 - rarely needed

    return tuple(user_ids(user)[0] for user in users)


def gids(groups: Iterable[str]) -> tuple[int, ...]:
    """Return the ids of groups.

    Raises:
        CredentialsError: There is no such group.
    """
    from sockact.fd.account import group_id  # noqa: PLC0415

    return tuple(map(group_id, groups))


def rule_out_of(given: dict[str, Any]) -> "sockact.Rule":
    """Take who may get something out of what click gives a command."""
    return sockact.Rule(uids(given.pop("allow_users")), gids(given.pop("allow_groups")))


def complete_set(ctx: click.Context, _param: object, incomplete: str) -> "list[CompletionItem]":
    """Complete the name of a set at the path that was given; nothing if that fails in any way."""
    return _complete(ctx, incomplete, fd_names=False)


def complete_name(ctx: click.Context, _param: object, incomplete: str) -> "list[CompletionItem]":
    """Complete the name of a set, or an fd name."""
    if ctx.meta.get(ENDED):
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - see _complete

        return [CompletionItem(incomplete, type="file")]
    return _complete(ctx, incomplete, fd_names=True)


def _complete(ctx: click.Context, incomplete: str, *, fd_names: bool) -> "list[CompletionItem]":
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only for completion

    with contextlib.suppress(Exception):
        owners = uids(ctx.params.get("owners") or ())
        found = sockact.holdings(ctx.params["path"], timeout=_COMPLETION_SECONDS, trusted=owners)
        names = [one.entry.set for one in found]
        names += [one.entry.name for one in found] if fd_names else []
        given = ctx.params.get("names") or ()
        return [
            CompletionItem(name)
            for name in dict.fromkeys(names)
            if name.startswith(incomplete) and name not in given
        ]
    return []
