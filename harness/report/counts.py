# SPDX-License-Identifier: GPL-2.0-only
"""What a run amounts to in numbers, counted in this one place for every form of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.results import Check, Outcome, Summary

# From good to bad, and last what says nothing.
ORDER: tuple[Outcome, ...] = ("pass", "fail", "error", "unproven", "skip")

MEANING: Mapping[Outcome, str] = {
    "pass": "everything that was expected was observed",
    "fail": "a kernel did not do what was expected of it",
    "error": "the harness or a host failed; nothing is said about the series",
    "unproven": "something that was expected could not be observed",
    "skip": "makes no sense there",
}


@dataclass(frozen=True)
class Counts:
    """Cells of a run, and its checks by outcome, those of the series itself among them."""

    cells: int
    checks: Mapping[Outcome, int]

    def __str__(self) -> str:
        """Such as "15 cells, 434 pass, 32 skip"."""
        parts = [f"{number} {kind}" for kind, number in self.checks.items() if number]
        return ", ".join([f"{self.cells} cell{'s' if self.cells != 1 else ''}", *parts])


def count(run: Summary) -> Counts:
    """Of a whole run."""
    return Counts(len(run.cells), by_outcome(run.checks))


def by_outcome(checks: Iterable[Check]) -> dict[Outcome, int]:
    """How many checks ended how, each outcome in its order."""
    found = Counter(check.outcome for check in checks)
    return {kind: found[kind] for kind in ORDER}


def conclusion(run: Summary) -> str:
    """Why the verdict is what it is: what ended the run early, else what the verdict means."""
    return run.reason or MEANING[run.verdict]
