# SPDX-License-Identifier: GPL-2.0-only
"""summary.json as a reader takes it: strictly, but for keys that it does not know.

A summary may have been written by a later version of the harness, or by somebody else.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from harness.errors import UsageError
from harness.named import named
from harness.report.evidence import opened
from harness.results import SCHEMA, SERIES, Splat, Summary

NAME = "summary.json"
MAX_BYTES = 64 << 20
# Reports cut words, and take names, paths and places as they are. The longest of a run here are
# paths: a cell, a check and a file, each the name of a file on disk (255 bytes at most).
MAX_NAME = 1024
# Of one check or figure: the most that there are comes of `cost --repeat`, three for each boot.
MAX_PATHS = 1 << 14
_INTEGER = 1 << 64


def load(folder: Path) -> Summary:
    """The summary in a run folder, of a run that has ended or not.

    UsageError names the file and why it cannot be used: absent, too large, no JSON, a later schema,
    a value that is not what docs/summary.md says, a check of a cell that is not in it, a name or a
    path that is too long.
    """
    path = folder / NAME
    with opened(folder, NAME) as handle:
        if handle is None:
            raise UsageError(
                f"{path}: no such file (and no link is followed): no run is recorded there"
            )
        # Read to the end, or to a byte too much: a read may give less than it is asked for.
        with os.fdopen(os.dup(handle), "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path}: larger than {MAX_BYTES >> 20} MiB")
    try:
        _check_schema(data)
        run = Summary.model_validate_json(data, strict=True, extra="ignore")
        _check(run)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path}: {where + ': ' if where else ''}{first['msg']}") from exc
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"{path}: {exc}") from exc
    return run


def _check_schema(data: bytes) -> None:
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    schema = value.get("schema")
    if type(schema) is not int or schema < 1:
        raise ValueError("no schema: not a run's summary")
    if schema > SCHEMA:
        raise ValueError(f"schema {schema} is of a later version; this one reads up to {SCHEMA}")


def _check(run: Summary) -> None:
    """What the types do not say; ValueError if it does not hold."""
    for what, name in _names(run):
        if len(name) > MAX_NAME:
            raise ValueError(
                f"{what} has {len(name)} characters, at most {MAX_NAME} are taken: {name[:80]!r}"
            )
    for by, count in Counter(by for by, _ in named(run)).items():
        if count > MAX_PATHS:
            raise ValueError(f"{by} names {count} files, at most {MAX_PATHS} are taken")
    cells = [cell.id for cell in run.cells]
    if len(set(cells)) < len(cells) or SERIES in cells:
        raise ValueError(f"a cell twice, or one that is called {SERIES!r}")
    known = {*cells, SERIES}
    names = set()
    for check in run.checks:
        if check.cell not in known:
            raise ValueError(f"a check of cell {check.cell[:80]!r}, which is not there")
        if (check.cell, check.name) in names:
            raise ValueError(f"check {check.name[:80]!r} of cell {check.cell[:80]!r} twice")
        names.add((check.cell, check.name))
    for number in _numbers(run.model_dump()):
        if not math.isfinite(number) or abs(number) > _INTEGER:
            raise ValueError("a number that is none, or is beyond 64 bits")


def _names(run: Summary) -> Iterator[tuple[str, str]]:
    """Names, paths and places in the source, each with what it is."""
    for kernel in run.kernels:
        yield from (("a host of a kernel", name) for name in kernel.hosts)
    for cell in run.cells:
        yield "the id of a cell", cell.id
        yield "the host of a cell", cell.host
        yield "the boot variant of a cell", cell.variant
        yield from _places(cell.splats, f"cell {cell.id}")
    for check in run.checks:
        yield "the name of a check", check.name
        yield from _places(check.splats, f"check {check.name}")
    for figure in run.figures:
        yield "the metric of a figure", figure.metric
        yield "the host of a figure", figure.host
        yield "the boot variant of a figure", figure.variant
    yield from ((f"a path that {by} names", path) for by, path in named(run))


def _places(splats: Iterable[Splat], by: str) -> Iterator[tuple[str, str]]:
    for splat in splats:
        yield from ((f"a place in a report of {by}", one) for one in (splat.site, *splat.where))


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _numbers(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _numbers(one)
