# SPDX-License-Identifier: GPL-2.0-only
"""How many faults lost their race against an unmap, from what was recorded."""

from __future__ import annotations

import pytest

from harness.checks.overlap import LOOK_UP, MAPS, PKVM_MAPS
from harness.checks.test_race_unmap import lost_races, tells_lost
from harness.observe.trace import Counts, Event, Probe, Wanted, returned

WANTED = Wanted(functions=(*MAPS, *PKVM_MAPS), returns=dict.fromkeys(LOOK_UP, ""))
OLD, NEW = LOOK_UP


def counts(
    *, looked_up: int, hits: int, missed: int = 0, unseen: int = 0, absent: tuple[str, ...] = ()
) -> Counts:
    """Each of MAPS was entered so many times; an old kernel, unless `absent` says otherwise."""
    missing = dict.fromkeys(absent or (returned(NEW), *PKVM_MAPS), "this kernel has none")
    probes = {function: Probe(hits, missed) for function in (*MAPS, *PKVM_MAPS)}
    probes |= {returned(name): Probe(looked_up, unseen) for name in LOOK_UP}
    probes = {name: probe for name, probe in probes.items() if name not in missing}
    events = tuple(
        Event(at, 0, "kvm-guest", 7, returned(name), "", {"ret": 9})
        for name in LOOK_UP
        if returned(name) not in missing
        for at in range(looked_up)
    )
    return Counts(WANTED, missing, 0, probes, events, "")


def test_a_fault_that_maps_nothing_lost_its_race() -> None:
    assert lost_races(counts(looked_up=9, hits=3)) == 3
    assert lost_races(counts(looked_up=5, hits=3)) == 0


def test_a_new_kernel_looks_up_by_another_name_and_pkvm_maps_by_others() -> None:
    assert tells_lost((returned(OLD),))
    assert lost_races(counts(looked_up=13, hits=3, absent=(returned(OLD),))) == 1
    assert lost_races(counts(looked_up=9, hits=3, absent=(returned(OLD), *PKVM_MAPS))) == 3


@pytest.mark.parametrize("absent", [(returned(OLD), returned(NEW)), MAPS[:1], MAPS[1:]])
def test_a_kernel_that_does_not_tell_shows_none(absent: tuple[str, ...]) -> None:
    assert not tells_lost(absent)
    assert lost_races(counts(looked_up=9, hits=0, absent=absent)) == 0


def test_what_a_probe_missed_shows_none() -> None:
    assert lost_races(counts(looked_up=9, hits=3, missed=1)) == 0
    assert lost_races(counts(looked_up=9, hits=3, unseen=1)) == 0
