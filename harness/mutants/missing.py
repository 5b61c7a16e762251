# SPDX-License-Identifier: GPL-2.0-only
"""What no run of a table has done that the table asks for: pure functions.

A mutant runs in each of its cells with each seed, and the kernel that it goes on runs there too,
with all checks that mutants name. So does a neutral mutant, with one seed at least. What is not so
is told, so that no page claims more than was run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.mutants.results import Ran, Result
from harness.mutants.table import Mutant
from harness.results import SERIES

# So many are named, the others counted.
SHOWN = 8


def sentence(results: Sequence[Result], mutants: Mapping[str, Mutant], seeds: Sequence[int]) -> str:
    """What is missing, or "" if nothing is; `results` are all of the table, and the controls."""
    left = [
        f"{one.name} {what}".strip()
        for one in results
        for what in _of(one, results, mutants, seeds)
    ]
    if not left:
        return ""
    more = f", and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    return f"not run in any part: {', '.join(left[:SHOWN])}{more}"


def _of(
    result: Result,
    results: Sequence[Result],
    mutants: Mapping[str, Mutant],
    seeds: Sequence[int],
) -> Iterator[str]:
    mutant = mutants.get(result.name)
    if result.kind not in ("break", "neutral", "control"):
        return
    if not result.ran:
        yield ""
        return
    if mutant is not None and mutant.of_series:
        return
    if result.kind != "neutral":
        yield from filter(None, (_with(seed, result, results, mutants) for seed in seeds))
        return
    tried = dict.fromkeys(one.seed for one in result.ran)
    left = [_with(seed, result, results, mutants) for seed in tried]
    if all(left):
        yield left[0]


def _with(
    seed: int, result: Result, results: Sequence[Result], mutants: Mapping[str, Mutant]
) -> str:
    """What of one did not run with a seed, "" if all did."""
    mutant = mutants.get(result.name)
    ran = [one for one in result.ran if one.seed == seed and one.cell != SERIES]
    if mutant is not None and mutant.kind == "break":
        what = _cells(ran, mutant)
    else:
        what = _sound(ran, _wanted(result, mutant, results, seed), _needs(result, mutants))
    if not what:
        return ""
    return f"{what} with seed {seed}" if ran else f"with seed {seed}"


def _cells(ran: Sequence[Ran], mutant: Mutant) -> str:
    """The KVM modes in which a break did not run in as many cells as its entry has."""
    cells = {one.cell for one in ran}
    wanted = [place.mode for place in mutant.places]
    fewer = [
        mode
        for mode in dict.fromkeys(wanted)
        if sum(cell.endswith(f"-{mode}") for cell in cells) < wanted.count(mode)
    ]
    return f"in {', '.join(fewer)}" if fewer else ""


def _wanted(
    result: Result, mutant: Mutant | None, results: Sequence[Result], seed: int
) -> frozenset[str]:
    """The cells in which a kernel with nothing wrong must have run, by those that others ran in."""
    kinds = ("break",) if mutant is None else ("break", "control")
    others = [one for one in results if one.kind in kinds and _ground(one) == _ground(result)]
    cells = {
        one.cell for other in others for one in other.ran if one.seed == seed and one.cell != SERIES
    }
    if mutant is None:
        return frozenset(cells)
    return frozenset(cell for cell in cells if cell.rpartition("-")[2] in mutant.modes)


def _ground(result: Result) -> tuple[str | None, bool]:
    """What tells kernels apart on which mutants are: the series, and whether it is a debug one."""
    return result.series, result.debug


def _needs(result: Result, mutants: Mapping[str, Mutant]) -> frozenset[str]:
    """All checks that mutants name on a kernel that is a debug one as this is, or is none."""
    return frozenset(
        name for one in mutants.values() if one.debug == result.debug for name in one.needs
    )


def _sound(ran: Sequence[Ran], cells: frozenset[str], needs: frozenset[str]) -> str:
    """The cells in which what must pass did not run, or not with each check that it must meet."""
    less = []
    for cell in sorted(cells):
        met = {name for one in ran if one.cell == cell for name in one.checks}
        if not met:
            less.append(cell)
        elif left := needs - met:
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            less.append(f"{cell} ({min(left)}{more})")
    return f"in {', '.join(less)}" if less else ""
