# SPDX-License-Identifier: GPL-2.0-only
"""Pages that the guest has and stage 2 does not map: nobody accessed them by it, so they are old.

A memslot that is made anew is empty in stage 2, while its pages stay where they are. What a walk
finds there, or does not find, must neither count as young nor be made anything else.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.pages import leaves, mark_idle, pick, populated, shorten, show_set
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2

PAGES = {"anon": 1024, "thp": 4096}
BLOCK = {"anon": 1, "thp": 512}


@pytest.mark.deep
@pytest.mark.parametrize("backing", PAGES)
def test_not_mapped(
    backing: str,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """Pages without a leaf in stage 2 are idle, and aging gives them none."""
    pages, block = PAGES[backing], BLOCK[backing]
    claim.expect(
        f"{pages} pages ({backing}) of a slot that was made anew: all idle after aging, and none "
        "mapped; once the guest has touched some, idle are all others, and stage 2 has a young "
        f"leaf for each that was touched and no other (seed {cell.seed})"
    )
    vm = populated(guest(backing=backing, pages=pages))
    everything = frozenset(range(pages))
    # From populating, pages are young to the host; only stage 2 is to tell.
    mark_idle(vm)
    vm.readonly(True)
    vm.readonly(False)
    mark_idle(vm)
    _mapped(vm, shell, claim, "empty", frozenset())
    _idle(vm, claim, "empty", everything)

    mark_idle(vm)
    touched = pick(rng, pages, block)
    vm.touch(touched, write=False)
    found = leaves(vm, shell, claim, "touched")
    whole = stage2.by_leaf(found, vm.slot.ipa, pages, touched)
    young = stage2.young(found, vm.slot.ipa, pages)
    claim.observe(f"touched: {show_set(whole, young)}")
    assert young == whole, f"touched: {show_set(whole, young)}"
    _mapped(vm, shell, claim, "some", whole)
    _idle(vm, claim, "some", everything - whole)
    # Half old, half absent: old is what both are.
    mark_idle(vm)
    _idle(vm, claim, "aged", everything)
    _mapped(vm, shell, claim, "aged", whole)
    vm.verify(everything)


def _mapped(vm: Guest, shell: Shell, claim: Claim, name: str, expected: frozenset[int]) -> None:
    """Assert that stage 2 maps exactly these pages."""
    mapped = stage2.mapped(leaves(vm, shell, claim, name), vm.slot.ipa, vm.slot.pages)
    claim.observe(f"{name}: {len(mapped)} mapped")
    assert mapped == expected, f"{name}: {len(mapped)} mapped, not {len(expected)}"


def _idle(vm: Guest, claim: Claim, name: str, expected: frozenset[int]) -> None:
    """Assert that exactly these pages are idle."""
    idle = vm.idle_read()
    claim.observe(f"{name}: {len(idle)} idle")
    wrong = idle ^ expected
    assert not wrong, f"{name}: page_idle is wrong about {len(wrong)} pages: {shorten(wrong)}"
