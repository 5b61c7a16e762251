# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's counters of aging, where several age a VM at once: each leaf made old, once.

Two that age pages of one table of the host's take turns, since each holds the table's lock
meanwhile (page_vma_mapped_walk()). So there are two ways to be at once: at pages of other tables,
where both add to the same counter; and at a page that is unmapped, mapped or written meanwhile,
where aging may find its entry changed and must not count it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.counted import check_counters, check_rise, counters, tally
from harness.checks.cpus import several
from harness.checks.driver import situation
from harness.checks.evidence import Evidence
from harness.checks.idle_ager import agers
from harness.checks.overlap import AGE, AGE_CALLBACK, AGE_WALK, slot_range, walk_functions
from harness.checks.pages import populated
from harness.checks.racing import SECONDS, crowd, kept, not_widened, show
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import Counts, Event, Wanted, returned, slowed_entry
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

# Each half has host tables of its own.
PAGES = 4096
HALF = PAGES // 2
PASSES = 8
# Two that add to a counter meet in few of their turns, of which a busy machine gives few in a pass:
# until there were so many, up to so many passes.
TURNS, MOST = 4000, 24

RACED_PAGES = 64
ROUNDS = 24
# Races with other seeds, until so many leaves were lost to somebody else.
RACES, LOST = 6, 4


def promised(contract: Contract, cell: CellSpec) -> dict[str, bool]:
    """Which counters count here; skips the check where the contract has none."""
    found = contract.expect_counters(situation(cell))
    if not found:
        pytest.skip("the contract names no counter of aging")
    return found


@pytest.mark.deep
def test_counters(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Two age different pages of one VM at once: its counters miss none of them."""
    counts_here = promised(contract, cell)
    claim.expect(
        f"two processes age half of {PAGES} pages each, at the same time, {PASSES} times or "
        "more, with all young before and no vCPU running: the counters rise by exactly the leaves "
        "made old"
    )
    several(shell, "no two age at the same time")
    vm = populated(guest(pages=PAGES))
    pfns = vm.pfns()
    halves = ([pfns[page] for page in range(HALF)], [pfns[page] for page in range(HALF, PAGES)])
    start, end = slot_range(vm)
    wanted = Wanted((AGE,), filters={AGE: f"start < {end:#x} && end > {start:#x}"})
    made_old = turns = passes = 0
    evidence = Evidence()
    with tracing(shell, wanted) as session, agers(vm, shell, halves) as age:
        while passes < PASSES or (turns < TURNS and passes < MOST):
            # A cached translation would hide the touch from stage 2.
            vm.flush()
            vm.touch(range(PAGES), write=False)
            before = tally(vm, shell)
            _, counts = kept(session, claim, f"trace{passes}.txt", age)
            after = tally(vm, shell)
            # From pass to pass: between them others may age what nobody looks at.
            check_counters(claim, counts_here, before, after)
            made_old += before.young - after.young
            turns += evidence.read(partial(_turns, counts), 0)
            passes += 1
    claim.observe(f"{made_old} leaves made old, by one and the other in {turns} turns")
    if made_old < passes * PAGES:
        raise Unproven(f"{made_old} leaves made old where there were {passes * PAGES} young ones")
    # One after the other, they take two in each pass.
    evidence.prove(
        f"the two did not age at the same time: {turns} turns in {passes} passes"
        if turns <= 2 * passes
        else ""
    )


def _turns(counts: Counts) -> int:
    return took_turns(counts.events(AGE))


def took_turns(events: Sequence[Event]) -> int:
    """How often, in order of time, a thread's events follow another's; the first one's count."""
    pids = [event.pid for event in sorted(events, key=lambda event: event.time)]
    return sum(one != other for one, other in zip(pids, [None, *pids], strict=False))


@pytest.mark.deep
def test_counters_race(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Aging that finds an entry changed by somebody else does not count it."""
    counts_here = promised(contract, cell)
    those = crowd(shell, cell)
    claim.expect(
        f"{those.vcpus} vCPUs touch {RACED_PAGES} pages, {those.agers} threads age them and they "
        f"are unmapped (seed {cell.seed}): the counters rise by no more than the requests that "
        f"found a leaf young, less the leaves that {AGE_CALLBACK} gave up since they had changed"
    )
    # Who has the lock for writing loses nothing to anybody.
    rule = contract.expect_mmu_lock(situation(cell)).get("aging")
    locked = rule is not None and rule.takes == "write"
    wanted = Wanted(
        functions=walk_functions(contract),
        slowed={AGE_CALLBACK: 8},
        returns={AGE_CALLBACK: "ret != 0", AGE_WALK: ""},
    )
    lost = 0
    vm = guest(pages=RACED_PAGES, vcpus=those.vcpus, timeout=SECONDS)
    with tracing(shell, wanted) as session:
        for number in range(RACES):
            seed = rng.randrange(1 << 31)

            def race(seed: int = seed) -> None:
                result = vm.race(seed, rounds=ROUNDS, agers=those.agers, opponent="dontneed")
                claim.observe(f"race {seed}: {show(result)}")

            before = counters(vm, shell)
            _, counts = kept(session, claim, f"trace{number}.txt", race)
            after = counters(vm, shell)
            found, given_up = outcomes(counts)
            claim.observe(f"{found} found young, {given_up} of them had changed")
            # An ager that looks once more at what had changed gives nothing up, and may then find
            # that there is nothing to make old. What is not counted is test_counters' affair.
            check_rise(claim, counts_here, before, after, found - given_up, or_fewer=True)
            rises = [after[name] - before[name] for name, counts in counts_here.items() if counts]
            lost += found - max(rises, default=found)
            if locked or lost >= LOST:
                break
    not_widened(claim, session.absent, slowed_entry(AGE_CALLBACK))
    if not lost and not locked:
        raise Unproven("aging made all old that it found young")


def outcomes(counts: Counts) -> tuple[int, int]:
    """Requests that found a leaf young, and leaves that had changed when they were made old.

    Each request is for one page of 4 KiB, so for one leaf.
    """
    for name in map(returned, (AGE_WALK, AGE_CALLBACK)):
        if name in counts.probes and counts.probes[name].missed:
            raise Unproven(f"the probe on {name} missed {counts.probes[name].missed} returns")
    # A bool is the lowest byte of its register (AAPCS64).
    young = [event for event in counts.events(returned(AGE_WALK)) if event.fields["ret"] & 0xFF]
    return len(young), len(counts.events(returned(AGE_CALLBACK)))
