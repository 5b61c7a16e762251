# SPDX-License-Identifier: GPL-2.0-only
"""tests/mutants/mutants.yaml: what each mutant breaks, where it can show, and what must catch it.

tests/mutants/README.md explains the keys. Every error names file, line and key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, get_args

from _pytest.mark.expression import Expression
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from harness.contract_file import CostMetric
from harness.errors import Death, UsageError
from harness.inventory import AfMode, KvmMode
from harness.kernel import diff
from harness.kernel import series as series_module
from harness.kernel.series import Patch, Series
from harness.observe.signatures import Kind as SplatKind
from harness.paths import PROJECT
from harness.results import KERNEL_LOG
from harness.series_builds import NAMES as OF_SERIES
from harness.yamlpos import load_yaml_model, problem_at

TABLE = PROJECT / "tests" / "mutants" / "mutants.yaml"

Kind = Literal["break", "neutral", "equivalent", "cost"]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=48)]
Line = Annotated[str, StringConstraints(pattern=r"^[^\n|]+$", max_length=200)]
CheckName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+(\[[a-z0-9_-]+\])?$")]
PlaceName = Annotated[str, StringConstraints(pattern=r"^(vhe|nvhe|protected) (hardware|software)$")]


# What stands for a mutant in every place that a verdict could lean on.
NEUTRAL_NAME = "series"
SERIES = PROJECT / "series"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Place:
    """What of a cell decides whether a mutant can show: KVM's mode, and who sets AF at stage 2."""

    mode: KvmMode
    af: AfMode

    def __str__(self) -> str:
        return f"{self.mode} {self.af}"


class Mutant(_Model):
    """One entry of the table."""

    breaks: Line
    """What it breaks; of a neutral one, what it changes."""
    kind: Kind = "break"
    claim: Annotated[int, Field(ge=1)] | None = None
    """The number of a claim that it stands for."""
    series: Name | None = None
    """The project's series that it goes on, None for the kernel without one."""
    modes: Annotated[tuple[KvmMode, ...], Field(min_length=1)] = get_args(KvmMode)
    stage2_af: Annotated[tuple[AfMode, ...], Field(min_length=1)] = get_args(AfMode)
    cells: tuple[PlaceName, ...] = ()
    """The cells that are run unless all are asked for: one for each reason why it shows."""
    check: CheckName | None = None
    """The check that must catch it, in each cell that it is run in."""
    during: CheckName | None = None
    """Where the kernel log must catch it: the check in whose course the kernel complains."""
    says: Line | None = None
    """What that check must say when it fails; what the kernel log complains of, say."""
    deaths: tuple[Death, ...] = ()
    """How the kernel may die in that check, or that of `during`, where a death is not likely to be
    a slow machine's."""
    debug: bool = False
    """Only a debug kernel can show it."""
    metric: CostMetric | None = None
    """The cost that must be found worse; needed by one that costs only, a break may have it."""
    shown_by: Line | None = None
    """Of an equivalent one or one that costs only: what would show it."""

    @model_validator(mode="after")
    def _consistent(self) -> Mutant:
        if (self.kind == "break") != (self.check is not None):
            raise ValueError("`check` names what catches a break, and nothing else has one")
        if (self.check == KERNEL_LOG) != (self.during is not None):
            raise ValueError(f"`during` goes with {KERNEL_LOG}, which needs it")
        if self.check == KERNEL_LOG and self.says is None:
            raise ValueError(f"{KERNEL_LOG} fails for any complaint: `says` is missing")
        if self.check is None and (self.says or self.deaths):
            raise ValueError("`says` and `deaths` are about `check`, which is missing")
        if (self.kind == "break" and not self.of_series) != bool(self.cells):
            raise ValueError("`cells` says where a break is run, and nothing else has them")
        if (self.kind in ("equivalent", "cost")) != (self.shown_by is not None):
            raise ValueError("`shown_by` goes with the kinds equivalent and cost, and they need it")
        if self.metric is None and self.kind == "cost":
            raise ValueError("`metric` is missing, and the kind cost needs it")
        if self.metric is not None and self.kind not in ("break", "cost"):
            raise ValueError("`metric` goes with the kinds cost and break")
        if (self.kind == "neutral") != (self.claim is None):
            raise ValueError("`claim` is missing, or a neutral one has it")
        for cell in self.cells:
            if not self.shows_in(_place(cell)):
                raise ValueError(f"it cannot show in {cell}, by its own modes and stage2_af")
        return self

    @property
    def of_series(self) -> bool:
        """Whether what must catch it is a check of the series, which runs in no cell."""
        return self.check in OF_SERIES

    @property
    def needs(self) -> frozenset[str]:
        """The checks of cells that must run for it to be caught."""
        named = (self.check, self.during)
        return frozenset(name for name in named if name and name not in OF_SERIES)

    @property
    def places(self) -> tuple[Place, ...]:
        """The places of `cells`."""
        return tuple(_place(cell) for cell in self.cells)

    def shows_in(self, place: Place) -> bool:
        """Whether it can be seen at all in such a cell."""
        return place.mode in self.modes and place.af in self.stage2_af


class Known(_Model):
    """A bug of the tested kernel, by which one with nothing else wrong in it may fail."""

    finding: Line
    """Its heading in docs/findings.md."""
    versions: Annotated[tuple[str, ...], Field(min_length=1)]
    """The kernels that have it, "6.12" or "6.12.117"."""
    stage2_af: Annotated[tuple[AfMode, ...], Field(min_length=1)] = get_args(AfMode)
    debug: bool = False
    """Only a debug kernel reports it; otherwise only a plain one is known to."""
    kind: SplatKind
    """What kind of report it is."""
    innermost: Annotated[tuple[Line, ...], Field(min_length=1)]
    """The innermost functions of the report, without those that print it."""
    says: Annotated[tuple[str, ...], Field(min_length=1)]
    """What stands in the report, each of them."""


class Table(_Model):
    """The whole file."""

    schema_version: Literal[1] = Field(alias="schema")
    claims: dict[int, Line]
    known: dict[Name, Known] = {}
    mutants: Annotated[dict[Name, Mutant], Field(min_length=1)]


def load(path: Path = TABLE) -> Table:
    """The table; UsageError if it is wrong, or does not agree with the patches beside it."""
    table = load_yaml_model(path, Table)
    for name, mutant in table.mutants.items():
        if mutant.claim is not None and mutant.claim not in table.claims:
            at = ("mutants", name, "claim")
            raise problem_at(path, at, f"there is no claim {mutant.claim} in this table")
        if mutant.series is not None and not (SERIES / mutant.series).is_dir():
            at = ("mutants", name, "series")
            raise problem_at(path, at, f"the project has no series {mutant.series!r}")
        if not patch_of(name, path).is_file():
            raise problem_at(path, ("mutants", name), f"there is no {patch_of(name, path).name}")
    for patch in sorted(path.parent.glob("*.patch")):
        if patch.stem not in table.mutants:
            raise problem_at(path, ("mutants",), f"{patch.name} is not in this table")
    return table


def require_checks(
    mutants: Mapping[str, Mutant], names: Collection[str], path: Path = TABLE
) -> None:
    """UsageError unless each check that these mutants name is one of those that exist."""
    for name, mutant in mutants.items():
        for key in ("check", "during"):
            check = getattr(mutant, key)
            if check not in (None, *OF_SERIES, *names):
                raise problem_at(path, ("mutants", name, key), f"there is no check {check!r}")


def patch_of(name: str, path: Path = TABLE) -> Path:
    """The patch of a mutant, beside the table."""
    return path.parent / f"{name}.patch"


def select(table: Table, expression: str | None) -> dict[str, Mutant]:
    """The mutants whose names match an expression as pytest's -k has it; UsageError if none."""
    if not expression:
        return dict(table.mutants)
    try:
        compiled = Expression.compile(expression)
    except SyntaxError as exc:
        raise UsageError(f"-k {expression}: {exc}") from None
    chosen = {
        name: mutant
        for name, mutant in table.mutants.items()
        if compiled.evaluate(partial(_part_of, name))
    }
    if not chosen:
        raise UsageError(f"-k {expression} selects no mutant")
    return chosen


def _part_of(name: str, word: str, /, **_: str | int | bool | None) -> bool:
    return word in name


def series_of(mutant: Mutant, patch: Path) -> Series:
    """The mutant as a series: its bare diff, with nothing to go by.

    Neither its name nor a subject, author or text comes with it, so no verdict can lean on them.
    The contract is that of the series that it goes on. One that a check of the series must catch
    comes with that series' patches: such a check builds upon the source without any.
    """
    under = ground(mutant.series) if mutant.series else None
    try:
        text = diff.extract(patch.read_bytes())
        files = diff.files(text)
    except (OSError, diff.DiffError) as exc:
        raise UsageError(f"{patch}: {exc}") from None
    if not files:
        raise UsageError(f"{patch} is no patch: there is no diff in it")
    patches: tuple[Patch, ...] = (Patch("", "", b"", text, "the mutant", files),)
    if under is not None and mutant.of_series:
        patches = (*under.patches, *patches)
    return Series(
        name=NEUTRAL_NAME,
        patches=patches,
        digest=series_module.digest_of([one.diff for one in patches]),
        contract=under.contract if under else None,
    )


def ground(name: str) -> Series:
    """The project's series of that name, whatever the current folder holds."""
    return series_module.load(str(SERIES / name))


def places_of(mutant: Mutant, available: Sequence[Place], *, whole: bool) -> tuple[Place, ...]:
    """Where to run a mutant, of the places that there are: its own cells, or all where it shows."""
    if mutant.of_series:
        return ()
    if mutant.kind == "neutral" or whole:
        return tuple(place for place in available if mutant.shows_in(place))
    return tuple(place for place in available if place in mutant.places)


def _place(text: str) -> Place:
    mode, af = text.split(" ")
    return next(
        Place(known, who)
        for known in get_args(KvmMode)
        for who in get_args(AfMode)
        if (known, who) == (mode, af)
    )
