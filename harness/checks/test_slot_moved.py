# SPDX-License-Identifier: GPL-2.0-only
"""A memslot that is moved in guest addresses: its pages leave stage 2, its dirty log stays.

It can be moved to where the VM has addresses, which are fewer than those of the host by default:
beyond them stage 2 has no tables to walk (kvm_arch_prepare_memory_region()).

KVM_SET_USER_MEMORY_REGION with another guest_phys_addr (Documentation/virt/kvm/api.rst) makes the
slot invalid, takes all of it from stage 2, and makes it anew with the bitmap that it had: what was
written and not yet read must not be forgotten (claim 4).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from errno import EFAULT

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.logged import assert_logged, assert_writable
from harness.checks.pages import aging_is_exact, leaves, mapped_pages, mark_idle, pick, populated
from harness.guests import Guest
from harness.hosts.protocols import Shell

PAGES = 1024


@pytest.mark.deep
def test_slot_moved(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random
) -> None:
    """A moved slot is not mapped, has the log that it had, keeps its content and ages as before."""
    claim.expect(
        f"{PAGES} pages, of which some are written with the dirty log on, and all are old, in a "
        "slot that moves to another guest address and back: stage 2 maps none of them; the log "
        "names exactly the pages written before, and then exactly those written since; no other "
        "may be written, no content is lost, aging is exact"
    )
    vm = populated(guest(pages=PAGES))
    vm.dirty_log(True)
    written = pick(rng, PAGES)
    vm.touch(written, write=True)
    mark_idle(vm)
    vm.move_slot()
    mapped_pages(vm, shell, claim, frozenset(), "moved")
    vm.touch(range(PAGES), write=False)
    assert_writable(vm, claim, leaves(vm, shell, claim, "read"), frozenset(), "read")
    assert_logged(vm, claim, written, "moved")
    again = pick(rng, PAGES)
    vm.touch(again, write=True)
    assert_logged(vm, claim, again, "written again")
    vm.dirty_log(False)
    vm.verify(range(PAGES))
    aging_is_exact(vm, shell, claim, rng, "moved-aged")


@pytest.mark.deep
def test_slot_beyond(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """A slot ends where the VM's guest physical addresses end, and stays if it may not go there."""
    if cell.cell.kvm_mode == "protected":
        pytest.skip("pKVM does not heed how many bits of IPA a VM asks for")
    claim.expect(
        "a slot of the last page that the VM has an address for is made; one that begins there and "
        f"is longer, and one behind it, are refused (EFAULT); so is to move {PAGES} pages there, "
        "which the guest has as before then: no content is lost, aging is exact"
    )
    vm = populated(guest(pages=PAGES))
    before, across, beyond, moved = vm.slot_beyond()
    claim.observe(
        f"errno {before} before the end, {across} across it, {beyond} beyond it, {moved} of a move"
    )
    assert before == 0, f"a slot of the last page is refused: errno {before}"
    assert across == EFAULT, f"a slot across the end of the VM's addresses: errno {across}"
    assert beyond == EFAULT, f"a slot beyond the VM's addresses: errno {beyond}"
    assert moved == EFAULT, f"a slot that moves beyond the VM's addresses: errno {moved}"
    vm.touch(range(PAGES), write=False)
    vm.verify(range(PAGES))
    aging_is_exact(vm, shell, claim, rng, "refused")
