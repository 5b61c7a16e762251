# SPDX-License-Identifier: GPL-2.0-only
"""Which entries a switch of the dirty log changed, and when."""

from __future__ import annotations

import pytest
from test_keeper import GUEST, FakeProcess, FakeShell

from harness.checks.overlap import AGE, AGED, SET_FLAGS, agings, meetings
from harness.checks.test_answers_beside_log import PAGES, changes, make_young
from harness.guests import Guest
from harness.observe.trace import Counts, Event, Wanted, returned
from harness.observe.unproven import Unproven

HVA, PAGE = 0xFFFFABE00000, 4096
SWITCHER, AGER = 54, 60


def a_guest(*answers: str) -> Guest:
    return Guest.start(
        FakeShell(FakeProcess([GUEST.replace("pages=4096", "pages=128"), *answers])), pages=PAGES
    )


def event(time: int, pid: int, name: str, page: int | None = None) -> Event:
    at = {} if page is None else {"start": HVA + page * PAGE, "end": HVA + (page + 1) * PAGE}
    return Event(time, 0, "kvm-guest", pid, name, "", at)


def trace(*events: Event) -> Counts:
    wanted = Wanted((AGE,), returns={AGED: "", SET_FLAGS: ""})
    return Counts(wanted, {}, 0, {}, tuple(sorted(events, key=lambda one: one.time)), "")


def switch(entries: int = PAGES, pid: int = SWITCHER) -> list[Event]:
    """One entry in each ten microseconds, from 1000 on."""
    return [event(1000 + 10 * number, pid, returned(SET_FLAGS)) for number in range(entries)]


def aging(page: int, begin: int, end: int) -> list[Event]:
    return [event(begin, AGER, AGE, page), event(end, AGER, returned(AGED))]


def test_an_entry_that_changes_while_its_page_is_aged_has_met() -> None:
    vm = a_guest()
    for begin, end, met in ((1000, 1500, 1), (1100, 1100, 1), (900, 1099, 0), (1101, 1500, 0)):
        counts = trace(*switch(), *aging(10, begin, end))
        assert meetings(agings(counts), changes(counts, vm)) == met


def test_faults_of_vcpus_are_no_part_of_the_switch() -> None:
    others = switch(3, pid=55)
    counts = trace(*switch(), *others, *aging(1, 1005, 1015))
    assert len(changes(counts, a_guest())) == PAGES
    assert meetings(agings(counts), changes(counts, a_guest())) == 1


def test_a_switch_that_went_another_way_is_not_known() -> None:
    for entries in (0, PAGES - 1, PAGES + 1):
        with pytest.raises(Unproven, match=f"{entries} entries where there are {PAGES}"):
            changes(trace(*switch(entries)), a_guest())


EXITS = (
    "exits=1 mmio_exit_user=1 mmio_exit_kernel=0 signal_exits=0 hvc_exit_stat=0 wfe_exit_stat=0 "
    "wfi_exit_stat=0"
)


@pytest.mark.parametrize("idle", ["count=0 pages=-", "count=127 pages=0-126"])
def test_pages_that_nobody_would_ask_about_prove_nothing(idle: str) -> None:
    answers = ("ok marked=128 absent=0 unmarked=-", "ok", f"ok vcpu=0 pages=128 {EXITS}")
    make_young(a_guest(*answers, "ok count=128 pages=0-127"))
    with pytest.raises(Unproven, match="not idle to the host any more"):
        make_young(a_guest(*answers, f"ok {idle}"))
