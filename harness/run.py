# SPDX-License-Identifier: GPL-2.0-only
"""One run, whole: resolve, build, boot, check, judge, record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from harness import (
    decode,
    inputs,
    inventory,
    prepare,
    resume,
    runinput,
    selection,
    spread,
)
from harness.build_kernels import build_kernels, guest_kernel
from harness.cell import CellSpec
from harness.cell_specs import CellSpecs
from harness.contract import Contract
from harness.contract_load import load as load_contract
from harness.cost.of_run import count
from harness.deadline import Deadline
from harness.decode_run import decoded, with_lines
from harness.errors import UsageError
from harness.hosts import qemu
from harness.inventory import Inventory, QemuHost, SshHost
from harness.kernel import series as series_module
from harness.kernel.apply import PatchedTree
from harness.kernel.flavor import DEBUG, PLAIN
from harness.kernel.series import Series
from harness.kernel.source import Source
from harness.machines import Machines
from harness.options import Options
from harness.plan import PlannedCell, left_out, not_booted, not_used, plan
from harness.prepared import Prepared, inputs_of
from harness.progress import Progress
from harness.recipes import Recipe, recipes
from harness.records import append, number, read
from harness.report.junit import junit
from harness.report.text import text_report
from harness.results import Cell, Check, KernelLabel, Summary
from harness.runfolder import link_evidence, make_run_folder
from harness.runinput import RunInput
from harness.runrecord import RunRecord
from harness.scheduler import run_cells
from harness.series_base import contract_notes, series_base
from harness.series_builds import SERIES_BUILDS, SeriesBuild, build_of_series
from harness.timing import SELFTEST_CHECKS
from harness.timing import judge as timing
from harness.timing.rounds import boots

# Run-wide checks, beside those of the cells.
RECORDS = "records.jsonl"
UNTRIED = "The harness has never run on arm64 hardware in the hands of its authors"
DEBUG_NOTE = "debug kernels: KASAN, lockdep, RCU checks, page poisoning (kernel-configs/debug)"


@dataclass(frozen=True)
class Step:
    """The first patches of a series, as a series of their own, and the run of the base before it.

    Where they are not the whole, a driver may keep the base's promise or that of the series; the
    series' boot variants, which need not exist yet, are left out.
    """

    series: Series
    whole: bool
    base: Summary
    base_folder: Path


_OPTIONS = TypeAdapter(Options)


class Run:
    """A run and its folder. After every cell summary.json says what is known so far.

    run.json says what it is made from, so that resumed() can take it up again; a step of a walk
    along a series has none, since it is made from another run as well.
    """

    def __init__(
        self,
        options: Options,
        progress: Progress,
        step: Step | None = None,
        earlier: tuple[Path, RunInput] | None = None,
    ) -> None:
        self._options = options
        self._step = step
        self._flavor = DEBUG if options.debug else PLAIN
        self._progress = progress
        self._recipes: tuple[Recipe, ...] = ()
        self._names: tuple[str, ...] = ()
        self._goes_on = earlier is not None
        # A run that is resumed is left as it was until it is known to go on.
        self._untouched = self._goes_on
        if earlier is not None:
            self.folder, self._input = earlier
        else:
            self.folder = make_run_folder(options.output)
            if step is not None:
                link_evidence(step.base_folder, self.folder)
            self._input = runinput.begin(_OPTIONS.dump_python(options, mode="json"))
            self._agree({})
        self._record = RunRecord(
            self.folder,
            seed=options.seed,
            debug=options.debug,
            cells=list(step.base.cells) if step else [],
            checks=list(step.base.checks) if step else [],
        )
        self.specs: tuple[CellSpec, ...] = ()

    @classmethod
    def resumed(cls, name: str, progress: Progress, *, jobs: int, junitxml: Path | None) -> Run:
        """The run of that name or folder, to go on where it was killed.

        Paths among its options are relative to where it was started, so the process goes there.
        UsageError if there is no such run or no such place any more.
        """
        folder, found = runinput.load(name)
        # Before all else: another version may have other options.
        found.agreed({"harness": runinput.harness()})
        options = _OPTIONS.validate_python(found.options)
        options = replace(options, junitxml=junitxml or options.junitxml, jobs=jobs or options.jobs)
        try:
            os.chdir(found.cwd)
        except OSError as exc:
            raise UsageError(f"the run was started in {found.cwd}: {exc.strerror}") from exc
        return cls(options, progress, earlier=(folder, found))

    def _take_up(self) -> None:
        """Take the records of a run that was killed for what has been done of this one.

        The first that is written to its folder: all that could be refused has been by now.
        """
        for folder in sorted((self.folder / "cells").iterdir()):
            cell, checks = resume.recorded(folder)
            if cell is not None:
                self._record.cells.append(cell)
                self._record.checks += checks
        of_series = read(self.folder / RECORDS)
        self._record.series_checks = tuple(one for one in of_series if isinstance(one, Check))
        again = {"resumed": (*self._input.resumed, runinput.now())}
        self._input = self._input.model_copy(update=again)
        self._untouched = False
        self._machines.keep(self.folder)
        self._agree({})

    def _agree(self, found: Mapping[str, str]) -> None:
        """Write down what the run is made from; InputChanged if that is not what it was."""
        self._input = self._input.agreed(found)
        if self._step is None and not self._untouched:
            runinput.save(self.folder, self._input)

    @property
    def stages(self) -> Mapping[str, float]:
        """Seconds that each stage took."""
        return self._progress.stages

    @property
    def _whole(self) -> bool:
        """Whether all patches of the series are there, so that its contract holds."""
        return self._step is None or self._step.whole

    @property
    def verdict(self) -> str:
        """What the cells that ran so far amount to."""
        return self._record.verdict

    @property
    def of_patched(self) -> str:
        """What they say of the patched kernel alone; of all, in a run without one."""
        return self._record.of_patched

    def execute(self, *, show: bool = True) -> Summary:
        """Do all of it and show the report, unless that is not wanted.

        Errors that end a run early are recorded before they are raised. A run that had ended is
        shown as it stands.
        """
        self._progress.say(f"run folder: {self.folder}")
        with runinput.alone(self.folder) as self._lock:
            ended = resume.ended(self.folder) if self._goes_on else None
            summary = ended or self._execute_recorded()
        if show:
            self._progress.console.print()
            self._progress.console.print(text_report(summary))
        if self._options.junitxml is not None:
            self._copy_junit(self._options.junitxml, summary)
        return summary

    def _execute_recorded(self) -> Summary:
        try:
            return self._execute()
        except (KeyboardInterrupt, Exception) as exc:
            if not self._untouched:
                early = isinstance(exc, KeyboardInterrupt)
                self._write("interrupted" if early else str(exc) or type(exc).__name__)
            raise

    def _copy_junit(self, target: Path, summary: Summary) -> None:
        try:
            target.write_text(junit(summary), encoding="utf-8")
        except OSError as exc:
            raise UsageError(f"--junitxml {target}: {exc.strerror}") from exc

    def _execute(self) -> Summary:
        options = self._options
        stock = inventory.load(options.inventory)
        missing = self._narrow(stock)
        require_named(options)
        series = self._step.series if self._step else None
        if series is None and not options.base_only:
            series = load_series(options, stock)
        self._record.series = series
        contract = load_contract(series.contract if series else None)
        if series is not None:
            note = series_module.check_message_id(series, contract.message_id)
            self._record.notes += [note] if note else []
            # Of the mails alone: nobody may be told in a thread that its patches were tested
            # because a contract is named after it.
            self._record.message_id = series.message_id or ""
        self._look_at_machines(stock)
        of_whole = contract if series and self._whole else None
        cells = plan(
            stock,
            of_whole,
            hosts=options.hosts,
            kvm_modes=options.kvm_modes,
            base_only=options.base_only,
            cmdline=self._flavor.cmdline,
        )
        if options.timing is not None:
            cells = boots(cells, options.seed, options.timing)
        self._record.hosts = self._machines.records(cells)
        # The base's have run already.
        cells = tuple(cell for cell in cells if not (self._step and cell.kernel == "base"))
        version = self._look_at_hosts(cells)
        self._agree(inputs.chosen(stock, series, options.checks, version))
        self._record.notes += not_used(stock, options.hosts)
        # Variants are not timed anywhere.
        self._record.notes += () if options.timing else not_booted(stock, of_whole, cells)
        self._record.notes += [DEBUG_NOTE] if options.debug else []
        self._record.notes += options.narrowing(missing)
        self._record.notes += options.not_looked_at(contract)
        self._names = () if options.costs_only else _check_selection(options)
        if options.junitxml is not None and not options.junitxml.resolve().parent.is_dir():
            raise UsageError(f"--junitxml {options.junitxml}: no such folder")
        prepared = self._prepare(stock, series, contract, here=bool(version))
        self._agree(inputs_of(prepared))
        if self._goes_on:
            self._take_up()
        if prepared.patched is not None and not options.narrowed:
            self._check_series(prepared.ground.source, prepared.patched)
        self._write("the cells have not all run yet")
        if not options.costs_only:
            self._run_cells(stock, cells, prepared)
            self._decode(prepared)
        self._record.costs = count(
            stock,
            cells,
            prepared,
            contract if series else None,
            self.folder,
            self._progress,
            options,
        )
        if options.timing is not None:
            self._time(cells)
        return self._write("")

    # ---- before the cells -------------------------------------------------------------------

    def _narrow(self, stock: Inventory) -> tuple[str, ...]:
        """Note whether all that there is to test is tested, and if not, to what it is narrowed.

        Returns the hosts that are left out.
        """
        options, step = self._options, self._step
        missing = left_out(stock, options.hosts)
        first = len(step.series.patches) if step is not None and not step.whole else 0
        self._record.whole = self._whole and not (missing or options.narrowing(missing))
        self._record.only = (
            *options.only(missing),
            *((f"only the patches up to {first}",) if first else ()),
        )
        return missing

    def _look_at_machines(self, stock: Inventory) -> None:
        """Before anything is built: that all which are needed are fit, and what they have."""
        options = self._options
        self._machines = Machines(
            stock,
            options.hosts,
            self.folder.name,
            options.wait,
            self._progress,
            self._record.notes.append,
        )
        self._machines.look(self._step.base_folder if self._step is not None else self.folder)
        if not self._untouched:
            self._machines.keep(self.folder)
        own = self._machines.own
        self._agree({f"configuration of {name}": one.digest for name, one in own.items()})

    def _look_at_hosts(self, cells: Sequence[PlannedCell]) -> str:
        """Note what kinds of hosts there are, and what kernels they need.

        Returns the version of the QEMU that emulates hosts here, "" if none does.
        """
        hosts = self._machines.of(cells)
        here = any(isinstance(host, QemuHost) for host in hosts.values())
        elsewhere = self._machines.emulators_of(cells)
        self._record.emulated = here or bool(elsewhere)
        self._recipes = recipes(hosts, self._flavor, self._machines.own)
        self._record.notes += [
            f"kernels of {' '.join(one.hosts)} start from its own configuration: {one.machine}"
            for one in self._recipes
            if one.machine is not None
        ]
        version = qemu.check_qemu() if here else ""
        if self._record.emulated:
            emulators = (*([f"QEMU {version}"] if here else []), *elsewhere)
            self._record.emulator = "; ".join(dict.fromkeys(emulators))
            self._record.notes.append(f"hosts are emulated by {self._record.emulator}")
        lab = [name for name, host in hosts.items() if isinstance(host, SshHost)]
        if lab:
            self._record.notes.append(f"machines of the lab: {' '.join(lab)}. {UNTRIED}")
        return version

    def _prepare(
        self, stock: Inventory, series: Series | None, contract: Contract, *, here: bool
    ) -> Prepared:
        """Make all that cells need; `here` says whether hosts are emulated on this machine."""
        options = self._options
        ground = prepare.ground(
            options.source or stock.defaults.source,
            self._progress,
            vmm=options.linux_guest,
            emulated=here,
        )
        source = ground.source
        self._record.notes += contract_notes(source, series, contract)
        if series is not None:
            note = series_module.check_base(
                series, source, allow_other_base=options.allow_other_base
            )
            self._record.notes += [note] if note else []
            self._record.series_base = series_base(series, contract, note)
        trees: dict[KernelLabel, Source | PatchedTree] = {"base": source}
        patched = None
        if series is not None:
            trees["patched"] = patched = prepare.patched_tree(series, source, self._progress)
        kernels = build_kernels(
            self._recipes,
            self._machines,
            source,
            patched,
            self._progress,
            self._record.kernels.append,
        )
        selftests = None
        if options.selftests or any(name.startswith(SELFTEST_CHECKS) for name in self._names):
            selftests = prepare.selftests(
                source, patched, self._progress, timed=options.timing is not None
            )
        linux_guest = None
        if options.linux_guest:
            kernel = guest_kernel(source, kernels, self._progress)
            linux_guest = prepare.linux_guest(kernel, self._progress)
        return Prepared(kernels, trees, ground, selftests, linux_guest)

    def _check_series(self, source: Source, patched: PatchedTree) -> None:
        """What is asked of the series as such, and of no cell; once for a run."""
        done = {check.name for check in self._record.series_checks}
        for which in SERIES_BUILDS:
            asked = self._options.build_others or not which.on_demand
            if asked and which.name not in done:
                self._build_of_series(which, source, patched)

    def _build_of_series(self, which: SeriesBuild, source: Source, patched: PatchedTree) -> None:
        with self._progress.stage(which.kernel):
            check = build_of_series(
                which,
                source,
                patched,
                self.folder,
                deadline=Deadline(prepare.BUILD_SECONDS),
                progress=lambda at: self._progress.now(prepare.describe(which.flavor.name, at)),
            )
        append(self.folder / RECORDS, check)
        self._record.series_checks = (*self._record.series_checks, check)
        self._progress.say(f"{check.name}: {check.outcome}: {check.observed}")

    # ---- the cells --------------------------------------------------------------------------

    def _run_cells(
        self,
        stock: Inventory,
        cells: Sequence[PlannedCell],
        prepared: Prepared,
    ) -> None:
        hosts = self._machines.of(cells)
        # Whatever else runs would be timed as well.
        alone = 1 if self._options.timing else 0
        jobs = alone or self._options.jobs or prepare.cells_at_once(list(hosts.values()))
        specs = CellSpecs(
            self._options,
            stock,
            self._machines,
            prepared,
            self.folder,
            self._record.series,
            self._whole,
            self._flavor,
        )
        choices = [specs.of(cell) for cell in cells]
        self.specs = tuple(first for first, *_ in choices)
        total = len(self.specs)
        recorded = {cell.id for cell in self._record.cells}
        left = [spec for spec in self.specs if spec.cell.id not in recorded]
        before = len(self._record.cells) - (total - len(left))

        folders = {spec.cell.id: spec.folder for spec in self.specs}

        def finished(_: CellSpec, cell: Cell, checks: tuple[Check, ...]) -> None:
            self._record.cells.append(cell)
            self._record.checks += checks
            settled = self._record.judged()[0]
            words = f"{settled[-1].outcome}" + (f": {cell.reason}" if cell.reason else "")
            done = f"{len(self._record.cells) - before}/{total}"
            self._progress.say(f"{done} {cell.id} ({cell.seconds:.1f} s): {words}")
            self._write("the cells have not all run yet")

        def tick(running: Sequence[str]) -> None:
            waits = ", ".join(
                f"{cell} ({number(folders[cell] / RECORDS)} checks)" for cell in running
            )
            done = f"{len(self._record.cells) - before}/{total}"
            self._progress.now(f"cells: {done} done, running: {waits}")

        began = spread.began(left)
        if self._goes_on:
            for spec in tuple(left):
                cell, checks = resume.take_up(spec, self._names)
                if cell is not None:
                    left.remove(spec)
                    finished(spec, cell, checks)
                elif checks:
                    self._progress.say(f"{spec.cell.id} goes on after {len(checks)} checks")
            self._progress.say(f"resumed: {total - len(left)} of {total} cells had ended before")
        seen = resume.boot_ids(self.folder)
        used = self._machines.of(spec.cell for spec in left).values()
        lab = sum(isinstance(host, SshHost) for host in used)
        at_once = min(len(left), lab + (jobs if lab < len(used) else 0))
        with self._progress.stage(f"{len(left)} cells, {at_once} at a time"):
            run_cells(
                left,
                jobs=jobs,
                finished=finished,
                tick=tick,
                say=self._progress.say,
                seen_boot_ids=seen,
                # A cell that outlives this process by a moment keeps others out for that long.
                pass_fds=(self._lock,),
                others={first.cell.id: more for first, *more in choices},
                has=began | spread.taken(self._record.cells),
            )

    def _decode(self, prepared: Prepared) -> None:
        """Keep what the kernels reported, with file and line; most runs have nothing of it."""
        ours = {spec.cell.id for spec in self.specs}
        struck = [cell for cell in self._record.judged()[0] if cell.splats and cell.id in ours]
        if not struck:
            return
        told = with_lines(struck, prepared, self.folder, self._progress, lines=self._options.lines)
        self._record.cells = [
            cell.model_copy(update=decoded(told[cell.id])) if cell.id in told else cell
            for cell in self._record.cells
        ]
        self._record.checks = list(decode.checks(self._record.checks, told))

    def _time(self, cells: Sequence[PlannedCell]) -> None:
        """What the boots of all rounds say together."""
        settled, checks = self._record.judged()
        found = {cell.id: timing.collect(cell, checks, self.folder) for cell in settled}
        self._record.times = timing.judge(cells, found, emulated=self._record.emulated)

    def _write(self, reason: str) -> Summary:
        """Write what is known; `reason` is why the run ended early, if it did."""
        return self._record.write(reason, self._input)


def require_named(options: Options) -> None:
    """UsageError for mails without the name of a contract that they are for."""
    if options.mbox is not None and (options.base_only or not options.series):
        raise UsageError("--mbox needs --series NAME, whose contract it is for")


def load_series(options: Options, stock: Inventory | None = None) -> Series:
    """The series that the user named, or the inventory's."""
    spec = options.series or ((stock or inventory.load(options.inventory)).defaults.series,)
    return series_module.load(spec if len(spec) > 1 else spec[0], options.mbox)


def _check_selection(options: Options) -> tuple[str, ...]:
    """The names of all checks of a cell.

    What would be refused in each cell is refused before anything is built.
    """
    return selection.checks(
        options.selection,
        options.checks,
        selftests=options.selftests,
        linux_guest=options.linux_guest,
    )
