# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel itself says of who manages the access flag of a VM."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import kvmstats


@pytest.mark.quick
def test_af_file(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, cell: CellSpec, contract: Contract
) -> None:
    """The VM's debugfs folder says who manages AF at stage 2, where the series gives it that."""
    file = contract.stage2_af_file
    if file is None or cell.cell.kernel == "base":
        pytest.skip("this kernel has no such file")
    text = file.hardware if cell.cell.af_mode == "hardware" else file.software
    vm = guest(pages=1)
    path = f"{kvmstats.folder(vm.vm_dir)}/{file.name}"
    claim.expect(f"{path} says {text!r}")
    seen = shell.read(path).strip()
    claim.observe(f"it says {seen!r}")
    assert seen == text, f"{file.name} says {seen!r}"
