# SPDX-License-Identifier: GPL-2.0-only
"""One tally of several records of runs of sound kernels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from harness.errors import UsageError
from harness.mutants.join import NAME as MUTANTS
from harness.mutants.results import Matrix
from harness.repeat import of_mutants, of_repeat
from harness.repeat.parts import Kind, Part, Subject, Tally, total
from harness.repeat.results import NAME, SCHEMA, Repeat
from harness.results import Outcome
from harness.verdict import Verdict, worst

NO_RECORD = "no record of `kvm-harness repeat` or `kvm-harness mutants`"


@dataclass(frozen=True)
class Joined:
    """All parts and what they come to, each kernel by itself."""

    parts: tuple[Part, ...]
    """The earliest first."""
    cells: dict[Kind, Tally]
    checks: dict[str, Tally]
    runs: dict[Subject, int]
    seeds: dict[Subject, frozenset[int]]

    def of(self, subject: Subject) -> Tally:
        """The cells of a kernel, wherever they ran."""
        return total(counts for (one, _), counts in self.cells.items() if one == subject)

    @property
    def subjects(self) -> list[Subject]:
        """The kernels: the base first, plain before debug."""
        return sorted({subject for subject, _ in self.cells}, key=_order)

    @property
    def verdict(self) -> Verdict:
        """The worst of all; an error as well if a run did not come to its end."""
        ended = {outcome for counts in self.cells.values() for outcome, n in counts.items() if n}
        cut: set[Outcome] = {"error"} if any(part.ends for part in self.parts) else set()
        return worst(ended | cut)


def read(path: Path) -> Part:
    """A part: a repeat.json, a mutants.json, or the folder of one; alone it may have any name.

    UsageError names the file if it cannot be read, is no such record, or is of another schema.
    """
    file = _record_in(path) if path.is_dir() else path
    try:
        return _part(file, file.read_bytes())
    except OSError as exc:
        raise UsageError(f"{file}: {exc.strerror}") from exc
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        words = f"{where}: {first['msg']}" if where else first["msg"]
        raise UsageError(f"{file}: {NO_RECORD}: {words}") from exc
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"{file}: {exc}") from exc


def _record_in(folder: Path) -> Path:
    for name in (NAME, MUTANTS):
        if (folder / name).is_file():
            return folder / name
    raise UsageError(f"{folder}: there is no {NAME} in it, and no {MUTANTS}")


def _part(file: Path, data: bytes) -> Part:
    value = json.loads(data)
    # Both records have a schema, and what holds their outcomes.
    if not isinstance(value, dict) or "schema" not in value or not {"runs", "results"} & set(value):
        raise ValueError(NO_RECORD)
    if value["schema"] != SCHEMA:
        raise ValueError(f"schema {value['schema']!r}: this version reads schema {SCHEMA}")
    if "results" in value:
        return of_mutants.part(file, Matrix.model_validate_json(data))
    return of_repeat.part(file, Repeat.model_validate_json(data, extra="ignore"))


def join(parts: Sequence[Part]) -> Joined:
    """The sum of the parts; UsageError if two of them tell of the same run."""
    seen: dict[Hashable, Part] = {}
    for part in parts:
        if twice := part.marks & set(seen):
            other = seen[next(iter(twice))]
            raise UsageError(f"{other.file} and {part.file} tell of the same runs")
        seen |= dict.fromkeys(part.marks, part)
    cells: dict[Kind, Tally] = {}
    checks: dict[str, Tally] = {}
    runs: Counter[Subject] = Counter()
    seeds: dict[Subject, frozenset[int]] = {}
    for part in parts:
        for kind, counts in part.cells.items():
            cells.setdefault(kind, Counter()).update(counts)
        for check, counts in part.checks.items():
            checks.setdefault(check, Counter()).update(counts)
        runs.update(part.runs)
        for subject, own in part.seeds.items():
            seeds[subject] = seeds.get(subject, frozenset()) | own
    ordered = tuple(sorted(parts, key=lambda part: part.started))
    return Joined(ordered, cells, checks, dict(runs), seeds)


def _order(subject: Subject) -> tuple[str | bool, ...]:
    flavor = subject.flavor != "plain"
    rest = (subject.digest, subject.source, subject.version, subject.flavor)
    return (subject.series, subject.neutral, flavor, subject.checks, *rest)
