# SPDX-License-Identifier: GPL-2.0-only
"""Build every mutant, boot it where it can show, run all checks there, and say what caught it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness import inventory, prepare, runinput, selection
from harness.cell import CellSpec
from harness.deadline import Deadline
from harness.errors import UsageError
from harness.hosts import qemu
from harness.inventory import Inventory, KvmMode
from harness.kernel.apply import PatchedTree, apply
from harness.kernel.built import Kernel
from harness.kernel.flavor import DEBUG, PLAIN, Flavor
from harness.kernel.series import Series
from harness.kernel.source import Source
from harness.mutants import judge, known, table
from harness.mutants.join import NAME, join, read
from harness.mutants.report import markdown, text_report
from harness.mutants.results import NAMED, Build, Matrix, Ran, Result, listed
from harness.mutants.table import Mutant, Place
from harness.plan import PlannedCell, not_used, plan
from harness.prepare import Checks, Ground
from harness.progress import Progress
from harness.records import write_atomically
from harness.results import SERIES, Cell, Check, Outcome
from harness.runfolder import make_run_folder
from harness.scheduler import run_cells
from harness.series_builds import SERIES_BUILDS, build_of_series
from harness.verdict import Verdict, worst
from harness.verdict import judge as judge_cells

UNFINISHED = "the cells have not all run yet"
BASE = "base"


@dataclass(frozen=True)
class Request:
    """What the command line asked for; None and () mean the whole or the inventory's."""

    table: Path = table.TABLE
    expression: str | None = None
    seeds: tuple[int, ...] = (1,)
    all_cells: bool = False
    named: bool = False
    hosts: tuple[str, ...] = ()
    kvm_modes: tuple[KvmMode, ...] = ()
    inventory: Path | None = None
    source: str | None = None
    jobs: int = 0
    output: Path | None = None
    markdown: Path | None = None


@dataclass(frozen=True)
class Subject:
    """A kernel whose cells are run: a mutant's, or that of a control, with nothing wrong in it."""

    name: str
    mutant: Mutant | None
    series: Series | None
    places: tuple[Place, ...]
    flavor: Flavor = PLAIN

    @property
    def base(self) -> str:
        """The control that it is compared with: the kernel without a series."""
        return _control(None, self.flavor)

    @property
    def ground(self) -> str:
        """The control that its kernel is built upon."""
        if self.mutant is None or self.mutant.of_series:
            return self.base
        return _control(self.mutant.series, self.flavor)

    @property
    def checks_series(self) -> bool:
        """Whether the checks of the series itself run: where one is named, or all must pass."""
        named = self.mutant is None or self.mutant.kind == "neutral" or self.mutant.of_series
        return self.series is not None and named and self.flavor is PLAIN

    @property
    def blank(self) -> Result:
        """Its result before anything was run."""
        if self.mutant is not None:
            return listed(self.name, self.mutant)
        return Result(
            name=self.name,
            kind="control",
            breaks="nothing: it must pass",
            series=self.series.name if self.series else None,
            debug=self.flavor is DEBUG,
        )


@dataclass(frozen=True)
class _Key:
    """One cell of one subject with one seed."""

    subject: str
    seed: int
    place: Place


def subjects(
    chosen: dict[str, Mutant], path: Path, available: Sequence[Place], *, whole: bool
) -> tuple[Subject, ...]:
    """The controls and what is to be run of the mutants.

    The base kernel runs in every place where anything runs: deaths are judged by it. A series
    that mutants go on runs, unbroken, where they do.
    """
    mutants = []
    # Every control is here after the base of its flavor, upon which it is built.
    grounds: dict[tuple[str | None, Flavor], set[Place]] = {}
    for name, mutant in chosen.items():
        if mutant.kind in ("equivalent", "cost"):
            continue
        places = table.places_of(mutant, available, whole=whole)
        if not places and not mutant.of_series:
            continue
        series = table.series_of(mutant, table.patch_of(name, path))
        flavor = DEBUG if mutant.debug else PLAIN
        mutants.append(Subject(name, mutant, series, places, flavor))
        for ground in dict.fromkeys((None, mutant.series)) if places else ():
            grounds.setdefault((ground, flavor), set()).update(places)
    controls = [
        Subject(
            _control(ground, flavor),
            None,
            table.ground(ground) if ground else None,
            tuple(place for place in available if place in where),
            flavor,
        )
        for (ground, flavor), where in grounds.items()
    ]
    return (*controls, *mutants)


def needed_by(
    subject: Subject, subjects: Sequence[Subject], whole_table: Iterable[Mutant]
) -> frozenset[str]:
    """The checks that a subject must meet.

    A mutant meets those that it needs. A control meets all that `subjects` name, of those on a
    kernel like its own, and a neutral mutant those of the whole table, whatever was chosen with it.
    """
    if subject.mutant and subject.mutant.check:
        return subject.mutant.needs
    alike = [one.mutant for one in subjects if one.mutant and one.flavor is subject.flavor]
    if subject.mutant:
        alike = [one for one in whole_table if one.debug == (subject.flavor is DEBUG)]
    return frozenset(name for mutant in alike for name in mutant.needs)


def selection_of(needed: frozenset[str], stress: frozenset[str], *, alone: bool) -> tuple[str, ...]:
    """What makes pytest select the checks that are needed, alone or with all but stress checks.

    Of the latter, which are all of `stress`, it takes those that are needed. For -k a marker is a
    name as well.
    """
    if alone and needed:
        return ("-k", " or ".join(sorted(needed)))
    rare = sorted(needed & stress)
    return ("-k", " or ".join(["not stress", *rare])) if rare else prepare.EVERYDAY


def ran_on_series(checks: Sequence[Check], seed: int, folder: str) -> Ran:
    """What checks of the series itself found; the worst of them counts, skips of some do not."""
    counted = [check.outcome for check in checks if check.outcome != "skip"]
    outcome: Outcome = worst(counted) if counted else "skip"
    return Ran(
        cell=SERIES,
        seed=seed,
        folder=folder,
        outcome=outcome,
        reason=next((check.reason for check in checks if check.outcome == outcome), ""),
        checks={check.name: check.outcome for check in checks},
        why={check.name: check.reason for check in checks if check.outcome == "fail"},
        seconds=round(sum(check.seconds for check in checks), 3),
    )


def _control(series: str | None, flavor: Flavor) -> str:
    name = series or BASE
    return name if flavor is PLAIN else f"{name}-{flavor.name}"


def show(
    matrix: Matrix, claims: Mapping[int, str], target: Path | None, progress: Progress
) -> None:
    """Print the matrix, and write it down where that is asked for."""
    progress.console.print()
    progress.console.print(text_report(matrix))
    if target is None:
        return
    try:
        target.write_text(markdown(matrix, claims), encoding="utf-8")
    except OSError as exc:
        raise UsageError(f"--markdown {target}: {exc.strerror}") from exc


def joined(request: Request, folders: Sequence[Path], progress: Progress) -> Matrix:
    """Show what several runs found, as if they were one; nothing is run."""
    whole = table.load(request.table)
    matrix = join([read(folder) for folder in folders], whole.mutants)
    show(matrix, whole.claims, request.markdown, progress)
    return matrix


class Mutants:
    """One run of the command and its folder. mutants.json says at any time what is known."""

    def __init__(self, request: Request, progress: Progress) -> None:
        self._request = request
        self._progress = progress
        self._clock = time.monotonic()
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._harness = runinput.harness()
        self._subjects: tuple[Subject, ...] = ()
        self._rest: tuple[Result, ...] = ()
        self._trees: dict[str, Source | PatchedTree] = {}
        self._kernels: dict[str, Kernel] = {}
        self._of_series: dict[str, Ran] = {}
        self._ended: dict[_Key, tuple[Cell, tuple[Check, ...]]] = {}
        self._stress: frozenset[str] = frozenset()
        self._claims: dict[int, str] = {}
        self._known: dict[str, table.Known] = {}
        self._mutants: tuple[Mutant, ...] = ()
        self.verdict: Verdict = "error"
        self._ground: Ground | None = None
        self._jobs = 0
        self._notes: list[str] = []
        self.folder = make_run_folder(request.output)

    def execute(self) -> Matrix:
        """Do all of it and show the matrix; what ends it early is recorded before it is raised."""
        self._progress.say(f"folder: {self.folder}")
        try:
            self._execute()
        except KeyboardInterrupt:
            self._write("interrupted")
            raise
        except Exception as exc:
            self._write(str(exc) or type(exc).__name__)
            raise
        matrix = self._write("")
        show(matrix, self._claims, self._request.markdown, self._progress)
        return matrix

    def _execute(self) -> None:
        request = self._request
        if request.markdown is not None and not request.markdown.resolve().parent.is_dir():
            raise UsageError(f"--markdown {request.markdown}: no such folder")
        stock = inventory.load(request.inventory)
        whole_table = table.load(request.table)
        self._claims = whole_table.claims
        self._known = whole_table.known
        self._mutants = tuple(whole_table.mutants.values())
        chosen = table.select(whole_table, request.expression)
        names = selection.checks()
        table.require_checks(chosen, names, request.table)
        if not request.named:
            self._stress = frozenset(names) - frozenset(selection.checks(prepare.EVERYDAY))
        available = tuple(self._cells(stock, PLAIN))
        self._subjects = subjects(chosen, request.table, available, whole=request.all_cells)
        run = {subject.name for subject in self._subjects}
        self._rest = tuple(listed(name, m) for name, m in chosen.items() if name not in run)
        if not self._subjects:
            raise UsageError("no selected mutant can show in the selected cells")
        if lab := [name for name in request.hosts if stock.host(name).kind == "ssh"]:
            raise UsageError(f"mutants are tested on emulated hosts, which {lab[0]} is none of")
        self._notes.append(f"hosts are emulated by QEMU {qemu.check_qemu()}")
        self._notes += not_used(stock, request.hosts)
        self._notes += self._narrowing()
        self._ground = prepare.ground(request.source or stock.defaults.source, self._progress)
        for subject in self._subjects:
            self._build(subject, self._ground)
            self._write(UNFINISHED)
        self._run_cells(stock, self._ground)

    def _cells(
        self, stock: Inventory, flavor: Flavor
    ) -> dict[Place, tuple[PlannedCell, PlannedCell]]:
        """Of each place the base's cell and the patched one, on the first host that has it."""
        request = self._request
        planned = plan(
            stock,
            None,
            hosts=request.hosts,
            kvm_modes=request.kvm_modes,
            cmdline=flavor.cmdline,
        )
        found: dict[Place, tuple[PlannedCell, PlannedCell]] = {}
        for base, patched in zip(planned[::2], planned[1::2], strict=True):
            found.setdefault(Place(base.kvm_mode, base.af_mode), (base, patched))
        return found

    def _narrowing(self) -> list[str]:
        request = self._request
        parts = {
            "mutants": request.expression or "",
            "hosts": " ".join(request.hosts),
            "KVM modes": " ".join(request.kvm_modes),
        }
        notes = [f"only some {name}: {text}" for name, text in parts.items() if text]
        return [*notes, NAMED] if request.named else notes

    # ---- kernels ----------------------------------------------------------------------------

    def _build(self, subject: Subject, ground: Ground) -> None:
        """The kernel of a subject, upon the build folder of a control, which comes before it."""
        tree: Source | PatchedTree = ground.source
        try:
            if subject.series is not None:
                under = self._trees.get(subject.ground, ground.source)
                tree = apply(subject.series, under, Deadline(prepare.SOURCE_SECONDS))
            if subject.places:
                self._kernels[subject.name] = prepare.kernel(
                    subject.name,
                    tree,
                    self._kernels[subject.ground] if subject.series is not None else None,
                    self._progress,
                    subject.flavor,
                    keep=subject.mutant is None,
                )
        except UsageError as exc:
            raise UsageError(f"mutant {subject.name}: {exc}") from exc
        self._trees[subject.name] = tree
        if isinstance(tree, PatchedTree) and subject.checks_series:
            self._check_series(subject, tree, ground)

    def _check_series(self, subject: Subject, tree: PatchedTree, ground: Ground) -> None:
        """Run what checks a series without a cell. No random choice is in it: once is enough.

        A break meets the one that it names; who must pass, those that are not dear.
        """
        seed = self._request.seeds[0]
        folder = self._run_folder(subject.name, seed)
        named = subject.mutant.check if subject.mutant else None
        checks = []
        for which in SERIES_BUILDS:
            if which.name != named if named else which.on_demand:
                continue
            with self._progress.stage(f"{subject.name}: {which.name}"):
                deadline = Deadline(prepare.BUILD_SECONDS)
                checks.append(
                    build_of_series(which, ground.source, tree, folder, deadline=deadline)
                )
        where = str((folder / SERIES).relative_to(self.folder))
        self._of_series[subject.name] = ran_on_series(checks, seed, where)

    # ---- cells ------------------------------------------------------------------------------

    def _run_cells(self, stock: Inventory, ground: Ground) -> None:
        keys = dict(self._specs(stock, ground))
        if not keys:
            return
        names = {spec.folder: key for key, spec in keys.items()}
        hosts = [spec.host for spec in keys.values()]
        self._jobs = self._request.jobs or prepare.cells_at_once(hosts)

        def finished(spec: CellSpec, cell: Cell, checks: tuple[Check, ...]) -> None:
            key = names[spec.folder]
            self._ended[key] = (cell, checks)
            done = f"{len(self._ended)}/{len(keys)}"
            where = f"{key.subject} in {cell.host}-{cell.kvm_mode}, seed {key.seed}"
            odd = [f"{c.name} {c.outcome}" for c in checks if c.outcome not in ("pass", "skip")]
            words = cell.reason or ", ".join(odd)
            self._progress.say(f"{done} {where} ({cell.seconds:.1f} s): {words or cell.outcome}")
            self._write(UNFINISHED)

        def tick(running: Sequence[str]) -> None:
            waits = ", ".join(running)
            self._progress.now(f"cells: {len(self._ended)}/{len(keys)} done, running: {waits}")

        with self._progress.stage(f"{len(keys)} cells, {self._jobs} at a time"):
            run_cells(
                tuple(keys.values()),
                jobs=self._jobs,
                finished=finished,
                tick=tick,
                say=self._progress.say,
            )

    def _specs(self, stock: Inventory, ground: Ground) -> Iterator[tuple[_Key, CellSpec]]:
        cells = {flavor: self._cells(stock, flavor) for flavor in (PLAIN, DEBUG)}
        for seed in self._request.seeds:
            for subject in self._subjects:
                for place in subject.places:
                    cell = cells[subject.flavor][place][subject.series is not None]
                    spec = prepare.cell_spec(
                        cell,
                        stock.host(cell.host),
                        self._kernels[subject.name],
                        ground,
                        run_folder=self._run_folder(subject.name, seed),
                        contract=subject.series.contract if subject.series else None,
                        checks=self._checks(subject, seed),
                        flavor=subject.flavor,
                    )
                    yield _Key(subject.name, seed, place), spec

    def _checks(self, subject: Subject, seed: int) -> Checks:
        """Nearly all; of a further seed, or if asked, those alone that are named."""
        further = seed != self._request.seeds[0] and bool(subject.mutant and subject.mutant.check)
        args = selection_of(
            needed_by(subject, self._subjects, self._mutants),
            self._stress,
            alone=self._request.named or further,
        )
        return Checks(seed=seed, pytest_args=args)

    def _run_folder(self, name: str, seed: int) -> Path:
        return self.folder / "runs" / f"{name}-seed{seed}"

    # ---- the record -------------------------------------------------------------------------

    def _ran(self, subject: Subject, key: _Key) -> Ran:
        """A cell that has ended, judged by comparison with the base kernel's."""
        cell, checks = self._ended[key]
        cells, all_checks = [cell], list(checks)
        base = self._ended.get(_Key(subject.base, key.seed, key.place))
        if base is not None and key.subject != subject.base:
            cells.append(base[0])
            all_checks += base[1]
        settled, judged = judge_cells(cells, all_checks)
        own = [check for check in judged if check.cell == cell.id]
        control = self._ended.get(_Key(subject.ground, key.seed, key.place), (None, ()))[1]
        ran = Ran(
            cell=f"{cell.host}-{cell.kvm_mode}",
            seed=key.seed,
            folder=str(Path("runs") / f"{key.subject}-seed{key.seed}" / "cells" / cell.id),
            outcome=settled[0].outcome,
            reason=self._placed(settled[0].reason),
            death=settled[0].death,
            checks={check.name: check.outcome for check in own},
            why={
                check.name: self._placed(check.reason) for check in own if check.outcome == "fail"
            },
            deaths={check.name: check.death for check in own if check.death},
            control=tuple(check.name for check in control if check.outcome == "fail")
            if subject.mutant
            else (),
            seconds=cell.seconds,
        )
        return ran if subject.mutant else self._explained(ran, subject, key.place)

    def _placed(self, text: str) -> str:
        """The same with files of this run told from its folder, as records are kept elsewhere."""
        return text.replace(f"{self.folder}/", "")

    def _explained(self, ran: Ran, control: Subject, place: Place) -> Ran:
        """A cell of a control, with the bugs that its kernel is known for where they explain it."""
        if ran.outcome != "fail" or self._ground is None:
            return ran
        version, debug = self._ground.source.version, control.flavor is DEBUG
        could = {
            name: bug
            for name, bug in self._known.items()
            if known.applies(bug, version, debug=debug, af=place.af)
        }
        reports = known.reports(self.folder / ran.folder)
        return ran.model_copy(update={"known": known.explained(ran, reports, could)})

    def _result(self, subject: Subject) -> Result:
        kernel = self._kernels.get(subject.name)
        build = None
        if kernel is not None:
            seconds = round(kernel.seconds, 1)
            build = Build(build_id=kernel.build_id, seconds=seconds, cached=kernel.cached)
        keys = [key for key in self._ended if key.subject == subject.name]
        ran = [self._ran(subject, key) for key in keys]
        if (checked := self._of_series.get(subject.name)) is not None:
            ran.append(checked)
        return judge.judge(subject.blank.model_copy(update={"build": build, "ran": tuple(ran)}))

    def _write(self, reason: str) -> Matrix:
        """Write mutants.json; `reason` is why it is not all, if it is not."""
        results = tuple(self._result(subject) for subject in self._subjects)
        found = self.verdict = judge.verdict(results)
        source = self._ground.source if self._ground else None
        matrix = Matrix(
            schema=1,
            harness=self._harness,
            # A miss stays one, whatever ended the run before its end.
            verdict="error" if reason and found != "fail" else found,
            reason=reason,
            source=source.description if source else "",
            version=source.version if source else "",
            seeds=self._request.seeds,
            started=self._started,
            seconds=round(time.monotonic() - self._clock, 1),
            jobs=self._jobs,
            notes=tuple(self._notes),
            results=(*results, *self._rest),
        )
        write_atomically(self.folder / NAME, matrix)
        return matrix
