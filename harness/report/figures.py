# SPDX-License-Identifier: GPL-2.0-only
"""Figures in words: the same in every form of a report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from harness.printable import clip, one_line, plain_name
from harness.report.counts import EFFECTS
from harness.results import NONE, Figure

MAX_WORDS = 1000
MAX_PLACES = 8


def foremost(every: Sequence[Figure], limit: int) -> Sequence[Figure]:
    """The figures that a form with room for `limit` shows: the worse ones first, and all of these.

    Those of one verdict stay in the order of the run.
    """
    in_order = sorted(every, key=lambda one: EFFECTS.index(one.verdict))
    return in_order[: max(limit, sum(one.verdict == "worse" for one in every))]


def head(every: Sequence[Figure]) -> str:
    """What stands above them."""
    both = any(one.patched for one in every)
    return "Figures, base against patched" if both else "Figures of the base kernel alone"


def conditions(every: Iterable[Figure]) -> Iterator[str]:
    """In what conditions times were measured, a line for each place: of what a host has alone.

    A run measures times in one place, so that of a few there are lines is enough.
    """
    places = {one.where: one.conditions for one in every if one.conditions}
    for where, found in list(places.items())[:MAX_PLACES]:
        words = (
            f"{name.replace('_', ' ')} {text or 'not the same all the time'}"
            for name, text in found.items()
            if text != NONE
        )
        yield clip(one_line(f"times on {where} with {', '.join(words)}"), MAX_WORDS)


def typical(values: Sequence[float]) -> str:
    """The median of the repetitions to four digits, and how many they are."""
    return f"{median(values):.4g} (n={len(values)})" if values else "-"


def change(figure: Figure) -> str:
    """Patched against base with its confidence interval; "-" where it could not be told.

    A count has none: what layouts make of it is told, and it is exact if that is nothing.
    """
    if figure.effect is None:
        return "-"
    words = percent(figure.effect)
    if figure.spread is not None:
        return f"{words}, {layouts(figure)}"
    if figure.low is not None and figure.high is not None:
        low, high = percent(figure.low), percent(figure.high)
        words += f", {100 * figure.confidence:g} % interval {low} to {high}"
    return words


def layouts(figure: Figure) -> str:
    """How far the values of one kernel lie apart, relative to the base, of what is counted."""
    values = [one for one in (figure.base, figure.patched) if one]
    width = max((max(one) - min(one) for one in values), default=0.0)
    if not width:
        return "exact" if all(len(one) > 1 for one in values) else "one layout"
    usual = abs(median(figure.base)) if figure.base else 0.0
    return (
        f"layouts differ by {100 * width / usual:.1f} %"
        if usual
        else f"layouts differ by {width:.4g}"
    )


def because(figure: Figure) -> str:
    """What its verdict rests on, and the smallest change that so many repetitions could show."""
    words = [figure.reason] if figure.reason else []
    if figure.smallest is not None:
        words.append(f"could have shown {smallest(figure)}")
    return "; ".join(words)


def smallest(figure: Figure) -> str:
    """The smallest change that could have been shown; "-" if none could, or it is not known."""
    return "-" if figure.smallest is None else f"{100 * figure.smallest:.1f} %"


def told(figure: Figure) -> str:
    """All of a figure in one line that begins with its verdict, for forms without a table."""
    both = f"base {typical(figure.base)}, patched {typical(figure.patched)} {figure.unit}"
    why = because(figure)
    words = f"{both}; change {change(figure)}{f' ({why})' if why else ''}"
    name = f"{plain_name(figure.metric)} on {plain_name(figure.where)}"
    return f"{figure.verdict}: {name}: {clip(one_line(words), MAX_WORDS)}"


def percent(effect: float) -> str:
    """A relative effect with its sign: -0.12 is "-12.0 %"."""
    return f"{100 * effect:+.1f} %"
