# SPDX-License-Identifier: GPL-2.0-only
"""Many VMs are made and ended, in each of the ways in which a VM can end, and leave nothing.

Their owner has a memcg of its own, which is charged for what KVM allocates for them: that is exact
to the byte. What is not charged shows as memory that nothing accounts for, or that vmalloc()
gave, as objects of the kernel's allocator, or, if each CPU has its own, in the trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest

from harness.cell import CellSpec
from harness.checks import charged, tables
from harness.checks.charged import Charged
from harness.checks.claim import Claim
from harness.checks.cpus import cpu_count
from harness.checks.driver import GUEST
from harness.checks.grace import expedited
from harness.checks.mglru import memcg_of
from harness.checks.skips import or_skip
from harness.checks.test_eager_split import split_eagerly
from harness.checks.test_leaks import Reading, keeps_no_objects, quarantined, read, spread
from harness.guest_replies import RING_MAX
from harness.guest_words import Churn
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import percpu
from harness.observe.trace import PERCPU_ALLOC, PERCPU_FREE, Counts, Wanted, by_tasks
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven


@dataclass(frozen=True)
class Ways:
    """How VMs are made, how many at each of two times, and in words."""

    kind: Churn
    vms: int
    words: str
    logs: bool = False
    """Whether the dirty log is on to their end."""
    ring: int | None = None
    """Entries of the dirty ring that each vCPU has."""


# An object lost for each of 192 VMs fills slabs.
WAYS: dict[str, Ways] = {
    "idle": Ways("idle", 192, "made and ended, without a vCPU"),
    "run": Ways("run", 64, "made, run, refused a vCPU that they have already, and ended"),
    "split": Ways("run", 8, "made, run, their blocks split for a dirty log, and ended", logs=True),
    # A ring of the largest size is 256 pages.
    "ring": Ways("run", 8, "made, run with a dirty ring, and ended", logs=True, ring=RING_MAX),
    "slots": Ways("slots", 16, "made, run between changes of a memslot, and ended"),
    "owner": Ways("owner", 64, "made by a process each, which ends and does not close it"),
    "refused": Ways(
        "too-large", 192, "refused, since they ask for more bits of IPA than there are"
    ),
}


# Of the pages that nothing accounts for, and of vmalloc()'s, which other things move as well.
LOST = 128


@dataclass(frozen=True)
class Churned:
    """What there is after each of three times, and what was allocated for each CPU meanwhile."""

    charges: tuple[Charged, ...]
    readings: tuple[Reading, ...]
    trace: Counts


@pytest.mark.deep
@pytest.mark.parametrize("way", WAYS)
def test_churn(
    way: str, guest: Callable[..., Guest], shell: Shell, claim: Claim, cell: CellSpec
) -> None:
    """VMs that are made and ended, or cannot be made, leave nothing behind."""
    # More than rounding makes of them: a page for each CPU.
    cpus = cpu_count(shell)
    ways = replace(WAYS[way], vms=max(WAYS[way].vms, cpus + 1))
    tables.nobody_else(shell)
    if not tables.has_barrier(shell):
        raise Unproven("this kernel cannot be told to free what waits for RCU (do_rcu_barrier)")
    # KASAN keeps freed objects for a while, and its shadow of vmalloc()'s memory until many areas
    # are given back together (purge_vmap_area_lazy(), mm/vmalloc.c).
    told = f"less than {LOST} pages and an object for each VM are lost otherwise; "
    lost = "" if quarantined(shell) else told
    claim.expect(
        f"{ways.vms} VMs {ways.words}, two times: their tables are gone, while their owner goes "
        "on; no page and no byte more is charged to its memcg, and none when that has ended; "
        f"{lost}less than {LOST} pages stay vmalloc()'s; nothing is left that was allocated for "
        "each CPU"
    )
    vm = guest_of(way, ways, guest)
    made = vm.churn(1, ways.kind)
    if way == "refused" and made and cell.cell.kvm_mode == "protected":
        pytest.skip("pKVM does not heed how many bits of IPA a VM asks for")
    assert made == (way != "refused"), f"{made} VMs {ways.words}"
    moved = spread(shell, LOST)
    with memcg_of(vm, shell):
        vm.populate()
        if ways.logs:
            vm.dirty_log(True)
        churned = churn(vm, ways, shell, claim, cell.slowdown)
        vm.close()
        judge(churned, ways, shell, claim, moved)
        charged.assert_nothing_left(shell, claim, cell.slowdown)
    judge_percpu(churned, ways, claim)


def guest_of(way: str, ways: Ways, guest: Callable[..., Guest]) -> Guest:
    """A guest whose further VMs are such ones; skips where KVM has none."""
    if way == "split":
        return split_eagerly(guest)
    if ways.ring is None:
        return guest(pages=1)
    refusal = "this kernel has no such dirty ring"
    return or_skip(lambda: guest(pages=1, ring=ways.ring), refusal, refusal)


def churn(vm: Guest, ways: Ways, shell: Shell, claim: Claim, slowdown: float) -> Churned:
    """Have such VMs made and ended, two times after a third of a time."""
    wanted = Wanted(
        events=(PERCPU_ALLOC, PERCPU_FREE),
        # Owners of their own are its children, and have its name.
        filters={PERCPU_ALLOC: by_tasks(GUEST)},
    )
    held = tables.count(shell)
    with expedited(shell), tracing(shell, wanted) as session:
        session.start()
        vm.churn(ways.vms // 3, ways.kind)
        assert_no_tables(ways, shell, claim, held, slowdown)
        charges = [charged.settled(shell, slowdown)]
        readings = [read(shell)]
        for _ in range(2):
            vm.churn(ways.vms, ways.kind)
            assert_no_tables(ways, shell, claim, held, slowdown)
            charges.append(charged.falls_to(shell, claim, charges[-1], slowdown))
            readings.append(read(shell))
        counts = session.stop()
    claim.save("percpu.txt", counts.raw)
    return Churned(tuple(charges), tuple(readings), counts)


def assert_no_tables(ways: Ways, shell: Shell, claim: Claim, held: int, slowdown: float) -> None:
    """Assert that tables of VMs go with them, though nothing of their owner goes."""
    left = tables.falls_to(shell, claim, held, slowdown) - held
    assert left <= 0, f"VMs {ways.words}, leave {left} pages of stage-2 tables behind"


def judge(churned: Churned, ways: Ways, shell: Shell, claim: Claim, moved: int) -> None:
    """Assert that nothing grew both times: what grows once is some cache's."""
    for charge in churned.charges:
        claim.observe(str(charge))
    more = [after.beyond(before) for before, after in pairwise(churned.charges)]
    lost = min(
        after.unaccounted - before.unaccounted for before, after in pairwise(churned.readings)
    )
    claim.observe(f"{lost} pages lost with {ways.vms} VMs (moves by {moved} at rest)")
    # A dirty ring is of these (kvm_dirty_ring_alloc(), virt/kvm/dirty_ring.c), charged to nobody.
    given = min(after.vmalloc - before.vmalloc for before, after in pairwise(churned.readings))
    claim.observe(f"{given} pages more are vmalloc()'s")
    text = f"{ways.vms} VMs {ways.words}, leave"
    assert not all(more), f"{text} behind what is charged to their owner's memcg: {more[-1]}"
    if quarantined(shell):
        claim.observe("pages lost not judged: KASAN keeps its shadow of what vfree() got")
    else:
        assert lost < LOST, f"{text} {lost} pages behind that nothing accounts for"
    assert given < LOST, f"{text} {given} pages behind that vmalloc() gave"
    keeps_no_objects(shell, claim, churned.readings, ways.vms, "VM")


def judge_percpu(churned: Churned, ways: Ways, claim: Claim) -> None:
    """Assert that what was allocated for each CPU was freed; Unproven for what cannot be told."""
    trace = churned.trace
    kept = percpu.kept(trace.in_order(PERCPU_ALLOC, PERCPU_FREE))
    claim.observe(f"{trace.of(PERCPU_ALLOC)} allocations for each CPU, {sum(kept.values())} kept")
    words = ", ".join(f"{count} by {function}()" for function, count in kept.items())
    every = ways.vms // 3 + 2 * ways.vms
    assert not kept, f"of {every} VMs {ways.words}, allocations for each CPU are left: {words}"
    if not churned.charges[0].objects:
        raise Unproven("the kernel charges none of its own memory to a memcg")
