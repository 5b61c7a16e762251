# SPDX-License-Identifier: GPL-2.0-only
"""Everything that the cells of a run need, once it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import inputs
from harness.kernel.apply import PatchedTree
from harness.kernel.built import Kernel
from harness.kernel.source import Source
from harness.prepare import Ground
from harness.recipes import Kernels, whose
from harness.results import KernelLabel
from harness.selftests.build import Selftests


@dataclass(frozen=True)
class Prepared:
    """Everything that cells need, once it is built."""

    kernels: tuple[Kernels, ...]
    trees: dict[KernelLabel, Source | PatchedTree]
    ground: Ground
    selftests: dict[KernelLabel, tuple[Selftests, ...]] | None
    """None if they were not asked for."""
    linux_guest: dict[str, Path] | None
    """As well."""

    def kernels_of(self, host: str) -> Mapping[KernelLabel, Kernel]:
        """Those that a host boots."""
        return next(made.of for made in self.kernels if host in made.recipe.hosts)

    @property
    def patched(self) -> PatchedTree | None:
        """The tree with the series, None without one."""
        tree = self.trees.get("patched")
        return tree if isinstance(tree, PatchedTree) else None


def inputs_of(prepared: Prepared) -> dict[str, str]:
    """What the run has built, as its run.json names it (inputs.made())."""
    built = [one for tests in (prepared.selftests or {}).values() for one in tests]
    files = [
        *prepared.ground.programs.values(),
        *(prepared.linux_guest or {}).values(),
        *(path for tests in built for path in tests.programs.values()),
    ]
    several = len(prepared.kernels) > 1
    build_ids = {
        f"{label} kernel{whose(made.recipe, several)}": kernel.build_id
        for made in prepared.kernels
        for label, kernel in made.of.items()
    }
    image = prepared.ground.image
    return inputs.made(build_ids, image.digest if image is not None else "", files)
