# SPDX-License-Identifier: GPL-2.0-only
"""Who holds a VM: each fd that KVM gave for it, until it is closed (claim 1).

That of a vCPU does, and those that statistics are read from (Documentation/virt/kvm/api.rst,
KVM_GET_STATS_FD), which read what belongs to the VM or to its vCPU. One that held no VM, as before
Linux 6.5, would read what is freed; one that did not let go of it would keep it for ever.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks import tables
from harness.checks.claim import Claim
from harness.checks.pages import populated
from harness.guest_words import Holder
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.keeper import keeper
from harness.kernel.config import version_pair
from harness.observe.unproven import Unproven

PAGES = 512
# Older ones have it in some of their later releases (commit eed3013faa40).
STATISTICS_HOLD = (6, 5)
FDS: tuple[Holder, ...] = ("vcpu", "vm-stats", "vcpu-stats")


@pytest.mark.deep
def test_held(guest: Callable[..., Guest], shell: Shell, claim: Claim, cell: CellSpec) -> None:
    """A VM lives as long as any fd of it is open, and its stage 2 as long as its owner."""
    tables.nobody_else(shell)
    baseline = tables.count(shell)
    claim.expect(
        f"of a VM whose owner has ended another process holds one fd alone, in turn: {FDS}; the VM "
        f"is there until that is closed, and no longer; SecPageTables is back at its {baseline} "
        "pages before and after that"
    )
    kept = [_is_held(what, guest, shell, claim, baseline, cell.slowdown) for what in FDS]
    if any(kept):
        raise Unproven(f"EL2 keeps {kept} pages until the VM goes; what they map cannot be seen")


def _is_held(
    what: Holder,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    baseline: int,
    slowdown: float,
) -> int:
    """Assert it of one fd; returns the pages of tables that EL2 keeps while it is open."""
    with keeper(shell, slowdown) as holder:
        vm = populated(guest(pages=PAGES))
        holder.keep(vm, what)
        of_el2 = tables.of_el2(shell, vm.vm_dir)
        vm.close()
        # Not one file of its debugfs folder may be opened from here on: that oopses Linux 6.12.
        if what != "vcpu" and not tables.is_alive(shell, vm.vm_dir):
            _refuse_old(shell, what)
        assert tables.is_alive(shell, vm.vm_dir), f"the VM is gone, although its {what} fd is open"
        held = tables.above(shell, claim, baseline, slowdown)
        claim.observe(f"{what}: {held} pages of tables with the owner gone")
        assert of_el2 or held == 0, f"{what}: {held} pages of stage-2 tables outlive the owner"
        assert tables.is_alive(shell, vm.vm_dir), f"the VM is gone, although its {what} fd is open"
        holder.drop()
        left = tables.above(shell, claim, baseline, slowdown)
        assert left == 0, f"{what}: {left} pages of stage-2 tables are left when the VM is gone"
        assert not tables.is_alive(shell, vm.vm_dir), f"the VM outlives its {what} fd"
    return held


def _refuse_old(shell: Shell, what: Holder) -> None:
    """Unproven on a kernel of which it is known that this fd may hold no VM."""
    release = shell.run("uname -r").stdout.strip()
    if version_pair(release) < STATISTICS_HOLD:
        raise Unproven(f"the {what} fd of Linux {release} holds no VM, as those from 6.5 on do")
