# SPDX-License-Identifier: GPL-2.0-only
"""A comparison of two runs as text for a terminal: a pure function of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.compare.changes import Change, Compared, Comparison
from harness.printable import clip, printable
from harness.results import Figure

MAX_NAMES = 20
MAX_WORDS = 1000
_STYLES = {
    "worse": "bold red",
    "better": "green",
    "same": "green",
    "inconclusive": "yellow",
    "untold": "yellow",
    "other": "",
}
_VERDICTS = {
    0: ("no worse", "green", "all that was shown before is shown again, and nothing got worse"),
    1: ("worse", "bold red", "something got worse"),
    4: ("inconclusive", "yellow", "nothing is known to be worse, but not all could be told"),
}


def text_report(found: Comparison) -> RenderableType:
    """What differs; the first line says if the runs are not of like things."""
    parts: list[RenderableType] = list(_unlike(found))
    parts += [_names(found)]
    parts += [_change(change) for change in found.changes]
    if found.figures:
        parts += ["", _table(found.figures), *_reasons(found.figures)]
        parts += _legend(found.figures)
    parts += list(_missing(found.one, found.only_one))
    parts += list(_missing(found.other, found.only_other))
    parts += list(_untold(found.untold))
    parts.append(_verdict(found))
    return Group(*parts)


def _unlike(found: Comparison) -> Iterator[Text]:
    if not found.forced:
        return
    count = len(found.unlike)
    words = f"FORCED: these runs are not of like things, {count} fields differ; no verdict holds"
    yield Text(words, style="bold red")
    for field in found.unlike:
        yield Text(printable(f"differs: {field}"), style="red")


def _names(found: Comparison) -> Text:
    changed = len(found.changes)
    words = f"{found.one} against {found.other}: {changed} outcomes differ, {found.alike} do not"
    return Text(printable(words))


def _change(change: Change) -> Text:
    where = change.cell + (f", {change.check}" if change.check else "")
    text = Text.assemble(
        (change.turn if change.turn != "other" else "changed", _STYLES[change.turn]),
        printable(f"  {where}: {change.one} -> {change.other}"),
    )
    if change.reason:
        text.append(f"\n  reason:   {printable(change.reason, ' ' * 12)}")
    for path in change.evidence[:MAX_NAMES]:
        text.append(f"\n  evidence: {printable(path)}", style="dim")
    return text


def _table(figures: Sequence[Compared]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for head in ("figure", "where", "unit"):
        table.add_column(head, overflow="fold")
    for head in ("patched", "base", "smallest"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for number, one in enumerate(figures, 1):
        figure = one.figure
        table.add_row(
            Text(printable(f"{number} {figure.metric}")),
            Text(printable(figure.where)),
            Text(printable(figure.unit)),
            _effect(figure),
            _effect(one.control),
            _percent(figure.smallest),
            Text(figure.verdict, style=_STYLES[figure.verdict]),
        )
    return table


def _effect(figure: Figure) -> str:
    if figure.effect is None:
        return "-"
    if figure.low is None or figure.high is None or figure.spread is not None:
        return _percent(figure.effect, "+")
    low, high = _percent(figure.low, "+"), _percent(figure.high, "+")
    return f"{_percent(figure.effect, '+')} [{low}, {high}] ({100 * figure.confidence:.3g} %)"


def _percent(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.2%}"


def _reasons(figures: Sequence[Compared]) -> Iterator[Text]:
    for number, one in enumerate(figures, 1):
        yield Text(printable(f"{number} {one.figure.verdict}: {one.figure.reason}"), style="dim")


def _legend(figures: Sequence[Compared]) -> Iterator[Text]:
    counts = {one.figure.spread is not None for one in figures}
    if False in counts:
        yield Text(
            "patched: by how much the later patched kernel is above the earlier one, each beside "
            "the base kernel of its run, with an interval and its confidence; base: the base "
            "kernels, the control",
            style="dim",
        )
    if True in counts:
        yield Text(
            "of counts (without an interval): by how much the later kernel's median over its "
            "layouts is above the earlier one's, patched and base; no test judges them",
            style="dim",
        )


def _missing(name: str, keys: Sequence[str]) -> Iterator[Text]:
    for key in keys[:MAX_NAMES]:
        yield Text(printable(f"only in {name}: {key}"))
    if len(keys) > MAX_NAMES:
        yield Text(printable(f"only in {name}: {len(keys) - MAX_NAMES} more"))


def _untold(words: Sequence[str]) -> Iterator[Text]:
    for one in words[:MAX_NAMES]:
        yield Text.assemble(
            ("untold", _STYLES["untold"]), printable(f"  {clip(one, MAX_WORDS)}", " " * 8)
        )
    if len(words) > MAX_NAMES:
        yield Text(f"untold  {len(words) - MAX_NAMES} more", style=_STYLES["untold"])


def _verdict(found: Comparison) -> Text:
    word, style, meaning = _VERDICTS[found.exit_code]
    forced = " (of unlike things, by force)" if found.forced else ""
    return Text.assemble(("verdict: ", "bold"), (word, style), f": {meaning}{forced}")
