# SPDX-License-Identifier: GPL-2.0-only
"""A run in GitHub's Markdown, for a pull request, an issue or the summary of a CI job.

What is not this file's own words stands in code: there Markdown, HTML, mentions, references to
issues and bare links have no meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.printable import clip, one_line, printable
from harness.report import evidence, facts, figures
from harness.report.case import case
from harness.report.counts import count
from harness.report.evidence import Read
from harness.report.lines import columns, wrap
from harness.report.mailbody import (
    MAX_FIGURES,
    MAX_NOTES,
    MAX_PATCHES,
    MAX_TROUBLES,
    MAX_WORDS,
)
from harness.report.matrix import Matrix, kernel_of, matrix, of_series, short_name, troubles
from harness.report.text import EMULATION, MAX_EVIDENCE, MAX_SPLATS
from harness.results import Cell, Check, Kernel, Summary

MARKS = {"pass": "ok", "fail": "**FAIL**", "error": "error", "unproven": "?", "skip": "-"}
_ABSENT = "."
# GitHub takes 65536 characters for a comment, and 1 MiB for the summary of a job.
MAX_CHARACTERS = 65_000
MAX_CELLS = 60
MAX_COLUMNS = 80
MAX_NAME = 200
WIDTH = 110


def markdown(run: Summary, read: Read) -> str:
    """The whole report; `read` reads files of the run folder."""
    blocks = [
        f"## {_subject(run)}: {run.verdict.upper() if run.verdict == 'fail' else run.verdict}",
        f"{_case(run)} ({count(run)}; {run.seconds:.0f} s)",
    ]
    blocks += _limits(run)
    blocks += _troubles(run, read)
    blocks += _figures(run)
    blocks += ["### What was tested", _facts(run), *_series_checks(run), *_matrix(matrix(run))]
    return _bounded(blocks)


def _bounded(blocks: Sequence[str]) -> str:
    """What GitHub takes of the blocks, each whole: none ends within a fence or a table."""
    kept: list[str] = []
    left = MAX_CHARACTERS
    for one in blocks:
        if len(one) + 2 <= left:
            left -= len(one) + 2
            kept.append(one)
    kept += _more(len(blocks) - len(kept), "parts of this report")
    return "\n\n".join(kept) + "\n"


def _more(count: int, of_what: str) -> list[str]:
    return [f"and {count} more {of_what}, see `summary.json`"] if count > 0 else []


def _most(lines: Sequence[str], limit: int, of_what: str) -> list[str]:
    """The first lines of a list, and how many more there are."""
    more = _more(len(lines) - limit, of_what)
    return [*lines[:limit], *(f"- {words}" for words in more)]


def code(text: str, limit: int = MAX_NAME) -> str:
    """A text in one line of code, in which no character means anything, also within a table."""
    words = clip(one_line(text), limit)
    if words and not re.search(r"[`|\\]", words):
        return f"`{words}`"
    return f"<code>{re.sub('[^A-Za-z0-9 ]', lambda found: f'&#{ord(found[0])};', words)}</code>"


def block(lines: Sequence[str]) -> str:
    """Lines as they are in a block of code, whose fence is longer than any in them."""
    plain = (line for text in lines for line in printable(text, "").split("\n"))
    body = "\n".join(row for line in plain for row in _fold(line))
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", body)), default=0))
    return f"{fence}text\n{body}\n{fence}"


def _fold(line: str) -> Iterator[str]:
    """A line that would have to be scrolled to be read, in several; any other as it is."""
    if columns(line) <= WIDTH:
        yield line
    else:
        indent = line[: len(line) - len(line.lstrip())][: WIDTH // 2]
        yield from wrap(line, WIDTH, indent, f"{indent}    ")


def _subject(run: Summary) -> str:
    return f"Series {code(run.series)}" if run.series else "Base kernel"


def _case(run: Summary) -> str:
    if run.reason:
        return f"**{facts.UNFINISHED}:** {code(run.reason, MAX_WORDS)}"
    return case(run, code)


def _limits(run: Summary) -> Iterator[str]:
    notes = facts.notes(run)
    if notes or run.emulated:
        yield "### Limits of this run"
    if notes:
        lines = [f"- {code(note, MAX_WORDS)}" for note in notes]
        yield "\n".join(_most(lines, MAX_NOTES, "notes"))
    if run.emulated:
        yield f"> {EMULATION}"


def _label(kernel: Kernel) -> str:
    names = " ".join(code(name) for name in kernel.hosts)
    return f"{kernel.label} of {names}" if names else kernel.label


def _facts(run: Summary) -> str:
    lines = [
        f"- {_label(one)}: Linux {code(one.version)}, {code(one.source)}, build id "
        f"{code(one.build_id)}, configuration {code(one.config_sha256[:12])}"
        + (f", {code(one.compiler)}" if one.compiler else "")
        for one in run.kernels
    ]
    hosts = []
    for host, kinds in facts.cpus(run).items():
        how = f", emulated by {code(run.emulator or 'QEMU')}" if run.emulated else ""
        words = "; ".join(code(kind) for kind in kinds[:MAX_CELLS]) or "CPU not known"
        hosts.append(f"- host {code(host)}: {words}{how}")
    lines += _most(hosts, MAX_CELLS, "hosts")
    patches = [f"- patch {n}: {code(title)}" for n, title in enumerate(run.patches, 1)]
    lines += _most(patches, MAX_PATCHES, "patches")
    fast = facts.fast_path(run)
    lines += [f"- fast path: {code(fast, MAX_WORDS)}"] if fast else []
    lines += [f"- Message-Id {code(run.message_id)}"] if run.message_id else []
    started = f"- started {code(run.started)}, seed {run.seed}, kvm-harness {code(run.harness)}"
    return "\n".join([*lines, started])


def _matrix(shape: Matrix) -> Iterator[str]:
    if not shape.cells:
        return
    columns_ = shape.columns[:MAX_COLUMNS]
    heads = ["host", "KVM mode", "kernel", "AF expected", "AF observed"]
    heads += [str(number) for number in range(1, len(columns_) + 1)] + ["verdict"]
    rows = [heads, ["---"] * len(heads)]
    for cell in shape.cells[:MAX_CELLS]:
        marks = [
            MARKS[shape.outcomes[cell.id, name]] if (cell.id, name) in shape.outcomes else _ABSENT
            for name in columns_
        ]
        seen = cell.af_observed or "-"
        wrong = cell.af_observed not in (cell.af_mode, None)
        rows.append(
            [
                *(code(cell.host), cell.kvm_mode, code(kernel_of(cell)), cell.af_mode),
                *(f"**{seen}**" if wrong else seen, *marks),
                "**FAIL**" if cell.outcome == "fail" else cell.outcome,
            ]
        )
    yield "\n".join(f"| {' | '.join(row)} |" for row in rows)
    yield from _more(len(shape.cells) - MAX_CELLS, "cells")
    names = ", ".join(f"{n} {code(short_name(name))}" for n, name in enumerate(columns_, 1))
    yield f"{names}{'; ' if names else ''}`?` unproven, `-` skipped, `{_ABSENT}` did not run"
    yield from _more(len(shape.columns) - MAX_COLUMNS, "checks")


def _series_checks(run: Summary) -> Iterator[str]:
    checks = of_series(run)
    for check in checks[:MAX_TROUBLES]:
        words = code(check.observed, MAX_WORDS)
        yield f"Series: {MARKS[check.outcome]} {code(short_name(check.name))}: {words}"
    yield from _more(len(checks) - MAX_TROUBLES, "checks of the series")


def _troubles(run: Summary, read: Read) -> Iterator[str]:
    cells = {cell.id: cell for cell in run.cells}
    ended = [cell for cell in run.cells if cell.reason or cell.splats]
    groups = troubles(run)
    if ended or groups:
        yield "### What is not a pass"
    for cell in ended[:MAX_TROUBLES]:
        yield from _cell(cell, read)
    yield from _more(len(ended) - MAX_TROUBLES, "cells")
    for group in groups[:MAX_TROUBLES]:
        yield from _trouble(group, cells.get(group[0].cell), read)
    yield from _more(len(groups) - MAX_TROUBLES, "checks in other ways")


def _cell(cell: Cell, read: Read) -> Iterator[str]:
    if cell.reason:
        yield f"{MARKS[cell.outcome]} cell {code(cell.id)}: {code(cell.reason, MAX_WORDS)}"
    if cell.splats:
        lines = []
        for splat in sorted(cell.splats, key=lambda one: one.on_base)[:MAX_SPLATS]:
            also = " (the base kernel as well)" if splat.on_base else ""
            lines.append(f"{splat.count} times: {one_line(splat.title)}{also}")
            lines += [f"    {one_line(place)}" for place in splat.where[:MAX_SPLATS]]
        more = len(cell.splats) - MAX_SPLATS
        lines += [f"and {more} more"] if more > 0 else []
        yield f"Kernel log of {code(cell.id)} ({code(cell.splat_file)}):"
        yield block([clip(line, MAX_WORDS) for line in lines])
    elif found := evidence.of_cell(cell, read):
        yield from _excerpt(found)


def _trouble(group: Sequence[Check], cell: Cell | None, read: Read) -> Iterator[str]:
    first = group[0]
    also = " (the base kernel as well)" if first.also_on_base else ""
    yield f"#### {MARKS[first.outcome]} {code(first.name)} in {code(first.cell)}{also}"
    lines = [f"expected: {first.expected}", f"observed: {first.observed}"]
    if first.reason and first.reason not in first.observed:
        lines.append(f"reason:   {first.reason}")
    yield block([clip(line, MAX_WORDS) for line in lines])
    if found := evidence.of_check(first, cell, read):
        yield from _excerpt(found)
    files = [code(path) for path in evidence.files(first)[:MAX_EVIDENCE]]
    more = len(first.evidence) - MAX_EVIDENCE
    files += [f"and {more} files more"] if more > 0 else []
    if files:
        yield f"Evidence: {', '.join(files)}"
    if len(group) > 1:
        also_in = [code(check.cell) for check in group[1 : MAX_TROUBLES + 1]]
        also_in += _more(len(group) - 1 - MAX_TROUBLES, "cells")
        yield f"The same in: {', '.join(also_in)}"


def _excerpt(found: evidence.Excerpt) -> Iterator[str]:
    yield f"From {code(found.path)}:"
    yield block([clip(line, MAX_NAME) for line in found.lines])


def _figures(run: Summary) -> Iterator[str]:
    if not run.figures:
        return
    yield f"### {figures.head(run.figures)}"
    heads = ["figure", "where", "base", "patched", "unit", "change", "verdict", "reason"]
    rows = []
    shown = figures.foremost(run.figures, MAX_FIGURES)
    for one in shown:
        verdict = f"**{one.verdict}**" if one.verdict == "worse" else one.verdict
        rows.append(
            [
                *(code(one.metric), code(one.where), figures.typical(one.base)),
                *(figures.typical(one.patched), code(one.unit), figures.change(one), verdict),
                code(figures.because(one), MAX_WORDS),
            ]
        )
    # Several tables, so that of very many those fit that stand first.
    for at in range(0, len(rows), MAX_FIGURES):
        table = [heads, ["---"] * len(heads), *rows[at : at + MAX_FIGURES]]
        yield "\n".join(f"| {' | '.join(row)} |" for row in table)
    yield from _more(len(run.figures) - len(shown), "figures")
    yield from (code(line, MAX_WORDS) for line in figures.conditions(run.figures))
