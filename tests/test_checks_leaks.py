# SPDX-License-Identifier: GPL-2.0-only
"""How memory is read: free pages that change lists between two files are no loss."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from test_observe_memory import HEAD, MEMINFO, ZONES, line, lost

from harness.checks.claim import Claim
from harness.checks.test_leaks import (
    LOOKS,
    OBJECT_RESTS,
    RESTING,
    Reading,
    keeps_no_objects,
    read,
)
from harness.hosts.protocols import Result
from harness.observe.slab import Cache
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


class Resting(Shell):
    """A machine of two CPUs that does nothing, but that its kmalloc-64 is read like this."""

    def __init__(self, *objects: int) -> None:
        super().__init__()
        self._objects: Iterator[int] = iter(objects)

    def run(self, command: str, deadline: object = None, check: bool = True) -> Result:
        if "slabinfo" not in command:
            return Result(command, 0, "2\n" if "nproc" in command else "0\n", "")
        slabs = HEAD + line("kmalloc-64", next(self._objects))
        text = f"{ZONES}{MEMINFO}{ZONES}== end of a part ==\n{slabs}"
        return Result(command, 0, text, "")


def objects(grown: tuple[int, ...], *rest: int) -> Claim:
    readings = tuple(Reading(0, {"kmalloc-64": Cache(number, 64, 64)}) for number in grown)
    claim = Claim(Path("unused"), "")
    keeps_no_objects(cast(Any, Resting(*rest)), claim, readings, 192, "VM")
    return claim


def test_an_object_for_each_that_stays_is_left_behind() -> None:
    with pytest.raises(AssertionError, match=r"each VM leaves an object behind: kmalloc-64"):
        objects((0, 192, 384), *[384] * RESTING)


def test_objects_that_go_at_rest_were_not_left_behind() -> None:
    late = 384, 384, 190, 190
    claim = objects((0, 192, 384), *late, *[190] * RESTING)
    assert not claim.unjudged, "what went at first has made room for a time of rest"


def test_a_host_without_rest_proves_nothing_either_way() -> None:
    restless = (300, 400, 300, 400) * OBJECT_RESTS
    for grown in ((0, 192, 384), (0, 0, 0)):
        claim = objects(grown, *restless)
        assert len(claim.unjudged) == 1
        assert "move by themselves in 0.0 s: kmalloc-64 by 100" in claim.unjudged[0]


def test_a_quiet_host_shows_that_nothing_was_left() -> None:
    assert not objects((0, 64, 64), *[64] * RESTING).unjudged
