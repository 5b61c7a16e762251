# SPDX-License-Identifier: GPL-2.0-only
"""One HTML file of a run, for people: it needs no script, no network and no other file.

Whatever a run has to say is hostile text. The template escapes it, control characters are spelt
out, and links lead to files of the run folder alone, where the page is to lie
(docs/reports.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.printable import clip, printable
from harness.report import facts
from harness.report.compared import WORST, differences, pairs
from harness.report.counts import ORDER, by_outcome, conclusion, count
from harness.report.drawn import MAX_PLOTS, generations_views, metric_views
from harness.report.excerpts import Evidence, Excerpt
from harness.report.figures import conditions, layouts
from harness.report.matrix import family, kernel_of, matrix, short_name
from harness.report.text import EMULATION, MARKS
from harness.results import Cell, Check, Outcome, Summary

MAX_TEXT = 16 << 10
"""Characters that are shown of any one text of a summary."""
OPEN = 8
"""If no more than so many checks did not pass, all that is known of them is open to view."""
_TROUBLE: tuple[Outcome, ...] = ("fail", "error", "unproven")
_CELL_FILES = (
    "console.log",
    "checks.log",
    "commands.jsonl",
    "cpus.txt",
    "registers.txt",
    "qemu.txt",
    "qemu.err",
    "booted.json",
    "spec.json",
    "records.jsonl",
)


@dataclass(frozen=True)
class CheckView:
    """A check, where it stands on the page, and what its evidence shows."""

    check: Check
    anchor: str
    files: tuple[Excerpt, ...]


@dataclass(frozen=True)
class Mark:
    """A field of the matrix: the worst of so many checks, and where the first of those stands."""

    outcome: Outcome
    anchor: str
    count: int


@dataclass(frozen=True)
class CellView:
    """A cell with all that belongs to it."""

    cell: Cell
    anchor: str
    checks: tuple[CheckView, ...]
    marks: tuple[Mark | None, ...]
    """One for each column of the matrix."""
    counts: Mapping[Outcome, int]
    splats: Excerpt | None
    files: tuple[Excerpt, ...]


def html_report(run: Summary, folder: Path) -> str:
    """The page of a run; it has excerpts of files in the run's `folder`, of bounded size in all."""
    evidence = Evidence(folder)
    # What did not pass has the first claim on the room that there is for evidence.
    files = _read(run.checks, _TROUBLE, evidence)
    splats = {cell.id: evidence.excerpt(cell.splat_file) for cell in run.cells if cell.splat_file}
    logs = {cell.id: _cell_files(cell, evidence) for cell in run.cells}
    metrics = metric_views(run.figures, evidence)
    files |= _read(run.checks, ("pass", "skip"), evidence)
    checks = tuple(
        CheckView(check, f"check-{at}", files[at]) for at, check in enumerate(run.checks)
    )
    table = matrix(run)
    cells = [
        _cell(cell, f"cell-{at}", checks, table.columns, splats.get(cell.id), logs[cell.id])
        for at, cell in enumerate(table.cells)
    ]
    troubles = [view for view in checks if view.check.outcome in _TROUBLE]
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            run=run,
            counts=_counts(run),
            figure_counts=count(run).figures,
            conditions=[*conditions(run.figures)],
            conclusion=conclusion(run),
            notes=facts.notes(run),
            cpus=facts.cpus(run),
            kvm_modes=facts.kvm_modes(run),
            fast_path=facts.fast_path(run),
            cells=cells,
            by_id={view.cell.id: view for view in cells},
            families=table.columns,
            of_no_cell=[view for view in checks if view.check.cell not in logs],
            troubles=sorted(troubles, key=lambda view: WORST.index(view.check.outcome)),
            on_base=_on_base(run, checks),
            pairs=pairs(run),
            differences=differences(run),
            metrics=metrics,
            generations=generations_views(_side_by_side(cells), evidence),
            durations=_durations(run.checks),
            open_details=len(troubles) <= OPEN,
        )
    )


# ---- what the template shows, and how --------------------------------------------------------


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "af": {"hardware": "hw", "software": "sw", None: "-"},
        "emulation": EMULATION,
        "marks": MARKS,
        "max_plots": MAX_PLOTS,
        "trouble": _TROUBLE,
    }
    environment.filters |= {
        "bytes": _bytes,
        "kernel_of": kernel_of,
        "percent": _percent,
        "layouts": layouts,
        "share": _share,
        "short": short_name,
    }
    return environment


def _shown(value: object) -> object:
    """Each text on its way into the page: bounded, and nothing in it that is obeyed."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return printable(clip(value, MAX_TEXT), "")


def _bytes(size: int) -> str:
    if size < 1 << 10:
        return f"{size} bytes"
    unit, name = (1 << 20, "MiB") if size >= 1 << 20 else (1 << 10, "KiB")
    return f"{size / unit:.1f} {name}"


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:+.3g}\N{NO-BREAK SPACE}%"


def _share(part: float, whole: float) -> str:
    """A part of a whole in percent, as CSS wants it: from 0 to 100."""
    share = 100 * part / whole if whole > 0 else 0.0
    return f"{min(max(share, 0.0), 100.0) if isfinite(share) else 0.0:.2f}"


# ---- checks and cells -----------------------------------------------------------------------


def _read(
    checks: Sequence[Check], outcomes: Iterable[Outcome], evidence: Evidence
) -> dict[int, tuple[Excerpt, ...]]:
    """Excerpts for the checks that ended so, each under the check's number."""
    return {
        at: tuple(evidence.excerpt(path) for path in checks[at].evidence)
        for outcome in outcomes
        for at in range(len(checks))
        if checks[at].outcome == outcome
    }


def _cell_files(cell: Cell, evidence: Evidence) -> tuple[Excerpt, ...]:
    """The files of a cell that there are; shown are those of one that ended early."""
    show = evidence.excerpt if cell.reason else evidence.link
    files = (show(f"cells/{cell.id}/{name}") for name in _CELL_FILES)
    return tuple(file for file in files if file.size is not None)


def _cell(
    cell: Cell,
    anchor: str,
    checks: Iterable[CheckView],
    families: Iterable[str],
    splats: Excerpt | None,
    files: tuple[Excerpt, ...],
) -> CellView:
    own = tuple(view for view in checks if view.check.cell == cell.id)
    columns: dict[str, list[CheckView]] = {}
    for view in own:
        columns.setdefault(family(view.check.name), []).append(view)
    marks = tuple(_mark(columns.get(name, ())) for name in families)
    counts = Counter(view.check.outcome for view in own)
    return CellView(cell, anchor, own, marks, counts, splats, files)


def _mark(views: Sequence[CheckView]) -> Mark | None:
    if not views:
        return None
    worst = min(views, key=lambda view: WORST.index(view.check.outcome))
    return Mark(worst.check.outcome, worst.anchor, len(views))


def _counts(run: Summary) -> dict[Outcome, tuple[int, int]]:
    """How many checks, those of the series itself among them, and how many cells ended so."""
    checks = by_outcome(run.checks)
    cells = Counter(cell.outcome for cell in run.cells)
    return {outcome: (checks[outcome], cells[outcome]) for outcome in ORDER}


def _on_base(run: Summary, checks: Sequence[CheckView]) -> dict[str, CheckView]:
    """For the anchor of a check in a cell with the patched kernel, that with the base kernel."""
    views = {(view.check.cell, view.check.name): view for view in checks}
    base_of = {pair.patched.id: pair.base.id for pair in pairs(run) if pair.base}
    keys = {view.anchor: (base_of.get(view.check.cell, ""), view.check.name) for view in checks}
    return {anchor: views[key] for anchor, key in keys.items() if key in views}


def _side_by_side(cells: Iterable[CellView]) -> list[tuple[Check, str]]:
    """Checks of cells with their anchors; what one check of one host and mode saw is together."""
    rows: dict[tuple[str, str, str], list[tuple[Check, str]]] = {}
    for of in cells:
        for view in of.checks:
            key = (of.cell.host, of.cell.kvm_mode, view.check.name)
            rows.setdefault(key, []).append((view.check, view.anchor))
    return [one for row in rows.values() for one in row]


def _durations(checks: Iterable[Check]) -> list[tuple[str, float, int]]:
    """The checks with the seconds of each over all cells and how often it ran, longest first."""
    seconds: dict[str, list[float]] = {}
    for check in checks:
        seconds.setdefault(family(check.name), []).append(check.seconds)
    found = [(name, sum(each), len(each)) for name, each in seconds.items()]
    return sorted(found, key=lambda one: -one[1])
