# SPDX-License-Identifier: GPL-2.0-only
"""How memory is read: free pages that change lists between two files are no loss."""

from __future__ import annotations

from typing import Any, cast

import pytest
from test_observe_memory import HEAD, MEMINFO, ZONES, line, lost

from harness.checks.test_leaks import LOOKS, read
from harness.hosts.protocols import Result
from harness.observe.unproven import Unproven

FEWER = ZONES.replace("2667", "1932")
MORE_FREE = MEMINFO.replace("2018440", str(2018440 + 4 * (2667 - 1932)))
SLABS = HEAD + line("kmalloc-64", 100)


class Shell:
    """Prints one reading after another: the lists before, MemFree, the lists after."""

    def __init__(self, *readings: tuple[str, str, str]) -> None:
        self._readings = list(readings)

    def run(self, command: str, deadline: object = None) -> Result:
        text = "".join(self._readings.pop(0))
        return Result(command, 0, f"{text}== end of a part ==\n{SLABS}", "")


def unaccounted(*readings: tuple[str, str, str]) -> int:
    return read(cast(Any, Shell(*readings))).unaccounted


def test_a_reading_in_which_pages_changed_lists_counts_for_nothing() -> None:
    moved = (ZONES, MEMINFO, FEWER)
    # What was taken from a CPU's list is in MemFree by the next reading.
    assert unaccounted(moved, (FEWER, MORE_FREE, FEWER)) == lost(MEMINFO)
    assert unaccounted((ZONES, MEMINFO, ZONES)) == lost(MEMINFO)


def test_pages_that_are_gone_are_a_loss_all_the_same() -> None:
    assert unaccounted((FEWER, MEMINFO, FEWER)) == lost(MEMINFO) + 2667 - 1932


def test_memory_that_never_stays_as_it_is_proves_nothing() -> None:
    with pytest.raises(Unproven, match=f"in each of {LOOKS} readings"):
        unaccounted(*[(ZONES, MEMINFO, FEWER)] * LOOKS)
