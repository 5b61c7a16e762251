# SPDX-License-Identifier: GPL-2.0-only
"""The memory of a VM's owner who was killed is taken at once, while another process ages it.

The OOM killer does not wait for who it kills: it unmaps his memory itself, by notifiers that may
not block (mm/oom_kill.c). Aging may not block either, so who spares the MMU lock for all that may
not unmaps without it (claim 5); and pages that stay in stage 2 belong to others as soon as they are
reaped, while a vCPU may still be in the guest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks import charged, tables
from harness.checks.claim import Claim
from harness.checks.cpus import several
from harness.checks.driver import GUEST
from harness.checks.evidence import Evidence
from harness.checks.idle_ager import ager
from harness.checks.mglru import born_in_memcg
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import (
    AGE,
    AGE_CALLBACK,
    UNMAP,
    UNMAP_WALK,
    meetings,
    unmaps,
    walk_functions,
)
from harness.checks.pages import populated, shorten
from harness.checks.racing import kept
from harness.checks.reaper import reaper
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.trace import Counts, Wanted, by_tasks
from harness.observe.tracefs import tracing

PAGES = 1024
# In 4 KiB, so that half of the slot lies beyond a multiple of 1 GiB: there an unmap gives way to
# others, unless it must not block (stage2_apply_range()).
IPA_SKEW = 262_144 - PAGES // 2
# Owners that are killed, until so many of them were met who had not run since.
ENOUGH, DEATHS = 2, 8


@pytest.mark.deep
def test_reaped(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Memory that is reaped has left stage 2 before its owner runs: no splat, nothing left."""
    several(shell, "nobody ages while an owner's memory is taken")
    tables.nobody_else(shell)
    baseline = tables.count(shell)
    claim.expect(
        f"process_mrelease(2) takes the {PAGES} pages of a VM whose owner was killed and has not "
        "run since, while another process ages them: stage 2 maps none of them then, no splat; "
        f"SecPageTables is back at its {baseline} pages, nothing is charged to the owner's memcg, "
        "and the VM is gone; some agings begin while pages are taken"
    )
    before = splats(shell)
    # No probe makes the unmap longer: what has the CPU until it is done must not take long.
    wanted = Wanted(
        (AGE, UNMAP),
        walk_functions(contract),
        filters=dict.fromkeys((AGE, UNMAP), by_tasks(GUEST)),
        returns={UNMAP_WALK: ""},
        # Or the trace has no room for all that it ages.
        slowed={AGE_CALLBACK: 8},
    )
    met, evidence = 0, Evidence()
    with tracing(shell, wanted) as session:
        for number in range(DEATHS):
            with born_in_memcg(
                guest, shell, pages=PAGES, ipa_skew=IPA_SKEW, shared_payload=True
            ) as vm:
                # A dump does not tell what comes after its last entries: those of the payload.
                populated(vm)
                ipa = vm.slot.ipa
                with ager(vm, shell, vm.pfns().values()), reaper(vm, shell) as reap:
                    taken = partial(evidence.read, reap, None)
                    reaped, counts = kept(session, claim, f"trace{number}.txt", taken)
                    vm.close()
                if reaped:
                    claim.save(f"stage2-{number}.txt", reaped.raw)
                    left = stage2.mapped(reaped.ranges, ipa, PAGES)
                    assert not left, f"{len(left)} reaped pages are mapped still: {shorten(left)}"
                times = evidence.read(partial(_met, counts), 0)
                told = f"{times} agings began while pages were taken"
                if not reaped:
                    told = evidence.unseen or "it may have ended before its pages were taken"
                claim.observe(f"owner {number}: {told}")
                tables.assert_no_vm_of(shell, claim, vm.greeting.pid, cell.slowdown)
                charged.assert_nothing_left(shell, claim, cell.slowdown)
            met += bool(reaped and times)
            if met == ENOUGH or evidence.unseen:
                break
    left_tables = tables.falls_to(shell, claim, baseline, cell.slowdown) - baseline
    claim.observe(f"{left_tables} pages of tables left")
    assert_none_new(shell, claim, before)
    assert left_tables == 0, f"{left_tables} pages of stage-2 tables are left"
    evidence.prove("" if met else "no aging met an owner whose pages were taken before it ran")


def _met(counts: Counts) -> int:
    """How many agings of the pages began while they were being unmapped."""
    return meetings(unmaps(counts), counts.events(AGE))
