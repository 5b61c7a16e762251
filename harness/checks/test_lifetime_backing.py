# SPDX-License-Identifier: GPL-2.0-only
"""The end of a VM's owner, with stage 2 in other states than test_lifetime has (claim 1).

Memory of other kinds, a read-only slot, a dirty log that is on, blocks that it has split: each
leaves stage 2 by the same notifier, while somebody ages the pages and somebody else holds the VM.
Tables are counted to the page; what is lost otherwise, pages of the guest among them, shows as
memory that nothing accounts for, or as objects of the kernel's allocator.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from harness.cell import CellSpec
from harness.checks import tables
from harness.checks.claim import Claim
from harness.checks.groups import grouped
from harness.checks.idle_ager import ager
from harness.checks.logged import assert_logged
from harness.checks.test_backing import prepared
from harness.checks.test_leaks import grows, keeps_no_objects, quarantined, read, spread
from harness.guest_words import Backing
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.keeper import keeper
from harness.observe.unproven import Unproven

BLOCK = 512
BLOCKS = 16
PAGES = BLOCKS * BLOCK
# Pages that are touched in each block.
TOUCHED = 64
# Pages that may be lost to what else the host does.
BOUND = BLOCKS * TOUCHED // 4
# What is lost with one VM may be what else the host took meanwhile: it must be lost with each.
LIVES = 2

BACKING: dict[str, Backing] = {
    "memfd": "memfd",
    "file": "file",
    "fileprivate": "fileprivate",
    "readonly": "anon",
    "hugetlb-logged": "hugetlb",
    "thp-split": "thp",
    "memfdthp-split": "memfdthp",
}
# One of each: memory of others, of fewer rights, and blocks that are taken apart.
DEEP = {"memfd", "readonly", "thp-split"}


@pytest.mark.parametrize("state", grouped(sorted(BACKING), stress=BACKING.keys() - DEEP))
def test_lifetime_backing(
    state: str,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """Whatever it maps, stage 2 goes with the VM's owner, and nothing is lost with it."""
    tables.nobody_else(shell)
    if not tables.has_barrier(shell):
        raise Unproven("this kernel cannot be told to free what waits for RCU (do_rcu_barrier)")
    baseline = tables.count(shell)
    # hugetlb is on no LRU list.
    aged = "" if state == "hugetlb-logged" else ", whose pages are being aged,"
    objects = (
        ""
        if quarantined(shell)
        else f", and less than an object for each of {BLOCKS * TOUCHED} touched pages"
    )
    claim.expect(
        f"with {state}, SecPageTables is back at its {baseline} pages when the owner{aged} "
        "is gone and another process holds the VM's fd, and again when that is "
        f"closed; fewer than {BOUND} pages are lost then{objects}; if more were, it is done once "
        f"more, and so it is then (seed {cell.seed})"
    )
    moved = spread(shell, BOUND)
    readings = [read(shell)]
    for _ in range(LIVES):
        held = _life(state, guest, shell, claim, rng, baseline, cell.slowdown)
        readings.append(read(shell))
        lost = readings[-1].unaccounted - readings[-2].unaccounted
        claim.observe(f"{lost} pages lost (moves by {moved} at rest)")
        if lost < BOUND and not grows(shell, readings[-2:], BLOCKS * TOUCHED):
            break
    lost = min(after.unaccounted - before.unaccounted for before, after in pairwise(readings))
    assert lost < BOUND, f"{lost} pages are neither free nor accounted for"
    keeps_no_objects(shell, claim, tuple(readings), BLOCKS * TOUCHED, "touched page")
    if held:
        raise Unproven(f"EL2 keeps {held} pages until the VM goes; what they map cannot be seen")


def _life(
    state: str,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    baseline: int,
    slowdown: float,
) -> int:
    """Have a VM live and end, and assert that its tables go.

    Returns how many pages of tables are there between the end of its owner and its own.
    """
    backing = BACKING[state]
    with (
        prepared(backing, shell) as path,
        keeper(shell, slowdown) as holder,
        guest(backing=backing, pages=PAGES, file=path) as vm,
    ):
        _map(vm, claim, state, rng)
        holder.keep(vm)
        used = tables.count(shell) - baseline
        claim.observe(f"{used} pages of tables with the owner alive")
        if used < BLOCKS:
            raise Unproven(f"the VM has {used} pages of tables where {BLOCKS} at least are needed")
        of_el2 = tables.of_el2(shell, vm.vm_dir)
        with _aged(vm, shell, claim):
            vm.close()
        # Not one file of its debugfs folder may be opened from here on: that oopses Linux 6.12.
        if not tables.is_alive(shell, vm.vm_dir):
            raise Unproven("the VM went with its owner, although its fd was held")
        held = tables.above(shell, claim, baseline, slowdown)
        claim.observe(f"{held} with the owner gone and the VM's fd held")
        assert of_el2 or held == 0, f"{held} pages of stage-2 tables outlive the owner's memory"
        holder.drop()
        left = tables.above(shell, claim, baseline, slowdown)
        claim.observe(f"{left} with the fd closed")
        assert left == 0, f"{left} pages of stage-2 tables are left when the VM is gone"
        assert not tables.is_alive(shell, vm.vm_dir), "the VM outlives its last fd"
    return held


def _map(vm: Guest, claim: Claim, state: str, rng: random.Random) -> None:
    """Have stage 2 map pages in each block, one by one."""
    pages = frozenset(
        block * BLOCK + page
        for block in range(BLOCKS)
        for page in rng.sample(range(BLOCK), TOUCHED)
    )
    split = state.endswith("-split")
    logged = split or state == "hugetlb-logged"
    if split:
        vm.populate()
    if logged:
        vm.dirty_log(True)
    vm.touch(pages, write=True)
    if logged:
        assert_logged(vm, claim, pages, "written")
        # To read the log took write permission from all of them.
        vm.touch(pages, write=True)
    if state == "readonly":
        vm.readonly(True)
        vm.touch(pages, write=False)
    vm.drain()


@contextlib.contextmanager
def _aged(vm: Guest, shell: Shell, claim: Claim) -> Iterator[None]:
    """Age what page_idle can age of it all the while."""
    heads = vm.flags()["thp"] == PAGES
    pfns = [pfn for page, pfn in vm.pfns().items() if not heads or page % BLOCK == 0]
    if vm.greeting.backing == "hugetlb":
        claim.observe("not aged while it ends: hugetlb is on no LRU list")
        yield
        return
    claim.observe(f"{len(pfns)} {'huge ' if heads else ''}pages aged while it ends")
    with ager(vm, shell, pfns):
        yield
