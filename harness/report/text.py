# SPDX-License-Identifier: GPL-2.0-only
"""The report that ends a run on a terminal: what was expected and observed in each cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harness.observe.splats import counted
from harness.printable import clip, plain_name, printable
from harness.report import facts, figures
from harness.report.counts import by_outcome, conclusion, count
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
# Columns of a terminal, more than any table of a run takes.
UNBOUND = 100_000
EACH_CHECK = "kvm-harness report --format html"
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
    parts: list[RenderableType] = [_Cells(run, shape)] if run.cells else []
    if fast := facts.fast_path(run):
        parts.append(_Hanging(Text(f"fast path: {_words(fast)}")))
    parts += [*map(_Hanging, _series_checks(run)), ""]
    for text in _troubles(run):
        parts += [_Hanging(text), ""]
    parts += [_figures(run), *map(_Hanging, _because(run)), ""] if run.figures else []
    parts += [_Hanging(Text(_words(line))) for line in figures.conditions(run.figures)]
    parts += [_Hanging(Text(f"note: {_words(note)}")) for note in run.notes]
    if run.emulated:
        parts.append(Text(EMULATION, style="dim"))
    parts.append(_Hanging(_verdict(run)))
    return Group(*parts)


@dataclass(frozen=True)
class _Cells:
    """A row for each cell: a column for each check where the width is enough, else numbers."""

    run: Summary
    shape: Matrix

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = _table(self.shape, *_marks(self.shape))
        if fits(console, options, table):
            yield table
            yield _legend(self.run, self.shape)
        else:
            yield _table(self.shape, *_numbers(self.run))
            yield Text(f"each check in each cell: {EACH_CHECK}", style="dim")


def fits(console: Console, options: ConsoleOptions, table: Table) -> bool:
    """Whether no column of a table would be cut off."""
    # A measurement is never wider than what it is asked for.
    unbound = options.update(max_width=UNBOUND)
    return Measurement.get(console, unbound, table).minimum <= options.max_width


def _marks(shape: Matrix) -> tuple[Sequence[str], Mapping[str, Sequence[Text]]]:
    """Numbered columns for the checks, and by cell what is in them."""
    heads = [str(number) for number in range(1, len(shape.columns) + 1)]
    marks = {
        cell.id: [_mark(shape.outcomes.get((cell.id, name))) for name in shape.columns]
        for cell in shape.cells
    }
    return heads, marks


def _numbers(run: Summary) -> tuple[Sequence[str], Mapping[str, Sequence[Text]]]:
    """Columns for the outcomes that there are, and by cell how many checks ended so."""
    kinds = [kind for kind, number in by_outcome(run.checks).items() if number]
    numbers = {
        cell.id: [
            Text(str(number), style=_STYLES[kind] if number else "dim", justify="right")
            for kind, number in by_outcome(c for c in run.checks if c.cell == cell.id).items()
            if kind in kinds
        ]
        for cell in run.cells
    }
    return [kind.upper() if kind == "fail" else kind for kind in kinds], numbers


def _table(shape: Matrix, heads: Sequence[str], words: Mapping[str, Sequence[Text]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    # On 80 columns a long name takes two lines, and every other word stays whole.
    for head in ("\nhost", "\nKVM mode", "\nkernel", "AF\nexpected", "AF\nobserved"):
        table.add_column(head, no_wrap=head not in ("\nhost", "\nkernel"), overflow="fold")
    for head in (*heads, "verdict"):
        table.add_column(f"\n{head}", no_wrap=True)
    for cell in shape.cells:
        seen = cell.af_observed or "-"
        table.add_row(
            Text(plain_name(cell.host)),
            cell.kvm_mode,
            Text(printable(kernel_of(cell))),
            cell.af_mode,
            Text(seen, style="" if cell.af_observed in (cell.af_mode, None) else "bold red"),
            *words[cell.id],
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
    for head in ("figure", "where", "base", "patched", "unit", "change", "smallest", "verdict"):
        table.add_column(head, overflow="fold")
    for one in run.figures:
        words = (
            *(plain_name(one.metric), one.where, figures.typical(one.base)),
            *(figures.typical(one.patched), one.unit, figures.change(one)),
            figures.smallest(one),
        )
        style = {"worse": "bold red", "better": "green"}.get(one.verdict, "")
        table.add_row(*(Text(_words(word)) for word in words), Text(one.verdict, style=style))
    return table


def _because(run: Summary) -> Iterator[Text]:
    """Why a figure is what it is, the worse ones first; what is the same needs no reason."""
    for one in figures.foremost(run.figures, len(run.figures)):
        if one.verdict != "same" and one.reason:
            name = f"{plain_name(one.metric)} on {plain_name(one.where)}"
            yield Text(f"{one.verdict}: {name}: {_words(one.reason)}")


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
