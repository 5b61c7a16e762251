# SPDX-License-Identifier: GPL-2.0-only
"""What aging costs with the kernels of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness import prepare
from harness.contract import Contract
from harness.cost import measure as cost
from harness.cost import neutral
from harness.deadline import Deadline
from harness.inventory import Inventory
from harness.options import Options
from harness.plan import PlannedCell
from harness.prepared import Prepared
from harness.programs import cost_program
from harness.progress import Progress


def count(
    stock: Inventory,
    cells: Sequence[PlannedCell],
    prepared: Prepared,
    contract: Contract | None,
    folder: Path,
    progress: Progress,
    options: Options,
) -> cost.Found:
    """What aging costs each kernel, where that was asked for: once for a run.

    `contract` is the series', None without one; `folder` the run's.
    """
    if options.cost is None:
        return cost.Found()
    places = cost.places(stock, ((cell.host, cell.kvm_mode) for cell in cells))
    # Only emulated hosts count, and these share their kernels.
    kernels = prepared.kernels_of(places[0].name) if places else {}
    wanted = bool(places) and options.cost.neutral
    source = prepared.ground.source
    alike = neutral.kernels(source, kernels["base"], progress) if wanted else {}
    found = cost.measure(
        places,
        {str(label): kernel for label, kernel in kernels.items()},
        cost_program(Deadline(prepare.IMAGE_SECONDS)),
        folder,
        progress,
        options=options.cost,
        at_once=options.jobs or prepare.cells_at_once([place.host for place in places]),
        contract=contract,
        neutral=alike,
    )
    skipped = cost.refusals(stock, options.hosts)
    notes = (neutral.NONE,) if wanted and not alike else ()
    return replace(found, checks=(*found.checks, *skipped), notes=notes)
