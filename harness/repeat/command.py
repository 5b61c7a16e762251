# SPDX-License-Identifier: GPL-2.0-only
"""Run a sound kernel's checks many times over: what a false alarm rate is measured with."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness import __version__, runinput
from harness.errors import HarnessError, UsageError
from harness.options import Options
from harness.printable import clip, one_line, printable
from harness.progress import Progress
from harness.records import write_atomically
from harness.repeat import report
from harness.repeat.join import Joined, join, read
from harness.repeat.report import columns
from harness.repeat.results import NAME, SCHEMA, Place, Repeat, Repetition, Trouble
from harness.results import Host, Kernel, Outcome, Summary
from harness.run import Run
from harness.runfolder import make_run_folder
from harness.verdict import EXIT_CODES, worst

# Runs in a row that ended in an error of the harness or the machine: the next would as well.
MAX_ERRORS = 3
# What a record keeps of a check's words: what it is, not all of it, which the run's folder has.
MAX_WORDS = 300


def repeat(options: Options, count: int, progress: Progress) -> int:
    """Do `count` runs, each recorded in a folder of its own and with its own seed (the first one's
    plus 0, 1, 2 ...), and tell how they ended: of the base kernel alone, if no series is named.

    A run that an InfraError ends counts as `error`, and the next goes on; MAX_ERRORS in a row end
    it. The tally is shown and in repeat.json however it ends. Returns the exit code of the worst
    verdict. A failure of a kernel that is sound is a false alarm. InputChanged ends it where a
    run's kernels are no longer those of the first: that run is not counted.
    """
    parent = make_run_folder(options.output)
    base_only = options.base_only or not options.series
    options = replace(options, base_only=base_only, output=parent)
    tally = _Tally(count, options)
    reason = ""
    try:
        reason = _all(options, count, progress, tally)
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
        write_atomically(parent / NAME, record)
        progress.console.print()
        for line in describe(record):
            progress.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
        progress.console.print(str(parent), markup=False, highlight=False, soft_wrap=True)
    return EXIT_CODES[record.verdict]


def joined(records: Sequence[Path], target: Path | None, progress: Progress) -> Joined:
    """Show what several records come to together, and write it down where that is asked for.

    Nothing is run. UsageError names a record that cannot be used, or two that tell of one run.
    """
    found = join([read(record) for record in records])
    for line in report.describe(found):
        progress.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
    if target is not None:
        try:
            target.write_text(report.markdown(found), encoding="utf-8")
        except OSError as exc:
            raise UsageError(f"--markdown {target}: {exc.strerror}") from exc
    return found


def _all(options: Options, count: int, progress: Progress, tally: _Tally) -> str:
    """Do the runs; returns why they ended early, "" if they did not."""
    assert options.output is not None
    errors = 0
    for number in range(count):
        error = _one(replace(options, seed=options.seed + number), progress, tally)
        errors = errors + 1 if error else 0
        progress.say(f"{number + 1} of {count}: {_words(tally.verdicts())}")
        write_atomically(options.output / NAME, tally.record("the runs are not over yet"))
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

    def __init__(self, count: int, options: Options) -> None:
        self._count = count
        self._options = options
        self._clock = time.monotonic()
        self._started = runinput.now()
        # Of a run that ended early there may be less than of the others.
        self._first: dict[str, str] = {}
        self._series = ""
        self._only: tuple[str, ...] = ()
        self._digests: dict[str, None] = {}
        self._emulated = False
        self._emulators: dict[str, None] = {}
        self._kernels: dict[str, Kernel] = {}
        self._hosts: dict[str, Host] = {}
        self._runs: list[Repetition] = []
        self._checks: dict[str, dict[str, Counter[Outcome]]] = {}
        self._cells: dict[str, Counter[Outcome]] = {}
        self._places: dict[str, Place] = {}
        self._troubles: list[Trouble] = []

    def add(self, seed: int, folder: str, summary: Summary | None, reason: str) -> None:
        """Count a run; one without a summary is an error. InputChanged for one of other kernels."""
        if summary is not None:
            self._agree(summary)
            self._count_in(summary)
        verdict = "error" if summary is None else summary.verdict
        self._runs.append(Repetition(seed=seed, folder=folder, verdict=verdict, reason=reason))

    def _agree(self, summary: Summary) -> None:
        """Note what the run is made from: a tally of two kernels would say nothing of either."""
        found = {"series": summary.series_digest} if summary.series else {}
        kernels = {_name(kernel): kernel for kernel in summary.kernels}
        found |= {name: f"{one.version}, {one.build_id}" for name, one in kernels.items()}
        changed = [
            f"{name}: {self._first[name]} then, {value} now"
            for name, value in found.items()
            if self._first.get(name, value) != value
        ]
        if changed:
            raise runinput.InputChanged(
                f"the runs are not alike any more, and the last is not counted: "
                f"{'; '.join(changed)}"
            )
        self._first |= found
        self._kernels = kernels | self._kernels

    def _count_in(self, summary: Summary) -> None:
        self._series = summary.series or self._series
        self._only = summary.only or self._only
        self._digests |= dict.fromkeys(filter(None, [summary.harness_digest]))
        self._emulated |= summary.emulated
        self._emulators |= dict.fromkeys(filter(None, [summary.emulator]))
        self._hosts |= {host.name: host for host in summary.hosts}
        for cell in summary.cells:
            self._cells.setdefault(cell.id, Counter())[cell.outcome] += 1
            self._places[cell.id] = Place(
                kernel=cell.kernel,
                host=cell.host,
                kvm_mode=cell.kvm_mode,
                af_mode=cell.af_mode,
                variant=cell.variant,
            )
        for check in summary.checks:
            by_cell = self._checks.setdefault(check.name, {})
            by_cell.setdefault(check.cell, Counter())[check.outcome] += 1
        self._troubles += troubles(summary)

    def verdicts(self) -> Counter[Outcome]:
        """How many runs ended with each verdict."""
        return Counter(run.verdict for run in self._runs)

    def record(self, reason: str) -> Repeat:
        """All of it."""
        options = self._options
        return Repeat(
            schema=SCHEMA,
            harness=__version__,
            harness_digests=tuple(self._digests),
            count=self._count,
            reason=reason,
            series=self._series,
            series_digest=self._first.get("series", ""),
            debug=options.debug,
            only=self._only,
            marks=_given("-m", options),
            names=_given("-k", options),
            own_checks=bool(options.checks),
            selftests=options.selftests,
            linux_guest=options.linux_guest,
            started=self._started,
            seconds=round(time.monotonic() - self._clock, 1),
            emulated=self._emulated,
            emulators=tuple(self._emulators),
            kernels=tuple(self._kernels.values()),
            hosts=tuple(self._hosts.values()),
            seeds=tuple(run.seed for run in self._runs),
            runs=tuple(self._runs),
            verdict=worst([run.verdict for run in self._runs]),
            places=self._places,
            cells={cell: dict(counts) for cell, counts in self._cells.items()},
            checks={
                name: {cell: dict(counts) for cell, counts in by_cell.items()}
                for name, by_cell in self._checks.items()
            },
            troubles=tuple(self._troubles),
        )


def troubles(summary: Summary) -> Iterator[Trouble]:
    """What of a run neither passed nor was skipped: checks, and cells that end so by themselves."""
    told = set()
    for check in summary.checks:
        if check.outcome not in ("pass", "skip"):
            told.add(check.cell)
            yield Trouble(
                seed=summary.seed,
                cell=check.cell,
                name=check.name,
                outcome=check.outcome,
                observed=_short(check.observed),
                reason=_short(check.reason),
            )
    for cell in summary.cells:
        if cell.outcome not in ("pass", "skip") and (cell.reason or cell.id not in told):
            yield Trouble(
                seed=summary.seed,
                cell=cell.id,
                name="",
                outcome=cell.outcome,
                reason=_short(cell.reason),
            )


def _short(text: str) -> str:
    return clip(one_line(text), MAX_WORDS)


def _given(option: str, options: Options) -> str:
    """What an option of pytest was given, "" if it was not."""
    args = options.pytest_args
    return args[args.index(option) + 1] if option in args else ""


def _name(kernel: Kernel) -> str:
    return " ".join((kernel.label, *kernel.hosts))


def describe(record: Repeat) -> list[str]:
    """The tally in words: each check over all runs, and where it did not pass."""
    width = max((len(name) for name in record.checks), default=0)
    lines = []
    for name, by_cell in record.checks.items():
        total: Counter[Outcome] = Counter()
        for counts in by_cell.values():
            total.update(counts)
        lines.append(f"{name:{width}}  {columns(total)}")
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
    verdicts: Counter[Outcome] = Counter(run.verdict for run in record.runs)
    early = f" of {record.count} ({record.reason})" if record.reason else ""
    return [*lines, f"{done} runs{early}: {_words(verdicts) or 'none ended'}"]


def _words(counts: Mapping[Outcome, int]) -> str:
    return ", ".join(f"{number} {verdict}" for verdict, number in sorted(counts.items()))
