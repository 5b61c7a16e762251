# SPDX-License-Identifier: GPL-2.0-only
"""A dirty log that is read while the guest writes to its pages (claim 4).

KVM_GET_DIRTY_LOG takes a word of 64 pages out of the log and write-protects those that were in it,
in this order (kvm_get_dirty_log_protect(), virt/kvm/kvm_main.c): a page that a vCPU marks meanwhile
is told the next time. In another order, or by what the word was before, it is told and stays
writable, and no later write to it is ever told. Marking needs no lock, and comes after the fault
has mapped the page and let go of the MMU lock (user_mem_abort(), arch/arm64/kvm/mmu.c).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.cpus import free_cpu
from harness.checks.overlap import MARK_DIRTY
from harness.checks.pages import leaves, populated, shorten
from harness.checks.racing import not_widened
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.trace import Wanted, slowed_entry
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

# One word of the log.
PAGES = 64
ROUNDS = 16
# Rounds in which the log is read when the vCPU has written to some pages again, not yet to all.
ENOUGH = 4
PROTECT = "kvm_arch_mmu_enable_log_dirty_pt_masked"
# Kept long before it marks a page, the vCPU leaves the lock to the reader; that is kept long with
# it, so that the page is marked meanwhile.
SLOWED = {MARK_DIRTY: 48, PROTECT: 384}


@pytest.mark.deep
def test_read_log(guest: Callable[..., Guest], shell: Shell, claim: Claim, cell: CellSpec) -> None:
    """What a vCPU may write is in the log, at whatever moment that was read.

    Each round is judged by itself: a later read protects all from the first to the last page that
    it takes from a word (kvm_mmu_write_protect_pt_masked()), and so mends what an earlier one left.
    """
    claim.expect(
        f"{ROUNDS} times, a vCPU writes {PAGES} pages in turn while the dirty log is read, and "
        f"each page that it may write then is in the log (seed {cell.seed})"
    )
    cpu = free_cpu(shell, cell)
    vm = populated(guest(pages=PAGES))
    vm.pin(0, cpu, fifo=True)
    vm.dirty_log(True)
    met = 0
    with tracing(shell, Wanted((), tuple(SLOWED), slowed=SLOWED)) as session:
        session.start()
        for number in range(ROUNDS):
            vm.spin(range(PAGES), write=True)
            # All are written by now; from here on the vCPU faults for one after the other.
            vm.dirty()
            met += 0 < len(vm.dirty()) < PAGES
            vm.spin_stop()
            ranges = leaves(vm, shell, claim, f"stopped-{number}")
            unlogged = stage2.writable(ranges, vm.slot.ipa, PAGES) - vm.dirty()
            assert not unlogged, f"pages may be written unlogged: {shorten(unlogged)}"
        session.stop()
    claim.observe(f"in {met} of {ROUNDS} rounds the log was read when some had been written again")
    not_widened(claim, session.absent, *map(slowed_entry, SLOWED))
    vm.verify(range(PAGES))
    if met < ENOUGH:
        raise Unproven(f"in {met} of {ROUNDS} rounds some pages had been written, and not all")
