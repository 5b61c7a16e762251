# SPDX-License-Identifier: GPL-2.0-only
"""Run a sound kernel's checks many times over: what a false alarm rate is measured with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import HarnessError, UsageError
from harness.options import Options
from harness.printable import printable
from harness.progress import Progress
from harness.records import write_atomically
from harness.results import Summary
from harness.run import Run
from harness.runfolder import make_run_folder
from harness.verdict import EXIT_CODES, Verdict, worst

SCHEMA = 1
# Runs in a row that ended in an error of the harness or the machine: the next would as well.
MAX_ERRORS = 3

Counts = dict[str, int]
"""Outcome -> how often it was."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Repetition(_Model):
    """One of the runs: its seed, its folder beside repeat.json ("" if there is none), its end."""

    seed: int
    folder: str
    verdict: Verdict
    reason: str = ""


class Repeat(_Model):
    """repeat.json: all runs so far (docs/summary.md)."""

    schema_version: int = Field(default=SCHEMA, alias="schema", serialization_alias="schema")
    count: int
    """Runs that were asked for."""
    reason: str
    """Why there are fewer, "" if there are not."""
    seeds: tuple[int, ...]
    runs: tuple[Repetition, ...]
    verdict: Verdict
    checks: dict[str, dict[str, Counts]]
    """Name of a check -> cell -> outcomes."""
    cells: dict[str, Counts]
    """Cell -> outcomes."""


def repeat(options: Options, count: int, progress: Progress) -> int:
    """Do `count` runs, each recorded in a folder of its own and with its own seed (the first one's
    plus 0, 1, 2 ...), and tell how they ended: of the base kernel alone, if no series is named.

    A run that an InfraError ends counts as `error`, and the next goes on; MAX_ERRORS in a row end
    it. The tally is shown and in repeat.json however it ends. Returns the exit code of the worst
    verdict. A failure of a kernel that is sound is a false alarm.
    """
    base_only = options.base_only or not options.series
    parent = make_run_folder(options.output)
    tally = _Tally(count)
    reason = ""
    try:
        reason = _all(replace(options, base_only=base_only, output=parent), count, progress, tally)
    except KeyboardInterrupt:
        reason = "interrupted"
        raise
    except HarnessError as exc:
        reason = str(exc)
        raise
    except Exception as exc:
        reason = f"{type(exc).__name__}: {exc}"
        raise
    finally:
        record = tally.record(reason)
        write_atomically(parent / "repeat.json", record)
        progress.console.print()
        for line in describe(record):
            progress.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
        progress.console.print(str(parent), markup=False, highlight=False, soft_wrap=True)
    return EXIT_CODES[record.verdict]


def _all(options: Options, count: int, progress: Progress, tally: _Tally) -> str:
    """Do the runs; returns why they ended early, "" if they did not."""
    assert options.output is not None
    errors = 0
    for number in range(count):
        error = _one(replace(options, seed=options.seed + number), progress, tally)
        errors = errors + 1 if error else 0
        progress.say(f"{number + 1} of {count}: {_words(tally.verdicts())}")
        write_atomically(options.output / "repeat.json", tally.record("the runs are not over yet"))
        if errors == MAX_ERRORS and number + 1 < count:
            return f"{MAX_ERRORS} runs in a row ended in an error, the last: {error}"
    return ""


def _one(options: Options, progress: Progress, tally: _Tally) -> str:
    """Do one run; returns the error that ended it, "" for none."""
    run: Run | None = None
    try:
        run = Run(options, progress)
        summary = run.execute()
    except UsageError:
        raise
    except HarnessError as exc:
        progress.say(f"error: {exc}")
        # What its cells showed before that is in its summary; a failure among it stays one.
        path = run.folder / "summary.json" if run is not None else None
        shown = _read(path) if path is not None and path.is_file() else None
        tally.add(options.seed, run.folder.name if run is not None else "", shown, str(exc))
        return str(exc)
    tally.add(options.seed, run.folder.name, summary, summary.reason)
    return ""


def _read(path: Path) -> Summary:
    return Summary.model_validate_json(path.read_text(encoding="utf-8"))


class _Tally:
    """Counts what the runs showed."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._runs: list[Repetition] = []
        self._checks: dict[str, dict[str, Counter[str]]] = {}
        self._cells: dict[str, Counter[str]] = {}

    def add(self, seed: int, folder: str, summary: Summary | None, reason: str) -> None:
        """Count a run; one without a summary is an error."""
        verdict = "error" if summary is None else summary.verdict
        self._runs.append(Repetition(seed=seed, folder=folder, verdict=verdict, reason=reason))
        for cell in summary.cells if summary else ():
            self._cells.setdefault(cell.id, Counter())[cell.outcome] += 1
        for check in summary.checks if summary else ():
            by_cell = self._checks.setdefault(check.name, {})
            by_cell.setdefault(check.cell, Counter())[check.outcome] += 1

    def verdicts(self) -> Counter[str]:
        """How many runs ended with each verdict."""
        return Counter(run.verdict for run in self._runs)

    def record(self, reason: str) -> Repeat:
        """All of it."""
        return Repeat(
            schema=SCHEMA,
            count=self._count,
            reason=reason,
            seeds=tuple(run.seed for run in self._runs),
            runs=tuple(self._runs),
            verdict=worst([run.verdict for run in self._runs]),
            checks={
                name: {cell: dict(counts) for cell, counts in by_cell.items()}
                for name, by_cell in self._checks.items()
            },
            cells={cell: dict(counts) for cell, counts in self._cells.items()},
        )


def describe(record: Repeat) -> list[str]:
    """The tally in words: each check over all runs, and where it did not pass."""
    width = max((len(name) for name in record.checks), default=0)
    lines = []
    for name, by_cell in record.checks.items():
        total: Counter[str] = Counter()
        for counts in by_cell.values():
            total.update(counts)
        lines.append(f"{name:{width}}  {_columns(total)}")
        for cell, counts in by_cell.items():
            trouble = {kind: n for kind, n in counts.items() if kind not in ("pass", "skip")}
            if trouble:
                lines.append(f"{'':{width}}  in {cell}: {_words(trouble)}")
    lines += [
        f"seed {run.seed} ({run.folder or 'no folder'}): {run.verdict}"
        + (f": {run.reason}" if run.reason else "")
        for run in record.runs
        if run.verdict != "pass"
    ]
    done = len(record.runs)
    verdicts: Counter[str] = Counter(run.verdict for run in record.runs)
    early = f" of {record.count} ({record.reason})" if record.reason else ""
    return [*lines, f"{done} runs{early}: {_words(verdicts) or 'none ended'}"]


def _columns(counts: Counter[str]) -> str:
    kinds: Sequence[str] = ("pass", "fail", "error", "unproven")
    columns = "  ".join(f"{counts[kind]:5} {kind}" for kind in kinds)
    return columns + (f"  {counts['skip']:5} skip" if counts["skip"] else "")


def _words(counts: Counter[str] | Counts) -> str:
    return ", ".join(f"{number} {verdict}" for verdict, number in sorted(counts.items()))
