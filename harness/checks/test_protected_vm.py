# SPDX-License-Identifier: GPL-2.0-only
"""Protected VMs, whose memory EL2 keeps from the host: no check here ages one.

The other checks run in protected mode with VMs that are not. Where the kernel's user API has
protected ones, that is less than there is to show, and must not look like all of it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.guests import Guest
from harness.observe.unproven import Unproven


@pytest.mark.deep
def test_protected_vm(guest: Callable[..., Guest], claim: Claim, cell: CellSpec) -> None:
    """Skipped where KVM makes no protected VM, unproven where it does."""
    if cell.cell.kvm_mode != "protected":
        pytest.skip("only in protected mode")
    claim.expect("a protected VM's pages are aged as its kernel has it")
    if not guest(pages=1).makes_protected():
        pytest.skip("KVM_CREATE_VM refuses a protected VM: the kernel's user API has none")
    raise Unproven("this kernel makes protected VMs, and no check here ages one")
