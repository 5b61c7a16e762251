# SPDX-License-Identifier: GPL-2.0-only
"""In which generation MGLRU's walk puts what a guest touched, by the sizes that it shows.

Reclaim goes by these sizes (Documentation/mm/multigen_lru.rst, "Aging"): what is counted in the
wrong generation is reclaimed too soon, or never looked at.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.driver import reaching
from harness.checks.evicting import leave_all_behind
from harness.checks.mglru import memcg_of, zram_swap
from harness.checks.pages import mark_idle, pick, populated, require_huge
from harness.contract import Contract
from harness.guest_words import Backing
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven

PAGES: dict[Backing, int] = {"anon": 2048, "thp": 16 * 512}
BLOCK: dict[Backing, int] = {"anon": 1, "thp": 512}
# Pages of the owner's own, on the same lists: far fewer than one huge page.
OTHERS = 256
# Fewer than the kernel counts at once (MIN_LRU_BATCH of mm/vmscan.c).
EVICTED, KEPT = 1024, 48
# What is lost of the sizes once is lost for good; the owner's own pages make up for some of it.
ROUNDS = 4


@pytest.mark.deep
@pytest.mark.parametrize("backing", ["anon", "thp"])
def test_generations(
    backing: Backing,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Of old pages, those that the guest touches before a walk are counted a generation younger."""
    reaching(contract, "mglru_walk", cell)
    pages, block = PAGES[backing], BLOCK[backing]
    vm = guest(backing=backing, pages=pages)
    with memcg_of(vm, shell) as memcg:
        populated(vm)
        if block > 1:
            require_huge(vm)
        # All of it in one generation, and old.
        memcg.walk()
        mark_idle(vm)
        vm.flush()
        touched = pick(rng, pages, block)
        # A huge page is counted by its pages, of whichever the guest touched one.
        young = len(touched) * block
        claim.expect(
            f"of {pages} pages ({backing}) {young} that the guest touches in the last "
            f"generation but one after a walk, the others in the one before it, and up to {OTHERS} "
            f"of the owner's own in either (seed {cell.seed})"
        )
        vm.touch(touched, write=False)
        memcg.walk()
        sizes = [one.anon for one in memcg.lruvec().generations]
    claim.observe(f"generations, oldest first: {', '.join(map(str, sizes))} pages")
    if len(sizes) < 3:
        raise Unproven(f"MGLRU shows {len(sizes)} generations after two walks")
    for words, seen, expected in (
        ("touched", sizes[-2], young),
        ("not touched", sizes[-3], pages - young),
    ):
        assert expected <= seen < expected + OTHERS, (
            f"{seen} pages where the {expected} that were {words} should be counted"
        )


@pytest.mark.deep
def test_generations_evicted(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """What eviction keeps, since the guest has touched it, is counted where it is put."""
    reaching(contract, "eviction", cell)
    claim.expect(
        f"of {EVICTED} pages that are old the guest touches {KEPT}, eviction takes the others and "
        "keeps these, and the sizes of all generations together are no fewer pages than it kept, "
        f"{ROUNDS} times "
        f"(seed {cell.seed})"
    )
    vm = guest(pages=EVICTED)
    with zram_swap(shell), memcg_of(vm, shell) as memcg:
        for number in range(ROUNDS):
            populated(vm)
            leave_all_behind(vm, shell, memcg)
            touched = frozenset(rng.sample(range(EVICTED), KEPT))
            vm.touch(touched, write=False)
            memcg.evict(2 * EVICTED)
            kept = vm.pfns().keys()
            sizes = {one.seq: one.anon for one in memcg.lruvec().generations}
            claim.observe(f"{len(kept)} kept; pages by generation: {sizes}")
            if not touched <= kept or len(kept) > 2 * KEPT:
                raise Unproven(f"eviction kept {len(kept)} pages, of {KEPT} that were touched")
            counted = sum(sizes.values())
            assert counted >= len(kept), (
                f"round {number}: {counted} pages are counted, where {len(kept)} are: {sizes}"
            )
