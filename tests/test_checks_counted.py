# SPDX-License-Identifier: GPL-2.0-only
"""Counters of aging are held to the tables: all that was made old, and where it must count."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.checks import counted as module
from harness.checks.claim import Claim
from harness.checks.counted import Tally, check_counters, check_which, counted
from harness.observe import stage2

BEFORE = Tally({"fast": 100, "slow": 7}, young=512)
HERE = {"fast": True, "slow": False}


def check(after: Tally) -> str:
    claim = Claim(Path("unused"), "")
    check_counters(claim, HERE, BEFORE, after)
    return claim.observed


def test_all_that_was_made_old_is_accounted_for() -> None:
    seen = check(Tally({"fast": 600, "slow": 7}, young=12))
    assert seen == "500 of 512 young leaves of the VM made old; fast rose by 500; slow rose by 0"


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({"fast": 599, "slow": 7}, "fast rose by 499 instead of 500"),
        ({"fast": 601, "slow": 7}, "fast rose by 501 instead of 500"),
        ({"fast": 100, "slow": 507}, "fast rose by 0 instead of 500"),
        ({"fast": 600, "slow": 8}, "slow rose by 1 instead of 0"),
        ({"slow": 7}, "the VM has no counter fast"),
    ],
)
def test_not_accounted_for(after: dict[str, int], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check(Tally(after, young=12))


def test_nothing_made_old_is_nothing_counted() -> None:
    check(Tally({"fast": 100, "slow": 7}, young=512))
    with pytest.raises(AssertionError, match="fast rose by 1 instead of 0"):
        check(Tally({"fast": 101, "slow": 7}, young=512))


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({"fast": 101, "slow": 7}, None),
        ({"fast": 100, "slow": 7}, "fast rose by 0, where it must count"),
        ({"fast": 101, "slow": 8}, "slow rose by 1, where it must stand still"),
        ({"fast": 101}, "the VM has no counter slow"),
    ],
)
def test_which_counters_count_beside_running_vcpus(
    after: dict[str, int], words: str | None
) -> None:
    with pytest.raises(AssertionError, match=words) if words else contextlib.nullcontext():
        check_which(Claim(Path("unused"), ""), HERE, BEFORE.counters, after)


def test_a_kernel_without_counters_is_not_asked() -> None:
    nobody: Any = SimpleNamespace()
    with counted(nobody, nobody, Claim(Path("unused"), ""), {}):
        pass


def test_each_vm_counts_what_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first VM 3 leaves are made old, of the second none, which counts none either."""
    values = {"7-4": [0, 3], "7-9": [0, 0]}
    leaves = {"7-4": [512, 509], "7-9": [512, 512]}

    def young(ranges: int) -> int:
        return ranges

    def dumped(folder: str) -> Any:
        return SimpleNamespace(ranges=leaves[folder].pop(0))

    def script(_: object, text: str, __: object) -> str:
        (folder,) = (one for one in values if one in text)
        return f"fast {values[folder].pop(0)}\nslow 0\n"

    monkeypatch.setattr(module, "run_script", script)
    monkeypatch.setattr(module, "dumped", lambda vm, _: dumped(vm.vm_dir))
    monkeypatch.setattr(module, "dump_stage2", lambda _, folder: dumped(folder))
    monkeypatch.setattr(stage2, "young_leaves", young)
    vm: Any = SimpleNamespace(vm_dir="7-4", second_dir="7-9")
    claim = Claim(Path("unused"), "")
    with counted(vm, vm, claim, HERE), counted(vm, vm, claim, HERE, second=True):
        pass
    assert "0 of 512 young leaves of the VM made old; fast rose by 0" in claim.observed
    assert "3 of 512 young leaves of the VM made old; fast rose by 3" in claim.observed


def test_young_leaves_are_entries_not_pages() -> None:
    def run(start: int, end: int, level: int, af: bool, valid: bool = True) -> stage2.Range:
        return stage2.Range(start, end, level, valid, valid, valid, False, af, level < 3)

    mib = 1 << 20
    ranges = (
        run(0, 2 * mib, 3, af=True),
        run(2 * mib, 4 * mib, 3, af=False),
        run(4 * mib, 10 * mib, 2, af=True),
        run(10 * mib, 12 * mib, 2, af=False, valid=False),
    )
    assert stage2.young_leaves(ranges) == 512 + 3
    assert stage2.young_leaves(()) == 0
