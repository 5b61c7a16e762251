# SPDX-License-Identifier: GPL-2.0-only
"""Folios of 64 KiB (mTHP): one page to the LRU, and sixteen that stage 2 maps each for itself.

Whoever ages one has to ask about each page, and whoever takes it away has to tell KVM of all
(try_to_unmap_one() in mm/rmap.c goes page by page, but notifies once): what stays in stage 2 is
memory that is free.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.driver import reaching
from harness.checks.evicting import check_kept, leave_all_behind, what_stays
from harness.checks.mglru import memcg_of, zram_swap
from harness.checks.mthp import FOLIO, KIB, folios_by_advice, swapped_out_whole
from harness.checks.pages import (
    aging_is_exact,
    leaves,
    mapped_pages,
    on_lists,
    populated,
    require_no_blocks,
    whole_blocks,
)
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven

PAGES = 1024
FOLIOS = range(PAGES // FOLIO)
EVERYTHING = frozenset(range(PAGES))


@pytest.mark.deep
def test_mthp_evicted(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """Aging is exact by pages; eviction takes folios of which none was read, from stage 2 too."""
    expectation = reaching(contract, "eviction", cell)
    claim.expect(
        f"{len(FOLIOS)} folios of {KIB} KiB: page_idle is exact in stage 2, page by page; of "
        "folios of which the guest reads one page each of some, eviction takes all of which it "
        f"reads none, and {what_stays(expectation)}; stage 2 maps no page of what went; no content "
        f"is lost (seed {cell.seed})"
    )
    with folios_by_advice(shell), zram_swap(shell):
        vm = guest(backing="thp", pages=PAGES)
        with memcg_of(vm, shell) as memcg:
            populated(vm)
            _require_folios(vm)
            require_no_blocks(vm, leaves(vm, shell, claim, "populated"))
            aging_is_exact(vm, shell, claim, rng, "young")
            leave_all_behind(vm, shell, memcg)
            touched = _one_of_some(rng)
            kept = whole_blocks(touched, FOLIO)
            vm.touch(touched, write=False)
            before = swapped_out_whole(shell)
            memcg.evict(PAGES)
            whole = swapped_out_whole(shell) - before
            present = frozenset(vm.pfns())
            claim.observe(
                f"{len(touched)} folios touched, {len(present) // FOLIO} kept; {whole} others "
                "swapped out whole"
            )
            mapped_pages(vm, shell, claim, present, "evicted")
            check_kept(expectation, present, kept)
            vm.touch(EVERYTHING, write=False)
            vm.verify(EVERYTHING)
            on_lists(vm)
            aging_is_exact(vm, shell, claim, rng, "back")
    if not whole:
        raise Unproven("all folios were split before they were swapped out")


def _one_of_some(rng: random.Random) -> frozenset[int]:
    """One page each of half of the folios: the first, the last, or any."""
    chosen = rng.sample(FOLIOS, len(FOLIOS) // 2)
    places = [0, FOLIO - 1, *(rng.randrange(FOLIO) for _ in chosen[2:])]
    return frozenset(at * FOLIO + place for at, place in zip(chosen, places, strict=True))


def _require_folios(vm: Guest) -> None:
    """Unproven unless the memory is of such folios: each is of pages that lie side by side."""
    pfns = vm.pfns()
    apart = [
        at
        for at in FOLIOS
        if pfns[at * FOLIO] % FOLIO
        or any(pfns[at * FOLIO + page] != pfns[at * FOLIO] + page for page in range(FOLIO))
    ]
    flags = vm.flags()
    compound = flags.get("compound_head", 0)
    if apart or compound != len(FOLIOS):
        raise Unproven(
            f"{len(apart)} of {len(FOLIOS)} pieces of {KIB} KiB are apart; there are {compound} "
            "compound pages"
        )
