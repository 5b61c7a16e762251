# SPDX-License-Identifier: GPL-2.0-only
"""Pages leave stage 2 while DAMON asks whether they are young.

Who only asks goes into KVM by a function of its own (test_young), which must find no table freed
either (claim 5): not when a memslot goes, nor when the host takes the pages away. DAMON ages pages
first, and asks later; what counts are its questions. test_end_beside_aging has the VM end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import pytest

from harness.cell import CellSpec
from harness.checks import charged, damon, tables
from harness.checks.claim import Claim
from harness.checks.cpus import several
from harness.checks.groups import grouped
from harness.checks.mglru import born_in_memcg
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import (
    AGE_CALLBACK,
    FLUSH_SLOT,
    TEST,
    TESTED,
    UNMAP_CALLBACK,
    UNMAP_WALK,
    Window,
    askings,
    meetings,
    walk_functions,
)
from harness.checks.pages import on_lists, populated
from harness.checks.racing import Tally, kept, not_widened
from harness.contract import Contract
from harness.deadline import Deadline
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import PROBE_FULL, Counts, Wanted, returned, slowed_entry
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

Opponent = Literal["slot", "unmap"]

PAGES = 16
# In each trace pages go so many times, in up to so many traces, until so many were met.
TIMES, TRACES, ENOUGH = 8, 8, 4
# For DAMON to come to all pages that are new, in seconds.
PATIENCE = 5.0
# What is back when stage 2 has none of the pages any more.
GONE: dict[Opponent, str] = {"slot": FLUSH_SLOT, "unmap": UNMAP_WALK}


@pytest.mark.parametrize("opponent", grouped(GONE, stress=["slot"]))
def test_asking_beside(
    opponent: Opponent,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """A slot or its memory goes while DAMON asks who is young: no splat, nothing left or lost."""
    what = "the slot goes and comes back" if opponent == "slot" else "the pages are dropped"
    claim.expect(
        f"{what} again and again, while DAMON asks whether {PAGES} pages are young "
        f"({cell.cell.kvm_mode}): no splat, no content lost, no table left, nothing charged to "
        "the owner's memcg; some pages leave stage 2 while it asks about one"
    )
    several(shell, "nobody asks while a page goes")
    baseline = tables.at_first(shell, claim)
    before = splats(shell)
    gone = GONE[opponent]
    wanted = Wanted(
        (TEST,),
        walk_functions(contract, UNMAP_CALLBACK),
        returns={TESTED: "", gone: ""},
        slowed={AGE_CALLBACK: 8 * PROBE_FULL, UNMAP_CALLBACK: 2 * PROBE_FULL},
    )
    tally = Tally(ENOUGH)
    with born_in_memcg(guest, shell, pages=PAGES) as vm:
        populated(vm)
        with tracing(shell, wanted) as session, damon.asking(vm, shell):
            for number in range(TRACES):
                _, counts = kept(
                    session, claim, f"trace{number}.txt", lambda: _act(vm, opponent, cell)
                )
                if tally.over(partial(_met, counts, gone)):
                    break
        claim.observe(f"{tally.met} of {(number + 1) * TIMES} times pages went while DAMON asked")
        not_widened(claim, session.absent, *map(slowed_entry, (AGE_CALLBACK, UNMAP_CALLBACK)))
        vm.verify(range(PAGES))
        assert_none_new(shell, claim, before)
        tables.assert_none_left(vm, shell, claim, baseline, cell.slowdown)
        vm.close()
        charged.assert_nothing_left(shell, claim, cell.slowdown)
    tally.prove("no page left stage 2 while DAMON asked")


def _met(counts: Counts, gone: str) -> int:
    return meetings(askings(counts), counts.events(returned(gone)), Window.lasts)


def _act(vm: Guest, opponent: Opponent, cell: CellSpec) -> None:
    """Have the pages go, and the guest find what must be there then, so many times."""
    for _ in range(TIMES):
        vm.touch(range(PAGES), write=True)
        if opponent == "slot":
            vm.readonly(False)
        else:
            _wait_until_aged(on_lists(vm), cell.slowdown)
            vm.advise("dontneed", range(PAGES))
        vm.touch(range(PAGES), write=False)


def _wait_until_aged(vm: Guest, slowdown: float) -> None:
    """Wait until DAMON has marked each page idle: it does not ask about one that is not."""
    deadline = Deadline(PATIENCE * slowdown)
    while len(vm.flagged("idle")) < PAGES:
        if deadline.expired():
            raise Unproven(f"DAMON did not age all of {PAGES} new pages in time")
