# SPDX-License-Identifier: GPL-2.0-only
"""Which faults of a trace were overtaken by a drop and another vCPU's mapping."""

from __future__ import annotations

from harness.checks.overlap import FAULT, LOOK_UP, MAPS, PKVM_MAPS, UNMAP
from harness.checks.test_write_beside_drop import Met, met_by, overtaken
from harness.observe.trace import Counts, Event, Wanted, returned

WRITER, READER, OWNER = 97, 98, 96
PERMISSION, TRANSLATION = 0x9200004F, 0x92000047


def event(pid: int, name: str, esr: int = 0) -> Event:
    return Event(0, 0, "kvm-guest", pid, name, "", {"esr": esr} if name == FAULT else {})


def look_up(esr: int) -> list[Event]:
    return [event(WRITER, FAULT, esr), event(WRITER, UNMAP), event(WRITER, returned(LOOK_UP[0]))]


DROP = event(OWNER, UNMAP)
READ = [event(READER, FAULT, TRANSLATION), event(READER, returned(LOOK_UP[0]))]
MAPPED = event(READER, returned(MAPS[0]))


def test_a_fault_is_overtaken_by_a_drop_and_a_mapping_before_it_is_through() -> None:
    again = event(WRITER, FAULT, PERMISSION)
    relaxed = event(WRITER, returned(MAPS[1]))
    for end in ([again], [relaxed], []):
        events = [*look_up(PERMISSION), DROP, *READ, MAPPED, *end]
        assert overtaken(events, WRITER) == Met(permission=1)
    assert overtaken([*look_up(TRANSLATION), DROP, *READ, MAPPED, again], WRITER) == Met(others=1)
    twice = [*look_up(PERMISSION), DROP, MAPPED] * 2
    assert overtaken(twice, WRITER) == Met(permission=2)


def test_what_comes_in_another_order_does_not_count() -> None:
    through = event(WRITER, returned(MAPS[0]))
    for events in (
        # Mapped before the drop, or not at all.
        [*look_up(PERMISSION), MAPPED, DROP],
        [*look_up(PERMISSION), DROP, *READ],
        # The writer was through before the mapping, or before the drop.
        [*look_up(PERMISSION), DROP, *READ, through, MAPPED],
        [*look_up(PERMISSION), through, DROP, *READ, MAPPED],
        # It had not looked up anything yet.
        [event(WRITER, FAULT, PERMISSION), DROP, *READ, MAPPED],
        [DROP, *READ, MAPPED],
    ):
        assert overtaken(events, WRITER) == Met()


def test_a_kernel_with_a_way_of_its_own_under_pkvm_goes_the_other_elsewhere() -> None:
    wanted = Wanted(
        events=(UNMAP, FAULT),
        returns=dict.fromkeys((*LOOK_UP, *MAPS, *PKVM_MAPS), ""),
        slowed_thread=WRITER,
    )
    events = (*look_up(PERMISSION), DROP, *READ, MAPPED)
    for absent in ((), PKVM_MAPS):
        missing = dict.fromkeys(map(returned, absent), "no such function")
        assert met_by(Counts(wanted, missing, 0, {}, events, "")) == Met(permission=1)


def test_met_faults_add_up_and_are_told() -> None:
    assert Met(1, 2) + Met(3, 4) == Met(4, 6)
    assert "4 permission faults and 6 others" in Met(4, 6).words()
