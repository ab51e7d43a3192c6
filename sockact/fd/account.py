"""Users and groups by name or number."""

from sockact.errors import CredentialsError


def user_ids(user: str) -> tuple[int, int]:
    """Return uid and primary gid of a user, by name or number; a number needs no entry.

    Raises:
        CredentialsError: There is no such user.
    """
    import pwd  # noqa: PLC0415 - both modules cost start-up time and are rarely needed

    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError, ValueError):
        if user.isdecimal() and int(user) < 2**32 - 1:
            return int(user), int(user)
        raise CredentialsError(f"there is no user {user!r}") from None
    return entry.pw_uid, entry.pw_gid


def group_id(group: str) -> int:
    """Return the gid of a group, by name or number; a number needs no entry.

    Raises:
        CredentialsError: There is no such group.
    """
    import grp  # noqa: PLC0415

    if group.isdecimal() and int(group) < 2**32 - 1:
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        raise CredentialsError(f"there is no group {group!r}") from None
