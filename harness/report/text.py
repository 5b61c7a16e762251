# SPDX-License-Identifier: GPL-2.0-only
"""The report that ends a run on a terminal: what was expected and observed in each cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from harness.observe.splats import counted
from harness.printable import clip, plain_name, printable
from harness.report import facts, figures
from harness.report.counts import conclusion, count
from harness.report.matrix import (
    Matrix,
    kernel_of,
    matrix,
    of_series,
    short_name,
    troubles,
)
from harness.results import Cell, Check, Outcome, Summary

EMULATION = (
    "Emulated hosts show which code ran and what it did to the stage-2 tables. They cannot show "
    "TLB residency (except for a vCPU that never exits), weak memory ordering, or time."
)
_STYLES: dict[str, str] = {
    "pass": "green",
    "fail": "bold red",
    "error": "magenta",
    "unproven": "yellow",
    "skip": "dim",
}
MARKS: dict[str, str] = {
    "pass": "ok",
    "fail": "FAIL",
    "error": "error",
    "unproven": "?",
    "skip": "-",
}
# The marks that do not speak for themselves.
_LEGEND = {"unproven": "unproven", "skip": "skipped"}
MAX_EVIDENCE = 6
MAX_SPLATS = 4
MAX_PLACES = 4
MAX_WORDS = 4000
_INDENT = " " * 12


@dataclass(frozen=True)
class _Hanging:
    """Text whose lines go on indented where they are folded.

    Else a word of a host that happens to be the first of a line could look like the harness's own.
    """

    text: Text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.text.split("\n", allow_blank=True):
            if line.cell_len <= options.max_width:
                yield line
                continue
            own = len(line.plain) - len(line.plain.lstrip(" "))
            indent = " " * (min(own, options.max_width // 4) + 4)
            first, *rest = line.wrap(console, options.max_width - len(indent))
            yield first
            yield from (Text.assemble(indent, one) for one in rest)


def text_report(run: Summary) -> RenderableType:
    """The whole report."""
    shape = matrix(run)
    parts: list[RenderableType] = [_matrix(shape), _legend(run, shape)] if run.cells else []
    if fast := facts.fast_path(run):
        parts.append(_Hanging(Text(f"fast path: {_words(fast)}")))
    parts += [*map(_Hanging, _series_checks(run)), ""]
    for text in _troubles(run):
        parts += [_Hanging(text), ""]
    parts += [_figures(run), ""] if run.figures else []
    parts += [_Hanging(Text(f"note: {_words(note)}")) for note in run.notes]
    if run.emulated:
        parts.append(Text(EMULATION, style="dim"))
    parts.append(_Hanging(_verdict(run)))
    return Group(*parts)


def _matrix(shape: Matrix) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    # On 80 columns a long name takes two lines, and every other word stays whole.
    for head in ("\nhost", "\nKVM mode", "\nkernel", "AF\nexpected", "AF\nobserved"):
        table.add_column(head, no_wrap=head not in ("\nhost", "\nkernel"), overflow="fold")
    for number in range(1, len(shape.columns) + 1):
        table.add_column(f"\n{number}", no_wrap=True)
    table.add_column("\nverdict", no_wrap=True)
    for cell in shape.cells:
        seen = cell.af_observed or "-"
        table.add_row(
            Text(plain_name(cell.host)),
            cell.kvm_mode,
            Text(printable(kernel_of(cell))),
            cell.af_mode,
            Text(seen, style="" if cell.af_observed in (cell.af_mode, None) else "bold red"),
            *(_mark(shape.outcomes.get((cell.id, name))) for name in shape.columns),
            _styled(cell.outcome),
        )
    return table


def _series_checks(run: Summary) -> Iterator[Text]:
    """A line for each check of the series itself."""
    for check in of_series(run):
        words = _words(f"{short_name(check.name)}: {check.observed}")
        yield Text.assemble("series: ", _styled(check.outcome), f" {words}")


def _legend(run: Summary, shape: Matrix) -> Columns:
    """What the numbered columns and the marks are. A table of ten names would fit no terminal."""
    words = [f"{at} {plain_name(short_name(name))}" for at, name in enumerate(shape.columns, 1)]
    seen: set[str] = {check.outcome for check in run.checks}
    words += [f"{MARKS[kind]} {word}" for kind, word in _LEGEND.items() if kind in seen]
    if len(shape.outcomes) < len(shape.cells) * len(shape.columns):
        words.append(". did not run")
    # A name stands in one piece: the next line begins between two of them.
    entries = [Text(word, style="dim") for word in words]
    return Columns(entries, padding=(0, 3, 0, 0))


def _mark(outcome: Outcome | None) -> Text:
    """ "-" is a skip, "." what did not run."""
    if outcome is None:
        return Text(".", style="dim")
    return Text(MARKS[outcome], style=_STYLES[outcome])


def _styled(outcome: Outcome) -> Text:
    word = outcome.upper() if outcome == "fail" else outcome
    return Text(word, style=_STYLES[outcome])


def _troubles(run: Summary) -> Iterator[Text]:
    """What is not a pass, each with expected, observed and evidence.

    Checks that ended alike in all of that are told once.
    """
    for cell in run.cells:
        if cell.reason:
            yield Text.assemble(_styled(cell.outcome), _words(f"  {cell.id}: {cell.reason}"))
        if cell.splats:
            yield _reports(cell)
    for checks in troubles(run):
        yield _trouble(checks)


def _figures(run: Summary) -> Table:
    """Base against patched, a line for each quantity in each place."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in ("figure", "where", "base", "patched", "unit", "change", "verdict"):
        table.add_column(head, overflow="fold")
    for one in run.figures:
        words = (
            *(plain_name(one.metric), one.where, figures.typical(one.base)),
            *(figures.typical(one.patched), one.unit, figures.change(one)),
        )
        style = {"worse": "bold red", "better": "green"}.get(one.verdict, "")
        table.add_row(*(Text(_words(word)) for word in words), Text(one.verdict, style=style))
    return table


def _reports(cell: Cell) -> Text:
    """What the kernel reported in a cell, the reports that the base kernel has not first."""
    count = len(cell.splats)
    text = Text(printable(f"kernel log of {cell.id}: {counted(count)}"))
    for splat in sorted(cell.splats, key=lambda one: one.on_base)[:MAX_SPLATS]:
        times = f"{splat.count} times: " if splat.count > 1 else ""
        text.append(f"\n  {times}{_words(splat.title)}")
        text.append("  (the base kernel as well)" if splat.on_base else "")
        for place in splat.where[:MAX_PLACES]:
            text.append(f"\n      {printable(place)}", style="dim")
    if count > MAX_SPLATS:
        text.append(f"\n  and {count - MAX_SPLATS} more", style="dim")
    if cell.splat_file:
        text.append(f"\n  evidence: {printable(cell.splat_file)}", style="dim")
    return text


def _trouble(checks: Sequence[Check]) -> Text:
    first = checks[0]
    text = Text.assemble(_styled(first.outcome), printable(f"  {first.name} in {first.cell}"))
    if first.also_on_base:
        text.append("  (the base kernel as well)")
    text.append(f"\n  expected: {_words(first.expected, _INDENT)}")
    text.append(f"\n  observed: {_words(first.observed, _INDENT)}")
    if first.reason and first.reason not in first.observed:
        text.append(f"\n  reason:   {_words(first.reason, _INDENT)}")
    for path in first.evidence[:MAX_EVIDENCE]:
        text.append(f"\n  evidence: {printable(path)}", style="dim")
    if len(first.evidence) > MAX_EVIDENCE:
        text.append(f"\n  and {len(first.evidence) - MAX_EVIDENCE} files more", style="dim")
    if len(checks) > 1:
        others = ", ".join(check.cell for check in checks[1:])
        text.append(f"\n  the same in: {_words(others)}")
    return text


def _words(text: str, indent: str = "    ") -> str:
    """Words of others: harmless, and not without end."""
    return printable(clip(text, MAX_WORDS), indent)


def _verdict(run: Summary) -> Text:
    text = Text("verdict: ", style="bold")
    text.append(run.verdict.upper() if run.verdict == "fail" else run.verdict)
    text.stylize(_STYLES[run.verdict], 9)
    text.append(f": {_words(conclusion(run))} ({count(run)}; {run.seconds:.0f} s; seed {run.seed})")
    return text
