# SPDX-License-Identifier: GPL-2.0-only
"""What a contract promises of costs, held against what was found: the only costs that can fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median

from harness.contract import CostMetric
from harness.results import SERIES, Check, Figure, Outcome

_WORDS = {
    "better": "less than without the series",
    "not-worse": "not more than without the series",
}


def kept(promises: Mapping[CostMetric, str], figures: Iterable[Figure]) -> tuple[Check, ...]:
    """A check for each promise, for the figures of one host in one mode.

    What could not be measured there, or compared, is unproven.
    """
    by_metric = {figure.metric: figure for figure in figures}
    return tuple(
        _check(metric, promise, by_metric[metric])
        for metric, promise in promises.items()
        if metric in by_metric
    )


def _check(metric: str, promise: str, figure: Figure) -> Check:
    outcome: Outcome = "pass"
    if figure.verdict == "inconclusive":
        outcome = "unproven"
    elif figure.verdict == "worse" or (promise == "better" and figure.verdict != "better"):
        outcome = "fail"
    observed = f"{told(figure)} ({figure.reason})"
    return Check(
        cell=SERIES,
        name=f"cost[{figure.host}-{figure.kvm_mode}-{metric}]",
        outcome=outcome,
        expected=f"{metric} ({figure.what}): {_WORDS[promise]}",
        observed=observed,
        reason="" if outcome == "pass" else observed,
        evidence=figure.evidence,
    )


def told(figure: Figure) -> str:
    """A figure in a line."""
    both = [median(values) for values in (figure.base, figure.patched) if values]
    numbers = " -> ".join(f"{value:.2f}" for value in both)
    effect = "" if figure.effect is None else f" {100 * figure.effect:+.2f} %"
    words = f"{figure.host} {figure.kvm_mode} {figure.metric}: {numbers} {figure.unit}"
    return f"{words}:{effect} {figure.verdict}"
