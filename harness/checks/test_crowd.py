# SPDX-License-Identifier: GPL-2.0-only
"""Many VMs live at the same time, end, and leave their memory to others, later VMs among them.

Under pKVM the host shares the pages of each struct kvm and kvm_vcpu with the hypervisor while the
VM lives, those of vCPUs that never run too, and has a struct hyp_shared_pfn for each
(share_pfn_hyp(), arch/arm64/kvm/mmu.c). A page that stays shared when its VM has ended
(kvm_arch_destroy_vm(), arch/arm64/kvm/arm.c) cannot be donated: when a later VM has it for what the
hypervisor is to keep (__pkvm_init_vm(), arch/arm64/kvm/hyp/nvhe/pkvm.c), that VM does not run. VMs
that follow each other have the same pages, so test_churn does not see it. Here, too, whether a
later VM has a page of an earlier one is up to the allocator, and is not looked at; objects are the
other witness.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks import tables
from harness.checks.claim import Claim
from harness.checks.cpus import cpu_count
from harness.checks.grace import expedited
from harness.checks.test_leaks import Reading, keeps_no_objects, quarantined, read
from harness.guest_errors import GuestNoMemory
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import slab, vmstat
from harness.observe.unproven import Unproven

VMS = 192
ROUNDS = 3
# A page in each block of 2 MiB takes a table of its owner's: these are what the memory of VMs that
# have ended goes to, as pages of processes come from elsewhere. The owner itself writes there: in
# stage 2, pKVM of Linux 6.14 has an object for each page (struct pkvm_mapping) as long as it lives.
BLOCK = 512
BLOCKS = 1024
# Several times what a crowd takes (a quarter of a MiB for each VM), in bytes. The kernel refuses
# nothing as small as what a vCPU needs when it runs while so much is free: it would rather wait and
# reclaim (mm/page_alloc.c).
PLENTY = VMS << 21
# Where struct hyp_shared_pfn is.
SHARED = "kmalloc-64"


@pytest.mark.deep
def test_crowd(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """VMs that live together all run, whatever lived before; caches judged keep none of theirs."""
    tables.nobody_else(shell)
    if not tables.has_barrier(shell):
        raise Unproven("this kernel cannot be told to free what waits for RCU (do_rcu_barrier)")
    objects = (
        ""
        if quarantined(shell)
        else ", and the caches of kmalloc() that can be judged do not grow by an object for each"
    )
    claim.expect(
        f"{VMS} VMs that live at the same time, {ROUNDS} times, with memory that has become free "
        "given to others between: each of them runs, by one of two vCPUs, of which the other never "
        f"does{objects}"
    )
    taker = guest(pages=(ROUNDS - 1) * BLOCKS * BLOCK)
    # On a busy machine a crowd of Linux 7.3 under pKVM takes half a minute.
    vm = guest(pages=1, timeout=90.0)
    vm.populate()
    readings: list[Reading] = []
    for number in range(ROUNDS):
        if number:
            taken = range((number - 1) * BLOCKS, number * BLOCKS)
            taker.plant({at * BLOCK + rng.randrange(BLOCK) for at in taken})
        with expedited(shell):
            have_crowd(vm, shell)
        readings.append(read(shell))
    claim.observe(f"all of {VMS} VMs ran, {ROUNDS} times")
    keeps_no_objects(shell, claim, tuple(readings), VMS, "VM")
    if cell.cell.kvm_mode == "protected" and not quarantined(shell):
        tells_of_shared(tuple(readings), cpu_count(shell), claim)


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


def tells_of_shared(readings: tuple[Reading, ...], cpus: int, claim: Claim) -> None:
    """Not judged, if pages that stay shared need not have shown: by a VM that had to run on one."""
    if SHARED not in slab.judged(tuple(reading.caches for reading in readings), VMS, cpus):
        claim.not_judged(
            f"whether pages stay shared with the hypervisor: on {cpus} CPUs {SHARED} does not tell "
            "of their objects, and a later VM may have had none of them"
        )
