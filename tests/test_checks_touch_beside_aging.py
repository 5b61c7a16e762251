# SPDX-License-Identifier: GPL-2.0-only
"""Which touches came before an aging, and which in its course, by made-up traces."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.checks.overlap import AGE, AGED
from harness.checks.test_touch_beside_aging import ENTRY, EXIT, Seen, _met, recorded, seen_in
from harness.contract_load import load
from harness.observe.trace import ACCESS_FAULT, Counts, Event, returned
from harness.observe.unproven import Unproven

HVA, IPA, SIZE = 0xFFFF_A000_0000, 0x8000_0000, 4096
AGER, VCPU = 7, 8
VM: Any = SimpleNamespace(
    greeting=SimpleNamespace(slot_hva=HVA), slot=SimpleNamespace(ipa=IPA, pages=24)
)


def aged(page: int, begin: int, end: int) -> list[Event]:
    at = HVA + page * SIZE
    return [
        Event(begin, 1, "kvm-guest", AGER, AGE, "", {"start": at, "end": at + SIZE}),
        Event(end, 1, "kvm-guest", AGER, returned(AGED), "", {"ret": 0}),
    ]


def fault(page: int, time: int) -> Event:
    return Event(time, 0, "kvm-guest", VCPU, ACCESS_FAULT, "", {"ipa": IPA + page * SIZE})


def at(name: str, time: int) -> Event:
    return Event(time, 0, "kvm-guest", VCPU, name, "", {})


def counts(*events: Event, lost: int = 0) -> Counts:
    wanted = recorded(load(None))
    return Counts(wanted, {}, lost, {}, tuple(sorted(events, key=lambda one: one.time)), "")


def test_an_access_fault_is_over_when_its_vcpu_goes_on() -> None:
    found = counts(
        *(at(ENTRY, 5), fault(3, 10), at(ENTRY, 20), fault(4, 25), at(ENTRY, 40)),
        *(*aged(3, 21, 30), *aged(4, 31, 35)),
    )
    # That of page 4 had begun, and may have set the flag by then or not.
    assert seen_in(found, VM, by_hardware=False) == Seen(frozenset({3}), 0)
    assert _met(found, VM, frozenset({4}), by_hardware=False) == 0
    with pytest.raises(AssertionError, match="1 pages were said to be old after a touch: 3"):
        _met(found, VM, frozenset({3, 4}), by_hardware=False)


def test_a_fault_on_a_page_that_is_being_aged() -> None:
    found = counts(*aged(3, 21, 30), fault(3, 25), fault(4, 26), at(ENTRY, 40), *aged(4, 31, 35))
    assert seen_in(found, VM, by_hardware=False) == Seen(frozenset(), 1)


def test_with_hardware_the_whole_run_lies_before_an_aging_or_in_it() -> None:
    """It is not known when each page was touched, only that all were."""
    runs = (at(ENTRY, 10), at(EXIT, 12), at(ENTRY, 14), at(EXIT, 20))
    ages = (*aged(1, 0, 5), *aged(2, 6, 12), *aged(5, 13, 19), *aged(6, 21, 30))
    assert seen_in(counts(*runs, *ages), VM, by_hardware=True) == Seen(frozenset({6}), 0)
    ages = (*aged(1, 0, 9), *aged(2, 10, 20), *aged(5, 21, 29), *aged(6, 30, 39))
    assert seen_in(counts(*runs, *ages), VM, by_hardware=True) == Seen(frozenset({5, 6}), 1)
    assert seen_in(counts(*ages), VM, by_hardware=True) == Seen(frozenset(), 0)


def test_a_trace_that_lost_events_tells_nothing() -> None:
    with pytest.raises(Unproven, match="lost 2"):
        seen_in(counts(*aged(3, 1, 2), lost=2), VM, by_hardware=True)
