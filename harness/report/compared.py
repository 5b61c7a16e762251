# SPDX-License-Identifier: GPL-2.0-only
"""What cells with the patched kernel show beside those with the base kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.results import Cell, Outcome, Summary

WORST: tuple[Outcome, ...] = ("fail", "error", "unproven", "pass", "skip")
"""The outcomes, the one that counts most first."""


@dataclass(frozen=True)
class Pair:
    """A cell with the patched kernel, and that with the base kernel that it is held to."""

    base: Cell | None
    patched: Cell


@dataclass(frozen=True)
class Difference:
    """A check that ends otherwise with the patched kernel, and in which cells; None: not run."""

    name: str
    base: Outcome | None
    patched: Outcome | None
    cells: tuple[Cell, ...]


def pairs(run: Summary) -> tuple[Pair, ...]:
    """Same host, same KVM mode; the same boot variant if the base kernel has it, or none.

    Where `time` boots both again and again it is the base kernel's boot of the same round.
    """
    bases = {(c.host, c.kvm_mode, c.boot, c.variant): c for c in run.cells if c.kernel == "base"}

    def base_of(cell: Cell) -> Cell | None:
        where = cell.host, cell.kvm_mode, cell.boot
        return bases.get((*where, cell.variant)) or bases.get((*where, ""))

    return tuple(Pair(base_of(cell), cell) for cell in run.cells if cell.kernel == "patched")


def differences(run: Summary) -> tuple[Difference, ...]:
    """The checks that end differently in any pair, the worst with the patched kernel first."""
    outcomes: dict[str, dict[str, Outcome]] = {}
    for check in run.checks:
        outcomes.setdefault(check.cell, {})[check.name] = check.outcome
    found: dict[tuple[str, Outcome | None, Outcome | None], list[Cell]] = {}
    for pair in pairs(run):
        if pair.base is not None:
            before, after = (outcomes.get(c.id, {}) for c in (pair.base, pair.patched))
            for change in _changes(before, after):
                found.setdefault(change, []).append(pair.patched)
    return tuple(
        Difference(*change, tuple(cells))
        for change, cells in sorted(found.items(), key=lambda item: _rank(item[0][2]))
    )


def _changes(
    base: Mapping[str, Outcome], patched: Mapping[str, Outcome]
) -> Iterator[tuple[str, Outcome | None, Outcome | None]]:
    for name in dict.fromkeys((*base, *patched)):
        before, after = base.get(name), patched.get(name)
        if before != after:
            yield name, before, after


def _rank(outcome: Outcome | None) -> int:
    return len(WORST) if outcome is None else WORST.index(outcome)
