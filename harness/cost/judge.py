# SPDX-License-Identifier: GPL-2.0-only
"""Is the patched kernel's cost another one? Exact numbers, so all that can mislead is layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import median

from harness.results import Effect

# A tick of the timer adds some thousand instructions to one pass in ten: below this it is that.
FLOOR = Fraction(1, 1000)


@dataclass(frozen=True)
class Judged:
    """`effect` is relative to the base, None where that is next to nothing; so is `smallest`."""

    verdict: Effect
    effect: Fraction | None
    smallest: Fraction | None
    reason: str


def judge(
    base: Sequence[Fraction],
    patched: Sequence[Fraction],
    *,
    floor: Fraction,
    neutral: Sequence[Fraction] = (),
) -> Judged:
    """Compare the medians of two kernels, each booted in the same layouts, in the same order.

    `neutral` are of kernels that differ from the base in nothing that matters, in the layout of the
    first. A difference is one if it is larger than what layouts or neutral changes make, than FLOOR
    of the base, and than `floor`.
    """
    if not patched:
        return Judged("inconclusive", None, None, "there is no patched kernel")
    usual = median(base)
    difference = median(patched) - usual
    spread = max(_range(base), _range(patched), _range((base[0], *neutral)))
    least = max(spread, FLOOR * usual, floor)
    small = usual < floor
    effect = None if small else difference / usual
    smallest = None if small else least / usual
    words = (
        f"the difference is {_shown(difference)}; layouts{' and neutral changes' * bool(neutral)} "
        f"differ by up to {_shown(spread)}, and what is not more than {_shown(least)} is none"
    )
    if abs(difference) <= least and (difference == 0 or len(base) > 1):
        return Judged("same", effect, smallest, words)
    if len(base) < 2:
        why = f"{words}; one layout alone tells nothing of what chance does"
        return Judged("inconclusive", effect, None, why)
    return Judged("worse" if difference > 0 else "better", effect, smallest, words)


def _range(values: Sequence[Fraction]) -> Fraction:
    return max(values) - min(values)


def _shown(value: Fraction) -> str:
    return f"{float(value):.3f}"
