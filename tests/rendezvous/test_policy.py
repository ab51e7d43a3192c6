"""Who may do what: default deny."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sockact.rendezvous.policy import Policy, Rule, Who, trusts

OVERFLOW = 65534
IDS = st.sampled_from([0, 1, 33, 1000, 1001, OVERFLOW])
GROUPS = st.lists(IDS, max_size=3).map(tuple)
RULES = st.builds(Rule, GROUPS, GROUPS)


@pytest.mark.parametrize(
    ("own", "who", "rule", "manages", "gets"),
    [
        (1000, Who(0), Rule(), True, True),
        (1000, Who(1000), Rule(), True, True),
        (1000, Who(1001), Rule(), False, False),
        (1000, Who(1001), Rule(uids=(1001,)), False, True),
        (1000, Who(1001), Rule(uids=(1002,)), False, False),
        (1000, Who(1001, (33, 50)), Rule(gids=(50,)), False, True),
        (1000, Who(1001, (33,)), Rule(gids=(50,)), False, False),
        (1000, Who(1001, (0,)), Rule(), False, False),
        (1000, Who(33), Rule(gids=(33,)), False, False),
        (1000, Who(1001, (33,)), Rule(uids=(33,)), False, False),
        (1000, Who(OVERFLOW), Rule(), False, False),
        (OVERFLOW, Who(OVERFLOW), Rule(), False, False),
        (OVERFLOW, Who(OVERFLOW, (33,)), Rule((OVERFLOW,), (33,)), False, False),
        (1000, Who(1001, (OVERFLOW,)), Rule(gids=(OVERFLOW,)), False, False),
        (1000, Who(1001, (OVERFLOW, 50)), Rule(gids=(50, OVERFLOW)), False, True),
        (0, Who(0), Rule(), True, True),
        (0, Who(1000), Rule(), False, False),
    ],
)
def test_table(own: int, who: Who, rule: Rule, manages: bool, gets: bool) -> None:
    """Root and the own user manage; a rule lets others get; the overflow ids are nobody's."""
    policy = Policy(own)
    assert policy.may_manage(who) is manages
    assert policy.may_get(who, rule) is gets
    assert policy.may_connect(who, [rule]) is gets


def test_own_overflow_ids_may_be_others() -> None:
    """The kernel's overflow uid can be another number (/proc/sys/kernel/overflowuid)."""
    assert Policy(65534, overflow_uid=7).may_manage(Who(65534))
    assert not Policy(7, overflow_uid=7).may_manage(Who(7))
    assert not Policy(0, overflow_uid=0).may_manage(Who(0))


@settings(deadline=None)
@given(IDS, IDS, GROUPS, RULES)
def test_rights_are_consistent(own: int, uid: int, gids: tuple[int, ...], rule: Rule) -> None:
    """Who manages gets everything; the overflow uid gets nothing; more groups take nothing away."""
    policy, who = Policy(own), Who(uid, gids)
    if policy.may_manage(who):
        assert policy.may_get(who, Rule())
        assert policy.may_connect(who, [])
    if uid == OVERFLOW:
        assert not policy.may_get(who, rule)
        assert not policy.may_connect(who, [rule])
    if policy.may_get(who, rule):
        assert policy.may_get(Who(uid, (*gids, 4)), rule)
    assert policy.may_get(who, Rule()) == policy.may_manage(who)


def test_nobody_connects_for_nothing() -> None:
    """Somebody for whom there is no set is turned away, and whoever has one is not."""
    policy = Policy(1000)
    assert not policy.may_connect(Who(1001), [])
    assert not policy.may_connect(Who(1001), [Rule(), Rule((5,))])
    assert policy.may_connect(Who(1001), [Rule(), Rule((1001,))])


def test_a_pid_is_for_people_only() -> None:
    """The pid decides nothing, and is left out where it is not known."""
    assert str(Who(5, (), 12)) == "pid 12, uid 5"
    assert str(Who(5)) == "uid 5"
    assert bool(Rule()) is False
    assert bool(Rule(gids=(1,))) is True


@pytest.mark.parametrize(
    ("owner", "own", "trusted", "expected"),
    [
        (0, 1000, (), True),
        (1000, 1000, (), True),
        (1001, 1000, (), False),
        (1001, 1000, (1001,), True),
        (OVERFLOW, OVERFLOW, (OVERFLOW,), False),
        (OVERFLOW, 1000, (), False),
    ],
)
def test_whom_a_client_trusts(
    owner: int,
    own: int,
    trusted: tuple[int, ...],
    expected: bool,
) -> None:
    """A client believes root, its own user and whom it was told to; never the overflow uid."""
    assert trusts(Who(owner), own, OVERFLOW, trusted) is expected
