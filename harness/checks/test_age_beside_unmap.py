# SPDX-License-Identifier: GPL-2.0-only
"""Some pages of a VM are aged while others of it are unmapped: none of them is left out.

Whoever gives up because the MMU lock is taken, or because an unmap is under way, says of young
pages that they are old, and the host swaps out what its guests use as soon as it is busy. Nobody
changes the entries of these pages meanwhile, so there is no race over one that could be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.cpus import several
from harness.checks.evidence import Evidence
from harness.checks.idle_ager import beside
from harness.checks.overlap import AGE, UNMAP, UNMAP_WALK, Window, meetings, unmaps
from harness.checks.pages import leaves, on_lists, populated, shorten
from harness.checks.racing import kept
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.trace import Counts, Wanted
from harness.observe.tracefs import tracing

# Each half has host tables of its own, and so locks of its own for them.
PAGES = 4096
HALF = PAGES // 2
# Passes until so many agings began during an unmap, or all.
PASSES, MEETINGS = 4, 4


@pytest.mark.deep
def test_age_beside_unmap(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, cell: CellSpec
) -> None:
    """Aging makes each of its pages old, also those that it comes to while others are unmapped."""
    claim.expect(
        f"another process ages {HALF} young pages once by page_idle, while {HALF} others of the VM "
        f"are dropped: the ones are all old then, and the others all gone ({cell.cell.kvm_mode}); "
        "some agings begin during an unmap"
    )
    several(shell, "nobody ages while another unmaps")
    aged, dropped = frozenset(range(HALF)), frozenset(range(HALF, PAGES))
    vm = populated(guest(pages=PAGES))
    pfns = vm.pfns()
    met, evidence = 0, Evidence()
    wanted = Wanted((AGE, UNMAP), returns={UNMAP_WALK: ""})
    with tracing(shell, wanted) as trace, beside(vm, shell, [pfns[page] for page in aged]) as both:
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
            times = evidence.read(partial(_met, counts), 0)
            young = stage2.young(found, vm.slot.ipa, PAGES)
            mapped = stage2.mapped(found, vm.slot.ipa, PAGES)
            seen = evidence.unseen or f"{times} agings began during unmaps"
            claim.observe(f"pass {number}: {seen}, {len(young)} young")
            left = mapped & dropped
            assert not left, f"{len(left)} dropped pages are mapped still: {shorten(left)}"
            missed = young & aged
            assert not missed, f"aging left {len(missed)} pages young: {shorten(missed)}"
            met += times
            if met >= MEETINGS or evidence.unseen:
                break
    vm.touch(aged, write=False)
    vm.verify(aged)
    evidence.prove("" if met else "no aging began while other pages were being unmapped")


def _met(counts: Counts) -> int:
    """How many agings began while pages were being unmapped."""
    return meetings(unmaps(counts), counts.events(AGE), Window.lasts)
