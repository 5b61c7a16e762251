# SPDX-License-Identifier: GPL-2.0-only
"""Some pages of a VM are aged while others of it are unmapped: none of them is left out.

Whoever gives up because the MMU lock is taken, or because an unmap is under way, says of young
pages that they are old, and the host swaps out what its guests use as soon as it is busy. Nobody
changes the entries of these pages meanwhile, so there is no race over one that could be lost.

Nor may they be aged in another way than at rest: a series that spares the MMU lock spares it when
it is wanted most, while somebody else has it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.counted import check_which, counters
from harness.checks.cpus import several
from harness.checks.driver import GUEST, either, expected, situation
from harness.checks.evidence import Evidence
from harness.checks.idle_ager import beside
from harness.checks.overlap import (
    AGE,
    AGED,
    UNMAP,
    UNMAP_WALK,
    entered,
    slot_range,
    unmaps,
)
from harness.checks.pages import leaves, on_lists, populated, shorten
from harness.checks.racing import kept
from harness.contract import Contract, Expectation
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.trace import Counts, Wanted, by_tasks
from harness.observe.tracefs import tracing

# Each half has host tables of its own, and so locks of its own for them.
PAGES = 4096
HALF = PAGES // 2
# Passes until so many agings began during an unmap, or all.
PASSES, MEETINGS = 4, 4


@pytest.mark.deep
def test_age_beside_unmap(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Aging makes each of its pages old, also those that it comes to while others are unmapped."""
    path = expected(contract, "page_idle", cell)
    fast, never = path.enters_fast_path, _never(path)
    counting = contract.expect_counters(situation(cell))
    claim.expect(
        f"another process ages {HALF} young pages once by page_idle, while {HALF} others of the VM "
        f"are dropped: the ones are all old then, and the others all gone ({cell.cell.kvm_mode}); "
        f"some agings begin during an unmap, and enter {' or '.join(fast) or 'what they do'} as "
        f"they do at rest, none of {', '.join(never)}"
        + "; the VM's counters say so as well"
        * bool(counting)
    )
    several(shell, "nobody ages while another unmaps")
    aged, dropped = frozenset(range(HALF)), frozenset(range(HALF, PAGES))
    vm = populated(guest(pages=PAGES))
    pfns = vm.pfns()
    met, evidence = 0, Evidence()
    at_first = counters(vm, shell)
    nothing: tuple[frozenset[str], ...] = ()
    entries = (*fast, *never)
    # Others age and unmap what is in no memslot, and go no further then.
    ours = dict.fromkeys((AGE, UNMAP), by_tasks(GUEST))
    wanted = Wanted(
        (AGE, UNMAP), entries, filters=ours, returns={UNMAP_WALK: "", AGED: ""}, entries=entries
    )
    with tracing(shell, wanted) as trace, beside(vm, shell, [pfns[page] for page in aged]) as both:
        seen_fast, seen_never = (frozenset(names) - trace.absent.keys() for names in (fast, never))
        for number in range(PASSES):
            # A cached translation would hide the touch from stage 2.
            vm.flush()
            vm.touch(range(PAGES), write=True)
            on_lists(vm)
            _, counts = kept(
                trace,
                claim,
                f"trace{number}.txt",
                lambda: both(lambda: vm.advise("dontneed", dropped)),
            )
            found = leaves(vm, shell, claim, str(number))
            asked = partial(_beside_unmap, counts, vm, seen_fast | seen_never)
            beside_unmap = evidence.read(asked, nothing)
            young = stage2.young(found, vm.slot.ipa, PAGES)
            mapped = stage2.mapped(found, vm.slot.ipa, PAGES)
            seen = evidence.unseen or f"{len(beside_unmap)} agings began during unmaps"
            claim.observe(f"pass {number}: {seen}, {len(young)} young")
            left = mapped & dropped
            assert not left, f"{len(left)} dropped pages are mapped still: {shorten(left)}"
            missed = young & aged
            assert not missed, f"aging left {len(missed)} pages young: {shorten(missed)}"
            others = frozenset[str]().union(*beside_unmap) & seen_never
            assert not others, f"agings that began during an unmap entered {', '.join(others)}"
            astray = sum(not names & seen_fast for names in beside_unmap) if seen_fast else 0
            assert not astray, f"{astray} agings that began during an unmap did not enter {fast}"
            met += len(beside_unmap)
            if met >= MEETINGS or evidence.unseen:
                break
    check_which(claim, counting, at_first, counters(vm, shell))
    vm.touch(aged, write=False)
    vm.verify(aged)
    evidence.prove("" if met else "no aging began while other pages were being unmapped")
    evidence.prove(f"none of {fast} can be seen" if fast and not seen_fast else "")


def _never(path: Expectation) -> tuple[str, ...]:
    """The functions that aging must not enter, whichever of the contract's words holds here."""
    return tuple(name for name in path.never if all(name in one.never for one in either(path)))


def _beside_unmap(
    counts: Counts, vm: Guest, functions: Collection[str]
) -> tuple[frozenset[str], ...]:
    """Of each aging that began while pages were being unmapped, which functions it entered."""
    start, end = slot_range(vm)
    spans = [one for one in unmaps(counts) if one.start_address < end and one.end_address > start]
    return tuple(
        names
        for aging, names in entered(counts, functions)
        if start <= aging.start_address < end
        and any(span.pid != aging.pid and span.begin <= aging.begin <= span.end for span in spans)
    )
