# SPDX-License-Identifier: GPL-2.0-only
"""Is the patched kernel's cost another one? Exact numbers, so all that can mislead is layout.

What layouts make is seen in a few of them, and has no bound: it can keep a difference from being
shown, and where it is small that there is none is shown. Where it is large neither is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import median

from harness.results import Effect

# A tick of the timer adds some thousand instructions to one pass in ten: below this it is that.
FLOOR = Fraction(1, 1000)
# Relative, that of harness/figures/judge.py: what is known to differ by less is the same.
MARGIN = Fraction(2, 100)


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
    of the base, and than `floor`; or if all values of the one kernel lie beyond all of the other by
    more than the margin, MARGIN of the base or `floor`. None is one if no layout has any, or if all
    that layouts make is within the margin too.
    """
    if not patched:
        return Judged("inconclusive", None, None, "there is no patched kernel")
    usual = median(base)
    difference = median(patched) - usual
    alike = (*base, *neutral)
    spread = max(_range(base), _range(patched), _range((base[0], *neutral)))
    least, margin = max(spread, FLOOR * usual, floor), max(MARGIN * usual, floor)
    small = usual < floor
    effect = None if small else difference / usual
    smallest = None if small else least / usual
    words = (
        f"the difference is {_shown(difference)}; layouts{' and neutral changes' * bool(neutral)} "
        f"differ by up to {_shown(spread)}, and what is not more than {_shown(least)} is not shown"
    )
    if tuple(base) == tuple(patched):
        return Judged("same", effect, smallest, f"no layout differs; {words}")
    if min(len(base), len(patched)) < 2:
        why = f"{words}; one layout alone tells nothing of what chance does"
        return Judged("inconclusive", effect, None, why)
    apart = max(min(patched) - max(alike), min(alike) - max(patched))
    if abs(difference) > least or apart > margin:
        return Judged("worse" if difference > 0 else "better", effect, smallest, words)
    if least <= margin:
        return Judged("same", effect, smallest, words)
    why = f"{words}; that there is none of {_shown(margin)} is not shown either"
    return Judged("inconclusive", effect, smallest, why)


def _range(values: Sequence[Fraction]) -> Fraction:
    return max(values) - min(values)


def _shown(value: Fraction) -> str:
    return f"{float(value):.3f}"
