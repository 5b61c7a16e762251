# SPDX-License-Identifier: GPL-2.0-only
"""Aging of a VM's memory while its owner dies.

The reverse map still finds the pages when the MMU notifier's release() frees stage 2: whoever ages
them then comes to KVM for a VM whose tables go at that moment (claims 1 and 5). With the MMU
lock he waits; without it nothing but a grace period keeps the tables for him.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks import charged, tables
from harness.checks.claim import Claim
from harness.checks.evidence import Evidence
from harness.checks.idle_ager import ager
from harness.checks.mglru import born_in_memcg
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import (
    AGE,
    AGE_CALLBACK,
    RELEASE,
    between,
    meetings,
    slot_range,
    walk_functions,
)
from harness.checks.pages import populated
from harness.checks.racing import entries, fast_functions, never_entered, not_widened
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import PROBE_FULL, Counts, Wanted, returned, slowed_entry
from harness.observe.tracefs import tracing

# Few, in one table or two, which are freed as soon as the release begins: who is in them at that
# moment is still there. Many enough for the ager to be in KVM most of the time, and not between
# two passes.
PAGES = 128
# Owners that end, until so many of them were met.
ENOUGH = 4
DEATHS = 20

# The last thing that a thread does before it gives up its mm, of which the last one ends it and
# calls RELEASE.
LEAVES_MM = ("exit_mm_release", "mm_exit_exec_release")  # the second in Linux 7.3


@pytest.mark.deep
def test_race_exit(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Stage 2 goes with its owner while another process ages it: no splat, nothing left."""
    tables.nobody_else(shell)
    baseline = tables.count(shell)
    claim.expect(
        f"{ENOUGH} owners of a VM end while another process ages their pages: no splat; "
        f"SecPageTables is back at its {baseline} pages, nothing is charged to the memcg of an "
        f"owner that has ended, and its VM is gone (seed {cell.seed}); some agings begin when an "
        "owner has ended but KVM has not yet let go of its stage 2"
    )
    before = splats(shell)
    wanted = Wanted(
        events=(AGE,),
        functions=walk_functions(contract),
        # Longer than who frees the tables takes to look at their entries first.
        slowed={AGE_CALLBACK: 4 * PROBE_FULL},
        returns=dict.fromkeys((*LEAVES_MM, RELEASE), ""),
    )
    fast = fast_functions(contract, cell)
    met = entered = 0
    evidence = Evidence()
    with tracing(shell, wanted) as session:
        seen = [name for name in LEAVES_MM if returned(name) not in session.absent]
        leaves_mm = returned((seen or LEAVES_MM)[0])
        for number in range(DEATHS):
            with born_in_memcg(guest, shell, pages=PAGES) as vm:
                populated(vm)
                with ager(vm, shell, vm.pfns().values()):
                    session.start()
                    vm.close()
                    counts = session.stop()
                claim.save(f"trace{number}.txt", counts.raw)
                entered += entries(counts, fast)
                times = evidence.read(partial(_met, counts, leaves_mm, vm), 0)
                told = evidence.unseen or f"{times} agings began before the release ended"
                claim.observe(f"owner {number}: {told}")
                tables.assert_no_vm_of(shell, claim, vm.greeting.pid, cell.slowdown)
                charged.assert_nothing_left(shell, claim, cell.slowdown)
            met += times > 0
            if met == ENOUGH or evidence.unseen:
                break
    left = tables.falls_to(shell, claim, baseline, cell.slowdown) - baseline
    claim.observe(f"{left} pages of tables left")
    not_widened(claim, session.absent, slowed_entry(AGE_CALLBACK))
    assert_none_new(shell, claim, before)
    assert left == 0, f"{left} pages of stage-2 tables are left when the VMs are gone"
    evidence.prove("" if met else "no aging began while stage 2 was being released")
    # A walk by MGLRU keeps the mm that it walks, so it is over before the release begins.
    evidence.prove(never_entered(fast, entered))


def _met(counts: Counts, leaves_mm: str, vm: Guest) -> int:
    """How many agings began when the owner's last thread had given up the mm.

    They count until KVM has let go of stage 2.
    """
    begins, ends = counts.events(leaves_mm), counts.events(returned(RELEASE))
    return meetings(between(begins, ends, *slot_range(vm)), counts.events(AGE))
