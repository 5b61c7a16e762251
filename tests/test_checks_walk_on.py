# SPDX-License-Identifier: GPL-2.0-only
"""Where the memory of a walk's check has to lie, so that it shows what it is to show."""

from __future__ import annotations

import random

import pytest

from harness.checks.test_walk_on import PAGES, RUNS, UNIT, UNITS, locked_runs, one_table


@pytest.mark.parametrize(("first", "start"), [(0, 0), (444, 0), (445, 67), (511, 1)])
def test_a_row_of_huge_pages_begins_where_one_table_has_it_all(first: int, start: int) -> None:
    hva = (7 << 30) + (first << 21)
    assert one_table(hva, 68) == start
    assert (first + start) % 512 + 68 <= 512


@pytest.mark.parametrize("seed", range(20))
def test_locked_runs_have_other_pages_on_either_side(seed: int) -> None:
    locked = frozenset(locked_runs(random.Random(seed)))
    ends = [at for at in range(PAGES) if at in locked and at + 1 not in locked]
    assert len(ends) == RUNS * UNITS
    assert not locked & {at + end for at in range(0, PAGES, UNIT) for end in (0, UNIT - 1)}
