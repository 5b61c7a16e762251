# SPDX-License-Identifier: GPL-2.0-only
"""A line through what was measured for several numbers of pages: exact, without rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Line:
    """`slope` for each unit more, `intercept` for whatever comes once.

    `residual` is how far the farthest of the points is from it, `largest` the largest count.
    """

    slope: Fraction
    intercept: Fraction
    residual: Fraction
    largest: int

    def fits(self, margin: Fraction) -> bool:
        """Whether no point is farther from it than that part of the largest."""
        return self.residual <= margin * abs(self.largest)


def line(points: Sequence[tuple[int, int]]) -> Line:
    """The line of least squares through points (units, count).

    ValueError unless there are two points at least with different units.
    """
    n = len(points)
    sx, sy = sum(x for x, _ in points), sum(y for _, y in points)
    spread = n * sum(x * x for x, _ in points) - sx * sx
    if not spread:
        raise ValueError(f"no line through {n} points with the same units")
    slope = Fraction(n * sum(x * y for x, y in points) - sx * sy, spread)
    intercept = (sy - slope * sx) / n
    residual = max(abs(y - intercept - slope * x) for x, y in points)
    return Line(slope, intercept, residual, max((y for _, y in points), key=abs))
