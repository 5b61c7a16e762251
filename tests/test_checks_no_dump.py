# SPDX-License-Identifier: GPL-2.0-only
"""What checks judge where a kernel does not show stage 2: on a model of a guest's memory."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.checks import pages, test_dirty_log, test_permissions, test_unmap
from harness.checks.claim import Claim
from harness.observe.trace import Event
from harness.observe.unproven import Unproven

EVERYTHING = frozenset(range(test_dirty_log.PAGES))


@dataclass
class Memory:
    """Who is young, may be written and is logged, as a right kernel has it; `breaks` is a way not
    to."""

    breaks: str = ""
    slot: Any = field(default_factory=lambda: SimpleNamespace(pages=test_dirty_log.PAGES, ipa=0))
    young: set[int] = field(default_factory=set)
    writable: set[int] = field(default_factory=set)
    logged: set[int] = field(default_factory=set)

    def touch(self, pages: Iterable[int], *, write: bool) -> None:
        touched = set(pages)
        self.young |= touched
        if write:
            self.logged |= touched - self.writable
            self.writable |= touched
        elif self.breaks == "a read makes writable":
            self.writable |= touched
        elif self.breaks == "a read is logged":
            self.logged |= touched

    def age(self) -> None:
        self.young = {0} if self.breaks == "one stays young" else set()
        if self.breaks == "aging makes writable":
            self.writable = set(EVERYTHING)
        elif self.breaks == "aging empties the log":
            self.logged = set()

    def dirty(self) -> frozenset[int]:
        logged, self.logged = self.logged, set()
        self.writable -= logged
        if self.breaks == "the log makes old":
            self.young = set()
        return frozenset(logged)

    def idle_read(self) -> frozenset[int]:
        idle, self.young = EVERYTHING - self.young, set()
        return idle


def round_by_log(breaks: str, tmp_path: Path, *, idle: bool = True) -> None:
    memory: Any = Memory(breaks)
    claim = Claim(tmp_path, "")
    test_dirty_log._round_by_log(memory, claim, random.Random(1), "0", memory.age, idle=idle)


@pytest.mark.parametrize("idle", [True, False])
def test_a_right_kernel_passes_by_its_log(idle: bool, tmp_path: Path) -> None:
    round_by_log("", tmp_path, idle=idle)


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        ("a read makes writable", "all written: [0-9]+ writes were not logged"),
        ("a read is logged", "after reads: [0-9]+ pages logged without a write"),
        ("aging makes writable", "writes were not logged"),
        ("aging empties the log", "writes were not logged"),
        ("one stays young", "page_idle: 1 young where 0 are expected"),
        ("the log makes old", "page_idle: 0 young where [0-9]+ are expected"),
    ],
)
def test_a_wrong_kernel_fails_by_its_log(breaks: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=says):
        round_by_log(breaks, tmp_path)


def test_what_only_the_dump_shows_is_not_expected_without_it() -> None:
    assert "writable exactly" in test_dirty_log._beyond_the_log("page_idle", dump=True)
    for driver in ("page_idle", "mglru_walk"):
        words = test_dirty_log._beyond_the_log(driver, dump=False)
        assert "writable exactly" not in words
        assert ("old" in words) is (driver == "page_idle")
    assert "leave stage 2" in test_unmap._expected("anon", dump=True)
    assert "leave stage 2" not in test_unmap._expected("anon", dump=False)


@pytest.mark.parametrize(
    ("esr", "is_af"),
    # Data aborts of level 3 and 2: access flag, permission, translation (DDI 0487, DFSC).
    [(0x9200000B, True), (0x9200000A, True), (0x9200004F, False), (0x92000007, False)],
)
def test_faults_for_the_access_flag_are_told_from_others(esr: int, is_af: bool) -> None:
    event = Event(1, 0, "kvm-guest", 7, "kvm:kvm_guest_fault", "", {"esr": esr})
    assert test_permissions._for_af(event) is is_af


def test_a_check_says_by_what_it_judges_instead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vm: Any = SimpleNamespace(vm_dir="54-4", dump_refusal=None)
    shell: Any = None
    claim = Claim(tmp_path, "")
    monkeypatch.setattr(pages, "refusal", lambda shell, vm: "absent")
    assert not pages.shows_stage2(vm, shell, claim, "the log")
    assert claim.observed == "by the log alone, since this kernel has no dump of stage 2"
    monkeypatch.setattr(pages, "refusal", lambda shell, vm: "")
    vm.dump_refusal = None
    assert pages.shows_stage2(vm, shell, claim, "the log")


@pytest.mark.parametrize(("absent", "good"), [(1, True), (0, False), (2, False)])
def test_pages_that_are_absent_are_no_pages_passed_over(absent: int, good: bool) -> None:
    mark = SimpleNamespace(marked=7, absent=1, unmarked=frozenset())
    vm: Any = SimpleNamespace(slot=SimpleNamespace(pages=8), idle_mark=lambda: mark)
    if good:
        pages.mark_idle(vm, absent=absent)
        return
    with pytest.raises(Unproven, match="marked 7 of 8"):
        pages.mark_idle(vm, absent=absent)
