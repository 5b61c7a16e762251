# SPDX-License-Identifier: GPL-2.0-only
"""A huge page that a vCPU uses without ever leaving the guest is not evicted (claims 13 and 15).

Eviction asks about a huge page by the MMU notifier's clear_flush_young(), which has to invalidate
the translation along with the access flag (include/linux/mmu_notifier.h): with the old one in its
TLB the vCPU goes on without setting the flag again, and the next eviction takes what is in use. All
other drivers of aging do without the invalidation (see test_hot_page), so MGLRU's walk is off here.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks import pressure
from harness.checks.claim import Claim
from harness.checks.cpus import free_cpu
from harness.checks.driver import reaching
from harness.checks.mglru import AGER, Memcg, memcg_of, zram_swap
from harness.checks.overlap import AGE
from harness.checks.pages import populated, require_huge
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import Wanted, asked_pages, by_tasks
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

# One huge page: to unmap another would invalidate this one's translation in QEMU's TLB too.
PAGES = 512
# Pairs of evictions, until the vCPU is left alone through one. Each is whole, and all are judged.
LOOKS = 5


@pytest.mark.deep
def test_eviction_hot(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """What a vCPU reads without an exit stays, however often eviction asks about it."""
    reaching(contract, "eviction", cell)
    cpu = free_cpu(shell, cell)
    hot = rng.randrange(PAGES)
    claim.expect(
        f"the huge page of which a vCPU reads page {hot} without end and without an exit stays "
        "through two evictions that ask about it: the first one invalidates its translation"
    )
    # Where software sets the flag, a fault for it after each eviction.
    allowed = 2 if cell.cell.af_mode == "software" else 0
    vm = guest(backing="thp", pages=PAGES)
    _take_list(vm)
    with (
        zram_swap(shell),
        pressure.lru(shell, "no_walk"),
        memcg_of(vm, shell) as memcg,
        tracing(shell, Wanted((AGE,), filters={AGE: by_tasks(AGER)})) as session,
    ):
        populated(vm)
        require_huge(vm)
        vm.pin(0, cpu, fifo=True)
        vm.spin({hot}, write=False)
        for look in range(LOOKS):
            # To switch a tracepoint on interrupts every CPU.
            session.start()
            before = vm.spin_wait(1)
            first = _evict(vm, memcg)
            vm.spin_wait(1)
            second = _evict(vm, memcg)
            after = vm.spin_count()
            counts = session.stop()
            claim.save(f"trace-{look}.txt", counts.raw)
            for gone in (first, second):
                assert not gone, f"{gone} pages were evicted that a vCPU reads all the time"
            questions = sum(
                bool(asked_pages([event], vm.greeting.slot_hva, PAGES))
                for event in counts.events(AGE)
            )
            exits = after.exits.exits - before.exits.exits
            claim.observe(f"{questions} questions, {exits} exits meanwhile")
            if questions < 2:
                # Whether eviction asks at all is for test_eviction_blocks to judge.
                raise Unproven(f"KVM was asked {questions} times about the page")
            if exits <= allowed:
                break
        vm.spin_stop()
        vm.verify(range(PAGES))
    if exits > allowed:
        raise Unproven(f"the vCPU made {exits} exits, so its TLB was not alone")


def _take_list(vm: Guest) -> None:
    """Have the page that names a vCPU's pages charged to nobody's memcg: it is to stay as well."""
    vm.touch({0}, write=False)
    vm.advise("dontneed", range(PAGES))


def _evict(vm: Guest, memcg: Memcg) -> int:
    """One eviction of all that can go: how many pages it took."""
    memcg.leave_behind()
    memcg.evict(PAGES)
    return PAGES - len(vm.pfns())
