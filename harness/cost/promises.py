# SPDX-License-Identifier: GPL-2.0-only
"""What a contract promises of costs, held against what was found: the only costs that can fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median

from harness.contract_file import CostMetric
from harness.cost.metrics import METRICS
from harness.inventory import AfMode
from harness.results import SERIES, Check, Figure, Outcome

METRICS_OF_WALK = ("cost-walk", "calls-walk")
WORDS = {
    "better": "less than without the series",
    "not-worse": "not more than without the series",
}
"""What is expected of a metric that a contract promises something of, by the promise."""


def kept(
    promises: Mapping[CostMetric, str],
    figures: Iterable[Figure],
    where: str,
    stage1_af: AfMode,
) -> tuple[Check, ...]:
    """A check for each promise, for the figures of one host in one mode and boot variant.

    `where` names these. What could not be measured there, or compared, is unproven; a promise of
    what does not exist there is skipped.
    """
    by_metric = {figure.metric: figure for figure in figures}
    return tuple(
        _check(f"cost[{where}-{metric}]", promise, by_metric[metric])
        if metric in by_metric
        else _absent(f"cost[{where}-{metric}]", metric, promise, stage1_af)
        for metric, promise in promises.items()
    )


def _absent(name: str, metric: CostMetric, promise: str, stage1_af: AfMode) -> Check:
    outcome: Outcome = "unproven"
    why = "no boot has this figure"
    if metric in METRICS_OF_WALK and stage1_af == "software":
        outcome, why = "skip", "MGLRU's walk looks at no page table without hardware AF"
    return Check(
        cell=SERIES,
        name=name,
        outcome=outcome,
        expected=f"{metric} ({METRICS[metric].what}): {WORDS[promise]}",
        observed=why,
        reason=why,
    )


def _check(name: str, promise: str, figure: Figure) -> Check:
    outcome: Outcome = "pass"
    if figure.verdict == "inconclusive":
        outcome = "unproven"
    elif figure.verdict == "worse" or (promise == "better" and figure.verdict != "better"):
        outcome = "fail"
    observed = f"{told(figure)} ({figure.reason})"
    return Check(
        cell=SERIES,
        name=name,
        outcome=outcome,
        expected=f"{figure.metric} ({figure.what}): {WORDS[promise]}",
        observed=observed,
        reason="" if outcome == "pass" else observed,
        evidence=figure.evidence,
    )


def told(figure: Figure) -> str:
    """A figure in a line."""
    both = [median(values) for values in (figure.base, figure.patched) if values]
    numbers = " -> ".join(f"{value:.2f}" for value in both)
    effect = "" if figure.effect is None else f" {100 * figure.effect:+.2f} %"
    words = f"{figure.place} {figure.metric}: {numbers} {figure.unit}"
    return f"{words}:{effect} {figure.verdict}"
