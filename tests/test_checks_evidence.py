# SPDX-License-Identifier: GPL-2.0-only
"""What recordings do not tell waits until all is asserted, and is said then."""

from __future__ import annotations

import pytest

from harness.checks.evidence import Evidence
from harness.observe.unproven import Unproven


def lost(number: int) -> int:
    raise Unproven(f"{number} events were lost")


def test_what_is_told_is_passed_on() -> None:
    evidence = Evidence()
    assert evidence.read(lambda: 7, 0) == 7
    assert evidence.unseen == ""
    evidence.prove()
    evidence.prove("")


def test_what_is_not_told_is_nothing_until_it_is_asked_for() -> None:
    evidence = Evidence()
    assert evidence.read(lambda: lost(3), 0) == 0
    assert evidence.read(lambda: lost(4), 1) == 1
    assert evidence.read(lambda: 7, 0) == 7
    # It is the reason for whatever else is missing.
    with pytest.raises(Unproven, match="3 events were lost"):
        evidence.prove("nothing met")


def test_what_is_missing_is_told_as_well() -> None:
    with pytest.raises(Unproven, match="nothing met"):
        Evidence().prove("nothing met")


def test_a_failure_is_no_lack_of_proof() -> None:
    def wrong() -> None:
        raise AssertionError("a page is lost")

    evidence = Evidence()
    evidence.read(lambda: lost(3), 0)
    with pytest.raises(AssertionError, match="a page is lost"):
        evidence.read(wrong, None)
