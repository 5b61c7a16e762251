# SPDX-License-Identifier: GPL-2.0-only
"""What aging says of young pages while dirty logging takes write permission from them.

Nobody makes these pages old but the one process that looks, once, and nobody unmaps them: so each
is young when it is asked about, whoever wins the race for its entry (claim 12). A kernel that says
"old" where its own update of the entry failed, or where it did not come to look, has the host swap
out what its guests use. What page_idle tells user space is judged, so that it needs no counters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.cpus import several
from harness.checks.idle_ager import reading
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import (
    AGE,
    AGE_CALLBACK,
    AGED,
    SET_FLAGS,
    agings,
    meetings,
    walk_functions,
)
from harness.checks.pages import mark_idle, populated, shorten
from harness.checks.racing import Tally, kept, not_widened
from harness.contract import Contract
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import PROBE_FULL, Counts, Event, Wanted, returned, slowed_entry
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

# A pass over them takes far longer than it takes to have the log switched on.
PAGES = 128
# There is one ager, so each switch can meet one entry that is being aged.
ROUNDS, ENOUGH = 16, 6
# The switch changes all entries under the MMU lock: who ages with the lock has to come meanwhile.
SLOWED_SWITCH = 8


@pytest.mark.deep
def test_answers_beside_log(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Pages that are young when they are asked about are told to be, while the log is switched."""
    claim.expect(
        f"another process reads page_idle once for {PAGES} pages, all young, while dirty logging "
        f"is switched on, {ENOUGH} to {ROUNDS} times: none is said to be idle; no splat; some "
        "entries change while their page is being aged"
    )
    several(shell, "nobody ages while the log is switched")
    before = splats(shell)
    wanted = Wanted(
        (AGE,),
        walk_functions(contract, SET_FLAGS),
        returns={AGED: "", SET_FLAGS: ""},
        slowed={AGE_CALLBACK: PROBE_FULL, SET_FLAGS: SLOWED_SWITCH},
    )
    vm = populated(guest(pages=PAGES))
    pfns = vm.pfns()
    tally = Tally(ENOUGH)
    with tracing(shell, wanted) as session, reading(vm, shell, pfns.values()) as both:
        for number in range(ROUNDS):
            make_young(vm)
            idle, counts = kept(
                session,
                claim,
                f"trace{number}.txt",
                lambda: both(lambda: vm.dirty_log(True)),
            )
            wrong = frozenset(page for page, pfn in pfns.items() if pfn in idle)
            assert not wrong, (
                f"round {number}: {len(wrong)} young pages were said to be idle: {shorten(wrong)}"
            )
            vm.dirty_log(False)
            if tally.over(partial(_met, counts, vm)):
                break
    claim.observe(
        f"{tally.met} entries changed while their page was being aged, in {number + 1} rounds"
    )
    not_widened(claim, session.absent, *map(slowed_entry, (AGE_CALLBACK, SET_FLAGS)))
    vm.verify(range(PAGES))
    assert_none_new(shell, claim, before)
    tally.prove("no entry changed while its page was being aged")


def _met(counts: Counts, vm: Guest) -> int:
    return meetings(agings(counts), changes(counts, vm))


def make_young(vm: Guest) -> None:
    """All pages young and writable at stage 2, old to the host, and marked idle."""
    mark_idle(vm)
    # A cached translation would hide the touch from stage 2.
    vm.flush()
    vm.touch(range(PAGES), write=True)
    unmarked = frozenset(range(PAGES)) - vm.flagged("idle")
    if unmarked:
        # With the classic LRU the fault of a write ends it, and nobody asks KVM then.
        raise Unproven(f"{len(unmarked)} pages are not idle to the host any more: nobody asks")


def changes(counts: Counts, vm: Guest) -> tuple[Event, ...]:
    """When each page's entry was changed by the switch, with the page's address.

    It goes through the slot in rising order, and enters the callback for each leaf.
    """
    ours = [one for one in counts.events(returned(SET_FLAGS)) if one.pid == vm.greeting.pid]
    if len(ours) != PAGES:
        raise Unproven(f"the switch went through {len(ours)} entries where there are {PAGES}")
    first = vm.greeting.slot_hva
    return tuple(
        replace(one, fields={"start": at, "end": at + PAGE_SIZE})
        for at, one in zip(range(first, first + PAGES * PAGE_SIZE, PAGE_SIZE), ours, strict=True)
    )
