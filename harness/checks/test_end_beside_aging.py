# SPDX-License-Identifier: GPL-2.0-only
"""A VM ends while others age the pages that it shares with a VM that goes on, or ask about them.

The memory stays, so they go on: who is in the stage 2 of the VM that ends must not find it freed
(claim 5). test_race_exit has the owner's memory go as well. DAMON ages pages and asks later whether
they are young, which is a function of KVM's own (test_young): what counts are its questions.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal, get_args

import pytest

from harness.cell import CellSpec
from harness.checks import charged, damon, tables
from harness.checks.claim import Claim
from harness.checks.cpus import several
from harness.checks.idle_ager import Outsider, ager
from harness.checks.mglru import born_in_memcg
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import (
    AGE,
    AGE_CALLBACK,
    AGED,
    FREE_TABLES,
    RELEASE,
    TEST,
    TESTED,
    Window,
    between,
    in_first_vm,
    overlapping,
    slot_range,
)
from harness.checks.pages import populated
from harness.checks.racing import Shows, Tally, entering, entries, kept, never_entered, not_widened
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import PROBE_FULL, Counts, returned, slowed_entry, slowed_return
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

Driver = Literal["page_idle", "damon"]

PAGES = 16
# In each trace so many VMs end, in up to so many traces, until so many were met. DAMON's thread
# sleeps in between, and meets one in five.
VMS, TRACES = 8, 8
ENOUGH: dict[Driver, int] = {"page_idle": 12, "damon": 4}
# Most of the time of either is spent there.
SLOWED: dict[Driver, int] = {"page_idle": PROBE_FULL, "damon": 2 * PROBE_FULL}
# Called shortly before a VM's stage 2 goes.
BEFORE = "kvm_arch_pre_destroy_vm"
# Within that; they are back when stage 2 is freed, but agers still come to the VM.
FREED = (FREE_TABLES, "kvm_uninit_stage2_mmu", "kvm_arch_flush_shadow_all")


@pytest.mark.deep
@pytest.mark.parametrize("driver", get_args(Driver))
def test_end_beside_aging(
    driver: Driver,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """A VM's stage 2 goes while its pages are aged: no splat, nothing left, nothing lost."""
    by = entering(contract, cell)
    shows = Shows.of(contract, by, cell)
    what = "ages" if driver == "page_idle" else "asks about"
    name = driver if driver == "damon" else by
    claim.expect(
        f"VMs that share {PAGES} pages with another are made, read them and end, while {name} "
        f"{what} these pages ({cell.cell.kvm_mode}): no splat, no content lost, no table left, no "
        f"VM, and nothing charged to their owner's memcg; some lose their stage 2 while it {what} "
        "a page of theirs"
    )
    several(shell, "nobody ages while a VM ends")
    baseline = tables.at_first(shell, claim)
    before = splats(shell)
    # Entered before the tables are looked for: what was asked of the VM earlier can change there.
    way = [one for one in shows.fast if one != shows.aging and driver == "page_idle"]
    wanted = shows.wanted(
        contract,
        events=(TEST,),
        returns=(TESTED, BEFORE, RELEASE, *FREED),
        slowed={AGE_CALLBACK: SLOWED[driver], **dict.fromkeys((*way, *FREED), PROBE_FULL)},
    )
    tally, entered = Tally(ENOUGH[driver]), 0
    # A walk goes over that memcg.
    with born_in_memcg(guest, shell, pages=PAGES) as vm:
        populated(vm)
        with tracing(shell, wanted) as session, _busy(driver, by, vm, shell):
            for number in range(TRACES):
                made, counts = kept(
                    session, claim, f"trace{number}.txt", lambda: vm.churn(VMS, "run")
                )
                assert made == VMS, f"{made} of {VMS} VMs were made"
                entered += entries(counts, shows.fast)
                if tally.over(partial(_met, driver, counts, shows, vm)):
                    break
        claim.observe(f"{tally.met} of {(number + 1) * VMS} VMs ended while {name} {what} a page")
        widened = (*map(slowed_entry, (AGE_CALLBACK, *way)), *map(slowed_return, FREED))
        not_widened(claim, session.absent, *widened)
        vm.verify(range(PAGES))
        assert_none_new(shell, claim, before)
        tables.assert_none_left(vm, shell, claim, baseline, cell.slowdown)
        vm.close()
        tables.assert_no_vm_of(shell, claim, vm.greeting.pid, cell.slowdown)
        charged.assert_nothing_left(shell, claim, cell.slowdown)
    tally.prove(f"no VM ended while {name} {what} a page")
    missing = never_entered(shows.fast, entered)
    if driver == "page_idle" and missing:
        raise Unproven(missing)


def _busy(driver: Driver, by: Outsider, vm: Guest, shell: Shell) -> AbstractContextManager[None]:
    """Have that driver be at work on all pages, until it is left."""
    if driver == "damon":
        return damon.asking(vm, shell)
    return ager(vm, shell, vm.pfns().values(), by)


def _met(driver: Driver, counts: Counts, shows: Shows, vm: Guest) -> int:
    """How many VMs were aged, or asked, while they let go of their stage 2."""
    ends = between(
        counts.events(returned(BEFORE)), counts.events(returned(RELEASE)), *slot_range(vm)
    )
    return overlapping(ends, _within(driver, counts, shows, vm))


def _within(driver: Driver, counts: Counts, shows: Shows, vm: Guest) -> tuple[Window, ...]:
    """When the driver was in the VM that ends."""
    if driver == "damon":
        return in_first_vm(counts, TEST, TESTED)
    return in_first_vm(counts, AGE, AGED) if shows.aging == AGE else shows.lasting(counts, vm)
