# SPDX-License-Identifier: GPL-2.0-only
"""Whoever ages by a driver of choice holds the kernel's counters to it, where there are some."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.checks import aging, counted
from harness.checks.claim import Claim
from harness.checks.counted import Tally


class Kernel:
    """One whose aging makes leaves old, and counts them in one counter or in another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, counter: str) -> None:
        self.young, self.counter = 512, counter
        self.counters = {"fast": 0, "slow": 0}
        monkeypatch.setattr(aging, "mark_idle", lambda _: self.age())
        monkeypatch.setattr(
            counted, "tally", lambda *_, **__: Tally(dict(self.counters), young=self.young)
        )
        monkeypatch.setattr(aging, "situation", lambda _: None)
        monkeypatch.setattr(aging, "reaching", lambda *_: None)

    def age(self) -> None:
        self.counters[self.counter] += self.young
        self.young = 0


def age_once(promised: dict[str, bool]) -> str:
    nobody: Any = SimpleNamespace()
    contract: Any = SimpleNamespace(expect_counters=lambda _: promised)
    claim = Claim(Path("unused"), "")
    with aging.aging_by("page_idle", nobody, nobody, claim, contract, nobody) as age:
        age()
    return claim.observed


def test_what_is_made_old_is_counted_where_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    Kernel(monkeypatch, "fast")
    assert "fast rose by 512; slow rose by 0" in age_once({"fast": True, "slow": False})


def test_the_other_way_is_told_by_its_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    Kernel(monkeypatch, "slow")
    with pytest.raises(AssertionError, match="fast rose by 0 instead of 512"):
        age_once({"fast": True, "slow": False})


def test_a_kernel_without_counters_is_aged_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, "slow")
    assert age_once({}) == ""
    assert kernel.young == 0
