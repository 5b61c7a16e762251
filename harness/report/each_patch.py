# SPDX-License-Identifier: GPL-2.0-only
"""The report that ends a walk along a series: a line for each patch, then which one breaks it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.printable import printable
from harness.results import EachPatch, Finding

_STYLES: dict[Finding, str] = {"good": "green", "bad": "bold red", "unknown": "yellow"}
_MEANING: dict[Finding, str] = {
    "good": "after every patch everything that was expected was observed",
    "bad": "a patch breaks the kernel",
    "unknown": "it could not be told of every patch",
}


def each_patch_report(index: EachPatch) -> RenderableType:
    """The table, the reasons, and the conclusion."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for head in ("patch", "kernel", "time", "subject"):
        table.add_column(head, no_wrap=head != "subject", overflow="fold")
    for record in index.patches:
        table.add_row(
            f"{record.number}/{index.count}",
            Text(record.finding, style=_STYLES[record.finding]),
            f"{record.seconds:.0f} s",
            Text(printable(record.subject)),
        )
    parts: list[RenderableType] = [table, ""]
    for record in index.patches:
        if record.finding != "good":
            name = f"{record.finding}  patch {record.number}/{index.count}"
            parts.append(Text(printable(f"{name} ({record.subject}), {record.origin}:")))
            parts.append(Text(f"  {printable(record.reason, '  ')}"))
            parts.append(Text(f"  see {record.folder}", style="dim"))
    return Group(*parts, _conclusion(index))


def _conclusion(index: EachPatch) -> Text:
    text = Text("verdict: ", style="bold")
    text.append(index.verdict, style=_STYLES[index.verdict])
    text.append(f": {printable(index.reason) or _MEANING[index.verdict]}")
    if index.first_bad is not None:
        bad = index.patches[index.first_bad - 1]
        text.append(f"; the first is {bad.number}/{index.count}, {printable(bad.subject)}")
        if doubtful := _doubtful(index, index.first_bad):
            text.append(f" (or {' or '.join(map(str, doubtful))}, of which it could not be told)")
    return text


def _doubtful(index: EachPatch, first_bad: int) -> list[int]:
    """Patches that may have brought what was first seen later: those since the last good kernel."""
    before = [record for record in index.patches if record.number < first_bad]
    last_good = max((record.number for record in before if record.finding == "good"), default=0)
    return [record.number for record in before if record.number > last_good]
