# SPDX-License-Identifier: GPL-2.0-only
"""Guest memory of a page of 32 MiB, which the host maps by 16 entries side by side (claims 5, 8).

Those entries have the contiguous bit, which stage 2 has no use for: KVM maps such a page by blocks
of 2 MiB (CONT_PMD_SHIFT in user_mem_abort(), arch/arm64/kvm/mmu.c). A block of what the host's page
is would begin where the guest faults, not where the page does, and end beyond the page and the
slot: in memory that is not the guest's. The kernel makes such pages at boot, where it is told to.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.logged import assert_logged, assert_writable
from harness.checks.pages import leaves, mapped_pages, pick, shorten, whole_blocks
from harness.checks.skips import or_skip
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2

REFUSAL = "mmap of pages of 32 MiB"
REASON = "no free page of 32 MiB (hugepagesz=32M hugepages=1 at boot)"
LEVEL = 2
BLOCK = stage2.SIZE_OF_LEVEL[LEVEL] // stage2.PAGE
BLOCKS = 16
PAGES = BLOCKS * BLOCK
EVERYTHING = frozenset(range(PAGES))


@pytest.mark.deep
def test_contiguous(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """The guest has of such a page what it touches, by blocks, and no memory beside it."""
    claim.expect(
        "of a page of 32 MiB: what the guest touches is mapped by blocks of 2 MiB, wherever in the "
        "page it begins, and nothing beside the slot is; with a dirty log exactly the pages that "
        "it writes are logged and writable, with the log off there are blocks again; it has what "
        f"it wrote, as the owner has, and nothing once the page is dropped (seed {cell.seed})"
    )
    with or_skip(lambda: guest(backing="contiguous", pages=PAGES), REFUSAL, REASON) as vm:
        # Neither where the page begins nor where a block does, of which there are others behind.
        first = frozenset({rng.randrange(1, BLOCKS - 1) * BLOCK + rng.randrange(1, BLOCK)})
        some = first | pick(rng, PAGES, BLOCK)
        vm.touch(first, write=rng.random() < 0.5)
        _by_blocks(vm, shell, claim, first, "first")
        vm.touch(some, write=True)
        _by_blocks(vm, shell, claim, some, "some")
        vm.verify(some)

        vm.touch(_in_each(rng), write=True)
        _by_blocks(vm, shell, claim, EVERYTHING, "all")
        vm.dirty_log(True)
        written = frozenset(rng.sample(range(PAGES), BLOCKS))
        vm.touch(written, write=True)
        assert_writable(vm, claim, leaves(vm, shell, claim, "logged"), written, "with the log on")
        assert_logged(vm, claim, written, "with the log on")
        vm.dirty_log(False)
        # KVM makes a block again where something has to be mapped or made writable.
        vm.touch(_in_each(rng, written), write=True)
        _by_blocks(vm, shell, claim, EVERYTHING, "joined")
        vm.verify(EVERYTHING)

        vm.advise("dontneed", EVERYTHING)
        mapped_pages(vm, shell, claim, frozenset(), "dropped")


def _in_each(rng: random.Random, but: frozenset[int] = frozenset()) -> frozenset[int]:
    """A page of each block, other than these."""
    blocks = (range(start, start + BLOCK) for start in range(0, PAGES, BLOCK))
    return frozenset(rng.choice([page for page in block if page not in but]) for block in blocks)


def _by_blocks(vm: Guest, shell: Shell, claim: Claim, touched: frozenset[int], name: str) -> None:
    """Assert that whole blocks map what was touched, and nothing maps what is not the slot's."""
    ranges = leaves(vm, shell, claim, name)
    size = PAGES * stage2.PAGE
    beside = {
        where: len(stage2.mapped(ranges, ipa, PAGES))
        for where, ipa in (("below", vm.slot.ipa - size), ("above", vm.slot.ipa + size))
    }
    coarse = stage2.blocks(ranges, vm.slot.ipa, PAGES)
    claim.observe(
        f"{name}: {len(coarse)} pages mapped by blocks, "
        + ", ".join(f"{count} {where} the slot" for where, count in beside.items())
    )
    for where, count in beside.items():
        assert not count, f"{name}: {count} pages are mapped {where} the slot, which it has not"
    missing = whole_blocks(touched, BLOCK) - coarse
    assert not missing, f"{name}: touched, but mapped by no block: {shorten(missing)}"
    levels = {leaf.level for leaf in stage2.slot_leaves(ranges, vm.slot.ipa, PAGES) if leaf.valid}
    assert levels == {LEVEL}, f"{name}: mapped by leaves of levels {sorted(levels)}"
