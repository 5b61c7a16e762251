# SPDX-License-Identifier: GPL-2.0-only
"""Contracts made up for tests, what they are refused for, and situations."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.contract_file import Driver
from harness.contract_load import load
from harness.errors import UsageError
from harness.paths import PROJECT
from harness.situation import Situation

# They only ask whether pages are young.
ASKERS: tuple[Driver, ...] = ("khugepaged", "damon_check")
N1 = Situation("vhe", "hardware", "hardware")
N1_SOFTWARE = Situation("nvhe", "hardware", "software")
A57 = Situation("protected", "software", "software")
PROTECTED = Situation("protected", "hardware", "hardware")
LOCKLESS_AGING = PROJECT / "series/lockless-aging/series.yaml"

FAST = """\
kernel: "6.2"
fast_path:
  functions: [kvm_arch_test_clear_young]
  drivers: [mglru_walk]
  modes: [vhe, nvhe]
  stage2_af: [hardware]
  lru_gen_bit: 0x8
"""

LOCKLESS = """\
kernel: "6.12"
paths:
  lockless:
    pages: each
    event: "kvm:kvm_age_hva"
    enters: [[age_lockless]]
drivers:
  page_idle:
    - {path: lockless, modes: [vhe, nvhe]}
    - {path: idle_tracking, modes: [protected]}
fast_path:
  functions: [age_lockless, test_lockless]
  modes: [vhe, nvhe]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "series.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        load(write(folder, text))
    return str(caught.value).replace(f"{folder}/", "")
