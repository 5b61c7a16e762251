# SPDX-License-Identifier: GPL-2.0-only
"""What aging invalidates, by made-up recordings of kernels that are right and of others."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import pytest

from harness.checks import flushes
from harness.checks.claim import Claim
from harness.checks.flushes import (
    ASK_FLUSHING,
    COUNTER,
    FLUSHES,
    check_flushed,
    check_flushes,
    with_flushes,
    with_flushing,
)
from harness.checks.overlap import AGE, AGE_WALK
from harness.contract_file import FlushRule
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import Counts, Event, Probe, Wanted, returned
from harness.observe.unproven import Unproven

WANTED = with_flushes(Wanted((AGE,), ("kvm_age_gfn",)))
CALLS = 3


def recording(*flushes: int, absent: str = "") -> Counts:
    """Three calls to age, and so many entries of each function that invalidates."""
    calls = tuple(Event(0, 0, "task", 1, AGE, "", {"start": 0, "end": 1}) for _ in range(CALLS))
    probes = {name: Probe(0, 0) for name in FLUSHES if name != absent}
    probes |= {name: Probe(number, 0) for name, number in zip(FLUSHES, flushes, strict=False)}
    return Counts(WANTED, {absent: "inlined"} if absent else {}, 0, probes, calls, "")


def judge(promise: Literal["none", "each"], counts: Counts, requested: int | None = None) -> str:
    claim = Claim(Path("unused"), "")
    check_flushes(claim, FlushRule(flushes=promise), counts, requested=requested)
    return claim.observed


def test_what_is_recorded_is_there_once() -> None:
    assert WANTED.events == (AGE,)
    assert WANTED.functions == ("kvm_age_gfn", *FLUSHES)
    assert with_flushes(WANTED) == WANTED


def test_aging_that_invalidates_nothing() -> None:
    assert judge("none", recording()) == "0 TLB invalidations"
    assert judge("none", recording(), 0) == "0 TLB invalidations, 0 by the VM's counter"


@pytest.mark.parametrize("flushes", [(1,), (0, 1), (0, 0, 1)])
def test_each_function_that_invalidates_is_a_witness(flushes: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError, match="TLB 1 times, where 0 times are the most"):
        judge("none", recording(*flushes))


def test_the_counter_of_the_vm_is_another_witness() -> None:
    with pytest.raises(AssertionError, match="TLB 3 times, where 0 times are the most"):
        judge("none", recording(), requested=3)


def test_an_invalidation_for_each_call_where_the_contract_has_that() -> None:
    assert judge("each", recording(CALLS), requested=CALLS)
    with pytest.raises(AssertionError, match="TLB 4 times, where 3 times are the most"):
        judge("each", recording(CALLS, 1))


def test_each_recording_is_held_to_it_by_itself() -> None:
    claim = Claim(Path("unused"), "")
    rule = FlushRule(flushes="each")
    check_flushes(claim, rule, recording(CALLS), recording(1), requested=CALLS + 1)
    assert claim.observed == "3 + 1 TLB invalidations, 4 by the VM's counter"
    with pytest.raises(AssertionError, match="TLB 4 times, where 3 times are the most"):
        check_flushes(claim, rule, recording(), recording(4))
    with pytest.raises(AssertionError, match="TLB 7 times, where 6 times are the most"):
        check_flushes(claim, rule, recording(), recording(), requested=7)
    with pytest.raises(AssertionError, match="TLB 4 times"):
        check_flushes(claim, rule, recording(absent=FLUSHES[1]), recording(4))


def test_what_cannot_be_seen_is_unproven_unless_something_else_is_wrong() -> None:
    with pytest.raises(Unproven, match="inlined"):
        judge("none", recording(absent=FLUSHES[1]))
    with pytest.raises(AssertionError):
        judge("none", recording(1, absent=FLUSHES[1]))


def test_a_contract_that_says_nothing() -> None:
    claim = Claim(Path("unused"), "")
    check_flushes(claim, None, recording(5), requested=5)
    assert claim.observed == ""


def by_whom(ours: int, others: int, requested: int | None = None) -> str:
    """Invalidations by the task that ages and by others, of which ours alone are recorded."""
    wanted = with_flushes(Wanted((AGE,), ("kvm_age_gfn",), ours=("ager",)))
    assert wanted.entries == FLUSHES
    probes = {name: Probe(0, 0) for name in FLUSHES} | {FLUSHES[0]: Probe(ours + others, 0)}
    events = ours * (Event(0, 0, "ager", 1, FLUSHES[0], "", {}),)
    return judge("none", Counts(wanted, {}, 0, probes, events, ""), requested)


def test_only_what_the_task_that_ages_invalidates_is_its() -> None:
    """Other VMs invalidate theirs, and kswapd this one's when it unmaps pages."""
    assert by_whom(ours=0, others=4, requested=0) == "0 TLB invalidations, 0 by the VM's counter"
    with pytest.raises(AssertionError, match="TLB 1 times"):
        by_whom(ours=1, others=4)
    with pytest.raises(Unproven, match="counter rose by 3; others invalidated 4 times"):
        by_whom(ours=0, others=4, requested=3)
    with pytest.raises(AssertionError, match="TLB 5 times"):
        by_whom(ours=0, others=4, requested=5)


WALKED, TOLD = returned(AGE_WALK), returned(ASK_FLUSHING)


def event(name: str, pid: int = 1, ret: int = 1) -> Event:
    return Event(0, 0, "task", pid, name, "", {"ret": ret})


def flushed(
    monkeypatch: pytest.MonkeyPatch,
    events: tuple[Event, ...],
    requested: int | None,
    *names: str,
    absent: str = "",
) -> str:
    """What is said of this recording, and so many invalidations by counters so named."""
    missing = {absent: "inlined"} if absent else {}
    monkeypatch.setattr(flushes, "counters", lambda vm, shell: dict.fromkeys(names, 0))
    claim = Claim(Path("unused"), "")
    counts = Counts(with_flushing(Wanted()), missing, 0, {}, events, "")
    check_flushed(claim, cast(Guest, None), cast(Shell, None), counts, requested)
    return claim.observed


ASK, OLD, FLUSH, RANGE, TOLD_YOUNG = map(event, (ASK_FLUSHING, WALKED, *FLUSHES[:2], TOLD))
WAS_OLD = event(WALKED, ret=0x100)


def test_who_asks_with_the_flush_gets_one_when_all_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tuple(event(one.name, pid=2) for one in (OLD, FLUSH))
    for right in (
        (ASK, OLD, WAS_OLD, OLD, FLUSH, TOLD_YOUNG),
        (ASK, OLD, FLUSH, WAS_OLD, TOLD_YOUNG),
        (ASK, OLD, RANGE, TOLD_YOUNG),
        (ASK, FLUSH, TOLD_YOUNG),
        (OLD, ASK, OLD, FLUSH, elsewhere[0], TOLD_YOUNG, OLD),
        (ASK, OLD),
    ):
        assert "times young" in flushed(monkeypatch, 2 * right, 0, COUNTER)
    # The recording began within a request.
    assert "1 times young" in flushed(monkeypatch, (TOLD_YOUNG,), 0, COUNTER)
    for wrong in (
        (ASK, OLD, FLUSH, OLD, TOLD_YOUNG),
        (ASK, FLUSH, OLD, TOLD_YOUNG),
        (ASK, OLD, elsewhere[1], TOLD_YOUNG),
        (ASK, TOLD_YOUNG),
    ):
        with pytest.raises(AssertionError, match="2 of 2 times a page was found young"):
            flushed(monkeypatch, 2 * wrong, 2, COUNTER)


@pytest.mark.parametrize("absent", [ASK_FLUSHING, FLUSHES[0], WALKED])
def test_the_counter_judges_where_the_order_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    three = 3 * (TOLD_YOUNG,)
    assert f"not shown: no {absent}" in flushed(monkeypatch, three, 3, COUNTER, absent=absent)
    assert flushed(monkeypatch, (), 0, COUNTER, absent=absent)
    with pytest.raises(AssertionError, match="TLB was invalidated 2 times"):
        flushed(monkeypatch, three, 2, COUNTER, absent=absent)
    # Of a kernel without it, or where another VM has one of its own, nothing is asked.
    assert "not shown" in flushed(monkeypatch, three, 2, "exits", absent=absent)
    assert "not shown" in flushed(monkeypatch, three, None, COUNTER, absent=absent)


def test_a_kernel_that_does_not_show_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is not shown" in flushed(monkeypatch, (), 0, COUNTER, absent=TOLD)


def test_who_asks_about_other_vms_is_not_counted() -> None:
    asks = with_flushing(Wanted(ours=("sh", "kvm-guest"))).returns[ASK_FLUSHING]
    assert asks == 'ret != 0 && (comm == "sh" || comm == "kvm-guest")'
    assert with_flushing(Wanted()).returns[ASK_FLUSHING] == "ret != 0"
