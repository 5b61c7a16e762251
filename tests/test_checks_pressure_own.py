# SPDX-License-Identifier: GPL-2.0-only
"""Who reclaimed a page in a race, and who aged one, on made-up traces."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.checks.claim import Claim
from harness.checks.overlap import AGE, FAULT, UNMAP
from harness.checks.racing import Shows
from harness.checks.test_pressure_own import WRITES, Met, check_asked, met_in, recorded
from harness.contract import Expectation
from harness.contract_load import BASE, load
from harness.observe.trace import Counts, Event, Probe, returned

HVA, PAGES = 0x10000, 4
VM: Any = SimpleNamespace(
    slot=SimpleNamespace(pages=PAGES, ipa=0x8000_0000), greeting=SimpleNamespace(slot_hva=HVA)
)
SHOWS = Shows(AGE, ("fast",))
WRITE = WRITES["page-idle"]
VCPU, AGER = 5, 6


def at(name: str, time: int, pid: int, page: int = 0) -> Event:
    start = HVA + page * 4096
    return Event(time, 0, "kvm-guest", pid, name, "", {"start": start, "end": start + 4096})


def met(*events: Event) -> Met:
    wanted = recorded(load(None, BASE), "page-idle", SHOWS)
    return met_in(Counts(wanted, {}, 0, {"fast": Probe(2, 0)}, events, ""), "page-idle", SHOWS, VM)


def test_an_ager_ages_while_it_writes_and_only_pages_of_the_guest() -> None:
    found = met(
        at(FAULT, 0, VCPU),
        at(WRITE, 10, AGER),
        at(AGE, 11, AGER),
        # What a vCPU asks about before it reclaims, and what is none of the tested pages.
        at(AGE, 12, VCPU),
        at(UNMAP, 13, VCPU),
        at(AGE, 14, AGER, PAGES),
        at(returned(WRITE), 15, AGER),
        # Who is over the limit reclaims on its way out, an ager as well.
        at(AGE, 16, AGER),
        at(UNMAP, 17, AGER),
    )
    assert found == Met(reclaimed=1, aged=1, fast=2)
    assert not found.missing(SHOWS)


def test_each_part_is_asked_for() -> None:
    assert "no vCPU reclaimed" in Met(aged=1, fast=1).missing(SHOWS)
    assert "no page was aged" in Met(reclaimed=1, fast=1).missing(SHOWS)
    assert not Met(reclaimed=1, aged=1).missing(Shows(AGE, ()))
    assert "fast path" in Met(reclaimed=1, aged=1).missing(SHOWS)
    assert Met(1, 2, 3) + Met(4, 5, 6) == Met(5, 7, 9)


def asked(claim: Claim, *events: Event, event: str | None = AGE, reaches: bool = True) -> None:
    expectation = cast(Expectation, SimpleNamespace(event=event, reaches_kvm=reaches))
    wanted = recorded(load(None, BASE), "page-idle", SHOWS)
    check_asked(claim, expectation, VM, Counts(wanted, {}, 0, {}, events, ""))


@pytest.fixture
def claim(tmp_path: Path) -> Claim:
    return Claim(tmp_path, "")


def test_kvm_is_asked_before_a_page_goes(claim: Claim) -> None:
    once = (at(FAULT, 0, VCPU), at(AGE, 1, VCPU, 2), at(UNMAP, 2, VCPU, 2))
    asked(claim, *once)
    with pytest.raises(AssertionError, match="1 pages went more often"):
        asked(claim, *once, at(UNMAP, 3, VCPU, 2))
    # kswapd, say, which asked about another page.
    with pytest.raises(AssertionError, match="1 pages went more often"):
        asked(claim, *once, at(AGE, 3, 9, 1), at(UNMAP, 4, 9, 1), at(UNMAP, 5, 9, 3))


def test_who_moves_pages_asks_nothing(claim: Claim) -> None:
    compacted = (at(UNMAP, 3, 77, 2), at(UNMAP, 4, 77, 3))
    asked(claim, at(FAULT, 0, VCPU), at(AGE, 1, VCPU, 2), at(UNMAP, 2, VCPU, 2), *compacted)
    assert "1 times" in claim.observed


def test_eviction_without_an_event_is_not_judged(claim: Claim) -> None:
    asked(claim, event=None)
    assert "no event to count" in claim.unjudged[0]


def test_eviction_that_asks_nothing_has_nothing_to_judge(claim: Claim) -> None:
    asked(claim, event=None, reaches=False)
    assert not claim.unjudged
