# SPDX-License-Identifier: GPL-2.0-only
"""A memslot that is moved in guest addresses: its pages leave stage 2, its dirty log stays.

KVM_SET_USER_MEMORY_REGION with another guest_phys_addr (Documentation/virt/kvm/api.rst) makes the
slot invalid, takes all of it from stage 2, and makes it anew with the bitmap that it had: what was
written and not yet read must not be forgotten (claim 4).
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

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
