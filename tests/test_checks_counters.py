# SPDX-License-Identifier: GPL-2.0-only
"""Two that age at once: what their trace tells of it, and of leaves that they lost."""

from __future__ import annotations

import pytest

from harness.checks.overlap import AGE, AGE_CALLBACK, AGE_WALK
from harness.checks.test_counters import outcomes, took_turns
from harness.observe.trace import Counts, Event, Probe, Wanted, returned
from harness.observe.unproven import Unproven

EAGAIN = 0xFFFFFFF5


def age(time: int, pid: int) -> Event:
    return Event(time, 0, "kvm-guest", pid, AGE, "", {})


def back(function: str, value: int) -> Event:
    return Event(1, 0, "kvm-guest", 7, returned(function), "", {"ret": value})


def counts(*recorded: Event, missed: int = 0) -> Counts:
    wanted = Wanted(returns={AGE_CALLBACK: "ret != 0", AGE_WALK: ""})
    probes = {returned(name): Probe(9, missed) for name in (AGE_CALLBACK, AGE_WALK)}
    return Counts(wanted, {}, 0, probes, recorded, "")


def test_turns_are_changes_from_one_thread_to_another() -> None:
    assert took_turns([]) == 0
    assert took_turns([age(1, 7), age(2, 7), age(3, 8), age(4, 8)]) == 2
    assert took_turns([age(1, 7), age(3, 7), age(2, 8), age(4, 8)]) == 4


def test_a_request_that_found_a_leaf_young_made_it_old_unless_it_had_changed() -> None:
    walks = [back(AGE_WALK, value) for value in (1, 0, 1, 0x100, 0xFF01)]
    assert outcomes(counts(*walks)) == (3, 0)
    assert outcomes(counts(*walks, back(AGE_CALLBACK, EAGAIN))) == (3, 1)


def test_returns_that_were_missed_prove_nothing() -> None:
    with pytest.raises(Unproven, match="missed 2 returns"):
        outcomes(counts(back(AGE_WALK, 1), missed=2))
