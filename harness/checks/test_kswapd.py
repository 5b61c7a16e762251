# SPDX-License-Identifier: GPL-2.0-only
"""Eviction by kswapd, which reclaims in the background and for no memcg in particular.

test_pressure and test_eviction have a memcg reclaimed, by whoever is over its limit or asks for it.
kswapd has a context of its own: another mm_walk, another order of memcgs, no process that waits.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks import background, notices, pressure
from harness.checks.claim import Claim
from harness.checks.driver import check_path, situation, wanted
from harness.checks.evicting import leave_all_behind
from harness.checks.mglru import memcg_of, zram_swap
from harness.checks.overlap import UNMAP
from harness.checks.pages import populated, shorten
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import Counts, pages_by_hva
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

# Three quarters of these or more are cold, which is more than kswapd can take.
PAGES = 4096
MIGRATED = "pgmigrate_success"


# It makes memory scarce for all of the host, so it runs only if asked for.
@pytest.mark.stress
def test_kswapd(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """kswapd asks KVM for each page that it takes, and takes none that the guest touched."""
    off = pressure.clears("no_walk", contract.lru_gen_bit)
    expectation = contract.expect("eviction", situation(cell), bit_off=off)
    claim.expect(
        f"of {PAGES} old pages, some of them touched, kswapd takes some: none of those touched, "
        f"and none for which KVM was not asked (seed {cell.seed})"
    )
    with (
        pressure.lru(shell, "no_walk"),
        zram_swap(shell),
        guest(pages=PAGES) as vm,
        memcg_of(vm, shell) as memcg,
        tracing(shell, notices.recorded(wanted(expectation))) as session,
        background.scarce(shell, PAGES, cell.slowdown) as reclaim,
    ):
        populated(vm)
        leave_all_behind(vm, shell, memcg)
        touched = frozenset(rng.sample(range(PAGES), rng.randint(PAGES // 8, PAGES // 4)))
        # kswapd may run before and after: the touches and both looks at what is present fall into
        # the trace.
        session.start()
        before = background.counters(shell)
        vm.touch(touched, write=False)
        present = frozenset(vm.pfns())
        reclaim()
        lost = present - vm.pfns().keys()
        after = background.counters(shell)
        counts = session.stop()
        claim.save("trace.txt", counts.raw)
        stolen = after[background.STOLEN] - before[background.STOLEN]
        direct = after[background.DIRECT] - before[background.DIRECT]
        claim.observe(
            f"{len(touched)} touched, {len(lost)} evicted; kswapd took {stolen} pages, and others "
            f"that waited for memory {direct}"
        )
        wrong = lost & touched
        # Without a trace it is not told which were moved, but how many can have been.
        at_most = after[MIGRATED] - before[MIGRATED]
        assert len(wrong) <= at_most, f"{len(wrong)} touched pages were evicted: {shorten(wrong)}"
        if wrong:
            was_moved = moved(counts, vm)
            claim.observe(f"{len(wrong & was_moved)} of those touched were moved before")
            wrong -= was_moved
        assert not wrong, f"{len(wrong)} touched pages were evicted: {shorten(wrong)}"
        # Some may be on their way still.
        if len(present) < PAGES or len(lost) <= direct or 2 * stolen < len(lost):
            raise Unproven("it was not kswapd that evicted them, or nothing was")
        check_path(claim, expectation, session, counts, vm, partly=True)
        asked = notices.notices(counts, vm).aged
        unasked = frozenset(page for page in lost if not asked[page])
        claim.observe(f"KVM was asked for {len(lost - unasked)} of them")
        assert not unasked, f"KVM was not asked for {len(unasked)} evicted pages"
        vm.touch(lost, write=False)
        vm.verify(range(PAGES))


def moved(counts: Counts, vm: Guest) -> frozenset[int]:
    """The pages that were unmapped more often than by being evicted, since compaction moved them.

    A touch shows at stage 2 alone, and is forgotten with the entry: mm/rmap.c, try_to_migrate_one()
    asks no notifier whether the page is young.
    """
    times = pages_by_hva(counts.events(UNMAP), vm.greeting.slot_hva, PAGES)
    return frozenset(page for page in range(PAGES) if times[page] > 1)
