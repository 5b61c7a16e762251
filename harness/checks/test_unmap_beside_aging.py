# SPDX-License-Identifier: GPL-2.0-only
"""Pages are unmapped while somebody else makes them old: what was taken away stays away.

An ager that stores to an entry which it has loaded before the unmap brings back a page that the
host has given away, and the guest reads there what is no longer its own (claim 4). A probe keeps
the ager for milliseconds between the two, page after page, and the unmap comes meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.cpus import several
from harness.checks.idle_ager import beside, reached
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import AGE_CALLBACK, UNMAP, meetings
from harness.checks.pages import on_lists, populated
from harness.checks.pages import shorten as short
from harness.checks.racing import Shows, Tally, entering, entries, kept, never_entered, not_widened
from harness.contract import Contract
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import (
    PROBE_FULL,
    Counts,
    address_range,
    slowed_entry,
)
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

# Of what is dropped: the ager is at each for two milliseconds and more under emulation, longer
# together than two processes need to get going.
DROPPED = 16
# With all of a table the table goes as well, with half of it what is left there is seen.
PAGES = 2 * DROPPED
SLOWED = 8 * PROBE_FULL
ROUNDS, ENOUGH = 16, 4


@pytest.mark.deep
def test_unmap_beside_aging(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """A page that was dropped while it was being aged is gone, and the guest reads zero there."""
    by = entering(contract, cell)
    shows = Shows.of(contract, by, cell)
    claim.expect(
        f"{DROPPED} or {PAGES} of {PAGES} young pages are aged by {by} and dropped at the "
        f"same time, by turns ({cell.cell.kvm_mode}): the guest reads zero in each of them, of a "
        "page that the host has, and in the others what it wrote; no splat; drops came while a "
        "page was being aged"
    )
    several(shell, "nobody unmaps while another ages")
    before = splats(shell)
    wanted = shows.wanted(contract, events=(UNMAP,), slowed={AGE_CALLBACK: SLOWED})
    tally, entered = Tally(ENOUGH), 0
    vm = guest(pages=PAGES)
    with reached(by, vm, shell), tracing(shell, wanted) as session:
        populated(vm)
        for number in range(ROUNDS):
            gone = range(PAGES if number % 2 else DROPPED)
            pfns = vm.pfns()
            with beside(vm, shell, [pfns[page] for page in gone], by) as both:
                _, counts = kept(
                    session,
                    claim,
                    f"trace{number}.txt",
                    partial(both, partial(vm.advise, "dontneed", gone)),
                )
            # What it reads is held to what must be there.
            vm.touch(range(PAGES), write=False)
            absent = frozenset(range(PAGES)) - vm.pfns().keys()
            assert not absent, f"the guest reads pages that the host does not have: {short(absent)}"
            entered += entries(counts, shows.fast)
            if tally.over(partial(_met, counts, shows, vm, len(gone))):
                break
            vm.touch(range(PAGES), write=True)
            on_lists(vm)
    not_widened(claim, session.absent, slowed_entry(AGE_CALLBACK))
    claim.observe(f"{tally.met} of {number + 1} drops came while one of their pages was being aged")
    assert_none_new(shell, claim, before)
    tally.prove("no drop came while a page was being aged")
    if missing := never_entered(shows.fast, entered):
        raise Unproven(missing)


def _met(counts: Counts, shows: Shows, vm: Guest, pages: int) -> int:
    """How many unmaps of so many pages at once, from the first on, came while one was aged."""
    start = vm.greeting.slot_hva
    whole = (start, start + pages * PAGE_SIZE)
    drops = [one for one in counts.events(UNMAP) if address_range(one) == whole]
    return meetings(shows.lasting(counts, vm), drops)
