# SPDX-License-Identifier: GPL-2.0-only
"""Which faults of a trace make blocks, where one vCPU writes and another makes them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from harness.checks.overlap import FAULT, Window, meetings
from harness.checks.test_race_join import BLOCK, PAGES, Met, joins
from harness.observe.trace import Event

PAGE = 4096
IPA, HVA = 0x80000000, 0xFFFF00000000
VM: Any = SimpleNamespace(slot=SimpleNamespace(ipa=IPA), greeting=SimpleNamespace(slot_hva=HVA))
# Data aborts of a lower exception level: level 3, of a read and of a write.
TRANSLATION, PERMISSION, ACCESS_FLAG = 0x92000007, 0x9200004F, 0x9200000B
WRITTEN = frozenset({3})


def fault(page: int, esr: int = TRANSLATION, time: int = 5) -> Event:
    fields = {"ipa": IPA + page * PAGE, "esr": esr, "far": 0, "pc": 0}
    return Event(time, 0, "kvm-guest", 7, FAULT, "", fields)


def test_a_block_is_made_by_pages_that_are_touched_while_the_log_is_off() -> None:
    faults = [fault(3), fault(4), fault(BLOCK, PERMISSION), fault(PAGES), fault(-1)]
    made = [one.fields["start"] for one in joins(faults, VM, WRITTEN)]
    assert made == [HVA + 4 * PAGE, HVA + BLOCK * PAGE]


def test_an_access_fault_makes_none() -> None:
    assert not list(joins([fault(4, ACCESS_FLAG), fault(4, ACCESS_FLAG & ~3)], VM, WRITTEN))


def test_it_meets_an_aging_of_its_own_block_alone() -> None:
    first = Window(1, 0, 10, HVA, HVA + BLOCK * PAGE)
    made = list(joins([fault(4), fault(BLOCK + 4), fault(5, time=11)], VM, WRITTEN))
    assert meetings([first], made) == 1


def test_what_met_in_several_races_adds_up() -> None:
    met = Met(2, 24, 24, 0) + Met(3, 24, 24, 1)
    assert met == Met(5, 48, 48, 1)
    assert "48 tables freed, 5 agings; 1 of 48 faults" in met.words()
