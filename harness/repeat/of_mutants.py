# SPDX-License-Identifier: GPL-2.0-only
"""What is sound in a mutants.json as a part of a tally: pure functions.

Controls and neutral mutants have nothing wrong in them; that the others fail is no false alarm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from harness.mutants.results import Matrix, Ran, Result
from harness.repeat.parts import GOOD, OF_SERIES, Kind, Mishap, Part, Subject, Tally, Where
from harness.results import SERIES

# Notes of such a record (harness/mutants/command.py).
_EMULATED = "hosts are emulated by "
_NAMED = "only the checks that are named"


def part(file: Path, matrix: Matrix) -> Part:
    """The part: who must set the access flag in a cell is not in such a record."""
    sound = [one for one in matrix.results if one.kind in ("control", "neutral")]
    cells: dict[Kind, Tally] = {}
    checks: dict[str, Tally] = {}
    runs: Counter[Subject] = Counter()
    seeds: dict[Subject, frozenset[int]] = {}
    for result in sound:
        subject = _subject(matrix, result)
        for ran in result.ran:
            # What is checked of a series without a cell is no cell that passed.
            if ran.cell != SERIES or ran.outcome not in GOOD:
                cells.setdefault((subject, _where(ran)), Counter())[ran.outcome] += 1
            for check, outcome in ran.checks.items():
                checks.setdefault(check, Counter())[outcome] += 1
        if own := {ran.seed for ran in result.ran if ran.cell != SERIES}:
            runs[subject] += len(own)
            seeds[subject] = seeds.get(subject, frozenset()) | own
    said = [note for note in matrix.notes if note.startswith("only ")]
    emulators = tuple(
        note.removeprefix(_EMULATED) for note in matrix.notes if note.startswith(_EMULATED)
    )
    return Part(
        file=file,
        harness=matrix.harness,
        started=matrix.started,
        seconds=matrix.seconds,
        asked="; ".join(("mutants: controls and neutral ones", *said)),
        hosts=f"emulated by {', '.join(emulators)}",
        emulators=emulators,
        early=matrix.reason,
        ends=(),
        cells=cells,
        checks=checks,
        count=runs.total(),
        runs=runs,
        seeds=seeds,
        mishaps=tuple(
            mishap
            for result in sound
            for ran in result.ran
            for mishap in _mishaps(_subject(matrix, result), ran)
        ),
        marks=frozenset(
            (matrix.started, matrix.harness, one.name, ran.cell, ran.seed)
            for one in sound
            for ran in one.ran
        ),
    )


def _subject(matrix: Matrix, result: Result) -> Subject:
    return Subject(
        series=result.series or "",
        digest="",
        source=matrix.source,
        version=matrix.version,
        flavor="debug" if result.debug else "plain",
        checks="what catches mutants" if _NAMED in matrix.notes else "quick and deep",
        neutral=result.kind == "neutral",
    )


def _where(ran: Ran) -> Where:
    if ran.cell == SERIES:
        return OF_SERIES
    host, _, mode = ran.cell.rpartition("-")
    return Where(f"{host} {mode}")


def _mishaps(subject: Subject, ran: Ran) -> Iterator[Mishap]:
    odd = {check: outcome for check, outcome in ran.checks.items() if outcome not in GOOD}
    where = _where(ran)
    for check, outcome in odd.items():
        yield Mishap(subject, where, check, outcome, ran.seed, ran.why.get(check, ""))
    if ran.outcome not in GOOD and not odd:
        yield Mishap(subject, where, "", ran.outcome, ran.seed, ran.reason)
