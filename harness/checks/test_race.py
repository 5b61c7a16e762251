# SPDX-License-Identifier: GPL-2.0-only
"""Each way to age guest memory against each thing that may happen to it at the same time.

The guest program runs the race and holds its vCPUs, its memory and KVM's dirty log to what must
be; harness/checks/racing.py tells how often aging met its opponent. Without that nothing is proven.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import get_args

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.groups import grouped
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import AGE_CALLBACK
from harness.checks.pages import mark_idle, populated, refuse_no_dump, young_pages
from harness.checks.racing import (
    Met,
    Size,
    crowd,
    drawn,
    entering,
    exact,
    field,
    not_widened,
    show,
)
from harness.contract import Contract
from harness.deadline import Deadline
from harness.guest_words import Ager, Opponent
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.collect import NoDump
from harness.observe.trace import slowed_entry, slowed_return
from harness.observe.unproven import Unproven

SMALL = Size(64, 24)
BLOCK = 512
# Two huge pages, so that one can be young and the other old. A pass over them takes longer.
HUGE = Size(2 * BLOCK, 6, "thp")
# What changes a slot, or makes a VM, acts for long. With slot-unmap it waits each time for an unmap
# that takes long.
SLOW = Size(64, 12)
UNMAPPED = Size(64, 3)
SIZES: dict[Opponent, Size] = {
    "split": HUGE,
    "slot-delete": SLOW,
    "slot-move": SLOW,
    # Half of the time it leaves the slot where it is.
    "slot-flags": SMALL,
    "slot-unmap": UNMAPPED,
    "vms": SLOW,
}
# Rounds of the race without agers.
ALONE_ROUNDS = 8
# Races with other seeds until aging has met its opponent often, and the seconds after which no
# further one is begun.
MEETINGS = 4
RACES = 3
RACES_SECONDS = 30.0
# A page that the log misses is seen by one race in two or three (4 of 6 seen, with two kernels that
# miss some), so each of them is run.
ALL_RACES: tuple[Opponent, ...] = ("dirty-log",)

# The writer whose wait for the agers is measured (claim 11), against the same without agers.
TIMED: Opponent = "dontneed"
# What takes the slot away meets more faults where no ager has the vCPUs' CPU.
FAULTED: tuple[Opponent, ...] = ("slot-delete", "slot-move")
# test_race_unmap has that mixture of two others, test_time_writer the one that is for its times;
# test_race_two_drops is about no aging.
OPPONENTS = [one for one in get_args(Opponent) if one not in ("unmap", "timed-drop", "two-drops")]


# The walk and eviction go by the notifiers that page_idle goes by, but under other locks of the
# host; where a series' fast path is of the walk alone, it ages in all (entering()). Of the others
# test_race_unmap has page-out, and test_end_beside_aging a part of vms, the end of a VM. No other
# check has split and slot-flags: -m deep has no time for all opponents, and those that it has are
# the ones that broken kernels need.
STRESS: frozenset[Opponent] = frozenset(("pageout", "vms", "split", "slot-flags"))
DEEP = {("page-idle", one) for one in OPPONENTS if one not in STRESS}
VARIANTS = [*itertools.product(get_args(Ager), OPPONENTS)]


@pytest.mark.parametrize(("ager", "opponent"), grouped(VARIANTS, stress={*VARIANTS} - DEEP))
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
    if ager == "page-idle":
        ager = entering(contract, cell)
    seeds, later = drawn(rng, RACES)
    before = splats(shell)
    met = Met()
    those = crowd(shell, cell)
    with field(guest, shell, contract, cell, ager, opponent, size, those.vcpus) as raced:
        claim.expect(
            f"{those.vcpus} vCPUs touch {size.pages} random pages, {those.agers} threads age them "
            f"by {ager}, "
            f"against: {opponent} (seed {cell.seed}). Each vCPU gets on and finds what it wrote; "
            "the dirty log misses no page; a slot that is gone is not reached; pages touched last "
            "are young, and aging is exact afterwards; no splat; agings began during "
            f"{raced.against.words}"
        )
        if opponent in (TIMED, *FAULTED):
            alone, _ = raced.race(claim, later.randrange(1 << 31), ALONE_ROUNDS, 0, "alone")
            claim.observe(f"without agers: {show(alone)}")
        limit = Deadline(RACES_SECONDS * cell.slowdown)
        for number, seed in enumerate(seeds):
            result, more = raced.race(claim, seed, size.rounds, those.agers, str(number))
            seen = raced.evidence.unseen or more.words(raced.against)
            claim.observe(f"race {seed}: {show(result)}; {seen}")
            met += more
            all_young(raced.vm, shell, claim)
            enough = not raced.missing(met, MEETINGS) and opponent not in ALL_RACES
            if enough or limit.expired():
                break
        exact(raced.vm, shell, claim, later, BLOCK if size is HUGE else 1)
        slowed = (AGE_CALLBACK, *raced.against.slowed)
        missing = raced.missing(met)
        absent = raced.session.absent
    not_widened(claim, absent, *map(slowed_entry, slowed), *map(slowed_return, slowed), *slowed)
    assert_none_new(shell, claim, before)
    if missing:
        raise Unproven(missing)


def all_young(vm: Guest, shell: Shell, claim: Claim) -> None:
    """Assert it: each page was touched when aging had ended and no translation was cached.

    Only the dump can tell. Without it the pages are aged and touched once more for page_idle, which
    tells of pages that were marked before.
    """
    everything = frozenset(range(vm.slot.pages))
    try:
        refuse_no_dump(vm, shell)
    except NoDump:
        populated(vm)
        mark_idle(vm)
        vm.flush()
        vm.touch(everything, write=False)
    young_pages(vm, shell, claim, everything)
