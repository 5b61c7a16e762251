# SPDX-License-Identifier: GPL-2.0-only
"""Which faults of a trace change a block, and when enough of them have met."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.checks import test_blocks_beside as blocks
from harness.checks.overlap import FAULT
from harness.observe.trace import Event

# Data aborts of a lower exception level: at level 2, and at level 3.
READ_OF_NOTHING, READ_OF_OLD, WRITE_TO_BLOCK = 0x92000006, 0x9200000A, 0x9200004E
WRITE_TO_NOTHING, WRITE_TO_OLD, WRITE_TO_PAGE = 0x92000047, 0x9200004B, 0x9200004F


def fault(esr: int) -> Event:
    return Event(5, 0, "kvm-guest", 7, FAULT, "", {"ipa": 0, "esr": esr, "far": 0, "pc": 0})


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (blocks.SPLITS, [WRITE_TO_BLOCK, WRITE_TO_PAGE]),
        (blocks.JOINS, [READ_OF_NOTHING]),
        (blocks.READS_OLD, [READ_OF_OLD]),
    ],
)
def test_a_fault_is_told_by_its_status_at_whatever_level(status: int, expected: list[int]) -> None:
    every = (
        *(READ_OF_NOTHING, READ_OF_OLD, WRITE_TO_BLOCK),
        *(WRITE_TO_NOTHING, WRITE_TO_OLD, WRITE_TO_PAGE),
    )
    found = blocks.of(map(fault, every), status)
    assert [one.fields["esr"] for one in found] == expected


def meet(monkeypatch: pytest.MonkeyPatch, together: list[int]) -> tuple[blocks.Met, int]:
    """What is found with so many meetings in each trace, and how many rounds that took."""
    rounds = 0

    def one_round() -> None:
        nonlocal rounds
        rounds += 1

    def kept(session: Any, claim: Any, name: str, race: Any) -> tuple[None, str]:
        return race(), name

    monkeypatch.setattr(blocks, "kept", kept)
    left = iter(together)
    claim: Any = SimpleNamespace()
    met = blocks._meet(claim, claim, one_round, lambda _: blocks.Met(blocks.ROUNDS, next(left, 0)))
    return met, rounds


def test_it_ends_when_enough_have_met(monkeypatch: pytest.MonkeyPatch) -> None:
    met, rounds = meet(monkeypatch, [0, blocks.ENOUGH - 1, 1, 9])
    assert (met.together, rounds) == (blocks.ENOUGH, 3 * blocks.ROUNDS)
    assert met.words() == f"{blocks.ENOUGH} of {rounds} faults came at the right time"


def test_it_ends_when_none_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    met, rounds = meet(monkeypatch, [])
    assert (met.together, rounds) == (0, blocks.TRACES * blocks.ROUNDS)
