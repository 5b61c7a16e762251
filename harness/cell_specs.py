# SPDX-License-Identifier: GPL-2.0-only
"""What the processes of a run's cells are told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness import prepare
from harness.cell import CellSpec
from harness.inventory import Inventory
from harness.kernel.flavor import Flavor
from harness.kernel.series import Series
from harness.machines import Machines
from harness.options import Options
from harness.plan import PlannedCell
from harness.prepare import Checks
from harness.prepared import Prepared


@dataclass(frozen=True)
class CellSpecs:
    """Says what the process of each cell is told."""

    options: Options
    stock: Inventory
    machines: Machines
    prepared: Prepared
    folder: Path
    """The run's."""
    series: Series | None
    whole: bool
    """Whether all patches of the series are there, so that its contract holds."""
    flavor: Flavor

    def of(self, cell: PlannedCell) -> tuple[CellSpec, ...]:
        """The cell on each machine that may run it; one alone where times are compared."""
        machines = list(self.machines.of([cell]))
        if self.options.timing:
            machines = machines[:1]
        return tuple(self._on(name, cell) for name in machines)

    def _on(self, machine: str, cell: PlannedCell) -> CellSpec:
        options, prepared = self.options, self.prepared
        series = self.series if cell.kernel == "patched" else None
        return prepare.cell_spec(
            cell,
            self.stock.host(machine),
            prepared.kernels_of(machine)[cell.kernel],
            prepared.ground,
            run_folder=self.folder,
            contract=series.contract if series and self.whole else None,
            becomes=series.contract if series and not self.whole else None,
            checks=Checks(
                options.checks,
                options.selection,
                options.seed,
                prepared.selftests[cell.kernel] if prepared.selftests is not None else None,
                prepared.linux_guest,
                timed=options.timing is not None,
            ),
            flavor=self.flavor,
            wait=options.wait,
            machine=machine,
        )
