# SPDX-License-Identifier: GPL-2.0-only
"""Aging while the guest uses the pages and the host takes them away.

Here a series breaks that ages without the MMU lock: a store into an entry that has been zapped
meanwhile brings a freed page back, a table is walked that has been freed. The guest knows what must
be in each of its words (docs/guest-protocol.md, "A race"); the trace tells how often aging met an
unmap of the same page. A kprobe on the walk's callback makes the time between its load of an entry
and its store longer, and with it the window; another does so between the look-up of a page and the
mapping of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks import charged
from harness.checks.claim import Claim
from harness.checks.driver import GUEST
from harness.checks.evidence import Evidence
from harness.checks.mglru import memcg_of, zram_swap
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import (
    AGE,
    AGE_CALLBACK,
    LOOK_UP,
    MAPS,
    PKVM_MAPS,
    UNMAP,
    UNMAP_CALLBACK,
    UNMAP_WALK,
    looking_up,
    meetings,
    unmaps,
    walk_functions,
)
from harness.checks.racing import (
    SECONDS,
    Shows,
    added,
    crowd,
    drawn,
    entering,
    entries,
    exact,
    kept,
    never_entered,
    not_widened,
)
from harness.contract import Contract
from harness.deadline import Deadline
from harness.guest_replies import RaceReply
from harness.guest_words import Ager
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.kernel.config import version_pair
from harness.observe.trace import Counts, Wanted, by_tasks, returned, slowed_entry, slowed_return
from harness.observe.tracefs import Session, tracing
from harness.observe.unproven import Unproven

PAGES = 64
ROUNDS = 32
# One race of 48 rounds met a window of a few instructions in 5 of 6 cases (a lockless ager whose
# store is plain; test_unmap_beside_aging leaves that to no chance). More follow, with other seeds,
# while threads have not met at all.
LEAST_RACES = 2
RACES = 6
# No further one is begun after so many seconds: on a host that busy, it would not end in time.
RACES_SECONDS = 40.0

MKYOUNG = "kvm_pgtable_stage2_mkyoung"
# Of the kernels seen the last in which that returns the entry, 0 where there is none any more. In
# 7.3 it returns nothing, so what stands in the register says nothing.
LAST_WITH_ENTRY = (6, 12)


def returns_entry(release: str) -> bool:
    """Whether MKYOUNG of a kernel of that release ("6.12.117") is known to return the entry."""
    return version_pair(release) <= LAST_WITH_ENTRY


def recorded(contract: Contract, aging: str, *, misses: bool) -> Wanted:
    """What shows that the window was hit; `misses` are access faults that find no entry.

    `aging` is an event, or a function of the fast path.
    """
    by_event = aging == AGE
    return Wanted(
        events=(AGE, UNMAP) if by_event else (UNMAP,),
        functions=walk_functions(contract, UNMAP_CALLBACK, *MAPS, *PKVM_MAPS),
        entries=() if by_event else (aging,),
        slowed={AGE_CALLBACK: 8} | dict.fromkeys(LOOK_UP, 8),
        returns={UNMAP_WALK: ""}
        | dict.fromkeys(LOOK_UP, by_tasks(GUEST))
        | ({MKYOUNG: "ret == 0"} if misses else {}),
        # Other VMs fault as well.
        ours=(GUEST,),
    )


@pytest.mark.deep
def test_race_unmap(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Aging against guest accesses and unmapping: no content is lost or comes back, no splat."""
    ager = entering(contract, cell)
    shows = Shows.of(contract, ager, cell)
    seeds, later = drawn(rng, RACES)
    those = crowd(shell, cell)
    claim.expect(
        f"{those.vcpus} vCPUs that read and write {PAGES} random pages find what they wrote, or "
        f"zero after a drop, while {those.agers} threads age the pages by {ager} and ranges of "
        f"them are dropped and swapped out (seed {cell.seed}); aging is exact afterwards; no page "
        "is charged to the guest's memcg when it has ended; no splat; aging met unmaps"
    )
    before = splats(shell)
    met, evidence = Met(), Evidence()
    misses = returns_entry(shell.run("uname -r").stdout)
    with (
        zram_swap(shell),
        tracing(shell, recorded(contract, shows.aging, misses=misses)) as session,
    ):
        vm = guest(pages=PAGES, vcpus=those.vcpus, timeout=SECONDS)
        with memcg_of(vm, shell):
            limit = Deadline(RACES_SECONDS * cell.slowdown)
            for number, seed in enumerate(seeds):
                result, counts = race(vm, session, claim, those.agers, ager, seed, number)
                met += evidence.read(partial(met_in, result, counts, shows, vm), Met())
                enough = number + 1 >= LEAST_RACES and (
                    bool(evidence.unseen) or met.enough(cell, session.absent)
                )
                if enough or limit.expired():
                    break
            exact(vm, shell, claim, later)
            claim.observe(met.words())
            # Ends before its swap does.
            vm.close()
            charged.assert_nothing_left(shell, claim, cell.slowdown)
    shown = looking_up(session.absent)
    widened = [slowed_return(shown)] if shown else []
    not_widened(claim, session.absent, slowed_entry(AGE_CALLBACK), *widened)
    if not tells_lost(session.absent):
        names = {*map(returned, LOOK_UP), *MAPS} & session.absent.keys()
        reasons = "; ".join(f"{name}: {session.absent[name]}" for name in sorted(names))
        claim.not_judged(f"faults that came to map nothing, as they do not show ({reasons})")
    assert_none_new(shell, claim, before)
    if not misses and cell.cell.af_mode == "software":
        raise Unproven(f"{MKYOUNG} of this kernel does not tell which faults found no entry")
    enough = met.enough(cell, session.absent)
    evidence.prove("" if enough else f"what should race did not meet: {met.words()}")
    evidence.prove(never_entered(shows.fast, met.fast))


@dataclass(frozen=True)
class Met:
    """How often what should race did; `fast` are entries of the series' fast path."""

    ages: int = 0
    unmaps: int = 0
    together: int = 0
    retries: int = 0
    lost: int = 0
    paged_out: int = 0
    fast: int = 0

    def __add__(self, other: Met) -> Met:
        return added(self, other)

    def enough(self, cell: CellSpec, absent: Container[str]) -> bool:
        """Whether the windows were hit that there are in a cell: no fault sets AF by hardware."""
        retried = self.retries > 0 or cell.cell.af_mode == "hardware"
        lost = self.lost > 0 or not tells_lost(absent)
        return self.together > 0 and self.paged_out > 0 and retried and lost

    def words(self) -> str:
        """The numbers in a sentence."""
        return (
            f"{self.together} of {self.ages} agings began while the page was being unmapped "
            f"({self.unmaps} unmaps); {self.retries} access faults found their entry gone; "
            f"{self.lost} faults looked up a page and came to map none; "
            f"{self.paged_out} pages were swapped out"
        )


def race(
    vm: Guest,
    session: Session,
    claim: Claim,
    agers: int,
    ager: Ager,
    seed: int,
    number: int,
) -> tuple[RaceReply, Counts]:
    """One race, and its trace; GuestDataLost if a vCPU read what it must not."""
    result, counts = kept(
        session,
        claim,
        f"trace{number}.txt",
        lambda: vm.race(seed, rounds=ROUNDS, agers=agers, ager=ager),
    )
    claim.observe(
        f"race {seed}: {result.touches} touches, {result.least} at least by each vCPU; "
        f"{result.dropped} pages dropped, {result.paged_out} swapped out, {result.found} "
        f"words found dropped; {result.passes} passes of aging"
    )
    return result, counts


def met_in(result: RaceReply, counts: Counts, shows: Shows, vm: Guest) -> Met:
    """How often the threads of a race met, by its trace."""
    ages = shows.agings(counts, vm)
    spans = unmaps(counts)
    # Recorded only of a kernel in which it tells.
    retries = len(counts.events(returned(MKYOUNG))) if MKYOUNG in counts.wanted.returns else 0
    return Met(
        ages=len(ages),
        unmaps=len(spans),
        together=meetings(spans, ages),
        retries=retries,
        lost=lost_races(counts),
        paged_out=result.paged_out,
        fast=entries(counts, shows.fast),
    )


def tells_lost(absent: Container[str]) -> bool:
    """Whether this kernel shows which faults did not come to map what they looked up.

    One that must find out that its page was unmapped meanwhile enters none of MAPS, and has to let
    go of the page.
    """
    return looking_up(absent) is not None and not any(name in absent for name in MAPS)


def lost_races(counts: Counts) -> int:
    """Faults that looked up a page and did not come to map it; 0 if that cannot be told."""
    shown = looking_up(counts.absent)
    if shown is None or not tells_lost(counts.absent):
        return 0
    names = (returned(shown), *MAPS, *(name for name in PKVM_MAPS if name not in counts.absent))
    if any(counts.probes[name].missed for name in names):
        return 0
    looked_up, *mapped = (counts.of(name) for name in names)
    return max(looked_up - sum(mapped), 0)
