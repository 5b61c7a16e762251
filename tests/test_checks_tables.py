# SPDX-License-Identifier: GPL-2.0-only
"""How many pages of stage-2 tables /proc/meminfo and /proc/vmstat tell of."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_shell import UnaskedShell

from harness.checks import tables
from harness.checks.claim import Claim
from harness.deadline import Deadline
from harness.hosts.protocols import Result
from harness.observe.unproven import Unproven

MEMINFO = "MemTotal:        2048000 kB\nMemFree:         1024000 kB\n"
VMSTAT = "nr_free_pages 256000\nnr_sec_page_table_pages 12\n"


def test_tables_are_counted_in_pages() -> None:
    assert tables.parse(f"{MEMINFO}SecPageTables:        48 kB\n\n{VMSTAT}") == 12


def test_those_of_iommus_are_not_stage_2() -> None:
    text = f"{MEMINFO}SecPageTables:        48 kB\n\n{VMSTAT}nr_iommu_pages 9\n"
    assert tables.parse(text) == 3


def test_a_kernel_that_does_not_count_them_proves_nothing() -> None:
    with pytest.raises(Unproven, match="SecPageTables"):
        tables.parse(f"{MEMINFO}\n{VMSTAT}")


class Host(UnaskedShell):
    """A host that tells of VMs of an owner so many times, and of none then."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.ran: list[str] = []

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        self.ran.append(command)
        told = "/sys/kernel/debug/kvm/54-4\n" if len(self.ran) <= self.times else ""
        return Result(command, 0, told, "")


def test_a_vm_may_take_its_time_to_go_with_its_owner() -> None:
    host = Host(3)
    tables.assert_no_vm_of(host, 54, 1.0)
    assert len(host.ran) == 4
    assert "/54-*;" in host.ran[0]


def test_a_vm_that_never_goes_is_told() -> None:
    host = Host(1000)
    with pytest.raises(AssertionError, match=r"1 VMs of an owner .*54-4"):
        tables.assert_no_vm_of(host, 54, 0.0)


class WithVms(UnaskedShell):
    """A host that has VMs already."""

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        return Result(command, 0, "/sys/kernel/debug/kvm/70-4\n/sys/kernel/debug/kvm/71-4\n", "")


def test_what_other_vms_hide_is_not_judged(tmp_path: Path) -> None:
    claim = Claim(tmp_path, "no table left")
    assert tables.at_first(WithVms(), claim) is None
    assert "how many tables are left, since the host has 2 other VMs" in claim.unjudged[0]
