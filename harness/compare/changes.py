# SPDX-License-Identifier: GPL-2.0-only
"""What became of cells, checks and figures from one run to another: pure functions of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from harness.compare import counts
from harness.compare.like import Unlike, unlike
from harness.errors import EXIT_FAIL, EXIT_PASS, EXIT_UNPROVEN
from harness.figures.measured import Measured, no_result
from harness.results import Figure, KernelLabel, Outcome, Summary
from harness.timing.judge import EMULATED

SCHEMA = 1

Turn = Literal["worse", "better", "untold", "other"]
"""What a change of an outcome means; "untold": the later run does not tell."""

_T = TypeVar("_T")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Change(_Model):
    """An outcome that is another one now."""

    cell: str
    check: str
    """"" for the cell as a whole."""
    kernel: KernelLabel | None
    """None for a check of the series itself."""
    one: Outcome
    other: Outcome
    turn: Turn
    reason: str
    """Why it is not a pass now, as the later run says."""
    evidence: tuple[str, ...]
    """Of the later run, relative to its folder."""


class Compared(_Model):
    """One quantity in both runs."""

    figure: Figure
    """Its `base` are the values of the patched kernel in the one run, its `patched` those in the
    other, and its verdict is about the other. Of what is counted in runs without a patched kernel
    it is the control."""
    control: Figure
    """The same of the two base kernels: what else than the series changed."""


class Comparison(_Model):
    """Two runs, side by side (docs/compare.md)."""

    schema_version: int = Field(default=SCHEMA, alias="schema", serialization_alias="schema")
    one: str
    other: str
    """The names of their folders."""
    forced: bool = False
    """They are not of like things, and were compared nonetheless."""
    unlike: tuple[Unlike, ...] = ()
    changes: tuple[Change, ...] = ()
    alike: int = 0
    """Cells and checks with the same outcome in both."""
    figures: tuple[Compared, ...] = ()
    only_one: tuple[str, ...] = ()
    only_other: tuple[str, ...] = ()
    """Cells, checks and figures that only one of them has."""
    untold: tuple[str, ...] = ()
    """What else leaves open whether anything got worse, in words: a run that did not end, and what
    the later one has that did not change, or is new, and is neither a pass nor a skip."""

    @property
    def exit_code(self) -> int:
        """Whether anything got worse, or could not be told; what was shown is no worse, else."""
        turns = {change.turn for change in self.changes}
        verdicts = {one.figure.verdict for one in self.figures}
        if "worse" in turns or "worse" in verdicts:
            return EXIT_FAIL
        left = self.untold or self.only_one or self.forced
        told = not left and "untold" not in turns and "inconclusive" not in verdicts
        return EXIT_PASS if told else EXIT_UNPROVEN


def compare(one: Summary, other: Summary, names: tuple[str, str]) -> Comparison:
    """All that both runs have, and the names of what only one has."""
    left, right = _outcomes(one), _outcomes(other)
    changes = [
        change for key in left if key in right and (change := _change(key, left[key], right[key]))
    ]
    measured = {_key(figure): figure for figure in one.figures}
    again = {_key(figure): figure for figure in other.figures}
    both = [key for key in measured if key in again]
    differences = unlike(one, other)
    return Comparison(
        schema=SCHEMA,
        one=names[0],
        other=names[1],
        forced=bool(differences),
        unlike=differences,
        changes=tuple(changes),
        alike=len(left.keys() & right.keys()) - len(changes),
        figures=_compared(
            [(measured[key], again[key]) for key in both],
            EMULATED if one.emulated or other.emulated else "",
        ),
        only_one=_missing(left, right) + _missing(measured, again),
        only_other=_missing(right, left) + _missing(again, measured),
        untold=(*_unended(one, names[0]), *_unended(other, names[1]), *_untold(left, right)),
    )


def _unended(run: Summary, name: str) -> tuple[str, ...]:
    return (f"{name} has not come to its end: {run.reason}",) if run.reason else ()


_Key = tuple[str, ...]


class _Found(_Model):
    kernel: KernelLabel | None
    outcome: Outcome
    reason: str
    evidence: tuple[str, ...]


def _outcomes(run: Summary) -> dict[_Key, _Found]:
    """By cell, and by cell and check."""
    kernels = {cell.id: cell.kernel for cell in run.cells}
    found: dict[_Key, _Found] = {
        (cell.id,): _Found(
            kernel=cell.kernel, outcome=cell.outcome, reason=cell.reason, evidence=()
        )
        for cell in run.cells
    }
    for check in run.checks:
        found[check.cell, check.name] = _Found(
            kernel=kernels.get(check.cell),
            outcome=check.outcome,
            reason=check.reason or check.observed,
            evidence=check.evidence,
        )
    return found


def _change(key: _Key, one: _Found, other: _Found) -> Change | None:
    if one.outcome == other.outcome:
        return None
    return Change(
        cell=key[0],
        check="".join(key[1:]),
        kernel=other.kernel,
        one=one.outcome,
        other=other.outcome,
        turn=turn(one.outcome, other.outcome),
        reason="" if other.outcome == "pass" else other.reason,
        evidence=other.evidence,
    )


def _untold(left: Mapping[_Key, _Found], right: Mapping[_Key, _Found]) -> Iterator[str]:
    """What the later run does not tell, or tells with nothing to compare; changes apart."""
    for key, now in right.items():
        where, before = ", ".join(key), left.get(key)
        if before is None and now.outcome not in ("pass", "skip"):
            yield f"{where}: {now.outcome}, and not there before"
        elif before and before.outcome == now.outcome and now.outcome in ("error", "unproven"):
            yield f"{where}: {now.outcome}, as before"


def turn(one: Outcome, other: Outcome) -> Turn:
    """What it means that an outcome became another: only a failure is the kernel's fault."""
    if other == "fail":
        return "worse"
    if other in ("error", "unproven") or (other == "skip" and one in ("pass", "fail")):
        return "untold"
    return "better" if other == "pass" and one != "skip" else "other"


def _key(figure: Figure) -> _Key:
    return figure.where, figure.metric, figure.unit


def _compared(both: list[tuple[Figure, Figure]], doubt: str) -> tuple[Compared, ...]:
    """The patched kernels, each with the base kernel of its run as what must not change as much.

    `doubt` is why no time in these runs says anything, "" if it does.
    """
    timed = iter(_timed([pair for pair in both if not counts.counted(*pair)], doubt))
    return tuple(
        Compared(figure=counts.patched(one, other), control=counts.base(one, other))
        if counts.counted(one, other)
        else next(timed)
        for one, other in both
    )


def _timed(both: list[tuple[Figure, Figure]], doubt: str) -> Iterator[Compared]:
    """Of what is measured; that of which the run itself says that it is none is no result here."""
    # Its numerics take a quarter of a second to load, and runs that timed nothing do not need them.
    from harness.figures.judge import figures

    judged = figures([_patched(one, other) for one, other in both])
    controls = figures([_base(one, other) for one, other in both])
    for (one, other), figure, control in zip(both, judged, controls, strict=True):
        if why := doubt or one.doubt or other.doubt:
            yield Compared(figure=no_result(figure, why), control=no_result(control, why))
        else:
            yield Compared(figure=figure, control=control)


def _patched(one: Figure, other: Figure) -> Measured:
    return _measured(one, other, one.patched, other.patched, (one.base, other.base))


def _base(one: Figure, other: Figure) -> Measured:
    return _measured(one, other, one.base, other.base, None)


def _measured(
    one: Figure,
    other: Figure,
    first: tuple[float, ...],
    second: tuple[float, ...],
    noise: tuple[tuple[float, ...], tuple[float, ...]] | None,
) -> Measured:
    return Measured(
        metric=other.metric,
        what=other.what,
        unit=other.unit,
        host=other.host,
        kvm_mode=other.kvm_mode,
        af_mode=other.af_mode,
        variant=other.variant,
        more_is_better=other.more_is_better,
        base=first,
        patched=second,
        paired=False,
        noise=noise,
        evidence=other.evidence,
    )


def _missing(here: Mapping[_Key, _T], there: Mapping[_Key, _T]) -> tuple[str, ...]:
    """What only `here` has, without the checks of cells that only `here` has."""
    return tuple(
        ", ".join(key)
        for key in here
        if key not in there and (len(key) == 1 or key[:1] in there or key[:1] not in here)
    )
