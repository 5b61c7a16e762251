# SPDX-License-Identifier: GPL-2.0-only
"""Who has read a VM's files in debugfs keeps nothing of it (claim 1).

Each of them holds the VM while it is open (kvm_get_kvm_safe() of virt/kvm/kvm_main.c and of
arch/arm64/kvm/ptdump.c), so one that does not let go of it when it is closed keeps it for good.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks import charged, tables
from harness.checks.claim import Claim
from harness.checks.mglru import born_in_memcg
from harness.checks.pages import populated
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import kvmstats
from harness.observe.collect import refusal
from harness.observe.unproven import Unproven

PAGES = 512
DUMP = "stage2_page_tables"
# Those that hold the VM while they are open (arch/arm64/kvm/ptdump.c).
STAGE2 = (DUMP, "ipa_range", "stage2_levels")


@pytest.mark.deep
def test_debugfs(guest: Callable[..., Guest], shell: Shell, claim: Claim, cell: CellSpec) -> None:
    """A VM goes with its owner, though every file in its folder of debugfs was read."""
    tables.nobody_else(shell)
    baseline = tables.count(shell)
    claim.expect(
        "each file in a VM's folder of debugfs is read twice; when its owner has ended the VM is "
        f"gone, SecPageTables is back at its {baseline} pages, and nothing is charged to the memcg "
        "that the owner was in"
    )
    with born_in_memcg(guest, shell, pages=PAGES) as vm:
        populated(vm)
        # Not where to read it means to walk what is no table.
        others = f"! -name {DUMP}" if refusal(shell, vm.vm_dir) else ""
        # Some can be written only, or tell of what this VM has not got.
        script = (
            f"find {kvmstats.folder(vm.vm_dir)} -type f {others} | while read -r file; do "
            'if cat "$file" "$file" > /dev/null 2>&1; then echo "read ${file##*/}"; '
            'else echo "not ${file##*/}"; fi; done'
        )
        said = {tuple(line.split(maxsplit=1)) for line in shell.run(script).stdout.splitlines()}
        names = sorted(name for how, name in said if how == "read")
        unread = sorted(name for how, name in said if how == "not" and name in STAGE2)
        claim.observe(f"read: {', '.join(names) or 'nothing'}")
        pid = vm.greeting.pid
        vm.close()
        tables.assert_no_vm_of(shell, claim, pid, cell.slowdown)
        left = tables.falls_to(shell, claim, baseline, cell.slowdown) - baseline
        assert left == 0, f"{left} pages of stage-2 tables are left when the VM is gone"
        charged.assert_nothing_left(shell, claim, cell.slowdown)
    if unread or not names:
        raise Unproven(f"not read: {', '.join(unread) or 'any file of the VM'}")
