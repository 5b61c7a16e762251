# SPDX-License-Identifier: GPL-2.0-only
"""The access flag, exactly: what was touched is young, all else is old. No retry, no tolerance.

The kernel's access_tracking_perf_test says in its header why page_idle alone cannot decide this:
new pages sit in per-CPU batches before they reach the LRU, and clear_young does not flush the TLB,
so that a cached translation hides the next access. Here the batches are drained first, a stage-2
TLB invalidation is forced between aging and touching, and stage 2 itself is read. A kernel that
does not show stage 2 is judged by page_idle alone, which is exact as well after these two.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.pages import (
    idle_tells,
    mark_idle,
    old_pages,
    pick,
    populated,
    require_blocks,
    require_huge,
    whole_blocks,
    young_pages,
)
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2

# Pages of each kind of memory. Under emulation the first touch of a page costs most, so only the
# plainest kind has many: enough for one page in a few thousand to be missed.
PAGES = {"anon": 4096, "memfd": 1024, "thp": 4096}
# Pages that one leaf of stage 2 maps, if the kernel maps this memory as it should.
BLOCK = {"anon": 1, "memfd": 1, "thp": 512}


@pytest.mark.parametrize(
    "backing",
    [
        pytest.param("anon", marks=pytest.mark.quick),
        pytest.param("memfd", marks=pytest.mark.deep),
        pytest.param("thp", marks=pytest.mark.quick),
    ],
)
def test_access_flag(
    backing: str,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """After aging, exactly the leaves that the guest touches are young."""
    pages = PAGES[backing]
    vm = populated(guest(backing=backing, pages=pages))
    mark_idle(vm)
    leaves = old_pages(vm, shell, claim)
    if backing == "thp":
        if leaves:
            require_blocks(vm, leaves)
        else:
            require_huge(vm)

    touched = pick(rng, pages, BLOCK[backing])
    written = frozenset(page for page in touched if rng.random() < 0.5)
    # A leaf is young as a whole, so with block mappings a touch makes its neighbours young.
    if leaves:
        young = stage2.by_leaf(leaves, vm.slot.ipa, pages, touched)
    else:
        young = whole_blocks(touched, BLOCK[backing])
    claim.expect(
        f"{pages} pages of {backing} memory all old after aging by page_idle, then "
        f"{len(young)} young: those that the guest touched (seed {cell.seed}), by leaf; "
        "in the stage-2 dump, if the kernel has one, and by page_idle alike"
    )
    vm.flush()
    vm.touch(touched - written, write=False)
    vm.touch(written, write=True)
    young_pages(vm, shell, claim, young)
    idle_tells(vm, claim, young)
    vm.verify(written)
