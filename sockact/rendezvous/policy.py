"""Who may do what at a rendezvous. Pure; default deny.

The kernel says who a peer is; what the peer says of itself is never looked at. Root and the user
that the owner runs as may do everything. Others may get the sets whose rule names them or one of
their groups, and nothing else: to take a rendezvous over, to put and to drop changes what others
are served by. The overflow uid stands for everybody whom a user namespace has no name for
(user_namespaces(7)), so it is nobody's.
"""

from collections.abc import Iterable

import attrs

from sockact.spec import AsValue

ROOT = 0


@attrs.frozen(eq=False, repr=False)
class Who(AsValue):
    """The other end of a connection, as the kernel tells.

    Attributes:
        uid: User id.
        gids: Group ids, supplementary ones included.
        pid: Process id, 0 outside of our pid namespace; for people only.
    """

    uid: int
    gids: tuple[int, ...] = ()
    pid: int = 0

    def __str__(self) -> str:
        return f"pid {self.pid}, uid {self.uid}" if self.pid else f"uid {self.uid}"


@attrs.frozen(eq=False, repr=False)
class Rule(AsValue):
    """Who may get a set, besides root and the owner's own user.

    Attributes:
        uids: Users.
        gids: Groups.
    """

    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.uids or self.gids)


@attrs.frozen(eq=False, repr=False)
class Policy(AsValue):
    """The owner's view of who is who.

    Attributes:
        own_uid: The user that the owner runs as.
        overflow_uid: The uid, and the gid, that stands for everyone without a name here.
    """

    own_uid: int
    overflow_uid: int = 65534

    def may_manage(self, who: Who) -> bool:
        """Whether `who` may take over, put, drop, and get every set."""
        return who.uid != self.overflow_uid and who.uid in (ROOT, self.own_uid)

    def may_get(self, who: Who, rule: Rule) -> bool:
        """Whether `who` may get, and see in a list, a set with that rule."""
        if who.uid == self.overflow_uid:
            return False
        gids = (gid for gid in who.gids if gid != self.overflow_uid)
        named = who.uid in rule.uids or any(gid in rule.gids for gid in gids)
        return named or self.may_manage(who)

    def may_connect(self, who: Who, rules: Iterable[Rule]) -> bool:
        """Whether there is anything at all that `who` may do here."""
        return self.may_manage(who) or any(self.may_get(who, rule) for rule in rules)


def trusts(owner: Who, own_uid: int, overflow_uid: int, trusted: Iterable[int]) -> bool:
    """Whether a client believes an owner: root, its own user, or one that it was told to trust.

    Args:
        owner: Who listens at the path.
        own_uid: The user that the client runs as.
        overflow_uid: The uid that stands for every user without a name here.
        trusted: More users whom the client was told to trust.
    """
    return owner.uid != overflow_uid and owner.uid in (ROOT, own_uid, *trusted)


def nameless(who: Who, overflow_uid: int) -> str:
    """Return what to say of a user whom our user namespace has no name for; nothing of others."""
    return ", which stands for all without a name here" if who.uid == overflow_uid else ""
