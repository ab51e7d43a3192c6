"""What the steps of opening one spec share: the spec, what was made, and how far it got."""

import errno
import os
from collections.abc import Callable

from sockact import directives as d
from sockact.errors import BindError
from sockact.sockets.node import Made
from sockact.spec import SocketSpec

Warn = Callable[[str], None]


class Task:
    """The opening of one spec.

    Attributes:
        spec: What to open.
        warn: Called with a line for each option that could not be set.
        made: What has been made in the file system.
        step: The call that is being made, for errors.
        blocking: Whether descriptors are to be blocking.
    """

    def __init__(self, spec: SocketSpec, warn: Warn) -> None:
        """Begin with nothing made."""
        self.spec = spec
        self.warn = warn
        self.made = Made()
        self.step = ""
        self.blocking = not spec.get(d.NON_BLOCKING)

    def unset(self, name: str, error: OSError) -> str:
        """Return the warning for a directive whose option could not be set."""
        setting = self.spec.settings.get(name)
        place = f"{setting.origin}: " if setting else ""
        row = d.TABLE.get(name)
        hint = ", which needs root" if error.errno in (errno.EPERM, errno.EACCES) else ""
        call = f" ({row.call})" if row else ""
        return f"{place}{name}={call} could not be set: {error.strerror}{hint}"

    def owner(self) -> tuple[int, int]:
        """Return the uid and gid that nodes get, -1 for each that stays as it is.

        Raises:
            BindError: There is no such user or group.
        """
        user, group = self.spec.get(d.SOCKET_USER), self.spec.get(d.SOCKET_GROUP)
        if not user and not group:
            return -1, -1
        from sockact.errors import CredentialsError  # noqa: PLC0415
        from sockact.fd.account import group_id, user_ids  # noqa: PLC0415 - loads pwd and grp

        which = d.SOCKET_USER
        try:
            uid, gid = user_ids(user) if user else (-1, -1)
            which = d.SOCKET_GROUP
            return uid, group_id(group) if group else gid
        except CredentialsError as error:
            origin = self.spec.settings[which.name].origin
            raise BindError(str(origin), f"{which.name}=", 0, str(error)) from None

    def is_ours(self, info: os.stat_result) -> bool:
        """Whether a leftover node has the owner that this spec gives its nodes, or ours."""
        uid, gid = self.owner()
        return info.st_uid in (os.geteuid(), uid) and info.st_gid in (os.getegid(), gid)
