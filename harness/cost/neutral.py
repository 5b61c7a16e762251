# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that differ from the base in nothing that costs anything: the neutral mutants."""

from __future__ import annotations

from harness import prepare
from harness.kernel.build import Kernel
from harness.kernel.source import Source
from harness.mutants import table
from harness.progress import Progress


def kernels(source: Source, base: Kernel, progress: Progress) -> dict[str, Kernel]:
    """Those that go on the kernel without a series, by name; each takes a build unless cached."""
    found = {}
    for name, mutant in table.load().mutants.items():
        if mutant.kind == "neutral" and mutant.series is None:
            tree = prepare.patched_tree(
                table.series_of(mutant, table.patch_of(name)), source, progress
            )
            found[name] = prepare.kernel(name, tree, base, progress)
    return found
