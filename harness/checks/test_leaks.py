# SPDX-License-Identifier: GPL-2.0-only
"""That what stage 2 was made of comes back: on unmap, on the end of a VM, and all of it.

Three witnesses. SecPageTables is exact to the page, but counts only what KVM says that it has. A
table that has left that count and is not free again stays charged to the memcg of the VM's owner,
to the page as well; or, if it was charged to none, shows as memory that nothing accounts for.
Smaller things, and what each VM has, are up to test_churn.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest

from harness.cell import CellSpec
from harness.checks import charged, tables
from harness.checks.claim import Claim
from harness.checks.cpus import cpu_count
from harness.checks.mglru import memcg_of
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import memory, slab, vmstat
from harness.observe.text import run_script
from harness.observe.unproven import Unproven

# One page in each block of 2 MiB takes a table for itself.
BLOCK = 512
BLOCKS = 256
# All blocks lie in one GiB, whose table is the one above theirs.
TABLES = BLOCKS + 1
ROUNDS = 2
# Readings of memory at rest, to know how much it moves by itself.
RESTING = 4
# Readings for one during which CPUs' lists of free pages change by no more pages than this.
LOOKS = 20
STILL = 32
# Looks for a time at which it rests: what ran before may have left work to kernel threads. Of
# objects there are fewer, since each look takes as long as what is judged.
RESTS = 5
OBJECT_RESTS = 3


@dataclass(frozen=True)
class Reading:
    """Memory at one moment: pages that nothing accounts for, and objects by cache.

    `time` is when, in seconds of the controller's clock. `vmalloc` are pages that vmalloc() has
    given, kernel stacks among them.
    """

    unaccounted: int
    caches: Mapping[str, slab.Cache]
    time: float = 0.0
    vmalloc: int = 0


def read(shell: Shell) -> Reading:
    """Memory after an RCU barrier. One shell does it: a process more would be memory more.

    The kernel moves free pages from CPUs' lists to where MemFree counts them, by hundreds at a time
    (decay_pcp_high(), mm/page_alloc.c). Between two files that would make them no one's, so the
    lists are read on both sides of MemFree; Unproven if they never stay as they were meanwhile.
    """
    mark = "== end of a part =="
    files = f"cat /proc/zoneinfo /proc/meminfo /proc/zoneinfo; echo '{mark}'; cat {slab.PATH}"
    for _ in range(LOOKS):
        pages, slabs = run_script(shell, f"{tables.SETTLE}{files}", None).split(f"{mark}\n")
        zones, meminfo, again = memory.apart(pages)
        pcp, later = memory.parse_pcp(zones), memory.parse_pcp(again)
        if abs(pcp - later) <= STILL:
            found = vmstat.parse_meminfo(meminfo)
            return Reading(
                memory.unaccounted(found, pcp),
                slab.parse(slabs),
                time.monotonic(),
                found["VmallocUsed"] // PAGE_SIZE,
            )
    raise Unproven(f"free pages went from list to list in each of {LOOKS} readings of memory")


def spread(shell: Shell, bound: int) -> int:
    """Pages by which memory moves once it rests; Unproven if that leaves no room below `bound`."""
    for _ in range(RESTS):
        values = [read(shell).unaccounted for _ in range(RESTING)]
        moved = max(values) - min(values)
        if 2 * moved <= bound:
            return moved
    raise Unproven(f"memory moves by {moved} pages at rest, so {bound} cannot be told from it")


def expect_tables(shell: Shell, what: str, expected: int, claim: Claim, slowdown: float) -> None:
    """Assert the exact number of tables, when what was freed must be gone."""
    seen = tables.falls_to(shell, claim, expected, slowdown)
    claim.observe(f"{what}: {seen}")
    assert seen == expected, f"{what}: {seen} pages of tables, {expected} expected"


def life(vm: Guest, shell: Shell, claim: Claim, rng: random.Random, slowdown: float) -> None:
    """Fill, age, partly and wholly unmap a VM's stage 2, and fill it again for its end."""
    empty = tables.count(shell)
    pages = [at * BLOCK + rng.randrange(BLOCK) for at in range(BLOCKS)]
    vm.touch(pages, write=True)
    used = tables.count(shell) - empty
    if used != TABLES:
        raise Unproven(f"{BLOCKS} touches made {used} tables where {TABLES} were expected")
    vm.drain()
    if vm.idle_mark().marked != BLOCKS:
        raise Unproven("page_idle did not age all pages")
    kept = frozenset(rng.sample(pages, BLOCKS // 2))
    vm.advise("dontneed", frozenset(pages) - kept)
    mapped = f"{len(kept)} of {BLOCKS} blocks mapped"
    expect_tables(shell, mapped, empty + len(kept) + 1, claim, slowdown)
    vm.advise("dontneed", range(BLOCKS * BLOCK))
    expect_tables(shell, "none mapped", empty, claim, slowdown)
    vm.touch(pages, write=True)


def assert_tables_charged(shell: Shell, claim: Claim, slowdown: float) -> bool:
    """Assert that the memcg of a guest is charged for the tables of what it has touched, exactly.

    Its memory.high bounds them then (Documentation/admin-guide/cgroup-v2.rst, sec_pagetables). The
    first-level table was made before the guest was in the memcg. False if the kernel does not tell.
    """
    found = charged.settled(shell, slowdown).tables
    if found is None:
        return False
    claim.observe(f"{found} pages of stage-2 tables are charged to the owner's memcg")
    assert found == TABLES, f"{found} pages of stage-2 tables charged, {TABLES} were made"
    return True


@pytest.mark.deep
def test_leaks(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """Unmapping frees the tables that it empties, and the end of a VM leaves nothing behind."""
    tables.nobody_else(shell)
    if not tables.has_barrier(shell):
        raise Unproven("this kernel cannot be told to free what waits for RCU (do_rcu_barrier)")
    claim.expect(
        f"stage-2 tables fall with what is mapped and to the baseline with the VM, {ROUNDS} times; "
        "they are charged to the memcg of its owner, and nothing stays so; then less than "
        f"{BLOCKS} pages (of {2 * ROUNDS * TABLES} tables freed) are lost, and a freed table "
        f"leaves no object behind (seed {cell.seed})"
    )
    baseline = tables.count(shell)
    guest(pages=1).close()
    moved = spread(shell, BLOCKS)
    before = read(shell)
    for _ in range(ROUNDS):
        vm = guest(pages=BLOCKS * BLOCK)
        with memcg_of(vm, shell):
            life(vm, shell, claim, rng, cell.slowdown)
            told = assert_tables_charged(shell, claim, cell.slowdown)
            vm.close()
            expect_tables(shell, "VM ended", baseline, claim, cell.slowdown)
            charged.assert_nothing_left(shell, claim, cell.slowdown)
    freed_tables_leave_nothing(guest(pages=BLOCKS * BLOCK), shell, claim)
    lost = read(shell).unaccounted - before.unaccounted
    claim.observe(f"{lost} pages lost (moves by {moved} at rest)")
    assert lost < BLOCKS, f"{lost} pages are neither free nor accounted for"
    if not told:
        raise Unproven("this kernel does not tell whose stage-2 tables are (sec_pagetables)")


def freed_tables_leave_nothing(vm: Guest, shell: Shell, claim: Claim) -> None:
    """Make tables and free them by an unmap, over and over: none of them leaves an object behind.

    Who frees a table later than that may have an allocation of its own for it.
    """
    # More than fill slabs of 32 bytes for all CPUs, so that one that moves by itself is no matter.
    fills = max(4, cpu_count(shell) + 2)
    readings = []
    for _ in range(3):
        for _ in range(fills):
            vm.touch(range(0, BLOCKS * BLOCK, BLOCK), write=True)
            vm.advise("dontneed", range(BLOCKS * BLOCK))
        readings.append(read(shell))
    # While the VM is there: what it holds until it ends is left behind as well.
    keeps_no_objects(shell, claim, tuple(readings), fills * TABLES, "freed table")
    vm.close()


def keeps_no_objects(
    shell: Shell, claim: Claim, readings: tuple[Reading, ...], count: int, each: str
) -> None:
    """Assert that `count` of what `each` names, between all readings, did not each leave an object.

    Only some caches of kmalloc() are judged: see slab.judged(). They are the whole host's, so they
    are read at rest as well, for as long as what is judged took. Those that move by themselves then
    are not judged, and an object that goes then was not left behind.
    """
    if quarantined(shell):
        claim.observe("objects not judged: KASAN keeps freed ones for a while")
        return
    cpus = cpu_count(shell)
    caches = tuple(reading.caches for reading in readings)
    names = sorted(slab.judged(caches, count, cpus))
    grown = slab.grown(caches, count, cpus)
    claim.observe(
        f"caches that grow with each {each}: {_rises(grown) or 'none'} of "
        f"{', '.join(names) or 'none'}"
    )
    if not names:
        return
    seconds = max(after.time - before.time for before, after in pairwise(readings))
    for _ in range(OBJECT_RESTS):
        rest = resting(shell, seconds)
        restless = slab.restless(rest, names, count)
        if not restless:
            break
    stay = slab.grown((*caches[:-1], rest[-1]), count, cpus)
    left = {name: rises for name, rises in grown.items() if name in stay and name not in restless}
    assert not left, f"each {each} leaves an object behind: {_rises(left)}"
    if restless:
        words = ", ".join(f"{name} by {moved}" for name, moved in restless.items())
        claim.not_judged(
            f"whether each {each} leaves an object in caches that move by themselves in "
            f"{seconds:.1f} s: {words}"
        )


def grows(shell: Shell, readings: Sequence[Reading], count: int) -> bool:
    """Whether a cache that can be judged has an object more for each of `count` events."""
    caches = tuple(reading.caches for reading in readings)
    return not quarantined(shell) and bool(slab.grown(caches, count, cpu_count(shell)))


def _rises(caches: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {rises}" for name, rises in caches.items())


def resting(shell: Shell, seconds: float) -> tuple[Mapping[str, slab.Cache], ...]:
    """Objects by cache, read several times while nothing is done for so many seconds."""
    found = [read(shell).caches]
    for _ in range(RESTING - 1):
        time.sleep(seconds / (RESTING - 1))
        found.append(read(shell).caches)
    return tuple(found)


def quarantined(shell: Shell) -> bool:
    """Whether freed objects stay counted: generic KASAN keeps them to catch late uses."""
    command = "zcat /proc/config.gz | grep -c '^CONFIG_KASAN_GENERIC=y'"
    return shell.run(command, check=False).stdout.strip() == "1"
