# SPDX-License-Identifier: GPL-2.0-only
"""To ask whether a page is young is not to age it.

Two users of KVM ask only: khugepaged and DAMON, of which DAMON clears as well. khugepaged tests
each page of a range of 2 MiB that is old to the host, and gives the range up at its end if the
last page is absent. So it can be had to ask without end and without consequence.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks import khugepaged
from harness.checks.claim import Claim
from harness.checks.counted import counted
from harness.checks.driver import check_path, promised, situation, wanted
from harness.checks.pages import (
    forget_references,
    leaves,
    mark_idle,
    pick,
    populated,
    shorten,
    show_set,
)
from harness.contract import Contract
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.trace import Wanted, tracing
from harness.observe.unproven import Unproven

PAGES = 512
ABSENT = PAGES - 1
SCANS = 2


@pytest.mark.deep
def test_young(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """khugepaged is told which pages are young, each time anew, and leaves all as they are."""
    expectation = promised(contract, "khugepaged", cell, shell, claim)
    vm = populated(guest(pages=PAGES))
    present = frozenset(range(PAGES)) - {ABSENT}
    touched = pick(rng, ABSENT)
    claim.expect(
        f"{claim.expected}; it finds {len(touched)} of {len(present)} pages young in each scan, "
        "and stage 2 is the same after it"
    )
    mark_idle(vm)
    vm.flush()
    vm.advise("dontneed", {ABSENT})
    vm.touch(touched, write=False)
    last = vm.pfns()[ABSENT - 1]
    # Pages are to be old to the host, or KVM is not asked.
    forget_references(vm, shell)
    before = leaves(vm, shell, claim, "before")
    young = stage2.young(before, vm.slot.ipa, PAGES)
    assert young == touched, f"before any scan: {show_set(touched, young)}"

    plain = wanted(expectation)
    recorded = Wanted((*plain.events, khugepaged.SCAN), plain.functions)
    with tracing(shell, recorded) as session, khugepaged.busy(shell):
        vm.advise("hugepage", range(PAGES))
        with counted(vm, shell, claim, contract.expect_counters(situation(cell))):
            session.start()
            khugepaged.wait_full_scans(shell, SCANS, cell.slowdown)
            counts = session.stop()
        # As it is set otherwise, it would make a huge page of the range.
        after = leaves(vm, shell, claim, "after")
    claim.save("trace.txt", counts.raw)
    check_path(claim, expectation, session, counts, vm, present)

    asked = counts.events(expectation.event) if expectation.event else ()
    before_absent = vm.greeting.slot_hva + (ABSENT - 1) * PAGE_SIZE
    answers = khugepaged.scans_of(counts.events(khugepaged.SCAN), asked, last, before_absent)
    if not answers or any(scan.status != "exceed_none_pte" for scan in answers):
        raise Unproven(f"khugepaged did not scan as intended: {answers[:3]}")
    told = sorted({scan.young for scan in answers})
    claim.observe(f"{len(answers)} scans found {', '.join(map(str, told))} pages young")
    assert told == [len(touched)], f"{told} pages told to be young, {len(touched)} were"
    changed = stage2.differing(before, after, vm.slot.ipa, PAGES, af=True)
    claim.observe(f"stage 2 differs in {len(changed)} pages")
    assert not changed, f"asking changed {len(changed)} pages of stage 2: {shorten(changed)}"
