# SPDX-License-Identifier: GPL-2.0-only
"""What a contract expects where, of drivers, costs, locks and flushes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from contract_helpers import (
    A57,
    FAST,
    LOCKLESS,
    LOCKLESS_AGING,
    N1,
    N1_SOFTWARE,
    PROTECTED,
    refusal,
    write,
)

from harness.contract_file import Driver, FlushRule, LockRule
from harness.contract_load import BASE, load, load_step
from harness.paths import PROJECT
from harness.situation import Situation, situations


@pytest.mark.parametrize(
    ("version", "applies"),
    [("6.12", True), ("6.12.117", True), ("6.12-rc3", True), ("6.1", False), ("6.120.1", False)],
)
def test_kernel_version(version: str, applies: bool) -> None:
    assert load(None).applies_to(version) is applies


def test_fast_path_is_taken_where_it_says_and_never_elsewhere(tmp_path: Path) -> None:
    contract = load(write(tmp_path, FAST))
    taken = contract.expect("mglru_walk", N1)
    assert taken.enters == (("kvm_arch_test_clear_young",),)
    assert taken.lru_gen_bit == 0x8
    assert taken.fast_path == ("kvm_arch_test_clear_young",)
    assert "kvm_arch_test_clear_young" not in taken.never
    assert "kvm_arch_test_clear_young" in contract.expect("mglru_walk", N1, bit_off=True).never
    elsewhere_cells: list[tuple[Driver, Situation]] = [
        ("mglru_walk", PROTECTED),
        ("mglru_walk", N1_SOFTWARE),
        ("mglru_walk", A57),
        ("page_idle", N1),
        ("eviction", N1),
    ]
    for driver, situation in elsewhere_cells:
        elsewhere = contract.expect(driver, situation)
        assert "kvm_arch_test_clear_young" in elsewhere.never
        assert elsewhere.fast_path == taken.fast_path
        assert elsewhere.lru_gen_bit is None
    assert load(None).expect("page_idle", N1).never == tuple(
        name
        for name in contract.expect("page_idle", N1).never
        if name != "kvm_arch_test_clear_young"
    )


def test_fast_path_without_drivers_is_entered_by_the_paths_that_say_so(tmp_path: Path) -> None:
    contract = load(write(tmp_path, LOCKLESS))
    taken = contract.expect("page_idle", N1)
    assert taken.enters == (("age_lockless",),)
    assert taken.never == ("test_lockless",)
    assert taken.event == "kvm:kvm_age_hva"
    cells: list[tuple[Driver, Situation]] = [("page_idle", PROTECTED), ("eviction", N1)]
    for driver, situation in cells:
        assert {"age_lockless", "test_lockless"} <= set(contract.expect(driver, situation).never)


MAY = LOCKLESS.replace(
    "drivers:\n",
    """\
  beside:
    pages: each
    event: "kvm:kvm_age_hva"
    enters: [[kvm_age_gfn]]
    may: [age_lockless]
drivers:
  eviction_blocks:
    - {path: beside, modes: [vhe, nvhe]}
    - {path: reverse_map_blocks, modes: [protected]}
""",
)


def test_what_other_memory_may_enter_is_not_asked(tmp_path: Path) -> None:
    contract = load(write(tmp_path, MAY))
    beside = contract.expect("eviction_blocks", N1)
    assert beside.enters == (("kvm_age_gfn",),)
    assert beside.never == ("test_lockless",)
    assert "age_lockless" in contract.expect("eviction_blocks", PROTECTED).never


def test_what_may_be_entered_where_nothing_may(tmp_path: Path) -> None:
    text = MAY.replace("fast_path:\n", "").replace("  modes: [vhe, nvhe]\n", "")
    text = text.replace("  functions: [age", "fast_path:\n  modes: [vhe]\n  functions: [age")
    text = text.replace("path: lockless, modes: [vhe, nvhe]", "path: lockless, modes: [vhe]")
    text = text.replace("idle_tracking, modes: [prot", "idle_tracking, modes: [nvhe, prot")
    assert "eviction_blocks enters age_lockless by path 'beside' in mode nvhe" in refusal(
        tmp_path, text
    )


def test_counters_count_where_their_conditions_hold(tmp_path: Path) -> None:
    text = """\
kernel: "6.12"
counters:
  - {name: fast, modes: [vhe, nvhe], stage2_af: hardware}
  - {name: all}
"""
    contract = load(write(tmp_path, text))
    assert contract.expect_counters(N1) == {"fast": True, "all": True}
    for situation in (N1_SOFTWARE, A57, PROTECTED):
        assert contract.expect_counters(situation) == {"fast": False, "all": True}
    assert load(None).expect_counters(N1) == {}


def test_costs_are_promised_where_their_conditions_hold(tmp_path: Path) -> None:
    text = """\
kernel: "6.12"
cost:
  - {metric: cost-idle, promise: better, modes: [vhe]}
  - {metric: cost-idle, promise: not-worse, modes: [nvhe, protected]}
"""
    contract = load(write(tmp_path, text))
    assert contract.expect_cost(N1) == {"cost-idle": "better"}
    assert contract.expect_cost(PROTECTED) == {"cost-idle": "not-worse"}
    assert load(None).expect_cost(N1) == {}


def test_aging_flushes_as_the_base_says_unless_the_series_says_otherwise(tmp_path: Path) -> None:
    lockless = load(PROJECT / "series/lockless-aging/series.yaml")
    text = """\
kernel: "6.12"
aging_flushes:
  - {flushes: each, stage2_af: software}
  - {flushes: none, stage2_af: hardware}
"""
    flushing = load(write(tmp_path, text))
    for situation in situations():
        for contract in (load(None), lockless):
            assert contract.expect_flushes(situation) == FlushRule(flushes="none")
        found = flushing.expect_flushes(situation)
        assert found is not None
        assert found.flushes == ("each" if situation.stage2_af == "software" else "none")


def test_a_step_may_do_what_the_base_does_or_what_the_whole_series_does() -> None:
    step, base, whole = load_step(LOCKLESS_AGING, BASE), load(None), load(LOCKLESS_AGING)
    for driver in get_args(Driver):
        for situation in situations():
            seen = step.expect(driver, situation)
            assert seen.otherwise == whole.expect(driver, situation)
            assert replace(seen, otherwise=None) == base.expect(driver, situation)


def test_a_step_may_take_the_mmu_lock_as_either_does() -> None:
    step = load_step(LOCKLESS_AGING, BASE)
    for situation in situations():
        taken = step.expect_mmu_lock(situation)
        assert taken["access_fault"] == LockRule(takes="read", always=True)
        # Outside pKVM it may take the base's lock, or none as the whole series has it.
        always = situation.mode == "protected"
        assert taken["aging"] == LockRule(takes="write", always=always)
    harvest = PROJECT / "series/lockless-harvest-v1/series.yaml"
    assert load_step(harvest, BASE.with_name("base-6.2.yaml")).expect_mmu_lock(N1) == {}


def test_a_step_may_visit_and_flush_as_much_as_either_does(tmp_path: Path) -> None:
    own = tmp_path / "series.yaml"
    own.write_text(
        'kernel: "6.12"\n'
        "aging_flushes: [{flushes: each}]\n"
        "mmu_lock:\n  aging: [{takes: write, visits: 1024}]\n"
        "  access_fault: [{takes: read, visits: 1}]\n"
    )
    step, base = load_step(own, BASE), load(None).expect_flushes(N1)
    assert base == FlushRule(flushes="none")
    assert step.expect_flushes(N1) == FlushRule(flushes="each")
    found = step.expect_mmu_lock(N1)
    assert (found["aging"].visits, found["access_fault"].visits) == (1024, 512)
    assert load_step(LOCKLESS_AGING, BASE).expect_flushes(N1) == base


def test_a_step_keeps_out_of_the_fast_path_as_the_whole_series_does() -> None:
    functions = ("kvm_age_gfn_lockless", "kvm_test_age_gfn_lockless")
    whole, step = load(LOCKLESS_AGING), load_step(LOCKLESS_AGING, BASE)
    for contract, later in ((whole, ()), (step, functions)):
        nobody = contract.expect_nobody("walk_pud_range", event=None)
        assert nobody.never == ("walk_pud_range", *functions)
        assert (nobody.fast_path, nobody.later) == (functions, later)
    assert load(None).expect_nobody(event=None).never == ()
