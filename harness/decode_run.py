# SPDX-License-Identifier: GPL-2.0-only
"""What the kernels of a run reported, with file and line by its own kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from harness import decode, prepare
from harness.deadline import Deadline
from harness.errors import UsageError
from harness.kernel import lines as kernel_lines
from harness.kernel.built import Kernel
from harness.prepared import Prepared
from harness.progress import Progress
from harness.results import Cell, KernelLabel


def with_lines(
    struck: Sequence[Cell], prepared: Prepared, folder: Path, progress: Progress, *, lines: bool
) -> dict[str, Cell]:
    """The records of cells in which a kernel reported something, decoded (decode.cells()).

    Without `lines` there are no kernels that know them.
    """

    def vmlinux_of(
        kernels: Mapping[KernelLabel, Kernel], label: KernelLabel, functions: Sequence[str]
    ) -> Path:
        if not lines:
            raise UsageError("--no-lines was given")
        deadline = Deadline(prepare.LINES_SECONDS)
        return kernel_lines.with_lines(
            kernels[label], prepared.trees[label], kernels["base"], functions, deadline
        )

    told: dict[str, Cell] = {}
    with progress.stage("file and line of what the kernel reported"):
        for made in prepared.kernels:
            own = [cell for cell in struck if cell.machine in made.recipe.hosts]
            vmlinux = partial(vmlinux_of, made.of)
            told |= decode.cells(own, folder, prepared.ground.source.dir, vmlinux)
    return told


def decoded(cell: Cell) -> dict[str, object]:
    """What decoding adds to a record; its judgement is made anew."""
    return {"splats": cell.splats, "splat_file": cell.splat_file}
