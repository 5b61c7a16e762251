# SPDX-License-Identifier: GPL-2.0-only
"""The matrix mutant by check, as text for a terminal and as docs/mutants.md: pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from harness.mutants.judge import GOOD, failed
from harness.mutants.results import NAMED, NAMED_IN_PARTS, Matrix, Result
from harness.printable import printable
from harness.report.matrix import short_name
from harness.report.text import EMULATION, fits
from harness.results import SERIES

_STYLES = {
    "caught": "green",
    "pass": "green",
    "caught elsewhere": "bold yellow",
    "missed": "bold red",
    "known bug": "bold yellow",
    "false alarm": "bold red",
    "error": "magenta",
}
_MARKS = {"unproven": "?", "error": "E", "skip": "-", "pass": "ok"}
_QUIET = {"ok": "passed", "-": "skipped"}
_LEGEND = (
    "X failed, and is the one that must",
    "x failed as well",
    "MISS must fail, but did not everywhere",
    "ok passed",
    "? unproven",
    "E error",
    "- skipped or did not run",
)


def text_report(matrix: Matrix) -> RenderableType:
    """The matrix, what is not as it should be, the cost, and the verdict."""
    parts: list[RenderableType] = [_Rows(matrix), ""]
    parts += [_trouble(result) for result in matrix.results if result.why]
    parts += [Text(printable(f"listed only: {_listed(r)}")) for r in _unrun(matrix)]
    parts += [Text(f"note: {printable(note)}") for note in matrix.notes]
    parts += [Text(cost(matrix)), Text(f"verdict: {matrix.verdict}: {tally(matrix)}")]
    return Group(*parts)


def names(results: Sequence[Result]) -> list[str]:
    """The checks in the order in which they ran; "boot" for a kernel that fails between them."""
    ran = [one for result in results for one in result.ran]
    longest = sorted(ran, key=lambda one: -len(one.checks))
    found = dict.fromkeys(name for one in longest for name in one.checks)
    return [*found, *(["boot"] if any("boot" in failed(one) for one in ran) else [])]


def mark(result: Result, check: str) -> str:
    """What a check said of a kernel, over all cells that it ran in."""
    if check == result.check and result.found in ("missed", "caught elsewhere"):
        return "MISS"
    if any(check in failed(one) for one in result.ran):
        return "X" if check == result.check else "x"
    seen = {one.checks[check] for one in result.ran if check in one.checks}
    order = ("error", "unproven", "pass", "skip")
    return _MARKS[next((outcome for outcome in order if outcome in seen), "skip")]


def cost(matrix: Matrix) -> str:
    """What it took, in a sentence."""
    done = [result for result in matrix.results if result.ran]
    cells = [one.seconds for result in done for one in result.ran]
    builds = [r.build.seconds for r in done if r.build and not r.build.cached]
    words = (
        f"cost: {matrix.seconds:.0f} s for {len(cells)} cells of {sum(cells):.0f} s, "
        f"{matrix.jobs} at a time, and {len(builds)} builds of {sum(builds):.0f} s"
    )
    cached = [r.build.seconds for r in done if r.build and r.build.cached]
    if cached:
        words += f"; {len(cached)} more were in the cache, and took {sum(cached):.0f} s once"
    return words


def tally(matrix: Matrix) -> str:
    """How many mutants ended how, in a sentence."""
    if matrix.reason:
        return matrix.reason
    breaks = [r for r in matrix.results if r.kind == "break" and r.found]
    sound = [r for r in matrix.results if r.kind in ("neutral", "control") and r.found]
    parts = [f"{_count(breaks, 'caught')} of {len(breaks)} mutants caught by the check named"]
    if absent := sum(r.kind == "break" and not r.ran for r in matrix.results):
        parts.append(f"{absent} more not run")
    if less := sum(_fewer_seeds(result, matrix.seeds) for result in breaks):
        parts.append(f"{less} of them not tried with each seed")
    parts += [
        f"{_count(breaks, found)} {found}"
        for found in ("caught elsewhere", "missed", "error")
        if _count(breaks, found)
    ]
    parts.append(f"{_count(sound, 'pass')} of {len(sound)} kernels with nothing wrong pass")
    if known := _count(sound, "known bug"):
        parts.append(f"{known} with a known bug of Linux {matrix.version} (docs/findings.md)")
    alarms = _count(sound, "false alarm")
    parts.append(f"{alarms} false alarm{'s' if alarms != 1 else ''}")
    if matrix.harnesses:
        parts.append(f"by {len(matrix.harnesses)} versions of the harness, whose checks may differ")
    return ", ".join(parts)


def _fewer_seeds(result: Result, seeds: Sequence[int]) -> bool:
    """Whether it did not run with each seed; no random choice is in a check of the series."""
    cells = [one for one in result.ran if one.cell != SERIES]
    return bool(cells and set(seeds) - {one.seed for one in cells})


def _count(results: Sequence[Result], found: str) -> int:
    return sum(result.found == found for result in results)


@dataclass(frozen=True)
class _Rows:
    """A row for each kernel: a column for each check where the width is enough, else their names.

    Columns of a hundred checks fit no terminal and no file of lines that can be read.
    """

    matrix: Matrix

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = _columns(self.matrix)
        if fits(console, options, table):
            yield table
            yield _legend(names([result for result in self.matrix.results if result.ran]))
        else:
            yield _names(self.matrix)
            yield _legend(())


def _columns(matrix: Matrix) -> Table:
    results = [result for result in matrix.results if result.ran]
    checks = names(results)
    grid = _grid()
    grid.add_column("mutant", no_wrap=True)
    grid.add_column("cells")
    for number in range(1, len(checks) + 1):
        grid.add_column(str(number), no_wrap=True)
    for head in ("build s", "cells s"):
        grid.add_column(head, justify="right", no_wrap=True)
    grid.add_column("found", no_wrap=True)
    for result in results:
        marks = (_styled_mark(mark(result, check)) for check in checks)
        grid.add_row(*_kernel(result), *marks, *_seconds(result), _styled_found(result))
    return grid


def _names(matrix: Matrix) -> Table:
    """As the columns, with the checks by name; of those that passed or were skipped the number."""
    grid = _grid()
    grid.add_column("found", no_wrap=True)
    for head in ("mutant", "cells", "checks"):
        grid.add_column(head, overflow="fold")
    for head in ("build\ns", "cells\ns"):
        grid.add_column(head, justify="right", no_wrap=True)
    for result in matrix.results:
        if not result.ran:
            continue
        marks = {check: mark(result, check) for check in names([result])}
        quiet = Counter(one for one in marks.values() if one in ("ok", "-"))
        words = [f"{one} {check}" for check, one in marks.items() if one not in quiet]
        words += [f"{number} {_QUIET[one]}" for one, number in quiet.items()]
        checks = Text(printable(", ".join(words)))
        grid.add_row(_styled_found(result), *_kernel(result), checks, *_seconds(result))
    return grid


def _grid() -> Table:
    return Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))


def _kernel(result: Result) -> tuple[Text, Text]:
    return Text(printable(result.name)), Text(printable(_cells(result)))


def _seconds(result: Result) -> tuple[str, str]:
    built = f"{result.build.seconds:.0f}" if result.build else ""
    return built, f"{sum(one.seconds for one in result.ran):.0f}"


def _styled_found(result: Result) -> Text:
    return Text(result.found or "", style=_STYLES.get(result.found or "", ""))


def _styled_mark(text: str) -> Text:
    style = {"X": "green", "MISS": "bold red", "x": "yellow"}.get(text, "dim")
    return Text(text, style=style)


def _legend(checks: Sequence[str]) -> Columns:
    """What the numbered columns and the marks are."""
    words = [f"{at} {short_name(name)}" for at, name in enumerate(checks, 1)]
    return Columns([Text(word, style="dim") for word in (*words, *_LEGEND)], padding=(0, 3, 0, 0))


def _trouble(result: Result) -> Text:
    text = Text.assemble((result.found or "", _STYLES.get(result.found or "", "")))
    text.append(printable(f"  {result.name}: {result.why}"))
    folders = [one.folder for one in result.ran if result.found not in GOOD]
    text.append("".join(f"\n  evidence: {printable(folder)}" for folder in folders[:3]))
    return text


def _unrun(matrix: Matrix) -> Iterator[Result]:
    return (result for result in matrix.results if not result.ran)


def _listed(result: Result) -> str:
    if result.shown_by:
        return f"{result.name} ({result.kind}): {result.breaks}; shown by {result.shown_by}"
    return f"{result.name}: cannot show in the cells that were asked for"


def _cells(result: Result) -> str:
    return " ".join(dict.fromkeys(one.cell for one in result.ran))


# ---- docs/mutants.md ------------------------------------------------------------------------

_INTRO = """\
<!-- SPDX-License-Identifier: GPL-2.0-only -->
<!-- Made by `kvm-harness mutants [--join RUN ...] --markdown docs/mutants.md`. -->
# Mutants: does the harness catch a broken series?

A mutant is a kernel that is wrong on purpose, in one small way. {ran}
One is **caught** if the check that its entry names fails in every cell and with every seed in which
it was run; an **error** is what was asked for and was not run, or did not come to its end. What
these words mean, how to run them and how to add one: [tests/mutants](../tests/mutants/README.md).
"""
_ALL_RAN = "All checks run on each of them, with the first seed."
_NAMED_RAN = """\
On each of them ran **only the check that must catch it**, so no other could fail; kernels with
nothing wrong ran every check that a mutant names."""
_SOME_RAN = """\
In parts of what is below, on each of them ran **only the check that must catch it**, so that no
other could fail: the column "also failed" is not whole."""


def markdown(matrix: Matrix, claims: Mapping[int, str]) -> str:
    """docs/mutants.md, whole."""
    seeds = ", ".join(map(str, matrix.seeds))
    count = len(matrix.seeds)
    lines = [
        _INTRO.format(ran=_ran(matrix)),
        f"Linux {matrix.version} ({matrix.source}), seed{'s' if count > 1 else ''} {seeds}. "
        f"**{matrix.verdict}**: {tally(matrix)}.",
        f"Seconds are those of one machine, of all seeds together. {cost(matrix)}.",
        "",
        *(f"- {note}" for note in matrix.notes),
        "",
        EMULATION,
        "",
        *_breaks(matrix),
        *_sound(matrix),
        *_only_listed(matrix),
        *_claims(matrix, claims),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _ran(matrix: Matrix) -> str:
    """Which checks ran on the mutants, in a sentence."""
    words = {NAMED: _NAMED_RAN, NAMED_IN_PARTS: _SOME_RAN}
    return next((words[note] for note in matrix.notes if note in words), _ALL_RAN)


_BREAK_HEADS = (
    "mutant", "what it breaks", "on", "claim", "cells", "must be caught by", "found",
    "also failed", "build s", "cells s",
)  # fmt: skip


def _breaks(matrix: Matrix) -> Iterator[str]:
    yield _row(*_BREAK_HEADS)
    yield "|---" * len(_BREAK_HEADS) + "|"
    for result in matrix.results:
        if result.kind != "break":
            continue
        others = [name for name in names([result]) if mark(result, name) == "x"]
        found = f"**{result.found}**" if result.found not in GOOD else result.found
        yield _row(
            f"`{result.name}`",
            result.breaks,
            (result.series or "base") + (", debug kernel" if result.debug else ""),
            str(result.claim),
            _cells(result),
            f"`{result.check}`",
            (found or "") + (f": {result.why}" if result.why else "")
            if result.ran
            else "**not run**",
            ", ".join(f"`{name}`" for name in others),
            f"{result.build.seconds:.0f}" if result.build else "",
            f"{sum(one.seconds for one in result.ran):.0f}" if result.ran else "",
        )
    yield ""


def _sound(matrix: Matrix) -> Iterator[str]:
    yield "## Nothing wrong: these must pass"
    yield ""
    yield (
        "`known bug`: nothing failed but by reports of a bug that this kernel is known for: "
        "[findings.md](findings.md)."
    )
    yield ""
    heads = ("kernel", "what differs", "on", "cells", "found", "seeds", "cells run", "checks")
    yield _row(*heads, "build s", "cells s")
    yield "|---" * (len(heads) + 2) + "|"
    for result in matrix.results:
        if result.kind in ("neutral", "control"):
            yield _row(
                f"`{result.name}`",
                result.breaks if result.kind == "neutral" else "nothing",
                result.series or "base",
                _cells(result),
                (result.found or "not run") + (f": {result.why}" if result.why else ""),
                ", ".join(map(str, sorted({one.seed for one in result.ran}))),
                str(len(result.ran)),
                str(len(names([result]))),
                *_seconds(result),
            )
    yield ""


def _only_listed(matrix: Matrix) -> Iterator[str]:
    for kind, head in (
        ("equivalent", "Equivalent on emulated hosts: not run"),
        ("cost", "Cost only: for the numbers, not run"),
    ):
        chosen = [result for result in matrix.results if result.kind == kind]
        if not chosen:
            continue
        yield f"## {head}"
        yield ""
        if kind == "cost":
            found = "[cost-mutants.md](cost-mutants.md)"
            yield f"What `kvm-harness cost --mutants` finds of these: {found}."
            yield ""
        yield "| mutant | what it breaks | on | claim | what would show it |"
        yield "|---|---|---|---|---|"
        for result in chosen:
            yield _row(
                f"`{result.name}`",
                result.breaks,
                result.series or "base",
                str(result.claim),
                result.shown_by or "",
            )
        yield ""


def _claims(matrix: Matrix, claims: Mapping[int, str]) -> Iterator[str]:
    yield "## The claims"
    yield ""
    yield "| claim | what reviewers of such series asked for | mutants |"
    yield "|---|---|---|"
    for number, text in sorted(claims.items()):
        chosen = [f"`{result.name}`" for result in matrix.results if result.claim == number]
        yield _row(str(number), text, ", ".join(chosen) or "none")


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"
