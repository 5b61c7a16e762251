# SPDX-License-Identifier: GPL-2.0-only
"""Guest memory that its owner has locked (mlock(2)), as VMMs do that must not wait for swap.

It is never evicted, and MGLRU's walk passes it over. For page_idle it is memory like any other
(Documentation/admin-guide/mm/idle_page_tracking.rst): how much of it is in use is worth knowing.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.groups import grouped
from harness.checks.mglru import memcg_of, zram_swap
from harness.checks.pages import (
    aging_is_exact,
    forget_references,
    idle_tells,
    mark_idle,
    on_lists,
    pick,
    populated,
    shorten,
)
from harness.guest_words import Backing
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven

PAGES = 512
EVERYTHING = frozenset(range(PAGES))


@pytest.mark.parametrize("backing", grouped(["anon", "memfd"], stress=["memfd"]))
def test_locked(
    backing: Backing,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """page_idle ages locked pages exactly; eviction takes none, however old they are."""
    claim.expect(
        f"{PAGES} pages ({backing}) that the owner has locked: page_idle is exact about them, in "
        "stage 2 and in what it says; eviction takes none of them; when they are locked no more "
        f"it is exact, and eviction takes some (seed {cell.seed})"
    )
    vm = guest(backing=backing, pages=PAGES)
    with zram_swap(shell), memcg_of(vm, shell) as memcg:
        populated(vm)
        vm.lock(True)
        on_lists(vm)
        locked = vm.flagged("unevictable")
        if locked != EVERYTHING:
            raise Unproven(f"{len(locked)} of {PAGES} pages are on the list of unevictable ones")
        aging_is_exact(vm, shell, claim, rng, "locked")
        vm.flush()
        mark_idle(vm)
        touched = pick(rng, PAGES)
        vm.touch(touched, write=False)
        idle_tells(vm, claim, touched)
        memcg.leave_behind()
        memcg.evict(PAGES)
        gone = EVERYTHING - vm.pfns().keys()
        claim.observe(f"{len(gone)} evicted")
        assert not gone, f"{len(gone)} locked pages were evicted: {shorten(gone)}"
        vm.lock(False)
        on_lists(vm)
        aging_is_exact(vm, shell, claim, rng, "free")
        # Or it was for another reason that none went. The marks that page_idle leaves keep pages.
        forget_references(vm, shell)
        memcg.leave_behind()
        memcg.evict(PAGES)
        gone = EVERYTHING - vm.pfns().keys()
        claim.observe(f"{len(gone)} evicted when they were locked no more")
        vm.verify(EVERYTHING)
    if not gone:
        raise Unproven("eviction takes none of these pages, locked or not")
