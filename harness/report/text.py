# SPDX-License-Identifier: GPL-2.0-only
"""The report that ends a run on a terminal: what was expected and observed in each cell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.observe.splats import counted
from harness.printable import printable
from harness.results import SERIES, Cell, Check, Outcome, Summary

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
_MARKS: dict[str, str] = {
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
_INDENT = " " * 12
_PARAMETER = re.compile(r"(?<=[a-z0-9])\[[a-z0-9_-]+\]$")
_MEANING = {
    "pass": "everything that was expected was observed",
    "fail": "a kernel did not do what was expected of it",
    "error": "the harness or a host failed; nothing is said about the series",
    "unproven": "something that was expected could not be observed",
}


def text_report(run: Summary) -> RenderableType:
    """The whole report."""
    parts: list[RenderableType] = [_matrix(run), _legend(run), *_series_checks(run), ""]
    parts += list(_troubles(run))
    parts += [Text(f"note: {printable(note)}") for note in run.notes]
    if run.emulated:
        parts.append(Text(EMULATION, style="dim"))
    parts.append(_verdict(run))
    return Group(*parts)


def short_name(check: str) -> str:
    """A check's name in a column head: test_page_idle -> page idle."""
    return check.removeprefix("test_").replace("_", " ")


def _matrix(run: Summary) -> Table:
    names = _names(run)
    checks: dict[tuple[str, str], list[Check]] = {}
    for check in run.checks:
        checks.setdefault((check.cell, _family(check.name)), []).append(check)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    # On 80 columns a long name takes two lines, and every other word stays whole.
    for head in ("\nhost", "\nKVM mode", "\nkernel", "AF\nexpected", "AF\nobserved"):
        table.add_column(head, no_wrap=head not in ("\nhost", "\nkernel"), overflow="fold")
    for number in range(1, len(names) + 1):
        table.add_column(f"\n{number}", no_wrap=True)
    table.add_column("\nverdict", no_wrap=True)
    for cell in sorted(run.cells, key=lambda c: (c.host, _mode_order(c), c.kernel, c.variant)):
        kernel = f"{cell.kernel} +{cell.variant}" if cell.variant else cell.kernel
        seen = cell.af_observed or "-"
        table.add_row(
            Text(printable(cell.host)),
            cell.kvm_mode,
            Text(printable(kernel)),
            cell.af_mode,
            Text(seen, style="" if cell.af_observed in (cell.af_mode, None) else "bold red"),
            *(_mark(checks.get((cell.id, name), ())) for name in names),
            _styled(cell.outcome),
        )
    return table


def _names(run: Summary) -> list[str]:
    """The checks of cells in the order in which they ran, each with all its parameters."""
    names = (check.name for check in run.checks if check.cell != SERIES)
    return list(dict.fromkeys(_family(name) for name in names))


def _family(name: str) -> str:
    """A check without its parameter: a column for each of thirty would fit no terminal."""
    return _PARAMETER.sub("", name)


def _series_checks(run: Summary) -> Iterator[Text]:
    """A line for each check of the series itself."""
    for check in run.checks:
        if check.cell == SERIES:
            words = printable(f"{short_name(check.name)}: {check.observed}")
            yield Text.assemble("series: ", _styled(check.outcome), f" {words}")


def _legend(run: Summary) -> Columns:
    """What the numbered columns and the marks are. A table of ten names would fit no terminal."""
    words = [f"{at} {short_name(name)}" for at, name in enumerate(_names(run), 1)]
    seen: set[str] = {check.outcome for check in run.checks}
    words += [f"{_MARKS[kind]} {word}" for kind, word in _LEGEND.items() if kind in seen]
    ran = {(check.cell, _family(check.name)) for check in run.checks}
    if {(cell.id, name) for cell in run.cells for name in _names(run)} - ran:
        words.append(". did not run")
    # A name stands in one piece: the next line begins between two of them.
    entries = [Text(" ".join(printable(word).split()), style="dim") for word in words]
    return Columns(entries, padding=(0, 3, 0, 0))


def _mode_order(cell: Cell) -> int:
    return ("vhe", "nvhe", "protected").index(cell.kvm_mode)


def _mark(checks: Sequence[Check]) -> Text:
    """The worst outcome in a column of the matrix; "-" is a skip, "." what did not run."""
    outcomes = {check.outcome for check in checks}
    for outcome in ("fail", "error", "unproven", "pass", "skip"):
        if outcome in outcomes:
            return Text(_MARKS[outcome], style=_STYLES[outcome])
    return Text(".", style="dim")


def _styled(outcome: Outcome) -> Text:
    word = outcome.upper() if outcome == "fail" else outcome
    return Text(word, style=_STYLES[outcome])


def _troubles(run: Summary) -> Iterator[RenderableType]:
    """What is not a pass, each with expected, observed and evidence.

    Checks that ended alike in all of that are told once.
    """
    for cell in run.cells:
        if cell.reason:
            yield Text.assemble(_styled(cell.outcome), printable(f"  {cell.id}: {cell.reason}"))
            yield ""
        if cell.splats:
            yield _reports(cell)
            yield ""
    groups: dict[Check, list[Check]] = {}
    for check in run.checks:
        if check.outcome not in ("pass", "skip"):
            groups.setdefault(_alike(check), []).append(check)
    for checks in groups.values():
        yield _trouble(checks)
        yield ""


def _reports(cell: Cell) -> Text:
    """What the kernel reported in a cell, the reports that the base kernel has not first."""
    count = len(cell.splats)
    text = Text(printable(f"kernel log of {cell.id}: {counted(count)}"))
    for splat in sorted(cell.splats, key=lambda one: one.on_base)[:MAX_SPLATS]:
        times = f"{splat.count} times: " if splat.count > 1 else ""
        text.append(f"\n  {times}{printable(splat.title, '    ')}")
        text.append("  (the base kernel as well)" if splat.on_base else "")
        for place in splat.where[:MAX_PLACES]:
            text.append(f"\n      {printable(place)}", style="dim")
    if count > MAX_SPLATS:
        text.append(f"\n  and {count - MAX_SPLATS} more", style="dim")
    if cell.splat_file:
        text.append(f"\n  evidence: {printable(cell.splat_file)}", style="dim")
    return text


def _alike(check: Check) -> Check:
    """What checks of several cells must share to be told as one."""
    return check.model_copy(update={"cell": "", "evidence": (), "seconds": 0.0, "splats": ()})


def _trouble(checks: Sequence[Check]) -> Text:
    first = checks[0]
    text = Text.assemble(_styled(first.outcome), printable(f"  {first.name} in {first.cell}"))
    if first.also_on_base:
        text.append("  (the base kernel as well)")
    text.append(f"\n  expected: {printable(first.expected, _INDENT)}")
    text.append(f"\n  observed: {printable(first.observed, _INDENT)}")
    if first.reason and first.reason not in first.observed:
        text.append(f"\n  reason:   {printable(first.reason, _INDENT)}")
    for path in first.evidence[:MAX_EVIDENCE]:
        text.append(f"\n  evidence: {printable(path)}", style="dim")
    if len(first.evidence) > MAX_EVIDENCE:
        text.append(f"\n  and {len(first.evidence) - MAX_EVIDENCE} files more", style="dim")
    if len(checks) > 1:
        others = ", ".join(check.cell for check in checks[1:])
        text.append(f"\n  the same in: {others}")
    return text


def _verdict(run: Summary) -> Text:
    counts = [check.outcome for check in run.checks]
    parts = [f"{counts.count(kind)} {kind}" for kind in _STYLES if kind in counts]
    text = Text("verdict: ", style="bold")
    text.append(run.verdict.upper() if run.verdict == "fail" else run.verdict)
    text.stylize(_STYLES[run.verdict], 9)
    text.append(f": {printable(run.reason) or _MEANING[run.verdict]} ({len(run.cells)} cells")
    text.append("".join(f", {part}" for part in parts) + f"; {run.seconds:.0f} s)")
    return text
