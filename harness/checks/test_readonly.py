# SPDX-License-Identifier: GPL-2.0-only
"""Memory that the guest may only read (KVM_MEM_READONLY): it ages like any other (claim 8).

A leaf of such a slot never has write permission, so an ager that goes by permissions, or a fault
that gives them along with AF, shows here. A store does not reach memory but comes out to the VMM as
KVM_EXIT_MMIO (Documentation/virt/kvm/api.rst).
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.aging import Ager, aging_by
from harness.checks.claim import Claim
from harness.checks.pages import (
    leaves,
    old_pages,
    pick,
    populated,
    require_blocks,
    shorten,
    young_pages,
)
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2

PAGES = {"anon": 512, "thp": 1024}
BLOCK = {"anon": 1, "thp": 512}


@pytest.mark.deep
@pytest.mark.parametrize("driver", ["page_idle", "mglru_walk"])
@pytest.mark.parametrize("backing", PAGES)
def test_readonly(
    backing: str,
    driver: Ager,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """Reads of a read-only slot make its pages young; writes leave, and change nothing."""
    pages, block = PAGES[backing], BLOCK[backing]
    claim.expect(
        f"{pages} pages of a read-only slot ({backing}) all old after aging by {driver}, then "
        "exactly the leaves that the guest read young; each write exits to the VMM and reaches "
        f"no memory; no leaf is writable at any time (seed {cell.seed})"
    )
    vm = guest(backing=backing, pages=pages)
    with aging_by(driver, vm, shell, claim, contract, cell) as age:
        populated(vm)
        vm.readonly(True)
        vm.touch(range(pages), write=False)
        _none_writable(vm, shell, claim, "read")
        age()
        aged = old_pages(vm, shell, claim)
        if block > 1:
            require_blocks(vm, aged)
        vm.flush()
        touched = pick(rng, pages, block)
        vm.touch(touched, write=False)
        young_pages(vm, shell, claim, stage2.by_leaf(aged, vm.slot.ipa, pages, touched))

        # Of old pages as well as young ones.
        age()
        vm.flush()
        vm.touch(pick(rng, pages, block), write=False)
        before = leaves(vm, shell, claim, "before-writes")
        written = pick(rng, pages, block)
        exits = vm.touch(written, write=True).exits.mmio_exit_user
        refused = vm.refused()
        claim.observe(f"{len(refused)} of {len(written)} writes came out, {exits} exits for MMIO")
        assert refused == written, f"{len(written - refused)} writes did not come out"
        # One for each, and the report at the end of the command.
        assert exits == len(written) + 1, f"{exits} exits for MMIO after {len(written)} writes"
        after = _none_writable(vm, shell, claim, "written")
        # Hardware may set AF for an access that is refused then; emulated, it does not.
        software = cell.cell.af_mode == "software"
        changed = stage2.differing(before, after, vm.slot.ipa, pages, af=software)
        claim.observe(f"the writes changed {len(changed)} leaves")
        assert not changed, f"refused writes changed {len(changed)} leaves: {shorten(changed)}"
        # What the guest wrote before the slot was read-only is what both of them read.
        vm.touch(range(pages), write=False)
        vm.verify(range(pages))


def _none_writable(vm: Guest, shell: Shell, claim: Claim, name: str) -> tuple[stage2.Range, ...]:
    ranges = leaves(vm, shell, claim, name)
    writable = stage2.writable(ranges, vm.slot.ipa, vm.slot.pages)
    claim.observe(f"{name}: {len(writable)} writable")
    assert not writable, f"{len(writable)} leaves of a read-only slot are writable"
    return ranges
