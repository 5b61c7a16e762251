# SPDX-License-Identifier: GPL-2.0-only
"""From the values of all boots to figures, with notes on what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from harness import splatlog
from harness.errors import InfraError
from harness.figures.measured import Measured, no_result
from harness.plan import PlannedCell
from harness.results import Cell, Check, Figure, KernelLabel
from harness.timing import conditions
from harness.timing.conditions import OF_KERNEL, Conditions, differing
from harness.timing.options import ENOUGH
from harness.timing.rounds import Round, rounds
from harness.timing.values import FILE, METRICS, UNIT, Values

EMULATED = "emulated: time there says nothing of hardware"
NOTE = "times were measured on an emulated host, for the test's sake: none of them is a result"


@dataclass(frozen=True)
class Boot:
    """What one cell measured: a value for each metric, with the file that has its passes."""

    cell: str
    whole: bool
    """Whether all of it was one boot that ended well."""
    values: Mapping[str, float]
    evidence: Mapping[str, str]
    conditions: tuple[Conditions, ...] = ()
    changed: tuple[str, ...] = ()
    """What of them was another once a check had measured than before."""


@dataclass(frozen=True)
class Times:
    """All that a run learned of time."""

    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()


def collect(cell: Cell, checks: Sequence[Check], run_folder: Path) -> Boot:
    """What a cell's checks left in their evidence; InfraError for a file that is not ours."""
    values: dict[str, float] = {}
    evidence: dict[str, str] = {}
    before: dict[str, Conditions] = {}
    after: dict[str, Conditions] = {}
    for path in (path for check in checks if check.cell == cell.id for path in check.evidence):
        try:
            text = (run_folder / path).read_text(encoding="utf-8")
            if path.endswith(f"/{FILE}"):
                medians = Values.model_validate_json(text).medians()
                values |= medians
                evidence |= dict.fromkeys(medians, path)
            elif path.endswith(f"/{conditions.FILE}"):
                before[str(Path(path).parent)] = Conditions.model_validate_json(text)
            elif path.endswith(f"/{conditions.AFTER}"):
                after[str(Path(path).parent)] = Conditions.model_validate_json(text)
        except (OSError, ValidationError) as exc:
            raise InfraError(f"{path} is not what a cell writes: {exc}") from exc
    cut = any((run_folder / "cells" / cell.id).glob(splatlog.CUT))
    whole = cell.outcome not in ("fail", "error") and not cut
    both = [(before[place], after[place]) for place in after if place in before]
    changed = tuple(dict.fromkeys(name for pair in both for name in differing(pair)))
    return Boot(cell.id, whole, values, evidence, tuple(before.values()), changed)


def judge(cells: Sequence[PlannedCell], boots: Mapping[str, Boot], *, emulated: bool) -> Times:
    """Figures of what was measured on each kernel that was booted, from the rounds that are whole.

    A round is whole if each of its boots ended well and has a value of every metric. A round is
    left out for all metrics, so that all rest on the same boots.
    """
    all_rounds = rounds(cells)
    alone = not all_rounds[0].patched
    metrics = _metrics(all_rounds, boots)
    whole = tuple(one for one in all_rounds if _is_whole(one, boots, metrics))
    notes = list(_notes(all_rounds, whole, boots))
    if not metrics:
        nowhere = "no time was measured" if alone else "no time was measured on both kernels"
        return Times((), (*notes, nowhere))
    # Its numerics take a quarter of a second to load, and most runs time nothing.
    from harness.figures.judge import figures, floors

    measured = [_measured(name, cells[0], whole, boots) for name in metrics]
    found = floors(measured) if alone else figures(measured)
    if len(whole) < ENOUGH:
        why = f"{len(whole)} whole rounds, and fewer than {ENOUGH} show nothing"
        found = tuple(no_result(one, why) for one in found)
    if emulated:
        found = tuple(no_result(one, EMULATED) for one in found)
        notes.append(NOTE)
    in_force = {"conditions": _in_force(whole, boots)}
    return Times(tuple(one.model_copy(update=in_force) for one in found), tuple(notes))


_States = Mapping[KernelLabel, tuple[Conditions, ...]]
"""The conditions that the checks of each kernel's boots found."""


def _in_force(whole: Sequence[Round], boots: Mapping[str, Boot]) -> dict[str, str]:
    """The conditions, each in a line; "" for one that was not the same all the time.

    No other run is like this one in that, of which a note tells.
    """
    states = _states(whole, boots)
    changed = (name for one in whole for cell in one.cells for name in boots[cell].changed)
    varied = {*_unlike(states), *changed}
    words = {label: found[0].words() for label, found in states.items() if found}
    names = next(iter(words.values()), {})
    return {
        name: "" if name in varied else _each({label: said[name] for label, said in words.items()})
        for name in names
    }


def _each(said: Mapping[KernelLabel, str]) -> str:
    """What is in force on each kernel: "base 0x0007, patched 0x000f", said once if it is alike."""
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return ", ".join(f"{label} {words}" for label, words in said.items())


def _states(those: Sequence[Round], boots: Mapping[str, Boot]) -> _States:
    return {
        label: tuple(
            state for one in those for cell in one.of(label) for state in boots[cell].conditions
        )
        for label in get_args(KernelLabel)
    }


def _unlike(states: _States) -> tuple[str, ...]:
    """What must be alike and is not: on all boots, or on those of a kernel if it depends on it."""
    within = {name for found in states.values() for name in differing(found)}
    everywhere = differing([state for found in states.values() for state in found])
    return tuple(name for name in everywhere if name not in OF_KERNEL or name in within)


def _metrics(all_rounds: Sequence[Round], boots: Mapping[str, Boot]) -> tuple[str, ...]:
    """Those that each kernel has somewhere: what no boot of one can do drops no round."""
    cells = [[cell for one in all_rounds for cell in one.of(of)] for of in get_args(KernelLabel)]
    found = [{name for cell in those for name in _values(boots, cell)} for those in cells if those]
    return tuple(name for name in METRICS if all(name in names for names in found))


def _values(boots: Mapping[str, Boot], cell: str) -> Mapping[str, float]:
    return boots[cell].values if cell in boots else {}


def _is_whole(one: Round, boots: Mapping[str, Boot], metrics: Sequence[str]) -> bool:
    return all(
        cell in boots and boots[cell].whole and set(metrics) <= set(boots[cell].values)
        for cell in one.cells
    )


def _measured(
    metric: str, cell: PlannedCell, whole: Sequence[Round], boots: Mapping[str, Boot]
) -> Measured:
    def of(cells: Iterator[str]) -> tuple[float, ...]:
        return tuple(boots[one].values[metric] for one in cells)

    base = of(one.base for one in whole)
    again = of(one.again for one in whole if one.again)
    return Measured(
        metric=metric,
        what=METRICS[metric],
        unit=UNIT,
        host=cell.host,
        kvm_mode=cell.kvm_mode,
        af_mode=cell.af_mode,
        base=base,
        patched=of(one.patched for one in whole if one.patched),
        noise=(base, again) if again else None,
        evidence=tuple(boots[id_].evidence[metric] for one in whole for id_ in one.cells),
    )


def _notes(
    all_rounds: Sequence[Round], whole: Sequence[Round], boots: Mapping[str, Boot]
) -> Iterator[str]:
    dropped = [str(one.number) for one in all_rounds if one not in whole]
    if dropped:
        yield (
            f"time: left out of {len(all_rounds)} rounds, since a boot of them ended badly or "
            f"measured less than others: {', '.join(dropped)}"
        )
    measured = (boots[cell] for one in whole for cell in one.cells)
    loose = (words for boot in measured for state in boot.conditions for words in state.loose())
    if known := tuple(dict.fromkeys(loose)):
        yield f"time: could not be helped: {'; '.join(known)}"
    before: tuple[int, _States] | None = None
    for one in whole:
        states = _states((one,), boots)
        if names := _unlike(states):
            yield f"time: the boots of round {one.number} differ in {', '.join(names)}"
        elif any(states.values()):
            if before and (names := _unlike(_joined(before[1], states))):
                yield f"time: rounds {before[0]} and {one.number} differ in {', '.join(names)}"
            before = one.number, states
        for cell in one.cells:
            if names := boots[cell].changed:
                yield f"time: {', '.join(names)} changed while {cell} was measured"


def _joined(one: _States, other: _States) -> _States:
    return {label: found + other[label] for label, found in one.items()}
