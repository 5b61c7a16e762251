# SPDX-License-Identifier: GPL-2.0-only
"""Which faults of a trace change a block, and when enough of them have met."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.checks import test_blocks_beside as blocks
from harness.checks.overlap import FAULT
from harness.observe.trace import Event
from harness.observe.unproven import Unproven

# Data aborts of a lower exception level: at level 2, and at level 3.
READ_OF_NO_TABLE, READ_OF_OLD, WRITE_TO_BLOCK = 0x92000006, 0x9200000A, 0x9200004E
READ_OF_NO_PAGE, WRITE_TO_OLD_PAGE, WRITE_TO_PAGE = 0x92000007, 0x9200004B, 0x9200004F


def fault(esr: int) -> Event:
    return Event(5, 0, "kvm-guest", 7, FAULT, "", {"ipa": 0, "esr": esr, "far": 0, "pc": 0})


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (blocks.SPLITS, [WRITE_TO_BLOCK]),
        (blocks.JOINS, [READ_OF_NO_PAGE]),
        (blocks.READS_OLD, [READ_OF_OLD]),
    ],
)
def test_a_fault_is_told_by_its_status_and_level(status: set[int], expected: list[int]) -> None:
    every = (
        *(READ_OF_NO_TABLE, READ_OF_OLD, WRITE_TO_BLOCK),
        *(READ_OF_NO_PAGE, WRITE_TO_OLD_PAGE, WRITE_TO_PAGE),
    )
    found = blocks.of(map(fault, every), status)
    assert [one.fields["esr"] for one in found] == expected


Traces = list[int | str]


def meet(monkeypatch: pytest.MonkeyPatch, together: Traces) -> tuple[blocks.Meeting, int]:
    """What is found with so many meetings in each trace, or none for a reason; and the rounds."""
    rounds = 0

    def one_round() -> None:
        nonlocal rounds
        rounds += 1

    def kept(session: Any, claim: Any, name: str, race: Any) -> tuple[None, Any]:
        race()
        return None, SimpleNamespace(of=lambda function: ("never", "once").index(function))

    def met(counts: Any) -> blocks.Met:
        found = next(left, 0)
        if isinstance(found, str):
            raise Unproven(found)
        return blocks.Met(blocks.ROUNDS, found)

    monkeypatch.setattr(blocks, "kept", kept)
    left = iter(together)
    slowed = SimpleNamespace(slowed={"never": 1, "once": 1, "absent": 1})
    session: Any = SimpleNamespace(absent={"absent": "not there"}, wanted=slowed)
    claim: Any = SimpleNamespace()
    return blocks._meet(session, claim, one_round, met), rounds


def test_it_ends_when_enough_have_met(monkeypatch: pytest.MonkeyPatch) -> None:
    found, rounds = meet(monkeypatch, [0, blocks.ENOUGH - 1, 1, 9])
    assert (found.met.together, rounds) == (blocks.ENOUGH, 3 * blocks.ROUNDS)
    assert found.met.words() == f"{blocks.ENOUGH} of {rounds} faults came at the right time"
    assert not found.unseen


def test_it_ends_when_none_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    found, rounds = meet(monkeypatch, [])
    assert (found.met.together, rounds) == (0, blocks.TRACES * blocks.ROUNDS)


def test_a_function_that_nothing_entered_did_not_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = meet(monkeypatch, [9])
    assert found.idle == {"never"}


def test_what_a_trace_does_not_tell_ends_the_rounds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found, rounds = meet(monkeypatch, [1, "events were lost", 9])
    assert (found.met.together, found.unseen) == (1, "events were lost")
    assert rounds == 2 * blocks.ROUNDS
