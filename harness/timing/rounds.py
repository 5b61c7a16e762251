# SPDX-License-Identifier: GPL-2.0-only
"""The boots of a measurement, in the order that chance gives them (docs/figures.md says why)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.errors import UsageError
from harness.plan import PlannedCell
from harness.timing.options import TimingOptions


@dataclass(frozen=True)
class Round:
    """The ids of a round's cells; `again` is the base kernel's second, "" without one."""

    number: int
    base: str
    patched: str
    again: str

    @property
    def cells(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(filter(None, (self.base, self.patched, self.again)))


def only_pair(planned: Sequence[PlannedCell]) -> tuple[PlannedCell, PlannedCell]:
    """The base and the patched cell of one host in one mode; UsageError if there are others.

    A series' boot variants are other configurations of the patched kernel, which are not timed.
    """
    where = dict.fromkeys(f"{cell.host} {cell.kvm_mode}" for cell in planned)
    if len(where) != 1:
        raise UsageError(
            "time is measured on one host in one mode of KVM: choose by --host and --mode among "
            f"{', '.join(where)}"
        )
    plain = {cell.kernel: cell for cell in planned if not cell.variant}
    if set(plain) != {"base", "patched"}:
        raise UsageError("time compares a series with its base: there is no series")
    return plain["base"], plain["patched"]


def boots(
    planned: Sequence[PlannedCell], seed: int, options: TimingOptions
) -> tuple[PlannedCell, ...]:
    """All cells in their order. Within a round each order of the boots is equally likely."""
    base, patched = only_pair(planned)
    rng = random.Random(f"rounds:{seed}")
    found: list[PlannedCell] = []
    for number in range(1, options.rounds + 1):
        name = f"r{number:02}"
        one = [replace(base, boot=name), replace(patched, boot=name)]
        one += [replace(base, boot=f"{name}-again")] if options.aa else []
        rng.shuffle(one)
        found += one
    return tuple(found)


def rounds(cells: Sequence[PlannedCell]) -> tuple[Round, ...]:
    """Which of the cells that boots() made belong together."""
    ids = {(cell.kernel, cell.boot): cell.id for cell in cells}
    # Of a hundred rounds the last one's name has a digit more.
    names = {
        int(cell.boot.removeprefix("r")): cell.boot for cell in cells if cell.kernel == "patched"
    }
    return tuple(
        Round(
            number,
            base=ids["base", name],
            patched=ids["patched", name],
            again=ids.get(("base", f"{name}-again"), ""),
        )
        for number, name in sorted(names.items())
    )
