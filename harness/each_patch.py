# SPDX-License-Identifier: GPL-2.0-only
"""Walk a series patch by patch: which is the first that breaks the kernel?

Each step is a run of its own with the first patches of the series, built upon the base's build
folder and held against one run of the base.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness import inventory, prepare
from harness.contract_load import load as load_contract
from harness.deadline import Deadline
from harness.errors import EXIT_FAIL, EXIT_PASS, EXIT_UNPROVEN, HarnessError, UsageError
from harness.kernel import series as series_module
from harness.kernel.build import KernelBuildError
from harness.kernel.config import ConfigError
from harness.kernel.series import Series, prefix
from harness.kernel.source import resolve
from harness.options import Options
from harness.plan import plan
from harness.progress import Progress
from harness.records import write_atomically
from harness.report.each_patch import each_patch_report
from harness.report.text import text_report
from harness.results import EachPatch, Finding, PatchRecord, Summary
from harness.run import Run, Step, load_series, require_named
from harness.runfolder import make_run_folder
from harness.verdict import Verdict

# Unless the user selects: what shows most in the least time.
QUICK = ("-m", "quick")
INDEX = "each-patch.json"
EXIT_CODES: dict[Finding, int] = {"good": EXIT_PASS, "bad": EXIT_FAIL, "unknown": EXIT_UNPROVEN}
_FINDINGS: dict[Verdict, Finding] = {
    "pass": "good",
    "fail": "bad",
    "error": "unknown",
    "unproven": "unknown",
}


class EachPatchRun:
    """The walk and its folder, which has one run folder for the base and one for each patch."""

    def __init__(self, options: Options, progress: Progress) -> None:
        if options.base_only:
            raise UsageError("--each-patch walks a series, --base-only has none")
        require_named(options)
        quick = () if options.narrowed else QUICK
        self.folder = make_run_folder(options.output)
        self._options = replace(
            options, output=self.folder, pytest_args=(*options.pytest_args, *quick), junitxml=None
        )
        self._progress = progress
        self._records: list[PatchRecord] = []
        self._worst: Summary | None = None

    def execute(self) -> EachPatch:
        """Walk to the first patch that breaks the kernel, or to the end, and show what was found.

        UsageError before any kernel is built if a patch does not apply, and it names that.

        each-patch.json is there however it ends, and says why if that was early.
        """
        series = load_series(self._options)
        self._progress.say(f"{len(series.patches)} patches of {series.name}: {self.folder}")
        index = EachPatch(
            schema=1, series=series.name, series_digest=series.digest, seed=self._options.seed,
            count=len(series.patches), reason="the walk is not over yet",
        )  # fmt: skip
        try:
            self._refuse(series)
            index = self._walk(series, index)
        except (KeyboardInterrupt, Exception) as exc:
            early = isinstance(exc, KeyboardInterrupt)
            index = self._write(index, "interrupted" if early else str(exc) or type(exc).__name__)
            if index.patches:
                self._show(index)
            raise
        self._show(index)
        return index

    def _refuse(self, series: Series) -> None:
        """Refuse what a step would be refused for, before the base is built and booted.

        If the whole series applies, patch by patch, so do the first patches of it.
        """
        options = self._options
        stock = inventory.load(options.inventory)
        plan(stock, None, hosts=options.hosts, kvm_modes=options.kvm_modes, base_only=True)
        contract = load_contract(series.contract)
        series_module.check_message_id(series, contract.message_id)
        with self._progress.stage("kernel source"):
            source = resolve(
                options.source or stock.defaults.source, Deadline(prepare.SOURCE_SECONDS)
            )
        series_module.check_base(series, source, allow_other_base=options.allow_other_base)
        prepare.patched_tree(series, source, self._progress)

    def _walk(self, series: Series, index: EachPatch) -> EachPatch:
        of_base = replace(self._options, base_only=True, series=(), mbox=None)
        base_run = Run(of_base, self._progress)
        base = base_run.execute(show=False)
        index = index.model_copy(
            update={"base_folder": base_run.folder.name, "base_verdict": base.verdict}
        )
        if base.verdict != "pass":
            self._worst = base
            why = "the kernel without the series does not pass, so nothing can be said of a patch"
            return self._write(index, why)
        for number in range(1, len(series.patches) + 1):
            record = self._step(series, number, base, base_run.folder)
            self._records.append(record)
            self._progress.say(f"patch {number} of {len(series.patches)}: {record.finding}")
            index = self._write(index, index.reason)
            if record.finding == "bad":
                break
        return self._write(index, "")

    def _step(self, series: Series, number: int, base: Summary, base_folder: Path) -> PatchRecord:
        """The kernel with the patches up to this one."""
        step = Step(prefix(series, number), number == len(series.patches), base, base_folder)
        run = Run(self._options, self._progress, step)
        record = PatchRecord(
            number=number,
            subject=series.patches[number - 1].subject,
            origin=series.patches[number - 1].origin,
            folder=run.folder.name,
            finding="unknown",
        )
        try:
            summary = run.execute(show=False)
        except KernelBuildError as exc:
            reason = f"it does not compile: {exc.first_error}"
            return record.model_copy(update={"finding": "bad", "reason": reason})
        except ConfigError as exc:
            return record.model_copy(update={"finding": "bad", "reason": str(exc)})
        except UsageError:
            # No other step would do better.
            raise
        except HarnessError as exc:
            # A failure that was proven before the trouble began stays one.
            finding = "bad" if run.verdict == "fail" else "unknown"
            return record.model_copy(update={"finding": finding, "reason": str(exc)})
        finding = _FINDINGS[summary.verdict]
        self._worst = summary if finding != "good" else self._worst
        found = {"finding": finding, "reason": why(summary), "seconds": summary.seconds}
        return record.model_copy(update=found)

    def _show(self, index: EachPatch) -> None:
        """What has been found, the table last."""
        self._progress.console.print()
        if self._worst is not None:
            self._progress.console.print(text_report(self._worst))
            self._progress.console.print()
        self._progress.console.print(each_patch_report(index))

    def _write(self, index: EachPatch, reason: str) -> EachPatch:
        index = conclude(index, tuple(self._records), reason)
        write_atomically(self.folder / INDEX, index)
        return index


def conclude(index: EachPatch, records: tuple[PatchRecord, ...], reason: str) -> EachPatch:
    """The index with what the patches up to now amount to: one that is bad makes it bad."""
    findings = [record.finding for record in records]
    verdict: Finding = "unknown"
    if "bad" in findings:
        verdict = "bad"
    elif findings == ["good"] * index.count and not reason:
        verdict = "good"
    first = next((record.number for record in records if record.finding == "bad"), None)
    update = {"patches": records, "first_bad": first, "verdict": verdict, "reason": reason}
    return index.model_copy(update=update)


def why(summary: Summary) -> str:
    """What is not as it should be with the patched kernel, in a line; "" for a pass."""
    patched = {cell.id for cell in summary.cells if cell.kernel == "patched"}
    for outcome in ("fail", "error", "unproven"):
        for check in summary.checks:
            if check.cell in patched and check.outcome == outcome:
                return f"{check.name} in {check.cell}: {outcome}: {check.reason}"
        for cell in summary.cells:
            if cell.id in patched and cell.outcome == outcome:
                return f"{cell.id}: {outcome}: {cell.reason}"
    return summary.reason
