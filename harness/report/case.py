# SPDX-License-Identifier: GPL-2.0-only
"""What is the case, in the sentence that a mail begins with: which checks passed with and without
the series, and which did not and where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from harness.inventory import KvmMode
from harness.report.counts import by_outcome
from harness.report.matrix import troubles
from harness.results import SERIES, Cell, Check, KernelLabel, Outcome, Summary

MAX_ONLY = 8
_MODES: Mapping[KvmMode, str] = {"vhe": "VHE", "nvhe": "nVHE", "protected": "protected mode"}
_ENDS: Mapping[Outcome, str] = {
    "fail": "fails",
    "error": "ends in an error",
    "unproven": "stays unproven",
}

Name = Callable[[str], str]
"""Makes a name, or an option that was given, harmless in the form that it is for."""


def case(run: Summary, name: Name) -> str:
    """The sentence, or two: if the run was no whole one, the first says so and has the counts."""
    if not run.series:
        told = f"The base kernel: {_kernel(run, 'base', name)}."
    else:
        told = f"With the series {_kernel(run, 'patched', name)}"
        base = any(cell.kernel == "base" for cell in run.cells)
        told += f"; without it {_kernel(run, 'base', name)}." if base else "."
    if run.whole:
        return told
    only = "; ".join(name(words) for words in run.only[:MAX_ONLY])
    what = f"Partial run ({only})" if only else "Not known to be a whole run"
    first = f"{what}: {apart(run) or 'nothing ran'}."
    return f"{first} {told}" if troubles(run) or any(_alone(run)) else first


def apart(run: Summary) -> str:
    """Checks by outcome for each kernel, and for the series itself: "patched 13 pass, 2 skip; base
    15 pass"; "" for no check."""
    parts = {label: by_outcome(_checks(run, label)) for label in ("patched", "base")}
    parts["series"] = by_outcome(check for check in run.checks if check.cell == SERIES)
    return "; ".join(
        f"{of} " + ", ".join(f"{number} {kind}" for kind, number in found.items() if number)
        for of, found in parts.items()
        if any(found.values())
    )


def _kernel(run: Summary, label: KernelLabel, name: Name) -> str:
    """What a kernel's checks, and those of the series with the patched one's, came to."""
    checks = _checks(run, label)
    if label == "patched":
        checks += [check for check in run.checks if check.cell == SERIES]
    groups = troubles(run.model_copy(update={"checks": tuple(checks)}))
    alone = [cell for cell in _alone(run) if cell.kernel == label]
    bad = sum(map(len, groups)) + len(alone)
    if groups:
        first = groups[0][0]
        cells = {cell.id: cell for cell in run.cells}
        where = _where(cells.get(first.cell), name)
        words = f"{name(first.name)} {_ENDS[first.outcome]} ({where})"
    elif alone:
        words = f"the cell {_ENDS[alone[0].outcome]} ({_where(alone[0], name)})"
    else:
        return _all(sum(check.outcome == "pass" for check in checks))
    return words + (f", and {bad - 1} more {'do' if bad > 2 else 'does'} not pass" * (bad > 1))


def _all(passes: int) -> str:
    return f"all {passes} checks pass" if passes > 1 else f"{passes or 'no'} check passes"


def _where(cell: Cell | None, name: Name) -> str:
    if cell is None:
        return "of the series itself"
    variant = f" +{name(cell.variant)}" if cell.variant else ""
    return f"{name(cell.host)}, {_MODES[cell.kvm_mode]}{variant}"


def _checks(run: Summary, label: str) -> list[Check]:
    cells = {cell.id for cell in run.cells if cell.kernel == label}
    return [check for check in run.checks if check.cell in cells]


def _alone(run: Summary) -> Sequence[Cell]:
    """Cells that are no pass although none of their checks says why."""
    told = {check.cell for check in run.checks if check.outcome not in ("pass", "skip")}
    return [
        cell for cell in run.cells if cell.outcome not in ("pass", "skip") and cell.id not in told
    ]
