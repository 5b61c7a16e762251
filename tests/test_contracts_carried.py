# SPDX-License-Identifier: GPL-2.0-only
"""What the contracts that the project carries say: of kernels without a series, and of series."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from contract_helpers import A57, ASKERS, N1, N1_SOFTWARE, PROTECTED

from harness.contract_file import Driver, LockRule
from harness.contract_load import BASE, base_for, load
from harness.inventory import KvmMode
from harness.paths import PROJECT
from harness.situation import Situation, situations


def test_base_walk_depends_on_stage_1_not_on_stage_2() -> None:
    base = load(None)
    assert base.expect("mglru_walk", N1).reaches_kvm
    assert base.expect("mglru_walk", N1_SOFTWARE).reaches_kvm
    walk = base.expect("mglru_walk", A57)
    assert not walk.reaches_kvm
    assert walk.enters == ()
    assert "kvm_age_gfn" in walk.never
    assert walk.event == "kvm:kvm_age_hva"


@pytest.mark.parametrize("driver", ["page_idle", "eviction", "eviction_blocks", "classic"])
def test_base_drivers_that_ask_for_every_page_everywhere(driver: Driver) -> None:
    base = load(None)
    for situation in situations():
        expectation = base.expect(driver, situation)
        assert expectation.reaches_kvm
        assert ("kvm_age_gfn",) in expectation.enters
        assert expectation.event == "kvm:kvm_age_hva"


def test_base_drivers_are_told_apart_by_functions_of_their_own() -> None:
    base = load(None)
    ways = {driver: base.expect(driver, N1).enters[:2] for driver in get_args(Driver)}
    # The classic LRU asks about each page as MGLRU asks about huge ones.
    assert ways.pop("classic") == ways["eviction_blocks"]
    assert len(set(ways.values())) == len(ways)


@pytest.mark.parametrize("driver", ASKERS)
def test_base_khugepaged_and_damon_ask_everywhere_and_age_nowhere(driver: Driver) -> None:
    base = load(None)
    for situation in situations():
        expectation = base.expect(driver, situation)
        assert expectation.event == "kvm:kvm_test_age_hva"
        assert ("kvm_test_age_gfn",) in expectation.enters
        assert "kvm_age_gfn" in expectation.never


def test_base_access_faults_follow_stage_2() -> None:
    base = load(None)
    assert base.expect_access_faults(N1) == "none"
    assert base.expect_access_faults(N1_SOFTWARE) == "touched"
    assert base.expect_access_faults(A57) == "touched"


def test_series_of_the_project() -> None:
    contract = load(PROJECT / "series" / "stage2-sw-af" / "series.yaml")
    (variant,) = contract.variants
    assert variant.name == "sw-af"
    assert variant.cmdline == ("kvm-arm.stage2_sw_af=1",)
    assert variant.stage2_af == "software"
    assert contract.stage2_af_file is not None
    assert contract.stage2_af_file.name == "stage2_af"
    assert contract.fast_path is None
    base = load(None)
    for situation in situations():
        assert contract.expect("eviction", situation) == base.expect("eviction", situation)


def test_contract_and_patch_of_the_project_speak_of_the_same_things() -> None:
    folder = PROJECT / "series" / "stage2-sw-af"
    contract = load(folder / "series.yaml")
    (patch,) = folder.glob("*.patch")
    text = patch.read_text(encoding="utf-8")
    (parameter,) = contract.variants[0].cmdline
    file = contract.stage2_af_file
    assert file is not None
    assert f'early_param("{parameter.removesuffix("=1")}"' in text
    assert f'debugfs_create_file("{file.name}"' in text
    assert f'seq_puts(m, "{file.hardware}\\n")' in text
    assert f'seq_puts(m, "{file.software}\\n")' in text


def test_lockless_aging_is_lockless_but_under_pkvm() -> None:
    contract = load(PROJECT / "series" / "lockless-aging" / "series.yaml")
    base = load(None)
    for driver in get_args(Driver):
        for situation in situations():
            seen, usual = contract.expect(driver, situation), base.expect(driver, situation)
            test = "test_" if driver in ASKERS else ""
            lockless = (f"kvm_{test}age_gfn_lockless",) in seen.enters
            locked = (f"kvm_{test}age_gfn",) in seen.enters
            assert lockless == (usual.reaches_kvm and situation.mode != "protected")
            assert locked == (usual.reaches_kvm and situation.mode == "protected")
            entered = {name for step in seen.enters for name in step}
            both = {"kvm_age_gfn_lockless", "kvm_test_age_gfn_lockless"}
            assert both - entered <= set(seen.never)
            assert locked or f"kvm_{test}age_gfn" in seen.never
            assert set(seen.fast_path) == both
            assert usual.fast_path == ()
            # All else is the base's: where the driver comes from, and for which pages it asks.
            assert (seen.reaches_kvm, seen.event) == (usual.reaches_kvm, usual.event)
            assert seen.enters[:2] + seen.enters[3:] == usual.enters[:2] + usual.enters[3:]
            assert set(usual.never) <= set(seen.never)
    for mode, counts in (("vhe", True), ("nvhe", True), ("protected", False)):
        for situation in (one for one in situations() if one.mode == mode):
            assert contract.expect_counters(situation) == {
                "aged_lockless": counts,
                "aged_locked": not counts,
            }


def test_lockless_aging_has_what_its_contract_names() -> None:
    folder = PROJECT / "series" / "lockless-aging"
    contract = load(folder / "series.yaml")
    text = "".join(patch.read_text(encoding="utf-8") for patch in sorted(folder.glob("*.patch")))
    assert contract.fast_path is not None
    for function in contract.fast_path.functions:
        assert f"+bool {function}(struct kvm *kvm, struct kvm_gfn_range *range)\n+{{" in text
    for counter in contract.counters:
        assert f"+\tSTATS_DESC_COUNTER(VM, {counter.name})" in text


def test_eviction_of_blocks_by_the_harvest_of_mglru_keeps_the_base_s_way() -> None:
    contract = load(PROJECT / "series" / "lockless-harvest-v1" / "series.yaml")
    drivers: tuple[Driver, ...] = ("eviction_blocks", "classic")
    for driver in drivers:
        for situation in situations():
            seen = contract.expect(driver, situation)
            assert ("kvm_age_gfn",) in seen.enters
            assert "kvm_mmu_notifier_clear_flush_young" in seen.enters[1]
            # Small pages that are evicted beside huge ones go by the fast path.
            small = driver == "eviction_blocks" and contract.expect(
                "eviction", situation
            ).enters == (("kvm_arch_test_clear_young",),)
            assert ("kvm_arch_test_clear_young" in seen.never) is not small


def test_the_mmu_lock_is_taken_as_the_base_takes_it_unless_the_series_says_otherwise() -> None:
    lockless = load(PROJECT / "series/lockless-aging/series.yaml")
    fault = LockRule(takes="read", always=True)
    for situation in situations():
        base, series = (one.expect_mmu_lock(situation) for one in (load(None), lockless))
        assert base == {"access_fault": fault, "aging": LockRule(takes="write", always=True)}
        assert series["access_fault"] == fault
        aging = series["aging"]
        assert (aging.takes, aging.always) == (
            ("write", True) if situation.mode == "protected" else ("none", False)
        )


def test_a_base_that_says_nothing_of_the_mmu_lock() -> None:
    assert load(None, BASE.with_name("base-6.2.yaml")).expect_mmu_lock(N1) == {}


def test_a_base_that_says_nothing_of_flushes() -> None:
    assert load(None, BASE.with_name("base-6.2.yaml")).expect_flushes(N1) is None


BASES = sorted(BASE.parent.glob("base*.yaml"))


@pytest.mark.parametrize("path", BASES, ids=lambda path: path.name)
def test_each_base_is_complete(path: Path) -> None:
    base = load(None, path)
    assert base.applies_to(f"{base.kernel}.3")
    for situation in situations():
        for driver in get_args(Driver):
            expectation = base.expect(driver, situation)
            event = "kvm:kvm_test_age_hva" if driver in ASKERS else "kvm:kvm_age_hva"
            assert expectation.event == event
            assert expectation.reaches_kvm or expectation.never


def test_walk_of_6_2_asks_kvm_for_nothing_on_any_cpu() -> None:
    base = load(None, base_for("6.2.1"))
    assert not any(base.expect("mglru_walk", situation).reaches_kvm for situation in situations())
    assert "kvm_mmu_notifier_clear_flush_young" in base.expect("eviction", N1).enters[1]


def test_aging_under_pkvm_is_done_at_el2_in_7_3() -> None:
    base = load(None, base_for("7.3.4"))
    for driver in get_args(Driver):
        assert base.expect(driver, PROTECTED).enters[-1] == (
            "pkvm_pgtable_stage2_test_clear_young",
        )
        assert base.expect(driver, N1).enters[-1] == ("kvm_pgtable_stage2_test_clear_young",)


@pytest.mark.parametrize("mode", get_args(KvmMode))
def test_eviction_of_7_3_spares_some_young_pages_where_nobody_walks(mode: KvmMode) -> None:
    contract = load(None, base_for("7.3.4"))
    walked = contract.expect("eviction", Situation(mode, "hardware", "software"))
    alone = contract.expect("eviction", Situation(mode, "software", "software"))
    assert (walked.spares, alone.spares) == ("young", "some")
    for version in ("6.2", "6.12"):
        older = load(None, base_for(version))
        there = older.expect("eviction", Situation(mode, "software", "software"))
        assert there.spares == "young"


def test_lockless_harvest_v1() -> None:
    """Its fast path is for MGLRU, for hardware AF, and not for pKVM."""
    path = PROJECT / "series" / "lockless-harvest-v1" / "series.yaml"
    contract = load(path, base_for("6.2.1"))
    assert contract.message_id == "20230217041230.2417228-1-yuzhao@google.com"
    assert contract.applies_to("6.2.1")
    walk = contract.expect("mglru_walk", N1)
    assert walk.enters == (("kvm_arch_test_clear_young",),) and walk.lru_gen_bit == 0x8
    for situation in (N1_SOFTWARE, A57, PROTECTED):
        walk = contract.expect("mglru_walk", situation)
        assert not walk.reaches_kvm and "kvm_arch_test_clear_young" in walk.never
    assert contract.expect("eviction", N1).enters == (("kvm_arch_test_clear_young",),)
    # As the reviewers asked: with that bit clear KVM is asked page by page, in the base's way.
    off = contract.expect("eviction", N1, bit_off=True)
    assert ("kvm_age_gfn",) in off.enters
    assert (off.event, off.lru_gen_bit) == ("kvm:kvm_age_hva", None)
    assert "kvm_arch_test_clear_young" in off.never
    lockless = load(PROJECT / "series" / "lockless-aging" / "series.yaml")
    same = lockless.expect("eviction", N1, bit_off=True)
    assert same == lockless.expect("eviction", N1), "no bit switches that one"
    others = [contract.expect("eviction", where) for where in (N1_SOFTWARE, A57, PROTECTED)]
    for expectation in (*others, contract.expect("page_idle", N1)):
        assert expectation.reaches_kvm and "kvm_arch_test_clear_young" in expectation.never
