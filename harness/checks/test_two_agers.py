# SPDX-License-Identifier: GPL-2.0-only
"""Two age one VM at once, each pages of its own: neither may be told that it comes second.

kswapd, who counts idle pages and DAMON know nothing of each other. With a lock the second waits; a
walk without one goes on beside the first. One that gives up says of pages in use that they are old.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.cpus import several
from harness.checks.driver import GUEST, reaching
from harness.checks.evidence import Evidence
from harness.checks.idle_ager import beside
from harness.checks.overlap import AGE, AGED, Window, agings, meetings
from harness.checks.pages import leaves, on_lists, populated, shorten
from harness.checks.racing import kept
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.trace import Counts, Event, Wanted, by_tasks
from harness.observe.tracefs import tracing

PAGES = 4096
# Passes until so many agings met another one, or all.
PASSES, MEETINGS = 8, 2000


@pytest.mark.deep
def test_two_agers(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, cell: CellSpec, contract: Contract
) -> None:
    """All pages of both are old then."""
    reaching(contract, "page_idle", cell)
    claim.expect(
        f"one process ages half of {PAGES} young pages by page_idle, and another all of them at "
        f"the same time, in up to {PASSES} passes until {MEETINGS} agings began during one of the "
        f"other's: all pages are old then ({cell.cell.kvm_mode})"
    )
    several(shell, "nobody ages while another does")
    vm = populated(guest(pages=PAGES))
    pfns = vm.pfns()
    met, evidence = 0, Evidence()
    # Others age what is in no memslot.
    wanted = Wanted((AGE,), filters={AGE: by_tasks(GUEST)}, returns={AGED: by_tasks(GUEST)})
    first = [pfns[page] for page in range(PAGES // 2)]
    with tracing(shell, wanted) as trace, beside(vm, shell, first) as both:
        for number in range(PASSES):
            # A cached translation would hide the touch from stage 2.
            vm.flush()
            vm.touch(range(PAGES), write=False)
            on_lists(vm)
            _, counts = kept(trace, claim, f"trace{number}.txt", partial(both, vm.idle_mark))
            beside_other = evidence.read(partial(_met, counts), 0)
            met += beside_other
            young = stage2.young(leaves(vm, shell, claim, str(number)), vm.slot.ipa, PAGES)
            told = evidence.unseen or f"{beside_other} agings began during another's"
            claim.observe(f"pass {number}: {told}, {len(young)} young")
            assert not young, f"{len(young)} pages are young that were aged: {shorten(young)}"
            if met >= MEETINGS or evidence.unseen:
                break
    evidence.prove("" if met else "no aging began while the other process aged")


def _met(counts: Counts) -> int:
    """How many agings began while another thread was in one."""
    return meetings(agings(counts), counts.events(AGE), _in_another)


def _in_another(window: Window, event: Event) -> bool:
    return window.pid != event.pid and window.begin <= event.time <= window.end
