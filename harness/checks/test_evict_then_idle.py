# SPDX-License-Identifier: GPL-2.0-only
"""What eviction takes from a page, page_idle has to know of (claim 15).

The classic LRU clears the access flags of each page that it comes by. Who finds a page used so ends
its mark of being idle (Documentation/admin-guide/mm/idle_page_tracking.rst), or a page that the
guest uses is counted idle. That page_idle itself has found a page young (PG_young) is from before
the mark, and another matter. With MGLRU the kernel takes flags from neighbours and leaves marks.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks import pressure
from harness.checks.claim import Claim
from harness.checks.mglru import memcg_of, zram_swap
from harness.checks.pages import leaves, mark_idle, pick, populated, shorten
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.unproven import Unproven

PAGES = 1024
# To be reclaimed, for which eviction looks at several times as many.
WANTED = 64
# Pages that eviction has to have asked about, of either kind.
FEW = 8


@pytest.mark.deep
def test_evict_then_idle(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """Of pages that eviction met and kept, those are idle that nobody touched since the mark."""
    claim.expect(
        f"of {PAGES} pages some are touched, all marked idle, and others touched; the classic LRU "
        f"evicts {WANTED}: of those that stay, none is idle that was touched since the mark and "
        f"whose access flag eviction took, and each is that was not touched (seed {cell.seed})"
    )
    with (
        pressure.lru(shell, "classic"),
        zram_swap(shell),
        guest(pages=PAGES) as vm,
        memcg_of(vm, shell) as memcg,
    ):
        populated(vm)
        mark_idle(vm)
        # From the active list they would come to the inactive one without their access flags.
        vm.advise("cold", range(PAGES))
        vm.drain()
        vm.flush()
        known = pick(rng, PAGES)
        vm.touch(known, write=False)
        mark_idle(vm)
        vm.flush()
        touched = pick(rng, PAGES)
        vm.touch(touched, write=False)
        marked = vm.flagged("idle")
        if not touched & marked:
            pytest.skip("a touch is a fault here, which ends the mark before eviction asks")
        memcg.squeeze(WANTED)
        kept = frozenset(vm.pfns())
        idle = vm.flagged("idle")
        ranges = leaves(vm, shell, claim, "evicted")
    # What has left stage 2 as well was not asked about, but moved, say.
    mapped = stage2.mapped(ranges, vm.slot.ipa, PAGES)
    asked = kept & touched & marked & mapped - stage2.young(ranges, vm.slot.ipa, PAGES)
    claim.observe(
        f"{PAGES - len(kept)} evicted; {len(asked)} of {len(touched)} touched pages were asked "
        f"about and kept, {len(asked & known)} of which page_idle had found young before"
    )
    wrong = asked & idle
    assert not wrong, f"{len(wrong)} pages are idle that were touched: {shorten(wrong)}"
    lost = kept - touched - idle
    assert not lost, f"{len(lost)} pages are not idle that nobody touched: {shorten(lost)}"
    if min(len(asked & known), len(asked - known)) < FEW:
        raise Unproven(f"eviction took the flags of fewer than {FEW} pages of either kind")
