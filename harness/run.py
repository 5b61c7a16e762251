# SPDX-License-Identifier: GPL-2.0-only
"""One run, whole: resolve, build, boot, check, judge, record."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from harness import (
    __version__,
    decode,
    inputs,
    inventory,
    prepare,
    resume,
    runinput,
    selection,
    spread,
    verdict,
)
from harness.cell import CellSpec
from harness.contract import Contract
from harness.contract import load as load_contract
from harness.cost import measure as cost
from harness.cost import neutral
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.hosts import qemu
from harness.inventory import Inventory, QemuHost, SshHost
from harness.kernel import config, lines
from harness.kernel import series as series_module
from harness.kernel.apply import PatchedTree
from harness.kernel.build import Builder, Kernel
from harness.kernel.flavor import DEBUG, PLAIN
from harness.kernel.series import Series
from harness.kernel.source import Source
from harness.machines import Machines
from harness.options import Options
from harness.plan import PlannedCell, not_used, plan
from harness.prepare import Checks
from harness.prepared import Prepared, inputs_of
from harness.programs import cost_program
from harness.progress import Progress
from harness.recipes import Kernels, Recipe, recipes, whose
from harness.records import append, read, write_atomically
from harness.report.junit import junit
from harness.report.text import text_report
from harness.results import Cell, Check, Host, KernelLabel, SeriesBase, Summary
from harness.results import Kernel as KernelRecord
from harness.runfolder import link_evidence, make_run_folder
from harness.runinput import RunInput
from harness.scheduler import run_cells
from harness.series_base import contract_notes, series_base
from harness.timing import SELFTEST_CHECKS
from harness.timing import judge as timing
from harness.timing.judge import Times
from harness.timing.rounds import boots
from harness.without_kvm import build_without_kvm

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
        self._clock = time.monotonic()
        self._cells: list[Cell] = list(step.base.cells) if step else []
        self._checks: list[Check] = list(step.base.checks) if step else []
        self._series_checks: tuple[Check, ...] = ()
        self._costs = cost.Found()
        self._times = Times()
        self._kernels: tuple[KernelRecord, ...] = ()
        self._series: Series | None = None
        self._message_id = ""
        self._series_base: SeriesBase = ""
        self._emulator = ""
        self._hosts: tuple[Host, ...] = ()
        self._recipes: tuple[Recipe, ...] = ()
        self._notes: list[str] = []
        self._names: tuple[str, ...] = ()
        self._emulated = False
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
                self._cells.append(cell)
                self._checks += checks
        of_series = read(self.folder / RECORDS)
        self._series_checks = tuple(one for one in of_series if isinstance(one, Check))
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
    def _first_patches(self) -> tuple[str, ...]:
        if self._step is None or self._whole:
            return ()
        return (f"only the patches up to {len(self._step.series.patches)}",)

    @property
    def verdict(self) -> str:
        """What the cells that ran so far amount to."""
        return verdict.of_run(self._judged()[0], self._beside)

    @property
    def _beside(self) -> tuple[Check, ...]:
        """The checks that no cell makes."""
        return (*self._series_checks, *self._costs.checks)

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
        if options.mbox is not None and (options.base_only or not options.series):
            raise UsageError("--mbox needs --series NAME, whose contract it is for")
        series = self._step.series if self._step else None
        if series is None and not options.base_only:
            series = load_series(options, stock)
        self._series = series
        contract = load_contract(series.contract if series else None)
        if series is not None:
            note = series_module.check_message_id(series, contract.message_id)
            self._notes += [note] if note else []
            # Of the mails alone: nobody may be told in a thread that its patches were tested
            # because a contract is named after it.
            self._message_id = series.message_id or ""
        self._look_at_machines(stock)
        cells = plan(
            stock,
            contract if series and self._whole else None,
            hosts=options.hosts,
            kvm_modes=options.kvm_modes,
            base_only=options.base_only,
            cmdline=self._flavor.cmdline,
        )
        if options.timing is not None:
            cells = boots(cells, options.seed, options.timing)
        self._hosts = tuple(
            Host(name=name, cpu=host.cpu, cpus=host.cpus, memory_mib=host.memory_mib)
            for name, host in self._machines.of(cells).items()
            if isinstance(host, QemuHost)
        )
        # The base's have run already.
        cells = tuple(cell for cell in cells if not (self._step and cell.kernel == "base"))
        emulator = self._look_at_hosts(stock, cells)
        self._agree(inputs.chosen(stock, series, options.checks, emulator))
        self._notes += not_used(stock, options.hosts)
        self._notes += [DEBUG_NOTE] if options.debug else []
        self._notes += options.narrowing
        self._names = () if options.costs_only else _check_selection(options)
        if options.junitxml is not None and not options.junitxml.resolve().parent.is_dir():
            raise UsageError(f"--junitxml {options.junitxml}: no such folder")
        prepared = self._prepare(stock, series, contract)
        self._agree(inputs_of(prepared))
        if self._goes_on:
            self._take_up()
        if prepared.patched is not None and not options.narrowed:
            self._check_series(prepared.ground.source, prepared.patched)
        self._write("the cells have not all run yet")
        if not options.costs_only:
            self._run_cells(stock, cells, prepared)
            self._decode(prepared)
        self._count(stock, cells, prepared, contract)
        if options.timing is not None:
            self._time(cells)
        return self._write("")

    # ---- before the cells -------------------------------------------------------------------

    def _look_at_machines(self, stock: Inventory) -> None:
        """Before anything is built: that all which are needed are fit, and what they have."""
        options = self._options
        self._machines = Machines(
            stock,
            options.hosts,
            self.folder.name,
            options.wait,
            self._progress,
            self._notes.append,
        )
        self._machines.look(self._step.base_folder if self._step is not None else self.folder)
        if not self._untouched:
            self._machines.keep(self.folder)
        own = self._machines.own
        self._agree({f"configuration of {name}": one.digest for name, one in own.items()})

    def _look_at_hosts(self, stock: Inventory, cells: Sequence[PlannedCell]) -> str:
        """Note what kinds of hosts there are, and what kernels they need.

        Returns the version of QEMU, "" if none is emulated.
        """
        hosts = self._machines.of(cells)
        self._emulated = any(isinstance(host, QemuHost) for host in hosts.values())
        self._recipes = recipes(hosts, self._flavor, self._machines.own)
        self._notes += [
            f"kernels of {' '.join(one.hosts)} start from its own configuration: {one.machine}"
            for one in self._recipes
            if one.machine is not None
        ]
        emulator = qemu.check_qemu() if self._emulated else ""
        if emulator:
            self._emulator = f"QEMU {emulator}"
            self._notes.append(f"hosts are emulated by {self._emulator}")
        lab = [name for name, host in hosts.items() if isinstance(host, SshHost)]
        if lab:
            self._notes.append(f"machines of the lab: {' '.join(lab)}. {UNTRIED}")
        return emulator

    def _prepare(self, stock: Inventory, series: Series | None, contract: Contract) -> Prepared:
        options = self._options
        ground = prepare.ground(
            options.source or stock.defaults.source,
            self._progress,
            vmm=options.linux_guest,
            emulated=self._emulated,
        )
        source = ground.source
        self._notes += contract_notes(source, series, contract)
        if series is not None:
            note = series_module.check_base(
                series, source, allow_other_base=options.allow_other_base
            )
            self._notes += [note] if note else []
            self._series_base = series_base(series, contract, note)
        trees: dict[KernelLabel, Source | PatchedTree] = {"base": source}
        patched = None
        if series is not None:
            trees["patched"] = patched = prepare.patched_tree(series, source, self._progress)
        kernels = self._all_kernels(source, patched)
        selftests = None
        if options.selftests or any(name.startswith(SELFTEST_CHECKS) for name in self._names):
            selftests = prepare.selftests(
                source, patched, self._progress, timed=options.timing is not None
            )
        linux_guest = None
        if options.linux_guest:
            linux_guest = prepare.linux_guest(self._guest_kernel(source, kernels), self._progress)
        return Prepared(kernels, trees, ground, selftests, linux_guest)

    def _all_kernels(self, source: Source, patched: PatchedTree | None) -> tuple[Kernels, ...]:
        """Those of each recipe, but of a machine that did not come as far as the base kernel.

        What goes wrong after that may be the series' doing. Base first: the patched kernel is built
        from a copy of its build folder.
        """
        found = []
        for recipe in self._recipes:
            kernels: dict[KernelLabel, Kernel] = {}
            try:
                with self._machines.builder(recipe.builder) as builder:
                    base = self._build(recipe, builder, "base", source, None)
                    kernels["base"] = base
                    if patched is not None:
                        kernels["patched"] = self._build(recipe, builder, "patched", patched, base)
            except InfraError as exc:
                if not recipe.builder or kernels:
                    raise
                self._machines.do_without(recipe.builder, exc)
            else:
                found.append(Kernels(recipe, kernels))
        return tuple(found)

    def _guest_kernel(self, source: Source, kernels: Sequence[Kernels]) -> Kernel:
        """The kernel of Linux guests: the base one, and never a debug or a machine's kernel."""
        for made in kernels:
            if made.recipe.flavor is PLAIN:
                return made.of["base"]
        return prepare.kernel("Linux guest", source, None, self._progress)

    def _check_series(self, source: Source, patched: PatchedTree) -> None:
        """What is asked of the series as such, and of no cell; once for a run."""
        if self._series_checks:
            return
        with self._progress.stage("kernel without KVM"):
            check = build_without_kvm(
                source,
                patched,
                self.folder,
                deadline=Deadline(prepare.BUILD_SECONDS),
                progress=lambda at: self._progress.now(prepare.describe("without KVM", at)),
            )
        append(self.folder / RECORDS, check)
        self._series_checks = (check,)
        self._progress.say(f"{check.name}: {check.outcome}: {check.observed}")

    def _build(
        self,
        recipe: Recipe,
        builder: Builder | None,
        label: KernelLabel,
        tree: Source | PatchedTree,
        base: Kernel | None,
    ) -> Kernel:
        several = len(self._recipes) > 1
        kernel = prepare.kernel(
            f"{label}{whose(recipe, several)}",
            tree,
            base,
            self._progress,
            recipe.flavor,
            machine=recipe.machine,
            builder=builder,
        )
        self._kernels += (
            KernelRecord(
                label=label,
                source=tree.description,
                version=kernel.release,
                build_id=kernel.build_id,
                config_sha256=kernel.config_sha256,
                cached=kernel.cached,
                build_seconds=round(kernel.seconds, 1),
                compiler=kernel.compiler,
                page_kib=config.page_kib(kernel.config.read_text()),
                hosts=recipe.hosts if several else (),
                builder=kernel.builder,
            ),
        )
        return kernel

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
        choices = [self._specs_of(cell, stock, prepared) for cell in cells]
        self.specs = tuple(first for first, *_ in choices)
        total = len(self.specs)
        recorded = {cell.id for cell in self._cells}
        left = [spec for spec in self.specs if spec.cell.id not in recorded]
        before = len(self._cells) - (total - len(left))

        def finished(_: CellSpec, cell: Cell, checks: tuple[Check, ...]) -> None:
            self._cells.append(cell)
            self._checks += checks
            settled = self._judged()[0]
            words = f"{settled[-1].outcome}" + (f": {cell.reason}" if cell.reason else "")
            done = f"{len(self._cells) - before}/{total}"
            self._progress.say(f"{done} {cell.id} ({cell.seconds:.1f} s): {words}")
            self._write("the cells have not all run yet")

        def tick(running: Sequence[str]) -> None:
            waits = ", ".join(running)
            done = f"{len(self._cells) - before}/{total}"
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
                has=began | spread.taken(self._cells),
            )

    def _specs_of(
        self, cell: PlannedCell, stock: Inventory, prepared: Prepared
    ) -> tuple[CellSpec, ...]:
        """The cell on each machine that may run it; one alone where times are compared."""
        machines = list(self._machines.of([cell]))
        if self._options.timing:
            machines = machines[:1]
        return tuple(self._spec(cell, name, stock, prepared) for name in machines)

    def _spec(
        self, cell: PlannedCell, machine: str, stock: Inventory, prepared: Prepared
    ) -> CellSpec:
        options = self._options
        series = self._series if cell.kernel == "patched" else None
        return prepare.cell_spec(
            cell,
            stock.host(machine),
            prepared.kernels_of(machine)[cell.kernel],
            prepared.ground,
            run_folder=self.folder,
            contract=series.contract if series and self._whole else None,
            becomes=series.contract if series and not self._whole else None,
            checks=Checks(
                options.checks,
                options.selection,
                options.seed,
                prepared.selftests[cell.kernel] if prepared.selftests is not None else None,
                prepared.linux_guest,
                timed=options.timing is not None,
            ),
            flavor=self._flavor,
            wait=options.wait,
            machine=machine,
        )

    def _decode(self, prepared: Prepared) -> None:
        """Keep what the kernels reported, with file and line; most runs have nothing of it."""
        ours = {spec.cell.id for spec in self.specs}
        struck = [cell for cell in self._judged()[0] if cell.splats and cell.id in ours]
        if not struck:
            return

        def vmlinux_of(
            kernels: Mapping[KernelLabel, Kernel], label: KernelLabel, functions: Sequence[str]
        ) -> Path:
            if not self._options.lines:
                raise UsageError("--no-lines was given")
            deadline = Deadline(prepare.LINES_SECONDS)
            return lines.with_lines(
                kernels[label], prepared.trees[label], kernels["base"], functions, deadline
            )

        told: dict[str, Cell] = {}
        with self._progress.stage("file and line of what the kernel reported"):
            for made in prepared.kernels:
                own = [cell for cell in struck if cell.machine in made.recipe.hosts]
                vmlinux = partial(vmlinux_of, made.of)
                told |= decode.cells(own, self.folder, prepared.ground.source.dir, vmlinux)
        self._cells = [
            cell.model_copy(update=_decoded(told[cell.id])) if cell.id in told else cell
            for cell in self._cells
        ]
        self._checks = list(decode.checks(self._checks, told))

    def _count(
        self,
        stock: Inventory,
        cells: Sequence[PlannedCell],
        prepared: Prepared,
        contract: Contract,
    ) -> None:
        """What aging costs each kernel, where that was asked for: once for a run."""
        options = self._options
        if options.cost is None:
            return
        places = cost.places(stock, ((cell.host, cell.kvm_mode) for cell in cells))
        # Only emulated hosts count, and these share their kernels.
        kernels = prepared.kernels_of(places[0].name) if places else {}
        wanted = bool(places) and options.cost.neutral
        source = prepared.ground.source
        alike = neutral.kernels(source, kernels["base"], self._progress) if wanted else {}
        found = cost.measure(
            places,
            {str(label): kernel for label, kernel in kernels.items()},
            cost_program(Deadline(prepare.IMAGE_SECONDS)),
            self.folder,
            self._progress,
            options=options.cost,
            at_once=options.jobs or prepare.cells_at_once([place.host for place in places]),
            contract=contract if self._series else None,
            neutral=alike,
        )
        skipped = cost.refusals(stock, options.hosts)
        self._costs = replace(found, checks=(*found.checks, *skipped))

    def _time(self, cells: Sequence[PlannedCell]) -> None:
        """What the boots of all rounds say together."""
        settled, checks = self._judged()
        found = {cell.id: timing.collect(cell, checks, self.folder) for cell in settled}
        self._times = timing.judge(cells, found, emulated=self._emulated)

    # ---- the record -------------------------------------------------------------------------

    def _judged(self) -> tuple[tuple[Cell, ...], tuple[Check, ...]]:
        return verdict.judge(self._cells, self._checks)

    def _write(self, reason: str) -> Summary:
        """Write summary.json and junit.xml; `reason` is why the run ended early, if it did."""
        cells, checks = self._judged()
        found = verdict.of_run(cells, self._beside)
        if reason and found != "fail":
            found = "error"
        series = self._series
        notes = (*self._notes, *spread.notes(cells), *self._times.notes)
        if verdict.only_base_failed(cells):
            notes += ("only the base kernel failed: the series may be the repair",)
        if verdict.nothing_new(cells, checks):
            notes += ("all that failed with the series failed the same way without it",)
        summary = Summary(
            schema=1,
            harness=__version__,
            harness_digest=self._input.inputs.get("harness", "").removeprefix(f"{__version__}, "),
            verdict=found,
            reason=reason,
            series=series.name if series else "",
            series_digest=series.digest if series else "",
            message_id=self._message_id,
            subject=series.subject if series else "",
            patches=tuple(patch.subject for patch in series.patches) if series else (),
            whole=self._whole and not self._options.narrowing,
            only=(*self._options.only, *self._first_patches),
            series_base=self._series_base,
            seed=self._options.seed,
            started=self._input.started,
            resumed=self._input.resumed,
            seconds=round(time.monotonic() - self._clock, 3),
            emulated=self._emulated,
            emulator=self._emulator,
            debug=self._options.debug,
            notes=notes,
            kernels=self._kernels,
            hosts=self._hosts,
            cells=cells,
            checks=(*self._beside, *checks),
            figures=(*self._costs.figures, *self._times.figures),
        )
        write_atomically(self.folder / resume.SUMMARY, summary)
        (self.folder / "junit.xml").write_text(junit(summary), encoding="utf-8")
        return summary


def load_series(options: Options, stock: Inventory | None = None) -> Series:
    """The series that the user named, or the inventory's."""
    spec = options.series or ((stock or inventory.load(options.inventory)).defaults.series,)
    return series_module.load(spec if len(spec) > 1 else spec[0], options.mbox)


def _decoded(cell: Cell) -> dict[str, object]:
    """What decoding adds to a record; its judgement is made anew."""
    return {"splats": cell.splats, "splat_file": cell.splat_file}


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
