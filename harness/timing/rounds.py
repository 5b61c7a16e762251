# SPDX-License-Identifier: GPL-2.0-only
"""The boots of a measurement, in the order that chance gives them (docs/figures.md says why)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.errors import UsageError
from harness.plan import PlannedCell
from harness.results import KernelLabel
from harness.timing.options import TimingOptions

# What the base kernel's second boot has behind the name of its round.
AGAIN = "-again"


@dataclass(frozen=True)
class Round:
    """The ids of a round's cells; `again` is the base kernel's second. "" for one that is not."""

    number: int
    base: str
    patched: str
    again: str

    @property
    def cells(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(filter(None, (self.base, self.patched, self.again)))

    def of(self, kernel: KernelLabel) -> tuple[str, ...]:
        """Those of one kernel."""
        boots = (self.base, self.again) if kernel == "base" else (self.patched,)
        return tuple(filter(None, boots))


def one_of_each(planned: Sequence[PlannedCell]) -> tuple[PlannedCell, ...]:
    """The cell of each kernel on one host in one mode, base first; UsageError for several places.

    A series' boot variants are other configurations of the patched kernel, which are not timed.
    """
    where = dict.fromkeys(f"{cell.host} {cell.kvm_mode}" for cell in planned)
    if len(where) != 1:
        raise UsageError(
            "time is measured on one host in one mode of KVM: choose by --host and --mode among "
            f"{', '.join(where)}"
        )
    return tuple(cell for cell in planned if not cell.variant)


def boots(
    planned: Sequence[PlannedCell], seed: int, options: TimingOptions
) -> tuple[PlannedCell, ...]:
    """All cells in their order. Within a round each order of the boots is equally likely."""
    kernels = one_of_each(planned)
    rng = random.Random(f"rounds:{seed}")
    found: list[PlannedCell] = []
    for number in range(1, options.rounds + 1):
        name = f"r{number:02}"
        one = [replace(kernel, boot=name) for kernel in kernels]
        one += [replace(kernels[0], boot=f"{name}{AGAIN}")] if options.aa else []
        rng.shuffle(one)
        found += one
    return tuple(found)


def rounds(cells: Sequence[PlannedCell]) -> tuple[Round, ...]:
    """Which of the cells that boots() made belong together."""
    ids = {(cell.kernel, cell.boot): cell.id for cell in cells}
    # Of a hundred rounds the last one's name has a digit more.
    names = {
        int(boot.removeprefix("r")): boot
        for kernel, boot in ids
        if kernel == "base" and not boot.endswith(AGAIN)
    }
    return tuple(
        Round(
            number,
            base=ids["base", name],
            patched=ids.get(("patched", name), ""),
            again=ids.get(("base", f"{name}{AGAIN}"), ""),
        )
        for number, name in sorted(names.items())
    )
