# SPDX-License-Identifier: GPL-2.0-only
"""The exact tests of harness/figures/shift.py against scipy's and against plain enumeration."""

import itertools

import numpy as np
import pytest
from scipy import stats

from harness.figures.shift import paired, unpaired

RANDOM = np.random.default_rng(7)


@pytest.mark.parametrize("rounds", [1, 2, 5, 10, 20])
@pytest.mark.parametrize("value", [-0.5, 0.0, 0.3])
def test_p_values_of_pairs_are_those_of_scipy(rounds: int, value: float) -> None:
    first, second = RANDOM.normal(size=rounds), RANDOM.normal(0.4, size=rounds)
    shift = paired(first, second)
    for alternative, ours in (("greater", shift.above), ("less", shift.below)):
        theirs = stats.wilcoxon(second - first - value, method="exact", alternative=alternative)
        assert ours(value) == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize(("one", "other"), [(1, 1), (3, 5), (8, 8), (20, 7)])
@pytest.mark.parametrize("value", [-0.5, 0.0, 0.3])
def test_p_values_without_pairs_are_those_of_scipy(one: int, other: int, value: float) -> None:
    first, second = RANDOM.normal(size=one), RANDOM.normal(0.4, size=other)
    shift = unpaired(first, second)
    for alternative, ours in (("greater", shift.above), ("less", shift.below)):
        theirs = stats.mannwhitneyu(second - value, first, method="exact", alternative=alternative)
        assert ours(value) == pytest.approx(theirs.pvalue)


def test_the_estimate_is_the_median_of_the_points() -> None:
    nothing = np.zeros(3)
    assert paired(nothing, np.array([1.0, 2.0, 9.0])).estimate == pytest.approx(3.5)
    assert unpaired(np.array([0.0, 1.0]), np.array([2.0, 5.0])).estimate == pytest.approx(3.0)


@pytest.mark.parametrize("level", [0.05, 0.01, 0.3])
def test_the_interval_holds_what_the_test_does_not_reject(level: float) -> None:
    for shift in (
        paired(RANDOM.normal(size=9), RANDOM.normal(size=9)),
        unpaired(RANDOM.normal(size=7), RANDOM.normal(size=9)),
    ):
        interval = shift.interval(level)
        assert interval is not None
        low, high = interval
        middles = (shift.points[1:] + shift.points[:-1]) / 2
        for value in middles:
            rejected = 2 * min(shift.above(value), shift.below(value)) <= level
            assert rejected == (not low < value < high)


def test_few_values_have_no_interval() -> None:
    five = paired(np.zeros(5), np.arange(1.0, 6.0))
    assert five.least_p == 2 / 2**5
    assert five.interval(0.05) is None
    assert five.interval(0.07) == (1.0, 5.0)


def test_ties_and_zeros_never_make_a_p_value_too_small() -> None:
    """Over all signs that chance can give, a p-value of at most p turns up with at most p."""
    sizes = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 3.0, 3.0])
    signs = itertools.product((-1, 1), repeat=len(sizes))
    found = [paired(np.zeros(8), np.array(sign) * sizes).above(0.0) for sign in signs]
    for p in set(found):
        assert np.mean([one <= p for one in found]) <= p
    # As much as untied values with the same signs could have shown against it.
    assert min(found) > 1 / 2**8
    assert paired(np.zeros(5), np.zeros(5)).above(0.0) == 1.0


def test_equal_values_in_two_samples_count_against_a_difference() -> None:
    assert unpaired(np.ones(6), np.ones(6)).above(0.0) == 1.0
    assert unpaired(np.ones(6), np.ones(6)).below(0.0) == 1.0
    assert unpaired(np.ones(6), np.full(6, 2.0)).above(0.0) == pytest.approx(1 / 924)
