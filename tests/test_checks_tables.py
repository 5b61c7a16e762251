# SPDX-License-Identifier: GPL-2.0-only
"""How many pages of stage-2 tables /proc/meminfo and /proc/vmstat tell of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

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

    def __init__(self, times: int, *, barrier: bool = True) -> None:
        self.times = times
        self.barrier = barrier
        self.ran: list[str] = []

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        if command == f"[ -e {tables.BARRIER} ]":
            return Result(command, 0 if self.barrier else 1, "", "")
        self.ran.append(command)
        told = "/sys/kernel/debug/kvm/54-4\n" if len(self.ran) <= self.times else ""
        return Result(command, 0, told, "")


@pytest.fixture
def claim(tmp_path: Path) -> Claim:
    return Claim(tmp_path, "")


def test_a_vm_that_has_gone_with_its_owner(claim: Claim) -> None:
    host = Host(0)
    tables.assert_no_vm_of(host, claim, 54, 1.0)
    assert len(host.ran) == 1
    assert "/54-*;" in host.ran[0]
    assert claim.observed == ""


def test_a_vm_may_take_a_second_barrier_to_go_with_its_owner(claim: Claim) -> None:
    tables.assert_no_vm_of(Host(1), claim, 54, 1.0)
    assert claim.observed.startswith("gone at look 2, after ")


def test_a_vm_that_goes_later_is_told(claim: Claim) -> None:
    with pytest.raises(AssertionError, match=r"1 VMs of an owner .*54-4"):
        tables.assert_no_vm_of(Host(2), claim, 54, 1.0)
    assert claim.observed.startswith("gone at look 3, after ")


def test_a_kernel_without_a_barrier_may_take_its_time(claim: Claim) -> None:
    tables.assert_no_vm_of(Host(20, barrier=False), claim, 54, 1.0)
    assert claim.observed.startswith("gone at look 21, after ")


@pytest.mark.parametrize("barrier", [True, False])
def test_a_vm_that_never_goes_is_told(claim: Claim, barrier: bool) -> None:
    with pytest.raises(AssertionError, match=r"1 VMs of an owner .*54-4"):
        tables.assert_no_vm_of(Host(10**6, barrier=barrier), claim, 54, 0.01)
    assert claim.observed.startswith("not gone at look ")


def counts(*left: int) -> Any:
    """A shell that tells of so many pages of tables, the last number for ever."""
    rest = list(left)

    def run(command: str, deadline: object = None, *, check: bool = True) -> Result:
        pages = rest.pop(0) if len(rest) > 1 else rest[0]
        return Result(command, 0, f"{MEMINFO}SecPageTables: {4 * pages} kB\n\n{VMSTAT}", "")

    return SimpleNamespace(run=run)


def test_tables_that_go_with_the_second_barrier(claim: Claim) -> None:
    assert tables.above(counts(9, 2), claim, 2, 1.0) == 0


def test_tables_that_go_seconds_later_are_left_when_it_is_judged(claim: Claim) -> None:
    assert tables.above(counts(9, 8, 7, 2), claim, 2, 1.0) == 6
    assert claim.observed.startswith("gone at look 4, after ")


def test_one_look_is_never_enough_for_what_is_left(claim: Claim) -> None:
    assert tables.above(counts(9, 2), claim, 2, 0.0) == 0


def test_tables_of_others_that_go_prove_nothing(claim: Claim) -> None:
    with pytest.raises(Unproven, match="1 pages of tables that were not ours"):
        tables.above(counts(1), claim, 2, 1.0)


class WithVms(UnaskedShell):
    """A host that has VMs already."""

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        return Result(command, 0, "/sys/kernel/debug/kvm/70-4\n/sys/kernel/debug/kvm/71-4\n", "")


def test_what_other_vms_hide_is_not_judged(claim: Claim) -> None:
    assert tables.at_first(WithVms(), claim) is None
    assert "how many tables are left, since the host has 2 other VMs" in claim.unjudged[0]
