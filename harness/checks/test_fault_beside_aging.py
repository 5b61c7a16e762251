# SPDX-License-Identifier: GPL-2.0-only
"""New pages are mapped while other pages of the VM are aged: no fault begins anew for that.

Aging takes no page away, so no fault that is under way has to begin anew for it, as it must for an
unmap (mmu_invalidate_retry() of include/linux/kvm_host.h). A kernel that counts aging among the
invalidations has vCPUs fault over and over for as long as somebody ages (claim 12).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest

from harness.checks.claim import Claim
from harness.checks.cpus import several
from harness.checks.driver import GUEST
from harness.checks.evidence import Evidence
from harness.checks.idle_ager import ager
from harness.checks.overlap import (
    AGE,
    AGE_CALLBACK,
    FAULT,
    LOOK_UP,
    slot_range,
    walk_functions,
)
from harness.checks.pages import populated
from harness.checks.racing import kept, not_widened, not_widened_at_look_up
from harness.contract import Contract
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import (
    PROBE_FULL,
    Counts,
    Wanted,
    by_tasks,
    slowed_entry,
)
from harness.observe.tracefs import tracing

PAGES = 1024
AGED, NEW = range(PAGES // 2), range(PAGES // 2, PAGES)
# Faults during which an aging began, in up to so many passes.
ENOUGH, PASSES = 12, 12


@pytest.mark.deep
def test_fault_beside_aging(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, contract: Contract
) -> None:
    """Faults for new pages during which other pages are aged do not have to come again."""
    claim.expect(
        f"a vCPU touches {len(NEW)} pages that stage 2 does not map, while another process ages "
        f"{len(AGED)} others by page_idle without end, until an aging began during {ENOUGH} of the "
        f"faults, {PASSES} times at most: of those a quarter at most come a second time, no "
        "content is lost"
    )
    several(shell, "nobody ages while a vCPU faults")
    vm = populated(guest(pages=PAGES))
    pfns = vm.pfns()
    wanted = Wanted(
        (AGE, FAULT),
        walk_functions(contract),
        # Others age what is in no memslot.
        filters=dict.fromkeys((AGE, FAULT), by_tasks(GUEST)),
        returns=dict.fromkeys(LOOK_UP, by_tasks(GUEST)),
        # A fault has looked its page up and not yet mapped it for so long that now and then an
        # aging begins; not at each, or a kernel that is wrong would have it come for ever.
        slowed={AGE_CALLBACK: PROBE_FULL} | dict.fromkeys(LOOK_UP, PROBE_FULL // 2),
    )
    met = again = 0
    evidence = Evidence()
    with tracing(shell, wanted) as session, ager(vm, shell, [pfns[page] for page in AGED]):
        for number in range(PASSES):
            vm.advise("dontneed", NEW)
            touch = partial(vm.touch, NEW, write=True)
            _, counts = kept(session, claim, f"trace{number}.txt", touch)
            during, repeated = evidence.read(partial(_beside, counts, vm), (0, 0))
            met, again = met + during, again + repeated
            if met >= ENOUGH or evidence.unseen:
                break
    claim.observe(f"{met} faults during which an aging began; {again} of them came again")
    not_widened(claim, session.absent, slowed_entry(AGE_CALLBACK))
    not_widened_at_look_up(claim, session.absent)
    vm.verify(range(PAGES))
    # Whoever unmaps any memory of the guest's owner has a fault begin anew, too.
    most = max(met, ENOUGH) // 4
    assert again <= most, f"{again} of {met} faults during which an aging began came again"
    evidence.prove("" if met >= ENOUGH else f"an aging began during {met} faults alone")


def _beside(counts: Counts, vm: Guest) -> tuple[int, int]:
    """The faults during which an aging began, and those of them after which the page faulted again.

    A fault counts until the next one: nearly all of that time it keeps its page.
    """
    faults = [
        (event.time, page)
        for event in counts.events(FAULT)
        if (page := (event.fields["ipa"] - vm.slot.ipa) // PAGE_SIZE) in NEW
    ]
    start, end = slot_range(vm)
    ages = [event.time for event in counts.events(AGE) if start <= event.fields["start"] < end]
    beside = [
        page == following
        for (begun, page), (over, following) in pairwise(faults)
        if bisect_right(ages, begun) < bisect_left(ages, over)
    ]
    return len(beside), sum(beside)
