# SPDX-License-Identifier: GPL-2.0-only
"""kvm-harness cost --mutants: do the costs catch kernels that are right, and cost more?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from textwrap import wrap

from harness import inventory, prepare
from harness.cost import measure as cost
from harness.cost import neutral
from harness.cost.measure import Found, Place
from harness.cost.options import CostOptions
from harness.deadline import Deadline
from harness.errors import HarnessError, InfraError, UsageError
from harness.hosts import qemu
from harness.inventory import Inventory
from harness.kernel.apply import PatchedTree, apply
from harness.kernel.built import Kernel
from harness.kernel.source import Source
from harness.mutants import table
from harness.mutants.table import Mutant
from harness.plan import plan
from harness.printable import clip, one_line
from harness.programs import cost_program
from harness.progress import Progress
from harness.records import write_text_atomically
from harness.report.text import EMULATION
from harness.results import Figure
from harness.runfolder import make_run_folder
from harness.verdict import Verdict

NAME = "cost-mutants.md"
MAX_WORDS = 300
_HEAD = """\
<!-- SPDX-License-Identifier: GPL-2.0-only -->
<!-- Made by `kvm-harness cost --mutants`, which leaves it in its folder. -->
# Mutants that cost

Each costs more than it should; most do for all that what they should. It is **caught** if the cost
that its entry in [tests/mutants](../tests/mutants/README.md) names is worse than on the kernel that
it goes on, by more than layouts make of it, and neutral changes where it goes on the base.
[cost.md](cost.md) says what the costs are.

| mutant | what it costs | on | host | found | worse: base -> mutant | not judged another |
|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Tried:
    """A mutant, where it was counted, and what came of it."""

    name: str
    mutant: Mutant
    place: str
    """The id of the place, "" if there was none for it."""
    found: Found = field(default_factory=Found)
    error: str = ""
    """Why there are no figures, "" if there are."""

    @property
    def worse(self) -> tuple[Figure, ...]:
        """What costs more than on the kernel that it goes on."""
        return tuple(one for one in self.found.figures if one.verdict == "worse")

    @property
    def word(self) -> str:
        """Whether that which must be worse is; "error" if nothing was counted."""
        if self.error:
            return "error"
        caught = self.mutant.metric in {figure.metric for figure in self.worse}
        return "caught" if caught else "missed"


class Mutants:
    """One run of the command, and its folder: evidence by mutant, and the table so far."""

    def __init__(
        self,
        progress: Progress,
        *,
        source: str | None = None,
        inventory_file: Path | None = None,
        output: Path | None = None,
    ) -> None:
        self._progress = progress
        self._source = source
        self._stock = inventory.load(inventory_file)
        self._neutral: dict[str, Kernel] = {}
        self._built: dict[str, tuple[Source | PatchedTree, Kernel]] = {}
        self.folder = make_run_folder(output)

    def execute(self, options: CostOptions, *, jobs: int, expression: str | None) -> Verdict:
        """Build and count each mutant that names a cost: is each caught by that?

        Each on one host in one mode of KVM, the first where it can show. One that nothing can be
        counted of keeps no other from being tried.
        """
        chosen = {
            name: mutant
            for name, mutant in table.select(table.load(), expression).items()
            if mutant.metric is not None
        }
        if not chosen:
            raise UsageError(f"-k {expression} selects no mutant that names a cost")
        qemu.check_qemu()
        source = self._source or self._stock.defaults.source
        tree = prepare.ground(source, self._progress).source
        base = prepare.kernel("base", tree, None, self._progress)
        self._built[""] = (tree, base)
        if options.neutral:
            self._neutral = neutral.kernels(tree, base, self._progress)
        tried: list[Tried] = []
        for name, mutant in chosen.items():
            tried.append(self._try(name, mutant, options, jobs))
            why = tried[-1].error
            self._progress.say(f"{name}: {tried[-1].word}{f': {why}' if why else ''}")
            text = "\n".join(
                [_HEAD, *map(_row, tried), "", *_foot(tree, options, bool(self._neutral))]
            )
            write_text_atomically(self.folder / NAME, text)
        return verdict(tried)

    def _try(self, name: str, mutant: Mutant, options: CostOptions, jobs: int) -> Tried:
        where = ""
        try:
            place = _place(self._stock, mutant)
            where = place.id
            found = self._count(name, mutant, place, options, jobs)
        except HarnessError as exc:
            return Tried(name, mutant, where, error=str(exc))
        return Tried(name, mutant, where, found, "" if found.figures else found.checks[0].observed)

    def _count(
        self, name: str, mutant: Mutant, place: Place, options: CostOptions, jobs: int
    ) -> Found:
        return cost.measure(
            (place,),
            {"base": self._ground(mutant)[1], "patched": self._kernel(name, mutant)},
            cost_program(Deadline(prepare.IMAGE_SECONDS)),
            self.folder / name,
            self._progress,
            options=options,
            at_once=jobs or prepare.cells_at_once([place.host]),
            # Those of a series are another thing: they differ from it in more than what is neutral.
            neutral=self._neutral if mutant.series is None else None,
        )

    def _ground(self, mutant: Mutant) -> tuple[Source | PatchedTree, Kernel]:
        """What the mutant goes on: the source, or one of the project's series."""
        name = mutant.series or ""
        if name not in self._built:
            source, base = self._built[""]
            tree = apply(table.ground(name), source, Deadline(prepare.SOURCE_SECONDS))
            kernel = prepare.kernel(name, tree, base, self._progress, keep=True)
            self._built[name] = (tree, kernel)
        return self._built[name]

    def _kernel(self, name: str, mutant: Mutant) -> Kernel:
        under, base = self._ground(mutant)
        series = table.series_of(mutant, table.patch_of(name))
        tree = apply(series, under, Deadline(prepare.SOURCE_SECONDS))
        return prepare.kernel(name, tree, base, self._progress)


def verdict(tried: Sequence[Tried]) -> Verdict:
    """A miss outranks what could not be counted, as a failure does an error."""
    words = {one.word for one in tried}
    return "fail" if "missed" in words else "error" if "error" in words else "pass"


def _place(stock: Inventory, mutant: Mutant) -> Place:
    for cell in plan(stock, None, base_only=True):
        if mutant.shows_in(table.Place(cell.kvm_mode, cell.af_mode)):
            return Place(cell.host, stock.emulated(cell.host), cell.kvm_mode)
    raise InfraError("no host where such a mutant can show")


def _row(one: Tried) -> str:
    others = [figure for figure in one.found.figures if figure not in one.worse]
    cells = (
        f"`{one.name}`",
        one.mutant.breaks,
        one.mutant.series or "base",
        one.place or "-",
        _word(one),
        "; ".join(map(_figure, one.worse)) or "none",
        "; ".join(map(_figure, others)),
    )
    return f"| {' | '.join(cells)} |"


def _word(one: Tried) -> str:
    why = clip(one_line(one.error), MAX_WORDS).replace("|", r"\|")
    return {"missed": "**missed**", "error": f"**error**: {why}"}.get(one.word, one.word)


def _figure(figure: Figure) -> str:
    better = ", better" if figure.verdict == "better" else ""
    return f"{figure.metric} {median(figure.base):.2f} -> {median(figure.patched):.2f}{better}"


def _foot(source: Source | PatchedTree, options: CostOptions, has_neutral: bool) -> Iterator[str]:
    others = "with" if has_neutral else "without"
    yield f"{source.description} ({source.version}), {options.layouts} layouts of each kernel,"
    yield f"{others} the neutral mutants."
    yield ""
    yield from wrap(f"Instructions are counted on emulated hosts. {EMULATION}", 100)
    yield ""
