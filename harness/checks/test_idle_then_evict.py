# SPDX-License-Identifier: GPL-2.0-only
"""What page_idle takes from a page, eviction has to know of (claim 15).

page_idle clears the access flags of a page for its own purpose. That the page was young it leaves
behind as PG_young, for whoever asks next, or the host would swap out what its guests use as soon
as somebody counts idle pages (Documentation/admin-guide/mm/idle_page_tracking.rst). The mark is
worth one question: who is asked a second time about a page that nobody touched since finds it old.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.evicting import leave_all_behind
from harness.checks.groups import grouped
from harness.checks.mglru import Memcg, memcg_of, zram_swap
from harness.checks.pages import (
    mark_idle,
    pick,
    populated,
    require_huge,
    shorten,
)
from harness.guest_words import Backing
from harness.guests import Guest
from harness.hosts.protocols import Shell

# Pages, and how many of them have one access flag.
SIZES: dict[Backing, tuple[int, int]] = {"anon": (1024, 1), "thp": (8192, 512)}


@pytest.mark.parametrize("backing", grouped(SIZES, stress=["thp"]))
def test_idle_then_evict(
    backing: Backing,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """A page that was touched before page_idle aged it is kept by eviction, once."""
    pages, unit = SIZES[backing]
    claim.expect(
        f"of {pages} pages ({backing}) in units of {unit}, touched, aged by page_idle and then "
        "evicted, exactly those stay that were touched; when they are evicted once more, without "
        f"a touch, all go (seed {cell.seed})"
    )
    vm = guest(backing=backing, pages=pages)
    with zram_swap(shell), memcg_of(vm, shell) as memcg:
        populated(vm)
        if backing == "thp":
            require_huge(vm)
        leave_all_behind(vm, shell, memcg)
        touched = pick(rng, pages, unit)
        vm.touch(touched, write=False)
        mark_idle(vm)
        _evict(vm, claim, memcg, unit, frozenset(page // unit for page in touched))
        memcg.leave_behind()
        _evict(vm, claim, memcg, unit, frozenset())
        vm.touch(range(pages), write=False)
        vm.verify(range(pages))


def _evict(vm: Guest, claim: Claim, memcg: Memcg, unit: int, expected: frozenset[int]) -> None:
    """Evict all that can go, and assert that exactly these units stay whole."""
    memcg.evict(vm.slot.pages)
    present = Counter(page // unit for page in vm.pfns())
    claim.observe(f"{len(expected)} units to stay, {len(present)} did")
    lost = frozenset(one for one in expected if present[one] < unit)
    assert not lost, f"{len(lost)} were evicted that page_idle had found young: {shorten(lost)}"
    spared = frozenset(present) - expected
    assert not spared, f"{len(spared)} that nobody had touched were kept: {shorten(spared)}"
