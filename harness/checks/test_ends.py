# SPDX-License-Identifier: GPL-2.0-only
"""A slot that does not begin where a block does (claim 8).

Where memory and IPA are skewed alike, stage 2 maps the slot by blocks, but for its two ends, which
hold parts of huge pages and are mapped by pages. A request to age a huge page then reaches beyond
the slot, where KVM has to cut it off. Where the IPA alone is skewed no block fits, though the
memory is aligned; test_range has the reverse, memory that is skewed alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.aging import Ager, aging_by
from harness.checks.claim import Claim
from harness.checks.idle_ager import age_huge_page
from harness.checks.pages import (
    leaves,
    old_pages,
    pick,
    populated,
    require_huge,
    shorten,
    show_set,
    young_pages,
)
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.unproven import Unproven

BLOCK = 512
PAGES = 3 * BLOCK


@pytest.mark.deep
@pytest.mark.parametrize(
    ("skewed", "driver"),
    [("both", "page_idle"), ("both", "mglru_walk"), ("ipa", "page_idle")],
)
def test_ends(
    skewed: str,
    driver: Ager,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """Aging is exact in the parts of huge pages that a slot ends with, and ends where they end."""
    skew = rng.randrange(1, BLOCK)
    host_skew = skew if skewed == "both" else 0
    inside = frozenset(range(BLOCK - skew, PAGES - skew)) if host_skew else frozenset[int]()
    claim.expect(
        f"{PAGES} pages that begin {skew} pages after a block ({skewed}), of which stage 2 maps "
        f"{len(inside)} by blocks: all old after aging by {driver}, then exactly the touched "
        f"leaves young; a huge page that is aged alone is all that is old (seed {cell.seed})"
    )
    vm = guest(backing="thp", pages=PAGES, skew=host_skew, ipa_skew=skew)
    with aging_by(driver, vm, shell, claim, contract, cell) as age:
        populated(vm)
        vm.verify(range(PAGES))
        require_huge(vm)
        blocks = stage2.blocks(leaves(vm, shell, claim, "populated"), vm.slot.ipa, PAGES)
        claim.observe(f"{len(blocks)} of {PAGES} pages in blocks")
        beyond = blocks - inside
        assert not beyond, (
            f"{len(beyond)} pages are in blocks that are not the slot's: {shorten(beyond)}"
        )
        if blocks != inside:
            raise Unproven(f"stage 2 maps {len(blocks)} pages by blocks, not {len(inside)}")
        age()
        aged = old_pages(vm, shell, claim)
        vm.flush()
        touched = pick(rng, PAGES)
        if inside:
            # With so many touches all blocks would be touched: one of them is left alone.
            touched -= frozenset(range(BLOCK - skew, 2 * BLOCK - skew))
        vm.touch(touched, write=False)
        young_pages(vm, shell, claim, stage2.by_leaf(aged, vm.slot.ipa, PAGES, touched))
        if driver == "page_idle":
            for unit in sorted({(page + host_skew) // BLOCK for page in range(PAGES)}):
                _one_alone(vm, shell, claim, unit, host_skew)
        vm.verify(range(PAGES))


def _one_alone(vm: Guest, shell: Shell, claim: Claim, unit: int, skew: int) -> None:
    """Assert that aging one of the host's huge pages makes old what the slot has of it."""
    everything = frozenset(range(PAGES))
    part = frozenset(page for page in everything if (page + skew) // BLOCK == unit)
    vm.flush()
    vm.touch(everything, write=False)
    age_huge_page(vm, shell, part, skew)
    seen = stage2.young(leaves(vm, shell, claim, f"unit-{unit}"), vm.slot.ipa, PAGES)
    claim.observe(f"{len(part)} pages aged alone: {show_set(everything - part, seen)}")
    assert seen == everything - part, f"unit {unit}: {show_set(everything - part, seen)}"
