# SPDX-License-Identifier: GPL-2.0-only
"""A repeat.json as a part of a tally: pure functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from _pytest.mark.expression import Expression

from harness.options import Options
from harness.repeat.parts import (
    NOT_RECORDED,
    OF_SERIES,
    Kind,
    Mishap,
    Part,
    Subject,
    Tally,
    Where,
    odd,
    total,
)
from harness.repeat.results import Repeat
from harness.results import SERIES, KernelLabel, Outcome

MARKS = ("quick", "deep", "stress")
NO_WORDS = "seed and reason were not recorded"
# What a cell's id tells by itself (harness/plan.py).
_ID = re.compile(
    r"(?P<host>.+)-(?P<mode>vhe|nvhe|protected)-(?P<kernel>base|patched)(-(?P<variant>.+))?"
)


def part(file: Path, record: Repeat) -> Part:
    """The part; ValueError if the record contradicts itself."""
    kinds = {cell: _kind(record, cell) for cell in record.cells}
    kinds[SERIES] = (_subject(record, "patched"), OF_SERIES)
    met = {cell for by_cell in record.checks.values() for cell in by_cell}
    if strange := (met | {trouble.cell for trouble in record.troubles}) - set(kinds):
        raise ValueError(f"it tells of cell {min(strange)!r}, which is not there")
    cells: dict[Kind, Tally] = {}
    for cell, counts in record.cells.items():
        cells.setdefault(kinds[cell], Counter()).update(counts)
    runs: dict[Subject, int] = {}
    for (subject, _), counts in cells.items():
        runs[subject] = max(runs.get(subject, 0), counts.total())
    of_series = odd(by_cell.get(SERIES, {}) for by_cell in record.checks.values())
    if of_series:
        cells[kinds[SERIES]] = of_series
    told = _told(record, kinds) if record.started else _counted(record, kinds)
    return Part(
        file=file,
        harness=", ".join(filter(None, (record.harness, *record.harness_digests))) or NOT_RECORDED,
        started=record.started or NOT_RECORDED,
        seconds=record.seconds,
        asked=_asked(record),
        hosts=_hosts(record),
        emulators=record.emulators,
        early=record.reason,
        ends=tuple(
            f"seed {run.seed}: {run.verdict}: {run.reason}" for run in record.runs if run.reason
        ),
        cells=cells,
        checks={check: total(by_cell.values()) for check, by_cell in record.checks.items()},
        count=len(record.runs),
        runs=runs,
        seeds=dict.fromkeys(runs, frozenset(record.seeds)),
        mishaps=tuple(told),
        marks=frozenset((run.folder, run.seed) for run in record.runs if run.folder),
    )


def _kind(record: Repeat, cell: str) -> Kind:
    """What ran in a cell, and where; of an old record as far as the cell's id tells."""
    if record.started:
        if cell not in record.places:
            raise ValueError(f"it does not say what cell {cell!r} is")
        known = record.places[cell]
        where = Where(_place(known.host, known.kvm_mode, known.variant), known.af_mode)
        return _subject(record, known.kernel), where
    found = _ID.fullmatch(cell)
    if found is None:
        raise ValueError(f"it does not say what cell {cell!r} is, and the name does not either")
    label: KernelLabel = "base" if found["kernel"] == "base" else "patched"
    return _subject(record, label), Where(_place(found["host"], found["mode"], found["variant"]))


def _place(host: str, mode: str, variant: str | None) -> str:
    return f"{host} {mode} +{variant}" if variant else f"{host} {mode}"


def _subject(record: Repeat, label: KernelLabel) -> Subject:
    patched = label == "patched"
    if not record.started:
        series = f"series {NOT_RECORDED}" if patched else ""
        return Subject(series, "", "", "", flavor="not recorded", checks=NOT_RECORDED)
    base = next((one for one in record.kernels if one.label == "base"), None)
    return Subject(
        series=record.series if patched else "",
        digest=record.series_digest if patched else "",
        source=base.source if base else "",
        version=base.version if base else "",
        flavor="debug" if record.debug else "plain",
        checks=_checks(record),
    )


def _checks(record: Repeat) -> str:
    """Which checks ran, by their marks: "quick", "quick and deep", "own checks, -k spin"."""
    names = f"-k {record.names}" if record.names else ""
    if record.own_checks:
        marks = f"-m {record.marks}" if record.marks else ""
        return ", ".join(filter(None, ("own checks", marks, names)))
    if names and not record.marks:
        return names
    extra = (("selftests", record.selftests), ("linux_guest", record.linux_guest))
    there = [*MARKS, *(mark for mark, asked in extra if asked)]
    # Without -m what runs every day.
    *_, expression = Options(pytest_args=("-m", record.marks) if record.marks else ()).selection
    *others, last = _marked(expression, there) or [f"-m {record.marks}"]
    words = f"{', '.join(others)} and {last}" if others else last
    return ", ".join(filter(None, (words, names)))


def _marked(expression: str, marks: Iterable[str]) -> list[str]:
    """Those of the marks that an expression of -m selects; none where it is no expression."""
    try:
        compiled = Expression.compile(expression)
    except SyntaxError:
        return []
    return [mark for mark in marks if compiled.evaluate(partial(_is, mark))]


def _is(mark: str, word: str, /, **_: str | int | bool | None) -> bool:
    return word == mark


def _asked(record: Repeat) -> str:
    if not record.started:
        return NOT_RECORDED
    flags = ("debug", "selftests", "linux_guest")
    given = [f"--{flag.replace('_', '-')}" for flag in flags if getattr(record, flag)]
    return "; ".join((*record.only, *given)) or "all that runs without an option"


def _hosts(record: Repeat) -> str:
    if not record.started:
        return NOT_RECORDED
    if record.emulated:
        return f"emulated by {', '.join(record.emulators)}"
    return f"machines of a lab: {' '.join(host.name for host in record.hosts)}"


def _told(record: Repeat, kinds: Mapping[str, Kind]) -> Iterator[Mishap]:
    for one in record.troubles:
        subject, where = kinds[one.cell]
        words = "; observed: ".join(filter(None, (one.reason, one.observed)))
        yield Mishap(subject, where, one.name, one.outcome, one.seed, words)


def _counted(record: Repeat, kinds: Mapping[str, Kind]) -> Iterator[Mishap]:
    """Those of a record that has numbers only, of cells where no check explains theirs."""
    explained: set[tuple[str, Outcome]] = set()
    for check, by_cell in record.checks.items():
        for cell, counts in by_cell.items():
            for outcome, times in odd([counts]).items():
                explained.add((cell, outcome))
                yield Mishap(*kinds[cell], check, outcome, None, NO_WORDS, times)
    for cell, counts in record.cells.items():
        for outcome, times in odd([counts]).items():
            if (cell, outcome) not in explained:
                yield Mishap(*kinds[cell], "", outcome, None, NO_WORDS, times)
