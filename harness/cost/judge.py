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

from harness.results import Effect, Figure

# A tick of the timer adds some thousand instructions to one pass in ten: below this it is that.
FLOOR = Fraction(1, 1000)
# Relative, that of harness/figures/measured.py: what is known to differ by less is the same.
MARGIN = Fraction(2, 100)


@dataclass(frozen=True)
class Judged:
    """`effect` is relative to the base, None where that is next to nothing; so is `smallest`."""

    verdict: Effect
    effect: Fraction | None
    smallest: Fraction | None
    spread: Fraction
    """By how much the values differ that should not, in their unit."""
    reason: str

    def on(self, figure: Figure) -> Figure:
        """The figure with what was judged of it; there is no noise that an interval could tell."""
        effect = _float(self.effect)
        found = {
            **dict.fromkeys(("effect", "low", "high"), effect),
            **{"confidence": 1.0, "smallest": _float(self.smallest), "floor": None},
            **{"spread": float(self.spread), "verdict": self.verdict, "reason": self.reason},
        }
        return figure.model_copy(update=found)


def judge(
    base: Sequence[Fraction],
    patched: Sequence[Fraction],
    *,
    floor: Fraction,
    neutral: Sequence[Fraction] = (),
    known: Fraction = Fraction(0),
) -> Judged:
    """Compare the medians of two kernels, each booted in the same layouts, in the same order.

    `neutral` are of kernels that differ from the base in nothing that matters, in the layout of the
    first; `known` is what else is known to make no difference. A difference is one if it is larger
    than what layouts and these make, than FLOOR of the base, and than `floor`; or if all values of
    the one kernel lie beyond all of the other by more than `known` and the margin, MARGIN of the
    base or `floor`. None is one if no layout has any, or if all that layouts make is within the
    margin too.
    """
    spread = max(known, *map(_range, (base, patched, (*base[:1], *neutral))))
    if not base or not patched:
        missing = "base" if not base else "patched"
        return Judged("inconclusive", None, None, spread, f"nothing of a {missing} kernel")
    usual = median(base)
    difference = median(patched) - usual
    alike = (*base, *neutral)
    least, margin = max(spread, FLOOR * usual, floor), max(MARGIN * usual, floor)
    small = usual < floor
    effect = None if small else difference / usual
    smallest = None if small else least / usual
    others = " and neutral changes" * bool(neutral) + " and other changes" * bool(known)
    words = (
        f"the difference is {_shown(difference)}; layouts{others} "
        f"differ by up to {_shown(spread)}, and what is not more than {_shown(least)} is not shown"
    )
    if tuple(base) == tuple(patched):
        return Judged("same", effect, smallest, spread, f"no layout differs; {words}")
    if min(len(base), len(patched)) < 2:
        why = f"{words}; one layout alone tells nothing of what chance does"
        return Judged("inconclusive", effect, None, spread, why)
    apart = max(min(patched) - max(alike), min(alike) - max(patched))
    if abs(difference) > least or apart > max(margin, known):
        return Judged("worse" if difference > 0 else "better", effect, smallest, spread, words)
    if least <= margin:
        return Judged("same", effect, smallest, spread, words)
    why = f"{words}; that there is none of {_shown(margin)} is not shown either"
    return Judged("inconclusive", effect, smallest, spread, why)


def _float(value: Fraction | None) -> float | None:
    return None if value is None else float(value)


def _range(values: Sequence[Fraction]) -> Fraction:
    return max(values) - min(values) if values else Fraction(0)


def _shown(value: Fraction) -> str:
    return f"{float(value):.3f}"
