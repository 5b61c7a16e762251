# SPDX-License-Identifier: GPL-2.0-only
"""Who takes the MMU lock, by made-up traces of kernels that are right and of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.checks import test_mmu_lock as check
from harness.checks.claim import Claim
from harness.checks.overlap import AGE, AGE_CALLBACK, TEST, UNMAP
from harness.contract_file import Lock, LockRule
from harness.contract_load import BASE, load_step
from harness.observe import lockdep
from harness.observe.trace import ACCESS_FAULT, Counts, Event, returned
from harness.observe.unproven import Unproven
from harness.paths import PROJECT
from harness.situation import Situation

FAULT = check.FAULT
LOCK = "00000000a1b2c3d4 {}&(kvm)->mmu_lock"


def event(name: str, pid: int = 7, text: str = "") -> Event:
    return Event(0, 0, "kvm-guest", pid, name, text, {})


def lock(access: str = "", pid: int = 7) -> Event:
    return event(lockdep.ACQUIRE, pid, LOCK.format(access))


def faults(number: int, *locks: str) -> Iterator[Event]:
    """So many access faults of a vCPU, each of which takes these locks."""
    for _ in range(number):
        yield event(FAULT)
        yield event(ACCESS_FAULT)
        yield from map(lock, locks)


def counts(*recorded: Event, lost: int = 0, absent: dict[str, str] | None = None) -> Counts:
    return Counts(check.WANTED, absent or {}, lost, {}, recorded, "")


def judge(
    found: Counts,
    promise: Lock,
    cause: str = ACCESS_FAULT,
    least: int = 3,
    *,
    always: bool = False,
    slot: bool = True,
) -> str:
    claim = Claim(Path("unused"), "")
    rule = LockRule(takes=promise, always=always)
    check.check_taken(claim, "access faults", check.taken(found, cause), rule, least, slot=slot)
    return claim.observed


def test_an_access_fault_takes_a_read_lock() -> None:
    words = judge(counts(*faults(3, "read ")), "read")
    assert words == "3 access faults: 0 write locks, 3 read locks"


def test_a_write_lock_where_a_read_lock_is_promised() -> None:
    with pytest.raises(AssertionError, match="3 times for writing, where 0 times are the most"):
        judge(counts(*faults(3, "")), "read")


@pytest.mark.parametrize("locks", [("read ", "read "), ("try read ", "read ")])
def test_a_lock_that_is_taken_twice(locks: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError, match="6 times for reading, where 3 times are the most"):
        judge(counts(*faults(3, *locks)), "read")
    with pytest.raises(AssertionError, match="took the MMU lock 6 times"):
        judge(counts(*faults(3, "read ", "")), "write")


def test_a_lock_that_is_not_taken_where_it_always_is() -> None:
    found = counts(*faults(2, "read "), *faults(1))
    assert judge(found, "read")
    with pytest.raises(AssertionError, match="3 access faults took the MMU lock 2 times"):
        judge(found, "read", always=True)
    assert judge(found, "read", always=True, slot=False)
    assert judge(counts(*faults(3, "read ")), "read", always=True)


def test_a_lock_where_none_is_promised() -> None:
    aging = [event(AGE), lock("read "), event(AGE), event(AGE)]
    with pytest.raises(AssertionError, match="1 times for reading, where 0 times are the most"):
        judge(counts(*aging), "none", AGE)
    assert judge(counts(event(AGE), event(AGE), event(AGE)), "write", AGE)


@pytest.mark.parametrize("locks", [(), ("",)], ids=["as the whole series", "as the base"])
def test_a_step_of_a_series_may_age_as_either_does(locks: tuple[str, ...]) -> None:
    """Of lockless-aging, whose last patches take the lock no more."""
    step = load_step(PROJECT / "series/lockless-aging/series.yaml", BASE)
    rule = step.expect_mmu_lock(Situation("vhe", "hardware", "hardware"))["aging"]
    aging = [one for _ in range(3) for one in (event(AGE), *map(lock, locks))]
    assert judge(counts(*aging), rule.takes, AGE, always=rule.always)
    twice = [event(AGE), lock(), lock()]
    with pytest.raises(AssertionError, match="2 times for writing, where 1 times are the most"):
        judge(counts(*twice), rule.takes, AGE, 1, always=rule.always)


def test_what_others_take_is_not_theirs() -> None:
    """Another thread's lock, and that of a fault which maps a page."""
    others = [lock(pid=8), event(FAULT), lock("read "), lock("read ")]
    assert judge(counts(*faults(3, "read "), *others), "read")
    first = [event(FAULT), event(ACCESS_FAULT), event(FAULT, 8), lock(pid=8), lock("read ")]
    assert judge(counts(*first), "read", least=1).endswith("0 write locks, 1 read locks")


def test_who_asks_only_is_judged_as_who_ages() -> None:
    found = counts(event(AGE), event(TEST), lock(), event(TEST))
    assert judge(found, "none", AGE, 1)
    with pytest.raises(AssertionError, match="1 times for writing, where 0 times are the most"):
        judge(found, "none", TEST, 2)


def test_what_an_eviction_takes_to_unmap_it_does_not_take_to_age() -> None:
    found = counts(event(AGE), event(UNMAP), lock(), lock(), event(AGE))
    assert judge(found, "none", AGE, 2)


def test_what_was_not_recorded_is_not_kept() -> None:
    with pytest.raises(Unproven, match="2 access faults were recorded, and there were 3"):
        judge(counts(*faults(2, "read ")), "read")
    with pytest.raises(Unproven, match="lost 1 events"):
        judge(counts(*faults(3, "read "), lost=1), "read")
    with pytest.raises(Unproven, match="cannot be observed"):
        judge(counts(*faults(3, "read "), absent={lockdep.ACQUIRE: "no such event"}), "read")


def test_events_come_in_their_order_whatever_their_names() -> None:
    found = counts(lock(), event(AGE), lock("read "))
    assert [one.name for one in found.in_order(AGE, lockdep.ACQUIRE)] == [
        *(lockdep.ACQUIRE, AGE, lockdep.ACQUIRE)
    ]
    with pytest.raises(KeyError):
        found.in_order(AGE, "kvm:kvm_exit")


VISIT = returned(AGE_CALLBACK)


def visits(number: int, pid: int = 7) -> Iterator[Event]:
    for _ in range(number):
        yield event(VISIT, pid)


def hold(*inside: Event, pid: int = 7) -> tuple[Event, ...]:
    return event(AGE, pid), lock(pid=pid), *inside, event(lockdep.RELEASE, pid)


def judge_hold(*recorded: Event, calls: int, least: int, most: int = 3) -> str:
    claim = Claim(Path("unused"), "")
    rule = LockRule(takes="write", visits=most)
    found = Counts(check.HOLDS, {}, 0, {}, recorded, "")
    check.check_hold(claim, "pages", found, rule, calls, least)
    return claim.observed


def test_each_hold_of_the_lock_counts_for_itself() -> None:
    words = judge_hold(*hold(*visits(3)), *hold(*visits(2)), calls=2, least=5)
    assert words == "pages: 5 entries visited, 3 at most with the MMU lock held once"


def test_a_hold_that_visits_too_many_entries() -> None:
    with pytest.raises(AssertionError, match="4 entries were visited while the MMU lock was held"):
        judge_hold(*hold(*visits(4)), calls=1, least=4)


def test_a_call_may_let_go_of_the_lock_in_between() -> None:
    again = (event(lockdep.RELEASE), lock())
    assert judge_hold(*hold(*visits(3), *again, *visits(3)), calls=1, least=6)


def test_visits_without_the_lock_or_by_others_are_in_no_hold() -> None:
    others = (*visits(3, pid=8), *hold(*visits(1)), *visits(5))
    assert judge_hold(*others, calls=1, least=9).startswith("pages: 9 entries visited, 1 at most")
    assert judge_hold(*hold(*visits(2), *visits(3, pid=8), *visits(1)), calls=1, least=6)


def test_what_one_call_does_is_seen_or_unproven() -> None:
    with pytest.raises(Unproven, match="2 calls and 2 visits"):
        judge_hold(*hold(*visits(1)), *hold(*visits(1)), calls=1, least=2)
    with pytest.raises(Unproven, match="1 calls and 1 visits"):
        judge_hold(*hold(*visits(1)), calls=1, least=2)
