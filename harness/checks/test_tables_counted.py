# SPDX-License-Identifier: GPL-2.0-only
"""Stage-2 tables are counted when they are made and when they are freed, each as often (claim 5).

SecPageTables is what other checks go by, and what an administrator sees. A count that drifts shows
while a VM lives, whose tables are counted as well: the kernel shows no number below zero. First
tables that lie side by side (concatenated, Arm ARM, D8.2) are one allocation and several pages.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks import tables
from harness.checks.claim import Claim
from harness.checks.test_leaks import BLOCK, BLOCKS, TABLES
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven

VMS = 16
# One count is of two files, between which the tables of an IOMMU may change.
LOOKS = 3


@pytest.mark.deep
def test_tables_counted(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """Tables count one by one, and those of VMs that come and go leave the count where it was."""
    tables.nobody_else(shell)
    claim.expect(
        f"SecPageTables rises by {TABLES} pages when a guest touches a page in each of {BLOCKS} "
        f"blocks of one GiB, and is the same when {VMS} VMs were made and ended beside it"
    )
    vm = guest(pages=BLOCKS * BLOCK)
    if tables.of_el2(shell, vm.vm_dir):
        raise Unproven("EL2 makes these tables of memory that it has from the host already")
    before = tables.count(shell)
    vm.touch([at * BLOCK + rng.randrange(BLOCK) for at in range(BLOCKS)], write=True)
    used = _count(shell, before + TABLES)
    claim.observe(f"{used - before} pages of tables made")
    if used == before:
        raise Unproven("this kernel counts no stage-2 tables, though a guest has some")
    assert used - before == TABLES, f"{used - before} pages of tables counted, {TABLES} were made"
    vm.churn(VMS)
    tables.falls_to(shell, claim, used, cell.slowdown)
    after = _count(shell, used)
    claim.observe(f"{after - used:+} pages with {VMS} VMs made and ended")
    assert after == used, f"{VMS} VMs, made and ended, moved the count by {after - used:+} pages"


def _count(shell: Shell, expected: int) -> int:
    """Pages of tables now; read again where that is not what is expected."""
    for _ in range(LOOKS):
        found = tables.count(shell)
        if found == expected:
            break
    return found
