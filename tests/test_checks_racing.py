# SPDX-License-Identifier: GPL-2.0-only
"""What a race is told to have been, and how its parts are put together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast, get_args

from harness.checks.overlap import UNMAP
from harness.checks.racing import DRIVERS, Met, of_all_pages, show
from harness.guest_replies import RaceReply
from harness.guests import Ager, Opponent
from harness.observe.trace import Event


def reply(**changed: int) -> RaceReply:
    zero = dict.fromkeys(RaceReply.__dataclass_fields__, 0)
    return RaceReply(**(zero | {"rounds": 4, "touches": 90, "least": 20, "passes": 7} | changed))


def test_what_met_adds_up() -> None:
    met = Met(ages=10, acts=2, together=1) + Met(ages=5, acts=3)
    assert met == Met(15, 5, 1)
    assert met.words().startswith("1 of 15 agings of its pages began during one of the")


def test_meetings_alone_do_not_prove_that_the_opponent_got_its_way() -> None:
    met = Met(ages=10, acts=2, together=8)
    for opponent, word in (
        ("pageout", "paged out"),
        ("split", "split"),
        ("dirty-log", "no write fault came"),
        ("slot-unmap", "no slot changed while"),
    ):
        assert word in met.missing("page-idle", cast(Opponent, opponent))
    assert not met.missing("page-idle", "slot-move")
    assert not (met + Met(paged_out=1)).missing("page-idle", "pageout", 8)
    # What agers evict is not the opponent's doing, so it is not asked for there.
    assert not met.missing("eviction", "pageout", 8)
    assert not (met + Met(split=1)).missing("page-idle", "split", 8)
    assert (met + Met(marked=7)).missing("page-idle", "dirty-log", 8)
    assert not (met + Met(marked=8)).missing("page-idle", "dirty-log", 8)
    assert not (met + Met(changes=8)).missing("page-idle", "slot-unmap", 8)
    assert "did not meet" in Met(ages=10, acts=2).missing("page-idle", "slot-move")


def test_a_race_without_acts_has_no_mean() -> None:
    assert "0 acts took 0 us each" in show(reply())
    assert "4 acts took 25 us each, the slowest 60 us" in show(
        reply(acts=4, acts_us=100, slowest_us=60)
    )


def test_only_what_happened_is_told() -> None:
    text = show(reply(logged=3))
    assert text.endswith("; 3 logged")
    assert "emulated" not in text


def test_each_ager_is_a_driver_of_the_contract() -> None:
    assert set(DRIVERS) == set(get_args(Ager))


def test_a_page_that_is_replaced_is_no_drop_of_all() -> None:
    vm: Any = SimpleNamespace(
        slot=SimpleNamespace(pages=4), greeting=SimpleNamespace(slot_hva=0x10000)
    )
    ranges = (0x10000, 0x14000), (0x11000, 0x12000), (0x10000, 0x13000), (0x8000, 0x14000)
    events = [
        Event(1, 0, "kvm-guest", 1, UNMAP, "", {"start": start, "end": end})
        for start, end in ranges
    ]
    assert of_all_pages(events, vm) == events[:1]
