# SPDX-License-Identifier: GPL-2.0-only
"""Is the patched kernel's cost another one? Exact numbers, so all that can mislead is layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

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
    """Compare the first of `base` and of `patched`, which are of the same layout.

    The others are of the same two kernels in other layouts, and `neutral` are of kernels that
    differ from the base in nothing that matters, in the layout of the first. A difference is one if
    it is larger than what any of these make, than FLOOR of the base, and than `floor`.
    """
    if not patched:
        return Judged("inconclusive", None, None, "there is no patched kernel")
    difference = patched[0] - base[0]
    spread = max(_range(base), _range(patched), _range((base[0], *neutral)))
    least = max(spread, FLOOR * base[0], floor)
    small = base[0] < floor
    effect = None if small else difference / base[0]
    smallest = None if small else least / base[0]
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
