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
from harness.checks.pages import (
    mapped_pages,
    mark_idle,
    pick,
    populated,
    reads_make_young,
    shorten,
)
from harness.guests import Guest
from harness.hosts.protocols import Shell

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
    mapped_pages(vm, shell, claim, frozenset(), "empty")
    _idle(vm, claim, "empty", everything)

    mark_idle(vm)
    touched = pick(rng, pages, block)
    whole = reads_make_young(vm, shell, claim, touched, "some")
    mapped_pages(vm, shell, claim, whole, "some")
    _idle(vm, claim, "some", everything - whole)
    # Half old, half absent: old is what both are.
    mark_idle(vm)
    _idle(vm, claim, "aged", everything)
    mapped_pages(vm, shell, claim, whole, "aged")
    vm.verify(everything)


def _idle(vm: Guest, claim: Claim, name: str, expected: frozenset[int]) -> None:
    """Assert that exactly these pages are idle."""
    idle = vm.idle_read()
    claim.observe(f"{name}: {len(idle)} idle")
    wrong = idle ^ expected
    assert not wrong, f"{name}: page_idle is wrong about {len(wrong)} pages: {shorten(wrong)}"
