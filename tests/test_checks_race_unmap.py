# SPDX-License-Identifier: GPL-2.0-only
"""How many faults lost their race against an unmap, from what was recorded."""

from __future__ import annotations

from harness.checks.test_race_unmap import LOOK_UP, MAPS, lost_races, tells_lost
from harness.observe.trace import Counts, Event, Probe, Wanted, returned

WANTED = Wanted(functions=MAPS, returns={LOOK_UP: ""})


def counts(
    *, looked_up: int, hits: int, missed: int = 0, unseen: int = 0, absent: str = ""
) -> Counts:
    """Each of MAPS was entered so many times."""
    name = returned(LOOK_UP)
    events = tuple(Event(at, 0, "kvm-guest", 7, name, "", {"ret": 9}) for at in range(looked_up))
    probes = {function: Probe(hits, missed) for function in MAPS}
    probes[returned(LOOK_UP)] = Probe(looked_up, unseen)
    missing = {absent: "this kernel has none"} if absent else {}
    return Counts(WANTED, missing, 0, probes, events, "")


def test_a_fault_that_maps_nothing_lost_its_race() -> None:
    assert lost_races(counts(looked_up=9, hits=3)) == 3


def test_a_kernel_that_does_not_tell_shows_none() -> None:
    for name in (returned(LOOK_UP), *MAPS):
        assert lost_races(counts(looked_up=9, hits=3, absent=name)) == 0
        assert not tells_lost((name,))
    assert lost_races(counts(looked_up=9, hits=3, missed=1)) == 0
    assert lost_races(counts(looked_up=9, hits=3, unseen=1)) == 0
    assert tells_lost(())
