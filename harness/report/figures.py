# SPDX-License-Identifier: GPL-2.0-only
"""Figures in words: the same in every form of a report."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from harness.results import Figure


def typical(values: Sequence[float]) -> str:
    """The median of the repetitions to four digits, and how many they are."""
    return f"{median(values):.4g} (n={len(values)})" if values else "-"


def change(figure: Figure) -> str:
    """Patched against base with its confidence interval; "-" where it could not be told.

    An interval of no width is a count without noise.
    """
    if figure.effect is None:
        return "-"
    words = percent(figure.effect)
    if figure.low is not None and figure.high is not None:
        if figure.low == figure.high:
            return f"{words}, exact"
        low, high = percent(figure.low), percent(figure.high)
        words += f", {100 * figure.confidence:g} % interval {low} to {high}"
    return words


def because(figure: Figure) -> str:
    """What its verdict rests on, and the smallest change that so many repetitions could show."""
    words = [figure.reason] if figure.reason else []
    if figure.smallest is not None:
        words.append(f"could have shown {100 * figure.smallest:.1f} %")
    return "; ".join(words)


def where(figure: Figure) -> str:
    """The host, KVM mode, access flag and boot variant."""
    variant = f" +{figure.variant}" if figure.variant else ""
    return f"{figure.host} {figure.kvm_mode}{variant} {figure.af_mode} AF"


def percent(effect: float) -> str:
    """A relative effect with its sign: -0.12 is "-12.0 %"."""
    return f"{100 * effect:+.1f} %"
