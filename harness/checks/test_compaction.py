# SPDX-License-Identifier: GPL-2.0-only
"""The kernel moves a guest's pages while the guest has them, as compaction does (claim 5).

Nothing changes for the owner but the physical pages, and KVM is told by the MMU notifier of
try_to_migrate_one() alone: a page that stays in stage 2 is one that belongs to somebody else soon.
Migration between NUMA nodes goes the same way. What page_idle has noted of a page goes with it
(folio_migrate_flags(), mm/migrate.c).
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator

import pytest

from harness.cell import CellSpec
from harness.checks.background import SMALL
from harness.checks.claim import Claim
from harness.checks.groups import grouped
from harness.checks.pages import aging_is_exact, leaves, mark_idle, on_lists, populated, shorten
from harness.checks.undo import written
from harness.guest_replies import PAGE_SIZE
from harness.guest_words import Backing
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2, vmstat
from harness.observe.unproven import Unproven

PAGES = 2048
EVERYTHING = frozenset(range(PAGES))
ROUNDS, ENOUGH = 8, 64
# Moves pages from the beginning of memory to where there is room between those that are in use
# near its end (mm/compaction.c, Documentation/admin-guide/sysctl/vm.rst).
COMPACT = "/proc/sys/vm/compact_memory"
# What a CPU has freed and keeps for itself is no room. This leaves it with a few hundred pages.
KEPT, LITTLE = "/proc/sys/vm/percpu_pagelist_high_fraction", 1_000_000


@pytest.mark.parametrize("backing", grouped(["anon", "memfd"], stress=["memfd"]))
def test_compaction(
    backing: Backing,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """No page that was moved stays in stage 2 where it was, and the guest finds all it wrote."""
    total = vmstat.parse_meminfo(shell.read("/proc/meminfo"))["MemTotal"] // PAGE_SIZE
    if total > SMALL:
        pytest.skip(f"the host has {total} pages, too many to move them about for this")
    if shell.run(f"[ -e {COMPACT} ]", check=False).status:
        pytest.skip("this kernel has no compaction that can be asked for (CONFIG_COMPACTION)")
    claim.expect(
        f"{PAGES // 2} of {PAGES} pages ({backing}) are let go, and memory is compacted, in up to "
        f"{ROUNDS} rounds until {ENOUGH} pages were moved: stage 2 maps none of those, the guest "
        "reads what it wrote, writes reach its owner's memory, page_idle's mark goes with a page, "
        "aging is exact afterwards "
        f"(seed {cell.seed})"
    )
    vm = populated(guest(backing=backing, pages=PAGES))
    moved = 0
    for number, seed in enumerate([rng.random() for _ in range(ROUNDS)]):
        # What is free in whole blocks is no place to move to.
        gone = frozenset(random.Random(seed).sample(range(PAGES), PAGES // 2))
        moved += _compact(vm, shell, claim, gone, str(number))
        vm.touch(EVERYTHING, write=False)
        vm.verify(EVERYTHING)
        vm.touch(EVERYTHING, write=True)
        vm.verify(EVERYTHING)
        if moved >= ENOUGH:
            break
    if not moved:
        raise Unproven("compaction moved none of the pages")
    on_lists(vm)
    aging_is_exact(vm, shell, claim, rng, "afterwards")


def _compact(vm: Guest, shell: Shell, claim: Claim, gone: frozenset[int], name: str) -> int:
    """Let pages go, have memory compacted, and say how many pages were moved.

    Asserts that none of these is in stage 2.
    """
    vm.drain()
    # All are young, so that each has both of page_idle's marks.
    mark_idle(vm)
    with _little_kept(shell):
        vm.advise("remove" if vm.greeting.backing == "memfd" else "dontneed", gone)
        before = vm.pfns()
        shell.write(COMPACT, "1\n")
        after = vm.pfns()
        idle = vm.flagged("idle")
    found = stage2.mapped(leaves(vm, shell, claim, name), vm.slot.ipa, PAGES)
    moved = frozenset(page for page, pfn in before.items() if after.get(page) != pfn)
    left = moved & found
    claim.observe(f"{len(moved)} of {len(before)} pages moved, {len(left)} of them mapped still")
    assert not left, f"{len(left)} pages are mapped where they are no more: {shorten(left)}"
    used = moved & after.keys() - idle
    assert not used, f"{len(used)} pages are idle no more, since they were moved: {shorten(used)}"
    return len(moved)


@contextlib.contextmanager
def _little_kept(shell: Shell) -> Iterator[None]:
    """Have CPUs keep few pages of those that they free."""
    with written(shell, KEPT, LITTLE, shell.read(KEPT).strip()):
        yield
