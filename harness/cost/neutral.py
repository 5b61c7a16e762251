# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that differ from the base in nothing that costs anything: the neutral mutants."""

from __future__ import annotations

from harness import prepare
from harness.errors import UsageError
from harness.kernel.built import Kernel
from harness.kernel.source import Source
from harness.mutants import table
from harness.progress import Progress

NONE = (
    "costs: no kernel with a neutral change could be made of this source, so only layouts told "
    "what is no difference"
)
"""A note of a run that asked for such kernels and has none."""


def kernels(source: Source, base: Kernel, progress: Progress) -> dict[str, Kernel]:
    """Those that go on the kernel without a series, by name; each takes a build unless cached.

    One that does not apply to this source, or does not compile there, is left out.
    """
    found = {}
    for name, mutant in table.load().mutants.items():
        if mutant.kind != "neutral" or mutant.series is not None:
            continue
        series = table.series_of(mutant, table.patch_of(name))
        try:
            tree = prepare.patched_tree(series, source, progress)
            found[name] = prepare.kernel(name, tree, base, progress)
        except UsageError as exc:
            progress.say(f"{name} tells nothing of costs here: {exc}")
    return found
