# SPDX-License-Identifier: GPL-2.0-only
"""A guest with more memory than its limit: the vCPUs themselves reclaim, within KVM_RUN.

In test_pressure it is somebody else who reclaims, and nobody faults meanwhile. Here a vCPU takes
pages of its own VM from stage 2, on its way back into the guest (resume_user_mode_work()). Not by
memory.max, with which that is within the fault: a memcg whose pages are all in use may well find
none to reclaim, and then the kernel kills (seen once in ten cells).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks import charged, pressure
from harness.checks.claim import Claim
from harness.checks.driver import expected
from harness.checks.evidence import Evidence
from harness.checks.idle_ager import Outsider
from harness.checks.mglru import CGROUP, memcg_of, zram_swap
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import (
    AGE,
    FAULT,
    UNMAP,
    Window,
    meetings,
    slot_range,
    stays,
    walk_functions,
)
from harness.checks.pages import populated, shorten
from harness.checks.racing import Shows, added, entering, entries, kept, never_entered, show
from harness.contract import Contract, Expectation
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import Counts, Event, Wanted, pages_by_hva, returned
from harness.observe.tracefs import tracing

# Of the kernel whose counters were read to agree (test_pressure).
KERNEL = "6.12"
PAGES = 192
# So that they share two CPUs, each of which charges up to 64 pages in advance.
VCPUS = 3
# How many pages less than it uses the guest may have: more than CPUs have charged in advance.
# Going round, vCPUs miss nearly each page.
LESS = PAGES // 2
# How long all vCPUs race, and what a command may take: each page that goes costs a busy emulated
# host a tenth of a second.
ROUNDS, SECONDS = 4, 120.0
# What an ager is in while it ages. It may itself reclaim pages, and have KVM asked about them, but
# only on its way out.
WRITES: Mapping[Outsider, str] = {
    "page-idle": "page_idle_bitmap_write",
    "walk": "lru_gen_seq_write",
}
# Races with other seeds, until a page was aged: the ranges to age are random, and half of the pages
# are not there.
RACES = 4


@pytest.mark.deep
def test_pressure_own(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """No content is lost, each vCPU gets on, what goes was asked about, and the counters agree."""
    summed = contract.kernel == KERNEL
    by = entering(contract, cell)
    shows = Shows.of(contract, by, cell)
    claim.expect(
        f"a guest of {PAGES} pages with a memory.high {LESS} pages below what it uses: its "
        "vCPUs reclaim its pages while they read and write them, and find what they wrote; each of "
        f"them gets on, also while a thread ages the pages by {by}; KVM is asked about each page "
        "before it goes; no splat; nothing is charged in the end"
        + ("; the sums of all counters agree" if summed else "")
        + f" (seed {cell.seed})"
    )
    everything = frozenset(range(PAGES))
    seeds = [rng.randrange(1 << 31) for _ in range(RACES)]
    eviction = expected(contract, "eviction", cell)
    evidence, own, met = Evidence(), 0, Met()
    before = splats(shell)
    with zram_swap(shell), tracing(shell, recorded(contract, by, shows)) as session:
        vm = guest(pages=PAGES, vcpus=VCPUS, timeout=SECONDS)
        with memcg_of(vm, shell):
            populated(vm)
            used = pressure.read(shell, vm.greeting.pid).current
            # Or it would be who writes the limit that reclaims.
            vm.advise("dontneed", everything)
            shell.write(f"{CGROUP}/memory.high", f"{(used - LESS) * PAGE_SIZE}\n")
            start = pressure.read(shell, vm.greeting.pid)
            session.start()
            vm.populate()
            vm.touch(everything, write=False)
            vm.touch(everything, write=True)
            counts = session.stop()
            claim.save("trace.txt", counts.raw)
            after = pressure.read(shell, vm.greeting.pid)
            claim.save("counters-start.txt", start.raw)
            claim.save("counters-pressed.txt", after.raw)
            if summed:
                late = partial(pressure.read_late, shell, vm.greeting.pid)
                check_sums(claim, start, after, late)
            evidence.read(partial(check_asked, claim, eviction, vm, counts), None)
            own = evidence.read(partial(reclaimed, counts), 0)
            claim.observe(f"vCPUs reclaimed {own} pages of their VM")
            vm.verify(everything)
            for number, seed in enumerate(seeds):
                # Its words are judged one by one, and so is that each vCPU gets on in each round.
                result, raced = kept(
                    session,
                    claim,
                    f"trace-race{number}.txt",
                    partial(vm.race, seed, rounds=ROUNDS, agers=1, ager=by, opponent="guest"),
                )
                met += evidence.read(partial(met_in, raced, by, shows, vm), Met())
                claim.observe(f"race {seed}: {show(result)}; {met.words()}")
                if evidence.unseen or not met.missing(shows):
                    break
            shell.write(f"{CGROUP}/memory.high", "max\n")
            vm.populate()
            vm.verify(everything)
            # Ends before its swap does.
            vm.close()
            charged.assert_nothing_left(shell, claim, cell.slowdown)
    assert_none_new(shell, claim, before)
    evidence.prove("" if own else "no vCPU reclaimed a page of its own VM")
    evidence.prove(met.missing(shows))


@dataclass(frozen=True)
class Met:
    """What happened in races.

    `reclaimed` are pages that vCPUs took from their own VM, `aged` agings that the ager began, and
    `fast` entries of the series' fast path.
    """

    reclaimed: int = 0
    aged: int = 0
    fast: int = 0

    def __add__(self, other: Met) -> Met:
        return added(self, other)

    def words(self) -> str:
        """The numbers in a sentence."""
        return f"vCPUs reclaimed {self.reclaimed} pages, and the ager began {self.aged} agings"

    def missing(self, shows: Shows) -> str:
        """What did not happen and must for races to prove anything, "" if all did."""
        if not self.reclaimed:
            return "no vCPU reclaimed a page of its own VM in the race"
        if not self.aged:
            return "no page was aged in the race"
        return never_entered(shows.fast, self.fast)


def recorded(contract: Contract, by: Outsider, shows: Shows) -> Wanted:
    """What shows who reclaims, who ages, and what KVM is asked before a page goes."""
    write = WRITES[by]
    return Wanted(
        (AGE, UNMAP, FAULT),
        walk_functions(contract, write),
        entries=(write,) if shows.aging == AGE else (write, shows.aging),
        returns={write: ""},
    )


def met_in(raced: Counts, by: Outsider, shows: Shows, vm: Guest) -> Met:
    """What happened in a race, by its trace."""
    write = WRITES[by]
    writes = stays(raced.events(write), raced.events(returned(write)), *slot_range(vm))
    aged = meetings(writes, shows.agings(raced, vm), Window.holds_own)
    return Met(reclaimed(raced), aged, entries(raced, shows.fast))


def reclaimed(counts: Counts) -> int:
    """How many pages vCPUs took from their own VM."""
    return len(by_faulting(counts.events(UNMAP), counts.events(FAULT)))


def check_sums(
    claim: Claim,
    before: pressure.Reading,
    after: pressure.Reading,
    late: Callable[[], pressure.Reading],
) -> None:
    """Assert that the counters agree with one another and with the page tables."""
    wrong = pressure.contradictions(before, after, mglru=True)
    if pressure.judge(claim, wrong, before, late):
        claim.observe(f"all sums agree, with {after.swapped} pages in swap")


def check_asked(claim: Claim, eviction: Expectation, vm: Guest, counts: Counts) -> None:
    """Assert that no page was evicted more often than KVM was asked about it.

    Who moves pages takes them from stage 2 as well, and asks nothing (mm/rmap.c,
    try_to_migrate_one()). So what counts is taken by vCPUs, which reclaim here, and by whoever
    asked about any page, as kswapd would.
    """
    if not eviction.reaches_kvm:
        claim.observe("by the contract, eviction asks KVM for nothing here")
        return
    if eviction.event != AGE:
        claim.not_judged("whether KVM is asked: by the contract this path has no event to count")
        return
    asking = counts.events(AGE)
    reclaimers = {event.pid for event in (*counts.events(FAULT), *asking)}
    taken = [event for event in counts.events(UNMAP) if event.pid in reclaimers]
    start = vm.greeting.slot_hva
    gone, asked = (pages_by_hva(events, start, PAGES) for events in (taken, asking))
    unasked = frozenset(page for page in range(PAGES) if asked[page] < gone[page])
    assert not unasked, (
        f"{len(unasked)} pages went more often than KVM was asked about them: {shorten(unasked)}"
    )
    claim.observe(f"KVM was asked about each page before it went, {sum(gone)} times")


def by_faulting(unmaps: Iterable[Event], faults: Iterable[Event]) -> list[Event]:
    """The unmaps by threads that are vCPUs: those that took a fault of a guest."""
    vcpus = {fault.pid for fault in faults}
    return [unmap for unmap in unmaps if unmap.pid in vcpus]
