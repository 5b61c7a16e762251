# SPDX-License-Identifier: GPL-2.0-only
"""MGLRU's walk of page tables goes on behind what it leaves out, and past what it takes at once.

It leaves out a VMA that is locked, may not be accessed or has advice that spoils recency, and looks
in the same table for the next (get_next_vma() in mm/vmscan.c). Huge pages in a row it takes by
batches of 1 + MIN_LRU_BATCH + 1 (walk_pmd_range_locked()). Whatever is lost there stays young in
stage 2, and is reclaimed too late.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from harness.cell import CellSpec
from harness.checks.aging import aging_by
from harness.checks.claim import Claim
from harness.checks.pages import leaves, pick, populated, shorten, show_set
from harness.contract import Contract
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.unproven import Unproven

# What one last table of the owner's maps, or a huge page.
UNIT = 512
UNITS = 3
PAGES = UNITS * UNIT
# In each unit, with pages that are not locked on either side.
RUNS, LONGEST = 4, 24
# What one table of huge pages maps. Longer than a batch, and a part of another.
TABLE = 512
ROW = 68
ABSENT = 3
ROUNDS = 2


@pytest.mark.deep
def test_walk_past_locked(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """Pages before, between and behind locked ones are made old by a walk, all of them."""
    locked = frozenset(locked_runs(rng))
    free = frozenset(range(PAGES)) - locked
    claim.expect(
        f"{len(locked)} of {PAGES} pages are locked, {RUNS} runs in each 2 MiB: MGLRU's walk makes "
        f"all of the {len(free)} others old, {ROUNDS} times, and of these exactly the ones young "
        f"that the guest reads then (seed {cell.seed})"
    )
    vm = guest(pages=PAGES)
    with aging_by("mglru_walk", vm, shell, claim, contract, cell) as age:
        # Before there are pages: mlock() splits the mapping, and stage 2 may lose some for that.
        vm.lock(True, locked)
        populated(vm)
        if vm.flagged("unevictable") != locked:
            raise Unproven("the locked pages are not those on the list of unevictable ones")
        for number in range(ROUNDS):
            age()
            _exactly(vm, shell, claim, f"aged{number}", free, frozenset())
            vm.flush()
            touched = pick(rng, PAGES)
            vm.touch(touched, write=False)
            _exactly(vm, shell, claim, f"touched{number}", free, touched & free)
        age()
        _exactly(vm, shell, claim, "aged-again", free, frozenset())
        vm.verify(range(PAGES))


def locked_runs(rng: random.Random) -> Iterator[int]:
    """Pages in runs, of which none begins or ends a unit, and no two meet."""
    part = UNIT // RUNS
    for start in range(0, PAGES, part):
        length = rng.randint(1, LONGEST)
        first = start + rng.randint(1, part - length - 1)
        yield from range(first, first + length)


@pytest.mark.deep
def test_walk_row(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """Of more huge pages in a row than the walk takes at once, all are made old."""
    claim.expect(
        f"a row of {ROW} huge pages, of which {ABSENT} are absent: MGLRU's walk makes all of them "
        f"old, {ROUNDS} times, and exactly those are young that the guest reads then "
        f"(seed {cell.seed})"
    )
    # Only the row has memory. In twice as much there is one that a single table maps.
    vm = guest(backing="thp", pages=2 * ROW * UNIT)
    with aging_by("mglru_walk", vm, shell, claim, contract, cell) as age:
        start = one_table(vm.greeting.slot_hva, ROW)
        # The last of the first batch and the first behind it are there.
        absent = rng.sample(range(1, ROW - 8), ABSENT)
        row = [start + at for at in range(ROW) if at not in absent]
        vm.touch([at * UNIT + rng.randrange(UNIT) for at in row], write=True)
        vm.drain()
        everything = frozenset(page for at in row for page in range(at * UNIT, (at + 1) * UNIT))
        blocks = stage2.blocks(leaves(vm, shell, claim, "populated"), vm.slot.ipa, vm.slot.pages)
        if blocks != everything:
            raise Unproven(f"stage 2 maps {len(blocks)} of {len(everything)} pages by blocks")
        for number in range(ROUNDS):
            age()
            _exactly(vm, shell, claim, f"aged{number}", everything, frozenset())
            vm.flush()
            chosen = rng.sample(row, rng.randint(len(row) // 4, 3 * len(row) // 4))
            vm.touch([at * UNIT + rng.randrange(UNIT) for at in chosen], write=False)
            young = frozenset(page for at in chosen for page in range(at * UNIT, (at + 1) * UNIT))
            _exactly(vm, shell, claim, f"touched{number}", everything, young)
        age()
        _exactly(vm, shell, claim, "aged-again", everything, frozenset())


def one_table(hva: int, row: int) -> int:
    """Where a row of huge pages begins, by number, so that one table of the owner's has it all."""
    first = hva // (UNIT * PAGE_SIZE) % TABLE
    return 0 if first + row <= TABLE else TABLE - first


def _exactly(
    vm: Guest,
    shell: Shell,
    claim: Claim,
    name: str,
    judged: frozenset[int],
    expected: frozenset[int],
) -> None:
    """Assert that of these pages, all of which stage 2 maps, exactly the expected are young."""
    ranges = leaves(vm, shell, claim, name)
    absent = judged - stage2.mapped(ranges, vm.slot.ipa, vm.slot.pages)
    if absent:
        raise Unproven(f"{name}: stage 2 does not map {len(absent)} pages: {shorten(absent)}")
    seen = judged & stage2.young(ranges, vm.slot.ipa, vm.slot.pages)
    words = f"{name}: {show_set(expected, seen)}"
    claim.observe(words)
    assert seen == expected, words
