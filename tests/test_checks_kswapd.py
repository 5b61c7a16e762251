# SPDX-License-Identifier: GPL-2.0-only
"""Which pages were moved before kswapd took them, by made-up recordings."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from harness.checks.overlap import UNMAP
from harness.checks.test_kswapd import moved
from harness.guest_replies import PAGE_SIZE
from harness.observe.trace import Counts, Event, Wanted
from harness.observe.unproven import Unproven

HVA = 0xFFFF_A000_0000
VM: Any = SimpleNamespace(greeting=SimpleNamespace(slot_hva=HVA))


def recording(pages: Iterable[int], lost: int = 0) -> Counts:
    """An unmap of each of these pages."""
    events = tuple(
        Event(
            at,
            0,
            "kswapd0",
            60,
            UNMAP,
            "",
            {"start": HVA + page * PAGE_SIZE, "end": HVA + (page + 1) * PAGE_SIZE},
        )
        for at, page in enumerate(pages)
    )
    return Counts(Wanted((UNMAP,)), {}, lost, {}, events, "")


def test_a_page_that_was_unmapped_by_its_eviction_alone_was_not_moved() -> None:
    assert moved(recording([3, 4]), VM) == frozenset()


def test_a_page_that_was_unmapped_before_was_moved() -> None:
    assert moved(recording([3, 4, 5, 4, 5, 5]), VM) == {4, 5}


def test_a_trace_that_lost_events_does_not_tell() -> None:
    with pytest.raises(Unproven, match="lost 1 events"):
        moved(recording([3], lost=1), VM)
