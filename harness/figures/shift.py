# SPDX-License-Identifier: GPL-2.0-only
"""By how much one sample lies above another, without a word on how the noise is distributed.

Wilcoxon's signed-rank test for samples paired by round, his rank-sum test for those that are not,
each with the estimate of Hodges and Lehmann and the interval that the test implies. Both tests are
exact, and both count the same way: how many of the *points* (means of two rounds' differences, or
differences of two values) lie on one side of the shift that is tested.
Source: Hollander, Wolfe, Chicken, Nonparametric Statistical Methods, 3rd ed.; docs/figures.md has
those of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shift:
    """The points, sorted, and the chance that at most so many lie on one side of the true shift.

    Points that are equal to a shift count against what is asked. So do ties, then, whichever way
    they would have been broken: p-values are too large with them, never too small.
    """

    points: Array
    null: Array
    freedom: int
    """Degrees of freedom that Student's test of the same values has."""

    @property
    def estimate(self) -> float:
        """The median of the points (Hodges and Lehmann 1963)."""
        return float(np.median(self.points))

    @property
    def least_p(self) -> float:
        """The smallest two-sided p-value that samples of this size can give."""
        return min(1.0, 2 * float(self.null[0]))

    def above(self, value: float) -> float:
        """The p-value of "the shift is at most `value`"; small if it lies above."""
        return float(self.null[np.searchsorted(self.points, value, side="right")])

    def below(self, value: float) -> float:
        """The p-value of "the shift is at least `value`"; small if it lies below."""
        return float(self.null[len(self.points) - np.searchsorted(self.points, value)])

    def interval(self, level: float) -> tuple[float, float] | None:
        """All shifts that a two-sided test at `level` does not reject, None if it rejects none."""
        outside = int(np.searchsorted(self.null, level / 2, side="right"))
        if outside == 0:
            return None
        return float(self.points[outside - 1]), float(self.points[-outside])


def paired(first: Array, second: Array) -> Shift:
    """How far `second` lies above `first`, where value i of both is from round i."""
    differences = second - first
    rows, columns = np.triu_indices(len(differences))
    points = np.sort((differences[rows] + differences[columns]) / 2)
    return Shift(points, _signed_rank(len(differences)), len(differences) - 1)


def unpaired(first: Array, second: Array) -> Shift:
    """How far `second` lies above `first`, where the values have nothing to do with each other."""
    points = np.sort(np.subtract.outer(second, first).ravel())
    return Shift(points, _rank_sum(len(first), len(second)), len(first) + len(second) - 2)


@cache
def _signed_rank(rounds: int) -> Array:
    """P(at most k of the points lie below) for each k: each rank's sign is a fair coin."""
    chances: Array = np.ones(1)
    for rank in range(1, rounds + 1):
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    return _at_most(chances)


@cache
def _rank_sum(one: int, other: int) -> Array:
    """The same for unpaired samples: each choice of `one` ranks among all is as likely."""
    ways = np.zeros((one + 1, one * other + 1))
    ways[0, 0] = 1
    # Rank by rank: how many are chosen so far, and above how many of the others they lie in all.
    for rank in range(one + other):
        for chosen in range(min(rank + 1, one), 0, -1):
            below = rank - (chosen - 1)
            if below <= other:
                ways[chosen, below:] += ways[chosen - 1, : ways.shape[1] - below]
    return _at_most(ways[one] / ways[one].sum())


def _at_most(chances: Array) -> Array:
    total: Array = np.minimum(np.cumsum(chances), 1.0)
    return total
