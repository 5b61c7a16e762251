# SPDX-License-Identifier: GPL-2.0-only
"""A VM ends while another process ages the pages that it shares with a VM that goes on.

The memory stays, so agers go on: who is in the stage 2 of the VM that ends must not find it freed
(claim 5). test_race_exit has the owner's memory go as well.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks import charged, tables
from harness.checks.claim import Claim
from harness.checks.cpus import several
from harness.checks.idle_ager import ager
from harness.checks.mglru import born_in_memcg
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import AGE_CALLBACK, RELEASE, Window, meetings
from harness.checks.pages import populated
from harness.checks.racing import Shows, entering, entries, kept, never_entered, not_widened
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import PROBE_FULL, Counts, returned, slowed_entry
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

PAGES = 16
# In each trace so many VMs end, in up to so many traces, until so many were met. Half of the time
# the ager is in the VM that stays.
VMS, TRACES, ENOUGH = 8, 4, 8


@pytest.mark.deep
def test_end_beside_aging(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """A VM's stage 2 goes while its pages are aged: no splat, nothing left, nothing lost."""
    by = entering(contract, cell)
    shows = Shows.of(contract, by, cell)
    claim.expect(
        f"VMs that share {PAGES} pages with another are made, read them and end, while another "
        f"process ages these pages by {by} ({cell.cell.kvm_mode}): no splat, no content lost, no "
        "table left, no VM, and nothing charged to their owner's memcg; some end while a page is "
        "being aged"
    )
    several(shell, "nobody ages while a VM ends")
    baseline = tables.at_first(shell, claim)
    before = splats(shell)
    # Most of the time of an aging is spent there.
    slowed = {AGE_CALLBACK: PROBE_FULL}
    wanted = shows.wanted(contract, returns=(RELEASE,), slowed=slowed)
    met, entered, unseen = 0, 0, ""
    # A walk goes over that memcg.
    with born_in_memcg(guest, shell, pages=PAGES) as vm:
        populated(vm)
        with tracing(shell, wanted) as session, ager(vm, shell, vm.pfns().values(), by):
            for number in range(TRACES):
                made, counts = kept(
                    session, claim, f"trace{number}.txt", lambda: vm.churn(VMS, "run")
                )
                assert made == VMS, f"{made} of {VMS} VMs were made"
                entered += entries(counts, shows.fast)
                try:
                    met += _met(counts, shows, vm)
                except Unproven as exc:
                    unseen = str(exc)
                if unseen or met >= ENOUGH:
                    break
        claim.observe(f"{met} of {(number + 1) * VMS} VMs ended while a page was being aged")
        not_widened(claim, session.absent, slowed_entry(AGE_CALLBACK))
        vm.verify(range(PAGES))
        assert_none_new(shell, claim, before)
        tables.assert_none_left(vm, shell, claim, baseline, cell.slowdown)
        vm.close()
        tables.assert_no_vm_of(shell, vm.greeting.pid, cell.slowdown)
        charged.assert_nothing_left(shell, claim, cell.slowdown)
    if unseen or not met:
        raise Unproven(unseen or "no VM ended while a page was being aged")
    if missing := never_entered(shows.fast, entered):
        raise Unproven(missing)


def _met(counts: Counts, shows: Shows, vm: Guest) -> int:
    return meetings(shows.lasting(counts, vm), counts.events(returned(RELEASE)), Window.lasts)
