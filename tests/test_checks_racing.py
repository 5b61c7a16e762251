# SPDX-License-Identifier: GPL-2.0-only
"""What a race is told to have been, by what it ages, and how its parts are put together."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from harness.checks.driver import situation
from harness.checks.evidence import Evidence
from harness.checks.opponents import OPPOSITIONS, opposition
from harness.checks.overlap import AGE
from harness.checks.racing import (
    DRIVERS,
    MOST_CPUS,
    MOST_REAL_CPUS,
    Field,
    Met,
    Shows,
    Tally,
    crowd_on,
    drawn,
    entering,
    entries,
    never_entered,
    recorded,
    show,
)
from harness.contract import Contract
from harness.contract_load import BASE, load
from harness.guest_replies import RaceReply
from harness.guest_words import Ager, Opponent
from harness.observe.trace import MARK, Counts, Event, Probe, Wanted
from harness.observe.unproven import Unproven
from harness.paths import PROJECT

HVA, PAGES = 0x10000, 4
VM: Any = SimpleNamespace(
    slot=SimpleNamespace(pages=PAGES, ipa=0x8000_0000), greeting=SimpleNamespace(slot_hva=HVA)
)
# A series whose fast path is entered by MGLRU alone, without an event.
BY_MGLRU = """\
kernel: "6.12"
fast_path:
  functions: [age_lockless]
  drivers: [mglru_walk, eviction]
  modes: [vhe, nvhe]
  stage2_af: [hardware]
  lru_gen_bit: 0x8
"""


def cell(mode: str = "vhe", stage1: str = "hardware", stage2: str = "hardware") -> Any:
    return SimpleNamespace(
        cell=SimpleNamespace(kvm_mode=mode, af_mode=stage2),
        host=SimpleNamespace(af=stage1),
        becomes=None,
    )


@pytest.fixture
def by_mglru(tmp_path: Path) -> Contract:
    path = tmp_path / "series.yaml"
    path.write_text(BY_MGLRU)
    return load(path, BASE)


def reply(**changed: int) -> RaceReply:
    zero = dict.fromkeys(RaceReply.__dataclass_fields__, 0)
    return RaceReply(**(zero | {"rounds": 4, "touches": 90, "least": 20, "passes": 7} | changed))


def missing(met: Met, opponent: Opponent, ager: Ager = "page-idle", least: int = 1) -> str:
    return met.missing(ager, opponent, opposition(opponent, faulting=False), least)


def test_what_met_adds_up() -> None:
    met = Met(ages=10, acts=2, together=1, threads=2) + Met(ages=5, acts=3, fast=2, threads=1)
    # Of threads at once there are no more in two races than in either.
    assert met == Met(15, 5, 1, fast=2, threads=2)
    words = met.words(OPPOSITIONS["slot-delete"])
    assert words == (
        "1 of 15 agings of its pages began during 5 removals of the slot from stage 2, 2 threads "
        "at most began some during one act"
    )
    words = Met(also=3).words(OPPOSITIONS["vms"])
    assert words.endswith(", 3 agings began while a VM got a slot")


def test_meetings_alone_do_not_prove_that_the_opponent_got_its_way() -> None:
    met = Met(ages=10, acts=2, together=8)
    assert "paged out" in missing(met, "pageout")
    assert "split" in missing(met, "split")
    assert "no write fault came" in missing(met, "dirty-log")
    assert "no slot changed while" in missing(met, "slot-unmap")
    assert "no aging began while" in missing(met, "vms")
    assert not missing(met, "slot-move")
    assert not missing(met + Met(paged_out=1), "pageout", least=8)
    # What agers evict is not the opponent's doing, so it is not asked for there.
    assert not missing(met, "pageout", "eviction", 8)
    assert not missing(met + Met(split=1), "split", least=8)
    assert missing(met + Met(also=7), "dirty-log", least=8)
    assert not missing(met + Met(also=8), "dirty-log", least=8)
    assert "did not meet" in missing(Met(ages=10, acts=2), "slot-move")


def test_against_a_guest_faults_are_asked_for_where_there_are_any() -> None:
    met = Met(ages=10, acts=2, together=8)
    assert not missing(met, "guest")
    against = opposition("guest", faulting=True)
    assert "no access fault came" in met.missing("page-idle", "guest", against)
    assert not (met + Met(also=1)).missing("page-idle", "guest", against)


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


def test_each_opponent_of_a_race_has_its_windows() -> None:
    # One is a mixture of two others, one for who measures, and one about no aging.
    assert set(OPPOSITIONS) == set(get_args(Opponent)) - {"unmap", "timed-drop", "two-drops"}


def test_a_race_is_by_who_enters_the_fast_path(by_mglru: Contract) -> None:
    assert entering(by_mglru, cell()) == "walk"
    # Nobody does: the way of all others.
    for other in (cell("protected"), cell(stage2="software"), cell("nvhe", "software", "software")):
        assert entering(by_mglru, other) == "page-idle"
    assert entering(load(None, BASE), cell()) == "page-idle"
    lockless = load(PROJECT / "series/lockless-aging/series.yaml", BASE)
    assert entering(lockless, cell()) == "page-idle"


def test_agings_show_by_the_fast_path_s_function_where_it_has_no_event(by_mglru: Contract) -> None:
    assert Shows.of(by_mglru, "walk", cell()) == Shows("age_lockless", ("age_lockless",))
    assert Shows.of(by_mglru, "page-idle", cell()) == Shows(AGE, ())
    lockless = load(PROJECT / "series/lockless-aging/series.yaml", BASE)
    # khugepaged's function is nothing that an ager enters.
    assert Shows.of(lockless, "walk", cell()) == Shows(AGE, ("kvm_age_gfn_lockless",))
    assert Shows.of(lockless, "walk", cell("protected")) == Shows(AGE, ())
    assert situation(cell()).mode == "vhe"


def test_who_enters_a_function_may_be_at_any_page(by_mglru: Contract) -> None:
    shows = Shows.of(by_mglru, "walk", cell())
    wanted = recorded(by_mglru, VM, OPPOSITIONS["dontneed"], shows.aging)
    assert AGE not in wanted.events and wanted.entries == ("age_lockless",)
    entered = Event(5, 1, "kvm-guest", 9, "age_lockless", "", {})
    counts = Counts(wanted, {}, 0, {"age_lockless": Probe(1, 0)}, (entered,), "")
    (event,) = shows.agings(counts, VM)
    assert event.fields == {"start": HVA, "end": HVA + PAGES * 4096}


def test_each_opponent_can_be_recorded(by_mglru: Contract) -> None:
    for contract, aging in ((by_mglru, "age_lockless"), (load(None, BASE), AGE)):
        for against in (*OPPOSITIONS.values(), opposition("guest", faulting=True)):
            wanted = recorded(contract, VM, against, aging)
            asked = {*wanted.functions, *wanted.returns}
            assert {*against.slowed, *against.entries, *against.returns} <= asked


def test_a_fast_path_that_never_ran_in_the_race_is_told() -> None:
    counts = Counts(Wanted(functions=("f", "g")), {"g": "none"}, 0, {"f": Probe(2, 1)}, (), "")
    assert entries(counts, ("f", "g")) == 2
    assert entries(counts, ("g",)) == 0
    assert "f, g" in never_entered(("f", "g"), 0)
    assert not never_entered(("f", "g"), 1)
    assert not never_entered((), 0)


def test_what_follows_races_is_chosen_whatever_their_number() -> None:
    seeds, later = drawn(random.Random(7), 3)
    again, same = drawn(random.Random(7), 3)
    assert seeds == again and len(set(seeds)) == 3
    assert later.random() == same.random()


def test_a_tally_is_over_when_enough_met() -> None:
    tally = Tally(4)
    assert not tally.over(lambda: 3)
    assert tally.over(lambda: 2)
    assert tally.met == 5
    tally.prove("nothing met")


def test_what_a_recording_does_not_tell_ends_a_tally_and_is_told_at_its_end() -> None:
    tally = Tally(4)

    def lost() -> int:
        raise Unproven("events were lost")

    assert not tally.over(lambda: 1)
    assert tally.over(lost)
    with pytest.raises(Unproven, match="events were lost"):
        tally.prove("nothing met")


def raced(ager: Ager, opponent: Opponent, *traces: Counts) -> Field:
    """A field whose races leave these traces."""
    left = iter(traces)
    session: Any = SimpleNamespace(start=lambda: None, stop=lambda: next(left))
    vm: Any = SimpleNamespace(**vars(VM), race=lambda *_, **__: reply())
    against = opposition(opponent, faulting=False)
    return Field(vm, session, ager, opponent, against, Shows(AGE, ()), Evidence())


def traced(*events: Event, lost: int = 0) -> Counts:
    wanted = recorded(load(None, BASE), VM, OPPOSITIONS["dontneed"], AGE)
    return Counts(wanted, {}, lost, {}, events, "")


def at(name: str, time: int, pid: int, **fields: int) -> Event:
    return Event(time, 0, "kvm-guest", pid, name, "", fields)


def test_a_trace_that_lost_events_does_not_end_a_race_that_went_on() -> None:
    claim: Any = SimpleNamespace(save=lambda name, text: None)
    field = raced("page-idle", "dontneed", traced(lost=3), traced())
    result, met = field.race(claim, 7, 4, 2, "0")
    assert (result.passes, met) == (7, Met())
    assert field.missing(Met(together=9)) == f"{AGE}: the trace buffer lost 3 events"
    # Another that shows nothing does not hide it.
    field.race(claim, 8, 4, 2, "1")
    assert "lost 3 events" in field.missing(met)


def test_threads_that_age_during_an_act_are_told_apart() -> None:
    claim: Any = SimpleNamespace(save=lambda name, text: None)
    page = {"start": HVA, "end": HVA + 4096}
    events = (
        at(MARK, 1, 9, begins=1, **page),
        at(AGE, 2, 5, **page),
        at(AGE, 3, 6, start=HVA + 4096, end=HVA + 8192),
        at(AGE, 4, 6, **page),
        at(MARK, 5, 9, begins=0, **page),
        at(AGE, 6, 7, **page),
    )
    _, met = raced("page-idle", "dontneed", traced(*events)).race(claim, 7, 4, 2, "0")
    assert (met.ages, met.threads) == (4, 2)


def test_a_tally_of_nothing_proves_nothing() -> None:
    tally = Tally(4)
    assert not tally.over(lambda: 0)
    with pytest.raises(Unproven, match="nothing met"):
        tally.prove("nothing met")


@pytest.mark.parametrize(
    ("cpus", "most", "vcpus", "agers"),
    [
        (1, MOST_CPUS, 3, 2),
        (2, MOST_CPUS, 3, 2),
        (3, MOST_CPUS, 4, 2),
        (4, MOST_CPUS, 5, 3),
        (128, MOST_CPUS, 5, 3),
        (2, MOST_REAL_CPUS, 3, 2),
        (128, MOST_REAL_CPUS, 9, 7),
    ],
)
def test_a_race_has_as_many_threads_as_its_cpus_have_to_do_with(
    cpus: int, most: int, vcpus: int, agers: int
) -> None:
    those = crowd_on(cpus, most)
    assert (those.vcpus, those.agers) == (vcpus, agers)
