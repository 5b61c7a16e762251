# SPDX-License-Identifier: GPL-2.0-only
"""A difference is one if it is larger than chance makes, and is judged exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest

from harness.cost.judge import MARGIN, Judged, judge
from harness.figures import measured
from harness.results import Effect


def judged(base: list[int], patched: list[int], neutral: tuple[int, ...] = ()) -> Judged:
    values = ([*map(Fraction, each)] for each in (base, patched, neutral))
    ours, theirs, alike = values
    return judge(ours, theirs, floor=Fraction(1), neutral=alike)


@pytest.mark.parametrize(
    ("base", "patched", "verdict"),
    [
        ([1000, 1002, 999], [1035, 1036, 1034], "worse"),
        ([1000, 1002, 999], [965, 966, 964], "better"),
        ([1000, 1002, 999], [1003, 1003, 1003], "same"),  # as far as layouts go
        ([1000, 1002, 999], [1004, 1004, 1004], "worse"),
        ([1000, 1000, 1000], [1010, 1015, 1010], "worse"),  # by more than its layouts make
        ([1000, 1000, 1000], [1010, 1020, 1010], "same"),  # by no more than they and the margin
        # Layouts make more than the difference, and than the margin: nothing is shown
        ([100, 100, 140], [135, 135, 137], "inconclusive"),
        ([135, 135, 137], [100, 100, 140], "inconclusive"),
        ([1000, 1000, 1000], [1010, 1075, 1010], "inconclusive"),
        ([100, 100, 140], [100, 100, 300], "inconclusive"),  # medians that happen to agree
        ([100, 100, 140], [100, 100, 140], "same"),  # no layout differs
        # All of the one kernel lie beyond all of the other, by more than the margin
        ([1000, 1000, 1000], [1035, 1075, 1035], "worse"),
        ([1035, 1075, 1035], [1000, 1000, 1000], "better"),
        ([1000, 1000, 1000], [1020, 1075, 1020], "inconclusive"),
        ([5000, 5000], [5005, 5005], "same"),  # a thousandth
        ([5000, 5000], [5006, 5006], "worse"),
        ([10, 10], [11, 11], "same"),  # the floor: one instruction
        ([10, 10], [12, 12], "worse"),
        ([0, 0], [0, 0], "same"),
        ([0, 0], [7, 7], "worse"),
        ([10], [10], "same"),
        ([10], [99], "inconclusive"),  # one layout
        ([10, 10], [], "inconclusive"),  # no patched kernel
    ],
)
def test_verdicts(base: list[int], patched: list[int], verdict: Effect) -> None:
    assert judged(base, patched).verdict == verdict


def test_it_is_exact() -> None:
    found = judged([1000, 1002, 1000], [1035, 1034, 1036])
    assert found.effect == Fraction(35, 1000)
    assert found.smallest == Fraction(2, 1000)
    assert "the difference is 35.000; layouts differ by up to 2.000" in found.reason


def test_neutral_changes_count_against_a_difference() -> None:
    assert judged([1000, 1000], [1035, 1035], neutral=(1020, 990)).verdict == "worse"
    found = judged([1000, 1000], [1035, 1035], neutral=(1036,))
    assert found.verdict == "inconclusive"
    assert "that there is none of 20.000 is not shown either" in found.reason
    assert judged([1000, 1000], [1010, 1010], neutral=(1015,)).verdict == "same"
    assert found.smallest == Fraction(36, 1000)
    assert "layouts and neutral changes differ by up to 36.000" in found.reason


def test_nothing_is_relative_to_nothing() -> None:
    found = judged([0, 0], [7, 7])
    assert (found.effect, found.smallest) == (None, None)


@pytest.mark.parametrize("scale", [1, 7, 1000])
def test_to_swap_the_kernels_swaps_the_verdict(scale: int) -> None:
    one, other = [1000 * scale, 1001 * scale], [1100 * scale, 1100 * scale]
    assert judged(one, other).verdict == "worse"
    assert judged(other, one).verdict == "better"


def test_the_margin_is_that_of_what_is_measured() -> None:
    assert float(MARGIN) == measured.MARGIN
