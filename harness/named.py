# SPDX-License-Identifier: GPL-2.0-only
"""The files of a run folder that summary.json names: evidence, and what the kernel reported."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath

from harness.results import Summary


def named(run: Summary) -> Iterator[tuple[str, str]]:
    """Each path with a word on what names it, in the order of the summary."""
    for cell in run.cells:
        if cell.splat_file:
            yield f"cell {cell.id}", cell.splat_file
    for check in run.checks:
        yield from ((f"check {check.name} of cell {check.cell}", one) for one in check.evidence)
    for figure in run.figures:
        yield from ((f"figure {figure.metric} on {figure.where}", one) for one in figure.evidence)


def missing(run: Summary, files: Collection[str]) -> Mapping[str, str]:
    """The paths that are none of these files, each with what names it first.

    A folder is there if one of the files is in it.
    """
    folders = (parent for path in files for parent in PurePosixPath(path).parents[:-1])
    there = {*files, *map(str, folders)}
    found: dict[str, str] = {}
    for by, path in named(run):
        if path not in there:
            found.setdefault(path, by)
    return found
