# SPDX-License-Identifier: GPL-2.0-only
"""What a trace must show for a contract to be kept; nothing that is absent counts as kept."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.checks.claim import Claim
from harness.checks.driver import (
    check_faults,
    check_path,
    functions_only,
    see_fast_path,
    wanted,
)
from harness.checks.pages import pick, shorten, show_set
from harness.contract import Expectation
from harness.contract_file import Driver
from harness.observe.trace import Counts, Event, Probe, by_others
from harness.observe.unproven import Unproven

HVA, IPA, PAGES, SIZE = 0xFFFF_A000_0000, 0x8000_0000, 4, 4096
AGE = "kvm:kvm_age_hva"
FAULT = "kvm:kvm_access_fault"
EXPECTED = Expectation(True, (("first", "second"),), ("fast",), AGE)
GUEST: Any = SimpleNamespace(
    greeting=SimpleNamespace(slot_hva=HVA), slot=SimpleNamespace(ipa=IPA, pages=PAGES)
)


def event(name: str, **fields: int) -> Event:
    return Event(0, 0, "task", 1, name, "", fields)


def age(page: int, count: int = 1) -> Event:
    return event(AGE, start=HVA + page * SIZE, end=HVA + (page + count) * SIZE)


def counts(
    *recorded: Event,
    absent: dict[str, str] | None = None,
    lost: int = 0,
    drivers: tuple[Driver, ...] = (),
) -> Counts:
    """Of functions each entry, by others than our tasks if it is called so."""
    asked = wanted(EXPECTED, *drivers)
    probes = {
        name: Probe(sum(event.name in (name, by_others(name)) for event in recorded), missed=0)
        for name in asked.functions
        if name not in (absent or {})
    }
    shown = (*asked.events, *asked.names.values())
    events = tuple(event for event in recorded if event.name in shown)
    return Counts(asked, absent or {}, lost, probes, events, "")


def check(found: Counts, expectation: Expectation = EXPECTED) -> None:
    session: Any = SimpleNamespace(absent=found.absent)
    check_path(Claim(Path("unused"), ""), expectation, session, found, GUEST)


ALL = [age(page) for page in range(PAGES)]


def test_kept() -> None:
    check(counts(event("first"), *ALL))


def test_second_name_serves_where_the_first_is_absent() -> None:
    check(counts(event("second"), *ALL, absent={"first": "inlined"}))


@pytest.mark.parametrize(
    ("recorded", "words"),
    [
        ([*ALL], "first was never entered"),
        ([event("first"), *ALL[1:]], "not asked for 1 pages: 0"),
        ([event("first"), event("fast"), *ALL], "fast was entered 1 times"),
        ([event("first"), age(0, 4)], "more than one page"),
    ],
)
def test_broken(recorded: list[Event], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check(counts(*recorded))


def test_only_what_is_present_can_be_asked_for() -> None:
    found = counts(event("first"), *ALL[:3])
    session: Any = SimpleNamespace(absent=found.absent)
    claim = Claim(Path("unused"), "")
    check_path(claim, EXPECTED, session, found, GUEST, frozenset({0, 1, 2}))
    with pytest.raises(AssertionError, match="asked for 1 pages: 2"):
        check_path(claim, EXPECTED, session, found, GUEST, frozenset({0, 1}))


def test_nowhere_means_no_tested_page() -> None:
    nowhere = Expectation(False, (), ("fast",), AGE)
    check(counts(age(PAGES), age(-1)), nowhere)
    with pytest.raises(AssertionError, match="asked for 1 pages: 2"):
        check(counts(age(2)), nowhere)


def test_what_cannot_be_seen_is_unproven() -> None:
    with pytest.raises(Unproven, match="lost 3"):
        check(counts(event("first"), *ALL, lost=3))
    with pytest.raises(Unproven, match="inlined"):
        check(counts(*ALL, absent={"first": "inlined", "second": "inlined"}))
    with pytest.raises(Unproven, match="not there"):
        check(counts(event("first"), *ALL, absent={"fast": "not there"}))


def test_what_is_wrong_outranks_what_cannot_be_seen() -> None:
    with pytest.raises(AssertionError, match="not asked for 1 pages"):
        check(counts(event("first"), *ALL[1:], absent={"fast": "not there"}))
    with pytest.raises(AssertionError, match="more than one page"):
        check(counts(age(0, 4), absent={"first": "inlined", "second": "inlined"}))


@pytest.mark.parametrize(
    ("promised", "pages", "mode"),
    [("touched", {1, 3}, "software"), ("none", set(), "hardware")],
)
def test_faults_tell_who_sets_the_flag(promised: str, pages: set[int], mode: str) -> None:
    claim = Claim(Path("unused"), "")
    found = counts(*(event(FAULT, ipa=IPA + page * SIZE) for page in pages))
    check_faults(claim, promised, found, GUEST.slot, frozenset({1, 3}))
    assert claim.af_observed == mode


@pytest.mark.parametrize(
    ("promised", "pages", "observed"),
    [("touched", set(), "hardware"), ("none", {1, 3}, "software"), ("touched", {1, 2}, None)],
)
def test_other_faults_fail(promised: str, pages: set[int], observed: str | None) -> None:
    claim = Claim(Path("unused"), "")
    found = counts(*(event(FAULT, ipa=IPA + page * SIZE) for page in pages))
    with pytest.raises(AssertionError, match="access faults"):
        check_faults(claim, promised, found, GUEST.slot, frozenset({1, 3}))
    assert claim.af_observed == observed


def test_faults_outside_the_slot_do_not_count() -> None:
    found = counts(event(FAULT, ipa=IPA - SIZE), event(FAULT, ipa=IPA + PAGES * SIZE))
    check_faults(Claim(Path("unused"), ""), "none", found, GUEST.slot, frozenset({1}))


def test_words_for_sets() -> None:
    assert show_set(frozenset({1}), frozenset({1})) == "1 young, exactly those expected"
    words = show_set(frozenset({1, 2}), frozenset({2, 3}))
    assert "not young: 1" in words
    assert "without a touch: 3" in words
    assert len(shorten(frozenset(range(0, 4096, 2)))) <= 60


def test_pick_stays_in_bounds_and_takes_one_of_a_block() -> None:
    import random

    for seed in range(20):
        pages = pick(random.Random(seed), 4096, 512)
        assert 2 <= len(pages) <= 6
        assert len({page // 512 for page in pages}) == len(pages)
        assert max(pages) < 4096


FAST = Expectation(True, (("fast",),), (), None)


@pytest.mark.parametrize(
    ("recorded", "held"),
    [([event("first"), *ALL], EXPECTED), ([event("fast")], FAST)],
    ids=["as the base", "as the whole series"],
)
def test_either_promise_will_do(recorded: list[Event], held: Expectation) -> None:
    either = replace(EXPECTED, otherwise=FAST)
    found = counts(*recorded)
    session: Any = SimpleNamespace(absent={})
    kept = check_path(Claim(Path("unused"), ""), either, session, found, GUEST)
    assert (kept.enters, kept.otherwise is None) == (held.enters, held is FAST)


def test_neither_promise_is_kept() -> None:
    either = replace(EXPECTED, otherwise=FAST)
    with pytest.raises(AssertionError, match="fast was never entered"):
        check(counts(*ALL), either)
    with pytest.raises(Unproven, match="fast: not there"):
        check(counts(*ALL, absent={"fast": "not there"}), either)


def test_what_either_promise_needs_is_recorded() -> None:
    walk = Expectation(True, (("walk",),), (), "kvm:walked")
    asked = wanted(replace(EXPECTED, otherwise=walk))
    assert asked.events == (FAULT, AGE, "kvm:walked")
    assert asked.functions == ("first", "second", "fast", "walk")


SHUT = replace(EXPECTED, fast_path=("fast",))
BOTH = replace(SHUT, fast_path=("first", "fast"))


@pytest.mark.parametrize(
    ("recorded", "absent", "expectation", "seen"),
    [
        ([event("first"), *ALL], {}, SHUT, False),
        ([event("first"), *ALL], {}, BOTH, True),
        ([event("first"), event("fast"), *ALL], {}, SHUT, True),
        ([event("first"), *ALL], {"fast": "not there"}, SHUT, None),
        ([event("first"), *ALL], {"fast": "not there"}, BOTH, True),
        ([event("first"), *ALL], {}, EXPECTED, None),
    ],
)
def test_whether_the_fast_path_was_entered_is_told_whatever_is_right(
    recorded: list[Event], absent: dict[str, str], expectation: Expectation, seen: bool | None
) -> None:
    found = counts(*recorded, absent=absent)
    session: Any = SimpleNamespace(absent=absent)
    claim = Claim(Path("unused"), "")
    with contextlib.suppress(AssertionError, Unproven):
        check_path(claim, expectation, session, found, GUEST)
    assert claim.fast_path is seen


def test_a_fast_path_that_was_entered_once_was_entered() -> None:
    claim = Claim(Path("unused"), "")
    for recorded, seen in (((), False), ((event("fast"),), True), ((), True)):
        see_fast_path(claim, ("fast",), counts(*recorded))
        assert claim.fast_path is seen


def test_a_step_need_not_have_what_later_patches_bring() -> None:
    step = replace(EXPECTED, later=("fast",))
    check(counts(event("first"), *ALL, absent={"fast": "not there"}), step)
    with pytest.raises(AssertionError, match="fast was entered 1 times"):
        check(counts(event("first"), event("fast"), *ALL), step)


def test_functions_alone_can_be_held_to_the_contract() -> None:
    """Of memory that is aged by other sizes than 4 KiB, nothing is said of pages."""
    found = counts(event("first"), age(0, 2))
    with pytest.raises(AssertionError, match="not asked"):
        check(found)
    check(found, functions_only(EXPECTED))
    with pytest.raises(AssertionError, match="never entered"):
        check(counts(age(0, 2)), functions_only(replace(EXPECTED, otherwise=EXPECTED)))


def test_what_others_enter_is_not_held_against_the_task_that_ages() -> None:
    """kswapd walks page tables whatever page_idle does, and other VMs are aged."""
    asked = wanted(EXPECTED, "page_idle")
    assert asked.ours == ("kvm-guest",)
    assert asked.entries == EXPECTED.never
    assert asked.filters == {AGE: 'comm == "kvm-guest"', FAULT: 'comm == "kvm-guest"'}

    def found(*entered: str, lost: int = 0) -> Counts:
        events = [event(name) for name in entered]
        return counts(*events, *ALL, drivers=("page_idle",), lost=lost)

    check(found("first", by_others("first"), by_others("fast")))
    with pytest.raises(AssertionError, match="fast was entered 1 times"):
        check(found("first", "fast", by_others("fast")))
    with pytest.raises(AssertionError, match="first was never entered"):
        check(found())
    with pytest.raises(Unproven, match="first was entered 2 times, but by none of kvm-guest"):
        check(found(by_others("first"), by_others("first")))
    with pytest.raises(Unproven, match="does not tell by whom"):
        check(found("first", lost=1))


def test_a_fast_path_that_only_others_enter_was_not_entered() -> None:
    claim = Claim(Path("unused"), "")
    for name, seen in ((by_others("fast"), False), ("fast", True)):
        see_fast_path(claim, ("fast",), counts(event(name), drivers=("page_idle",)))
        assert claim.fast_path is seen
