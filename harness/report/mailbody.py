# SPDX-License-Identifier: GPL-2.0-only
"""The body of a mail on a run: plain text, at most 72 columns wide.

Words that are not this file's own, but for names, stand behind "| ": what a host, a patch or a log
says can then be no trailer, diff or signature to a reader, to git or to b4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.printable import clip, one_line, plain_name, printable
from harness.report import evidence, facts, figures
from harness.report.case import apart, case
from harness.report.counts import MEANING, count
from harness.report.evidence import Read
from harness.report.lines import cut, wrap
from harness.report.matrix import kernel_of, matrix, of_series, short_name, troubles
from harness.report.text import EMULATION, MAX_PLACES
from harness.results import Cell, Check, Kernel, Splat, Summary

WIDTH = 72
MAX_WORDS = 1000
MAX_TROUBLES = 10
MAX_SPLATS = 3
MAX_PATCHES = 20
MAX_NOTES = 20
MAX_FIGURES = 40
GUTTER = "  | "
_FILES = (f"{GUTTER}see ", f"{GUTTER}from ")
_PRINTK_TIME = re.compile(r"^\[ *\d+\.\d+\] ")


def body(run: Summary, read: Read) -> Iterator[str]:
    """Its lines: what is the case, its limits, what failed, figures, what was tested on what."""
    yield from _case(run)
    yield from _limits(run)
    yield from _troubles(run, read)
    yield from _figures(run)
    yield from _tested(run)
    yield from _cells(run)


def _case(run: Summary) -> Iterator[str]:
    """What is the case, before all else, and the word for it."""
    if run.reason:
        so_far = apart(run)
        yield from _own(f"{facts.UNFINISHED}{f' ({so_far})' if so_far else ''}:")
        yield from _quoted(run.reason)
    else:
        yield from _own(case(run, plain_name))
    verdict = run.verdict.upper() if run.verdict == "fail" else run.verdict
    number = f"{len(run.cells)} cell{'s' if len(run.cells) != 1 else ''}"
    meaning = f", {MEANING[run.verdict]}" if run.verdict in ("error", "unproven") else ""
    # A partial run and one that was cut off have the counts in their first sentence.
    counts = f"; {apart(run)}" if run.whole and not run.reason and apart(run) else ""
    yield from _own(
        f"Verdict of kvm-harness {plain_name(run.harness)} on stage-2 page aging: "
        f"{verdict}{meaning} ({number}{counts})."
    )


def _limits(run: Summary) -> Iterator[str]:
    notes = facts.notes(run)
    if notes or run.emulated:
        yield from _head("Limits of this run")
        yield from _list(notes, MAX_NOTES)
    if run.emulated:
        yield from _own(EMULATION)


def _tested(run: Summary) -> Iterator[str]:
    yield from _head("What was tested")
    if run.series:
        yield from _fact("series", f"{run.series}, sha256 of its diffs {run.series_digest[:16]}")
        yield from _list([f"{n}. {title}" for n, title in enumerate(run.patches, 1)], MAX_PATCHES)
    for kernel in run.kernels:
        yield from _kernel(kernel)
    for compiler in dict.fromkeys(kernel.compiler for kernel in run.kernels if kernel.compiler):
        yield from _fact("compiler", compiler)
    if run.debug:
        yield from _fact("kernels", "debug kernels: KASAN, lockdep and their like")
    for host, kinds in facts.cpus(run).items():
        for kind in kinds or ("CPU not known",):
            yield from _fact("host", f"{host}, {kind}")
        if run.emulated:
            yield from _fact("", f"emulated by {run.emulator or 'QEMU'}")
    yield from _fact("started", f"{run.started}, seed {run.seed}")
    if fast := facts.fast_path(run):
        yield from _fact("fast path", fast)
    names = ", ".join(plain_name(short_name(name)) for name in matrix(run).columns)
    if names:
        yield from _fact("checks", names)
    for check in of_series(run):
        yield from _fact(check.outcome, f"{check.name}, {check.observed}")


def _kernel(kernel: Kernel) -> Iterator[str]:
    yield from _fact(kernel.label, f"Linux {kernel.version}, {kernel.source}")
    if kernel.hosts:
        yield from _fact("", f"for {' '.join(kernel.hosts)}")
    yield from _fact("", f"build id {kernel.build_id}")
    yield from _fact("", f"configuration {kernel.config_sha256[:16]} (sha256)")


def _cells(run: Summary) -> Iterator[str]:
    if not run.cells:
        return
    yield from _head("Who sets the access flag at stage 2, and the verdict of each cell")
    rows = [("host", "KVM mode", "kernel", "expected", "observed", "verdict")]
    for cell in matrix(run).cells:
        verdict = "FAIL" if cell.outcome == "fail" else cell.outcome
        host, kernel = plain_name(cell.host), plain_name(kernel_of(cell))
        rows.append((host, cell.kvm_mode, kernel, cell.af_mode, cell.af_observed or "-", verdict))
    limits = (12, 9, 18, 8, 8, 8)
    longest = (max(map(len, column)) for column in zip(*rows, strict=True))
    widths = [min(pair) for pair in zip(longest, limits, strict=True)]
    for row in rows:
        words = (cut(word, width).ljust(width) for word, width in zip(row, widths, strict=True))
        yield f"  {' '.join(words)}".rstrip()


def _troubles(run: Summary, read: Read) -> Iterator[str]:
    cells = {cell.id: cell for cell in run.cells}
    groups = troubles(run)
    told = {
        (check.cell, splat.key) for group in groups for check in group for splat in check.splats
    }
    ended = []
    for cell in run.cells:
        left = tuple(splat for splat in cell.splats if (cell.id, splat.key) not in told)
        if cell.reason or left:
            ended.append(cell.model_copy(update={"splats": left}))
    if not ended and not groups:
        return
    yield from _head("What was not as expected, and what the kernels reported")
    entries = [
        *(list(_trouble(one, cells.get(one[0].cell), read)) for one in groups[:MAX_TROUBLES]),
        list(_more(len(groups) - MAX_TROUBLES, "checks in other ways")),
        *(list(_ended(cell, read)) for cell in ended[:MAX_TROUBLES]),
        list(_more(len(ended) - MAX_TROUBLES, "cells")),
    ]
    if any(line.startswith(_FILES) for lines in entries for line in lines):
        yield from _own("(The files that are named are in the run's folder, which the sender has.)")
        yield ""
    for number, lines in enumerate(filter(None, entries)):
        yield from [""] if number else []
        yield from lines


def _trouble(group: Sequence[Check], cell: Cell | None, read: Read) -> Iterator[str]:
    first = group[0]
    others = ", ".join(plain_name(check.cell) for check in group[1:])
    words = f"{plain_name(first.name)} in {plain_name(first.cell)}"
    words += f", the same in {clip(others, MAX_WORDS)}" if others else ""
    words += ", on the base kernel as well" if first.also_on_base else ""
    yield from _entry(first.outcome, words)
    yield from _quoted(f"expected: {first.expected}")
    yield from _quoted(f"observed: {first.observed}")
    if first.reason and first.reason not in first.observed:
        yield from _quoted(f"reason: {first.reason}")
    yield from _reports(first.splats)
    if any(splat.where for splat in first.splats):
        yield from _list([f"see {cell.splat_file}"] if cell and cell.splat_file else [], 1)
    elif found := evidence.of_check(first, cell, read):
        yield from _excerpt(found)


def _ended(cell: Cell, read: Read) -> Iterator[str]:
    yield from _entry(cell.outcome, f"cell {plain_name(cell.id)}")
    if cell.reason:
        yield from _quoted(cell.reason)
    yield from _reports(cell.splats)
    if any(splat.where for splat in cell.splats):
        yield from _list([f"see {cell.splat_file}"] if cell.splat_file else [], 1)
    elif found := evidence.of_cell(cell, read):
        yield from _excerpt(found)


def _reports(splats: Sequence[Splat]) -> Iterator[str]:
    """What the kernel reported, with file and line where they are known: the shortest evidence."""
    for splat in sorted(splats, key=lambda one: one.on_base)[:MAX_SPLATS]:
        times = f"{splat.count} times: " if splat.count > 1 else ""
        also = " (on the base kernel as well)" if splat.on_base else ""
        yield from _quoted(f"{times}{splat.title}{also}")
        for place in splat.where[:MAX_PLACES]:
            yield cut(f"{GUTTER}    {one_line(place)}", WIDTH)
    if len(splats) > MAX_SPLATS:
        yield from _quoted(f"and {len(splats) - MAX_SPLATS} more reports")


def _excerpt(found: evidence.Excerpt) -> Iterator[str]:
    """Lines of a file, cut and not wrapped; the time that printk put before them is left out."""
    yield from _quoted(f"from {found.path}:")
    for line in found.lines:
        yield cut(f"{GUTTER}  {_PRINTK_TIME.sub('', printable(line))}", WIDTH)


def _figures(run: Summary) -> Iterator[str]:
    if not run.figures:
        return
    yield from _head(f"{figures.head(run.figures)} (medians)")
    yield from _own(f"{count(run).of_figures}.")
    shown = figures.foremost(run.figures, MAX_FIGURES)
    for one in shown:
        yield from _entry(one.verdict, f"{plain_name(one.metric)} on {plain_name(one.where)}")
        yield from _quoted(f"{one.what}, {one.unit}")
        both = f"base {figures.typical(one.base)}, patched {figures.typical(one.patched)}"
        yield from _quoted(f"{both}; change {figures.change(one)}")
        if why := figures.because(one):
            yield from _quoted(why)
    yield from _more(len(run.figures) - len(shown), "figures")
    for line in figures.conditions(run.figures):
        yield from _quoted(line)


# ---- lines ----------------------------------------------------------------------------------


def _head(words: str) -> Iterator[str]:
    yield from ("", f"{words}:")


def _own(words: str) -> Iterator[str]:
    """Words of this file."""
    yield from wrap(words, WIDTH)


def _fact(label: str, words: str) -> Iterator[str]:
    """A label of this file and what is so called."""
    rest = f"{' ' * 10}{GUTTER.lstrip()}"
    yield from wrap(clip(one_line(words), MAX_WORDS), WIDTH, f"  {label:10}", rest)


def _entry(outcome: str, names: str) -> Iterator[str]:
    word = outcome.upper() if outcome == "fail" else outcome
    yield from wrap(clip(names, MAX_WORDS), WIDTH, f"{word}  ", "    ")


def _quoted(words: str) -> Iterator[str]:
    """Words of others."""
    for line in printable(clip(words, MAX_WORDS), "  ").split("\n"):
        yield from wrap(line, WIDTH, GUTTER, f"{GUTTER}  ")


def _list(texts: Sequence[str], limit: int) -> Iterator[str]:
    for text in texts[:limit]:
        yield from _quoted(text)
    if len(texts) > limit:
        yield from _quoted(f"and {len(texts) - limit} more")


def _more(count: int, of_what: str) -> Iterator[str]:
    if count > 0:
        yield from _own(f"And {count} more {of_what}.")
