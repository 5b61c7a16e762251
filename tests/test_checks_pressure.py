# SPDX-License-Identifier: GPL-2.0-only
"""Reclaim under pressure: what a real kernel counted, the model of generations, and the asking."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from types import SimpleNamespace
from typing import cast, get_args

import pytest

from harness.checks import generations, notices, pressure
from harness.checks.claim import Claim
from harness.checks.flushes import FLUSHES
from harness.checks.generations import Generations
from harness.checks.mglru import Squeezed
from harness.checks.notices import Notices
from harness.checks.overlap import AGE, TEST
from harness.checks.pressure import Reading, Regions
from harness.checks.test_pressure import (
    check_locks,
    check_lost,
    check_once,
    check_order,
    check_refaults,
    check_sums,
    must_be_restored,
)
from harness.contract import Expectation
from harness.contract_file import LockRule
from harness.guests import Guest
from harness.observe import lockdep, memcg
from harness.observe.errors import ObserveError
from harness.observe.lru_gen import Generation, Lruvec
from harness.observe.trace import Counts, Event, Probe, Wanted, together
from harness.observe.unproven import Unproven

DATA = Path(__file__).parent / "data" / "observe" / "pressure"
NONCE = "N" * 32
REGIONS = pressure.lay_out(random.Random(1), hot=128, warm=384, cold=1536)
# 1,536 cold and 192 warm pages were reclaimed between "start" and "pressed", then read again.
LOST = REGIONS.cold | frozenset(sorted(REGIONS.warm)[:192])


def saved(name: str) -> Reading:
    return pressure.parse_reading((DATA / f"{name}.txt").read_text(), NONCE)


def changed(reading: Reading, source: str, name: str, by: int) -> Reading:
    if source == "vmstat":
        vmstat = {**reading.vmstat, name: reading.vmstat[name] + by}
        return dataclasses.replace(reading, vmstat=vmstat)
    return dataclasses.replace(reading, stat={**reading.stat, name: reading.stat[name] + by})


def sums_of(
    claim: Claim,
    after: Reading,
    *,
    lost: frozenset[int] = LOST,
    late: Reading | None = None,
) -> None:
    """Judges what is told after reclaim, and then later, which is the same if not given."""
    check_sums(claim, saved("start"), after, lost, "walk", lambda: late or after)


def refaults_of(claim: Claim, back: Reading) -> None:
    recent = must_be_restored(REGIONS, LOST, "walk")
    check_refaults(claim, saved("pressed"), back, LOST, recent, "walk", lambda: back)


@pytest.fixture
def claim(tmp_path: Path) -> Claim:
    return Claim(tmp_path, "")


# ---- readings and sums ----------------------------------------------------------------------


def test_a_reading_of_a_real_host() -> None:
    start, pressed = saved("start"), saved("pressed")
    assert (start.swapped, pressed.swapped) == (0, 1742)
    assert pressed.stat["pgsteal"] == 1742
    assert pressed.lruvec is not None
    assert [one.anon for one in pressed.lruvec.generations] == [194, 141, 0]
    assert start.current > pressed.current > 0


def test_a_removed_memcg_that_is_listed_still_is_passed_over() -> None:
    text = (DATA / "start.txt").read_text()
    stale = "memcg     7 /kvm-harness\n node     0\n          0  1  0  0 \n          1  1  0  0 \n"
    reading = pressure.parse_reading(text.replace(f"{NONCE} last", f"{stale}{NONCE} last"), NONCE)
    assert reading.lruvec == saved("start").lruvec


def test_the_script_asks_for_what_is_parsed() -> None:
    script = pressure.reading_script(NONCE, 54)
    assert script.index("cpu.stat") < script.index("memory.stat")
    assert script.index("stat_refresh") < script.index("/proc/vmstat")
    assert "/proc/54/smaps_rollup" in script
    # What others do is in the root's: whatever they did to what is read between.
    first, last = script.index("/sys/fs/cgroup/memory.stat"), script.rindex("cgroup/memory.stat")
    assert first < script.index("/proc/vmstat") and script.index("lru_gen") < last


@pytest.mark.parametrize("last", ["pressed", "back"])
def test_the_sums_of_a_sound_kernel_agree(last: str) -> None:
    found = pressure.sums(saved("start"), saved(last), mglru=True)
    assert len(found) == 9
    assert all(one.values[0] == one.values[1] for one in found)


_PARTS = "the sum of its parts"
_REFAULT = "workingset_refault_anon"
_SWAPPED = "swapped in page tables"


@pytest.mark.parametrize(
    ("source", "name", "wrong"),
    [
        ("vmstat", "pgscan_anon", {"pgscan of memory.stat"}),
        ("vmstat", "pgsteal_anon", {"pgsteal of memory.stat", "pswpout + swpout_zero"}),
        ("vmstat", "pswpout", {"pswpout + swpout_zero", _SWAPPED}),
        ("vmstat", "pswpin", {"pswpin + swpin_zero", _SWAPPED}),
        ("vmstat", _REFAULT, {"pswpin + swpin_zero", f"{_REFAULT} of memory.stat"}),
        ("stat", "pgscan", {"pgscan of memory.stat", _PARTS}),
        ("stat", "pgsteal", {"pgsteal of memory.stat", _PARTS}),
        ("stat", "pgscan_direct", {_PARTS}),
        ("stat", "pgsteal_direct", {_PARTS}),
        ("stat", _REFAULT, {f"{_REFAULT} of memory.stat"}),
    ],
)
def test_a_counter_that_is_off_by_one_is_a_finding(
    source: str, name: str, wrong: set[str], claim: Claim
) -> None:
    """In each of the sums that it is in."""
    after = changed(saved("pressed"), source, name, 1)
    found = pressure.sums(saved("start"), after, mglru=True)
    assert {one.right for one in found if one.values[0] != one.values[1]} == wrong
    with pytest.raises(AssertionError, match=r" is .*, .* is "):
        sums_of(claim, after)


def test_an_lru_list_that_is_off_by_a_page_is_a_finding(claim: Claim) -> None:
    wrong = changed(saved("pressed"), "stat", "inactive_anon", 4096)
    with pytest.raises(AssertionError, match="generations"):
        sums_of(claim, wrong)


def test_absent_pages_that_are_not_in_swap_are_a_finding(claim: Claim) -> None:
    sums_of(claim, saved("pressed"))
    with pytest.raises(AssertionError, match="tested ones are absent"):
        sums_of(claim, saved("pressed"), lost=REGIONS.all)


def by_others(reading: Reading, name: str, by: int) -> Reading:
    """What the root tells when another memcg did so much as well."""
    return dataclasses.replace(reading, last={**reading.last, name: reading.last[name] + by})


@pytest.mark.parametrize(
    ("host", "root"),
    [
        # Another memcg is reclaimed, which pgscan_kswapd and pgscan_direct leave out.
        ("pgscan_anon", "pgscan"),
        ("pgsteal_anon", "pgsteal"),
        # Another process reads its pages back.
        ("pswpin", "workingset_refault_anon"),
        ("workingset_refault_anon", "workingset_refault_anon"),
    ],
)
def test_what_others_do_is_no_finding(host: str, root: str, claim: Claim) -> None:
    after = changed(saved("pressed"), "vmstat", host, 3)
    # The root's may lag: it is the later reading that tells.
    sums_of(claim, after, late=by_others(after, root, 3))
    (words,) = claim.unjudged
    assert words.endswith(f"but {root} of other memcgs rose by 3")
    assert (claim.path("counters-late.txt")).exists()


def test_what_others_do_excuses_nothing_of_our_memcg(claim: Claim) -> None:
    after = changed(saved("pressed"), "stat", "pgscan_direct", 3)
    with pytest.raises(AssertionError, match="sum of its parts"):
        sums_of(claim, after, late=by_others(after, "pgscan", 3))


def test_reclaim_for_the_host_is_no_finding(claim: Claim) -> None:
    after = changed(changed(saved("pressed"), "vmstat", "pgscan_kswapd", 3), "stat", "pgscan", 1)
    sums_of(claim, after)
    assert claim.unjudged[0].endswith("but pgscan_kswapd rose by 3")


@pytest.mark.parametrize("name", ["pgscan_kswapd", "pgmigrate_success"])
def test_pages_that_the_host_took_or_moved_prove_nothing(name: str, claim: Claim) -> None:
    late = changed(saved("pressed"), "vmstat", name, 1)
    with (
        pytest.raises(Unproven, match=f"1 hot pages .*; but {name} rose by 1"),
        pressure.judged_alone(saved("start"), lambda: late),
    ):
        check_lost(claim, REGIONS, LOST & REGIONS.cold - {1600} | {min(REGIONS.hot)}, 1)
    with (
        pytest.raises(AssertionError),
        pressure.judged_alone(saved("start"), lambda: saved("pressed")),
    ):
        check_lost(claim, REGIONS, LOST & REGIONS.cold - {1600} | {min(REGIONS.hot)}, 1)


def test_what_agrees_is_judged_whoever_was_there(claim: Claim) -> None:
    sums_of(claim, by_others(saved("pressed"), "pgscan", 7))
    assert not claim.unjudged
    assert "all sums agree" in claim.observed


def test_no_more_is_stolen_than_scanned() -> None:
    start, after = saved("start"), saved("pressed")
    for name in ("pgsteal", "pgsteal_direct"):
        after = changed(after, "stat", name, 10_000)
    wrong = pressure.contradictions(start, after, mglru=True)
    assert any("and pgscan only" in one for one in wrong.own)


def test_refaults_are_those_of_the_pages_that_went(claim: Claim) -> None:
    refaults_of(claim, saved("back"))
    fewer = changed(saved("back"), "stat", "workingset_refault_anon", -100)
    with pytest.raises(AssertionError, match="refaults of 1728 pages"):
        refaults_of(claim, fewer)
    more = changed(saved("back"), "stat", "workingset_restore_anon", 1)
    with pytest.raises(AssertionError, match="restored"):
        refaults_of(claim, more)


def test_pages_of_the_oldest_generation_are_restored(claim: Claim) -> None:
    assert must_be_restored(REGIONS, LOST, "walk") == 192
    assert must_be_restored(REGIONS, REGIONS.cold, "no_walk") == 1536
    assert must_be_restored(REGIONS, LOST, "classic") == 0
    none = saved("back")
    for name in ("workingset_restore_anon", "workingset_activate_anon"):
        none = changed(none, "stat", name, saved("pressed").stat[name] - none.stat[name])
    with pytest.raises(AssertionError, match="0 pages restored, where at least 192 must be"):
        refaults_of(claim, none)


def test_swap_is_read_once_and_whole() -> None:
    assert memcg.parse_swapped("Rss:  4 kB\nSwap:               6968 kB\nSwapPss:  1 kB\n") == 1742
    with pytest.raises(ObserveError):
        memcg.parse_swapped("Rss:  4 kB\n")
    with pytest.raises(ObserveError):
        memcg.parse_stat("anon 4096\n")
    with pytest.raises(ObserveError):
        memcg.parse_stat("anon 4096\npgscan 1\npgscan 1\n")


# ---- what went ------------------------------------------------------------------------------


def test_only_cold_pages_may_go(claim: Claim) -> None:
    some = frozenset(sorted(REGIONS.cold)[:700])
    check_lost(claim, REGIONS, some, 700)
    for region in (REGIONS.hot, REGIONS.warm):
        with pytest.raises(AssertionError, match=r"1 (hot|warm) pages were evicted, while 836"):
            check_lost(claim, REGIONS, some | {min(region)}, 700)
    with pytest.raises(AssertionError, match="all cold"):
        check_lost(claim, REGIONS, REGIONS.cold, 700)


def test_as_many_go_as_have_to(claim: Claim) -> None:
    some = frozenset(sorted(REGIONS.cold)[:700])
    with pytest.raises(AssertionError, match="700 tested pages are gone where 701 have to be"):
        check_lost(claim, REGIONS, some, 701)
    with pytest.raises(Unproven, match="need not have cost"):
        check_lost(claim, REGIONS, some, 0)


def test_what_is_charged_bounds_what_can_be_there() -> None:
    now = changed(saved("start"), "stat", "kernel", 5 * 4096 - saved("start").stat["kernel"])
    # 1,344 pages are charged at most, 5 of them the kernel's; and a batch came meanwhile.
    assert pressure.least_lost(Squeezed(high=1344, used=1344), now, 2048) == 2048 + 5 - 1344 - 64
    # Whatever other CPUs hold charged in advance: a limit that leaves room for all forces nothing.
    assert pressure.least_lost(Squeezed(high=2112, used=2112), now, 2048) < 0


def test_the_last_cold_page_goes_before_the_first_warm_one(claim: Claim) -> None:
    check_order(claim, REGIONS, LOST)
    with pytest.raises(AssertionError, match="before 1 cold"):
        check_order(claim, REGIONS, LOST - {min(REGIONS.cold)})
    with pytest.raises(AssertionError, match="1 hot"):
        check_order(claim, REGIONS, LOST | {min(REGIONS.hot)})
    with pytest.raises(Unproven):
        check_order(claim, REGIONS, REGIONS.cold)


def test_regions_are_apart_and_cold_comes_last() -> None:
    orders = set()
    for seed in range(20):
        regions = pressure.lay_out(random.Random(seed), hot=128, warm=384, cold=1536)
        assert regions.all == frozenset(range(2048))
        assert [len(one) for one in (regions.hot, regions.warm, regions.cold)] == [128, 384, 1536]
        assert min(regions.cold) == 512
        orders.add(min(regions.hot))
    assert orders == {0, 384}


def test_cold_pages_beside_others_are_not_apart() -> None:
    regions = Regions(frozenset({0}), frozenset({200}), frozenset(range(1, 200)))
    assert regions.apart() == frozenset(range(65, 136))


# ---- generations ----------------------------------------------------------------------------


def lruvec(oldest: int, *anon: int) -> Lruvec:
    ages = (Generation(oldest + at, 0, pages, 0) for at, pages in enumerate(anon))
    return Lruvec(2, "/kvm-harness", 0, tuple(ages))


def test_generations_move_as_on_a_real_kernel() -> None:
    """The numbers are those of generations.jsonl of the run that the saved readings are from."""
    start = saved("start").lruvec
    assert start is not None
    model = generations.new(start, REGIONS.all)
    seen = [(1, 0, 0, 2077, 0), (2, 0, 1550, 527, 0), (3, 1550, 0, 527, 0), (4, 1550, 386, 141, 0)]
    for warm, histogram in zip((False, True, True, False), seen, strict=True):
        model = model.aged(REGIONS.hot | (REGIONS.warm if warm else frozenset()))
        assert generations.differences(model, lruvec(*histogram)) == ()
    assert [len(one) for one in model.members] == [1536, 384, 128, 0]


@pytest.mark.parametrize(
    "histogram",
    [
        (4, 1535, 401, 141, 0),  # a cold page in the generation of the warm ones
        (4, 1550, 383, 144, 0),  # a warm page in that of the hot ones
        (3, 1550, 386, 141, 0),  # the oldest is older
        (4, 1550, 386, 141),  # one too few
        (4, 1500, 386, 141, 0),  # pages missing in all
    ],
)
def test_a_histogram_that_is_not_the_models(histogram: tuple[int, ...]) -> None:
    members = (REGIONS.cold, REGIONS.warm, REGIONS.hot, frozenset[int]())
    # 29 pages are the owner's own, wherever they are.
    assert not generations.differences(Generations(4, members), lruvec(4, 1536, 413, 128, 0))
    assert generations.differences(Generations(4, members), lruvec(*histogram))


# ---- how often KVM was asked ----------------------------------------------------------------

HVA = 0xFFFF00000000
VM = cast(
    Guest, SimpleNamespace(greeting=SimpleNamespace(slot_hva=HVA), slot=SimpleNamespace(pages=4))
)


def asked(name: str, *pages: int) -> tuple[Event, ...]:
    events = []
    for page in pages:
        hva = HVA + page * 4096
        fields = {"hva": hva} if name == TEST else {"start": hva, "end": hva + 4096}
        events.append(Event(0, 0, "sh", 1, name, "", fields))
    return tuple(events)


def recording(*events: Event, lost: int = 0, flushes: int = 0) -> Counts:
    wanted = notices.recorded(Wanted())
    probes = {name: Probe(flushes, 0) for name in wanted.functions}
    absent = {lockdep.ACQUIRE: "this kernel has no such event"}
    return Counts(wanted, absent, lost, probes, events, "raw\n")


def test_once_is_neither_twice_nor_never() -> None:
    seen = notices.notices(recording(*asked(AGE, 0, 1, 3, 3)), VM)
    assert seen == Notices((1, 1, 0, 2), (0, 0, 0, 0))
    assert seen.once(frozenset({0, 1})) == ""
    assert "page 3 among them, had 2 kvm_age_hva instead of 1" in seen.once(frozenset({0, 1, 3}))
    assert "page 2 among them, had 0" in seen.once(frozenset({1, 2}))
    assert seen.once(frozenset({2}), 0) == ""


def test_a_test_beside_the_clearing_is_a_second_call() -> None:
    events = (*asked(AGE, 0, 1), *asked(TEST, 1))
    seen = notices.notices(recording(*events), VM)
    assert "page 1 among them, had 1 kvm_test_age_hva instead of 0" in seen.once(frozenset({0, 1}))


def once(claim: Claim, *passes: tuple[Event, ...], reaches: bool = True) -> None:
    expectation = cast(Expectation, SimpleNamespace(event=AGE, reaches_kvm=reaches))
    recordings = [recording(*events) for events in passes]
    check_once(claim, expectation, recordings, VM, frozenset({0, 1}))


def test_each_pass_asks_about_each_page_once(claim: Claim) -> None:
    both = asked(AGE, 0, 1)
    once(claim, both, both)
    assert claim.observed == "2 times 1 calls for each of 2 pages"
    # Two for each page in all of them.
    with pytest.raises(AssertionError, match=r"in pass 0 1 of 2 pages, page 0 .* had 2 kvm_age"):
        once(claim, asked(AGE, 0, 0, 1), asked(AGE, 1))
    with pytest.raises(AssertionError, match=r"in pass 1 1 of 2 pages, page 1 .* had 0 kvm_age"):
        once(claim, both, asked(AGE, 0), asked(AGE, 0, 1, 1))


def test_a_path_without_an_event_is_not_judged(claim: Claim) -> None:
    check_once(claim, cast(Expectation, SimpleNamespace(event=None)), [], VM, frozenset({0}))
    assert "no event to count" in claim.unjudged[0]


def test_a_pass_that_must_not_ask_asks_about_none(claim: Claim) -> None:
    once(claim, (), asked(AGE, 2), reaches=False)
    with pytest.raises(AssertionError, match="in pass 1 1 of 2 pages, page 1"):
        once(claim, (), asked(AGE, 1), reaches=False)


def test_several_recordings_add_up_and_none_is_lost_in_silence() -> None:
    first = recording(*asked(AGE, 0), flushes=2)
    second = recording(*asked(AGE, 0, 1), flushes=3)
    both = together([first, second])
    assert notices.notices(both, VM).aged == (2, 1, 0, 0)
    assert both.of(FLUSHES[0]) == 5
    with pytest.raises(Unproven):
        notices.notices(together([first, recording(lost=1)]), VM)
    with pytest.raises(ValueError):
        together([])


def test_costs_are_numbers_or_the_reason_why_there_is_none() -> None:
    regions = Regions(frozenset({0}), frozenset({1}), frozenset({2, 3}))
    cost = notices.cost(recording(*asked(AGE, 0, 2, 3, 3), flushes=7), VM, regions)
    assert isinstance(cost, dict)
    assert cost["age_hva"] == {"hot": 1, "warm": 0, "cold": 3}
    assert cost["age_hva_most_for_a_page"] == 2
    assert cost["flushes"] == {name: 7 for name in FLUSHES}
    assert str(cost["mmu_lock"]).startswith("unavailable: ")
    lost = notices.cost(recording(lost=3), VM, regions)
    assert isinstance(lost, str) and lost.endswith("lost 3 events")


def test_locks_are_counted_by_access() -> None:
    texts = [
        "00000000a1b2c3d4 &(kvm)->mmu_lock",
        "00000000a1b2c3d4 read &(kvm)->mmu_lock",
        "00000000a1b2c3d4 try read &(kvm)->mmu_lock",
        "00000000a1b2c3d4 try &(kvm)->mmu_lock",
        "0x1 &(kvm)->mmu_lock",
    ]
    assert lockdep.by_access(texts) == (3, 2)
    with pytest.raises(ObserveError):
        lockdep.by_access(["&(kvm)->mmu_lock"])


def lock(access: str = "") -> Event:
    return Event(0, 0, "sh", 1, lockdep.ACQUIRE, f"00000000a1b2c3d4 {access}&(kvm)->mmu_lock", {})


def locks(claim: Claim, rule: LockRule, *events: Event) -> None:
    wanted = notices.recorded(Wanted())
    check_locks(claim, rule, Counts(wanted, {}, 0, {}, events, ""), VM)


def test_each_call_for_a_tested_page_takes_the_lock_once(claim: Claim) -> None:
    rule = LockRule(takes="write", always=True)
    one, other = (asked(AGE, page) for page in (0, 1))
    elsewhere = asked(AGE, 100)
    locks(claim, rule, *one, lock(), *elsewhere, *other, lock(), *elsewhere, lock())
    assert claim.observed == "2 calls to age tested pages: 2 write locks, 0 read locks"
    with pytest.raises(AssertionError, match="1 times, where each must take it"):
        locks(claim, rule, *one, lock(), *other)
    with pytest.raises(AssertionError, match="2 times for writing, where 1 times are the most"):
        locks(claim, rule, *one, lock(), lock())
    with pytest.raises(AssertionError, match="1 times for reading, where 0 times are the most"):
        locks(claim, LockRule(takes="none"), *one, lock("read "))


@pytest.mark.parametrize(
    ("bit", "off"),
    [
        (None, ()),
        (0x2, ("no_walk", "classic")),
        (0x8, ("no_walk", "classic")),
        (0x10, ("classic",)),
    ],
)
def test_which_lru_has_a_bit_clear(bit: int | None, off: tuple[str, ...]) -> None:
    assert tuple(one for one in get_args(pressure.Lru) if pressure.clears(one, bit)) == off
