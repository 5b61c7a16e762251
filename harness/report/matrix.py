# SPDX-License-Identifier: GPL-2.0-only
"""The matrix of a run, in no form yet: cells by checks, and what is not a pass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.results import SERIES, Cell, Check, Outcome, Summary

# What a column shows that stands for several checks: the first of these that there is.
_WORST: tuple[Outcome, ...] = ("fail", "error", "unproven", "pass", "skip")
_MODES = ("vhe", "nvhe", "protected")
_PARAMETER = re.compile(r"(?<=[a-z0-9])\[[a-z0-9_-]+\]$")


@dataclass(frozen=True)
class Matrix:
    """`columns` are checks in the order in which they ran, each with all its parameters.

    `outcomes` has the worst outcome by cell and column; what did not run is not in it.
    """

    cells: tuple[Cell, ...]
    columns: tuple[str, ...]
    outcomes: Mapping[tuple[str, str], Outcome]


def matrix(run: Summary) -> Matrix:
    """Cells sorted by host, KVM mode, kernel and variant."""
    found: dict[tuple[str, str], set[Outcome]] = {}
    for check in run.checks:
        if check.cell != SERIES:
            found.setdefault((check.cell, family(check.name)), set()).add(check.outcome)
    cells = sorted(run.cells, key=lambda c: (c.host, _MODES.index(c.kvm_mode), c.kernel, c.variant))
    return Matrix(
        cells=tuple(cells),
        columns=tuple(dict.fromkeys(name for _, name in found)),
        outcomes={at: next(one for one in _WORST if one in kinds) for at, kinds in found.items()},
    )


def of_series(run: Summary) -> tuple[Check, ...]:
    """The checks of the series itself, which no cell makes."""
    return tuple(check for check in run.checks if check.cell == SERIES)


def family(name: str) -> str:
    """A check without its parameter: a column for each of thirty would fit no page."""
    return _PARAMETER.sub("", name)


def short_name(check: str) -> str:
    """A check's name in a column head: test_page_idle -> page idle."""
    return check.removeprefix("test_").replace("_", " ")


def kernel_of(cell: Cell) -> str:
    """The kernel of a cell with its boot variant."""
    return f"{cell.kernel} +{cell.variant}" if cell.variant else cell.kernel


def troubles(run: Summary) -> tuple[tuple[Check, ...], ...]:
    """The checks that are neither pass nor skip, those together that ended alike in all they say.

    Failures first, else in their order.
    """
    groups: dict[Check, list[Check]] = {}
    for check in run.checks:
        if check.outcome not in ("pass", "skip"):
            groups.setdefault(_alike(check), []).append(check)
    return tuple(
        tuple(group) for group in sorted(groups.values(), key=lambda g: _rank(g[0].outcome))
    )


def _rank(outcome: Outcome) -> int:
    return _WORST.index(outcome)


def _alike(check: Check) -> Check:
    """What checks of several cells must share to be told as one."""
    return check.model_copy(update={"cell": "", "evidence": (), "seconds": 0.0, "splats": ()})
