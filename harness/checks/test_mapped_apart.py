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
from harness.checks.pages import (
    leaves,
    mark_idle,
    old_pages,
    pick,
    populated,
    shorten,
    young_pages,
)
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.unproven import Unproven

BLOCK = 512
PAGES = 2 * BLOCK
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
    with aging_by(driver, vm, shell, contract, cell) as age:
        populated(vm)
        # One of each is dropped, and comes back as a small page.
        holes = frozenset(at + rng.randrange(1, BLOCK) for at in range(0, PAGES, BLOCK))
        vm.advise("dontneed", holes)
        populated(vm)
        huge = vm.flags()["thp"]
        if huge != PAGES - len(holes):
            raise Unproven(f"{huge} of {PAGES - len(holes)} pages belong to huge ones still")
        blocks = stage2.blocks(leaves(vm, shell, claim, "populated"), vm.slot.ipa, PAGES)
        if blocks:
            raise Unproven(f"stage 2 maps {len(blocks)} pages by blocks, where pages should be")
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


def _one_young(vm: Guest, claim: Claim, page: int, part: frozenset[int]) -> None:
    """Assert that a page that is young alone makes the pages `part` of its huge page not idle."""
    vm.flush()
    mark_idle(vm)
    vm.touch({page}, write=False)
    idle = vm.idle_read()
    claim.observe(f"page {page} young alone: {len(idle)} idle")
    wrong = idle ^ (EVERYTHING - part)
    assert not wrong, f"page {page} is young; page_idle is wrong about {shorten(wrong)}"
