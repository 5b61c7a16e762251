# SPDX-License-Identifier: GPL-2.0-only
"""A selftest of the kernel that would run for days, for `kvm-harness run --selftests --checks`."""

from __future__ import annotations

from dataclasses import replace

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.hosts.protocols import Shell
from harness.selftests.table import SELFTESTS
from harness.selftests.test_selftests import test_selftest as check

SECONDS = 2.0
(ENDLESS,) = (
    replace(test, arguments=("-b", "4M", "-v", "2", "-i", "1000000000"), seconds=SECONDS)
    for test in SELFTESTS
    if test.name == "memslot_modification_stress_test"
)


def test_beyond_its_deadline(shell: Shell, claim: Claim, cell: CellSpec) -> None:
    """It is killed, and the checks after it find nothing of it."""
    check(ENDLESS, shell, claim, cell)
