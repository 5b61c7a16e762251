# SPDX-License-Identifier: GPL-2.0-only
"""summary.json as a reader takes it: strictly, but for keys that it does not know.

A summary may have been written by a later version of the harness, or by somebody else.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from harness.errors import UsageError
from harness.report.evidence import opened
from harness.results import SCHEMA, SERIES, Summary

NAME = "summary.json"
MAX_BYTES = 64 << 20
_INTEGER = 1 << 64


def load(folder: Path) -> Summary:
    """The summary in a run folder, of a run that has ended or not.

    UsageError names the file and why it cannot be used: absent, too large, no JSON, a later schema,
    a value that is not what docs/summary.md says, a check of a cell that is not in it.
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


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _numbers(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _numbers(one)
