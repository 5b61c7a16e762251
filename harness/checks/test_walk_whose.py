# SPDX-License-Identifier: GPL-2.0-only
"""Which pages MGLRU's walk ages: those of the memcg that it ages, each time that they are used.

The walk goes over the page tables of a memcg's processes, where pages may be that are charged to
another memcg: its owner has moved. These have their place in the other one's generations, so who
takes their access flags here takes away what the other has to know. And a walk that is not forced
passes over page tables in which the last one found little to do (the Bloom filters of
Documentation/mm/multigen_lru.rst): there a page counts that guests alone have accessed.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.driver import reaching
from harness.checks.mglru import AGER, memcg_of, moved_to, zram_swap
from harness.checks.overlap import AGE
from harness.checks.pages import (
    mark_idle,
    old_pages,
    on_lists,
    pick,
    populated,
    refuse_no_dump,
    shorten,
    young_pages,
)
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import Wanted, asked_pages, by_tasks
from harness.observe.tracefs import tracing

# Whole tables of the host's.
PAGES = 1024


@pytest.mark.deep
def test_walk_of_other_memcg(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """The walk asks KVM for no page that is charged to another memcg, and ages none of them."""
    reaching(contract, "mglru_walk", cell)
    claim.expect(
        f"{PAGES} pages whose owner has moved to another memcg, and some that it got anew there: a "
        "walk of that memcg asks KVM for exactly these, and leaves young exactly those of the "
        f"others that the guest touched; page_idle makes all of them old (seed {cell.seed})"
    )
    vm = guest(pages=PAGES)
    # Eviction by others would ask for them as well.
    walks = Wanted((AGE,), filters={AGE: by_tasks(AGER)})
    with memcg_of(vm, shell), moved_to(vm, shell) as other, tracing(shell, walks) as trace:
        fresh = pick(rng, PAGES)
        vm.advise("dontneed", fresh)
        vm.touch(fresh, write=True)
        on_lists(vm)
        mark_idle(vm)
        vm.flush()
        touched = pick(rng, PAGES)
        vm.touch(touched, write=False)
        trace.start()
        other.walk()
        counts = trace.stop()
        claim.save("trace.txt", counts.raw)
        asked = asked_pages(counts.events(AGE), vm.greeting.slot_hva, PAGES)
        claim.observe(f"KVM was asked for {len(asked)} pages, {len(fresh)} are the memcg's")
        wrong, missing = asked - fresh, fresh - asked
        assert not wrong, f"KVM was asked for {len(wrong)} of another memcg: {shorten(wrong)}"
        assert not missing, f"KVM was not asked for {len(missing)}: {shorten(missing)}"
        young_pages(vm, shell, claim, touched - fresh)
        mark_idle(vm)
        old_pages(vm, shell, claim)


@pytest.mark.deep
def test_walk_unforced(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """A walk that is not forced finds the pages that only guests used, before and since."""
    reaching(contract, "mglru_walk", cell)
    claim.expect(
        f"{PAGES} pages that the guest touches, and nobody else, before each of two walks: all are "
        "old after the first, which is forced, and after the second, which is not"
    )
    vm = guest(pages=PAGES)
    # By page_idle alone, aging by page_idle would have to come before the walk.
    refuse_no_dump(vm, shell)
    everything = range(PAGES)
    with zram_swap(shell), memcg_of(vm, shell) as memcg:
        populated(vm)
        # From populating, they are young to the host as well.
        memcg.walk()
        old_pages(vm, shell, claim, "first")
        vm.flush()
        vm.touch(everything, write=False)
        memcg.walk()
        old_pages(vm, shell, claim, "forced")
        # With as many generations as there can be, no walk is made that is not forced. None of
        # these pages is in one of the oldest.
        memcg.evict(PAGES)
        vm.flush()
        vm.touch(everything, write=False)
        memcg.walk(force=False)
        old_pages(vm, shell, claim, "unforced")
