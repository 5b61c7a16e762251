# SPDX-License-Identifier: GPL-2.0-only
"""Accesses that are no load or store of the guest: its fetches of code, its own table walks.

Both reach memory through stage 2 and make it young like any other (claims 2 and 13), but come
to KVM by other ways: a fetch as an instruction abort, where KVM's leaf may not be executable yet, a
walk of the guest's stage 1 as a data abort of the address that was being translated (S1PTW). They
are no writes. So code and tables may lie in a read-only memslot, and no dirty log names them. Walks
that write, since the CPU keeps flags in the tables by itself, are up to test_guest_flags.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.driver import FAULTS, check_faults, situation
from harness.checks.logged import assert_logged, assert_writable
from harness.checks.pages import (
    idle_tells,
    leaves,
    mark_idle,
    old_pages,
    pick,
    populated,
    require_blocks,
    require_huge,
    shorten,
    show_set,
    whole_blocks,
    young_pages,
)
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.tracefs import tracing

PAGES = {"anon": 512, "thp": 4096}
BLOCK = {"anon": 1, "thp": 512}

How = Literal["fetch", "walk"]
Access = Callable[[frozenset[int]], object]


@pytest.mark.deep
@pytest.mark.parametrize("backing", PAGES)
@pytest.mark.parametrize("how", ["fetch", "walk"])
def test_fetch_and_walk(
    how: How,
    backing: str,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """A page that is only executed, or only walked through as a table, is young and not dirty."""
    pages, block = PAGES[backing], BLOCK[backing]
    faults = contract.expect_access_faults(situation(cell))
    words = "none" if faults == "none" else "one for each of them and no other"
    claim.expect(
        f"{pages} old pages ({backing}), of which the guest accesses some by {how} alone: exactly "
        f"their leaves young and not idle, access faults: {words}; no leaf writable by it and none "
        "logged as dirty; the same in a read-only slot, of pages that are not mapped and of old "
        f"ones (seed {cell.seed})"
    )
    vm = populated(guest(backing=backing, pages=pages))
    access: Access = vm.fetch if how == "fetch" else vm.walk
    everything = frozenset(range(pages))
    vm.plant(everything)
    touched = pick(rng, pages, block)
    # With the first fetch KVM may have to give leave to execute: some have it before, some not. All
    # of these are fetched from again: a CPU may guess that a jump goes where it went before, and
    # hardware may set AF for what is fetched by guess.
    access(frozenset(sorted(touched)[::2]))
    mark_idle(vm)
    aged = old_pages(vm, shell, claim)
    if block > 1:
        if aged:
            require_blocks(vm, aged)
        else:
            require_huge(vm)
    vm.flush()
    with tracing(shell, FAULTS) as session:
        session.start()
        access(touched)
        counts = session.stop()
    claim.save("trace.txt", counts.raw)
    # By page_idle alone it is the huge page that is young as a whole.
    young = whole_blocks(touched, block)
    if aged:
        young = stage2.by_leaf(aged, vm.slot.ipa, pages, touched)
    young_pages(vm, shell, claim, young)
    check_faults(claim, faults, counts, vm.slot, touched)
    idle_tells(vm, claim, young)

    # Slots made anew: stage 2 is empty, so the accesses map what they need.
    vm.readonly(True)
    vm.readonly(False)
    vm.dirty_log(True)
    _maps_for_reading(vm, shell, claim, access, pick(rng, pages, block), "logged")
    dirty = vm.dirty()
    claim.observe(f"{len(dirty)} pages in the dirty log")
    assert not dirty, f"{how} put {len(dirty)} pages into the dirty log: {shorten(dirty)}"
    _keeps_writable(vm, shell, claim, access, pick(rng, pages, block), how)
    vm.dirty_log(False)
    vm.readonly(True)
    _maps_for_reading(vm, shell, claim, access, pick(rng, pages, block), "readonly")
    vm.touch(everything, write=False)
    _makes_young(vm, shell, claim, access, pick(rng, pages, block))
    vm.readonly(False)
    vm.verify(everything)


def _keeps_writable(
    vm: Guest, shell: Shell, claim: Claim, access: Access, written: frozenset[int], how: How
) -> None:
    """Assert that what the guest has written, and may write, it may write after accesses too."""
    vm.touch(written, write=True)
    assert_writable(vm, claim, leaves(vm, shell, claim, "written"), written, "written")
    access(written)
    assert_writable(vm, claim, leaves(vm, shell, claim, "accessed"), written, f"after {how}")
    assert_logged(vm, claim, written, f"after {how}")


def _makes_young(
    vm: Guest, shell: Shell, claim: Claim, access: Access, touched: frozenset[int]
) -> None:
    """Assert that accesses to old pages of a read-only slot make them young, and are let through.

    Where software sets AF they fault for it. An access that KVM takes for a write never comes to
    that: in such a slot it is an abort for the guest (kvm_handle_guest_abort(),
    arch/arm64/kvm/mmu.c).
    """
    mark_idle(vm)
    aged = old_pages(vm, shell, claim, "readonly-aged")
    vm.flush()
    access(touched)
    young = stage2.by_leaf(aged, vm.slot.ipa, vm.slot.pages, touched)
    young_pages(vm, shell, claim, young, "readonly-young")


def _maps_for_reading(
    vm: Guest, shell: Shell, claim: Claim, access: Access, touched: frozenset[int], name: str
) -> None:
    """Assert that accesses to pages that stage 2 does not map map them, young and read-only."""
    access(touched)
    found = leaves(vm, shell, claim, name)
    where = found, vm.slot.ipa, vm.slot.pages
    expected = stage2.by_leaf(found, vm.slot.ipa, vm.slot.pages, touched)
    young, writable = stage2.young(*where), stage2.writable(*where)
    claim.observe(f"{name}: {show_set(expected, young)}; {len(writable)} writable")
    assert young == expected, f"{name}: {show_set(expected, young)}"
    assert not writable, f"{name}: {len(writable)} leaves became writable: {shorten(writable)}"
