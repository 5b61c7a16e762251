# SPDX-License-Identifier: GPL-2.0-only
"""Memory at the guest's address 0, which is an address like any other.

Whoever takes 0 for "none" or for "from the beginning" on its way through KVM leaves the first page
out, or does to it what was meant for others. test_far has the other end.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.logged import assert_logged, assert_writable
from harness.checks.pages import (
    idle_tells,
    leaves,
    mark_idle,
    old_pages,
    pick,
    populated,
    require_blocks,
    whole_blocks,
    young_pages,
)
from harness.guests import Guest
from harness.hosts.protocols import Shell

PAGES = {"anon": 512, "thp": 2048}
BLOCK = {"anon": 1, "thp": 512}


@pytest.mark.deep
@pytest.mark.parametrize("backing", PAGES)
def test_low(
    backing: str,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """Aging, touches, the dirty log and unmapping are exact from address 0 on."""
    pages, block = PAGES[backing], BLOCK[backing]
    everything = frozenset(range(pages))
    claim.expect(
        f"{pages} pages ({backing}) from address 0 of the guest on: all old after aging by "
        "page_idle, then exactly the leaves that the guest touched young, page 0 among them, in "
        "stage 2 and by page_idle, and all old when aged again; the dirty log names exactly the "
        f"pages written; what is dropped reads as zeroes (seed {cell.seed})"
    )
    vm = populated(guest(backing=backing, pages=pages, low=True))
    mark_idle(vm)
    aged = old_pages(vm, shell, claim)
    if aged and block > 1:
        require_blocks(vm, aged)
    vm.flush()
    touched = pick(rng, pages, block) | {0}
    young = whole_blocks(touched, block)
    vm.touch(touched, write=False)
    young_pages(vm, shell, claim, young)
    idle_tells(vm, claim, young)
    mark_idle(vm)
    old_pages(vm, shell, claim, "again")

    vm.dirty_log(True)
    assert_writable(vm, claim, leaves(vm, shell, claim, "logged"), frozenset(), "logged")
    written = pick(rng, pages) | {0}
    vm.touch(written, write=True)
    assert_writable(vm, claim, leaves(vm, shell, claim, "written"), written, "written")
    assert_logged(vm, claim, written, "written")
    vm.dirty_log(False)
    vm.advise("dontneed", range(block))
    # Each load is held to what was last written, or to zero.
    vm.touch(everything, write=False)
    vm.verify(everything)
