# SPDX-License-Identifier: GPL-2.0-only
"""What of a run the HTML report draws: its figures, and generations over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median

from markupsafe import Markup

from harness.report import generations, plots
from harness.report.excerpts import Evidence, Excerpt
from harness.results import Check, Figure

MAX_PLOTS = 64
"""Of each kind: a page must stay one that can be opened and sent."""


@dataclass(frozen=True)
class FigureView:
    """A figure with its plot, which is None if there is nothing to draw or too much already."""

    figure: Figure
    label: str
    base: str
    base_range: str
    patched: str
    patched_range: str
    plot: Markup | None
    left_out: int
    """Repetitions that the plot does not have."""
    files: tuple[Excerpt, ...]


@dataclass(frozen=True)
class MetricView:
    """All figures of one metric in one unit; their effects share an axis."""

    metric: str
    what: str
    unit: str
    figures: tuple[FigureView, ...]
    effects: Markup | None


@dataclass(frozen=True)
class GenerationsView:
    """The generations that one check saw in one cell, or why they are not drawn."""

    check: Check
    anchor: str
    plot: Markup | None
    reason: str


def metric_views(figures: Sequence[Figure], evidence: Evidence) -> tuple[MetricView, ...]:
    """The figures by metric, in the order of the run."""
    groups: dict[tuple[str, str, str], list[tuple[int, Figure]]] = {}
    for at, figure in enumerate(figures):
        groups.setdefault((figure.metric, figure.what, figure.unit), []).append((at, figure))
    return tuple(
        MetricView(
            *key,
            tuple(_figure(one, own, evidence) for own, one in group),
            _effects(f"effects{at}", [one for _, one in group]) if at < MAX_PLOTS else None,
        )
        for at, (key, group) in enumerate(groups.items())
    )


def _figure(figure: Figure, at: int, evidence: Evidence) -> FigureView:
    drawn = len(plots.plottable(figure.base)) + len(plots.plottable(figure.patched))
    plot = None
    if drawn and at < MAX_PLOTS:
        plot = plots.distributions(f"figure{at}", figure.base, figure.patched)
    return FigureView(
        figure,
        figure.place,
        *_words(figure.base),
        *_words(figure.patched),
        plot,
        len(figure.base) + len(figure.patched) - drawn,
        tuple(evidence.excerpt(path) for path in figure.evidence),
    )


def _effects(name: str, figures: Sequence[Figure]) -> Markup | None:
    rows = [
        plots.EffectRow(one.place, one.effect, one.low, one.high, one.verdict)
        for one in figures
        if one.effect is not None and isfinite(one.effect)
    ]
    return plots.effects(name, rows[:MAX_PLOTS]) if rows else None


def _words(values: Sequence[float]) -> tuple[str, str]:
    """Median and range; what repeats to the last digit has no range, and more of its digits."""
    if not values:
        return "none", ""
    low, high = min(values), max(values)
    if low == high:
        return f"{low:.6g}", ""
    return f"{median(values):.4g}", f"{low:.4g} to {high:.4g}"


def generations_views(
    checks: Iterable[tuple[Check, str]], evidence: Evidence
) -> tuple[GenerationsView, ...]:
    """One for each file of generations among the evidence of these checks, with their anchors."""
    found: list[GenerationsView] = []
    for check, anchor in checks:
        for path in check.evidence:
            if path.rpartition("/")[2] == generations.FILE:
                plot, reason = _generations(path, len(found), evidence)
                found.append(GenerationsView(check, anchor, plot, reason))
    return tuple(found)


def _generations(path: str, at: int, evidence: Evidence) -> tuple[Markup | None, str]:
    """The plot of a file, or why there is none."""
    if at >= MAX_PLOTS:
        return None, f"there are {MAX_PLOTS} plots already"
    try:
        steps = generations.parse(evidence.text(path, generations.LONGEST))
    except ValueError as exc:
        return None, f"{path}: {exc}"
    if not steps:
        return None, f"{path} has no step"
    return plots.generations(f"generations{at}", steps), ""
