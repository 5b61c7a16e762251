# SPDX-License-Identifier: GPL-2.0-only
"""A tally of many runs of sound kernels, for a terminal and as docs/false-alarms.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.printable import one_line
from harness.ranges import format_ranges
from harness.repeat.join import Joined
from harness.repeat.parts import NOT_RECORDED, Mishap, Part, Subject, Tally, total
from harness.report.markdown import code
from harness.report.text import EMULATION
from harness.results import Outcome

CONFIDENCE = 0.95
_RAN: Sequence[Outcome] = ("pass", "fail", "error", "unproven")
_MAX_WORDS = 700
_DIGEST = 12


def bound(passed: int, failed: int) -> float:
    """What the rate of false alarms is below, with 95 % confidence, after so many cells.

    Exact (Clopper and Pearson, one-sided): 1 - 0.05**(1/n) where none of n cells failed.
    """
    # It takes a quarter of a second to load, and no other command wants it.
    from scipy.special import betaincinv

    return float(betaincinv(failed + 1, passed, CONFIDENCE)) if passed else 1.0


# ---- for a terminal -------------------------------------------------------------------------


def describe(joined: Joined) -> list[str]:
    """The tally in words: each check, what did not pass, each kernel, and all together."""
    width = max((len(name) for name in joined.checks), default=0)
    lines = [f"{name:{width}}  {columns(counts)}" for name, counts in joined.checks.items()]
    lines += [f"{part.name}: {_mishap(one, joined)}" for part, one in _mishaps(joined)]
    lines += [f"{part.name}: {words}" for part in joined.parts for words in part.ends]
    for one in joined.subjects:
        kernel = ", ".join((_kernel(one, joined), _linux(one, joined), one.flavor, one.checks))
        counts = joined.of(one)
        ends = ", ".join(f"{counts[kind]} {kind}" for kind in _RAN)
        lines.append(f"{kernel}: {joined.runs.get(one, 0)} runs, cells: {ends}")
        lines.append(f"  seeds {_seeds(joined, one)}; false alarms in less than {_rate(counts)}")
    return [*lines, f"{_several(len(joined.parts), 'part')}: {joined.verdict}: {_all(joined)}"]


def columns(counts: Mapping[Outcome, int]) -> str:
    """How often each outcome was, in columns; skips only where there are some."""
    found = "  ".join(f"{counts.get(kind, 0):5} {kind}" for kind in _RAN)
    return found + (f"  {counts['skip']:5} skip" if counts.get("skip") else "")


# ---- docs/false-alarms.md -------------------------------------------------------------------

_INTRO = """\
<!-- SPDX-License-Identifier: GPL-2.0-only -->
<!-- Made by `kvm-harness repeat --join RECORD ... --markdown docs/false-alarms.md`. -->
# False alarms: how often is a sound kernel called broken?

A sound kernel must pass: a `fail` of one is a **false alarm**. A *run* goes over all cells that it
was asked for, with a seed of its own; a *cell* is one boot of one kernel on one host in one mode of
KVM, and fails if any check in it does. `error` says that the harness or a host failed, `unproven`
that something could not be observed: a race that did not meet, say. How to run more:
[checks.md](checks.md#false-alarms).
"""

_RATE = """\
The last column: with 95 % confidence the share of such cells with a false alarm is below this, if
cells are independent of each other. It is exact (Clopper and Pearson, one-sided), and of cells that
passed or failed: 1 - 0.05^(1/n) where none of n failed."""

_COUNTS = ("cells run", "passed", "false alarms", "errors", "unproven")
_KERNEL = ("kernel", "Linux", "build", "checks")
_PART = ("record", "begun", "hours", "kvm-harness", "asked for", "kernels", "hosts", "runs")


def markdown(joined: Joined) -> str:
    """docs/false-alarms.md, whole."""
    blocks = [
        f"{_INTRO}\n**{_all(joined)}.**",
        *_emulation(joined.parts),
        _RATE,
        _table((*_KERNEL, "runs", "seeds", *_COUNTS, "rate below"), _totals(joined)),
        "## What did not pass",
        "\n".join(_trouble(joined)) or "Nothing.",
        "## By place",
        _table((*_KERNEL, "where", "AF by", *_COUNTS), _places(joined)),
        "## The parts",
        _table(_PART, map(_part, joined.parts)),
        "## By check",
        "In all cells together: a check that is newer than a part ran less often.",
        _table(("check", "ran", *_COUNTS[1:], "skipped"), _by_check(joined)),
    ]
    return "\n\n".join(blocks) + "\n"


def _all(joined: Joined) -> str:
    cells = total(joined.cells.values())
    skipped = f"; {cells['skip']} more were skipped whole" if cells["skip"] else ""
    return (
        f"{_several(cells['fail'], 'false alarm')} in {_several(_ran(cells), 'cell')}, of which "
        f"{cells['pass']} passed, {_several(cells['error'], 'error')}, "
        f"{cells['unproven']} unproven{skipped}"
    )


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _ran(counts: Tally) -> int:
    return sum(counts[kind] for kind in _RAN)


def _emulation(parts: Sequence[Part]) -> Iterator[str]:
    emulated = [part for part in parts if part.emulators]
    if emulated:
        by = ", ".join(dict.fromkeys(one for part in emulated for one in part.emulators))
        whose = "all parts" if len(emulated) == len(parts) else "the parts that say so below"
        yield (
            f"Hosts are emulated in {whose}, by {code(by)}: how often there is a false alarm on "
            f"hardware is not shown. {EMULATION}"
        )


def _totals(joined: Joined) -> Iterator[Sequence[str]]:
    for one in joined.subjects:
        counts = joined.of(one)
        runs = (str(joined.runs.get(one, 0)), _seeds(joined, one))
        yield (*_subject(one, joined), *runs, *_counts(counts), _rate(counts))


def _places(joined: Joined) -> Iterator[Sequence[str]]:
    for subject in joined.subjects:
        for (one, where), counts in sorted(joined.cells.items(), key=lambda kind: str(kind[0][1])):
            if one == subject:
                place = (code(where.place), where.af or NOT_RECORDED)
                yield (*_subject(one, joined), *place, *_counts(counts))


def _by_check(joined: Joined) -> Iterator[Sequence[str]]:
    for name, counts in joined.checks.items():
        yield (code(name), *_counts(counts), str(counts["skip"]))


def _part(part: Part) -> Sequence[str]:
    subjects = {(one.series, one.digest, one.source) for one, _ in part.cells}
    kernels = dict.fromkeys(
        f"{series} {digest[:_DIGEST]}".strip() if series else source
        for series, digest, source in sorted(subjects)
    )
    early = f"; ended early: {part.early}" if part.early else ""
    return (
        code(part.name),
        code(part.started),
        f"{part.seconds / 3600:.1f}" if part.seconds else "",
        code(part.harness),
        code(part.asked + early),
        ", ".join(code(name or NOT_RECORDED) for name in kernels),
        code(part.hosts),
        str(part.count),
    )


def _trouble(joined: Joined) -> Iterator[str]:
    for part, one in _mishaps(joined):
        yield f"- {code(part.name)}: {code(_mishap(one, joined), _MAX_WORDS)}"
    for part in joined.parts:
        for words in part.ends:
            yield f"- {code(part.name)}: {code(words, _MAX_WORDS)}"


# ---- both -----------------------------------------------------------------------------------


def _mishaps(joined: Joined) -> Iterator[tuple[Part, Mishap]]:
    """False alarms first."""
    found = [(part, one) for part in joined.parts for one in part.mishaps]
    return iter(sorted(found, key=lambda pair: _RAN.index(pair[1].outcome)))


def _mishap(one: Mishap, joined: Joined) -> str:
    kernel = f"{_kernel(one.subject, joined)}, {one.subject.flavor}"
    seed = f", seed {one.seed}" if one.seed is not None else ""
    times = f", {one.times} times" if one.times > 1 else ""
    what = f"{one.outcome}: {one.check or 'the cell by itself'} in {one.where.place}"
    return one_line(f"{what} ({kernel}{seed}{times}): {one.words}").rstrip(": ")


def _subject(one: Subject, joined: Joined) -> Sequence[str]:
    return (code(_kernel(one, joined)), code(_linux(one, joined)), one.flavor, code(one.checks))


def _kernel(one: Subject, joined: Joined) -> str:
    """The kernel's name, with a digest where that alone tells two series apart."""
    alike = {other.digest for other in joined.subjects if other.series == one.series}
    digest = f" ({one.digest[:_DIGEST] or 'digest not recorded'})" if len(alike) > 1 else ""
    return f"{one.series or 'base'}{digest}{' with a neutral mutant' if one.neutral else ''}"


def _linux(one: Subject, joined: Joined) -> str:
    """The version, with the source where that alone tells two kernels apart."""
    alike = {other.source for other in joined.subjects if other.version == one.version}
    source = f" ({one.source})" if len(alike) > 1 else ""
    return f"{one.version or NOT_RECORDED}{source}"


def _seeds(joined: Joined, one: Subject) -> str:
    seeds = joined.seeds.get(one, frozenset())
    if any(seed < 0 for seed in seeds):
        return ",".join(map(str, sorted(seeds)))
    return format_ranges(seeds)


def _rate(counts: Tally) -> str:
    """Rounded up, as an upper bound must be."""
    hundredths = math.ceil(10_000 * bound(counts["pass"], counts["fail"]))
    return f"{hundredths / 100:.2f} %"


def _counts(counts: Tally) -> Sequence[str]:
    return (str(_ran(counts)), *(str(counts[kind]) for kind in _RAN))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
