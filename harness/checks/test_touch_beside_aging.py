# SPDX-License-Identifier: GPL-2.0-only
"""What aging says of pages that a vCPU touches while they are aged: no touch is forgotten.

Each page is old and marked idle, and read once, while another process asks page_idle about it.
Whether that comes before the touch or after it is open, and so is what is said then: but a page
whose touch was over before it was asked about is young, and one that is said to be old has its
touch still to come, so that it is young when it is asked about next (claim 12). An access fault, or
the hardware in its place, sets the flag of an entry that aging has loaded and found old; a kernel
that stores it as it was loaded, or keeps a note of its own of who has touched what, loses the
touch, and the host swaps out what its guests use.

KVM's access fault leaves the mark of page_idle alone with MGLRU (mm/swap.c, folio_mark_accessed()),
so that the answers tell of stage 2.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.cpus import several
from harness.checks.driver import FAULTS, GUEST, situation
from harness.checks.idle_ager import later, reading
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import (
    AGE,
    AGE_CALLBACK,
    AGED,
    SET_FLAGS,
    Window,
    agings,
    walk_functions,
)
from harness.checks.pages import mark_idle, populated, require_marks_kept, shorten
from harness.checks.racing import Tally, entries, kept, never_entered, not_widened
from harness.contract import Contract
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import (
    ACCESS_FAULT,
    PROBE_FULL,
    Counts,
    Event,
    Wanted,
    by_tasks,
    merged,
    slowed_entry,
)
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

PAGES = 24
EVERYTHING = frozenset(range(PAGES))
# A page is being aged for more than a millisecond (emulated), in which a vCPU can read all of them.
SLOWED = 8 * PROBE_FULL
# And for a part of that an access fault holds the MMU lock, which aging may want.
SLOWED_FAULT = PROBE_FULL // 2
# Milliseconds until it does, by turns: the pass has begun by then, and is not over.
AFTER = (2, 6, 14)
ROUNDS, ENOUGH = 24, 3
ENTRY, EXIT = "kvm:kvm_entry", "kvm:kvm_exit"


@dataclass(frozen=True)
class Seen:
    """What a round's trace tells: the pages touched before, and how many while they were aged."""

    before: frozenset[int]
    during: int


@pytest.mark.deep
def test_touch_beside_aging(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Each of the pages that are touched while they are aged is told to be young, once."""
    claim.expect(
        f"a vCPU touches {PAGES} old pages once, while another process reads page_idle for them, "
        f"until {ENOUGH} were touched while they were being aged, {ROUNDS} times at most: a page "
        "whose touch was over by then is not said to be idle, and one that is said to be is not "
        "when it is read once more; no splat"
    )
    several(shell, "nobody touches what is being aged")
    splatted = splats(shell)
    by_hardware = cell.cell.af_mode == "hardware"
    fast = contract.expect("page_idle", situation(cell)).enters_fast_path
    found, entered, tally = 0, 0, Tally(ENOUGH)
    vm = populated(guest(pages=PAGES))
    require_marks_kept(vm)
    pfns = vm.pfns()
    with (
        tracing(shell, recorded(contract)) as session,
        reading(vm, shell, pfns.values()) as both,
    ):
        for number in range(ROUNDS):
            mark_idle(vm)
            # A cached translation would hide the touch from stage 2.
            vm.flush()
            order = rng.sample(range(PAGES), PAGES)
            # No write: what flush() leaves is write-protected, so each would fault.
            reads = partial(vm.touch_in_order, order, write=False)
            touch = partial(later, AFTER[number % len(AFTER)], reads)
            idle, counts = kept(session, claim, f"trace{number}.txt", partial(both, touch))
            old = frozenset(page for page, pfn in pfns.items() if pfn in idle)
            forgotten = vm.idle_read()
            found += len(old)
            assert not forgotten, (
                f"round {number}: {len(forgotten)} pages were touched while they were aged, and "
                f"never said to be young: {shorten(forgotten)}"
            )
            entered += entries(counts, fast)
            if tally.over(partial(_met, counts, vm, old, by_hardware=by_hardware)):
                break
    claim.observe(
        f"{tally.met} pages touched while they were being aged, in {number + 1} rounds; {found} "
        "said to be old beside their touch, and young when they were read again"
    )
    not_widened(claim, session.absent, *map(slowed_entry, (AGE_CALLBACK, SET_FLAGS)))
    vm.verify(range(PAGES))
    assert_none_new(shell, claim, splatted)
    tally.prove("no page was touched while it was being aged")
    if missing := never_entered(fast, entered):
        raise Unproven(missing)


def recorded(contract: Contract) -> Wanted:
    """What shows agings from begin to end, and when a vCPU touches what."""
    runs = Wanted((ENTRY, EXIT), filters=dict.fromkeys((ENTRY, EXIT), by_tasks(GUEST)))
    ages = Wanted(
        (AGE,),
        walk_functions(contract, SET_FLAGS),
        returns={AGED: ""},
        slowed={AGE_CALLBACK: SLOWED, SET_FLAGS: SLOWED_FAULT},
    )
    return merged(ages, runs, FAULTS)


def _met(counts: Counts, vm: Guest, old: frozenset[int], *, by_hardware: bool) -> int:
    """How many pages were touched while they were being aged, of a trace that tells more than that.

    Asserts that none was said to be `old` which had been touched before.
    """
    seen = seen_in(counts, vm, by_hardware=by_hardware)
    wrong = seen.before & old
    assert not wrong, f"{len(wrong)} pages were said to be old after a touch: {shorten(wrong)}"
    return seen.during


def seen_in(counts: Counts, vm: Guest, *, by_hardware: bool) -> Seen:
    """What a round's trace tells; with hardware AF no touch shows but by when its vCPU ran."""
    asked = agings(counts)
    entered, left = counts.events(ENTRY), counts.events(EXIT)
    faults = counts.events(ACCESS_FAULT)
    touches = _by_run(entered, left) if by_hardware else _by_fault(faults, entered, vm)
    at = {vm.greeting.slot_hva + page * PAGE_SIZE: page for page in EVERYTHING}
    before, during = set[int](), 0
    for window in asked:
        page = at.get(window.start_address)
        touch = touches.get(page) if page is not None else None
        if page is None or touch is None or touch.pid == window.pid:
            continue
        if touch.end < window.begin:
            before.add(page)
        during += window.begin <= touch.begin and (
            touch.end <= window.end if by_hardware else touch.begin <= window.end
        )
    return Seen(frozenset(before), during)


def _by_fault(faults: Sequence[Event], entries: Sequence[Event], vm: Guest) -> dict[int, Window]:
    """From the access fault on each page until its vCPU goes on, when the flag is set.

    The last one of a page: where another changed the entry at the same time it comes once more.
    """
    found: dict[int, Window] = {}
    for fault in faults:
        page = (fault.fields["ipa"] - vm.slot.ipa) // PAGE_SIZE
        goes_on = [one.time for one in entries if one.pid == fault.pid and one.time > fault.time]
        if page in EVERYTHING and goes_on:
            found[page] = Window(fault.pid, fault.time, goes_on[0], page, page + 1)
    return found


def _by_run(entered: Sequence[Event], left: Sequence[Event]) -> dict[int, Window]:
    """The time within which a vCPU touched all pages: from its first entry to its last exit."""
    if not entered or not left:
        return {}
    first, last = entered[0], left[-1]
    return dict.fromkeys(EVERYTHING, Window(first.pid, first.time, last.time, 0, PAGES))
