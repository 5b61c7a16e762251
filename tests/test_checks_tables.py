# SPDX-License-Identifier: GPL-2.0-only
"""How many pages of stage-2 tables /proc/meminfo and /proc/vmstat tell of."""

from __future__ import annotations

import pytest

from harness.checks import tables
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
