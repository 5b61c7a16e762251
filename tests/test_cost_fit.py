# SPDX-License-Identifier: GPL-2.0-only
"""Lines through points, exact."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy
import pytest

from harness.cost.fit import Line, line


def test_points_on_a_line() -> None:
    found = line([(128, 1010), (256, 1522), (1024, 4594)])
    assert found == Line(Fraction(4), Fraction(498), Fraction(0), 4594)


def test_three_points_beside_it() -> None:
    # By hand: the slope is that of the outer two, the line goes through the mean.
    found = line([(0, 0), (1, 3), (2, 2)])
    assert found == Line(Fraction(1), Fraction(2, 3), Fraction(4, 3), 3)


def test_as_numpy_finds_it() -> None:
    rng = random.Random(1)
    points = [(rng.randrange(5000), rng.randrange(10**7)) for _ in range(9)]
    slope, intercept = numpy.polyfit([x for x, _ in points], [y for _, y in points], 1)
    found = line(points)
    assert float(found.slope) == pytest.approx(slope, rel=1e-9)
    assert float(found.intercept) == pytest.approx(intercept, rel=1e-9)


def test_large_counts_lose_no_digit() -> None:
    assert line([(1, 10**17 + 1), (2, 2 * 10**17 + 3)]).slope == 10**17 + 2


@pytest.mark.parametrize(
    ("residual", "largest", "fits"),
    [(0, 0, True), (1, 0, False), (2, 100, True), (3, 100, False), (2, -100, True)],
)
def test_a_line_that_fits(residual: int, largest: int, fits: bool) -> None:
    found = Line(Fraction(1), Fraction(0), Fraction(residual), largest)
    assert found.fits(Fraction(2, 100)) == fits


@pytest.mark.parametrize("points", [[], [(1, 1)], [(7, 1), (7, 2)]])
def test_no_line(points: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="no line"):
        line(points)
