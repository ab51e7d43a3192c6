"""Which program is started, as whom: what starting in place and starting a child share."""

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from typing import NoReturn

import attrs

from sockact.errors import LaunchError
from sockact.spec import AsValue

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

ACCOUNT = ("USER", "LOGNAME", "HOME", "SHELL")
"""The variables that a user's entry decides."""

# What systemd takes for no home, and no shell (USER_CREDS_CLEAN in its src/basic/user-util.c).
_NOBODY = "nobody"
_NO_SHELLS = frozenset(
    f"{directory}/{name}"
    for directory in ("/bin", "/sbin", "/usr/bin", "/usr/sbin")
    for name in ("nologin", "false", "true")
)


@attrs.frozen(eq=False, repr=False)
class Identity(AsValue):
    """The user that a program runs as.

    Attributes:
        uid: User id.
        gid: Group id.
        groups: Supplementary groups.
        environ: USER, LOGNAME, HOME and SHELL of that user, as far as it has them, empty if it has
            no entry; None if only the group changes.
        wanted: Those of `groups` that were asked for.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    environ: Mapping[str, str] | None
    wanted: tuple[int, ...] = ()


def identity(
    user: str | None, group: str | None, supplementary: Sequence[str] = ()
) -> Identity | None:
    """Look up a user and groups by name or number; None if none is given.

    Args:
        user: The user; this process's own by default.
        group: Its group; the user's own by default.
        supplementary: Groups besides those that the user is in.

    Raises:
        CredentialsError: There is no such user or group.
    """
    if user is None and group is None and not supplementary:
        return None
    import pwd  # noqa: PLC0415 - rarely needed

    from sockact.fd.account import group_id, user_ids  # noqa: PLC0415

    more = tuple(map(group_id, supplementary))
    if user is None:
        if group is None:
            gid = os.getegid()
            return Identity(os.geteuid(), gid, _once(*os.getgroups(), *more), None, more)
        gid = group_id(group)
        return Identity(os.geteuid(), gid, _once(gid, *more), None, more)
    uid, gid = user_ids(user)
    if group is not None:
        gid = group_id(group)
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Identity(uid, gid, _once(gid, *more), {}, more)
    environ = {"USER": entry.pw_name, "LOGNAME": entry.pw_name}
    if entry.pw_name != _NOBODY:
        environ["HOME"] = "" if entry.pw_dir == "/" else entry.pw_dir
        environ["SHELL"] = "" if entry.pw_shell in _NO_SHELLS else entry.pw_shell
    environ = {name: value for name, value in environ.items() if value}
    groups = _once(*os.getgrouplist(entry.pw_name, gid), *more)
    return Identity(uid, gid, groups, environ, more)


def _once(*groups: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(groups))


def find_program(program: str, search: str, directory: str | None = None) -> str:
    """Return the path of a program, looked up as execvp(3) does.

    Args:
        program: A name, or a path.
        search: The value of PATH.
        directory: What a relative path is relative to; the working directory by default.

    Raises:
        LaunchError: ENOENT, there is none; EACCES, there is one that may not be executed.
    """
    if not program:
        raise LaunchError("''", errno.ENOENT, "the name of the program is empty")
    names = [program] if "/" in program else [f"{d or '.'}/{program}" for d in search.split(":")]
    found = errno.ENOENT
    for name in names:
        path = os.path.join(directory or "", name)
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            found = errno.EACCES if error.errno == errno.EACCES else found
            continue
        if stat.S_ISREG(mode) and os.access(path, os.X_OK, effective_ids=_EFFECTIVE):
            return name
        found = errno.EACCES
    reason = "not executable" if found == errno.EACCES else "no such program"
    if "/" not in program and found == errno.ENOENT:
        reason += " in PATH"
    raise LaunchError(program, found, reason)


_EFFECTIVE = os.access in os.supports_effective_ids


def take_groups(who: Identity) -> None:
    """Change this process's groups to those of `who`.

    One that is not root's keeps those it has, if they are all that was asked for.

    Raises:
        OSError: EPERM, it may not do that.
    """
    root = os.geteuid() == 0
    if root or not {*who.wanted} <= {*os.getgroups(), os.getegid()}:
        os.setgroups(who.groups)
    if root or who.gid != os.getegid():
        os.setresgid(who.gid, who.gid, who.gid)


def take_user(who: Identity, saved: int | None = None) -> None:
    """Change this process's user to that of `who`, if it differs or this one is root.

    Args:
        who: The user.
        saved: Stays in the saved user id, as a way back; else there is none.

    Raises:
        OSError: EPERM, it may not do that.
    """
    root = os.geteuid() == 0
    if root or who.uid != os.geteuid():
        if root and who.uid and saved is not None:
            _drop_ambient_capabilities()
        os.setresuid(who.uid, who.uid, who.uid if saved is None else saved)


def _drop_ambient_capabilities() -> None:
    """Clear what the kernel would clear if the saved user id changed, too (capabilities(7))."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            none = any(line.split() == ["CapAmb:", "0" * 16] for line in file)
    except OSError:
        none = False
    if not none:
        from sockact.activation.libc import clear_ambient_capabilities  # noqa: PLC0415 - rare

        clear_ambient_capabilities()


def become(
    path: str, argv: list[str] | tuple[str, ...], environ: Mapping[str, str], *, shell: bool = True
) -> NoReturn:
    """Become the program (execve(2)).

    Args:
        path: Its file.
        argv: Its arguments, the first its name.
        environ: Its environment.
        shell: As execvp(3): what the kernel does not know is a shell script.

    Raises:
        OSError: It cannot be.
    """
    try:
        os.execve(path, argv, environ)
    except OSError as error:
        if error.errno != errno.ENOEXEC or not shell:
            raise
    os.execve("/bin/sh", ["/bin/sh", path, *argv[1:]], environ)


def explain(program: str, path: str, number: int, environ: Mapping[str, str]) -> LaunchError:
    """Return why execve(2) of `path` failed, in words.

    Args:
        program: What to call it.
        path: Its file.
        number: What execve(2) said.
        environ: The environment that it was given.
    """
    reason = os.strerror(number)
    if number == errno.ENOENT and os.path.exists(path):
        reason = "the interpreter or loader that it asks for is missing"
        return LaunchError(program, errno.ENOEXEC, reason)
    if number == errno.E2BIG:
        size = len(environ.get("LISTEN_FDNAMES", ""))
        reason += f"; LISTEN_FDNAMES alone has {size} bytes, shorter names may help"
    return LaunchError(program, number, reason)
