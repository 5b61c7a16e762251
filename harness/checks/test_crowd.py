# SPDX-License-Identifier: GPL-2.0-only
"""Many VMs live at the same time, end, and leave their memory to others, later VMs among them.

Under pKVM the host shares the pages of each struct kvm and kvm_vcpu with the hypervisor while the
VM lives, and has a struct hyp_shared_pfn for each (share_pfn_hyp(), arch/arm64/kvm/mmu.c). A page
that stays shared when its VM has ended (kvm_arch_destroy_vm(), arch/arm64/kvm/arm.c) cannot be
donated: when a later VM has it for what the hypervisor is to keep (__pkvm_init_vm(),
arch/arm64/kvm/hyp/nvhe/pkvm.c), that VM does not run. VMs that follow each other have the same
pages, so test_churn does not see it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.checks import tables
from harness.checks.claim import Claim
from harness.checks.test_leaks import Reading, keeps_no_objects, read
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven

VMS = 192
ROUNDS = 3
# A page in each block of 2 MiB takes a table of its owner's and one of stage 2: these are what the
# memory of VMs that have ended goes to, as pages of processes come from elsewhere.
BLOCK = 512
BLOCKS = 512


@pytest.mark.deep
def test_crowd(guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random) -> None:
    """VMs that live together all run, whatever lived before, and leave no objects behind."""
    tables.nobody_else(shell)
    if not tables.has_barrier(shell):
        raise Unproven("this kernel cannot be told to free what waits for RCU (do_rcu_barrier)")
    claim.expect(
        f"{VMS} VMs that live at the same time, {ROUNDS} times, with the memory of those that "
        "have ended given to others between: each of them runs, and they do not leave an object of "
        "the kernel's allocator for each"
    )
    taker = guest(pages=ROUNDS * BLOCKS * BLOCK)
    vm = guest(pages=1)
    vm.populate()
    readings: list[Reading] = []
    for number in range(ROUNDS):
        vm.crowd(VMS)
        taken = range(number * BLOCKS, (number + 1) * BLOCKS)
        taker.touch({at * BLOCK + rng.randrange(BLOCK) for at in taken}, write=True)
        readings.append(read(shell))
    claim.observe(f"all of {VMS} VMs ran, {ROUNDS} times")
    keeps_no_objects(shell, claim, tuple(readings), VMS, "VM")
