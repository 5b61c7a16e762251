# SPDX-License-Identifier: GPL-2.0-only
"""A memslot that is deleted while its dirty log is on: all that was for that log goes with it.

KVM is not told first that the log ends. For a log that splits blocks at once it keeps pages ready,
as many as the tables of a whole chunk take (kvm_mmu_split_nr_page_tables(), arch/arm64/kvm/mmu.c):
a chunk of 1 GiB has so many that they show among what the VM's owner is charged for.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.cell import CellSpec
from harness.checks import charged
from harness.checks.claim import Claim
from harness.checks.logged import assert_logged
from harness.checks.mglru import memcg_of
from harness.checks.pages import (
    aging_is_exact,
    leaves,
    mapped_pages,
    pick,
    populated,
    require_blocks,
    require_huge,
)
from harness.checks.test_eager_split import split_eagerly
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven

BLOCK = 512
PAGES = 8 * BLOCK
EVERYTHING = frozenset(range(PAGES))
# Of the 513 tables of 1 GiB the slot needs eight.
READY = 256
# Pages that the owner may allocate for itself meanwhile.
OWN = 64


@pytest.mark.deep
def test_slot_deleted(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """What a slot's log took is given back when the slot goes, and the next slot starts anew."""
    claim.expect(
        f"a slot of {PAGES} pages in blocks, which are split at once for a dirty log by 1 GiB, for "
        f"which {READY} pages and more are kept ready, is deleted with the log on: its owner is "
        "charged for no more than before the log, stage 2 maps none of the pages; in a new slot "
        "none is in the log that was not written since, aging is exact, no content is lost"
    )
    vm = split_eagerly(guest, pages=PAGES, chunk="gigantic")
    with memcg_of(vm, shell):
        populated(vm)
        require_huge(vm)
        require_blocks(vm, leaves(vm, shell, claim, "populated"))
        before = charged.settled(shell, cell.slowdown)
        vm.dirty_log(True)
        vm.touch(pick(rng, PAGES), write=True)
        ready = charged.settled(shell, cell.slowdown).kernel - before.kernel
        claim.observe(f"with the log on {ready} pages of the kernel more are charged")
        if ready < READY:
            raise Unproven("hardly any page is kept ready to split blocks with")
        vm.tested_slot(False)
        bound = replace(before, user=before.user + OWN)
        more = charged.falls_to(shell, claim, bound, cell.slowdown).beyond(bound)
        assert not more, f"still charged for when the slot is deleted: {more}"
        mapped_pages(vm, shell, claim, frozenset(), "deleted")
        vm.tested_slot(True)
        vm.dirty_log(True)
        vm.touch(range(PAGES), write=False)
        assert_logged(vm, claim, frozenset(), "read")
        written = pick(rng, PAGES)
        vm.touch(written, write=True)
        assert_logged(vm, claim, written, "written")
        vm.dirty_log(False)
        vm.verify(EVERYTHING)
        aging_is_exact(vm, shell, claim, rng, "again")
