# SPDX-License-Identifier: GPL-2.0-only
"""What a run amounts to in numbers, counted in this one place for every form of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from harness.results import Check, Effect, Outcome, Summary

# From good to bad, and last what says nothing.
ORDER: tuple[Outcome, ...] = ("pass", "fail", "error", "unproven", "skip")

EFFECTS: tuple[Effect, ...] = ("worse", "better", "inconclusive", "same")
"""Verdicts of figures, what a reader must see first first."""

MEANING: Mapping[Outcome, str] = {
    "pass": "everything that was expected was observed",
    "fail": "a kernel did not do what was expected of it",
    "error": "the harness or a host failed; nothing is said about the series",
    "unproven": "something that was expected could not be observed",
    "skip": "makes no sense there",
}


@dataclass(frozen=True)
class Counts:
    """Cells of a run, and its checks by outcome, those of the series itself among them; figures by
    verdict."""

    cells: int
    checks: Mapping[Outcome, int]
    figures: Mapping[Effect, int] = field(default_factory=lambda: dict.fromkeys(EFFECTS, 0))

    def __str__(self) -> str:
        """Such as "15 cells, 434 pass, 32 skip; 14 figures: 1 worse, 13 same"."""
        cells = ", ".join([_several(self.cells, "cell"), *_parts(self.checks)])
        return "; ".join(filter(None, (cells, self.of_figures)))

    @property
    def of_figures(self) -> str:
        """Such as "14 figures: 1 worse, 13 same"; "" if there are none."""
        total = sum(self.figures.values())
        return f"{_several(total, 'figure')}: {', '.join(_parts(self.figures))}" if total else ""


def _several(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _parts(found: Mapping[Outcome, int] | Mapping[Effect, int]) -> list[str]:
    return [f"{number} {kind}" for kind, number in found.items() if number]


def count(run: Summary) -> Counts:
    """Of a whole run."""
    verdicts = Counter(figure.verdict for figure in run.figures)
    by_verdict = {kind: verdicts[kind] for kind in EFFECTS}
    return Counts(len(run.cells), by_outcome(run.checks), by_verdict)


def by_outcome(checks: Iterable[Check]) -> dict[Outcome, int]:
    """How many checks ended how, each outcome in its order."""
    found = Counter(check.outcome for check in checks)
    return {kind: found[kind] for kind in ORDER}


def conclusion(run: Summary) -> str:
    """Why the verdict is what it is: what ended the run early, else what the verdict means."""
    return run.reason or MEANING[run.verdict]
