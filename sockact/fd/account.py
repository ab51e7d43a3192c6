"""Users and groups by name or number."""

from sockact.errors import CredentialsError


def _number(text: str) -> int | None:
    """Return the id that `text` is, or None if it is a name; -1 is no id."""
    if not text.isdecimal() or len(text) > 10 or int(text) >= 2**32 - 1:
        return None
    return int(text)


def user_ids(user: str) -> tuple[int, int]:
    """Return uid and primary gid of a user, by name or number; a number needs no entry.

    Raises:
        CredentialsError: There is no such user.
    """
    import pwd  # noqa: PLC0415 - both modules cost start-up time and are rarely needed

    number = _number(user)
    try:
        entry = pwd.getpwnam(user) if number is None else pwd.getpwuid(number)
    except (KeyError, OverflowError, ValueError):
        if number is not None:
            return number, number
        raise CredentialsError(f"there is no user {user!r}") from None
    return entry.pw_uid, entry.pw_gid


def group_id(group: str) -> int:
    """Return the gid of a group, by name or number; a number needs no entry.

    Raises:
        CredentialsError: There is no such group.
    """
    import grp  # noqa: PLC0415

    number = _number(group)
    if number is not None:
        return number
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        raise CredentialsError(f"there is no group {group!r}") from None
