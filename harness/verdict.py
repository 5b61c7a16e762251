# SPDX-License-Identifier: GPL-2.0-only
"""From outcomes to verdicts: pure functions, the only place that weighs outcomes.

`fail` is the kernel's fault and `error` is ours or the lab's. A kernel that panics, hangs or
livelocks could be either: it is the series' fault where the base kernel lived through the same cell
of the same run, and an error where the base died as well or never ran. On a machine whose hardware
failed meanwhile nothing is a kernel's fault, and nothing is compared with what happened there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from harness import errors
from harness.observe.signatures import OF_THE_MACHINE
from harness.results import KERNEL_LOG, SERIES, Cell, Check, Outcome, Splat

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


def of_run(cells: Iterable[Cell], series: Iterable[Check]) -> Verdict:
    """The verdict over a run: its cells, and the checks of the series itself."""
    return worst([*(cell.outcome for cell in cells), *(check.outcome for check in series)])


def of_patched(cells: Iterable[Cell], checks: Iterable[Check]) -> Verdict:
    """What a run says of the patched kernel alone: nothing, where the base did not pass.

    Nor anything of a place where the base has not run: what fails may fail there as well.
    """
    cells = tuple(cells)
    if any(cell.outcome not in ("pass", "skip") for cell in cells if cell.kernel == "base"):
        return "error"
    series = (check for check in checks if check.cell == SERIES)
    return of_run((cell for cell in cells if _base(cell, cells) is not None), series)


def only_base_failed(cells: Iterable[Cell]) -> bool:
    """Whether no cell but those of the base kernel failed: the series may well be a repair."""
    outcomes = {(cell.kernel, cell.outcome) for cell in cells}
    patched = {outcome for kernel, outcome in outcomes if kernel == "patched"}
    return ("base", "fail") in outcomes and "pass" in patched and patched <= {"pass", "skip"}


def nothing_new(cells: Sequence[Cell], checks: Iterable[Check]) -> bool:
    """Whether all that failed with the series failed without it too, and for the same reason."""
    base_of = {cell.id: base.id for cell in cells if (base := _base(cell, cells))}
    checks = tuple(checks)
    reasons = {(check.cell, check.name): check.reason for check in checks}
    failed = [check for check in checks if check.cell in base_of and check.outcome == "fail"]
    old = [
        check
        for check in failed
        if check.also_on_base and reasons.get((base_of[check.cell], check.name)) == check.reason
    ]
    cells_failed = {cell.id for cell in cells if cell.id in base_of and cell.outcome == "fail"}
    return bool(failed) and old == failed and cells_failed == {check.cell for check in failed}


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
    ran = {cell.id: [check for check in judged if check.cell == cell.id] for cell in cells}
    settled = []
    for cell in cells:
        base = base_of[cell.id]
        settled.append(_judge_cell(cell, base, ran[cell.id], ran[base.id] if base else []))
    return tuple(settled), tuple(judged)


def _base(cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    """The cell of the base kernel on the same host in the same mode, if it is another one."""
    if cell.kernel == "base":
        return None
    same = (c for c in cells if c.kernel == "base" and c.host == cell.host)
    return next((c for c in same if c.kvm_mode == cell.kvm_mode), None)


def compared(splats: Sequence[Splat], base: Sequence[Splat]) -> tuple[Splat, ...]:
    """A kernel's reports, each with whether the base kernel printed it as well.

    Two warnings of one function have one key and two sites, and a site's line number moves with
    every patch. So a key that has more sites than on the base is new at all of them: nothing tells
    which of them is.
    """
    here, there = (Counter(splat.key for splat in one) for one in (splats, base))
    return tuple(
        splat.model_copy(update={"on_base": here[splat.key] <= there[splat.key]})
        for splat in splats
    )


def _illness(cell: Cell) -> str:
    """What the kernel said of its machine in a cell that proves nothing for it; "" for nothing."""
    said = [splat.title for splat in cell.splats if splat.kind in OF_THE_MACHINE]
    if not said:
        return ""
    return f"{cell.machine or 'The machine'} is sick, its kernel reported: {'; '.join(said[:3])}"


def _judge_check(check: Check, cell: Cell, base: Cell | None, twin: Check | None) -> Check:
    if base is not None and check.splats:
        check = check.model_copy(update={"splats": compared(check.splats, base.splats)})
    if (why := _illness(cell)) and (check.outcome == "fail" or check.death is not None):
        reason = f"{why}. {check.reason}".rstrip()
        return check.model_copy(update={"outcome": "error", "reason": reason})
    if base is not None and _illness(base):
        twin = None
    if check.death is not None:
        if _lived(base) and (twin is None or (twin.death is None and twin.outcome != "error")):
            why = f"{check.reason} The base kernel lived through this check."
            return check.model_copy(update={"outcome": "fail", "reason": why})
        also = twin is not None and twin.death == check.death
        return check.model_copy(update={"outcome": "error", "also_on_base": also})
    if check.outcome == "fail" and check.splats:
        return _judge_splats(check)
    if check.outcome == "fail" and twin is not None and twin.outcome == "fail":
        return check.model_copy(update={"also_on_base": True})
    if check.outcome == "fail" and twin is not None and _same_error(check, twin):
        return check.model_copy(update={"outcome": "error", "also_on_base": True})
    return check


def _same_error(check: Check, twin: Check) -> bool:
    """Whether what the series would be blamed for is the lab's: the base has it, as an error."""
    return twin.outcome == "error" and twin.reason == check.reason


def _judge_splats(check: Check) -> Check:
    """A check that fails by the kernel's reports fails on the base as well if all of them do."""
    known = sum(splat.on_base for splat in check.splats)
    if known == len(check.splats):
        return check.model_copy(update={"also_on_base": True})
    if not known:
        return check
    new = "; ".join(splat.title for splat in check.splats if not splat.on_base)
    why = f"{check.reason} The base kernel printed {known} of them as well, but not: {new}"
    return check.model_copy(update={"reason": why})


def _lived(base: Cell | None) -> bool:
    """Whether the base kernel went through this cell to its end."""
    return (
        base is not None and base.death is None and base.outcome != "error" and not _illness(base)
    )


def _unheard(cell: Cell, checks: Sequence[Check]) -> str:
    """What the kernel reported and no check was asked to judge, in words; "" for nothing."""
    new = [splat.title for splat in cell.splats if not splat.on_base]
    if not new or cell.death is not None or KERNEL_LOG in {check.name for check in checks}:
        return ""
    titles = "; ".join(new[:3])
    return f"The kernel reported, and {KERNEL_LOG}, which judges that, did not run: {titles}"


def _judge_cell(
    cell: Cell, base: Cell | None, checks: Sequence[Check], on_base: Sequence[Check]
) -> Cell:
    outcomes: list[Outcome] = [check.outcome for check in checks]
    reason = cell.reason
    if base is not None and cell.splats:
        cell = cell.model_copy(update={"splats": compared(cell.splats, base.splats)})
    if why := _illness(cell):
        reason = f"{why}. {reason}".rstrip()
        return cell.model_copy(update={"outcome": "error", "reason": reason})
    missing = {check.name for check in on_base} - {check.name for check in checks}
    if missing and cell.outcome == "pass":
        outcomes.append("unproven")
        reason = f"did not run here, but did on the base kernel: {', '.join(sorted(missing))}"
    if cell.death is not None and any(check.death == cell.death for check in checks):
        # It died in a check, and that has been compared with the same check on the base kernel.
        pass
    elif cell.death is not None:
        outcomes.append("fail" if _lived(base) else "error")
        reason += " The base kernel lived." if _lived(base) else ""
    elif cell.outcome != "pass":
        outcomes.append(cell.outcome)
    if why := _unheard(cell, checks):
        outcomes.append("unproven")
        reason = f"{reason} {why}".lstrip()
    if set(outcomes) == {"skip"}:
        return cell.model_copy(update={"outcome": "skip", "reason": reason})
    return cell.model_copy(update={"outcome": worst(outcomes), "reason": reason})
