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
from harness.guest_replies import GuestNoMemory
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import vmstat
from harness.observe.unproven import Unproven

VMS = 192
ROUNDS = 3
# A page in each block of 2 MiB takes a table of its owner's and one of stage 2: these are what the
# memory of VMs that have ended goes to, as pages of processes come from elsewhere.
BLOCK = 512
BLOCKS = 512
# Several times what a crowd takes (a quarter of a MiB for each VM), in bytes. The kernel refuses
# nothing as small as what a vCPU needs when it runs while so much is free: it would rather wait and
# reclaim (mm/page_alloc.c).
PLENTY = VMS << 21


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
        have_crowd(vm, shell)
        taken = range(number * BLOCKS, (number + 1) * BLOCKS)
        taker.touch({at * BLOCK + rng.randrange(BLOCK) for at in taken}, write=True)
        readings.append(read(shell))
    claim.observe(f"all of {VMS} VMs ran, {ROUNDS} times")
    keeps_no_objects(shell, claim, tuple(readings), VMS, "VM")


def have_crowd(vm: Guest, shell: Shell) -> None:
    """Have a crowd live and end. Assert that no VM lacks memory that is there.

    pKVM says ENOMEM as well of a page that it cannot be given, as it is shared with it.
    """
    before = available(shell)
    try:
        vm.crowd(VMS)
    except GuestNoMemory as exc:
        least = min(before, available(shell))
        assert least < PLENTY, f"{exc}, while {least >> 20} MiB were available"
        raise


def available(shell: Shell) -> int:
    """Bytes that the kernel could have for itself without swapping: none of CMA's."""
    found = vmstat.parse_meminfo(shell.read("/proc/meminfo"))
    return found["MemAvailable"] - found.get("CmaFree", 0)
