# SPDX-License-Identifier: GPL-2.0-only
"""Which faults of a trace came to an unmap within which another had ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from harness.checks.overlap import FAULT, UNMAP, UNMAP_BEGUN, UNMAPPED, Window, by_address, meetings
from harness.checks.test_race_two_drops import (
    SKEW,
    Met,
    after_another,
    met_in,
    unmaps,
)
from harness.observe.trace import Event, returned

PAGE = 4096
IPA, HVA = 0x80000000, 0xFFFF00000000
PAGES = 16
SLOT = HVA, HVA + PAGES * PAGE
VM: Any = SimpleNamespace(
    slot=SimpleNamespace(ipa=IPA, pages=PAGES), greeting=SimpleNamespace(slot_hva=HVA)
)
LONG, SHORT = 1, 2


def at(page: int) -> int:
    return HVA + page * PAGE


def notice(time: int, pid: int, first: int, pages: int = 1) -> Event:
    fields = {"start": at(first), "end": at(first + pages)}
    return Event(time, 0, "kvm-guest", pid, UNMAP, "", fields)


def returns(function: str, time: int, pid: int) -> Event:
    return Event(time, 0, "kvm-guest", pid, returned(function), "", {"ret": 0})


def fault(time: int, page: int, pid: int = 3) -> Event:
    fields = {"ipa": IPA + page * PAGE, "esr": 0x92000007, "far": 0, "pc": 0}
    return Event(time, 0, "kvm-guest", pid, FAULT, "", fields)


def unmap(pid: int, begin: int, end: int, first: int, pages: int = 1) -> list[Event]:
    return [
        notice(begin - 1, pid, first, pages),
        returns(UNMAP_BEGUN, begin, pid),
        returns(UNMAPPED, end, pid),
    ]


def in_order(*events: Event) -> list[Event]:
    return sorted(events, key=lambda event: event.time)


def test_an_unmap_is_under_way_from_one_return_to_the_other_of_its_own_thread() -> None:
    events = in_order(*unmap(LONG, 10, 50, -4, 12), *unmap(SHORT, 20, 30, 14))
    assert unmaps(events, *SLOT) == (
        Window(SHORT, 20, 30, at(14), at(15)),
        Window(LONG, 10, 50, at(-4), at(8)),
    )


def test_what_is_unmapped_beside_the_slot_is_none() -> None:
    events = in_order(*unmap(LONG, 10, 50, -4, 4), *unmap(SHORT, 20, 30, PAGES))
    assert not unmaps(events, *SLOT)


def test_an_unmap_that_the_trace_has_only_a_part_of_is_none() -> None:
    whole = unmap(LONG, 10, 50, 0, 8)
    assert not unmaps(whole[1:], *SLOT)
    assert not unmaps(whole[:2], *SLOT)
    assert not unmaps(whole[:1] + whole[2:], *SLOT)


def test_an_unmap_whose_end_was_missed_does_not_last_until_the_next() -> None:
    first = unmap(LONG, 10, 50, -SKEW, SKEW + 8)[:2]
    later = unmap(LONG, 100, 150, PAGES)
    assert not unmaps(in_order(*first, *later), *SLOT)


def test_what_is_left_of_an_unmap_begins_when_the_first_other_has_ended_within_it() -> None:
    long = Window(LONG, 10, 50, at(0), at(8))
    others = [Window(SHORT, 5, 30, at(9), at(10)), Window(SHORT, 35, 40, at(9), at(10))]
    assert after_another(long, [long, *others]) == (Window(LONG, 30, 50, at(0), at(8)),)


def test_one_that_ended_before_or_after_it_or_is_of_its_thread_or_pages_does_not_count() -> None:
    long = Window(LONG, 10, 50, at(0), at(8))
    for pid, end, page in ((SHORT, 9, 9), (SHORT, 51, 9), (LONG, 30, 9), (SHORT, 30, 7)):
        assert not after_another(long, [long, Window(pid, 5, end, at(page), at(page + 1))])


def test_a_fault_has_the_address_of_its_page_if_it_is_of_the_slot() -> None:
    found = by_address([fault(1, 3), fault(2, -1), fault(3, PAGES)], VM, range(PAGES))
    assert [one.fields for one in found] == [{"start": at(3), "end": at(4)}]


def test_only_a_fault_on_a_page_of_the_rest_of_the_long_one_meets_it() -> None:
    rest = Window(LONG, 30, 50, at(0), at(8))
    faults = [fault(29, 3), fault(31, 3), fault(32, 9), fault(51, 3)]
    assert meetings([rest], by_address(faults, VM, range(PAGES))) == 1


def test_each_long_unmap_is_met_once_however_often_its_pages_are_faulted_on() -> None:
    many = -SKEW, SKEW + 8
    events = in_order(
        *unmap(LONG, 10, 50, *many),
        *unmap(SHORT, 20, 30, 14),
        *unmap(LONG, 100, 150, *many),
        *unmap(LONG, 200, 250, *many),
        *unmap(SHORT, 210, 220, 14),
        # All of the slot, as before a race.
        *unmap(LONG, 300, 350, 0, PAGES),
        *unmap(SHORT, 310, 320, 14),
    )
    faults = [
        fault(25, 1),
        fault(31, 1),
        fault(40, 2),
        fault(120, 1),
        fault(230, 14),
        fault(330, 1),
    ]
    assert met_in(events, faults, VM) == Met(unmaps=7, long=3, beside=2, met=1, faults=2)


def test_what_met_in_several_races_adds_up() -> None:
    met = Met(50, 32, 30, 20, 400) + Met(5, 3, 2, 1, 2)
    assert met == Met(55, 35, 32, 21, 402)
    assert "55 unmaps, 35 of them long; one of a page behind it ended within 32" in met.words()
