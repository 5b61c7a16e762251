# SPDX-License-Identifier: GPL-2.0-only
"""How long drops wait for aging, by made-up traces of kernels that are right and of others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.checks import test_unmap_waits as check
from harness.checks.claim import Claim
from harness.checks.overlap import AGE_CALLBACK, AGE_WALK, UNMAP, UNMAP_BEGUN, Window
from harness.checks.test_unmap_waits import MEETINGS, MOST, Waits
from harness.observe.trace import Counts, Event, returned
from harness.observe.unproven import Unproven

AGER, OWNER = 2, 1
PAGE = 4096
START = 0x10000
VM: Any = SimpleNamespace(
    greeting=SimpleNamespace(slot_hva=START), slot=SimpleNamespace(pages=check.PAGES)
)


def window(begin: int, end: int, pid: int) -> Window:
    return Window(pid, begin, end, 0, 0)


def aged(*spans: tuple[int, int], pid: int = AGER) -> list[Window]:
    return [window(*span, pid) for span in spans]


def waits(drop: tuple[int, int], *ages: tuple[int, int], pid: int = AGER) -> Waits:
    return check.waits([window(*drop, OWNER)], aged(*ages, pid=pid))


def event(name: str, time: int, pid: int, at: int = START) -> Event:
    fields = {"start": at, "end": at + PAGE} if name == UNMAP else {"ret": 0}
    return Event(time, 0, "task", pid, name, "", fields)


def test_a_drop_that_waits_for_the_aging_under_way() -> None:
    assert waits((10, 30), (5, 20)) == Waits(drops=1, beside=1, late=0, free=0)


def test_a_drop_that_is_over_before_the_aging_is() -> None:
    assert waits((10, 12), (5, 20)) == Waits(drops=1, beside=1, late=0, free=1)


def test_a_drop_that_is_overtaken_again_and_again() -> None:
    later = [(20 + 10 * number, 25 + 10 * number) for number in range(MOST + 1)]
    assert waits((10, 90), (5, 15), *later) == Waits(drops=1, beside=1, late=1, free=0)
    assert waits((10, 90), (5, 15), *later[1:]) == Waits(drops=1, beside=1, late=0, free=0)


def test_a_drop_that_met_no_aging_says_nothing() -> None:
    later = [(20 + 10 * number, 25 + 10 * number) for number in range(MOST + 1)]
    assert waits((10, 90), (5, 9), *later) == Waits(drops=1)
    assert waits((10, 90), (5, 15), pid=OWNER) == Waits(drops=1)


def test_what_threads_did_adds_up_from_the_trace() -> None:
    """Drops of other memory do not count, nor does a walk that the trace has one end of."""
    recorded = (
        event(returned(AGE_WALK), 1, AGER),
        event(returned(AGE_CALLBACK), 5, AGER),
        event(UNMAP, 6, OWNER, at=START - PAGE),
        event(returned(UNMAP_BEGUN), 7, OWNER),
        event(UNMAP, 10, OWNER),
        event(returned(AGE_WALK), 20, AGER),
        event(returned(UNMAP_BEGUN), 25, OWNER),
        event(returned(AGE_CALLBACK), 30, AGER),
    )
    counts = Counts(check.WANTED, {}, 0, {}, recorded, "")
    assert check.in_trace(counts, VM) == Waits(drops=1, beside=1)
    with pytest.raises(Unproven, match="cannot be observed"):
        check.in_trace(Counts(check.WANTED, {returned(AGE_WALK): "no"}, 0, {}, (), ""), VM)


def test_a_walk_that_visits_several_entries_is_one() -> None:
    names = (AGE_CALLBACK, AGE_CALLBACK, AGE_WALK)
    events = [event(returned(name), time, AGER) for time, name in enumerate(names)]
    assert check.walks(events) == (window(0, 2, AGER),)


def judged(found: Waits, *, lockless: bool = False, realtime: bool = False) -> tuple[str, ...]:
    """What cannot be judged of that."""
    claim = Claim(Path("unused"), "")
    check.check_waits(found, claim, lockless=lockless, realtime=realtime)
    return claim.unjudged


def test_half_of_the_drops_may_wait_for_more_than_their_turn() -> None:
    assert not judged(Waits(99, 2 * MEETINGS, MEETINGS, 0))
    with pytest.raises(AssertionError, match=f"{MEETINGS + 1} of {2 * MEETINGS} drops waited"):
        judged(Waits(99, 2 * MEETINGS, MEETINGS + 1, 0))


def test_with_locks_that_do_not_go_in_turn_no_order_is_judged() -> None:
    assert judged(Waits(99, MEETINGS, 0, 0), realtime=True)
    assert judged(Waits(99, MEETINGS, MEETINGS, 0), realtime=True)


def test_where_aging_takes_no_lock_the_order_is_judged_with_any() -> None:
    assert not judged(Waits(99, MEETINGS, 0, MEETINGS), lockless=True, realtime=True)
    with pytest.raises(AssertionError, match="pages were aged that came after them"):
        judged(Waits(99, MEETINGS, MEETINGS, MEETINGS), lockless=True, realtime=True)


def test_without_a_lock_no_drop_waits_for_the_aging_under_way() -> None:
    judged(Waits(99, MEETINGS, 0, MEETINGS // 4), lockless=True)
    with pytest.raises(AssertionError, match=f"{MEETINGS} of {MEETINGS} drops waited for the"):
        judged(Waits(99, MEETINGS, 0, 0), lockless=True)


def test_too_few_drops_beside_an_aging_prove_nothing() -> None:
    with pytest.raises(Unproven, match="too few drops"):
        judged(Waits(99, MEETINGS - 1, MEETINGS - 1, 0), lockless=True)
