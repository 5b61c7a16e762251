# SPDX-License-Identifier: GPL-2.0-only
"""To ask whether a page is young is not to age it.

Two users of KVM ask only: khugepaged and DAMON, of which DAMON clears as well. khugepaged tests
each page of a range of 2 MiB that is old to the host, and gives the range up at its end if the
last page is absent. So it can be had to ask without end and without consequence. Where guests have
the pages by two ways (see test_second), either of them is enough for a page to be young.
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
    mark_idle,
    pick,
    populated,
    shorten,
    show_set,
    shows_stage2,
)
from harness.contract import Contract
from harness.guest_replies import PAGE_SIZE, Slot
from harness.guest_words import Second
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.collect import dump_stage2
from harness.observe.trace import Wanted, merged
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

PAGES = 512
ABSENT = PAGES - 1
SCANS = 2
WAYS = ("first", "second")


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(None, id="one", marks=pytest.mark.deep),
        pytest.param("slot", marks=pytest.mark.stress),
        pytest.param("vm", marks=pytest.mark.deep),
    ],
)
def test_young(
    second: Second | None,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """khugepaged is told which pages are young, each time anew, and leaves all as they are."""
    expectation = promised(contract, "khugepaged", cell, shell, claim)
    vm = populated(guest(pages=PAGES, vcpus=2, second=second))
    present = frozenset(range(PAGES)) - {ABSENT}
    ways = (0,) if second is None else (0, 1)
    touched = [pick(rng, ABSENT) for _ in ways]
    expected = frozenset().union(*touched)
    dump = shows_stage2(vm, shell, claim, "khugepaged's answers and page_idle")
    same = "stage 2 is the same" if dump else "page_idle finds the same ones young"
    claim.expect(
        f"{claim.expected}; it finds {len(expected)} of {len(present)} pages young in each scan, "
        f"those that were touched by any of {len(ways)} ways, and {same} after it"
    )
    for vcpu in ways:
        vm.touch(range(PAGES), write=False, vcpu=vcpu)
    vm.advise("dontneed", {ABSENT})
    mark_idle(vm, absent=1)
    vm.flush()
    for vcpu in ways:
        vm.touch(touched[vcpu], write=False, vcpu=vcpu)
    last = vm.pfns()[ABSENT - 1]
    # Pages are to be old to the host, or KVM is not asked.
    forget_references(vm, shell)
    shown = ways if dump else ()
    before = [_leaves(vm, shell, claim, way, "before") for way in shown]
    for way in shown:
        found = stage2.young(before[way], _place(vm, way)[1].ipa, PAGES)
        words = f"before any scan: {show_set(touched[way], found)}"
        assert found == touched[way], words

    recorded = merged(wanted(expectation, "khugepaged"), Wanted((khugepaged.SCAN,)))
    with tracing(shell, recorded) as session, khugepaged.busy(shell):
        vm.advise("hugepage", range(PAGES))
        with counted(vm, shell, claim, contract.expect_counters(situation(cell))):
            session.start()
            khugepaged.wait_full_scans(shell, SCANS, cell.slowdown)
            counts = session.stop()
        # As it is set otherwise, it would make a huge page of the range.
        after = [_leaves(vm, shell, claim, way, "after") for way in shown]
        # It makes old what it finds young, so it is no second witness beside the dump.
        young = frozenset() if dump else present - vm.idle_read()
    claim.save("trace.txt", counts.raw)
    check_path(claim, expectation, session, counts, vm, present)

    asked = counts.events(expectation.event) if expectation.event else ()
    before_absent = vm.greeting.slot_hva + (ABSENT - 1) * PAGE_SIZE
    answers = khugepaged.scans_of(counts.events(khugepaged.SCAN), asked, last, before_absent)
    if not answers or any(scan.status != "exceed_none_pte" for scan in answers):
        raise Unproven(f"khugepaged did not scan as intended: {answers[:3]}")
    told = sorted({scan.young for scan in answers})
    claim.observe(f"{len(answers)} scans found {', '.join(map(str, told))} pages young")
    assert told == [len(expected)], f"{told} pages told to be young, {len(expected)} were"
    if not dump:
        claim.observe(f"page_idle: {show_set(expected, young)}")
        assert young == expected, f"page_idle, after asking: {show_set(expected, young)}"
    for way in shown:
        ipa = _place(vm, way)[1].ipa
        changed = stage2.differing(before[way], after[way], ipa, PAGES, af=True)
        claim.observe(f"stage 2 differs in {len(changed)} pages")
        words = f"asking changed {len(changed)} pages of stage 2: {shorten(changed)}"
        assert not changed, words


def _place(vm: Guest, way: int) -> tuple[str, Slot]:
    """The VM's folder in debugfs and the slot by which that vCPU has the pages."""
    return (vm.second_dir, vm.second_slot) if way else (vm.vm_dir, vm.slot)


def _leaves(vm: Guest, shell: Shell, claim: Claim, way: int, name: str) -> tuple[stage2.Range, ...]:
    dump = dump_stage2(shell, _place(vm, way)[0])
    claim.save(f"stage2-{name}-{WAYS[way]}.txt", dump.raw)
    return dump.ranges
