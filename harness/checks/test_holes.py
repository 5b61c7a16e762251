# SPDX-License-Identifier: GPL-2.0-only
"""Holes that are made in the file behind a guest's memory (claim 5).

What is shared belongs to its file, and the file's pages can go by another way than through the
owner's addresses: fallocate(FALLOC_FL_PUNCH_HOLE), which MADV_REMOVE makes as well
(madvise_remove() in mm/madvise.c). The kernel looks up who has them mapped, and KVM must be told:
of hugetlb in unmap_hugepage_range() (mm/hugetlb.c), which little else calls, of other memory in
unmap_mapping_range(). A guest that keeps such a page has memory that is free. test_unmap_part has
shared memory of pages of 4 KiB. Private hugetlb, which goes by the owner's addresses
(MADV_DONTNEED), is here for want of another place.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping

import pytest

from harness.cell import CellSpec
from harness.checks.background import POOL
from harness.checks.claim import Claim
from harness.checks.groups import grouped
from harness.checks.pages import (
    leaves,
    require_blocks,
    shorten,
    shows_stage2,
    whole_blocks,
)
from harness.checks.shmem import huge_by_advice
from harness.checks.undo import written
from harness.guest_words import Advice, Backing
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.unproven import Unproven

BLOCK = 512
BLOCKS = 6
PAGES = BLOCKS * BLOCK
EVERYTHING = frozenset(range(PAGES))
ROUNDS = 2
# So that for what a hole gave away there is always another page.
HUGE_PAGES = 2 * BLOCKS

ADVICE: Mapping[Backing, Advice] = {
    "hugetlbshared": "remove",
    "hugetlb": "dontneed",
    "memfdthp": "remove",
}


@contextlib.contextmanager
def _prepared(backing: Backing, shell: Shell) -> Iterator[None]:
    """What the host must have. Unproven if it has no memory for the pages of hugetlb."""
    if backing == "memfdthp":
        with huge_by_advice(shell):
            yield
        return
    before = int(shell.read(POOL))
    with written(shell, POOL, before + HUGE_PAGES, before):
        if (got := int(shell.read(POOL)) - before) < HUGE_PAGES:
            raise Unproven(f"of {HUGE_PAGES} huge pages the host has memory for {got}")
        yield


@pytest.mark.parametrize("backing", grouped(ADVICE, stress=["hugetlb", "memfdthp"]))
def test_holes(
    backing: Backing,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """A page that went from its file leaves stage 2 at once; the guest reads zeroes then."""
    claim.expect(
        f"of {BLOCKS} huge pages of {backing} memory some are taken away ({ADVICE[backing]}), "
        f"{ROUNDS} times: none of these is in stage 2 then, all others stay as they are, with what "
        f"the guest wrote; from the ones it reads zeroes, and it writes to new pages "
        f"(seed {cell.seed})"
    )
    with _prepared(backing, shell), guest(backing=backing, pages=PAGES) as vm:
        dump = shows_stage2(vm, shell, claim, "what the guest reads")
        vm.populate()
        if dump:
            require_blocks(vm, leaves(vm, shell, claim, "populated"))
        for number in range(ROUNDS):
            chosen = rng.sample(range(BLOCKS), rng.randint(2, BLOCKS - 2))
            gone = whole_blocks(frozenset(at * BLOCK for at in chosen), BLOCK)
            before = leaves(vm, shell, claim, f"before{number}") if dump else ()
            vm.advise(ADVICE[backing], gone)
            kept = gone & vm.pfns().keys()
            if kept:
                raise Unproven(f"{len(kept)} pages are their owner's still: {shorten(kept)}")
            if dump:
                _gone_alone(vm, shell, claim, f"gone{number}", gone, before)
            vm.touch(EVERYTHING, write=False)
            written = frozenset(at * BLOCK + rng.randrange(BLOCK) for at in range(BLOCKS))
            vm.touch(written, write=True)
            vm.verify(EVERYTHING)


def _gone_alone(
    vm: Guest,
    shell: Shell,
    claim: Claim,
    name: str,
    gone: frozenset[int],
    before: tuple[stage2.Range, ...],
) -> None:
    """Assert that no leaf maps what is gone, and that all others are as they were."""
    after = leaves(vm, shell, claim, name)
    left = gone & stage2.mapped(after, vm.slot.ipa, PAGES)
    changed = stage2.differing(before, after, vm.slot.ipa, PAGES, af=True) - gone
    claim.observe(
        f"{name}: {len(gone)} taken away, {len(left)} mapped still, {len(changed)} others changed"
    )
    assert not left, f"{len(left)} pages are mapped that went from their file: {shorten(left)}"
    assert not changed, f"leaves of others changed: {shorten(changed)}"
