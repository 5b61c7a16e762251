# SPDX-License-Identifier: GPL-2.0-only
"""What is counted, in two runs: no sample, so it is judged as the costs of one run are."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from statistics import median
from typing import Literal

from harness.cost.judge import judge
from harness.cost.metrics import METRICS
from harness.results import Effect, Figure

# Of a metric that this version does not know: a ratio to less than that is none.
_FLOOR = min(metric.floor for metric in METRICS.values())
_TURNED: dict[Effect, Effect] = {"worse": "better", "better": "worse"}


def counted(one: Figure, other: Figure) -> bool:
    """Whether both are counts."""
    return one.spread is not None and other.spread is not None


def patched(one: Figure, other: Figure) -> Figure:
    """The patched kernels; the base kernels where neither run has a patched one.

    How far the base kernels of the two runs lie apart is no difference of the patched ones.
    """
    if not (one.patched or other.patched):
        return base(one, other)
    known = Fraction(0)
    if one.base and other.base:
        known = abs(Fraction(median(other.base)) - Fraction(median(one.base)))
    return _judged(one, other, "patched", known)


def base(one: Figure, other: Figure) -> Figure:
    """The base kernels."""
    return _judged(one, other, "base", Fraction(0))


def _judged(
    one: Figure, other: Figure, kernel: Literal["base", "patched"], known: Fraction
) -> Figure:
    first, second = getattr(one, kernel), getattr(other, kernel)
    metric = METRICS.get(other.metric)
    spreads = (Fraction(figure.spread or 0.0) for figure in (one, other))
    judged = judge(
        [Fraction(value) for value in first],
        [Fraction(value) for value in second],
        floor=metric.floor if metric else _FLOOR,
        known=max(known, *spreads),
    )
    verdict = (
        _TURNED.get(judged.verdict, judged.verdict) if other.more_is_better else judged.verdict
    )
    turned = replace(judged, verdict=verdict, reason=f"{kernel} kernels: {judged.reason}")
    if doubt := one.doubt or other.doubt or _elsewhere(first, second):
        turned = replace(turned, verdict="inconclusive", reason=doubt)
    found = {"base": first, "patched": second, "doubt": doubt}
    return turned.on(other.model_copy(update=found))


def _elsewhere(first: tuple[float, ...], second: tuple[float, ...]) -> str:
    """Why medians of so many layouts each do not compare, "" if they do or one has none."""
    if not first or not second or len(first) == len(second):
        return ""
    return f"counted in other layouts: in {len(first)} of them, and in {len(second)}"
