# SPDX-License-Identifier: GPL-2.0-only
"""Eviction of huge pages, which has a way of its own to KVM (claims 8 and 10).

Of a page that a page table maps, MGLRU's eviction looks at the neighbours as well and uses the MMU
notifier's clear_young(). A huge page has no neighbours: folio_referenced_one() of mm/rmap.c uses
clear_flush_young(), as the classic LRU does for every page (test_pressure), and nothing else here
would notice if KVM were passed over there, or took another path than by the other notifiers. It
has to invalidate the translations of what was young, which is counted here: without VHE no emulated
vCPU keeps one for test_eviction_hot to find.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.counted import counted
from harness.checks.driver import check_path, either, functions_only, promised, situation, wanted
from harness.checks.flushes import check_flushed, requests, with_flushing
from harness.checks.mglru import memcg_of, zram_swap
from harness.checks.overlap import AGE
from harness.checks.pages import populated, require_huge, shorten
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import asked_pages
from harness.observe.tracefs import tracing

BLOCKS = 16
PER_BLOCK = 512
PAGES = BLOCKS * PER_BLOCK


@pytest.mark.deep
def test_eviction_blocks(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Eviction asks KVM for each huge page, as promised, and takes just those left alone."""
    expectation = promised(contract, "eviction_blocks", cell, shell, claim)
    # A fast path need not have the tracepoint: what goes and what stays tells alone.
    asks = all(one.event == AGE for one in either(expectation))
    counters = contract.expect_counters(situation(cell))
    claim.expect(
        f"{claim.expected}; of {BLOCKS} huge pages those of which the guest touched one page stay "
        "and the others go; who finds one young with the flush invalidates stage 2's TLB then"
        + ("; KVM is asked for each" if asks else "")
    )
    everything = frozenset(range(BLOCKS))
    vm = guest(backing="thp", pages=PAGES)
    with (
        zram_swap(shell),
        memcg_of(vm, shell) as memcg,
        tracing(shell, with_flushing(wanted(expectation, "eviction_blocks"))) as session,
    ):
        # No page_idle here: it leaves PG_young on pages, which eviction takes for a reference.
        populated(vm)
        require_huge(vm)
        for young in (everything, frozenset(rng.sample(range(BLOCKS), BLOCKS // 2))):
            memcg.leave_behind()
            vm.flush()
            vm.touch({block * PER_BLOCK + rng.randrange(PER_BLOCK) for block in young}, write=False)
            with counted(vm, shell, claim, counters), requests(vm, shell) as flushes:
                session.start()
                memcg.evict(PAGES)
                counts = session.stop()
            claim.save(f"trace-{len(young)}-touched.txt", counts.raw)
            present = _pages_by_block(vm.pfns())
            claim.observe(f"{len(young)} touched: {BLOCKS - len(present)} evicted")
            # Before what a trace tells, or does not.
            lost = frozenset(block for block in young if present[block] < PER_BLOCK)
            assert not lost, f"{len(lost)} young blocks were evicted: {shorten(lost)}"
            spared = frozenset(present) - young
            assert not spared, f"{len(spared)} old blocks were kept: {shorten(spared)}"
            check_flushed(claim, vm, shell, counts, flushes())
            check_path(claim, functions_only(expectation), session, counts, vm)
            if asks:
                events = counts.events(AGE)
                asked = _pages_by_block(asked_pages(events, vm.greeting.slot_hva, PAGES))
                claim.observe(f"KVM asked for {len(asked)}")
                unasked = everything - asked.keys()
                words = f"KVM was not asked for {len(unasked)} blocks: {shorten(unasked)}"
                assert not unasked, words


def _pages_by_block(pages: Iterable[int]) -> Counter[int]:
    """How many of the pages lie in each block that has any."""
    return Counter(page // PER_BLOCK for page in pages)
