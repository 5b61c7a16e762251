# SPDX-License-Identifier: GPL-2.0-only
"""How long stage 2 lives: it maps the memory of the VM's owner, so it must go when that goes.

A VM lives until the last fd of it is closed, and fds can be handed to another process. When the
owner's mm ends, KVM is told by an MMU notifier (kvm_arch_flush_shadow_all) and must empty stage 2
there and then: nobody invalidates anything in it afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks import tables
from harness.checks.claim import Claim
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.keeper import keeper
from harness.observe.unproven import Unproven

# One page in each block of 2 MiB takes a table for itself: 256 tables for 256 pages.
BLOCKS = 256
BLOCK = 512


@pytest.mark.quick
def test_lifetime(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """When a VM's owner is gone its stage 2 is gone, although somebody else holds the VM's fd."""
    tables.nobody_else(shell)
    baseline = tables.count(shell)
    claim.expect(
        f"SecPageTables is back at its {baseline} pages when the VM's owner has been reaped and an "
        f"RCU barrier has passed, while another process holds the fd of one of its two VMs "
        f"(seed {cell.seed})"
    )
    with keeper(shell, cell.slowdown) as holder:
        # A second VM, made later and held by nobody: each one of an owner has to hear of its end.
        vm = guest(pages=BLOCKS * BLOCK, second="vm", vcpus=2)
        vm.touch({at * BLOCK + rng.randrange(BLOCK) for at in range(BLOCKS)}, write=True)
        holder.keep(vm)
        used = tables.count(shell) - baseline
        claim.observe(f"{used} pages of tables with the owner alive")
        if used < BLOCKS:
            raise Unproven(f"the VM has {used} pages of tables where {BLOCKS} at least are needed")
        of_el2 = tables.of_el2(shell, vm.vm_dir)
        vm.close()
        # Not one file of its debugfs folder may be opened from here on: that oopses Linux 6.12.
        if not tables.is_alive(shell, vm.vm_dir):
            raise Unproven("the VM went with its owner, although its fd was held")
        held = tables.above(shell, claim, baseline, cell.slowdown)
        claim.observe(f"{held} with the owner gone and the VM's fd held")
        if not tables.is_alive(shell, vm.vm_dir):
            raise Unproven("the VM went although its fd was held")
        assert of_el2 or held == 0, f"{held} pages of stage-2 tables outlive the owner's memory"
        holder.drop()
        left = tables.above(shell, claim, baseline, cell.slowdown)
        claim.observe(f"{left} with the fd closed")
        assert left == 0, f"{left} pages of stage-2 tables are left when the VM is gone"
        assert not tables.is_alive(shell, vm.vm_dir), "the VM outlives its last fd"
    if held:
        raise Unproven(f"EL2 keeps {held} pages until the VM goes; what they map cannot be seen")
