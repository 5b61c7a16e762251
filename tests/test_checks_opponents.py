# SPDX-License-Identifier: GPL-2.0-only
"""When opponents of a race were at stage 2, on made-up traces."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from harness.checks.opponents import (
    GUEST_FAULTING,
    OPPOSITIONS,
    Opposition,
    of_all_pages,
    of_any_page,
)
from harness.checks.overlap import (
    AGE,
    AGED,
    COMMITTED,
    FLUSH_SLOT,
    PREPARED,
    RELEASE,
    UNMAP,
    UNMAP_WALK,
    Window,
    meetings,
)
from harness.observe.trace import ACCESS_FAULT, MARK, Counts, Event, Wanted, returned

HVA, IPA, PAGES, PAGE = 0x10000, 0x8000_0000, 4, 4096
VM: Any = SimpleNamespace(
    slot=SimpleNamespace(pages=PAGES, ipa=IPA), greeting=SimpleNamespace(slot_hva=HVA)
)
WHOLE = (HVA, HVA + PAGES * PAGE)


def event(name: str, time: int, pid: int = 1, **fields: int) -> Event:
    return Event(time, 0, "kvm-guest", pid, name, "", fields)


def on_page(name: str, time: int, page: int, pid: int = 2) -> Event:
    start = HVA + page * PAGE
    return event(name, time, pid, start=start, end=start + PAGE)


def counts(against: Opposition, *recorded: Event) -> Counts:
    wanted = Wanted(
        events=tuple(dict.fromkeys((AGE, *against.events))),
        functions=against.entries,
        entries=against.entries,
        returns=dict.fromkeys(against.returns, ""),
    )
    return Counts(wanted, {}, 0, {}, recorded, "")


def test_a_slot_goes_from_stage_2_in_a_part_of_the_system_call_alone() -> None:
    against = OPPOSITIONS["slot-delete"]
    recorded = (
        event(MARK, 10, begins=1, start=WHOLE[0], end=WHOLE[1]),
        event(FLUSH_SLOT, 40),
        event(returned(FLUSH_SLOT), 50),
        event(MARK, 90, begins=0, start=WHOLE[0], end=WHOLE[1]),
    )
    spans = against.spans(counts(against, *recorded), VM)
    assert spans == (Window(1, 40, 50, *WHOLE),)
    ages = [on_page(AGE, time, 1) for time in (20, 45, 60)]
    assert meetings(spans, ages) == 1


def test_a_drop_meets_agings_of_its_own_pages_while_they_are_unmapped() -> None:
    against = OPPOSITIONS["dontneed"]
    recorded = (on_page(UNMAP, 10, 1, pid=1), event(returned(UNMAP_WALK), 20))
    spans = against.spans(counts(against, *recorded), VM)
    ages = [on_page(AGE, 15, 1), on_page(AGE, 15, 2), on_page(AGE, 25, 1)]
    assert meetings(spans, ages) == 1
    # While a page is swapped out it is on no LRU, and page_idle passes over it.
    assert OPPOSITIONS["pageout"].any_page
    assert meetings(spans, of_any_page(ages, VM)) == 2


def test_a_vm_meets_agings_when_it_goes_and_when_it_gets_slots() -> None:
    against = OPPOSITIONS["vms"]
    recorded = (
        event(returned(PREPARED), 10),
        event(returned(COMMITTED), 20),
        event(RELEASE, 30),
        event(returned(RELEASE), 40),
    )
    found = counts(against, *recorded)
    ages = [on_page(AGE, time, 0) for time in (5, 15, 25, 35)]
    assert meetings(against.spans(found, VM), ages) == 1
    assert against.also is not None
    assert against.also.number(found, VM, ages) == 1


def test_an_access_fault_meets_the_aging_of_its_own_page() -> None:
    against = GUEST_FAULTING
    ages = [on_page(AGE, 10, 1), on_page(AGE, 30, 2)]
    recorded = (
        *ages,
        event(returned(AGED), 20, 2, ret=1),
        event(returned(AGED), 40, 2, ret=1),
        event(ACCESS_FAULT, 15, ipa=IPA + PAGE + 8),
        # Of another page, at another time, and by who ages.
        event(ACCESS_FAULT, 16, ipa=IPA),
        event(ACCESS_FAULT, 25, ipa=IPA + PAGE),
        event(ACCESS_FAULT, 35, 2, ipa=IPA + 2 * PAGE),
    )
    assert against.also is not None
    assert against.also.number(counts(against, *recorded), VM, ages) == 1


def test_a_page_that_is_replaced_is_no_drop_of_all() -> None:
    ranges = WHOLE, (HVA + PAGE, HVA + 2 * PAGE), (HVA, HVA + 3 * PAGE), (HVA - PAGE, WHOLE[1])
    events = [event(UNMAP, 1, start=start, end=end) for start, end in ranges]
    assert of_all_pages(events, VM) == events[:1]
