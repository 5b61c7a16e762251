# SPDX-License-Identifier: GPL-2.0-only
"""Each way to age guest memory against each thing that may happen to it at the same time.

The guest program runs the race and holds its vCPUs, its memory and KVM's dirty log to what must
be; harness/checks/racing.py tells how often aging met its opponent. Without that nothing is proven.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import get_args

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import AGE_CALLBACK, MARK_DIRTY, TAKE
from harness.checks.pages import young_pages
from harness.checks.racing import AGERS, VCPUS, Met, Size, exact, field, not_widened, show
from harness.contract import Contract
from harness.deadline import Deadline
from harness.guests import Ager, Guest, Opponent
from harness.hosts.protocols import Shell
from harness.observe.collect import NoDump, refuse_no_dump
from harness.observe.trace import slowed_entry, slowed_return
from harness.observe.unproven import Unproven

SMALL = Size(64, 24)
BLOCK = 512
# Two huge pages, so that one can be young and the other old. A pass over them takes longer.
HUGE = Size(2 * BLOCK, 6, "thp")
# What changes a slot, or makes a VM, acts for long. With slot-unmap it waits each time for an unmap
# that takes long.
SLOW = Size(64, 12)
UNMAPPED = Size(64, 4)
SIZES: dict[Opponent, Size] = {
    "split": HUGE,
    "slot-delete": SLOW,
    "slot-move": SLOW,
    "slot-flags": SLOW,
    "slot-unmap": UNMAPPED,
    "vms": SLOW,
}
# Of the race without agers, which tells what the opponent's acts take alone.
ALONE_ROUNDS = 8
# Races with other seeds until aging has met its opponent often, and the seconds after which no
# further one is begun.
MEETINGS = 8
RACES = 3
RACES_SECONDS = 30.0
# A page that the log misses is seen by one race in two or three (4 of 6 seen, with two kernels that
# miss some), so each of them is run.
ALL_RACES: tuple[Opponent, ...] = ("dirty-log",)

# The writer whose wait for the agers is measured (claim 11), against the same without agers.
TIMED: Opponent = "dontneed"
# test_race_unmap has that mixture of two others; test_race_two_drops is about no aging.
OPPONENTS = [one for one in get_args(Opponent) if one not in ("unmap", "two-drops")]


@pytest.mark.parametrize("opponent", OPPONENTS)
@pytest.mark.parametrize(
    "ager",
    [
        pytest.param("page-idle", marks=pytest.mark.deep),
        # These go by the notifier that page_idle goes by, so they need not be there each time.
        pytest.param("walk", marks=pytest.mark.stress),
        pytest.param("eviction", marks=pytest.mark.stress),
    ],
)
def test_race(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
    ager: Ager,
    opponent: Opponent,
) -> None:
    """One driver of aging against one opponent: nothing is lost, all get on, no splat."""
    size = SIZES.get(opponent, SMALL)
    claim.expect(
        f"{VCPUS} vCPUs touch {size.pages} random pages, {AGERS} threads age them by {ager}, "
        f"against: {opponent} (seed {cell.seed}). Each vCPU gets on and finds what it wrote; the "
        "dirty log misses no page; a slot that is gone is not reached; pages touched last are "
        "young, and aging is exact afterwards; no splat; aging met the opponent"
    )
    before = splats(shell)
    met = Met()
    with field(guest, shell, contract, cell, ager, opponent, size) as raced:
        if opponent == TIMED:
            alone, _ = raced.race(claim, rng.randrange(1 << 31), ALONE_ROUNDS, 0, "alone")
            claim.observe(f"without agers: {show(alone)}")
        limit = Deadline(RACES_SECONDS * cell.slowdown)
        for number in range(RACES):
            seed = rng.randrange(1 << 31)
            result, more = raced.race(claim, seed, size.rounds, AGERS, str(number))
            claim.observe(f"race {seed}: {show(result)}; {more.words()}")
            met += more
            all_young(raced.vm, shell, claim)
            enough = not met.missing(ager, opponent, MEETINGS) and opponent not in ALL_RACES
            if enough or limit.expired():
                break
        exact(raced.vm, shell, claim, rng, BLOCK if size is HUGE else 1)
        absent = raced.session.absent
    slowed = (slowed_entry(AGE_CALLBACK), TAKE, slowed_entry(TAKE), slowed_return(MARK_DIRTY))
    not_widened(claim, absent, *slowed)
    assert_none_new(shell, claim, before)
    if missing := met.missing(ager, opponent):
        raise Unproven(missing)


def all_young(vm: Guest, shell: Shell, claim: Claim) -> None:
    """Assert it: each page was touched when aging had ended and no translation was cached.

    Only the dump can tell, since page_idle tells of pages that were marked before.
    """
    try:
        refuse_no_dump(shell, vm.vm_dir)
    except NoDump as exc:
        claim.observe(f"which pages are young after it is not judged: {exc}")
        return
    young_pages(vm, shell, claim, frozenset(range(vm.slot.pages)))
