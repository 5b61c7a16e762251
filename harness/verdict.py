# SPDX-License-Identifier: GPL-2.0-only
"""From outcomes to verdicts: pure functions, the only place that weighs outcomes.

`fail` is the kernel's fault and `error` is ours or the lab's. A kernel that panics, hangs or
livelocks could be either: it is the series' fault where the base kernel lived through the same cell
of the same run, and an error where the base died as well or never ran.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from harness import errors
from harness.results import Cell, Check, Outcome

Verdict = Literal["pass", "fail", "error", "unproven"]

EXIT_CODES: dict[Verdict, int] = {
    "pass": errors.EXIT_PASS,
    "fail": errors.EXIT_FAIL,
    "error": errors.EXIT_ERROR,
    "unproven": errors.EXIT_UNPROVEN,
}


def worst(outcomes: Iterable[Outcome]) -> Verdict:
    """The verdict over several outcomes: fail, else error, else unproven, else pass.

    Nothing at all, or nothing but skips, proves nothing.
    """
    found = set(outcomes)
    if "fail" in found:
        return "fail"
    if "error" in found:
        return "error"
    if "unproven" in found or "pass" not in found:
        return "unproven"
    return "pass"


def judge(
    cells: Sequence[Cell], checks: Sequence[Check]
) -> tuple[tuple[Cell, ...], tuple[Check, ...]]:
    """Settle what could only be seen by comparison with the base, then each cell's outcome."""
    by_cell = {cell.id: cell for cell in cells}
    base_of = {cell.id: _base(cell, cells) for cell in cells}
    by_name = {(check.cell, check.name): check for check in checks}
    judged = []
    for check in checks:
        base = base_of[check.cell]
        twin = by_name.get((base.id, check.name)) if base else None
        judged.append(_judge_check(check, by_cell[check.cell], base, twin))
    return (
        tuple(
            _judge_cell(cell, base_of[cell.id], [c for c in judged if c.cell == cell.id])
            for cell in cells
        ),
        tuple(judged),
    )


def _base(cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    """The cell of the base kernel on the same host in the same mode, if it is another one."""
    if cell.kernel == "base":
        return None
    same = (c for c in cells if c.kernel == "base" and c.host == cell.host)
    return next((c for c in same if c.kvm_mode == cell.kvm_mode), None)


def _judge_check(check: Check, cell: Cell, base: Cell | None, twin: Check | None) -> Check:
    if check.death is not None:
        if cell.kernel == "patched" and twin is not None and twin.outcome in ("pass", "fail"):
            why = f"{check.reason} The base kernel lived through this check."
            return check.model_copy(update={"outcome": "fail", "reason": why})
        also = twin is not None and twin.death is not None
        return check.model_copy(update={"outcome": "error", "also_on_base": also})
    if check.outcome == "fail" and twin is not None and twin.outcome == "fail":
        return check.model_copy(update={"also_on_base": True})
    return check


def _judge_cell(cell: Cell, base: Cell | None, checks: Sequence[Check]) -> Cell:
    outcomes: list[Outcome] = [check.outcome for check in checks]
    reason = cell.reason
    if cell.death is not None:
        lived = base is not None and base.death is None and base.outcome != "error"
        outcomes.append("fail" if cell.kernel == "patched" and lived else "error")
        reason += " The base kernel lived." if lived else ""
    elif cell.outcome != "pass":
        outcomes.append(cell.outcome)
    return cell.model_copy(update={"outcome": worst(outcomes), "reason": reason})
