# SPDX-License-Identifier: GPL-2.0-only
"""Build the kernels of a run: by each of its recipes the base and the one with the series."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness import prepare
from harness.errors import InfraError
from harness.kernel import config
from harness.kernel.apply import PatchedTree
from harness.kernel.bench import Builder
from harness.kernel.built import Kernel
from harness.kernel.flavor import PLAIN
from harness.kernel.source import Source
from harness.machines import Machines
from harness.progress import Progress
from harness.recipes import Kernels, Recipe, whose
from harness.results import Kernel as KernelRecord
from harness.results import KernelLabel


def build_kernels(
    recipes: Sequence[Recipe],
    machines: Machines,
    source: Source,
    patched: PatchedTree | None,
    progress: Progress,
    record: Callable[[KernelRecord], None],
) -> tuple[Kernels, ...]:
    """Those of each recipe, but of a machine that did not come as far as the base kernel.

    What goes wrong after that may be the series' doing. Base first: the patched kernel is built
    from a copy of its build folder. `record` is told of each kernel as soon as it is there.
    """
    several = len(recipes) > 1

    def build(
        recipe: Recipe,
        builder: Builder | None,
        label: KernelLabel,
        tree: Source | PatchedTree,
        base: Kernel | None,
    ) -> Kernel:
        name = f"{label}{whose(recipe, several)}"
        kernel = prepare.kernel(
            name,
            tree,
            base,
            progress,
            recipe.flavor,
            machine=recipe.machine,
            builder=builder,
        )
        record(_record(label, tree, kernel, recipe.hosts if several else ()))
        return kernel

    found = []
    for recipe in recipes:
        kernels: dict[KernelLabel, Kernel] = {}
        try:
            with machines.builder(recipe.builder) as builder:
                kernels["base"] = base = build(recipe, builder, "base", source, None)
                if patched is not None:
                    kernels["patched"] = build(recipe, builder, "patched", patched, base)
        except InfraError as exc:
            if not recipe.builder or kernels:
                raise
            machines.do_without(recipe.builder, exc)
        else:
            found.append(Kernels(recipe, kernels))
    return tuple(found)


def _record(
    label: KernelLabel, tree: Source | PatchedTree, kernel: Kernel, hosts: tuple[str, ...]
) -> KernelRecord:
    return KernelRecord(
        label=label,
        source=tree.description,
        source_digest=tree.digest if isinstance(tree, Source) else tree.source_digest,
        version=kernel.release,
        build_id=kernel.build_id,
        config_sha256=kernel.config_sha256,
        cached=kernel.cached,
        build_seconds=round(kernel.seconds, 1),
        compiler=kernel.compiler,
        page_kib=config.page_kib(kernel.config.read_text()),
        hosts=hosts,
        builder=kernel.builder,
    )


def guest_kernel(source: Source, kernels: Sequence[Kernels], progress: Progress) -> Kernel:
    """The kernel of Linux guests: the base one, and never a debug or a machine's kernel."""
    for made in kernels:
        if made.recipe.flavor is PLAIN:
            return made.of["base"]
    return prepare.kernel("Linux guest", source, None, progress)
