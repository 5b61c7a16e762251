# SPDX-License-Identifier: GPL-2.0-only
"""What is known of a run so far, and its summary.json and junit.xml."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from harness import __version__, resume, spread, verdict
from harness.cost import measure as cost
from harness.kernel.series import Series
from harness.records import write_atomically
from harness.report.junit import junit
from harness.results import Cell, Check, Host, Kernel, SeriesBase, Summary
from harness.runinput import RunInput
from harness.timing.judge import Times
from harness.verdict import Verdict


@dataclass
class RunRecord:
    """What is known of a run so far; what has the name of a key of Summary is that."""

    folder: Path
    seed: int
    debug: bool
    cells: list[Cell]
    checks: list[Check]
    whole: bool = False
    only: tuple[str, ...] = ()
    series_checks: tuple[Check, ...] = ()
    costs: cost.Found = field(default_factory=cost.Found)
    times: Times = field(default_factory=Times)
    kernels: list[Kernel] = field(default_factory=list)
    series: Series | None = None
    message_id: str = ""
    series_base: SeriesBase = ""
    emulator: str = ""
    emulated: bool = False
    hosts: tuple[Host, ...] = ()
    notes: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def judged(self) -> tuple[tuple[Cell, ...], tuple[Check, ...]]:
        """The cells and their checks, weighed against each other."""
        return verdict.judge(self.cells, self.checks)

    @property
    def beside(self) -> tuple[Check, ...]:
        """The checks that no cell makes."""
        return (*self.series_checks, *self.costs.checks)

    @property
    def verdict(self) -> Verdict:
        """What the cells that ran so far amount to."""
        return verdict.of_run(self.judged()[0], self.beside)

    @property
    def of_patched(self) -> Verdict:
        """What they say of the patched kernel alone; of all, in a run without one."""
        if self.series is None:
            return self.verdict
        cells, checks = self.judged()
        return verdict.of_patched(cells, (*checks, *self.beside))

    def write(self, reason: str, given: RunInput) -> Summary:
        """Write summary.json and junit.xml; `reason` is why the run ended early, if it did.

        `given` is what the run is made from.
        """
        cells, checks = self.judged()
        found = verdict.of_run(cells, self.beside)
        if reason and found != "fail":
            found = "error"
        series = self.series
        notes = (*self.notes, *spread.notes(cells), *self.times.notes, *self.costs.notes)
        if verdict.only_base_failed(cells):
            notes += ("only the base kernel failed: the series may be the repair",)
        if verdict.nothing_new(cells, checks):
            notes += ("all that failed with the series failed the same way without it",)
        summary = Summary(
            schema=1,
            harness=__version__,
            harness_digest=given.inputs.get("harness", "").removeprefix(f"{__version__}, "),
            verdict=found,
            reason=reason,
            series=series.name if series else "",
            series_digest=series.digest if series else "",
            message_id=self.message_id,
            subject=series.subject if series else "",
            patches=tuple(patch.subject for patch in series.patches) if series else (),
            whole=self.whole,
            only=self.only,
            series_base=self.series_base,
            seed=self.seed,
            started=given.started,
            resumed=given.resumed,
            seconds=round(time.monotonic() - self.began, 3),
            emulated=self.emulated,
            emulator=self.emulator,
            debug=self.debug,
            notes=notes,
            kernels=tuple(self.kernels),
            hosts=self.hosts,
            cells=cells,
            checks=(*self.beside, *checks),
            figures=(*self.costs.figures, *self.times.figures),
        )
        write_atomically(self.folder / resume.SUMMARY, summary)
        (self.folder / "junit.xml").write_text(junit(summary), encoding="utf-8")
        return summary
