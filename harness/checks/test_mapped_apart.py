# SPDX-License-Identifier: GPL-2.0-only
"""A huge page that its owner maps page by page is one page to the LRU and many to KVM.

When a part of a huge page is unmapped, the host maps the rest by small pages, and so does stage 2.
The huge page has still one idle bit and one place on the lists. Who ages it has to ask about each
page, and may not stop at the first that is young: the others would stay young.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.aging import Ager, aging_by
from harness.checks.claim import Claim
from harness.checks.driver import reaching
from harness.checks.evicting import leave_all_behind
from harness.checks.mglru import memcg_of, zram_swap
from harness.checks.pages import (
    leaves,
    mark_idle,
    old_pages,
    pick,
    populated,
    require_no_blocks,
    shorten,
    young_pages,
)
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven

BLOCK = 512
PAGES = 2 * BLOCK
EVICTED = 8 * BLOCK
EVERYTHING = frozenset(range(PAGES))


@pytest.mark.deep
@pytest.mark.parametrize("driver", ["page_idle", "mglru_walk"])
def test_mapped_apart(
    driver: Ager,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """Each page of a huge page is aged for itself, and one that is young makes all not idle."""
    claim.expect(
        f"{PAGES} pages in huge pages that are mapped page by page: all old after aging by "
        f"{driver}, then exactly the touched ones young, and all old again"
        + ("; one young page makes its huge page not idle" if driver == "page_idle" else "")
    )
    vm = guest(backing="thp", pages=PAGES)
    with aging_by(driver, vm, shell, claim, contract, cell) as age:
        holes = _mapped_apart(vm, shell, claim, rng)
        age()
        old_pages(vm, shell, claim)
        vm.flush()
        touched = pick(rng, PAGES)
        vm.touch(touched, write=False)
        young_pages(vm, shell, claim, touched)
        age()
        old_pages(vm, shell, claim, "aged-again")
        if driver == "page_idle":
            part = frozenset(range(BLOCK)) - holes
            for page in (min(part), max(part), rng.choice(sorted(part))):
                _one_young(vm, claim, page, part)


def _mapped_apart(vm: Guest, shell: Shell, claim: Claim, rng: random.Random) -> frozenset[int]:
    """Have huge pages mapped by small ones: the pages, one of each, that do not belong to them."""
    populated(vm)
    pages = vm.slot.pages
    # Or khugepaged makes huge pages of them again.
    vm.advise("nohugepage", range(pages))
    # One of each is dropped, and comes back as a small page.
    holes = frozenset(at + rng.randrange(1, BLOCK) for at in range(0, pages, BLOCK))
    vm.advise("dontneed", holes)
    populated(vm)
    huge = vm.flags()["thp"]
    if huge != pages - len(holes):
        raise Unproven(f"{huge} of {pages - len(holes)} pages belong to huge ones still")
    require_no_blocks(vm, leaves(vm, shell, claim, "populated"))
    return holes


@pytest.mark.deep
def test_mapped_apart_evicted(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """Eviction keeps a huge page of which any one small page was touched, and takes the others."""
    reaching(contract, "eviction", cell)
    units = range(EVICTED // BLOCK)
    claim.expect(
        f"of {len(units)} huge pages that are mapped page by page, and of which the guest reads "
        "one page each of some, exactly those go of which it reads none; nothing is lost "
        f"(seed {cell.seed})"
    )
    vm = guest(backing="thp", pages=EVICTED)
    with zram_swap(shell), memcg_of(vm, shell) as memcg:
        holes = _mapped_apart(vm, shell, claim, rng)
        parts = [frozenset(range(at * BLOCK, (at + 1) * BLOCK)) - holes for at in units]
        leave_all_behind(vm, shell, memcg)
        chosen = rng.sample(units, len(units) // 2)
        # Where a loop ends too early, or begins too late, the last or the first tells.
        touched = {max(parts[chosen[0]]), min(parts[chosen[1]])}
        touched |= {rng.choice(sorted(parts[at])) for at in chosen[2:]}
        vm.touch(touched, write=False)
        memcg.evict(EVICTED)
        present = frozenset(vm.pfns())
        kept = frozenset(at for at in units if parts[at] & present)
        claim.observe(f"{len(chosen)} touched, {len(kept)} kept")
        lost = frozenset(at for at in chosen if parts[at] - present)
        assert not lost, f"{len(lost)} huge pages went of which one page was young: {shorten(lost)}"
        spared = kept - frozenset(chosen)
        assert not spared, f"{len(spared)} huge pages stayed, all old: {shorten(spared)}"
        vm.touch(range(EVICTED), write=False)
        vm.verify(range(EVICTED))


def _one_young(vm: Guest, claim: Claim, page: int, part: frozenset[int]) -> None:
    """Assert that a page that is young alone makes the pages `part` of its huge page not idle."""
    vm.flush()
    mark_idle(vm)
    vm.touch({page}, write=False)
    idle = vm.idle_read()
    claim.observe(f"page {page} young alone: {len(idle)} idle")
    wrong = idle ^ (EVERYTHING - part)
    assert not wrong, f"page {page} is young; page_idle is wrong about {shorten(wrong)}"
